"""States of trials that lost are deleted; nothing else is."""

import logging

import pytest

from tune.asha import Rungs
from tune.records import Records, Result
from tune.retention import Retention, best_number

METRIC = "val/critical_action_mse"


@pytest.fixture
def records(tmp_path):
    return Records(tmp_path / "study")


class Played:
    """Trials that are played by hand: each report leaves a state on the disk."""

    def __init__(self, records: Records, mode: str = "min", keep_stopped: bool = False):
        self.records, self.rungs = records, Rungs([100, 300, 900], 3, mode)
        self.retention = Retention(records.locate, records.trials(), self.rungs, mode, keep_stopped)
        self.mode = mode

    def report(self, number: int, samples: int, value: float) -> None:
        self.records.start_trial(number, None, {}, {})
        place = self.records.run_dir / "ray" / f"{number}-{samples}"
        place.mkdir(parents=True)
        (place / "state").write_text("weights")
        result = Result({"samples_seen": samples, METRIC: value}, checkpoint=self.records.relative(str(place)))
        self.records.add_result(number, result)
        self.rungs.record(number, samples, value)

    def end(self, number: int, state: str) -> None:
        self.records.end_trial(number, state, None)
        self.retention.ended(number, state, self.records.trials()[number].checkpoint)

    def kept(self) -> set[str]:
        return {path.name for path in (self.records.run_dir / "ray").iterdir()}


def test_a_stopped_trial_is_kept_only_while_it_is_the_best(records):
    study = Played(records)
    study.report(0, 100, 0.5)
    study.end(0, "pruned")
    assert study.kept() == {"0-100"}
    study.report(1, 100, 0.7)
    study.end(1, "pruned")
    assert study.kept() == {"0-100"}
    study.report(2, 100, 0.6)
    study.report(2, 300, 0.9)  # a higher rung counts more than a lower value at a lower one
    study.end(2, "pruned")
    assert study.kept() == {"2-100", "2-300"}


def test_those_of_stopped_trials_are_kept_where_that_is_asked_for_but_not_of_failed_ones(records):
    study = Played(records, keep_stopped=True)
    for number, (value, state) in enumerate([(0.5, "pruned"), (0.7, "pruned"), (0.6, "failed")]):
        study.report(number, 100, value)
        study.end(number, state)
    assert study.kept() == {"0-100", "1-100"}


def test_what_runs_or_is_complete_is_kept(records):
    study = Played(records)
    study.report(0, 900, 0.5)
    study.end(0, "complete")
    study.report(1, 300, 0.9)
    study.report(2, 900, 0.1)
    study.end(2, "complete")
    assert study.kept() == {"0-900", "1-300", "2-900"}


def test_a_failed_trial_is_never_the_best(records):
    study = Played(records)
    study.report(0, 100, 0.1)
    study.report(1, 100, 0.6)
    study.end(1, "pruned")
    study.end(0, "failed")
    assert study.kept() == {"1-100"}


def test_one_that_runs_makes_no_ended_one_useless(records):
    study = Played(records)
    study.report(0, 100, 0.6)
    study.report(1, 100, 0.1)
    study.end(0, "pruned")
    assert study.kept() == {"0-100", "1-100"}
    study.end(1, "complete")
    study.report(2, 100, 0.9)
    study.end(2, "pruned")
    assert study.kept() == {"1-100"}


def test_the_larger_is_the_better_where_it_is(records):
    study = Played(records, mode="max")
    for number, value in enumerate((0.5, 0.8, 0.7)):
        study.report(number, 100, value)
        study.end(number, "pruned")
    assert study.kept() == {"1-100"}


def test_a_resumed_study_deletes_what_its_killed_driver_left(records):
    study = Played(records)
    for number, value in enumerate((0.5, 0.4)):
        study.report(number, 100, value)
        study.records.end_trial(number, "pruned", None)  # killed before the state was deleted
    assert study.kept() == {"0-100", "1-100"}
    Retention(records.locate, records.trials(), study.rungs, "min")
    assert study.kept() == {"1-100"}


def test_a_state_that_is_gone_or_cannot_be_deleted_stops_nothing(records, caplog):
    study = Played(records)
    with caplog.at_level(logging.WARNING):
        study.retention.ended(0, "pruned", "ray/gone")
        assert not caplog.records
        study.retention.ended(1, "pruned", "nosuchstore://bucket/state")
    assert "nosuchstore://bucket/state could not be deleted" in caplog.text


def test_the_best_is_at_the_highest_rung():
    rungs = {100: {0: 0.1, 1: 0.5, 2: 0.6}, 300: {1: 0.4, 2: 0.4}, 900: {}}
    assert best_number(rungs, {0, 1, 2}, 1.0) == 1
    assert best_number(rungs, {0, 2}, 1.0) == 2
    assert best_number(rungs, {0}, 1.0) == 0
    assert best_number(rungs, {7}, 1.0) is None
