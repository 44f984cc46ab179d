"""Which parameters tell the good trials of a study from the rest, at one and the same rung.

PED-ANOVA (Watanabe et al., IJCAI 2023; for conditional parameters KDD 2026), Optuna's own default. It
asks which parameters separate the best third of the trials from all of them.
"""

import math
import warnings
from collections import Counter
from collections.abc import Mapping, Sequence
from copy import copy
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import numpy as np
import optuna
from optuna.distributions import BaseDistribution
from optuna.trial import FrozenTrial, TrialState

from tune.records import TrialRecord
from tune.report.rungs import at_rung, fullest_rung
from tune.space import Space

BEST_SHARE = 1 / 3
FEWEST = 15
"""Results below which nothing is said: Optuna asks for five among the best ones."""
RESAMPLES = 40


@dataclass(frozen=True)
class Importance:
    """A parameter's share of the importance (all sum to 1), and what 80 % of the resampled studies gave."""

    share: float
    low: float
    high: float


@dataclass(frozen=True)
class Importances:
    """Key -> importance, the greatest first, from so many results at a rung.

    ``left_out``: key -> the results that have it, of those that too few have.
    """

    rung: int
    results: int
    of: Mapping[str, Importance]
    left_out: Mapping[str, int]


def importances(
    space: Space, trials: Sequence[TrialRecord], metric: str, mode: str, rungs: Sequence[int]
) -> Importances | str:
    """The importances at the rung with most results; or why there are none."""
    rung = fullest_rung(trials, metric, rungs)
    params = {trial.number: trial.params for trial in trials}
    results = at_rung(trials, metric, rungs, rung) if rung is not None else []
    if rung is None or len(results) < FEWEST:
        have = f"{len(results)} of them at {rung:,} samples" if rung is not None else "none"
        return f"at least {FEWEST} results of equal budget are needed to tell them from chance, and there are {have}"
    sign = 1.0 if mode == "min" else -1.0
    frozen = [
        _result(
            {key: value for key, value in params[one.number].items() if key in space.distributions},
            {key: d for key, d in space.distributions.items() if key in params[one.number]},
            sign * one.value,
        )
        for one in results
    ]
    verbosity = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        return _importances(frozen, rung)
    finally:
        optuna.logging.set_verbosity(verbosity)


class _Result(FrozenTrial):
    """A trial that is copied with its parts shared: a study copies each of its trials deeply, most of the work here."""

    def __deepcopy__(self, memo: dict[int, Any]) -> "_Result":
        return copy(self)


def _result(params: dict[str, Any], distributions: dict[str, BaseDistribution], value: float) -> FrozenTrial:
    now = datetime.now()  # a study takes no trial without
    return _Result(0, TrialState.COMPLETE, value, now, now, params, distributions, {}, {}, {}, 0)


def _importances(frozen: Sequence[FrozenTrial], rung: int) -> Importances | str:
    have = Counter(key for trial in frozen for key in trial.params)
    # of a parameter that few have it would say anything
    keys = [key for key, count in have.items() if count >= FEWEST]
    whole = _shares(frozen, keys)
    if not whole:
        return f"the {len(frozen)} results at {rung:,} samples do not differ by any parameter"
    rng = np.random.default_rng(0)
    resampled = [
        _shares([frozen[i] for i in rng.integers(len(frozen), size=len(frozen))], keys) for _ in range(RESAMPLES)
    ]
    found = {}
    for key, share in sorted(whole.items(), key=lambda item: -item[1]):
        low, high = np.quantile([shares.get(key, 0.0) for shares in resampled], [0.1, 0.9])
        found[key] = Importance(share, float(low), float(high))
    return Importances(rung, len(frozen), found, {key: count for key, count in have.items() if count < FEWEST})


def _shares(trials: Sequence[FrozenTrial], keys: Sequence[str]) -> dict[str, float]:
    """Key -> share; empty where the trials do not differ."""
    present = [key for key in keys if any(key in trial.params for trial in trials)]
    from optuna.importance import PedAnovaImportanceEvaluator, get_param_importances  # loads scikit-learn

    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    study.add_trials(list(trials))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that some have few trials is told by their range
        evaluator = PedAnovaImportanceEvaluator(target_quantile=BEST_SHARE)
        shares = get_param_importances(study, evaluator=evaluator, params=present)
    known = {key: share for key, share in shares.items() if math.isfinite(share)}
    return known if sum(known.values()) > 0 else {}
