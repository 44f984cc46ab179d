"""Run the objective on a policy."""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from smolvla_core.config import TrialConfig
from smolvla_core.critical import critical_frames
from smolvla_core.data.batch import BatchMaker, to_lerobot
from smolvla_core.data.dataset import Dataset, Split, open_dataset, split_episodes
from smolvla_core.errors import DataError
from smolvla_core.learner import Learner
from smolvla_core.objective import (
    ScoredSteps,
    choose_frames,
    energy_scores,
    error_scale,
    evaluation_noise,
    evaluation_time,
    frame_errors,
    scored_steps,
)


@dataclass(frozen=True)
class EvaluationSet:
    """Held-out rows that every trial of a study is scored on."""

    critical: NDArray[np.int64]
    everywhere: NDArray[np.int64]
    rule: str

    @property
    def rows(self) -> NDArray[np.int64]:
        """All of them, each once."""
        return np.union1d(self.critical, self.everywhere)


def evaluation_set(config: TrialConfig, dataset: Dataset, split: Split) -> EvaluationSet:
    """Fixed, seeded sub-samples of the validation episodes: critical frames, and any frames.

    Frames so near the episode's end that no scored step is whole are left out.

    Raises:
        ConfigError, DataError: the rule for critical frames cannot be applied or finds none.
    """
    critical = critical_frames(config, dataset, split.val)
    chosen, anywhere = (
        choose_frames(_with_a_whole_step(config, dataset, rows), config.eval.frames, config.eval.seed)
        for rows in (critical.rows, dataset.rows_of(split.val))
    )
    return EvaluationSet(chosen, anywhere, critical.rule)


def _with_a_whole_step(config: TrialConfig, dataset: Dataset, rows: NDArray[np.int64]) -> NDArray[np.int64]:
    step = config.scored_stride
    left = dataset.lengths[dataset.episode[rows]] - dataset.frame[rows]
    if not (left >= step).any():
        raise DataError(
            f"eval: no critical frame of a validation episode is followed by {step} frames, the step that is scored; "
            "lower data.frame_stride or eval.frame_stride"
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
    return {
        "critical_rule": frames.rule,
        "critical_frames": len(frames.critical),
        "frames_anywhere": len(frames.everywhere),
        "draws": config.eval.draws,
        "horizon_s": config.eval.horizon_s,
        "scored_hz": dataset.fps / config.scored_stride,
        "train_episodes": len(split.train),
        "val_episodes": len(split.val),
        "test_episodes": len(split.test),
    }


def evaluate(learner: Learner, maker: BatchMaker, frames: EvaluationSet) -> dict[str, float]:
    """Score a policy; lower is better for every number.

    Returns:
        ``val/critical_action_mse`` (the objective), ``val/critical_action_l1``,
        ``val/critical_energy_score``, the same squared error on frames anywhere
        (``val/action_mse``), all in units of the training deviation, and ``val/flow_loss``, the
        flow-matching loss at fixed noise and time over the horizon.

    Raises:
        ConfigError: the horizon is longer than the chunk.
    """
    config, dataset = learner.config, maker.dataset
    steps = scored_steps(config, dataset.fps)
    scale = error_scale(learner.interface.action.std)
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
    squared = frame_errors(predicted, actual, is_pad, scale)
    absolute = frame_errors(predicted, actual, is_pad, scale, order=1)
    energy = energy_scores(predicted, actual, is_pad, scale)
    critical, everywhere = np.isin(rows, frames.critical), np.isin(rows, frames.everywhere)
    return {
        "val/critical_action_mse": float(squared[critical].mean()),
        "val/critical_action_l1": float(absolute[critical].mean()),
        "val/critical_energy_score": float(energy[critical].mean()),
        "val/action_mse": float(squared[everywhere].mean()),
        "val/flow_loss": float(flow[everywhere].mean()),
    }


@torch.no_grad()
def _predict(
    learner: Learner, maker: BatchMaker, rows: NDArray[np.int64], scored: ScoredSteps
) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
    """Predictions (F, K, policy steps, A) in raw units, and flow losses (F,) at the scored stamps."""
    steps, every = scored.policy_steps, scored.per_stamp
    evaluation, draws = learner.config.eval, learner.config.eval.draws
    per_pass = max(1, evaluation.batch_size // draws)
    predictions, losses = [], []
    for start in range(0, len(rows), per_pass):
        chosen = rows[start : start + per_pass]
        noise, time = _noise_and_time(learner, maker, chosen)
        # the batch carries the first draw; the policy is given all of them
        batch = maker.validation(chosen, noise[:, 0], time[:, 0])
        inputs = to_lerobot(batch, learner.interface, learner.processors, learner.device)
        draws_on_device = (torch.from_numpy(values).to(learner.device) for values in (noise, time))
        with learner.autocast():
            answer = learner.forward.answer(inputs, *draws_on_device)
        raw = learner.processors.post(answer.actions[:, :, :steps].float())
        predictions.append(raw.numpy())
        valid = (~batch.is_pad[:, None, :steps:every]).float()
        errors = answer.errors[:, :, :steps:every].float().cpu().mean(dim=3)
        per_draw = (errors * valid).sum(dim=2) / valid.sum(dim=2)
        losses.append(per_draw.mean(dim=1).double().numpy())
    return np.concatenate(predictions), np.concatenate(losses)


def _noise_and_time(
    learner: Learner, maker: BatchMaker, rows: NDArray[np.int64]
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Every row's draws of noise (F, K, T, D) and time (F, K)."""
    seed, draws = learner.config.eval.seed, range(learner.config.eval.draws)
    shape = (maker.chunk_size, maker.action_dims)
    noise = [[evaluation_noise(seed, int(row), draw, *shape, maker.stride) for draw in draws] for row in rows]
    time = [[evaluation_time(seed, int(row), draw) for draw in draws] for row in rows]
    return np.array(noise, dtype=np.float32), np.array(time, dtype=np.float32)
