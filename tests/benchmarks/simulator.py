"""Trials side by side on simulated workers: who reports when, and what has been found after how many epochs."""

import heapq
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

Curve = Callable[[Mapping[str, Any]], tuple[list[float], list[float]]]


class Method(Protocol):
    """A searcher with its stopping rule."""

    def suggest(self, number: int) -> Mapping[str, Any]:
        """Parameters of the next trial."""

    def report(self, number: int, epoch: int, value: float) -> bool:
        """Take a value; whether the trial goes on. After False, or at the last rung, it has ended."""


@dataclass
class Track:
    """What was found: (epochs spent, value) whenever one of these changed.

    Attributes:
        chosen: value at the full budget of the trial one would choose: the best at the highest rung
            that any trial has reached.
        whole: best value of the trials that were run to the end.
        seen: best value reported at whatever rung.
        trials: how many were begun.
    """

    chosen: list[tuple[int, float]] = field(default_factory=list)
    whole: list[tuple[int, float]] = field(default_factory=list)
    seen: list[tuple[int, float]] = field(default_factory=list)
    trials: int = 0


def simulate(method: Method, curve: Curve, rungs: Sequence[int], budget: int, workers: int, sign: float) -> Track:
    """Run trials until ``budget`` epochs are spent.

    Args:
        method: what is measured.
        curve: parameters -> (values, seconds since the start) at the rungs.
        rungs: epochs at which trials report, ascending; the last is a whole trial.
        budget: epochs, over all trials.
        workers: trials at a time. Each takes its next trial at the moment it is free, so that
            results arrive in the order of the surrogate's own training times.
        sign: 1 where small values are good, -1 where large ones are.
    """
    track, spent, top, best = Track(), 0, -1, None
    curves: dict[int, tuple[list[float], list[float]]] = {}
    queue: list[tuple[float, int, int]] = []  # (finish time, trial's number, place of its next rung)

    def begin(now: float) -> None:
        number = track.trials
        track.trials += 1
        curves[number] = curve(method.suggest(number))
        heapq.heappush(queue, (now + curves[number][1][0], number, 0))

    for _ in range(workers):
        begin(0.0)
    while True:
        now, number, place = heapq.heappop(queue)
        values, seconds = curves[number]
        spent += rungs[place] - (rungs[place - 1] if place else 0)
        if spent > budget:
            return track
        value = values[place]
        if not track.seen or sign * value < sign * track.seen[-1][1]:
            track.seen.append((spent, value))
        if place > top or (place == top and sign * value < best):
            top, best = place, sign * value
            track.chosen.append((spent, values[-1]))
        if place == len(rungs) - 1 and (not track.whole or sign * value < sign * track.whole[-1][1]):
            track.whole.append((spent, value))
        goes_on = method.report(number, rungs[place], value)
        if goes_on and place < len(rungs) - 1:
            heapq.heappush(queue, (now + seconds[place + 1] - seconds[place], number, place + 1))
        else:
            begin(now)
