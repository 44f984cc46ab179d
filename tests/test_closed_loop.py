"""Closed-loop evaluation: the same episodes however they are run, honest intervals, mistakes in one line."""

import json
import os
import signal
import subprocess
import sys
from dataclasses import replace
from types import SimpleNamespace

import av
import numpy as np
import pytest
import torch
from scipy import stats

from smolvla_core.acting import load_actor
from smolvla_core.closed_loop.command import main
from smolvla_core.closed_loop.environment import EnvSpec, parse_instances
from smolvla_core.closed_loop.policies import ActorPolicy, Request, ServedPolicy, StayingPolicy
from smolvla_core.closed_loop.rollout import Rollout, run_episodes
from smolvla_core.closed_loop.scores import bootstrap, wilson
from smolvla_core.closed_loop.stage import Act, Begin, Stage
from smolvla_core.errors import ConfigError, DataError
from smolvla_core.live import CAMERAS, PROPRIOCEPTION
from tests import fake_env
from tests.fake_env import NAME, SHORT, Pond
from tests.policy_server import live_observation, serving
from tests.processes import lives
from tests.test_serve import export
from tune.closed_loop_runs import Ended, evaluate_policy
from tune.closed_loop_spec import ClosedLoop

CPU = torch.device("cpu")
INSTANCES = (4, 7, 9, 12, 13, 20)


def silent(done, total):
    pass


@pytest.fixture(scope="module")
def policy(eggs_root, cache_dir, tmp_path_factory):
    folder = tmp_path_factory.mktemp("acting") / "policy"
    return export(eggs_root, cache_dir, folder, state__preset="winner23", policy__n_action_steps=5)


@pytest.fixture(scope="module")
def actor(policy):
    return load_actor(policy, CPU)


@pytest.fixture(scope="module")
def episodes(actor):
    return run_episodes(ActorPolicy(actor, seed=3), SHORT, INSTANCES, Rollout(at_once=4), silent)


def test_what_a_robot_does_depends_neither_on_the_others_nor_on_the_processes(actor, episodes):
    assert [episode.instance for episode in episodes] == list(INSTANCES)
    assert [episode.steps for episode in episodes] == [24 if number % 2 == 0 else 20 for number in INSTANCES]
    assert len({episode.q for episode in episodes}) == len(INSTANCES)
    again = run_episodes(ActorPolicy(actor, seed=3), SHORT, INSTANCES, Rollout(at_once=3, jobs=2), silent)
    assert again == episodes
    backwards = run_episodes(ActorPolicy(actor, seed=3), SHORT, INSTANCES[::-1], Rollout(at_once=1), silent)
    assert backwards == episodes[::-1]
    other_noise = run_episodes(ActorPolicy(actor, seed=4), SHORT, INSTANCES, Rollout(), silent)
    assert all(ours.q != theirs.q for ours, theirs in zip(episodes, other_noise, strict=True))


def test_the_same_comes_of_a_policy_behind_a_server(actor, episodes):
    with serving(actor) as url:
        policy = ServedPolicy(url, seed=3)
        served = run_episodes(policy, SHORT, INSTANCES, Rollout(at_once=4), silent)
        assert policy.describe()["server"]["n_action_steps"] == 5
        policy.close()
    for through, alone in zip(served, episodes, strict=True):
        assert replace(through, q=0, eggs_placed=0) == replace(alone, q=0, eggs_placed=0)
        assert through.q == pytest.approx(alone.q, abs=1e-4)


def test_each_place_in_a_forward_gives_the_same_bits(actor):
    policy = ActorPolicy(actor)
    requests = [Request(slot, slot, 0, live_observation(slot)) for slot in range(11)]
    together = policy.chunks(requests)
    for number in (0, 5, 10):
        (alone,) = policy.chunks([requests[number]])
        np.testing.assert_array_equal(alone, together[number])


