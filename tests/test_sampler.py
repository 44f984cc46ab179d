"""Sample i is the same whatever the batch, and a curriculum changes only the pool."""

import numpy as np
import pytest

from smolvla_core.config import CurriculumConfig
from smolvla_core.data.sampler import Curriculum, SampleStream, plan_curriculum
from smolvla_core.errors import ConfigError

ROWS = np.arange(100, 150)


def stream(seed=0, rows=ROWS):
    return SampleStream(Curriculum.none(rows), seed)


def test_the_stream_does_not_know_the_batch_size():
    whole = stream().rows(0, 96)
    parts = np.concatenate([stream().rows(first, 8) for first in range(0, 96, 8)])
    assert np.array_equal(whole, parts)


def test_an_epoch_visits_every_row_once():
    rows = stream().rows(0, 150)
    for epoch in range(3):
        assert sorted(rows[epoch * 50 : (epoch + 1) * 50]) == ROWS.tolist()
    assert not np.array_equal(rows[:50], rows[50:100])


def test_seeds_differ():
    assert not np.array_equal(stream(0).rows(0, 50), stream(1).rows(0, 50))


def test_noise_of_a_short_chunk_is_the_beginning_of_a_long_one():
    long_noise, long_time = stream().flow(7, 3, steps=50, dims=32)
    short_noise, short_time = stream().flow(7, 3, steps=30, dims=32)
    assert np.array_equal(long_noise[:, :30], short_noise)
    assert np.array_equal(long_time, short_time)


def test_noise_and_time_belong_to_the_sample():
    noise, time = stream().flow(0, 10, 5, 4)
    later_noise, later_time = stream().flow(6, 4, 5, 4)
    assert np.array_equal(noise[6:], later_noise)
    assert np.array_equal(time[6:], later_time)


def test_several_draws_of_a_sample_differ_and_begin_with_its_only_one():
    alone, alone_time = stream().flow_at(np.array([4, 9]), 5, 3)
    noise, time = stream().flow_at(np.array([4, 9]), 5, 3, draws=3)
    assert noise.shape == (2, 3, 5, 3)
    assert time.shape == (2, 3)
    assert np.array_equal(noise[:, 0], alone)
    assert np.array_equal(time[:, 0], alone_time)
    assert len(np.unique(time)) == 6
    assert len(np.unique(noise)) == noise.size


def test_time_is_distributed_as_upstream():
    _, time = stream().flow(0, 4000, 1, 1)
    assert time.min() >= 0.001
    assert time.max() <= 1.0
    assert time.mean() == pytest.approx(0.6 * 0.999 + 0.001, abs=0.01)  # Beta(1.5, 1) has mean 0.6


PROGRESS = np.linspace(0, 1, 50, endpoint=False, dtype=np.float32)


def curriculum_stream(**values):
    config = CurriculumConfig(scheme="second_half", **values)
    return SampleStream(plan_curriculum(config, ROWS, PROGRESS, samples=400), seed=0)


def test_second_half():
    curriculum = curriculum_stream()
    assert np.array_equal(curriculum.rows(0, 200), stream().rows(0, 200))
    assert curriculum.rows(200, 200).min() >= 125
    assert sorted(curriculum.rows(200, 25)) == ROWS[25:].tolist()


def test_a_histogram_of_the_stages_by_progress():
    """Fifths of the episode in each half of the budget: even, then none below the middle."""
    rows = curriculum_stream().rows(0, 400).reshape(2, 200)
    full, late = (np.histogram(PROGRESS[half - ROWS[0]], bins=[0, 0.2, 0.4, 0.6, 0.8, 1])[0] for half in rows)
    assert full.tolist() == [40] * 5
    assert late.tolist() == [0, 0, 40, 80, 80]


def test_share_and_start():
    curriculum = curriculum_stream(share=0.25, start=0.8)
    assert curriculum.rows(0, 100).min() < 125
    assert set(curriculum.rows(100, 300)) == set(range(140, 150))


def test_a_ramp_takes_over_gradually():
    rows = curriculum_stream(share=0.25, ramp=0.5).rows(0, 400)
    late = (rows >= 125).reshape(4, 100).mean(axis=1)
    # half of the full episode is late anyway: the share of late frames grows from 1/2 to 1
    assert late[0] == pytest.approx(0.5)
    assert late[1] == pytest.approx(0.5 + 0.5 * 0.25, abs=0.12)
    assert late[2] == pytest.approx(0.5 + 0.5 * 0.75, abs=0.12)
    assert late[3] == 1.0


def test_a_curriculum_resumes_sample_exactly():
    whole = curriculum_stream(share=0.25, ramp=0.5).rows(0, 400)
    parts = [curriculum_stream(share=0.25, ramp=0.5).rows(first, 8) for first in range(0, 400, 8)]
    assert np.array_equal(whole, np.concatenate(parts))


def test_no_late_frame_is_refused():
    with pytest.raises(ConfigError, match="no training frame has such progress"):
        plan_curriculum(CurriculumConfig(scheme="second_half", start=0.99), ROWS, PROGRESS, 400)
