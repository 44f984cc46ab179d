"""What the frozen VLM makes of frames, from the cache where it is there; made of the cached embeddings.

Legend: B frames, I instructions, L tokens of the longest, N rows of the dataset.
"""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from lerobot.utils.constants import OBS_LANGUAGE_ATTENTION_MASK, OBS_LANGUAGE_TOKENS
from numpy.typing import NDArray
from torch import Tensor

from smolvla_core.cache.sight import CachedEmbeddings
from smolvla_core.cache.store import Store
from smolvla_core.data.dataset import Dataset
from smolvla_core.data.keys import STATE
from smolvla_core.fast import Observation, encode_prefix, prefix_dtypes, prefix_heads, prefix_tokens
from smolvla_core.policy import Processors, SmolVLAPolicy
from smolvla_core.prefix import Form, Prefix


@dataclass(frozen=True)
class Instructions:
    """Of a dataset, tokenised as a batch's are."""

    tokens: Tensor
    """(I, L)."""
    mask: Tensor
    """(I, L), false at padding."""
    of_row: NDArray[np.int64]
    """(N,) which of them a row has."""


def instructions_of(dataset: Dataset, processors: Processors, state_width: int) -> Instructions:
    """The instructions of a dataset's rows."""
    distinct = list(dataset.instructions)
    inputs = processors.pre({STATE: torch.zeros(len(distinct), state_width), "task": distinct})
    tokens, mask = inputs[OBS_LANGUAGE_TOKENS], inputs[OBS_LANGUAGE_ATTENTION_MASK].bool()
    return Instructions(tokens.cpu(), mask.cpu(), dataset.instruction)


@dataclass(frozen=True)
class PrefixEncoder:
    """Embeddings and instructions -> rows of bytes, with the weights of a policy whose VLM is frozen."""

    policy: SmolVLAPolicy
    autocast: Callable[[], AbstractContextManager[Any]]
    instructions: Instructions
    with_actions: bool
    """See :func:`smolvla_core.fast.encode_prefix`."""
    form: Form

    @classmethod
    def of(
        cls,
        policy: SmolVLAPolicy,
        autocast: Callable[[], AbstractContextManager[Any]],
        instructions: Instructions,
        with_actions: bool,
        picture_tokens: Sequence[int],
    ) -> "PrefixEncoder":
        """An encoder of frames whose cameras have so many tokens each."""
        with autocast():
            tokens, dtype = prefix_tokens(policy, picture_tokens, instructions.tokens)
            form = Form(tokens, *prefix_heads(policy), prefix_dtypes(policy, with_actions), dtype)
        return cls(policy, autocast, instructions, with_actions, form)

    @torch.no_grad()
    def __call__(self, rows: NDArray[np.int64], embeddings: Sequence[Tensor]) -> Tensor:
        """Bytes (B, form.bytes) of rows with embeddings of each camera."""
        return torch.cat(
            [self._encode(int(row), [each[i : i + 1] for each in embeddings]) for i, row in enumerate(rows)]
        )

    def _encode(self, row: int, embeddings: Sequence[Tensor]) -> Tensor:
        """One frame, without its padding: what comes of it must not depend on those beside it."""
        which = self.instructions.of_row[row]
        length = int(self.instructions.mask[which].nonzero().max()) + 1
        tokens, mask = (each[which : which + 1, :length] for each in (self.instructions.tokens, self.instructions.mask))
        there = torch.ones(1, dtype=torch.bool)
        observation = Observation(tuple(embeddings), (there,) * len(embeddings), tokens, mask)
        with self.autocast():
            return self.form.pack(encode_prefix(self.policy, observation, self.with_actions))

    def unpack(self, values: Tensor, rows: NDArray[np.int64]) -> Prefix:
        """The prefix of rows whose bytes are ``values``."""
        instruction = self.instructions.mask[torch.from_numpy(self.instructions.of_row[rows])]
        pictures = torch.ones(len(rows), self.form.tokens - instruction.shape[1], dtype=torch.bool)
        return self.form.unpack(values, torch.cat([pictures, instruction], dim=1))


@dataclass(frozen=True)
class Kept:
    """A store of prefixes, and how they are made."""

    store: Store
    encoder: PrefixEncoder

    def gather(
        self,
        places: NDArray[np.int64],
        embeddings: Callable[[NDArray[np.int64]], tuple[Tensor, ...]],
    ) -> Prefix:
        """Of places (B,) in the store, made of their ``embeddings`` where they are missing."""
        count = len(self.encoder.instructions.of_row)

        def compute(missing: NDArray[np.int64]) -> Tensor:
            return self.encoder(missing % count, embeddings(missing))

        return self.encoder.unpack(self.store.gather(places, compute, 1), places % count)


@dataclass(frozen=True)
class CachedPrefixes:
    """Prefixes of a dataset's frames; see :class:`smolvla_core.data.batch.Prefixes`."""

    embeddings: CachedEmbeddings
    trained: Kept | None
    """Of training frames, by place of their embeddings; None where they have no room."""
    scored: Kept | None
    """Of recorded frames, for predictions."""

    def of_samples(self, rows: NDArray[np.int64], samples: NDArray[np.int64]) -> Prefix | None:
        """See :class:`smolvla_core.data.batch.Prefixes`."""
        if self.trained is None:
            return None
        return self.trained.gather(self.embeddings.places(rows, samples), self.embeddings.at)

    def recorded(self, rows: NDArray[np.int64]) -> Prefix | None:
        """See :class:`smolvla_core.data.batch.Prefixes`."""
        return None if self.scored is None else self.scored.gather(rows, self.embeddings.recorded)