def test_a_blind_policy_acts_as_one_that_is_shown_black_pictures(actor):
    live = live_observation(1)
    dark = {key: np.zeros_like(value) if key in CAMERAS.values() else value for key, value in live.items()}
    seeing, blind = ActorPolicy(actor), ActorPolicy(actor, blind=True)
    (in_the_dark,) = seeing.chunks([Request(0, 1, 0, dark)])
    np.testing.assert_array_equal(blind.chunks([Request(0, 1, 0, live)])[0], in_the_dark)
    assert (seeing.chunks([Request(0, 1, 0, live)])[0] != in_the_dark).any()
    assert blind.describe()["blind"]


def test_pictures_are_rendered_only_where_the_policy_looks():
    stage = Stage(SHORT)
    stage.do(Begin(0, 2))
    assert CAMERAS["head"] in stage.do(Act(0, np.zeros((5, 23), np.float32))).live
    env = stage._envs[0]
    assert env.drawn == 2
    stage.close()
    # who does nothing needs none at all, and so no graphics
    nobody = StayingPolicy()
    assert not nobody.sees
    blind = Stage(replace(SHORT, pictures=False))
    assert CAMERAS["head"] not in blind.do(Begin(0, 2)).live


def test_doing_nothing_leaves_every_joint_where_it_was():
    pond = Pond(pictures=False)
    live, _ = pond.reset(options={"instance": 3})
    before = live[PROPRIOCEPTION].copy()
    (actions,) = StayingPolicy().chunks([Request(0, 3, 0, live)])
    for action in actions:
        live, *_ = pond.step(action)
    joints = np.r_[158:165, 197:204, 236:240]
    np.testing.assert_array_equal(live[PROPRIOCEPTION][joints], before[joints])
    np.testing.assert_array_equal(live[PROPRIOCEPTION][253:256], 0)
    # a gripper's action is its opening, from -1 to 1
    np.testing.assert_allclose(actions[0, 14], 2 * before[193:195].sum() / 0.1 - 1, rtol=1e-5)


def test_intervals_are_those_of_the_textbook():
    # Wilson 1927, as scipy computes it
    for successes, count in ((0, 20), (3, 20), (20, 20), (37, 100)):
        low, high = stats.binomtest(successes, count).proportion_ci(method="wilson")
        found = wilson(successes, count)
        assert (found.low, found.high) == (pytest.approx(low, abs=1e-9), pytest.approx(high, abs=1e-9))
    values = np.random.default_rng(0).choice([0, 1 / 3, 2 / 3, 1], 400)
    found = bootstrap(values)
    reach = 1.96 * values.std() / 20
    assert found.mean == pytest.approx(values.mean())
    assert found.low == pytest.approx(values.mean() - reach, abs=0.005)
    assert found.high == pytest.approx(values.mean() + reach, abs=0.005)

    # nothing to resample is no certainty
    assert bootstrap([0.0] * 20) == wilson(0, 20)
    assert wilson(0, 20).high > 0.1


def test_instances_are_read_from_ranges():
    assert parse_instances("301-303, 7") == (301, 302, 303, 7)
    for text, message in (
        ("301-", "is no list of numbers"),
        ("", "is no list of numbers"),
        ("a", "is no list of numbers"),
        ("9-7", "'9-7' runs backwards; give 7-9"),
        ("3,1-4", "names one twice"),
    ):
        with pytest.raises(ConfigError, match=message):
            parse_instances(text)


def test_the_command_writes_results_and_videos(policy, episodes, tmp_path, capsys):
    command = [str(policy), "--env", NAME, "--instances", "4,7,9,12,13,20", "--seed", "3", "--picture-size", "32"]
    command += ["--max-seconds", "0.8", "--device", "cpu", "--videos", "2", "--out", str(tmp_path / "out")]
    assert main(command) == 0
    printed = capsys.readouterr().out
    assert "Over 6 instances, with 95 % intervals:" in printed
    found = json.loads((tmp_path / "out" / "results.json").read_text())
    assert found["kind"] == "smolvla_core.closed_loop"
    assert [episode["q"] for episode in found["episodes"]] == [episode.q for episode in episodes]
    assert found["scores"]["success"]["mean"] == pytest.approx(2 / 6)
    assert found["scores"]["q"]["mean"] == pytest.approx(np.mean([episode.q for episode in episodes]))
    assert found["policy"]["n_action_steps"] == 5
    assert sorted(path.name for path in (tmp_path / "out").rglob("*.*")) == [
        "instance_4.mp4",
        "instance_7.mp4",
        "results.json",
    ]
    with av.open(str(tmp_path / "out" / "videos" / "instance_4.mp4")) as video:
        assert len([*video.decode(video=0)]) == 25  # the first look, and one after each of 24 steps


