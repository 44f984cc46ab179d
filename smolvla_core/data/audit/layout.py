"""Where a dataset's videos, instructions and annotations are, by its version's metadata. E episodes."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from smolvla_core.data.inside import NUMBERS_V3, PICTURES_NEED, check_template, check_video_key
from smolvla_core.data.keys import picture_size
from smolvla_core.data.tasks import tasks_of, tasks_of_frames
from smolvla_core.data.wording import unreadable
from smolvla_core.errors import DataError

NOT_DOWNLOADED = ("observation.images.depth.", "observation.images.seg_")
"""Cameras of BEHAVIOR's raw layout that most people leave out."""


@dataclass(frozen=True)
class Clip:
    """Where one episode's pictures of one camera are."""

    path: Path
    start_s: float


@dataclass(frozen=True)
class EpisodeFiles:
    """What belongs to the episodes of a dataset beside its numbers."""

    raw: bool
    """Whether it is BEHAVIOR's raw layout, which lists far more than is on disk."""
    instructions: tuple[str, ...]
    """(E,)."""
    listed: Mapping[int, int]
    """Length of each episode that the metadata lists, by its number."""
    promised: tuple[int, int] | None
    """Episodes and frames by ``info.json``, where it says."""
    clips: Mapping[str, tuple[Clip, ...]]
    """Of each camera stored as video, (E,) clips."""
    sizes: Mapping[str, tuple[int, int]]
    """Declared (height, width) of each camera stored as video."""
    image_keys: tuple[str, ...]
    """Cameras stored as single images inside the parquet files."""
    annotations: Mapping[int, Path]
    """Annotation files of the raw layout, by the episode's number."""


def files_of(root: Path, info: Mapping[str, Any], numbers: Sequence[int]) -> EpisodeFiles:
    """Find what belongs to the episodes ``numbers``.

    Raises:
        DataError: metadata that is missing or damaged, or a path that leaves the dataset.
    """
    features = info["features"]
    wanted = [int(number) for number in numbers]
    videos = [check_video_key(key) for key, feature in features.items() if feature.get("dtype") == "video"]
    raw = not str(info["codebase_version"]).startswith("v3") and "total_chunks" not in info
    if str(info["codebase_version"]).startswith("v3"):
        rows = _rows_v3(root, wanted)
        clips = {key: tuple(_clip_v3(root, info, key, rows[number]) for number in wanted) for key in videos}
    else:
        rows = _rows_v21(root)
        clips = _clips_v21(root, info, videos, wanted, raw)
    episodes, frames = info.get("total_episodes"), info.get("total_frames")
    promised = (episodes, frames) if isinstance(episodes, int) and isinstance(frames, int) and not raw else None
    sizes = {key: picture_size(features[key]) for key in clips}
    return EpisodeFiles(
        raw=raw,
        instructions=tuple(_joined(rows.get(number, {}).get("tasks")) for number in wanted),
        listed={number: int(row["length"]) for number, row in rows.items() if "length" in row},
        promised=promised,
        clips=clips,
        sizes=sizes,
        image_keys=tuple(key for key, feature in features.items() if feature.get("dtype") == "image"),
        annotations=_annotations(root, info, wanted) if raw else {},
    )


def _rows_v3(root: Path, numbers: Sequence[int]) -> dict[int, dict[str, Any]]:
    folder = root / "meta" / "episodes"
    files = sorted(folder.rglob("*.parquet"))
    if not files:
        raise DataError(f"{folder}: missing; download the meta folder too")
    tables = []
    for file in files:
        try:
            light = [name for name in pq.read_schema(file).names if not name.startswith("stats/")]
            tables.append(pd.read_parquet(file, columns=light))
        except (OSError, pa.ArrowException, ValueError) as error:
            raise unreadable(file, error) from None
    rows = {int(row["episode_index"]): row for row in pd.concat(tables).to_dict("records")}
    if not any("tasks" in table for table in tables):
        _tell_by_frames(root, rows)
    absent = [number for number in numbers if number not in rows]
    if absent:
        raise DataError(f"{folder}: does not list episode {absent[0]}, which has frames; download it again")
    return rows


def _tell_by_frames(root: Path, rows: dict[int, dict[str, Any]]) -> None:
    """Add the tasks of each episode where its frames alone say them, as in lerobot/libero."""
    file = root / "meta" / "tasks.parquet"
    try:
        names = tasks_of(pd.read_parquet(file))
    except (OSError, pa.ArrowException, ValueError) as error:
        raise unreadable(file, error) from None
    for episode, tasks in tasks_of_frames(root).items():
        if episode in rows:
            rows[episode]["tasks"] = [names[task] for task in tasks if task in names]


def _rows_v21(root: Path) -> dict[int, dict[str, Any]]:
    """Lines of episodes.jsonl by episode; none where it is missing."""
    path = root / "meta" / "episodes.jsonl"
    rows: dict[int, dict[str, Any]] = {}
    if not path.is_file():
        return rows
    number = 0
    try:
        for line in path.read_text(encoding="utf-8").splitlines():
            number += 1
            if line.strip():
                row = json.loads(line)
                rows[int(row["episode_index"])] = row | {"length": int(row["length"])}
    except OSError as error:
        raise unreadable(path, error) from None
    except UnicodeDecodeError:
        raise DataError(f"{path}: is no text in UTF-8; download the file again") from None
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError):
        raise DataError(f"{path}: line {number} is damaged; download the file again") from None
    return rows


def _clip_v3(root: Path, info: Mapping[str, Any], key: str, row: Mapping[str, Any]) -> Clip:
    template = check_template("video_path", info.get("video_path"), frozenset({"video_key"}), NUMBERS_V3)
    place = {name: int(row[f"videos/{key}/{name}"]) for name in NUMBERS_V3}
    return Clip(root / template.format(video_key=key, **place), float(row[f"videos/{key}/from_timestamp"]))


def _clips_v21(
    root: Path, info: Mapping[str, Any], keys: Sequence[str], numbers: Sequence[int], raw: bool
) -> dict[str, tuple[Clip, ...]]:
    if not keys:
        return {}
    template = check_template("video_path", info.get("video_path"), PICTURES_NEED)
    size = int(info.get("chunks_size") or 1000)
    clips = {}
    for key in keys:
        names = [template.format(episode_chunk=n // size, episode_index=n, video_key=key) for n in numbers]
        found = tuple(Clip(root / name, 0.0) for name in names)
        downloaded = any(clip.path.parent.is_dir() for clip in found)
        if downloaded or not (raw and key.startswith(NOT_DOWNLOADED)):
            clips[key] = found
    return clips


def _annotations(root: Path, info: Mapping[str, Any], numbers: Sequence[int]) -> dict[int, Path]:
    if "annotation_path" not in info:
        return {}
    template = check_template("annotation_path", info["annotation_path"])
    size = int(info.get("chunks_size") or 1000)
    paths = {n: root / template.format(episode_chunk=n // size, episode_index=n, video_key="") for n in numbers}
    return {number: path for number, path in paths.items() if path.is_file()}


def _joined(tasks: Any) -> str:
    if isinstance(tasks, str):
        return tasks
    return "; ".join(str(task) for task in tasks) if isinstance(tasks, Iterable) else ""
