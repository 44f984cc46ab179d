"""Inverse kinematics of the two arms, in the robot's own frame: hands to where they should be.

Differential: each call moves the joints a step of 1/30 s towards the hands' targets, within the joints'
limits and a speed, and keeps what the hands leave open near a posture. Solver: `mink
<https://github.com/kevinzakka/mink>`_ with DAQP.
"""

from collections.abc import Mapping

import mink
import mujoco
import numpy as np
from numpy.typing import NDArray

from smolvla_core.garden.robot import ARM_HOME, ARM_JOINTS, SIDES, TRUNK_DRIVE, TRUNK_JOINTS, add_robot
from smolvla_core.live import CONTROL_HZ

Array = NDArray[np.float64]

MOST_JOINT_SPEED = 2.2
"""rad/s."""
ELBOW, STRAIGHTEST = 3, -0.12
"""The elbow's place in an arm, and how far it may straighten, radians."""
_DOWN = np.array([0.0, 1.0, 0.0, 0.0])
"""A hand that points at the ground, its fingers opening forward and back."""


class Reach:
    """The arms' joints, and how they follow the hands' targets."""

    def __init__(self) -> None:
        spec = mujoco.MjSpec()
        add_robot(spec, mobile=False)
        self._model = spec.compile()
        for side in SIDES:
            elbow = self._model.joint(ARM_JOINTS[side][ELBOW])
            elbow.range[1] = STRAIGHTEST  # beyond straight, the elbow would come back on the wrong side
        joints = {name: self._model.joint(name) for name in (*TRUNK_JOINTS, *ARM_JOINTS["left"], *ARM_JOINTS["right"])}
        self._trunk = np.array([joints[name].qposadr[0] for name in TRUNK_JOINTS])
        self._arms = {side: np.array([joints[name].qposadr[0] for name in ARM_JOINTS[side]]) for side in SIDES}
        self._configuration = mink.Configuration(self._model)
        self._hands = {
            side: mink.FrameTask(f"{side}_eef", "site", position_cost=1.0, orientation_cost=0.1, lm_damping=1e-3)
            for side in SIDES
        }
        self._posture = mink.PostureTask(self._model, cost=0.01)
        arm_dofs = set(np.concatenate([[joints[n].dofadr[0] for n in ARM_JOINTS[side]] for side in SIDES]))
        others = [dof for dof in range(self._model.nv) if dof not in arm_dofs]
        self._still = mink.DofFreezingTask(self._model, others)
        speeds = {name: MOST_JOINT_SPEED for side in SIDES for name in ARM_JOINTS[side]}
        self._limits = [mink.ConfigurationLimit(self._model), mink.VelocityLimit(self._model, speeds)]
        self.reset()

    def reset(self, arms: Mapping[str, Array] = ARM_HOME, trunk: Array = TRUNK_DRIVE) -> None:
        """Start from a posture, to which the arms also tend."""
        q = self._model.qpos0.copy()
        for side in SIDES:
            q[self._arms[side]] = ARM_HOME[side]
        self._posture.set_target(q)
        q[self._trunk] = trunk
        for side in SIDES:
            q[self._arms[side]] = arms[side]
        self._configuration.update(q)

    def hands(self) -> dict[str, Array]:
        """Where the joints put the hands, (3,) each."""
        data = self._configuration.data
        return {side: data.site(f"{side}_eef").xpos.copy() for side in SIDES}

    def step(self, trunk: Array, targets: Mapping[str, Array]) -> dict[str, Array]:
        """Joints (7,) of each arm after one control step towards targets (3,) in the robot's frame."""
        q = self._configuration.q.copy()
        q[self._trunk] = trunk
        self._configuration.update(q)
        for side, task in self._hands.items():
            task.set_target(mink.SE3(np.concatenate([_DOWN, targets[side]])))
        velocity = mink.solve_ik(
            self._configuration,
            [*self._hands.values(), self._posture],
            1 / CONTROL_HZ,
            solver="daqp",
            damping=1e-4,
            limits=self._limits,
            constraints=[self._still],
        )
        self._configuration.integrate_inplace(velocity, 1 / CONTROL_HZ)
        return {side: self._configuration.q[self._arms[side]].copy() for side in SIDES}
