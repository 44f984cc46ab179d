"""What a study cost, by hand."""

import pytest

from tune.clock import seconds_at
from tune.records import Outcome, Result, Session, TrialRecord
from tune.report.cost import cost_of
from tune.spec import Resources

BUDGET = 900


def trial(number: int, started: float, reports: dict[float, int], end: tuple[str, float] | None) -> TrialRecord:
    results = tuple(Result({"samples_seen": samples}, time=time) for time, samples in reports.items())
    outcome = Outcome(end[0], None, end[1]) if end else None
    return TrialRecord(number, None, {}, {}, started, results, outcome)


def test_gpu_hours_are_of_all_trials_and_what_was_saved_is_at_their_own_speed():
    trials = [
        trial(0, 0, {3600: 300, 7200: 900}, ("complete", 7200)),
        trial(1, 0, {1800: 100}, ("pruned", 1800)),
        trial(2, 0, {}, ("failed", 3600)),
        trial(3, 7200, {9000: 100}, None),
    ]
    cost = cost_of(trials, [Session(0, {})], BUDGET, Resources(gpus=0.5, cpus=4, cost_per_hour=3))
    assert cost.samples == 900 + 100 + 100
    assert cost.trial_hours == pytest.approx(2 + 0.5 + 1 + 0.5)
    assert cost.gpu_hours == pytest.approx(2)
    assert cost.cpu_hours == pytest.approx(16)
    assert cost.price == pytest.approx(12)
    assert (cost.stopped, cost.saved_samples, cost.whole_samples) == (1, 800, 1800)
    assert cost.saved_hours == pytest.approx(8 * 0.5)  # it took half an hour for 100 of its 900 samples
    assert cost.saved_share == pytest.approx(800 / 1800)


def test_each_session_counts_what_it_gave():
    trials = [trial(0, 0, {3600: 300, 7200 + 3600: 900}, ("complete", 7200 + 3600))]
    sessions = [Session(0, {}, {"cpus": 2.0, "gpus": 0.5}), Session(7200, {}, {"cpus": 4.0, "gpus": 1.0})]
    cost = cost_of(trials, sessions, BUDGET, Resources(gpus=1, cpus=4))
    assert (cost.trial_hours, cost.gpu_hours, cost.cpu_hours) == pytest.approx((2, 0.5 + 1, 2 + 4))


def test_nothing_ended_means_nothing_is_said_of_what_was_saved():
    cost = cost_of([trial(0, 0, {10: 100}, None)], [Session(0, {})], BUDGET, Resources())
    assert cost.saved_share is None
    assert cost.price is None
    assert cost.gpu_hours == 0


def test_the_time_between_two_sessions_is_no_trials():
    # started at 10, killed after its report at 20; the study was started again at 1000
    assert seconds_at([10, 20, 1030, 1040], [0, 1000]) == [0, 10, 40, 50]
    assert seconds_at([10], [0]) == [0]
