"""Means over instances, with intervals: another choice of instances would move them so far."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from scipy import stats

if TYPE_CHECKING:
    from smolvla_core.closed_loop.stage import Episode

CONFIDENCE = 0.95
RESAMPLES, _AT_ONCE = 10_000, 1000
SCORES = ("eggs_placed", "q", "success")


@dataclass(frozen=True)
class Estimate:
    """A mean with its 95 % interval."""

    mean: float
    low: float
    high: float

    def to_dict(self) -> dict[str, float]:
        """Plain values."""
        return asdict(self)


def wilson(successes: float, count: int) -> Estimate:
    """A share with Wilson's score interval (1927), which holds near 0 and 1 and for few trials.

    Args:
        successes: their number; or the sum of values from 0 to 1, which vary at most as much as
            successes of the same share, so that the interval is rather too wide.
        count: of trials.

    Raises:
        ValueError: there are no trials, or more successes than trials.
    """
    if not 0 <= successes <= count or count == 0:
        raise ValueError(f"{successes} successes of {count}")
    z = float(stats.norm.ppf(0.5 + CONFIDENCE / 2))
    share = float(successes / count)
    middle = (share + z * z / (2 * count)) / (1 + z * z / count)
    reach = z * np.sqrt(share * (1 - share) / count + z * z / (4 * count * count)) / (1 + z * z / count)
    # at the ends the interval reaches the share itself, but for rounding
    return Estimate(share, min(share, max(0.0, float(middle - reach))), max(share, min(1.0, float(middle + reach))))


def bootstrap(values: Sequence[float] | NDArray[np.float64], seed: int = 0) -> Estimate:
    """The mean of values from 0 to 1 with its percentile bootstrap interval over instances.

    Where all of them are alike there is nothing to resample: then the interval is :func:`wilson`'s.
    """
    array = np.asarray(values, dtype=np.float64)
    if array.min() == array.max():
        return wilson(float(array.sum()), len(array))
    rng, count = np.random.default_rng(seed), len(array)
    portions = [array[rng.integers(count, size=(_AT_ONCE, count))].mean(axis=1) for _ in range(RESAMPLES // _AT_ONCE)]
    drawn = np.concatenate(portions)
    tail = (1 - CONFIDENCE) / 2
    low, high = np.quantile(drawn, [tail, 1 - tail])
    return Estimate(float(array.mean()), float(low), float(high))


def summarise(episodes: "Sequence[Episode]") -> dict[str, Estimate]:
    """``eggs_placed`` and ``q`` with bootstrap intervals, ``success`` with Wilson's.

    Raises:
        ValueError: there are no episodes.
    """
    if not episodes:
        raise ValueError("no episode has been run")
    return {
        "eggs_placed": bootstrap([episode.eggs_placed for episode in episodes]),
        "q": bootstrap([episode.q for episode in episodes]),
        "success": wilson(sum(episode.success for episode in episodes), len(episodes)),
    }
