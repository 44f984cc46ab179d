"""ASHA over rungs that survive a restart, with trials that are never stopped.

Asynchronous successive halving: L. Li et al., "A System for Massively Parallel Hyperparameter
Tuning", MLSys 2020. The cut-off is the one of Ray's ``ASHAScheduler``.
"""

import math
from bisect import bisect_right
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from ray.tune.schedulers import ASHAScheduler, TrialScheduler

from tune.searcher import FAILURE


@dataclass(frozen=True)
class Cut:
    """Why a trial was stopped: its ``value`` at a rung was worse than ``cutoff``."""

    rung: int
    value: float
    cutoff: float


class Rungs:
    """What trials scored at each level of the resource; the first value of a trial at a rung counts.

    Args:
        levels: of the resource, ascending.
        reduction_factor: eta; the best 1 / eta of a rung go on.
        mode: ``min`` or ``max``.
    """

    def __init__(self, levels: Sequence[int], reduction_factor: float, mode: str):
        self.levels = tuple(levels)
        self._share = 1 - 1 / reduction_factor
        self._sign = -1.0 if mode == "min" else 1.0
        self._values: dict[int, dict[int, float]] = {level: {} for level in self.levels}

    def record(self, number: int, used: float, value: float) -> Cut | None:
        """Enter a trial's value at the highest rung it has reached; a ``Cut`` where it should stop.

        It is compared with those that came before it, and entered whether it goes on or not. A
        trial's further values at the same rung, or before the first, change nothing.
        """
        reached = bisect_right(self.levels, used)
        if reached == 0 or not math.isfinite(value):
            return None
        level = self.levels[reached - 1]
        rung = self._values[level]
        if number in rung:
            return None
        cutoff = self.cutoff(level)
        rung[number] = value
        if cutoff is not None and self._sign * value < self._sign * cutoff:
            return Cut(level, value, cutoff)
        return None

    def cutoff(self, level: int) -> float | None:
        """The worst value that goes on from a rung; None while it is empty."""
        values = [self._sign * value for value in self._values[level].values()]
        return self._sign * float(np.percentile(values, self._share * 100)) if values else None

    def values(self) -> dict[int, dict[int, float]]:
        """Level -> trial's number -> value."""
        return {level: dict(rung) for level, rung in self._values.items()}


class RungScheduler(ASHAScheduler):
    """Ray's ``ASHAScheduler`` on the resource, with three differences.

    Protected trials are entered in the rungs but never stopped; the rungs can be filled from
    records (:meth:`preload`), for which they are kept by the trial's number and not by Ray's id; a
    value that is not finite stops a trial, where Ray's comparison lets it go on.

    Args:
        metric: key of a result.
        mode: ``min`` or ``max``.
        rungs: levels of the resource, ascending; a trial ends at the last.
        reduction_factor: eta.
        number: Ray's trial id -> the trial's number.
        protected: numbers of the trials that are never stopped.
        resource: key of a result with what the trial has used.
    """

    def __init__(
        self,
        *,
        metric: str,
        mode: str,
        rungs: Sequence[int],
        reduction_factor: float,
        number: Callable[[str], int],
        protected: Iterable[int] = (),
        resource: str = "samples_seen",
    ):
        super().__init__(
            time_attr=resource,
            metric=metric,
            mode=mode,
            max_t=rungs[-1],
            grace_period=rungs[0],
            reduction_factor=reduction_factor,
        )
        self.rungs = Rungs(rungs, reduction_factor, mode)
        self.cuts: dict[int, Cut] = {}
        self._number = number
        self._protected = frozenset(protected)

    def preload(self, results: Iterable[tuple[int, float, float]]) -> None:
        """Fill the rungs from records: (number, resource used, value), in the order they arrived."""
        for number, used, value in results:
            self.rungs.record(number, used, value)

    def on_trial_add(self, tune_controller: Any, trial: Any) -> None:
        """There is one bracket, and nothing to choose."""

    def on_trial_result(self, tune_controller: Any, trial: Any, result: Mapping[str, Any]) -> str:
        """STOP at the end of the budget, after a failure, and below the cut-off of a rung."""
        used, value = result.get(self._time_attr), result.get(self._metric)
        if FAILURE in result:
            return TrialScheduler.STOP
        if used is None or value is None:
            return TrialScheduler.CONTINUE
        if not math.isfinite(value):
            return TrialScheduler.STOP
        number = self._number(trial.trial_id)
        cut = self.rungs.record(number, used, value)
        if used >= self._max_t:
            return TrialScheduler.STOP
        if cut is None or number in self._protected:
            return TrialScheduler.CONTINUE
        self.cuts[number] = cut
        self._num_stopped += 1
        return TrialScheduler.STOP

    def on_trial_complete(self, tune_controller: Any, trial: Any, result: Mapping[str, Any]) -> None:
        """The last result has been recorded by :meth:`on_trial_result`."""

    def on_trial_remove(self, tune_controller: Any, trial: Any) -> None:
        """Nothing is kept for a trial that has not reported."""

    def debug_string(self) -> str:
        """The rungs with how many trials reached them, and their cut-offs."""
        rows = [
            f"{level}: {len(rung)}, cut-off {self.rungs.cutoff(level)}" for level, rung in self.rungs.values().items()
        ]
        return "RungScheduler: " + " | ".join(rows)
