"""Points of a space as rows of numbers, for a model: each parameter in [0, 1], a choice by its index."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution

Array = NDArray[np.float64]
ABSENT = 0.5
"""Where a parameter is put that is not active; the choice that it depends on tells such a point from others."""


class UnitCube:
    """Parameters as columns.

    Args:
        distributions: of all parameters, by name.
    """

    def __init__(self, distributions: Mapping[str, BaseDistribution]):
        self.distributions = dict(distributions)
        self.choices = np.array([isinstance(d, CategoricalDistribution) for d in self.distributions.values()])
        self._counts = [
            len(d.choices) if isinstance(d, CategoricalDistribution) else 0 for d in self.distributions.values()
        ]

    def rows(self, points: Sequence[Mapping[str, Any]]) -> Array:
        """(M, D) of points; a parameter that one lacks is ``ABSENT``."""
        return np.array([
            [_to_unit(d, point[name]) if name in point else ABSENT for name, d in self.distributions.items()]
            for point in points
        ]).reshape(len(points), len(self.distributions))  # fmt: skip

    def point(self, row: Array) -> dict[str, Any]:
        """The parameters of a row, all of them, whether active or not."""
        return {
            name: _from_unit(d, float(unit)) for (name, d), unit in zip(self.distributions.items(), row, strict=True)
        }

    def draw(self, count: int, rng: np.random.Generator) -> Array:
        """(count, D) uniform rows, on the grid."""
        rows = rng.random((count, len(self._counts)))
        for column in np.flatnonzero(self.choices):
            rows[:, column] = rng.integers(self._counts[column], size=count)
        return self.on_grid(rows)

    def near(self, rows: Array, count: int, width: float, rng: np.random.Generator) -> Array:
        """(M * count, D): neighbours of rows, in which about half of the parameters are moved."""
        moved = np.repeat(rows, count, axis=0)
        mask = rng.random(moved.shape) < 0.5
        mask[np.arange(len(moved)), rng.integers(moved.shape[1], size=len(moved))] = True
        other = self.draw(len(moved), rng)
        shifted = np.clip(moved + width * rng.standard_normal(moved.shape), 0, 1)
        flipped = np.where(rng.random(moved.shape) < 0.3, other, moved)
        return self.on_grid(np.where(mask, np.where(self.choices, flipped, shifted), moved))

    def on_grid(self, rows: Array) -> Array:
        """The rows with every parameter at a value that it can take."""
        rows = rows.copy()
        for column, d in enumerate(self.distributions.values()):
            if isinstance(d, IntDistribution) or (isinstance(d, FloatDistribution) and d.step):
                low, high, step = _ends(d)
                values = _unscaled(rows[:, column], low, high, d.log)
                values = d.low + np.clip(np.round((values - d.low) / step), 0, (d.high - d.low) // step) * step
                rows[:, column] = _scaled(values, low, high, d.log)
        return rows


def _to_unit(d: BaseDistribution, value: Any) -> float:
    if isinstance(d, CategoricalDistribution):
        return float(d.to_internal_repr(value))
    assert isinstance(d, FloatDistribution | IntDistribution)
    low, high, _ = _ends(d)
    return float(_scaled(np.array(float(value)), low, high, d.log))


def _from_unit(d: BaseDistribution, unit: float) -> Any:
    if isinstance(d, CategoricalDistribution):
        return d.choices[int(unit)]
    assert isinstance(d, FloatDistribution | IntDistribution)
    low, high, step = _ends(d)
    value = float(_unscaled(np.array(unit), low, high, d.log))
    if step:
        value = d.low + round((value - d.low) / step) * step
    value = min(max(value, d.low), d.high)
    return int(value) if isinstance(d, IntDistribution) else value


def _ends(d: FloatDistribution | IntDistribution) -> tuple[float, float, float]:
    """Low and high, half a step beyond the outermost values where there are steps; and the step."""
    step = float(d.step or 0)
    return d.low - step / 2, d.high + step / 2, step


def _scaled(values: Array, low: float, high: float, log: bool) -> Array:
    if low == high:
        return np.full_like(values, ABSENT)
    if log:
        return np.asarray((np.log(values) - math.log(low)) / (math.log(high) - math.log(low)))
    return (values - low) / (high - low)


def _unscaled(units: Array, low: float, high: float, log: bool) -> Array:
    if log:
        return np.asarray(np.exp(math.log(low) + units * (math.log(high) - math.log(low))))
    return low + units * (high - low)
