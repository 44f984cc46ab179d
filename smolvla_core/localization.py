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

from smolvla_core.config import TrialConfig
from smolvla_core.data.dataset import Dataset
from smolvla_core.data.keys import CAM_REL_POSES, TASK_INFO
from smolvla_core.errors import ConfigError
from smolvla_core.interface import Interface
from smolvla_core.r1pro import CAMERA_PIXELS, CAMERA_POSES, FOCAL_PX
from smolvla_core.state import robot_pose_dims

Rows = NDArray[np.float32]

CELLS = 8
"""Cells to a side of what a token covers, c: of 4 pixels where a picture of 96 has 3 tokens to a side."""
SPREAD = 0.8
"""Standard deviation of an object's mark on the heat map, in cells."""
RARE = 20.0
"""A cell in the middle of a mark counts so much more than an empty one."""
_SELDOM = -4.0
"""Logit that the network begins with: little is anywhere."""
_NEAREST_M, _FARTHEST_M = 0.02, 15.0
"""Along the view; what a scene does not have stands far beyond."""


@dataclass(frozen=True)
class Places:
    """Where objects are in the pictures of a dataset's frames; computed for those that are asked for."""

    dataset: Dataset
    firsts: tuple[int, ...]
    """(O,) the first dim of each object's position in ``task_info``."""
    kinds: tuple[int, ...]
    """(O,) the kind of each object, 0 to K - 1."""
    robot: tuple[tuple[int, ...], ...]
    """State dims of the robot's position and of cosine and sine of its roll, pitch and yaw; none where objects'
    positions are relative to it."""
    cameras: tuple[int, ...]
    """(C,) the place of each of the policy's cameras in ``cam_rel_poses``."""
    focal: tuple[float, ...]
    """(C,) focal lengths, as shares of the picture's width."""

    def uv(self, rows: NDArray[np.int64]) -> Tensor:
        """Places (B, C, O, 2) of rows (B,): from the left and from the top, as shares of the picture's width; NaN
        behind the camera, or too far to be drawn.
        """
        poses, cameras = self.dataset.task_info, self.dataset.camera_poses
        assert poses is not None
        assert cameras is not None
        objects = np.stack([poses[rows, first : first + 3] for first in self.firsts], axis=1).astype(np.float64)
        if self.robot:
            position, cos, sin = (self.dataset.state[rows][:, list(dims)] for dims in self.robot)
            turned = Rotation.from_euler("xyz", np.arctan2(sin, cos)).as_matrix()
            objects = (objects - position[:, None]) @ turned
        seen = cameras[rows].reshape(len(rows), -1, 7)[:, list(self.cameras)]
        pictured = [project(objects, seen[:, i], share) for i, share in enumerate(self.focal)]
        return torch.from_numpy(np.stack(pictured, axis=1).astype(np.float32))


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
    """The kinds of objects that a trial's policy is to locate, sorted: its main dataset's; none where it is off."""
    where = config.data.train[0].task_info
    return tuple(sorted(where.objects)) if config.auxiliary.localization and where is not None else ()


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
    where, kinds = config.data.train[number].task_info, kinds_of(config)
    if not kinds or where is None or not where.objects:
        return None
    if set(where.objects) != set(kinds):
        raise ConfigError(
            f"data.train.{number}: task_info.objects names {', '.join(sorted(where.objects))}; name the kinds of the "
            f"main dataset, {', '.join(kinds)}, each, or none to locate nothing in this one"
        )
    named = [(kinds.index(kind), first) for kind, firsts in where.objects.items() for first in firsts]
    firsts = tuple(first for _, first in named)
    _refuse_dims(dataset, max(firsts))
    names = [view.dataset_key.rpartition(".")[2] for view in interface.cameras]
    _refuse_cameras(dataset, interface, names)
    return Places(
        dataset=dataset,
        firsts=firsts,
        kinds=tuple(kind for kind, _ in named),
        robot=_robot_dims(interface) if where.frame == "world" else (),
        cameras=tuple(CAMERA_POSES.index(name) for name in names),
        focal=tuple(FOCAL_PX[name] / CAMERA_PIXELS[name] for name in names),
    )


def project(objects: NDArray[np.float64], cameras: Rows, focal: float) -> NDArray[np.float64]:
    """Places (B, O, 2) of objects (B, O, 3) for a pinhole with poses (B, 7), which looks along -z with y up.

    Args:
        objects: in the frame that the poses are in.
        cameras: positions, and quaternions x, y, z, w.
        focal: length, as a share of the picture's width.
    """
    seen = (objects - cameras[:, None, :3]) @ Rotation.from_quat(cameras[:, 3:]).as_matrix()
    ahead = -seen[..., 2]
    depth = np.where((ahead > _NEAREST_M) & (ahead < _FARTHEST_M), ahead, np.nan)[..., None]
    return np.asarray(0.5 + focal * np.stack([seen[..., 0], -seen[..., 1]], axis=-1) / depth)


def _refuse_dims(dataset: Dataset, last: int) -> None:
    assert dataset.task_info is not None
    width = dataset.task_info.shape[1]
    if last + 3 > width:
        raise ConfigError(
            f"data.train: task_info.objects names dims {last} to {last + 2}, the dataset's {TASK_INFO} has {width}; "
            "give the first of each object's 3 within it"
        )


def _refuse_cameras(dataset: Dataset, interface: Interface, names: Sequence[str]) -> None:
    assert dataset.camera_poses is not None
    width = dataset.camera_poses.shape[1]
    if width != 7 * len(CAMERA_POSES):
        raise ConfigError(
            f"auxiliary.localization: {dataset.root} has {width} dims of {CAM_REL_POSES}, where R1Pro's cameras have "
            f"{7 * len(CAMERA_POSES)}; set it to 0"
        )
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


def _robot_dims(interface: Interface) -> tuple[tuple[int, ...], ...]:
    dims = robot_pose_dims(interface.selection.release)
    if dims is None:
        raise ConfigError(
            "auxiliary.localization: where the robot stands is in the state of BEHAVIOR's 2025 release alone; set it "
            "to 0, or task_info.frame to robot if the dataset's poses are relative to the robot"
        )
    return dims
