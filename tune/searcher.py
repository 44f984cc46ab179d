"""``RungSearch``: Optuna behind Ray's ``Searcher`` interface, made for trials that are stopped early."""

import json
import math
import os
import warnings
from bisect import bisect_right
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import optuna
from optuna.distributions import BaseDistribution
from optuna.trial import BaseTrial, TrialState
from ray.tune.search import Searcher

from tune.space import Space

SpaceLike = Callable[[BaseTrial], dict[str, Any]] | Mapping[str, BaseDistribution]
Outcome = Literal["complete", "pruned", "failed"]

FAILURE = "failure"
"""Key of a result that says why the trial failed."""
_STATES = {"complete": TrialState.COMPLETE, "pruned": TrialState.PRUNED, "failed": TrialState.FAIL}


class RungSearch(Searcher):
    """Suggests trials by Optuna's TPE, and tells it what became of them at which rung.

    Ray's own ``OptunaSearch`` does not do for such a search: with a define-by-run space it refuses
    ``add_evaluated_point``, so that it cannot be rebuilt from records; a trial that ASHA stopped is
    told as complete with its low-budget value, so that unequal budgets are compared; and a trial
    that ends in NaN is never told at all. Here a stopped trial is told as pruned with its value at
    each rung (which TPE ranks below those that went further), a failed one as failed.

    The sampler of a trial is seeded by (``seed``, the trial's number): at one trial at a time a
    search that is rebuilt by :meth:`restore_trial` goes on as if it had not been interrupted.

    Args:
        space: draws the parameters of an Optuna trial (``tune.space.Space``), or distributions by name.
        metric: key of a result.
        mode: ``min`` or ``max``.
        rungs: levels of the resource at which trials are compared, ascending; the last is the budget.
        resource: key of a result with what the trial has used.
        seed: of the samplers.
        warm_start: points that are suggested first, each with every active parameter.
        storage: Optuna's database (``sqlite:///...``), which optuna-dashboard opens; None: memory.
        study_name: in that database; a study of the same name there is replaced.

    Raises:
        ValueError: a wrong ``mode`` or ``rungs``.
    """

    def __init__(
        self,
        space: SpaceLike,
        *,
        metric: str,
        mode: str,
        rungs: Sequence[int],
        resource: str = "samples_seen",
        seed: int = 0,
        warm_start: Sequence[Mapping[str, Any]] = (),
        storage: str | None = None,
        study_name: str = "study",
    ):
        if mode not in ("min", "max"):
            raise ValueError(f"mode is {mode!r}; it must be 'min' or 'max'")
        if not rungs or any(rung <= 0 for rung in rungs) or list(rungs) != sorted(set(rungs)):
            raise ValueError(f"rungs are {list(rungs)}; they must be positive and strictly ascending")
        super().__init__(metric=metric, mode=mode)
        self._space: Callable[[BaseTrial], dict[str, Any]] = space if callable(space) else Space(dict(space))
        self._rungs = tuple(rungs)
        self._resource = resource
        self._seed = seed
        self._warm_start = [dict(point) for point in warm_start]
        self._study = _new_study(storage, study_name, mode)
        self._open: dict[int, optuna.Trial] = {}
        self._seen: dict[int, dict[int, float]] = {}
        self._params: dict[int, dict[str, Any]] = {}
        self._outcomes: dict[int, Outcome] = {}
        self._to_continue: deque[int] = deque()
        self._numbers: dict[str, int] = {}

    def suggest(self, trial_id: str) -> dict[str, Any] | None:
        """The next point: one of a trial to continue, else a warm start, else TPE's."""
        number = self._to_continue.popleft() if self._to_continue else self._ask()
        self._numbers[trial_id] = number
        return dict(self._params[number])

    def number(self, trial_id: str) -> int:
        """The study's number, from 0, of one of Ray's trials."""
        return self._numbers[trial_id]

    def params(self, number: int) -> dict[str, Any]:
        """The parameters of a trial."""
        return dict(self._params[number])

    def on_trial_result(self, trial_id: str, result: Mapping[str, Any]) -> None:
        """Keep the value of a trial at the rung it has reached."""
        self._observe(self._numbers[trial_id], result)

    def on_trial_complete(self, trial_id: str, result: Mapping[str, Any] | None = None, error: bool = False) -> None:
        """Tell Optuna how a trial ended. Ray skips ``on_trial_result`` for the last result of a stopped trial."""
        number = self._numbers[trial_id]
        if result:
            self._observe(number, result)
        self._tell(number, self._outcome(number, result, error))

    def restore_trial(
        self,
        number: int,
        params: Mapping[str, Any],
        rung_results: Mapping[int, float],
        outcome: Outcome | None,
    ) -> None:
        """Put a recorded trial back; call it in the order of the numbers, before the first ``suggest``.

        Args:
            number: of the trial. A number that is left out was lost before it was recorded, and is
                suggested again.
            params: its parameters.
            rung_results: resource used -> value, at each report.
            outcome: None for a trial that is to continue: it is suggested again, under its number.
        """
        while self._count < number:
            self._to_continue.append(self._ask())
        self._study.enqueue_trial(dict(params))
        self._ask(restored=True)
        for used, value in sorted(rung_results.items()):
            self._observe(number, {self._resource: used, self.metric: value})
        if outcome is None:
            self._to_continue.append(number)
        else:
            self._tell(number, outcome)

    def add_evaluated_point(
        self,
        parameters: Mapping[str, Any],
        value: float,
        error: bool = False,
        pruned: bool = False,
        intermediate_values: list[float] | None = None,
    ) -> None:
        """Take a result from elsewhere; intermediate values are those at the first rungs."""
        values = dict(zip(self._rungs, intermediate_values or [], strict=False))
        if not pruned and not error:
            values[self._rungs[-1]] = value
        self.restore_trial(self._count, parameters, values, "failed" if error else "pruned" if pruned else "complete")

    def set_search_properties(self, metric: str | None, mode: str | None, config: dict, **spec: Any) -> bool:
        """Refuse a metric or mode given to ``TuneConfig``: they are this searcher's arguments."""
        return metric is None and mode is None

    def save(self, checkpoint_path: str) -> None:
        """Write all trials as JSON, for :meth:`restore`."""
        trials = [
            {
                "params": self._params[number],
                "rungs": list(self._seen[number].items()),
                "outcome": self._outcomes.get(number),
            }
            for number in range(self._count)
        ]
        part = Path(f"{checkpoint_path}.part")
        part.write_text(json.dumps(trials), encoding="utf-8")
        os.replace(part, checkpoint_path)

    def restore(self, checkpoint_path: str) -> None:
        """Take up the trials that :meth:`save` wrote; those that were running are suggested again."""
        for number, trial in enumerate(json.loads(Path(checkpoint_path).read_text(encoding="utf-8"))):
            self.restore_trial(number, trial["params"], dict(trial["rungs"]), trial["outcome"])

    @property
    def _count(self) -> int:
        return len(self._params)

    def _ask(self, restored: bool = False) -> int:
        number = self._count
        self._study.sampler = self._sampler(number)
        if not restored and number < len(self._warm_start):
            self._study.enqueue_trial(self._warm_start[number])
        trial = self._study.ask()
        assert trial.number == number, f"Optuna's study holds {trial.number} trials, this search {number}"
        self._params[number] = self._space(trial)
        self._open[number], self._seen[number] = trial, {}
        return number

    def _sampler(self, number: int) -> optuna.samplers.BaseSampler:
        seed = int(np.random.SeedSequence([self._seed, number]).generate_state(1)[0])
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            return optuna.samplers.TPESampler(seed=seed, multivariate=True, group=True, constant_liar=True)

    def _observe(self, number: int, result: Mapping[str, Any]) -> None:
        used, value = result.get(self._resource), result.get(self.metric)
        if used is None or value is None or not math.isfinite(value):
            return
        reached = bisect_right(self._rungs, used)
        if reached == 0 or self._rungs[reached - 1] in self._seen[number]:
            return
        rung = self._rungs[reached - 1]
        self._seen[number][rung] = float(value)
        self._open[number].report(float(value), rung)

    def _outcome(self, number: int, result: Mapping[str, Any] | None, error: bool) -> Outcome:
        value = (result or {}).get(self.metric)
        if error or not self._seen[number] or (result and FAILURE in result):
            return "failed"
        if value is not None and not math.isfinite(value):
            return "failed"
        return "complete" if self._rungs[-1] in self._seen[number] else "pruned"

    def _tell(self, number: int, outcome: Outcome) -> None:
        values = self._seen[number]
        if outcome != "failed" and not values:
            outcome = "failed"
        value = values[max(values)] if outcome == "complete" else None
        self._study.tell(self._open.pop(number), value, state=_STATES[outcome])
        self._outcomes[number] = outcome


def _new_study(storage: str | None, name: str, mode: str) -> optuna.Study:
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    if storage is not None:
        database = optuna.storages.RDBStorage(storage)
        if name in optuna.study.get_all_study_names(database):
            optuna.delete_study(study_name=name, storage=database)
        return optuna.create_study(study_name=name, storage=database, direction=_direction(mode))
    return optuna.create_study(direction=_direction(mode))


def _direction(mode: str) -> str:
    return {"min": "minimize", "max": "maximize"}[mode]
