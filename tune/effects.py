"""What a change of the recipe does, from paired trainings with and without it: each effect with its interval.

Legend: B resamples, R seeds, E episodes, P evaluations of a training.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tune.intervals import Errors, Interval, interval, relative_gain
from tune.records import TrialRecord

OBJECTIVE, PRECISION = "val/critical_action_mse", "val/eef_error_m"
SPEED = "train/samples_per_s"

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Effect:
    """A measured effect as a share, or why it is not measured.

    Attributes:
        value: the share gained; None where it is not measured.
        note: what must be known with it; why it is not measured.
        at_most: the share is an upper bound, since the change did not get there within its budget.
    """

    value: Interval | None
    note: str = ""
    at_most: bool = False


def fall(changed: Sequence[TrialRecord], baseline: Sequence[TrialRecord], metric: str) -> Effect:
    """How much lower the error is at the full budget, as a share of the baseline's.

    Args:
        changed: a training for each seed.
        baseline: those with the same seeds, in the same order.
        metric: of the last report.
    """
    sides = [[_rows(record.results[-1].episodes, metric) for record in records] for records in (changed, baseline)]
    if not all(rows for side in sides for rows in side):
        return Effect(None, f"{metric} cannot be measured on this data")
    value = relative_gain(*(Errors.of([rows or [] for rows in side]) for side in sides))
    return Effect(value, "" if value.low is not None else "one validation episode gives no interval")


def saving(changed: Sequence[TrialRecord], baseline: Sequence[TrialRecord], *, seconds: bool = False) -> Effect:
    """Share of the samples (or of the training seconds) that is saved on the way to the baseline's final error.

    The way is the one to the first time that a training's error, drawn straight between its
    evaluations, is as low as the baseline's last one of the same seed; the baseline may have been there
    before its end itself. Seconds are those samples at the median speed of the configuration's trainings,
    so that a passing load on the machine does not count; evaluations and start-up are no part of them.
    """
    runs = [_Curves.of(records) for records in (changed, baseline)]
    if any(run is None for run in runs):
        return Effect(None, "the evaluations of these trainings are not known by episode")
    own, base = (run for run in runs if run is not None)
    if seconds and (own.speed is None or base.speed is None):
        return Effect(None, "the trainings reported no speed")
    slower = base.speed / own.speed if seconds and base.speed and own.speed else 1.0

    def saved(seeds: Array, episodes: Array) -> Array:
        mine, theirs = own.errors(episodes), base.errors(episodes)
        values = np.empty((len(episodes), len(changed)))
        for resample in range(len(episodes)):
            for number in range(len(changed)):
                target = theirs[resample, number, -1]
                spent = first_reached(own.samples, mine[resample, number], target)
                before = first_reached(base.samples, theirs[resample, number], target)
                values[resample, number] = 1.0 - slower * spent / before
        averaged: Array = (values * seeds).sum(axis=1) / seeds.sum(axis=1)
        return averaged

    count, episodes = own.sums.shape[0], own.sums.shape[2]
    value = interval(saved, count, episodes)
    everyone = np.ones((1, episodes))
    targets = base.errors(everyone)[0, :, -1]
    short = int((own.errors(everyone)[0].min(axis=1) > targets).sum())
    notes = [f"not reached by {short} of {count} seeds"] if short else []
    notes += ["one validation episode gives no interval"] if value.low is None else []
    return Effect(value, "; ".join(notes), at_most=short > 0)


@dataclass(frozen=True)
class _Curves:
    """Errors of one configuration's trainings over time."""

    samples: Array
    """(P,)."""
    speed: float | None
    """Samples a second: the median over the reports of all trainings."""
    sums: Array
    """(R, P, E) over the frames of an episode."""
    counts: Array
    """(E,) frames."""

    @classmethod
    def of(cls, records: Sequence[TrialRecord]) -> "_Curves | None":
        """None where a report lacks the episodes, or the trainings were evaluated at different times."""
        tables, speeds, times = [], [], []
        for record in records:
            evaluated = [result for result in record.results if OBJECTIVE in result.metrics]
            rows = [_rows(result.episodes, OBJECTIVE) for result in evaluated]
            if not rows or not all(rows):
                return None
            tables.append([[(row[1], row[2]) for row in each or []] for each in rows])
            times.append([result.samples_seen for result in evaluated])
            speeds += reported_speeds(record)
        if len({tuple(row) for row in times}) != 1:
            return None
        table = np.array(tables, dtype=float)
        speed = float(np.median(speeds)) if speeds else None
        return cls(np.array(times[0], dtype=float), speed, table.prod(axis=3), table[0, 0, :, 0])

    def errors(self, episodes: Array) -> Array:
        """Mean errors (B, R, P) of resampled episodes (B, E)."""
        found: Array = np.einsum("rpe,be->brp", self.sums, episodes) / (episodes @ self.counts)[:, None, None]
        return found


def first_reached(samples: Array, errors: Array, target: float) -> float:
    """When a curve first is as low as the target, drawn straight between its points; its end where it never is.

    One that is there at its first point is counted from that point: what was before is not known.

    Args:
        samples: (P,) ascending.
        errors: (P,).
        target: the error to reach.
    """
    there = np.flatnonzero(errors <= target)
    if not len(there):
        return float(samples[-1])
    end = int(there[0])
    if end == 0:
        return float(samples[0])
    share = (errors[end - 1] - target) / (errors[end - 1] - errors[end])
    return float(samples[end - 1] + share * (samples[end] - samples[end - 1]))


def reported_speeds(record: TrialRecord) -> list[float]:
    """Samples a second in every report of a training, those between its evaluations included."""
    points = [point for result in record.results for point in (*result.curve, result.metrics)]
    return [point[SPEED] for point in points if point.get(SPEED)]


def _rows(episodes: Mapping[str, Sequence[Sequence[float]]] | None, metric: str) -> Sequence[Sequence[float]] | None:
    return (episodes or {}).get(metric)
