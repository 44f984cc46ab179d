"""Which frames are critical: where the task is decided, by the best rule that the data allows."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from smolvla_core.config import TrialConfig
from smolvla_core.data.annotations import load_annotations, manipulation_spans
from smolvla_core.data.dataset import Dataset
from smolvla_core.errors import ConfigError, DataError
from smolvla_core.segments import gripper_openings, moving


@dataclass(frozen=True)
class CriticalFrames:
    """Critical rows of some episodes, and the rule that found them."""

    rows: NDArray[np.int64]
    rule: str


def critical_frames(
    config: TrialConfig, dataset: Dataset, episodes: Sequence[int], part: str = "validation", rule: str | None = None
) -> CriticalFrames:
    """Critical rows of ``episodes``, which are the ``part`` of the split, by a rule: ``eval.critical`` unless given.

    ``annotation``: inside annotated picks and places. ``gripper``: near a gripper's motion.
    ``progress``: late in the episode. ``auto`` takes the first that the data has.

    Raises:
        ConfigError: the rule that was asked for cannot be applied to this dataset.
        DataError: no frame is critical.
    """
    rule = rule or config.eval.critical
    candidates = ("annotation", "gripper", "progress") if rule == "auto" else (rule,)
    finders = {"annotation": _annotated, "gripper": _near_gripper_motion, "progress": _late}
    for name in candidates:
        rows = finders[name](config, dataset, episodes)
        if rows is not None and len(rows):
            return CriticalFrames(rows, name)
        if rule != "auto" and rows is None:
            raise ConfigError(f"eval.critical: this dataset has nothing for the rule '{rule}'; set auto")
    way_out = "lower eval.critical_progress" if candidates[-1] == "progress" else "set it to progress"
    raise DataError(f"eval.critical: no {part} frame is critical by the rule '{rule}'; {way_out}")


def annotated_frames(dataset: Dataset) -> NDArray[np.bool_] | None:
    """Frames inside annotated picks and places, shape (N,); None where there are no annotations."""
    annotations = load_annotations(dataset.root)
    if annotations is None:
        return None
    inside = np.zeros(len(dataset.frame), dtype=bool)
    for recorded, start, length in zip(dataset.recorded, dataset.starts, dataset.lengths, strict=True):
        for span in manipulation_spans(annotations.get(int(recorded), [])):
            inside[start + span.start : start + min(span.stop, int(length))] = True
    return inside


def _annotated(config: TrialConfig, dataset: Dataset, episodes: Sequence[int]) -> NDArray[np.int64] | None:
    inside = annotated_frames(dataset)
    if inside is None:
        return None
    rows = dataset.rows_of(tuple(episodes))
    return rows[inside[rows]]


def _near_gripper_motion(config: TrialConfig, dataset: Dataset, episodes: Sequence[int]) -> NDArray[np.int64] | None:
    openings = gripper_openings(config, dataset)
    if not openings.shape[1]:
        return None
    reach = max(1, round(config.eval.gripper_window_s * dataset.fps))
    thresholds = config.eval.gripper_threshold * np.ptp(openings, axis=0)
    parts = [np.empty(0, dtype=np.int64)]
    for episode in episodes:
        rows = dataset.rows_of((episode,))
        near = [moving(openings[rows, g], reach, max(thresholds[g], 1e-6)) for g in range(openings.shape[1])]
        parts.append(rows[np.logical_or.reduce(near)])
    return np.concatenate(parts)


def _late(config: TrialConfig, dataset: Dataset, episodes: Sequence[int]) -> NDArray[np.int64]:
    rows = dataset.rows_of(tuple(episodes))
    return rows[dataset.progress[rows] >= config.eval.critical_progress]
