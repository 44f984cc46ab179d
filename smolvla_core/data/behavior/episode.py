"""One episode of a download: checked in full before anything is written, then written. T frames, D dims."""

import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from smolvla_core.data.annotations import read_annotation
from smolvla_core.data.behavior.info import width_of
from smolvla_core.data.behavior.layout import is_depth
from smolvla_core.data.behavior.source import Source
from smolvla_core.data.behavior.stats import column_stats, picture_stats
from smolvla_core.data.behavior.target import placed
from smolvla_core.data.video_files import VideoFacts, frames_at, inspect_video
from smolvla_core.data.wording import unreadable
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


@dataclass(frozen=True)
class Checked:
    """What is known of a good episode. All of it is JSON."""

    number: int
    """Original number."""
    length: int
    """Frames."""
    annotated: bool
    widths: Mapping[str, int]
    """Dims of each vector column."""
    videos: Mapping[str, Mapping[str, Any]]
    """Of each camera: height, width, codec, pix_fmt, and ``start_s``, its first picture's time."""
    stats: Mapping[str, Mapping[str, Any]]
    """Statistics of the vector columns and of the cameras but depth."""


@dataclass(frozen=True)
class Place:
    """An episode's place in the new dataset."""

    episode: int
    """New number; one data file and one video a camera, of the same number, are its own."""
    first_row: int
    """Its first frame's ``index``."""

    @property
    def file(self) -> dict[str, int]:
        """Numbers of the episode's files."""
        chunk, file = divmod(self.episode, FILES_PER_CHUNK)
        return {"chunk_index": chunk, "file_index": file}


def check_episode(source: Source, number: int) -> Checked:
    """Read an episode whole: its columns, every packet of its videos, a few pictures, its annotation.

    Raises:
        DataError: a file that is damaged or contradicts another.
    """
    columns = read_columns(source, number)
    length = len(next(iter(columns.values())))
    stats = {key: column_stats(values) for key, values in columns.items()}
    videos = {}
    for key in source.video_keys:
        path = source.video_file(number, key)
        facts = _check_video(path, length, source.fps)
        chosen = np.unique(np.linspace(0, length - 1, SAMPLED_PICTURES).round().astype(int))
        pictures = frames_at(path, facts.seconds[chosen].tolist(), PICTURE_TOLERANCE_S)
        if not is_depth(key):
            stats[key] = picture_stats(pictures)
        videos[key] = {
            "height": facts.height,
            "width": facts.width,
            "codec": facts.codec,
            "pix_fmt": facts.pix_fmt,
            "start_s": float(facts.seconds[0]),
        }
    annotation = source.annotation_file(number)
    if annotation.is_file():
        read_annotation(annotation, length)
    widths = {key: values.shape[1] for key, values in columns.items()}
    return Checked(number, length, annotation.is_file(), widths, videos, stats)


def try_episode(source: Source, number: int) -> dict[str, Any] | str:
    """`check_episode` for a worker: what is known as JSON, or what is wrong in words."""
    try:
        return asdict(check_episode(source, number))
    except DataError as error:
        return str(error)


def write_episode(source: Source, target: Path, checked: Checked, place: Place) -> None:
    """Write an episode's files into ``target``; each appears whole or not at all."""
    columns = read_columns(source, checked.number) | index_columns(place, checked.length, source.fps)
    with placed(target, DATA_PATH.format(**place.file)) as part:
        _write_parquet(part, columns)
    for key in source.video_keys:
        with placed(target, VIDEO_PATH.format(video_key=key, **place.file)) as part:
            shutil.copyfile(source.video_file(checked.number, key), part)
    if checked.annotated:
        with placed(target, ANNOTATION_PATH.format(episode_index=place.episode)) as part:
            shutil.copyfile(source.annotation_file(checked.number), part)


def index_columns(place: Place, length: int, fps: int) -> dict[str, NDArray[Any]]:
    """The columns that follow from an episode's place, (T,) each."""
    frames = np.arange(length, dtype=np.int64)
    return {
        "timestamp": (frames / fps).astype(np.float32),
        "frame_index": frames,
        "episode_index": np.full(length, place.episode, dtype=np.int64),
        "index": frames + place.first_row,
        "task_index": np.zeros(length, dtype=np.int64),
    }


