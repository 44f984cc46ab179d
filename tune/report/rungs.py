"""A study rung by rung: how many trials came so far, who led, and what the baseline had there."""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from tune.asha import Rungs
from tune.records import TrialRecord
from tune.summary import Scored, Summary, baseline_trial, gain, is_lost, scored


@dataclass(frozen=True)
class RungRow:
    """What happened at a rung.

    Attributes:
        samples: the rung; 0 for what happened before the first.
        reached: trials with a value here.
        went_on, stopped, failed, open: what they did next: reached a higher rung (or completed), were
            stopped by ASHA, failed, or have not ended.
        best: of those here that did not fail.
        median: of their values.
        cutoff: the worst value with which a trial goes on, as it stands now; None at the last rung.
    """

    samples: int
    reached: int
    went_on: int
    stopped: int
    failed: int
    open: int
    best: Scored | None
    median: float | None
    cutoff: float | None


@dataclass(frozen=True)
class PairedGain:
    """The best trial of the study and the baseline at the same rung; None for one that has no value there.

    ``gain`` is the share of the baseline's value by which the best is better.
    """

    samples: int
    baseline: Scored | None
    best: Scored | None
    gain: float | None


def at_rung(trials: Sequence[TrialRecord], metric: str, rungs: Sequence[int], rung: int) -> list[Scored]:
    """Every trial with a finite value at a rung, by number."""
    return [found for found in (scored(trial, metric, rungs, rung) for trial in trials) if found is not None]


def rung_rows(
    trials: Sequence[TrialRecord], metric: str, mode: str, rungs: Sequence[int], reduction_factor: float
) -> list[RungRow]:
    """A row for what came before the first rung, if anything ended there, and one for each rung."""
    sign = 1.0 if mode == "min" else -1.0
    values = {rung: at_rung(trials, metric, rungs, rung) for rung in rungs}
    lost = {trial.number for trial in trials if is_lost(trial)}
    highest = {trial.number: 0 for trial in trials}
    for rung in rungs:
        highest |= {one.number: rung for one in values[rung]}
    asha = Rungs(rungs, reduction_factor, mode)
    for rung in rungs:
        for one in values[rung]:
            asha.record(one.number, rung, one.value)
    rows = []
    for rung in (0, *rungs):
        here = [trial for trial in trials if highest[trial.number] == rung]
        states = [trial.outcome.state if trial.outcome else "open" for trial in here]
        there = values.get(rung, [])
        reached = len(there) if rung else len(trials)
        stopped, failed, still_open = (states.count(state) for state in ("pruned", "failed", "open"))
        row = RungRow(
            samples=rung,
            reached=reached,
            went_on=reached - stopped - failed - still_open,
            stopped=stopped,
            failed=failed,
            open=still_open,
            best=min(
                (one for one in there if one.number not in lost),
                key=lambda one: (sign * one.value, one.number),
                default=None,
            ),
            median=statistics.median(one.value for one in there) if there else None,
            cutoff=asha.cutoff(rung) if rung and rung != rungs[-1] else None,
        )
        if rung or stopped or failed or still_open:
            rows.append(row)
    return rows


def paired_gains(summary: Summary, trials: Sequence[TrialRecord], rungs: Sequence[int]) -> list[PairedGain]:
    """The study's best trial against the baseline at each rung that either has reached."""
    best = next((trial for trial in trials if summary.best and trial.number == summary.best.number), None)
    baseline, pairs = baseline_trial(trials), []
    for rung in rungs:
        ours = scored(best, summary.metric, rungs, rung) if best else None
        theirs = scored(baseline, summary.metric, rungs, rung) if baseline else None
        if ours or theirs:
            share = gain(ours.value, theirs.value, summary.mode) if ours and theirs else None
            pairs.append(PairedGain(rung, theirs, ours, share))
    return pairs


def fullest_rung(trials: Sequence[TrialRecord], metric: str, rungs: Sequence[int]) -> int | None:
    """The rung with most results, the higher of equals; None without any.

    Parameters are compared there: a higher rung holds only trials that were chosen by their value, and
    so hides what the others lacked.
    """
    counts = {rung: len(at_rung(trials, metric, rungs, rung)) for rung in rungs}
    most = max(counts.values(), default=0)
    return next((rung for rung in reversed(rungs) if counts[rung] == most), None) if most else None
