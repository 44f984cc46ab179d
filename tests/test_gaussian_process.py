"""The searcher's model, against Optuna's of the same definition, and by hand."""

import numpy as np
import pytest
import torch
from optuna._gp.acqf import logei
from optuna._gp.gp import fit_kernel_params
from optuna._gp.prior import default_log_prior

from tune.gaussian_process import LEAST_NOISE, fit, log_expected_improvement


def results(seed: int = 0, count: int = 30):
    """Noisy values of two of four numbers and of a choice of three."""
    rng = np.random.default_rng(seed)
    points = rng.random((count, 5))
    points[:, 4] = rng.integers(3, size=count)
    values = np.sin(4 * points[:, 0]) + points[:, 1] + 0.3 * (points[:, 4] == 1) + 0.05 * rng.standard_normal(count)
    return points, (values - values.mean()) / values.std(), np.array([False, False, False, False, True])


@pytest.mark.parametrize("seed", [0, 1])
def test_it_is_fitted_as_optunas_is(seed):
    points, values, choices = results(seed)
    ours = fit(points, values, choices)
    theirs = fit_kernel_params(points, values, choices, default_log_prior, LEAST_NOISE, False)
    assert ours.weights == pytest.approx(theirs.inverse_squared_lengthscales.numpy(), rel=1e-3)
    assert ours.scale == pytest.approx(theirs.kernel_scale.item(), rel=1e-3)
    assert ours.noise == pytest.approx(theirs.noise_var.item(), rel=1e-2)
    at = results(seed + 7)[0]
    mean, variance = theirs.posterior(torch.from_numpy(at))
    assert ours.predict(at)[0] == pytest.approx(mean.numpy(), abs=1e-3)
    assert ours.predict(at)[1] == pytest.approx(variance.sqrt().numpy(), abs=1e-3)


def test_what_is_believed_leaves_the_mean_and_takes_the_doubt():
    process = fit(*results())
    at = results(5)[0]
    before, after = process.predict(at), process.believing(at[:3]).predict(at)
    assert after[0] == pytest.approx(before[0], abs=1e-6)
    assert (after[1] <= before[1] + 1e-9).all()
    assert (after[1][:3] < 0.5 * before[1][:3]).all()
    assert process.believing(at[:0]) is process


def test_expected_improvement_is_told_also_where_there_is_next_to_none():
    mean, deviation = np.array([-50.0, -3.0, 0.0, 2.0]), np.array([1.0, 0.5, 1.0, 0.1])
    expected = logei(torch.from_numpy(mean), torch.from_numpy(deviation**2), 1.0).numpy()
    assert log_expected_improvement(mean, deviation, 1.0) == pytest.approx(expected, rel=1e-6, abs=1e-9)
    assert np.isfinite(log_expected_improvement(np.array([-1e6]), np.array([1e-3]), 0.0)).all()


def test_results_that_are_all_alike_can_be_fitted():
    points, _, choices = results()
    mean, deviation = fit(points, np.zeros(len(points)), choices).predict(points[:4])
    assert mean == pytest.approx(np.zeros(4))
    assert np.isfinite(deviation).all()
