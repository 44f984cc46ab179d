"""What a study leaves behind, and what it prints when it ends."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from smolvla_core.command import python_command
from smolvla_core.config_file import load_config
from tune.records import Outcome, Records, Result, TrialRecord
from tune.report import closing_lines, trial_table, write_results
from tune.run_folder import write_whole
from tune.summary import Scored, Summary, summarize

METRIC = "val/critical_action_mse"
RUNGS = (100, 300)
CONFIG = {"data": {"train": [{"root": "/data/eggs"}]}, "optim": {"samples": 300, "lr": 3e-4}}


def trial(number, values, state="complete", reason=None, **params):
    results = tuple(
        Result({"samples_seen": s, "step": s // 8, METRIC: v}, host="node1", time=float(s)) for s, v in values.items()
    )
    outcome = Outcome(state, reason) if state else None
    return TrialRecord(number, "seed_baseline" if number == 0 else None, params, CONFIG, 0.0, results, outcome)


def make_summary(**changes):
    base = Scored(0, "seed_baseline", 0.8, 300, {"optim.batch_size": 8, "weighting.alpha": 0.0})
    best = Scored(4, None, 0.6, 300, {"optim.batch_size": 16, "weighting.alpha": 0.71234})
    values = {
        "study": "eggs",
        "metric": METRIC,
        "mode": "min",
        "state": "complete",
        "reason": None,
        "best": best,
        "baseline": base,
        "trials": {"complete": 3, "pruned": 5},
        "samples": 1856,
        "seconds": 86.0,
    }
    return Summary(**(values | changes))


def test_the_table_has_a_row_a_report_with_the_trials_parameters():
    table = trial_table(
        [trial(0, {100: 0.9, 300: 0.8}, lr=1e-4, size=8), trial(1, {100: 0.7}, "pruned", "cut", size=16)]
    )
    assert list(table["trial"]) == [0, 0, 1]
    assert list(table["name"][:2]) == ["seed_baseline"] * 2
    assert pd.isna(table["name"][2])
    assert list(table["state"]) == ["complete", "complete", "pruned"]
    assert list(table["samples_seen"]) == [100, 300, 100]
    assert list(table[METRIC]) == [0.9, 0.8, 0.7]
    assert list(table["param.size"]) == [8, 8, 16]
    assert np.isnan(table["param.lr"][2])
    assert list(table["host"]) == ["node1"] * 3


def test_a_trial_without_a_report_has_a_row_and_counts_stay_whole_numbers(tmp_path):
    table = trial_table([trial(0, {100: 0.9}), trial(1, {}, "failed", "out of memory"), trial(2, {}, None)])
    assert list(table["state"]) == ["complete", "failed", "interrupted"]
    assert table["reason"][1] == "out of memory"
    table.to_parquet(tmp_path / "t.parquet")
    again = pd.read_parquet(tmp_path / "t.parquet")
    assert again["samples_seen"][0] == 100
    assert str(again["samples_seen"].dtype) == "Int64"
    assert pd.isna(again["samples_seen"][1])


@pytest.mark.parametrize(
    "choices", [[8, "all"], [None, 0.99], [True, 3], [True, False], ["a", None], [1, 2.5], [None, None]]
)
def test_choices_of_any_types_fit_parquet(tmp_path, choices):
    trials = [trial(number, {100: 0.5}, choice=value) for number, value in enumerate(choices)]
    trial_table([*trials, trial(9, {100: 0.1})]).to_parquet(tmp_path / "t.parquet")
    again = pd.read_parquet(tmp_path / "t.parquet")["param.choice"]
    for value, read in zip(choices, again, strict=False):
        assert pd.isna(read) if value is None else str(read) == str(value) or float(read) == float(value)


def test_a_study_without_trials_has_an_empty_table(tmp_path):
    trial_table([]).to_parquet(tmp_path / "t.parquet")
    assert list(pd.read_parquet(tmp_path / "t.parquet").columns) == ["trial", "name", "state", "reason"]


def recorded(folder: Path, **states: float | None) -> Records:
    """A study of trials ``t0``, ``t1``...: each with its value at the end, None for one that has not reported."""
    records = Records(folder)
    for number, value in enumerate(states.values()):
        records.start_trial(
            number, None, {"optim.lr": 3e-4 / (number + 1)}, CONFIG | {"optim": {"lr": 3e-4 / (number + 1)}}
        )
        if value is not None:
            records.add_result(
                number, Result({"samples_seen": 300, METRIC: value}, checkpoint=f"ray/{number}", last=True)
            )
            records.end_trial(number, "complete", None)
    return records


def summary_of(records: Records) -> Summary:
    return summarize(
        "eggs", records.trials(), metric=METRIC, mode="min", rungs=RUNGS, state="complete", reason=None, seconds=1.0
    )  # fmt: skip


def test_the_files_of_a_study(tmp_path):
    records = recorded(tmp_path, t0=0.8, t1=0.5)
    summary, artifacts = write_results(summary_of(records), tmp_path, records)
    assert summary.checkpoint is None  # its state is gone
    assert summary.config == str(tmp_path / "best.yaml")
    # `python -m smolvla_core.train best.yaml` takes it as it is
    assert load_config(tmp_path / "best.yaml").optim.lr == pytest.approx(1.5e-4)
    document = json.loads((tmp_path / "summary.json").read_text())
    assert document["best"]["number"] == 1
    assert document["config"] == str(tmp_path / "best.yaml")
    assert len(pd.read_parquet(tmp_path / "trials.parquet")) == 2
    assert sorted(file.name for file in artifacts) == ["best.yaml", "summary.json", "trials.parquet"]
    assert all(file.is_file() for file in artifacts)
    assert not list(tmp_path.glob(".*"))


def test_a_study_without_a_score_leaves_its_summary_and_no_best(tmp_path):
    records = recorded(tmp_path, t0=None)
    summary, artifacts = write_results(summary_of(records), tmp_path, records)
    assert (summary.best, summary.config, summary.checkpoint) == (None, None, None)
    assert sorted(file.name for file in artifacts) == ["summary.json", "trials.parquet"]
    assert not (tmp_path / "best.yaml").exists()


def test_the_policy_of_an_earlier_best_does_not_pass_for_the_new_one(tmp_path):
    (tmp_path / "best").mkdir()
    write_whole(tmp_path / "best" / "model.safetensors", "of trial 0")
    records = recorded(tmp_path, t0=0.8, t1=0.5)  # trial 1 left no state to export
    summary, _ = write_results(summary_of(records), tmp_path, records)
    assert summary.checkpoint is None
    assert not (tmp_path / "best").exists()


def test_the_best_trials_last_state_becomes_the_policy(tmp_path, trial_config):
    from smolvla_core.train import train

    records = recorded(tmp_path, t0=0.8, t1=0.5)

    def keep(metrics, save):
        if any(key.startswith("val/") for key in metrics):
            save(tmp_path / "ray" / "1" / "state")

    train(trial_config.with_values({"optim.samples": 4}), keep)
    summary, _ = write_results(summary_of(records), tmp_path, records)
    assert summary.checkpoint == str(tmp_path / "best")
    assert (tmp_path / "best" / "model.safetensors").is_file()
    assert (tmp_path / "best" / "policy_preprocessor.json").is_file()
    assert json.loads((tmp_path / "summary.json").read_text())["checkpoint"] == str(tmp_path / "best")


PYTHON = python_command()


def test_the_last_words_of_a_study():
    lines = closing_lines(
        make_summary(checkpoint="runs/eggs/best", config="runs/eggs/best.yaml", report="runs/eggs/report.html"),
        "python -m mlflow ui --backend-store-uri sqlite:///runs/mlflow.db",
    )
    assert (
        "\n".join(lines)
        == f"""
