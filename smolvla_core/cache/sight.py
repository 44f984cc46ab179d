"""Pictures and their embeddings, from the cache where they are there."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from smolvla_core.augment import ColorJitter, adjust_colors
from smolvla_core.cache.encoder import Encoder
from smolvla_core.cache.store import Compute, Store
from smolvla_core.data.batch import PictureSource

FRAMES_AT_ONCE = 4


class Part(NamedTuple):
    """A store, and how its values are made."""

    store: Store
    compute: Compute
    at_once: int

    def gather(self, rows: NDArray[np.int64]) -> Tensor:
        """Values of rows; see :meth:`Store.gather`."""
        return self.store.gather(rows, self.compute, self.at_once)


@dataclass(frozen=True)
class CachedCamera:
    """A camera whose decoded frames are kept as they are: uint8, at the dataset's own resolution.

    lerobot resizes in floats, so that frames kept smaller would have to be rounded, or be floats and
    four times as large.
    """

    camera: PictureSource
    store: Store

    @property
    def part(self) -> Part:
        """Of the frames, by row."""
        return Part(self.store, self.camera.frames, FRAMES_AT_ONCE)

    def frames(self, rows: NDArray[np.int64]) -> Tensor:
        """See :class:`smolvla_core.data.batch.PictureSource`."""
        return self.part.gather(rows)


@dataclass(frozen=True)
class CachedEmbeddings:
    """Embeddings of a dataset's frames; see :class:`smolvla_core.data.batch.Embeddings`."""

    cameras: Sequence[PictureSource]
    encoder: Encoder
    stores: tuple[Store, ...]
    """Of each camera's frames as they were recorded, N rows."""
    jitter: ColorJitter | None = None
    """Of the colours of training frames."""
    views: tuple[Store, ...] = ()
    """Of each camera's frames in each of the jitter's V fixed views, V * N rows: the first view's first."""

    def of_samples(self, rows: NDArray[np.int64], samples: NDArray[np.int64]) -> tuple[Tensor, ...]:
        """See :class:`smolvla_core.data.batch.Embeddings`."""
        if self.jitter is not None and self.jitter.views is None:
            return ()
        return self.at(self.places(rows, samples))

    def places(self, rows: NDArray[np.int64], samples: NDArray[np.int64]) -> NDArray[np.int64]:
        """Places of training frames among the views, or among the recorded frames where no colour is jittered."""
        if self.jitter is None:
            return rows
        return self.jitter.views_of(samples) * len(self.stores[0]) + rows

    def at(self, places: NDArray[np.int64]) -> tuple[Tensor, ...]:
        """C tensors (B, N, W) at :meth:`places`."""
        return tuple(part.gather(places) for part in (self.parts if self.jitter is None else self.view_parts))

    def recorded(self, rows: NDArray[np.int64]) -> tuple[Tensor, ...]:
        """See :class:`smolvla_core.data.batch.Embeddings`."""
        return tuple(part.gather(rows) for part in self.parts)

    @property
    def parts(self) -> tuple[Part, ...]:
        """Of each camera's recorded frames, by row."""
        return tuple(
            Part(store, partial(self._compute, number), self.encoder.at_once)
            for number, store in enumerate(self.stores)
        )

    @property
    def view_parts(self) -> tuple[Part, ...]:
        """Of each camera's views, by view * N + row."""
        return tuple(
            Part(store, partial(self._compute_views, number), self.encoder.at_once)
            for number, store in enumerate(self.views)
        )

    def _compute(self, camera: int, rows: NDArray[np.int64]) -> Tensor:
        return self.encoder(self.cameras[camera].frames(rows))

    def _compute_views(self, camera: int, places: NDArray[np.int64]) -> Tensor:
        assert self.jitter is not None
        views, rows = np.divmod(places, len(self.stores[0]))
        changed = []
        for picture, row, view in zip(self.cameras[camera].frames(rows), rows, views, strict=True):
            draw = self.jitter.view_draws(int(row), int(view), len(self.cameras))[camera]
            changed.append(adjust_colors(picture, self.jitter.amounts, draw))
        return self.encoder(torch.stack(changed))
