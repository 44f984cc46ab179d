"""The folder that a recording writes to: begun, continued, and never by two recordings at once.

While it is not complete, ``.recording`` inside it holds a lock, the columns of each whole episode, a mark
for it, and files that are not whole yet. It goes when all is done; ``info.json`` is written last.
"""

import json
import shutil
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

from smolvla_core.data import unfinished
from smolvla_core.data.behavior.release import write_json
from smolvla_core.data.inside import INFO_FILE
from smolvla_core.errors import DataError

SETTINGS_FILE = "meta/garden.json"
"""How a folder was recorded; there from the start."""
PARTS = ".recording"


def is_complete(out: Path) -> bool:
    """Whether a recording into the folder has ended."""
    return (out / INFO_FILE).is_file()


@contextmanager
def held(out: Path, settings: Mapping[str, Any]) -> Iterator[None]:
    """Begin or continue a recording, and keep others out until the block ends.

    Raises:
        DataError: another recording holds it, it was begun with other settings, something else is there, or it
            cannot be made.
    """
    _refuse_other(out, settings)
    with unfinished.held(
        out / PARTS,
        busy=f"{out}: another recording is writing to it; wait for it to end",
        unwritable=lambda reason: f"{out}: cannot be written to ({reason}); give another folder",
    ):
        _refuse_other(out, settings)  # another may have begun it since the first look
        if not (out / SETTINGS_FILE).is_file():
            with placed(out, SETTINGS_FILE) as staging:
                write_json(staging, settings)
        yield


def finish(out: Path) -> None:
    """Remove what only a running recording needs."""
    shutil.rmtree(out / PARTS, ignore_errors=True)


def part(out: Path, number: int, kind: str) -> Path:
    """What is kept of an episode until all are whole: its columns (``parquet``), its mark and lines (``json``)."""
    return out / PARTS / f"{number:08d}.{kind}"


def placed(out: Path, name: str | Path) -> AbstractContextManager[Path]:
    """A path to write to; what was written appears as ``name`` when the block ends, whole or not at all."""
    return unfinished.placed(out / PARTS, name)


def _refuse_other(out: Path, settings: Mapping[str, Any]) -> None:
    """Refuse a folder that is neither new nor begun with these very settings; writes nothing."""
    if out.exists() and not out.is_dir():
        raise DataError(f"{out}: is a file; give a new folder")
    file = out / SETTINGS_FILE
    if file.is_file():
        try:
            begun = json.loads(file.read_text(encoding="utf-8"))
        except ValueError:
            begun = None
        if not isinstance(begun, dict):
            raise DataError(f"{file}: damaged; remove {out} and record it again")
        for key, value in settings.items():
            if begun.get(key) != value:
                raise DataError(
                    f"{out}: was begun with {key} {begun.get(key)}, not {value}; give the same, or another folder"
                )
    elif out.is_dir() and any(path.name != PARTS for path in out.iterdir()):
        raise DataError(f"{out}: exists and was not recorded here; give another folder")
