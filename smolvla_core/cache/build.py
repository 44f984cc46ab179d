"""Fill the cache ahead of training: every value that a trial can draw, by several processes."""

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from smolvla_core.augment import ColorJitter
from smolvla_core.cache.sight import CachedCamera, CachedEmbeddings, Part
from smolvla_core.config import TrialConfig
from smolvla_core.config_values import load_yaml
from smolvla_core.data.mixture import Mixture
from smolvla_core.data.sampler import SampleStream
from smolvla_core.data.workers import each
from smolvla_core.trial import Inputs, Source, Trial, prepare, resolve

JOB_ROWS = 32
"""Values of a job: neighbouring rows, which decode much faster together."""
SAMPLES_AT_ONCE = 65_536

Tier = Literal["recorded", "views", "frames"]


@dataclass(frozen=True)
class Job:
    """Values that one process makes sure of."""

    dataset: int
    camera: int
    tier: Tier
    places: tuple[int, ...]
    """Of the values in their store."""


class Built(NamedTuple):
    """What a job, or all of them, did."""

    computed: int
    left_out: int
    """For want of room."""


def jobs_of(config: TrialConfig) -> list[Job]:
    """Everything that a trial can draw from the cache, held-out frames first.

    Raises:
        UserError: the trial cannot be resolved.
    """
    inputs = resolve(config)
    jobs: list[Job] = []
    fast = config.frozen_vlm
    mixture = Mixture(config.data.shares, config.runtime.seed)
    for number, source in enumerate((inputs, *inputs.others)):
        stream = SampleStream(source.curriculum, config.runtime.seed, mixture, number)
        tier, drawn = _drawn(config, source, stream)
        held_out = source.frames.rows if isinstance(source, Inputs) else np.empty(0, dtype=np.int64)
        wanted: dict[Tier, NDArray[np.int64]] = {"recorded" if fast else "frames": held_out}
        tier = tier if fast else "frames"
        wanted[tier] = np.union1d(wanted.get(tier, drawn), drawn)
        for tier, places in wanted.items():
            for start in range(0, len(places), JOB_ROWS):
                part = tuple(int(place) for place in places[start : start + JOB_ROWS])
                jobs += [Job(number, camera, tier, part) for camera in range(len(source.interface.cameras))]
    return jobs


def build(config: TrialConfig, workers: int, notify: Callable[[int, int], None]) -> Built:
    """Fill the cache of a trial.

    Args:
        config: the trial.
        workers: processes; each holds a policy.
        notify: called with (jobs done, of how many).

    Raises:
        UserError: the trial cannot be resolved, or a frame cannot be decoded.
    """
    jobs = jobs_of(config)
    threads = config.runtime.threads or max(1, (os.cpu_count() or 1) // workers)
    values = config.with_values({"runtime.threads": threads}).to_dict()
    done = each(_Fill(values), jobs, workers, notify)
    return Built(sum(built.computed for built in done), sum(built.left_out for built in done))


class _Fill:
    """A job's work, which can be sent to another process."""

    def __init__(self, values: Mapping[str, Any]):
        self.values = TrialConfig.from_dict(values).to_yaml()

    def __call__(self, job: Job) -> Built:
        part = part_of(_prepared(self.values), job)
        places = np.array(job.places, dtype=np.int64)
        missing = places[~part.store.has(places)]
        left_out = part.store.fill(missing, part.compute, len(missing) or 1)
        return Built(len(missing), len(left_out))


def part_of(trial: Trial, job: Job) -> Part:
    """The part of a trial's cache that a job fills."""
    maker = (trial.maker, *(maker for maker, _ in trial.others))[job.dataset]
    if job.tier == "frames":
        camera = maker.cameras[job.camera]
        assert isinstance(camera, CachedCamera)
        return camera.part
    assert isinstance(maker.embeddings, CachedEmbeddings)
    return (maker.embeddings.parts if job.tier == "recorded" else maker.embeddings.view_parts)[job.camera]


@lru_cache(maxsize=1)
def _prepared(yaml: str) -> Trial:
    return prepare(TrialConfig.from_dict(load_yaml(yaml, where="the trial")))


def _drawn(config: TrialConfig, source: Source, stream: SampleStream) -> tuple[Tier, NDArray[np.int64]]:
    """The tier that training frames are drawn from, and which of its places, ascending."""
    jitter = next((each for each in source.augmentations if isinstance(each, ColorJitter)), None)
    found: list[NDArray[np.int64]] = []
    for start in range(0, config.optim.samples, SAMPLES_AT_ONCE):
        samples = stream.samples(start, min(SAMPLES_AT_ONCE, config.optim.samples - start))
        places = stream.rows_at(samples)
        if jitter is not None and jitter.views is not None:
            places = jitter.views_of(samples) * len(source.dataset.frame) + places
        found.append(np.unique(places))
    tier: Tier = "recorded" if jitter is None else "frames" if jitter.views is None else "views"
    return tier, np.unique(np.concatenate(found))
