"""From Ray's events to the study's records, its tracker and its lines. Runs in the driver."""

import math
from collections.abc import Callable, Mapping
from typing import Any, Protocol

from ray.train._internal.checkpoint_manager import _TrainingResult
from ray.tune import Callback, Checkpoint

from tune.asha import RungScheduler
from tune.console import Events
from tune.ray_session import Brake
from tune.records import Records, Result
from tune.remote import join
from tune.retention import Retention
from tune.searcher import FAILURE
from tune.tracking import Tracker
from tune.trainable import CURVE, DISK_FULL, EPISODES, TRACEBACK

HOPELESS_AFTER = 3
"""Trials that fail before any has reported, after which the search is given up."""


class Numbering(Protocol):
    """A searcher that knows its trials by number."""

    def number(self, trial_id: str) -> int:
        """The number of one of Ray's trials."""

    def params(self, number: int) -> dict[str, Any]:
        """The parameters of a trial."""


class Recorder(Callback):
    """Ray calls it after the searcher and the scheduler have seen an event.

    Args:
        records, tracker, events: where things go.
        searcher: knows the trials' numbers and parameters.
        scheduler: knows why it stopped one.
        metric: the objective's key.
        mode: whether ``min`` or ``max`` of it is better.
        rungs: the last is the budget of a trial.
        names: of the first trials: the warm starts.
        make_config: parameters -> the whole configuration, nested.
        restore: number -> (checkpoint, samples seen), of trials that are continued.
        storage: where Ray keeps the states: a path, or an address.
        brake: pulled when it is hopeless: the first trials all failed before they reported anything.
        keep_stopped: keep the states of the trials that are stopped.
    """

    def __init__(
        self,
        *,
        records: Records,
        tracker: Tracker,
        events: Events,
        searcher: Numbering,
        scheduler: RungScheduler,
        metric: str,
        mode: str,
        rungs: tuple[int, ...],
        names: list[str],
        make_config: Callable[[Mapping[str, Any]], dict[str, Any]],
        restore: Mapping[int, tuple[str, int]],
        storage: str,
        brake: Brake,
        keep_stopped: bool = False,
    ):
        self._records = records
        self._tracker = tracker
        self._events = events
        self._searcher = searcher
        self._scheduler = scheduler
        self._metric = metric
        self._rungs = rungs
        self._names = names
        self._make_config = make_config
        self._restore = dict(restore)
        self._storage = storage
        recorded = records.trials()
        self._retention = Retention(records.locate, recorded, scheduler.rungs, mode, keep_stopped)
        self._saved = {trial.number: trial.checkpoint for trial in recorded if trial.outcome is None}
        self._replaced: dict[int, list[str]] = {}
        self._brake = brake
        self._running: dict[int, dict[str, str]] = {}
        self._failed_at_once = 0
        self._any_report = any(trial.results for trial in recorded)

    def __getstate__(self) -> dict[str, Any]:
        """Nothing: Ray pickles its callbacks into a file that this package never loads."""
        return {}

    def on_trial_start(self, iteration: int, trials: list, trial: Any, **info: Any) -> None:
        """Record the trial, and hand it the state it continues from."""
        number = self._searcher.number(trial.trial_id)
        if number in self._running:  # its process died and it was started again
            return
        checkpoint, samples = self._restore.pop(number, (None, 0))
        if checkpoint is not None:
            # what Ray itself does when it restores an experiment
            trial.on_checkpoint(_TrainingResult(checkpoint=Checkpoint(checkpoint), metrics={}))
        self._start(number, trial, samples)

    def _start(self, number: int, trial: Any, samples: int = 0) -> None:
        params = self._searcher.params(number)
        name = self._names[number] if number < len(self._names) else None
        config = self._make_config(params)
        self._records.start_trial(number, name, params, config)
        self._tracker.start_trial(number, name, params, config)
        self._running[number] = {"ray.trial_id": trial.trial_id}
        self._brake.notice.started(number)
        self._events.started(number, name, params, samples)

    def on_trial_result(self, iteration: int, trials: list, trial: Any, result: dict, **info: Any) -> None:
        """Record a report."""
        number = self._searcher.number(trial.trial_id)
        if result.get(DISK_FULL):  # no trial's fault: all that run can be continued
            self._brake.pull(f"the disk is full: {result[FAILURE]}")
            return
        path = checkpoint_place(trial, result, self._storage)
        if path:
            before = self._saved.get(number)
            if before is not None:
                self._replaced.setdefault(number, []).append(before)
            self._saved[number] = self._records.relative(path)
            self._brake.notice.saved(number)
            trial.run_metadata.num_failures = 0  # Ray gives up after so many in all, however far it came between
        report = Result(
            metrics=numbers(result),
            curve=tuple(numbers(point) for point in result.get(CURVE, ())),
            checkpoint=self._saved[number] if path else None,
            last=bool(result.get("done")),
            failure=result.get(FAILURE),
            episodes=result.get(EPISODES) or None,
            host=result.get("hostname"),
            pid=result.get("pid"),
        )
        self._running[number]["host"] = str(result.get("hostname"))
        if TRACEBACK in result:
            self._records.keep_traceback(number, result[TRACEBACK])
        if self._records.add_result(number, report) and report.failure is None:
            self._any_report = True
            self._tracker.log_result(number, report.metrics, report.curve)
            reached = [rung for rung in self._rungs if rung <= report.samples_seen]
            self._events.reported(number, report.metrics, reached[-1] if reached else 0)

    def on_checkpoint(self, iteration: int, trials: list, trial: Any, checkpoint: Any, **info: Any) -> None:
        """Ray starts the trial again from this state from now on: those before it are of no use."""
        number = self._searcher.number(trial.trial_id)
        for path in self._replaced.pop(number, ()):
            if path != self._saved.get(number):  # a trial that went on from an older state saves to the same places
                self._retention.replaced(path)

    def on_trial_complete(self, iteration: int, trials: list, trial: Any, **info: Any) -> None:
        """Record how it ended; one that the brake ended stays open, so that it can be continued."""
        number = self._searcher.number(trial.trial_id)
        last = trial.last_result or {}
        if self._brake.reason is not None and (last.get(DISK_FULL) or not last.get("done")):
            return
        cut = self._scheduler.cuts.get(number)
        reason = f"{cut.value:.5g} at {cut.rung:,} samples, the cut-off is {cut.cutoff:.5g}" if cut else None
        self._end(number, *ending(trial.last_result or {}, self._metric, self._rungs[-1], reason))

    def on_trial_recover(self, iteration: int, trials: list, trial: Any, **info: Any) -> None:
        """Say that a process died; Ray starts the trial again from its last state."""
        self._events.retried(self._searcher.number(trial.trial_id), death_of(trial))

    def on_trial_error(self, iteration: int, trials: list, trial: Any, **info: Any) -> None:
        """Record a trial whose process died once too often, or could not start."""
        number = self._searcher.number(trial.trial_id)
        if number not in self._running:
            self._start(number, trial)
        self._end(number, "failed", death_of(trial))

    def on_experiment_end(self, trials: list, **info: Any) -> None:
        """Trials that were running are left without an outcome, so that they can be continued."""
        for number, tags in list(self._running.items()):
            self._tracker.end_trial(number, "interrupted", "the study was stopped", tags)
        self._running.clear()

    def _end(self, number: int, state: Any, reason: str | None) -> None:
        tags = self._running.pop(number, None)
        if tags is None:
            return
        self._brake.notice.ended(number)
        self._records.end_trial(number, state, reason)
        self._tracker.end_trial(number, state, reason, tags)
        self._retention.ended(number, state, self._saved.pop(number, None))
        self._events.ended(number, state, reason)
        if state == "failed" and not self._any_report:
            self._failed_at_once += 1
            if self._failed_at_once >= HOPELESS_AFTER:
                self._brake.pull(f"the first {self._failed_at_once} trials failed, the last one with: {reason}")


