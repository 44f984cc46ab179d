"""How sure a difference between policies is: intervals that resample episodes, and training seeds.

Frames of an episode are alike, and so are the runs of a seed: what a new robot would meet is new
episodes, and what a new training would give is a new seed, so these are what is resampled. The two
are crossed (every seed's policy is scored on the same episodes), and each is resampled as a whole,
as in Owen's pigeonhole bootstrap (Annals of Applied Statistics, 2007).

Legend: B resamples, R seeds, E episodes.
"""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats

CONFIDENCE = 0.95
RESAMPLES = 1000

Array = NDArray[np.float64]
Statistic = Callable[[Array, Array], Array]
"""(weights of the seeds (B, R), weights of the episodes (B, E)) -> values (B,)."""
Rows = Sequence[Sequence[float]]
"""(episode, its frames, their mean error), as ``smolvla_core.evaluate.EpisodeErrors`` has them."""


@dataclass(frozen=True)
class Interval:
    """An estimate with its 95 % interval; ``low`` and ``high`` are None where nothing can be said of it."""

    mean: float
    low: float | None = None
    high: float | None = None

    @property
    def sign(self) -> int:
        """1 where the whole interval is above 0, -1 where it is below, else 0."""
        if self.low is None or self.high is None:
            return 0
        return 1 if self.low > 0 else -1 if self.high < 0 else 0

    def to_dict(self) -> dict[str, float | None]:
        """Plain values."""
        return asdict(self)


@dataclass(frozen=True)
class Errors:
    """Errors of one configuration: sums over frames (R, E), the frames counted (R, E), the episodes (E,)."""

    sums: Array
    counts: Array
    episodes: tuple[int, ...]

    @classmethod
    def of(cls, seeds: Sequence[Rows]) -> "Errors":
        """From each seed's rows.

        Raises:
            ValueError: no seed, or seeds that were scored on different episodes.
        """
        if not seeds:
            raise ValueError("no seed has been scored")
        episodes = tuple(int(row[0]) for row in seeds[0])
        if any(tuple(int(row[0]) for row in rows) != episodes for rows in seeds):
            raise ValueError("the seeds were scored on different episodes")
        counts = np.array([[row[1] for row in rows] for rows in seeds], dtype=float)
        means = np.array([[row[2] for row in rows] for rows in seeds], dtype=float)
        return cls(means * counts, counts, episodes)

    def totals(self, seeds: Array, episodes: Array) -> Array:
        """Weighted mean error of each resample, (B,)."""
        return _weighted(self.sums, seeds, episodes) / _weighted(self.counts, seeds, episodes)


def interval(statistic: Statistic, seeds: int, episodes: int, *, seed: int = 0) -> Interval:
    """An estimate, and how far another choice of episodes and seeds would move it.

    The two standard errors are the bootstrap's, each corrected by ``n / (n - 1)``; their squares are
    summed (which counts their interaction twice: the interval is rather too wide than too narrow), and
    the interval is Student's with the degrees of freedom of Welch and Satterthwaite, since a handful
    of seeds or episodes tells little about its own spread. With one seed the spread between
    trainings is unknown and left out; with one episode there is no interval.

    Args:
        statistic: of weighted seeds and episodes; a weight counts how often each was drawn.
        seeds: R.
        episodes: E.
        seed: of the resampling.
    """
    rng = np.random.default_rng(seed)
    mean = float(statistic(np.ones((1, seeds)), np.ones((1, episodes)))[0])
    if episodes < 2 or not np.isfinite(mean):
        return Interval(mean)
    whole = np.ones((RESAMPLES, seeds)), np.ones((RESAMPLES, episodes))
    parts = [(_spread(statistic(whole[0], _resampled(rng, episodes)), episodes), episodes - 1)]
    if seeds > 1:
        parts.append((_spread(statistic(_resampled(rng, seeds), whole[1]), seeds), seeds - 1))
    variance = sum(part for part, _ in parts)
    if not np.isfinite(variance):
        return Interval(mean)
    if variance == 0:
        return Interval(mean, mean, mean)
    freedom = variance**2 / sum(part**2 / degrees for part, degrees in parts)
    reach = float(stats.t.ppf(0.5 + CONFIDENCE / 2, freedom) * np.sqrt(variance))
    return Interval(mean, mean - reach, mean + reach)


def mean_error(errors: Errors) -> Interval:
    """The mean error of a configuration."""
    return interval(errors.totals, *errors.sums.shape)


def relative_gain(better: Errors, baseline: Errors) -> Interval:
    """How much lower the error is than the baseline's, as a share of the baseline's: paired by seed and episode.

    Raises:
        ValueError: the two were not scored on the same episodes, or have not as many seeds.
    """
    if better.episodes != baseline.episodes or better.sums.shape != baseline.sums.shape:
        raise ValueError("a paired difference needs the same episodes and seeds on both sides")

    def gain(seeds: Array, episodes: Array) -> Array:
        worse = baseline.totals(seeds, episodes)
        with np.errstate(divide="ignore", invalid="ignore"):
            return 1.0 - better.totals(seeds, episodes) / worse

    return interval(gain, *better.sums.shape)


def percent(value: Interval) -> str:
    """``8.3 % (95 % interval 2.1 to 14.5 %)``."""
    if value.low is None or value.high is None:
        return f"{100 * value.mean:.1f} % (no interval)"
    return f"{100 * value.mean:.1f} % (95 % interval {100 * value.low:.1f} to {100 * value.high:.1f} %)"


def _weighted(values: Array, seeds: Array, episodes: Array) -> Array:
    summed: Array = ((seeds @ values) * episodes).sum(axis=1)
    return summed


def _resampled(rng: np.random.Generator, count: int) -> Array:
    """How often each of ``count`` was drawn, in every resample (B, count)."""
    return rng.multinomial(count, np.full(count, 1 / count), size=RESAMPLES).astype(float)


def _spread(values: Array, count: int) -> float:
    """Squared standard error from resamples of ``count`` things."""
    return float(values.var() * count / (count - 1))
