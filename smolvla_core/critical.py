"""Which frames are critical: where the task is decided, by the best rule that the data allows."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from smolvla_core.config import TrialConfig
from smolvla_core.data.behavior import load_annotations, manipulation_spans
from smolvla_core.data.dataset import Dataset
from smolvla_core.errors import ConfigError, DataError
from smolvla_core.state import GRIPPER_KEYS, key_dims, release_of


@dataclass(frozen=True)
class CriticalFrames:
    """Critical rows of some episodes, and the rule that found them."""

    rows: NDArray[np.int64]
    rule: str


def critical_frames(config: TrialConfig, dataset: Dataset, episodes: Sequence[int]) -> CriticalFrames:
    """Critical rows of ``episodes``.

    ``annotation``: inside annotated picks and places. ``gripper``: near a gripper's motion.
    ``progress``: late in the episode. ``auto`` takes the first that the data has.

    Raises:
        ConfigError: the rule that was asked for cannot be applied to this dataset.
        DataError: no frame is critical.
    """
    rule = config.eval.critical
    candidates = ("annotation", "gripper", "progress") if rule == "auto" else (rule,)
    finders = {"annotation": _annotated, "gripper": _near_gripper_motion, "progress": _late}
    for name in candidates:
        rows = finders[name](config, dataset, episodes)
        if rows is not None and len(rows):
            return CriticalFrames(rows, name)
        if rule != "auto" and rows is None:
            raise ConfigError(f"eval.critical: this dataset has nothing for the rule '{rule}'; set auto")
    raise DataError(f"{dataset.root}: no validation frame is critical by rule '{rule}'; set eval.critical to progress")


def gripper_dims(config: TrialConfig, dataset: Dataset) -> tuple[tuple[int, ...], ...]:
    """Raw state dims of each gripper: R1Pro's by name, else ``data.gripper_dims``, one by one.

    Raises:
        ConfigError: a dim outside the state.
    """
    width = dataset.state.shape[1]
    if config.data.gripper_dims:
        if max(config.data.gripper_dims) >= width or min(config.data.gripper_dims) < 0:
            raise ConfigError(f"data.gripper_dims: {config.data.gripper_dims} leave the state's 0..{width - 1}")
        return tuple((dim,) for dim in config.data.gripper_dims)
    release = release_of(width, dataset.robot_type)
    return tuple(key_dims((key,), release) for key in GRIPPER_KEYS) if release else ()


def moving(opening: NDArray[np.float32], window: int, threshold: float) -> NDArray[np.bool_]:
    """Frames within ``window`` frames of a motion.

    Args:
        opening: a gripper's opening over an episode (n,).
        window: frames to either side, at least 1.
        threshold: the least change of the opening, over the window, that counts as motion.
    """
    padded = np.pad(opening, window, mode="edge")
    views = np.lib.stride_tricks.sliding_window_view(padded, 2 * window + 1)
    return (views.max(axis=1) - views.min(axis=1)) > threshold


def _annotated(config: TrialConfig, dataset: Dataset, episodes: Sequence[int]) -> NDArray[np.int64] | None:
    annotations = load_annotations(dataset.root)
    if annotations is None:
        return None
    parts = [np.empty(0, dtype=np.int64)]
    for episode in episodes:
        length = int(dataset.lengths[episode])
        inside = np.zeros(length, dtype=bool)
        for span in manipulation_spans(annotations.get(episode, [])):
            inside[span.start : span.stop] = True
        parts.append(dataset.starts[episode] + np.flatnonzero(inside))
    return np.concatenate(parts)


def _near_gripper_motion(config: TrialConfig, dataset: Dataset, episodes: Sequence[int]) -> NDArray[np.int64] | None:
    grippers = gripper_dims(config, dataset)
    if not grippers:
        return None
    window = max(1, round(config.eval.gripper_window_s * dataset.fps))
    openings = np.stack([dataset.state[:, list(dims)].sum(axis=1) for dims in grippers], axis=1)
    thresholds = config.eval.gripper_threshold * (openings.max(axis=0) - openings.min(axis=0))
    parts = [np.empty(0, dtype=np.int64)]
    for episode in episodes:
        rows = dataset.rows_of((episode,))
        near = [moving(openings[rows, g], window, max(thresholds[g], 1e-6)) for g in range(len(grippers))]
        parts.append(rows[np.logical_or.reduce(near)])
    return np.concatenate(parts)


def _late(config: TrialConfig, dataset: Dataset, episodes: Sequence[int]) -> NDArray[np.int64]:
    rows = dataset.rows_of(tuple(episodes))
    return rows[dataset.progress[rows] >= config.eval.critical_progress]
