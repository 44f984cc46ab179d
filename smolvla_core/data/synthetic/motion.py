"""Scripted Easter-egg hiding: how an R1Pro-shaped robot moves in a scene.

No physics: each joint is a smooth function of where the hand should be, so that the state is
consistent with itself, depends on the scene, and follows the action a few frames later.
Metres, radians. T frames, E eggs.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from smolvla_core.data.behavior.layout import ACTION_WIDTH, FPS
from smolvla_core.data.behavior.release import Recording, Skill
from smolvla_core.data.synthetic.scene import EGG_HEIGHT_M, Scene, to_robot, to_world
from smolvla_core.data.synthetic.state import Body, proprioception

Array = NDArray[np.float64]

LEAD = 3
"""Frames by which an action leads the state that it causes."""
GRIPPER_OPEN_M = 0.05
GRIPPER_ON_EGG_M = 0.018
GRIPPER_SPEED_M = 0.008
"""Most that a finger travels in a frame."""

_HOME = np.array([[0.35, 0.30, 0.45], [0.35, -0.30, 0.45]])
_HOVER_M, _GRASP_M = 0.38, 0.05
_HAND_ABOVE_EGG_M = _GRASP_M - EGG_HEIGHT_M
_JOINTS_HOME = np.array([[-0.6, 1.2, 0.0, -0.9, 0.0, 0.0, 0.0], [-0.6, -1.2, 0.0, -0.9, 0.0, 0.0, 0.0]])
_JOINTS_PER_M = np.array(
    [
        [1.3, 0.1, -0.5],
        [0.2, 1.1, -0.4],
        [-0.4, 1.2, 0.3],
        [0.9, -0.3, 1.0],
        [0.5, 0.8, -0.9],
        [-0.6, 0.2, 0.8],
        [0.3, -0.9, 0.5],
    ]
)
_BASE_SHARE, _BASE_SHARE_PER_S = 0.25, 0.45
"""How much of the way the base goes itself, and the most a second, so that it keeps R1Pro's limits."""
_TRUNK_STAND = np.array([0.2, -0.5, -0.3, 0.0])
_TRUNK_LEAN = np.array([0.5, -1.0, -0.6, 0.0])


@dataclass(frozen=True)
class Motion:
    """An episode's numbers."""

    state: NDArray[np.float32]
    """(T, 256), the 2025 release's layout."""
    action: NDArray[np.float32]
    """(T, 23)."""
    base: Array
    """(T, 3) x, y, yaw in the world."""
    hands: Array
    """(T, 2, 3) left and right, in the robot's frame."""
    openings: Array
    """(T, 2) of the grippers, metres."""
    eggs: Array
    """(T, E, 3) in the world."""
    skills: tuple[Skill, ...]


def perform(scene: Scene, frames: int, rng: np.random.Generator) -> Motion:
    """Take every egg out of the basket and lay it next to the tree, in ``frames`` frames."""
    times = _timeline(frames, len(scene.eggs), rng)
    total = frames + LEAD
    base = _base_path(scene, times, total)
    hand = _hand_path(scene, times, base, total)
    hands = np.repeat(_HOME[None], total, axis=0)
    hands[:, scene.side] = hand
    hands[:, 1 - scene.side, 2] += 0.01 * np.sin(np.arange(total) / FPS * 2.0)
    commands = np.ones((total, 2))
    commands[:, scene.side] = _gripper_command(times, total)
    trunk = _trunk_path(scene, times, total)

    done, ahead = slice(0, frames), slice(LEAD, LEAD + frames)
    joints = _joints(hands)
    action = np.zeros((frames, ACTION_WIDTH))
    velocity = _base_velocity(base)
    action[:, 0:3] = velocity[ahead]
    action[:, 3:7] = trunk[ahead]
    action[:, 7:14], action[:, 14] = joints[ahead, 0], commands[ahead, 0]
    action[:, 15:22], action[:, 22] = joints[ahead, 1], commands[ahead, 1]

    openings, holding = _openings(commands[done], scene.side)
    body = Body(base[done], velocity[done], trunk[done], joints[done], hands[done], openings, holding)
    return Motion(
        state=proprioception(body, rng).astype(np.float32),
        action=action.astype(np.float32),
        base=base[done],
        hands=hands[done],
        openings=openings,
        eggs=_egg_path(scene, times, base[done], hands[done], frames),
        skills=_skills(times, frames),
    )


