"""The runs of one study in an MLflow store: a parent, and a child a trial.

Each operation may be made twice, since after a time-out nobody knows whether the first one arrived.
"""

import re
import time
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from tune import driver
from tune.closed_loop import FOLDER, TRIED
from tune.tracking import mlflow_entities as entities
from tune.tracking.mlflow_registry import ALIAS, Winner, register, version_link
from tune.tracking.mlflow_store import STUDY_ID, TrackingError, search_runs, sqlite_file

if TYPE_CHECKING:
    from mlflow.entities import Metric, Run
    from mlflow.tracking import MlflowClient

STATUS = {"complete": "FINISHED", "pruned": "KILLED", "failed": "FAILED", "interrupted": "KILLED"}
Key = int | str
"""A trial's number, or the text that names a training which is no trial of the search."""
RUN_KEY = "run.key"
STUDY_RUN, NUMBER, STATE, WHY = "study_run", "trial.number", "state", "why"
BEST, CHECKPOINT = "best", "checkpoint"


_ACTED = (f"{FOLDER}/", f"{TRIED}/")
"""Metrics that a training may have anew at the same step: it was let act on other instances, or in another way."""


def _no_steps() -> dict[str, dict[int, float]]:
    return defaultdict(dict)


@dataclass
class TrialRun:
    """A trial's run.

    ``ended``: the outcome that the store holds, which is sent after all else, so that nothing of such
    a run is missing. ``logged``: the value stored at each step of a metric; None: not yet looked up in the store.
    """

    run_id: str
    open: bool
    ended: str | None = None
    logged: dict[str, dict[int, float]] | None = field(default_factory=_no_steps)


