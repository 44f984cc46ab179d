"""Intervals by hand where that can be done, and by how often they hold what is true."""

import numpy as np
import pytest
from scipy import stats

from tune.intervals import Errors, Interval, interval, mean_error, percent, relative_gain


def errors(means, counts=None):
    """Of seeds' episode means (R, E)."""
    means = np.asarray(means, dtype=float)
    counts = np.ones(means.shape[1], int) if counts is None else counts
    return Errors.of([[(e, n, m) for e, (n, m) in enumerate(zip(counts, row, strict=True))] for row in means])


def test_a_mean_weighs_episodes_by_their_frames():
    assert mean_error(errors([[1.0, 4.0]], [2, 1])).mean == pytest.approx(2.0)
    assert mean_error(errors([[1.0, 4.0], [2.0, 5.0]], [2, 1])).mean == pytest.approx(2.5)


def test_the_interval_of_a_mean_is_student_s():
    values = np.array([0.9, 1.4, 1.1, 0.7, 1.6, 1.2, 0.8, 1.3])
    found = mean_error(errors([values]))
    reach = stats.t.ppf(0.975, 7) * values.std(ddof=1) / np.sqrt(8)
    assert (found.mean, found.high - found.mean) == (pytest.approx(values.mean()), pytest.approx(reach, rel=0.06))
    assert found.high - found.mean == pytest.approx(found.mean - found.low)


def test_seeds_that_differ_widen_it():
    episodes = np.array([0.9, 1.4, 1.1, 0.7, 1.6, 1.2, 0.8, 1.3])
    alike = mean_error(errors([episodes] * 3))
    apart = mean_error(errors([episodes - 0.5, episodes, episodes + 0.5]))
    assert apart.high - apart.low > 2 * (alike.high - alike.low)
    # three seeds half a unit apart: Student's of two degrees of freedom, and a little for the episodes
    assert apart.high - apart.mean == pytest.approx(stats.t.ppf(0.975, 2) * 0.5 / np.sqrt(3), rel=0.15)


def test_a_gain_is_paired():
    rng = np.random.default_rng(0)
    hard = rng.uniform(0.1, 10.0, size=12)  # episodes differ a hundredfold, the gain hardly
    better = hard * (0.9 + 0.01 * rng.normal(size=12))
    found = relative_gain(errors([better]), errors([hard]))
    assert found.mean == pytest.approx(0.1, abs=0.01)
    assert found.low > 0.08
    assert relative_gain(errors([hard]), errors([hard])) == Interval(0.0, 0.0, 0.0)
    assert relative_gain(errors([hard]), errors([better])).sign == -1


def test_what_cannot_be_known_has_no_interval():
    assert mean_error(errors([[1.0], [2.0]])) == Interval(1.5)  # one episode
    assert relative_gain(errors([[1.0, 2.0]]), errors([[0.0, 0.0]])).low is None  # no share of nothing
    assert Interval(0.2).sign == 0
    assert percent(Interval(0.2)) == "20.0 % (no interval)"
    assert percent(Interval(0.083, 0.021, 0.145)) == "8.3 % (95 % interval 2.1 to 14.5 %)"


def test_unpaired_errors_are_refused():
    with pytest.raises(ValueError, match="same episodes and seeds"):
        relative_gain(errors([[1.0, 2.0]]), errors([[1.0, 2.0, 3.0]]))
    with pytest.raises(ValueError, match="same episodes and seeds"):
        relative_gain(errors([[1.0, 2.0]] * 2), errors([[1.0, 2.0]]))
    with pytest.raises(ValueError, match="different episodes"):
        Errors.of([[(0, 1, 1.0)], [(3, 1, 1.0)]])
    with pytest.raises(ValueError, match="no seed"):
        Errors.of([])


@pytest.mark.parametrize(("seeds", "episodes", "by_seed"), [(1, 6, 0.0), (3, 6, 0.5), (3, 20, 2.0), (5, 4, 0.2)])
def test_it_holds_the_truth_about_as_often_as_it_says(seeds, episodes, by_seed):
    """Crossed random effects with known spread: 95 % is promised; a little more is its design."""
    rng = np.random.default_rng(seeds * 100 + episodes)
    held, trials = 0, 300
    for _ in range(trials):
        values = (
            by_seed * rng.normal(size=(seeds, 1)) + rng.normal(size=episodes) + 0.3 * rng.normal(size=(seeds, episodes))
        )
        found = mean_error(errors(5 + values))
        held += found.low <= 5 <= found.high
    assert 0.92 <= held / trials <= 0.99, held / trials


def test_the_same_data_gives_the_same_interval():
    some = errors(np.random.default_rng(0).normal(size=(3, 5)))
    assert mean_error(some) == mean_error(some)
    assert interval(some.totals, 3, 5, seed=1) != interval(some.totals, 3, 5, seed=2)
