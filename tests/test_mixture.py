"""Which dataset a sample is of: by the shares, whatever the batch, and each dataset in its own order."""

import numpy as np
import pytest

from smolvla_core.data.mixture import BLOCK, Mixture
from smolvla_core.data.sampler import Curriculum, SampleStream, plan_curriculum
from tests.test_sampler import PROGRESS, ROWS, CurriculumConfig

COUNT = 20_000


def test_shares_by_histogram():
    drawn = np.bincount(Mixture((2.0, 1.0, 1.0), seed=0).datasets(0, COUNT), minlength=3)
    # four standard deviations of a binomial count
    assert drawn / COUNT == pytest.approx([0.5, 0.25, 0.25], abs=4 * np.sqrt(0.25 / COUNT))


@pytest.mark.parametrize(("shares", "never"), [((1.0, 0.0), 1), ((0.3, 0.0, 0.1), 1), ((0.1, 0.1, 0.0), 2)])
def test_a_weight_of_zero_is_never_drawn(shares, never):
    drawn = np.bincount(Mixture(shares, seed=3).datasets(0, COUNT), minlength=len(shares))
    assert drawn[never] == 0
    assert (np.delete(drawn, never) > 0).all()


def test_a_sample_s_dataset_does_not_depend_on_how_it_is_asked_for():
    whole = Mixture((1.0, 0.7), seed=1).datasets(0, 2 * BLOCK + 100)
    parts = [Mixture((1.0, 0.7), seed=1).datasets(first, 17) for first in range(0, 2 * BLOCK + 51, 17)]
    assert np.array_equal(whole[: 17 * len(parts)], np.concatenate(parts)[: len(whole)])
    # asked for the last sample first
    fresh = Mixture((1.0, 0.7), seed=1)
    for sample in (2 * BLOCK + 50, BLOCK, BLOCK - 1, 3, 0):
        assert fresh.datasets(sample, 1)[0] == whole[sample]
        assert fresh.count_before(1, sample) == (whole[:sample] == 1).sum()


def test_seeds_differ_and_nearly_equal_shares_mostly_draw_alike():
    first, same, other = (Mixture((1.0, 1.0), seed).datasets(0, COUNT) for seed in (0, 0, 1))
    assert np.array_equal(first, same)
    assert (first != other).mean() > 0.4
    assert (first != Mixture((1.0, 1.1), 0).datasets(0, COUNT)).mean() == pytest.approx(0.024, abs=0.005)


def rows_of(shares, dataset, curriculum=None, count=2000):
    curriculum = curriculum or Curriculum.none(ROWS)
    return SampleStream(curriculum, 0, Mixture(shares, 0), dataset).rows(0, count)


def test_a_dataset_s_own_order_depends_neither_on_the_others_nor_on_the_shares():
    alone = SampleStream(Curriculum.none(ROWS), seed=0).rows(0, 2000)
    half, most, zero = (rows_of(shares, 0) for shares in ((1.0, 1.0), (1.0, 0.2), (1.0, 0.0)))
    assert np.array_equal(half, alone[: len(half)])
    assert np.array_equal(most, alone[: len(most)])
    assert np.array_equal(zero, alone)
    second = rows_of((1.0, 1.0), 1)
    assert np.array_equal(second, rows_of((0.2, 1.0, 0.3), 1)[: len(second)])
    # every epoch of it is whole
    assert sorted(second[50:100]) == ROWS.tolist()
    assert not np.array_equal(second[:50], alone[:50])


def test_a_curriculum_is_per_dataset_and_spans_the_whole_run():
    plan = plan_curriculum(CurriculumConfig(scheme="second_half", start=0.8), ROWS, PROGRESS, samples=400)
    stream = SampleStream(plan, 0, Mixture((1.0, 1.0), 0), 1)
    before, after = stream.rows(0, 200), stream.rows(200, 200)
    assert before.min() < 140
    # ten late rows, whose first epoch is whole although other datasets are drawn in between
    assert sorted(after[:10]) == list(range(140, 150))
    again = SampleStream(plan, 0, Mixture((1.0, 1.0), 0), 1)
    assert np.array_equal(again.rows(200, 200), after)
