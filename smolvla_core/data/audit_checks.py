"""Checks of a recording's numbers: each a pure function that returns findings.

N frames, E episodes, D dims.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from smolvla_core.data.audit_read import Recording, Table
from smolvla_core.r1pro import RELEASES
from smolvla_core.state import release_of

Verdict = Literal["ok", "warn", "fail"]

CONSTANT_RANGE = 1e-6
IDLE_WINDOW_S = 0.2
IDLE_SHARE_OF_RANGE = 0.02
NOISY_STEP = 0.05
"""A dim whose typical step is more of its range than this is noise, not motion."""
IDLE_WARN = 0.25
MAX_LAG_S = 0.5
LAG_WARN_S = 0.4
MIN_CORRELATION = 0.3
CLOCK_TOLERANCE_S = 1e-4
"""lerobot's own between time stamps and pictures."""
SHORT_S = 1.0
TOKENS_PER_WORD = 1.3
TOKENIZER_MAX_LENGTH = 64

EVERY_DIM = "every dim"
R1PRO_PAIRS = (
    ("base velocity", range(0, 3), "base_qvel"),
    ("trunk", range(3, 7), "trunk_qpos"),
    ("left arm", range(7, 14), "arm_left_qpos"),
    ("right arm", range(15, 22), "arm_right_qpos"),
)


@dataclass(frozen=True)
class Finding:
    """One line of an audit."""

    check: str
    verdict: Verdict
    found: str
    todo: str = ""
    """What to do about it; empty where nothing is."""


@dataclass(frozen=True)
class Lag:
    """How many frames the state follows the action by, and how alike they are at that shift."""

    frames: int
    correlation: float


def check_values(recording: Recording) -> list[Finding]:
    """NaN and infinity."""
    findings = []
    for name, rows in (("action", recording.action), ("state", recording.state)):
        bad = np.argwhere(~np.isfinite(rows))
        if len(bad):
            row, dim = bad[0]
            frame = int(row - recording.starts[_episode_at(recording, row)])
            episodes = len(np.unique(recording.episode[bad[:, 0]]))
            findings.append(
                Finding(
                    "values",
                    "fail",
                    f"{name}: {len(bad)} values in {episodes} episodes are not finite; the first is dim {dim} of "
                    f"episode {recording.episode[row]}, frame {frame}",
                    "repair or remove those episodes; one NaN makes every loss NaN",
                )
            )
    return findings or [Finding("values", "ok", "every state and action is finite")]


def check_constant(recording: Recording) -> list[Finding]:
    """Dims that never change."""
    findings = []
    for name, rows in (("action", recording.action), ("state", recording.state)):
        still = [int(dim) for dim in np.flatnonzero(_range(rows) < CONSTANT_RANGE)]
        width = rows.shape[1]
        if len(still) == width:
            findings.append(Finding("constant dims", "fail", f"{name}: all {width} dims", "was anything recorded?"))
        elif still:
            todo = "leave them out (state.indices)" if name == "state" else "the policy learns to repeat them"
            findings.append(Finding("constant dims", "warn", f"{name}: {len(still)} of {width} ({_dims(still)})", todo))
    return findings or [Finding("constant dims", "ok", "every dim of state and action changes")]


def check_outliers(recording: Recording, z: float) -> list[Finding]:
    """Values more than ``z`` standard deviations from their dim's mean."""
    findings = []
    for name, rows in (("action", recording.action), ("state", recording.state)):
        clean = np.where(np.isfinite(rows), rows, np.nan).astype(np.float64)
        alive = _range(rows) >= CONSTANT_RANGE
        if not alive.any():
            continue
        with np.errstate(invalid="ignore"):
            score = np.abs(clean - np.nanmean(clean, axis=0)) / np.where(alive, np.nanstd(clean, axis=0), np.inf)
        score = np.nan_to_num(score)
        frames = np.flatnonzero((score > z).any(axis=1))
        if len(frames) == 0:
            continue
        row, dim = np.unravel_index(int(score.argmax()), score.shape)
        frame = int(row - recording.starts[_episode_at(recording, int(row))])
        dims = [int(d) for d in np.flatnonzero((score > z).any(axis=0))]
        findings.append(
            Finding(
                "outliers",
                "warn",
                f"{name}: {len(frames)} frames ({_percent(len(frames), len(rows))}) beyond |z| {z:g}, {_dims(dims)}; "
                f"worst {score.max():.0f} in dim {dim}, episode {recording.episode[row]}, frame {frame}",
                "look at that frame: a glitch, or a rare but real motion? (rare forces and speeds are real)",
            )
        )
    return findings or [Finding("outliers", "ok", f"no value lies beyond |z| {z:g}")]


