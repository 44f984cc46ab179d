"""R1Pro's proprioception by name: layouts of its two releases, presets, and what is forbidden.

BEHAVIOR-1K publishes R1Pro's state in two releases with different widths. Everything here is named
by *key*, so that it means the same quantities in both. Layouts and joint order: BEHAVIOR-1K
``omnigibson/learning/utils/eval_utils.py``. Tables only; ``smolvla_core.state`` resolves them.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType


def _layout(*entries: tuple[str, int]) -> Mapping[str, range]:
    layout, start = {}, 0
    for key, width in entries:
        layout[key] = range(start, start + width)
        start += width
    return MappingProxyType(layout)


RELEASES: Mapping[str, Mapping[str, range]] = MappingProxyType(
    {
        "2025": _layout(
            ("joint_qpos", 28),
            ("joint_qpos_sin", 28),
            ("joint_qpos_cos", 28),
            ("joint_qvel", 28),
            ("joint_qeffort", 28),
            ("robot_pos", 3),
            ("robot_ori_cos", 3),
            ("robot_ori_sin", 3),
            ("robot_2d_ori", 1),
            ("robot_2d_ori_cos", 1),
            ("robot_2d_ori_sin", 1),
            ("robot_lin_vel", 3),
            ("robot_ang_vel", 3),
            ("arm_left_qpos", 7),
            ("arm_left_qpos_sin", 7),
            ("arm_left_qpos_cos", 7),
            ("arm_left_qvel", 7),
            ("eef_left_pos", 3),
            ("eef_left_quat", 4),
            ("gripper_left_qpos", 2),
            ("gripper_left_qvel", 2),
            ("arm_right_qpos", 7),
            ("arm_right_qpos_sin", 7),
            ("arm_right_qpos_cos", 7),
            ("arm_right_qvel", 7),
            ("eef_right_pos", 3),
            ("eef_right_quat", 4),
            ("gripper_right_qpos", 2),
            ("gripper_right_qvel", 2),
            ("trunk_qpos", 4),
            ("trunk_qvel", 4),
            ("base_qpos", 3),
            ("base_qpos_sin", 3),
            ("base_qpos_cos", 3),
            ("base_qvel", 3),
        ),
        "2026": _layout(
            ("base_qvel", 3),
            ("arm_left_qpos", 7),
            ("arm_left_qvel", 7),
            ("eef_left_pos", 3),
            ("eef_left_quat", 4),
            ("gripper_left_qpos", 2),
            ("gripper_left_qvel", 2),
            ("arm_right_qpos", 7),
            ("arm_right_qvel", 7),
            ("eef_right_pos", 3),
            ("eef_right_quat", 4),
            ("gripper_right_qpos", 2),
            ("gripper_right_qvel", 2),
            ("trunk_qpos", 4),
            ("trunk_qvel", 4),
        ),
    }
)

FORBIDDEN: tuple[str, ...] = (
    "joint_qpos[:6]",
    "joint_qpos_sin[:6]",
    "joint_qpos_cos[:6]",
    "robot_pos",
    "robot_ori_cos",
    "robot_ori_sin",
    "robot_2d_ori",
    "robot_2d_ori_cos",
    "robot_2d_ori_sin",
    "base_qpos",
    "base_qpos_sin",
    "base_qpos_cos",
)
"""What the challenge's standard track forbids; ``key[:n]`` is a key's first n dims."""

ROBOT_POSE_KEYS = ("robot_pos", "robot_ori_cos", "robot_ori_sin")
"""The robot's place in the world; cosine and sine of its roll, pitch and yaw."""

CAMERA_PIXELS: Mapping[str, int] = MappingProxyType({"head": 720, "left_wrist": 480, "right_wrist": 480})
"""Pixels to a side of each camera's pictures."""
FOCAL_PX: Mapping[str, float] = MappingProxyType({"head": 306.0, "left_wrist": 388.6639, "right_wrist": 388.6639})
"""Focal lengths, in pixels of that size; the principal point is the middle."""
CAMERA_POSES: tuple[str, ...] = ("left_wrist", "right_wrist", "head")
"""The cameras in the order of ``cam_rel_poses``; each has 7 dims, and looks along -z with y up."""

