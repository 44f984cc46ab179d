"""Errors of the hands and grippers, on numbers that can be checked by hand."""

import numpy as np
import pytest

from smolvla_core.kinematics import Chain, HandChain
from smolvla_core.precision import eef_errors, gripper_timing_errors, group_errors
from smolvla_core.r1pro import ACTION, ACTION_GROUPS, ACTION_WIDTH

LEFT, RIGHT = 14, 22


def actions(*shape):
    made = np.zeros((*shape, ACTION_WIDTH), dtype=np.float32)
    made[..., [LEFT, RIGHT]] = 1.0  # open
    return made


def test_the_groups_are_all_of_the_action():
    dims = [dim for parts in ACTION_GROUPS.values() for part in parts for dim in ACTION[part]]
    assert sorted(dims) == list(range(ACTION_WIDTH))


def test_an_error_is_told_of_its_group_alone():
    predicted, actual = actions(1, 2, 3), actions(1, 3)
    predicted[..., 8] += 2.0  # one of 14 arm joints
    scale = np.ones(ACTION_WIDTH)
    scale[8] = 0.5
    found = group_errors(predicted, actual, np.zeros((1, 3), bool), scale)
    assert found["arms"] == pytest.approx([16 / 14])
    assert found["base"] == found["trunk"] == found["grippers"] == 0


def test_gripper_timing_is_in_seconds_from_the_demonstrated_moment():
    actual, predicted = actions(1, 6), actions(1, 2, 6)
    actual[:, 3:, LEFT] = -1.0  # closes at step 3
    predicted[:, 0, 5:, LEFT] = -1.0  # two steps late
    predicted[:, 1, 2:, LEFT] = -1.0  # one early
    no_pad = np.zeros((1, 6), bool)
    assert gripper_timing_errors(predicted, actual, no_pad, 0.1) == pytest.approx([0.15])
    predicted[:, 0, :, LEFT] = 1.0  # never: as late as the end
    assert gripper_timing_errors(predicted, actual, no_pad, 0.1) == pytest.approx([(0.3 + 0.1) / 2])
    opening, early = -actual, -predicted
    early[:, :, :, LEFT] = 1.0  # open from the start: three steps early
    assert gripper_timing_errors(early, opening, no_pad, 0.1) == pytest.approx([0.3])


def test_gripper_timing_of_frames_without_a_motion_and_past_the_end():
    actual, predicted = actions(2, 4), actions(2, 1, 4)
    actual[1, 2:, RIGHT] = -1.0
    ended = np.array([[False] * 4, [False, False, True, True]])
    # the first frame's grippers stay; the second one's moves after the episode's end
    assert np.isnan(gripper_timing_errors(predicted, actual, ended, 0.1)).all()
    assert np.isnan(gripper_timing_errors(predicted, actual, np.zeros((2, 4), bool), 0.1)).tolist() == [True, False]


def test_the_end_effector_error_is_a_distance_in_metres():
    # one joint about z at the origin, and half a metre of arm
    hand = HandChain((7,), Chain(np.array([[0.0, 0.0, 1.0]]), np.array([[0.0, 0.0, 0.0], [0.5, 0.0, 0.0]]), 0.0))
    predicted, actual = actions(1, 1, 2), actions(1, 2)
    predicted[0, 0, 0, 7] = np.pi / 2
    assert eef_errors(predicted, actual, np.zeros((1, 2), bool), [hand]) == pytest.approx([np.sqrt(0.5) / 2])
    assert eef_errors(predicted, actual, np.array([[False, True]]), [hand]) == pytest.approx([np.sqrt(0.5)])
    still = HandChain((0,), hand.chain)
    assert eef_errors(predicted, actual, np.array([[False, True]]), [hand, still]) == pytest.approx([np.sqrt(0.5) / 2])
