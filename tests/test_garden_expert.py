"""The garden's expert: does both tasks, recovers from a missed grasp, and shows the same thing twice."""

import numpy as np
import pytest

from smolvla_core.garden import demonstration
from smolvla_core.garden.astray import Miss
from smolvla_core.garden.baselines import main, run
from smolvla_core.garden.demonstration import demonstrate
from smolvla_core.garden.env import GardenEnv
from smolvla_core.garden.expert import Expert, Style, draw_style
from smolvla_core.garden.motion import seen_from
from smolvla_core.garden.reach import Reach
from smolvla_core.garden.robot import SIDES
from smolvla_core.garden.tasks import TASKS
from smolvla_core.garden.world import HIGH, LOW
from smolvla_core.live import PROPRIOCEPTION
from smolvla_core.r1pro import ACTION, RELEASES

EGGS, TOYS = TASKS
LAYOUT = RELEASES["2025"]


@pytest.fixture(scope="module")
def env():
    return GardenEnv(pictures=False)


def watched(env, instance, style):
    """Let the expert act; the last info, and how often a hand was shut and held nothing."""
    expert = Expert(style, TASKS[env.task].errand())
    observation, info = env.reset(options={"instance": instance})
    empty, was_empty, ended = 0, dict.fromkeys(SIDES, False), False
    while not ended:
        action = expert.act(observation[PROPRIOCEPTION], info["task_info"])
        assert (action >= LOW - 1e-6).all()
        assert (action <= HIGH + 1e-6).all()
        observation, _, success, cut_off, info = env.step(action)
        for side in SIDES:
            shut = action[ACTION[f"gripper_{side}"].start] <= -1.0
            now = bool(shut and env.world.held[side] is None and env.world.opening(side) < 0.03)
            empty += now and not was_empty[side]
            was_empty[side] = now
        ended = success or cut_off
    return info, empty


@pytest.mark.parametrize("task", TASKS)
def test_it_does_its_task_in_drawn_styles(task):
    for instance in (21, 22):
        done = run("expert", task, instance)
        assert (done["eggs_placed"], done["q"], done["success"]) == (1.0, 1.0, 1.0)
        assert done["seconds"] < 20


def test_only_who_looks_does_it():
    for policy in ("nothing", "replay", "shuffled"):
        assert run(policy, EGGS, 24)["eggs_placed"] == 0.0


@pytest.mark.parametrize("hand", [0, 1])
def test_it_recovers_from_a_grasp_that_goes_astray(env, hand):
    plain, empty = watched(env, 25, Style())
    assert (plain["success"], empty) == (True, 0)
    for closes in (True, False):
        misses = [None, None]
        misses[hand] = Miss(0.075, 0.0, closes)
        missed, empty = watched(env, 25, Style(misses=tuple(misses)))
        assert (missed["success"], missed["eggs_placed"], empty) == (True, 1.0, int(closes))


@pytest.mark.parametrize("distance", [0.03, 0.05])
def test_nothing_closes_astray_where_it_might_catch_an_egg(env, distance):
    """What is recorded there would say that an open gripper was meant, and an egg would hang in a shut one."""
    for angle in (-1.5, 0.0, 1.5):
        style = Style(misses=(Miss(distance, angle, closes=True),) * 3)
        done, empty = watched(env, 25, style)
        assert (done["success"], done["eggs_placed"], empty) == (True, 1.0, 0)


def hands_of(action):
    """Where an action (23,) puts the hands, and their grippers."""
    reach = Reach()
    arms = {side: action[list(ACTION[f"arm_{side}"])].astype(float) for side in SIDES}
    reach.reset(arms, action[list(ACTION["trunk"])].astype(float))
    return reach.hands(), {side: action[ACTION[f"gripper_{side}"].start] for side in SIDES}


def test_while_a_hand_is_astray_it_means_to_stay_over_the_egg_with_an_open_gripper(env):
    expert = Expert(Style(misses=(Miss(0.075, 0.0, closes=True),)))  # the first grasp is the left hand's
    observation, info = env.reset(options={"instance": 25})
    apart, shut, ended, before = 0, 0, False, None
    while not ended:
        state = observation[PROPRIOCEPTION]
        action = expert.act(state, info["task_info"])
        left, right = (slice(ACTION[f"arm_{side}"].start, ACTION[f"gripper_{side}"].stop) for side in SIDES)
        rest = np.delete(expert.meant, np.r_[left])
        assert np.array_equal(rest, np.delete(action, np.r_[left]))  # the base, the trunk, the other hand
        (done, _), (meant, grippers) = hands_of(action), hands_of(expert.meant)
        if np.linalg.norm(done["left"] - meant["left"]) > 0.06 and done["left"][2] < 0.10:
            base = np.array([*state[list(LAYOUT["robot_pos"])][:2], state[LAYOUT["robot_2d_ori"].start]])
            eggs = seen_from(base.astype(float), info["task_info"].reshape(-1, 7)[1:4, :2].astype(float))
            assert np.linalg.norm(eggs - meant["left"][:2], axis=1).min() < 0.02
            assert meant["left"][2] == pytest.approx(expert.style.hover, abs=0.02)
            assert grippers["left"] == 1.0
            apart, shut = apart + 1, shut + (action[ACTION["gripper_left"].start] < -0.9)
        if before is not None:  # what is meant never jumps, not where the miss begins nor where it ends
            change = np.abs(expert.meant - before)
            assert change[list(ACTION["arm_left"])].max() < 0.16
            assert change[ACTION["gripper_left"].start] < 0.4  # its rate, twice: back before it is wholly open
        before = expert.meant
        observation, _, success, cut_off, info = env.step(action)
        ended = success or cut_off
    assert apart > 8
    assert shut > 2
    assert success
    assert np.array_equal(expert.meant, action)  # once over, it does what it means


