"""A search cut down to seconds: every branch of the space once, on a tiny policy, on the CPU."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from smolvla_core.config import TINY, set_dotted
from smolvla_core.errors import ConfigError
from tune.console import format_value
from tune.records import TrialRecord
from tune.space import Space, base_values, ends, make_space, to_distribution
from tune.spec import SearchSpec, load_spec

STEPS = 2
DEMO_DATA = Path("runs/demo_data/lerobot")
"""What ``make demo`` writes; taken where the specification's own data is not there."""
FITS_DEMO = ("state={preset: top32}", "data.cameras={}", "data.gripper_dims=[]")
"""Assignments that describe the demo's data, in place of those that describe another's."""

_WARMUP = "optim.warmup_samples"


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
    """The assignments, and those that take the demo's data where the YAML's own is not there.

    Raises:
        ConfigError: the YAML is wrong in another way.
    """
    placeholder = f"data.train.0.root={DEMO_DATA}"
    load_spec(yaml, [*assignments, placeholder])
    try:
        own = load_spec(yaml, assignments)[0].trial["data"]["train"][0].get("root")
    except ConfigError:  # an environment variable that names the data is not set
        own = "unset"
    if own is None or Path(own).is_dir():
        return list(assignments)
    return [*assignments, f"data.train.0.root={demo_data()}", *FITS_DEMO]


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
        _WARMUP: 0,
        "eval.frames": 4,
        "eval.draws": 1,
        "runtime.device": "cpu",
    }
    search, points = _with_short_warmup(spec, points, largest)
    storage = Path("runs" if spec.is_remote else spec.storage) / "smoke"
    values = spec.to_dict() | {
        "trial": set_dotted(spec.trial, {k: v for k, v in shrunk.items() if k not in spec.search}),
        "search": search,
        "warm_start": {f"smoke_{number:02d}": point for number, point in enumerate(points)},
        "budget": {"trials": len(points)},
        "asha": {"grace_samples": largest, "reduction_factor": max(2.0, spec.asha.reduction_factor)},
        "resources": {"cpus": 1},
        "max_concurrent": None,
        "tracking": {"enabled": spec.tracking.enabled, "uri": None},
        "storage": str(storage.absolute()),
    }
    return SearchSpec.from_dict(values)


def _with_short_warmup(
    spec: SearchSpec, points: Sequence[Mapping[str, Any]], longest: int
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """The searched parameters and points, in which a searched warm-up, which is in samples, fits the short budget."""
    search = spec.to_dict()["search"]
    if _WARMUP not in spec.search:
        return search, [dict(point) for point in points]
    tried = sorted(set(ends(to_distribution(spec.search[_WARMUP]))))
    short = {samples: round(longest * number / max(1, len(tried) - 1)) for number, samples in enumerate(tried)}
    when = search[_WARMUP]["when"]
    search[_WARMUP] = {"type": "categorical", "choices": sorted(set(short.values())), "when": when}
    return search, [
        {key: short[value] if key == _WARMUP else value for key, value in point.items()} for point in points
    ]


def branch_lines(space: Space, trials: Sequence[TrialRecord]) -> list[str]:
    """Which value of each parameter ran, and how its trials ended.

    Args:
        space: what was searched.
        trials: that were run.
    """
    branches = _branches(space)
    key_width = max(len(key) for key, _ in branches)
    value_width = max(len(format_value(value)) for _, value in branches)
    lines = []
    for key, value in branches:
        states = sorted({_state(trial) for trial in trials if _took(trial.params, key, value)})
        lines.append(
            f"  {key:<{key_width}}  {format_value(value):<{value_width}}  {', '.join(states) or 'DID NOT RUN'}"
        )
    return lines


def all_branches_ran(space: Space, trials: Sequence[TrialRecord]) -> bool:
    """Whether every branch was in a trial that completed."""
    done = [trial for trial in trials if _state(trial) == "complete"]
    return all(any(_took(trial.params, key, value) for trial in done) for key, value in _branches(space))


def _branches(space: Space) -> list[tuple[str, Any]]:
    return [(key, value) for key, distribution in space.distributions.items() for value in ends(distribution)]


def _state(trial: TrialRecord) -> str:
    return trial.outcome.state if trial.outcome else "interrupted"


def _took(params: Mapping[str, Any], key: str, value: Any) -> bool:
    return key in params and params[key] == value and isinstance(params[key], bool) == isinstance(value, bool)
