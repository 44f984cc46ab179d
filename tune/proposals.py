"""Points of a define-by-run space: which to try next, and whether one belongs to it.

The next is of Optuna's TPE, on what became of the trials so far, and none is tried twice.

TPE: J. Bergstra et al., "Algorithms for Hyper-Parameter Optimization", NeurIPS 2011; as in
``optuna.samplers.TPESampler``, multivariate and grouped by condition.
"""

import warnings
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import optuna
from optuna.samplers import BaseSampler, BruteForceSampler, RandomSampler, TPESampler
from optuna.trial import BaseTrial, FixedTrial

from tune.space import contains

DefineByRun = Callable[[BaseTrial], dict[str, Any] | None]

TPE_DRAWS = 8
RANDOM_DRAWS = 100


def propose(study: optuna.Study, space: DefineByRun, *, seed: int, number: int) -> dict[str, Any]:
    """A point for trial ``number``, a function of the seed, the number and the study's trials.

    TPE likes to repeat itself where few choices are left, and a trial that is run again gives the
    same numbers again. So it is asked several times; then a finite space gives any point that is
    left, and another one a random point. Only where nothing is left a point is repeated.

    Args:
        study: is read only; its trials stand in the order of their numbers.
        space: suggests the parameters of a trial.
        seed: of the search.
        number: of the trial.
    """
    trials = study.get_trials(deepcopy=False)
    tried = {frozenset(trial.params.items()) for trial in trials}
    # Points are drawn in a copy: a trial of the study itself could not be drawn again. What was drawn
    # there in vain stays there as running, which keeps TPE (as its "constant liar") away from it.
    copy = optuna.create_study(direction=study.direction)
    copy.add_trials(trials)
    seeds = map(int, np.random.SeedSequence([seed, number]).generate_state(TPE_DRAWS + 1 + RANDOM_DRAWS))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        for _ in range(TPE_DRAWS):
            sampler = TPESampler(seed=next(seeds), multivariate=True, group=True, constant_liar=True)
            point = _drawn(copy, space, sampler)
            if frozenset(point.items()) not in tried:
                return point
        try:
            return _drawn(copy, space, BruteForceSampler(seed=next(seeds)))
        except ValueError:  # a real number without steps: the space is not finite
            for _ in range(RANDOM_DRAWS):
                point = _drawn(copy, space, RandomSampler(seed=next(seeds)))
                if frozenset(point.items()) not in tried:
                    break
            return point


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


def _drawn(study: optuna.Study, space: DefineByRun, sampler: BaseSampler) -> dict[str, Any]:
    study.sampler = sampler
    trial = study.ask()
    space(trial)
    return trial.params
