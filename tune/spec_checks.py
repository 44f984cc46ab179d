"""What the schema alone cannot see: whether the parts of a ``SearchSpec`` go together.

Each check raises ``SpecError`` with the place of the first mistake. ``check_data`` needs the dataset's
folder; the others need nothing but the specification.
"""

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from optuna.distributions import BaseDistribution
from pydantic import ValidationError

from smolvla_core.config import TrialConfig, dotted_keys, explain, set_dotted, suggest
from tune.source import Path_, SpecError
from tune.space import (
    Space,
    base_values,
    complete,
    contains,
    describe,
    make_space,
    sorted_by_condition,
)
from tune.spec import CategoricalParam, SearchSpec, is_uri

_SHARED = {
    "data": "which data is trained on and held out",
    "eval": "how trials are scored",
    "runtime": "where a trial runs",
}
INFO = "meta/info.json"


def check(spec: SearchSpec) -> None:
    """Every check that needs no data.

    Raises:
        SpecError: at the first mistake.
    """
    _searched_keys(spec)
    _conditions(spec)
    _fixed_values(spec)
    space = make_space(spec)
    _active_somewhere(spec, space)
    _warm_starts(spec, space)
    _corners(spec, space)
    _rungs(spec, space)
    if spec.budget.trials < len(spec.warm_start):
        raise SpecError(
            ("budget", "trials"),
            f"got {spec.budget.trials}; it must be at least the number of warm starts ({len(spec.warm_start)})",
        )
    if spec.is_remote and spec.tracking.enabled and (spec.tracking.uri is None or "sqlite" in spec.tracking.uri):
        raise SpecError(
            ("tracking", "uri") if spec.tracking.uri else ("storage",),
            f"storage is remote ({spec.storage}), where SQLite cannot live; set tracking.uri to a server or database "
            "that every machine reaches, e.g. http://mlflow:5000",
        )


def check_data(spec: SearchSpec) -> dict[str, Any]:
    """The dataset is there, and the objective's horizon fits the shortest chunk of the space.

    Returns:
        the dataset's ``meta/info.json``; empty for one on the hub.

    Raises:
        SpecError: at the first mistake.
    """
    source = dict(spec.trial["data"]["train"][0])
    place: Path_ = ("trial", "data", "train", 0, "root")
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
    _horizon(spec, fps)
    return info


def _searched_keys(spec: SearchSpec) -> None:
    known = dotted_keys()
    for key in spec.search:
        place = ("search", key)
        if key not in known:
            sections = [name for name in known if name.startswith(f"{key}.")]
            hint = f"; it is a section, name a key in it, e.g. '{sections[0]}'" if sections else suggest(key, known)
            raise SpecError(place, f"unknown key{hint}" if len(hint) < 200 else f"unknown key; see {_SCHEMA}")
        section = key.partition(".")[0]
        if section in _SHARED:
            raise SpecError(
                place, f"cannot be searched: {_SHARED[section]} is the same for all trials; set it under 'trial'"
            )
        if key == "optim.samples":
            raise SpecError(
                place, "cannot be searched: it is the budget that trials are compared at; set it under 'trial'"
            )


_SCHEMA = "smolvla_core/config.py"


def _conditions(spec: SearchSpec) -> None:
    known = dotted_keys()
    for key, param in spec.search.items():
        for name in param.when:
            if name not in known:
                raise SpecError(("search", key, "when", name), f"unknown key{suggest(name, [*spec.search, *known])}")
    try:
        sorted_by_condition({key: param.when for key, param in spec.search.items()}, list(spec.search))
    except ValueError as circle:
        raise SpecError(("search", str(circle), "when"), "the conditions run in a circle; remove one of them") from None


def _fixed_values(spec: SearchSpec) -> None:
    """Unknown keys and wrong values under ``trial`` that no searched key can put right."""
    if (spec.trial.get("eval") or {}).get("at"):
        raise SpecError(("trial", "eval", "at"), "is set by the rungs of 'asha'; remove it")
    try:
        TrialConfig.model_validate(spec.trial)
    except ValidationError as error:
        for mistake in error.errors():
            loc = mistake["loc"]
            if mistake["type"] == "value_error" and len(loc) <= 1:
                continue  # keys that do not go together: decided with the searched values, below
            if mistake["type"] == "missing":
                raise SpecError(("trial", *loc[:-1]), f"required key '{loc[-1]}' is missing") from None
            text = explain(_Only(mistake), TrialConfig)  # type: ignore[arg-type]
            raise SpecError(("trial", *loc), text.partition(": ")[2]) from None


class _Only:
    """A pydantic error cut down to one of its mistakes."""

    def __init__(self, mistake: Any):
        self.mistake = mistake

    def errors(self) -> list[Any]:
        return [self.mistake]