def recording(scene: Scene, motion: Motion) -> Recording:
    """An episode as it is written."""
    frames = len(motion.state)
    eggs = motion.eggs.reshape(frames, -1)
    still = np.tile(np.concatenate([scene.basket, scene.tree]), (frames, 1))
    hands = np.concatenate([motion.hands, np.tile([0.0, 0.0, 0.0, 1.0], (frames, 2, 1))], axis=2)
    head = np.tile([0.1, 0.0, 1.5, 0.0, 0.0, 0.0, 1.0], (frames, 1))
    return Recording(
        state=motion.state,
        action=motion.action,
        cam_rel_poses=np.concatenate([hands.reshape(frames, -1), head], axis=1).astype(np.float32),
        task_info=np.concatenate([eggs, still], axis=1).astype(np.float32),
        base=motion.base,
        hands=motion.hands,
        skills=motion.skills,
        scene="scripted_garden",
        objects={
            "wicker_basket_88": scene.basket.tolist(),
            "tree_92": scene.tree.tolist(),
            **{f"easter_egg_{89 + i}": place.tolist() for i, place in enumerate(scene.eggs)},
        },
    )


def _timeline(frames: int, eggs: int, rng: np.random.Generator) -> Array:
    """Frame at which each phase ends, (E, 5): start, at basket, picked, at tree, placed."""
    shares = np.array([0.25, 0.25, 0.27, 0.23]) * rng.uniform(0.85, 1.15, size=(eggs, 4))
    ends = np.concatenate([[0.0], np.cumsum(shares.ravel())])
    rest = 2 + LEAD
    ends = rest + ends / ends[-1] * (frames - 2 * rest)
    return np.stack([ends[4 * e : 4 * e + 5] for e in range(eggs)])


def _minimum_jerk(times: Sequence[float], values: Sequence[Array], total: int) -> Array:
    """Values (total, D) that pass through keyframes, at rest in each."""
    keys = np.asarray(times)
    table = np.stack([np.atleast_1d(value) for value in values]).astype(float)
    now = np.clip(np.arange(total), keys[0], keys[-1])
    left = np.clip(np.searchsorted(keys, now, side="right") - 1, 0, len(keys) - 2)
    u = ((now - keys[left]) / (keys[left + 1] - keys[left]))[:, None]
    ease = u**3 * (10 - 15 * u + 6 * u**2)
    return np.asarray(table[left] + ease * (table[left + 1] - table[left]))


def _standpoint(target: Array, share: float) -> Array:
    return share * np.array([*(target - [0.6, 0.0]), np.arctan2(target[1], target[0])])


def _base_path(scene: Scene, times: Array, total: int) -> Array:
    keys: list[float] = [0.0]
    poses: list[Array] = [np.zeros(3)]
    shortest_s = np.min(np.diff(times, axis=1)) / FPS
    share = min(_BASE_SHARE, _BASE_SHARE_PER_S * shortest_s)
    basket, tree = _standpoint(scene.basket, share), _standpoint(scene.tree, share)
    for start, at_basket, picked, at_tree, placed in times:
        keys += [start, at_basket, picked, at_tree, placed]
        before = poses[-1]
        poses += [before, basket, basket, tree, tree]
    return _minimum_jerk(*_without_repeats(keys, poses), total)


def _without_repeats(keys: Sequence[float], values: Sequence[Array]) -> tuple[list[float], list[Array]]:
    kept = [i for i in range(len(keys)) if i == 0 or keys[i] > keys[i - 1]]
    return [keys[i] for i in kept], [values[i] for i in kept]


def _hand_path(scene: Scene, times: Array, base: Array, total: int) -> Array:
    """Working hand in the robot's frame, (total, 3)."""
    keys, points = [0.0], [_HOME[scene.side]]

    def seen(target: Array, frame: float, height: float) -> Array:
        return np.array([*to_robot(target, base[round(frame)]), height])

    for egg, (start, at_basket, picked, at_tree, placed) in enumerate(times):
        source, drop = scene.eggs[egg], scene.drops[egg]
        keys += [start, at_basket, _within(at_basket, picked, 0.45), _within(at_basket, picked, 0.7), picked]
        points += [points[-1], seen(source, at_basket, _HOVER_M)]
        points += [seen(source, picked, _GRASP_M)] * 2 + [seen(source, picked, _HOVER_M)]
        keys += [at_tree, _within(at_tree, placed, 0.45), _within(at_tree, placed, 0.7), placed]
        points += [seen(drop, at_tree, _HOVER_M)]
        points += [seen(drop, placed, _GRASP_M)] * 2 + [seen(drop, placed, _HOVER_M)]
    return _minimum_jerk(*_without_repeats(keys, points), total)


