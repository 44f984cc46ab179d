"""The objective's arithmetic, on numbers that can be checked by hand."""

import numpy as np
import pytest

from smolvla_core.config import TrialConfig
from smolvla_core.data.dataset import Moments
from smolvla_core.errors import ConfigError
from smolvla_core.objective import (
    ScoredSteps,
    choose_frames,
    draw_errors,
    draw_standard_error,
    energy_scores,
    episode_standard_error,
    error_scale,
    evaluation_noise,
    frame_errors,
    scored_steps,
)


def test_frame_errors_by_hand():
    predicted = np.zeros((1, 2, 2, 1), dtype=np.float32)
    predicted[0, 1] = 4.0
    actual = np.full((1, 2, 1), 2.0, dtype=np.float32)
    no_pad = np.zeros((1, 2), dtype=bool)
    assert frame_errors(predicted, actual, no_pad, np.array([2.0])) == pytest.approx([1.0])
    assert frame_errors(predicted, actual, no_pad, np.array([1.0])) == pytest.approx([4.0])
    assert frame_errors(predicted, actual, no_pad, np.array([1.0]), order=1) == pytest.approx([2.0])


def test_padding_is_left_out():
    predicted = np.zeros((1, 1, 3, 1), dtype=np.float32)
    actual = np.array([[[1.0], [100.0], [100.0]]], dtype=np.float32)
    pad = np.array([[False, True, True]])
    assert frame_errors(predicted, actual, pad, np.array([1.0])) == pytest.approx([1.0])


def test_dims_that_hardly_vary_are_floored_and_constant_ones_count_as_they_are_trained():
    half = np.array([0.002, 0.002, 1e-5, *np.zeros(6)])
    scale = error_scale(Moments.of(np.array([-half, half], dtype=np.float32)))
    assert scale == pytest.approx([0.002, 0.002, 2e-5, *np.ones(6)])
    assert error_scale(Moments.of(np.zeros((4, 3), np.float32))).tolist() == [1.0, 1.0, 1.0]


def test_energy_score_prefers_honest_spread_over_collapse():
    rng = np.random.default_rng(0)
    actual = rng.choice([-1.0, 1.0], size=(500, 1, 1)).astype(np.float32)
    honest = rng.choice([-1.0, 1.0], size=(500, 8, 1, 1)).astype(np.float32)
    collapsed = np.zeros((500, 8, 1, 1), dtype=np.float32)
    pad, scale = np.zeros((500, 1), dtype=bool), np.ones(1)
    assert energy_scores(honest, actual, pad, scale).mean() < energy_scores(collapsed, actual, pad, scale).mean()
    assert frame_errors(collapsed, actual, pad, scale).mean() < frame_errors(honest, actual, pad, scale).mean()


def test_energy_score_of_perfect_draws_is_zero():
    actual = np.ones((2, 3, 4), dtype=np.float32)
    assert energy_scores(
        np.ones((2, 5, 3, 4), np.float32), actual, np.zeros((2, 3), bool), np.ones(4)
    ) == pytest.approx(0)


def test_evaluation_noise_is_fixed_and_cut():
    assert np.array_equal(evaluation_noise(0, 5, 1, 50, 32)[:30], evaluation_noise(0, 5, 1, 30, 32))
    assert not np.array_equal(evaluation_noise(0, 5, 1, 3, 2), evaluation_noise(0, 5, 2, 3, 2))
    assert not np.array_equal(evaluation_noise(0, 5, 1, 3, 2), evaluation_noise(1, 5, 1, 3, 2))


def test_chosen_frames_are_fixed():
    rows = np.arange(1000)
    assert np.array_equal(choose_frames(rows, 64, 0), choose_frames(rows, 64, 0))
    assert len(np.unique(choose_frames(rows, 64, 0))) == 64
    assert np.array_equal(choose_frames(rows[:10], 64, 0), rows[:10])


