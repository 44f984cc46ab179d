"""A folder that takes long to write: one process at a time, and no file that is not whole.

A work folder directly inside it holds a lock, and files until they are whole.
"""

import fcntl
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from smolvla_core.errors import DataError

LOCK = "lock"


@contextmanager
def held(work: Path, *, busy: str, unwritable: Callable[[str | None], str]) -> Iterator[None]:
    """Make the work folder where it is missing, and keep others out until the block ends.

    Args:
        work: the work folder.
        busy: what is said where another process holds it.
        unwritable: the system's reason -> what is said where it cannot be made.

    Raises:
        DataError: another holds it, or it cannot be made.
    """
    try:
        work.mkdir(parents=True, exist_ok=True)
        lock = open(work / LOCK, "w", encoding="utf-8")  # noqa: SIM115 (closed below)
    except OSError as error:
        raise DataError(unwritable(error.strerror)) from None
    with lock:
        _lock(lock.fileno(), busy)
        yield


def refuse_held(work: Path, busy: str) -> None:
    """Refuse a work folder that another process holds, without making one.

    Raises:
        DataError: one does.
    """
    if (work / LOCK).is_file():
        with open(work / LOCK, encoding="utf-8") as file:
            _lock(file.fileno(), busy)


@contextmanager
def placed(work: Path, name: str | Path) -> Iterator[Path]:
    """A path to write to; what was written appears beside the work folder as ``name`` when the block ends, whole or
    not at all.
    """
    final = work.parent / name
    part = work / f"{os.getpid()}-{final.relative_to(work.parent).as_posix().replace('/', '-')}"
    yield part
    final.parent.mkdir(parents=True, exist_ok=True)
    os.replace(part, final)


def _lock(file: int, busy: str) -> None:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        raise DataError(busy) from None
