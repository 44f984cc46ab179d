"""A chain that is calibrated on recordings puts the hand where the robot's own would."""

from dataclasses import replace

import numpy as np
import pytest

from smolvla_core.kinematics import Chain, calibrate, hand_chains
from smolvla_core.r1pro import MOST_OFF_M
from smolvla_core.trial import resolve
from tests.core_fixtures import tiny_trial

LINKS = np.array(
    [[0, 0, 0.3], [0, 0, 0.35], [0, 0, 0.35], [0, 0, 0.3], [0, 0.2, 0.1], [0, 0.05, 0], [0, 0.1, 0]]
    + [[0.3, 0, 0], [0.05, 0, 0], [0.25, 0, 0], [0.05, 0, 0], [0.15, 0, 0]]
)
AXES = np.array(
    [[0, 1, 0], [0, 1, 0], [0, -1, 0], [0, 0, 1], [0, 1, 0], [1, 0, 0], [0, 0, 1], [0, 1, 0], [0, 0, 1]]
    + [[0, -1, 0], [1, 0, 0]],
    dtype=float,
)


def test_a_chain_by_hand():
    planar = Chain(np.array([[0, 0, 1.0], [0, 0, 2.0]]), np.array([[0, 0, 1.0], [1, 0, 0], [0.5, 0, 0]]), 0.0)
    assert planar(np.zeros(2)) == pytest.approx([1.5, 0, 1])
    assert planar(np.array([np.pi / 2, 0])) == pytest.approx([0, 1.5, 1])
    assert planar(np.array([[0, np.pi / 2], [np.pi / 2, np.pi / 2]])).ravel() == pytest.approx([1, 0.5, 1, -0.5, 1, 1])


def test_an_unknown_arm_is_calibrated_and_predicts_where_errors_put_the_hand():
    rng = np.random.default_rng(0)
    robot = Chain(AXES + rng.normal(0, 0.2, AXES.shape), LINKS + rng.normal(0, 0.02, LINKS.shape), 0.0)

    def poses(count):
        return rng.normal(0, 0.4, (count, 11)) + [0.2, -0.5, -0.3, 0, -0.6, 1.2, 0, -0.9, 0, 0, 0]

    seen = poses(500)
    found = calibrate(seen, robot(seen) + rng.normal(0, 1e-3, (500, 3)))
    assert found.off_m < 3e-3
    new = poses(200)
    wrong = new + rng.normal(0, 0.1, new.shape)
    true = np.linalg.norm(robot(wrong) - robot(new), axis=1)
    assert np.linalg.norm(found(wrong) - found(new), axis=1) == pytest.approx(true, abs=5e-3)


def test_what_no_arm_can_do_is_said_to_be_off():
    rng = np.random.default_rng(0)
    assert calibrate(rng.normal(0, 0.4, (200, 11)), rng.normal(0, 0.3, (200, 3))).off_m > MOST_OFF_M


def test_chains_are_calibrated_on_training_episodes_once(eggs_root, cache_dir, monkeypatch):
    config = tiny_trial(eggs_root, cache_dir, state__preset="top32", eval__horizon_s=0.3)
    inputs = resolve(config)
    chains = hand_chains(config, inputs.dataset, inputs.split.train)
    assert [len(chain.action_dims) for chain in chains] == [11, 11]
    monkeypatch.setattr("smolvla_core.kinematics.calibrate", lambda *a: pytest.fail("calibrated again"))
    held_out = inputs.dataset.rows_of(inputs.split.val)
    changed = inputs.dataset.state.copy()
    changed[held_out] = 7.0
    again = hand_chains(config, replace(inputs.dataset, state=changed), inputs.split.train)
    assert np.array_equal(again[1].chain.axes, chains[1].chain.axes)


def test_another_robot_has_no_chain(generic_root, cache_dir):
    inputs = resolve(tiny_trial(generic_root, cache_dir))
    assert hand_chains(tiny_trial(generic_root, cache_dir), inputs.dataset, inputs.split.train) == ()
