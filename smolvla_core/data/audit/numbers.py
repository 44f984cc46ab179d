"""Checks of the values themselves: not finite, constant, held, outlying. N frames, D dims."""

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from smolvla_core.data.audit.finding import Finding, dims, percent
from smolvla_core.data.audit.read import Recording, Table
from smolvla_core.data.wording import counted
from smolvla_core.state import release_of, top32_indices

CONSTANT_RANGE = 1e-6
HUGE = 1e6
BLOCK = 16
"""Dims that are copied together: as many as one cache line of a row holds."""
HELD_WITHIN_S = 0.5
"""Changes further apart than this are rest, not a slow sensor."""
HELD_FRAMES = 2.0
LEAST_CHANGES = 20


def check_values(recording: Recording) -> list[Finding]:
    """NaN and infinity, and numbers too large for any robot."""
    findings = []
    for name, rows in _vectors(recording):
        huge = [dim for dim, column in columns(rows) if np.abs(filled(column)).max() > HUGE]
        if huge:
            found = f"{name}: values beyond {HUGE:,.0f} in {dims(huge)}"
            findings.append(Finding("values", "warn", found, "a wrong unit, or numbers that were never written?"))
        rows_with = np.flatnonzero(~np.isfinite(rows).all(axis=1))
        if len(rows_with) == 0:
            continue
        bad = ~np.isfinite(rows[rows_with])
        row, dim = int(rows_with[0]), int(np.flatnonzero(bad[0])[0])
        episodes = len(np.unique(recording.episode[rows_with]))
        found = (
            f"{name}: {counted(int(bad.sum()), 'value')} in {counted(episodes, 'episode')} "
            f"{'is' if bad.sum() == 1 else 'are'} not finite; the first is dim {dim}, {recording.where(row)}"
        )
        todo = "repair or remove those episodes; one NaN makes every loss NaN"
        findings.append(Finding("values", "fail", found, todo))
    return findings or [Finding("values", "ok", "every state and action is finite")]


def check_constant(recording: Recording) -> list[Finding]:
    """Dims that never change."""
    findings = []
    release = release_of(recording.state.shape[1], recording.robot_type)
    for name, rows in _vectors(recording):
        still = [int(dim) for dim in np.flatnonzero(value_range(rows) < CONSTANT_RANGE)]
        width = rows.shape[1]
        found = f"{name}: {len(still)} of {width} ({dims(still)})"
        if len(still) == width:
            findings.append(Finding("constant dims", "fail", f"{name}: all {width} dims", "was anything recorded?"))
        elif still and name == "action":
            findings.append(Finding("constant dims", "warn", found, "the policy learns to repeat them"))
        elif still and release is not None:
            used = [dim for dim in still if dim in top32_indices(release)]
            if used:
                todo = "the preset top32 uses them; choose other keys (state.keys)"
                findings.append(Finding("constant dims", "warn", f"{name}: {dims(used)}", todo))
            else:
                findings.append(Finding("constant dims", "ok", f"{found}; the preset top32 uses none of them"))
        elif still:
            findings.append(Finding("constant dims", "warn", found, "they say nothing; leave them out (state.indices)"))
    return findings or [Finding("constant dims", "ok", "every dim of state and action changes")]


def check_held(recording: Recording) -> list[Finding]:
    """Dims that keep each value for several frames while they move: measured more slowly than recorded."""
    findings = []
    for name, rows in _vectors(recording):
        periods = {dim: held_frames(recording, column) for dim, column in columns(rows)}
        held = {dim: period for dim, period in periods.items() if period >= HELD_FRAMES}
        if held:
            period = float(np.median(list(held.values())))
            found = (
                f"{name}: {dims(sorted(held))} {'changes' if len(held) == 1 else 'change'} about every "
                f"{period:.0f} frames while moving ({recording.fps / period:.0f} Hz, recorded at {recording.fps:g} Hz)"
            )
            todo = "a slow or coarse sensor? harmless where the robot's own values are such when the policy runs"
            findings.append(Finding("held values", "warn", found, todo))
    return findings or [Finding("held values", "ok", "what moves changes from frame to frame")]


def held_frames(recording: Recording, column: Table) -> float:
    """Median frames between two changes of a dim (N,) in motion; 0 where it changes too rarely to tell."""
    changed = np.flatnonzero(np.diff(column) != 0) + 1
    changed = changed[recording.episode[changed] == recording.episode[changed - 1]]
    apart = np.diff(changed)[recording.episode[changed[1:]] == recording.episode[changed[:-1]]]
    apart = apart[apart <= HELD_WITHIN_S * recording.fps]
    return float(np.median(apart)) if len(apart) >= LEAST_CHANGES else 0.0


def check_outliers(recording: Recording, z: float) -> list[Finding]:
    """Values more than ``z`` standard deviations from their dim's mean."""
    findings = []
    for name, rows in _vectors(recording):
        beyond = np.zeros(len(rows), dtype=bool)
        outlying: list[int] = []
        worst, row, which = 0.0, 0, 0
        for dim, column in columns(rows):
            score = _scores(column)
            far = score > z
            if far.any():
                beyond |= far
                outlying.append(dim)
                if score.max() > worst:
                    worst, row, which = float(score.max()), int(score.argmax()), dim
        if outlying:
            frames = int(beyond.sum())
            found = (
                f"{name}: {counted(frames, 'frame')} ({percent(frames, len(rows))}) beyond |z| {z:g} in "
                f"{dims(outlying)}; the worst, {worst:.0f}, in dim {which}, {recording.where(row)}"
            )
            todo = "look at that frame: a glitch, or a rare but real motion or force?"
            findings.append(Finding("outliers", "warn", found, todo))
    return findings or [Finding("outliers", "ok", f"no value lies beyond |z| {z:g}")]


def _scores(column: Table) -> NDArray[np.float64]:
    """Absolute z-scores of a dim (N,); 0 for what is not finite, and for all of a constant one."""
    values = column.astype(np.float64)
    finite = np.isfinite(values)
    known = values if finite.all() else values[finite]
    if len(known) == 0 or np.ptp(known) < CONSTANT_RANGE:
        return np.zeros(len(values))
    with np.errstate(invalid="ignore"):
        score = np.abs(values - known.mean()) / known.std()
    return score if finite.all() else np.where(finite, score, 0.0)


def columns(rows: Table) -> Iterator[tuple[int, Table]]:
    """Number and values (N,) of each dim, contiguous in memory, of which a large dataset has little."""
    for first in range(0, rows.shape[1], BLOCK):
        for offset, column in enumerate(np.ascontiguousarray(rows[:, first : first + BLOCK].T)):
            yield first + offset, column


def filled(rows: NDArray[Any]) -> NDArray[Any]:
    """A copy with 0 for what is not finite."""
    return np.nan_to_num(rows, nan=0.0, posinf=0.0, neginf=0.0)


def value_range(rows: Table) -> NDArray[np.float64]:
    """Largest minus smallest finite value of each dim, (D,); 0 where none is finite."""
    ranges = np.zeros(rows.shape[1])
    for dim, column in columns(rows):
        known = column[np.isfinite(column)]
        ranges[dim] = float(known.max()) - float(known.min()) if len(known) else 0.0
    return ranges


def _vectors(recording: Recording) -> tuple[tuple[str, Table], tuple[str, Table]]:
    return ("action", recording.action), ("state", recording.state)
