"""Jitter moves the end-effector positions of training frames, and nothing else."""

import numpy as np
import pytest

from smolvla_core.augment import jitter_positions, jittered_dims
from smolvla_core.config import AugmentConfig, StateConfig
from smolvla_core.errors import ConfigError
from smolvla_core.state import select_state
from smolvla_core.trial import prepare
from tests.core_fixtures import tiny_trial

EEF = (186, 187, 188, 225, 226, 227)


def test_it_moves_both_end_effectors_by_metres():
    state = np.zeros((2, 256), dtype=np.float32)
    draws = np.array([[1, -1, 0.5, 0, 0, 0], [0, 0, 0, 1, 1, 1]], dtype=np.float32)
    moved = jitter_positions(state, EEF, 0.02, draws)
    assert moved[0, list(EEF)] == pytest.approx([0.02, -0.02, 0.01, 0, 0, 0])
    assert np.delete(moved, EEF, axis=1).any() is np.False_
    assert not state.any()


def test_dims_are_found_by_name_in_both_releases():
    config = AugmentConfig(gripper_jitter_m=0.02)
    assert jittered_dims(config, select_state(StateConfig(), 256, "R1Pro")) == EEF
    assert jittered_dims(config, select_state(StateConfig(), 61, "R1Pro")) == (17, 18, 19, 42, 43, 44)


def test_off_is_off():
    assert jittered_dims(AugmentConfig(), select_state(StateConfig(preset="identity"), 5, None)) == ()


def test_a_knob_that_would_do_nothing_is_refused():
    selection = select_state(StateConfig(keys=("trunk_qpos",)), 256, "R1Pro")
    with pytest.raises(ConfigError, match="it would do nothing"):
        jittered_dims(AugmentConfig(gripper_jitter_m=0.02), selection)


def test_training_is_jittered_and_validation_is_not(eggs_root, cache_dir):
    values = {"state__preset": "top32", "eval__horizon_s": 0.3}
    plain = prepare(tiny_trial(eggs_root, cache_dir, **values))
    jittered = prepare(tiny_trial(eggs_root, cache_dir, augment__gripper_jitter_m=0.02, **values))
    before, after = (t.maker.training(t.stream, 0, 8).state.numpy() for t in (plain, jittered))
    positions = [jittered.learner.interface.selection.indices.index(dim) for dim in EEF]
    difference = after - before
    assert np.abs(difference[:, positions]).max() <= 0.02 + 1e-6
    assert (difference[:, positions] != 0).all()
    assert not np.delete(difference, positions, axis=1).any()
    # both arms independently
    assert not np.allclose(difference[:, positions[:3]], difference[:, positions[3:]])
    rows = plain.frames.critical[:4]
    noise, time = np.zeros((4, 10, 32), np.float32), np.zeros(4, np.float32)
    assert plain.maker.validation(rows, noise, time).state.equal(jittered.maker.validation(rows, noise, time).state)
