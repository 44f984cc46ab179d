"""One sample stream for all trials: sample i is the same frame, noise, time and jitter in each.

A trial with batch 32 draws samples 0..31 for its first step, one with batch 8 draws them in its
first four: whatever the batch, the micro-batch or the number of workers, sample i is a pure
function of (seed, i). Comparisons between trials then share their random numbers, resuming is
exact, and gradient accumulation changes nothing but rounding.
"""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from smolvla_core.config import CurriculumConfig
from smolvla_core.data.keyed import keyed_generator
from smolvla_core.data.mixture import Mixture
from smolvla_core.errors import ConfigError

# streams of random numbers, independent by their key; 2, and 10 upwards, are those of `augment`, 4 of `mixture`
_ORDER, _FLOW, _STAGE = 0, 1, 3

# lerobot.policies.smolvla.modeling_smolvla.VLAFlowMatching.sample_time
TIME_ALPHA, TIME_BETA, TIME_SCALE, TIME_OFFSET = 1.5, 1.0, 0.999, 0.001


@dataclass(frozen=True)
class Curriculum:
    """Which rows are drawn from, as the budget is spent.

    Before ``first_late`` samples every draw is from all ``rows``; from ``only_late`` on every draw
    is from ``late``; between them the share of late draws grows linearly.
    """

    rows: NDArray[np.int64]
    late: NDArray[np.int64]
    first_late: int
    only_late: int

    @classmethod
    def none(cls, rows: NDArray[np.int64]) -> "Curriculum":
        """Every draw is from ``rows``."""
        never = np.iinfo(np.int64).max
        return cls(rows, rows[:0], int(never), int(never))

    def late_share(self, sample: int) -> float:
        """Share of draws from ``late`` at a sample."""
        if sample < self.first_late:
            return 0.0
        if sample >= self.only_late:
            return 1.0
        return (sample - self.first_late) / (self.only_late - self.first_late)


def plan_curriculum(
    config: CurriculumConfig, rows: NDArray[np.int64], progress: NDArray[np.float32], samples: int
) -> Curriculum:
    """The rows a curriculum draws from, and when.

    Args:
        config: the scheme, its share, start and ramp.
        rows: training rows (n,).
        progress: of those rows (n,), within their episodes.
        samples: the run's whole budget; the curriculum spans it, whatever the rung.

    Raises:
        ConfigError: no row is late enough.
    """
    if config.scheme == "none":
        return Curriculum.none(rows)
    late = rows[progress >= config.start]
    if not len(late):
        raise ConfigError(f"curriculum.start is {config.start}, no training frame has such progress; lower it")
    return Curriculum(rows, late, round(config.share * samples), round((config.share + config.ramp) * samples))


class SampleStream:
    """The training samples of a run that are of one dataset.

    Args:
        curriculum: which rows are drawn from; each pool is shuffled once an epoch.
        seed: of the order, the noise and the times.
        mixture: which samples are of which dataset. None: all of this one.
        dataset: this one's number in the mixture.
    """

    def __init__(self, curriculum: Curriculum, seed: int, mixture: Mixture | None = None, dataset: int = 0):
        self.curriculum, self.seed = curriculum, seed
        self.mixture, self.dataset = mixture or Mixture.single(), dataset
        # an epoch's order is needed for many consecutive samples
        self._order = lru_cache(maxsize=4)(self._draw_order)

    def samples(self, first: int, count: int) -> NDArray[np.int64]:
        """Those of the samples ``first .. first + count`` that are of this dataset."""
        return first + np.flatnonzero(self.mixture.datasets(first, count) == self.dataset)

    def rows(self, first: int, count: int) -> NDArray[np.int64]:
        """Rows of samples ``first .. first + count`` that are of this dataset."""
        return self.rows_at(self.samples(first, count))

    def rows_at(self, samples: NDArray[np.int64]) -> NDArray[np.int64]:
        """Rows of samples of this dataset, in their shape (n,)."""
        return np.array([self._row(int(sample)) for sample in samples], dtype=np.int64)

    def flow(self, first: int, count: int, steps: int, dims: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """As :meth:`flow_at`, of consecutive samples."""
        return self.flow_at(np.arange(first, first + count), steps, dims)

    def flow_at(
        self, samples: NDArray[np.int64], steps: int, dims: int, stride: int = 1, draws: int = 1
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Flow-matching noise (n, steps, dims) and time (n,) of samples; (n, draws, ...) where there are several.

        The noise of a shorter chunk is the beginning of a longer one's, and that of a stride is every
        stride-th of the chunk's without: an action's noise belongs to its time. The first of several draws is
        the one that there would be alone.
        """
        noise = np.empty((len(samples), draws, steps, dims), dtype=np.float32)
        time = np.empty((len(samples), draws), dtype=np.float32)
        for position, sample in enumerate(samples):
            for draw in range(draws):
                generator = keyed_generator(self.seed, _FLOW, int(sample), *([draw] if draw else []))
                time[position, draw] = generator.beta(TIME_ALPHA, TIME_BETA) * TIME_SCALE + TIME_OFFSET
                whole = generator.standard_normal((steps * stride, dims), dtype=np.float32)
                noise[position, draw] = whole[::stride]
        return (noise, time) if draws > 1 else (noise[:, 0], time[:, 0])

    def _row(self, sample: int) -> int:
        share = self.curriculum.late_share(sample)
        late = share == 1.0 or (share > 0.0 and keyed_generator(self.seed, _STAGE, sample).random() < share)
        pool = self.curriculum.late if late else self.curriculum.rows
        # each pool counts from where its stage begins, so that its first epoch is whole
        position = self.mixture.count_before(self.dataset, sample)
        if late:
            position -= self.mixture.count_before(self.dataset, self.curriculum.first_late)
        epoch, place = divmod(position, len(pool))
        return int(pool[self._order(late, epoch)[place]])

    def _draw_order(self, late: bool, epoch: int) -> NDArray[np.int64]:
        pool = self.curriculum.late if late else self.curriculum.rows
        own = (self.dataset,) if self.dataset else ()
        return keyed_generator(self.seed, _ORDER, int(late), epoch, *own).permutation(len(pool))