@pytest.mark.parametrize("name", ["FastPond", "make_fast_pond"])
def test_actions_are_held_in_a_faster_environment(policy, tmp_path, name):
    command = [str(policy), "--env", f"tests.fake_env:{name}", "--instances", "4", "--max-seconds", "0.4"]
    assert main([*command, "--device", "cpu", "--out", str(tmp_path / "out")]) == 0
    found = json.loads((tmp_path / "out" / "results.json").read_text())
    assert found["policy"]["hold"] == 2


def test_a_mistake_is_one_line(policy, tmp_path, capsys, monkeypatch):
    def says(*arguments):
        assert main([*arguments, "--out", str(tmp_path / "out")]) == 2
        said = capsys.readouterr().err
        assert said.count("\n") == 1
        return said

    assert "none is given" in says()
    assert "CHECKPOINT and --policy is given" in says(str(policy), "--policy", "nothing")
    assert "there is no ':Pond'; give garden" in says(str(policy), "--env", ":Pond")
    assert "ended without 'q' in its info; add it" in says("--policy", "nothing", "--env", "tests.fake_env:Silent")
    assert "there is no 'gardn'; give garden" in says(str(policy), "--env", "gardn")
    assert "cannot be imported" in says(str(policy), "--env", "no_such_package:Env")
    assert "has no 'Lake'" in says(str(policy), "--env", "tests.fake_env:Lake")
    assert "a server is given them at its start" in says("--policy", "nothing", "--n-action-steps", "3")
    monkeypatch.setattr("smolvla_core.closed_loop.policies.WAIT_S", 0.0)
    assert "no policy server answers" in says("--policy-server", "ws://127.0.0.1:1", "--env", NAME)
    for odd in ("http://x", "ws://127.0.0.1:80000", "ws://127.0.0.1:abc", "ws://[x"):
        assert "is no address of a policy server" in says("--policy-server", odd, "--env", NAME)
    assert "it must be at least 1" in says(str(policy), "--jobs", "0", "--env", NAME)
    assert "--seed is -1; it must be at least 0" in says(str(policy), "--seed", "-1", "--env", NAME)
    assert "--videos is -1; it must be at least 0" in says(str(policy), "--videos", "-1", "--env", NAME)
    assert "cannot be made" in says("--policy", "nothing", "--env", NAME, "--task", "swim")
    (tmp_path / "file").touch()
    taken = ("--policy", "nothing", "--env", NAME, "--out", str(tmp_path / "file"))
    assert main([*taken, "--instances", "4"]) == 2  # before anything acts
    assert "is a file); give a folder that can be written to" in capsys.readouterr().err
    monkeypatch.setitem(sys.modules, "mujoco", None)
    monkeypatch.delitem(sys.modules, "smolvla_core.garden", raising=False)
    assert "pip install 'smolvla-tune[sim]'" in says("--policy", "nothing", "--env", "garden")
    assert not (tmp_path / "out").exists()


def test_a_policy_that_the_environment_does_not_suit_is_refused(actor):
    with pytest.raises(DataError, match="does not suit the policy: the state has 61 dims, the policy takes 256"):
        ActorPolicy(actor).chunks([Request(0, 1, 0, live_observation(0, width=61))])


@pytest.mark.parametrize("jobs", [1, 2])
def test_an_environment_that_fails_ends_the_evaluation(jobs):
    broken = EnvSpec("tests.fake_env:Broken", max_seconds=1.0)
    with pytest.raises((ZeroDivisionError, RuntimeError), match="the pond is dry"):
        run_episodes(StayingPolicy(), broken, INSTANCES, Rollout(jobs=jobs), silent)


