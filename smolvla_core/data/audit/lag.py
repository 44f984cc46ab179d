"""Check of the lag between action and state: by how many frames the robot follows. P pairs of dims, E episodes."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from smolvla_core.data.audit.finding import Finding, dims, span
from smolvla_core.data.audit.numbers import CONSTANT_RANGE, filled
from smolvla_core.data.audit.read import Recording
from smolvla_core.r1pro import ACTION_WIDTH, RELEASES
from smolvla_core.state import release_of

MAX_LAG_S = 0.5
LATE_S = 0.4
CHANGE_WINDOW_S = 0.1
"""Changes over this time are compared, so that a sensor's noise weighs little."""
MIN_CORRELATION = 0.3
SURE_CORRELATION = 0.5
"""Below this, actions after their effect may be chance."""
LEAST_FRAMES = 10
"""Fewer frames in common correlate by chance."""
SAME_LAG_S = 0.07
"""Dims whose lags differ by no more are spoken of together."""
MOVES_SHARE = 0.3
"""An episode in which a dim moves less than this share of its liveliest episode tells little of its lag."""
ODD_EPISODE_S = 0.1
ODD_GAIN = 0.15
COPY_CORRELATION = 0.9999
CHECK = "action/state lag"

R1PRO_PAIRS = (
    ("base velocity", range(0, 3), "base_qvel"),
    ("trunk", range(3, 7), "trunk_qpos"),
    ("left arm", range(7, 14), "arm_left_qpos"),
    ("right arm", range(15, 22), "arm_right_qpos"),
)


@dataclass(frozen=True)
class Pair:
    """An action dim and the state dim that means the same quantity."""

    action: int
    state: int
    part: str = ""
    """Of the robot, where it is known."""


@dataclass(frozen=True)
class Lags:
    """Lags of the pairs that follow at all."""

    pairs: tuple[Pair, ...]
    frames: NDArray[np.int64]
    """(P,) by how many the state follows the action."""
    correlation: NDArray[np.float64]
    """(P,) of their changes at that shift."""
    odd: tuple[tuple[int, int], ...]
    """Episodes that are shifted against the others: number, and by how many frames."""


def check_lag(recording: Recording) -> list[Finding]:
    """By how many frames the state follows the action, where their dims mean the same."""
    pairs = comparable_dims(recording)
    if not pairs:
        return [Finding(CHECK, "ok", "not measured: it is not known which dims of state and action belong together")]
    lags = measure_lags(recording, pairs)
    if not lags.pairs:
        found = f"the state follows the action at no shift within {MAX_LAG_S:g} s"
        return [Finding(CHECK, "warn", found, "check that action and state are of the same robot, order and unit")]
    findings = []
    groups = _groups(lags, recording.fps)
    for members in groups:
        late = float(np.median(lags.frames[members]))
        found = f"the state follows the action by {_spoken(lags, members, recording.fps)}"
        if late < 0:
            found = f"the action comes after its effect: {_spoken(lags, members, recording.fps)}"
            sure = float(np.median(lags.correlation[members])) >= SURE_CORRELATION
            findings.append(Finding(CHECK, "fail" if sure else "warn", found, "shift the actions before training"))
        elif late / recording.fps > LATE_S:
            todo = "a late robot, or misaligned recordings? chunks must be longer than the lag"
            findings.append(Finding(CHECK, "warn", found, todo))
        elif late == 0 and lags.correlation[members].min() > COPY_CORRELATION:
            todo = "actions repeat the measured state; shift them by a frame, or the policy learns to stand still"
            findings.append(Finding(CHECK, "warn", f"none in {_who(lags, members)}", todo))
    for number, frames in lags.odd[:3]:
        way = "later" if frames > 0 else "earlier"
        found = (
            f"episode {number}: the state follows {abs(frames)} frames ({abs(frames) / recording.fps:.2f} s) {way} "
            "than in the others"
        )
        findings.append(Finding(CHECK, "warn", found, "one of its streams is shifted; realign it or leave it out"))
    if findings:
        return findings
    spoken = "; ".join(_spoken(lags, members, recording.fps) for members in groups)
    return [Finding(CHECK, "ok", f"the state follows the action by {spoken}")]


def comparable_dims(recording: Recording) -> list[Pair]:
    """Pairs that mean the same: R1Pro's by name, else equal names, else equal numbers if as many."""
    width, raw = recording.action.shape[1], recording.state.shape[1]
    release = release_of(raw, recording.robot_type)
    if release is not None and width == ACTION_WIDTH:
        return [
            Pair(action, state, part)
            for part, actions, key in R1PRO_PAIRS
            for action, state in zip(actions, RELEASES[release][key], strict=True)
        ]
    if recording.action_names and recording.state_names:
        where = {name: dim for dim, name in enumerate(recording.state_names)}
        pairs = [Pair(dim, where[name]) for dim, name in enumerate(recording.action_names) if name in where]
        if pairs:
            return pairs
    return [Pair(dim, dim) for dim in range(width)] if width == raw else []


