"""An episode's files in the layout of the 2025 challenge: columns, annotations and metadata, to be written.

Source: the dataset card of ``behavior-1k/2025-challenge-demos``; its quirks are kept, since the
importer is to be tried on them. T frames.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from smolvla_core.data.behavior import layout

FULL_LENGTH = 7619
"""Frames of an episode that is listed only: the mean of task 6."""


@dataclass(frozen=True)
class Skill:
    """An annotated part of an episode: frames ``start`` up to ``stop``, not included."""

    description: str
    objects: tuple[str, ...]
    manipulating: str
    start: int
    stop: int


@dataclass(frozen=True)
class Recording:
    """What is known of one episode beside its pictures."""

    state: NDArray[np.float32]
    """(T, 256), the 2025 release's layout."""
    action: NDArray[np.float32]
    """(T, 23)."""
    cam_rel_poses: NDArray[np.float32]
    """(T, 21)."""
    task_info: NDArray[np.float32]
    """(T, any)."""
    base: NDArray[np.floating]
    """(T, 2 or more) x, y of the base in the world."""
    hands: NDArray[np.floating]
    """(T, 2, 3) left and right."""
    skills: tuple[Skill, ...]
    scene: str
    objects: Mapping[str, Sequence[float]]
    """Where each object was at the start, by its name."""


def columns(recording: Recording, number: int, task: int, index: int) -> dict[str, NDArray[Any]]:
    """An episode's parquet columns, (T,) or (T, D); ``index`` is its first row's. There is no ``frame_index``."""
    frames = len(recording.state)
    return {
        "index": np.arange(index, index + frames, dtype=np.int64),
        "episode_index": np.full(frames, number, dtype=np.int64),
        "task_index": np.full(frames, task, dtype=np.int64),
        "timestamp": np.arange(frames, dtype=np.float64) / layout.FPS,
        layout.STATE: recording.state,
        "observation.cam_rel_poses": recording.cam_rel_poses,
        layout.ACTION: recording.action,
        "observation.task_info": recording.task_info,
    }


def pix_fmt(modality: str) -> str:
    """Pixel format of a modality's videos."""
    return {"rgb": "yuv420p", "depth": "yuv420p", "seg_instance_id": "yuv444p"}[modality]


def annotation(recording: Recording, task: int) -> dict[str, Any]:
    """An episode's skills, as people have annotated the demonstrations."""
    frames = len(recording.state)
    skills = [
        {
            "skill_idx": i,
            "skill_id": [i],
            "skill_description": [skill.description],
            "object_id": [list(skill.objects)],
            "manipulating_object_id": [skill.manipulating] if skill.manipulating else [],
            "memory_prefix": [],
            "spatial_prefix": [],
            "frame_duration": [skill.start, skill.stop],
            "mp_ef": [],
            "skill_type": ["navigation" if skill.description == "move to" else "uncoordinated"],
        }
        for i, skill in enumerate(recording.skills)
    ]
    primitives = [
        {
            "primitive_idx": i,
            "primitive_id": [i],
            "primitive_description": skill["skill_description"],
            **{key: skill[key] for key in ("object_id", "manipulating_object_id", "memory_prefix", "spatial_prefix")},
            "frame_duration": skill["frame_duration"],
            "skill_idxes": [i],
        }
        for i, skill in enumerate(skills)
    ]
    first, last = recording.skills[0].start, max(skill.stop for skill in recording.skills)
    return {
        "task_name": layout.TASKS[task],
        "data_folder": "",
        "meta_data": {"task_duration": frames, "valid_duration": [first, last]},
        "skill_annotation": skills,
        "primitive_annotation": primitives,
    }


def metainfo(recording: Recording, task: int) -> dict[str, Any]:
    """What was where at an episode's start."""
    return {
        "task_name": layout.TASKS[task],
        "robot_type": "R1Pro",
        "scene": recording.scene,
        "n_steps": len(recording.state),
        "object_positions": {name: list(place) for name, place in recording.objects.items()},
    }


def listing(number: int, task: int, frames: int, recording: Recording | None) -> dict[str, Any]:
    """One line of episodes.jsonl; ``recording`` None for an episode that is not on disk."""
    base = np.zeros((2, 3)) if recording is None else recording.base
    hands = np.zeros((2, 2, 3)) if recording is None else recording.hands
    travelled = np.linalg.norm(np.diff(hands, axis=0), axis=2).sum(axis=0)
    return {
        "episode_index": number,
        "tasks": [layout.instruction(task)],
        "length": frames,
        "distance_traveled": float(np.linalg.norm(np.diff(base[:, :2], axis=0), axis=1).sum()),
        "left_eef_displacement": float(travelled[0]),
        "right_eef_displacement": float(travelled[1]),
    }


