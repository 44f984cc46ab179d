"""The cache's folder: who finds what in it, and how much of the disk it may take."""

import fcntl
import os
import shutil
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from smolvla_core.cache.identity import name_of
from smolvla_core.cache.store import DATA, IN_USE, Store, create, open_store, stores_in
from smolvla_core.config import TrialConfig
from smolvla_core.data.legacy import cache_home
from smolvla_core.errors import ConfigError

GB = 10**9
KEEP_FREE = 5 * GB
"""Bytes that are left free on the disk, whatever the budget."""
LOOK_AGAIN = 64 * 10**6
"""After so many bytes of its own a process looks again at what the others have written."""


class Home:
    """A folder of stores, bounded by a budget and by the disk.

    Args:
        folder: made where it is missing.
        budget: bytes that all stores in it may take together.

    Raises:
        ConfigError: the folder cannot be made or written to.
    """

    def __init__(self, folder: Path, budget: int):
        self.folder, self.budget = folder.absolute(), budget
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            (self.folder / ".cache.lock").touch()
        except OSError as error:
            raise ConfigError(
                f"runtime.cache: {folder} cannot be written to ({error.strerror}); name another, or set it to off"
            ) from None
        self.closed = False
        self._left, self._since_look = 0, LOOK_AGAIN

    def open(self, identity: Mapping[str, Any], rows: int, shape: Sequence[int], dtype: torch.dtype) -> Store:
        """The store of what ``identity`` describes; empty where it is new.

        Args:
            identity: all that its values depend on.
            rows: of the dataset, N.
            shape: of a row's value.
            dtype: of a row's value.
        """
        folder = self.folder / name_of(identity)
        with self._locked():
            create(folder, rows, shape, dtype, identity)
            return open_store(folder, rows, shape, dtype, self)

    def make_room(self, wanted: int, kinds: Collection[str]) -> list[str]:
        """Remove the longest unused stores until so many bytes fit; none that a living process uses.

        Args:
            wanted: bytes.
            kinds: of the stores that may go: ``frames``, ``prefixes``, ``embeddings``.

        Returns:
            Names of what was removed.
        """
        removed = []
        with self._locked():
            for folder in stores_in(self.folder):
                if self.left() >= min(wanted, self.budget):
                    break
                if any(f"-{kind}-" in folder.name for kind in kinds) and _unused(folder):
                    shutil.rmtree(folder)
                    removed.append(folder.name)
        return removed

    def used(self) -> int:
        """Bytes on the disk that the stores take."""
        total = 0
        for file in self.folder.glob(f"*/{DATA}"):
            try:
                total += file.stat().st_blocks * 512
            except FileNotFoundError:  # removed by another process
                continue
        return total

    def left(self) -> int:
        """Bytes that may still be written, by the budget and by the disk."""
        return max(0, min(self.budget - self.used(), shutil.disk_usage(self.folder).free - KEEP_FREE))

    def take(self, count: int) -> bool:
        """See :class:`smolvla_core.cache.store.Room`."""
        if self.closed:
            return False
        if self._since_look >= LOOK_AGAIN or self._left < count:
            self._left, self._since_look = self.left(), 0
        if self._left < count:
            self.closed = True
            return False
        self._left -= count
        self._since_look += count
        return True

    def close(self) -> None:
        """See :class:`smolvla_core.cache.store.Room`."""
        self.closed = True

    @contextmanager
    def _locked(self) -> Iterator[None]:
        with (self.folder / ".cache.lock").open("w", encoding="utf-8") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield


def home_of(config: TrialConfig) -> Home | None:
    """The cache of a trial, None where it is off.

    Raises:
        ConfigError: its folder cannot be made.
    """
    runtime = config.runtime
    if runtime.cache == "off":
        return None
    folder = cache_home(config.data.cache_dir) / "features" if runtime.cache == "auto" else Path(runtime.cache)
    return Home(folder.expanduser(), round(runtime.cache_gb * GB))


def size_text(count: float) -> str:
    """Bytes for people, e.g. ``369 kB``."""
    for unit, size in (("TB", 1e12), ("GB", 1e9), ("MB", 1e6)):
        if count >= size:
            return f"{count / size:.3g} {unit}"
    return f"{count / 1e3:.3g} kB"


def _unused(folder: Path) -> bool:
    file = os.open(folder / IN_USE, os.O_RDWR)
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    finally:
        os.close(file)
    return True
