"""Relative actions: learned as ways from where a chunk begins, given out as positions, scored as all others."""

import json
import shutil

import numpy as np
import pytest
import torch
from lerobot.lerobot_types import TransitionKey
from lerobot.processor import RelativeActionsProcessorStep

from smolvla_core.acting import load_actor
from smolvla_core.card import CARD_FILE
from smolvla_core.checkpoint import export_policy, save_state
from smolvla_core.config import TrialConfig
from smolvla_core.data.keys import dim_names
from smolvla_core.errors import ConfigError
from smolvla_core.evaluate import evaluate
from smolvla_core.forward import Answer
from smolvla_core.live import CAMERAS, observed
from smolvla_core.r1pro import ACTION, RELEASES
from smolvla_core.relative import _NO_POSITION, AnchorStep, acting_steps
from smolvla_core.trial import prepare
from tests.core_fixtures import tiny_trial
from tests.policy_server import live_observation
from tests.test_checkpoint import noise_for, predict_from_checkpoint, predict_with_ours, predict_with_stock_lerobot
from tests.test_serve import through_lerobot

ON = {"policy__relative_actions": True}
EGGS = {"eval__horizon_s": 0.3, "state__preset": "top32"}
ROWS = [0, 17, 40]
NAMED = {
    "another order": (["reach", "lift", "left_gripper", "turn"], ["x", "lift", "reach", "left_gripper", "turn"]),
    "one order": (["reach", "lift", "left_gripper", "turn"], ["reach", "lift", "left_gripper", "turn"]),
}
STAYS = ("left_gripper", "x.vel", "base_velocity", "leftGripper")


@pytest.fixture
def named(generic_root, tmp_path):
    """``named("one order")``: the small dataset with names for its numbers."""

    def write(kind):
        root = shutil.copytree(generic_root, tmp_path / "named")
        info = json.loads((root / "meta" / "info.json").read_text())
        action, state = NAMED[kind]
        info["features"]["action"]["names"] = [action]  # as some recorders nest them
        spare = info["features"]["observation.state"]["shape"][0] - len(state)
        info["features"]["observation.state"]["names"] = {"motors": [*state, *(f"spare{n}" for n in range(spare))]}
        (root / "meta" / "info.json").write_text(json.dumps(info))
        return root

    return write


def absolute_chunks(trial, rows):
    config = trial.learner.config
    return trial.dataset.chunk_actions(rows, config.policy.chunk_size, config.data.frame_stride)


@pytest.mark.parametrize("root", ["eggs_root", "release_2026_root"])
def test_an_r1pros_trunk_and_arms_are_relative_in_both_releases(request, cache_dir, root):
    trial = prepare(tiny_trial(request.getfixturevalue(root), cache_dir, **EGGS, **ON))
    interface = trial.learner.interface
    release = RELEASES[interface.selection.release]
    expected = [pair for part in ("trunk", "arm_left", "arm_right")
                for pair in zip(ACTION[part], release[f"{part}_qpos"], strict=True)]  # fmt: skip
    assert list(interface.relative) == expected
    rows = trial.dataset.rows_of(trial.split.val)[:4]
    noise = noise_for(trial, rows)
    batch = trial.maker.validation(rows, noise, np.zeros(len(rows), dtype=np.float32))
    chunks = absolute_chunks(trial, rows)
    np.testing.assert_allclose(batch.action + batch.anchor[:, None], chunks, atol=1e-6)
    action, state = expected[9]
    np.testing.assert_allclose(
        batch.action[:, :, action], chunks[:, :, action] - trial.dataset.state[rows][:, [state]], atol=1e-6
    )
    others = sorted({*range(23)} - {action for action, _ in expected})
    assert others == [*ACTION["base"], *ACTION["gripper_left"], *ACTION["gripper_right"]]
    assert torch.equal(batch.action[:, :, others], torch.from_numpy(chunks)[:, :, others])


