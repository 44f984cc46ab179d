"""An auxiliary loss: what the VLM is told of a picture must say where the task's objects are in it.

Imitation alone teaches a small tower slowly to find an egg: few frames depend on it. Demonstrations from a
simulator know where everything is (``observation.task_info``, ``observation.cam_rel_poses``), so a small
network, which is dropped when training ends, reads heat maps of each kind of object off the image tokens,
and its loss is added to the flow-matching loss. The policy is told nothing, here or where it acts, so that
what the challenge's standard track allows as input stays as it is.

Legend: N frames of a dataset, B of a batch, C cameras, O objects, K kinds of them, n image tokens to a
side of a picture, c cells to a side of a token, W the VLM's width.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation
from torch import Tensor, nn

from smolvla_core.config import DatasetSource, TrialConfig
from smolvla_core.data.dataset import Dataset
from smolvla_core.data.keys import CAM_REL_POSES, TASK_INFO
from smolvla_core.errors import ConfigError
from smolvla_core.interface import Interface
from smolvla_core.r1pro import CAMERA_PIXELS, CAMERA_POSES, FOCAL_PX, RELEASES, ROBOT_POSE_KEYS
from smolvla_core.state import key_dims

Rows = NDArray[np.float32]

CELLS = 8
"""Cells to a side of what a token covers, c: of 4 pixels where a picture of 96 has 3 tokens to a side."""
SPREAD = 0.8
"""Standard deviation of an object's mark on the heat map, in cells."""
RARE = 20.0
"""A cell in the middle of a mark counts so much more than an empty one."""
_SELDOM = -4.0
"""Logit that the network begins with: little is anywhere."""
_NEAREST_M = 0.02


@dataclass(frozen=True)
class Places:
    """Where objects are in the pictures of a dataset's frames."""

    uv: Tensor
    """(N, C, O, 2) float32: from the left and from the top, as shares of the picture's width; NaN behind the camera."""
    kinds: tuple[int, ...]
    """(O,) the kind of each object, 0 to K - 1."""


class Locator(nn.Module):
    """Reads heat maps off image tokens; it serves training alone.

    Args:
        width: the VLM's, W.
        kinds: kinds of objects, K.
    """

    def __init__(self, width: int, kinds: int):
        super().__init__()
        self.kinds = kinds
        last = nn.Linear(2 * width, CELLS * CELLS * kinds)
        nn.init.constant_(last.bias, _SELDOM)
        self.layers = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, 2 * width), nn.GELU(), last)

    def losses(self, tokens: Sequence[Tensor], places: Tensor, kinds: Sequence[int]) -> Tensor:
        """Losses (B,) of C pictures' tokens (B, n * n, W), for places (B, C, O, 2) of objects of some kinds (O,).

        The binary cross-entropy of every cell of the heat maps, weighted by 1 + ``RARE`` times its mark.
        """
        logits = self.layers(torch.stack(list(tokens), dim=1)).float()
        target = heat_maps(places, kinds, self.kinds, round(logits.shape[2] ** 0.5))
        errors = F.binary_cross_entropy_with_logits(logits, target, reduction="none")
        return (errors * (1 + RARE * target)).mean(dim=(1, 2, 3))


def heat_maps(places: Tensor, kinds: Sequence[int], count: int, tokens: int) -> Tensor:
    """Heat maps (B, C, n * n, c * c * K) in [0, 1], as the tokens lie: rows of tokens, of each the rows of its cells.

    Args:
        places: (B, C, O, 2).
        kinds: of the objects, (O,).
        count: K.
        tokens: to a side of a picture, n.
    """
    cells = tokens * CELLS
    middles = (torch.arange(cells, dtype=torch.float32, device=places.device) + 0.5) / cells
    away = (middles - places[..., None]) * cells / SPREAD  # (B, C, O, 2, cells)
    across, down = torch.nan_to_num(torch.exp(-0.5 * away.square())).unbind(dim=3)
    marks = down[..., :, None] * across[..., None, :]
    maps = [marks[:, :, [i for i, of in enumerate(kinds) if of == kind]].amax(dim=2) for kind in range(count)]
    squares = torch.stack(maps, dim=-1).unflatten(3, (tokens, CELLS)).unflatten(2, (tokens, CELLS))
    return squares.transpose(3, 4).flatten(4, 6).flatten(2, 3)


def kinds_of(config: TrialConfig) -> tuple[str, ...]:
    """The kinds of objects that a trial's policy is to locate: those of its main dataset; none where it is off."""
    where = config.data.train[0].task_info
    return tuple(where.objects) if config.auxiliary.localization and where is not None else ()


