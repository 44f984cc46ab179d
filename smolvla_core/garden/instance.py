"""What one numbered instance of the garden looks like at its start. Everything follows from the number.

The robot starts in the middle, looking anywhere. The basket stands at any bearing, near or far, so that
a policy has to look for it; one tree stands near the basket, to the side of the robot's way to it, and
others further off. Metres, radians; positions in the world's frame.
"""

import math
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Colour = tuple[float, float, float]

EGGS = 3
MOST_TREES = 4

BASKET_DISTANCE_M = (0.9, 3.0)
"""From the robot's start."""
TREE_DISTANCE_M = (1.0, 1.25)
"""Of the nearest tree's axis, from the basket's middle."""
TREE_ANGLE = (math.radians(75), math.radians(110))
"""Between the robot's way to the basket, prolonged, and the way from there to the nearest tree; to either side."""
OTHER_TREES = (1, 3)
"""How many others there are, both included."""
OTHER_TREE_DISTANCE_M = (2.0, 4.5)
"""Of the other trees, from the basket."""
EGG_RADIUS_M = (0.07, 0.105)
"""Of the eggs' places, from the basket's middle."""
EGG_SPREAD = math.radians(18)
"""Eggs lie a third of a turn apart, give or take this."""
TRUNK_WIDTH_KEPT_FREE_M = 1.1
"""Other trees keep this far from the robot's way to the basket."""

PALETTE: tuple[Colour, ...] = (
    (0.93, 0.16, 0.22),
    (0.15, 0.35, 0.95),
    (0.98, 0.82, 0.10),
    (0.95, 0.35, 0.80),
    (0.98, 0.50, 0.08),
    (0.15, 0.80, 0.90),
)
"""The eggs' colours; an instance has three of them."""

_STREAM = 20_060
"""Keeps the instances' draws apart from any other use of the same small numbers."""


@dataclass(frozen=True)
class Instance:
    """A scene's start."""

    number: int
    yaw: float
    """Where the robot looks; it stands at the origin."""
    basket: Array
    """(2,)."""
    basket_yaw: float
    eggs: Array
    """(3, 2)."""
    trees: Array
    """(N, 2); the first is the nearest to the basket."""
    egg_colours: tuple[Colour, ...]
    lawn: Colour
    wicker: Colour
    bark: Colour
    crown: Colour
    sun: Array
    """(3,), the way the light goes."""
    brightness: float
    toys: bool = False
    """Whether the three things are balls that lie on the lawn, instead of eggs in the basket."""

    @property
    def bearing(self) -> float:
        """Of the basket, as the robot sees it at the start, in (-pi, pi]."""
        return wrapped(math.atan2(self.basket[1], self.basket[0]) - self.yaw)


def draw_instance(number: int) -> Instance:
    """The instance of a number, 0 or more; the same number gives the same scene, on any machine."""
    return _draw(number, np.random.default_rng([_STREAM, number]))


def draw_toys(number: int) -> Instance:
    """A scene of the second task: toys lie where an egg hunt has its basket, the basket stands in for the nearest tree.

    Ranges are those of `draw_instance`; there is one tree or more.
    """
    scene = _draw(number, np.random.default_rng([_STREAM, number, 1]))
    return replace(scene, basket=scene.trees[0], trees=scene.trees[1:], toys=True)


def _draw(number: int, rng: np.random.Generator) -> Instance:
    yaw = float(rng.uniform(-math.pi, math.pi))
    way = float(rng.uniform(-math.pi, math.pi))
    basket = rng.uniform(*BASKET_DISTANCE_M) * _direction(way)
    side = 1.0 if rng.random() < 0.5 else -1.0
    nearest = basket + rng.uniform(*TREE_DISTANCE_M) * _direction(way + side * rng.uniform(*TREE_ANGLE))
    trees = _other_trees(rng, basket, [nearest])
    turn = rng.uniform(0, 2 * math.pi)
    angles = turn + np.arange(EGGS) * 2 * math.pi / EGGS + rng.uniform(-EGG_SPREAD, EGG_SPREAD, EGGS)
    radii = rng.uniform(*EGG_RADIUS_M, EGGS)
    eggs = basket + radii[:, None] * np.stack([np.cos(angles), np.sin(angles)], axis=1)
    colours = rng.permutation(len(PALETTE))[:EGGS]
    height, around = rng.uniform(math.radians(35), math.radians(80)), rng.uniform(-math.pi, math.pi)
    return Instance(
        number=number,
        yaw=yaw,
        basket=basket,
        basket_yaw=float(rng.uniform(-math.pi, math.pi)),
        eggs=eggs,
        trees=np.stack(trees),
        egg_colours=tuple(PALETTE[i] for i in colours),
        lawn=_near(rng, (0.75, 1.0, 0.70), 0.15),
        wicker=_near(rng, (0.80, 0.62, 0.36), 0.08),
        bark=_near(rng, (0.36, 0.23, 0.14), 0.06),
        crown=_near(rng, (0.14, 0.42, 0.12), 0.06),
        sun=-np.array([*(math.cos(height) * _direction(around)), math.sin(height)]),
        brightness=float(rng.uniform(0.75, 1.05)),
    )


def wrapped(angle: float) -> float:
    """An angle, in (-pi, pi]."""
    return math.pi - (math.pi - angle) % (2 * math.pi)


def _direction(angle: float) -> Array:
    return np.array([math.cos(angle), math.sin(angle)])


def _near(rng: np.random.Generator, colour: Colour, most: float) -> Colour:
    shifted = np.clip(np.asarray(colour) + rng.uniform(-most, most, 3), 0.0, 1.0)
    return (float(shifted[0]), float(shifted[1]), float(shifted[2]))


def _other_trees(rng: np.random.Generator, basket: Array, trees: list[Array]) -> list[Array]:
    """The given trees and others, apart from each other and from the robot's way."""
    wanted = len(trees) + int(rng.integers(OTHER_TREES[0], OTHER_TREES[1] + 1))
    while len(trees) < wanted:
        place = basket + rng.uniform(*OTHER_TREE_DISTANCE_M) * _direction(rng.uniform(-math.pi, math.pi))
        along = float(np.clip(place @ basket / (basket @ basket), 0.0, 1.0))
        free = np.linalg.norm(place - along * basket) > TRUNK_WIDTH_KEPT_FREE_M
        if free and all(np.linalg.norm(place - tree) > 1.2 for tree in trees):
            trees.append(place)
    return trees
