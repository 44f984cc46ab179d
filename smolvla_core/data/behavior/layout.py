"""The 2025 challenge's layout on disk: names, paths and shapes of BEHAVIOR-1K's demonstrations.

Source: the dataset card of ``behavior-1k/2025-challenge-demos`` and its ``meta/info.json``. It is
LeRobot v2.1 with differences of its own: one folder a task, sparse episode numbers, no
``frame_index``, no ``total_chunks``.
"""

from pathlib import Path
from types import MappingProxyType

from smolvla_core.data.keys import ACTION as ACTION
from smolvla_core.data.keys import STATE as STATE

FPS = 30
MOST_FPS = 1000
"""A higher rate in ``info.json`` is damage."""
STATE_WIDTH = 256
ACTION_WIDTH = 23
CAM_POSES_WIDTH = 21
CHUNKS_SIZE = 10_000
EPISODES_PER_TASK = 200
EPISODE_STEP = 10

PRIVILEGED = ("observation.cam_rel_poses", "observation.task_info")
"""Columns that the challenge's standard track forbids as inputs."""

CAMERAS = ("head", "left_wrist", "right_wrist")
MODALITIES = ("rgb", "depth", "seg_instance_id")

TASKS_FILE = "meta/tasks.jsonl"
EPISODES_FILE = "meta/episodes.jsonl"
STATS_FILE = "meta/episodes_stats.jsonl"
DATA_PATH = "data/task-{episode_chunk:04d}/episode_{episode_index:08d}.parquet"
VIDEO_PATH = "videos/task-{episode_chunk:04d}/{video_key}/episode_{episode_index:08d}.mp4"
METAINFO_PATH = "meta/episodes/task-{episode_chunk:04d}/episode_{episode_index:08d}.json"
ANNOTATION_PATH = "annotations/task-{episode_chunk:04d}/episode_{episode_index:08d}.json"

TASKS = MappingProxyType(
    dict(
        enumerate(
            (
                "turning_on_radio",
                "picking_up_trash",
                "putting_away_Halloween_decorations",
                "cleaning_up_plates_and_food",
                "can_meat",
                "setting_mousetraps",
                "hiding_Easter_eggs",
                "picking_up_toys",
                "rearranging_kitchen_furniture",
                "putting_up_Christmas_decorations_inside",
            )
        )
    )
)
"""The first ten of the challenge's fifty tasks."""

EASTER_EGGS = 6
PICKING_UP_TOYS = 7
EASTER_EGGS_INSTRUCTION = (
    "Take the three Easter eggs out of the wicker basket on the lawn in the garden, then place them on the "
    "lawn next to a single tree (choose any tree) so that all three eggs are next to the same tree and none "
    "are left in the basket."
)


def video_key(modality: str, camera: str) -> str:
    """Dataset key of a camera's pictures."""
    return f"observation.images.{modality}.{camera}"


def instruction(task: int) -> str:
    """What the robot is told to do in a task."""
    return EASTER_EGGS_INSTRUCTION if task == EASTER_EGGS else TASKS[task].replace("_", " ").capitalize() + "."


def episode_number(task: int, ordinal: int) -> int:
    """Number of a task's ``ordinal``-th episode, counted from 0."""
    return task * CHUNKS_SIZE + (ordinal + 1) * EPISODE_STEP


def episode_file(root: Path, template: str, episode: int, chunks_size: int = CHUNKS_SIZE, key: str = "") -> Path:
    """Path of one episode's file, from a template that `check_template` has passed."""
    return root / template.format(episode_chunk=episode // chunks_size, episode_index=episode, video_key=key)


def is_depth(key: str) -> bool:
    """Whether a video key is a depth camera's."""
    return key.startswith("observation.images.depth.")
