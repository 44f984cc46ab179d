"""Metadata of an imported dataset, LeRobot v3.0: written last, ``info.json`` at the very end."""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from smolvla_core.data.annotations import EPISODE_MAP
from smolvla_core.data.behavior.episode import (
    ANNOTATION_PATH,
    DATA_PATH,
    FILES_PER_CHUNK,
    VIDEO_PATH,
    Checked,
    Place,
    index_columns,
)
from smolvla_core.data.behavior.layout import is_depth
from smolvla_core.data.behavior.source import Source
from smolvla_core.data.behavior.stats import aggregate, column_stats
from smolvla_core.data.behavior.target import placed, write_json
from smolvla_core.data.inside import INFO_FILE
from smolvla_core.errors import DataError

TASKS_FILE = "meta/tasks.parquet"
EPISODES_FILE = "meta/episodes/chunk-000/file-000.parquet"
STATS_FILE = "meta/stats.json"


def assign(episodes: Sequence[Checked]) -> list[Place]:
    """Places in the new dataset: numbers from 0, rows one after another."""
    places, row = [], 0
    for number, checked in enumerate(episodes):
        places.append(Place(number, row))
        row += checked.length
    return places


def refuse_unlike(episodes: Sequence[Checked]) -> None:
    """Refuse episodes that do not fit into one dataset.

    Raises:
        DataError: widths, picture sizes or codecs differ.
    """
    first = episodes[0]
    for checked in episodes:
        for key, width in checked.widths.items():
            if width != first.widths[key]:
                raise DataError(_differs(checked, first, key, width, first.widths[key]))
        for key in checked.videos:
            kinds = [{k: v for k, v in c.videos[key].items() if k != "start_s"} for c in (checked, first)]
            if kinds[0] != kinds[1]:
                raise DataError(_differs(checked, first, key, *(_spoken(kind) for kind in kinds)))


def _differs(checked: Checked, first: Checked, key: str, own: object, other: object) -> str:
    return (
        f"episode {checked.number}: '{key}' is {own}, in episode {first.number} it is {other}; "
        "leave one of them out with --exclude"
    )


def _spoken(kind: dict[str, Any]) -> str:
    return f"{kind['height']}×{kind['width']} {kind['codec']} {kind['pix_fmt']}"


def write_metadata(source: Source, target: Path, episodes: Sequence[Checked]) -> None:
    """Write everything under ``meta``.

    Args:
        source: where the episodes came from.
        target: the new dataset.
        episodes: in the order of their new numbers.
    """
    places = assign(episodes)
    stats = [
        {**checked.stats, **{k: column_stats(v) for k, v in index_columns(place, checked.length, source.fps).items()}}
        for checked, place in zip(episodes, places, strict=True)
    ]
    with placed(target, TASKS_FILE) as part:
        index = pd.Index([source.task.instruction], name="task")
        pd.DataFrame({"task_index": [0]}, index=index).to_parquet(part)
    rows = list(_rows(source, episodes, places, stats))
    with placed(target, EPISODES_FILE) as part:
        pq.write_table(pa.Table.from_pydict({key: [row[key] for row in rows] for key in rows[0]}), part)
    write_json(target, STATS_FILE, aggregate(stats))
    with placed(target, EPISODE_MAP) as part:
        lines = (json.dumps(_origin(source, *pair)) + "\n" for pair in zip(episodes, places, strict=True))
        part.write_text("".join(lines), encoding="utf-8")
    write_json(target, INFO_FILE, _info(source, episodes))


def _rows(
    source: Source, episodes: Sequence[Checked], places: Sequence[Place], stats: Sequence[dict[str, Any]]
) -> Iterator[dict[str, Any]]:
    for checked, place, own in zip(episodes, places, stats, strict=True):
        row: dict[str, Any] = {
            "episode_index": place.episode,
            "tasks": [source.task.instruction],
            "length": checked.length,
            "dataset_from_index": place.first_row,
            "dataset_to_index": place.first_row + checked.length,
            **{f"data/{name}": number for name, number in place.file.items()},
        }
        for key, facts in checked.videos.items():
            row |= {f"videos/{key}/{name}": number for name, number in place.file.items()}
            row[f"videos/{key}/from_timestamp"] = facts["start_s"]
            row[f"videos/{key}/to_timestamp"] = facts["start_s"] + checked.length / source.fps
        for key, values in own.items():
            row |= {f"stats/{key}/{name}": value for name, value in values.items()}
        yield row | {"meta/episodes/chunk_index": 0, "meta/episodes/file_index": 0}


def _origin(source: Source, checked: Checked, place: Place) -> dict[str, Any]:
    original = source.annotation_file(checked.number).relative_to(source.root).as_posix()
    copied = ANNOTATION_PATH.format(episode_index=place.episode)
    return {
        "episode_index": place.episode,
        "source_episode": checked.number,
        "source_task": source.task.number,
        "length": checked.length,
        "annotation": copied if checked.annotated else None,
        "source_annotation": original if checked.annotated else None,
    }


def _info(source: Source, episodes: Sequence[Checked]) -> dict[str, Any]:
    robot = source.info.get("robot_type")
    return {
        "codebase_version": "v3.0",
        "robot_type": str(robot) if robot is not None else None,
        "total_episodes": len(episodes),
        "total_frames": sum(checked.length for checked in episodes),
        "total_tasks": 1,
        "chunks_size": FILES_PER_CHUNK,
        "data_files_size_in_mb": 100,
        "video_files_size_in_mb": 200,
        "fps": source.fps,
        "splits": {"train": f"0:{len(episodes)}"},
        "data_path": DATA_PATH,
        "video_path": VIDEO_PATH,
        "features": _features(source, episodes[0]),
    }


def _features(source: Source, first: Checked) -> dict[str, Any]:
    features: dict[str, Any] = {}
    for key, facts in first.videos.items():
        channels = 1 if is_depth(key) else 3
        info = {
            "video.height": facts["height"],
            "video.width": facts["width"],
            "video.codec": facts["codec"],
            "video.pix_fmt": facts["pix_fmt"],
            "video.fps": source.fps,
            "video.channels": channels,
            "has_audio": False,
            "is_depth_map": is_depth(key),
        }
        size = [facts["height"], facts["width"], channels]
        features[key] = {"dtype": "video", "shape": size, "names": ["height", "width", "channels"], "info": info}
    for key, width in first.widths.items():
        features[key] = {"dtype": "float32", "shape": [width], "names": None}
    for key, values in index_columns(Place(0, 0), 1, source.fps).items():
        features[key] = {"dtype": str(values.dtype), "shape": [1], "names": None}
    return features
