"""Learning rate as a pure function of the samples drawn; spans the full budget, never a rung."""

import math
from collections.abc import Callable
from types import MappingProxyType

from smolvla_core.config import OptimConfig


def learning_rate(config: OptimConfig, samples: int) -> float:
    """Learning rate of the step that begins after ``samples`` samples.

    A linear warm-up from 0 over ``warmup_samples``, then the schedule over the rest of
    ``config.samples``. Past the end it stays at its last value.
    """
    peak = config.peak_lr
    if samples < config.warmup_samples:
        # the first step must not be lost: its rate is that of its last sample
        return peak * min(1.0, (samples + config.batch_size) / config.warmup_samples)
    span = config.samples - config.warmup_samples
    share = min(1.0, (samples - config.warmup_samples) / span)
    return SHAPES[config.schedule](peak, config.final_lr, share)


def cosine(start: float, end: float, share: float) -> float:
    """Half a cosine from ``start`` at share 0 to ``end`` at share 1."""
    return end + (start - end) * 0.5 * (1.0 + math.cos(math.pi * share))


def linear(start: float, end: float, share: float) -> float:
    """A straight line from ``start`` at share 0 to ``end`` at share 1."""
    return start + (end - start) * share


def constant(start: float, end: float, share: float) -> float:
    """``start`` throughout."""
    return start


SHAPES: MappingProxyType[str, Callable[[float, float, float], float]] = MappingProxyType(
    {"constant": constant, "cosine": cosine, "linear": linear}
)
