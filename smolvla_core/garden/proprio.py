"""R1Pro's proprioception of 256 numbers, read from the physics, in BEHAVIOR's order.

Every key of the 2025 release is filled with what it means there. Joint positions, velocities and efforts
are MuJoCo's own (an effort is what the joint's actuator does, gravity compensation included); the base
has six virtual joints, of which a planar base moves three. Hands are in the robot's frame, quaternions
are x, y, z, w. ``base_qvel`` is in the robot's frame, as the action's base velocity is; ``robot_lin_vel``
and ``robot_ang_vel`` are in the world's.
"""

import mujoco
import numpy as np
from numpy.typing import NDArray

from smolvla_core.garden.robot import (
    ARM_JOINTS,
    BASE_JOINTS,
    CAMERAS,
    FINGER_JOINTS,
    SIDES,
    TRUNK_JOINTS,
)
from smolvla_core.garden.world import World
from smolvla_core.r1pro import CAMERA_POSES, JOINTS, RELEASES

Array = NDArray[np.float64]

WIDTH = 256
_BASE_PLACES = (0, 1, 5)
"""x, y and yaw among the six virtual joints of a base."""


class Proprioception:
    """Reads a world's robot."""

    def __init__(self, world: World):
        self._world = world
        self._places: dict[str, int] = {}
        """Place in ``joint_qpos`` and its like, by joint."""
        groups = {"trunk": TRUNK_JOINTS} | {f"arm_{s}": ARM_JOINTS[s] for s in SIDES}
        groups |= {f"gripper_{s}": FINGER_JOINTS[s] for s in SIDES}
        for place, name in zip(_BASE_PLACES, BASE_JOINTS, strict=True):
            self._places[name] = place
        for group, names in groups.items():
            self._places |= dict(zip(names, JOINTS[group], strict=True))

    def __call__(self) -> NDArray[np.float32]:
        """The vector (256,)."""
        data, world = self._world.data, self._world
        qpos, qvel, effort = np.zeros(28), np.zeros(28), np.zeros(28)
        for name, place in self._places.items():
            qpos[place] = data.qpos[world.qpos[name]]
            qvel[place] = data.qvel[world.dof[name]]
            effort[place] = data.qfrc_actuator[world.dof[name]]
        base, speed = qpos[list(_BASE_PLACES)], qvel[list(_BASE_PLACES)]
        yaw = np.arctan2(np.sin(base[2]), np.cos(base[2]))
        orientation, cos, sin = np.array([0.0, 0.0, yaw]), np.cos(yaw), np.sin(yaw)
        trunk = slice(JOINTS["trunk"].start, JOINTS["trunk"].stop)
        values: dict[str, Array] = {
            "joint_qpos": qpos,
            "joint_qpos_sin": np.sin(qpos),
            "joint_qpos_cos": np.cos(qpos),
            "joint_qvel": qvel,
            "joint_qeffort": effort,
            "robot_pos": data.body("base_link").xpos,
            "robot_ori_cos": np.cos(orientation),
            "robot_ori_sin": np.sin(orientation),
            "robot_2d_ori": yaw,
            "robot_2d_ori_cos": cos,
            "robot_2d_ori_sin": sin,
            "robot_lin_vel": np.array([speed[0], speed[1], 0.0]),
            "robot_ang_vel": np.array([0.0, 0.0, speed[2]]),
            "trunk_qpos": qpos[trunk],
            "trunk_qvel": qvel[trunk],
            "base_qpos": base,
            "base_qpos_sin": np.sin(base),
            "base_qpos_cos": np.cos(base),
            "base_qvel": np.array([cos * speed[0] + sin * speed[1], -sin * speed[0] + cos * speed[1], speed[2]]),
        }
        for side in SIDES:
            arm, fingers = list(JOINTS[f"arm_{side}"]), list(JOINTS[f"gripper_{side}"])
            site = data.site(f"{side}_eef")
            pose = self._seen_from_base(site.xpos, site.xmat, positive=1)
            values |= {
                f"arm_{side}_qpos": qpos[arm],
                f"arm_{side}_qpos_sin": np.sin(qpos[arm]),
                f"arm_{side}_qpos_cos": np.cos(qpos[arm]),
                f"arm_{side}_qvel": qvel[arm],
                f"eef_{side}_pos": pose[:3],
                f"eef_{side}_quat": pose[3:],
                f"gripper_{side}_qpos": qpos[fingers],
                f"gripper_{side}_qvel": qvel[fingers],
            }
        state = np.empty(WIDTH, dtype=np.float32)
        for key, dims in RELEASES["2025"].items():
            state[dims.start : dims.stop] = values[key]
        return state

    def camera_poses(self) -> NDArray[np.float32]:
        """``cam_rel_poses`` (21,): position and quaternion of each camera in the robot's frame; they look along -z."""
        cameras = [self._world.data.cam(CAMERAS[name]) for name in CAMERA_POSES]
        return np.concatenate([self._seen_from_base(c.xpos, c.xmat) for c in cameras]).astype(np.float32)

    def _seen_from_base(self, position: Array, rotation: Array, positive: int = 0) -> Array:
        """A pose (7,) in the robot's frame.

        Of the two quaternions of a rotation it is the one whose number ``positive`` of w, x, y, z is: a hand
        that points down is turned by half a turn about x, where w is zero and its sign would jump.
        """
        base = self._world.data.body("base_link")
        turn = base.xmat.reshape(3, 3).T
        quat = np.empty(4)
        mujoco.mju_mat2Quat(quat, (turn @ rotation.reshape(3, 3)).ravel())
        quat *= 1.0 if quat[positive] >= 0 else -1.0
        return np.concatenate([turn @ (position - base.xpos), quat[1:], quat[:1]])