def checkpoint_place(trial: Any, result: Mapping[str, Any], address: str) -> str | None:
    """Where Ray put a report's checkpoint: a path, or an address in a remote storage; None without one.

    Args:
        trial: Ray's.
        result: the report.
        address: of Ray's storage, as it was given to Ray, which keeps the path in it alone.
    """
    folder, storage = result.get("checkpoint_dir_name"), trial.storage
    if not folder:
        return None
    path = f"{storage.trial_fs_path}/{folder}"
    if storage.storage_filesystem.type_name == "local":
        return path
    inside = path.split(storage.storage_fs_path, 1)[1].lstrip("/")
    return join(address, inside)


def ending(last: Mapping[str, Any], metric: str, budget: int, cut: str | None) -> tuple[str, str | None]:
    """State and reason of a trial that ended with the report ``last``.

    Args:
        last: its metrics, and ``failure`` where there was one.
        metric: the objective's key.
        budget: samples of a whole trial.
        cut: why ASHA stopped it, if it did.
    """
    samples, value = int(last.get("samples_seen") or 0), last.get(metric)
    if last.get(FAILURE) is not None:
        return "failed", str(last[FAILURE])
    if value is None:
        return "failed", f"ended without reporting {metric}"
    if not math.isfinite(value):
        return "failed", f"{metric} is {value} at {samples:,} samples"
    if samples >= budget:
        return "complete", None
    if cut is not None:
        return "pruned", cut
    return "failed", f"ended after {samples:,} of {budget:,} samples"


def numbers(values: Mapping[str, Any]) -> dict[str, float]:
    """The trial's own metrics, without what Ray adds to a report."""
    return {
        key: value
        for key, value in values.items()
        if ("/" in key or key in ("samples_seen", "step")) and isinstance(value, int | float)
    }


def death_of(trial: Any) -> str:
    """One line on what Ray knows of a dead process."""
    text = str(trial.get_error() or "the process ended")
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    telling = [line for line in lines if "died" in line or "Error" in line or "killed" in line]
    return f"its process died: {(telling or lines or [text])[-1][:300]}"
