"""Results that come after a study has ended, added to the run of the training that they are of."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tune.closed_loop import FOLDER, Achieved
from tune.tracking import mlflow_entities as entities
from tune.tracking.mlflow_runs import NUMBER, RUN_KEY, Key
from tune.tracking.mlflow_store import (
    POINTER,
    STUDY_ID,
    TrackingError,
    connect,
    first_line,
    mask,
    read_pointer,
    resolve_uri,
    search_runs,
)

if TYPE_CHECKING:
    from mlflow.tracking import MlflowClient


def attach_to_run(
    run_dir: Path, uri: str | None, key: Key, found: Sequence[Achieved], samples: int, of_study: Sequence[Path]
) -> None:
    """Store scores as metrics (``closed_loop/...``) and the evaluators' files as artifacts.

    Made again it changes nothing: a metric has the time at which its file was attached.

    Args:
        run_dir: the study's folder.
        uri: as for :func:`tune.tracking.make_tracker`.
        key: of the training among the study's runs.
        found: what is attached to it.
        samples: that it has seen; the metrics' step.
        of_study: files that stand anew in the study's own run.

    Raises:
        TrackingError: the store does not answer, or has no such run; or the study does not know where it is there.
    """
    from mlflow.exceptions import MlflowException

    resolved, pointer = resolve_uri(uri, run_dir), read_pointer(run_dir)
    if pointer is None:
        raise TrackingError(f"{run_dir / POINTER}: missing, so that the study's runs in MLflow are not known")
    try:
        client = connect(resolved)
        run_id = _run(client, pointer, key)
        for each in found:
            points = entities.metrics({entities.STEP: samples, **each.metrics()}, (), round(1000 * each.time))
            client.log_batch(run_id, metrics=[point for point in points if point.key != entities.STEP])
            for file in each.files:
                client.log_artifact(run_id, str(file), f"{FOLDER}/{each.evaluator}")
        for file in of_study:
            if file.is_file() and pointer["parent_run_id"]:
                client.log_artifact(pointer["parent_run_id"], str(file))
    except (MlflowException, OSError, KeyError, ValueError) as error:
        raise TrackingError(
            f"{mask(resolved)}: {first_line(error)}; run the same command again to try it again"
        ) from None


def _run(client: "MlflowClient", pointer: Mapping[str, Any], key: Key) -> str:
    experiment = client.get_experiment_by_name(pointer["experiment"])
    tag = NUMBER if isinstance(key, int) else RUN_KEY
    query = f"tags.{STUDY_ID} = '{pointer[STUDY_ID]}' and tags.`{tag}` = '{key}'"
    runs = search_runs(client, experiment.experiment_id, query) if experiment else iter(())
    run = next(iter(runs), None)
    if run is None:
        raise TrackingError(f"the store has no run of {f'trial {key}' if isinstance(key, int) else key} of this study")
    return str(run.info.run_id)
