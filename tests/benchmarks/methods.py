"""The searchers that are compared, each driven as its library drives it."""

import logging
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import numpy as np
import optuna
from optuna.distributions import FloatDistribution, IntDistribution
from optuna.samplers import RandomSampler, TPESampler
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial
from ray.tune.schedulers import ASHAScheduler, TrialScheduler

from tests.benchmarks.lcbench import SPACE
from tune.asha import RungScheduler
from tune.proposals import ENOUGH, Past, told
from tune.searcher import RungSearch, SpaceLike
from tune.space import Space


class RayMethod:
    """A Ray searcher and a Ray scheduler, called as Ray's controller calls them."""

    def __init__(self, searcher: Any, scheduler: Any, metric: str, resource: str):
        self._searcher, self._scheduler = searcher, scheduler
        self._metric, self._resource = metric, resource
        self._trials: dict[int, Any] = {}

    def suggest(self, number: int) -> Mapping[str, Any]:
        self._trials[number] = SimpleNamespace(trial_id=str(number))
        params = self._searcher.suggest(str(number))
        self._scheduler.on_trial_add(None, self._trials[number])
        return params

    def observe(self, number: int, epoch: int, value: float) -> bool:
        """Take a value without asking the scheduler."""
        result = {self._metric: value, self._resource: epoch, "training_iteration": epoch}
        self._searcher.on_trial_result(str(number), result)
        return True

    def report(self, number: int, epoch: int, value: float) -> bool:
        trial = self._trials[number]
        result = {self._metric: value, self._resource: epoch, "training_iteration": epoch}
        if self._scheduler.on_trial_result(None, trial, result) == TrialScheduler.STOP:
            self._scheduler.on_trial_complete(None, trial, result)
            self._searcher.on_trial_complete(trial.trial_id, result)
            return False
        self._searcher.on_trial_result(trial.trial_id, result)
        return True


class RandomDraws:
    """Ray's random search: independent draws."""

    def __init__(self, space: SpaceLike, seed: int):
        self._study = optuna.create_study(sampler=RandomSampler(seed=seed))
        self._space = space if callable(space) else Space(dict(space))

    def suggest(self, trial_id: str) -> Mapping[str, Any]:
        trial = self._study.ask()
        self._space(trial)
        return trial.params

    def on_trial_result(self, trial_id: str, result: Mapping[str, Any]) -> None: ...

    def on_trial_complete(self, trial_id: str, result: Mapping[str, Any]) -> None: ...


def rays_asha(mode: str, rungs: Sequence[int], reduction: int) -> ASHAScheduler:
    return ASHAScheduler(
        "training_iteration", "value", mode, max_t=rungs[-1], grace_period=rungs[0], reduction_factor=reduction
    )


def stock(mode: str, rungs: Sequence[int], reduction: int, seed: int, space: SpaceLike = SPACE) -> RayMethod:
    """Ray's ``OptunaSearch`` and ``ASHAScheduler`` with their defaults."""
    from ray.tune.search.optuna import OptunaSearch

    searcher = OptunaSearch(space if callable(space) else dict(space), metric="value", mode=mode, seed=seed)
    return RayMethod(searcher, rays_asha(mode, rungs, reduction), "value", "training_iteration")


def random(mode: str, rungs: Sequence[int], reduction: int, seed: int, space: SpaceLike = SPACE) -> RayMethod:
    """Random draws under Ray's ``ASHAScheduler``."""
    return RayMethod(RandomDraws(space, seed), rays_asha(mode, rungs, reduction), "value", "training_iteration")


def ours(mode: str, rungs: Sequence[int], reduction: int, seed: int, space: SpaceLike = SPACE) -> RayMethod:
    """``RungSearch`` and ``RungScheduler``."""
    searcher = RungSearch(space, metric="value", mode=mode, rungs=rungs, resource="epochs", seed=seed)
    scheduler = RungScheduler(
        metric="value",
        mode=mode,
        rungs=rungs,
        reduction_factor=reduction,
        number=searcher.number,
        resource="epochs",
    )
    return RayMethod(searcher, scheduler, "value", "epochs")


