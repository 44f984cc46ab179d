"""The garden's physics: what an action does to the robot, and how a hand holds an egg.

Actions come at 30 Hz, physics runs at 120 Hz. As in BEHAVIOR a grasp is assisted: a gripper that closes
around an egg holds it by a constraint, and lets go when it opens.
"""

import mujoco
import numpy as np
from numpy.typing import NDArray

from smolvla_core.errors import UserError
from smolvla_core.garden.instance import Instance
from smolvla_core.garden.robot import (
    ARM_HIGH,
    ARM_HOME,
    ARM_JOINTS,
    ARM_LOW,
    BASE_JOINTS,
    BASE_SPEED,
    FINGER_JOINTS,
    FINGER_OPEN_M,
    GRIP_M,
    SIDES,
    TRUNK_DRIVE,
    TRUNK_HIGH,
    TRUNK_JOINTS,
    TRUNK_LOW,
)
from smolvla_core.garden.scene import BASKET, EGG_NAMES, PHYSICS_HZ, TREE_NAMES, arrange, build_model, weld_name
from smolvla_core.live import CONTROL_HZ
from smolvla_core.r1pro import ACTION, ACTION_WIDTH

Array = NDArray[np.float64]

SUBSTEPS = PHYSICS_HZ // CONTROL_HZ
GRASP_REACH_M = 0.05
"""A closing gripper catches an egg whose middle is this near to the middle between its fingers."""
LETS_GO = 0.5
"""A gripper's command from which on it lets go; below it, it closes."""
CATCHES_BETWEEN_M = (0.02, 0.095)
"""Openings at which a closing gripper can catch: not before it closes, and not when it is shut already."""
LIFTED_M = 0.05
"""An egg that a hand has raised by this much was lifted."""
SETTLE_S = 0.5
"""The eggs come to rest in the basket before an episode begins."""

LOW = np.concatenate([-BASE_SPEED, TRUNK_LOW, ARM_LOW["left"], [-1.0], ARM_LOW["right"], [-1.0]])
HIGH = np.concatenate([BASE_SPEED, TRUNK_HIGH, ARM_HIGH["left"], [1.0], ARM_HIGH["right"], [1.0]])
"""Limits of an action's 23 numbers; what is beyond them is cut."""


def resting_action() -> NDArray[np.float32]:
    """The action (23,) that keeps the robot as it starts: hands open, standing still."""
    action = np.zeros(ACTION_WIDTH, dtype=np.float32)
    action[ACTION["trunk"].start : ACTION["trunk"].stop] = TRUNK_DRIVE
    for side in SIDES:
        dims = ACTION[f"arm_{side}"]
        action[dims.start : dims.stop] = ARM_HOME[side]
        action[ACTION[f"gripper_{side}"].start] = 1.0
    return action