def _within(start: float, stop: float, share: float) -> float:
    return start + share * (stop - start)


def _gripper_command(times: Array, total: int) -> Array:
    """Command in [-1, 1], +1 open: closed from the middle of each pick to the middle of its place."""
    keys, values = [0.0], [np.array([1.0])]
    for _, at_basket, picked, at_tree, placed in times:
        close, open_ = _within(at_basket, picked, 0.45), _within(at_tree, placed, 0.5)
        keys += [close, close + 3, open_, open_ + 3]
        values += [np.array([1.0]), np.array([-1.0]), np.array([-1.0]), np.array([1.0])]
    return _minimum_jerk(keys, values, total)[:, 0]


def _trunk_path(scene: Scene, times: Array, total: int) -> Array:
    """Lean forward at basket and tree, and turn the shoulders towards each, (total, 4)."""
    keys, poses = [0.0], [_TRUNK_STAND]
    lean = _TRUNK_LEAN + [0.0, 0.0, 0.0, 0.3 * float(scene.basket[1])]
    for start, at_basket, picked, at_tree, placed in times:
        keys += [start, at_basket, picked, at_tree, placed]
        poses += [poses[-1], lean, 0.5 * (_TRUNK_STAND + lean), lean * [1, 1, 1, -1], _TRUNK_STAND]
    return _minimum_jerk(*_without_repeats(keys, poses), total)


def _joints(hands: Array) -> Array:
    """Arm joints (T, 2, 7) that put the hands at (T, 2, 3): a fixed invertible map, not R1Pro's own."""
    offset = hands - _HOME
    mirrored = offset * np.array([[1.0, 1.0, 1.0], [1.0, -1.0, 1.0]])
    joints = 0.6 * np.tanh(mirrored @ _JOINTS_PER_M.T)
    joints[:, 1, 1] *= -1.0
    return np.asarray(_JOINTS_HOME + joints)


def _base_velocity(base: Array) -> Array:
    """Velocity (T, 3) in the robot's frame, m/s and rad/s, over each frame's step."""
    world = np.diff(base, axis=0, append=base[-1:]) * FPS
    cos, sin = np.cos(base[:, 2]), np.sin(base[:, 2])
    forward = cos * world[:, 0] + sin * world[:, 1]
    left = -sin * world[:, 0] + cos * world[:, 1]
    return np.stack([forward, left, world[:, 2]], axis=1)


def _openings(commands: Array, side: int) -> tuple[Array, NDArray[np.bool_]]:
    """Finger positions (T, 2) in metres at a limited speed, and whether an egg stops them."""
    targets = (commands + 1.0) / 2.0 * GRIPPER_OPEN_M
    targets[:, side] = np.maximum(targets[:, side], GRIPPER_ON_EGG_M)
    openings = np.empty_like(targets)
    now = targets[0]
    for t, target in enumerate(targets):
        now = now + np.clip(target - now, -GRIPPER_SPEED_M, GRIPPER_SPEED_M)
        openings[t] = now
    holding = (openings <= GRIPPER_ON_EGG_M + 1e-6) & (commands < 0)
    return openings, holding


def _egg_path(scene: Scene, times: Array, base: Array, hands: Array, frames: int) -> Array:
    path = np.empty((frames, len(scene.eggs), 3))
    for egg, (_, at_basket, picked, at_tree, placed) in enumerate(times):
        grasp, release = _within(at_basket, picked, 0.6), _within(at_tree, placed, 0.6)
        for t in range(frames):
            if t < grasp:
                path[t, egg] = [*scene.eggs[egg], EGG_HEIGHT_M]
            elif t < release:
                hand = hands[t, scene.side]
                path[t, egg] = [*to_world(hand[:2], base[t]), max(hand[2] - _HAND_ABOVE_EGG_M, EGG_HEIGHT_M)]
            else:
                path[t, egg] = [*scene.drops[egg], EGG_HEIGHT_M]
    return path


def _skills(times: Array, frames: int) -> tuple[Skill, ...]:
    skills: list[Skill] = []
    for egg, row in enumerate(times):
        name = f"easter_egg_{89 + egg}"
        start, at_basket, picked, at_tree, placed = (min(frames, round(t)) for t in row)
        skills += [
            Skill("move to", ("wicker_basket_88",), "", start, at_basket),
            Skill("pick up from", (name, "wicker_basket_88"), name, at_basket, picked),
            Skill("move to", ("tree_92",), name, picked, at_tree),
            Skill("place on next to", (name, "lawn_93", "tree_92"), name, at_tree, placed),
        ]
    return tuple(skills)
