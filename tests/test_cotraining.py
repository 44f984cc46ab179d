"""Two tasks in one policy: task 5 (setting mousetraps) beside task 6 (hiding Easter eggs)."""

import json
import shutil

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from smolvla_core.augment import RawFrames, augment
from smolvla_core.checkpoint import export_policy, save_state
from smolvla_core.data.dataset import fingerprint
from smolvla_core.errors import ConfigError
from smolvla_core.evaluate import evaluate
from smolvla_core.train import train
from smolvla_core.trial import prepare, resolve
from tests.core_fixtures import tiny_trial
from tests.datasets import write_generic
from tests.test_checkpoint import noise_for, predict_with_ours, predict_with_stock_lerobot
from tests.test_learner import gradients

BASE = {"state__preset": "top32", "eval__horizon_s": 0.3}


def two_tasks(main, beside, cache_dir, weight=1.0, beside_values=None, **values):
    config = tiny_trial(main, cache_dir, **({**BASE, **values}))
    train = [{"root": str(main)}, {"root": str(beside), "weight": weight, **(beside_values or {})}]
    return config.with_values({"data.train": train})


@pytest.fixture
def config(eggs_root, mousetraps_root, cache_dir):
    return two_tasks(eggs_root, mousetraps_root, cache_dir)


def test_each_dataset_has_its_own_statistics_instruction_and_sizes(config):
    inputs = resolve(config)
    (beside,) = inputs.others
    for source, rows in (
        (inputs, inputs.dataset.rows_of(inputs.split.train)),
        (beside, np.arange(len(beside.dataset.frame))),  # nothing of it is held out
    ):
        np.testing.assert_allclose(source.interface.action.mean, source.dataset.action[rows].mean(axis=0), atol=1e-5)
        assert set(source.curriculum.rows) == set(rows)
    assert np.abs(inputs.interface.action.mean - beside.interface.action.mean).max() > 1e-2
    assert "Easter eggs" in inputs.interface.instructions[0]
    assert "mousetrap" in beside.interface.instructions[0]
    sizes = [[(view.height, view.width) for view in side.interface.cameras] for side in (inputs, beside)]
    assert sizes[0] != sizes[1]
    assert [v.policy_key for v in inputs.interface.cameras] == [v.policy_key for v in beside.interface.cameras]


def test_training_rows_are_normalised_by_their_own_statistics(config):
    trial = prepare(config)
    parts = trial.training(0, 400)
    assert [part.dataset for part in parts] == [0, 1]
    for part in parts:
        reading = trial.learner.readings[part.dataset]
        inputs = reading.processors.pre({"action": part.action, "observation.state": part.state, "task": part.tasks})
        for key, moments in (("action", reading.interface.action), ("observation.state", reading.interface.seen)):
            raw = (part.action if key == "action" else part.state).numpy()
            expected = (raw - moments.mean) / moments.std
            np.testing.assert_allclose(inputs[key].numpy(), expected, rtol=1e-3, atol=1e-3)
        # as drawn, its states centre on 0
        assert np.abs(inputs["observation.state"].mean(dim=0)).mean() < 0.1


def test_samples_are_shared_out_and_do_not_depend_on_the_batch(eggs_root, mousetraps_root, cache_dir):
    trial = prepare(two_tasks(eggs_root, mousetraps_root, cache_dir, weight=0.5))
    whole = {part.dataset: part for part in trial.training(0, 60)}
    assert len(whole[0]) == pytest.approx(40, abs=12)
    again = prepare(two_tasks(eggs_root, mousetraps_root, cache_dir, weight=0.5))
    small = [part for first in range(0, 60, 4) for part in again.training(first, 4)]
    assert all(len(part) for part in small)
    for number, part in whole.items():
        own = [each for each in small if each.dataset == number]
        assert torch.equal(part.rows, torch.cat([each.rows for each in own]))
        assert torch.equal(part.noise, torch.cat([each.noise for each in own]))
        assert torch.equal(part.images[0], torch.cat([each.images[0] for each in own]))


def test_a_weight_of_zero_trains_as_without(eggs_root, mousetraps_root, cache_dir):
    alone = train(tiny_trial(eggs_root, cache_dir, **BASE))
    beside = train(two_tasks(eggs_root, mousetraps_root, cache_dir, weight=0.0))
    timeless = {key: value for key, value in alone.metrics.items() if "_per_s" not in key}
    assert timeless == {key: beside.metrics[key] for key in timeless}


