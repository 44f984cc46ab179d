"""A batch of samples, and how it becomes the dictionary that lerobot takes.

Legend: B batch, T action steps of the chunk, A action dims, S state dims the policy sees,
C cameras, D the policy's padded action dims.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, Protocol, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from smolvla_core.augment import Augmentation, RawFrames, augment
from smolvla_core.data.dataset import Dataset
from smolvla_core.data.keys import ACTION, STATE
from smolvla_core.data.pictures import Camera
from smolvla_core.data.sampler import SampleStream
from smolvla_core.interface import Interface
from smolvla_core.policy import Processors
from smolvla_core.prefix import Prefix

EMBEDDINGS = "smolvla_core.embeddings"
"""Key of the image embeddings among a policy's inputs."""
PREFIX = "smolvla_core.prefix"
"""Key of the :class:`smolvla_core.prefix.Prefix` among a policy's inputs."""


@dataclass(frozen=True)
class Batch:
    """Frames in raw units, with the flow-matching noise and time drawn for them."""

    rows: Tensor
    """(B,) row numbers of the dataset."""
    step_rows: Tensor
    """(B, T) row of each action of the chunk; the episode's last row past its end."""
    tasks: tuple[str, ...]
    """B instructions."""
    images: tuple[Tensor, ...]
    """C tensors (B, 3, H, W), uint8; none where there are embeddings."""
    state: Tensor
    """(B, S)."""
    action: Tensor
    """(B, T, A), less the anchor."""
    anchor: Tensor
    """(B, A) what the actions are relative to; 0 where they are absolute."""
    is_pad: Tensor
    """(B, T) true past the episode's end."""
    noise: Tensor
    """(B, T, D) standard normal; (B, K, T, D) where a sample has several draws."""
    time: Tensor
    """(B,), or (B, K), in (0, 1]; 1 is pure noise."""
    dataset: int = 0
    """Number of the dataset that all its frames are of."""
    embeddings: tuple[Tensor, ...] = ()
    """C tensors (B, N, W) of ``smolvla_core.fast.image_embeddings``, in place of the images."""
    prefix: Prefix | None = None
    """In place of images and embeddings."""

    def __len__(self) -> int:
        return len(self.rows)

    def slice(self, start: int, stop: int) -> Self:
        """The samples ``start .. stop`` of the batch."""
        of_cameras = ("images", "embeddings")
        per_frame = (f.name for f in fields(self) if f.name not in (*of_cameras, "dataset", "prefix"))
        parts = {name: getattr(self, name)[start:stop] for name in per_frame}
        parts["prefix"] = self.prefix and self.prefix.slice(start, stop)
        parts |= {name: tuple(each[start:stop] for each in getattr(self, name)) for name in of_cameras}
        return replace(self, **parts)


class PictureSource(Protocol):
    """One camera's frames; see :class:`smolvla_core.data.pictures.Camera`."""

    def frames(self, rows: NDArray[np.int64]) -> Tensor:
        """Frames (B, 3, H, W) uint8 of rows (B,)."""


class Embeddings(Protocol):
    """Embeddings of frames that need not be decoded for them; see :mod:`smolvla_core.cache`."""

    def of_samples(self, rows: NDArray[np.int64], samples: NDArray[np.int64]) -> tuple[Tensor, ...]:
        """C tensors (B, N, W) of rows (B,) that the stream drew as its ``samples``, augmented; none where
        they cannot be known beforehand.
        """

    def recorded(self, rows: NDArray[np.int64]) -> tuple[Tensor, ...]:
        """C tensors (B, N, W) of rows (B,) as they were recorded."""


class Prefixes(Protocol):
    """Prefixes of frames that need not be encoded for them; see :mod:`smolvla_core.cache`."""

    def of_samples(self, rows: NDArray[np.int64], samples: NDArray[np.int64]) -> Prefix | None:
        """Of rows (B,) that the stream drew as its ``samples``, augmented; None where it is not kept."""

    def recorded(self, rows: NDArray[np.int64]) -> Prefix | None:
        """Of rows (B,) as they were recorded, for predictions; None where it is not kept."""


