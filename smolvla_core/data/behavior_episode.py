"""Import of one episode: checks, its columns, its videos, its statistics. T frames, D dims."""

import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from smolvla_core.data.annotations import read_annotation
from smolvla_core.data.behavior_source import Source
from smolvla_core.data.video_files import VideoFacts, frames_at, inspect_video
from smolvla_core.errors import DataError

FILES_PER_CHUNK = 1000
DATA_PATH = "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet"
VIDEO_PATH = "videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4"
ANNOTATION_PATH = "annotations/episode_{episode_index:06d}.json"

CLOCK_TOLERANCE_S = 1e-3
PICTURE_TOLERANCE_S = 1e-4
"""lerobot's own tolerance between a frame's time stamp and its picture's."""
SAMPLED_PICTURES = 8
"""Pictures decoded of each video: for the statistics, and to see that it decodes."""
QUANTILES = {"q01": 0.01, "q10": 0.10, "q50": 0.50, "q90": 0.90, "q99": 0.99}


@dataclass(frozen=True)
class Assignment:
    """An episode's place in the new dataset."""

    number: int
    """Original number."""
    episode: int
    """New number; one data file and one video a camera, of the same number, are its own."""
    first_row: int
    """Its first frame's ``index`` in the new dataset."""
    length: int


def import_episode(source: Source, target: Path, assignment: Assignment) -> dict[str, Any]:
    """Write an episode's files into ``target``; each appears whole or not at all.

    Returns:
        The episode's record: its row of ``meta/episodes``, its statistics, its videos' facts. All
        of it is JSON.

    Raises:
        DataError: a file that is damaged or contradicts another.
    """
    columns = _read_columns(source, assignment)
    chunk, file = divmod(assignment.episode, FILES_PER_CHUNK)
    place = {"chunk_index": chunk, "file_index": file}
    stats = {key: _statistics(values) for key, values in columns.items()}
    row: dict[str, Any] = {
        "episode_index": assignment.episode,
        "tasks": [source.instruction],
        "length": assignment.length,
        "dataset_from_index": assignment.first_row,
        "dataset_to_index": assignment.first_row + assignment.length,
        "data/chunk_index": chunk,
        "data/file_index": file,
    }
    videos = {}
    for key in source.video_keys:
        path = source.video_file(assignment.number, key)
        facts = _check_video(path, assignment, source.fps)
        stats[key] = _picture_statistics(path, facts)
        start = float(facts.seconds[0])
        row[f"videos/{key}/chunk_index"], row[f"videos/{key}/file_index"] = chunk, file
        row[f"videos/{key}/from_timestamp"] = start
        row[f"videos/{key}/to_timestamp"] = start + assignment.length / source.fps
        videos[key] = {
            "height": facts.height,
            "width": facts.width,
            "codec": facts.codec,
            "pix_fmt": facts.pix_fmt,
        }
        _copy(path, target / VIDEO_PATH.format(video_key=key, **place))
    annotation = _copy_annotation(source, target, assignment)
    _write_parquet(target / DATA_PATH.format(**place), columns)
    return {
        "number": assignment.number,
        "row": row,
        "stats": {key: {name: v.tolist() for name, v in values.items()} for key, values in stats.items()},
        "videos": videos,
        "annotation": annotation,
        "widths": {key: columns[key].shape[1] for key in source.columns},
    }


def _read_columns(source: Source, assignment: Assignment) -> dict[str, NDArray[Any]]:
    path = source.data_file(assignment.number)
    wanted = [*source.columns, "timestamp", "episode_index"]
    try:
        schema = pq.read_schema(path)
        absent = [key for key in wanted if key not in schema.names]
        if absent:
            raise DataError(f"{path}: has no column '{absent[0]}'; is it BEHAVIOR's 2025 release?")
        table = pq.read_table(path, columns=wanted)
    except (OSError, pa.ArrowException):
        raise DataError(f"{path}: damaged or cut off; download it again") from None
    if table.num_rows != assignment.length:
        raise DataError(f"{path}: has {table.num_rows} rows, its footer says {assignment.length}; download it again")
    numbers = table["episode_index"].to_numpy()
    if np.any(numbers != assignment.number):
        raise DataError(f"{path}: episode_index is {numbers[0]}, its name says {assignment.number}; download it again")
    _check_clock(path, table["timestamp"].to_numpy().astype(np.float64), source.fps)
    columns = {}
    for key in source.columns:
        declared = (source.info["features"][key].get("shape") or [None])[0]
        columns[key] = _vectors(path, table[key], key, declared)
    frames = np.arange(assignment.length, dtype=np.int64)
    return columns | {
        "timestamp": (frames / source.fps).astype(np.float32),
        "frame_index": frames,
        "episode_index": np.full(assignment.length, assignment.episode, dtype=np.int64),
        "index": frames + assignment.first_row,
        "task_index": np.zeros(assignment.length, dtype=np.int64),
    }


