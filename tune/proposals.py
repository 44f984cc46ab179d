"""Points of a define-by-run space: which to try next, and whether one belongs to it.

A Gaussian process is fitted to the results of one rung, so that unequal budgets are never compared: what a
trial that was stopped before it would have come to there is predicted from those that went on. A share of
the points is drawn at random; and none is tried twice.

Gaussian process with expected improvement: D. Jones et al., "Efficient Global Optimization of
Expensive Black-Box Functions", 1998, as in ``optuna.samplers.GPSampler``. A model for each rung, and a
random share: S. Falkner et al., "BOHB: Robust and Efficient Hyperparameter Optimization at Scale",
ICML 2018. ``docs/searcher.md`` has what was compared.
"""

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import numpy as np
import optuna
from optuna.distributions import BaseDistribution, FloatDistribution, IntDistribution
from optuna.samplers import BruteForceSampler, GPSampler, RandomSampler, TPESampler
from optuna.study import StudyDirection
from optuna.trial import BaseTrial, FixedTrial, FrozenTrial, TrialState, create_trial
from threadpoolctl import ThreadpoolController

from tune.space import contains

DefineByRun = Callable[[BaseTrial], dict[str, Any] | None]

ENOUGH = 10
"""Results that a rung needs for a model of its own."""
LEAST_BUDGET = 0.05
"""Share of the budget below which a rung has no model: what is best so early need not be later."""
PAIRS = 5
"""Trials that must have gone on from a rung before what the others would have come to is predicted."""
RANDOM_SHARE = 0.1
MODELLED = 60
"""Trials that a model takes at most, so that a suggestion costs the same however many there are."""
RANDOM_DRAWS = 100
LONG_GRID = 16
"""Steps from which on a grid is taken for a line."""
FAILED = "failed"
"""Key of the constraint that a failed trial violates."""


@dataclass
class Past:
    """A trial that has been begun.

    Attributes:
        params: the suggested values.
        distributions: of the same names.
        values: rung -> value, of the rungs it has reached.
        runs: whether it goes on.
        failed: whether it diverged, ran out of memory or died.
    """

    params: dict[str, Any]
    distributions: dict[str, BaseDistribution]
    values: dict[int, float] = field(default_factory=dict)
    runs: bool = True
    failed: bool = False


def propose(
    past: Sequence[Past],
    space: DefineByRun,
    *,
    rungs: Sequence[int],
    direction: StudyDirection,
    seed: int,
    number: int,
) -> dict[str, Any]:
    """A point for trial ``number``, a function of the seed, the number and the trials before.

    A trial that is run again gives the same numbers again. So a point that was tried is drawn anew
    at random; where that is in vain a finite space gives any point that is left. Only where nothing
    is left a point is repeated.

    Args:
        past: the trials, in the order of their numbers.
        space: suggests the parameters of a trial.
        rungs: levels of the resource, ascending.
        direction: of the values.
        seed: of the search.
        number: of the trial.
    """
    tried = {frozenset(trial.params.items()) for trial in past}
    rng = np.random.default_rng([seed, number])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        rung = modelled_rung(past, rungs)
        if rung is not None and rng.random() >= RANDOM_SHARE:
            model_seed = _seed(rng)
            point = _drawn(model(told(rung, past, direction, rng), direction, model_seed), space)
            if frozenset(point.items()) not in tried:
                return point
        study = optuna.create_study(sampler=RandomSampler(seed=_seed(rng)))
        for _ in range(RANDOM_DRAWS):
            point = _drawn(study, space)
            if frozenset(point.items()) not in tried:
                return point
        study = optuna.create_study(sampler=BruteForceSampler(seed=_seed(rng)))
        study.add_trials([_frozen(trial, 0.0) for trial in past])
        try:
            return _drawn(study, space)
        except ValueError:  # a real number without steps: the space is not finite
            return point


