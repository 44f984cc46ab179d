"""Engineered features: their numbers by hand, where they come from, and what the policy sees of them."""

import json

import numpy as np
import pytest
import torch

from smolvla_core.config import DatasetSource, StateConfig
from smolvla_core.data.synthetic.scene import to_world
from smolvla_core.errors import ConfigError, DataError
from smolvla_core.features import (
    FEATURES,
    BasketDistance,
    ContactForce,
    feature_from_dict,
    feature_to_dict,
    resolve_features,
    rotate,
)
from smolvla_core.trial import prepare, resolve
from tests.core_fixtures import tiny_trial

BASKET = {"basket": [3, 5]}  # after the one egg's x, y, z
SOURCE = DatasetSource(root="/x", task_info={"basket": [3, 6]})


def eggs_trial(root, cache_dir, features=(), task_info=None, **values):
    source = {"root": str(root)} | ({"task_info": task_info} if task_info else {})
    defaults = {"state__preset": "top32", "eval__horizon_s": 0.3, "data__train": [source]}
    return tiny_trial(root, cache_dir, state__features=list(features), **{**defaults, **values})


def only(name, release="2025", source=SOURCE):
    (feature,) = resolve_features(StateConfig(features=(name,), track="open"), release, source, 6)
    return feature


# --- contact force


def test_contact_force_is_the_mean_absolute_effort_of_each_gripper():
    force = only("contact_force")
    assert force == ContactForce(((136, 137), (138, 139)))
    raw = np.full((2, 256), 9.0, dtype=np.float32)
    raw[:, 136:140] = [[-3, 5, 0, -2], [0, 0, 1, 1]]
    assert force(raw, None).tolist() == [[4, 1], [0, 1]]


def test_contact_force_shows_when_an_egg_is_held(eggs_root, cache_dir):
    interface = resolve(eggs_trial(eggs_root, cache_dir, ["contact_force"])).interface
    assert interface.state_width == 34
    trial = prepare(eggs_trial(eggs_root, cache_dir, ["contact_force"]))
    dataset = trial.dataset
    seen = trial.learner.interface.see(dataset.state, None)
    # the synthetic gripper holds with 20 N, and nothing else loads it
    assert np.unique(seen[:, 32:]).tolist() == [0, 20]
    np.testing.assert_array_equal(seen[:, :32], dataset.state[:, list(interface.selection.indices)])


# --- distance to the basket


def test_distance_in_space_and_on_the_ground_by_hand():
    raw = np.array([[3.0, 4.0, 12.0]], dtype=np.float32)
    poses = np.zeros((1, 6), dtype=np.float32)
    assert BasketDistance(((0, 1, 2),), (3, 6), ())(raw, poses).tolist() == [[13]]
    assert BasketDistance(((0, 1, 2),), (3, 5), ())(raw, poses).tolist() == [[5]]


def test_rotation_by_quarter_turns():
    def turn(roll, pitch, yaw):
        angles = np.array([[roll, pitch, yaw]])
        return rotate(np.array([[1.0, 2.0, 3.0]]), np.cos(angles), np.sin(angles))[0]

    quarter = np.pi / 2
    assert turn(quarter, 0, 0) == pytest.approx([1, -3, 2])
    assert turn(0, quarter, 0) == pytest.approx([3, 2, -1])
    assert turn(0, 0, quarter) == pytest.approx([-2, 1, 3])
    # roll first, yaw last
    assert turn(quarter, 0, quarter) == pytest.approx([3, 1, 2])


def test_a_hand_is_taken_into_the_world_by_the_robots_pose():
    distance = only("basket_distance")
    raw = np.zeros((1, 256), dtype=np.float32)
    raw[:, 140:143] = [10, 20, 0]  # the robot
    raw[:, 143:146], raw[:, 146:149] = [1, 1, 0], [0, 0, 1]  # it faces the world's y
    raw[:, 186:189] = [1, 0, 0.5]  # the left hand, 1 m ahead of it
    raw[:, 225:228] = [0, -2, 0.5]  # the right hand, 2 m to its right
    poses = np.zeros((1, 6), dtype=np.float32)
    poses[:, 3:6] = [10, 21, 0.5]  # the basket, where the left hand is
    assert distance(raw, poses)[0] == pytest.approx([0, 5**0.5])


def test_distance_to_the_basket_in_the_synthetic_task(privileged_root, cache_dir):
    config = eggs_trial(privileged_root, cache_dir, ["basket_distance"], BASKET, state__track="open")
    trial = prepare(config)
    dataset = trial.dataset
    seen = trial.learner.interface.see(dataset.state, dataset.task_info)[:, 32:]
    # by the way the synthetic world is written: the base's x, y and yaw, and hands in its frame
    for row in (0, 31, 90):
        base = np.array([*dataset.state[row, 140:142], dataset.state[row, 149]])
        hands = (to_world(dataset.state[row, dims], base) for dims in ([186, 187], [225, 226]))
        expected = [np.hypot(*(hand - dataset.task_info[row, 3:5])) for hand in hands]
        assert seen[row] == pytest.approx(expected, abs=1e-5)
    # the hand that takes the egg comes to the basket: its farthest egg lies 5 cm from the middle
    for episode in range(len(dataset.lengths)):
        nearest = seen[dataset.rows_of((episode,))].min(axis=0)
        assert nearest.min() < 0.06
        assert nearest.max() > 0.1


