"""What a searched parameter may be: a range of numbers, or a few choices."""

import math
from typing import Annotated, Literal, Self

from pydantic import Field, field_validator, model_validator

from smolvla_core.config import Section

Scalar = bool | int | float | str | None
Condition = dict[str, Scalar | tuple[Scalar, ...]]
"""Key of ``TrialConfig`` -> the value, or values, at which a parameter is searched."""


class FloatParam(Section):
    """A real number between ``low`` and ``high``, both included."""

    type: Literal["float"]
    low: float
    high: float
    log: bool = False
    step: float | None = Field(default=None, gt=0)
    when: Condition = Field(default_factory=dict)
    """Searched only where each of these keys has the value, or one of the values."""

    @model_validator(mode="after")
    def _bounded(self) -> Self:
        _check_bounds(self.low, self.high, self.log, self.step)
        return self


class IntParam(Section):
    """A whole number between ``low`` and ``high``, both included."""

    type: Literal["int"]
    low: int
    high: int
    log: bool = False
    step: int = Field(default=1, ge=1)
    when: Condition = Field(default_factory=dict)

    @model_validator(mode="after")
    def _bounded(self) -> Self:
        _check_bounds(self.low, self.high, self.log, None if self.step == 1 else self.step)
        return self


class CategoricalParam(Section):
    """One of ``choices``."""

    type: Literal["categorical"]
    choices: tuple[Scalar, ...] = Field(min_length=1)
    when: Condition = Field(default_factory=dict)

    @field_validator("choices")
    @classmethod
    def _different(cls, choices: tuple[Scalar, ...]) -> tuple[Scalar, ...]:
        if len(set(choices)) < len(choices):  # Optuna too takes 1, 1.0 and true for the same choice
            raise ValueError("each choice must stand once (1, 1.0 and true count as the same)")
        return choices


Param = Annotated[FloatParam | IntParam | CategoricalParam, Field(discriminator="type")]
PARAMS: dict[str, type[Section]] = {"float": FloatParam, "int": IntParam, "categorical": CategoricalParam}


def _check_bounds(low: float, high: float, log: bool, step: float | None) -> None:
    if low >= high:
        raise ValueError(f"low is {low:g}; it must be below high ({high:g})")
    if log and low <= 0:
        raise ValueError(f"low is {low:g}; it must be above 0 where log is true")
    if log and step is not None:
        raise ValueError("log and step are both given; give one of them")
    if step is not None:
        count = (high - low) / step
        if abs(count - round(count)) > 1e-6:
            raise ValueError(
                f"high is {high:g}, which is not reached from low ({low:g}) in steps of {step:g}; "
                f"set it to {low + max(1, math.floor(count)) * step:g}"
            )