class StudyRuns:
    """Finds, makes, fills and ends the runs of the study with ``study_id``.

    Args:
        client: of the store.
        uri: the store's resolved address, which decides where artifacts go.
        experiment: name; made where there is none.
        study_id: the tag that all of the study's runs share, for as long as it is resumed.
        common: further tags that every run carries.
    """

    def __init__(
        self, client: "MlflowClient", uri: str, experiment: str, study_id: str, common: Mapping[str, str]
    ) -> None:
        self._client = client
        self._uri = uri
        self._experiment = experiment
        self._study_id = study_id
        self._common = {**common, STUDY_ID: study_id}
        self._experiment_id = ""
        self._parent_id = ""
        self._adopted: set[str] = set()
        self._tried: set[Key] = set()
        self._registered: str | None = None
        self.trials: dict[Key, TrialRun] = {}

    @property
    def parent_id(self) -> str:
        """The parent's run id.

        Raises:
            MlflowException: the parent could not be made.
        """
        if not self._parent_id:
            from mlflow.exceptions import RESOURCE_DOES_NOT_EXIST, MlflowException

            raise MlflowException("the study's run could not be made", RESOURCE_DOES_NOT_EXIST)
        return self._parent_id

    def url(self, number: Key) -> str | None:
        """The trial's place in MLflow's pages, to be put after the server's address."""
        trial = self.trials.get(number)
        return f"{self.page}/runs/{trial.run_id}" if trial else None

    @property
    def experiment_id(self) -> str:
        """The experiment's; empty until the study is open."""
        return self._experiment_id

    @property
    def page(self) -> str:
        """The experiment's place in MLflow's pages."""
        return f"#/experiments/{self.experiment_id}"

    def open_study(self, run_name: str, tags: Mapping[str, str]) -> None:
        """Make the parent, or open the one that is there and take over its trials; and close what
        dead drivers left running in the same experiment.
        """
        self._experiment_id = self._open_experiment()
        runs = list(search_runs(self._client, self._experiment_id, f"tags.{STUDY_ID} = '{self._study_id}'"))
        parent = next((run for run in runs if entities.PARENT not in run.data.tags), None)
        every = {**self._common, **tags, STATE: "running"}
        if parent is None:
            parent = self._client.create_run(self._experiment_id, tags=every, run_name=run_name)
        else:
            self._reopen(parent.info.run_id, every)
            self._adopt(runs)
        self._parent_id = parent.info.run_id
        close_dead(self._client, self._experiment_id)

    def open_trial(self, number: Key, run_name: str, tags: Mapping[str, Any], started_ms: int) -> None:
        """Make the trial's run, or open the one that is there."""
        every = {**self._common, entities.PARENT: self.parent_id, _key_tag(number): number, STATE: "running", **tags}
        trial = self.trials.get(number) or self._find(number)
        if trial is not None:
            self._reopen(trial.run_id, every)
            self.trials[number] = TrialRun(trial.run_id, open=True, logged=None)
            return
        self._tried.add(number)
        plain = {tag.key: tag.value for tag in entities.tags(every)}
        run = self._client.create_run(self._experiment_id, started_ms, plain, run_name)
        self.trials[number] = TrialRun(run.info.run_id, open=True)

    def trial(self, number: Key) -> TrialRun:
        """The trial's run; one without parameters is made for a trial that was never started."""
        if number not in self.trials:
            name = f"trial {number}" if isinstance(number, int) else number
            self.open_trial(number, name, {}, time.time_ns() // 1_000_000)
        return self.trials[number]

    def log_params(self, run_id: str, flat: Mapping[str, str]) -> None:
        """Store parameters; those that a resumed run has already are left, as MLflow demands."""
        there = self._client.get_run(run_id).data.params if run_id in self._adopted else {}
        for portion in entities.params({key: value for key, value in flat.items() if key not in there}):
            self._client.log_batch(run_id, params=portion)

    def log_dataset(self, run_id: str, dataset: Mapping[str, Any]) -> None:
        """Store the fingerprint of each dataset as an input of the run."""
        if run_id not in self._adopted:
            every = (dataset, *dataset.get("others", ()))
            self._client.log_inputs(run_id, datasets=[entities.dataset_input(each) for each in every])

    def log_metrics(self, number: Key, points: Sequence["Metric"]) -> None:
        """Store the points that the store lacks, in one call (a thousand points a call).

        What a training achieves is stored anew where it differs: MLflow shows the latest of a step.
        """
        trial = self.trial(number)
        if trial.logged is None:
            trial.logged = self._stored_steps(trial.run_id)
        logged, trial.logged = trial.logged, None  # after a call that failed the store is asked what arrived
        fresh = [point for point in points if _is_fresh(point, logged[point.key])]
        for start in range(0, len(fresh), entities.METRICS_PER_CALL):
            self._client.log_batch(trial.run_id, metrics=fresh[start : start + entities.METRICS_PER_CALL])
        trial.logged = logged
        for point in fresh:
            logged[point.key][point.step] = point.value

    def end_trial(self, number: Key, outcome: str, tags: Mapping[str, Any], ended_ms: int) -> None:
        """Store how a trial ended."""
        trial = self.trial(number)
        close(self._client, trial.run_id, outcome, tags, ended_ms)
        trial.open, trial.logged, trial.ended = False, None, outcome

    def has_whole(self, number: Key, outcome: str) -> bool:
        """Whether the store holds a trial that ended so."""
        trial = self.trials.get(number)
        return trial is not None and trial.ended == outcome

    def end_study(self, outcome: str, tags: Mapping[str, Any], ended_ms: int) -> None:
        """Close the trials that are still open, and the parent."""
        for trial in self.trials.values():
            if trial.open:
                close(self._client, trial.run_id, "interrupted", {WHY: "the study ended"}, ended_ms)
                trial.open = False
        close(self._client, self.parent_id, outcome, tags, ended_ms)

    def register_best(self, summary: Mapping[str, Any]) -> None:
        """Register the winner's policy (``summary["checkpoint"]``) as a model named as the study."""
        name, policy = summary["study"], (summary.get("finalists") or {}).get("policy")
        key = entities.winner_key(summary)
        assert key is not None
        samples = policy["samples"] if policy else summary["best"]["rung"]
        winner = Winner(self._study_id, self.trial(key).run_id, key, samples)
        version = register(self._client, name, winner, summary["checkpoint"], summary)
        self._registered = f"{version_link(name, version)}, alias `{ALIAS}`" if version else None

    def mark_best(self, summary: Mapping[str, Any], timestamp_ms: int) -> None:
        """Tag the best run (a finalist's, where they were trained), and it only; describe the study in the parent."""
        key = entities.winner_key(summary)
        best = self.trials.get(key) if key is not None else None
        query = f"tags.{STUDY_ID} = '{self._study_id}' and tags.{BEST} = 'true'"
        for run in list(search_runs(self._client, self._experiment_id, query)):
            if best is None or run.info.run_id != best.run_id:
                for tag in {BEST, CHECKPOINT} & run.data.tags.keys():
                    self._client.delete_tag(run.info.run_id, tag)
        if best is not None:
            found = {BEST: "true", CHECKPOINT: summary.get("checkpoint")}
            self._client.log_batch(best.run_id, tags=entities.tags(found))
        links = {number: str(self.url(number)) for number in self.trials}
        self._client.log_batch(
            self.parent_id,
            metrics=entities.summary_metrics(summary, timestamp_ms),
            tags=entities.tags({entities.NOTE: entities.study_note(summary, links, self._registered)}),
        )

    def _open_experiment(self) -> str:
        from mlflow.exceptions import MlflowException

        found = self._client.get_experiment_by_name(self._experiment)
        if found is None:
            try:
                return self._client.create_experiment(
                    self._experiment, artifact_location=self._artifact_location(), tags=entities.EXPERIMENT_KIND
                )
            except MlflowException:
                found = self._client.get_experiment_by_name(self._experiment)  # another study may have just made it
                if found is None:
                    raise
        if found.lifecycle_stage == "deleted":
            raise TrackingError(
                f"tracking.experiment: '{self._experiment}' was deleted in MLflow; restore it with 'mlflow "
                f"experiments restore --experiment-id {found.experiment_id}', or give another name"
            )
        return found.experiment_id

    def _artifact_location(self) -> str | None:
        """Beside an SQLite file (MLflow's own default is the working directory); a server knows its own."""
        database = sqlite_file(self._uri)
        if database is None:
            return None
        return (database.parent / "mlartifacts" / re.sub(r"[^\w.-]", "_", self._experiment)).as_uri()

    def _adopt(self, runs: Iterable["Run"]) -> None:
        for run in sorted(runs, key=lambda run: run.info.start_time):
            self._adopted.add(run.info.run_id)
            key = _key_of(run)
            if key is not None:
                runs_still = run.info.status == "RUNNING"
                ended = None if runs_still else run.data.tags.get(STATE)
                self.trials[key] = TrialRun(run.info.run_id, open=False, ended=ended, logged=None)
                if runs_still:
                    close_as_dead(self._client, run.info.run_id)

    def _reopen(self, run_id: str, tags: Mapping[str, Any]) -> None:
        self._client.update_run(run_id, status="RUNNING")
        self._client.log_batch(run_id, tags=entities.tags({**tags, WHY: "resumed"}))

    def _find(self, number: Key) -> TrialRun | None:
        """The run of a trial that was tried to be made before, in case only the answer was lost."""
        if number not in self._tried:
            return None
        query = f"tags.{STUDY_ID} = '{self._study_id}' and tags.`{_key_tag(number)}` = '{number}'"
        run = next(search_runs(self._client, self._experiment_id, query), None)
        return TrialRun(run.info.run_id, open=True) if run else None

    def _stored_steps(self, run_id: str) -> dict[str, dict[int, float]]:
        steps = _no_steps()
        for key in self._client.get_run(run_id).data.metrics:
            history = sorted(self._client.get_metric_history(run_id, key), key=lambda point: point.timestamp)
            steps[key] = {point.step: point.value for point in history}
        return steps


def _is_fresh(point: "Metric", logged: Mapping[int, float]) -> bool:
    return point.step not in logged or (point.key.startswith(_ACTED) and logged[point.step] != point.value)


def _key_tag(key: Key) -> str:
    return NUMBER if isinstance(key, int) else RUN_KEY


def _key_of(run: "Run") -> Key | None:
    """None for a study's parent."""
    tags = run.data.tags
    return int(tags[NUMBER]) if NUMBER in tags else tags.get(RUN_KEY)


def close(
    client: "MlflowClient", run_id: str, outcome: str, tags: Mapping[str, Any], ended_ms: int | None = None
) -> None:
    """End a run with the status that belongs to its outcome."""
    client.log_batch(run_id, tags=entities.tags({STATE: outcome, **tags}))
    client.set_terminated(run_id, STATUS[outcome], ended_ms)


def close_as_dead(client: "MlflowClient", run_id: str) -> None:
    """End a run whose driver is gone."""
    close(client, run_id, "interrupted", {WHY: "driver died"})


def close_dead(client: "MlflowClient", experiment_id: str) -> int:
    """Close the runs that dead drivers left running in an experiment.

    A run whose driver may live on another machine is left alone.

    Returns:
        How many were closed.
    """
    closed = 0
    for run in list(search_runs(client, experiment_id, "attributes.status = 'RUNNING'")):
        if STUDY_ID in run.data.tags and driver.is_alive(run.data.tags) is False:
            close_as_dead(client, run.info.run_id)
            closed += 1
    return closed