def measure_lags(recording: Recording, pairs: Sequence[Pair]) -> Lags:
    """The shift at which the changes of state and action correlate best: of each pair, the middle episode's.

    The middle one, since pooled episodes of which one is shifted correlate best at neither lag; and
    of the episodes in which the pair moves, not rests.
    """
    action = filled(recording.action[:, [pair.action for pair in pairs]].astype(np.float64))
    state = filled(recording.state[:, [pair.state for pair in pairs]].astype(np.float64))
    shifts = np.arange(-round(MAX_LAG_S * recording.fps), round(MAX_LAG_S * recording.fps) + 1)
    own = np.stack([_correlation(action[p], state[p], shifts, recording.fps) for p in recording.parts()])
    strength = np.stack([_changes(action[p], recording.fps).std(axis=0) for p in recording.parts()])
    tells = (own.max(axis=1) >= MIN_CORRELATION) & (strength >= MOVES_SHARE * strength.max(axis=0))
    known = np.flatnonzero(tells.any(axis=0))
    own, tells = own[..., known], tells[:, known]
    best = np.array([_middle(own[tells[:, p], :, p].argmax(axis=1)) for p in range(len(known))], dtype=np.int64)
    return Lags(
        pairs=tuple(pairs[i] for i in known),
        frames=shifts[best],
        correlation=np.array([np.median(own[tells[:, p], best[p], p]) for p in range(len(known))]),
        odd=_odd_episodes(recording, own, tells, best) if len(known) else (),
    )


def _changes(values: NDArray[np.float64], fps: float) -> NDArray[np.float64]:
    """Changes over `CHANGE_WINDOW_S`; a single 0 where the episode is shorter."""
    window = max(1, round(CHANGE_WINDOW_S * fps))
    return values[window:] - values[:-window] if len(values) > window else np.zeros((1, values.shape[1]))


def _middle(numbers: NDArray[np.int64]) -> int:
    return int(np.sort(numbers)[len(numbers) // 2])


def _correlation(
    action: NDArray[np.float64], state: NDArray[np.float64], shifts: NDArray[np.int64], fps: float
) -> NDArray[np.float64]:
    """(shifts, P) correlation of the changes of action and state over an episode; 0 where either rests."""
    a, s = _changes(action, fps), _changes(state, fps)
    correlation = np.zeros((len(shifts), action.shape[1]))
    for i, shift in enumerate(shifts.tolist()):
        n = len(a) - abs(shift)
        if n >= LEAST_FRAMES:
            first, then = (a[:n], s[shift:]) if shift >= 0 else (a[-shift:], s[:n])
            power = np.sqrt((first**2).sum(0) * (then**2).sum(0))
            moves = power > CONSTANT_RANGE**2
            np.divide((first * then).sum(0), power, out=correlation[i], where=moves)
    return correlation


def _odd_episodes(
    recording: Recording, own: NDArray[np.float64], tells: NDArray[np.bool_], best: NDArray[np.int64]
) -> tuple[tuple[int, int], ...]:
    """Episodes whose moving pairs correlate much better at another common shift than the dataset's."""
    if len(own) < 3:
        return ()
    reach = min(int(best.min()), own.shape[1] - 1 - int(best.max()))
    extra = np.arange(-reach, reach + 1)
    pairs = np.arange(own.shape[2])
    votes = np.maximum(tells.sum(axis=1), 1)
    score = np.stack([(own[:, best + x, pairs] * tells).sum(axis=1) / votes for x in extra], axis=1)
    found = []
    for number, row in zip(recording.numbers.tolist(), score, strict=True):
        there = int(row.argmax())
        far = abs(extra[there]) > ODD_EPISODE_S * recording.fps
        if far and row[there] - row[reach] > ODD_GAIN and row[there] >= MIN_CORRELATION:
            found.append((int(number), int(extra[there])))
    return tuple(found)


def _groups(lags: Lags, fps: float) -> list[list[int]]:
    """Pairs with about the same lag, together."""
    groups: list[list[int]] = []
    near = max(1, round(SAME_LAG_S * fps))
    for i in np.argsort(lags.frames, kind="stable").tolist():
        if groups and lags.frames[i] - lags.frames[groups[-1][-1]] <= near:
            groups[-1].append(i)
        else:
            groups.append([i])
    return groups


def _spoken(lags: Lags, members: list[int], fps: float) -> str:
    frames = lags.frames[members]
    seconds = span(frames.min() / fps, frames.max() / fps, ".2f")
    correlation = float(np.median(lags.correlation[members]))
    return f"{span(frames.min(), frames.max(), 'd')} frames ({seconds} s, r {correlation:.2f}) in {_who(lags, members)}"


def _who(lags: Lags, members: list[int]) -> str:
    pairs = [lags.pairs[i] for i in sorted(members)]
    if all(pair.part for pair in pairs):
        return ", ".join(dict.fromkeys(pair.part for pair in pairs))
    if len(pairs) == len(lags.pairs):
        return "every dim that moves"
    return dims(sorted(pair.action for pair in pairs))
