"""What a study tells about itself while it runs: the ``Tracker`` interface, and how to get one."""

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Protocol

from smolvla_core.command import python_command
from tune.records import TrialRecord
from tune.tracking.mlflow_store import (
    EXPERIMENT_ID,
    TrackingError,
    connect,
    first_line,
    is_server,
    mask,
    read_pointer,
    resolve_uri,
    sqlite_file,
)

Outcome = Literal["complete", "pruned", "failed", "interrupted"]
LOCAL_PAGES = "http://127.0.0.1:5000"
"""Where ``mlflow ui`` shows its pages."""
AS_TRAINING = "workflowType=machine_learning"
"""In an address of MLflow's pages: *Model training*, in place of what they begin with, *GenAI*."""
_NO_TAGS: Mapping[str, str] = {}


class Tracker(Protocol):
    """Called by the driver, from one thread, in the order of the methods. Trials may interleave."""

    def start_study(
        self,
        run_dir: Path,
        spec_dict: Mapping[str, Any],
        yaml_text: str,
        dataset: Mapping[str, Any] | None,
        resume: bool,
    ) -> None:
        """Open the study.

        Args:
            run_dir: the study's folder, which exists; the driver's lock is taken there.
            spec_dict: the resolved specification, nested.
            yaml_text: the YAML as the user wrote it.
            dataset: ``name``, ``root``, ``digest`` and further facts (``smolvla_core.data.dataset.fingerprint``).
            resume: continue the record of the same ``run_dir``.

        Raises:
            StudyBusyError: a living process runs this study.
        """

    def start_trial(
        self,
        number: int | str,
        name: str | None,
        params: Mapping[str, Any],
        config: Mapping[str, Any],
        tags: Mapping[str, str] = _NO_TAGS,
    ) -> None:
        """Open a trial, or open it again.

        Args:
            number: of the trial in the study; a text for a training that is no trial of the search,
                such as ``finalist 3``.
            name: of the warm-start point it is, if it is one.
            params: the searched values, by dotted key.
            config: the whole trial's configuration, nested (``TrialConfig.to_dict``).
            tags: further ones.
        """

    def log_result(
        self, number: int | str, metrics: Mapping[str, float], curve: Sequence[Mapping[str, float]] = ()
    ) -> None:
        """Record a report, and the points since the one before; each holds ``samples_seen``."""

    def end_trial(
        self, number: int | str, outcome: Outcome, reason: str | None, tags: Mapping[str, str] = _NO_TAGS
    ) -> None:
        """Close a trial, with why it stopped and further tags (such as its host)."""

    def recall_trial(
        self, number: int | str, name: str | None, trial: TrialRecord, tags: Mapping[str, str] = _NO_TAGS
    ) -> None:
        """Tell of a trial of an earlier session; what is known of it already is not recorded twice.

        Args:
            number: as for :meth:`start_trial`.
            name: likewise.
            trial: all that the study's records hold of it.
            tags: further ones.
        """

    def end_study(self, summary: Mapping[str, Any], artifacts: Sequence[Path] = ()) -> None:
        """Close the study and all that is open in it.

        Args:
            summary: ``tune.summary.Summary.to_dict()``; every key is optional.
            artifacts: files and folders to keep with the study.
        """


class NullTracker:
    """Records nothing."""

    def start_study(
        self,
        run_dir: Path,
        spec_dict: Mapping[str, Any],
        yaml_text: str,
        dataset: Mapping[str, Any] | None,
        resume: bool,
    ) -> None:
        """Do nothing."""

    def start_trial(
        self,
        number: int | str,
        name: str | None,
        params: Mapping[str, Any],
        config: Mapping[str, Any],
        tags: Mapping[str, str] = _NO_TAGS,
    ) -> None:
        """Do nothing."""

    def log_result(
        self, number: int | str, metrics: Mapping[str, float], curve: Sequence[Mapping[str, float]] = ()
    ) -> None:
        """Do nothing."""

    def end_trial(
        self, number: int | str, outcome: Outcome, reason: str | None, tags: Mapping[str, str] = _NO_TAGS
    ) -> None:
        """Do nothing."""

    def recall_trial(
        self, number: int | str, name: str | None, trial: TrialRecord, tags: Mapping[str, str] = _NO_TAGS
    ) -> None:
        """Do nothing."""

    def end_study(self, summary: Mapping[str, Any], artifacts: Sequence[Path] = ()) -> None:
        """Do nothing."""


def make_tracker(uri: str | None, experiment: str, run_dir: Path, enabled: bool = True) -> Tracker:
    """The tracker for ``tracking.uri``; None is ``mlflow.db`` beside the study's folder.

    Raises:
        TrackingError: MLflow cannot open the store.
    """
    if not enabled:
        return NullTracker()
    from tune.tracking.mlflow_tracker import MlflowTracker

    return MlflowTracker(resolve_uri(uri, run_dir), experiment)


def viewing_command(uri: str | None, run_dir: Path, enabled: bool = True) -> str | None:
    """What a user runs, or opens, to look at a study in MLflow; None where it is not tracked."""
    if not enabled:
        return None
    uri = resolve_uri(uri, run_dir)
    if is_server(uri):
        return mask(uri)
    return f"{python_command()} -m mlflow ui --backend-store-uri {shlex.quote(mask(uri))}"


def viewing_page(uri: str | None, run_dir: Path, enabled: bool = True) -> str | None:
    """The address of a study's experiment in MLflow's pages; None where no store has taken the study."""
    try:
        pointer = read_pointer(run_dir) if enabled else None
    except TrackingError:
        return None
    number = (pointer or {}).get(EXPERIMENT_ID)
    if number is None:
        return None
    uri = resolve_uri(uri, run_dir)
    server = mask(uri).rstrip("/") if is_server(uri) else LOCAL_PAGES
    return f"{server}/#/experiments/{number}/runs?{AS_TRAINING}"


def reconcile(uri: str | None, experiment: str | None, storage: Path) -> int:
    """Close the runs that dead drivers left RUNNING; those of living ones stay.

    Whether a driver lives is read from its lock in the study's folder, else from its process on this
    host. A run of another host whose folder is not seen from here is left alone.

    Args:
        uri: as for :func:`make_tracker`; None: ``mlflow.db`` in ``storage``.
        experiment: MLflow experiment; None: every one.
        storage: folder of the studies.

    Returns:
        How many runs were closed.

    Raises:
        TrackingError: the store does not answer.
    """
    resolved = resolve_uri(uri, storage / "any")
    database = sqlite_file(resolved)
    if database is not None and not database.is_file():
        return 0
    client = connect(resolved)
    from mlflow.exceptions import MlflowException

    from tune.tracking.mlflow_runs import close_dead

    try:
        found = client.search_experiments() if experiment is None else [client.get_experiment_by_name(experiment)]
        return sum(close_dead(client, one.experiment_id) for one in found if one is not None)
    except (MlflowException, OSError) as error:
        raise TrackingError(
            f"tracking.uri: {mask(resolved)} does not answer ({first_line(error)}); start the server and try again"
        ) from None