def test_names_pair_the_numbers_of_other_robots_and_grippers_stay(named, generic_root, cache_dir):
    trial = prepare(tiny_trial(named("another order"), cache_dir, **ON))
    assert trial.learner.interface.relative == ((0, 2), (1, 1), (3, 4))
    with pytest.raises(ConfigError, match=r"policy\.relative_actions: no action of .* has the name of a number"):
        prepare(tiny_trial(generic_root, cache_dir, **ON))
    assert all(_NO_POSITION.search(name.lower()) for name in STAYS)
    assert not any(_NO_POSITION.search(name) for name in ("level", "x.pos"))
    assert dim_names({"names": {"x": 0, "y": 1}}) == ("x", "y")
    assert dim_names({"names": None}) == ()


def test_the_normaliser_knows_the_ways_and_the_score_the_positions(eggs_root, cache_dir):
    plain, trial = (prepare(tiny_trial(eggs_root, cache_dir, **EGGS, **on)) for on in ({}, ON))
    rows = trial.dataset.rows_of(trial.split.train)
    chunks = absolute_chunks(trial, rows) - trial.learner.interface.anchors(trial.dataset.state[rows])[:, None]
    within = chunks[~trial.dataset.chunk_rows(rows, chunks.shape[1])[1]].astype(np.float64)
    interface = trial.learner.interface
    dims = [action for action, _ in interface.relative]
    moving = [dim for dim in dims if within[:, dim].std() > 1e-4]
    assert len(moving) > 3
    for name, values in (
        ("mean", within.mean(0)),
        ("std", within.std(0)),
        ("min", within.min(0)),
        ("max", within.max(0)),
    ):
        np.testing.assert_allclose(getattr(interface.learned, name)[moving], values[moving], rtol=1e-5, atol=1e-6)
        others = sorted({*range(23)} - {*dims})
        assert (getattr(interface.learned, name)[others] == getattr(interface.action, name)[others]).all()
    np.testing.assert_array_equal(interface.action.std, plain.learner.interface.action.std)

    truth = {}
    validation = trial.maker.validation

    def remember(rows, noise, time):
        batch = validation(rows, noise, time)
        truth["action"] = trial.learner.processors.pre(
            {"observation.state": batch.state, "action": batch.action, "task": list(batch.tasks)}
        )["action"]
        return batch

    class Perfect:
        def answer(self, inputs, noise, time, frames=None, steps=None):
            actions = truth["action"][:, None].expand(-1, noise.shape[1], -1, -1)[:, :, :steps]
            return Answer(actions, torch.zeros_like(actions))

    trial.maker.validation, trial.learner.forward = remember, Perfect()
    assert evaluate(trial.learner, trial.maker, trial.frames)["val/critical_action_mse"] == pytest.approx(0, abs=1e-10)


def test_a_policy_is_trained_on_as_it_was(eggs_root, cache_dir, tmp_path):
    values = EGGS | ON
    folder, _ = exported(prepare(tiny_trial(eggs_root, cache_dir, **values)), tmp_path)
    more = values | {"policy__pretrained": str(folder)}
    prepare(tiny_trial(eggs_root, cache_dir, **more))
    with pytest.raises(ConfigError, match=r"was trained with policy\.relative_actions; set it to true"):
        prepare(tiny_trial(eggs_root, cache_dir, **(more | {"policy__relative_actions": False})))


def test_datasets_that_are_trained_together_are_relative_in_the_same_actions(named, generic_root, cache_dir, tmp_path):
    root = named("one order")
    other = shutil.copytree(root, tmp_path / "other")
    info = (other / "meta" / "info.json").read_text()
    (other / "meta" / "info.json").write_text(info.replace('"turn"', '"twist"', 1))
    config = tiny_trial(root, cache_dir, **ON).to_dict()
    config["data"]["train"].append(config["data"]["train"][0] | {"root": str(other)})
    with pytest.raises(ConfigError, match=r"data\.train\.1: action 3 has the name of a number of the state in this"):
        prepare(TrialConfig.from_dict(config))


