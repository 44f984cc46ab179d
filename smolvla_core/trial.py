"""A trial, from its configuration to what its first step needs; everything wrong is refused on the way."""

from dataclasses import dataclass

import torch

from smolvla_core.augment import Augmentation, augmentations
from smolvla_core.cache.attach import Cache
from smolvla_core.config import DataConfig, TrialConfig
from smolvla_core.data.batch import Batch, BatchMaker
from smolvla_core.data.companions import (
    refuse_held_out_episodes,
    refuse_other_rate,
    refuse_other_relative,
    refuse_other_widths,
)
from smolvla_core.data.dataset import Dataset, Split, open_dataset, split_episodes
from smolvla_core.data.mixture import Mixture
from smolvla_core.data.sampler import Curriculum, SampleStream, plan_curriculum
from smolvla_core.data.subsample import subsample
from smolvla_core.errors import ConfigError
from smolvla_core.evaluate import Evaluation, EvaluationSet, Part, evaluation_set, score
from smolvla_core.interface import Interface, resolve_interface
from smolvla_core.kinematics import HandChain, hand_chains
from smolvla_core.learner import Learner, Lesson
from smolvla_core.localization import Places, resolve_places
from smolvla_core.objective import scored_steps
from smolvla_core.policy import check_policy, refuse_cut_instruction
from smolvla_core.pretrained import expected_cameras
from smolvla_core.segments import gripper_dims
from smolvla_core.weights import FrameWeights, frame_weights


@dataclass(frozen=True)
class Source:
    """A dataset, resolved for training on it."""

    dataset: Dataset
    interface: Interface
    weights: FrameWeights
    curriculum: Curriculum
    augmentations: tuple[Augmentation, ...]
    """Of training frames."""
    places: Places | None
    """Of objects in the pictures, where they are to be located."""


@dataclass(frozen=True)
class Inputs(Source):
    """A configuration resolved against its data: all of a trial but the policy's weights.

    The dataset is the main one, which alone is split and scored.
    """

    split: Split
    frames: EvaluationSet
    test_frames: EvaluationSet | None = None
    """Those of ``eval.test``; None, and nothing of a test episode is looked at, unless it is set."""
    others: tuple[Source, ...] = ()
    """Datasets that are trained beside it, with all their episodes."""


@dataclass(frozen=True)
class Trial:
    """Everything a run needs, resolved and checked before the first step."""

    dataset: Dataset
    split: Split
    learner: Learner
    maker: BatchMaker
    stream: SampleStream
    frames: EvaluationSet
    others: tuple[tuple[BatchMaker, SampleStream], ...] = ()
    """Of the datasets that are trained beside the main one."""
    test_frames: EvaluationSet | None = None
    hands: tuple[HandChain, ...] = ()
    """Chains of the hands, for the end-effector error."""
    cache_lines: tuple[str, ...] = ()
    """What is to be said about the cache."""

    def scores(self, part: Part = "val") -> Evaluation:
        """Score the policy as it is now on one part of the held-out episodes.

        Raises:
            ConfigError: the test episodes, without ``eval.test``.
        """
        frames = self.frames if part == "val" else self.test_frames
        if frames is None:
            raise ConfigError("eval.test is false, so that the test episodes are not looked at; set it to true")
        return score(self.learner, self.maker, frames, self.hands)

    def training(self, first: int, count: int) -> tuple[Batch, ...]:
        """Samples ``first .. first + count`` of the run, in one part for each dataset that they are of."""
        feeds = ((self.maker, self.stream), *self.others)
        return tuple(
            maker.training(stream, first, count) for maker, stream in feeds if len(stream.samples(first, count))
        )


def resolve(config: TrialConfig) -> Inputs:
    """Open the data and refuse what cannot work, without loading a policy's weights.

    Raises:
        UserError: one line that says what to change.
    """
    dataset = open_dataset(config.data)
    scored_steps(config, dataset.fps)
    split = split_episodes(config.data, len(dataset.lengths))
    expected = expected_cameras(config.policy)
    interface = resolve_interface(config, dataset, split.train, expected)
    _check_policy(config, interface, dataset)
    main = _source(config, dataset, interface, split.train, 0)
    frames = evaluation_set(config, dataset, split)
    # the test's critical frames by validation's rule: the two numbers have one name, and one meaning
    test_frames = evaluation_set(config, dataset, split, "test", frames.rule) if config.eval.test else None
    return Inputs(
        **vars(main),
        split=split,
        frames=frames,
        test_frames=test_frames,
        others=tuple(_companion(config, number, main, split) for number in range(1, len(config.data.train))),
    )


