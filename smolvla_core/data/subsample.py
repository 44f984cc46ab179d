"""A fixed part of the training frames, where not all of them are to be trained on."""

import numpy as np
from numpy.typing import NDArray

from smolvla_core.data.keyed import keyed_generator

_SUBSAMPLE = 5  # stream of random numbers beside those of `data.sampler`, `data.mixture` and `augment`


def subsample(rows: NDArray[np.int64], share: float, total: int, seed: int, number: int) -> NDArray[np.int64]:
    """A share of some rows, drawn at random, in their order.

    Every row of the dataset has a priority that is drawn once; those that come first are taken. So the
    sub-sample is the same for every trial, and a smaller one is part of a larger one.

    Args:
        rows: training rows (n,).
        share: of them to take, above 0; 1 or more takes all.
        total: rows of the dataset.
        seed: of the draw.
        number: of the dataset, among those that are trained on.
    """
    if share >= 1:
        return rows
    count = max(1, round(share * len(rows)))
    priority = keyed_generator(seed, _SUBSAMPLE, number).random(total)[rows]
    taken: NDArray[np.int64] = np.sort(rows[np.argsort(priority, kind="stable")[:count]])
    return taken