def stats(table: Mapping[str, NDArray[Any]]) -> dict[str, Any]:
    """Statistics of three columns only, and none of pictures, as in the release."""
    summary = {}
    for key in (layout.ACTION, layout.STATE, "observation.cam_rel_poses"):
        rows = table[key].astype(np.float64)
        low, high = np.quantile(rows, [0.01, 0.99], axis=0)
        values = {"min": rows.min(0), "max": rows.max(0), "mean": rows.mean(0), "std": rows.std(0)}
        summary[key] = {name: value.tolist() for name, value in (values | {"q01": low, "q99": high}).items()}
        summary[key]["count"] = [len(rows)]
    return summary


def all_listed(written: Sequence[Mapping[str, Any]], task: int) -> list[Mapping[str, Any]]:
    """Lines of episodes.jsonl: ``written`` ones, and all that people do not download."""
    known = {row["episode_index"]: row for row in written}
    listed = []
    for other in layout.TASKS:
        count = max(layout.EPISODES_PER_TASK, len(written) if other == task else 0)
        for number in (layout.episode_number(other, ordinal) for ordinal in range(count)):
            listed.append(known.get(number) or listing(number, other, FULL_LENGTH, None))
    return listed


def info(rows: Sequence[Mapping[str, Any]], task: int, sizes: Mapping[str, int]) -> dict[str, Any]:
    """``info.json``: of the whole release, without ``total_chunks``.

    Args:
        rows: `listing` of each episode on disk.
        task: the one they are of.
        sizes: pixels to a side, by camera.
    """
    listed = all_listed(rows, task)
    return {
        "codebase_version": "v2.1",
        "robot_type": "R1Pro",
        "total_episodes": len(listed),
        "total_frames": sum(row["length"] for row in listed),
        "total_tasks": len(layout.TASKS),
        "total_videos": len(listed) * len(layout.CAMERAS) * len(layout.MODALITIES),
        "chunks_size": layout.CHUNKS_SIZE,
        "fps": layout.FPS,
        "splits": {"train": f"0:{len(listed)}"},
        "data_path": layout.DATA_PATH,
        "video_path": layout.VIDEO_PATH,
        "metainfo_path": layout.METAINFO_PATH,
        "annotation_path": layout.ANNOTATION_PATH,
        "features": _features(sizes),
    }


def tasks() -> list[dict[str, Any]]:
    """Lines of tasks.jsonl."""
    return [{"task_index": i, "task_name": name, "task": layout.instruction(i)} for i, name in layout.TASKS.items()]


def _features(sizes: Mapping[str, int]) -> dict[str, Any]:
    def vector(width: int | None) -> dict[str, Any]:
        return {"dtype": "float32", "shape": [width], "names": None, "fps": float(layout.FPS)}

    def scalar(dtype: str) -> dict[str, Any]:
        return {"dtype": dtype, "shape": [1], "names": None, "fps": float(layout.FPS)}

    videos = {
        layout.video_key(modality, camera): {
            "dtype": "video",
            "shape": [pixels, pixels, 3],
            "names": ["height", "width", "rgb" if modality == "rgb" else modality.split("_")[0]],
            "info": {
                "video.fps": float(layout.FPS),
                "video.height": pixels,
                "video.width": pixels,
                "video.channels": 3,
                "video.codec": "hevc",
                "video.pix_fmt": pix_fmt(modality),
                "video.is_depth_map": modality == "depth",
                "has_audio": False,
            },
        }
        for modality in layout.MODALITIES
        for camera, pixels in sizes.items()
    }
    return videos | {
        layout.ACTION: vector(layout.ACTION_WIDTH),
        layout.STATE: vector(layout.STATE_WIDTH),
        "observation.cam_rel_poses": vector(layout.CAM_POSES_WIDTH),
        "observation.task_info": vector(None),
        "timestamp": scalar("float64"),
        "episode_index": scalar("int64"),
        "index": scalar("int64"),
    }


def write_table(path: Path, table: Mapping[str, NDArray[Any]]) -> None:
    """Write an episode's `columns` as parquet."""
    arrays = {
        key: pa.array(values) if values.ndim == 1 else pa.array(list(values), type=pa.list_(pa.float32()))
        for key, values in table.items()
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(arrays), path)


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    """Write JSON as the release does, indented."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value, indent=4), encoding="utf-8")


def write_jsonl(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Write one line for each row."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def write_meta(root: Path, rows: Sequence[Mapping[str, Any]], stats: Sequence[Mapping[str, Any]], task: int) -> None:
    """Write the lists of tasks, episodes and statistics.

    Args:
        root: the dataset's folder.
        rows: `listing` of each episode on disk.
        stats: number and `stats` of each.
        task: the one they are of.
    """
    write_jsonl(root / layout.TASKS_FILE, tasks())
    write_jsonl(root / layout.EPISODES_FILE, all_listed(rows, task))
    write_jsonl(root / layout.STATS_FILE, stats)
