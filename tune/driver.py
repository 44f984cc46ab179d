"""Which process drives a study, and whether it still lives.

A driver holds ``<run_dir>/driver.lock`` (``flock``) for as long as it runs the study; the kernel lets
go of it however the process ends, ``kill -9`` included. That tells a dead driver's study from one
that is still running, also between containers that share a folder but not their process ids.
"""

import fcntl
import os
import socket
import time
from collections.abc import Mapping
from pathlib import Path
from typing import IO

from smolvla_core.errors import UserError

LOCK_NAME = "driver.lock"
RUN_DIR = "study_run_dir"  # tag: the study's folder
HOST, PID, BOOT, STARTED = "driver.host", "driver.pid", "driver.boot", "driver.started"

# The locks this process holds. A lock belongs to the process, not to whoever asked for it first.
_held: dict[Path, IO[str]] = {}


class StudyBusyError(UserError):
    """Another living process runs the same study."""


def hold(run_dir: Path) -> None:
    """Take the study's lock for this process; a second call changes nothing.

    Raises:
        StudyBusyError: another process holds it.
    """
    path = run_dir.resolve() / LOCK_NAME
    if path in _held:
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    file = path.open("a+", encoding="utf-8")
    for patience in (0.1, 0.2, 0.4, None):  # a passing `is_alive` holds it for an instant
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            break
        except BlockingIOError:
            if patience is not None:
                time.sleep(patience)
                continue
            file.seek(0)
            owner = file.read().strip() or "another process"
            file.close()
            raise StudyBusyError(
                f"{run_dir}: the study is being run by {owner}; stop that process before resuming it"
            ) from None
    file.truncate(0)
    file.write(_owner(str(os.getpid()), socket.gethostname()))
    file.flush()
    _held[path] = file


def release(run_dir: Path) -> None:
    """Give the study's lock back, if this process holds it."""
    file = _held.pop(run_dir.resolve() / LOCK_NAME, None)
    if file is not None:
        file.close()


def identity(run_dir: Path) -> dict[str, str]:
    """Tags by which :func:`is_alive` later recognises this process."""
    return {
        RUN_DIR: str(run_dir.resolve()),
        HOST: socket.gethostname(),
        PID: str(os.getpid()),
        BOOT: _boot_id(),
        STARTED: _start_of(os.getpid()) or "",
    }


def is_alive(tags: Mapping[str, str]) -> bool | None:
    """Whether the driver with these tags still runs; None where that cannot be seen from here."""
    lock = Path(tags[RUN_DIR]) / LOCK_NAME if RUN_DIR in tags else None
    if lock is not None and lock.is_file():
        if _is_locked(lock):
            return True
        # a folder of the same name on this machine may have been another driver's, and says nothing of this one
        if HOST not in tags or lock.read_text(encoding="utf-8") == _owner(tags.get(PID, ""), tags[HOST]):
            return False
    if tags.get(HOST) != socket.gethostname():
        return None
    if tags.get(BOOT) != _boot_id():
        return False
    pid = tags.get(PID, "")
    return pid.isdecimal() and _start_of(int(pid)) == tags.get(STARTED)


def _owner(pid: str, host: str) -> str:
    return f"process {pid} on {host}"


def _is_locked(path: Path) -> bool:
    with path.open(encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def _boot_id() -> str:
    path = Path("/proc/sys/kernel/random/boot_id")
    return path.read_text(encoding="ascii").strip() if path.is_file() else ""


def _start_of(pid: int) -> str | None:
    """When a process started, in the kernel's ticks since boot ("" where there is no /proc); None
    for no such process. A process id alone may have been given to another process since.
    """
    if not Path("/proc/self/stat").is_file():
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return None
        except PermissionError:
            return ""
        return ""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return None
    return stat.rpartition(")")[2].split()[19]  # field 22 of proc(5); the name before ")" may hold blanks
