"""Pictures of the scripted garden, drawn as discs: what each of the robot's cameras sees.

The cameras look straight down: the head's covers the ground before the robot, a wrist's a small
square under the hand. Everything the motion depends on (basket, tree, eggs, hands) is visible.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from smolvla_core.data.behavior.layout import CAMERAS, MODALITIES
from smolvla_core.data.synthetic.motion import GRIPPER_OPEN_M, Motion
from smolvla_core.data.synthetic.scene import Scene, to_robot

Picture = NDArray[np.uint8]

HEAD_VIEW_M = 1.05
WRIST_VIEW_M = 0.45
CAMERA_HEIGHT_M = 1.5
_GRASS = np.array([96, 150, 72])
_EGGS = np.array([[236, 72, 92], [70, 120, 240], [245, 205, 60]])


@dataclass(frozen=True)
class Disc:
    """Something round on the ground or above it, in the robot's frame, metres."""

    x: float
    y: float
    radius: float
    height: float
    colour: tuple[int, int, int]
    instance: int


def picture_sizes(size: int) -> dict[str, int]:
    """Pixels to a side of each camera: the head's ``size``, the wrists' two thirds, all even."""
    head = size - size % 2
    wrist = round(size * 2 / 3 / 2) * 2
    return {camera: head if camera == "head" else wrist for camera in CAMERAS}


def film(scene: Scene, motion: Motion, camera: str, modality: str, size: int, seed: int) -> Iterator[Picture]:
    """Frames (size, size, 3) uint8 of one camera over an episode.

    Args:
        scene: where basket and tree stand.
        motion: what moves.
        camera: one of `CAMERAS`.
        modality: one of `MODALITIES`; depth and segmentation are drawn in grey levels.
        size: pixels to a side.
        seed: of the lawn's texture.
    """
    assert camera in CAMERAS
    assert modality in MODALITIES
    ground = _ground(modality, size, seed)
    view = HEAD_VIEW_M if camera == "head" else WRIST_VIEW_M
    for t in range(len(motion.base)):
        centre = np.array([0.62, 0.0]) if camera == "head" else motion.hands[t, CAMERAS.index(camera) - 1, :2]
        scroll = np.round((motion.base[t, :2] + centre) * size / view).astype(int)
        picture = np.roll(ground, (scroll[0], scroll[1]), axis=(0, 1))
        for disc in _visible(scene, motion, t):
            if camera != "head" and disc.instance >= 200:
                continue
            _paint(picture, disc, centre, view, modality)
        if camera != "head":
            _paint_fingers(picture, motion.openings[t, CAMERAS.index(camera) - 1], modality)
        yield picture.astype(np.uint8)


def _ground(modality: str, size: int, seed: int) -> NDArray[np.float32]:
    if modality == "depth":
        return np.full((size, size, 3), _depth_level(0.0), dtype=np.float32)
    if modality == "seg_instance_id":
        return np.full((size, size, 3), 10, dtype=np.float32)
    texture = np.random.default_rng(seed).integers(-10, 11, size=(size, size, 1))
    return np.asarray(_GRASS + texture, dtype=np.float32)


def _visible(scene: Scene, motion: Motion, t: int) -> list[Disc]:
    """Everything in the garden, in the order in which it is painted."""
    base = motion.base[t]
    basket, tree = to_robot(scene.basket, base), to_robot(scene.tree, base)
    discs = [
        Disc(basket[0], basket[1], 0.13, 0.10, (150, 105, 60), 40),
        Disc(basket[0], basket[1], 0.105, 0.02, (92, 62, 34), 40),
        Disc(tree[0], tree[1], 0.11, 0.60, (30, 84, 36), 60),
        Disc(tree[0], tree[1], 0.04, 0.90, (98, 66, 40), 60),
    ]
    for egg, (x, y, z) in enumerate(motion.eggs[t]):
        place = to_robot(np.array([x, y]), base)
        colour = tuple(int(c) for c in _EGGS[egg % len(_EGGS)])
        discs.append(Disc(place[0], place[1], 0.035 + 0.02 * z, z, (colour[0], colour[1], colour[2]), 90 + 20 * egg))
    for hand, (x, y, z) in enumerate(motion.hands[t]):
        spread = 0.02 + 0.8 * float(motion.openings[t, hand])
        level = int(150 + 100 * min(z, 1.0))
        for sign in (-1.0, 1.0):
            discs.append(Disc(x, y + sign * spread, 0.018 + 0.02 * z, z, (level, level, level), 200 + 20 * hand))
    return discs


def _paint(picture: NDArray[np.float32], disc: Disc, centre: NDArray[np.float64], view: float, modality: str) -> None:
    size = len(picture)
    scale = size / view
    row = size / 2 - (disc.x - centre[0]) * scale
    column = size / 2 - (disc.y - centre[1]) * scale
    radius = max(disc.radius * scale, 0.8)
    top, bottom = max(0, int(row - radius - 1)), min(size, int(row + radius + 2))
    left, right = max(0, int(column - radius - 1)), min(size, int(column + radius + 2))
    if top >= bottom or left >= right:
        return
    rows, columns = np.ogrid[top:bottom, left:right]
    distance = np.sqrt((rows + 0.5 - row) ** 2 + (columns + 0.5 - column) ** 2)
    cover = np.clip(radius - distance + 0.5, 0.0, 1.0).astype(np.float32)[..., None]
    patch = picture[top:bottom, left:right]
    patch += cover * (_level(disc, modality) - patch)


def _paint_fingers(picture: NDArray[np.float32], opening: float, modality: str) -> None:
    """The hand's own two fingers at the picture's edges, as far apart as the gripper is open."""
    if modality != "rgb":
        return
    size = len(picture)
    gap = int(size * (0.14 + 0.26 * opening / GRIPPER_OPEN_M))
    width, top = max(2, size // 10), int(size * 0.62)
    for left in (size // 2 - gap - width // 2, size // 2 + gap - width // 2):
        picture[top:, max(0, left) : left + width] = (70, 72, 80)


def _level(disc: Disc, modality: str) -> NDArray[np.float32]:
    if modality == "rgb":
        return np.array(disc.colour, dtype=np.float32)
    level = _depth_level(disc.height) if modality == "depth" else disc.instance
    return np.full(3, level, dtype=np.float32)


def _depth_level(height: float) -> float:
    return 255.0 * (CAMERA_HEIGHT_M - height) / 2.0
