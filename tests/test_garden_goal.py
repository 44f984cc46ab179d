"""What counts in the garden: each literal flips when it should, Q by hand, and how an egg is held."""

import mujoco
import numpy as np
import pytest

from smolvla_core.garden.goal import (
    NEXT_TO_M,
    TOYS_IN_THE_BASKET,
    eggs_placed,
    literals,
    options,
    q_score,
    score,
    toy_literals,
)
from smolvla_core.garden.instance import draw_toys
from smolvla_core.garden.scene import BASKET, EGG_NAMES, EGG_RADIUS_M, LAWN, TREE_NAMES, TRUNK_RADIUS_M
from smolvla_core.garden.world import World
from tests.garden_fixtures import near, put, wait, world_at


@pytest.fixture
def world():
    return world_at(7)


def beside(world, tree, away, angle=0.0):
    """A place on the lawn, metres from a tree's bark."""
    reach = TRUNK_RADIUS_M + away
    level = world.instance.trees[tree] + reach * np.array([np.cos(angle), np.sin(angle)])
    return [*level, EGG_RADIUS_M]


def lay(world, egg, place):
    put(world, egg, place)
    wait(world, 0.4)


def test_at_the_start_nothing_is_done(world):
    assert not any(literals(world).values())
    assert len(literals(world)) == 3 * len(world.instance.trees) + 6
    assert all(len(way) == 9 for way in options(len(world.instance.trees)))


def test_each_literal_flips_when_it_should(world):
    egg, tree = EGG_NAMES[1], TREE_NAMES[0]
    away = world.instance.basket + 0.6 * (world.instance.basket - world.instance.trees[0])
    lay(world, 1, [*away, EGG_RADIUS_M])
    now = literals(world)
    assert (now[f"not inside({egg}, {BASKET})"], now[f"ontop({egg}, {LAWN})"]) == (True, True)
    assert not now[f"nextto({egg}, {tree})"]
    lay(world, 1, beside(world, 0, NEXT_TO_M + 0.03))
    assert not literals(world)[f"nextto({egg}, {tree})"]
    lay(world, 1, beside(world, 0, NEXT_TO_M - 0.03))
    assert literals(world)[f"nextto({egg}, {tree})"]
    assert not literals(world)[f"nextto({egg}, {TREE_NAMES[1]})"]
    put(world, 1, [*beside(world, 0, 0.3)[:2], 0.5])
    assert not literals(world)[f"ontop({egg}, {LAWN})"]  # in the air
    assert literals(world)[f"not inside({egg}, {BASKET})"]
    lay(world, 1, [*world.instance.basket, 0.06])
    assert not any(value for name, value in literals(world).items() if egg in name)


def test_an_egg_that_rolls_is_not_on_the_lawn_yet(world):
    put(world, 0, beside(world, 0, 0.3))
    world.data.joint(f"{EGG_NAMES[0]}_free").qvel[:2] = 0.5, 0.0
    mujoco.mj_forward(world.model, world.data)
    assert not literals(world)[f"ontop({EGG_NAMES[0]}, {LAWN})"]


def test_q_and_success(world):
    start = literals(world)
    lay(world, 0, beside(world, 0, 0.3, 0.0))
    assert score(world, start).q == pytest.approx(3 / 9)
    lay(world, 1, beside(world, 1, 0.3, 0.0))  # at another tree: two literals of either option, and one of its own
    assert score(world, start).q == pytest.approx(5 / 9)
    lay(world, 1, beside(world, 0, 0.3, 1.0))
    lay(world, 2, beside(world, 0, 0.3, 2.0))
    done = score(world, start)
    assert (done.q, done.success) == (1.0, True)
    assert done.eggs_placed == 0.0  # no hand has lifted one
    world.lifted = [True, True, False]
    assert score(world, start).eggs_placed == pytest.approx(2 / 3)


