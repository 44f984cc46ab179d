"""A configuration resolved against its data: what a trial is made of before its weights are."""

import numpy as np
import pytest
import torch

from smolvla_core.config import TrialConfig
from smolvla_core.errors import ConfigError
from smolvla_core.state import top32_indices
from smolvla_core.trial import prepare, resolve
from tests.core_fixtures import tiny_trial


@pytest.fixture
def eggs_config(eggs_root, cache_dir) -> TrialConfig:
    return tiny_trial(eggs_root, cache_dir, state__preset="top32", policy__chunk_size=30)


def test_all_parts_are_of_the_configuration(eggs_config):
    inputs = resolve(
        eggs_config.with_values(
            {
                "weighting.alpha": 3.0,
                "augment.gripper_jitter_m": 0.01,
                "curriculum.scheme": "second_half",
                "curriculum.share": 0.25,
            }
        )
    )
    assert inputs.interface.selection.indices == top32_indices()
    # 1 + 3 progress**2, of every frame of the dataset
    np.testing.assert_allclose(inputs.weights, 1 + 3 * inputs.dataset.progress**2, rtol=1e-6)
    # the end effectors' positions, of the raw state
    (jitter,) = inputs.augmentations
    assert (jitter.dims, jitter.amount_m) == ((186, 187, 188, 225, 226, 227), 0.01)
    # a quarter of 16 samples
    assert (inputs.curriculum.first_late, inputs.curriculum.only_late) == (4, 4)
    assert np.all(inputs.dataset.progress[inputs.curriculum.late] >= 0.5)
    assert inputs.frames.rule == "annotation"


def test_training_validation_and_test_do_not_meet(eggs_config):
    inputs = resolve(eggs_config)
    dataset, split = inputs.dataset, inputs.split
    assert sorted((*split.train, *split.val, *split.test)) == list(range(6))
    trained = set(dataset.episode[inputs.curriculum.rows])
    scored = set(dataset.episode[inputs.frames.critical]) | set(dataset.episode[inputs.frames.everywhere])
    assert trained == set(split.train)
    assert scored <= set(split.val)


def test_statistics_are_of_the_training_episodes_alone(eggs_config):
    inputs = resolve(eggs_config)
    rows = inputs.dataset.rows_of(inputs.split.train)
    np.testing.assert_allclose(inputs.interface.action.mean, inputs.dataset.action[rows].mean(axis=0), atol=1e-5)
    others = inputs.dataset.action.mean(axis=0)
    assert np.abs(inputs.interface.action.mean - others).max() > 1e-4


def test_another_split_seed_is_another_split_and_the_same_gives_the_same(eggs_config):
    again = resolve(eggs_config)
    assert resolve(eggs_config).split == again.split
    splits = {resolve(eggs_config.with_values({"data.split_seed": seed})).split for seed in range(5)}
    assert len(splits) > 1


def test_nothing_is_jittered_or_late_unless_asked_for(eggs_config):
    inputs = resolve(eggs_config)
    assert inputs.augmentations == ()
    assert len(inputs.curriculum.late) == 0
    assert np.all(inputs.weights == 1.0)


def test_no_policy_is_built(eggs_config, monkeypatch):
    monkeypatch.setattr("smolvla_core.trial.Learner", lambda *a: pytest.fail("a policy was built"))
    threads = torch.get_num_threads()
    resolve(eggs_config.with_values({"runtime.threads": threads + 1}))
    assert torch.get_num_threads() == threads


@pytest.mark.parametrize("critical", ["auto", "progress"])
def test_gripper_dims_outside_the_state_are_refused_whatever_rule_uses_them(eggs_config, critical):
    config = eggs_config.with_values({"data.gripper_dims": [256], "eval.critical": critical})
    with pytest.raises(ConfigError, match=r"data\.gripper_dims: \[256\] leave the state's 0\.\.255"):
        resolve(config)


def test_a_horizon_past_the_chunk_is_refused_before_anything_else(eggs_config):
    config = eggs_config.with_values({"eval.horizon_s": 1.5, "state.preset": "standard217"})
    with pytest.raises(ConfigError, match=r"eval\.horizon_s is 1\.5 s, 45 steps at 30 Hz"):
        resolve(config)


def test_a_trial_is_prepared_with_what_was_resolved(trial_config):
    inputs, trial = resolve(trial_config), prepare(trial_config)
    assert trial.split == inputs.split
    assert trial.learner.interface.cameras == inputs.interface.cameras
    np.testing.assert_array_equal(trial.stream.curriculum.rows, inputs.curriculum.rows)
    np.testing.assert_array_equal(trial.frames.critical, inputs.frames.critical)
