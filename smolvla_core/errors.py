"""Errors a user can act on. Each message is one line: what, where, why, and what to do."""

import errno


class UserError(ValueError):
    """A mistake in the input. Command-line programs print it as one line and exit with code 2."""


class ConfigError(UserError):
    """A wrong key or value in a configuration."""


class DataError(UserError):
    """A dataset that is missing, damaged or does not fit the configuration."""


class DamagedStateError(DataError):
    """A trial's state that was cut off, or is gone; the trial can start anew, to the same numbers."""


class InfeasibleError(RuntimeError):
    """A trial that does not fit into the memory, however small its micro-batch."""


class DivergedError(RuntimeError):
    """The loss or a gradient stopped being finite; raised before the optimizer steps."""


def first_line(error: BaseException) -> str:
    """The first line of an error's text, or its type."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


_FULL = {errno.ENOSPC, errno.EDQUOT}
_FULL_WORDS = ("No space left on device", "Disk quota exceeded", "database or disk is full")


def disk_is_full(error: BaseException) -> bool:
    """Whether an error, or one that it comes from, says that a disk is full."""
    seen: BaseException | None = error
    while seen is not None:
        # some libraries keep the number, others the system's words alone
        if getattr(seen, "errno", None) in _FULL or any(words in str(seen) for words in _FULL_WORDS):
            return True
        seen = seen.__cause__ or seen.__context__
    return False