def test_a_toy_is_inside_the_basket_once_it_rests_there_let_go():
    world = World()
    world.reset(draw_toys(7))
    start, basket = toy_literals(world), world.instance.basket
    assert start == {f"inside(toy_ball_{i}, {BASKET})": False for i in (1, 2, 3)}
    lay(world, 1, [*basket, 0.05])
    inside = f"inside(toy_ball_2, {BASKET})"
    assert toy_literals(world) == start | {inside: True}
    world.held["left"] = 1
    assert not toy_literals(world)[inside]
    world.held["left"] = None
    world.data.joint(f"{EGG_NAMES[1]}_free").qvel[:2] = 0.5, 0.0
    assert not toy_literals(world)[inside]
    world.data.joint(f"{EGG_NAMES[1]}_free").qvel[:2] = 0.0
    now = score(world, start, TOYS_IN_THE_BASKET)
    assert (now.q, now.success, now.eggs_placed) == (pytest.approx(1 / 3), False, 0.0)
    world.lifted[1] = True
    assert score(world, start, TOYS_IN_THE_BASKET).eggs_placed == pytest.approx(1 / 3)
    lay(world, 0, [basket[0] + 0.08, basket[1], 0.05])
    lay(world, 2, [basket[0], basket[1] + 0.08, 0.05])
    done = score(world, start, TOYS_IN_THE_BASKET)
    assert (done.q, done.success) == (1.0, True)
    lay(world, 1, [*(basket + [0.5, 0.0]), EGG_RADIUS_M])
    assert toy_literals(world) == dict.fromkeys(start, True) | {inside: False}


def test_what_was_true_at_the_start_earns_nothing():
    ways = [["a", "b", "c"], ["d", "b", "c"]]
    now = {"a": True, "b": True, "c": False, "d": False}
    nothing = dict.fromkeys(now, False)
    assert q_score(nothing, now, ways) == pytest.approx(2 / 3)
    assert q_score(nothing | {"b": True}, now, ways) == pytest.approx(1 / 3)
    assert q_score(now, now, ways) == 0.0


def test_eggs_beside_a_tipped_basket_do_not_count(world):
    lay(world, 0, beside(world, 0, 0.3))
    world.lifted[0] = True
    assert eggs_placed(world) == pytest.approx(1 / 3)
    joint = world.data.joint(f"{BASKET}_free")
    joint.qpos[2], joint.qpos[3:7] = 0.2, [np.cos(np.pi / 4), np.sin(np.pi / 4), 0, 0]
    mujoco.mj_forward(world.model, world.data)
    assert eggs_placed(world) == 0.0


def test_a_closing_gripper_holds_an_egg_and_lets_go(world):
    eef = world.data.site("left_eef").xpos
    put(world, 0, eef + [0.0, 0.03, -0.02])
    wait(world, 0.3, left=-1.0)
    assert world.held == {"left": 0, "right": None}
    wait(world, 0.5, left=-1.0)
    assert near(world.data.body(EGG_NAMES[0]).xpos, world.data.site("left_eef").xpos, 0.01)
    assert world.opening("left") == pytest.approx(2 * EGG_RADIUS_M, abs=0.006)  # the fingers feel it
    assert not literals(world)[f"ontop({EGG_NAMES[0]}, {LAWN})"]
    assert world.lifted == [True, False, False]
    wait(world, 1.0)
    assert world.held["left"] is None
    assert world.data.body(EGG_NAMES[0]).xpos[2] < 0.05


@pytest.mark.parametrize("offset", [[0.0, 0.07, 0.0], [0.0, 0.0, -0.07]])
def test_a_gripper_that_closes_beside_an_egg_holds_nothing(world, offset):
    world.model.opt.gravity[:] = 0.0
    put(world, 0, world.data.site("left_eef").xpos + offset)
    wait(world, 0.8, left=-1.0)
    assert world.held["left"] is None
    assert world.opening("left") < 0.004


def test_a_shut_gripper_catches_nothing(world):
    wait(world, 0.8, right=-1.0)
    world.model.opt.gravity[:] = 0.0
    put(world, 2, world.data.site("right_eef").xpos + [0.0, 0.04, 0.0])
    wait(world, 0.3, right=-1.0)
    assert world.held["right"] is None
