"""A YAML file as its author sees it: the value of every key, and the line it stands on."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import yaml

from smolvla_core.config import TrialConfig, dotted_keys
from smolvla_core.config_errors import suggest
from smolvla_core.config_values import expand_environment, load_yaml
from smolvla_core.errors import ConfigError

Path_ = tuple[str | int, ...]
"""A place in the tree, e.g. ``("search", "optim.lr", "low")``."""

SET = "--set"
_TEXT = ("tag:yaml.org,2002:str", "tag:yaml.org,2002:merge")


class SpecError(ConfigError):
    """A mistake in a search's YAML, at a place in its tree."""

    def __init__(self, path: Path_, message: str):
        super().__init__(f"{'.'.join(map(str, path))}: {message}" if path else message)
        self.path = path
        self.message = message


@dataclass(frozen=True)
class Source:
    """A YAML text with its name, and where its keys stand. ``changed``: paths given by ``--set``."""

    name: str
    text: str
    lines: Mapping[Path_, int] = field(default_factory=dict)
    changed: tuple[Path_, ...] = ()

    def located(self, error: SpecError) -> ConfigError:
        """The error as one line that begins with ``file:line``, or with ``--set`` where that brought it."""
        path = error.path
        below = [changed for changed in self.changed if path and changed[: len(path)] == path]
        if any(path[: len(changed)] == changed for changed in self.changed) or (below and path not in self.lines):
            return ConfigError(f"{SET}: {error}")
        while path and path not in self.lines:
            path = path[:-1]
        among = f" (with {SET} {'.'.join(map(str, below[0]))})" if below and len(path) > 1 else ""
        return ConfigError(f"{self.name}:{self.lines.get(path, 1)}: {error}{among}")


def read(text: str, name: str) -> tuple[dict[str, Any], Source]:
    """Parse a YAML mapping.

    Raises:
        ConfigError: it is no YAML, no mapping, a key stands twice in one mapping or is no text, or a
            value holds itself.
    """
    values = load_yaml(text, where=name)
    if not isinstance(values, dict):
        raise ConfigError(
            f"{name}:1: got {_kind(values)}; it must be a mapping with 'study', 'trial', 'search', 'budget' and 'asha'"
        )
    lines: dict[Path_, int] = {}
    _walk(yaml.compose(text, Loader=yaml.SafeLoader), (), (), lines, name)
    return values, Source(name, text, lines)


def _walk(node: Any, path: Path_, above: tuple[Any, ...], lines: dict[Path_, int], name: str) -> None:
    where = f"{name}:{node.start_mark.line + 1}: {'.'.join(map(str, path))}"
    if any(node is other for other in above):
        raise ConfigError(f"{where}: holds itself; remove the alias (*)")
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            place = (*path, str(key.value))
            line = key.start_mark.line + 1
            where = f"{name}:{line}: {'.'.join(map(str, place))}"
            if key.tag not in _TEXT:
                raise ConfigError(f"{where}: YAML reads this key as {_kind_of(key)}, not as text; put it in quotes")
            lines[place] = line
            _walk(value, place, (*above, node), lines, name)
    elif isinstance(node, yaml.SequenceNode):
        for index, value in enumerate(node.value):
            lines[*path, index] = value.start_mark.line + 1
            _walk(value, (*path, index), (*above, node), lines, name)


def _kind_of(node: Any) -> str:
    tag = node.tag.rpartition(":")[2]
    return {"bool": "true or false", "int": "a number", "float": "a number"}.get(tag, tag)


def _kind(value: Any) -> str:
    return "nothing" if value is None else type(value).__name__


def assign(tree: Mapping[str, Any], assignments: Mapping[str, Any]) -> tuple[dict[str, Any], tuple[Path_, ...]]:
    """A copy of a search's tree with ``--set`` applied; and the paths that were set.

    A key that begins with a section of ``TrialConfig`` is meant under ``trial``; ``null`` for a
    parameter of ``search``, for a warm start or for a value of one removes it.

    Raises:
        ConfigError: a path runs through a value, or there is nothing to remove.
    """
    result: Any = dict(tree)
    paths = []
    for key, value in assignments.items():
        path = _parts(key)
        removes = value is None and (path[0], len(path)) in (("search", 2), ("warm_start", 2), ("warm_start", 3))
        result = _set(result, path, value, key, removes)
        paths.append(path)
    return result, tuple(paths)


def _parts(key: str) -> Path_:
    head, _, rest = key.partition(".")
    if head in TrialConfig.model_fields:
        return ("trial", *_indices(key))
    if head == "search" and rest:
        return (head, *_parameter(rest))
    if head == "warm_start" and rest:  # below a warm start's name stands one key of the trial, dots and all
        name, _, trial_key = rest.partition(".")
        return (head, name, trial_key) if trial_key else (head, name)
    return (head, *_indices(rest))


def _parameter(text: str) -> Path_:
    """``optim.lr.low`` -> ``("optim.lr", "low")``."""
    weight = re.match(r"data\.train\.\d+\.weight(?=\.|$)", text)
    keys = (*dotted_keys(), *([weight[0]] if weight else ()))
    known = [key for key in keys if text == key or text.startswith(f"{key}.")]
    if not known:
        return (text,)
    key = max(known, key=len)
    rest = text[len(key) + 1 :]
    return (key, "when", rest.removeprefix("when.")) if rest.startswith("when.") else (key, *_indices(rest))


def _indices(text: str) -> Path_:
    return tuple(int(part) if part.isdecimal() else part for part in text.split(".") if part)


def _set(node: Any, path: Path_, value: Any, key: str, removes: bool) -> Any:
    if not path:
        return value
    head, rest = path[0], path[1:]
    if isinstance(head, int):
        if not isinstance(node, list):
            raise ConfigError(
                f"{SET} {key}: '{head}' would be an entry of a list, and there is no list; remove '.{head}'"
            )
        if head >= len(node):
            raise ConfigError(f"{SET} {key}: there is no entry {head}; the list holds {len(node)}, from 0")
        return [_set(item, rest, value, key, removes) if index == head else item for index, item in enumerate(node)]
    if node is not None and not isinstance(node, Mapping):
        raise ConfigError(f"{SET} {key}: '{head}' lies below a value, not a section; remove '.{head}'")
    copy = dict(node or {})
    if removes and not rest:
        if head not in copy:
            raise ConfigError(f"{SET} {key}: there is nothing to remove{suggest(str(head), copy)}")
        del copy[head]
        return copy
    copy[head] = _set(copy.get(head), rest, value, key, removes)
    return copy


def expand(value: Any, path: Path_ = ()) -> Any:
    """Replace ``${NAME}`` in every string of the tree.

    Raises:
        SpecError: the environment lacks a name.
    """
    if isinstance(value, Mapping):
        return {key: expand(item, (*path, str(key))) for key, item in value.items()}
    if isinstance(value, list):
        return [expand(item, (*path, index)) for index, item in enumerate(value)]
    try:
        return expand_environment(value)
    except ConfigError as error:
        raise SpecError(path, str(error).removeprefix(": ")) from None
