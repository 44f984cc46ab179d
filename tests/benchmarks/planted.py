"""Learning curves with a planted optimum: a second benchmark for searchers, which needs no data.

Each family is a formula; each of its tasks plants another optimum with other weights. A trial's error
falls by a power law to a floor that grows with the squared distance from the optimum. What learns fast
ends higher, so that curves cross: what is best early is not what is best at the end.

- ``smooth``: six numbers on linear and logarithmic scales.
- ``conditional``: a choice of three kinds, each with two parameters of its own, a choice of batch sizes
  and two shared numbers.
- ``noisy``: ``smooth``, with noise on every value.
- ``diverging``: ``smooth``, where a fifth of the space ends at a high error at once.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.samplers import RandomSampler

from tests.benchmarks.lcbench import Scale
from tune.space import Space

EPOCHS = 81
"""Of a whole trial."""
TASKS = tuple(range(12))
FAMILIES = {"smooth": "min", "conditional": "min", "noisy": "min", "diverging": "min"}
KINDS = ("plain", "tuned", "fancy")
SCALE_SAMPLES = 200
FLOOR, NOISE, LOST = 0.1, 0.005, 2.0

_NUMBERS: dict[str, BaseDistribution] = {
    "rate": FloatDistribution(1e-5, 1e-1, log=True),
    "decay": FloatDistribution(1e-6, 1e-2, log=True),
    "momentum": FloatDistribution(0.5, 0.99),
    "dropout": FloatDistribution(0.0, 0.6),
    "width": IntDistribution(16, 1024, log=True),
    "depth": IntDistribution(1, 8),
}
_OWN: dict[str, BaseDistribution] = {
    f"{kind}.{name}": _NUMBERS[name] for kind in KINDS for name in ("rate", "momentum")
}
SPACES = dict.fromkeys(FAMILIES, Space(_NUMBERS)) | {
    "conditional": Space(
        {
            "kind": CategoricalDistribution(KINDS),
            "batch": CategoricalDistribution((8, 16, 32, 64)),
            "decay": _NUMBERS["decay"],
            "dropout": _NUMBERS["dropout"],
            **_OWN,
        },
        {name: {"kind": (name.partition(".")[0],)} for name in _OWN},
    )
}


@dataclass(frozen=True)
class Optimum:
    """Where a task's optimum lies in the unit cube, and how much each parameter matters; penalties of choices."""

    at: Mapping[str, float]
    weight: Mapping[str, float]
    penalty: Mapping[str, Mapping[Any, float]]
    fast: str

    def distance(self, family: str, params: Mapping[str, Any]) -> float:
        """0 at the optimum."""
        total = 0.0
        for name, value in params.items():
            if name in self.penalty:
                total += self.penalty[name][value]
            else:
                total += self.weight[name] * (_unit(SPACES[family].distributions[name], value) - self.at[name]) ** 2
        return total


class Planted:
    """All families and tasks, queried as ``lcbench.Surrogate`` is."""

    def curve(
        self, task: int, metric: str, params: Mapping[str, Any], epochs: Sequence[int]
    ) -> tuple[list[float], list[float]]:
        """One trial's errors and its seconds since the start, at some epochs; ``metric`` is the family."""
        optimum = _optimum(task, metric)
        units = {
            name: _unit(SPACES[metric].distributions[name], value)
            for name, value in params.items()
            if name not in optimum.penalty
        }
        fast = next(unit for name, unit in units.items() if name.endswith(optimum.fast))
        floor = FLOOR + optimum.distance(metric, params)
        if metric == "diverging" and fast + 0.4 * (units["depth"] - optimum.at["depth"]) > optimum.at["rate"] + 0.25:
            floor = LOST
        power = -(0.3 + 0.9 * fast)
        values = [floor + (1 + epoch) ** power - (1 + EPOCHS) ** power for epoch in epochs]
        if metric == "noisy":
            rng = np.random.default_rng([task, *(int(1e6 * unit) for unit in units.values())])
            values = (np.array(values) + NOISE * rng.standard_normal(len(values))).tolist()
        pace = 0.5 + 1.5 * units.get("width", 0.5)
        return values, [pace * epoch for epoch in epochs]

    def scale(self, task: int, metric: str) -> Scale:
        """The planted optimum's error, and the median of random trials."""
        study = optuna.create_study(sampler=RandomSampler(seed=task))
        values = []
        for _ in range(SCALE_SAMPLES):
            trial = study.ask()
            values.append(self.curve(task, metric, SPACES[metric](trial), [EPOCHS])[0][0])
        return Scale(FLOOR, float(np.median(values)))


@cache
def _optimum(task: int, family: str) -> Optimum:
    rng = np.random.default_rng([task, list(FAMILIES).index(family) if family == "conditional" else 0])
    at, weight, penalty = {}, {}, {}
    for name, distribution in SPACES[family].distributions.items():
        if isinstance(distribution, CategoricalDistribution):
            worse = rng.permutation([0.0, *rng.uniform(0.03, 0.3, len(distribution.choices) - 1)])
            penalty[name] = dict(zip(distribution.choices, worse.tolist(), strict=True))
        else:
            at[name], weight[name] = float(rng.uniform(0.15, 0.85)), float(10 ** rng.uniform(-1, 0.3))
    return Optimum(at, weight, penalty, "rate")


def _unit(distribution: BaseDistribution, value: Any) -> float:
    """A number's place in [0, 1]."""
    assert isinstance(distribution, FloatDistribution | IntDistribution)
    low, high = float(distribution.low), float(distribution.high)
    if distribution.log:
        return (math.log(value) - math.log(low)) / (math.log(high) - math.log(low))
    return (value - low) / (high - low)
