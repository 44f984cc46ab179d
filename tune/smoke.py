"""A search cut down to seconds: every branch of the space once, on a tiny policy, on the CPU."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from smolvla_core.config import TINY
from smolvla_core.config_values import parse_assignments, set_dotted
from smolvla_core.errors import ConfigError
from tune.console import format_value
from tune.records import TrialRecord
from tune.source import assign, read
from tune.space import Space, base_values, ends, make_space, to_distribution
from tune.spec import SearchSpec, load_spec

STEPS = 2
DEMO_DATA = Path("runs/demo_data/lerobot")
"""What ``make demo`` writes; taken where the specification's own data is not there."""
INFO = "meta/info.json"
MOUSETRAPS = 5
"""The task whose data stands in for that of a second dataset."""
FITS_DEMO = ("state={preset: top32}", "data.cameras={}", "data.gripper_dims=[]")
"""Assignments that describe the demo's data, in place of those that describe another's."""

_WARMUP = "optim.warmup_samples"


def demo_data() -> Path:
    """The demo's dataset, written on the first call."""
    if not (DEMO_DATA / INFO).is_file():
        from smolvla_core.data.behavior import import_behavior
        from smolvla_core.data.synthetic import write_synthetic

        raw = DEMO_DATA.with_name("raw")
        if not raw.is_dir():
            write_synthetic(raw)
        import_behavior(raw, DEMO_DATA)
    return DEMO_DATA.absolute()


def second_demo_data(number: int) -> Path:
    """A small dataset of another task in place of the ``number``-th that is trained beside the main one.

    It is written on the first call; its pictures have another size than the demo's.
    """
    folder = DEMO_DATA.with_name(f"beside_{number}") / "lerobot"
    if not (folder / INFO).is_file():
        from smolvla_core.data.behavior import import_behavior
        from smolvla_core.data.synthetic import write_synthetic

        raw = folder.with_name("raw")
        if not raw.is_dir():
            write_synthetic(raw, episodes=4, seconds=2.0, size=64, seed=number, task=MOUSETRAPS)
        import_behavior(raw, folder, MOUSETRAPS)
    return folder.absolute()


def with_demo_data(yaml: str, assignments: Sequence[str]) -> list[str]:
    """The assignments, and those that take synthetic data where the YAML's own is not there.

    Where the main dataset is not there, the demo's takes its place and synthetic ones those of all
    others, whose cameras and state would not be the demo's.

    Raises:
        ConfigError: the YAML is wrong in another way.
    """
    count = _count_datasets(yaml, assignments)

    def elsewhere(numbers: Iterable[int]) -> list[str]:
        return [f"data.train.{number}.root={DEMO_DATA}" for number in numbers]

    load_spec(yaml, [*assignments, *elsewhere(range(count))])

    def is_here(number: int) -> bool:
        others = [other for other in range(count) if other != number]
        try:
            source = load_spec(yaml, [*assignments, *elsewhere(others)])[0].trial["data"]["train"][number]
        except ConfigError:  # an environment variable that names the data is not set
            return False
        return source.get("root") is None or Path(source["root"]).is_dir()

    if not is_here(0):
        replaced, fits = list(range(1, count)), [f"data.train.0.root={demo_data()}", *FITS_DEMO]
    else:
        replaced, fits = [number for number in range(1, count) if not is_here(number)], []
    beside = [
        f"data.train.{number}.{key}={value}"
        for number in replaced
        for key, value in (("root", second_demo_data(number)), *((("cameras", "null"),) if fits else ()))
    ]
    return [*assignments, *fits, *beside]


def _count_datasets(yaml: str, assignments: Sequence[str]) -> int:
    """How many datasets the YAML lists; 1 where it is wrong, which loading it will tell."""
    file = Path(yaml)
    try:
        text = file.read_text(encoding="utf-8") if file.is_file() else ""
        tree, _ = assign(read(text, yaml)[0], parse_assignments(assignments))
        listed = tree["trial"]["data"]["train"]
    except (ConfigError, KeyError, TypeError, UnicodeDecodeError):
        return 1
    return max(1, len(listed)) if isinstance(listed, list) else 1


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
        "runtime.compile": False,
    }
    search, points = _with_short_warmup(spec, points, largest)
    storage = Path("runs" if spec.is_remote else spec.storage) / "smoke"
    values = spec.to_dict() | {
        "trial": set_dotted(spec.trial, {k: v for k, v in shrunk.items() if k not in spec.search}),
        "search": search,
        "warm_start": {f"smoke_{number:02d}": point for number, point in enumerate(points)},
        "budget": {"trials": len(points)},
        "asha": {"grace_samples": largest, "reduction_factor": max(2.0, spec.asha.reduction_factor)},
        "finalists": None,
        "closed_loop": None,
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