eggs: 3 completed, 5 stopped early; 1,856 samples in 86 s

Best trial      4
  parameters    optim.batch_size  16
                weighting.alpha   0.7123
  objective     val/critical_action_mse 0.6 at 300 samples
  improvement   25.0% better than seed_baseline (0.8)
MLflow          python -m mlflow ui --backend-store-uri sqlite:///runs/mlflow.db
Report          runs/eggs/report.html
Checkpoint      runs/eggs/best
Train it again  {PYTHON} -m smolvla_core.train runs/eggs/best.yaml"""
    )


BASE = Scored(0, "seed_baseline", 0.8, 300, {})


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"baseline": None}, "improvement   unknown: no baseline has come as far"),
        ({"best": BASE}, "improvement   none: the best trial is the baseline, seed_baseline"),
        ({"best": BASE}, "Best trial      0 (seed_baseline)"),
        ({"baseline": Scored(0, "wins", 0.0, 300, {})}, "improvement   from 0, the value of wins"),
        ({"baseline": Scored(0, "wins", 0.5, 300, {})}, "improvement   20.0% worse than wins (0.5)"),
        ({"mode": "max", "baseline": Scored(0, "wins", 0.5, 300, {})}, "improvement   20.0% better than wins (0.5)"),
        ({"reason": "out of time"}, "Ended early: out of time"),
        ({"trials": {}, "best": None, "samples": 0}, "eggs: no trials; 0 samples in 86 s"),
        ({"samples": 1}, "1 sample in 86 s"),
        ({"best": None}, "No trial has reported a score, so there is no best one."),
        ({"config": "/my runs/best.yaml"}, f"{PYTHON} -m smolvla_core.train '/my runs/best.yaml'"),
        ({"trials": {"interrupted": 2}}, "eggs: 2 interrupted;"),
    ],
)
def test_every_ending_has_its_words(changes, words):
    assert words in "\n".join(closing_lines(make_summary(**changes), None))


def test_without_tracking_mlflow_is_not_mentioned():
    for summary in (make_summary(), make_summary(best=None, failures={0: "out of memory"})):
        assert "MLflow" not in "\n".join(closing_lines(summary, None))


def test_failed_trials_are_told_by_their_reason():
    failures = {1: "out of memory", 3: "diverged: loss is nan", 4: "out of memory"}
    lines = closing_lines(make_summary(failures=failures), None)
    assert lines[2:4] == ["Failed: trials 1, 4: out of memory", "Failed: trial 3: diverged: loss is nan"]
    many = closing_lines(make_summary(failures={n: f"reason {n}" for n in range(9)}), None)
    assert sum(line.startswith("Failed: trial ") for line in many) == 5
    assert "Failed: for 4 more reasons, see summary.json" in many
