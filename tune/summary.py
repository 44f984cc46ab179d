"""What a study came to: the best trial, its gain over the baseline, how the trials ended.

Trials are compared at equal budgets only: the best is chosen among those at the highest rung that
any has reached, and the baseline's value is its own at that same rung. Where all of those have acted
to be chosen by it (``tune.choice``), what they achieved ranks them, and the metric only equals.
"""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from tune.closed_loop import best_try
from tune.intervals import Errors, Interval, relative_gain
from tune.records import Result, TrialRecord

BASELINE = "seed_baseline"
"""Name of the warm start that gains are measured against; else it is the first warm start."""


@dataclass(frozen=True)
class Scored:
    """A trial and its value at a rung."""

    number: int
    name: str | None
    value: float
    rung: int
    params: Mapping[str, Any]


@dataclass(frozen=True)
class Summary:
    """A study in numbers.

    Attributes:
        study: its name.
        metric, mode: what was compared, and whether ``min`` or ``max`` is better.
        state: ``complete``, ``interrupted`` or ``failed``; ``running`` while it is searched.
        reason: why it is not complete, or why it ended early.
        best: None where no trial has reached a rung.
        baseline: the baseline at the best trial's rung.
        trials: how many ended in which state.
        samples: drawn by all trials.
        seconds: that the study ran.
        failures: number -> reason, of the failed trials.
        gains: of each trial over the baseline at each rung that both have reached: ``trial``, ``rung``,
            ``episodes``, and the share (``mean``) with the interval (``low``, ``high``) that resamples them.
        finalists: ``tune.finalists.compared``; None where the search has none.
        closed_loop: ``tune.acted.acted``: what evaluators say of trainings that acted.
        checkpoint, config: the best trial's policy and its YAML, where they were written.
        report: the page about the study, where it was written.
    """

    study: str
    metric: str
    mode: str
    state: str
    reason: str | None
    best: Scored | None
    baseline: Scored | None
    trials: Mapping[str, int]
    samples: int
    seconds: float
    failures: Mapping[int, str] = field(default_factory=dict)
    gains: Sequence[Mapping[str, Any]] = ()
    finalists: Mapping[str, Any] | None = None
    closed_loop: Sequence[Mapping[str, Any]] = ()
    checkpoint: str | None = None
    config: str | None = None
    report: str | None = None

    @property
    def gain(self) -> float | None:
        """How much better the best trial is than the baseline, as a share of the baseline's value.

        None where one of them is missing, or the baseline's value is 0.
        """
        if self.best is None or self.baseline is None:
            return None
        return gain(self.best.value, self.baseline.value, self.mode)

    @property
    def gain_interval(self) -> tuple[Interval, int] | None:
        """The gain with its interval, and over how many episodes; None where nothing is recorded of it."""
        if self.best is None:
            return None
        found = [g for g in self.gains if g["trial"] == self.best.number and g["rung"] == self.best.rung]
        return (Interval(*(found[0][key] for key in ("mean", "low", "high"))), found[0]["episodes"]) if found else None

    @property
    def within_noise(self) -> bool:
        """Whether the gain's interval holds 0: it may be chance."""
        found = self.gain_interval
        return found is not None and found[0].low is not None and found[0].sign == 0

    @property
    def gain_noise(self) -> str:
        """What is known of the gain's noise, to follow its number; empty where nothing is recorded of it."""
        found = self.gain_interval
        if found is None:
            return ""
        gain, count = found
        if gain.low is None or gain.high is None:
            return "; one validation episode, so its noise is not known"
        episodes = f"95 % interval {100 * gain.low:.1f} to {100 * gain.high:.1f} % over {count} episodes"
        return f"; {'within noise, ' if self.within_noise else ''}{episodes}"

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON and for a tracker; ``gain`` and what is known of its noise included."""
        return asdict(self) | {"gain": self.gain, "gain_noise": self.gain_noise}


def summarize(
    study: str,
    trials: Sequence[TrialRecord],
    *,
    metric: str,
    mode: str,
    rungs: Sequence[int],
    state: str,
    reason: str | None,
    seconds: float,
) -> Summary:
    """The summary of a study's records; see :class:`Summary`."""
    best = best_trial(trials, metric, mode, rungs)
    return Summary(
        study=study,
        metric=metric,
        mode=mode,
        state=state,
        reason=reason,
        best=best,
        baseline=_baseline(trials, metric, rungs, best),
        trials=dict(Counter(state_of(trial, state) for trial in trials)),
        samples=sum(max((r.samples_seen for r in trial.results), default=0) for trial in trials),
        seconds=seconds,
        failures={
            trial.number: str(trial.outcome.reason)
            for trial in trials
            if trial.outcome is not None and trial.outcome.state == "failed"
        },
        gains=rung_gains(trials, metric, rungs),
    )


