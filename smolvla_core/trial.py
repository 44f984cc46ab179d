"""A trial, from its configuration to what its first step needs; everything wrong is refused on the way."""

from dataclasses import dataclass

import torch

from smolvla_core.augment import Augmentation, augmentations
from smolvla_core.config import TrialConfig
from smolvla_core.data.batch import BatchMaker
from smolvla_core.data.dataset import Dataset, Split, open_dataset, split_episodes
from smolvla_core.data.sampler import Curriculum, SampleStream, plan_curriculum
from smolvla_core.evaluate import EvaluationSet, evaluation_set
from smolvla_core.interface import Interface, resolve_interface
from smolvla_core.learner import Learner
from smolvla_core.objective import horizon_steps
from smolvla_core.policy import check_policy, expected_cameras
from smolvla_core.segments import gripper_dims
from smolvla_core.weights import FrameWeights, frame_weights


@dataclass(frozen=True)
class Inputs:
    """A configuration resolved against its data: all of a trial but the policy's weights."""

    dataset: Dataset
    split: Split
    interface: Interface
    frames: EvaluationSet
    weights: FrameWeights
    curriculum: Curriculum
    augmentations: tuple[Augmentation, ...]
    """Of training frames."""


@dataclass(frozen=True)
class Trial:
    """Everything a run needs, resolved and checked before the first step."""

    dataset: Dataset
    split: Split
    learner: Learner
    maker: BatchMaker
    stream: SampleStream
    frames: EvaluationSet


def resolve(config: TrialConfig) -> Inputs:
    """Open the data and refuse what cannot work, without loading a policy's weights.

    Raises:
        UserError: one line that says what to change.
    """
    dataset = open_dataset(config.data)
    horizon_steps(config.eval.horizon_s, dataset.fps, config.policy.chunk_size)
    split = split_episodes(config.data, len(dataset.lengths))
    interface = resolve_interface(config, dataset, split, expected_cameras(config.policy))
    check_policy(config, interface)
    gripper_dims(config, dataset)  # wrong ones are refused also where no rule comes to use them
    rows = dataset.rows_of(split.train)
    return Inputs(
        dataset=dataset,
        split=split,
        interface=interface,
        frames=evaluation_set(config, dataset, split),
        weights=frame_weights(config, dataset),
        curriculum=plan_curriculum(config.curriculum, rows, dataset.progress[rows], config.optim.samples),
        augmentations=augmentations(config, interface),
    )


def prepare(config: TrialConfig) -> Trial:
    """:func:`resolve`, and build the policy.

    Raises:
        UserError: one line that says what to change.
    """
    if config.runtime.threads is not None:
        torch.set_num_threads(config.runtime.threads)
    inputs = resolve(config)
    learner = Learner(config, inputs.interface, inputs.weights)
    maker = BatchMaker(
        inputs.dataset,
        inputs.interface,
        config.policy.chunk_size,
        learner.policy.config.max_action_dim,
        inputs.augmentations,
    )
    stream = SampleStream(inputs.curriculum, config.runtime.seed)
    return Trial(inputs.dataset, inputs.split, learner, maker, stream, inputs.frames)
