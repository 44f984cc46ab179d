"""A search's YAML whose every line is known, for tests of what is said about mistakes in it."""

from pathlib import Path

from tune.spec import SearchSpec, load_spec

LINES = """\
study: eggs
trial:
  data: {train: [{root: /data/eggs}], val_fraction: 0.1}
  policy: {chunk_size: 50}
  optim:
    samples: 800_000
    lr: 1.0e-4
  eval: {horizon_s: 1.0}
search:
  weighting.alpha: {type: float, low: 0.0, high: 2.0}
  optim.batch_size: {type: categorical, choices: [8, 16, 32]}
  policy.chunk_size:
    type: int
    low: 30
    high: 50
    step: 10
  optim.schedule: {type: categorical, choices: [constant, cosine]}
  optim.final_lr:
    type: float
    low: 1.0e-7
    high: 1.0e-5
    log: true
    when: {optim.schedule: cosine}
warm_start:
  baseline: {weighting.alpha: 0.0, optim.batch_size: 8, policy.chunk_size: 50, optim.schedule: constant}
  quick_wins:
    weighting.alpha: 1.0
    optim.batch_size: 16
    policy.chunk_size: 30
    optim.schedule: constant
objective: {metric: val/critical_action_mse, mode: min}
budget: {trials: 64, hours: 48}
asha:
  grace_samples: 50_000
  reduction_factor: 3
resources: {gpus: 0.5, cpus: 4}
tracking: {experiment: eggs}
storage: runs
seed: 0
""".splitlines()


def written(folder: Path, edits: dict[int, str | None] | None = None) -> Path:
    """The YAML in a file, with lines (from 1) replaced; None takes a line out, ``\\n`` adds some."""
    lines = {number: line for number, line in enumerate(LINES, 1)} | (edits or {})
    path = folder / "eggs.yaml"
    path.write_text("\n".join(line for line in lines.values() if line is not None) + "\n", encoding="utf-8")
    return path


def loaded(folder: Path, edits: dict[int, str | None] | None = None, assignments: tuple[str, ...] = ()) -> SearchSpec:
    """The specification that :func:`written` makes."""
    return load_spec(written(folder, edits), assignments)[0]
