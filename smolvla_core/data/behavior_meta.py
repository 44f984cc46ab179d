"""Metadata of an imported dataset, LeRobot v3.0: written last, ``info.json`` at the very end."""

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from smolvla_core.data.annotations import EPISODE_MAP
from smolvla_core.data.behavior_episode import DATA_PATH, FILES_PER_CHUNK, VIDEO_PATH, write_json
from smolvla_core.data.behavior_layout import INFO_FILE
from smolvla_core.data.behavior_source import Source
from smolvla_core.errors import DataError

Record = Mapping[str, Any]

TASKS_FILE = "meta/tasks.parquet"
EPISODES_FILE = "meta/episodes/chunk-000/file-000.parquet"
STATS_FILE = "meta/stats.json"
DEPTH = "observation.images.depth."


def write_metadata(source: Source, target: Path, records: Sequence[Record]) -> None:
    """Write everything under ``meta``.

    Args:
        source: where the episodes came from.
        target: the new dataset.
        records: what `import_episode` returned, in the order of the new episode numbers.

    Raises:
        DataError: episodes that do not fit together (widths, picture sizes).
    """
    features = _features(source, records)
    (target / EPISODES_FILE).parent.mkdir(parents=True, exist_ok=True)
    tasks = pd.DataFrame({"task_index": [0]}, index=pd.Index([source.instruction], name="task"))
    tasks.to_parquet(target / TASKS_FILE)
    pq.write_table(_episode_table(records), target / EPISODES_FILE)
    write_json(target / STATS_FILE, aggregate([record["stats"] for record in records]))
    _write_map(source, target, records)
    total = len(records)
    info = {
        "codebase_version": "v3.0",
        "robot_type": source.info.get("robot_type"),
        "total_episodes": total,
        "total_frames": sum(record["row"]["length"] for record in records),
        "total_tasks": 1,
        "chunks_size": FILES_PER_CHUNK,
        "data_files_size_in_mb": 100,
        "video_files_size_in_mb": 200,
        "fps": source.fps,
        "splits": {"train": f"0:{total}"},
        "data_path": DATA_PATH,
        "video_path": VIDEO_PATH,
        "features": features,
    }
    write_json(target / INFO_FILE, info)


def aggregate(episodes: Sequence[Mapping[str, Mapping[str, Any]]]) -> dict[str, dict[str, Any]]:
    """Statistics of a dataset from its episodes', as ``lerobot.datasets.compute_stats`` does.

    Mean and deviation are exact; quantiles are the episodes' own, averaged by their counts.
    """
    total: dict[str, dict[str, Any]] = {}
    for key in episodes[0]:
        parts = {name: np.stack([np.asarray(e[key][name]) for e in episodes]) for name in episodes[0][key]}
        counts = parts.pop("count")
        weights = counts.reshape(-1, *[1] * (parts["mean"].ndim - 1)) / counts.sum()
        mean = (parts["mean"] * weights).sum(0)
        spread = parts["std"] ** 2 + (parts["mean"] - mean) ** 2
        values = {name: (part * weights).sum(0) for name, part in parts.items() if name.startswith("q")}
        values |= {"min": parts["min"].min(0), "max": parts["max"].max(0), "mean": mean}
        values |= {"std": np.sqrt((spread * weights).sum(0)), "count": counts.sum(0)}
        total[key] = {name: value.tolist() for name, value in values.items()}
    return total


def _features(source: Source, records: Sequence[Record]) -> dict[str, Any]:
    features: dict[str, Any] = {}
    first = records[0]
    for record in records:
        for part in ("videos", "widths"):
            for key, fact in record[part].items():
                if fact != first[part][key]:
                    raise DataError(
                        f"episode {record['number']}: '{key}' is {fact}, in episode {first['number']} "
                        f"{first[part][key]}; leave one of them out with --exclude"
                    )
    for key, facts in first["videos"].items():
        size = [facts["height"], facts["width"], 3]
        info = {
            "video.height": facts["height"],
            "video.width": facts["width"],
            "video.codec": facts["codec"],
            "video.pix_fmt": facts["pix_fmt"],
            "video.fps": source.fps,
            "video.channels": 3,
            "has_audio": False,
            "is_depth_map": key.startswith(DEPTH),
        }
        features[key] = {"dtype": "video", "shape": size, "names": ["height", "width", "channels"], "info": info}
    for key, width in first["widths"].items():
        features[key] = {"dtype": "float32", "shape": [width], "names": None}
    for key, dtype in (
        ("timestamp", "float32"),
        ("frame_index", "int64"),
        ("episode_index", "int64"),
        ("index", "int64"),
        ("task_index", "int64"),
    ):
        features[key] = {"dtype": dtype, "shape": [1], "names": None}
    return features


def _episode_table(records: Sequence[Record]) -> pa.Table:
    rows = []
    for record in records:
        row = dict(record["row"])
        for key, values in record["stats"].items():
            row |= {f"stats/{key}/{name}": value for name, value in values.items()}
        rows.append(row | {"meta/episodes/chunk_index": 0, "meta/episodes/file_index": 0})
    return pa.Table.from_pydict({key: [row[key] for row in rows] for key in rows[0]})


def _write_map(source: Source, target: Path, records: Sequence[Record]) -> None:
    lines = []
    for record in records:
        annotation = source.annotation_file(record["number"]).relative_to(source.root)
        line = {
            "episode_index": record["row"]["episode_index"],
            "source_episode": record["number"],
            "source_task": source.task,
            "length": record["row"]["length"],
            "annotation": record["annotation"],
            "source_annotation": annotation.as_posix() if record["annotation"] else None,
        }
        lines.append(json.dumps(line) + "\n")
    part = target / (EPISODE_MAP + ".part")
    part.write_text("".join(lines), encoding="utf-8")
    os.replace(part, target / EPISODE_MAP)
