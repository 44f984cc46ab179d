"""A Gaussian process of a few dozen results, in NumPy: fitted in milliseconds.

Kernel, priors and fit are those of ``optuna.samplers.GPSampler``: Matérn 5/2 with a length scale for each
parameter, maximum a posteriori by L-BFGS. That one differentiates by torch, whose small operations cost
six times as much as their arithmetic. Here the gradient is written out (C. Rasmussen and C. Williams,
*Gaussian Processes for Machine Learning*, 2006, section 5.4).

Shapes: N results, M points, D parameters, each in [0, 1] or, where it is a choice, its index.
"""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import cho_solve, cholesky, solve_triangular
from scipy.optimize import minimize
from scipy.special import log_ndtr, ndtr

Array = NDArray[np.float64]

LEAST_NOISE = 1e-6
"""Variance, in units of the results' own."""
TOLERANCE = 1e-2
"""Of the gradient: where the fit ends."""
_HALF_LOG_2PI = 0.5 * np.log(2 * np.pi)


@dataclass(frozen=True)
class Process:
    """A Gaussian process given results.

    Attributes:
        points: (N, D).
        choices: (D,): which parameters are choices, of which two are equal or not.
        weights: (D,) inverse squared length scales.
        scale, noise: variances of the function and of a result.
        values: (N,).
    """

    points: Array
    choices: NDArray[np.bool_]
    weights: Array
    scale: float
    noise: float
    values: Array

    def __post_init__(self) -> None:
        covariance = self.scale * _matern(_distances(self.points, self.points, self.choices, self.weights))
        covariance[np.diag_indices_from(covariance)] += self.noise
        lower = cholesky(covariance, lower=True)
        object.__setattr__(self, "_lower", lower)
        object.__setattr__(self, "_solved", cho_solve((lower, True), self.values))

    def predict(self, at: Array) -> tuple[Array, Array]:
        """Mean and standard deviation (M,) of the function at points (M, D)."""
        shared = self.scale * _matern(_distances(at, self.points, self.choices, self.weights))
        spread = solve_triangular(self._lower, shared.T, lower=True)  # type: ignore[attr-defined]
        variance = self.scale - np.einsum("nm,nm->m", spread, spread)
        return shared @ self._solved, np.sqrt(np.maximum(variance, 1e-12))  # type: ignore[attr-defined]

    def believing(self, points: Array) -> "Process":
        """The same, as if each of these points (M, D) had given what is expected there.

        The mean stays as it is everywhere, while the deviation falls around them (the "kriging
        believer" of D. Ginsbourger et al., 2010).
        """
        if not len(points):
            return self
        expected = self.predict(points)[0]
        return replace(
            self, points=np.concatenate([self.points, points]), values=np.concatenate([self.values, expected])
        )

    def imagine(self, points: Array, count: int, rng: np.random.Generator) -> Array:
        """Values (count, M) of the function at points (M, D), drawn together."""
        shared = self._covariance(points, self.points)
        spread = solve_triangular(self._lower, shared.T, lower=True)  # type: ignore[attr-defined]
        covariance = self._covariance(points, points) - spread.T @ spread
        covariance[np.diag_indices_from(covariance)] += 1e-8
        root = cholesky(covariance + 1e-6 * self.scale * np.eye(len(points)), lower=True)
        return shared @ self._solved + rng.standard_normal((count, len(points))) @ root.T  # type: ignore[attr-defined]

    def given(self, points: Array, values: Array) -> "Process":
        """With further points (M, D), whose values (S, M) are one of several tellings each; its means are (M, S)."""
        told = np.concatenate([np.tile(self.values, (len(values), 1)), values], axis=1).T
        return replace(self, points=np.concatenate([self.points, points]), values=told)

    def _covariance(self, one: Array, other: Array) -> Array:
        return self.scale * _matern(_distances(one, other, self.choices, self.weights))


