"""Which tier of the cache a trial uses, and what that takes.

- Image embeddings, while the vision tower is frozen and the forward is the fast one.
- Decoded frames otherwise, and for training frames whose colours are jittered anew each time.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol

import torch

from smolvla_core.augment import Augmentation, ColorJitter
from smolvla_core.cache.encoder import Encoder
from smolvla_core.cache.home import GB, Home, home_of, size_text
from smolvla_core.cache.identity import embeddings_identity, encoder_digest, frames_identity, views_identity
from smolvla_core.cache.sight import CachedCamera, CachedEmbeddings
from smolvla_core.cache.store import Store
from smolvla_core.config import TrialConfig
from smolvla_core.data.batch import Embeddings, PictureSource
from smolvla_core.data.dataset import Dataset
from smolvla_core.data.pictures import Camera
from smolvla_core.data.sampler import Curriculum
from smolvla_core.forward import FastForward
from smolvla_core.interface import Interface
from smolvla_core.learner import Learner


class Source(Protocol):
    """A dataset that is trained on; see :class:`smolvla_core.trial.Source`."""

    @property
    def dataset(self) -> Dataset:
        """The opened dataset."""

    @property
    def interface(self) -> Interface:
        """Its cameras."""

    @property
    def curriculum(self) -> Curriculum:
        """Which rows are drawn."""

    @property
    def augmentations(self) -> tuple[Augmentation, ...]:
        """Of training frames."""


@dataclass(frozen=True)
class Sight:
    """Where a dataset's pictures, or embeddings in their place, come from."""

    cameras: tuple[PictureSource, ...]
    embeddings: Embeddings | None = None


class Cache:
    """The cache of one trial.

    Args:
        config: the trial.
        learner: with the policy whose vision tower makes the embeddings.

    Raises:
        ConfigError: the cache's folder cannot be made.
    """

    def __init__(self, config: TrialConfig, learner: Learner):
        self.config, self.learner = config, learner
        self.home = home_of(config)
        self.encoder = Encoder(learner.policy, learner.device, learner.autocast, learner.precision)
        self.wanted = self.present = 0
        self._tiers: set[str] = set()

    def sight(self, source: Source, number: int, held_out: int) -> Sight:
        """Cameras and embeddings of one of the trial's datasets.

        Args:
            source: the dataset.
            number: of the dataset.
            held_out: number of its rows that the policy is evaluated on.
        """
        dataset, home = source.dataset, self.home
        cameras = tuple(Camera(dataset, view.dataset_key) for view in source.interface.cameras)
        if home is None:
            return Sight(cameras)
        jitter = next((each for each in source.augmentations if isinstance(each, ColorJitter)), None)
        fresh = jitter is not None and jitter.views is None
        drawn = self._drawn(source, number, 1)
        if not self._is_fast:
            return Sight(self._cached(home, dataset, cameras, drawn + held_out))
        recorded = held_out + (drawn if jitter is None else 0)
        stores = [self._store(home, dataset, camera, len(dataset.frame), recorded, None) for camera in cameras]
        views: list[Store] = []
        if jitter is not None and jitter.views is not None:
            total, drawn = len(dataset.frame) * jitter.views, self._drawn(source, number, jitter.views)
            views = [
                self._store(home, dataset, camera, total, drawn, views_identity(jitter, place))
                for place, camera in enumerate(cameras)
            ]
        embeddings = CachedEmbeddings(cameras, self.encoder, tuple(stores), jitter, tuple(views))
        return Sight(self._cached(home, dataset, cameras, drawn) if fresh else cameras, embeddings)

    def ready(self) -> tuple[str, ...]:
        """Make room for what is wanted, once every dataset has its sight; what is to be said, a line each."""
        if self.home is None:
            return ("cache: off (runtime.cache)",)
        missing = max(0, self.wanted - self.present)
        removed = self.home.make_room(missing, frames_only="embeddings" not in self._tiers)
        lines = [f"cache: removed {name}, the longest unused, to make room" for name in removed]
        text = f"cache: {self._what()}, in {self.home.folder}: {size_text(self.present)} there"
        text += f", at most {size_text(missing)} to come" if missing else ""
        room = self.home.left()
        if missing > room:
            text += (
                f", of which {size_text(room)} have room (runtime.cache_gb is {self.home.budget / GB:g}); "
                "the rest is computed whenever it is drawn"
            )
        return (*lines, text)

    @property
    def _is_fast(self) -> bool:
        return isinstance(self.learner.forward, FastForward)

    def _what(self) -> str:
        if self._tiers == {"embeddings"}:
            return "image embeddings"
        if self._tiers == {"frames"}:
            reason = self.learner.forward_line.partition("(")[2].rpartition(")")[0]
            return f"decoded frames, no embeddings ({reason})"
        return (
            "decoded frames for training (colours are jittered anew for each sample; embeddings can be kept of a fixed "
            "number of views, augment.color_views), image embeddings for evaluation"
        )

    def _drawn(self, source: Source, number: int, views: int) -> int:
        """The most values of a camera that the trial can draw."""
        samples = self.config.optim.samples * self.config.data.shares[number]
        return min(len(source.curriculum.rows) * views, math.ceil(samples))

    def _cached(
        self, home: Home, dataset: Dataset, cameras: Sequence[Camera], wanted: int
    ) -> tuple[PictureSource, ...]:
        self._tiers.add("frames")
        found = []
        for camera in cameras:
            shape = (3, camera.height, camera.width)
            store = home.open(frames_identity(dataset, camera), len(dataset.frame), shape, torch.uint8)
            self._count(store, wanted)
            found.append(CachedCamera(camera, store))
        return tuple(found)

    def _store(
        self, home: Home, dataset: Dataset, camera: Camera, total: int, wanted: int, views: dict[str, Any] | None
    ) -> Store:
        self._tiers.add("embeddings")
        policy = self.learner.policy
        identity = embeddings_identity(
            dataset,
            camera,
            self._digest,
            policy.config.resize_imgs_with_padding,
            self.learner.device,
            self.learner.precision,
            views,
        )
        store = home.open(identity, total, self.encoder.shape(camera.height, camera.width), self.encoder.dtype)
        self._count(store, wanted)
        return store

    def _count(self, store: Store, wanted: int) -> None:
        self.wanted += wanted * store.item_bytes
        self.present += min(wanted, store.count) * store.item_bytes

    @cached_property
    def _digest(self) -> str:
        return encoder_digest(self.learner.policy)