def resolve_places(config: TrialConfig, dataset: Dataset, interface: Interface, number: int = 0) -> Places | None:
    """Where objects are in a dataset's pictures; None where nothing is to be located in it.

    Args:
        config: the trial.
        dataset: one of its datasets.
        interface: of that dataset.
        number: of the dataset in ``data.train``.

    Raises:
        ConfigError: the dataset does not have what this is computed from.
    """
    source = config.data.train[number]
    if not config.auxiliary.localization or source.task_info is None or not source.task_info.objects:
        return None
    names = kinds_of(config)
    unknown = [name for name in source.task_info.objects if name not in names]
    if unknown:
        raise ConfigError(
            f"data.train.{number}.task_info.objects: the main dataset has no '{unknown[0]}'; it has {', '.join(names)}"
        )
    firsts = [(names.index(name), first) for name, several in source.task_info.objects.items() for first in several]
    objects = _in_the_robots_frame(dataset, interface, source, [first for _, first in firsts])
    cameras, focal = _cameras(dataset, interface)
    pictured = _project(objects, cameras, focal)
    return Places(torch.from_numpy(pictured), tuple(kind for kind, _ in firsts))


def _in_the_robots_frame(dataset: Dataset, interface: Interface, source: DatasetSource, firsts: Sequence[int]) -> Rows:
    """Positions (N, O, 3)."""
    poses, where = dataset.task_info, source.task_info
    assert poses is not None
    assert where is not None
    if max(firsts) + 3 > poses.shape[1]:
        raise ConfigError(
            f"data.train: task_info.objects names dims {max(firsts)} to {max(firsts) + 2}, the dataset's {TASK_INFO} "
            f"has {poses.shape[1]}; give the first of each object's 3 within it"
        )
    objects = np.stack([poses[:, first : first + 3] for first in firsts], axis=1)
    if where.frame == "robot":
        return objects
    release = interface.selection.release
    if release is None or any(key not in RELEASES[release] for key in ROBOT_POSE_KEYS):
        raise ConfigError(
            "auxiliary.localization: where the robot stands is in the state of BEHAVIOR's 2025 release alone; set it "
            "to 0, or task_info.frame to robot if the dataset's poses are relative to the robot"
        )
    position, cos, sin = (dataset.state[:, list(key_dims((key,), release))] for key in ROBOT_POSE_KEYS)
    turned = Rotation.from_euler("xyz", np.arctan2(sin, cos)).as_matrix()
    return np.asarray((objects - position[:, None]) @ turned, dtype=np.float32)


def _cameras(dataset: Dataset, interface: Interface) -> tuple[Rows, list[float]]:
    """Poses (N, C, 7) in the robot's frame, and focal lengths as shares of the picture's width."""
    poses = dataset.camera_poses
    assert poses is not None
    if poses.shape[1] != 7 * len(CAMERA_POSES):
        raise ConfigError(
            f"auxiliary.localization: {dataset.root} has {poses.shape[1]} dims of {CAM_REL_POSES}, where R1Pro's "
            f"cameras have {7 * len(CAMERA_POSES)}; set it to 0"
        )
    names = [view.dataset_key.rpartition(".")[2] for view in interface.cameras]
    for name, view in zip(names, interface.cameras, strict=True):
        if name not in CAMERA_POSES:
            raise ConfigError(
                f"auxiliary.localization: nothing is known of the camera '{view.dataset_key}'; only R1Pro's are, "
                f"{', '.join(CAMERA_POSES)}; set it to 0"
            )
        if view.height != view.width:
            raise ConfigError(
                f"auxiliary.localization: the pictures of '{view.dataset_key}' are {view.width} x {view.height}; "
                "R1Pro's are square; set it to 0"
            )
    places = [CAMERA_POSES.index(name) for name in names]
    return poses.reshape(len(poses), -1, 7)[:, places], [FOCAL_PX[name] / CAMERA_PIXELS[name] for name in names]


def _project(objects: Rows, cameras: Rows, focal: Sequence[float]) -> Rows:
    """Places (N, C, O, 2) of objects (N, O, 3) seen by pinholes with poses (N, C, 7) that look along -z, up along y."""
    pictured = np.empty((len(objects), len(focal), objects.shape[1], 2), dtype=np.float32)
    for camera, share in enumerate(focal):
        turned = Rotation.from_quat(cameras[:, camera, 3:]).as_matrix()
        seen = (objects - cameras[:, camera, None, :3]) @ turned
        depth = np.where(-seen[..., 2] > _NEAREST_M, -seen[..., 2], np.nan)
        pictured[:, camera] = 0.5 + share * np.stack([seen[..., 0], -seen[..., 1]], axis=-1) / depth[..., None]
    return pictured
