"""What is read of a LeRobot dataset's files; what is missing or damaged is refused in one line.

Shapes: N rows, E episodes, D dims of a vector feature.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from huggingface_hub.errors import HfHubHTTPError, HFValidationError
from lerobot.datasets import LeRobotDataset
from lerobot.datasets.dataset_metadata import LeRobotDatasetMetadata
from lerobot.datasets.utils import CompatibilityError
from numpy.typing import NDArray

from smolvla_core.config import DatasetSource
from smolvla_core.data.inside import refuse_paths_that_leave
from smolvla_core.data.keys import ACTION, CAM_REL_POSES, STATE, TASK_INFO, TIMESTAMP
from smolvla_core.data.legacy import converted, is_legacy
from smolvla_core.data.tasks import tasks_of, tasks_of_frames
from smolvla_core.data.wording import unreadable
from smolvla_core.errors import DataError, first_line


def locate(source: DatasetSource, cache_dir: str | None) -> Path:
    """The local folder of a v3.0 dataset: downloaded or converted first where needed.

    Raises:
        DataError: the folder is missing or holds no dataset.
    """
    if source.root is None:
        if source.task is not None:
            raise DataError(
                f"data.train: {source.repo_id} would be fetched whole, for one task of it; download what task "
                f"{source.task} needs (hf download --repo-type dataset {source.repo_id} --include … --local-dir "
                "FOLDER) and give 'root: FOLDER'"
            )
        return _downloaded(str(source.repo_id))
    root = Path(source.root).expanduser()
    try:
        info = _read_info(root)
    except OSError as error:
        raise unreadable(root / "meta" / "info.json", error) from None
    refuse_paths_that_leave(root)
    return converted(root, info, cache_dir) if is_legacy(info) else root.resolve()


def _read_info(root: Path) -> dict[str, Any]:
    if not root.is_dir():
        raise DataError(f"data.train: {root} does not exist; give the folder that holds meta/info.json")
    info_file = root / "meta" / "info.json"
    if not info_file.is_file():
        raise DataError(f"data.train: {root} holds no meta/info.json; is it the dataset's own folder?")
    try:
        info = json.loads(info_file.read_text(encoding="utf-8"))
    except ValueError as error:
        where = f" (line {error.lineno})" if isinstance(error, json.JSONDecodeError) else ""
        raise DataError(f"{info_file}: not valid JSON{where}; fetch the file again") from None
    fps = info.get("fps") if isinstance(info, dict) else None
    if not isinstance(fps, int | float) or fps <= 0:
        raise DataError(
            f"{info_file}: 'fps' is {fps!r}; it must be a number above 0, correct it or fetch the file again"
        )
    return dict(info)


def _downloaded(repo_id: str) -> Path:
    try:
        return Path(LeRobotDataset(repo_id).root)
    except CompatibilityError:
        raise DataError(
            f"data.train: {repo_id} is in a version of LeRobot's format that cannot be fetched so; download its "
            f"folder (hf download --repo-type dataset {repo_id} --local-dir FOLDER) and give 'root: FOLDER'"
        ) from None
    except (OSError, ValueError, HfHubHTTPError, HFValidationError) as error:
        raise DataError(
            f"data.train: {repo_id} cannot be fetched ({first_line(error).rstrip('.')}); "
            "check the name and the network, or give 'root', the dataset's folder"
        ) from error


def read_metadata(source: DatasetSource, root: Path, extra: tuple[str, ...]) -> LeRobotDatasetMetadata:
    """Lerobot's metadata of a local dataset, which has states and actions, and the columns that are read besides.

    Raises:
        DataError: a file is missing or damaged, or the dataset lacks a feature that is needed.
    """
    refuse_paths_that_leave(root)
    for needed in ("meta/tasks.parquet", "meta/episodes", "data"):
        files = [file for file in (root / needed, *(root / needed).rglob("*.parquet")) if file.is_file()]
        if not files:  # lerobot would ask the hub for it
            raise DataError(f"{root}: '{needed}' is missing; the dataset is incomplete, fetch or convert it again")
        for file in files:
            _refuse_damaged(file)
    try:
        meta = LeRobotDatasetMetadata(source.repo_id or f"local/{root.name}", root=root)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, pa.ArrowException) as error:
        raise DataError(
            f"{root / 'meta'}: cannot be read: {first_line(error).rstrip('.')}; fetch the dataset again"
        ) from None
    if meta.fps != int(meta.fps):
        raise DataError(
            f"{root / 'meta/info.json'}: 'fps' is {meta.fps}; only whole numbers can be trained on, resample the "
            "dataset, or correct the number where it was meant to be one"
        )
    if len(meta.episodes) < meta.total_episodes:
        raise DataError(
            f"{root}: info.json promises {meta.total_episodes} episodes, meta/episodes lists {len(meta.episodes)}; "
            "fetch the dataset again, or record it again where its recording was cut off"
        )
    _refuse_malformed_features(meta.features, root)
    for key in (STATE, ACTION):
        if key not in meta.features:
            raise DataError(f"{root}: the dataset has no '{key}'; it has {', '.join(sorted(meta.features))}")
    for key in extra:
        if key not in meta.features:
            raise DataError(
                f"data.train: {root} has no '{key}', which task_info needs; import the dataset with --keep-privileged "
                "if it is BEHAVIOR's of 2025, else remove task_info"
            )
    return meta


def episodes_of(meta: LeRobotDatasetMetadata, task: int | None, root: Path) -> NDArray[np.int64]:
    """Recorded numbers of a task's episodes, ascending; those of all tasks for None."""
    if task is None:
        return np.arange(meta.total_episodes)
    names = tasks_of(meta.tasks)
    if task not in names:
        listed = [f"{number} '{_shortened(name)}'" for number, name in sorted(names.items())]
        some = ", ".join([*listed[:5], "..."] if len(listed) > 5 else listed)
        raise DataError(f"data.train: {root} has no task {task}; its tasks are {some}")
    if "tasks" in meta.episodes.column_names:
        found = [episode for episode, tasks in enumerate(meta.episodes["tasks"]) if names[task] in tasks]
    else:  # as of lerobot/libero: frames alone say what they are of
        found = [episode for episode, tasks in tasks_of_frames(root).items() if task in tasks]
    if not found:
        raise DataError(f"data.train: {root} has no episode of task {task}, '{_shortened(names[task])}'")
    return np.asarray(found, dtype=np.int64)


