"""Which tier of the cache a trial uses, and what that takes.

- Image embeddings, while the vision tower is frozen and the forward is the fast one; on a CPU, where there
  is room, also what the VLM makes of them and the instruction.
- Decoded frames otherwise, and for training frames whose colours are jittered anew each time.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol

import torch

from smolvla_core.augment import Augmentation, ColorJitter
from smolvla_core.cache.encoder import Encoder
from smolvla_core.cache.home import GB, Home, home_of, size_text
from smolvla_core.cache.identity import (
    embeddings_identity,
    encoder_digest,
    frames_identity,
    language_digest,
    prefixes_identity,
    views_identity,
)
from smolvla_core.cache.prefixes import CachedPrefixes, Kept, PrefixEncoder, instructions_of
from smolvla_core.cache.sight import CachedCamera, CachedEmbeddings
from smolvla_core.cache.sizes import kept_prefixes
from smolvla_core.cache.store import Store
from smolvla_core.config import TrialConfig
from smolvla_core.data.batch import Embeddings, PictureSource, Prefixes
from smolvla_core.data.dataset import Dataset
from smolvla_core.data.pictures import Camera
from smolvla_core.data.sampler import Curriculum
from smolvla_core.fast import prefix_dtypes
from smolvla_core.interface import Interface
from smolvla_core.learner import Learner

KINDS = ("embeddings", "prefixes", "frames")
"""Of stores, by the cost of what is in them."""


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
    prefixes: Prefixes | None = None


@dataclass
class Need:
    """Bytes of a kind of values."""

    wanted: int = 0
    present: int = 0

    @property
    def missing(self) -> int:
        """What is to come, at most."""
        return max(0, self.wanted - self.present)


class Cache:
    """The cache of one trial.

    Args:
        config: the trial.
        learner: with the policy whose frozen parts make its values.
        sources: the trial's datasets, the main one first.
        held_out: number of the main one's rows that the policy is evaluated on.

    Raises:
        ConfigError: the cache's folder cannot be made.
    """

    def __init__(self, config: TrialConfig, learner: Learner, sources: Sequence[Source], held_out: int):
        self.config, self.learner, self.held_out = config, learner, held_out
        self.home = home_of(config)
        self.encoder = Encoder(learner.policy, learner.device, learner.autocast, learner.precision)
        self.needs = {kind: Need() for kind in KINDS}
        training = sum(self._drawn(source, number, self._views(source)) for number, source in enumerate(sources))
        self._kept = kept_prefixes(config, learner.interface, held_out, training)

    def sight(self, source: Source, number: int) -> Sight:
        """Cameras, embeddings and prefixes of one of the trial's datasets.

        Args:
            source: the dataset.
            number: of the dataset.
        """
        held_out = self.held_out if number == 0 else 0
        dataset, home = source.dataset, self.home
        cameras = tuple(Camera(dataset, view.dataset_key) for view in source.interface.cameras)
        if home is None:
            return Sight(cameras)
        jitter = _jitter_of(source)
        fresh = self.config.augment.fresh_colors
        drawn = self._drawn(source, number, 1)
        if not self.learner.config.frozen_vlm:
            return Sight(self._cached(home, dataset, cameras, drawn + held_out))
        recorded = held_out + (drawn if jitter is None else 0)
        identities = [self._identity(dataset, camera) for camera in cameras]
        stores = self._stores(home, dataset, cameras, identities, len(dataset.frame), recorded)
        views: list[Store] = []
        seen = identities
        if jitter is not None and jitter.views is not None:
            total, drawn = len(dataset.frame) * jitter.views, self._drawn(source, number, jitter.views)
            seen = [
                self._identity(dataset, camera, views_identity(jitter, place)) for place, camera in enumerate(cameras)
            ]
            views = self._stores(home, dataset, cameras, seen, total, drawn)
        embeddings = CachedEmbeddings(cameras, self.encoder, tuple(stores), jitter, tuple(views))
        prefixes = self._prefixes(home, source, number, embeddings, (identities, seen), (held_out, drawn))
        return Sight(self._cached(home, dataset, cameras, drawn) if fresh else cameras, embeddings, prefixes)

    def ready(self) -> tuple[str, ...]:
        """Make room for what is wanted, once every dataset has its sight; what is to be said, a line each."""
        if self.home is None:
            return ("cache: off (runtime.cache)",)
        needs = self.needs
        missing, present = sum(need.missing for need in needs.values()), sum(need.present for need in needs.values())
        # what costs far more to make does not go for what costs little
        kinds = KINDS if needs["embeddings"].wanted else ("prefixes", "frames")
        removed = self.home.make_room(missing - needs["prefixes"].missing, kinds)
        removed += self.home.make_room(missing, ("prefixes", "frames"))
        lines = [f"cache: removed {name}, the longest unused, to make room" for name in removed]
        text = f"cache: {self._what()}, in {self.home.folder}: {size_text(present)} there"
        text += f", at most {size_text(missing)} to come" if missing else ""
        room = self.home.left()
        if missing > room:
            text += (
                f", of which {size_text(room)} have room (runtime.cache_gb is {self.home.budget / GB:g}); "
                "the rest is computed whenever it is drawn"
            )
        return (*lines, text)

    def _what(self) -> str:
        kept = {kind for kind, need in self.needs.items() if need.wanted}
        if "prefixes" in kept:
            of = "" if self._kept.training else " of the held-out frames"
            return f"image embeddings, and keys and values of images and instructions{of}"
        if kept == {"embeddings"}:
            return "image embeddings"
        if kept == {"frames"}:
            reason = self.learner.forward_line.partition("(")[2].rpartition(")")[0]
            return f"decoded frames, no embeddings ({reason})"
        return (
            "decoded frames for training (colours are jittered anew for each sample; embeddings can be kept of a fixed "
            "number of views, augment.color_views), image embeddings for evaluation"
        )

    @staticmethod
    def _views(source: Source) -> int:
        jitter = _jitter_of(source)
        return 1 if jitter is None else jitter.views or 1

    def _drawn(self, source: Source, number: int, views: int) -> int:
        """The most values of a camera that the trial can draw."""
        samples = self.config.optim.samples * self.config.data.shares[number]
        return min(len(source.curriculum.rows) * views, math.ceil(samples))

    def _cached(
        self, home: Home, dataset: Dataset, cameras: Sequence[Camera], wanted: int
    ) -> tuple[PictureSource, ...]:
        found = []
        for camera in cameras:
            shape = (3, camera.height, camera.width)
            store = home.open(frames_identity(dataset, camera), len(dataset.frame), shape, torch.uint8)
            self._count("frames", store, wanted)
            found.append(CachedCamera(camera, store))
        return tuple(found)

    def _stores(
        self,
        home: Home,
        dataset: Dataset,
        cameras: Sequence[Camera],
        identities: Sequence[Mapping[str, Any]],
        total: int,
        wanted: int,
    ) -> list[Store]:
        """Of embeddings."""
        found = []
        for camera, identity in zip(cameras, identities, strict=True):
            store = home.open(identity, total, self.encoder.shape(camera.height, camera.width), self.encoder.dtype)
            self._count("embeddings", store, wanted)
            found.append(store)
        return found

    def _prefixes(
        self,
        home: Home,
        source: Source,
        number: int,
        embeddings: CachedEmbeddings,
        seen: tuple[Sequence[Mapping[str, Any]], Sequence[Mapping[str, Any]]],
        wanted: tuple[int, int],
    ) -> CachedPrefixes | None:
        """What is kept of recorded frames, and of those that are trained on, by what they are ``seen`` as."""
        learner, dataset = self.learner, source.dataset
        keep = (self._kept.held_out > 0 and number == 0, self._kept.training > 0)
        if not any(keep):
            return None
        reading = learner.readings[number]
        instructions = instructions_of(dataset, reading.processors, reading.interface.state_width)
        tokens = [store.shape[0] for store in embeddings.stores]
        kept: list[Kept | None] = []
        for with_actions, keeps, identities, count in zip((False, True), keep, seen, wanted, strict=True):
            encoder = PrefixEncoder.of(learner.policy, learner.autocast, instructions, with_actions, tokens)
            # in one precision, training and prediction round alike
            rounds = with_actions and encoder.form.layers != prefix_dtypes(learner.policy, with_actions=False)
            identity = prefixes_identity(dataset, identities, self._language, instructions.tokens, rounds)
            total = len((embeddings.views if with_actions and embeddings.views else embeddings.stores)[0])
            store = home.open(identity, total, (encoder.form.bytes,), torch.uint8) if keeps else None
            if store is not None:
                self._count("prefixes", store, count)
            kept.append(None if store is None else Kept(store, encoder))
        return CachedPrefixes(embeddings, scored=kept[0], trained=kept[1])

    def _identity(self, dataset: Dataset, camera: Camera, views: dict[str, Any] | None = None) -> dict[str, Any]:
        policy = self.learner.policy
        return embeddings_identity(
            dataset,
            camera,
            self._digest,
            policy.config.resize_imgs_with_padding,
            self.learner.device,
            self.learner.precision,
            views,
        )

    def _count(self, kind: str, store: Store, wanted: int) -> None:
        need = self.needs[kind]
        need.wanted += wanted * store.item_bytes
        need.present += min(wanted, store.count) * store.item_bytes

    @cached_property
    def _digest(self) -> str:
        return encoder_digest(self.learner.policy)

    @cached_property
    def _language(self) -> str:
        return language_digest(self.learner.policy)


def _jitter_of(source: Source) -> ColorJitter | None:
    return next((each for each in source.augmentations if isinstance(each, ColorJitter)), None)
