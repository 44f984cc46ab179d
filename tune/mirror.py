"""A study whose storage is remote: its records are kept in a folder here, and every change is copied there.

The folder here is what the driver works in, as with a local storage; it may be lost with the machine. What
identifies the latest records is ``sessions.jsonl``, which grows by a line each time the study is started.

A file ``driver.json`` in the remote folder, rewritten every ``HEARTBEAT_S``, says that a driver lives: no other
takes the study until it has been silent for ``SILENT_S``, by the storage's own clock.
"""

import json
import logging
import os
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from pyarrow import ArrowException
from ray.tune import Callback

from smolvla_core.errors import ConfigError, first_line
from tune import driver
from tune.records import FINALISTS, SESSIONS, TRIALS
from tune.remote import Folder, join, name_of
from tune.resume import RAY_FOLDER
from tune.spec import SearchSpec

HEARTBEAT_S = 20.0
SILENT_S = 90.0
"""A driver that has said nothing for so long is dead."""
RETRY_S = 30.0
"""Pause after a failed copy: each try on a storage that is away takes ten seconds."""
_ALIVE = "driver.json"
_OPTUNA = "optuna.db"
_OTHER = (0, -1)
_logger = logging.getLogger(__name__)


class Mirror:
    """Copies a study's folder to the remote storage while the block runs.

    Args:
        folder: of the study, here.
        remote: of the study, there.

    Raises:
        StudyBusyError: on entry, where another driver lives.
    """

    def __init__(self, folder: Path, remote: Folder):
        self._folder, self._remote = folder, remote
        self._copied: dict[str, tuple[int, int]] = {}
        self._pushing = threading.Lock()
        self._again_at = 0.0
        self._warned = False
        self._ended = threading.Event()
        self._closed = threading.Event()
        # apart, since copying a policy may take longer than a driver may be silent
        self._copying = threading.Thread(target=self._copy, name="mirror", daemon=True)
        self._beating = threading.Thread(target=self._beat, name="heartbeat", daemon=True)

    def __enter__(self) -> Self:
        refuse_if_driven(self._remote, self._folder)
        there = {name: entry for name, entry in self._remote.files(but=(RAY_FOLDER,)).items() if name != _ALIVE}
        if SESSIONS in there and not (self._folder / SESSIONS).is_file():  # what is missing here would be deleted there
            raise ConfigError(
                f"{self._folder} holds a part of the study at {self._remote.address}; --resume {self._remote.address} "
                "fetches the whole"
            )
        self._copied = {name: self._same(name, entry.size) for name, entry in there.items()}
        self._say_alive()
        self._beating.start()
        self._copying.start()
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._ended.set()
        self._copying.join()
        self._again_at = 0.0
        self.push(last=True)
        self._closed.set()
        self._beating.join()
        try:
            if json.loads(self._remote.read(_ALIVE)) == driver.identity(self._folder):
                self._remote.delete(_ALIVE)
        except FileNotFoundError:
            pass
        except (OSError, ArrowException) as problem:
            _logger.warning("%s could not be deleted: %s", join(self._remote.address, _ALIVE), problem)

    def _same(self, name: str, size: int) -> tuple[int, int]:
        """The state of a file here that need not be copied; records are only added to, so that sizes tell."""
        file = self._folder / name
        if name.partition("/")[0] not in (TRIALS, FINALISTS) or not file.is_file():
            return _OTHER
        found = file.stat()
        return (found.st_mtime_ns, found.st_size) if found.st_size == size else _OTHER

    def push(self, last: bool = False) -> None:
        """Copy what has changed; what cannot be copied now is tried again later.

        Args:
            last: include Optuna's database, which changes all the time and is made anew by a resume.
        """
        with self._pushing:
            if time.monotonic() < self._again_at:
                return
            try:
                self._push(last)
            except (OSError, ArrowException) as error:
                self._again_at = time.monotonic() + RETRY_S
                if not self._warned or last:
                    what = f"what is missing there is in {self._folder}" if last else "tried again until it succeeds"
                    _logger.warning("%s cannot be written (%s); %s", self._remote.address, error, what)
                self._warned = True

    def _push(self, last: bool) -> None:
        here = dict(self._files(last))
        for name in sorted(set(self._copied) - set(here)):
            if last or name != _OPTUNA:
                self._remote.delete(name)
                del self._copied[name]
        self._remote.upload(
            {name: self._folder / name for name, state in here.items() if self._copied.get(name) != state},
            lambda name: self._copied.update({name: here[name]}),
        )

    def _files(self, last: bool) -> Iterator[tuple[str, tuple[int, int]]]:
        """Path below the folder -> time and size, of what is to be copied."""
        for name, state in _walk(self._folder):
            if name != driver.LOCK_NAME and (not name.startswith(_OPTUNA) or (last and name == _OPTUNA)):
                yield name, state

    def _copy(self) -> None:
        while not self._ended.wait(HEARTBEAT_S):
            self.push()

    def _beat(self) -> None:
        while not self._closed.wait(HEARTBEAT_S):
            with suppress(OSError, ArrowException):  # `push` says that the storage is away
                self._say_alive()

    def _say_alive(self) -> None:
        self._remote.write(_ALIVE, json.dumps(driver.identity(self._folder)).encode())


