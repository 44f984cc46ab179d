"""What the searcher's model is told of earlier trials, and what follows from it."""

from typing import Any

import numpy as np
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution
from optuna.study import StudyDirection
from optuna.trial import TrialState

from tune.proposals import ENOUGH, FAILED, MODELLED, PAIRS, Past, modelled_rung, predicted, propose, told
from tune.searcher import RungSearch
from tune.space import Space

MINIMIZE = StudyDirection.MINIMIZE
X = {"x": FloatDistribution(0.0, 1.0)}


def past(x: float, values: dict[int, float], runs: bool = False, failed: bool = False) -> Past:
    return Past({"x": x}, X, values, runs, failed)


def told_at(rung: int, trials: list[Past]) -> list[Any]:
    return told(rung, trials, MINIMIZE, np.random.default_rng(0))


def test_the_model_is_of_the_highest_rung_with_enough_results():
    rungs = (10, 30, 90)
    trials = [past(0.1 * n, {10: 1.0}) for n in range(ENOUGH - 1)]
    assert modelled_rung(trials, rungs) is None
    trials.append(past(0.9, {10: 1.0, 30: 0.9}))
    assert modelled_rung(trials, rungs) == 10
    trials += [past(0.01 * n, {10: 1.0, 30: 0.9}) for n in range(ENOUGH - 1)]
    assert modelled_rung(trials, rungs) == 30
    assert modelled_rung(trials, (10, 30, 300)) == 30
    assert modelled_rung(trials, (10, 301)) is None  # a thirtieth of the budget tells too little


def test_the_model_is_told_values_of_one_budget_only():
    trials = [past(0.1, {10: 5.0, 30: 4.0}), past(0.2, {10: 0.1}), past(0.3, {10: 6.0, 30: 3.0, 90: 2.0})]
    assert [(trial.params["x"], trial.value) for trial in told_at(30, trials)] == [(0.1, 4.0), (0.3, 3.0)]


def test_a_stopped_trial_counts_with_what_those_that_went_on_predict_of_it():
    went_on = [past(0.1 * n, {10: 1.0 + n, 30: 0.5 + 0.5 * n}) for n in range(PAIRS)]
    stopped, failed, running = past(0.7, {10: 9.0}), past(0.8, {10: 9.0}, failed=True), past(0.9, {10: 9.0}, runs=True)
    trials = [*went_on, stopped, failed, running]
    assert predicted(30, trials) == {PAIRS: pytest.approx(4.5)}
    found = {trial.params["x"]: trial.value for trial in told_at(30, trials)}
    assert found[0.7] == pytest.approx(4.5)
    assert (found[0.8], found[0.9]) == (1.5, None)
    assert predicted(30, trials[1:]) == {}  # too few went on


def test_a_prediction_brings_trials_nearer_to_each_other_and_never_turns_them_round():
    def at(slope: float) -> float:
        went_on = [past(0.1 * n, {10: float(n), 30: slope * n}) for n in range(PAIRS)]
        return predicted(30, [*went_on, past(0.9, {10: 12.0})])[PAIRS]

    assert [at(slope) for slope in (-1.0, 0.0, 0.5, 3.0)] == pytest.approx([-2.0, 0.0, 6.0, 16.0])
    same = [past(0.1 * n, {10: 1.0, 30: float(n)}) for n in range(PAIRS)]
    assert predicted(30, [*same, past(0.9, {10: 1.0})]) == {}


def test_a_trial_on_its_way_to_the_rung_is_pending():
    trials = [past(0.1, {10: 5.0, 30: 4.0}), past(0.2, {10: 4.0}, runs=True), past(0.3, {10: 6.0, 30: 3.0}, runs=True)]
    states = {trial.params["x"]: trial.state for trial in told_at(30, trials)}
    assert states == {0.1: TrialState.COMPLETE, 0.3: TrialState.COMPLETE, 0.2: TrialState.RUNNING}


