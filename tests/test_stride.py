"""Frame stride: a policy of 30, 15 or 10 Hz from the same recording, and one score for all of them."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from smolvla_core.checkpoint import export_policy, save_state
from smolvla_core.errors import ConfigError, DataError
from smolvla_core.evaluate import evaluate, evaluation_set
from smolvla_core.trial import prepare, resolve
from tests.core_fixtures import tiny_trial


def eggs_trial(root, cache_dir, stride, **values):
    values = {"state__preset": "top32", "eval__horizon_s": 0.4, "policy__chunk_size": 12 // stride} | values
    return tiny_trial(root, cache_dir, data__frame_stride=stride, **values)


def test_a_chunk_takes_every_nth_action_and_the_mean_of_velocities(eggs_root, cache_dir):
    dataset = resolve(eggs_trial(eggs_root, cache_dir, 1)).dataset
    assert dataset.averaged_dims == (0, 1, 2)
    row, last = np.array([5]), np.array([dataset.lengths[0] - 5])
    recorded = dataset.action[5:17]
    chunk = dataset.chunk_actions(row, 4, stride=3)[0]
    assert np.array_equal(chunk[:, 3:], recorded[::3, 3:])
    np.testing.assert_allclose(chunk[:, :3], recorded.reshape(4, 3, 23)[..., :3].mean(axis=1), rtol=1e-5)
    # the robot drives as far
    np.testing.assert_allclose(3 * chunk[:, :3].sum(axis=0), recorded[:, :3].sum(axis=0), rtol=1e-4, atol=1e-6)
    # 5 frames are left: one action of 3 frames, one of 2, and then nothing
    rows, is_pad = dataset.chunk_rows(last, 4, stride=3)
    assert is_pad[0].tolist() == [False, False, True, True]
    assert (rows[0] - last[0]).tolist() == [0, 3, 4, 4]
    tail = dataset.action[last[0] : last[0] + 5]
    ends = dataset.chunk_actions(last, 4, stride=3)[0]
    np.testing.assert_allclose(ends[:2, :3], [tail[:3, :3].mean(axis=0), tail[3:, :3].mean(axis=0)], rtol=1e-5)


def test_other_robots_actions_are_positions(generic_root, cache_dir):
    dataset = resolve(tiny_trial(generic_root, cache_dir)).dataset
    assert dataset.averaged_dims == ()
    assert np.array_equal(dataset.chunk_actions(np.array([2]), 4, stride=5)[0], dataset.action[2:22:5])


def test_any_frame_is_trained_on_and_each_step_has_its_own_weight(eggs_root, cache_dir):
    config = eggs_trial(eggs_root, cache_dir, 3, weighting__alpha=1.0, weighting__per_step=True)
    trial = prepare(config)
    batch = trial.maker.training(trial.stream, 0, 64)
    assert set(trial.dataset.frame[batch.rows] % 3) == {0, 1, 2}
    progress = trial.dataset.progress[batch.step_rows]
    np.testing.assert_allclose(trial.learner.step_weights(batch), 1 + progress**2, rtol=1e-6)
    assert np.array_equal(batch.step_rows[0, :2].diff(), [3])


def test_noise_belongs_to_the_time_stamp(eggs_root, cache_dir):
    fine, coarse = (prepare(eggs_trial(eggs_root, cache_dir, stride)) for stride in (1, 3))
    one, other = (t.maker.training(t.stream, 0, 4) for t in (fine, coarse))
    assert torch.equal(one.rows, other.rows)
    assert torch.equal(one.time, other.time)
    assert torch.equal(one.noise[:, ::3], other.noise)


def scores(root, cache_dir, motion, **values):
    """The scores of policies of 30, 15 and 10 Hz that all move as ``motion(dataset actions)`` says."""
    found = []
    for stride in (1, 2, 3):
        trial = prepare(eggs_trial(root, cache_dir, stride, eval__frame_stride=6, **values))
        moved = motion(trial.dataset.action)
        pretend = replace(trial.dataset, action=moved)
        mean, std = (torch.from_numpy(v).float() for v in (trial.learner.interface.action.mean, trial.learner.interface.action.std))  # fmt: skip # noqa: E501

        class Pretender:
            def answer(self, inputs, noise, time, frames, steps, pretend=pretend, stride=stride, std=std, mean=mean):
                chunk = torch.from_numpy(pretend.chunk_actions(np.array(frames), steps, stride))
                actions = ((chunk - mean) / std)[:, None].expand(-1, noise.shape[1], -1, -1)
                return type("Answer", (), {"actions": actions, "errors": torch.zeros_like(actions)})

        trial.learner.forward = Pretender()
        found.append(evaluate(trial.learner, trial.maker, trial.frames))
    return found


def test_policies_that_move_alike_score_alike_whatever_their_rate(eggs_root, cache_dir):
    rng = np.random.default_rng(0)

    def off(actions):
        return (actions + 0.1 * rng.standard_normal(actions.shape)).astype(np.float32)

    fixed = off(resolve(eggs_trial(eggs_root, cache_dir, 1)).dataset.action)
    for motion in (lambda actions: fixed, lambda actions: actions):
        one, *others = scores(eggs_root, cache_dir, motion)
        for other in others:
            assert other == pytest.approx(one, rel=1e-4, abs=1e-6)
    assert one["val/critical_action_mse"] == pytest.approx(0, abs=1e-9)
    assert scores(eggs_root, cache_dir, lambda actions: fixed)[0]["val/critical_action_mse"] > 1e-3


def test_frames_without_a_whole_scored_step_are_left_out(eggs_root, cache_dir):
    config = eggs_trial(eggs_root, cache_dir, 2, eval__frame_stride=6, eval__frames=10_000)
    inputs = resolve(config)
    left = (
        inputs.dataset.lengths[inputs.dataset.episode[inputs.frames.everywhere]]
        - inputs.dataset.frame[inputs.frames.everywhere]
    )
    assert left.min() == 6
    short = config.with_values({"eval.horizon_s": 3.0, "policy.chunk_size": 90, "eval.frame_stride": 90})
    with pytest.raises(DataError, match="is followed by 90 frames, the step that is scored"):
        evaluation_set(short, inputs.dataset, inputs.split)


def test_the_exported_policy_carries_its_rate(eggs_root, cache_dir, tmp_path):
    trial = prepare(eggs_trial(eggs_root, cache_dir, 3))
    trial.learner.step(trial.training(0, 4), lr=1e-3)
    save_state(trial.learner, tmp_path / "state")
    export_policy(tmp_path / "state", tmp_path / "policy")
    card = json.loads((tmp_path / "policy" / "smolvla_core.json").read_text())
    assert (card["control_hz"], card["action_s"]) == (10, pytest.approx(0.1))
    readme = (tmp_path / "policy" / "README.md").read_text()
    assert "controls at 10 Hz" in readme
    assert "Hold each action for 0.1 s." in readme


def test_what_cannot_be_scored_is_refused(eggs_root, cache_dir):
    with pytest.raises(ConfigError, match=r"eval\.horizon_s is 0\.5 s, 15 steps at 30 Hz.*\(4\) times data.frame_stri"):
        resolve(eggs_trial(eggs_root, cache_dir, 3, eval__horizon_s=0.5))
    with pytest.raises(ConfigError, match=r"eval\.frame_stride is 2, which is no multiple of data\.frame_stride \(3\)"):
        eggs_trial(eggs_root, cache_dir, 3, eval__frame_stride=2)
