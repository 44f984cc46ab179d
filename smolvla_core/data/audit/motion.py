"""Check of the motion: how much of a dataset is waiting. N frames, D dims."""

import numpy as np
from numpy.typing import NDArray

from smolvla_core.data.audit.finding import Finding, episodes, percent
from smolvla_core.data.audit.numbers import CONSTANT_RANGE, columns, filled
from smolvla_core.data.audit.read import Recording, Table

IDLE_WINDOW_S = 0.2
IDLE_SHARE_OF_RANGE = 0.02
NOISY_STEP = 0.05
"""A dim whose typical step is more of its range than this is noise, not motion."""
IDLE_WARN = 0.25
IDLE_EPISODE = 0.8
RANGE_ROWS = 100_000
"""Rows from which a dim's usual range is taken."""


def check_idle(recording: Recording) -> list[Finding]:
    """Frames at which neither action nor state moves, where they are, and episodes that are nothing else."""
    idle = idle_frames(recording)
    head = tail = pause = frames = waiting = 0
    asleep = []
    for number, part in zip(recording.numbers.tolist(), recording.parts(), strict=True):
        length = part.stop - part.start
        moving = np.flatnonzero(~idle[part])
        if length > 1 and length - len(moving) >= IDLE_EPISODE * length:
            asleep.append(number)
            continue
        frames += length
        waiting += length - len(moving)
        head += int(moving[0]) if len(moving) else length
        tail += length - 1 - int(moving[-1]) if len(moving) else 0
        pause = max(pause, int(np.diff(moving).max()) - 1 if len(moving) > 1 else 0)
    findings = []
    if asleep:
        todo = "leave them out: they teach the policy to wait"
        found = f"{episodes(asleep)}: nothing moves in {100 * IDLE_EPISODE:.0f} % of the frames or more"
        findings.append(Finding("idle frames", "fail", found, todo))
    if not frames:
        return findings
    found = (
        f"{percent(waiting, frames)} of all: {percent(head, frames)} before the first motion, "
        f"{percent(tail, frames)} after the last"
    )
    found += f"; the longest pause between is {pause / recording.fps:.1f} s" if pause >= 0.1 * recording.fps else ""
    if waiting > IDLE_WARN * frames:
        todo = "cut the ends off; much idleness teaches the policy to wait"
        findings.append(Finding("idle frames", "warn", found, todo))
    return findings or [Finding("idle frames", "ok", found)]


def idle_frames(recording: Recording) -> NDArray[np.bool_]:
    """(N,) whether nothing moves around a frame.

    A dim moves when its value changes within 0.2 s by more than 2 % of its usual range, or of the
    middle dim's where that is wider: a held arm's trembling is no motion.
    """
    reach = max(1, round(IDLE_WINDOW_S * recording.fps / 2))
    row = np.arange(len(recording.action))
    first = np.repeat(recording.starts, recording.lengths)
    last = first + np.repeat(recording.lengths, recording.lengths) - 1
    inside = row[row > first]
    before, after = np.maximum(row - reach, first), np.minimum(row + reach, last)
    moving = np.zeros(len(row), dtype=bool)
    for rows in (recording.action, recording.state):
        usual = _usual_ranges(rows)
        for dim, values in columns(rows):
            if np.isfinite(usual[dim]) and not moving.all():
                column = filled(values)
                if not _is_noise(column[inside] - column[inside - 1], usual[dim]):
                    moving |= np.abs(column[after] - column[before]) > IDLE_SHARE_OF_RANGE * usual[dim]
    return ~moving


def _usual_ranges(rows: Table) -> NDArray[np.float64]:
    """(D,) 1st to 99th percentile of each dim, at least the middle dim's; infinite where nothing changes."""
    some = filled(rows[:: max(1, len(rows) // RANGE_ROWS)].astype(np.float64))
    low, high = np.quantile(some, [0.01, 0.99], axis=0)
    alive = high - low >= CONSTANT_RANGE
    if not alive.any():
        return np.full(rows.shape[1], np.inf)
    return np.where(alive, np.maximum(high - low, np.median((high - low)[alive])), np.inf)


def _is_noise(steps: Table, usual: float) -> bool:
    return len(steps) > 0 and float(np.median(np.abs(steps))) >= NOISY_STEP * usual
