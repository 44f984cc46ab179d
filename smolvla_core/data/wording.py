"""How the data programs speak: of a dataset's own text, of files that cannot be read, on any terminal."""

import io
import sys

from smolvla_core.errors import DataError


def printable(text: str) -> str:
    """A dataset's own text, made fit for one line of a terminal: no line breaks, no escape codes."""
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())


def counted(number: int, noun: str) -> str:
    """'1 episode', '1,435 frames'."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def unreadable(path: object, error: Exception) -> DataError:
    """The error for a file that is there and cannot be read; permissions are named, the rest is damage."""
    if isinstance(error, PermissionError):
        return DataError(f"{path}: not allowed to read it; change its permissions")
    return DataError(f"{path}: damaged or cut off; download it again")


def print_anywhere() -> None:
    """Let a terminal of few letters show question marks for the others, rather than end the program."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")
