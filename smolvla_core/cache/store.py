"""One value per row of a dataset, on disk, filled by any number of processes at once.

A store is a folder: ``data`` has a place for every row and is sparse, so that it takes what was
written and no more; ``written`` has a byte for every row; ``claims`` is only locked.

- A row counts as stored once its byte is set, which happens after its data reached the disk. What a
  crash leaves behind is therefore a row that is not stored.
- A process locks a row while it computes it. The lock ends with the process, however it ends, and
  whoever waited for the row then computes it.
- Several processes that need the same rows share them out: each takes the next that nobody has.
"""

import fcntl
import json
import math
import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import batched
from pathlib import Path
from typing import Any, NamedTuple, Protocol
from weakref import WeakValueDictionary

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

DATA, WRITTEN, CLAIMS, IN_USE, META = "data", "written", "claims", "in_use", "meta.json"

BLOCK = 4096
"""Bytes of a disk's block: a sparse file takes whole ones."""

Compute = Callable[[NDArray[np.int64]], Tensor]
"""Rows (n,) -> their values (n, *shape), on any device."""

_OPEN: WeakValueDictionary[Path, "Store"] = WeakValueDictionary()


class Room(Protocol):
    """Whether so many bytes more may be written."""

    closed: bool
    """Nothing more will be written by this process."""

    def take(self, count: int) -> bool:
        """True where there is room, which is then taken."""

    def close(self) -> None:
        """The disk turned out to be full."""


