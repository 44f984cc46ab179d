"""A small dataset in the exact layout of the 2025 challenge, with a scripted motion.

``python -m smolvla_core.data.synthetic OUT`` makes something to try everything on: it takes the same
road as the downloaded demonstrations (`smolvla_core.data.behavior` imports both).
"""

import argparse
import json
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import Progress

from smolvla_core.data import behavior_layout as layout
from smolvla_core.data.synthetic_motion import MAX_EGGS, Motion, Scene, draw_scene, perform
from smolvla_core.data.synthetic_pictures import film, picture_sizes
from smolvla_core.data.video_files import write_hevc
from smolvla_core.errors import DataError, UserError

SECONDS_PER_EGG = 2.0
MIN_SECONDS = 1.0
MIN_SIZE = 32
LONGEST_CHANGE = 0.15
"""Episodes differ in length by up to this share."""


def write_synthetic(
    out: Path,
    *,
    episodes: int = 12,
    seconds: float = 4.0,
    size: int = 96,
    seed: int = 0,
    task: int = layout.EASTER_EGGS,
    depth_and_seg: bool = False,
    progress: bool = False,
) -> None:
    """Write a dataset of scripted episodes; the same arguments give the same bytes.

    Args:
        out: a folder that is missing or empty.
        episodes: how many are on disk; ``episodes.jsonl`` lists far more, as in the release.
        seconds: mean length of an episode.
        size: pixels to a side of the head's pictures; the wrists' are two thirds of it.
        seed: of scenes, motion and texture.
        task: the task that they are filed under, 0 to 9.
        depth_and_seg: whether depth and segmentation videos are written too.
        progress: whether a progress bar is drawn on stderr.

    Raises:
        DataError: ``out`` holds something already, or an argument is out of range.
    """
    _check(out, episodes, seconds, size, seed, task)
    out.mkdir(parents=True, exist_ok=True)
    rows: list[dict[str, Any]] = []
    stats: list[dict[str, Any]] = []
    index = 0
    with Progress(console=Console(stderr=True), disable=not progress, transient=True) as bar:
        for ordinal in bar.track(range(episodes), description="synthetic episodes"):
            rng = np.random.default_rng([seed, task, ordinal])
            frames = round(seconds * rng.uniform(1 - LONGEST_CHANGE, 1 + LONGEST_CHANGE) * layout.FPS)
            scene = draw_scene(rng, eggs=int(np.clip(seconds // SECONDS_PER_EGG, 1, MAX_EGGS)))
            motion = perform(scene, frames, rng)
            number = layout.episode_number(task, ordinal)
            table = _columns(scene, motion, number, task, index)
            _write_table(layout.episode_file(out, layout.DATA_PATH, number), table)
            _write_videos(out, number, scene, motion, size, seed, depth_and_seg)
            _write_json(layout.episode_file(out, layout.ANNOTATION_PATH, number), _annotation(motion, task))
            _write_json(layout.episode_file(out, layout.METAINFO_PATH, number), _metainfo(scene, motion, task))
            rows.append(_listing(number, task, frames, motion))
            stats.append({"episode_index": number, "stats": _stats(table)})
            index += frames
    _write_metadata(out, rows, stats, task, size)


def _check(out: Path, episodes: int, seconds: float, size: int, seed: int, task: int) -> None:
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise DataError(f"{out}: exists and is not an empty folder; give another, or remove it first")
    if not 1 <= episodes < layout.CHUNKS_SIZE // layout.EPISODE_STEP:
        raise DataError(f"--episodes is {episodes}; it must be 1 to {layout.CHUNKS_SIZE // layout.EPISODE_STEP - 1}")
    if not MIN_SECONDS <= seconds <= 600:
        raise DataError(f"--seconds is {seconds:g}; it must be {MIN_SECONDS:g} to 600")
    if not MIN_SIZE <= size <= 1080:
        raise DataError(f"--size is {size}; it must be {MIN_SIZE} to 1080 pixels")
    if seed < 0:
        raise DataError(f"--seed is {seed}; it must be 0 or more")
    if task not in layout.TASKS:
        raise DataError(f"--task is {task}; it must be 0 to {max(layout.TASKS)} ({layout.EASTER_EGGS}: Easter eggs)")


def _columns(scene: Scene, motion: Motion, number: int, task: int, index: int) -> dict[str, NDArray[Any]]:
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


def _write_table(path: Path, columns: Mapping[str, NDArray[Any]]) -> None:
    arrays = {
        key: pa.array(values) if values.ndim == 1 else pa.array(list(values), type=pa.list_(pa.float32()))
        for key, values in columns.items()
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(arrays), path)


def _write_videos(
    out: Path, number: int, scene: Scene, motion: Motion, size: int, seed: int, depth_and_seg: bool
) -> None:
    for modality in layout.MODALITIES if depth_and_seg else ("rgb",):
        for camera, pixels in picture_sizes(size).items():
            path = layout.episode_file(out, layout.VIDEO_PATH, number, key=layout.video_key(modality, camera))
            pictures = film(scene, motion, camera, modality, pixels, seed)
            write_hevc(path, pictures, layout.FPS, _pix_fmt(modality))


def _pix_fmt(modality: str) -> str:
    return {"rgb": "yuv420p", "depth": "yuv420p", "seg_instance_id": "yuv444p"}[modality]


def _annotation(motion: Motion, task: int) -> dict[str, Any]:
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
            "mark": None,
            "skill_type": ["navigation" if skill.description == "move to" else "uncoordinated"],
        }
        for i, skill in enumerate(motion.skills)
    ]
    primitives = [
        {
            "primitive_idx": i,
            "primitive_id": [i],
            "primitive_description": skill["skill_description"],
            **{key: skill[key] for key in ("object_id", "manipulating_object_id", "frame_duration")},
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


def _metainfo(scene: Scene, motion: Motion, task: int) -> dict[str, Any]:
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


def _listing(number: int, task: int, frames: int, motion: Motion | None) -> dict[str, Any]:
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


def _stats(columns: Mapping[str, NDArray[Any]]) -> dict[str, Any]:
    """Statistics of three columns only, and none of pictures, as in the release."""
    stats = {}
    for key in (layout.ACTION, layout.STATE, "observation.cam_rel_poses"):
        rows = columns[key].astype(np.float64)
        low, high = np.quantile(rows, [0.01, 0.99], axis=0)
        values = {"min": rows.min(0), "max": rows.max(0), "mean": rows.mean(0), "std": rows.std(0)}
        stats[key] = {name: value.tolist() for name, value in (values | {"q01": low, "q99": high}).items()}
        stats[key]["count"] = [len(rows)]
    return stats


def _write_metadata(out: Path, rows: list[dict[str, Any]], stats: list[dict[str, Any]], task: int, size: int) -> None:
    written = {row["episode_index"]: row for row in rows}
    listed = []
    for other in layout.TASKS:
        count = max(layout.EPISODES_PER_TASK, len(rows) if other == task else 0)
        for number in (layout.episode_number(other, i) for i in range(count)):
            listed.append(written.get(number) or _listing(number, other, 7619, None))
    info = {
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
    tasks = [{"task_index": i, "task_name": name, "task": layout.instruction(i)} for i, name in layout.TASKS.items()]
    _write_json(out / layout.INFO_FILE, info)
    _write_jsonl(out / layout.TASKS_FILE, tasks)
    _write_jsonl(out / layout.EPISODES_FILE, listed)
    _write_jsonl(out / layout.STATS_FILE, stats)


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
                "video.pix_fmt": _pix_fmt(modality),
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


def _write_json(path: Path, value: Mapping[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value, indent=4), encoding="utf-8")


def _write_jsonl(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def main(argv: list[str] | None = None) -> int:
    """Command line: exit code 0, or 2 on bad input."""
    parser = argparse.ArgumentParser(
        prog="python -m smolvla_core.data.synthetic",
        description="Write a small scripted dataset in the layout of the 2025 BEHAVIOR challenge.",
    )
    parser.add_argument("out", type=Path, metavar="OUT", help="a new folder")
    parser.add_argument("--episodes", type=int, default=12, help="episodes on disk (default 12)")
    parser.add_argument("--seconds", type=float, default=4.0, help="mean length of an episode (default 4)")
    parser.add_argument("--size", type=int, default=96, help="pixels to a side, head camera (default 96)")
    parser.add_argument("--seed", type=int, default=0, help="of scenes, motion and texture (default 0)")
    parser.add_argument("--task", type=int, default=layout.EASTER_EGGS, help="task number (default 6)")
    parser.add_argument("--depth-and-seg", action="store_true", help="write depth and segmentation videos too")
    args = parser.parse_args(argv)
    try:
        write_synthetic(
            args.out,
            episodes=args.episodes,
            seconds=args.seconds,
            size=args.size,
            seed=args.seed,
            task=args.task,
            depth_and_seg=args.depth_and_seg,
            progress=sys.stderr.isatty(),
        )
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(f"{args.out}: {args.episodes} episodes of task {args.task} ({layout.TASKS[args.task]})")
    return 0


if __name__ == "__main__":
    sys.exit(main())
