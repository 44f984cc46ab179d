"""LeRobot v2.1 datasets, converted once into a cache folder by lerobot's own converter."""

import fcntl
import hashlib
import io
import logging
import os
import shutil
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext, redirect_stderr
from pathlib import Path
from typing import Any

from datasets.exceptions import DatasetsError

from smolvla_core.errors import ConfigError, DataError, disk_is_full, first_line

LEGACY_VERSION = "v2.1"
CURRENT_MAJOR = "v3"


def is_legacy(info: Mapping[str, Any]) -> bool:
    """Whether an ``info.json`` is of LeRobot v2.1.

    Raises:
        DataError: a version that is neither v2.1 nor v3.
    """
    version = str(info.get("codebase_version"))
    if version == LEGACY_VERSION:
        return True
    if not version.startswith(CURRENT_MAJOR):
        raise DataError(
            f"data.train: LeRobot version '{version}' is not supported; v2.1 and v3.0 are. "
            "Convert the dataset with lerobot first"
        )
    return False


def cache_home(cache_dir: str | None) -> Path:
    """Folder for everything that can be made again; it is there afterwards.

    Raises:
        ConfigError: it cannot be made.
    """
    home = Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")) / "smolvla_core" if cache_dir is None else Path(cache_dir)
    home = home.expanduser()
    try:
        home.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(
            f"data.cache_dir: {home} cannot be made ({error.strerror}); set it to a folder that can be written to"
        ) from None
    return home


def converted(root: Path, info: Mapping[str, Any], cache_dir: str | None) -> Path:
    """The v3.0 copy of a v2.1 dataset, converting it on the first call; ``root`` is only read.

    lerobot's converter renames the folder it is given, so it is given a folder of links.

    Raises:
        DataError: the converter refuses the layout.
    """
    if "total_chunks" not in info:
        raise DataError(
            f"data.train: {root} is in BEHAVIOR's raw layout, which lerobot cannot convert; "
            f"run: python -m smolvla_core.data.behavior {root} --task 6 --out DATASET"
        )
    home = cache_home(cache_dir) / "converted"
    target = home / f"{root.name}-{_digest(root)}"
    if target.is_dir():
        return target
    with _lock(home, target.name):
        if not target.is_dir():
            _convert(root, home / f".{target.name}", target)
    return target


def _convert(root: Path, staging: Path, target: Path) -> None:
    from lerobot.scripts.convert_dataset_v21_to_v30 import convert_dataset

    shutil.rmtree(staging, ignore_errors=True)
    linked = staging / root.name
    linked.mkdir(parents=True)
    for part in root.iterdir():
        (linked / part.name).symlink_to(part.resolve())
    try:
        with _progress_for_people():
            convert_dataset(repo_id=f"local/{root.name}", root=linked, push_to_hub=False, force_conversion=True)
    except (OSError, ValueError, KeyError, TypeError, RuntimeError, DatasetsError) as error:
        shutil.rmtree(staging, ignore_errors=True)
        if disk_is_full(error):
            raise
        cause = error.__cause__ if isinstance(error, DatasetsError) and error.__cause__ else error
        raise DataError(
            f"data.train: lerobot could not convert {root} from v2.1 ({type(cause).__name__}: "
            f"{first_line(cause).rstrip('.')}); the dataset is incomplete, damaged or numbered with gaps; fetch it anew"
        ) from error
    os.replace(linked, target)
    shutil.rmtree(staging)


def _digest(root: Path) -> str:
    digest = hashlib.sha256(str(root.resolve()).encode())
    for file in sorted((root / "meta").glob("*")):
        if file.is_file():
            digest.update(file.read_bytes())
    files = [*sorted((root / "data").rglob("*.parquet")), *sorted((root / "videos").rglob("*.mp4"))]
    for file in files:
        found = file.stat()
        digest.update(f"{file.relative_to(root)} {found.st_size} {found.st_mtime_ns}".encode())
    return digest.hexdigest()[:12]


@contextmanager
def _progress_for_people() -> Iterator[None]:
    """Lerobot's progress bars in a terminal, nothing in a log."""
    lerobot = logging.getLogger("lerobot")
    level = lerobot.level
    lerobot.setLevel(logging.ERROR)
    try:
        with nullcontext() if sys.stderr.isatty() else redirect_stderr(io.StringIO()):
            yield
    finally:
        lerobot.setLevel(level)


@contextmanager
def _lock(home: Path, name: str) -> Iterator[None]:
    home.mkdir(parents=True, exist_ok=True)
    with open(home / f".{name}.lock", "w", encoding="utf-8") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
