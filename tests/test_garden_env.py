"""The egg garden as an environment: its scenes, what an action does, and that it repeats itself exactly."""

import subprocess
import sys

import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

from smolvla_core.errors import UserError
from smolvla_core.garden import GYM_ID, GardenEnv
from smolvla_core.garden.demonstration import demonstrate
from smolvla_core.garden.env import CAM_REL_POSES
from smolvla_core.garden.instance import draw_instance, draw_toys
from smolvla_core.garden.robot import ARM_HIGH, ARM_JOINTS, TRUNK_JOINTS
from smolvla_core.garden.world import resting_action
from smolvla_core.live import PROPRIOCEPTION
from tests.garden_fixtures import digest, world_at

GOLDEN = 5


@pytest.fixture(scope="module")
def env():
    return GardenEnv(pictures=False, max_seconds=0.2)


def base_pose(world):
    return np.array([world.data.joint(name).qpos[0] for name in ("base_x", "base_y", "base_yaw")])


def test_it_keeps_gymnasium_s_rules():
    check_env(gymnasium.make(GYM_ID, pictures=False).unwrapped, skip_render_check=True)


def test_observations_have_behavior_s_keys_and_nothing_privileged(env):
    observation, info = env.reset(options={"instance": 3})
    assert set(observation) == {PROPRIOCEPTION, CAM_REL_POSES, "task_id"}
    assert (observation[PROPRIOCEPTION].shape, observation[PROPRIOCEPTION].dtype) == ((256,), np.float32)
    assert (observation[CAM_REL_POSES].shape, observation["task_id"]) == ((21,), 6)
    assert (info["task_info"].shape, info["task_info"].dtype) == ((56,), np.float32)
    assert (info["eggs_placed"], info["q"], info["success"], info["instance"]) == (0.0, 0.0, False, 3)


def test_an_instance_s_number_is_its_scene(env):
    first, info = env.reset(options={"instance": 3})
    other = GardenEnv(pictures=False).reset(options={"instance": 3})
    assert np.array_equal(first[PROPRIOCEPTION], other[0][PROPRIOCEPTION])
    assert np.array_equal(info["task_info"], other[1]["task_info"])
    assert not np.array_equal(info["task_info"], env.reset(options={"instance": 4})[1]["task_info"])


def test_a_seed_draws_the_instance(env):
    drawn = [env.reset(seed=seed)[1]["instance"] for seed in (1, 1, 2)]
    assert drawn[0] == drawn[1] != drawn[2]


def test_instances_fill_their_stated_ranges():
    instances = [draw_instance(n) for n in range(400)]
    bearings = np.array([i.bearing for i in instances])
    distances = np.array([np.linalg.norm(i.basket) for i in instances])
    assert np.histogram(bearings, bins=8, range=(-np.pi, np.pi))[0].min() > 25
    assert 0.9 <= distances.min() < 1.0
    assert 2.9 < distances.max() <= 3.0
    assert {len(i.trees) for i in instances} == {2, 3, 4}
    many = [draw_instance(n) for n in range(2000)]
    sides = [i.basket[0] * (i.trees[0] - i.basket)[1] > i.basket[1] * (i.trees[0] - i.basket)[0] for i in many]
    assert 0.45 < np.mean(sides) < 0.55
    for instance in instances:
        away = np.linalg.norm(instance.trees - instance.basket, axis=1)
        assert away.argmin() == 0
        assert away[0] < 1.3 < away[1:].min()
        assert np.linalg.norm(instance.eggs - instance.basket, axis=1).max() < 0.11


def test_toys_lie_on_the_lawn_and_the_basket_stands_beside():
    env = GardenEnv(task="picking_up_toys", pictures=False)
    for number in range(3):
        observation, info = env.reset(options={"instance": number})
        poses = info["task_info"].reshape(-1, 7)[:, :3]
        assert (observation["task_id"], info["q"], info["eggs_placed"]) == (7, 0.0, 0.0)
        assert poses[1:4, 2] == pytest.approx(0.028, abs=0.002)
    for number in range(200):
        scene = draw_toys(number)
        middle = scene.eggs.mean(axis=0)
        assert 0.8 < np.linalg.norm(middle) < 3.1
        assert 0.9 < np.linalg.norm(scene.basket - middle) < 1.35
        assert 1 <= len(scene.trees) <= 3
        assert np.linalg.norm(scene.trees - scene.basket, axis=1).min() > 1.2
    assert not np.array_equal(draw_toys(0).eggs, draw_instance(0).eggs)


