"""Run the objective on a policy; as a program, let it act: see ``smolvla_core.closed_loop.command``."""

import sys
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray

from smolvla_core.config import TrialConfig
from smolvla_core.critical import critical_frames
from smolvla_core.data.batch import BatchMaker, to_lerobot
from smolvla_core.data.dataset import Dataset, Split, open_dataset, split_episodes
from smolvla_core.errors import DataError, InfeasibleError, first_line
from smolvla_core.kinematics import HandChain, hand_chains
from smolvla_core.learner import Learner, free_memory
from smolvla_core.objective import (
    ScoredSteps,
    choose_frames,
    draw_errors,
    draw_standard_error,
    energy_scores,
    episode_standard_error,
    error_scale,
    evaluation_noise,
    evaluation_time,
    frame_errors,
    scored_steps,
)
from smolvla_core.precision import eef_errors, gripper_timing_errors, group_errors, knows_action
from smolvla_core.r1pro import MOST_OFF_M

Part = Literal["val", "test"]
EpisodeErrors = dict[str, list[tuple[int, int, float]]]
"""Metric -> (episode, its scored frames, their mean error), from which paired comparisons resample episodes."""

_WORDS = {"val": "validation", "test": "test"}


@dataclass(frozen=True)
class EvaluationSet:
    """Held-out rows that every trial of a study is scored on."""

    critical: NDArray[np.int64]
    everywhere: NDArray[np.int64]
    rule: str
    part: Part = "val"

    @property
    def rows(self) -> NDArray[np.int64]:
        """All of them, each once."""
        return np.union1d(self.critical, self.everywhere)


@dataclass(frozen=True)
class Evaluation:
    """A policy's scores on one part of the data; lower is better for every number.

    Attributes:
        metrics: mean errors, and the standard errors of the objective (``..._se``).
        episodes: the same errors by episode.
    """

    metrics: dict[str, float]
    episodes: EpisodeErrors


def evaluation_set(
    config: TrialConfig, dataset: Dataset, split: Split, part: Part = "val", rule: str | None = None
) -> EvaluationSet:
    """Fixed, seeded sub-samples of the validation (or test) episodes: critical frames, and any frames.

    Frames so near the episode's end that no scored step is whole are left out. ``rule`` is that of critical
    frames, ``eval.critical`` unless given.

    Raises:
        ConfigError, DataError: the rule for critical frames cannot be applied or finds none.
    """
    episodes = split.val if part == "val" else split.test
    if not episodes:
        raise DataError("eval.test: there are no test episodes; set data.test_fraction above 0")
    critical = critical_frames(config, dataset, episodes, _WORDS[part], rule)
    chosen, anywhere = (
        choose_frames(_with_a_whole_step(config, dataset, rows, part), config.eval.frames, config.eval.seed)
        for rows in (critical.rows, dataset.rows_of(episodes))
    )
    return EvaluationSet(chosen, anywhere, critical.rule, part)


def _with_a_whole_step(config: TrialConfig, dataset: Dataset, rows: NDArray[np.int64], part: Part) -> NDArray[np.int64]:
    step = config.scored_stride
    left = dataset.lengths[dataset.episode[rows]] - dataset.frame[rows]
    if not (left >= step).any():
        raise DataError(
            f"eval: no critical frame of a {_WORDS[part]} episode is followed by {step} frames, the step that is "
            "scored; lower data.frame_stride or eval.frame_stride"
        )
    return rows[left >= step]