PRIVILEGED = ("task_info", "cam_rel_poses")
"""Columns beside the state that are never inputs in the standard track."""

JOINTS: Mapping[str, range] = MappingProxyType(
    {
        "base": range(0, 6),
        "trunk": range(6, 10),
        "arm_left": range(10, 24, 2),
        "arm_right": range(11, 24, 2),
        "gripper_left": range(24, 26),
        "gripper_right": range(26, 28),
    }
)
"""Places within the ``joint_...`` keys, which hold all of the robot's joints."""

ACTION_WIDTH = 23
ACTION: Mapping[str, range] = MappingProxyType(
    {
        "base": range(0, 3),
        "trunk": range(3, 7),
        "arm_left": range(7, 14),
        "gripper_left": range(14, 15),
        "arm_right": range(15, 22),
        "gripper_right": range(22, 23),
    }
)
"""Dims of the action."""
BASE_VELOCITY = tuple(ACTION["base"])
"""Action dims that are velocities; all others are positions to be at."""
HANDS = ("left", "right")
MOST_OFF_M = 0.02
"""A chain that puts the hands further off than this is no measure of precision."""
ACTION_GROUPS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "base": ("base",),
        "trunk": ("trunk",),
        "arms": ("arm_left", "arm_right"),
        "grippers": ("gripper_left", "gripper_right"),
    }
)
"""Parts of the robot that an error is told of."""

GRIPPER_KEYS = ("gripper_left_qpos", "gripper_right_qpos")
EEF_POSITION_KEYS = ("eef_left_pos", "eef_right_pos")
GRIPPER_OPEN_M = 0.1
"""Sum of a gripper's two finger positions when it is open."""


@dataclass(frozen=True)
class Derived:
    """A key of one number: ``scale * (sum of another key's dims) + offset``."""

    key: str
    scale: float
    offset: float


DERIVED: Mapping[str, Derived] = MappingProxyType(
    {
        "gripper_left_opening": Derived("gripper_left_qpos", 2 / GRIPPER_OPEN_M, -1.0),
        "gripper_right_opening": Derived("gripper_right_qpos", 2 / GRIPPER_OPEN_M, -1.0),
    }
)
"""A gripper as one number in its action's unit, ``2 (q1 + q2) / 0.1 - 1``: -1 closed, 1 open."""

EVERY_DIM = "*"
"""In place of keys: all of the state, of any robot."""
EVERY_ALLOWED_DIM = "*allowed"
"""In place of keys: all of R1Pro's state that the standard track allows."""

PRESETS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "top32": (
            "arm_left_qpos",
            "arm_left_qvel[:2]",
            "eef_left_pos",
            "gripper_left_qpos",
            "arm_right_qpos",
            "arm_right_qvel[:2]",
            "eef_right_pos",
            "gripper_right_qpos",
            "trunk_qpos",
        ),
        "top31_base": (
            "arm_left_qpos",
            "eef_left_pos",
            "gripper_left_qpos",
            "arm_right_qpos",
            "eef_right_pos",
            "gripper_right_qpos",
            "trunk_qpos",
            "base_qvel",
        ),
        "winner23": (
            "base_qvel",
            "trunk_qpos",
            "arm_left_qpos",
            "gripper_left_opening",
            "arm_right_qpos",
            "gripper_right_opening",
        ),
        "standard217": (EVERY_ALLOWED_DIM,),
        "all": (EVERY_DIM,),
        "identity": (EVERY_DIM,),
    }
)
"""Named choices of keys, in the order in which the policy sees them.

``top32`` is the recipe's. ``top31_base`` has the base's velocity in place of the four arm
velocities; ``winner23`` has the quantities of the action in the action's order. Both winning teams
of 2025 used the base's velocity.
"""
