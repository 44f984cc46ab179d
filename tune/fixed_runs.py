"""A given list of trainings through Ray: no search and no early stop, else as a study's trials.

Each is a configuration with a training seed. They are recorded, tracked, restarted after a death and
continued after an interruption as trials are; what has ended is not run again.
"""

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from ray.tune import Callback
from ray.tune.search import Searcher

from smolvla_core.config import TrialConfig
from smolvla_core.config_values import set_dotted
from tune.asha import RungScheduler
from tune.clock import seconds_at
from tune.console import Say
from tune.live import Shown, make_events
from tune.ray_session import Brake, stopped_by_signals
from tune.recorder import Recorder
from tune.records import Records, TrialRecord
from tune.resume import resumable, settle
from tune.space import shared_values
from tune.spec import Resources, SearchSpec
from tune.tracking import NullTracker, Outcome, Tracker
from tune.trainable import Trainable
from tune.tuner import make_tuner

SEED = "runtime.seed"
_NO_TAGS: Mapping[str, str] = {}


@dataclass(frozen=True)
class Run:
    """A training: whose it is, and its values by dotted key, the seed among them."""

    role: str
    params: Mapping[str, Any]

    @property
    def seed(self) -> int:
        """The training seed."""
        return int(self.params[SEED])


@dataclass(frozen=True)
class FixedRuns:
    """Where the runs go, and what they have in common.

    Attributes:
        spec: of the search that they belong to: data and budget.
        resources: of each run.
        records: of these runs alone.
        tracker: of the study.
        trainable: runs one.
        say: takes each line of progress.
        storage: where Ray keeps the checkpoints.
        noun: what a line calls one.
        shared: dotted key -> value, of all runs: more than a trial of the search has.
        copying: Ray's callbacks that copy the records to a remote storage (``tune.mirror``).
    """

    spec: SearchSpec
    resources: Resources
    records: Records
    tracker: Tracker
    trainable: Trainable
    say: Say
    storage: str
    noun: str
    shared: Mapping[str, Any]
    copying: Sequence[Callback] = ()

    def run(self, wanted: Sequence[Run], *, session: str, limit: int, brake: Brake) -> list[TrialRecord]:
        """Run those that have not ended yet.

        Args:
            wanted: in the order in which they start.
            session: a name for Ray's files, of this call alone.
            limit: how many at once.
            brake: ends them; those that had not ended can be continued.

        Returns:
            the record of each that was ever started, in the order of ``wanted``.
        """
        settle(self.records, self.spec)
        recorded = {trial.number: trial for trial in self.records.trials()}
        told = _Named(self.tracker, self.noun, {number: trial.name or "" for number, trial in recorded.items()})
        for number, trial in recorded.items():
            told.recall_trial(number, None, trial)
        numbers = self._numbers(wanted)
        missing = [
            (number, run)
            for number, run in zip(numbers, wanted, strict=True)
            if number not in recorded or recorded[number].outcome is None
        ]
        if missing and brake.reason is None:
            self._fit(dict(missing), wanted, numbers, session, limit, brake)
            recorded = {trial.number: trial for trial in self.records.trials()}
        return [recorded[number] for number in numbers if number in recorded]

    def config(self, params: Mapping[str, Any]) -> TrialConfig:
        """The whole configuration of a run.

        Raises:
            ConfigError: the values do not go together.
        """
        return run_config(self.spec, params, self.shared)

    @property
    def _shared(self) -> dict[str, Any]:
        return {**shared_values(self.spec), **self.shared}

    def _numbers(self, wanted: Sequence[Run]) -> list[int]:
        """The number of each run: that of its record, else the next that is free."""
        known = {_identity(trial.config): trial.number for trial in self.records.trials()}
        free = max(known.values(), default=-1) + 1
        numbers = []
        for run in wanted:
            identity = _identity(self.config(run.params).to_dict())
            if identity not in known:
                known[identity], free = free, free + 1
            numbers.append(known[identity])
        return numbers

    def _fit(
        self,
        missing: Mapping[int, Run],
        wanted: Sequence[Run],
        numbers: Sequence[int],
        session: str,
        limit: int,
        brake: Brake,
    ) -> None:
        spec, searcher = self.spec, _InOrder(missing)
        roles = dict(zip(numbers, (run.role for run in wanted), strict=True))
        scheduler = RungScheduler(
            metric=spec.objective.metric,
            mode=spec.objective.mode,
            rungs=(spec.samples,),
            reduction_factor=spec.asha.reduction_factor,
            number=searcher.number,
            protected=roles,
        )
        recorded = self.records.trials()
        shown = replace(Shown.search(spec), rungs=(spec.samples,), trials=len(wanted), noun=self.noun)
        events = make_events(self.say, shown, [trial for trial in recorded if trial.number in roles],
                             lambda: brake.reason)  # fmt: skip
        recorder = Recorder(
            records=self.records,
            tracker=_Named(self.tracker, self.noun, roles),
            events=events,
            searcher=searcher,
            scheduler=scheduler,
            metric=spec.objective.metric,
            mode=spec.objective.mode,
            rungs=(spec.samples,),
            names=[roles.get(number, "") for number in range(max(roles) + 1)],
            make_config=lambda params: self.config(params).to_dict(),
            restore=resumable(self.records, recorded),
            storage=self.storage,
            brake=brake,
        )
        tuner = make_tuner(
            self.trainable,
            {**spec.trial, **self._shared},
            searcher=searcher,
            scheduler=scheduler,
            number=searcher.number,
            resources=self.resources,
            count=len(missing),
            limit=limit,
            noun=self.noun,
            session=session,
            storage=self.storage,
            callbacks=[recorder, *self.copying],
            brake=brake,
        )
        with stopped_by_signals(brake), events.shown():
            tuner.fit()


