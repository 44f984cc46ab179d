"""A sub-sample of frames is the same for every trial, and part of every larger one."""

import numpy as np
import pytest

from smolvla_core.data.subsample import subsample
from smolvla_core.trial import prepare, resolve, training_frames
from tests.core_fixtures import tiny_trial
from tests.test_cotraining import two_tasks

ROWS = np.arange(100, 1100)


def taken(share, seed=0, number=0, rows=ROWS):
    return subsample(rows, share, 2000, seed, number)


def test_a_smaller_one_is_part_of_a_larger_one():
    tenth, half = taken(0.1), taken(0.5)
    assert (len(tenth), len(half)) == (100, 500)
    assert set(tenth) < set(half) < set(ROWS)
    assert (np.diff(half) > 0).all()
    assert abs(half.mean() - ROWS.mean()) < 50  # from everywhere
    assert taken(1.0) is ROWS
    assert len(taken(1e-9)) == 1


def test_it_depends_on_the_split_s_seed_and_the_dataset_alone():
    assert (taken(0.1) == taken(0.1)).all()
    assert set(taken(0.1, seed=1)) != set(taken(0.1))
    assert set(taken(0.1, number=1)) != set(taken(0.1))


def test_trials_draw_from_it_whatever_their_seed_batch_and_curriculum(generic_root, cache_dir):
    config = tiny_trial(generic_root, cache_dir, data__frames=40)
    everything = resolve(tiny_trial(generic_root, cache_dir))
    inputs = resolve(config)
    rows = set(inputs.curriculum.rows)
    assert len(rows) == 40
    assert (inputs.frames.rows == everything.frames.rows).all()  # what is scored is not thinned
    np.testing.assert_array_equal(inputs.interface.action.mean, everything.interface.action.mean)
    other = {"runtime.seed": 3, "curriculum.scheme": "second_half", "optim.batch_size": 8}
    trial = prepare(config.with_values(other))
    assert set(trial.stream.rows(0, 16)) <= rows
    late = resolve(config.with_values(other)).curriculum.late
    assert set(late) < rows


def test_two_datasets_are_thinned_alike(eggs_root, mousetraps_root, cache_dir):
    for weight in (0.25, 3.0):
        config = two_tasks(eggs_root, mousetraps_root, cache_dir, weight=weight)
        total = training_frames(config.data)
        thinned = resolve(config.with_values({"data.frames": total // 4}))
        whole = resolve(config)
        sizes = [(len(few.curriculum.rows), len(all_.curriculum.rows)) for few, all_ in zip((thinned, *thinned.others), (whole, *whole.others), strict=True)]  # fmt: skip # noqa: E501
        assert sum(few for few, _ in sizes) <= total // 4
        assert all(few == pytest.approx(many / 4, abs=1) for few, many in sizes)
