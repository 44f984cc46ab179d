"""A trial's configuration from its YAML file, or from a search's."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from smolvla_core.config import TrialConfig
from smolvla_core.config_values import expand_environment, load_yaml, parse_assignments, set_dotted
from smolvla_core.errors import ConfigError


def load_config(path: str | Path, assignments: Iterable[str] = ()) -> TrialConfig:
    """Read a trial's YAML file and apply ``KEY=VALUE`` assignments.

    Raises:
        ConfigError: the file is missing or a value is wrong.
    """
    values, is_search = _read_trial(Path(path))
    if is_search:
        raise ConfigError(f"{path}: is a search, not a trial; run: python -m tune.run {path}")
    return _trial_of(values, path, assignments)


def load_trial(path: str | Path, assignments: Iterable[str] = ()) -> tuple[TrialConfig, bool]:
    """As :func:`load_config`; of a search, what all its trials share. And whether it is a search.

    Raises:
        ConfigError: the file is missing or a value is wrong.
    """
    values, is_search = _read_trial(Path(path))
    return _trial_of(values, path, assignments), is_search


def _read_trial(path: Path) -> tuple[dict[str, Any], bool]:
    if not path.is_file():
        raise ConfigError(f"{path}: no such file; give the path of a trial's YAML")
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise ConfigError(f"{path}: is no text in UTF-8; save it as such") from None
    values = load_yaml(text, where=str(path))
    if not isinstance(values, dict):
        raise ConfigError(f"{path}: expected a mapping of sections, got {type(values).__name__}")
    is_search = "search" in values and isinstance(values.get("trial"), dict)
    return values["trial"] if is_search else values, is_search


def _trial_of(values: Mapping[str, Any], path: str | Path, assignments: Iterable[str]) -> TrialConfig:
    overridden = set_dotted(values, parse_assignments(assignments))
    try:
        return TrialConfig.from_dict(expand_environment(overridden))
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from None
