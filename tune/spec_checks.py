"""What the schema alone cannot see: whether the parts of a ``SearchSpec`` go together.

Each check raises ``SpecError`` with the place of the first mistake. ``check_data`` needs the dataset's
folder; the others need nothing but the specification.
"""

import itertools
import json
import re
from collections.abc import Mapping
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from smolvla_core.config import TrialConfig
from tune.parameters import CategoricalParam
from tune.source import Path_, SpecError
from tune.space import Space, base_values, every_value, make_space, shared_values
from tune.space_checks import check_conditions, check_corners, check_keys, check_reachable, check_warm_starts
from tune.spec import FLOW_LOSS, OBJECTIVE, SearchSpec, is_uri
from tune.spec_errors import explained_trial, most_telling

__all__ = ["check", "check_data", "is_uri"]

INFO = "meta/info.json"
_TRACKING = ("databricks", "file", "http", "https", "mssql", "mysql", "postgresql", "sqlite")
"""Kinds of addresses that MLflow knows without a plugin."""
_JOBS_FOLDER = re.compile(r"/runtime_resources/working_dir_files(/|$)")


def check(spec: SearchSpec) -> None:
    """Every check that needs no data.

    Raises:
        SpecError: at the first mistake.
    """
    _fixed_values(spec)
    check_keys(spec)
    check_conditions(spec)
    space = make_space(spec)
    check_reachable(spec, space)
    check_warm_starts(spec, space)
    check_corners(spec, space)
    _rungs(spec, space)
    _objective(spec)
    _budget(spec)
    _finalists(spec)
    _device(spec)
    _tracking(spec)
    _remote(spec)
    _lasting(spec)


def check_data(spec: SearchSpec) -> dict[str, Any]:
    """The datasets are there, and the objective's horizon fits the shortest chunk of the space.

    Returns:
        the main dataset's ``meta/info.json``; empty for one on the hub.

    Raises:
        SpecError: at the first mistake.
    """
    info, *_ = (_read_info(number, source) for number, source in enumerate(spec.trial["data"]["train"]))
    if info:
        _horizon(spec, float(info["fps"]))
    return info


def _read_info(number: int, source: Mapping[str, Any]) -> dict[str, Any]:
    """A dataset's ``meta/info.json``; empty for one on the hub."""
    place: Path_ = ("trial", "data", "train", number, "root")
    if source.get("root") is None:
        return {}
    root = Path(source["root"])
    if not root.is_dir():
        raise SpecError(place, f"{root}: no such folder; give the folder of a LeRobot dataset")
    try:
        info: dict[str, Any] = json.loads((root / INFO).read_text(encoding="utf-8"))
        fps = float(info["fps"])
    except (OSError, ValueError, KeyError, TypeError):
        raise SpecError(place, f"{root}: has no readable {INFO}; give the folder of a LeRobot dataset") from None
    if not fps > 0:
        raise SpecError(place, f"{root / INFO}: fps is {fps:g}; it must be above 0, correct it")
    return info


def _fixed_values(spec: SearchSpec) -> None:
    """Unknown keys and wrong values under ``trial`` that no searched key can put right."""
    scored = spec.trial.get("eval")
    if isinstance(scored, Mapping) and scored.get("at"):
        raise SpecError(("trial", "eval", "at"), "is set by the rungs of 'asha'; remove it")
    if isinstance(scored, Mapping) and scored.get("test"):
        raise SpecError(
            ("trial", "eval", "test"),
            "would score every trial on the test episodes, which are kept for the finalists; remove it",
        )
    try:
        TrialConfig.model_validate(spec.trial)
    except ValidationError as error:
        # keys that do not go together are judged with the searched values, by `check_corners`
        mistakes = [m for m in error.errors() if m["type"] != "value_error" or len(m["loc"]) > 1]
        if mistakes:
            raise explained_trial(most_telling(mistakes)) from None


def _rungs(spec: SearchSpec, space: Space) -> None:
    grace, samples = spec.asha.grace_samples, spec.samples
    if grace >= samples:
        raise SpecError(
            ("asha", "grace_samples"),
            f"got {grace}; it must be below optim.samples ({samples}), a trial's budget; try {max(1, samples // 9)}",
        )
    batch = int(max(_values(spec, space, "optim.batch_size")))
    rungs = spec.rungs
    if batch > rungs[0]:
        raise SpecError(
            ("asha", "grace_samples"),
            f"the first rung, {rungs[0]}, lies below the largest batch ({batch}), which would be compared at more "
            "samples than the others; raise grace_samples",
        )
    before, after = min(itertools.pairwise(rungs), key=lambda pair: pair[1] - pair[0])
    if batch > after - before:
        raise SpecError(
            ("asha", "grace_samples"),
            f"rungs {before} and {after} lie closer than the largest batch ({batch}), so that a trial would skip one; "
            "change grace_samples or reduction_factor",
        )


