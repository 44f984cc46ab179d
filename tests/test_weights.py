"""Weights meet the losses of samples and steps; their effect is on the gradient."""

import numpy as np
import pytest
import torch

from smolvla_core.errors import ConfigError
from smolvla_core.trial import prepare
from smolvla_core.weights import (
    SCHEMES,
    FrameWeighter,
    frame_weights,
    inside_weights,
    loss_denominator,
    per_sample_losses,
    temporal_weights,
)
from tests.core_fixtures import tiny_trial

NO_PAD = torch.zeros(2, 1, dtype=torch.bool)


def test_hand_checked_weights():
    progress = np.array([0.0, 0.5, 0.8, 1.0], dtype=np.float32)
    assert temporal_weights(progress, 1.0) == pytest.approx([1.0, 1.25, 1.64, 2.0])


def test_alpha_zero_is_exactly_one():
    assert (temporal_weights(np.linspace(0, 1, 100, dtype=np.float32), 0.0) == 1).all()


def test_inside_weights():
    assert inside_weights(np.array([True, False]), 3.0).tolist() == [3.0, 1.0]


def test_weights_turn_the_gradient():
    slope = torch.tensor(1.0, requires_grad=True)
    inputs = torch.tensor([1.0, 2.0]).reshape(2, 1, 1)
    for weights, expected in (([1.0, 1.0], (1 + 2) / 2), ([1.0, 2.0], (1 + 2 * 2) / 2)):
        slope.grad = None
        step_weights = torch.tensor(weights).reshape(2, 1)
        losses = per_sample_losses(slope * inputs, NO_PAD, step_weights)
        (losses.sum() / loss_denominator(step_weights, NO_PAD, normalize=False)).backward()
        assert slope.grad.item() == pytest.approx(expected)


def test_normalised_by_the_weights_sum():
    losses, weights = torch.tensor([1.0, 3.0]).reshape(2, 1, 1), torch.tensor([[1.0], [2.0]])
    total = per_sample_losses(losses, NO_PAD, weights).sum()
    assert total / loss_denominator(weights, NO_PAD, normalize=True) == pytest.approx(7 / 3)
    assert total / loss_denominator(weights, NO_PAD, normalize=False) == pytest.approx(3.5)


def test_steps_are_weighted_by_their_own_frames_and_padding_is_left_out():
    errors = torch.tensor([[[1.0], [2.0], [100.0]]])
    is_pad = torch.tensor([[False, False, True]])
    assert per_sample_losses(errors, is_pad, torch.tensor([[1.0, 3.0, 9.0]])).tolist() == [(1 + 6) / 2]
    assert loss_denominator(torch.tensor([[1.0, 3.0, 9.0]]), is_pad, normalize=True) == 2.0


def test_weighter_reads_the_frame_not_the_place_in_the_batch():
    weighter = FrameWeighter(np.array([1.0, 1.5, 2.0, 3.0], dtype=np.float32))
    weights, stats = weighter.compute_batch_weights({"index": torch.tensor([[2], [2], [0]])})
    assert weights.tolist() == [[2.0], [2.0], [1.0]]
    assert stats["max_weight"] == 2.0
    assert weighter.get_stats()["max_weight"] == 3.0


def test_every_scheme_that_can_be_asked_for_exists(generic_root, cache_dir):
    from typing import get_args

    from smolvla_core.config import WeightingConfig

    assert set(get_args(WeightingConfig.model_fields["scheme"].annotation)) == set(SCHEMES)


def test_schemes_on_the_task(eggs_root, cache_dir):
    values = {"state__preset": "top32", "eval__horizon_s": 0.3, "weighting__alpha": 1.0}
    found = {}
    for scheme in SCHEMES:
        config = tiny_trial(eggs_root, cache_dir, weighting__scheme=scheme, **values)
        found[scheme] = frame_weights(config, prepare(config).dataset)
    assert set(found["uniform"]) == {1.0}
    assert found["temporal"].max() > 1.9
    for scheme in ("segment", "annotation"):
        assert set(found[scheme]) == {1.0, 3.0}
        assert 0.1 < (found[scheme] == 3.0).mean() < 0.9
    # picks and places are where the grippers move
    assert np.corrcoef(found["segment"], found["annotation"])[0, 1] > 0.2


def test_annotated_picks_and_places_count_by_the_factor(eggs_root, cache_dir):
    from smolvla_core.data.annotations import load_annotations

    values = {"state__preset": "top32", "eval__horizon_s": 0.3, "weighting__scheme": "annotation"}
    config = tiny_trial(eggs_root, cache_dir, weighting__factor=2.5, **values)
    dataset = prepare(config).dataset
    expected = np.ones(len(dataset.frame))
    for episode, spans in load_annotations(eggs_root).items():
        for span in spans:
            if "pick" in span.skill or "place" in span.skill:
                expected[dataset.starts[episode] + span.start : dataset.starts[episode] + span.stop] = 2.5
    assert set(expected) == {1.0, 2.5}
    assert np.array_equal(frame_weights(config, dataset), expected)


@pytest.mark.parametrize("scheme", ["temporal", "segment"])
def test_each_step_of_the_chunk_has_the_weight_of_its_own_frame(eggs_root, cache_dir, scheme):
    values = {"state__preset": "top32", "eval__horizon_s": 0.3, "weighting__alpha": 1.0, "weighting__scheme": scheme}
    trial = prepare(tiny_trial(eggs_root, cache_dir, weighting__per_step=True, **values))
    batch = trial.maker.training(trial.stream, 0, 16)
    weights, found = frame_weights(trial.learner.config, trial.dataset), trial.learner.step_weights(batch)
    assert found.shape == (16, 10)
    for sample, row in enumerate(batch.rows.tolist()):
        last = int(trial.dataset.rows_of((int(trial.dataset.episode[row]),))[-1])
        assert found[sample].tolist() == [weights[min(row + step, last)] for step in range(10)]
    assert (found[:, 1:] != found[:, :1]).any()


def test_per_step_changes_the_gradient(eggs_root, cache_dir):
    values = {"state__preset": "top32", "eval__horizon_s": 0.3, "weighting__alpha": 2.0}
    norms = []
    for per_step in (False, True):
        trial = prepare(tiny_trial(eggs_root, cache_dir, weighting__per_step=per_step, **values))
        norms.append(trial.learner.step(trial.maker.training(trial.stream, 0, 4), lr=1e-4).grad_norm)
    assert abs(norms[1] / norms[0] - 1) > 1e-3


@pytest.mark.parametrize(
    ("scheme", "message"), [("segment", "set data.gripper_dims"), ("annotation", "no pick or place annotations")]
)
def test_a_scheme_without_its_data_is_refused(generic_root, cache_dir, scheme, message):
    with pytest.raises(ConfigError, match=message):
        prepare(tiny_trial(generic_root, cache_dir, weighting__scheme=scheme))
