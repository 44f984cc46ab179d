"""The policy's state projection: as wide as its state needs, and folded for stock lerobot's raw state.

Legend: O outputs, S state dims the policy sees, J of them selected, F of them features, R raw state
dims, W columns of the projection.
"""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from smolvla_core.data.dataset import Moments
from smolvla_core.errors import ConfigError
from smolvla_core.interface import Interface

STATE_DIMS = 32
"""``max_state_dim`` of SmolVLA's published checkpoints."""
STEP = 8
"""Widths are multiples of it."""
NORMALIZER_EPS = 1e-8
"""What ``lerobot.processor.NormalizerProcessorStep`` adds to a deviation before it divides by it."""


def rounded_up(width: int) -> int:
    """The next multiple of 8."""
    return -(-width // STEP) * STEP


def state_dims(asked: int | None, width: int, present: int) -> int:
    """Columns of the projection.

    Args:
        asked: ``policy.max_state_dim``; None takes as many as needed.
        width: state dims the policy sees, S.
        present: the checkpoint's columns, which are all kept.

    Raises:
        ConfigError: fewer are asked for than the state or the checkpoint has.
    """
    if asked is None:
        return max(present, rounded_up(width))
    if asked < width:
        raise ConfigError(
            f"policy.max_state_dim: {width} dims are selected, policy.max_state_dim is {asked}; choose fewer dims, "
            f"set it to {max(present, rounded_up(width))}, or leave it out"
        )
    if asked < present:
        raise ConfigError(
            f"policy.max_state_dim is {asked}, the checkpoint has {present}, which are kept; "
            f"set it to at least {present}, or leave it out"
        )
    return asked


def widened(linear: nn.Linear, width: int) -> nn.Linear:
    """A copy of ``linear`` with ``width`` input columns, the added ones zero."""
    like = linear.weight
    weight = like.new_zeros(linear.out_features, width)
    weight[:, : linear.in_features] = like.detach()
    return _like(linear, weight, linear.bias.detach())


def folded(linear: nn.Linear, interface: Interface, width: int) -> nn.Linear:
    """The projection over the raw state: takes what ``linear`` takes, from the dims it is made of.

    ``linear`` sees normalised selected columns; the result sees the normalised raw state, where a dim
    that is not selected has weight 0, and after it the normalised features. A column that is linear
    in raw dims, ``c = A x + b``, is folded exactly: with means m, M and deviations s, S of x and c,
    ``(c - M) / S = (A s / S) (x - m) / s + (A m + b - M) / S``.

    Args:
        linear: (O, >= S).
        interface: the selection, the features and their statistics.
        width: columns of the result, at least R + F.

    Returns:
        (O, width).
    """
    selection = interface.selection
    matrix, offset = selection.matrix()
    selected = range(selection.width)
    wide = linear.weight.detach().double().cpu().numpy()
    own = wide[:, : selection.width]
    raw, seen = interface.state, interface.seen.take(tuple(selected))
    by_raw = own @ (matrix * _divisor(raw)[None, :] / _divisor(seen)[:, None])
    shift = own @ ((matrix @ raw.mean + offset - seen.mean) / _divisor(seen))
    weight = np.zeros((len(wide), width))
    weight[:, : selection.raw_width] = by_raw
    features = interface.state_width - selection.width
    weight[:, selection.raw_width : selection.raw_width + features] = wide[:, selection.width : interface.state_width]
    bias = linear.bias.detach() + torch.from_numpy(shift).to(linear.bias)
    return _like(linear, torch.from_numpy(weight).to(linear.weight), bias)


def _divisor(moments: Moments) -> NDArray[np.float64]:
    return moments.std + NORMALIZER_EPS


def _like(linear: nn.Linear, weight: torch.Tensor, bias: torch.Tensor) -> nn.Linear:
    result = nn.Linear(weight.shape[1], weight.shape[0], device="meta")
    result.weight = nn.Parameter(weight, requires_grad=linear.weight.requires_grad)
    result.bias = nn.Parameter(bias, requires_grad=linear.bias.requires_grad)
    return result
