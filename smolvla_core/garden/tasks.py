"""The garden's tasks: what BEHAVIOR calls them, how their scenes are drawn, what counts, and who shows it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from smolvla_core.data.behavior.layout import EASTER_EGGS, PICKING_UP_TOYS
from smolvla_core.garden.errand import Errand, HideEggs, PickUpToys
from smolvla_core.garden.goal import EGGS_NEXT_TO_A_TREE, TOYS_IN_THE_BASKET, Goal
from smolvla_core.garden.instance import Instance, draw_instance, draw_toys


@dataclass(frozen=True)
class Task:
    """One task."""

    number: int
    """BEHAVIOR's."""
    draw: Callable[[int], Instance]
    """The scene of an instance's number."""
    goal: Goal
    errand: Callable[[], Errand]
    """What an expert does."""


TASKS: Mapping[str, Task] = MappingProxyType(
    {
        "hiding_easter_eggs": Task(EASTER_EGGS, draw_instance, EGGS_NEXT_TO_A_TREE, HideEggs),
        "picking_up_toys": Task(PICKING_UP_TOYS, draw_toys, TOYS_IN_THE_BASKET, PickUpToys),
    }
)
"""By the names that the command lines take; the first is the garden's own."""