def _companion(config: TrialConfig, number: int, main: Source, split: Split) -> Source:
    dataset = open_dataset(config.data, number)
    refuse_other_rate(number, dataset, main.dataset)
    episodes = tuple(range(len(dataset.lengths)))
    cameras = [view.policy_key for view in main.interface.cameras]
    try:
        interface = resolve_interface(config, dataset, episodes, cameras, number)
        refuse_other_widths(
            number,
            interface.state_width,
            interface.action_width,
            main.interface.state_width,
            main.interface.action_width,
        )
        refuse_other_relative(number, interface.relative, main.interface.relative)
        refuse_held_out_episodes(number, dataset, main.dataset, split)
        _check_policy(config, interface, dataset)
        return _source(config, dataset, interface, episodes, number)
    except ConfigError as error:
        if str(error).startswith(f"data.train.{number}"):
            raise
        raise ConfigError(f"data.train.{number} ({dataset.root}): {error}") from None


def _check_policy(config: TrialConfig, interface: Interface, dataset: Dataset) -> None:
    smolvla = check_policy(config, interface)
    for instruction in dataset.instructions:  # those of held-out episodes too
        refuse_cut_instruction(smolvla, instruction)


def _source(
    config: TrialConfig, dataset: Dataset, interface: Interface, episodes: tuple[int, ...], number: int
) -> Source:
    gripper_dims(config, dataset)  # wrong ones are refused also where no rule comes to use them
    rows = dataset.rows_of(episodes)
    if config.data.frames is not None:
        share = config.data.frames / training_frames(config.data)
        rows = subsample(rows, share, len(dataset.frame), config.data.split_seed, number)
    return Source(
        dataset=dataset,
        interface=interface,
        weights=frame_weights(config, dataset),
        curriculum=plan_curriculum(config.curriculum, rows, dataset.progress[rows], config.optim.samples),
        augmentations=augmentations(config, interface),
        places=resolve_places(config, dataset, interface, number),
    )


def training_frames(config: DataConfig) -> int:
    """Frames of all datasets that are trained on, where none is left out.

    Raises:
        DataError: a dataset cannot be opened.
    """
    main, *others = (open_dataset(config, number) for number in range(len(config.train)))
    held_out = split_episodes(config, len(main.lengths))
    return len(main.rows_of(held_out.train)) + sum(len(each.frame) for each in others)


def prepare(config: TrialConfig) -> Trial:
    """:func:`resolve`, and build the policy.

    Raises:
        UserError: one line that says what to change.
    """
    if config.runtime.threads is not None:
        torch.set_num_threads(config.runtime.threads)
    inputs = resolve(config)
    main, *others = (Lesson(each.interface, each.weights, each.places) for each in (inputs, *inputs.others))
    learner = Learner(config, main, others)
    mixture = Mixture(config.data.shares, config.runtime.seed)
    cache = Cache(config, learner, (inputs, *inputs.others), held_out=len(inputs.frames.rows))

    def feed(source: Source, number: int) -> tuple[BatchMaker, SampleStream]:
        sight = cache.sight(source, number)
        maker = BatchMaker(
            source.dataset,
            source.interface,
            config.policy.chunk_size,
            learner.policy.config.max_action_dim,
            source.augmentations,
            config.data.frame_stride,
            number,
            sight.cameras,
            sight.embeddings,
            sight.prefixes,
            config.optim.flow_draws,
        )
        return maker, SampleStream(source.curriculum, config.runtime.seed, mixture, number)

    maker, stream = feed(inputs, 0)
    others_fed = tuple(feed(source, number) for number, source in enumerate(inputs.others, start=1))
    hands = hand_chains(config, inputs.dataset, inputs.split.train)
    return Trial(
        inputs.dataset,
        inputs.split,
        learner,
        maker,
        stream,
        inputs.frames,
        others_fed,
        inputs.test_frames,
        hands,
        cache.ready(),
    )