def _device(spec: SearchSpec) -> None:
    device = str(base_values(spec)["runtime.device"])
    if device.startswith("cuda") and not (spec.resources.gpus or spec.resources.auto):
        raise SpecError(
            ("trial", "runtime", "device"),
            f"got {device!r}, while resources.gpus is 0, so that a trial would see no GPU; set resources.gpus to 1",
        )


def _objective(spec: SearchSpec) -> None:
    """The flow loss is in units of what is learned, which are not the same for all trials where that is relative."""
    if spec.objective.metric == FLOW_LOSS and True in every_value(spec, "policy.relative_actions"):
        raise SpecError(
            ("objective", "metric"),
            f"{FLOW_LOSS} cannot be compared where policy.relative_actions is true: its units depend on what is "
            f"learned; take {OBJECTIVE}",
        )


def _budget(spec: SearchSpec) -> None:
    if spec.budget.trials < len(spec.warm_start):
        raise SpecError(
            ("budget", "trials"),
            f"got {spec.budget.trials}; it must be at least the number of warm starts ({len(spec.warm_start)}), which "
            "count as trials",
        )


def _finalists(spec: SearchSpec) -> None:
    if spec.closed_loop is not None and spec.finalists is None:
        raise SpecError(
            ("closed_loop",),
            "is what the finalists act in, and the search has none; add e.g. finalists: {k: 2, seeds: 3}, or remove it",
        )
    if spec.finalists is not None and base_values(spec)["data.test_fraction"] == 0:
        raise SpecError(
            ("finalists",),
            "are scored on test episodes, and data.test_fraction is 0; set it above 0, or remove the finalists",
        )


def _tracking(spec: SearchSpec) -> None:
    """MLflow knows this kind of address; whether somebody answers there is seen when it is used."""
    uri = spec.tracking.uri or ""
    scheme = uri.partition("://")[0].partition("+")[0] if "://" in uri else None
    known = {*_TRACKING, *(plugin.name for plugin in entry_points(group="mlflow.tracking_store"))}
    if spec.tracking.enabled and scheme is not None and scheme not in known:
        raise SpecError(
            ("tracking", "uri"),
            f"MLflow knows no address that begins with '{scheme}://'; give e.g. sqlite:///runs/mlflow.db, "
            "postgresql://user@host/mlflow or http://host:5000",
        )


def _remote(spec: SearchSpec) -> None:
    uri = spec.tracking.uri
    if not spec.is_remote or not spec.tracking.enabled:
        return
    if uri is None or uri.startswith(("sqlite:", "file:", "/")):
        raise SpecError(
            ("tracking", "uri") if uri else ("storage",),
            f"storage is remote ({spec.storage}), where MLflow's {uri or 'SQLite file'} cannot live; set tracking.uri "
            "to a server or database that every machine reaches, e.g. http://mlflow:5000",
        )


def _lasting(spec: SearchSpec) -> None:
    """Results outlive the folder that `ray job submit --working-dir` unpacks, which Ray deletes after the job."""
    for place, value in ((("storage",), spec.storage), (("tracking", "uri"), spec.tracking.uri)):
        if value is not None and _JOBS_FOLDER.search(value):
            raise SpecError(
                place,
                f"{value} lies in the working directory of a Ray job, which is deleted with the job; give an address "
                "(s3://bucket/runs, http://mlflow:5000), or an absolute path that every machine sees",
            )


def _horizon(spec: SearchSpec, fps: float) -> None:
    """The horizon holds a scored step, and lies within every chunk of the space."""
    base, space = base_values(spec), make_space(spec)
    steps, scored = round(float(base["eval.horizon_s"]) * fps), int(shared_values(spec)["eval.frame_stride"])
    both = ("policy.chunk_size", "data.frame_stride")
    points = (base | corner for corner in space.of(*(key for key in both if key in spec.search)).corners())
    chunk, stride = min(((point[both[0]], point[both[1]]) for point in points), key=lambda pair: pair[0] * pair[1])
    reach = int(chunk * stride)
    if scored <= steps <= reach:
        return
    place: Path_ = ("trial", "eval", "horizon_s")
    if "horizon_s" not in (spec.trial.get("eval") or {}):
        searched = both[0] in spec.search
        place = ("search", both[0]) if searched else ("trial", "policy", "chunk_size")
    least = "1 step" if scored == 1 else f"{scored} steps, the first that all frame strides of the space have,"
    held = "" if stride == 1 else f" with data.frame_stride {stride}"
    raise SpecError(
        place,
        f"a horizon of {base['eval.horizon_s']:g} s, {steps} steps at {fps:g} Hz; it must lie between {least} and "
        f"the shortest policy.chunk_size ({chunk}{held}); set eval.horizon_s to at most {reach / fps:.3g}",
    )


def _values(spec: SearchSpec, space: Space, key: str) -> list[Any]:
    """The values of a key in the space, its ends alone where it is a number."""
    if key not in spec.search:
        return [base_values(spec)[key]]
    param = spec.search[key]
    return list(param.choices) if isinstance(param, CategoricalParam) else [param.low, param.high]
