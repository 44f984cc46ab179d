"""The folder that an import writes to: begun, continued, and never by two imports at once.

While an import runs, ``.import`` inside it holds a lock, what the check found, a mark for each
episode that is done, and files that are not whole yet. It goes when all is done.
"""

import json
import shutil
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

from smolvla_core.data import unfinished
from smolvla_core.data.inside import INFO_FILE
from smolvla_core.errors import DataError

PROGRESS_FOLDER = ".import"
PLAN_FILE = "meta/behavior_import.json"
"""What was imported and how; an import continues only under the same plan."""


def is_complete(target: Path) -> bool:
    """Whether an import into ``target`` has ended; ``info.json`` is written last."""
    return (target / INFO_FILE).is_file()


def refuse_other(target: Path, plan: Mapping[str, Any]) -> None:
    """Refuse a folder that is neither new nor begun under this very plan; writes nothing.

    Raises:
        DataError: something else is there.
    """
    if target.exists() and not target.is_dir():
        raise DataError(f"--out: {target} is a file; give a new folder")
    if (target / PLAN_FILE).is_file():
        try:
            begun = json.loads((target / PLAN_FILE).read_text(encoding="utf-8"))
        except ValueError:
            begun = None
        if begun != plan:
            differs = [key for key in plan if not isinstance(begun, dict) or begun.get(key) != plan[key]]
            raise DataError(
                f"--out: {target} was begun with other {' and '.join(differs[:2]).replace('_', ' ')}; "
                "repeat that command to finish it, or give a new folder"
            )
    elif target.is_dir() and any(path.name != PROGRESS_FOLDER for path in target.iterdir()):
        raise DataError(f"--out: {target} is not empty and no import was begun there; give a new folder")


def refuse_busy(target: Path) -> None:
    """Refuse a folder that another import is writing to.

    Raises:
        DataError: one is.
    """
    unfinished.refuse_held(target / PROGRESS_FOLDER, _busy(target))


@contextmanager
def held(target: Path, plan: Mapping[str, Any]) -> Iterator[None]:
    """Begin or continue an import, and keep others out until the block ends.

    Raises:
        DataError: another import holds it, something else is there, or it cannot be made.
    """
    with unfinished.held(
        target / PROGRESS_FOLDER,
        busy=_busy(target),
        unwritable=lambda reason: f"--out: {target} cannot be written to ({reason}); give another folder",
    ):
        refuse_other(target, plan)  # another import may have begun it since the first look
        if not (target / PLAN_FILE).is_file():
            write_json(target, PLAN_FILE, plan)
        yield


def finish(target: Path) -> None:
    """Remove what only a running import needs."""
    shutil.rmtree(target / PROGRESS_FOLDER, ignore_errors=True)


def placed(target: Path, name: str) -> AbstractContextManager[Path]:
    """A path to write to; what was written appears as ``name`` when the block ends, whole or not at all."""
    return unfinished.placed(target / PROGRESS_FOLDER, name)


def write_json(target: Path, name: str, value: Any, indent: int | None = 4) -> None:
    """Write a JSON file into the dataset."""
    with placed(target, name) as part:
        part.write_text(json.dumps(value, indent=indent), encoding="utf-8")


def save_records(target: Path, records: list[dict[str, Any]]) -> None:
    """Keep what the check found, so that a continued import need not check again."""
    write_json(target, f"{PROGRESS_FOLDER}/checked.json", records, indent=None)


def saved_records(target: Path) -> list[dict[str, Any]] | None:
    """What `save_records` kept, if anything."""
    path = target / PROGRESS_FOLDER / "checked.json"
    if not path.is_file():
        return None
    records: list[dict[str, Any]] = json.loads(path.read_text(encoding="utf-8"))
    return records


def mark_done(target: Path, episode: int) -> None:
    """Note that all files of an episode, by its new number, are written."""
    (target / PROGRESS_FOLDER / f"done-{episode:06d}").touch()


def is_done(target: Path, episode: int) -> bool:
    """Whether `mark_done` was called for an episode."""
    return (target / PROGRESS_FOLDER / f"done-{episode:06d}").is_file()


def _busy(target: Path) -> str:
    return f"--out: another import is writing to {target}; wait for it to end"
