"""The simulation of trials side by side, and what is computed from its runs; no surrogate needed."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.benchmarks.comparison import (
    epochs_to,
    geometric_mean,
    interquartile_mean,
    interval,
    ratio_to,
    regret_at,
)
from tests.benchmarks.searchers import rungs_of
from tests.benchmarks.simulator import simulate


class Script:
    """Trials of given values, with those listed stopped at the first rung."""

    def __init__(self, stopped: set[int]):
        self.stopped, self.reports = stopped, []

    def suggest(self, number):
        return {"number": number}

    def report(self, number, epoch, value):
        self.reports.append((number, epoch))
        return number not in self.stopped


def curve(params):
    """A trial's error is ten less its number, and falls by one a rung; the first trial is slow."""
    error, slow = 10.0 - params["number"], 4.0 if params["number"] == 0 else 1.0
    return [error, error - 1], [slow, 3 * slow]


def test_trials_report_in_the_order_in_which_they_finish():
    script = Script(stopped={1})
    simulate(script, curve, rungs=(1, 3), budget=8, workers=2, sign=1.0)
    # trial 1 ends at 1 s, trial 2 runs from 1 to 4 s; trial 0 reports at 4 s too, and came first
    assert script.reports[:4] == [(1, 1), (2, 1), (0, 1), (2, 3)]


def test_epochs_are_counted_and_the_best_at_the_highest_rung_is_chosen():
    track = simulate(Script(stopped={1}), curve, rungs=(1, 3), budget=8, workers=2, sign=1.0)
    assert track.seen[:2] == [(1, 9.0), (2, 8.0)]
    assert track.chosen[:2] == [(1, 8.0), (2, 7.0)]  # what they come to at the full budget
    assert track.whole[0] == (5, 7.0)
    assert all(spent <= 8 for spent, _ in track.seen)


def test_rungs_end_at_the_whole_trial():
    assert rungs_of(1, 3) == (1, 3, 9, 27, 52)
    assert rungs_of(6, 4) == (6, 24, 52)


def test_times_to_a_result_by_hand():
    steps = [(10, 0.9), (40, 0.5), (70, 0.2)]
    assert [regret_at(steps, epochs) for epochs in (5, 10, 69, 70)] == [1.0, 0.9, 0.5, 0.2]
    assert epochs_to(steps, 0.5, 100) == 40
    assert epochs_to(steps, 0.1, 100) == 100
    key = (1, "accuracy", 1, 3, 0)
    theirs = [(20, 0.8), (80, 0.5)]
    assert ratio_to({key: steps}, {key: theirs}, {key: theirs}, 100) == {key: 0.5}


def test_means_by_hand():
    assert interquartile_mean(np.array([100.0, 1.0, 2.0, -50.0])) == 1.5
    assert geometric_mean(np.array([0.5, 2.0])) == pytest.approx(1.0)


def test_an_interval_holds_the_value_and_widens_with_the_tasks_differences():
    alike = {(task, "m", 1, 3, seed): 1.0 + 0.01 * seed for task in range(6) for seed in range(4)}
    apart = {key: value + key[0] for key, value in alike.items()}
    for values in (alike, apart):
        found = interval(values, interquartile_mean)
        assert found.low <= found.value <= found.high
    assert interval(apart, interquartile_mean).high - interval(apart, interquartile_mean).low > 0.5


def test_without_the_data_it_is_skipped_in_one_line(tmp_path: Path):
    command = [sys.executable, "-m", "tests.benchmarks.searchers", "--data", str(tmp_path / "none")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.startswith("skipped: no surrogate at")
    assert json.dumps(done.stdout).count("\\n") == 1
