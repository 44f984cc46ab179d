"""One layer of SmolVLA's transformers, in the pieces that the exact fast forward runs apart.

Each function names the part of lerobot's ``smolvla/smolvlm_with_expert.py`` that it equals, and
rounds where that part rounds: with a bf16 VLM and an fp32 expert the results depend on it.

Legend: B frames, L tokens, S tokens attended to, H query heads, G key/value heads, E dims a head.
"""

from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

MAX_WAVELENGTH = 10_000


class Rotation(NamedTuple):
    """Rotary position embedding of some positions, each (B, L, 1, E / 2)."""

    sin: Tensor
    cos: Tensor


class KeysValues(NamedTuple):
    """What a layer's queries attend to, each (B, S, G, E); keys carry their position."""

    keys: Tensor
    values: Tensor

    def then(self, later: "KeysValues") -> "KeysValues":
        """These and the later ones, in the wider of the two dtypes."""
        return KeysValues(*(torch.cat(pair, dim=1) for pair in zip(self, later, strict=True)))

    def to(self, dtype: torch.dtype) -> "KeysValues":
        """Both in another dtype."""
        return KeysValues(self.keys.to(dtype), self.values.to(dtype))


def rotation_of(positions: Tensor, head_dim: int) -> Rotation:
    """Sines and cosines for positions (B, L); the first half of ``apply_rope``."""
    half = head_dim // 2
    exponents = (2.0 / head_dim) * torch.arange(half, dtype=torch.float32, device=positions.device)
    radians = positions[..., None].to(torch.float32) / MAX_WAVELENGTH**exponents
    return Rotation(torch.sin(radians)[:, :, None], torch.cos(radians)[:, :, None])


def rotate(x: Tensor, rotation: Rotation) -> Tensor:
    """Apply a rotation to (B, L, heads, E) in fp32, rounded to the dtype of ``x``: ``apply_rope``."""
    first, second = x.to(torch.float32).chunk(2, dim=-1)
    sin, cos = rotation
    return torch.cat([first * cos - second * sin, second * cos + first * sin], dim=-1).to(x.dtype)


def heads(projection: nn.Linear, hidden: Tensor, head_dim: int) -> Tensor:
    """Project (B, L, width) to heads (B, L, heads, E), in the projection's precision."""
    return projection(hidden.to(projection.weight.dtype)).unflatten(-1, (-1, head_dim))


def output_dtype(projection: nn.Linear) -> torch.dtype:
    """The dtype that a projection answers in: autocast's where it is on, else its weight's."""
    device = projection.weight.device.type
    return torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else projection.weight.dtype


def attend(query: Tensor, seen: KeysValues, mask: Tensor) -> Tensor:
    """Grouped-query attention; ``eager_attention_forward`` by PyTorch's fused kernels.

    As upstream it computes in fp32 (under autocast in its dtype) and answers in the values' dtype. The
    queries of the H / G heads that share keys and values are laid out as one head's: for unequal numbers of
    heads and a mask PyTorch has no fused kernel in fp32 on CUDA, and would write out all scores.

    Args:
        query: (B, L, H, E).
        seen: keys and values.
        mask: (B, 1 or L, S), true where a query sees a key.

    Returns:
        (B, L, H * E). A query that sees nothing gets 0, upstream gives it the mean of all values;
        only padding does, and nothing reads it.
    """
    sharing = query.shape[2] // seen.keys.shape[2]
    grouped = query.unflatten(2, (-1, sharing)).transpose(1, 2).flatten(2, 3)  # (B, G, L * H / G, E)
    q, k, v = (x.to(torch.float32) for x in (grouped, seen.keys.transpose(1, 2), seen.values.transpose(1, 2)))
    of_queries = mask if mask.shape[1] == 1 else mask.repeat_interleave(sharing, dim=1)
    attended = F.scaled_dot_product_attention(q, k, v, attn_mask=of_queries[:, None])
    return attended.unflatten(2, (-1, sharing)).transpose(1, 2).flatten(2).to(seen.values.dtype)


def finish(layer: Any, hidden: Tensor, attended: Tensor) -> Tensor:
    """What a layer does after attention: both residuals and the MLP; the end of ``forward``'s loop.

    The sums are in place, and so keep the dtype of what is added to: the layer's own.
    """
    attention: nn.Linear = layer.self_attn.o_proj
    out = attention(attended.to(attention.weight.dtype))
    out += hidden
    answer: Tensor = layer.mlp(layer.post_attention_layernorm(out))
    answer += out
    return answer
