"""``MlflowTracker``: a study in MLflow, written from the driver.

It goes through ``MlflowClient`` only, so that MLflow's process-wide "active run" is left to the user.
Every write passes the outbox, so that a server that is away costs a training nothing. What it holds is
lost with the process, and told again of the study's records by the next one (:meth:`MlflowTracker.recall_trial`).
"""

import json
import logging
import time
import uuid
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import yaml

from tune import driver
from tune.records import TrialRecord
from tune.tracking import mlflow_entities as entities
from tune.tracking.mlflow_runs import STATUS, STUDY_RUN, WHY, StudyRuns
from tune.tracking.mlflow_store import (
    EXPERIMENT_ID,
    POINTER,
    STUDY_ID,
    connect,
    is_server,
    mask,
    read_pointer,
    refuse_locked_out,
)
from tune.tracking.outbox import Outbox

SEPARATOR = " · "
_NO_TAGS: Mapping[str, str] = {}
_logger = logging.getLogger(__name__)


class MlflowTracker:
    """One parent run a study, one child run a trial; the methods are those of :class:`tune.tracking.Tracker`.

    Args:
        uri: resolved address of the store (:func:`tune.tracking.mlflow_store.resolve_uri`).
        experiment: MLflow experiment; made where there is none.
        outbox: to be given in tests.

    Raises:
        TrackingError: MLflow cannot open the store.
    """

    def __init__(self, uri: str, experiment: str, outbox: Outbox | None = None) -> None:
        self.uri = uri
        self._experiment = experiment
        self._client = connect(uri)
        self._outbox = Outbox(uri) if outbox is None else outbox
        self._started: tuple[Path, StudyRuns] | None = None
        self._dataset: dict[str, Any] | None = None

    def start_study(
        self,
        run_dir: Path,
        spec_dict: Mapping[str, Any],
        yaml_text: str,
        dataset: Mapping[str, Any] | None,
        resume: bool,
    ) -> None:
        """See :meth:`tune.tracking.Tracker.start_study`."""
        run_dir = run_dir.resolve()
        driver.hold(run_dir)
        if is_server(self.uri):
            refuse_locked_out(self._client, self.uri)
        study_id = self._study_id(run_dir, resume)
        common = {**driver.identity(run_dir), STUDY_RUN: run_dir.name}
        runs = StudyRuns(self._client, self.uri, self._experiment, study_id, common)
        self._started = run_dir, runs
        self._dataset = dict(dataset) if dataset else None

        provenance, flat = entities.provenance(), entities.flatten(spec_dict)
        plain = json.loads(json.dumps(spec_dict, default=str))
        resolved = yaml.safe_dump(plain, sort_keys=False, allow_unicode=True)
        send = self._outbox.send
        send("study", lambda: runs.open_study(run_dir.name, provenance))
        send("where the study is", lambda: self._write_pointer(run_dir, study_id, runs))
        send("study: parameters", lambda: runs.log_params(runs.parent_id, flat))
        if dataset:
            send("study: dataset", lambda: runs.log_dataset(runs.parent_id, dataset))
        for name, text in (("study.yaml", yaml_text), ("study.resolved.yaml", resolved)):
            send(name, partial(self._write_text, name, mask(text)), in_order=False)

    def start_trial(
        self,
        number: int | str,
        name: str | None,
        params: Mapping[str, Any],
        config: Mapping[str, Any],
        tags: Mapping[str, str] = _NO_TAGS,
    ) -> None:
        """See :meth:`tune.tracking.Tracker.start_trial`."""
        runs, began = self._runs(), _now_ms()
        run_name = self._run_name(number, name)
        self._outbox.send(run_name, lambda: self._open(runs, number, run_name, params, config, tags, began))

    def log_result(
        self, number: int | str, metrics: Mapping[str, float], curve: Sequence[Mapping[str, float]] = ()
    ) -> None:
        """See :meth:`tune.tracking.Tracker.log_result`."""
        runs, points = self._runs(), entities.metrics(metrics, curve, _now_ms())
        self._outbox.send(f"{_name(number)}: metrics", lambda: runs.log_metrics(number, points))

    def end_trial(
        self, number: int | str, outcome: str, reason: str | None, tags: Mapping[str, str] = _NO_TAGS
    ) -> None:
        """See :meth:`tune.tracking.Tracker.end_trial`."""
        _check_outcome(outcome)
        runs, ended, final = self._runs(), _now_ms(), {WHY: reason, **tags}
        self._outbox.send(f"{_name(number)}: end", lambda: runs.end_trial(number, outcome, final, ended))

    def recall_trial(
        self, number: int | str, name: str | None, trial: TrialRecord, tags: Mapping[str, str] = _NO_TAGS
    ) -> None:
        """See :meth:`tune.tracking.Tracker.recall_trial`."""
        runs, run_name = self._runs(), self._run_name(number, name)

        def tell() -> None:
            state = trial.outcome.state if trial.outcome else "interrupted"
            if runs.has_whole(number, state) and trial.outcome:
                return
            self._open(runs, number, run_name, trial.params, trial.config, tags, _ms(trial.started))
            for result in trial.results:
                if result.failure is None:
                    runs.log_metrics(number, entities.metrics(result.metrics, result.curve, _ms(result.time)))
            end = trial.outcome or (trial.results[-1] if trial.results else None)
            reason = trial.outcome.reason if trial.outcome else "driver died"
            host = next((result.host for result in reversed(trial.results) if result.host), None)
            runs.end_trial(number, state, {WHY: reason, "host": host}, _ms(end.time if end else trial.started))

        self._outbox.send(f"{run_name}, of the study's records", tell)

    def end_study(self, summary: Mapping[str, Any], artifacts: Sequence[Path] = ()) -> None:
        """See :meth:`tune.tracking.Tracker.end_study`."""
        outcome = summary.get("state", "complete")
        _check_outcome(outcome)
        runs, ended, final = self._runs(), _now_ms(), {WHY: summary.get("reason")}
        for path in artifacts:
            self._outbox.send(f"artifact {path.name}", partial(self._upload, path), in_order=False)
        if outcome == "complete" and summary.get("best") and summary.get("checkpoint"):
            self._outbox.send("registered model", lambda: runs.register_best(summary), in_order=False)
        self._outbox.send("best trial", lambda: runs.mark_best(summary, ended))
        self._outbox.send("study: end", lambda: runs.end_study(outcome, final, ended))
        undelivered = self._outbox.close()
        if undelivered:
            _logger.warning("%s; they are kept in the study's folder, and --resume delivers them", undelivered)
        if self._started:
            driver.release(self._started[0])

    def trial_url(self, number: int) -> str | None:
        """The trial's place in MLflow's pages (``#/experiments/...``); None while it is not stored."""
        return self._runs().url(number)

    def _runs(self) -> StudyRuns:
        if self._started is None:
            raise RuntimeError("start_study() comes first")
        return self._started[1]

    def _open(
        self,
        runs: StudyRuns,
        number: int | str,
        run_name: str,
        params: Mapping[str, Any],
        config: Mapping[str, Any],
        tags: Mapping[str, str],
        began_ms: int,
    ) -> None:
        """Make a trial's run, or open the one that is there, with its parameters and data."""
        every: dict[str, Any] = {f"search.{key}": value for key, value in params.items()}
        warm_start = run_name.partition(SEPARATOR)[2] if isinstance(number, int) else ""
        every |= {"warm_start": warm_start or None}
        every |= {entities.NOTE: entities.searched_note(params) or None, **tags}
        runs.open_trial(number, run_name, every, began_ms)
        run_id = runs.trial(number).run_id
        runs.log_params(run_id, entities.flatten(config))
        if self._dataset:
            runs.log_dataset(run_id, self._dataset)

    def _run_name(self, number: int | str, name: str | None) -> str:
        return f"{_name(number)}{SEPARATOR}{name}" if name else _name(number)

    def _write_text(self, name: str, text: str) -> None:
        self._client.log_text(self._runs().parent_id, text, name)

    def _upload(self, path: Path) -> None:
        run_id = self._runs().parent_id
        if path.is_dir():
            self._client.log_artifacts(run_id, str(path), path.name)
        else:
            self._client.log_artifact(run_id, str(path))

    def _study_id(self, run_dir: Path, resume: bool) -> str:
        """A new id, or that of the study being resumed; on disk before anything is sent."""
        if resume and (pointer := read_pointer(run_dir)) is not None:
            return str(pointer[STUDY_ID])
        study_id = uuid.uuid4().hex
        self._write_pointer(run_dir, study_id, None)
        return study_id

    def _write_pointer(self, run_dir: Path, study_id: str, runs: StudyRuns | None) -> None:
        values = {
            STUDY_ID: study_id,
            "uri": mask(self.uri),
            "experiment": self._experiment,
            "parent_run_id": runs.parent_id if runs else None,
            EXPERIMENT_ID: runs.experiment_id if runs else None,
        }
        part = run_dir / f"{POINTER}.part"
        part.write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")
        part.replace(run_dir / POINTER)


def _name(number: int | str) -> str:
    return f"trial {number}" if isinstance(number, int) else number


def _check_outcome(outcome: str) -> None:
    if outcome not in STATUS:
        raise ValueError(f"outcome is {outcome!r}; it must be one of {', '.join(STATUS)}")


def _now_ms() -> int:
    return _ms(time.time())


def _ms(seconds: float) -> int:
    return int(seconds * 1000)