@pytest.mark.parametrize("values", [{}, {"weighting__normalize": True}, {"optim__micro_batch": 2}])
def test_the_gradient_of_a_mixed_batch_is_the_weighted_sum_of_its_parts(eggs_root, mousetraps_root, cache_dir, values):
    weighting = {"weighting__alpha": 2.0, "optim__batch_size": 8}
    trial = prepare(two_tasks(eggs_root, mousetraps_root, cache_dir, **weighting, **values))
    mixed = trial.training(0, 8)
    assert len(mixed) == 2
    whole, stats = gradients(trial, mixed)
    fresh = prepare(two_tasks(eggs_root, mousetraps_root, cache_dir, **weighting, **values))
    parts = [gradients(fresh, part) for part in mixed]
    # by samples, or by the sum of their weights
    by_weight = "weighting__normalize" in values
    sizes = [float(fresh.learner.step_weights(part).sum()) if by_weight else len(part) for part in mixed]
    shares = np.array(sizes) / sum(sizes)
    assert stats.loss == pytest.approx(sum(w * s.loss for w, (_, s) in zip(shares, parts, strict=True)), rel=1e-5)
    moved = 0
    for name, gradient in whole.items():
        expected = sum(w * grads[name] for w, (grads, _) in zip(shares, parts, strict=True))
        assert torch.allclose(gradient, expected, rtol=1e-3, atol=1e-6), name
        moved += not torch.allclose(gradient, parts[0][0][name], rtol=1e-2, atol=1e-6)
    assert moved > 40  # the second task does turn it


def test_weights_are_by_progress_in_the_own_episode(eggs_root, mousetraps_root, cache_dir):
    trial = prepare(two_tasks(eggs_root, mousetraps_root, cache_dir, weighting__alpha=1.0))
    inputs = resolve(trial.learner.config)
    for part, source in zip(trial.training(0, 40), (inputs, *inputs.others), strict=True):
        progress = source.dataset.progress[part.rows.numpy()]
        np.testing.assert_allclose(trial.learner.step_weights(part)[:, 0], 1 + progress**2, rtol=1e-6)


def test_resuming_a_mixed_run_gives_the_same_numbers(config, tmp_path):
    config = config.with_values({"eval.at": [8], "augment.gripper_jitter_m": 0.02})
    reports, kept = [], []

    def report(metrics, save):
        reports.append({key: value for key, value in metrics.items() if "_per_s" not in key})
        if metrics["samples_seen"] == 8 and "val/flow_loss" in metrics:
            save(tmp_path / "state")
            kept.append(True)

    train(config, report)
    uninterrupted, reports = reports, []
    assert kept
    train(config, report, restore=tmp_path / "state")
    assert reports[-1] == uninterrupted[-1]


def test_the_objective_knows_the_main_task_alone(config, eggs_root, cache_dir):
    alone, beside = prepare(tiny_trial(eggs_root, cache_dir, **BASE)), prepare(config)
    assert evaluate(alone.learner, alone.maker, alone.frames) == evaluate(beside.learner, beside.maker, beside.frames)


def test_the_exported_policy_is_the_main_tasks(config, tmp_path):
    trial = prepare(config)
    trial.learner.step(trial.training(0, 8), lr=1e-3)
    save_state(trial.learner, tmp_path / "state")
    export_policy(tmp_path / "state", tmp_path / "policy")
    rows = trial.dataset.rows_of(trial.split.val)[[3, 30]]
    noise = noise_for(trial, rows)
    stock = predict_with_stock_lerobot(tmp_path / "policy", trial, rows, noise, tmp_path)
    np.testing.assert_allclose(stock, predict_with_ours(trial, rows, noise), rtol=1e-4, atol=1e-5)
    (file,) = (tmp_path / "policy").glob("policy_postprocessor_step_*_unnormalizer_processor.safetensors")
    mean = trial.dataset.action[trial.dataset.rows_of(trial.split.train)].mean(axis=0)
    np.testing.assert_allclose(load_file(file)["action.mean"], mean, rtol=1e-4, atol=1e-5)
    card = json.loads((tmp_path / "policy" / "smolvla_core.json").read_text())
    assert len(card["instructions"]) == 1


def test_the_fingerprint_names_every_dataset(config):
    found = fingerprint(config.data)
    (other,) = found["others"]
    assert (found["episodes"], other["episodes"]) == (6, 4)
    assert found["digest"] != other["digest"]
    assert other["root"] == str(resolve(config).others[0].dataset.root)


def test_positions_are_jittered_in_both_by_their_own_names(config):
    inputs = resolve(config.with_values({"augment.gripper_jitter_m": 0.02}))
    for source in (inputs, *inputs.others):
        raw = source.dataset.state[:2]
        frames = RawFrames(np.arange(2), np.arange(2), (), raw, None)
        moved = augment(frames, source.augmentations).state - raw
        assert set(np.flatnonzero(moved.any(axis=0))) == {186, 187, 188, 225, 226, 227}


