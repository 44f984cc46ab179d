"""What the expert fetches from where, and where it puts it: one errand for each task of the garden.

Errands look at the privileged poses alone. Places are (2,) in the world's frame, heights are above the
lawn, slots are in the robot's frame; metres.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from smolvla_core.garden.instance import EGGS
from smolvla_core.garden.scene import (
    BASKET,
    BASKET_HEIGHT_M,
    BASKET_RADIUS_M,
    EGG_NAMES,
    LAWN,
    TOY_NAMES,
    TREE_NAMES,
    TRUNK_RADIUS_M,
)

Array = NDArray[np.float64]
Slots = Mapping[str, Sequence[tuple[float, float]]]

DROP_M = 0.50
"""From a tree's axis to the middle of where eggs are laid."""
_LIES_WELL_M = 0.55
"""An egg this near to the trunk needs no more fetching."""
_TOGETHER_M = 0.20
"""Toys this near to their middle are picked up from one place."""


@dataclass(frozen=True)
class Seen:
    """Where things are."""

    basket: Array
    """(2,)."""
    things: Array
    """(3, 3) eggs or toys."""
    trees: Array
    """(N, 2)."""
    tree: int
    """The tree that was the nearest to the basket at the start."""


class Errand(Protocol):
    """What `Expert` asks."""

    things: Sequence[str]
    source: str
    """What they are picked up from."""
    place: str
    """The skill of putting one down, in the words of BEHAVIOR's annotations."""
    slots: Slots
    """Where a hand puts a thing down: the first that is free."""
    drop_height: float

    def left(self, seen: Seen) -> list[int]:
        """Things that are still to be fetched."""

    def next(self, seen: Seen, left: Sequence[int]) -> tuple[Array, list[int]]:
        """The place (2,) to stand before, and which of the things can be picked up there."""

    def towards(self, seen: Seen, things: Sequence[int]) -> tuple[str, ...]:
        """What the robot moves to for these things."""

    def drop(self, seen: Seen) -> Array:
        """The place (2,) to stand before with full hands."""

    def target(self, seen: Seen) -> tuple[str, ...]:
        """What a thing is put on, next to or into."""


class HideEggs:
    """Eggs out of the basket, next to the tree that is nearest to it."""

    things: Sequence[str] = EGG_NAMES
    source = BASKET
    place = "place on next to"
    slots: Slots = MappingProxyType(
        {"left": ((0.56, 0.13), (0.43, 0.05), (0.48, 0.24)), "right": ((0.56, -0.13), (0.43, -0.05), (0.48, -0.24))}
    )
    drop_height = 0.042

    def left(self, seen: Seen) -> list[int]:
        """Eggs that do not lie next to the tree yet."""
        away = np.linalg.norm(seen.things[:, :2] - seen.trees[seen.tree], axis=1) - TRUNK_RADIUS_M
        return [i for i in range(EGGS) if away[i] > _LIES_WELL_M]

    def next(self, seen: Seen, left: Sequence[int]) -> tuple[Array, list[int]]:
        """The basket, or an egg that lies elsewhere."""
        inside = [i for i in left if np.linalg.norm(seen.things[i, :2] - seen.basket) < BASKET_RADIUS_M]
        return (seen.basket, inside) if inside else (seen.things[left[0], :2], [left[0]])

    def towards(self, seen: Seen, things: Sequence[int]) -> tuple[str, ...]:
        """The basket."""
        return (BASKET,)

    def drop(self, seen: Seen) -> Array:
        """Beside the tree, on the basket's side of it."""
        away = seen.basket - seen.trees[seen.tree]
        return np.asarray(seen.trees[seen.tree] + DROP_M * away / np.linalg.norm(away))

    def target(self, seen: Seen) -> tuple[str, ...]:
        """The lawn and the tree."""
        return (LAWN, TREE_NAMES[seen.tree])


class PickUpToys:
    """Toys from the lawn into the basket."""

    things: Sequence[str] = TOY_NAMES
    source = LAWN
    place = "place in"
    slots: Slots = MappingProxyType({"left": ((0.53, 0.075), (0.47, 0.06)), "right": ((0.53, -0.075), (0.47, -0.06))})
    drop_height = BASKET_HEIGHT_M + 0.03

    def left(self, seen: Seen) -> list[int]:
        """Toys that are not in the basket yet."""
        away = np.linalg.norm(seen.things[:, :2] - seen.basket, axis=1)
        return [i for i in range(EGGS) if away[i] > BASKET_RADIUS_M]

    def next(self, seen: Seen, left: Sequence[int]) -> tuple[Array, list[int]]:
        """The middle of the toys, or one of them where they lie apart."""
        places = seen.things[list(left), :2]
        middle = places.mean(axis=0)
        together = np.linalg.norm(places - middle, axis=1).max() < _TOGETHER_M
        return (middle, list(left)) if together else (places[0], [left[0]])

    def towards(self, seen: Seen, things: Sequence[int]) -> tuple[str, ...]:
        """The toys."""
        return tuple(self.things[i] for i in things)

    def drop(self, seen: Seen) -> Array:
        """The basket."""
        return seen.basket

    def target(self, seen: Seen) -> tuple[str, ...]:
        """The basket."""
        return (BASKET,)
