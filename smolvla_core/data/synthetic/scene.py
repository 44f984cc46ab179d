"""Scripted Easter-egg hiding: where basket, tree and eggs are, in the world's frame or the robot's.

Frames: the world's x is forward and y left at the start; metres, radians. E eggs.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

MAX_EGGS = 3
EGG_HEIGHT_M = 0.03
"""Of an egg's middle where it lies."""


@dataclass(frozen=True)
class Scene:
    """What one episode looks like at its start, in the world's frame."""

    basket: Array
    """(2,)."""
    tree: Array
    """(2,)."""
    eggs: Array
    """(E, 2) in the basket."""
    drops: Array
    """(E, 2) where each egg will lie."""
    side: int
    """The arm that works: 0 left, 1 right; the basket's side."""


def draw_scene(rng: np.random.Generator, eggs: int) -> Scene:
    """A scene with ``eggs`` eggs; basket and tree stand on opposite sides."""
    side = int(rng.integers(2))
    sign = 1.0 if side == 0 else -1.0
    basket = np.array([rng.uniform(0.55, 0.85), sign * rng.uniform(0.15, 0.40)])
    tree = np.array([rng.uniform(0.70, 1.00), -sign * rng.uniform(0.05, 0.35)])
    angles = rng.uniform(0, 2 * np.pi) + np.arange(eggs) * 2 * np.pi / MAX_EGGS
    ring = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    return Scene(basket, tree, basket + 0.05 * ring, tree + 0.16 * _towards(ring, -tree), side)


def to_robot(points: Array, base: Array) -> Array:
    """World points (..., 2) seen from a base pose (3,)."""
    cos, sin = np.cos(base[2]), np.sin(base[2])
    rotation = np.array([[cos, sin], [-sin, cos]])
    return np.asarray((points - base[:2]) @ rotation.T)


def to_world(points: Array, base: Array) -> Array:
    """Points (..., 2) of the robot's frame, in the world."""
    cos, sin = np.cos(base[2]), np.sin(base[2])
    rotation = np.array([[cos, -sin], [sin, cos]])
    return np.asarray(points @ rotation.T + base[:2])


def _towards(ring: Array, direction: Array) -> Array:
    """Ring points turned to the half plane of ``direction``: eggs lie on the robot's side."""
    heading = np.arctan2(direction[1], direction[0])
    spread = (np.arange(len(ring)) - (len(ring) - 1) / 2) * 0.7
    return np.stack([np.cos(heading + spread), np.sin(heading + spread)], axis=1)
