"""``torch.compile`` of what a step computes (``runtime.compile``), and one line where it cannot be.

Needs a C++ compiler and Python's headers on a CPU, and Triton with a C compiler on a GPU.
"""

from collections.abc import Callable
from functools import wraps

import torch
from torch import Tensor

from smolvla_core.errors import ConfigError, first_line

_SHAPES_AT_MOST = 64


def compiled[**P, R](function: Callable[P, R]) -> Callable[P, R]:
    """The function, compiled when it is first called, and anew for inputs of other shapes.

    No size is left open: a shape's kernels then do not depend on the shapes before it, so that a run which
    is resumed goes on to the same numbers.

    Raises:
        ConfigError: by the function, where compiling fails.
    """
    from torch._dynamo.exc import TorchDynamoException

    torch._dynamo.config.recompile_limit = _SHAPES_AT_MOST  # beyond it PyTorch would go on without compiling
    quick = torch.compile(function, dynamic=False)

    @wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return quick(*args, **kwargs)
        except TorchDynamoException as error:
            raise ConfigError(
                f"runtime.compile: torch cannot compile here ({_reason(error)}); install a C++ compiler and Python's "
                "headers (Debian: g++, python3-dev), on a GPU Triton too, or set false"
            ) from error

    return call


def forget_compiled() -> None:
    """Make room for the shapes of the process's next trial."""
    torch.compiler.reset()


def refuse_without_compiler(device: torch.device) -> None:
    """Compile a sum, which takes seconds.

    Raises:
        ConfigError: nothing can be compiled for the device here.
    """

    def twice(value: Tensor) -> Tensor:
        return value + value

    compiled(twice)(torch.ones(8, device=device))


def _reason(error: Exception) -> str:
    """What a compiler says is wrong, where one ran; else the first line."""
    cause = getattr(error, "inner_exception", error)
    said = [line.strip() for line in str(cause).splitlines() if "error: " in line]
    return said[0] if said else first_line(cause)
