"""Where joint positions put the hands: a chain of rotations, calibrated on a dataset's own recordings.

R1Pro's actions are joint positions, so that a prediction has no end effector to compare. Its state
holds both the joints and where each hand was; a rigid chain is calibrated on them, and what it is off
on frames it was not calibrated on is said with the objective.

Legend: N frames, J joints (4 of the trunk, then 7 of an arm).
"""

import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import least_squares

from smolvla_core.config import TrialConfig
from smolvla_core.data.dataset import Dataset
from smolvla_core.data.legacy import cache_home
from smolvla_core.r1pro import ACTION, ACTION_WIDTH, HANDS, RELEASES
from smolvla_core.state import key_dims, release_of

FRAMES = 250
"""Frames that a chain is calibrated on, and as many others that it is checked on."""

_RIDGE = 1e-4
_SWEEPS = 4
_REFINEMENTS = 40
_START = "yyyzyxzyzyx"
"""Axes that the search begins from: a trunk that bends and turns, an arm that bends, rolls and turns."""
_UNIT = np.eye(3)
_CANDIDATES = np.concatenate([_UNIT, -_UNIT])

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Chain:
    """A serial chain of revolute joints: ``x = l0 + R1 (l1 + R2 (l2 + ...))``, ``Rj`` about ``axes[j]``.

    At zero all frames are parallel (the product of exponentials of Brockett, 1984).
    """

    axes: Array
    """(J, 3), of any length."""
    links: Array
    """(J + 1, 3), metres."""
    off_m: float
    """Root mean square error on recorded frames that it was not calibrated on."""

    def __call__(self, joints: NDArray[np.floating]) -> Array:
        """The hand's position (..., 3) in metres, for joints (..., J) in radians."""
        flat = joints.reshape(-1, joints.shape[-1]).astype(np.float64)
        place = np.broadcast_to(self.links[-1], (len(flat), 3))
        for axis, link, angle in zip(self.axes[::-1], self.links[-2::-1], flat.T[::-1], strict=True):
            place = link + _turned(axis, angle, place)
        return place.reshape(*joints.shape[:-1], 3)


def calibrate(joints: Array, hand: Array) -> Chain:
    """The chain that explains recordings best.

    The links are a linear function of the positions once the axes are known, so only the axes are
    searched (variable projection, Golub and Pereyra 1973): first each among the six directions of
    the frame, since robots are built so, then freely.

    Args:
        joints: (N, J), radians.
        hand: (N, 3), metres.
    """
    checked, used = slice(1, None, 2), slice(0, None, 2)
    q, x = joints[used], hand[used]
    axes = np.stack([_UNIT["xyz".index(letter)] for letter in _START[: q.shape[1]]])
    best = _misfit(axes, q, x)
    for _ in range(_SWEEPS):
        before = best
        for joint in range(len(axes)):
            for candidate in _CANDIDATES:
                trial = axes.copy()
                trial[joint] = candidate
                misfit = _misfit(trial, q, x)
                if misfit < best:
                    best, axes = misfit, trial
        if best > 0.99 * before:
            break
    free = least_squares(lambda a: _solved(a.reshape(-1, 3), q, x)[1], axes.ravel(), max_nfev=_REFINEMENTS)
    axes = free.x.reshape(-1, 3)
    chain = Chain(axes, _solved(axes, q, x)[0].reshape(-1, 3), 0.0)
    wrong = chain(joints[checked]) - hand[checked]
    return Chain(axes, chain.links, float(np.sqrt(np.square(wrong).sum(axis=1).mean())))


@dataclass(frozen=True)
class HandChain:
    """A hand's chain, and which action dims move it."""

    action_dims: tuple[int, ...]
    chain: Chain

    def __call__(self, actions: NDArray[np.floating]) -> Array:
        """Where actions (..., A) send the hand, (..., 3) in the robot's frame."""
        return self.chain(actions[..., list(self.action_dims)])


def hand_chains(config: TrialConfig, dataset: Dataset, episodes: Sequence[int]) -> tuple[HandChain, ...]:
    """Both hands' chains, calibrated on some episodes once and kept in the cache; none for another robot.

    Args:
        config: says where the cache is.
        dataset: with R1Pro's state and action.
        episodes: to calibrate on: the training ones.
    """
    release = release_of(dataset.state.shape[1], dataset.robot_type)
    if release is None or dataset.action.shape[1] != ACTION_WIDTH:
        return ()
    rows = dataset.rows_of(tuple(episodes))
    rows = rows[np.unique(np.linspace(0, len(rows) - 1, 2 * FRAMES).astype(int))]
    chains = []
    for side in HANDS:
        joints = dataset.state[np.ix_(rows, key_dims(("trunk_qpos", f"arm_{side}_qpos"), release))]
        hand = dataset.state[np.ix_(rows, list(RELEASES[release][f"eef_{side}_pos"]))]
        chain = _cached(config, joints.astype(np.float64), hand.astype(np.float64))
        chains.append(HandChain((*ACTION["trunk"], *ACTION[f"arm_{side}"]), chain))
    return tuple(chains)


def _cached(config: TrialConfig, joints: Array, hand: Array) -> Chain:
    digest = hashlib.sha256(joints.tobytes() + hand.tobytes()).hexdigest()[:16]
    file = cache_home(config.data.cache_dir) / "kinematics" / f"{digest}.npz"
    if file.is_file():
        with np.load(file, allow_pickle=False) as stored:
            return Chain(stored["axes"], stored["links"], float(stored["off_m"]))
    chain = calibrate(joints, hand)
    file.parent.mkdir(parents=True, exist_ok=True)
    staging = file.with_name(f".{os.getpid()}-{file.name}")
    np.savez(staging, axes=chain.axes, links=chain.links, off_m=chain.off_m)
    os.replace(staging, file)
    return chain


def _misfit(axes: Array, joints: Array, hand: Array) -> float:
    return float(np.square(_solved(axes, joints, hand)[1]).sum())


def _solved(axes: Array, joints: Array, hand: Array) -> tuple[Array, Array]:
    """The links that fit best, (3 (J + 1),), and the residuals (3 N,)."""
    rotation = np.broadcast_to(_UNIT, (len(joints), 3, 3))
    parts = [rotation]
    for axis, angle in zip(axes, joints.T, strict=True):
        rotation = rotation @ _rotations(axis, angle)
        parts.append(rotation)
    design = np.concatenate(parts, axis=2).reshape(3 * len(joints), -1)
    normal = design.T @ design
    normal[np.diag_indices_from(normal)] += _RIDGE * len(joints)  # parallel axes leave a direction open
    target = hand.reshape(-1)
    links = np.linalg.solve(normal, design.T @ target).astype(np.float64)
    return links, design @ links - target


def _rotations(axis: Array, angle: Array) -> Array:
    """Rotations (N, 3, 3) about an axis, by Rodrigues' formula."""
    x, y, z = axis / np.linalg.norm(axis)
    skew = np.array([[0.0, -z, y], [z, 0.0, -x], [-y, x, 0.0]])
    sine, cosine = np.sin(angle)[:, None, None], np.cos(angle)[:, None, None]
    rotation: Array = _UNIT + sine * skew + (1 - cosine) * (skew @ skew)
    return rotation


def _turned(axis: Array, angle: Array, vector: Array) -> Array:
    """Vectors (N, 3) turned about an axis."""
    unit = axis / np.linalg.norm(axis)
    along = (vector @ unit)[:, None] * unit
    sine, cosine = np.sin(angle)[:, None], np.cos(angle)[:, None]
    turned: Array = cosine * vector + sine * np.cross(unit, vector) + (1 - cosine) * along
    return turned
