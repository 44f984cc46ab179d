"""Loss weights. They multiply *per-sample* losses, before any mean is taken.

A weight multiplied onto a loss that was already averaged is a silent no-op for the direction of
the gradient; these weights therefore never meet a scalar loss.
"""

from typing import Any

import numpy as np
import torch
from lerobot.utils.sample_weighting import SampleWeighter
from numpy.typing import NDArray
from torch import Tensor

from smolvla_core.config import WeightingConfig


def temporal_weights(progress: Tensor, alpha: float) -> Tensor:
    """``1 + alpha * progress**2``: frames late in the episode count more.

    Args:
        progress: frame index / episode length, in [0, 1), any shape.
        alpha: at least 0; 0 gives exactly 1 everywhere.
    """
    return 1.0 + alpha * progress.square()


def weighted_loss(per_sample: Tensor, weights: Tensor, denominator: float | Tensor) -> Tensor:
    """``sum(per_sample * weights) / denominator``, a scalar.

    Args:
        per_sample: losses, shape (B,).
        weights: shape (B,).
        denominator: of the whole batch, so that micro-batches add up: see
            :func:`loss_denominator`.
    """
    assert per_sample.shape == weights.shape
    return (per_sample * weights).sum() / denominator


def loss_denominator(weights: Tensor, normalize: bool) -> float:
    """The batch size, or the sum of the batch's weights when the loss is to be normalised."""
    return float(weights.sum()) if normalize else float(len(weights))


class ProgressWeighter(SampleWeighter):
    """lerobot's weighter interface over the progress of a dataset's rows.

    Usable in lerobot's own training loop too: it reads nothing but the batch's ``index``.

    Args:
        config: scheme and alpha.
        progress: of every row of the dataset, shape (N,).
    """

    def __init__(self, config: WeightingConfig, progress: NDArray[np.float32]):
        self.alpha = config.alpha if config.scheme == "temporal" else 0.0
        self.progress = torch.from_numpy(progress)

    def compute_batch_weights(self, batch: dict[str, Any]) -> tuple[Tensor, dict[str, float]]:
        """Weights (B,) of the rows in ``batch["index"]`` (B,), and their mean and largest."""
        index = batch["index"]
        weights = temporal_weights(self.progress[index.cpu()], self.alpha).to(index.device)
        return weights, {"mean_weight": float(weights.mean()), "max_weight": float(weights.max())}

    def get_stats(self) -> dict[str, float]:
        """The scheme's parameters."""
        return {"alpha": self.alpha}
