"""What the garden's tests share: a world at an instance, and whether pictures can be drawn here."""

import hashlib

import mujoco
import numpy as np
import pytest

from smolvla_core.garden.cameras import Cameras, NoDisplayError
from smolvla_core.garden.instance import draw_instance
from smolvla_core.garden.scene import EGG_NAMES
from smolvla_core.garden.world import World, resting_action


def world_at(instance: int) -> World:
    world = World()
    world.reset(draw_instance(instance))
    return world


def put(world: World, egg: int, place) -> None:
    """Move an egg to x, y, z, at rest."""
    joint = world.data.joint(f"{EGG_NAMES[egg]}_free")
    joint.qpos[:3], joint.qvel[:] = place, 0.0
    mujoco.mj_forward(world.model, world.data)


def wait(world: World, seconds: float, **grippers: float) -> None:
    """Rest, with the grippers at -1 to 1."""
    action = resting_action()
    action[14], action[22] = grippers.get("left", 1.0), grippers.get("right", 1.0)
    for _ in range(round(30 * seconds)):
        world.step(action)


def digest(world: World, actions) -> str:
    """Of all positions and velocities on the way through some actions."""
    sha = hashlib.sha256()
    for action in actions:
        world.step(action)
        sha.update(world.data.qpos.tobytes() + world.data.qvel.tobytes())
    return sha.hexdigest()


def needs_pictures() -> None:
    """Skip where EGL is missing."""
    try:
        Cameras(World().model, {"head": 16}).close()
    except NoDisplayError as error:
        pytest.skip(str(error))


def near(a, b, within: float) -> bool:
    return bool(np.linalg.norm(np.asarray(a) - np.asarray(b)) < within)
