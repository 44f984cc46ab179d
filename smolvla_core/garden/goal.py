"""What counts: a task's literals, BEHAVIOR's Q, and the share of eggs placed.

``hiding_Easter_eggs``: all eggs next to one tree, none inside the basket, each on the lawn. Each tree is
a way to reach it, a ground option of nine literals. ``picking_up_toys``: every toy inside the basket, one
option of three literals; a toy in a hand is not inside yet. Q is 1 on success, else the best option's
share of literals that are true and were false at the start (BEHAVIOR-1K ``metrics/task_metric.py``).
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from smolvla_core.garden.scene import (
    BASKET,
    BASKET_HEIGHT_M,
    BASKET_RADIUS_M,
    EGG_NAMES,
    EGG_RADIUS_M,
    LAWN,
    TOY_NAMES,
    TREE_NAMES,
    TRUNK_RADIUS_M,
)
from smolvla_core.garden.world import World

NEXT_TO_M = 0.6
"""An egg is next to a tree when its middle is this near to the trunk, level."""
SETTLED_M_S = 0.05
"""An egg slower than this is at rest."""
TOUCHES_WITHIN_M = 0.005
UPRIGHT = np.cos(np.radians(30))
"""Cosine of the most that an upright basket leans."""


@dataclass(frozen=True)
class Score:
    """How far the task has come."""

    literals: Mapping[str, bool]
    """Of all ground options: ``nextto`` each tree, and those that all options share."""
    q: float
    success: bool
    eggs_placed: float
    """Share of eggs that a hand has lifted and that lie, at rest and let go, on the lawn outside an upright basket.

    Of toys: inside it.
    """


@dataclass(frozen=True)
class Goal:
    """What a task asks for."""

    literals: Callable[[World], dict[str, bool]]
    """Every literal by its name, as it is now."""
    options: Callable[[int], list[list[str]]]
    """Names of the literals of each ground option, by the number of trees."""
    lies_well: Callable[[World, int], bool]
    """Whether an egg or toy rests where the task wants it."""


def literals(world: World) -> dict[str, bool]:
    """Every literal by its name, as it is now."""
    assert world.instance is not None
    now = {}
    for i, egg in enumerate(EGG_NAMES):
        place = world.data.body(egg).xpos
        for tree, axis in zip(TREE_NAMES, world.instance.trees, strict=False):
            away = float(np.hypot(*(place[:2] - axis))) - TRUNK_RADIUS_M
            now[f"nextto({egg}, {tree})"] = away <= NEXT_TO_M
        now[f"not inside({egg}, {BASKET})"] = not _inside_basket(world, egg)
        now[f"ontop({egg}, {LAWN})"] = on_lawn(world, i)
    return now


def options(trees: int) -> list[list[str]]:
    """Names of the nine literals of each ground option."""
    return [
        [f"nextto({egg}, {tree})" for egg in EGG_NAMES]
        + [f"not inside({egg}, {BASKET})" for egg in EGG_NAMES]
        + [f"ontop({egg}, {LAWN})" for egg in EGG_NAMES]
        for tree in TREE_NAMES[:trees]
    ]


def toy_literals(world: World) -> dict[str, bool]:
    """The same of toys."""
    return {f"inside({toy}, {BASKET})": in_basket(world, i) for i, toy in enumerate(TOY_NAMES)}


def toy_options(trees: int) -> list[list[str]]:
    """The one ground option of toys."""
    return [[f"inside({toy}, {BASKET})" for toy in TOY_NAMES]]


def on_lawn(world: World, i: int) -> bool:
    """Whether an egg rests on the lawn by itself: touches it, is held by no hand, and does not move."""
    egg = EGG_NAMES[i]
    touches = world.data.body(egg).xpos[2] < EGG_RADIUS_M + TOUCHES_WITHIN_M
    return bool(touches) and not _inside_basket(world, egg) and _at_rest(world, i)


def in_basket(world: World, i: int) -> bool:
    """Whether a toy rests inside the basket, let go."""
    return _inside_basket(world, EGG_NAMES[i]) and _at_rest(world, i)


EGGS_NEXT_TO_A_TREE = Goal(literals, options, on_lawn)
TOYS_IN_THE_BASKET = Goal(toy_literals, toy_options, in_basket)


def score(world: World, at_start: Mapping[str, bool], goal: Goal = EGGS_NEXT_TO_A_TREE) -> Score:
    """The score now; ``at_start`` are the literals of the episode's first moment."""
    assert world.instance is not None
    now = goal.literals(world)
    ways = goal.options(len(world.instance.trees))
    success = any(all(now[name] for name in way) for way in ways)
    return Score(now, 1.0 if success else q_score(at_start, now, ways), success, eggs_placed(world, goal))


def q_score(at_start: Mapping[str, bool], now: Mapping[str, bool], ways: Sequence[Sequence[str]]) -> float:
    """The best option's share of literals that have become true."""
    return max(sum(now[name] and not at_start[name] for name in way) / len(way) for way in ways)


def eggs_placed(world: World, goal: Goal = EGGS_NEXT_TO_A_TREE) -> float:
    """Share of eggs, or toys, that were lifted and now lie as they should; see `Score`."""
    if world.data.body(BASKET).xmat[8] < UPRIGHT:
        return 0.0
    return float(np.mean([world.lifted[i] and goal.lies_well(world, i) for i in range(len(EGG_NAMES))]))


def _inside_basket(world: World, egg: str) -> bool:
    basket = world.data.body(BASKET)
    place = basket.xmat.reshape(3, 3).T @ (world.data.body(egg).xpos - basket.xpos)
    return bool(np.hypot(*place[:2]) < BASKET_RADIUS_M and -EGG_RADIUS_M < place[2] < BASKET_HEIGHT_M)


def _at_rest(world: World, i: int) -> bool:
    """Whether no hand holds an egg, and it does not move."""
    dof = world.model.joint(f"{EGG_NAMES[i]}_free").dofadr[0]
    speed = float(np.linalg.norm(world.data.qvel[dof : dof + 3]))
    return i not in world.held.values() and speed < SETTLED_M_S
