"""How the package's command-line programs answer mistakes: one line on stderr, and an exit code."""

import argparse
import sys
from collections.abc import Callable
from typing import NoReturn

from smolvla_core.errors import UserError

OK, FAILED, BAD_INPUT = 0, 1, 2


class Parser(argparse.ArgumentParser):
    """argparse, whose complaint about a wrong option is one line instead of the whole usage."""

    def error(self, message: str) -> NoReturn:
        """End the program with exit code 2."""
        self.exit(BAD_INPUT, f"error: {message}; see {self.prog} --help\n")


def answer(command: Callable[[], int], when_interrupted: str = "interrupted") -> int:
    """Run a command: a ``UserError`` becomes one line and exit code 2, Ctrl-C one line and exit code 1."""
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
