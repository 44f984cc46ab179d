"""Points of a define-by-run space: which to try next, and whether one belongs to it.

A Gaussian process is fitted to the results of one rung, so that unequal budgets are never compared;
a share of the points is drawn at random; and none is tried twice.

Gaussian process with expected improvement: D. Jones et al., "Efficient Global Optimization of
Expensive Black-Box Functions", 1998, as in ``optuna.samplers.GPSampler``. A model for each rung, and a
random share: S. Falkner et al., "BOHB: Robust and Efficient Hyperparameter Optimization at Scale",
ICML 2018. ``docs/searcher.md`` has what was compared.
"""

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import optuna
from optuna.distributions import BaseDistribution
from optuna.samplers import BruteForceSampler, RandomSampler
from optuna.study import StudyDirection
from optuna.trial import BaseTrial, FixedTrial, FrozenTrial, create_trial

from tune.improvement import DefineByRun, Told, drawn, modelled_point
from tune.space import contains

ENOUGH = 10
"""Results that a rung needs for a model of its own."""
LEAST_BUDGET = 0.1
"""Share of the budget below which a rung has no model: what is best so early need not be later."""
RANDOM_SHARE = 0.1
MODELLED = 60
"""Trials that a model takes at most, so that a suggestion costs the same however many there are."""
RANDOM_DRAWS = 100
TRIED = 30
"""Trials stopped before the rung that a model takes at most, the latest: it sees no value of theirs."""
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
            point = modelled_point(told(rung, past, direction, rng), space, direction, rng)
            if frozenset(point.items()) not in tried:
                return point
        study = optuna.create_study(sampler=RandomSampler(seed=_seed(rng)))
        for _ in range(RANDOM_DRAWS):
            point = drawn(study, space)
            if frozenset(point.items()) not in tried:
                return point
        study = optuna.create_study(sampler=BruteForceSampler(seed=_seed(rng)))
        study.add_trials([_frozen(trial, 0.0) for trial in past])
        try:
            return drawn(study, space)
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


def told(rung: int, past: Sequence[Past], direction: StudyDirection, rng: np.random.Generator) -> list[Told]:
    """The trials as the model of a rung is told them.

    Those that reached it have their value there. Of one that is on its way, or was stopped before, the
    value is not known, and whatever were put in its place would be a guess that bends the model where
    it matters; the model is told that it was tried. A failed one without a value takes the median,
    which bends the model least.
    """
    seen = {number: trial.values[rung] for number, trial in enumerate(past) if rung in trial.values}
    failed = [number for number, trial in enumerate(past) if trial.failed]
    median = float(np.median(list(seen.values())))
    values = {**dict.fromkeys(failed, median), **seen}
    order = sorted(values, key=lambda number: values[number], reverse=direction == StudyDirection.MAXIMIZE)
    if len(order) > MODELLED:  # the better ones, and some of the others to tell where not to look
        best, others = order[: MODELLED // 2], order[MODELLED // 2 :]
        order = best + [int(number) for number in rng.choice(others, MODELLED - len(best), replace=False)]
    unknown = [number for number in range(len(past)) if number not in values]
    running = [number for number in unknown if past[number].runs]
    stopped = [number for number in unknown if not past[number].runs][-TRIED:] if TRIED else []
    return [
        Told(trial.params, trial.distributions, values.get(number), trial.failed, trial.runs)
        for number in (*sorted(order), *stopped, *running)
        for trial in [past[number]]
    ]


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


def _frozen(trial: Past, value: float) -> FrozenTrial:
    return create_trial(params=trial.params, distributions=trial.distributions, value=value)


def _seed(rng: np.random.Generator) -> int:
    return int(rng.integers(2**31))