def describe_objective(config: TrialConfig) -> dict[str, int | float | str]:
    """What the objective is measured on: shared by all trials of a study, and recorded with it.

    Raises:
        UserError: the data cannot be opened or has no critical frame.
    """
    dataset = open_dataset(config.data)
    split = split_episodes(config.data, len(dataset.lengths))
    frames = evaluation_set(config, dataset, split)
    hands = hand_chains(config, dataset, split.train)
    off = {"eef_off_m": max(hand.chain.off_m for hand in hands)} if hands else {}
    return {
        "critical_rule": frames.rule,
        "critical_frames": len(frames.critical),
        "frames_anywhere": len(frames.everywhere),
        "draws": config.eval.draws,
        "horizon_s": config.eval.horizon_s,
        "scored_hz": dataset.fps / config.scored_stride,
        "train_episodes": len(split.train),
        "val_episodes": len(split.val),
        "scored_episodes": len(np.unique(dataset.episode[frames.critical])),
        "test_episodes": len(split.test),
        **off,
    }


def evaluate(learner: Learner, maker: BatchMaker, frames: EvaluationSet) -> dict[str, float]:
    """The metrics of :func:`score`."""
    return score(learner, maker, frames).metrics


def score(learner: Learner, maker: BatchMaker, frames: EvaluationSet, hands: tuple[HandChain, ...] = ()) -> Evaluation:
    """Score a policy.

    Args:
        learner: holds it.
        maker: of the main dataset's batches.
        frames: to score; of test episodes, the metrics below begin with ``test/``.
        hands: for the end-effector error; those that are too far off are left out.

    Returns:
        ``val/critical_action_mse`` (the objective), ``val/critical_action_l1``,
        ``val/critical_energy_score``, the same squared error on frames anywhere
        (``val/action_mse``), all in units of the training deviation, and ``val/flow_loss``, the
        flow-matching loss at fixed noise and time over the horizon.

        The objective's standard errors: ``val/critical_action_mse_se`` by the choice of episodes
        (where there are several) and ``val/critical_action_mse_draw_se`` by the draws of noise.

        For an R1Pro's action, over the critical frames: ``val/critical_base_mse`` and so on for each
        part of the robot, ``val/gripper_timing_s`` where a gripper moves, ``val/eef_error_m``.

    Raises:
        ConfigError: the horizon is longer than the chunk.
        InfeasibleError: the memory does not hold a single frame's draws.
    """
    config, dataset = learner.config, maker.dataset
    steps = scored_steps(config, dataset.fps)
    scale = error_scale(learner.interface.action)
    rows = frames.rows
    learner.swap_ema()
    learner.policy.eval()
    try:
        predicted, flow = _predict(learner, maker, rows, steps)
    finally:
        learner.policy.train()
        learner.swap_ema()
    predicted = steps.of(predicted, dataset.averaged_dims)
    actual = dataset.chunk_actions(rows, steps.count, steps.stride)
    # a step is left out where its last frame lies past the episode's end: what would follow is not known
    _, is_pad = dataset.chunk_rows(rows + steps.stride - 1, steps.count, steps.stride)
    per_draw = draw_errors(predicted, actual, is_pad, scale)
    critical, everywhere = np.isin(rows, frames.critical), np.isin(rows, frames.everywhere)
    decisive = predicted[critical], actual[critical], is_pad[critical]
    errors = {
        "critical_action_mse": (critical, per_draw.mean(axis=1)[critical]),
        "critical_action_l1": (critical, frame_errors(*decisive, scale, order=1)),
        "critical_energy_score": (critical, energy_scores(*decisive, scale)),
        "action_mse": (everywhere, per_draw.mean(axis=1)[everywhere]),
        "flow_loss": (everywhere, flow[everywhere]),
    }
    if knows_action(dataset):
        groups = group_errors(*decisive, scale)
        errors |= {f"critical_{group}_mse": (critical, values) for group, values in groups.items()}
        timing = gripper_timing_errors(*decisive, steps.stride / dataset.fps)
        moves = np.isfinite(timing)
        if moves.any():
            errors["gripper_timing_s"] = (np.flatnonzero(critical)[moves], timing[moves])
    near = [hand for hand in hands if hand.chain.off_m <= MOST_OFF_M]
    if near:
        errors["eef_error_m"] = (critical, eef_errors(*decisive, near))
    noise = {
        "critical_action_mse_se": episode_standard_error(
            per_draw.mean(axis=1)[critical], dataset.episode[rows[critical]]
        ),
        "critical_action_mse_draw_se": draw_standard_error(per_draw[critical]),
    }
    means = {name: float(values.mean()) for name, (_, values) in errors.items()}
    known = means | {name: value for name, value in noise.items() if value is not None}
    return Evaluation(
        {f"{frames.part}/{name}": value for name, value in known.items()},
        {
            f"{frames.part}/{name}": _by_episode(dataset.episode[rows[where]], values)
            for name, (where, values) in errors.items()
        },
    )