def edited(root, folder, **values):
    copy = shutil.copytree(root, folder)
    info = copy / "meta" / "info.json"
    info.write_text(json.dumps(json.loads(info.read_text()) | values))
    return copy


def test_cameras_are_mapped_by_name(eggs_root, release_2026_root, cache_dir, config):
    """2026's `observation.rgb.head` is the policy's `rgb.head`; other names are mapped in the YAML."""
    inputs = resolve(two_tasks(eggs_root, release_2026_root, cache_dir))
    (beside,) = inputs.others
    assert [v.dataset_key for v in beside.interface.cameras] == [
        v.dataset_key.replace("observation.images.", "observation.") for v in inputs.interface.cameras
    ]
    assert beside.interface.selection.raw_width == 61
    swapped = {
        "rgb.head": "observation.images.rgb.head",
        "rgb.left_wrist": "observation.images.rgb.right_wrist",
        "rgb.right_wrist": "observation.images.rgb.left_wrist",
    }
    root = config.data.train[1].root
    views = resolve(two_tasks(eggs_root, root, cache_dir, beside_values={"cameras": swapped})).others[0]
    assert [v.dataset_key for v in views.interface.cameras][1].endswith("right_wrist")
    del swapped["rgb.left_wrist"]
    with pytest.raises(ConfigError, match=r"data\.train\.1\.cameras: gives the policy no 'rgb\.left_wrist', which it"):
        resolve(two_tasks(eggs_root, root, cache_dir, beside_values={"cameras": swapped}))
    swapped["rgb.left_wrist"] = "observation.images.rgb.tail"
    with pytest.raises(
        ConfigError, match=r"data\.train\.1\.cameras: the dataset has no 'observation\.images\.rgb\.tail'"
    ):
        resolve(two_tasks(eggs_root, root, cache_dir, beside_values={"cameras": swapped}))


def test_what_does_not_go_together_is_one_line(
    config, eggs_root, mousetraps_root, generic_root, cache_dir, tmp_path, monkeypatch
):
    def refused(main, beside, message, **values):
        with pytest.raises(ConfigError, match=message) as error:
            resolve(two_tasks(main, beside, cache_dir, **values))
        assert "\n" not in str(error.value)

    identity = {"state__preset": "identity", "state__track": "open"}
    refused(eggs_root, generic_root, r"data\.train\.1: .* has 10 frames a second, the main dataset 30", **identity)
    missing = (
        r"data\.train\.1\.cameras: the policy expects rgb\.head, .* the dataset has .*top, .*wrist; map them, e\.g\."
    )
    cameras = edited(generic_root, tmp_path / "thirty", fps=30)
    refused(eggs_root, cameras, missing, **identity)
    narrow = write_generic(tmp_path / "narrow", state=9, episodes=2)
    refused(generic_root, narrow, r"data\.train\.1: gives the policy 9 state dims, the main dataset 10;", **identity)
    still = write_generic(tmp_path / "still", action=3, episodes=2)
    refused(generic_root, still, r"data\.train\.1: gives the policy 3 action dims, the main dataset 4;", **identity)
    monkeypatch.setattr("smolvla_core.weights.annotated_frames", lambda d: None if d.root == mousetraps_root else np.ones(len(d.frame), bool))  # fmt: skip # noqa: E501
    refused(
        eggs_root,
        mousetraps_root,
        r"data\.train\.1 \(.*\): weighting\.scheme: this dataset has no pick or place annotations",
        weighting__scheme="annotation",
    )


def test_held_out_episodes_are_not_trained_on_under_another_name(eggs_root, cache_dir, tmp_path):
    copy = shutil.copytree(eggs_root, tmp_path / "renamed")
    with pytest.raises(
        ConfigError, match=r"data\.train\.1: episode \d+ of .*renamed is the main dataset's episode \d+"
    ):
        resolve(two_tasks(eggs_root, copy, cache_dir))


def test_the_main_task_must_be_trained(eggs_root, mousetraps_root, cache_dir, config):
    with pytest.raises(ConfigError, match=r"data\.train\.0\.weight is 0"):
        config.with_values({"data.train.0.weight": 0.0})
    with pytest.raises(ConfigError, match=r"data\.train\.7\.weight: there is no entry '7'; the list holds 2"):
        config.with_values({"data.train.7.weight": 0.5})
    assert config.with_values({"data.train.1.weight": 3.0}).data.shares == (0.25, 0.75)
