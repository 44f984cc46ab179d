"""Values of a configuration before they are checked: YAML, ``KEY=VALUE``, dotted keys, the environment."""

import os
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import yaml

from smolvla_core.errors import ConfigError, first_line


def parse_assignments(assignments: Iterable[str]) -> dict[str, Any]:
    """``["optim.batch_size=32"]`` -> ``{"optim.batch_size": 32}``; values are YAML.

    Raises:
        ConfigError: a text without ``=``, or a value that is no YAML.
    """
    parsed = {}
    for text in assignments:
        key, equals, value = text.partition("=")
        if not equals or not key.strip():
            raise ConfigError(f"--set {text!r}: expected KEY=VALUE, e.g. --set optim.batch_size=32")
        parsed[key.strip()] = load_yaml(value, where=f"--set {key.strip()}")
    return parsed


class _Loader(yaml.SafeLoader):
    """YAML 1.1's safe loader, which also reads ``1e-4`` and ``800_000`` as numbers, and takes no key twice."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        lines: dict[Any, int] = {}
        for key in (key for key, _ in node.value if isinstance(key, yaml.ScalarNode)):
            line = key.start_mark.line + 1
            if key.value in lines:
                problem = f"'{key.value}' stands here and in line {lines[key.value]}; remove one of them"
                raise yaml.constructor.ConstructorError(problem=problem, problem_mark=key.start_mark)
            lines[key.value] = line
        return super().construct_mapping(node, deep)


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?(?:[0-9][0-9_]*)(?:\.[0-9_]*)?[eE][-+]?[0-9]+$"),
    list("-+0123456789"),
)


def load_yaml(text: str, where: str) -> Any:
    """Parse YAML safely, with ``${NAME}`` left as it stands.

    Raises:
        ConfigError: one line with the place of the mistake.
    """
    try:
        return yaml.load(text, Loader=_Loader)  # nosec B506 # a SafeLoader with one more number format
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f":{mark.line + 1}" if mark else ""
        problem = getattr(error, "problem", None) or first_line(error)
        raise ConfigError(f"{where}{line}: not valid YAML: {problem}") from None
    except ValueError as error:  # what has the form of a date or a number, and is none
        raise ConfigError(f"{where}: a value is read as a date or number, and is none ({error}); quote it") from None


def expand_environment(value: Any, where: str = "") -> Any:
    """Replace ``${NAME}`` by the environment's value in every string of a nested value.

    ``${NAME:-text}`` is the text where the environment lacks the name or has it empty, as in a shell.

    Raises:
        ConfigError: a name the environment lacks.
    """
    if isinstance(value, Mapping):
        return {key: expand_environment(item, f"{where}.{key}".lstrip(".")) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [expand_environment(item, where) for item in value]
    if not isinstance(value, str):
        return value

    def lookup(match: re.Match[str]) -> str:
        name, default = match.groups()
        if default is not None:
            return os.environ.get(name) or default
        if name not in os.environ:
            raise ConfigError(f"{where}: ${{{name}}} is not set; run: export {name}=...")
        return os.environ[name]

    return re.sub(r"\$\{(\w+)(?::-([^}]*))?\}", lookup, value)


def set_dotted(nested: Mapping[str, Any], dotted: Mapping[str, Any]) -> dict[str, Any]:
    """A copy of ``nested`` with each ``a.b.c`` of ``dotted`` set; missing sections are made.

    An entry of a list is named by its number, from 0: ``data.train.1.weight``.

    Raises:
        ConfigError: a path runs through something that is no section, or past a list's end.
    """
    result: Any = dict(nested)
    for path, value in dotted.items():
        result = _set_at(result, path.split("."), 0, value)
    return dict(result)


def _set_at(node: Any, parts: Sequence[str], depth: int, value: Any) -> Any:
    """A copy of what stands at ``parts[:depth]``, with the value set below it."""
    if depth == len(parts):
        return value
    path, part = ".".join(parts), parts[depth]
    if isinstance(node, list | tuple):
        if not part.isdecimal() or int(part) >= len(node):
            raise ConfigError(f"{path}: there is no entry '{part}'; the list holds {len(node)}, from 0")
        number = int(part)
        return [*node[:number], _set_at(node[number], parts, depth + 1, value), *node[number + 1 :]]
    if node and not isinstance(node, Mapping):
        raise ConfigError(
            f"{path}: '{parts[depth - 1]}' is a value, not a section; remove '.{'.'.join(parts[depth:])}'"
        )
    return {**(node or {}), part: _set_at((node or {}).get(part), parts, depth + 1, value)}
