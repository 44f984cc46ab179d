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

_ORDER, _FLOW, _JITTER = 0, 1, 2  # streams of random numbers, independent by their key

# lerobot.policies.smolvla.modeling_smolvla.VLAFlowMatching.sample_time
TIME_ALPHA, TIME_BETA, TIME_SCALE, TIME_OFFSET = 1.5, 1.0, 0.999, 0.001


@dataclass(frozen=True)
class Stage:
    """A stretch of the stream that draws from one pool of rows."""

    first_sample: int
    rows: NDArray[np.int64]


class SampleStream:
    """The training samples of a run.

    Args:
        stages: ascending by ``first_sample``, which starts at 0; rows are shuffled once an epoch.
        seed: of the order, the noise, the times and the jitter.
    """

    def __init__(self, stages: tuple[Stage, ...], seed: int):
        assert stages[0].first_sample == 0
        self.stages, self.seed = stages, seed
        # an epoch's order is needed for many consecutive samples
        self._order = lru_cache(maxsize=2)(self._draw_order)

    def rows(self, first: int, count: int) -> NDArray[np.int64]:
        """Rows of samples ``first .. first + count``, shape (count,)."""
        return np.array([self._row(sample) for sample in range(first, first + count)], dtype=np.int64)

    def flow(self, first: int, count: int, steps: int, dims: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Flow-matching noise (count, steps, dims) and time (count,) of consecutive samples.

        The noise of a shorter chunk is the beginning of a longer one's.
        """
        noise = np.empty((count, steps, dims), dtype=np.float32)
        time = np.empty(count, dtype=np.float32)
        for position in range(count):
            generator = keyed_generator(self.seed, _FLOW, first + position)
            time[position] = generator.beta(TIME_ALPHA, TIME_BETA) * TIME_SCALE + TIME_OFFSET
            noise[position] = generator.standard_normal((steps, dims), dtype=np.float32)
        return noise, time

    def jitter(self, first: int, count: int, dims: int) -> NDArray[np.float32]:
        """Uniform numbers in [-1, 1) of consecutive samples, shape (count, dims)."""
        draws = [
            keyed_generator(self.seed, _JITTER, sample).uniform(-1, 1, dims) for sample in range(first, first + count)
        ]
        return np.asarray(draws, dtype=np.float32)

    def _row(self, sample: int) -> int:
        stage = max(i for i, s in enumerate(self.stages) if s.first_sample <= sample)
        rows = self.stages[stage].rows
        epoch, position = divmod(sample - self.stages[stage].first_sample, len(rows))
        return int(rows[self._order(stage, epoch)[position]])

    def _draw_order(self, stage: int, epoch: int) -> NDArray[np.int64]:
        return keyed_generator(self.seed, _ORDER, stage, epoch).permutation(len(self.stages[stage].rows))


def keyed_generator(*key: int) -> np.random.Generator:
    """A generator that is a pure function of its key of non-negative integers."""
    return np.random.Generator(np.random.Philox(np.random.SeedSequence(key)))


def curriculum_stages(
    config: CurriculumConfig, rows: NDArray[np.int64], progress: NDArray[np.float32], samples: int
) -> tuple[Stage, ...]:
    """The pools a curriculum draws from.

    Args:
        config: the scheme, its share and its start.
        rows: training rows (n,).
        progress: of those rows (n,), within their episodes.
        samples: the run's whole budget; the curriculum spans it, whatever the rung.
    """
    everything = Stage(0, rows)
    if config.scheme == "none":
        return (everything,)
    late = rows[progress >= config.start]
    return (everything, Stage(round(config.share * samples), late))