class Ablated:
    """``ours`` with parts of ``tune.proposals`` replaced while it suggests, or without its stopping rule."""

    def __init__(
        self, parts: Mapping[str, Any], stops: bool, mode: str, rungs: Sequence[int], reduction: int, seed: int,
        space: SpaceLike = SPACE,
    ):  # fmt: skip
        self._whole = ours(mode, rungs, reduction, seed, space)
        self._parts, self._stops, self._last = dict(parts), stops, rungs[-1]

    def suggest(self, number: int) -> Mapping[str, Any]:
        with patch.multiple("tune.proposals", **self._parts) if self._parts else nullcontext():
            return self._whole.suggest(number)

    def report(self, number: int, epoch: int, value: float) -> bool:
        if self._stops or epoch == self._last:
            return self._whole.report(number, epoch, value)
        return self._whole.observe(number, epoch, value)


def tpe(trials: Sequence[FrozenTrial], direction: StudyDirection, seed: int) -> optuna.Study:
    """``model``, with Optuna's TPE in place of the Gaussian process."""
    sampler = TPESampler(seed=seed, n_startup_trials=1, multivariate=True)
    study = optuna.create_study(direction=direction, sampler=sampler)
    study.add_trials(trials)
    return study


def nothing_predicted(rung: int, past: Sequence[Past]) -> dict[int, float]:
    """``predicted``, with trials that were stopped before the rung left out."""
    return {}


def stopped_as_worst(rung: int, past: Sequence[Past], direction: StudyDirection, rng: np.random.Generator) -> list:
    """``told``, with trials that were stopped before the rung as the worst seen there."""
    worst = (max if direction == StudyDirection.MINIMIZE else min)(t.values[rung] for t in past if rung in t.values)
    filled = [replace(t, values={**t.values, rung: worst}) if _ended_below(t, rung) else t for t in past]
    return told(rung, filled, direction, rng)


def stopped_at_last_value(rung: int, past: Sequence[Past], direction: StudyDirection, rng: np.random.Generator) -> list:
    """``told``, with trials that were stopped before the rung at the value of the budget they had."""
    filled = [
        replace(t, values={**t.values, rung: t.values[max(t.values)]}) if _ended_below(t, rung) and t.values else t
        for t in past
    ]
    return told(rung, filled, direction, rng)


def top_if_any(past: Sequence[Past], rungs: Sequence[int]) -> int | None:
    """``modelled_rung`` of a model that takes the results of all rungs together."""
    return rungs[-1] if sum(bool(trial.values) for trial in past) >= ENOUGH else None


def last_values(rung: int, past: Sequence[Past], direction: StudyDirection, rng: np.random.Generator) -> list:
    """``told``, with every trial at its last value, whatever the budget it is of."""
    return told(rung, [replace(t, values={rung: t.values[max(t.values)]}) if t.values else t for t in past],
                direction, rng)  # fmt: skip


def _ended_below(trial: Past, rung: int) -> bool:
    return not trial.runs and rung not in trial.values