def _walk(folder: Path, above: str = "") -> Iterator[tuple[str, tuple[int, int]]]:
    """Files below a folder but those that are being written; a thousand trials have four thousand, seen often."""
    with os.scandir(folder) as entries:
        for entry in entries:
            name = above + entry.name
            if entry.is_dir():
                yield from _walk(Path(entry.path), f"{name}/")
            elif not entry.name.startswith(".") and not entry.name.endswith(".part"):
                try:
                    found = entry.stat()
                except FileNotFoundError:  # it was there a moment ago
                    continue
                yield name, (found.st_mtime_ns, found.st_size)


class Mirroring(Callback):
    """Copies each report before the state is deleted that the report before was saved with."""

    def __init__(self, mirror: Mirror):
        self._mirror = mirror

    def __getstate__(self) -> dict[str, Any]:
        """Nothing: Ray pickles its callbacks into a file that this package never loads."""
        return {}

    def on_trial_result(self, iteration: int, trials: list, trial: Any, result: dict, **info: Any) -> None:
        """Called after the recorder has written the report."""
        self._mirror.push()


def home_of(spec: SearchSpec, run_dir: Path) -> str | None:
    """The address of a study's folder in the remote storage; None where the storage is a folder."""
    return join(spec.storage, run_dir.name) if spec.is_remote else None


@contextmanager
def mirrored(spec: SearchSpec, run_dir: Path) -> Iterator[list[Callback]]:
    """Keep a study's folder in its remote storage while the block runs, where it has one; Ray's callbacks for that.

    Raises:
        StudyBusyError: another driver runs the study.
        ConfigError: the storage cannot be opened.
    """
    address = home_of(spec, run_dir)
    if address is None:
        yield []
        return
    with Mirror(run_dir, Folder.at(address)) as mirror:
        yield [Mirroring(mirror)]


def fetched(address: str, asked_by: str = "--resume") -> Path:
    """A study's folder here, with the records of its remote one; where those here are as new, they stay.

    Raises:
        ConfigError: the address cannot be opened or fetched, or holds no study.
        StudyBusyError: a living driver runs it.
    """
    remote, folder = Folder.at(address, asked_by), Path("runs").absolute() / name_of(address)
    try:
        return _fetched(remote, folder, asked_by)
    except (OSError, ArrowException) as error:
        raise ConfigError(f"{asked_by}: {address} could not be fetched ({first_line(error)}); try again") from None


def _fetched(remote: Folder, folder: Path, asked_by: str) -> Path:
    there = remote.files(but=(RAY_FOLDER,))
    if SESSIONS not in there:
        raise ConfigError(
            f"{asked_by}: {remote.address} holds no {SESSIONS}; give a study's address, as its plan names it"
        )
    refuse_if_driven(remote, folder)
    driver.hold(folder)
    here = folder / SESSIONS
    if here.is_file() and here.read_bytes().startswith(remote.read(SESSIONS)):
        return folder
    for file in [file for file in folder.rglob("*") if file.is_file() and file.name != driver.LOCK_NAME]:
        file.unlink()
    remote.download((name for name in there if name not in (_ALIVE, SESSIONS)), folder)
    # it comes last: until it is there, the folder does not pass for the whole study, whose rest would be deleted
    remote.download([SESSIONS], folder)
    return folder


def refuse_if_driven(remote: Folder, folder: Path) -> None:
    """Refuse a study that another living driver runs.

    Raises:
        StudyBusyError: there is one, or one that ended without a word less than ``SILENT_S`` ago.
    """
    try:
        said = json.loads(remote.read(_ALIVE))
    except FileNotFoundError:
        return
    if said.get(driver.HOST) == socket.gethostname() and said.get(driver.PID) == str(os.getpid()):
        return
    if driver.is_alive({key: value for key, value in said.items() if key != driver.RUN_DIR}) is False:
        return
    clock = f".clock-{os.getpid()}"
    remote.write(clock, b"")
    silent = remote.modified(clock) - remote.modified(_ALIVE)
    remote.delete(clock)
    if silent < SILENT_S:
        raise driver.StudyBusyError(
            f"{remote.address}: the study is being run by process {said.get(driver.PID)} on {said.get(driver.HOST)} "
            f"(last heard of {silent:.0f} s ago); stop that process, or if it is dead try again in "
            f"{SILENT_S - silent:.0f} s"
        )
