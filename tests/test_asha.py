"""ASHA: Ray's decisions, for rungs that can be filled from records and trials that are never stopped."""

import math
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from ray.tune.schedulers import ASHAScheduler, TrialScheduler

from tune.asha import Cut, Rungs, RungScheduler
from tune.searcher import FAILURE

CONTINUE, STOP = TrialScheduler.CONTINUE, TrialScheduler.STOP
LEVELS = {3: (10, 30, 90, 270), 4: (10, 40, 160, 500)}


def make(reduction_factor: float = 3, mode: str = "min", **options: Any) -> RungScheduler:
    rungs = LEVELS[int(reduction_factor)]
    return RungScheduler(
        metric="error",
        mode=mode,
        rungs=rungs,
        reduction_factor=reduction_factor,
        number=lambda name: int(name),
        **options,
    )


def report(scheduler: Any, number: int, used: int, value: float, **more: Any) -> str:
    result = {"samples_seen": used, "error": value, "training_iteration": 1, **more}
    return scheduler.on_trial_result(None, SimpleNamespace(trial_id=str(number)), result)


def stream(
    reduction_factor: int, seed: int, trials: int = 60, width: int = 6
) -> Iterator[tuple[int, int, float, bool]]:
    """Trials side by side: (number, used, value, whether it is at a rung), in the order of arrival.

    Send back whether the trial goes on. Each reports at every rung, up to a batch past it, and now
    and then between two.
    """
    rng = np.random.default_rng(seed)
    rungs = LEVELS[reduction_factor]
    waiting, running = list(range(trials)), {}
    while waiting or running:
        while waiting and len(running) < width:
            running[waiting.pop(0)] = 0
        number = int(rng.choice(list(running)))
        place = running[number]
        if rng.random() < 0.2 and place < len(rungs) - 1:
            between = (rungs[place - 1] if place else 0) + 9
            yield number, between, float(rng.normal()), False
            continue
        value = float(np.round(rng.normal() - place, 1))  # rounded, so that ties occur
        goes_on = yield number, int(rungs[place] + rng.integers(8)), value, True
        running[number] += 1
        if not goes_on or running[number] == len(rungs):
            del running[number]


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("mode", ["min", "max"])
@pytest.mark.parametrize("reduction_factor", [3, 4])
def test_decisions_are_those_of_ray(reduction_factor, mode, seed):
    ours = make(reduction_factor, mode)
    rungs = LEVELS[reduction_factor]
    ray = ASHAScheduler(
        "samples_seen", "error", mode, max_t=rungs[-1], grace_period=rungs[0], reduction_factor=reduction_factor
    )
    decisions, added, events = [], set(), stream(reduction_factor, seed)
    number, used, value, _ = next(events)
    try:
        while True:
            trial = SimpleNamespace(trial_id=str(number))
            if number not in added:
                added.add(number)
                ray.on_trial_add(None, trial)
            expected = ray.on_trial_result(None, trial, {"samples_seen": used, "error": value})
            decisions.append((report(ours, number, used, value), expected))
            if expected == STOP:
                ray.on_trial_complete(None, trial, {"samples_seen": used, "error": value})
            number, used, value, _ = events.send(expected == CONTINUE)
    except StopIteration:
        pass
    assert [mine for mine, _ in decisions] == [rays for _, rays in decisions]
    assert {rays for _, rays in decisions} == {CONTINUE, STOP}
    early = sum(rays == STOP for _, rays in decisions) - len(ours.rungs.values()[rungs[-1]])
    assert early > 10
    assert len(ours.cuts) == early


def test_cut_offs_by_hand():
    rungs = Rungs((10, 30), 3, "min")
    assert rungs.cutoff(10) is None
    assert rungs.record(0, 10, 4.0) is None  # the first goes on
    assert rungs.cutoff(10) == 4
    assert rungs.record(1, 10, 5.0) == Cut(10, 5.0, 4.0)  # it is worse than the only one
    # two thirds of the way from the worse, 5, to the better, 4
    assert rungs.cutoff(10) == pytest.approx(5 - 2 / 3)
    assert rungs.record(2, 10, 4.3) is None
    # ranks 2, 1, 0 from the best; two thirds of the way from rank 2 is a third of the way from 4.3 to 4
    assert rungs.cutoff(10) == pytest.approx(4.3 - (4.3 - 4) / 3)
    assert rungs.record(3, 10, 4.19) is None
    assert rungs.record(4, 10, 4.3).value == 4.3
    assert rungs.values() == {10: {0: 4.0, 1: 5.0, 2: 4.3, 3: 4.19, 4: 4.3}, 30: {}}


def test_cut_offs_of_a_metric_that_grows():
    rungs = Rungs((10,), 4, "max")
    for number, value in enumerate((1.0, 2.0, 3.0, 4.0, 5.0)):
        assert rungs.record(number, 10, value) is None
    assert rungs.cutoff(10) == 4  # three quarters of the way from 1 to 5
    assert rungs.record(5, 10, 4.0) is None  # as good as the cut-off goes on
    assert rungs.record(6, 10, 3.9) == Cut(10, 3.9, 4.0)


def test_a_trial_is_compared_with_those_before_it_and_not_with_itself():
    rungs = Rungs((10,), 3, "min")
    rungs.record(0, 10, 1.0)
    assert rungs.record(1, 10, 1.0 + 1e-9) is not None