class BatchMaker:
    """Assembles batches of a dataset for one policy.

    Args:
        dataset: the opened dataset.
        interface: cameras, and state dims.
        chunk_size: action steps, T.
        action_dims: the policy's padded action dims, D.
        augmentations: of training frames, in their order.
        stride: recorded frames from an action of the chunk to the next.
        number: of the dataset, among those that are trained on.
        cameras: where the pictures come from, in the interface's order. None: from the dataset.
        embeddings: in place of pictures, where they are known.
        prefixes: in place of both.
        draws: of noise and time for each training sample.
    """

    def __init__(
        self,
        dataset: Dataset,
        interface: Interface,
        chunk_size: int,
        action_dims: int,
        augmentations: tuple[Augmentation, ...] = (),
        stride: int = 1,
        number: int = 0,
        cameras: Sequence[PictureSource] | None = None,
        embeddings: Embeddings | None = None,
        prefixes: Prefixes | None = None,
        draws: int = 1,
    ):
        self.dataset, self.interface = dataset, interface
        self.stride, self.number = stride, number
        self.chunk_size, self.action_dims = chunk_size, action_dims
        self.augmentations = augmentations
        own = (Camera(dataset, view.dataset_key) for view in interface.cameras)
        self.cameras: list[PictureSource] = list(own if cameras is None else cameras)
        self.embeddings, self.prefixes, self.draws = embeddings, prefixes, draws

    def training(self, stream: SampleStream, first: int, count: int) -> Batch:
        """Those of the samples ``first .. first + count`` that are of this dataset, augmented."""
        samples = stream.samples(first, count)
        rows = stream.rows_at(samples)
        prefix = self.prefixes.of_samples(rows, samples) if self.prefixes else None
        embeddings = self.embeddings.of_samples(rows, samples) if self.embeddings and prefix is None else ()
        frames = self._recorded(rows, samples, pictures=not embeddings and prefix is None)
        noise, time = stream.flow_at(samples, self.chunk_size, self.action_dims, self.stride, self.draws)
        return self._assemble(augment(frames, self.augmentations), noise, time, embeddings, prefix)

    def validation(self, rows: NDArray[np.int64], noise: NDArray[np.float32], time: NDArray[np.float32]) -> Batch:
        """The given rows as they were recorded, with the given noise (B, T, D) and time (B,)."""
        prefix = self.prefixes.recorded(rows) if self.prefixes else None
        embeddings = self.embeddings.recorded(rows) if self.embeddings and prefix is None else ()
        frames = self._recorded(rows, np.full(len(rows), -1), pictures=not embeddings and prefix is None)
        return self._assemble(frames, noise, time, embeddings, prefix)

    def _recorded(self, rows: NDArray[np.int64], samples: NDArray[np.int64], pictures: bool) -> RawFrames:
        poses = self.dataset.task_info
        return RawFrames(
            samples=samples,
            rows=rows,
            images=tuple(camera.frames(rows) for camera in self.cameras) if pictures else (),
            state=self.dataset.state[rows],
            task_info=None if poses is None else poses[rows],
        )

    def _assemble(
        self,
        frames: RawFrames,
        noise: NDArray[np.float32],
        time: NDArray[np.float32],
        embeddings: tuple[Tensor, ...],
        prefix: Prefix | None,
    ) -> Batch:
        rows = frames.rows
        step_rows, is_pad = self.dataset.chunk_rows(rows, self.chunk_size, self.stride)
        anchor = self.interface.anchors(frames.state)
        action = self.dataset.chunk_actions(rows, self.chunk_size, self.stride) - anchor[:, None]
        return Batch(
            rows=torch.from_numpy(rows),
            step_rows=torch.from_numpy(step_rows),
            tasks=tuple(self.dataset.instructions[which] for which in self.dataset.instruction[rows]),
            images=frames.images,
            state=torch.from_numpy(self.interface.see(frames.state, frames.task_info)),
            action=torch.from_numpy(action),
            anchor=torch.from_numpy(anchor),
            is_pad=torch.from_numpy(is_pad),
            noise=torch.from_numpy(noise),
            time=torch.from_numpy(time),
            dataset=self.number,
            embeddings=embeddings,
            prefix=prefix,
        )


def to_floats(pictures: Tensor) -> Tensor:
    """Pictures of uint8 as floats in [0, 1]."""
    return pictures.to(torch.float32) / 255.0


def to_lerobot(batch: Batch, interface: Interface, processors: Processors, device: torch.device) -> dict[str, Any]:
    """Lerobot's normalised, tokenised inputs for ``SmolVLAPolicy.forward``.

    Frames go to the device as uint8 and become floats in [0, 1] there. Where the batch has embeddings in
    place of frames, they stand under ``EMBEDDINGS`` by the cameras' names in the policy, and a prefix
    under ``PREFIX``; lerobot's own forward can take neither.
    """
    raw: dict[str, Any] = {
        STATE: batch.state,
        ACTION: batch.action,
        "action_is_pad": batch.is_pad,
        "task": list(batch.tasks),
    }
    keys = [view.policy_key for view in interface.cameras]
    has_pictures = not batch.embeddings and batch.prefix is None
    if has_pictures:
        raw |= dict(zip(keys, batch.images, strict=True))
    inputs: dict[str, Any] = processors.pre(raw)
    inputs["action_is_pad"] = batch.is_pad.to(device)
    if batch.embeddings:
        inputs[EMBEDDINGS] = {key: each.to(device) for key, each in zip(keys, batch.embeddings, strict=True)}
    if batch.prefix is not None:
        inputs[PREFIX] = batch.prefix
    for key in keys if has_pictures else ():
        inputs[key] = to_floats(inputs[key])
    return inputs