def _active_somewhere(spec: SearchSpec, space: Space) -> None:
    seen = {key for corner in space.corners() for key in corner}
    for key, param in spec.search.items():
        for name, values in param.when.items():
            options = values if isinstance(values, tuple) else (values,)
            for value in options:
                inside = name in spec.search and contains(space.distributions[name], value)
                if name in spec.search and not inside:
                    raise SpecError(
                        ("search", key, "when", name),
                        f"got {value!r}, which is never tried; it is searched over {describe(space.distributions[name])}",
                    )
        if key not in seen and all(name not in spec.search for name in param.when):
            given = ", ".join(f"{name} is {space.fixed[name]!r}" for name in param.when)
            raise SpecError(("search", key, "when"), f"never holds: {given}; search that key too, or remove this one")


def _warm_starts(spec: SearchSpec, space: Space) -> None:
    base = base_values(spec)
    for name, point in spec.warm_start.items():
        for key, value in point.items():
            place = ("warm_start", name, key)
            if key not in spec.search:
                raise SpecError(place, f"is not searched{suggest(key, spec.search)}")
            if not contains(space.distributions[key], value):
                raise SpecError(place, f"got {value!r}; it is searched over {describe(space.distributions[key])}")
        whole = complete(space, point, base)
        for key in point:
            if key not in whole:
                when = ", ".join(f"{k} is {_either(v)}" for k, v in spec.search[key].when.items())
                raise SpecError(("warm_start", name, key), f"acts only where {when}; remove it from this point")
        for key, value in whole.items():
            if not contains(space.distributions[key], value):
                raise SpecError(
                    ("warm_start", name),
                    f"does not give '{key}', and its fixed or default value {value!r} is not searched "
                    f"({describe(space.distributions[key])}); add it",
                )
        _together(spec, whole, ("warm_start", name))


def _corners(spec: SearchSpec, space: Space) -> None:
    for corner in space.corners(spec.seed):
        _together(spec, corner, ("search",))


def _together(spec: SearchSpec, params: Mapping[str, Any], place: Path_) -> None:
    """The searched values make a valid trial with the fixed ones."""
    try:
        TrialConfig.model_validate(set_dotted(spec.trial, params))
    except ValidationError as error:
        loc = ".".join(map(str, error.errors()[0]["loc"]))
        text = explain(error, TrialConfig)
        named = [key for key in params if re.search(rf"(?<![\w.]){re.escape(key)}(?![\w.])", f"{loc} {text}")]
        if not named and place == ("search",):  # the mistake lies among fixed values
            raise SpecError(("trial", *error.errors()[0]["loc"]), text) from None
        if place == ("search",):
            place = ("search", named[0])
        values = ", ".join(f"{key}={params[key]}" for key in named)
        raise SpecError(place, f"{text}{f' (with {values})' if values else ''}") from None


def _rungs(spec: SearchSpec, space: Space) -> None:
    grace, samples = spec.asha.grace_samples, spec.samples
    if grace >= samples:
        raise SpecError(
            ("asha", "grace_samples"), f"got {grace}; it must be below optim.samples ({samples}), the budget of a trial"
        )
    batch = int(max(_values(spec, space, "optim.batch_size")))
    rungs = spec.rungs
    gap = min(after - before for before, after in zip((0, *rungs), rungs, strict=False))
    if batch > gap:
        raise SpecError(
            ("asha", "grace_samples"),
            f"rungs at {', '.join(map(str, rungs))} samples lie closer than the largest batch ({batch}), so that a "
            "trial would skip one; raise grace_samples or reduction_factor",
        )


def _horizon(spec: SearchSpec, fps: float) -> None:
    steps = round(float(base_values(spec)["eval.horizon_s"]) * fps)
    shortest = int(min(_values(spec, make_space(spec), "policy.chunk_size")))
    if 1 <= steps <= shortest:
        return
    place = ("trial", "eval", "horizon_s")
    if "horizon_s" not in (spec.trial.get("eval") or {}) and "policy.chunk_size" in spec.search:
        place = ("search", "policy.chunk_size", "")
    raise SpecError(
        tuple(part for part in place if part),
        f"eval.horizon_s is {steps / fps:g} s, {steps} steps at {fps:g} Hz; it must lie between 1 step and the "
        f"shortest policy.chunk_size ({shortest}); set eval.horizon_s to at most {shortest / fps:.3g}",
    )


def _values(spec: SearchSpec, space: Space, key: str) -> Iterator[Any]:
    """The values of a key in the space, its ends alone where it is a number."""
    if key not in spec.search:
        yield base_values(spec)[key]
        return
    distribution: BaseDistribution = space.distributions[key]
    param = spec.search[key]
    if isinstance(param, CategoricalParam):
        yield from param.choices
    else:
        yield from (distribution.low, distribution.high)  # type: ignore[attr-defined]


def _either(values: Any) -> str:
    return " or ".join(map(str, values)) if isinstance(values, tuple) else str(values)


__all__ = ["check", "check_data", "is_uri"]
