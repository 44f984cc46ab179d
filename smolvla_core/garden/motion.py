"""How the expert moves: smoothly towards where something should be, at limited speed and acceleration.

Commands at 30 Hz that change gently can be imitated in chunks.
"""

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from smolvla_core.garden.instance import wrapped
from smolvla_core.live import CONTROL_HZ

Array = NDArray[np.float64]

DRIVE_SPEED, TURN_SPEED = 0.72, 0.95
"""m/s and rad/s, a little below what an action may ask for."""
_DRIVE_GAIN, _TURN_GAIN = 3.5, 3.5
_DRIVE_ACCELERATION, _TURN_ACCELERATION = 2.6, 3.5
HAND_SPEED = 0.75
_HAND_GAIN, _HAND_ACCELERATION = 7.0, 4.0


def approach(velocity: Array, wanted: Array, most: float) -> Array:
    """A velocity one control step later: towards the wanted one, by at most an acceleration."""
    change = wanted - velocity
    size, limit = float(np.linalg.norm(change)), most / CONTROL_HZ
    return velocity + change * min(1.0, limit / size) if size > 0 else velocity


def capped(vector: Array, most: float) -> Array:
    """A vector, shortened to a length."""
    size = float(np.linalg.norm(vector))
    return vector if size <= most else vector * (most / size)


def seen_from(base: Array, points: Array) -> Array:
    """World points (..., 2) in the frame of a base pose (3,): x, y, yaw."""
    cos, sin = np.cos(base[2]), np.sin(base[2])
    return np.asarray((points - base[:2]) @ np.array([[cos, -sin], [sin, cos]]))


@dataclass
class Drive:
    """The base's velocity (3,) in its own frame."""

    speed: float = 1.0
    """Share of the full speed."""
    velocity: Array = field(default_factory=lambda: np.zeros(3))

    def turn(self, rate: float) -> Array:
        """Turn on the spot, rad/s (to the left above 0)."""
        return self._follow(np.zeros(2), rate)

    def towards(self, base: Array, goal: Array) -> Array:
        """Drive from a pose (3,) to another; the base is holonomic, so the way is straight."""
        ahead = capped(_DRIVE_GAIN * seen_from(base, goal[:2]), DRIVE_SPEED * self.speed)
        most = TURN_SPEED * self.speed
        return self._follow(ahead, float(np.clip(_TURN_GAIN * wrapped(goal[2] - base[2]), -most, most)))

    def _follow(self, level: Array, rate: float) -> Array:
        turning = approach(self.velocity[2:], np.array([rate]), _TURN_ACCELERATION)
        self.velocity = np.concatenate([approach(self.velocity[:2], level, _DRIVE_ACCELERATION), turning])
        return self.velocity


@dataclass
class Hand:
    """Where a hand is asked to be, in the robot's frame."""

    place: Array
    """(3,)."""
    speed: float = 1.0
    velocity: Array = field(default_factory=lambda: np.zeros(3))

    def towards(self, goal: Array) -> Array:
        """The place (3,) one control step later."""
        wanted = capped(_HAND_GAIN * (goal - self.place), HAND_SPEED * self.speed)
        self.velocity = approach(self.velocity, wanted, _HAND_ACCELERATION)
        self.place = self.place + self.velocity / CONTROL_HZ
        return self.place
