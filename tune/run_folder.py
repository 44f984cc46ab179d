"""A study's folder: ``<storage>/<study>-<time>``, with the YAML as given and as resolved."""

import time
from pathlib import Path
from typing import Any

from smolvla_core.config import load_yaml
from smolvla_core.errors import ConfigError
from tune.spec import SearchSpec, is_uri

GIVEN, RESOLVED = "study.yaml", "study.resolved.yaml"
MAY_DIFFER = ("budget", "resources", "max_concurrent")
"""Sections that may change when a study is resumed."""


def new_folder(spec: SearchSpec) -> Path:
    """A name for a new study's folder; nothing is made yet."""
    stem = f"{spec.study}-{time.strftime('%Y%m%d-%H%M%S')}"
    taken = (folder for folder in (_home(spec) / f"{stem}{suffix}" for suffix in _suffixes()) if not folder.exists())
    return next(taken)


def _suffixes() -> list[str]:
    return ["", *(f"-{number}" for number in range(2, 1000))]


def write_specification(folder: Path, spec: SearchSpec, yaml_text: str) -> None:
    """Keep the YAML as given, and as resolved; each file appears whole or not at all."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in ((GIVEN, yaml_text), (RESOLVED, spec.to_yaml())):
        part = folder / f".{name}.part"
        part.write_text(text, encoding="utf-8")
        part.replace(folder / name)


def find_folder(spec: SearchSpec) -> Path:
    """The newest folder of a study.

    Raises:
        ConfigError: there is none.
    """
    home = _home(spec)
    found = [file.parent for file in home.glob(f"{spec.study}-*/{RESOLVED}") if _is_of(file.parent, spec.study)]
    if not found:
        raise ConfigError(f"--resume: {home} holds no run of the study '{spec.study}'; leave --resume out to start one")
    return max(found, key=lambda folder: folder.name)


def stored_spec(folder: Path) -> SearchSpec:
    """The specification that a study's folder was started with.

    Raises:
        ConfigError: the folder holds no study.
    """
    file = folder / RESOLVED
    if not file.is_file():
        raise ConfigError(
            f"--resume: {folder} holds no {RESOLVED}; give a study's folder, e.g. runs/demo-20260131-1200"
        )
    return SearchSpec.from_dict(load_yaml(file.read_text(encoding="utf-8"), where=str(file)))


def resumed_spec(folder: Path, given: SearchSpec | None, extend: int) -> SearchSpec:
    """What a resumed study goes on with: the stored specification, with the budget and resources given now.

    Args:
        folder: of the study.
        given: the YAML as it is now, or None to take what is stored.
        extend: trials to add.

    Raises:
        ConfigError: another part of the YAML has changed since; the study's trials could not be compared.
    """
    stored = stored_spec(folder)
    values = stored.to_dict()
    if given is not None:
        now = given.to_dict()
        for section in values:
            if section not in MAY_DIFFER and values[section] != now[section]:
                place = _first_difference(values[section], now[section], section)
                raise ConfigError(
                    f"--resume: {place} differs from what {folder} was started with; "
                    "put it back, or leave --resume out to start a new study"
                )
        values |= {section: now[section] for section in MAY_DIFFER}
    trials = max(values["budget"]["trials"], stored.budget.trials) + extend
    values["budget"] = {**values["budget"], "trials": trials}
    return SearchSpec.from_dict(values)


def _first_difference(old: Any, new: Any, place: str) -> str:
    if isinstance(old, dict) and isinstance(new, dict):
        for key in (*old, *(key for key in new if key not in old)):
            if key not in old or key not in new:
                return f"{place}.{key}"
            if old[key] != new[key]:
                return _first_difference(old[key], new[key], f"{place}.{key}")
    return place


def _home(spec: SearchSpec) -> Path:
    """Local folder of the records; a remote storage holds the checkpoints only."""
    return Path("runs").absolute() if is_uri(spec.storage) else Path(spec.storage)


def _is_of(folder: Path, study: str) -> bool:
    """Whether a folder's name is the study's and a time: ``demo-*`` also matches ``demo-other-...``."""
    rest = folder.name.removeprefix(f"{study}-").split("-")
    return len(rest) >= 2 and rest[0].isdigit() and rest[1].isdigit()
