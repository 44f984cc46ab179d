"""What the data programs share on the command line: one line for every mistake."""

import argparse
import io
import sys
from typing import NoReturn

from smolvla_core.errors import DataError


class Parser(argparse.ArgumentParser):
    """A parser that answers a wrong option with one line, as the rest of the program does."""

    def error(self, message: str) -> NoReturn:
        """Print the mistake and exit with 2."""
        self.exit(2, f"error: {printable(message)}; see {self.prog} --help\n")


def complain(message: object) -> None:
    """Print a mistake as one line on stderr."""
    print(f"error: {printable(str(message))}", file=sys.stderr)


def print_anywhere() -> None:
    """Let a terminal of few letters show question marks for the others, rather than end the program."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")


def printable(text: str) -> str:
    """A dataset's own text, made fit for one line of a terminal: no line breaks, no escape codes."""
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())


def unreadable(path: object, error: Exception) -> DataError:
    """The error for a file that is there and cannot be read; permissions are named, the rest is damage."""
    if isinstance(error, PermissionError):
        return DataError(f"{path}: not allowed to read it; change its permissions")
    return DataError(f"{path}: damaged or cut off; download it again")