class Store:
    """A folder that :func:`create` made; open it with :func:`open_store`.

    Args:
        folder: of the store.
        rows: of the dataset, N.
        shape: of a row's value.
        dtype: of a row's value.
        room: is asked before anything is written.
    """

    def __init__(self, folder: Path, rows: int, shape: Sequence[int], dtype: torch.dtype, room: Room):
        self.folder, self.shape, self.dtype, self.room = folder, tuple(shape), dtype, room
        self.item_bytes = item_bytes(shape, dtype)
        self._files = {name: os.open(folder / name, os.O_RDWR) for name in (DATA, WRITTEN, CLAIMS, IN_USE)}
        os.utime(folder / IN_USE)  # the last use, by which what is removed first is chosen
        fcntl.flock(self._files[IN_USE], fcntl.LOCK_SH)
        mapped = np.memmap(folder / DATA, dtype=np.uint8, mode="r+", shape=(rows, self.item_bytes))
        self._data = torch.from_numpy(mapped)
        self._written = np.memmap(folder / WRITTEN, dtype=np.uint8, mode="r", shape=(rows,))

    def __del__(self) -> None:
        for file in getattr(self, "_files", {}).values():
            os.close(file)

    def __len__(self) -> int:
        return len(self._written)

    @property
    def count(self) -> int:
        """Number of rows that are stored."""
        return int(np.count_nonzero(self._written))

    def has(self, rows: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Which of the rows (n,) are stored."""
        found: NDArray[np.bool_] = self._written[rows] != 0
        return found

    def gather(self, rows: NDArray[np.int64], compute: Compute, at_once: int) -> Tensor:
        """Values (n, *shape) of rows (n,); those that are not stored are computed, and stored.

        Args:
            rows: in any order, with repetitions.
            compute: called with rows that this process has to compute.
            at_once: rows that are claimed and computed together.
        """
        if self.has(rows).all():
            return self._read(rows)
        distinct, places = np.unique(rows, return_inverse=True)
        fresh = self.fill(distinct, compute, at_once)
        values = self._read(distinct)
        for position, row in enumerate(distinct):
            if int(row) in fresh:
                values[position] = fresh[int(row)]
        return values[torch.from_numpy(places)]

    def fill(self, rows: NDArray[np.int64], compute: Compute, at_once: int) -> dict[int, Tensor]:
        """Make sure of distinct rows (n,); returns the values of those for which there was no room.

        Rows that another process computes are waited for, after everything else has been done.
        """
        left: dict[int, Tensor] = {}
        elsewhere = []
        claimed: list[int] = []
        written: dict[int, Tensor] = {}
        try:
            for group in batched(map(int, rows[~self.has(rows)]), at_once):
                # without room there is nothing to share, and nothing to wait for
                mine = list(group) if self.room.closed else [row for row in group if self._claim(row)]
                claimed += mine
                elsewhere += [row for row in group if row not in mine]
                values = self._compute(mine, compute)
                (written if self._write(values) else left).update(values)
            left |= self._commit(written)
        finally:
            self._release(claimed)
        for row in elsewhere:
            with _Claim(self._files[CLAIMS], row):
                values = self._compute([row], compute)
                left |= self._commit(values) if self._write(values) else values
        return left

    def _compute(self, claimed: list[int], compute: Compute) -> dict[int, Tensor]:
        """Values of what nobody stored in the meantime."""
        missing = [row for row in claimed if not self._written[row]]
        if not missing:
            return {}
        values = compute(np.array(missing, dtype=np.int64)).detach().cpu().contiguous()
        assert (values.dtype, tuple(values.shape[1:])) == (self.dtype, self.shape), "no value of this store"
        return dict(zip(missing, values, strict=True))

    def _write(self, values: Mapping[int, Tensor]) -> bool:
        """Write values to their places, of which nobody knows yet; false where there is no room."""
        if not self.room.take(len(values) * math.ceil(self.item_bytes / BLOCK) * BLOCK):
            return False
        try:
            for row, value in values.items():
                if os.pwrite(self._files[DATA], _as_bytes(value), row * self.item_bytes) < self.item_bytes:
                    raise OSError("a short write")
        except OSError:  # the disk, or the user's share of it, is full
            self.room.close()
            return False
        return True

    def _commit(self, written: Mapping[int, Tensor]) -> dict[int, Tensor]:
        """Declare values stored, once they are on the disk; those that did not get there."""
        try:
            if written:
                os.fdatasync(self._files[DATA])
            for row in written:
                os.pwrite(self._files[WRITTEN], b"\1", row)
        except OSError:  # some disks find out late that they are full
            self.room.close()
            return dict(written)
        return {}

    def _read(self, rows: NDArray[np.int64]) -> Tensor:
        values = torch.index_select(self._data, 0, torch.from_numpy(rows))
        return values.view(self.dtype).view(len(rows), *self.shape)

    def _claim(self, row: int) -> bool:
        try:
            fcntl.lockf(self._files[CLAIMS], fcntl.LOCK_EX | fcntl.LOCK_NB, 1, row)
        except OSError:
            return False
        return True

    def _release(self, rows: list[int]) -> None:
        for row in rows:
            fcntl.lockf(self._files[CLAIMS], fcntl.LOCK_UN, 1, row)


class _Claim:
    """A row's lock, once whoever has it lets go. Nothing else is locked meanwhile, so none waits in a circle."""

    def __init__(self, file: int, row: int):
        self.file, self.row = file, row

    def __enter__(self) -> None:
        fcntl.lockf(self.file, fcntl.LOCK_EX, 1, self.row)

    def __exit__(self, *_: object) -> None:
        fcntl.lockf(self.file, fcntl.LOCK_UN, 1, self.row)


def item_bytes(shape: Sequence[int], dtype: torch.dtype) -> int:
    """Bytes of one row's value."""
    return int(np.prod(shape)) * dtype.itemsize


class Kind(NamedTuple):
    """What a store holds, as its ``meta.json`` says it."""

    rows: int
    shape: tuple[int, ...]
    dtype: torch.dtype
    identity: Mapping[str, Any]


def kind_of(folder: Path) -> Kind:
    """What the store of a folder holds."""
    meta = json.loads((folder / META).read_text(encoding="utf-8"))
    return Kind(meta["rows"], tuple(meta["shape"]), getattr(torch, meta["dtype"]), meta["identity"])


def create(folder: Path, rows: int, shape: Sequence[int], dtype: torch.dtype, identity: Mapping[str, Any]) -> None:
    """Make an empty store where there is none, in place of anything that is not whole.

    Args:
        folder: of the store; the caller sees to it that no other process makes it at the same time.
        rows: N.
        shape: of a row's value.
        dtype: of a row's value.
        identity: what the values depend on, for whoever reads the folder.
    """
    meta = {"rows": rows, "shape": list(shape), "dtype": str(dtype).removeprefix("torch."), "identity": dict(identity)}
    sizes = {DATA: rows * item_bytes(shape, dtype), WRITTEN: rows, CLAIMS: 0, IN_USE: 0}
    if _is_whole(folder, meta, sizes):
        return
    _OPEN.pop(folder, None)
    shutil.rmtree(folder, ignore_errors=True)
    staging = folder.with_name(f".{folder.name}-{os.getpid()}")
    shutil.rmtree(staging, ignore_errors=True)
    staging.mkdir(parents=True)
    for name, size in sizes.items():
        with (staging / name).open("wb") as file:
            file.truncate(size)
    (staging / META).write_text(json.dumps(meta, indent=2), encoding="utf-8")
    os.replace(staging, folder)


def open_store(folder: Path, rows: int, shape: Sequence[int], dtype: torch.dtype, room: Room) -> Store:
    """The store of a folder. A process has one at most: closing a second would end the claims of the first."""
    store = _OPEN.get(folder)
    if store is None:
        store = Store(folder, rows, shape, dtype, room)
        _OPEN[folder] = store
    store.room = room
    return store


def _is_whole(folder: Path, meta: Mapping[str, Any], sizes: Mapping[str, int]) -> bool:
    try:
        if json.loads((folder / META).read_text(encoding="utf-8")) != json.loads(json.dumps(meta)):
            return False
        return all((folder / name).stat().st_size == size for name, size in sizes.items())
    except (OSError, json.JSONDecodeError):
        return False


def _as_bytes(value: Tensor) -> memoryview:
    return memoryview(value.reshape(-1).view(torch.uint8).numpy())


def stores_in(home: Path) -> Iterator[Path]:
    """Folders of the stores in a cache folder, the longest unused first."""
    found = [(file.stat().st_mtime, file.parent) for file in home.glob(f"*/{IN_USE}")]
    yield from (folder for _, folder in sorted(found))