def gain(value: float, baseline: float, mode: str) -> float | None:
    """How much better a value is than the baseline's, as a share of the latter; None where that is 0."""
    return ((baseline - value) if mode == "min" else (value - baseline)) / abs(baseline) if baseline else None


def state_of(trial: TrialRecord, study: str) -> str:
    """How a trial ended; where it has not, ``running`` while the study does, else ``interrupted``."""
    return trial.outcome.state if trial.outcome else "running" if study == "running" else "interrupted"


def rung_gains(trials: Sequence[TrialRecord], metric: str, rungs: Sequence[int]) -> list[dict[str, Any]]:
    """Gains over the baseline at equal samples, paired by episode; see :class:`Summary`.

    One training of each is compared: what another seed would give is not in the interval.
    """
    baseline = baseline_trial(trials)
    if baseline is None:
        return []
    gains = []
    for rung in rungs:
        against = _errors_at(baseline, metric, rungs, rung)
        for trial in trials:
            own = _errors_at(trial, metric, rungs, rung)
            if against is None or own is None or trial.number == baseline.number or own.episodes != against.episodes:
                continue
            gain = relative_gain(own, against)
            gains.append({"trial": trial.number, "rung": rung, "episodes": len(own.episodes), **gain.to_dict()})
    return gains


def _errors_at(trial: TrialRecord, metric: str, rungs: Sequence[int], rung: int) -> Errors | None:
    result = result_at(trial, metric, rungs, rung)
    rows = result.episodes.get(metric) if result is not None and result.episodes else None
    return Errors.of([rows]) if rows else None


def best_trial(trials: Sequence[TrialRecord], metric: str, mode: str, rungs: Sequence[int]) -> Scored | None:
    """The best of the trials at the highest rung that any has reached; the earlier one of equals.

    A trial that failed does not count, whatever it scored before.
    """
    first = next(iter(ranked(trials, metric, mode, rungs)), None)
    return _highest(first, metric, rungs) if first is not None else None


def scored(trial: TrialRecord, metric: str, rungs: Sequence[int], rung: int) -> Scored | None:
    """A trial's first value at or past ``rung`` and before the next one, as ASHA sees it.

    None where there is none, or it is not finite.
    """
    result = result_at(trial, metric, rungs, rung)
    return Scored(trial.number, trial.name, result.metrics[metric], rung, trial.params) if result else None


def result_at(trial: TrialRecord, metric: str, rungs: Sequence[int], rung: int) -> Result | None:
    """The report that :func:`scored` reads."""
    beyond = min((level for level in rungs if level > rung), default=math.inf)
    for result in sorted(trial.results, key=lambda result: result.samples_seen):
        if metric in result.metrics and rung <= result.samples_seen < beyond:
            return result if math.isfinite(result.metrics[metric]) else None
    return None


def ranked(trials: Sequence[TrialRecord], metric: str, mode: str, rungs: Sequence[int]) -> list[TrialRecord]:
    """Trials that have reached a rung, best first: the further one first, the better one at the same rung.

    A failed one does not count.
    """
    sign = 1.0 if mode == "min" else -1.0
    found = [(trial, _highest(trial, metric, rungs)) for trial in trials if not is_lost(trial)]
    there = [(trial, at) for trial, at in found if at is not None]
    top = max((at.rung for _, at in there), default=0)
    acted = all(trial.tried for trial, at in there if at.rung == top)

    def order(pair: tuple[TrialRecord, Scored]) -> tuple[Any, ...]:
        trial, at = pair
        achieved = tuple(-share for share in best_try(trial.tried).order) if acted and at.rung == top else ()
        return -at.rung, achieved, sign * at.value, trial.number

    return [trial for trial, _ in sorted(there, key=order)]


def _highest(trial: TrialRecord, metric: str, rungs: Sequence[int]) -> Scored | None:
    """A trial at the highest rung that it has reached."""
    return next((at for rung in reversed(rungs) if (at := scored(trial, metric, rungs, rung)) is not None), None)


def is_lost(trial: TrialRecord) -> bool:
    """Whether it failed, so that it cannot be the best."""
    return trial.outcome is not None and trial.outcome.state == "failed"


def baseline_trial(trials: Sequence[TrialRecord]) -> TrialRecord | None:
    """The trial that gains are measured against: the warm start of that name, else the first; None without any."""
    named = [trial for trial in trials if trial.name is not None]
    return next((trial for trial in named if trial.name == BASELINE), named[0] if named else None)


def _baseline(trials: Sequence[TrialRecord], metric: str, rungs: Sequence[int], best: Scored | None) -> Scored | None:
    baseline = baseline_trial(trials)
    return scored(baseline, metric, rungs, best.rung) if baseline is not None and best is not None else None
