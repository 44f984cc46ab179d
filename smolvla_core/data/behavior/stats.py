"""Statistics of episodes and of a dataset, in the form in which LeRobot v3.0 stores them. T frames, D dims."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

QUANTILES = {"q01": 0.01, "q10": 0.10, "q50": 0.50, "q90": 0.90, "q99": 0.99}
SAMPLED_SIDE_PX = 150
"""Pictures are thinned out to about this many rows, as lerobot does."""

Stats = Mapping[str, Any]
"""Lists of numbers by name: min, max, mean, std, count and `QUANTILES`."""


def column_stats(values: NDArray[Any]) -> dict[str, Any]:
    """Statistics of a column (T,) or (T, D), each a list of 1 or D numbers."""
    rows = values.reshape(len(values), -1).astype(np.float64)
    quantiles = np.quantile(rows, list(QUANTILES.values()), axis=0)
    stats = {"min": rows.min(0), "max": rows.max(0), "mean": rows.mean(0), "std": rows.std(0)}
    stats |= dict(zip(QUANTILES, quantiles, strict=True))
    return {name: value.tolist() for name, value in stats.items()} | {"count": [len(rows)]}


def picture_stats(pictures: Sequence[NDArray[np.uint8]]) -> dict[str, Any]:
    """Statistics of some pictures (H, W, 3) in [0, 1], each of shape (3, 1, 1); ``count`` is in pictures."""
    step = max(1, min(pictures[0].shape[:2]) // SAMPLED_SIDE_PX)
    pixels = np.concatenate([picture[::step, ::step].reshape(-1, 3) for picture in pictures]) / 255.0
    stats = {name: [[[level]] for level in value] for name, value in column_stats(pixels).items() if name != "count"}
    return stats | {"count": [len(pictures)]}


def aggregate(episodes: Sequence[Mapping[str, Stats]]) -> dict[str, dict[str, Any]]:
    """Statistics of a dataset from its episodes', as ``lerobot.datasets.compute_stats`` does.

    Mean and deviation are exact; quantiles are the episodes' own, averaged by their counts.
    """
    total: dict[str, dict[str, Any]] = {}
    for key in episodes[0]:
        parts = {name: np.stack([np.asarray(e[key][name]) for e in episodes]) for name in episodes[0][key]}
        counts = parts.pop("count")
        weights = counts.reshape(-1, *[1] * (parts["mean"].ndim - 1)) / counts.sum()
        mean = (parts["mean"] * weights).sum(0)
        spread = parts["std"] ** 2 + (parts["mean"] - mean) ** 2
        values = {name: (part * weights).sum(0) for name, part in parts.items() if name.startswith("q")}
        values |= {"min": parts["min"].min(0), "max": parts["max"].max(0), "mean": mean}
        values |= {"std": np.sqrt((spread * weights).sum(0)), "count": counts.sum(0)}
        total[key] = {name: value.tolist() for name, value in values.items()}
    return total
