"""The study of what predicts the closed loop: its arithmetic, and what it reads of a run."""

import json

import numpy as np
import pytest

pytest.importorskip("mujoco")

from tests.benchmarks.predicts import correlation, held_out_errors, table, trainings_of
from tests.benchmarks.progress import Progress, means
from tune.records import FINALISTS, Records, Result


def test_an_error_that_ranks_policies_backwards_correlates_at_minus_one():
    found = correlation([0.1, 0.2, 0.4, 0.8, 1.6], [0.9, 0.5, 0.4, 0.2, 0.1])
    assert found["rho"] == pytest.approx(-1)
    assert (found["low"], found["high"], found["runs"]) == (pytest.approx(-1), pytest.approx(-1), 5)


def test_the_interval_holds_what_chance_does():
    rng = np.random.default_rng(1)
    found = correlation(rng.normal(size=24), rng.normal(size=24))
    assert found["low"] < 0 < found["high"]
    assert found["high"] - found["low"] > 0.5


def test_scores_that_are_all_alike_tell_nothing():
    assert np.isnan(correlation([1, 2, 3], [0, 0, 0])["rho"])


def test_the_last_evaluation_counts(tmp_path):
    rows = [{"samples_seen": 8, "val/a": 2.0}, {"samples_seen": 16, "val/a": 1.0, "val/a_se": 0.1}, {"train/loss": 3.0}]
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert held_out_errors(tmp_path) == {"val/a": 1.0}


def test_a_study_counts_with_every_training_that_left_a_state(tmp_path):
    for kind, number, state in (("trials", 0, "ray/a"), ("trials", 1, None), (FINALISTS, 0, "ray/b")):
        records = Records(tmp_path / "eggs", kind)
        records.start_trial(number, None, {}, {})
        records.add_result(number, Result({"samples_seen": 16, "val/a": number + 1.0}, checkpoint=state))
    interrupted = Records(tmp_path / "eggs")
    interrupted.start_trial(2, None, {}, {})
    interrupted.add_result(2, Result({"samples_seen": 16, "val/a": 3.0}, checkpoint="ray/c"))
    interrupted.add_result(2, Result({"samples_seen": 20}, checkpoint="ray/d"))  # not scored
    found = {each.name: each.errors for each in trainings_of(tmp_path / "eggs")}
    assert found == {"eggs/trials/000 at 16": {"val/a": 1.0}, "eggs/finalists/000 at 16": {"val/a": 1.0}}


def test_only_errors_of_all_runs_are_compared():
    score = dict.fromkeys(("placed", "q", "lifted", "reached", "came", "progress"), 0.0)
    runs = {
        str(i): {"errors": {"val/a": i, f"val/{i}": 1.0}, "scores": score | {"placed": 1 / (1 + i)}} for i in range(4)
    }
    rows = table(runs)
    assert {row["error"] for row in rows} == {"val/a"}
    assert next(row["rho"] for row in rows if row["score"] == "placed") == pytest.approx(-1)


def test_progress_is_the_mean_of_its_shares():
    episodes = [Progress(1, 1.0, 1.0, 1 / 3, 0.0, 0.0), Progress(2, 0.5, 0.0, 0.0, 0.0, 0.2)]
    found = means(episodes)
    assert found["came"] == pytest.approx(0.75)
    assert found["progress"] == pytest.approx(((1 + 1 + 1 / 3) / 4 + 0.125) / 2)
