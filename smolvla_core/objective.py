"""The score of a trial: an open-loop error that is the same question for every trial.

A weighted training loss cannot be compared between alphas, nor a chunk's loss between chunk
sizes. So each trial predicts the same held-out frames from the same noise, and the same seconds
of its prediction are compared with the demonstration, unweighted, in units that are fixed for the
whole study. This module is the arithmetic; ``evaluate`` runs it on a policy.

Legend: F frames, K draws of noise, T steps of the horizon, A action dims.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from smolvla_core.config import TrialConfig
from smolvla_core.data.dataset import MIN_STD, Moments
from smolvla_core.data.keyed import keyed_generator
from smolvla_core.data.sampler import TIME_ALPHA, TIME_BETA, TIME_OFFSET, TIME_SCALE
from smolvla_core.errors import ConfigError

STD_FLOOR = 0.01
"""A dim that hardly varies counts in units of at least this share of the deviation of the median dim that varies."""

_CHOICE, _NOISE, _TIME = 0, 1, 2  # streams of random numbers, independent by their key


@dataclass(frozen=True)
class ScoredSteps:
    """Which time stamps of a prediction are scored: every ``stride``-th recorded frame of the horizon.

    Those are common to all chunk sizes and frame strides of a study. Where a stamp stands for several
    recorded frames, a velocity is scored by its mean over them, as it is trained
    (``Dataset.chunk_actions``), so that a policy of 30 Hz and one of 10 Hz that move alike score alike.
    """

    count: int
    """Scored stamps, T."""
    stride: int
    """Recorded frames from one to the next."""
    per_stamp: int
    """Steps of the policy from one to the next."""

    @property
    def policy_steps(self) -> int:
        """Steps of the policy within the horizon."""
        return self.count * self.per_stamp

    def of(self, predicted: NDArray[np.float32], averaged: tuple[int, ...]) -> NDArray[np.float32]:
        """Predictions (F, K, T, A) at the scored stamps.

        Args:
            predicted: (F, K, policy_steps, A).
            averaged: action dims that are velocities.
        """
        at_stamps = predicted[:, :, :: self.per_stamp].copy()
        if self.per_stamp > 1 and averaged:
            frames, draws, _, dims = predicted.shape
            parts = predicted.reshape(frames, draws, self.count, self.per_stamp, dims)[..., list(averaged)]
            at_stamps[..., list(averaged)] = parts.mean(axis=3)
        return at_stamps


def scored_steps(config: TrialConfig, fps: int) -> ScoredSteps:
    """The time stamps that a trial is scored at.

    Raises:
        ConfigError: the horizon is shorter than a stamp or longer than the chunk.
    """
    stride, scored = config.data.frame_stride, config.scored_stride
    frames = round(config.eval.horizon_s * fps)
    chunk = config.policy.chunk_size * stride
    if not scored <= frames <= chunk:
        step = "1 step" if scored == 1 else f"{scored} frames, the step that is scored,"
        held = "" if stride == 1 else f" times data.frame_stride ({stride})"
        raise ConfigError(
            f"eval.horizon_s is {config.eval.horizon_s:g} s, {frames} steps at {fps} Hz; it must be between {step} and "
            f"policy.chunk_size ({config.policy.chunk_size}){held}; set it to at most {chunk / fps:.3g}"
        )
    return ScoredSteps(frames // scored, scored, scored // stride)


def error_scale(action: Moments) -> NDArray[np.float64]:
    """Units of the error per action dim (A,): the training deviation, floored; 1 for a constant dim, as in training."""
    varies = action.max - action.min >= MIN_STD
    floor = STD_FLOOR * float(np.median(action.std[varies])) if varies.any() else 0.0
    return np.where(varies, np.maximum(action.std, floor), 1.0)


def frame_errors(
    predicted: NDArray[np.float32],
    actual: NDArray[np.float32],
    is_pad: NDArray[np.bool_],
    scale: NDArray[np.float64],
    order: int = 2,
) -> NDArray[np.float64]:
    """Mean error of each frame, shape (F,).

    Args:
        predicted: (F, K, T, A) in raw units.
        actual: (F, T, A) in raw units.
        is_pad: (F, T) true past the episode's end; left out.
        scale: (A,) unit of each dim.
        order: 2 for the squared error, 1 for the absolute.
    """
    return draw_errors(predicted, actual, is_pad, scale, order).mean(axis=1)


def draw_errors(
    predicted: NDArray[np.float32],
    actual: NDArray[np.float32],
    is_pad: NDArray[np.bool_],
    scale: NDArray[np.float64],
    order: int = 2,
) -> NDArray[np.float64]:
    """Mean error of each frame and draw, shape (F, K); the arguments are those of :func:`frame_errors`."""
    difference = (predicted.astype(np.float64) - actual[:, None]) / scale
    error = np.abs(difference) ** order
    valid = ~is_pad[:, None, :, None]
    count = valid.sum(axis=(2, 3)) * error.shape[3]
    return (error * valid).sum(axis=(2, 3)) / count


def episode_standard_error(values: NDArray[np.float64], episode: NDArray[np.int64]) -> float | None:
    """Standard error of a mean over frames whose episodes are a sample of all that could be: None for one episode.

    Frames of an episode are alike, so that episodes are what is resampled. This is the linear
    approximation of that bootstrap, ``sqrt(E / (E - 1) sum_e (sum_i (v_i - mean))**2) / n``.

    Args:
        values: (F,) of each frame.
        episode: (F,) which each frame is of.
    """
    _, member = np.unique(episode, return_inverse=True)
    count = int(member.max()) + 1
    if count < 2:
        return None
    sums = np.bincount(member, weights=values - values.mean())
    return float(np.sqrt(count / (count - 1) * np.square(sums).sum()) / len(values))


def draw_standard_error(per_draw: NDArray[np.float64]) -> float | None:
    """Standard error of the score by its draws of noise, with the same frames: None for one draw.

    Args:
        per_draw: (F, K) error of each frame and draw; draws are independent between frames.
    """
    frames, draws = per_draw.shape
    if draws < 2:
        return None
    return float(np.sqrt((per_draw.var(axis=1, ddof=1) / draws).sum()) / frames)


def energy_scores(
    predicted: NDArray[np.float32],
    actual: NDArray[np.float32],
    is_pad: NDArray[np.bool_],
    scale: NDArray[np.float64],
) -> NDArray[np.float64]:
    """Energy score of each frame's draws, shape (F,); lower is better.

    ``mean |x - y| - 1/2 mean |x - x'|`` (Gneiting and Raftery 2007) rewards draws that are both
    near the demonstration and as spread as it; a mean error alone rewards collapse to the mean.
    """
    valid = ~is_pad[:, :, None]
    draws = predicted.astype(np.float64) / scale * valid[:, None]
    truth = actual / scale * valid
    frames, count = draws.shape[:2]
    draws, truth = draws.reshape(frames, count, -1), truth.reshape(frames, -1)
    dims = valid.sum(axis=(1, 2)) * predicted.shape[-1]
    near = np.linalg.norm(draws - truth[:, None], axis=-1).mean(axis=1)
    pairs = np.linalg.norm(draws[:, :, None] - draws[:, None], axis=-1)
    apart = pairs.sum(axis=(1, 2)) / max(count * (count - 1), 1)
    return (near - 0.5 * apart) / np.sqrt(dims)


def choose_frames(rows: NDArray[np.int64], count: int, seed: int) -> NDArray[np.int64]:
    """A fixed, seeded sub-sample of rows, ascending."""
    if len(rows) <= count:
        return np.sort(rows)
    return np.sort(keyed_generator(seed, _CHOICE).choice(rows, size=count, replace=False))


def evaluation_noise(seed: int, row: int, draw: int, steps: int, dims: int, stride: int = 1) -> NDArray[np.float32]:
    """Noise (steps, dims) fixed per (seed, row, draw); a shorter chunk's is a longer one's beginning.

    That of a frame stride is every stride-th of the noise without: the same at the same time stamp.
    """
    every = keyed_generator(seed, _NOISE, row, draw).standard_normal((steps * stride, dims), dtype=np.float32)
    return every[::stride]


def evaluation_time(seed: int, row: int, draw: int) -> float:
    """Flow-matching time fixed per (seed, row, draw), distributed as in training."""
    return float(keyed_generator(seed, _TIME, row, draw).beta(TIME_ALPHA, TIME_BETA) * TIME_SCALE + TIME_OFFSET)
