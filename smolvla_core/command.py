"""How the package's command-line programs answer mistakes: one line on stderr, and an exit code."""

import argparse
import os
import shlex
import shutil
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

from smolvla_core.errors import ConfigError, UserError, disk_is_full, first_line

OK, FAILED, BAD_INPUT = 0, 1, 2


def python_command() -> str:
    """What a user types to get this Python: ``python`` in an active environment, else the way to it."""
    found = shutil.which("python")
    if found is not None and Path(found).absolute() == Path(sys.executable).absolute():
        return "python"
    here = Path(sys.executable).absolute()
    return shlex.quote(str(here.relative_to(Path.cwd()) if here.is_relative_to(Path.cwd()) else here))


class Parser(argparse.ArgumentParser):
    """argparse, whose complaint about a wrong option is one line instead of the whole usage."""

    def error(self, message: str) -> NoReturn:
        """End the program with exit code 2."""
        self.exit(BAD_INPUT, f"error: {message}; see {self.prog} --help\n")


def read_count(text: str) -> int:
    """An argument that counts something, for argparse.

    Raises:
        ArgumentTypeError: it is no whole number above 0.
    """
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"'{text}' is no number above 0")
    return int(text)


def secret_of(option: str, variable: str | None) -> str | None:
    """What is in an environment variable that an option names; None where none is named.

    Raises:
        ConfigError: it is empty or not set.
    """
    if variable is not None and not os.environ.get(variable):
        raise ConfigError(f"{option}: the environment variable {variable} is not set; export it first")
    return os.environ[variable] if variable else None


def refuse_unwritable(option: str, folder: Path) -> None:
    """Refuse a folder that cannot be made or written to, before anything is computed for it; makes nothing.

    A file without a name is written there, or in the nearest folder above it that exists: permissions alone do not
    tell of a file system that is read-only.

    Raises:
        ConfigError: one line that says why.
    """
    try:
        there = next(path for path in (folder.absolute(), *folder.absolute().parents) if path.exists())
        if there.is_dir():
            tempfile.TemporaryFile(dir=there).close()
            return
        reason = f"{there} is a file"
    except OSError as error:
        reason = str(error.strerror)
    raise ConfigError(f"{option}: {folder} cannot be written ({reason}); give a folder that can be written to")


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
        line = first_line(error)
        print(f"error: the disk is full ({line}); free some space, and resume", file=sys.stderr)
        return FAILED