class SyneTuneMethod:
    """A scheduler of Syne Tune, called as its ``Tuner`` calls it."""

    def __init__(self, name: str, mode: str, rungs: Sequence[int], reduction: int, seed: int, space: SpaceLike = SPACE):
        from syne_tune.backend.trial_status import Trial
        from syne_tune.optimizer import baselines

        logging.getLogger("syne_tune").setLevel(logging.ERROR)
        np.random.seed(seed)  # parts of Syne Tune draw from NumPy's global generator
        self._make_trial = Trial
        self._scheduler = getattr(baselines, name)(
            syne_tune_space(space),
            metric="value",
            time_attr="epoch",
            max_t=rungs[-1],
            grace_period=rungs[0],
            reduction_factor=reduction,
            do_minimize=mode == "min",
            random_seed=seed,
        )
        self._trials: dict[int, Any] = {}
        self._last = rungs[-1]

    def suggest(self, number: int) -> Mapping[str, Any]:
        config = self._scheduler.suggest().config
        trial = self._make_trial(trial_id=number, config=config, creation_time=None)
        self._trials[number] = trial
        self._scheduler.on_trial_add(trial)
        return config

    def report(self, number: int, epoch: int, value: float) -> bool:
        trial, result = self._trials[number], {"value": value, "epoch": epoch}
        decision = self._scheduler.on_trial_result(trial, result)
        if epoch == self._last:
            self._scheduler.on_trial_complete(trial, result)
            return False
        if decision == "STOP":
            self._scheduler.on_trial_remove(trial)
            return False
        return True


def syne_tune_space(space: SpaceLike) -> dict[str, Any]:
    """Optuna's distributions as Syne Tune's domains."""
    from syne_tune import config_space as domains

    if callable(space):
        raise NotImplementedError("Syne Tune's spaces have no conditions")
    found = {}
    for name, distribution in space.items():
        assert isinstance(distribution, FloatDistribution | IntDistribution)
        if isinstance(distribution, IntDistribution):
            make = domains.lograndint if distribution.log else domains.randint
        else:
            make = domains.loguniform if distribution.log else domains.uniform
        found[name] = make(distribution.low, distribution.high)
    return found


def syne_tune(name: str) -> Any:
    """A method of Syne Tune by its class's name in ``syne_tune.optimizer.baselines``."""
    return partial(SyneTuneMethod, name)


NAMES: dict[str, Any] = {
    "stock": stock,
    "random": random,
    "ours": ours,
    "syne-tune-BOHB": syne_tune("BOHB"),
    "syne-tune-ASHACQR": syne_tune("ASHACQR"),
    "syne-tune-ASHABORE": syne_tune("ASHABORE"),
    "syne-tune-ASHA": syne_tune("ASHA"),
    "ours-tpe": partial(Ablated, {"model": tpe}, True),
    "ours-tpe-third-random": partial(Ablated, {"model": tpe, "RANDOM_SHARE": 1 / 3}, True),
    "ours-random": partial(Ablated, {"RANDOM_SHARE": 1.0}, True),
    "ours-no-random": partial(Ablated, {"RANDOM_SHARE": 0.0}, True),
    "ours-third-random": partial(Ablated, {"RANDOM_SHARE": 1 / 3}, True),
    "ours-any-rung": partial(Ablated, {"LEAST_BUDGET": 0.0}, True),
    "ours-from-a-tenth": partial(Ablated, {"LEAST_BUDGET": 0.1}, True),
    "ours-last-rung": partial(Ablated, {"LEAST_BUDGET": 1.0}, True),
    "ours-stopped-left-out": partial(Ablated, {"predicted": nothing_predicted}, True),
    "ours-stopped-as-worst": partial(Ablated, {"told": stopped_as_worst}, True),
    "ours-stopped-at-last-value": partial(Ablated, {"told": stopped_at_last_value}, True),
    "ours-all-rungs-mixed": partial(Ablated, {"modelled_rung": top_if_any, "told": last_values}, True),
    "ours-no-stop": partial(Ablated, {}, False),
}
"""Name -> (mode, rungs, reduction factor, seed, space) -> ``Method``."""
COMPARED = ("stock", "random", "ours", "syne-tune-BOHB")
CONDITIONAL = ("stock", "random", "ours")
"""Those whose spaces may have conditions."""


def missing(name: str) -> str | None:
    """Why a method cannot run here."""
    if not name.startswith("syne-tune"):
        return None
    try:
        import syne_tune.optimizer.baselines  # noqa: F401
    except ImportError as error:
        return f"Syne Tune cannot be imported ({error}); install the project's bench extra"
    return None