def instructions_of(
    meta: LeRobotDatasetMetadata, task_index: NDArray[np.int64], root: Path
) -> tuple[tuple[str, ...], NDArray[np.int64]]:
    """The instructions of the rows' tasks (N,), each once; and which of them each row has (N,)."""
    names = tasks_of(meta.tasks)
    tasks, of_row = np.unique(task_index, return_inverse=True)
    unknown = [int(task) for task in tasks if int(task) not in names]
    if unknown:
        raise DataError(
            f"{root}: frames are of task {unknown[0]}, which meta/tasks.parquet does not list; fetch the dataset again"
        )
    distinct = sorted({names[int(task)] for task in tasks})
    places = np.array([distinct.index(names[int(task)]) for task in tasks], dtype=np.int64)
    return tuple(distinct), places[of_row]


def privileged(source: DatasetSource) -> tuple[str, ...]:
    """Columns that are read besides what a policy sees: object poses, and for objects in pictures the cameras'."""
    if source.task_info is None:
        return ()
    return (TASK_INFO, CAM_REL_POSES) if source.task_info.objects else (TASK_INFO,)


def read_columns(
    meta: LeRobotDatasetMetadata, root: Path, recorded: NDArray[np.int64], extra: tuple[str, ...]
) -> pa.Table:
    """The columns that are held in memory, of the recorded episodes."""
    whole = len(recorded) == meta.total_episodes
    tables = []
    for file in sorted((root / "data").rglob("*.parquet")) if whole else _files_of(meta, root, recorded):
        present = set(pq.read_schema(file).names)
        wanted = [STATE, ACTION, "episode_index", "task_index", *extra, *({TIMESTAMP} & present)]
        lacking = [column for column in wanted if column not in present]
        if lacking:
            raise DataError(f"{file}: has no column '{lacking[0]}'; convert the dataset again")
        try:
            tables.append(pq.read_table(file, columns=wanted))
        except (OSError, pa.ArrowException, KeyError) as error:
            raise DataError(f"{file}: cannot be read: {first_line(error).rstrip('.')}; fetch the file again") from None
        if not whole:
            tables[-1] = tables[-1].filter(np.isin(tables[-1]["episode_index"].to_numpy(), recorded))
    try:
        table = pa.concat_tables(tables).combine_chunks()
    except pa.ArrowException:
        raise DataError(
            f"{root / 'data'}: its files hold the same column with different types; convert the dataset again"
        ) from None
    promised = meta.total_frames if whole else int(np.sum(np.asarray(meta.episodes["length"])[recorded]))
    if len(table) != promised:
        where = "info.json" if whole else "meta/episodes"
        raise DataError(
            f"{root}: {where} promises {promised} frames, data/ holds {len(table)}; "
            "fetch the dataset again, or set 'task' beside its root where only one task was fetched"
        )
    return table


