"""Loss weights. They multiply the loss of each sample, or of each of its steps, before any mean.

A weight multiplied onto a loss that was already averaged is a silent no-op for the direction of
the gradient; these weights therefore never meet a scalar loss. Every scheme gives one weight to
every frame of the dataset. By default a sample takes the weight of its chunk's first frame; with
``per_step`` each action of the chunk takes the weight of its own.

Legend: N frames of the dataset, B batch, T action steps of the chunk, A action dims.
"""

from collections.abc import Callable
from types import MappingProxyType
from typing import Any

import numpy as np
import torch
from lerobot.utils.sample_weighting import SampleWeighter
from numpy.typing import NDArray
from torch import Tensor

from smolvla_core.config import TrialConfig
from smolvla_core.critical import annotated_frames
from smolvla_core.data.dataset import Dataset
from smolvla_core.errors import ConfigError
from smolvla_core.segments import find_segments

FrameWeights = NDArray[np.float32]


def temporal_weights(progress: NDArray[np.float32], alpha: float) -> FrameWeights:
    """``1 + alpha * progress**2``: frames late in the episode count more.

    Args:
        progress: frame index / episode length, in [0, 1), any shape.
        alpha: at least 0; 0 gives exactly 1 everywhere.
    """
    return (1.0 + alpha * np.square(progress)).astype(np.float32)


def inside_weights(inside: NDArray[np.bool_], factor: float) -> FrameWeights:
    """``factor`` where ``inside``, 1 elsewhere."""
    return np.where(inside, factor, 1.0).astype(np.float32)


def _uniform(config: TrialConfig, dataset: Dataset) -> FrameWeights:
    return np.ones(len(dataset.frame), dtype=np.float32)


def _temporal(config: TrialConfig, dataset: Dataset) -> FrameWeights:
    return temporal_weights(dataset.progress, config.weighting.alpha)


def _segment(config: TrialConfig, dataset: Dataset) -> FrameWeights:
    return inside_weights(find_segments(config, dataset), config.weighting.factor)


def _annotation(config: TrialConfig, dataset: Dataset) -> FrameWeights:
    inside = annotated_frames(dataset)
    if inside is None or not inside.any():
        raise ConfigError("weighting.scheme: this dataset has no pick or place annotations; choose another scheme")
    return inside_weights(inside, config.weighting.factor)


SCHEMES: MappingProxyType[str, Callable[[TrialConfig, Dataset], FrameWeights]] = MappingProxyType(
    {"uniform": _uniform, "temporal": _temporal, "segment": _segment, "annotation": _annotation}
)


def frame_weights(config: TrialConfig, dataset: Dataset) -> FrameWeights:
    """The weight of every frame of the dataset, shape (N,), by the configuration's scheme.

    Raises:
        ConfigError: the scheme needs something that the data does not have.
    """
    return SCHEMES[config.weighting.scheme](config, dataset)


class FrameWeighter(SampleWeighter):
    """lerobot's weighter interface over the weights of a dataset's frames.

    Usable in lerobot's own training loop too: it reads nothing but the batch's ``index``.

    Args:
        weights: of every frame, shape (N,).
    """

    def __init__(self, weights: FrameWeights):
        self.weights = torch.from_numpy(weights)

    def compute_batch_weights(self, batch: dict[str, Any]) -> tuple[Tensor, dict[str, float]]:
        """Weights of the frames in ``batch["index"]``, in its shape, and their mean and largest."""
        index = batch["index"]
        weights = self.weights[index.cpu()].to(index.device)
        return weights, {"mean_weight": float(weights.mean()), "max_weight": float(weights.max())}

    def get_stats(self) -> dict[str, float]:
        """Mean and largest weight over the dataset."""
        return {"mean_weight": float(self.weights.mean()), "max_weight": float(self.weights.max())}


def per_sample_losses(errors: Tensor, is_pad: Tensor, step_weights: Tensor) -> Tensor:
    """Weighted loss of each sample, shape (B,): a mean over its valid action entries.

    With weights of 1 it is upstream's ``SmolVLAPolicy.forward(reduction="none")``.

    Args:
        errors: squared errors (B, T, A).
        is_pad: (B, T) true past the episode's end; left out.
        step_weights: (B, T), or (B, 1) for one weight a sample.
    """
    valid = ~is_pad
    count = (valid.sum(dim=1) * errors.shape[-1]).clamp_min(1)
    return (errors * valid.unsqueeze(-1) * step_weights.unsqueeze(-1)).sum(dim=(1, 2)) / count


def loss_denominator(step_weights: Tensor, is_pad: Tensor, normalize: bool) -> float:
    """What the sum of a batch's weighted sample losses is divided by.

    The batch size; or, to normalise, the sum of the samples' mean weights. It belongs to the
    whole batch, so that the parts of an accumulated batch add up.
    """
    if not normalize:
        return float(len(step_weights))
    valid = (~is_pad).float()
    return float(((step_weights * valid).sum(dim=1) / valid.sum(dim=1).clamp_min(1)).sum())