def test_what_had_ended_before_a_failure_is_not_acted_again(policy, episodes, tmp_path, capsys, monkeypatch):
    out = tmp_path / "out"
    command = [str(policy), "--env", "tests.fake_env:Leaky", "--instances", "4,7,9,12,13,20", "--picture-size", "32"]
    command += ["--max-seconds", "0.8", "--device", "cpu", "--seed", "3", "--at-once", "2", "--out", str(out)]
    monkeypatch.setattr(fake_env.Leaky, "begun", 0)
    with pytest.raises(ZeroDivisionError):
        main(command)
    assert (
        capsys.readouterr().err
        == f"3 episodes kept in {out}; the same command with --out {out} goes on with the others\n"
    )
    assert main([*command, "--seed", "4"]) == 2
    assert "keeps the episodes of another evaluation, which was interrupted" in capsys.readouterr().err
    intact = (out / "episodes.jsonl").read_text()
    (out / "episodes.jsonl").write_text(intact.replace('"q"', '"Q"'))
    assert main(command) == 2
    assert "or was damaged; give another folder, or delete" in capsys.readouterr().err
    (out / "episodes.jsonl").write_text(intact)
    with (out / "episodes.jsonl").open("a") as file:
        file.write('{"instance": 12, "eggs')  # a power cut
    monkeypatch.setattr(fake_env.Leaky, "begun", 0)
    monkeypatch.setattr(fake_env.Leaky, "leaks", frozenset())
    assert main([*command, "--videos", "1"]) == 0
    assert fake_env.Leaky.begun == 3 + 1  # the first was kept, but not filmed
    found = json.loads((out / "results.json").read_text())
    assert [episode["q"] for episode in found["episodes"]] == [episode.q for episode in episodes]
    assert sorted(path.name for path in out.rglob("*.*")) == ["instance_4.mp4", "results.json"]


def test_a_study_s_acting_goes_on_where_it_was_ended(policy, tmp_path, monkeypatch):
    acts_in = ClosedLoop(env="tests.fake_env:Leaky", instances="4,7,9", picture_size=32, max_seconds=0.8, at_once=1)
    monkeypatch.setattr(fake_env.Leaky, "begun", 0)
    out = tmp_path / "acted"
    with pytest.raises(Ended, match="the user"):
        evaluate_policy(
            policy, acts_in, out, SimpleNamespace(stop_all=lambda: fake_env.Leaky.begun == 2, reason="the user")
        )
    evaluate_policy(policy, acts_in, out, SimpleNamespace(stop_all=lambda: False, reason=None))
    assert fake_env.Leaky.begun == 3
    assert [episode["instance"] for episode in json.loads((out / "results.json").read_text())["episodes"]] == [4, 7, 9]
    other = acts_in.model_copy(update={"n_action_steps": 2})
    evaluate_policy(policy, other, out, SimpleNamespace(stop_all=lambda: False, reason=None))
    assert fake_env.Leaky.begun == 6


def test_processes_that_are_left_by_an_error_say_nothing_more(tmp_path, capfd):
    command = ["--policy", "nothing", "--env", "tests.fake_env:Closed", "--instances", "1-4", "--jobs", "2"]
    assert main([*command, "--out", str(tmp_path / "out")]) == 2
    assert capfd.readouterr().err == "error: the pond has no instance 1\n"


def test_its_processes_end_with_a_killed_evaluation(tmp_path):
    script = (
        "from smolvla_core.closed_loop.worker import StageProcess\n"
        "from tests.fake_env import SHORT\n"
        "stage = StageProcess(SHORT)\n"
        "print(stage._process.pid, flush=True)\n"
        "input()\n"
    )
    command = [sys.executable, "-c", script]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as parent:
        child = int(parent.stdout.readline())
        parent.send_signal(signal.SIGKILL)
        parent.wait(10)
        deadline = 2400
        while deadline and lives(child):
            deadline -= 1
            signal.sigtimedwait([], 0.05)
        assert not lives(child)


def test_importing_the_worker_loads_no_torch():
    loaded = "import sys, smolvla_core.closed_loop.worker; print(*{n.split('.')[0] for n in sys.modules})"
    found = subprocess.run([sys.executable, "-c", loaded], capture_output=True, text=True, env={**os.environ})
    assert found.returncode == 0, found.stderr
    assert not {"torch", "lerobot", "transformers", "scipy"} & set(found.stdout.split())