def _files_of(meta: LeRobotDatasetMetadata, root: Path, recorded: NDArray[np.int64]) -> list[Path]:
    files = [root / path for path in sorted({meta.get_data_file_path(int(episode)) for episode in recorded})]
    for file in files:
        if not file.is_file():
            raise DataError(f"{file}: is missing; fetch the file")
        _refuse_damaged(file)
    return files


def matrix(table: pa.Table, key: str, root: Path) -> NDArray[np.float32]:
    """A column as (N, D); a column of single numbers as (N, 1).

    Raises:
        DataError: there are no rows, or they are empty, of different widths or no numbers.
    """
    column = table[key].combine_chunks()
    if column.null_count:
        raise DataError(f"{root}: '{key}' has {column.null_count} empty rows; remove those episodes")
    width, values = 1, column
    if pa.types.is_nested(column.type) and hasattr(column, "value_lengths"):
        # rows of 5 and 7 numbers are as many as two of 6: each row's own length counts
        widths = np.unique(np.asarray(column.value_lengths().to_numpy(zero_copy_only=False)))
        if len(widths) != 1:
            raise DataError(f"{root}: '{key}' does not have the same width in every row; convert the dataset again")
        width, values = int(widths[0]), column.flatten()
    if not (pa.types.is_floating(values.type) or pa.types.is_integer(values.type) or pa.types.is_boolean(values.type)):
        raise DataError(f"{root}: '{key}' holds {column.type}, not a row of numbers a frame; convert the dataset again")
    return values.to_numpy(zero_copy_only=False).astype(np.float32).reshape(-1, width)


def boundaries(
    number: NDArray[np.int64], recorded: NDArray[np.int64], root: Path
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """First row and length of each episode, of the rows' recorded numbers (N,)."""
    if np.any(np.diff(number) < 0) or not np.isin(number, recorded).all():
        raise DataError(f"{root}: episode_index is not ascending from 0 to {recorded[-1]}; convert the dataset again")
    lengths = np.bincount(np.searchsorted(recorded, number), minlength=len(recorded)).astype(np.int64)
    if np.any(lengths == 0):
        raise DataError(f"{root}: episode {recorded[np.argmin(lengths)]} has no frames; remove it from the dataset")
    return np.cumsum(lengths) - lengths, lengths


def refuse_non_finite(
    rows: NDArray[np.float32], key: str, episode: NDArray[np.int64], frame: NDArray[np.int64], root: Path
) -> None:
    """Refuse (N, D) that hold NaN or infinity, with the first one's episode and frame.

    Raises:
        DataError: there is one.
    """
    bad = np.argwhere(~np.isfinite(rows))
    if len(bad):
        row, dim = bad[0]
        raise DataError(
            f"{root}: '{key}' dim {dim} is {rows[row, dim]} at episode {episode[row]}, frame {frame[row]} "
            f"({len(bad)} such values); repair or remove those episodes"
        )


def _refuse_malformed_features(features: Mapping[str, Any], root: Path) -> None:
    for key, feature in features.items():
        pictures = feature.get("dtype") in ("image", "video")
        if "dtype" not in feature or (pictures and len(feature.get("shape") or ()) != 3):
            wanted = "a 'dtype', and a 'shape' of height, width and channels" if pictures else "a 'dtype'"
            raise DataError(f"{root / 'meta/info.json'}: the feature '{key}' needs {wanted}; fetch the file again")


def _refuse_damaged(file: Path) -> None:
    try:
        pq.read_metadata(file)
    except (OSError, pa.ArrowException) as error:
        raise DataError(f"{file}: cannot be read: {first_line(error).rstrip('.')}; fetch the file again") from None


def _shortened(text: str) -> str:
    return text if len(text) <= 40 else f"{text[:37]}..."
