"""Grasps that go astray: what is done, and what was meant all the while.

A demonstration records what was meant. Where a hand goes down beside an egg, the recording therefore says
to go over the egg with an open gripper, from places and pictures that a policy gets to by its own mistakes
(corrections as in DART and DAgger, by an expert that knows where the egg is).
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from smolvla_core.garden.motion import Hand
from smolvla_core.garden.reach import Reach

Array = NDArray[np.float64]

_ASTRAY_M = (0.03, 0.09)
EMPTY_FROM_M = 0.07
"""A gripper that closes further than this from every egg catches none, wherever within its tolerance the hand is."""


@dataclass(frozen=True)
class Miss:
    """How a grasp goes astray."""

    distance: float
    """Metres from the egg; less than eggs lie apart."""
    angle: float
    """Radians, from the way to the middle of what is picked up; within a right angle, so that no rim is hit."""
    closes: bool
    """Whether the gripper closes there, if no egg is near; else the hand turns back with an open one."""

    def offset(self, egg: Array, middle: Array) -> Array:
        """Where the hand goes, from the egg (2,), in the frame of the egg (2,) and the middle (2,)."""
        inwards = math.atan2(*(middle - egg)[::-1]) + self.angle
        return self.distance * np.array([math.cos(inwards), math.sin(inwards)])


def draw_miss(rng: np.random.Generator) -> Miss:
    """A random one."""
    return Miss(
        distance=float(rng.uniform(*_ASTRAY_M)),
        angle=float(rng.uniform(-math.pi / 2, math.pi / 2)),
        closes=bool(rng.random() < 0.5),
    )


class Intention:
    """The arms' joints as they should be while hands are astray: they go over their eggs, and stay there."""

    def __init__(self) -> None:
        self._reach = Reach()
        self._hands: dict[str, Hand] = {}
        self._arms: Mapping[str, Array] = {}

    def arms(
        self, trunk: Array, done: Mapping[str, Array], hands: Mapping[str, Hand], over: Mapping[str, Array]
    ) -> dict[str, Array]:
        """Joints (7,) of each arm that is astray, one control step on.

        Args:
            trunk: (4,) its joints.
            done: joints (7,) of both arms, of what is done.
            hands: both, of what is done.
            over: the place (3,) over the egg, in the robot's frame, of each hand that is astray.
        """
        if over and not self._hands:
            self._reach.reset(self._arms or done, trunk)
        self._arms = done
        self._hands = {side: self._hands.get(side) or replace(hands[side]) for side in over}
        if not over:
            return {}
        places = {side: hand.place for side, hand in hands.items()}
        places |= {side: hand.towards(over[side]) for side, hand in self._hands.items()}
        joints = self._reach.step(trunk, places)
        return {side: joints[side] for side in over}
