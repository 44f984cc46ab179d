"""Pydantic's errors about a search's YAML as one line that says what to do."""

import re
from collections.abc import Iterable, Mapping
from typing import Any

from pydantic import BaseModel, ValidationError

from smolvla_core.config import TrialConfig
from smolvla_core.config_errors import explain, suggest
from tune.parameters import PARAMS
from tune.source import Path_, SpecError

_PARAMETER = {
    "float": "{type: float, low: 0.0, high: 1.0}",
    "int": "{type: int, low: 1, high: 8}",
    "categorical": "{type: categorical, choices: [a, b]}",
}
_TRAINED_ON = "data: {train: [{root: /data/eggs}]}"
_NO_MAPPING = re.compile(r"input should be a valid dictionary( or (instance of \w+|object to extract fields from))?")
_TOO_FEW = re.compile(r"(tuple|dictionary) should have at least 1 item after validation, not 0")


def explained(error: ValidationError, model: type[BaseModel]) -> SpecError:
    """The mistake that pydantic found in a search, at its place.

    Args:
        error: of validating ``model``.
        model: the schema, whose fields have ``examples``.
    """
    first = most_telling(error.errors())
    loc, kind, given = first["loc"], first["type"], first["input"]
    path = _as_written(loc)
    if kind == "extra_forbidden":
        return SpecError(path, f"unknown key{suggest(str(path[-1]), _siblings(loc, model))}")
    if kind == "missing":
        return SpecError(path[:-1], f"required key '{path[-1]}' is missing; add it, e.g. {_example(loc, model)}")
    if kind in ("union_tag_invalid", "union_tag_not_found"):
        if "type" not in given and path[-1] in TrialConfig.model_fields:
            return SpecError(
                path, f"is a section; name a key in it with a dot, e.g. {path[-1]}.{_first_key(given)}: ..."
            )
        place = (*path, "type") if "type" in given else path
        return SpecError(place, f"got {given.get('type')!r}; 'type' must be float, int or categorical")
    if _of_a_scalar(path):
        return SpecError(path, f"got {given!r}; give one number, text, true, false or null")
    text = explain(error_of(first), model).partition(": ")[2] or first["msg"]
    return SpecError(path, plain(text, _example(loc, model)))


def explained_trial(mistake: Any) -> SpecError:
    """A mistake that pydantic found in a ``TrialConfig``, as one under ``trial``."""
    loc = mistake["loc"]
    if mistake["type"] == "missing":
        return SpecError(
            ("trial", *loc[:-1]), f"required key '{loc[-1]}' is missing; add it, e.g. trial: {{{_TRAINED_ON}}}"
        )
    if mistake["type"] == "extra_forbidden" and "." in str(loc[-1]):
        head, _, rest = str(loc[-1]).partition(".")
        return SpecError(("trial", *loc), f"keys are nested here; write {head}: {{{rest}: {mistake['input']}}}")
    text = explain(error_of(mistake), TrialConfig)
    return SpecError(("trial", *loc), plain(text.partition(": ")[2]))


def most_telling(mistakes: Iterable[Any]) -> Any:
    """The first of pydantic's mistakes; one about a key that is there before one that is missing,
    since a key with a typo brings both.
    """
    return min(mistakes, key=lambda mistake: mistake["type"] == "missing")


def error_of(mistake: Any) -> Any:
    """An error that holds this mistake alone."""
    return _Only(mistake)


def plain(text: str, example: str = "KEY: VALUE") -> str:
    """Pydantic's words for a wrong container in those of YAML."""
    text = _NO_MAPPING.sub(f"it must be a mapping, e.g. {example}", text)
    text = text.replace("input should be a valid tuple", "it must be a list, e.g. [a, b]")
    text = text.replace("input should be a valid string", "it must be text; put it in quotes")
    return _TOO_FEW.sub(lambda found: f"it must hold at least one {'entry' if found[1] == 'tuple' else 'key'}", text)


class _Only:
    def __init__(self, mistake: Any):
        self._mistake = mistake

    def errors(self) -> list[Any]:
        return [self._mistake]


def _as_written(loc: Path_) -> Path_:
    """Pydantic names the members of unions in the path; a user did not write them."""
    if not loc:
        return loc
    if len(loc) > 2 and loc[0] == "search":
        loc = (*loc[:2], *loc[3:])
    if "when" in loc:
        return loc[: loc.index("when") + 2]
    if loc[0] == "warm_start":
        return loc[:3]
    return loc[:-1] if "choices" in loc and isinstance(loc[-1], str) and loc[-1] != "choices" else loc


def _of_a_scalar(path: Path_) -> bool:
    """Whether one plain value stands at the path; pydantic would only name the union's first member."""
    depth = {"warm_start": 3, "search": 4}.get(str(path[0])) if path else None
    return len(path) == depth and (path[0] == "warm_start" or path[2] in ("when", "choices"))


def _siblings(loc: Path_, model: type[BaseModel]) -> list[str]:
    if len(loc) > 1 and loc[0] == "search":
        return list(PARAMS[str(loc[2])].model_fields)
    for key in loc[:-1]:
        annotation = model.model_fields[str(key)].annotation
        # a section that may be left out is a union with None
        model = next(
            each
            for each in (annotation, *getattr(annotation, "__args__", ()))
            if isinstance(each, type) and issubclass(each, BaseModel)
        )
    return list(model.model_fields)


def _example(loc: Path_, model: type[BaseModel]) -> str:
    if loc[-1] == "when":
        return "when: {optim.schedule: cosine}"
    if loc[0] == "search" and len(loc) > 1:
        return _PARAMETER.get(str(loc[2]) if len(loc) > 2 else "float", _PARAMETER["float"])
    return f"{loc[0]}: {next(iter(model.model_fields[str(loc[0])].examples or ()), '{}')}"


def _first_key(given: Mapping[str, Any]) -> str:
    return str(next(iter(given), "key"))
