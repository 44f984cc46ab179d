"""Effects of a change, on learning curves that can be checked by hand."""

from dataclasses import replace

import numpy as np
import pytest

from tune.effects import OBJECTIVE, PRECISION, SPEED, fall, first_reached, reported_speeds, saving
from tune.records import Outcome, Result, TrialRecord

SHARES = (0.5, 1.0, 1.5)
"""Episodes, from easy to hard."""


def training(curve, speed=None, shares=SHARES, eef=None):
    """A record: samples -> error, spread over three episodes."""
    results = []
    for samples, value in curve.items():
        rows = {OBJECTIVE: [(episode, 4, value * share) for episode, share in enumerate(shares)]}
        if eef is not None:
            rows[PRECISION] = [(episode, 4, eef * share) for episode, share in enumerate(shares)]
        metrics = {"samples_seen": samples, OBJECTIVE: value} | ({SPEED: speed} if speed else {})
        results.append(Result(metrics, episodes=rows))
    return TrialRecord(0, "any", {}, {}, 0.0, tuple(results), Outcome("complete"))


def test_a_curve_reaches_a_target_between_its_points():
    clock, errors = [100, 200, 300], [1.0, 0.6, 0.2]

    def reached(target):
        return first_reached(np.array(clock, float), np.array(errors), target)

    assert reached(0.8) == 150
    assert reached(0.2) == 300
    assert reached(1.5) == 100  # what was before the first evaluation is not known
    assert reached(0.1) == 300  # never: all of it
    assert first_reached(np.array([1.0, 2, 3]), np.array([1.0, 0.5, 0.9]), 0.5) == 2  # the first time counts


def test_a_fall_is_a_share_of_the_baseline_s_error():
    base = [training({100: 2.0, 200: 1.0}), training({100: 2.0, 200: 1.2})]
    better = [training({100: 2.0, 200: 0.8}), training({100: 2.0, 200: 0.96})]
    effect = fall(better, base, OBJECTIVE)
    assert effect.value.mean == pytest.approx(0.2)
    assert effect.value.low == pytest.approx(0.2)  # the same in every episode and seed
    assert fall(better, base, PRECISION).value is None
    assert "cannot be measured" in fall(better, base, PRECISION).note
    near = fall([training({200: 1.0}, eef=0.09)], [training({200: 1.0}, eef=0.1)], PRECISION)
    assert near.value.mean == pytest.approx(0.1)


def test_samples_that_are_saved_to_the_baseline_s_final_error():
    base = training({100: 2.0, 200: 1.5, 300: 1.0})
    better = training({100: 1.5, 200: 0.5, 300: 0.4})  # 1.0 at 150
    effect = saving([better], [base])
    assert effect.value.mean == pytest.approx(0.5)
    assert not effect.at_most
    # the baseline was there itself at 200
    early = training({100: 2.0, 200: 1.0, 300: 1.0})
    assert saving([better], [early]).value.mean == pytest.approx(0.25)


def test_one_that_never_gets_there_saves_at_most_nothing():
    base, worse = training({100: 2.0, 200: 1.5, 300: 1.0}), training({100: 2.0, 200: 1.8, 300: 1.6})
    effect = saving([worse, worse], [base, base])
    assert effect.at_most
    assert effect.value.mean == 0
    assert effect.note == "not reached by 2 of 2 seeds"


def test_seconds_are_the_samples_at_the_median_of_the_reported_speeds():
    slow, fast = training({100: 2.0, 300: 1.0}, speed=10.0), training({100: 2.0, 300: 1.0}, speed=20.0)
    curve = ({"samples_seen": 60, SPEED: 20.0},)
    result = Result({"samples_seen": 100, OBJECTIVE: 1.0, SPEED: 10.0}, curve)
    assert reported_speeds(TrialRecord(0, None, {}, {}, 0.0, (result,))) == [20.0, 10.0]
    assert saving([fast], [slow], seconds=True).value.mean == pytest.approx(0.5)
    assert saving([fast], [slow]).value.mean == 0
    disturbed = replace(
        fast, results=(*fast.results[:-1], replace(fast.results[-1], metrics={**fast.results[-1].metrics, SPEED: 1.0}))
    )
    assert saving([fast, disturbed], [slow, slow], seconds=True).value.mean == pytest.approx(0.5)
    assert "no speed" in saving([training({100: 1.0})], [slow], seconds=True).note


def test_without_the_episodes_or_with_one_of_them_no_interval_is_claimed():
    bare = TrialRecord(0, "any", {}, {}, 0.0, (Result({"samples_seen": 1, OBJECTIVE: 1.0}),), Outcome("complete"))
    assert saving([bare], [bare]).value is None
    one = training({100: 2.0, 200: 1.0}, shares=(1.0,))
    assert fall([one], [one], OBJECTIVE).note == "one validation episode gives no interval"
    assert saving([one], [one]).value.low is None