def test_an_egg_that_it_loses_is_fetched_from_where_it_lies(env):
    expert = Expert()
    observation, info = env.reset(options={"instance": 26})
    lost, ended = False, False
    while not ended:
        action = expert.act(observation[PROPRIOCEPTION], info["task_info"])
        carried = [side for side in SIDES if env.world.held[side] is not None]
        if not lost and len(carried) == 2 and abs(action[:2]).max() > 0.5:  # on its way to the tree
            action[ACTION[f"gripper_{carried[0]}"].start], lost = 1.0, True
        observation, _, success, cut_off, info = env.step(action)
        ended = success or cut_off
    assert lost
    assert info["eggs_placed"] >= 2 / 3


def test_styles_are_drawn_from_the_generator_alone():
    def drawn(seed, misses=0.15):
        return draw_style(np.random.default_rng(seed), misses)

    assert drawn(1) == drawn(1) != drawn(2)
    many = [drawn(seed, 0.3) for seed in range(400)]
    misses = [miss for style in many for miss in style.misses]
    assert 0.26 < np.mean([miss is not None for miss in misses]) < 0.34
    gone = [miss for miss in misses if miss is not None]
    assert 0.03 <= min(m.distance for m in gone) < 0.035 < 0.085 < max(m.distance for m in gone) <= 0.09
    assert 0.4 < np.mean([m.closes for m in gone]) < 0.6
    assert np.ptp([style.speed for style in many]) > 0.1
    assert not any(miss for seed in range(40) for miss in drawn(seed, 0.0).misses)


def test_a_demonstration_is_a_function_of_seed_and_instance(env):
    first, again, other = (demonstrate(env, 27, seed=seed, noise=0.3, misses=0.5) for seed in (3, 3, 4))
    assert first.done.tobytes() == again.done.tobytes()
    assert first.recording.state.tobytes() == again.recording.state.tobytes()
    assert first.recording.skills == again.recording.skills
    assert first.done.tobytes() != other.done.tobytes()


def test_what_was_meant_is_recorded_and_what_was_done_is_disturbed(env):
    quiet = demonstrate(env, 28)
    assert np.array_equal(quiet.recording.action, quiet.done)
    noisy = demonstrate(env, 28, noise=0.5)
    off = noisy.done - noisy.recording.action
    grippers = [ACTION[f"gripper_{side}"].start for side in SIDES]
    assert (off[:, grippers] == 0).all()
    assert off[:, :3].std() == pytest.approx(0.1, rel=0.4)
    assert np.corrcoef(off[:-1, 0], off[1:, 0])[0, 1] > 0.7  # it comes and goes slowly


def test_where_there_is_no_time_there_is_no_demonstration():
    assert demonstrate(GardenEnv(pictures=False, max_seconds=1.0), 29) is None


def test_where_the_expert_fails_under_noise_it_tries_again_with_less(env, monkeypatch):
    tried = []
    monkeypatch.setattr(demonstration, "_perform", lambda env, instance, style, disturb: tried.append(disturb.amount))
    assert demonstrate(env, 28, noise=0.7) is None
    assert tried == pytest.approx([0.7] * 5 + [0.56, 0.42, 0.28, 0.14, 0.0])


def test_baselines_are_one_line_of_json_each_and_refuse_wrong_options(capsys):
    assert main(["--instances", "30", "--policies", "nothing", "--task", TOYS]) == 0
    assert capsys.readouterr().out == (
        '{"policy": "nothing", "instances": "30", "eggs_placed": 0.0, "q": 0.0, "success": 0.0, '
        '"seconds": 20.0, "seconds_p95": 20.0}\n'
    )
    for options, message in ((["--instances", "9-2"], "give a number or a range"), (["--jobs", "0"], "--jobs is 0")):
        assert main(options) == 2
        assert message in capsys.readouterr().err
