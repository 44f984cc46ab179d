"""The simulation of trials side by side, and what is computed from its runs; no surrogate needed."""

import json
import sys

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
from tests.benchmarks.methods import NAMES
from tests.benchmarks.planted import Planted
from tests.benchmarks.report import print_tables
from tests.benchmarks.searchers import main, one_run, read, rungs_of
from tests.benchmarks.simulator import Track, simulate


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


def test_without_the_data_it_is_skipped_in_one_line(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["searchers", "--data", str(tmp_path / "none")])
    assert main() == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 1
    assert lines[0].startswith("skipped: no surrogate at")


def test_tables_are_printed_from_a_file_of_runs_and_a_cut_off_line_is_left_out(tmp_path, capsys):
    def run(method: str, seed: int, steps: list) -> str:
        return json.dumps(
            {"method": method, "task": 1, "metric": "accuracy", "grace": 1, "reduction": 3, "seed": seed,
             "budget": 100, "workers": 8, "trials": 9, "chosen": steps}
        )  # fmt: skip

    lines = [run("random", seed, [[10, 0.9], [80, 0.5]]) for seed in range(4)]
    lines.append(run("random", 4, [[10, 7.0]]))  # ours has not tried it yet
    lines += [run("ours", seed, [[10, 0.9], [20, 0.5], [60, 0.1]]) for seed in range(4)]
    path = tmp_path / "runs.jsonl"
    path.write_text("\n".join([*lines, lines[0][:30]]), encoding="utf-8")
    print_tables(list(read(path)), budget=100)
    out = capsys.readouterr().out
    assert out.startswith("\n4 runs a method, 4 seeds, 100 epochs")
    assert "| ours | 0.250 [0.250, 0.250] | 0.250 |" in out  # 20 epochs of 80
    assert "| accuracy | 1 | 3 | 0.500 | 0.100 |" in out


def small_search(method: str) -> Track:
    return one_run(Planted(), NAMES[method], 0, "smooth", (1, 3, 9, 40), 3, 0, 400, 8)


@pytest.fixture(scope="module")
def whole() -> Track:
    return small_search("ours")


@pytest.mark.parametrize("name", [name for name in NAMES if name.startswith("ours-")])
def test_every_variant_of_the_searcher_runs_and_differs_from_it(name, whole):
    assert small_search(name).seen != whole.seen
