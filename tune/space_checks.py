"""Whether the searched keys, their conditions and the warm starts fit ``TrialConfig`` and each other.

Each check raises ``SpecError`` with the place of the first mistake.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from smolvla_core.config import ACTS_WHERE, TrialConfig, dotted_keys
from smolvla_core.config_errors import explain, suggest
from smolvla_core.config_values import set_dotted
from tune.parameters import CategoricalParam, FloatParam
from tune.source import Path_, SpecError
from tune.space import Space, base_values, complete, contains, describe, known_keys, sorted_by_condition
from tune.spec import SearchSpec, is_folder
from tune.spec_errors import error_of, most_telling

_SHARED = {
    "data": "which data is trained on and held out",
    "eval": "how trials are scored",
    "runtime": "where a trial runs",
}

_NO_DIMENSION = {
    "optim.samples": "it is the budget that trials are compared at; set it under 'trial'",
    "policy.max_state_dim": "columns beyond the state's are fed zeros; set it under 'trial'",
    "policy.n_action_steps": "only acting sees what it does; list values in closed_loop.choose.n_action_steps, or set "
    "it under 'trial'",
}
"""Keys that are no dimension of a search, and why."""

_PER_TRIAL = re.compile(r"data\.frame_stride|data\.train\.\d+\.weight")
"""Keys of those sections that may differ between trials all the same."""


def check_keys(spec: SearchSpec) -> None:
    """Every searched key exists and may differ between trials."""
    known = known_keys(spec)
    for key, param in spec.search.items():
        place = ("search", key)
        if key not in known:
            sections = [name for name in known if name.startswith(f"{key}.")]
            hint = f"; it is a section, name a key in it, e.g. '{sections[0]}'" if sections else suggest(key, known)
            raise SpecError(place, f"unknown key{hint if len(hint) < 200 else '; see smolvla_core/config.py'}")
        section = key.partition(".")[0]
        if section in _SHARED and not _PER_TRIAL.fullmatch(key):
            raise SpecError(
                place, f"cannot be searched: {_SHARED[section]} is the same for all trials; set it under 'trial'"
            )
        if key in _NO_DIMENSION:
            raise SpecError(place, f"cannot be searched: {_NO_DIMENSION[key]}")
        if isinstance(param, FloatParam):
            _takes_fractions(spec, key, param)
        if key == "policy.pretrained" and isinstance(param, CategoricalParam):
            for choice in param.choices:
                if is_folder(choice) and not Path(str(choice)).is_absolute():
                    raise SpecError(
                        place, f"{choice} is a folder, which a trial's process would not find; give its absolute path"
                    )


def check_conditions(spec: SearchSpec) -> None:
    """Conditions name keys of ``TrialConfig``, and none depends on itself."""
    known = known_keys(spec)
    for key, param in spec.search.items():
        for name in param.when:
            if name not in known:
                raise SpecError(("search", key, "when", name), f"unknown key{suggest(name, known)}")
    try:
        sorted_by_condition({key: param.when for key, param in spec.search.items()}, list(spec.search))
    except ValueError as circle:
        raise SpecError(("search", str(circle), "when"), "the conditions run in a circle; remove one of them") from None


def check_reachable(spec: SearchSpec, space: Space) -> None:
    """Every searched key acts at some point of the space, and every value of a condition occurs."""
    base = base_values(spec)
    for key, param in spec.search.items():
        _refuse_idle(key, {name: value for name, value in base.items() if name not in {*spec.search, *param.when}})
    for key, conditions in space.conditions.items():
        for name, values in conditions.items():
            place = ("search", key, "when", name)
            if name in space.fixed:
                if not any(contains_fixed(space.fixed[name], value) for value in values):
                    raise SpecError(
                        place,
                        f"never holds: {name} is {space.fixed[name]!r}; set it under 'trial', search it too, or remove "
                        f"'{key}' from 'search'",
                    )
                continue
            for value in values:
                if not contains(space.distributions[name], value):
                    raise SpecError(
                        place, f"got {value!r}, which is never tried: it is searched over {_range(space, name)}"
                    )
        if not space.is_reachable(key):
            raise SpecError(
                ("search", key, "when"), "never holds: its conditions exclude each other; change one of them"
            )


def _refuse_idle(key: str, fixed: Mapping[str, Any]) -> None:
    """Refuse a key that another one, which is the same for all trials, leaves without effect."""
    for name, (switch, values) in ACTS_WHERE.items():
        if f"{key}.".startswith(f"{name}.") and switch in fixed and fixed[switch] not in values:
            raise SpecError(
                ("search", key),
                f"acts only where {switch} is {' or '.join(values)}, and it is {fixed[switch]}; set that under "
                "'trial', search it too, or remove this",
            )


def contains_fixed(fixed: Any, value: Any) -> bool:
    """Whether a fixed value is this one; 1 is not true."""
    return bool(fixed == value) and isinstance(fixed, bool) == isinstance(value, bool)


def check_warm_starts(spec: SearchSpec, space: Space) -> None:
    """Each is a point of the space, makes a valid trial, and stands once."""
    base = base_values(spec)
    seen: dict[str, dict[str, Any]] = {}
    for name, point in spec.warm_start.items():
        for key, value in point.items():
            place = ("warm_start", name, key)
            if key not in spec.search:
                near = suggest(key, spec.search) if key not in known_keys(spec) else ""
                raise SpecError(place, f"is not searched{near}; remove it here, or add it to 'search'")
            if not contains(space.distributions[key], value):
                raise SpecError(place, f"got {value!r}; it must be {_inside(space, key)}")
        whole = complete(space, point, base)
        for key in point:
            if key not in whole:
                when = " and ".join(f"{k} is {' or '.join(map(str, v))}" for k, v in space.conditions[key].items())
                raise SpecError(("warm_start", name, key), f"acts only where {when}; remove it from this point")
        for key, value in whole.items():
            if not contains(space.distributions[key], value):
                raise SpecError(
                    ("warm_start", name),
                    f"does not give '{key}', whose fixed or default value {value!r} is not among the searched "
                    f"({_range(space, key)}); add it",
                )
        same = next((other for other, params in seen.items() if params == whole), None)
        if same is not None:
            raise SpecError(("warm_start", name), f"is the same point as '{same}'; remove one of them")
        seen[name] = whole
        _together(spec, whole, ("warm_start", name))


def check_corners(spec: SearchSpec, space: Space) -> None:
    """The ends of the searched values make valid trials in every combination."""
    for corner in space.corners(spec.seed):
        _together(spec, corner, ("search",))


def _takes_fractions(spec: SearchSpec, key: str, param: FloatParam) -> None:
    """The ends may be whole numbers where the key takes nothing else."""
    between = param.low + (param.step or 0.38196601125 * (param.high - param.low))
    try:
        TrialConfig.model_validate(set_dotted(spec.trial, {key: between}))
    except ValidationError as error:
        if any(m["type"] == "int_from_float" and ".".join(map(str, m["loc"])) == key for m in error.errors()):
            raise SpecError(("search", key, "type"), "got 'float'; it is a whole number, use int") from None


def _together(spec: SearchSpec, params: Mapping[str, Any], place: Path_) -> None:
    """The searched values make a valid trial with the fixed ones."""
    try:
        TrialConfig.model_validate(set_dotted(spec.trial, params))
    except ValidationError as error:
        first = most_telling(error.errors())
        text = explain(error_of(first), TrialConfig)
        loc = ".".join(map(str, first["loc"]))
        named = _named(f"{loc} {text}", params)
        if not named:  # the mistake lies among fixed values
            given = _named(text, _given(spec.trial))
            raise SpecError(("trial", *(given[0].split(".") if given else first["loc"])), text) from None
        values = ", ".join(f"{key}={params[key]}" for key in named)
        if place == ("search",):
            raise SpecError(
                ("search", named[0]), f"{text} (with {values}); narrow its values, or give it a 'when'"
            ) from None
        written = [key for key in named if key in spec.warm_start[str(place[1])]]
        raise SpecError((*place, *written[:1]), f"{text} (with {values})") from None


def _named(text: str, keys: Mapping[str, Any]) -> list[str]:
    """Those of the dotted keys that a message names, in its order."""
    places = {key: re.search(rf"(?<![\w.]){re.escape(key)}(?![\w.])", text) for key in keys}
    return sorted((key for key, found in places.items() if found), key=lambda key: places[key].start())  # type: ignore[union-attr]


def _given(trial: Mapping[str, Any]) -> dict[str, Any]:
    """The dotted keys that are written under ``trial``."""

    def is_given(key: str) -> bool:
        node: Any = trial
        for part in key.split("."):
            if not isinstance(node, Mapping) or part not in node:
                return False
            node = node[part]
        return True

    return {key: None for key in dotted_keys() if is_given(key)}


def _range(space: Space, key: str) -> str:
    return describe(space.distributions[key])


def _inside(space: Space, key: str) -> str:
    """``one of a, b`` or ``within 0 to 1``."""
    text = _range(space, key)
    return text if text.startswith("one of") else f"within {text}"
