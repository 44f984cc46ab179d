"""The synthetic task in the layout of BEHAVIOR's 2026 release, written by stock lerobot."""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from lerobot.configs.video import RGBEncoderConfig
from lerobot.datasets import LeRobotDataset

from smolvla_core.data.behavior.layout import EASTER_EGGS_INSTRUCTION, FPS
from smolvla_core.data.synthetic.motion import Motion, perform
from smolvla_core.data.synthetic.pictures import film
from smolvla_core.data.synthetic.scene import Scene, draw_scene
from smolvla_core.r1pro import RELEASES

CAMERAS = ("head", "left_wrist", "right_wrist")
SIZE = 48


def write_release_2026(
    root: Path,
    *,
    episodes: int = 4,
    frames: int = 40,
    instructions: Sequence[str] = (EASTER_EGGS_INSTRUCTION,),
    megabytes: float | None = None,
) -> Path:
    """61 state dims, ``observation.rgb.*`` videos of several episodes each, LeRobot v3.0.

    Episode e has the e-th instruction, over and over; ``megabytes`` is the size at which the next data
    or video file begins.

    As in a download without depth, ``info.json`` declares a depth camera whose videos are not there.
    """
    vector = {"dtype": "float32", "names": None}
    video = {"dtype": "video", "shape": (SIZE, SIZE, 3), "names": ["height", "width", "channels"]}
    dataset = LeRobotDataset.create(
        "local/eggs_2026",
        fps=FPS,
        features={
            "observation.state": {**vector, "shape": (61,)},
            "action": {**vector, "shape": (23,)},
            **{f"observation.rgb.{camera}": video for camera in CAMERAS},
        },
        root=root,
        robot_type="R1Pro",
        rgb_encoder=RGBEncoderConfig(vcodec="h264", preset="ultrafast"),
    )
    dataset.meta.update_chunk_settings(data_files_size_in_mb=megabytes, video_files_size_in_mb=megabytes)
    for episode in range(episodes):
        scene, motion = scripted(episode, frames)
        state = state_2026(motion.state)
        pictures = zip(*(film(scene, motion, camera, "rgb", SIZE, 0) for camera in CAMERAS), strict=True)
        for step, views in enumerate(pictures):
            frame = {f"observation.rgb.{camera}": view for camera, view in zip(CAMERAS, views, strict=True)}
            frame |= {"observation.state": state[step], "action": motion.action[step]}
            frame["task"] = instructions[episode % len(instructions)]
            dataset.add_frame(frame)
        dataset.save_episode()
    dataset.finalize()
    info = json.loads((root / "meta" / "info.json").read_text())
    info["features"]["observation.depth.head"] = {**video, "shape": [SIZE, SIZE, 3], "info": {"is_depth_map": True}}
    (root / "meta" / "info.json").write_text(json.dumps(info))
    return root


def scripted(episode: int, frames: int = 40) -> tuple[Scene, Motion]:
    """What happens in an episode."""
    rng = np.random.default_rng(episode)
    scene = draw_scene(rng, eggs=1)
    return scene, perform(scene, frames, rng)


def state_2026(state: np.ndarray) -> np.ndarray:
    """States (T, 256) of the 2025 release as the 2026 release has them, (T, 61)."""
    old, new = RELEASES["2025"], RELEASES["2026"]
    return np.concatenate([state[:, old[key].start : old[key].stop] for key in new], axis=1)