def _by_episode(episode: NDArray[np.int64], values: NDArray[np.float64]) -> list[tuple[int, int, float]]:
    return [
        (int(number), int((episode == number).sum()), float(values[episode == number].mean()))
        for number in np.unique(episode)
    ]


@torch.no_grad()
def _predict(
    learner: Learner, maker: BatchMaker, rows: NDArray[np.int64], scored: ScoredSteps
) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
    """Predictions (F, K, policy steps, A) in raw units, and flow losses (F,) at the scored stamps.

    Frames that do not fit into the memory together are tried in halves.

    Raises:
        InfeasibleError: not even one frame with its draws fits.
    """
    at_once = max(1, learner.config.eval.batch_size // learner.config.eval.draws)
    predictions, losses = [], []
    start = 0
    while start < len(rows):
        chosen = rows[start : start + at_once]
        found = _predict_at_once(learner, maker, chosen, scored)
        if found is None:  # here, where nothing holds the tensors of what failed any more
            at_once = (len(chosen) + 1) // 2
            free_memory(learner.device)
            continue
        predictions.append(found[0])
        losses.append(found[1])
        start += len(chosen)
    return np.concatenate(predictions), np.concatenate(losses)


def _predict_at_once(
    learner: Learner, maker: BatchMaker, rows: NDArray[np.int64], scored: ScoredSteps
) -> tuple[NDArray[np.float32], NDArray[np.float64]] | None:
    """As :func:`_predict`; None where memory ran out, and fewer rows are to be tried."""
    steps, every = scored.policy_steps, scored.per_stamp
    noise, time = _noise_and_time(learner, maker, rows)
    # the batch carries the first draw; the policy is given all of them
    batch = maker.validation(rows, noise[:, 0], time[:, 0])
    inputs = to_lerobot(batch, learner.interface, learner.processors, learner.device)
    noise_there, time_there = (torch.from_numpy(values).to(learner.device) for values in (noise, time))
    try:
        with learner.autocast():
            answer = learner.forward.answer(inputs, noise_there, time_there, tuple(rows.tolist()), steps)
    except torch.OutOfMemoryError as error:
        if len(rows) == 1:
            draws = learner.config.eval.draws
            raise InfeasibleError(f"not even one frame with {draws} draws fits ({first_line(error)})") from error
        return None
    raw = learner.processors.post(answer.actions.float()) + batch.anchor[:, None, None]
    valid = (~batch.is_pad[:, None, :steps:every]).float()
    errors = answer.errors[:, :, ::every].float().cpu().mean(dim=3)
    per_draw = (errors * valid).sum(dim=2) / valid.sum(dim=2)
    return raw.numpy(), per_draw.mean(dim=1).double().numpy()


def _noise_and_time(
    learner: Learner, maker: BatchMaker, rows: NDArray[np.int64]
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Every row's draws of noise (F, K, T, D) and time (F, K)."""
    seed, draws = learner.config.eval.seed, range(learner.config.eval.draws)
    shape = (maker.chunk_size, maker.action_dims)
    noise = [[evaluation_noise(seed, int(row), draw, *shape, maker.stride) for draw in draws] for row in rows]
    time = [[evaluation_time(seed, int(row), draw) for draw in draws] for row in rows]
    return np.array(noise, dtype=np.float32), np.array(time, dtype=np.float32)


if __name__ == "__main__":
    from smolvla_core.closed_loop.command import main

    sys.exit(main())