def check_idle(recording: Recording) -> list[Finding]:
    """Frames at which neither action nor state moves, and how many of them stand at the ends."""
    idle = idle_frames(recording)
    share = float(idle.mean())
    head = tail = 0
    for start, length in zip(recording.starts, recording.lengths, strict=True):
        part = idle[start : start + length]
        moving = np.flatnonzero(~part)
        head += int(moving[0]) if len(moving) else int(length)
        tail += int(length - 1 - moving[-1]) if len(moving) else 0
    found = (
        f"{100 * share:.1f} % of frames: {_percent(head, len(idle))} before the first motion, "
        f"{_percent(tail, len(idle))} after the last"
    )
    if share > IDLE_WARN:
        return [Finding("idle frames", "warn", found, "cut the ends off; much idleness teaches the policy to wait")]
    return [Finding("idle frames", "ok", found)]


def idle_frames(recording: Recording) -> NDArray[np.bool_]:
    """(N,) whether nothing moves around a frame.

    A dim moves when its value changes by more than 2 % of its usual range within 0.2 s.
    """
    window = max(1, round(IDLE_WINDOW_S * recording.fps / 2))
    moving = np.zeros(len(recording.action), dtype=bool)
    for rows in (recording.action, recording.state):
        for block in _smooth_columns(recording, rows):
            for start, length in zip(recording.starts, recording.lengths, strict=True):
                part = block[start : start + length]
                before = part[np.maximum(np.arange(length) - window, 0)]
                after = part[np.minimum(np.arange(length) + window, length - 1)]
                moving[start : start + length] |= (np.abs(after - before) > IDLE_SHARE_OF_RANGE).any(axis=1)
    return ~moving


def _smooth_columns(recording: Recording, rows: Table) -> list[NDArray[np.float64]]:
    """The columns that hold motion and not noise, in units of their usual range; [] where none do."""
    clean = np.nan_to_num(rows.astype(np.float64))
    low, high = np.quantile(clean, [0.01, 0.99], axis=0)
    wide = high - low >= CONSTANT_RANGE
    if not wide.any():
        return []
    scaled = clean[:, wide] / (high - low)[wide]
    inside = np.diff(recording.episode) == 0
    steps = np.abs(np.diff(scaled, axis=0))[inside]
    smooth = np.median(steps, axis=0) < NOISY_STEP if len(steps) else np.ones(scaled.shape[1], dtype=bool)
    return [scaled[:, smooth]] if smooth.any() else []


def check_lag(recording: Recording) -> list[Finding]:
    """By how many frames the state follows the action, where their dims mean the same."""
    groups = comparable_dims(recording)
    if not groups:
        return [Finding("action/state lag", "ok", "not measured: state and action dims have no known pairing")]
    lags = {name: measure_lag(recording, action, state) for name, action, state in groups}
    known = {name: lag for name, lag in lags.items() if lag is not None and lag.correlation >= MIN_CORRELATION}
    if not known:
        return [
            Finding(
                "action/state lag",
                "warn",
                "the state does not follow the action at any shift within "
                f"{MAX_LAG_S:g} s (best correlation {max((v.correlation for v in lags.values() if v), default=0):.2f})",
                "check that action and state are of the same robot, order and unit",
            )
        ]
    seconds = [lag.frames / recording.fps for lag in known.values()]
    found = f"the state follows the action by {_lags(known, recording.fps)}"
    if min(seconds) < 0:
        return [
            Finding("action/state lag", "fail", found, "actions come after their effect: shift them before training")
        ]
    if max(seconds) > LAG_WARN_S:
        todo = "a late robot, or misaligned recordings? chunks must be longer than the lag"
        return [Finding("action/state lag", "warn", found, todo)]
    if any(lag.frames == 0 and lag.correlation > 0.9999 for lag in known.values()):
        todo = "actions repeat the measured state: shift them by a frame, or the policy learns to stand still"
        return [Finding("action/state lag", "warn", found, todo)]
    return [Finding("action/state lag", "ok", found)]