def _vectors(path: Path, column: pa.ChunkedArray, key: str, declared: int | None) -> NDArray[np.float32]:
    """A list column as (T, D) float32; ``declared`` None takes the first row's width for all."""
    lists = column.combine_chunks()
    if lists.null_count:
        raise DataError(f"{path}: '{key}' has {lists.null_count} empty rows; leave the episode out with --exclude")
    widths = np.asarray(lists.value_lengths().to_numpy(zero_copy_only=False))
    expected = int(widths[0]) if declared is None else declared
    wrong = np.flatnonzero(widths != expected)
    if len(wrong):
        raise DataError(f"{path}: '{key}' has {widths[wrong[0]]} dims at frame {wrong[0]}; it must have {expected}")
    values = lists.flatten().to_numpy(zero_copy_only=False).astype(np.float32).reshape(len(widths), expected)
    bad = np.argwhere(~np.isfinite(values))
    if len(bad):
        frame, dim = bad[0]
        raise DataError(
            f"{path}: '{key}' dim {dim} is {values[frame, dim]} at frame {frame} ({len(bad)} such values); "
            "leave the episode out with --exclude"
        )
    return np.asarray(values)


def _check_clock(path: Path, seconds: NDArray[np.float64], fps: int) -> None:
    wrong = np.flatnonzero(~(np.abs(seconds - np.arange(len(seconds)) / fps) < CLOCK_TOLERANCE_S))
    if len(wrong):
        frame = int(wrong[0])
        raise DataError(
            f"{path}: timestamp is {seconds[frame]:.4f} s at frame {frame}, {frame / fps:.4f} s at {fps} Hz; "
            "leave the episode out with --exclude"
        )


def _check_video(path: Path, assignment: Assignment, fps: int) -> VideoFacts:
    facts = inspect_video(path)
    if facts.frames != assignment.length:
        raise DataError(
            f"{path}: has {facts.frames} pictures, the episode {assignment.length} frames; download the video again, "
            f"or leave it out with --exclude {assignment.number}"
        )
    drift = np.abs(facts.seconds - facts.seconds[0] - np.arange(facts.frames) / fps)
    if drift.max() >= PICTURE_TOLERANCE_S:
        frame = int(np.argmax(drift >= PICTURE_TOLERANCE_S))
        raise DataError(
            f"{path}: picture {frame} stands at {facts.seconds[frame]:.4f} s, not on the {fps} Hz grid; "
            f"leave the episode out with --exclude {assignment.number}"
        )
    return facts


def _statistics(values: NDArray[Any]) -> dict[str, NDArray[Any]]:
    """Statistics of a column (T,) or (T, D), as lerobot stores them: (1,) or (D,)."""
    rows = values.reshape(len(values), -1).astype(np.float64)
    quantiles = np.quantile(rows, list(QUANTILES.values()), axis=0)
    return {
        "min": rows.min(0),
        "max": rows.max(0),
        "mean": rows.mean(0),
        "std": rows.std(0),
        "count": np.array([len(rows)]),
        **dict(zip(QUANTILES, quantiles, strict=True)),
    }


def _picture_statistics(path: Path, facts: VideoFacts) -> dict[str, NDArray[Any]]:
    """Statistics of a few pictures in [0, 1], each (3, 1, 1), ``count`` in pictures."""
    chosen = np.unique(np.linspace(0, facts.frames - 1, SAMPLED_PICTURES).round().astype(int))
    pictures = frames_at(path, facts.seconds[chosen].tolist(), PICTURE_TOLERANCE_S)
    step = max(1, min(facts.height, facts.width) // 150)
    pixels = np.concatenate([picture[::step, ::step].reshape(-1, 3) for picture in pictures]) / 255.0
    stats = {name: v.reshape(3, 1, 1) for name, v in _statistics(pixels).items() if name != "count"}
    return stats | {"count": np.array([len(pictures)])}


def _copy_annotation(source: Source, target: Path, assignment: Assignment) -> str | None:
    path = source.annotation_file(assignment.number)
    if not path.is_file():
        return None
    read_annotation(path, assignment.length)
    name = ANNOTATION_PATH.format(episode_index=assignment.episode)
    _copy(path, target / name)
    return name


def _copy(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(f".{target.name}.part")
    shutil.copyfile(source, part)
    os.replace(part, target)


def _write_parquet(path: Path, columns: Mapping[str, NDArray[Any]]) -> None:
    arrays = {}
    for key, values in columns.items():
        flat = pa.array(values.reshape(-1))
        arrays[key] = flat if values.ndim == 1 else pa.FixedSizeListArray.from_arrays(flat, values.shape[1])
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.part")
    pq.write_table(pa.table(arrays), part)
    os.replace(part, path)


def write_json(path: Path, value: Any) -> None:
    """Write JSON so that the file appears whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.part")
    part.write_text(json.dumps(value, indent=4), encoding="utf-8")
    os.replace(part, path)
