"""What the frozen VLM makes of a frame's images and instruction: keys and values, and their form on disk.

Legend: B frames, P tokens before the state, G key/value heads, E dims a head.
"""

from dataclasses import dataclass
from functools import cached_property

import torch
import torch.nn.functional as F
from torch import Tensor

from smolvla_core.fast_layers import KeysValues


@dataclass(frozen=True)
class Prefix:
    """Images and language in the VLM: constants of the frame and its instruction."""

    layers: tuple[KeysValues, ...]
    """Keys and values of each VLM layer, (B, P, G, E)."""
    mask: Tensor
    """(B, P), false at padding."""
    dtype: torch.dtype
    """Of all tokens: lerobot concatenates prefix and state, which promotes a bf16 prefix to the state's dtype."""

    @property
    def bytes(self) -> int:
        """Memory that it takes."""
        return sum(part.numel() * part.element_size() for seen in self.layers for part in (seen.keys, seen.values))

    def slice(self, start: int, stop: int) -> "Prefix":
        """The frames ``start .. stop``."""
        layers = (KeysValues(seen.keys[start:stop], seen.values[start:stop]) for seen in self.layers)
        return Prefix(tuple(layers), self.mask[start:stop], self.dtype)


@dataclass(frozen=True)
class Form:
    """How a frame's prefix lies in a row of bytes: each layer's keys, then its values, in their own dtype."""

    tokens: int
    """P of the longest prefix; a shorter one leaves its end empty."""
    heads: int
    """G."""
    dims: int
    """E."""
    layers: tuple[torch.dtype, ...]
    """Of keys and values in each layer."""
    dtype: torch.dtype
    """See :class:`Prefix`."""

    @cached_property
    def bytes(self) -> int:
        """Of a frame."""
        return sum(2 * self.tokens * self._token_bytes(dtype) for dtype in self.layers)

    def pack(self, prefix: Prefix) -> Tensor:
        """Rows (B, bytes) of a prefix."""
        missing = self.tokens - prefix.mask.shape[1]
        parts = [
            F.pad(part, (0, 0, 0, 0, 0, missing)).flatten(1).view(torch.uint8)
            for seen in prefix.layers
            for part in seen
        ]
        return torch.cat(parts, dim=1)

    def unpack(self, rows: Tensor, mask: Tensor) -> Prefix:
        """The prefix in rows (B, bytes) of frames whose tokens are real where ``mask`` (B, P) is true.

        It has as many tokens as the longest of them.
        """
        longest = int(mask.sum(dim=1).max())
        layers, start = [], 0
        for dtype in self.layers:
            size = self.tokens * self._token_bytes(dtype)
            pair = (rows[:, at : at + size].view(dtype) for at in (start, start + size))
            shape = (self.tokens, self.heads, self.dims)
            layers.append(KeysValues(*(part.unflatten(1, shape)[:, :longest] for part in pair)))
            start += 2 * size
        return Prefix(tuple(layers), mask[:, :longest], self.dtype)

    def _token_bytes(self, dtype: torch.dtype) -> int:
        return self.heads * self.dims * dtype.itemsize
