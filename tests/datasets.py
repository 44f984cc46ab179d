"""Small datasets and policies that tests make for themselves."""

import json
from collections.abc import Callable
from pathlib import Path

import av
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from lerobot.datasets import LeRobotDataset

FPS = 10
INSTRUCTION = "Pick up the bottle on the table"


def write_generic(
    root: Path,
    *,
    episodes: int = 6,
    frames: int = 24,
    state: int = 10,
    action: int = 4,
    instruction: Callable[[int, int], str] = lambda episode, step: INSTRUCTION,
) -> Path:
    """A LeRobot v3.0 dataset of no robot in particular: two cameras stored as pictures.

    Later frames of an episode are darker, and the action follows the state, so that a policy has
    something to learn. ``instruction`` is that of a frame, by its episode and number.
    """
    features = {
        "observation.state": {"dtype": "float32", "shape": (state,), "names": None},
        "action": {"dtype": "float32", "shape": (action,), "names": None},
        "observation.images.top": {
            "dtype": "image",
            "shape": (48, 64, 3),
            "names": ["height", "width", "channel"],
        },
        "observation.images.wrist": {
            "dtype": "image",
            "shape": (32, 32, 3),
            "names": ["height", "width", "channel"],
        },
    }
    dataset = LeRobotDataset.create(
        "local/generic", fps=FPS, features=features, root=root, robot_type="generic", use_videos=False
    )
    rng = np.random.default_rng(0)
    for episode in range(episodes):
        goal = rng.normal(size=state).astype(np.float32)
        for step in range(frames):
            share = step / frames
            position = share * goal + 0.01 * rng.normal(size=state).astype(np.float32)
            dataset.add_frame(
                {
                    "observation.state": position.astype(np.float32),
                    "action": (goal - position)[:action].astype(np.float32),
                    "observation.images.top": np.full((48, 64, 3), int(255 * (1 - share)), dtype=np.uint8),
                    "observation.images.wrist": rng.integers(0, 255, (32, 32, 3), dtype=np.uint8),
                    "task": instruction(episode, step),
                }
            )
        dataset.save_episode()
    dataset.finalize()
    return root


def write_legacy(root: Path, *, episodes: int = 4, frames: int = 20) -> Path:
    """A LeRobot v2.1 dataset with one video camera; frame t of episode e is a grey of 10 t + e."""
    vector = {"dtype": "float32", "shape": [3], "names": ["x", "y", "z"]}
    scalar = {"dtype": "int64", "shape": [1], "names": None}
    video = {"dtype": "video", "shape": [32, 32, 3], "names": ["height", "width", "channel"]}
    info = {
        "codebase_version": "v2.1",
        "robot_type": "generic",
        "total_episodes": episodes,
        "total_frames": episodes * frames,
        "total_tasks": 1,
        "total_videos": episodes,
        "total_chunks": 1,
        "chunks_size": 1000,
        "fps": FPS,
        "splits": {"train": f"0:{episodes}"},
        "data_path": "data/chunk-{episode_chunk:03d}/episode_{episode_index:06d}.parquet",
        "video_path": "videos/chunk-{episode_chunk:03d}/{video_key}/episode_{episode_index:06d}.mp4",
        "features": {
            "observation.state": vector,
            "action": vector,
            "observation.images.top": video,
            "timestamp": {"dtype": "float32", "shape": [1], "names": None},
            "frame_index": scalar,
            "episode_index": scalar,
            "index": scalar,
            "task_index": scalar,
        },
    }
    (root / "meta").mkdir(parents=True)
    (root / "meta" / "info.json").write_text(json.dumps(info))
    _write_lines(root / "meta" / "tasks.jsonl", [{"task_index": 0, "task": INSTRUCTION}])
    _write_lines(
        root / "meta" / "episodes.jsonl",
        [{"episode_index": e, "tasks": [INSTRUCTION], "length": frames} for e in range(episodes)],
    )
    rng, stats = np.random.default_rng(0), []
    for episode in range(episodes):
        values = rng.normal(size=(frames, 3)).astype(np.float32)
        columns = {
            "observation.state": values.tolist(),
            "action": (values + 1).tolist(),
            "timestamp": (np.arange(frames, dtype=np.float32) / FPS).tolist(),
            "frame_index": list(range(frames)),
            "episode_index": [episode] * frames,
            "index": list(range(episode * frames, (episode + 1) * frames)),
            "task_index": [0] * frames,
        }
        schema = pa.schema(
            [(k, pa.list_(pa.float32())) for k in ("observation.state", "action")]
            + [("timestamp", pa.float32())]
            + [(k, pa.int64()) for k in ("frame_index", "episode_index", "index", "task_index")]
        )
        file = root / "data" / "chunk-000" / f"episode_{episode:06d}.parquet"
        file.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(pa.table(columns, schema=schema), file)
        video_file = root / "videos" / "chunk-000" / "observation.images.top" / f"episode_{episode:06d}.mp4"
        video_file.parent.mkdir(parents=True, exist_ok=True)
        write_grey_video(video_file, [10 * t + episode for t in range(frames)])
        summary = {
            key: {"min": [-5.0] * 3, "max": [5.0] * 3, "mean": [0.0] * 3, "std": [1.0] * 3, "count": [frames]}
            for key in ("observation.state", "action")
        }
        stats.append({"episode_index": episode, "stats": summary})
    _write_lines(root / "meta" / "episodes_stats.jsonl", stats)
    return root


def write_grey_video(file: Path, greys: list[int]) -> None:
    with av.open(str(file), "w") as container:
        stream = container.add_stream("libx264", rate=FPS, options={"crf": "0", "g": "2"})
        stream.width = stream.height = 32
        stream.pix_fmt = "yuv420p"
        for grey in greys:
            picture = np.full((32, 32, 3), grey, dtype=np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture)))
        container.mux(stream.encode())


def _write_lines(file: Path, rows: list[dict]) -> None:
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
