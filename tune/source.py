"""A YAML file as its author sees it: the value of every key, and the line it stands on."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import yaml

from smolvla_core.config import TrialConfig, dotted_keys, expand_environment, load_yaml
from smolvla_core.errors import ConfigError

Path_ = tuple[str | int, ...]
"""A place in the tree, e.g. ``("search", "optim.lr", "low")``."""

SET = "--set"
_BY_TRIAL_KEY = ("search",)  # mappings whose keys hold dots
_NAMED = ("warm_start",)  # mappings of names to such mappings


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
        if any(error.path[: len(path)] == path for path in self.changed):
            return ConfigError(f"{SET}: {error}")
        path = error.path
        while path and path not in self.lines:
            path = path[:-1]
        line = self.lines.get(path)
        return ConfigError(f"{self.name}:{line}: {error}" if line else f"{self.name}: {error}")


def read(text: str, name: str) -> tuple[dict[str, Any], Source]:
    """Parse a YAML mapping.

    Raises:
        ConfigError: it is no YAML, no mapping, or a key stands twice in one mapping.
    """
    values = load_yaml(text, where=name)
    if not isinstance(values, dict):
        raise ConfigError(f"{name}: expected a mapping with 'study', 'trial' and 'search', got {_kind(values)}")
    lines: dict[Path_, int] = {}
    _walk(yaml.compose(text, Loader=yaml.SafeLoader), (), lines, name)
    return values, Source(name, text, lines)


def _walk(node: Any, path: Path_, lines: dict[Path_, int], name: str) -> None:
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            place = (*path, str(key.value))
            line = key.start_mark.line + 1
            if place in lines:
                raise ConfigError(f"{name}:{line}: {'.'.join(map(str, place))}: stands here and in line {lines[place]}")
            lines[place] = line
            _walk(value, place, lines, name)
    elif isinstance(node, yaml.SequenceNode):
        for index, value in enumerate(node.value):
            lines[*path, index] = value.start_mark.line + 1
            _walk(value, (*path, index), lines, name)


def _kind(value: Any) -> str:
    return "nothing" if value is None else type(value).__name__


def assign(tree: Mapping[str, Any], assignments: Mapping[str, Any]) -> tuple[dict[str, Any], tuple[Path_, ...]]:
    """A copy of a search's tree with ``--set`` applied; and the paths that were set.

    A key that begins with a section of ``TrialConfig`` is meant under ``trial``; ``null`` for a
    parameter of ``search`` or for a warm start removes it.

    Raises:
        ConfigError: a path runs through a value.
    """
    result: Any = dict(tree)
    paths = []
    for key, value in assignments.items():
        path = _parts(key)
        removes = value is None and len(path) == 2 and path[0] in (*_BY_TRIAL_KEY, *_NAMED)
        result = _set(result, path, value, key, removes)
        paths.append(path)
    return result, tuple(paths)


def _parts(key: str) -> Path_:
    head, _, rest = key.partition(".")
    if head in TrialConfig.model_fields:
        return ("trial", *_indices(key))
    if head in _BY_TRIAL_KEY and rest:
        return (head, *_trial_key(rest))
    if head in _NAMED and "." in rest:
        name, _, trial_key = rest.partition(".")
        return (head, name, *_trial_key(trial_key))
    return (head, *_indices(rest)) if rest else (head,)


def _trial_key(text: str) -> Path_:
    """``optim.lr.low`` -> ``("optim.lr", "low")``."""
    known = [key for key in dotted_keys() if text == key or text.startswith(f"{key}.")]
    if not known:
        return (text,)
    key = max(known, key=len)
    return (key, *_indices(text[len(key) + 1 :]))


def _indices(text: str) -> Path_:
    return tuple(int(part) if part.isdecimal() else part for part in text.split(".") if part)


def _set(node: Any, path: Path_, value: Any, key: str, removes: bool) -> Any:
    if not path:
        return value
    head, rest = path[0], path[1:]
    if isinstance(head, int):
        if not isinstance(node, list) or head >= len(node):
            length = len(node) if isinstance(node, list) else 0
            raise ConfigError(f"{SET} {key}: there is no entry {head}; the list holds {length}")
        return [_set(item, rest, value, key, removes) if index == head else item for index, item in enumerate(node)]
    if node is not None and not isinstance(node, Mapping):
        raise ConfigError(f"{SET} {key}: '{head}' lies below a value, not a section; remove '.{head}'")
    copy = dict(node or {})
    if removes and not rest:
        copy.pop(head, None)
        return copy
    copy[str(head)] = _set(copy.get(head), rest, value, key, removes)
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


def first_place(paths: Iterable[Path_], source: Source) -> Path_:
    """The path that stands first in the file; the first given where none does."""
    every = list(paths)
    return min(every, key=lambda path: source.lines.get(path, 10**9)) if every else ()