def test_a_policy_s_own_steps_can_be_trained_through(eggs_root, cache_dir):
    trial = prepare(tiny_trial(eggs_root, cache_dir, **EGGS, **ON))
    rows = trial.dataset.rows_of(trial.split.val)[:3]
    before, _ = acting_steps(trial.learner.interface.relative, 23, 256)
    chunks = torch.from_numpy(absolute_chunks(trial, rows))
    given = {
        TransitionKey.OBSERVATION: {"observation.state": torch.from_numpy(trial.dataset.state[rows])},
        TransitionKey.ACTION: chunks,
    }
    found = before(given)[TransitionKey.ACTION]
    batch = trial.maker.validation(rows, noise_for(trial, rows), np.zeros(3, dtype=np.float32))
    torch.testing.assert_close(found, batch.action)


def exported(trial, tmp_path):
    trial.learner.step(trial.maker.training(trial.stream, 0, 4), lr=1e-2)
    save_state(trial.learner, tmp_path / "state")
    export_policy(tmp_path / "state", tmp_path / "policy")
    return tmp_path / "policy", json.loads((tmp_path / "policy" / CARD_FILE).read_text())


def ours(trial, rows, noise):
    return predict_with_ours(trial, rows, noise) + trial.learner.interface.anchors(trial.dataset.state[rows])[:, None]


def test_a_policy_gives_positions_and_acts_with_them(eggs_root, cache_dir, tmp_path):
    trial = prepare(tiny_trial(eggs_root, cache_dir, eval__horizon_s=0.3, state__preset="winner23", **ON))
    folder, card = exported(trial, tmp_path)
    assert card["relative_actions"] == [action for action, _ in trial.learner.interface.relative]
    assert card["needs"] == ["smolvla_core"]
    rows = trial.dataset.rows_of(trial.split.val)[ROWS]
    noise = noise_for(trial, rows)
    found = predict_from_checkpoint(folder, trial, rows, noise)
    np.testing.assert_allclose(found, ours(trial, rows, noise), rtol=1e-4, atol=1e-5)
    saved = json.loads((folder / "policy_preprocessor.json").read_text())["steps"][0]
    assert saved["class"] == "smolvla_core.relative.AnchorStep"
    assert "predict_action_chunk" in (folder / "README.md").read_text()
    # robots that act together each go on from where they stand
    actor, live, keys = (
        load_actor(folder, torch.device("cpu")),
        [live_observation(seed) for seed in (0, 1)],
        [(0,), (1,)],
    )
    together = actor.chunks([observed(each, tuple(CAMERAS))[0][0] for each in live], actor.noise(keys))
    for each, chunk, key in zip(live, together, keys, strict=True):
        np.testing.assert_allclose(chunk, through_lerobot(folder, each, actor.noise([key])), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", NAMED)
def test_stock_lerobot_loads_a_policy_whose_state_has_its_actions_order(named, cache_dir, tmp_path, kind):
    trial = prepare(tiny_trial(named(kind), cache_dir, **ON))
    folder, card = exported(trial, tmp_path)
    rows = trial.dataset.rows_of(trial.split.val)[:3]
    noise = noise_for(trial, rows)
    expected = ours(trial, rows, noise)
    assert (card["needs"] == []) == (kind == "one order")
    if kind == "one order":
        found = predict_with_stock_lerobot(folder, trial, rows, noise, tmp_path)
    else:
        found = predict_from_checkpoint(folder, trial, rows, noise)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


def test_lerobots_rollout_which_asks_for_single_actions_knows_the_step_and_refuses_it():
    assert issubclass(AnchorStep, RelativeActionsProcessorStep)
    assert AnchorStep(enabled=True, pairs=[(0, 1)], width=2).enabled