def test_jitter_moves_what_is_made_of_the_jittered_dims(privileged_root, cache_dir):
    values = {"state__track": "open", "state__preset": "winner23"}
    plain, jittered = (
        prepare(eggs_trial(privileged_root, cache_dir, ["basket_distance", "contact_force"], BASKET, **values, **more))
        for more in ({}, {"augment__gripper_jitter_m": 0.02})
    )
    before, after = (t.maker.training(t.stream, 0, 16).state for t in (plain, jittered))
    assert torch.equal(before[:, :23], after[:, :23])  # winner23 has no end-effector position itself
    moved = (after - before)[:, 23:25].abs()
    assert moved.max() <= 0.02 * 2**0.5 + 1e-6
    assert (moved > 0).all()
    assert torch.equal(before[:, 25:], after[:, 25:])
    rows = plain.frames.critical[:4]
    noise, time = np.zeros((4, 10, 32), np.float32), np.zeros(4, np.float32)
    assert torch.equal(*(t.maker.validation(rows, noise, time).state for t in (plain, jittered)))


# --- both


def test_statistics_are_of_the_training_episodes(eggs_root, cache_dir):
    trial = prepare(eggs_trial(eggs_root, cache_dir, ["contact_force"]))
    efforts = np.abs(trial.dataset.state[:, 136:140]).reshape(-1, 2, 2).mean(axis=2)
    expected = efforts[trial.dataset.rows_of(trial.split.train)].mean(axis=0)
    assert trial.learner.interface.seen.mean[32:] == pytest.approx(expected)
    assert expected != pytest.approx(efforts.mean(axis=0))


def test_they_reach_the_policy_normalised_and_get_a_gradient(eggs_root, cache_dir):
    trial = prepare(eggs_trial(eggs_root, cache_dir, ["contact_force"]))
    learner = trial.learner
    batch = trial.maker.training(trial.stream, 0, 16)
    from smolvla_core.data.batch import to_lerobot

    inputs = to_lerobot(batch, learner.interface, learner.processors, learner.device)
    moments = learner.interface.seen
    expected = (batch.state.numpy() - moments.mean) / moments.std
    np.testing.assert_allclose(inputs["observation.state"], expected, atol=1e-4)
    projection = learner.policy.model.state_proj
    learner.losses(batch, torch.ones(16, 1))[0].sum().backward()
    assert projection.in_features == 40
    assert projection.weight[:, 32:].count_nonzero() == 0
    assert (projection.weight.grad[:, 32:34].abs().sum(dim=0) > 0).all()
    assert projection.weight.grad[:, 34:].count_nonzero() == 0


def test_json_round_trip():
    for name in FEATURES:
        feature = only(name)
        assert feature_from_dict(json.loads(json.dumps(feature_to_dict(feature)))) == feature


@pytest.mark.parametrize(
    ("name", "release", "source", "message"),
    [
        ("contact_force", "2026", SOURCE, "made of joint efforts, which the 2026 release does not have; remove it"),
        ("contact_force", None, SOURCE, "needs R1Pro's named state"),
        ("basket_distance", "2026", SOURCE, "needs the robot's own pose, which the 2026 release does not have"),
        ("basket_distance", "2025", DatasetSource(root="/x"), "give it with the dataset, e.g. task_info"),
        (
            "basket_distance",
            "2025",
            DatasetSource(root="/x", task_info={"basket": [5, 8]}),
            r"task_info.basket is \[5, 8\], the dataset's observation.task_info has 6 dims",
        ),
    ],
)
def test_what_the_data_does_not_have_is_refused(name, release, source, message):
    with pytest.raises(ConfigError, match=message):
        only(name, release, source)


def test_poses_relative_to_the_robot_need_no_pose_of_its_own():
    source = DatasetSource(root="/x", task_info={"basket": [3, 6], "frame": "robot"})
    assert only("basket_distance", "2026", source) == BasketDistance(((17, 18, 19), (42, 43, 44)), (3, 6), ())


def test_privileged_data_is_refused_in_the_standard_track_before_anything_is_read(privileged_root, cache_dir):
    with pytest.raises(ConfigError, match="which the standard track forbids; remove it, or set state.track to open"):
        eggs_trial(privileged_root, cache_dir, ["basket_distance"], BASKET)


def test_a_dataset_without_poses_says_how_to_import_them(eggs_root, cache_dir):
    config = eggs_trial(eggs_root, cache_dir, ["basket_distance"], BASKET, state__track="open")
    with pytest.raises(DataError, match="import the dataset with --keep-privileged"):
        resolve(config)