def fit(points: Array, values: Array, choices: NDArray[np.bool_]) -> Process:
    """The process of results (N,) at points (N, D); values have mean 0 and variance 1."""
    squares = _squares(points, points, choices)
    start = np.zeros(points.shape[1] + 2)
    found = minimize(_loss, start, (squares, values), jac=True, method="L-BFGS-B", options={"gtol": TOLERANCE})
    weights, scale, noise = _unpacked(found.x if np.isfinite(found.fun) else start)
    return Process(points, choices, weights, scale, noise, values)


def log_expected_improvement(mean: Array, deviation: Array, best: float) -> Array:
    """Log of the expected excess of the function over ``best``, also where it is too small for a float.

    S. Ament et al., "Unexpected Improvements to Expected Improvement", NeurIPS 2023.
    """
    z = (mean - best) / deviation
    below = np.minimum(z, 0.0)
    log_density = -0.5 * below**2 - _HALF_LOG_2PI
    share = np.maximum(1 + below * np.exp(log_ndtr(below) - log_density), 1e-300)  # density + z * cdf, factored
    direct = z * ndtr(z) + np.exp(-0.5 * z**2 - _HALF_LOG_2PI)
    found = np.where(z < 0, log_density + np.log(share), np.log(np.maximum(direct, 1e-300)))
    return np.asarray(np.log(deviation) + found)


def _loss(raw: Array, squares: Array, values: Array) -> tuple[float, Array]:
    """Minus the log posterior of the logarithms of weights, scale and noise above its least; and the gradient."""
    weights, scale, noise = _unpacked(raw)
    above = noise - LEAST_NOISE
    root = np.sqrt(5 * (squares @ weights))
    decay = np.exp(-root)
    covariance = scale * decay * (root**2 / 3 + root + 1)
    total = covariance.copy()
    total[np.diag_indices_from(total)] += noise
    try:
        lower = cholesky(total, lower=True)
    except np.linalg.LinAlgError:
        return 1e10, np.zeros_like(raw)
    inverse = cho_solve((lower, True), np.eye(len(values)))
    solved = inverse @ values
    loss = np.log(np.diag(lower)).sum() + 0.5 * values @ solved
    loss += (0.1 / weights + 0.1 * weights).sum() - (np.log(scale) - scale) - (0.1 * np.log(noise) - 30 * noise)
    by_covariance = 0.5 * (inverse - np.outer(solved, solved))
    by_distance = by_covariance * (-5 / 6 * scale * decay * (root + 1))
    by_weights = np.einsum("ij,ijd->d", by_distance, squares) * weights - 0.1 / weights + 0.1 * weights
    by_scale = (by_covariance * covariance).sum() - 1 + scale
    by_noise = (np.trace(by_covariance) - 0.1 / noise + 30) * above
    return float(loss), np.array([*by_weights, by_scale, by_noise])


def _unpacked(raw: Array) -> tuple[Array, float, float]:
    exponentials = np.exp(np.clip(raw, -20, 20))
    return exponentials[:-2], float(exponentials[-2]), float(exponentials[-1]) + LEAST_NOISE


def _matern(squared: Array) -> Array:
    root = np.sqrt(5 * squared)
    return np.asarray(np.exp(-root) * (root**2 / 3 + root + 1))


def _squares(one: Array, other: Array, choices: NDArray[np.bool_]) -> Array:
    """(M, N, D): squared differences; 0 or 1 of choices."""
    difference = one[:, None, :] - other[None, :, :]
    return np.where(choices, difference != 0, difference * difference)


def _distances(one: Array, other: Array, choices: NDArray[np.bool_], weights: Array) -> Array:
    """(M, N): the weighted sum of the squared differences, without holding each of them."""
    roots = np.sqrt(weights[~choices])
    left, right = one[:, ~choices] * roots, other[:, ~choices] * roots
    squared = (left**2).sum(axis=1)[:, None] + (right**2).sum(axis=1)[None, :] - 2 * left @ right.T
    for column in np.flatnonzero(choices):
        squared += weights[column] * (one[:, None, column] != other[None, :, column])
    return np.maximum(squared, 0.0)
