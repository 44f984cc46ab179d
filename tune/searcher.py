"""``RungSearch``: Optuna behind Ray's ``Searcher`` interface, made for trials that are stopped early."""

import json
import math
import os
from bisect import bisect_right
from collections import deque
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal

import optuna
from optuna.distributions import BaseDistribution
from optuna.trial import FixedTrial, TrialState, create_trial
from ray.tune.search import Searcher

from tune.proposals import FAILED, DefineByRun, Past, checked, config_at, propose
from tune.space import Space

SpaceLike = DefineByRun | Mapping[str, BaseDistribution]
FAILURE = "failure"
"""Key of a result that says why the trial failed; and of the Optuna trial's attribute with it."""
_STATES = {"complete": TrialState.COMPLETE, "pruned": TrialState.PRUNED, "failed": TrialState.FAIL}


class RungSearch(Searcher):
    """Suggests trials by Optuna's samplers, and tells them results of equal budget only.

    Ray's own ``OptunaSearch`` does not do for such a search: with a define-by-run space it refuses
    ``add_evaluated_point``, so that it cannot be rebuilt from records; a trial that ASHA stopped is
    told as complete with its low-budget value, so that unequal budgets are compared; and a trial
    that ends in NaN is never told at all. Here the next point comes from a model of one rung
    (``tune.proposals``), and no point is suggested twice while the space has another.

    Optuna's study keeps everything for its dashboard: a stopped trial as pruned with its value at
    each rung, a failed one as failed and as violating a constraint.

    A suggestion is a function of (``seed``, the trial's number, the trials before it): at one trial
    at a time a search that is rebuilt by :meth:`restore_trial` goes on as if it had not been
    interrupted.

    Args:
        space: draws the parameters of an Optuna trial (``tune.space.Space``, or any function that
            suggests them and may return constants to go with them), or distributions by name.
        metric: key of a result.
        mode: ``min`` or ``max``.
        rungs: levels of the resource at which trials are compared, ascending; the last is the budget.
        resource: key of a result with what the trial has used.
        seed: of the samplers.
        warm_start: points that are suggested first, each with every active parameter.
        storage: Optuna's database (``sqlite:///...``), which optuna-dashboard opens; None: memory.
        study_name: in that database; a study of the same name there is replaced.

    Raises:
        ValueError: a wrong ``mode`` or ``rungs``, or a warm start that is no point of the space.
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
        self._space: DefineByRun = space if callable(space) else Space(dict(space))
        self._rungs = tuple(rungs)
        self._resource = resource
        self._seed = seed
        self._warm_start = [checked(self._space, point) for point in warm_start]
        self._open_study = partial(_new_study, storage, study_name, mode)
        self._forget()

    def _forget(self) -> None:
        """Begin with no trials."""
        self._study = self._open_study()
        self._open: dict[int, optuna.Trial] = {}
        self._past: list[Past] = []
        self._params: dict[int, dict[str, Any]] = {}
        self._outcomes: dict[int, str] = {}
        self._given: set[int] = set()
        self._to_continue: deque[int] = deque()
        self._numbers: dict[str, int] = {}

    def suggest(self, trial_id: str) -> dict[str, Any] | None:
        """The next point: one of a trial to continue, else a warm start, else the model's."""
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
        """Tell Optuna how a trial ended; a second call changes nothing.

        Ray skips :meth:`on_trial_result` for the last result of a stopped trial, and calls this
        again when stopping a trial fails.
        """
        number = self._numbers[trial_id]
        if number in self._outcomes:
            return
        if result:
            self._observe(number, result)
            if FAILURE in result:
                self._open[number].set_user_attr(FAILURE, str(result[FAILURE]))
        self._tell(number, self._outcome(number, result, error))

    def restore_trial(
        self,
        number: int,
        params: Mapping[str, Any],
        rung_results: Mapping[int, float],
        outcome: str | None,
    ) -> None:
        """Put a recorded trial back; call it in the order of the numbers, before the first ``suggest``.

        Args:
            number: of the trial. A number that is left out was lost before it was recorded, and is
                suggested again.
            params: its parameters.
            rung_results: resource used -> value, at each report.
            outcome: ``complete``, ``pruned`` or ``failed``; None for a trial that is to continue: it is
                suggested again, under its number.

        Raises:
            ValueError: the numbers do not ascend, no such outcome, or the parameters are no point of
                the space.
        """
        if outcome not in (None, *_STATES):
            raise ValueError(f"outcome is {outcome!r}; it must be None or one of {', '.join(_STATES)}")
        if number < self._count:
            raise ValueError(f"trial {number} comes after trial {self._count - 1}; restore them in ascending order")
        while self._count < number:
            self._to_continue.append(self._ask())
        self._start(params)
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
        self._given.add(self._count)  # it takes no warm start's turn
        self.restore_trial(self._count, parameters, values, "failed" if error else "pruned" if pruned else "complete")

    def set_search_properties(self, metric: str | None, mode: str | None, config: dict, **spec: Any) -> bool:
        """Whether it takes its space from Ray's ``param_space``: it does not.

        Raises:
            ValueError: ``TuneConfig`` has another metric or mode.
        """
        if metric not in (None, self.metric) or mode not in (None, self.mode):
            raise ValueError(
                f"TuneConfig has metric {metric!r} and mode {mode!r}, the searcher has {self.metric!r} and "
                f"{self.mode!r}; leave them out of TuneConfig"
            )
        return False

    def save(self, checkpoint_path: str) -> None:
        """Write all trials as JSON, for :meth:`restore`."""
        ids = {number: trial_id for trial_id, number in self._numbers.items()}
        trials = [
            {
                "id": ids.get(number),
                "params": self._params[number],
                "rungs": list(self._past[number].values.items()),
                "outcome": self._outcomes.get(number),
                "given": number in self._given,
            }
            for number in range(self._count)
        ]
        part = Path(f"{checkpoint_path}.part")
        part.write_text(json.dumps(trials), encoding="utf-8")
        os.replace(part, checkpoint_path)

    def restore(self, checkpoint_path: str) -> None:
        """Take up the trials that :meth:`save` wrote, in place of those known so far.

        Those that were running stay so, under Ray's ids: Ray continues them without asking.
        """
        self._forget()
        for number, trial in enumerate(json.loads(Path(checkpoint_path).read_text(encoding="utf-8"))):
            if trial["given"]:
                self._given.add(number)
            self.restore_trial(number, trial["params"], dict(trial["rungs"]), trial["outcome"])
            if trial["id"] is not None:
                self._numbers[trial["id"]] = number
                if trial["outcome"] is None:
                    self._to_continue.remove(number)

    @property
    def _count(self) -> int:
        return len(self._params)

    def _ask(self) -> int:
        number = self._count
        turn = number - len(self._given)
        warm = self._warm_start[turn] if turn < len(self._warm_start) else None
        return self._start(
            warm
            or propose(
                self._past,
                self._space,
                rungs=self._rungs,
                direction=self._study.direction,
                seed=self._seed,
                number=number,
            )
        )

    def _start(self, point: Mapping[str, Any]) -> int:
        """Open the study's next trial at a point."""
        number = self._count
        trial = FixedTrial(checked(self._space, point))
        self._params[number] = config_at(self._space, trial)
        self._past.append(Past(trial.params, trial.distributions))
        # in one transaction; ``ask`` would make one for each parameter
        state, suggested = TrialState.RUNNING, trial.distributions
        self._study.add_trial(create_trial(state=state, params=trial.params, distributions=suggested))
        added = self._study.get_trials(deepcopy=False)[-1]
        assert added.number == number, f"Optuna's study holds {added.number} trials, this search {number}"
        self._open[number] = optuna.Trial(self._study, added._trial_id)
        return number

    def _observe(self, number: int, result: Mapping[str, Any]) -> None:
        used, value = result.get(self._resource), result.get(self.metric)
        if used is None or value is None or not math.isfinite(value):
            return
        reached = bisect_right(self._rungs, used)
        if reached == 0 or self._rungs[reached - 1] in self._past[number].values:
            return
        rung = self._rungs[reached - 1]
        self._past[number].values[rung] = float(value)
        self._open[number].report(float(value), rung)

    def _outcome(self, number: int, result: Mapping[str, Any] | None, error: bool) -> str:
        value = (result or {}).get(self.metric)
        if error or not self._past[number].values or (result and FAILURE in result):
            return "failed"
        if value is not None and not math.isfinite(value):
            return "failed"
        return "complete" if self._rungs[-1] in self._past[number].values else "pruned"

    def _tell(self, number: int, outcome: str) -> None:
        value = self._past[number].values.get(self._rungs[-1])
        if outcome == "complete" and value is None:  # without a value at the full budget it compares with none
            outcome = "pruned"
        trial, past = self._open.pop(number), self._past[number]
        past.runs, past.failed = False, outcome == "failed"
        if past.failed:
            trial.set_constraint(FAILED, 1.0)
        self._study.tell(trial, value if outcome == "complete" else None, state=_STATES[outcome])
        self._outcomes[number] = outcome


def _new_study(storage: str | None, name: str, mode: str) -> optuna.Study:
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    direction: Literal["minimize", "maximize"] = "minimize" if mode == "min" else "maximize"
    if storage is None:
        return optuna.create_study(direction=direction)
    database = optuna.storages.RDBStorage(storage)
    if name in optuna.study.get_all_study_names(database):
        optuna.delete_study(study_name=name, storage=database)
    return optuna.create_study(study_name=name, storage=database, direction=direction)