def _lags(lags: Mapping[str, Lag], fps: float) -> str:
    """Groups of dims with the same lag, together."""
    parts = []
    for frames in sorted({lag.frames for lag in lags.values()}):
        names = [name for name, lag in lags.items() if lag.frames == frames]
        least = min(lags[name].correlation for name in names)
        who = "" if names == [EVERY_DIM] else f" in {', '.join(names)}"
        parts.append(f"{frames} frames, {frames / fps:.2f} s{who} (r {least:.2f})")
    return "; ".join(parts)


def comparable_dims(recording: Recording) -> list[tuple[str, Sequence[int], Sequence[int]]]:
    """Groups (name, action dims, state dims) that mean the same quantity."""
    width, raw = recording.action.shape[1], recording.state.shape[1]
    release = release_of(raw, recording.robot_type)
    if release is not None and width == 23:
        return [(name, dims, RELEASES[release][key]) for name, dims, key in R1PRO_PAIRS]
    if recording.action_names and recording.state_names:
        where = {name: dim for dim, name in enumerate(recording.state_names)}
        pairs = [(dim, where[name]) for dim, name in enumerate(recording.action_names) if name in where]
        if pairs:
            return [(EVERY_DIM, [a for a, _ in pairs], [s for _, s in pairs])]
    return [(EVERY_DIM, range(width), range(width))] if width == raw else []


def measure_lag(recording: Recording, action_dims: Sequence[int], state_dims: Sequence[int]) -> Lag | None:
    """The shift at which the changes of state and action correlate best, over all pairs and episodes.

    Returns:
        None where neither moves.
    """
    most = max(1, round(MAX_LAG_S * recording.fps))
    action = np.nan_to_num(recording.action[:, list(action_dims)].astype(np.float64))
    state = np.nan_to_num(recording.state[:, list(state_dims)].astype(np.float64))
    alive = (_range(action) >= CONSTANT_RANGE) & (_range(state) >= CONSTANT_RANGE)
    if not alive.any():
        return None
    action, state = action[:, alive], state[:, alive]
    shifts = np.arange(-most, most + 1)
    dot, power_a, power_s = (np.zeros((len(shifts), action.shape[1])) for _ in range(3))
    for start, length in zip(recording.starts, recording.lengths, strict=True):
        a = np.diff(action[start : start + length], axis=0)
        s = np.diff(state[start : start + length], axis=0)
        for i, shift in enumerate(shifts):
            n = len(a) - abs(shift)
            if n < 2:
                continue
            first, then = (a[:n], s[shift:]) if shift >= 0 else (a[-shift:], s[:n])
            dot[i] += (first * then).sum(0)
            power_a[i] += (first**2).sum(0)
            power_s[i] += (then**2).sum(0)
    with np.errstate(invalid="ignore", divide="ignore"):
        correlation = np.nan_to_num(dot / np.sqrt(power_a * power_s))
    weights = np.where(correlation.max(axis=0) >= MIN_CORRELATION, 1.0, 0.0)
    weights = weights if weights.any() else np.ones_like(weights)
    mean = correlation @ weights / weights.sum()
    best = int(np.argmax(mean))
    return Lag(int(shifts[best]), float(mean[best]))


def check_clock(recording: Recording) -> list[Finding]:
    """Time stamps against frame number / fps."""
    frame = np.arange(len(recording.episode)) - np.repeat(recording.starts, recording.lengths)
    drift = np.abs(recording.seconds - frame / recording.fps)
    wrong = np.flatnonzero(~(drift <= CLOCK_TOLERANCE_S + recording.clock_step_s))
    if len(wrong) == 0:
        return [Finding("time stamps", "ok", f"every frame stands on the {recording.fps:g} Hz grid")]
    row = int(wrong[0])
    episode = _episode_at(recording, row)
    inside = np.diff(recording.episode) == 0
    steps = np.diff(recording.seconds)[inside]
    rate = 1.0 / float(np.median(steps)) if len(steps) and np.median(steps) > 0 else float("nan")
    gaps, back = int((steps > 1.5 / recording.fps).sum()), int((steps <= 0).sum())
    return [
        Finding(
            "time stamps",
            "fail",
            f"{len(wrong)} frames are off the {recording.fps:g} Hz grid, the first in episode "
            f"{recording.episode[row]}, frame {row - recording.starts[episode]}; {gaps} gaps, {back} steps back; "
            f"the usual rate is {rate:.2f} Hz",
            "resample the episodes to a fixed rate, or correct fps in info.json; lerobot refuses such frames",
        )
    ]