def test_a_golden_instance_replays_bit_for_bit_in_this_process_and_in_another(tmp_path):
    shown = demonstrate(GardenEnv(pictures=False), GOLDEN, noise=0.3)
    assert shown is not None
    world = world_at(GOLDEN)
    once = digest(world, shown.done)
    world.reset(draw_instance(GOLDEN))
    assert digest(world, shown.done) == once
    assert digest(world_at(GOLDEN), shown.done) == once
    np.save(tmp_path / "done.npy", shown.done)
    program = (
        "import sys, numpy as np; from tests.garden_fixtures import digest, world_at; "
        f"print(digest(world_at({GOLDEN}), np.load(sys.argv[1])))"
    )
    command = [sys.executable, "-c", program, str(tmp_path / "done.npy")]
    there = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    assert there.stdout.strip() == once


def test_the_base_drives_in_its_own_frame_and_no_faster_than_its_limit():
    world = world_at(0)
    action = resting_action()
    action[:3] = 0.4, -0.2, 0.0
    before = base_pose(world)
    for _ in range(30):
        world.step(action)
    moved = base_pose(world) - before
    cos, sin = np.cos(before[2]), np.sin(before[2])
    ahead, left = cos * moved[0] + sin * moved[1], -sin * moved[0] + cos * moved[1]
    assert (ahead, left) == pytest.approx((0.4, -0.2), abs=0.04)
    action[:3] = 9.0, 0.0, 9.0
    before = base_pose(world)
    for _ in range(30):
        world.step(action)
    moved = base_pose(world) - before
    assert np.hypot(*moved[:2]) < 0.76
    assert 0.9 < moved[2] < 1.02


def test_joints_go_where_they_are_told_within_their_limits():
    world = world_at(0)
    action = resting_action()
    action[3:7] = 0.9, -1.5, -0.8, 0.3
    action[7:14] = -0.5, 0.6, 0.2, -1.2, 0.4, -0.3, 0.8
    action[15:22] = 9.0
    action[14], action[22] = -1.0, 0.0
    for _ in range(45):
        world.step(action)
    trunk = [world.data.joint(name).qpos[0] for name in TRUNK_JOINTS]
    left = [world.data.joint(name).qpos[0] for name in ARM_JOINTS["left"]]
    right = [world.data.joint(name).qpos[0] for name in ARM_JOINTS["right"]]
    assert trunk == pytest.approx(action[3:7].tolist(), abs=0.01)
    assert left == pytest.approx(action[7:14].tolist(), abs=0.01)
    assert right == pytest.approx(ARM_HIGH["right"].tolist(), abs=0.02)
    assert world.opening("left") == pytest.approx(0.0, abs=0.002)
    assert world.opening("right") == pytest.approx(0.05, abs=0.002)


def test_an_episode_is_cut_off_at_its_limit(env):
    env.reset(options={"instance": 0})
    ends = [env.step(resting_action())[2:4] for _ in range(6)]
    assert ends == [(False, False)] * 5 + [(False, True)]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"task": "tea"}, "the garden has no 'tea'"),
        ({"picture_size": 3}, "picture_size is 3; it must be 16 to"),
        ({"max_seconds": 0}, "max_seconds is 0"),
        ({"render_mode": "human"}, "rgb_array only"),
    ],
)
def test_wrong_arguments_are_refused(arguments, message):
    with pytest.raises(UserError, match=message):
        GardenEnv(pictures=False, **arguments)


def test_wrong_instances_and_actions_are_refused(env):
    for wrong in (-1, 1.5, "two", True):
        with pytest.raises(UserError, match="must be a whole number from 0"):
            env.reset(options={"instance": wrong})
    env.reset(options={"instance": 0})
    with pytest.raises(UserError, match=r"got shape \(22,\)"):
        env.step(np.zeros(22, dtype=np.float32))
    with pytest.raises(UserError, match="NaN"):
        env.step(np.full(23, np.nan, dtype=np.float32))
    with pytest.raises(UserError, match="call reset first"):
        GardenEnv(pictures=False).step(resting_action())
