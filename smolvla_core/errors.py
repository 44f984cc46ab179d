"""Errors a user can act on. Each message is one line: what, where, why, and what to do."""


class UserError(ValueError):
    """A mistake in the input. Command-line programs print it as one line and exit with code 2."""


class ConfigError(UserError):
    """A wrong key or value in a configuration."""


class DataError(UserError):
    """A dataset that is missing, damaged or does not fit the configuration."""


class DivergedError(RuntimeError):
    """The loss or a gradient stopped being finite; raised before the optimizer steps."""