def read_columns(source: Source, number: int) -> dict[str, NDArray[np.float32]]:
    """The vector columns of an episode, (T, D) each.

    Raises:
        DataError: the file is damaged, or a column is missing, empty, of another width or not finite.
    """
    path = source.data_file(number)
    wanted = [*source.columns, "timestamp", "episode_index"]
    try:
        absent = set(wanted) - set(pq.read_schema(path).names)
        if absent:
            raise DataError(f"{path}: has no column '{min(absent)}'; download it again")
        table = pq.read_table(path, columns=wanted, page_checksum_verification=True)
    except (OSError, pa.ArrowException) as error:
        raise unreadable(path, error) from None
    if table.num_rows == 0:
        raise DataError(f"{path}: has no frames; download it again")
    numbers = _scalars(path, table, "episode_index")
    if np.any(numbers != number):
        raise DataError(f"{path}: episode_index is {numbers[0]:g}, its name says {number}; download it again")
    _check_clock(path, _scalars(path, table, "timestamp"), source.fps)
    return {key: _vectors(path, table[key], key, width_of(source.info["features"][key])) for key in source.columns}


def _scalars(path: Path, table: pa.Table, key: str) -> NDArray[np.float64]:
    kind = table.schema.field(key).type
    if not (pa.types.is_integer(kind) or pa.types.is_floating(kind)):
        raise DataError(f"{path}: '{key}' holds {kind}, not numbers; download it again")
    return np.asarray(table[key].to_numpy().astype(np.float64))


def _vectors(path: Path, column: pa.ChunkedArray, key: str, declared: int | None) -> NDArray[np.float32]:
    """A list column as (T, D) float32; ``declared`` None takes the first row's width for all."""
    is_list = (pa.types.is_list, pa.types.is_large_list, pa.types.is_fixed_size_list)
    if not any(check(column.type) for check in is_list) or not pa.types.is_floating(column.type.value_type):
        raise DataError(f"{path}: '{key}' holds {column.type}, not lists of numbers; download it again")
    lists = column.combine_chunks()
    if lists.null_count:
        raise DataError(f"{path}: '{key}' has {lists.null_count} empty rows; download it again")
    widths = np.asarray(lists.value_lengths().to_numpy(zero_copy_only=False))
    expected = int(widths[0]) if declared is None else declared
    wrong = np.flatnonzero(widths != expected)
    if len(wrong):
        raise DataError(
            f"{path}: '{key}' has {widths[wrong[0]]} dims at frame {wrong[0]}, not {expected}; download it again"
        )
    with np.errstate(over="ignore"):
        values = lists.flatten().to_numpy(zero_copy_only=False).astype(np.float32).reshape(len(widths), expected)
    bad = np.argwhere(~np.isfinite(values))
    if len(bad):
        frame, dim = bad[0]
        count = f" ({len(bad)} such values)" if len(bad) > 1 else ""
        raise DataError(f"{path}: '{key}' dim {dim} is {values[frame, dim]} at frame {frame}{count}; repair it")
    return np.asarray(values)


def _check_clock(path: Path, seconds: NDArray[np.float64], fps: int) -> None:
    wrong = np.flatnonzero(~(np.abs(seconds - np.arange(len(seconds)) / fps) < CLOCK_TOLERANCE_S))
    if len(wrong):
        frame = int(wrong[0])
        raise DataError(
            f"{path}: timestamp is {seconds[frame]:.4f} s at frame {frame}, not {frame / fps:.4f} s as at {fps} Hz; "
            "repair it"
        )


def _check_video(path: Path, length: int, fps: int) -> VideoFacts:
    facts = inspect_video(path)
    if facts.frames != length:
        raise DataError(f"{path}: has {facts.frames} pictures, its episode {length} frames; download it again")
    drift = np.abs(facts.seconds - facts.seconds[0] - np.arange(length) / fps)
    if drift.max() >= PICTURE_TOLERANCE_S:
        frame = int(np.argmax(drift >= PICTURE_TOLERANCE_S))
        raise DataError(
            f"{path}: picture {frame} stands at {facts.seconds[frame]:.4f} s, not on the {fps} Hz grid; "
            "download it again"
        )
    return facts


def _write_parquet(path: Path, columns: Mapping[str, NDArray[Any]]) -> None:
    arrays = {}
    for key, values in columns.items():
        flat = pa.array(values.reshape(-1))
        arrays[key] = flat if values.ndim == 1 else pa.FixedSizeListArray.from_arrays(flat, values.shape[1])
    pq.write_table(pa.table(arrays), path, write_page_checksum=True)
