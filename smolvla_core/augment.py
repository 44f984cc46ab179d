"""Changes to training frames, before anything is computed from them. Validation never passes here.

Each augmentation is frozen and pure, ``RawFrames -> RawFrames``, and draws by the sample's place in
the stream, so that batch, micro-batch and resume change nothing. To add one: a class and its
builder in ``BUILDERS`` here, its amount in ``config.py``.

Shapes: B frames, R raw state dims, C cameras, H and W pixels.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torchvision.transforms.v2 import functional as pictures

from smolvla_core.config import TrialConfig
from smolvla_core.data.keyed import keyed_generator
from smolvla_core.errors import ConfigError
from smolvla_core.interface import Interface
from smolvla_core.r1pro import EEF_POSITION_KEYS
from smolvla_core.state import key_dims

_POSITION, _COLOR, _VIEW_CHOICE, _VIEW = 2, 10, 11, 12  # streams of random numbers beside those of `data.sampler`


@dataclass(frozen=True)
class RawFrames:
    """Frames as they were recorded: before augmentation, features, selection and normalisation."""

    samples: NDArray[np.int64]
    """(B,) places in the sample stream; -1 for frames that no stream drew."""
    rows: NDArray[np.int64]
    """(B,) rows of the dataset."""
    images: tuple[Tensor, ...]
    """C tensors (B, 3, H, W), uint8; none where their embeddings are known."""
    state: NDArray[np.float32]
    """(B, R)."""
    task_info: NDArray[np.float32] | None
    """(B, Q) object poses, where they are read."""


Augmentation = Callable[[RawFrames], RawFrames]


@dataclass(frozen=True)
class PositionJitter:
    """Uniform jitter of end-effector positions in the raw state, each dim by its own draw."""

    dims: tuple[int, ...]
    amount_m: float
    """Half-width in metres."""
    seed: int

    def __call__(self, frames: RawFrames) -> RawFrames:
        """Frames with their positions moved."""
        draws = [keyed_generator(self.seed, _POSITION, int(i)).uniform(-1, 1, len(self.dims)) for i in frames.samples]
        moved = frames.state.copy()
        moved[:, list(self.dims)] += self.amount_m * np.asarray(draws, dtype=np.float32)
        return replace(frames, state=moved)


@dataclass(frozen=True)
class ColorDraw:
    """One draw of the colour jitter: the order of its four changes, and how far each goes in [-1, 1)."""

    order: tuple[int, ...]
    extent: tuple[float, ...]

    @classmethod
    def of(cls, generator: np.random.Generator) -> "ColorDraw":
        """The generator's next draw."""
        extent = generator.uniform(-1, 1, 4)
        return cls(tuple(int(i) for i in generator.permutation(4)), tuple(float(u) for u in extent))


@dataclass(frozen=True)
class ColorJitter:
    """Brightness, contrast, saturation and hue, as ``torchvision.transforms.v2.ColorJitter`` changes them."""

    amounts: tuple[float, float, float, float]
    """Half-widths, in the order above; a change of amount 0 is left out."""
    same_draw: bool
    """Whether the cameras of a frame share a draw."""
    views: int | None
    """Number of fixed views of a frame. None: a fresh draw for each sample."""
    seed: int

    def __call__(self, frames: RawFrames) -> RawFrames:
        """Frames with their pictures' colours changed; those without pictures as they are."""
        if not frames.images:
            return frames
        draws = [
            self.draws(int(sample), int(row), len(frames.images))
            for sample, row in zip(frames.samples, frames.rows, strict=True)
        ]
        images = tuple(
            torch.stack(
                [adjust_colors(picture, self.amounts, draw[c]) for picture, draw in zip(image, draws, strict=True)]
            )
            for c, image in enumerate(frames.images)
        )
        return replace(frames, images=images)

    def draws(self, sample: int, row: int, cameras: int) -> tuple[ColorDraw, ...]:
        """The draw of each camera, for a row that the stream drew as its ``sample``-th."""
        if self.views is None:
            return self._of_cameras(keyed_generator(self.seed, _COLOR, sample), cameras)
        return self.view_draws(row, self.view_of(sample), cameras)

    def view_of(self, sample: int) -> int:
        """Which of the fixed views a sample takes."""
        assert self.views is not None
        return int(keyed_generator(self.seed, _VIEW_CHOICE, sample).integers(self.views))

    def views_of(self, samples: NDArray[np.int64]) -> NDArray[np.int64]:
        """The views (n,) that samples (n,) take."""
        return np.array([self.view_of(int(sample)) for sample in samples], dtype=np.int64)

    def view_draws(self, row: int, view: int, cameras: int) -> tuple[ColorDraw, ...]:
        """The draw of each camera in a fixed view of a row: the same for every seed, so that it can be stored."""
        return self._of_cameras(keyed_generator(_VIEW, row, view), cameras)

    def _of_cameras(self, generator: np.random.Generator, cameras: int) -> tuple[ColorDraw, ...]:
        if self.same_draw:
            return (ColorDraw.of(generator),) * cameras
        return tuple(ColorDraw.of(generator) for _ in range(cameras))


def adjust_colors(picture: Tensor, amounts: tuple[float, ...], draw: ColorDraw) -> Tensor:
    """A picture (3, H, W) with its colours changed by ``amounts`` as a draw says."""
    changes = (
        pictures.adjust_brightness,
        pictures.adjust_contrast,
        pictures.adjust_saturation,
        pictures.adjust_hue,
    )
    neutral = (1.0, 1.0, 1.0, 0.0)
    for i in draw.order:
        if amounts[i] > 0:
            picture = changes[i](picture, neutral[i] + amounts[i] * draw.extent[i])
    return picture


def _position_jitter(config: TrialConfig, interface: Interface) -> Augmentation | None:
    amount = config.augment.gripper_jitter_m
    if amount == 0:
        return None
    if interface.selection.release is None:
        raise ConfigError(
            "augment.gripper_jitter_m: needs R1Pro's named state to find the end-effector positions; set it to 0"
        )
    dims = key_dims(EEF_POSITION_KEYS, interface.selection.release)
    seen = {*interface.selection.indices, *(dim for feature in interface.features for dim in feature.dims)}
    if not set(dims) & seen:
        raise ConfigError(
            "augment.gripper_jitter_m: the selected state has no end-effector position, so it would do nothing; "
            "set it to 0 or add eef_left_pos and eef_right_pos to the state"
        )
    return PositionJitter(dims, amount, config.runtime.seed)


def _color_jitter(config: TrialConfig, interface: Interface) -> Augmentation | None:
    augment = config.augment
    if not any(augment.color_amounts):
        return None
    return ColorJitter(augment.color_amounts, augment.color_same_draw, augment.color_views, config.runtime.seed)


BUILDERS = (_position_jitter, _color_jitter)


def augmentations(config: TrialConfig, interface: Interface) -> tuple[Augmentation, ...]:
    """The configuration's augmentations, in the order in which they are applied.

    Raises:
        ConfigError: one of them would do nothing, or cannot be applied to this state.
    """
    built = (build(config, interface) for build in BUILDERS)
    return tuple(augmentation for augmentation in built if augmentation is not None)


def augment(frames: RawFrames, chain: tuple[Augmentation, ...]) -> RawFrames:
    """The frames after every augmentation of the chain."""
    for augmentation in chain:
        frames = augmentation(frames)
    return frames
