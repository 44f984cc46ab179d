"""Where a Gaussian process expects most improvement over what was found.

Expected improvement: D. Jones et al., "Efficient Global Optimization of Expensive Black-Box Functions",
1998; weighed by the chance to work: M. Schonlau et al., "Global Versus Local Search in Constrained
Optimization of Computer Models", 1998.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import optuna
from numpy.typing import NDArray
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler, RandomSampler
from optuna.study import StudyDirection
from optuna.trial import BaseTrial, FrozenTrial
from scipy.special import log_ndtr, logsumexp

from tune.gaussian_process import Array, fit, log_expected_improvement
from tune.space import contains
from tune.unit_cube import ABSENT, UnitCube

DefineByRun = Callable[[BaseTrial], dict[str, Any] | None]

IMAGINED = 32
"""Outcomes of the running trials that are weighed."""
CANDIDATES, STARTS, NEIGHBOURS = 500, 8, 30
"""Random points that are compared, how many of the best are improved on, and by how many neighbours of each."""
WIDTHS = (0.2, 0.1, 0.05, 0.02, 0.01)
"""Standard deviations of the neighbours, a round each."""


@dataclass(frozen=True)
class Told:
    """A trial as a model is told it; ``value`` is None where it is not known."""

    params: Mapping[str, Any]
    distributions: Mapping[str, BaseDistribution]
    value: float | None
    failed: bool = False
    runs: bool = False


def modelled_point(
    trials: Sequence[Told], space: DefineByRun, direction: StudyDirection, rng: np.random.Generator
) -> dict[str, Any]:
    """A point of the space: where most improvement over the best of these trials is expected.

    Those without a value are believed to be as the process expects: it sees no reason to look there
    again. Where some have failed, the improvement is weighed by the chance not to.
    """
    cube = UnitCube({name: d for trial in trials for name, d in trial.distributions.items() if not d.single()})
    active = _Active(space, cube, trials, rng)
    if not cube.distributions:
        return active.point(np.empty(0))
    known = [trial for trial in trials if trial.value is not None]
    rows, fresh = cube.rows([t.params for t in known]), cube.rows([t.params for t in trials if t.value is None])
    sign = -1.0 if direction == StudyDirection.MINIMIZE else 1.0
    values = _standardized(sign * np.array([trial.value for trial in known]))
    failed = np.array([trial.failed for trial in known])
    process = fit(rows, values, cube.choices).believing(fresh[[not t.runs for t in trials if t.value is None]])
    signs = np.where(failed, -1.0, 1.0)
    works = fit(rows, _standardized(signs), cube.choices) if failed.any() and not failed.all() else None
    border = -signs.mean() / signs.std() if works is not None else 0.0
    best = float(values[~failed].max() if not failed.all() else values.max())
    running = fresh[[t.runs for t in trials if t.value is None]]
    highest = np.array([best])
    if len(running):
        imagined = process.imagine(running, IMAGINED, rng)
        process, highest = process.given(running, imagined), np.maximum(best, imagined.max(axis=1))

    def merit(candidates: Array) -> Array:
        mean, deviation = process.predict(candidates)
        found = log_expected_improvement(mean.reshape(len(candidates), -1), deviation[:, None], highest)
        found = logsumexp(found, axis=1) - np.log(found.shape[1])
        if works is not None:
            mean, deviation = works.predict(candidates)
            found = found + log_ndtr((mean - border) / deviation)
        return found

    row = _highest(merit, cube, active, rows[np.argsort(-np.where(failed, -np.inf, values))[:STARTS]], rng)
    return active.point(row)


def _highest(
    merit: Callable[[Array], Array], cube: UnitCube, active: "_Active", starts: Array, rng: np.random.Generator
) -> Array:
    """The row of highest merit: of random ones, and of neighbours of the best, ever nearer."""
    rows = active.rows(np.concatenate([starts, cube.draw(CANDIDATES, rng)]))
    merits = merit(rows)
    for width in WIDTHS:
        best = np.argsort(-merits)[:STARTS]
        near = active.rows(cube.near(rows[best], NEIGHBOURS, width, rng))
        rows, merits = np.concatenate([rows[best], near]), np.concatenate([merits[best], merit(near)])
    return rows[np.argmax(merits)]


class _Active:
    """Which parameters are active where; the space is asked once for each combination of choices."""

    def __init__(self, space: DefineByRun, cube: UnitCube, trials: Sequence[Told], rng: np.random.Generator):
        self._space, self._cube, self._rng = space, cube, rng
        self._always = all(cube.distributions.keys() <= trial.params.keys() for trial in trials)
        self._known: dict[tuple[float, ...], NDArray[np.bool_]] = {}

    def rows(self, rows: Array) -> Array:
        """The rows with ``ABSENT`` where a parameter is not active."""
        if self._always:
            return rows
        return np.where([self._mask(row) for row in rows], rows, ABSENT)

    def point(self, row: Array) -> dict[str, Any]:
        """The point of the space; a parameter that no trial has had before is drawn at random."""
        given = self._cube.point(row)
        study = optuna.create_study(sampler=_Given(given, RandomSampler(seed=int(self._rng.integers(2**31)))))
        return drawn(study, self._space)

    def _mask(self, row: Array) -> NDArray[np.bool_]:
        key = tuple(row[self._cube.choices])
        if key not in self._known:
            there = self.point(row)
            self._known[key] = np.array([name in there for name in self._cube.distributions])
        return self._known[key]


class _Given(BaseSampler):
    """Gives the values that it was given."""

    def __init__(self, values: Mapping[str, Any], others: BaseSampler):
        self._values, self._others = values, others

    def infer_relative_search_space(self, study: optuna.Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        """None: the values are independent."""
        return {}

    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """None."""
        return {}

    def sample_independent(
        self, study: optuna.Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        """The value of this name, if there is one."""
        if param_name in self._values and contains(param_distribution, self._values[param_name]):
            return self._values[param_name]
        return self._others.sample_independent(study, trial, param_name, param_distribution)


def _standardized(values: Array) -> Array:
    deviation = values.std()
    return (values - values.mean()) / deviation if deviation > 0 else values - values.mean()


def drawn(study: optuna.Study, space: DefineByRun) -> dict[str, Any]:
    """The parameters that a study's sampler gives its next trial."""
    trial = study.ask()
    space(trial)
    return trial.params
