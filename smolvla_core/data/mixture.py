"""Which dataset each sample of the stream is of, where several are trained on together.

Sample i is of a dataset by a draw that is keyed by i, against the datasets' shares: it is the same
whatever the batch or the resume point, and trials with nearly the same shares mostly draw alike.
Each dataset counts its own samples, so its own order depends neither on the others nor on the shares.
"""

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from smolvla_core.data.keyed import keyed_generator

BLOCK = 4096
"""Draws are made for so many samples at a time: counting up to a sample must not take one draw each."""

_DATASET = 4  # stream of random numbers beside those of `data.sampler` and `augment`


class Mixture:
    """Shares of datasets in a stream of samples.

    Args:
        shares: of each dataset, at least 0; one of 0 is never drawn. They need not sum to 1.
        seed: of the draws.
    """

    def __init__(self, shares: Sequence[float], seed: int):
        assert min(shares) >= 0
        assert sum(shares) > 0
        self.shares, self.seed = tuple(shares), seed
        edges = np.cumsum(shares)
        self._edges = edges / edges[-1]
        self._block = lru_cache(maxsize=4)(self._draw_block)
        self._before_block: list[NDArray[np.int64]] = [np.zeros(len(shares), dtype=np.int64)]

    @classmethod
    def single(cls) -> "Mixture":
        """One dataset alone."""
        return cls((1.0,), seed=0)

    def datasets(self, first: int, count: int) -> NDArray[np.int64]:
        """The dataset of each of the samples ``first .. first + count``, shape (count,)."""
        if len(self.shares) == 1:
            return np.zeros(count, dtype=np.int64)
        blocks = range(first // BLOCK, (first + count - 1) // BLOCK + 1)
        drawn = np.concatenate([np.empty(0, dtype=np.int64), *(self._block(block)[0] for block in blocks)])
        start = first % BLOCK
        return drawn[start : start + count]

    def count_before(self, dataset: int, sample: int) -> int:
        """How many of the samples before ``sample`` are of a dataset."""
        if len(self.shares) == 1:
            return sample
        block, place = divmod(sample, BLOCK)
        while len(self._before_block) <= block:
            _, before, last = self._block(len(self._before_block) - 1)
            self._before_block.append(self._before_block[-1] + last)
        return int(self._before_block[block][dataset] + self._block(block)[1][dataset, place])

    def _draw_block(self, block: int) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
        """Datasets of a block's samples (BLOCK,), how many of each came before each (D, BLOCK), and in all (D,)."""
        draws = keyed_generator(self.seed, _DATASET, block).random(BLOCK)
        datasets = np.searchsorted(self._edges, draws, side="right")
        taken = datasets[None, :] == np.arange(len(self.shares))[:, None]
        counts = np.cumsum(taken, axis=1)
        return datasets, counts - taken, counts[:, -1]
