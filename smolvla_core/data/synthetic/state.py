"""R1Pro's proprioception of 256 dims, filled from a scripted motion. T frames."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from smolvla_core.data.behavior.layout import FPS, STATE_WIDTH
from smolvla_core.r1pro import RELEASES

Array = NDArray[np.float64]

SIDES = ("left", "right")
GRIP_EFFORT_N = 20.0
SENSOR_NOISE_RAD = 5e-4


@dataclass(frozen=True)
class Body:
    """Where the robot is, and how its joints stand."""

    base: Array
    """(T, 3) x, y, yaw in the world."""
    velocity: Array
    """(T, 3) of the base, in the robot's frame."""
    trunk: Array
    """(T, 4)."""
    joints: Array
    """(T, 2, 7) of the arms, left and right."""
    hands: Array
    """(T, 2, 3) in the robot's frame."""
    openings: Array
    """(T, 2) of the grippers, metres."""
    holding: NDArray[np.bool_]
    """(T, 2) whether an egg stops the fingers."""


def proprioception(body: Body, rng: np.random.Generator) -> Array:
    """The state (T, 256) in the 2025 release's layout; ``rng`` draws the joints' sensor noise."""
    base, hands, holding = body.base, body.hands, body.holding
    frames = len(base)
    joints = body.joints + rng.normal(0.0, SENSOR_NOISE_RAD, body.joints.shape)
    trunk = body.trunk + rng.normal(0.0, SENSOR_NOISE_RAD, body.trunk.shape)
    qpos = np.zeros((frames, 28))
    qpos[:, [0, 1, 5]] = base
    qpos[:, 6:10] = trunk
    qpos[:, 10:24:2], qpos[:, 11:24:2] = joints[:, 0], joints[:, 1]
    qpos[:, 24:26], qpos[:, 26:28] = body.openings[:, :1], body.openings[:, 1:]
    qvel = np.gradient(qpos, axis=0) * FPS
    qeffort = np.zeros((frames, 28))
    qeffort[:, 6:24] = 4.0 * np.sin(qpos[:, 6:24]) + 0.2 * qvel[:, 6:24]
    qeffort[:, 24:26], qeffort[:, 26:28] = -GRIP_EFFORT_N * holding[:, :1], -GRIP_EFFORT_N * holding[:, 1:]

    yaw, flat = base[:, 2:], np.zeros((frames, 2))
    orientation = np.concatenate([flat, yaw], axis=1)
    world_velocity = np.gradient(base, axis=0) * FPS
    values: dict[str, Array] = {
        "joint_qpos": qpos,
        "joint_qpos_sin": np.sin(qpos),
        "joint_qpos_cos": np.cos(qpos),
        "joint_qvel": qvel,
        "joint_qeffort": qeffort,
        "robot_pos": np.concatenate([base[:, :2], np.zeros((frames, 1))], axis=1),
        "robot_ori_cos": np.cos(orientation),
        "robot_ori_sin": np.sin(orientation),
        "robot_2d_ori": yaw,
        "robot_2d_ori_cos": np.cos(yaw),
        "robot_2d_ori_sin": np.sin(yaw),
        "robot_lin_vel": np.concatenate([world_velocity[:, :2], np.zeros((frames, 1))], axis=1),
        "robot_ang_vel": np.concatenate([flat, world_velocity[:, 2:]], axis=1),
        "trunk_qpos": trunk,
        "trunk_qvel": qvel[:, 6:10],
        "base_qpos": base,
        "base_qpos_sin": np.sin(base),
        "base_qpos_cos": np.cos(base),
        "base_qvel": body.velocity,
    }
    for arm, side in enumerate(SIDES):
        speed = qvel[:, 10 + arm : 24 : 2]
        finger = slice(24 + 2 * arm, 26 + 2 * arm)
        values |= {
            f"arm_{side}_qpos": joints[:, arm],
            f"arm_{side}_qpos_sin": np.sin(joints[:, arm]),
            f"arm_{side}_qpos_cos": np.cos(joints[:, arm]),
            f"arm_{side}_qvel": speed,
            f"eef_{side}_pos": hands[:, arm],
            f"eef_{side}_quat": _downward(hands[:, arm]),
            f"gripper_{side}_qpos": qpos[:, finger],
            f"gripper_{side}_qvel": qvel[:, finger],
        }
    state = np.empty((frames, STATE_WIDTH))
    for key, dims in RELEASES["2025"].items():
        state[:, dims.start : dims.stop] = values[key]
    return state


def _downward(hand: Array) -> Array:
    """Quaternion x, y, z, w of a hand that points down and turns with its azimuth, (T, 4)."""
    half = np.arctan2(hand[:, 1], hand[:, 0]) / 2
    zero = np.zeros_like(half)
    return np.stack([np.cos(half), np.sin(half), zero, zero], axis=1)