class World:
    """One garden and its robot; `reset` before the first `step`."""

    def __init__(self) -> None:
        self.model = build_model()
        self.data = mujoco.MjData(self.model)
        self.instance: Instance | None = None
        self.held: dict[str, int | None] = dict.fromkeys(SIDES)
        """The egg that each hand holds, by its place in `EGG_NAMES`."""
        self.lifted = [False] * len(EGG_NAMES)
        """Whether each egg has been lifted by a hand in this episode."""
        names = (*BASE_JOINTS, *TRUNK_JOINTS, *(j for s in SIDES for j in (*ARM_JOINTS[s], *FINGER_JOINTS[s])))
        joints = {name: self.model.joint(name) for name in names}
        self.qpos = {name: int(joint.qposadr[0]) for name, joint in joints.items()}
        """Addresses of the robot's joints in ``data.qpos``."""
        self.dof = {name: int(joint.dofadr[0]) for name, joint in joints.items()}
        """Addresses of the robot's joints in ``data.qvel``."""
        self._ctrl = {name: self.model.actuator(name).id for name in names}
        self._welds = {
            (side, i): self.model.equality(weld_name(side, egg)).id for side in SIDES for i, egg in enumerate(EGG_NAMES)
        }
        self._start_height = np.zeros(len(EGG_NAMES))

    def reset(self, instance: Instance) -> None:
        """Put everything at an instance's start; the same instance gives the same state, bit for bit."""
        self.instance = instance
        arrange(self.model, self.data, instance)
        self.held = dict.fromkeys(SIDES)
        self.lifted = [False] * len(EGG_NAMES)
        start = dict(zip(TRUNK_JOINTS, TRUNK_DRIVE, strict=True)) | {"base_yaw": instance.yaw}
        for side in SIDES:
            start |= dict(zip(ARM_JOINTS[side], ARM_HOME[side], strict=True))
            start |= dict.fromkeys(FINGER_JOINTS[side], FINGER_OPEN_M)
        for name, value in start.items():
            self.data.qpos[self.qpos[name]] = value
        rest = resting_action()
        for _ in range(round(SETTLE_S * CONTROL_HZ)):
            self.step(rest)
        self.data.time = 0.0
        self._start_height = np.array([self.data.body(name).xpos[2] for name in EGG_NAMES])
        self.lifted = [False] * len(EGG_NAMES)

    def step(self, action: NDArray[np.floating]) -> None:
        """Do an action (23,) for 1/30 s.

        Raises:
            UserError: not 23 finite numbers.
        """
        action = np.asarray(action, dtype=np.float64)
        if action.shape != (ACTION_WIDTH,) or not np.isfinite(action).all():
            raise UserError(
                f"action: got shape {action.shape}{'' if np.isfinite(action).all() else ' with a NaN or an infinity'}; "
                f"the garden takes {ACTION_WIDTH} finite numbers"
            )
        wanted = np.clip(action, LOW, HIGH)
        self._command(wanted)
        for _ in range(SUBSTEPS):
            self._drive(wanted[:3])
            mujoco.mj_step(self.model, self.data)
        # mj_step leaves positions of the step before; what is seen and measured is of now
        mujoco.mj_forward(self.model, self.data)
        for side in SIDES:
            self._grasp(side, float(wanted[ACTION[f"gripper_{side}"].start]))
        for i in (egg for egg in self.held.values() if egg is not None):
            self.lifted[i] |= bool(self.data.body(EGG_NAMES[i]).xpos[2] > self._start_height[i] + LIFTED_M)

    def body_pose(self, name: str) -> Array:
        """Position and quaternion (7,) of a body in the world: x, y, z, then x, y, z, w."""
        body = self.data.body(name)
        return np.concatenate([body.xpos, body.xquat[1:], body.xquat[:1]])

    def opening(self, side: str) -> float:
        """Between a gripper's fingers, metres."""
        return float(sum(self.data.qpos[self.qpos[name]] for name in FINGER_JOINTS[side]))

    def task_info(self) -> NDArray[np.float32]:
        """Privileged poses (7,) each, one after the other, (56,): basket, eggs, trees.

        A tree that the instance does not have stands far beyond the lawn.
        """
        names = (BASKET, *EGG_NAMES, *TREE_NAMES)
        return np.concatenate([self.body_pose(name) for name in names]).astype(np.float32)

    def _command(self, wanted: Array) -> None:
        values: dict[str, float] = dict(zip(TRUNK_JOINTS, wanted[3:7], strict=True))
        for side in SIDES:
            dims = ACTION[f"arm_{side}"]
            values |= dict(zip(ARM_JOINTS[side], wanted[dims.start : dims.stop], strict=True))
            opening = (wanted[ACTION[f"gripper_{side}"].start] + 1) / 2 * FINGER_OPEN_M
            values |= dict.fromkeys(FINGER_JOINTS[side], opening)
        for name, value in values.items():
            self.data.ctrl[self._ctrl[name]] = value

    def _drive(self, velocity: Array) -> None:
        """The base's joints are of the world, its velocity is of the robot."""
        yaw = self.data.qpos[self.qpos["base_yaw"]]
        cos, sin = np.cos(yaw), np.sin(yaw)
        self.data.ctrl[self._ctrl["base_x"]] = cos * velocity[0] - sin * velocity[1]
        self.data.ctrl[self._ctrl["base_y"]] = sin * velocity[0] + cos * velocity[1]
        self.data.ctrl[self._ctrl["base_yaw"]] = velocity[2]

    def _grasp(self, side: str, gripper: float) -> None:
        held = self.held[side]
        if gripper >= LETS_GO:
            if held is not None:
                self.data.eq_active[self._welds[side, held]] = 0
                self.held[side] = None
            return
        low, high = CATCHES_BETWEEN_M
        if held is not None or not low < self.opening(side) < high:
            return
        middle = self.data.site(f"{side}_eef").xpos
        free = [i for i in range(len(EGG_NAMES)) if i not in self.held.values()]
        away = {i: float(np.linalg.norm(self.data.body(EGG_NAMES[i]).xpos - middle)) for i in free}
        nearest = min(away, key=lambda i: away[i])
        if away[nearest] <= GRASP_REACH_M:
            self._hold(side, nearest)

    def _hold(self, side: str, egg: int) -> None:
        """Hold an egg between the fingers, turned as it is; it is drawn to their middle."""
        hand, body, weld = self.data.body(f"{side}_hand"), self.data.body(EGG_NAMES[egg]), self._welds[side, egg]
        inverse, turned = np.empty(4), np.empty(4)
        mujoco.mju_negQuat(inverse, hand.xquat)
        mujoco.mju_mulQuat(turned, inverse, body.xquat)
        self.model.eq_data[weld, :3] = 0.0
        self.model.eq_data[weld, 3:10] = [0.0, 0.0, -GRIP_M, *turned]
        self.data.eq_active[weld] = 1
        self.held[side] = egg