def test_a_batch_that_oversteps_a_rung_counts_there():
    rungs = Rungs((10, 30, 90), 3, "min")
    rungs.record(0, 9, 5.0)
    rungs.record(0, 25, 4.0)
    rungs.record(0, 31, 3.0)
    rungs.record(0, 89, 2.0)
    rungs.record(0, 120, 1.0)
    assert rungs.values() == {10: {0: 4.0}, 30: {0: 3.0}, 90: {0: 1.0}}


def test_a_trial_that_skips_a_rung_counts_at_the_one_it_reached():
    rungs = Rungs((10, 30), 3, "min")
    rungs.record(0, 35, 3.0)
    rungs.record(0, 36, 2.0)
    assert rungs.values() == {10: {}, 30: {0: 3.0}}


def test_protected_trials_are_never_stopped_but_count():
    scheduler = make(protected=[1])
    assert report(scheduler, 0, 10, 1.0) == CONTINUE
    assert report(scheduler, 1, 10, 9.0) == CONTINUE
    assert scheduler.rungs.values()[10] == {0: 1.0, 1: 9.0}
    # without trial 1 the cut-off were 1, and 3 were stopped
    assert report(scheduler, 2, 10, 3.0) == CONTINUE
    assert report(scheduler, 1, 30, 9.0) == CONTINUE
    assert report(scheduler, 1, 90, 9.0) == CONTINUE
    assert report(scheduler, 1, 270, 9.0) == STOP  # its budget is used up
    assert scheduler.cuts == {}


def test_why_a_trial_was_stopped_is_known():
    scheduler = make()
    report(scheduler, 0, 12, 1.0)
    assert report(scheduler, 7, 13, 2.0) == STOP
    assert scheduler.cuts == {7: Cut(10, 2.0, 1.0)}


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_value_that_is_not_finite_stops_a_trial_and_counts_nowhere(value):
    scheduler = make(protected=[1])
    assert report(scheduler, 0, 10, value) == STOP
    assert report(scheduler, 1, 4, value) == STOP  # protected or not, and before the first rung too
    assert scheduler.rungs.values()[10] == {}
    assert report(scheduler, 2, 10, 5.0) == CONTINUE


def test_a_failure_stops_a_trial():
    scheduler = make()
    trial = SimpleNamespace(trial_id="0")
    assert scheduler.on_trial_result(None, trial, {FAILURE: "out of memory"}) == STOP
    assert report(scheduler, 1, 10, 1.0, failure="diverged") == STOP
    assert scheduler.rungs.values()[10] == {}


def test_a_report_without_the_metric_changes_nothing():
    scheduler = make()
    trial = SimpleNamespace(trial_id="0")
    assert scheduler.on_trial_result(None, trial, {"samples_seen": 500, "loss": 1.0}) == CONTINUE
    assert scheduler.on_trial_result(None, trial, {"error": 1.0}) == CONTINUE


def test_a_repeated_report_is_judged_once():
    scheduler = make()
    report(scheduler, 0, 10, 1.0)
    report(scheduler, 1, 10, 0.5)
    assert report(scheduler, 0, 10, 1.0) == CONTINUE  # it had gone on; better ones have come since
    assert scheduler.rungs.values()[10] == {0: 1.0, 1: 0.5}


@pytest.mark.parametrize("mode", ["min", "max"])
@pytest.mark.parametrize("after", [1, 20, 41, 62])
def test_rungs_filled_from_records_decide_as_those_that_lived(mode, after):
    lived, records, decisions = make(3, mode), [], []
    resumed = None
    events = stream(3, seed=5)
    number, used, value, _ = next(events)
    try:
        while True:
            decision = report(lived, number, used, value)
            if resumed is not None:
                decisions.append((report(resumed, number, used, value), decision))
            records.append((number, used, value))
            if len(records) == after:
                resumed = make(3, mode)
                resumed.preload([*records, (999, 10, math.nan)])
            number, used, value, _ = events.send(decision == CONTINUE)
    except StopIteration:
        pass
    assert len(decisions) > 10
    assert [one for one, _ in decisions] == [other for _, other in decisions]
    assert resumed.rungs.values() == lived.rungs.values()


def test_a_trial_that_repeats_a_rung_after_a_resume_goes_on():
    scheduler = make()
    scheduler.preload([(0, 10, 5.0), (1, 10, 1.0), (2, 10, 1.1), (3, 10, 1.2)])
    assert report(scheduler, 0, 10, 5.0) == CONTINUE  # from an older checkpoint; it had gone on, as the first
    assert report(scheduler, 4, 10, 4.0) == STOP


def test_ray_s_calls_around_a_trial_change_nothing():
    scheduler = make()
    trial = SimpleNamespace(trial_id="0")
    scheduler.on_trial_add(None, trial)
    report(scheduler, 0, 10, 1.0)
    scheduler.on_trial_complete(None, trial, {"samples_seen": 30, "error": 1.0})
    scheduler.on_trial_remove(None, trial)
    assert scheduler.rungs.values()[30] == {}
    assert scheduler.debug_string() == (
        "RungScheduler: 10: 1, cut-off 1.0 | 30: 0, cut-off None | 90: 0, cut-off None | 270: 0, cut-off None"
    )


def test_the_metric_is_the_scheduler_s_own():
    assert make().set_search_properties(None, None)
    assert not make().set_search_properties("error", "min")