class _InOrder(Searcher):
    """Hands out the runs in their order."""

    def __init__(self, runs: Mapping[int, Run]):
        super().__init__()
        self._runs = dict(runs)
        self._waiting = list(runs)
        self._numbers: dict[str, int] = {}

    def suggest(self, trial_id: str) -> dict[str, Any] | None:
        """The next run; None when all have been handed out."""
        if not self._waiting:
            return None
        self._numbers[trial_id] = self._waiting.pop(0)
        return self.params(self._numbers[trial_id])

    def on_trial_complete(self, trial_id: str, result: Mapping[str, Any] | None = None, error: bool = False) -> None:
        """Nothing is learned from a run."""

    def number(self, trial_id: str) -> int:
        """The number of one of Ray's trials."""
        return self._numbers[trial_id]

    def params(self, number: int) -> dict[str, Any]:
        """The values of a run."""
        return dict(self._runs[number].params)

    def set_search_properties(self, metric: str | None, mode: str | None, config: dict, **spec: Any) -> bool:
        """It takes nothing from Ray's ``param_space``."""
        return False


class _Named(NullTracker):
    """Tells a study's tracker of runs that are no trials of its search."""

    def __init__(self, tracker: Tracker, noun: str, roles: Mapping[int, str]):
        self._tracker, self._noun, self._roles = tracker, noun, roles

    def start_trial(
        self,
        number: int | str,
        name: str | None,
        params: Mapping[str, Any],
        config: Mapping[str, Any],
        tags: Mapping[str, str] = _NO_TAGS,
    ) -> None:
        """Open a run under its role and seed."""
        title, own = self._known_as(number, params)
        self._tracker.start_trial(self._key(number), title, params, config, {**own, **tags})

    def log_result(
        self, number: int | str, metrics: Mapping[str, float], curve: Sequence[Mapping[str, float]] = ()
    ) -> None:
        """Record a report of a run."""
        self._tracker.log_result(self._key(number), metrics, curve)

    def end_trial(
        self, number: int | str, outcome: Outcome, reason: str | None, tags: Mapping[str, str] = _NO_TAGS
    ) -> None:
        """Close a run."""
        self._tracker.end_trial(self._key(number), outcome, reason, tags)

    def recall_trial(
        self, number: int | str, name: str | None, trial: TrialRecord, tags: Mapping[str, str] = _NO_TAGS
    ) -> None:
        """Tell of a run of an earlier session."""
        title, own = self._known_as(number, trial.params)
        self._tracker.recall_trial(self._key(number), title, trial, {**own, **tags})

    def _known_as(self, number: int | str, params: Mapping[str, Any]) -> tuple[str, dict[str, str]]:
        role, seed = self._roles[int(number)], str(params[SEED])
        return f"{role}, seed {seed}", {self._noun: "true", "role": role, "seed": seed}

    def _key(self, number: int | str) -> str:
        return f"{self._noun} {number}"


def run_config(spec: SearchSpec, params: Mapping[str, Any], shared: Mapping[str, Any]) -> TrialConfig:
    """The whole configuration of a run; see :class:`FixedRuns`.

    Raises:
        ConfigError: the values do not go together.
    """
    return TrialConfig.from_dict(set_dotted(spec.trial, {**params, **shared_values(spec), **shared}))


def recorded_runs(
    spec: SearchSpec, wanted: Sequence[Run], shared: Mapping[str, Any], recorded: Sequence[TrialRecord]
) -> dict[tuple[str, int], TrialRecord]:
    """Role and seed of a wanted run -> its record: that of the same configuration, whatever it was called then."""
    known = {_identity(trial.config): trial for trial in recorded}
    identities = {(run.role, run.seed): _identity(run_config(spec, run.params, shared).to_dict()) for run in wanted}
    return {key: known[identity] for key, identity in identities.items() if identity in known}


def seconds_of_all(
    records: Sequence[TrialRecord], starts: Iterable[float], samples: float, at_once: int, runs: int
) -> float:
    """About how long runs to the full budget take, from the pace of the trials so far; 0 before any has reported.

    Args:
        records: of trials.
        starts: of the study's sessions; between two of them no trial ran.
        samples: a run draws.
        at_once: runs.
        runs: how many.
    """
    reported = [trial for trial in records if trial.results and trial.results[-1].samples_seen]
    if not reported or not runs:
        return 0.0
    # start-up counts, so that those that have come furthest know the pace best
    furthest = max(trial.results[-1].samples_seen for trial in reported)
    starts = list(starts)
    paces = [
        seconds_at([trial.started, *(result.time for result in trial.results)], starts)[-1] / furthest
        for trial in reported
        if trial.results[-1].samples_seen == furthest
    ]
    return math.ceil(runs / at_once) * samples * sorted(paces)[len(paces) // 2]


def _identity(config: Mapping[str, Any]) -> str:
    """What two runs of the same training share."""
    return json.dumps(TrialConfig.from_dict(config).to_dict(), sort_keys=True)