def test_horizon():
    def steps(**values):
        return scored_steps(TrialConfig.from_dict({"data": {"train": [{"root": "/data"}]}}).with_values(values), 30)

    assert steps(**{"policy.chunk_size": 30}) == ScoredSteps(30, 1, 1)
    with pytest.raises(ConfigError, match=r"eval.horizon_s is 1 s, 30 steps at 30 Hz.*at most 0.667"):
        steps(**{"policy.chunk_size": 20})
    with pytest.raises(ConfigError, match="between 1 step"):
        steps(**{"eval.horizon_s": 0.001})
    # 10 steps of 1/10 s each reach as far as 30 of 1/30 s
    assert steps(**{"policy.chunk_size": 10, "data.frame_stride": 3}) == ScoredSteps(10, 3, 1)
    assert steps(**{"policy.chunk_size": 10, "data.frame_stride": 3, "eval.frame_stride": 6}) == ScoredSteps(5, 6, 2)
    with pytest.raises(ConfigError, match=r"chunk_size \(9\) times data.frame_stride \(3\); set it to at most 0.9"):
        steps(**{"policy.chunk_size": 9, "data.frame_stride": 3})
    with pytest.raises(ConfigError, match="between 6 frames, the step that is scored, and"):
        steps(**{"eval.horizon_s": 0.1, "data.frame_stride": 2, "eval.frame_stride": 6})


def test_predictions_at_the_scored_stamps():
    predicted = np.arange(12, dtype=np.float32).reshape(1, 1, 6, 2)
    # of two steps the first, and of the velocity in dim 0 the mean
    assert ScoredSteps(3, 2, 2).of(predicted, (0,))[0, 0].tolist() == [[1, 1], [5, 5], [9, 9]]
    assert ScoredSteps(3, 2, 2).of(predicted, ())[0, 0].tolist() == [[0, 1], [4, 5], [8, 9]]
    assert np.array_equal(ScoredSteps(6, 3, 1).of(predicted, (0,)), predicted)


def test_noise_of_a_stride_is_that_of_its_time_stamps():
    assert np.array_equal(evaluation_noise(0, 5, 1, 30, 4)[::3], evaluation_noise(0, 5, 1, 10, 4, stride=3))


def test_errors_of_each_draw_average_to_those_of_the_frame():
    rng = np.random.default_rng(0)
    predicted, actual = rng.normal(size=(3, 2, 4, 5)).astype("f4"), rng.normal(size=(3, 4, 5)).astype("f4")
    pad = np.array([[False] * 4, [False, True, True, True], [False, False, True, True]])
    per_draw = draw_errors(predicted, actual, pad, np.ones(5))
    assert per_draw.shape == (3, 2)
    assert per_draw[1, 0] == pytest.approx(np.square(predicted[1, 0, 0] - actual[1, 0]).mean())
    assert per_draw.mean(axis=1) == pytest.approx(frame_errors(predicted, actual, pad, np.ones(5)))


def test_the_standard_error_by_episodes_by_hand_and_as_a_bootstrap_gives_it():
    # episode means 1 and 3 around 2: sqrt(2 / 1 * (2 ** 2 + 2 ** 2)) / 4
    assert episode_standard_error(np.array([1.0, 1.0, 3.0, 3.0]), np.array([4, 4, 9, 9])) == pytest.approx(1.0)
    assert episode_standard_error(np.array([1.0, 2.0]), np.array([4, 4])) is None
    rng = np.random.default_rng(0)
    episode = np.repeat(np.arange(30), rng.integers(5, 20, size=30))
    values = rng.normal(size=30)[episode] + rng.normal(size=len(episode))
    means = [np.concatenate([values[episode == e] for e in rng.integers(0, 30, size=30)]).mean() for _ in range(4000)]
    assert episode_standard_error(values, episode) == pytest.approx(np.std(means) * np.sqrt(30 / 29), rel=0.05)


def test_the_standard_error_by_draws():
    # each frame's mean of two draws has variance 2 / 2, the mean of both frames half of that
    assert draw_standard_error(np.array([[0.0, 2.0], [5.0, 3.0]])) == pytest.approx(np.sqrt(0.5))
    assert draw_standard_error(np.ones((4, 1))) is None
