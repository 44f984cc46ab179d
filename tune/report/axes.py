"""Parameters on the axes of the report's figures: choices, ranges and logarithmic ranges."""

import html
import math
from collections.abc import Iterator, Sequence
from typing import Any

from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution

from tune.console import format_value

ABSENT = object()
"""The value of a parameter that a trial does not have."""
ABSENT_PLACE = -0.14
"""Where :meth:`Axis.unit` puts it, below the others."""
MOST_TICKS = 5
SPREAD = 0.36
"""Width over which the points of one choice are spread, in steps from choice to choice."""


class Axis:
    """Where a parameter's values lie on an axis.

    Args:
        distribution: of the parameter.
        values: that trials had; an axis is wide enough for those outside too.
    """

    def __init__(self, distribution: BaseDistribution, values: Sequence[Any]):
        self._has_absent = any(value is ABSENT for value in values)
        self._log = False
        if isinstance(distribution, CategoricalDistribution):
            self._choices: list[Any] | None = list(distribution.choices)
            self.ticks: list[Any] = self._choices
            return
        assert isinstance(distribution, FloatDistribution | IntDistribution)
        known = [value for value in values if value is not ABSENT]
        self._choices, self._log = None, bool(distribution.log)
        self._low, self._high = min([distribution.low, *known]), max([distribution.high, *known])
        self.ticks = self._decades() if self._log else self._fifths()

    def layout(self) -> dict[str, Any]:
        """Plotly's settings of an axis that :meth:`place` is for."""
        if self._choices is not None:
            return {
                "tickvals": list(range(len(self._choices))),
                "ticktext": [html.escape(format_value(choice)) for choice in self._choices],
                "range": [-0.5, len(self._choices) - 0.5],
            }
        low, high = self._scaled(self._low), self._scaled(self._high)
        pad = 0.04 * (high - low or 1.0)
        if not self._log:
            return {"range": [low - pad, high + pad], "nticks": 6}
        texts = [format_value(tick) for tick in self.ticks]
        return {"range": [low - pad, high + pad], "type": "log", "tickvals": self.ticks, "ticktext": texts}

    def place(self, value: Any, number: int) -> float:
        """On the axis of a slice; those of the same choice are spread a little, by the trial's number."""
        if self._choices is None:
            return float(value)
        return self._choices.index(value) + SPREAD * _scatter(number)

    def unit(self, value: Any, number: int | None = None) -> float:
        """Between 0 and 1, or ``ABSENT_PLACE``; with a trial's number those of one choice are spread a little."""
        if value is ABSENT:
            return ABSENT_PLACE
        if self._choices is not None:
            steps = max(1, len(self._choices) - 1)
            spread = 0.0 if number is None else 0.25 * SPREAD * _scatter(number)
            return (self._choices.index(value) + spread) / steps
        low, high = self._scaled(self._low), self._scaled(self._high)
        return (self._scaled(value) - low) / (high - low) if high > low else 0.5

    def labels(self) -> Iterator[tuple[float, str]]:
        """Place (as :meth:`unit` has it) and text of each tick."""
        if self._has_absent:
            yield ABSENT_PLACE, "not used"
        for tick in self.ticks:
            yield self.unit(tick), format_value(tick)

    def _scaled(self, value: float) -> float:
        return math.log10(value) if self._log else float(value)

    def _fifths(self) -> list[float]:
        """Both ends, and what lies between at equal distances."""
        span = self._high - self._low
        if not span:
            return [self._low]
        return [self._low + span * i / 4 for i in range(5)]

    def _decades(self) -> list[float]:
        """Some powers of ten in the range, with both ends where those are fewer than two."""
        low, high = math.log10(self._low), math.log10(self._high)
        inside = [10.0**power for power in range(math.ceil(low - 1e-9), math.floor(high + 1e-9) + 1)]
        return inside[:: math.ceil(len(inside) / MOST_TICKS)] if len(inside) > 1 else [self._low, self._high]


def _scatter(number: int) -> float:
    """Between -1/2 and 1/2, evenly over consecutive numbers (by the golden ratio)."""
    return number * 0.618034 % 1 - 0.5
