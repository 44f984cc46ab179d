"""A search cut down to seconds: every branch of the space once, on a tiny policy, on the CPU."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from smolvla_core.config import TINY, set_dotted
from smolvla_core.errors import ConfigError
from tune.records import TrialRecord
from tune.space import Space, base_values, ends, make_space
from tune.spec import SearchSpec, load_spec

STEPS = 2
DEMO_DATA = Path("runs/demo_data/lerobot")
"""What ``make demo`` writes; taken where the specification's own data is not there."""


def demo_data() -> Path:
    """The demo's dataset, written on the first call."""
    if not (DEMO_DATA / "meta" / "info.json").is_file():
        from smolvla_core.data.behavior import import_behavior
        from smolvla_core.data.synthetic import write_synthetic

        raw = DEMO_DATA.with_name("raw")
        if not raw.is_dir():
            write_synthetic(raw)
        import_behavior(raw, DEMO_DATA)
    return DEMO_DATA.absolute()


def with_demo_data(yaml: str, assignments: Sequence[str]) -> list[str]:
    """The assignments, and one that takes the demo's data where the YAML's own is not there.

    Raises:
        ConfigError: the YAML is wrong in another way.
    """
    placeholder = f"data.train.0.root={DEMO_DATA}"
    load_spec(yaml, [*assignments, placeholder])
    try:
        own = load_spec(yaml, assignments)[0].trial["data"]["train"][0]
    except ConfigError:  # an environment variable that names the data is not set
        own = {"root": ""}
    if own.get("root") is None or Path(own["root"]).is_dir():
        return list(assignments)
    return [*assignments, f"data.train.0.root={demo_data()}"]


def smoke_spec(spec: SearchSpec) -> SearchSpec:
    """The search with one short trial for each branch of its space, as warm starts.

    The policy is ``tiny``; the budget is two steps of the largest batch, with one rung between them;
    MLflow's store is a file in the storage's ``smoke`` folder.
    """
    points = make_space(spec).cover()
    sizes = [point.get("optim.batch_size", base_values(spec)["optim.batch_size"]) for point in points]
    largest = int(max(sizes))
    shrunk = {
        "policy.pretrained": TINY,
        "policy.num_steps": 2,
        "optim.samples": STEPS * largest,
        "optim.warmup_samples": 0,
        "eval.frames": 4,
        "eval.draws": 1,
        "runtime.device": "cpu",
    }
    storage = Path("runs" if spec.is_remote else spec.storage) / "smoke"
    values = spec.to_dict() | {
        "trial": set_dotted(spec.trial, {k: v for k, v in shrunk.items() if k not in spec.search}),
        "warm_start": {f"smoke_{number:02d}": point for number, point in enumerate(points)},
        "budget": {"trials": len(points)},
        "asha": {"grace_samples": largest, "reduction_factor": max(2.0, spec.asha.reduction_factor)},
        "resources": {"cpus": 1},
        "max_concurrent": None,
        "tracking": {"enabled": spec.tracking.enabled, "uri": None},
        "storage": str(storage.absolute()),
    }
    return SearchSpec.from_dict(values)


def branch_lines(space: Space, trials: Sequence[TrialRecord]) -> list[str]:
    """Which value of each parameter ran, and how its trial ended.

    Args:
        space: what was searched.
        trials: that were run.
    """
    width = max(len(key) for key in space.distributions)
    lines = []
    for key, distribution in space.distributions.items():
        for value in ends(distribution):
            ran = [trial for trial in trials if _took(trial.params, key, value)]
            states = sorted({trial.outcome.state if trial.outcome else "interrupted" for trial in ran})
            lines.append(f"  {key:<{width}}  {_text(value):<12} {', '.join(states) or 'DID NOT RUN'}")
    return lines


def all_branches_ran(space: Space, trials: Sequence[TrialRecord]) -> bool:
    """Whether every branch was in a trial that completed."""
    done = [trial for trial in trials if trial.outcome is not None and trial.outcome.state == "complete"]
    return all(
        any(_took(trial.params, key, value) for trial in done)
        for key, distribution in space.distributions.items()
        for value in ends(distribution)
    )


def _text(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def _took(params: Mapping[str, Any], key: str, value: Any) -> bool:
    return key in params and params[key] == value and isinstance(params[key], bool) == isinstance(value, bool)
