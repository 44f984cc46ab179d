"""Other processes of this machine, as ``/proc`` tells of them."""

import os
import signal
from pathlib import Path


def process_ids() -> list[int]:
    """All of them."""
    return [int(entry) for entry in os.listdir("/proc") if entry.isdecimal()]


def lives(pid: int) -> bool:
    """Whether a process is there, and does not merely wait to be forgotten."""
    return bool(_stat_of(pid))


def parent_of(pid: int) -> int:
    """The process that started another; 0 where it is gone."""
    return int((_stat_of(pid)[1:2] or ["0"])[0])


def session_of(pid: int) -> int:
    """The process that leads its session; 0 where it is gone."""
    return int((_stat_of(pid)[3:4] or ["0"])[0])


def name_of(pid: int) -> str:
    """Its program's name; empty where it is gone."""
    try:
        return Path(f"/proc/{pid}/comm").read_text(encoding="utf-8").strip()
    except (FileNotFoundError, ProcessLookupError):
        return ""


def kill(pid: int) -> bool:
    """``kill -9``; False where the process is gone."""
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return False
    return True


def _stat_of(pid: int) -> list[str]:
    """State, parent, group, session ... as in proc(5); nothing where it is gone, or waits to be forgotten."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return []
    return [] if fields[0] == "Z" else fields
