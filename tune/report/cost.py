"""What a study cost, and what it would have cost without ASHA."""

from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

from tune.clock import seconds_at
from tune.records import Session, TrialRecord
from tune.spec import Resources


@dataclass(frozen=True)
class Cost:
    """What all trials took.

    Attributes:
        samples: training frames drawn.
        trial_hours: the trials' own hours, summed; those at the same time count each.
        cpu_hours, gpu_hours: ``trial_hours`` times what a trial was given, in each session.
        price: ``trial_hours`` times ``resources.cost_per_hour``; None where that is not set.
        stopped: how many trials ASHA stopped.
        saved_samples: what those had left of their budget.
        saved_hours: what that would have taken, at each trial's own speed.
        whole_samples: what the trials that completed or were stopped would have drawn at their full budget.
    """

    samples: int
    trial_hours: float
    cpu_hours: float
    gpu_hours: float
    price: float | None
    stopped: int
    saved_samples: int
    saved_hours: float
    whole_samples: int

    @property
    def saved_share(self) -> float | None:
        """Share of the samples of whole trials that stopping them early saved; None where no trial has ended."""
        return self.saved_samples / self.whole_samples if self.whole_samples else None


def cost_of(trials: Sequence[TrialRecord], sessions: Sequence[Session], budget: int, resources: Resources) -> Cost:
    """The cost of a study.

    Args:
        trials: of the study.
        sessions: its starts, with what each trial was given. Between one's last record and the next start nothing ran.
        budget: samples of a whole trial.
        resources: of one trial, where a session does not tell, and what an hour costs.
    """
    starts = [session.time for session in sessions]
    seconds = {trial.number: busy_seconds(trial, starts) for trial in trials}
    given = [{"cpus": resources.cpus, "gpus": resources.gpus} | dict(session.resources) for session in sessions]
    cpu_hours, gpu_hours = (
        sum(part * (given[at][kind] if at >= 0 else getattr(resources, kind)) for at, part in _parts(trials, starts))
        / 3600
        for kind in ("cpus", "gpus")
    )
    drawn = {trial.number: max((r.samples_seen for r in trial.results), default=0) for trial in trials}
    ended = [trial for trial in trials if trial.outcome is not None and trial.outcome.state in ("complete", "pruned")]
    stopped = [trial for trial in ended if trial.outcome is not None and trial.outcome.state == "pruned"]
    left = {trial.number: max(0, budget - drawn[trial.number]) for trial in stopped}
    hours = sum(seconds.values()) / 3600
    return Cost(
        samples=sum(drawn.values()),
        trial_hours=hours,
        cpu_hours=cpu_hours,
        gpu_hours=gpu_hours,
        price=None if resources.cost_per_hour is None else hours * resources.cost_per_hour,
        stopped=len(stopped),
        saved_samples=sum(left.values()),
        saved_hours=sum(left[number] * seconds[number] / drawn[number] / 3600 for number in left if drawn[number] > 0),
        whole_samples=budget * len(ended),
    )


def busy_seconds(trial: TrialRecord, starts: Iterable[float]) -> float:
    """How long a trial ran, from its start to its last record; see :func:`tune.clock.seconds_at`."""
    return seconds_at(_times(trial), starts)[-1]


def _times(trial: TrialRecord) -> list[float]:
    end = [trial.outcome.time] if trial.outcome else []
    return [trial.started, *(result.time for result in trial.results), *end]


def _parts(trials: Iterable[TrialRecord], starts: Sequence[float]) -> Iterator[tuple[int, float]]:
    """Of what the trials took, a session's place among the starts (-1: before the first) and seconds in it."""
    for trial in trials:
        times = _times(trial)
        for (before, after), at in zip(pairwise(seconds_at(times, starts)), times[1:], strict=True):
            yield bisect_right(starts, at) - 1, after - before
