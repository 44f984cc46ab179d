"""What runs of several searchers say: interquartile means, times to a result, and their intervals.

Interquartile mean and bootstrap: R. Agarwal et al., "Deep Reinforcement Learning at the Edge of the
Statistical Precipice", NeurIPS 2021. Intervals are of 95 % and resample tasks and, within them, seeds.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

RESAMPLES = 1000
Steps = Sequence[Sequence[float]]
Problem = tuple[int, str, int, int, int]
"""(task, metric, grace, reduction, seed)"""


@dataclass(frozen=True)
class Interval:
    """A number with its interval."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.3f} [{self.low:.3f}, {self.high:.3f}]"


def problem(run: dict[str, Any]) -> Problem:
    """What a run is a try at; runs of several methods at the same one are paired."""
    return run["task"], run["metric"], run["grace"], run["reduction"], run["seed"]


def regret_at(steps: Steps, epochs: float) -> float:
    """The regret after so many epochs; 1, a random trial's, before there is any."""
    found = 1.0
    for spent, regret in steps:
        if spent > epochs:
            break
        found = regret
    return found


def epochs_to(steps: Steps, regret: float, budget: float) -> float:
    """The epochs after which a regret is reached; the budget where it never is."""
    return next((spent for spent, found in steps if found <= regret), budget)


def interquartile_mean(values: np.ndarray) -> float:
    """The mean of the middle half."""
    ordered, cut = np.sort(values), len(values) // 4
    return float(ordered[cut : len(ordered) - cut].mean())


def geometric_mean(values: np.ndarray) -> float:
    """Of ratios."""
    return float(np.exp(np.log(values).mean()))


def ratio_to(runs: dict[Problem, Steps], other: dict[Problem, Steps], target: dict[Problem, Steps], budget: float):
    """Problem -> epochs to the target's final result, divided by those that ``other`` takes."""
    found = {}
    for key in runs.keys() & other.keys() & target.keys():
        final = regret_at(target[key], budget)
        found[key] = epochs_to(runs[key], final, budget) / epochs_to(other[key], final, budget)
    return found


def interval(values: dict[Problem, float], statistic: Callable[[np.ndarray], float], seed: int = 0) -> Interval:
    """A statistic of one number for each problem."""
    groups: dict[int, dict[int, list[float]]] = {}
    for (task, _, _, _, number), value in sorted(values.items()):
        groups.setdefault(task, {}).setdefault(number, []).append(value)
    blocks = [[np.array(of_seed) for of_seed in seeds.values()] for seeds in groups.values()]
    rng, draws = np.random.default_rng(seed), []
    for _ in range(RESAMPLES):
        chosen = []
        for task in rng.integers(len(blocks), size=len(blocks)):
            seeds = blocks[task]
            chosen += [seeds[number] for number in rng.integers(len(seeds), size=len(seeds))]
        draws.append(statistic(np.concatenate(chosen)))
    low, high = np.percentile(draws, [2.5, 97.5])
    return Interval(statistic(np.array(list(values.values()))), float(low), float(high))


def curve(runs: Iterable[Steps], epochs: Sequence[float]) -> np.ndarray:
    """The interquartile mean of the regret after each number of epochs."""
    table = np.array([[regret_at(steps, spent) for spent in epochs] for steps in runs])
    return np.array([interquartile_mean(column) for column in table.T])
