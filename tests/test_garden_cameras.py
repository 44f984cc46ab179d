"""The garden's pictures: BEHAVIOR's intrinsics, the same twice, and one clear line where EGL is missing."""

import math

import numpy as np
import pytest

from smolvla_core.garden import cameras as cameras_module
from smolvla_core.garden.cameras import Cameras, NoDisplayError
from smolvla_core.garden.display import main as display
from smolvla_core.garden.env import GardenEnv
from smolvla_core.garden.robot import CAMERAS
from smolvla_core.garden.scene import EGG_NAMES
from smolvla_core.live import CAMERAS as LIVE
from tests.garden_fixtures import needs_pictures, put, world_at

INTRINSICS = {"head": (720, 306.0), "left_wrist": (480, 388.6639), "right_wrist": (480, 388.6639)}


@pytest.fixture(scope="module")
def world():
    needs_pictures()
    return world_at(1)


@pytest.mark.parametrize("camera", list(INTRINSICS))
def test_an_egg_is_drawn_where_behavior_s_intrinsics_put_it(world, camera):
    pixels, focal = INTRINSICS[camera]
    eye = world.data.cam(CAMERAS[camera])
    # of a wrist, on the side that its own gripper leaves free
    offsets = {"head": (0.12, 0.08, -0.6), "left_wrist": (-0.05, 0.04, -0.25), "right_wrist": (0.05, 0.04, -0.25)}
    offset = np.array(offsets[camera])
    put(world, 0, eye.xpos + eye.xmat.reshape(3, 3) @ offset)
    drawer = Cameras(world.model, {camera: pixels})
    picture = drawer.pictures(world.data)[camera].astype(float)
    drawer.close()
    colour = np.asarray(world.instance.egg_colours[0])
    wanted = colour / np.linalg.norm(colour)
    likeness = picture @ wanted / np.maximum(np.linalg.norm(picture, axis=2), 1.0)
    rows, columns = np.nonzero((likeness > 0.97) & (picture.max(axis=2) > 60))
    found = np.array([np.median(rows), np.median(columns)])
    expected = pixels / 2 + focal * np.array([offset[1], -offset[0]]) / offset[2]
    assert found == pytest.approx(expected, abs=0.02 * pixels)


def test_observations_hold_pictures_of_the_size_asked_for():
    needs_pictures()
    env = GardenEnv(picture_size=48)
    first, _ = env.reset(options={"instance": 3})
    assert env.observation_space.contains(first)
    assert {first[key].shape for key in LIVE.values()} == {(48, 48, 3)}
    again, _ = env.reset(options={"instance": 3})
    other, _ = env.reset(options={"instance": 4})
    for key in LIVE.values():
        assert np.array_equal(first[key], again[key])
        assert first[key].std() > 5
    assert not np.array_equal(first[LIVE["head"]], other[LIVE["head"]])
    env.close()


def test_the_basket_can_be_seen_from_its_farthest_when_it_is_ahead():
    """A policy has to be able to find it."""
    needs_pictures()
    world = world_at(1)
    shown = []
    for present in (True, False):
        ahead = world.instance.yaw + math.radians(20)
        joint = world.data.joint("wicker_basket_1_free")
        joint.qpos[:3] = [3.0 * math.cos(ahead), 3.0 * math.sin(ahead), 0.0 if present else -5.0]
        put(world, 0, world.data.body(EGG_NAMES[0]).xpos)
        drawer = Cameras(world.model, {"head": 96})
        shown.append(drawer.pictures(world.data)["head"].astype(int))
        drawer.close()
    changed = np.abs(shown[0] - shown[1]).max(axis=2) > 25
    assert changed.sum() >= 6


def test_cameras_that_are_dropped_leave_others_alone(world):
    kept, dropped = (Cameras(world.model, {"head": pixels}) for pixels in (48, 64))
    before = kept.pictures(world.data)["head"]
    dropped.pictures(world.data)
    kept.pictures(world.data)  # its context is the current one when the other goes
    del dropped
    assert np.array_equal(kept.pictures(world.data)["head"], before)
    kept.close()


def test_without_egl_one_line_names_the_packages(monkeypatch):
    def missing(pixels):
        raise ImportError("Unable to load EGL\n  library")

    monkeypatch.delenv("MUJOCO_GL", raising=False)
    monkeypatch.setattr(cameras_module, "_context", lambda pixels: missing(pixels))
    with pytest.raises(NoDisplayError, match="apt-get install libegl1 libgl1-mesa-dri") as raised:
        GardenEnv(picture_size=48)
    assert "\n" not in str(raised.value)
    assert GardenEnv(pictures=False).reset(options={"instance": 0})[1]["q"] == 0.0


def test_whether_there_are_pictures_is_an_exit_code(monkeypatch, capsys):
    """`make demo` asks, and goes on without them."""

    def missing(pixels):
        raise ImportError("Unable to load EGL")

    monkeypatch.setattr(cameras_module, "_context", missing)
    assert display() == 2
    said = capsys.readouterr().err
    assert said.startswith("error: the garden's pictures need EGL")
    assert said.endswith("apt-get install libegl1 libgl1-mesa-dri\n")
    monkeypatch.undo()
    needs_pictures()
    assert (display(), *capsys.readouterr()) == (0, "", "")