def test_a_failed_trial_violates_a_constraint():
    trials = [past(0.1, {10: 5.0}), past(0.2, {10: 3.0}), past(0.3, {}, failed=True)]
    found = told_at(10, trials)
    assert [trial.constraints for trial in found] == [{FAILED: -1.0}, {FAILED: -1.0}, {FAILED: 1.0}]
    assert [trial.value for trial in found] == [5.0, 3.0, 4.0]
    assert [trial.constraints for trial in told_at(10, trials[:2])] == [{}, {}]


@pytest.mark.parametrize("direction", list(StudyDirection)[1:])
def test_the_model_takes_so_many_trials_at_most_and_the_better_ones_among_them(direction):
    sign = 1 if direction == MINIMIZE else -1
    trials = [past(n / 1000, {10: sign * n}) for n in reversed(range(3 * MODELLED))]
    found = sorted(abs(trial.value) for trial in told(10, trials, direction, np.random.default_rng(0)))
    assert len(found) == MODELLED
    assert found[: MODELLED // 2] == list(range(MODELLED // 2))
    assert found[-1] > MODELLED


def run_to_the_end(search: RungSearch, name: str, value: float) -> None:
    search.on_trial_complete(name, {"samples_seen": 90, "error": value})


def test_a_region_where_trials_fail_is_left_alone():
    space = {"x": FloatDistribution(0.0, 1.0), "y": FloatDistribution(0.0, 1.0)}
    search = RungSearch(space, metric="error", mode="min", rungs=(10, 30, 90), seed=1)
    points = []
    for number in range(36):  # the error falls towards x = 1, but from 0.6 on memory runs out
        x, y = search.suggest(str(number)).values()
        points.append(x)
        if x > 0.6:
            search.on_trial_complete(str(number), {"samples_seen": 5, "failure": "out of memory"})
        else:
            run_to_the_end(search, str(number), 1 - x + (y - 0.4) ** 2)
    assert sum(x > 0.7 for x in points[-12:]) <= 4  # without the constraint it would go there every time
    assert max(x for x in points if x <= 0.6) > 0.5  # and it goes as near as it can


def test_trials_side_by_side_spread_out():
    search = RungSearch(dict(X), metric="error", mode="min", rungs=(90,), seed=2)
    for number in range(8):
        run_to_the_end(search, str(number), (search.suggest(str(number))["x"] - 0.5) ** 2)
    points = sorted(search.suggest(f"waiting {number}")["x"] for number in range(6))
    assert min(np.diff(points)) > 1e-3


def test_it_finds_a_good_conditional_parameter():
    space = Space(
        {"kind": CategoricalDistribution(["plain", "tuned"]), "rate": FloatDistribution(0.0, 1.0)},
        {"rate": {"kind": ("tuned",)}},
    )
    search = RungSearch(space, metric="error", mode="min", rungs=(90,), seed=0)
    rates = []
    for number in range(40 + ENOUGH):
        point = search.suggest(str(number))
        rates.append(point.get("rate"))
        run_to_the_end(search, str(number), 1.0 if point["kind"] == "plain" else abs(point["rate"] - 0.7))
    late = [rate for rate in rates[-20:] if rate is not None]
    assert len(late) >= 10
    assert np.median([abs(rate - 0.7) for rate in late]) < 0.2


def test_a_suggestion_depends_on_what_was_seen_and_on_nothing_else():
    order = (0, 9, 7, 1, 5, 10, 6, 8, 4.2, 0.5, 2)
    trials = [past(0.1 * n, {90: (0.1 * n - 0.3) ** 2}) for n in order]
    assert len(trials) > ENOUGH
    space = Space(dict(X))

    def point(trials: list[Past], number: int, seed: int = 0) -> dict[str, Any]:
        return propose(trials, space, rungs=(90,), direction=MINIMIZE, seed=seed, number=number)

    assert point(trials, 8) == point(trials, 8)
    assert point(trials, 8) != point(trials[:-1], 8)  # what was seen of the last, next to the best, is missing
    assert len({point([], number, seed)["x"] for number, seed in ((0, 0), (1, 0), (0, 1))}) == 3