def check_lengths(recording: Recording) -> list[Finding]:
    """Very short and very long episodes, and episodes recorded twice."""
    seconds = recording.lengths / recording.fps
    found = (
        f"{len(seconds)} episodes of {seconds.min():.1f} to {seconds.max():.1f} s, median {np.median(seconds):.1f} s"
    )
    findings = []
    single = recording.numbers[recording.lengths == 1]
    short = recording.numbers[(seconds < SHORT_S) & (recording.lengths > 1)]
    if len(single):
        findings.append(
            Finding("episode lengths", "warn", f"{len(single)} of one frame only ({_dims(single)})", "remove them")
        )
    if len(short):
        findings.append(
            Finding("episode lengths", "warn", f"{len(short)} under {SHORT_S:g} s ({_dims(short)})", "false starts?")
        )
    copies = _copies(recording)
    if copies:
        findings.append(
            Finding("episode lengths", "warn", f"episodes {copies[0]} and {copies[1]} are the same", "remove one")
        )
    if len(recording.lengths) < 3:
        todo = "record more: training, validation and test need an episode each"
        findings.append(Finding("episode lengths", "warn", found, todo))
    return findings or [Finding("episode lengths", "ok", found)]


def _copies(recording: Recording) -> tuple[int, int] | None:
    seen: dict[bytes, int] = {}
    for start, length, number in zip(recording.starts, recording.lengths, recording.numbers, strict=True):
        key = recording.action[start : start + length].tobytes()
        if length > 1 and key in seen:
            return seen[key], int(number)
        seen[key] = int(number)
    return None


def check_instructions(recording: Recording) -> list[Finding]:
    """What the policy is told."""
    texts = sorted(set(recording.instructions))
    empty = sum(not text.strip() for text in recording.instructions)
    if empty:
        found = f"{empty} episodes have no instruction"
        return [Finding("instructions", "fail", found, "give every episode a task; the policy is told what to do")]
    words = max(len(text.split()) for text in texts)
    found = f"{len(texts)}, the longest of {words} words"
    if words * TOKENS_PER_WORD > TOKENIZER_MAX_LENGTH:
        return [Finding("instructions", "warn", found, "raise policy.tokenizer_max_length, or it will be cut")]
    return [Finding("instructions", "ok", found)]


def _range(rows: NDArray[np.floating]) -> NDArray[np.float64]:
    clean = np.where(np.isfinite(rows), rows, np.nan).astype(np.float64)
    alive = np.isfinite(clean).any(axis=0)
    filled = np.where(alive, clean, 0.0)
    return np.asarray(np.nanmax(filled, axis=0) - np.nanmin(filled, axis=0))


def _episode_at(recording: Recording, row: int) -> int:
    return int(np.searchsorted(recording.starts, row, side="right") - 1)


def _percent(part: int, whole: int) -> str:
    share = 100 * part / whole
    return f"{share:.1f} %" if share >= 0.1 or part == 0 else f"{share:.2g} %"


def _dims(numbers: Sequence[int] | NDArray[np.int64]) -> str:
    """Numbers as ranges: '3, 7–9, 40 and 12 more'."""
    runs: list[list[int]] = []
    for number in (int(n) for n in numbers):
        if runs and number == runs[-1][1] + 1:
            runs[-1][1] = number
        else:
            runs.append([number, number])
    shown = [f"{a}" if a == b else f"{a}–{b}" for a, b in runs[:6]]
    rest = sum(b - a + 1 for a, b in runs[6:])
    return ", ".join(shown) + (f" and {rest} more" if rest else "")
