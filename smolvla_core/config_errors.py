"""What is wrong with a configuration, in one line: key, value, rule, and the nearest valid key."""

import difflib
from collections.abc import Iterable

from pydantic import BaseModel, ValidationError


def explain(error: ValidationError, model: type[BaseModel], prefix: str = "") -> str:
    """One line for the first mistake of a pydantic error: key, value, rule, nearest valid key."""
    first = error.errors()[0]
    path = prefix + ".".join(str(part) for part in first["loc"])
    if first["type"] == "extra_forbidden":
        return f"{path}: unknown key{suggest(path, _siblings(model, first['loc']), prefix)}"
    if first["type"] == "missing":
        return f"{path}: required key is missing"
    message = first["msg"].removeprefix("Value error, ")
    message = message[0].lower() + message[1:] if first["type"] != "value_error" else message
    if first["type"] == "value_error" and isinstance(first["input"], dict | BaseModel):
        return f"{path}: {message}" if path and not message.startswith(path) else message
    return f"{path}: got {first['input']!r}; {message}"


def suggest(key: str, valid: Iterable[str], prefix: str = "") -> str:
    """``"; did you mean 'x'?"`` for the nearest valid key, else the list of valid keys."""
    valid = [prefix + name for name in valid]
    nearest = difflib.get_close_matches(key, valid, n=1, cutoff=0.6)
    if nearest:
        return f"; did you mean '{nearest[0]}'?"
    return f"; valid here: {', '.join(sorted(valid))}" if valid else ""


def _siblings(model: type[BaseModel], loc: tuple[str | int, ...]) -> list[str]:
    """The valid keys beside ``loc``, as full dotted paths."""
    walked: list[str] = []
    for part in loc[:-1]:
        walked.append(str(part))
        if isinstance(part, int):
            continue
        field = model.model_fields.get(part)
        annotation = field.annotation if field else None
        candidates = [annotation, *getattr(annotation, "__args__", ())]
        model = next((c for c in candidates if isinstance(c, type) and issubclass(c, BaseModel)), model)
    return [".".join([*walked, name]) for name in model.model_fields]
