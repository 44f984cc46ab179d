"""The scripted dataset's columns and metadata, in the words of the 2025 challenge's files.

Source: the dataset card of ``behavior-1k/2025-challenge-demos``; its quirks are kept, since the
importer is to be tried on them.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from smolvla_core.data.behavior import layout
from smolvla_core.data.synthetic.motion import Motion
from smolvla_core.data.synthetic.pictures import picture_sizes
from smolvla_core.data.synthetic.scene import Scene

FULL_LENGTH = 7619
"""Frames of an episode that is listed only: the mean of task 6."""


def columns(scene: Scene, motion: Motion, number: int, task: int, index: int) -> dict[str, NDArray[Any]]:
    """An episode's parquet columns, (T,) or (T, D); ``index`` is its first row's. There is no ``frame_index``."""
    frames = len(motion.state)
    eggs = motion.eggs.reshape(frames, -1)
    still = np.tile(np.concatenate([scene.basket, scene.tree]), (frames, 1))
    hands = np.concatenate([motion.hands, np.tile([0.0, 0.0, 0.0, 1.0], (frames, 2, 1))], axis=2)
    head = np.tile([0.1, 0.0, 1.5, 0.0, 0.0, 0.0, 1.0], (frames, 1))
    return {
        "index": np.arange(index, index + frames, dtype=np.int64),
        "episode_index": np.full(frames, number, dtype=np.int64),
        "task_index": np.full(frames, task, dtype=np.int64),
        "timestamp": np.arange(frames, dtype=np.float64) / layout.FPS,
        layout.STATE: motion.state,
        "observation.cam_rel_poses": np.concatenate([head, hands.reshape(frames, -1)], axis=1).astype(np.float32),
        layout.ACTION: motion.action,
        "observation.task_info": np.concatenate([eggs, still], axis=1).astype(np.float32),
    }


def pix_fmt(modality: str) -> str:
    """Pixel format of a modality's videos."""
    return {"rgb": "yuv420p", "depth": "yuv420p", "seg_instance_id": "yuv444p"}[modality]


def annotation(motion: Motion, task: int) -> dict[str, Any]:
    """An episode's skills, as people have annotated the demonstrations."""
    frames = len(motion.state)
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
        for i, skill in enumerate(motion.skills)
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
    first, last = motion.skills[0].start, motion.skills[-1].stop
    return {
        "task_name": layout.TASKS[task],
        "data_folder": "",
        "meta_data": {"task_duration": frames, "valid_duration": [first, last]},
        "skill_annotation": skills,
        "primitive_annotation": primitives,
    }


def metainfo(scene: Scene, motion: Motion, task: int) -> dict[str, Any]:
    """What was where at an episode's start."""
    return {
        "task_name": layout.TASKS[task],
        "robot_type": "R1Pro",
        "scene": "scripted_garden",
        "n_steps": len(motion.state),
        "object_positions": {
            "wicker_basket_88": scene.basket.tolist(),
            "tree_92": scene.tree.tolist(),
            **{f"easter_egg_{89 + i}": place.tolist() for i, place in enumerate(scene.eggs)},
        },
    }


def listing(number: int, task: int, frames: int, motion: Motion | None) -> dict[str, Any]:
    """One line of episodes.jsonl; ``motion`` None for an episode that is not on disk."""
    base = np.zeros((2, 3)) if motion is None else motion.base
    hands = np.zeros((2, 2, 3)) if motion is None else motion.hands
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


def info(listed: Sequence[Mapping[str, Any]], size: int) -> dict[str, Any]:
    """``info.json``: of the whole release, without ``total_chunks``."""
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
        "features": _features(size),
    }


def tasks() -> list[dict[str, Any]]:
    """Lines of tasks.jsonl."""
    return [{"task_index": i, "task_name": name, "task": layout.instruction(i)} for i, name in layout.TASKS.items()]


def _features(size: int) -> dict[str, Any]:
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
        for camera, pixels in picture_sizes(size).items()
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
