"""How the package's command-line programs answer mistakes: one line on stderr, and an exit code."""

import argparse
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

from smolvla_core.errors import UserError, disk_is_full

OK, FAILED, BAD_INPUT = 0, 1, 2


def python_command() -> str:
    """What a user types to get this Python: ``python`` in an active environment, else the way to it."""
    found = shutil.which("python")
    if found is not None and Path(found).absolute() == Path(sys.executable).absolute():
        return "python"
    here = Path(sys.executable).absolute()
    return str(here.relative_to(Path.cwd())) if here.is_relative_to(Path.cwd()) else str(here)


class Parser(argparse.ArgumentParser):
    """argparse, whose complaint about a wrong option is one line instead of the whole usage."""

    def error(self, message: str) -> NoReturn:
        """End the program with exit code 2."""
        self.exit(BAD_INPUT, f"error: {message}; see {self.prog} --help\n")


def answer(command: Callable[[], int], when_interrupted: str = "interrupted") -> int:
    """Run a command: a ``UserError`` becomes one line and exit code 2, Ctrl-C and a full disk one and exit code 1."""
    try:
        return command()
    except UserError as error:
        # a library's words within it may run over several lines
        line = " ".join(part.strip() for part in str(error).splitlines() if part.strip())
        print(f"error: {line}", file=sys.stderr)
        return BAD_INPUT
    except KeyboardInterrupt:
        print(when_interrupted, file=sys.stderr)
        return FAILED
    except Exception as error:
        if not disk_is_full(error):
            raise
        line = (str(error).splitlines() or [type(error).__name__])[0]
        print(f"error: the disk is full ({line}); free some space, and resume", file=sys.stderr)
        return FAILED