def modelled_rung(past: Sequence[Past], rungs: Sequence[int]) -> int | None:
    """The highest rung with enough results, if it is high enough to tell what is good."""
    for rung in reversed(rungs):
        if rung < LEAST_BUDGET * rungs[-1]:
            break
        if sum(rung in trial.values for trial in past) >= ENOUGH:
            return rung
    return None


def told(rung: int, past: Sequence[Past], direction: StudyDirection, rng: np.random.Generator) -> list[FrozenTrial]:
    """The trials as the model of a rung is told them.

    Those that reached it have their value there; one that was stopped before has the value that
    those predict which went on from where it was stopped (:func:`predicted`), or is left out.
    Trials that run count as pending, so that those side by side spread out. A failed one violates a
    constraint, so that its region is left alone; where it has no value it takes the median, which
    bends the model least.
    """
    seen = {number: trial.values[rung] for number, trial in enumerate(past) if rung in trial.values}
    failed = [number for number, trial in enumerate(past) if trial.failed]
    median = float(np.median(list(seen.values())))
    values = {**dict.fromkeys(failed, median), **predicted(rung, past), **seen}
    order = sorted(values, key=lambda number: values[number], reverse=direction == StudyDirection.MAXIMIZE)
    if len(order) > MODELLED:  # the better ones, and some of the others to tell where not to look
        best, others = order[: MODELLED // 2], order[MODELLED // 2 :]
        order = best + [int(number) for number in rng.choice(others, MODELLED - len(best), replace=False)]
    trials = [_frozen(past[number], values[number], bool(failed)) for number in sorted(order)]
    pending = [trial for trial in past if trial.runs and rung not in trial.values]
    return trials + [
        create_trial(params=trial.params, distributions=trial.distributions, state=TrialState.RUNNING)
        for trial in pending
    ]


def predicted(rung: int, past: Sequence[Past]) -> dict[int, float]:
    """What trials that were stopped before a rung would have come to there, by their number.

    By the line through those that went on from the same rung as far as this one. Its slope is at most 1, since
    training brings trials nearer to each other, and at least 0.
    """
    stopped: dict[int, list[int]] = {}
    for number, trial in enumerate(past):
        if trial.values and not (trial.runs or trial.failed or rung in trial.values):
            stopped.setdefault(max(trial.values), []).append(number)
    found: dict[int, float] = {}
    for last, numbers in stopped.items():
        pairs = np.array([(t.values[last], t.values[rung]) for t in past if {last, rung} <= t.values.keys()])
        if len(pairs) < PAIRS or np.ptp(pairs[:, 0]) == 0:
            continue
        (variance, together), _ = np.cov(pairs.T)
        middle, there = pairs.mean(axis=0)
        slope = np.clip(together / variance, 0.0, 1.0)
        found |= {number: float(there + slope * (past[number].values[last] - middle)) for number in numbers}
    return found


def config_at(space: DefineByRun, trial: BaseTrial) -> dict[str, Any]:
    """What a trial runs with: the suggested parameters, and the constants that the space returns."""
    returned = space(trial) or {}
    return {**trial.params, **returned}


def checked(space: DefineByRun, point: Mapping[str, Any]) -> dict[str, Any]:
    """The suggested part of a point. Optuna would take a value from outside, and draw one that is missing.

    Raises:
        ValueError: it is no point of the space.
    """
    trial = FixedTrial(dict(point))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a value from outside is an error here, below
            config = config_at(space, trial)
    except ValueError as error:
        raise ValueError(f"{dict(point)} is no point of the space: {error}") from None
    for key, value in point.items():
        if key not in config:
            raise ValueError(f"{dict(point)} is no point of the space: '{key}' is not active there")
        distribution = trial.distributions.get(key)
        if value != config[key] or (distribution is not None and not contains(distribution, value)):
            raise ValueError(f"{dict(point)} is no point of the space: {key}={value!r} is outside")
    return dict(trial.params)


def _frozen(trial: Past, value: float, constrained: bool = False) -> FrozenTrial:
    constraints = {FAILED: 1.0 if trial.failed else -1.0} if constrained else None
    return create_trial(params=trial.params, distributions=trial.distributions, value=value, constraints=constraints)


def model(trials: Sequence[FrozenTrial], direction: StudyDirection, seed: int) -> optuna.Study:
    """A study whose next trial is drawn by a Gaussian process of these trials."""
    return optuna.create_study(direction=direction, sampler=_RungModel(trials, seed))


class _RungModel(GPSampler):
    """``GPSampler`` of trials that it is handed, without what makes it slow.

    Optuna's own way there, ``study.add_trials``, copies each of them deeply; its device context, for
    processes whose tensors are on a GPU by default, doubles the price of every small operation; and its
    search of a long grid costs ten times as much as one of a line.
    """

    def __init__(self, trials: Sequence[FrozenTrial], seed: int):
        super().__init__(
            seed=seed,
            # Parameters that are active in some trials only are left to TPE.
            independent_sampler=TPESampler(seed=seed, n_startup_trials=ENOUGH, multivariate=True),
            n_startup_trials=1,
            warn_independent_sampling=False,
        )
        self._complete = [trial for trial in trials if trial.state == TrialState.COMPLETE]
        self._running = [trial for trial in trials if trial.state == TrialState.RUNNING]
        self._others: optuna.Study | None = None
        # Optuna's defaults (2048, 10, 128, 1e-4) are for suggestions that may take a second; with these the
        # expected improvement of a point is 1 % below theirs.
        self._n_preliminary_samples, self._n_local_search = 512, 4
        self._n_qmc_samples_qei, self._tol = 64, 1e-3

    def infer_relative_search_space(self, study: optuna.Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        """The parameters that all complete trials have."""
        first, *others = self._complete
        return {
            name: distribution
            for name, distribution in first.distributions.items()
            if not distribution.single() and all(other.distributions.get(name) == distribution for other in others)
        }

    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """A point by the Gaussian process."""
        if not search_space:
            return {}
        lines = {name: _as_line(distribution) for name, distribution in search_space.items()}
        running = [trial for trial in self._running if search_space.keys() <= trial.params.keys()]
        # the matrices are small: more cores would only wait for each other, and round in another order
        with _pools().limit(limits=1):
            drawn = self._sample_relative_impl(study, self._complete, running, lines)
        return {name: _on_grid(search_space[name], value) for name, value in drawn.items()}

    def sample_independent(
        self, study: optuna.Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        """A parameter that is active in some trials only."""
        if self._others is None:
            self._others = optuna.create_study(direction=study.direction)
            self._others.add_trials(self._complete)
        return self._independent_sampler.sample_independent(self._others, trial, param_name, param_distribution)


@cache
def _pools() -> ThreadpoolController:
    """The thread pools of NumPy, SciPy and torch."""
    import torch  # noqa: F401, its pool is there once it is loaded

    return ThreadpoolController()


def _as_line(distribution: BaseDistribution) -> BaseDistribution:
    if isinstance(distribution, IntDistribution | FloatDistribution) and distribution.step:
        half = distribution.step / 2
        if distribution.high - distribution.low >= LONG_GRID * distribution.step:
            return FloatDistribution(distribution.low - half, distribution.high + half, log=distribution.log)
    return distribution


def _on_grid(distribution: BaseDistribution, value: Any) -> Any:
    if not isinstance(distribution, IntDistribution | FloatDistribution) or not distribution.step:
        return value
    steps = round((value - distribution.low) / distribution.step)
    near = min(max(distribution.low + steps * distribution.step, distribution.low), distribution.high)
    return int(near) if isinstance(distribution, IntDistribution) else float(near)


def _drawn(study: optuna.Study, space: DefineByRun) -> dict[str, Any]:
    trial = study.ask()
    space(trial)
    return trial.params


def _seed(rng: np.random.Generator) -> int:
    return int(rng.integers(2**31))
