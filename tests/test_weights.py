"""Weights meet per-sample losses; their effect is on the gradient."""

import numpy as np
import pytest
import torch

from smolvla_core.config import WeightingConfig
from smolvla_core.weights import ProgressWeighter, loss_denominator, temporal_weights, weighted_loss


def test_hand_checked_weights():
    progress = torch.tensor([0.0, 0.5, 0.8, 1.0])
    assert temporal_weights(progress, 1.0).tolist() == pytest.approx([1.0, 1.25, 1.64, 2.0])


def test_alpha_zero_is_exactly_one():
    assert torch.equal(temporal_weights(torch.rand(100), 0.0), torch.ones(100))


def test_alpha_turns_the_gradient():
    slope = torch.tensor(1.0, requires_grad=True)
    inputs, progress = torch.tensor([1.0, 2.0]), torch.tensor([0.0, 1.0])
    for alpha, expected in ((0.0, (1 + 2) / 2), (1.0, (1 + 2 * 2) / 2)):
        slope.grad = None
        weights = temporal_weights(progress, alpha)
        weighted_loss(slope * inputs, weights, loss_denominator(weights, normalize=False)).backward()
        assert slope.grad.item() == pytest.approx(expected)


def test_normalised_by_the_weights_sum():
    losses, weights = torch.tensor([1.0, 3.0]), torch.tensor([1.0, 2.0])
    assert weighted_loss(losses, weights, loss_denominator(weights, normalize=True)).item() == pytest.approx(7 / 3)
    assert weighted_loss(losses, weights, loss_denominator(weights, normalize=False)).item() == pytest.approx(3.5)


def test_weighter_reads_progress_in_the_episode_not_in_the_batch():
    progress = np.array([0.0, 0.25, 0.5, 0.75], dtype=np.float32)
    weighter = ProgressWeighter(WeightingConfig(alpha=4.0), progress)
    weights, stats = weighter.compute_batch_weights({"index": torch.tensor([2, 2, 0])})
    assert weights.tolist() == [2.0, 2.0, 1.0]
    assert stats["max_weight"] == 2.0


def test_uniform_scheme_ignores_alpha():
    weighter = ProgressWeighter(WeightingConfig(scheme="uniform", alpha=4.0), np.ones(2, dtype=np.float32))
    assert weighter.compute_batch_weights({"index": torch.tensor([0, 1])})[0].tolist() == [1.0, 1.0]
