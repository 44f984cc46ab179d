"""Whole studies of stubs through real Ray: what is found, recorded, and survives."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from mlflow.tracking import MlflowClient

from smolvla_core.errors import ConfigError
from tests.stub import BEST, METRIC, SAMPLES, distance, score, stub_spec, stub_trainable
from tune.driver import StudyBusyError
from tune.records import Records
from tune.study import Study

ROOT = Path(__file__).parents[1]
pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("one_ray")]


def run(tmp_path: Path, name: str = "run", resume: bool = False, **changes):
    spec = stub_spec(tmp_path, **changes)
    lines: list[str] = []
    trainable = with_environment(stub_trainable)
    summary = Study(spec, tmp_path / name, "study: stub", trainable=trainable, say=lines.append).run(resume)
    return summary, Records(tmp_path / name).trials(), lines


def with_environment(trainable):
    """Workers were started before the test; hand them its fault folder."""
    folder = os.environ.get("STUB_FAULTS")

    def wrapped(config):
        os.environ.pop("STUB_FAULTS", None)
        if folder is not None:
            os.environ["STUB_FAULTS"] = folder
        trainable(config)

    return wrapped


def story(trials):
    """What must not depend on when it ran: parameters, values at each report, and the end."""
    return [(t.number, dict(t.params), t.values(METRIC), t.outcome.state if t.outcome else None) for t in trials]


def test_a_study_compares_at_the_highest_rung_and_leaves_its_records(tmp_path):
    summary, trials, lines = run(tmp_path)
    assert summary.state == "complete"
    assert [trial.number for trial in trials] == list(range(8))
    assert trials[0].name == "seed_baseline"
    assert trials[0].outcome.state == "complete"
    assert {trial.outcome.state for trial in trials} == {"complete", "pruned"}
    assert [r.samples_seen for r in trials[0].results] == [100, 300, 900]
    at_the_end = {t.number: t.values(METRIC)[900] for t in trials if 900 in t.values(METRIC)}
    assert summary.best.number == min(at_the_end, key=at_the_end.get)
    assert summary.baseline.value == at_the_end[0]
    assert summary.gain == pytest.approx(1 - summary.best.value / at_the_end[0])
    stopped = next(t for t in trials if t.outcome.state == "pruned")
    assert "the cut-off is" in stopped.outcome.reason
    assert json.loads((tmp_path / "run" / "summary.json").read_text())["best"]["number"] == summary.best.number
    assert (tmp_path / "run" / "trials.parquet").is_file()
    assert any("stopped" in line for line in lines)
    states = {trial.number: tmp_path / "run" / trial.checkpoint for trial in trials}
    complete = {trial.number for trial in trials if trial.outcome.state == "complete"}
    assert {number for number, state in states.items() if state.is_dir()} == complete
    kept = {path.resolve() for path in (tmp_path / "run" / "ray").rglob("checkpoint_*") if path.is_dir()}
    assert kept == {states[number].resolve() for number in complete}  # of each the last alone
    (ray_state,) = (tmp_path / "run/ray").rglob("experiment_state-*.json")
    in_ray = [state for state, _ in json.loads(ray_state.read_text())["trial_data"]]
    assert len(in_ray) == 8
    assert not any(b"RungSearch".hex() in state for state in in_ray), "each trial's state would hold all trials"


def test_the_same_seed_gives_the_same_trials_and_another_seed_others(tmp_path):
    first = story(run(tmp_path, "a")[1])
    assert story(run(tmp_path, "b")[1]) == first
    assert story(run(tmp_path, "c", seed=1)[1]) != first


@pytest.mark.parametrize("seed", range(5))
def test_a_planted_optimum_is_found(tmp_path, seed):
    """Within 0.02 of the optimum, where a point at random is 0.33 away on average and 1.5 % are as near."""
    summary, trials, _ = run(tmp_path, seed=seed, budget={"trials": 40}, max_concurrent=2)
    params = {key: summary.best.params[key] for key in BEST}
    assert distance(*params.values()) < 0.02, params
    assert summary.samples < 0.8 * 40 * SAMPLES  # ASHA stopped the rest


def test_an_extended_study_equals_one_that_was_longer_from_the_start(tmp_path):
    whole = story(run(tmp_path, "whole", budget={"trials": 8})[1])
    run(tmp_path, "extended", budget={"trials": 5})
    assert story(run(tmp_path, "extended", resume=True, budget={"trials": 8})[1]) == whole


def test_a_finished_study_that_is_resumed_changes_nothing(tmp_path):
    before = run(tmp_path)
    after = run(tmp_path, resume=True)
    assert story(after[1]) == story(before[1])
    assert after[0].best == before[0].best


def test_a_trial_that_raises_or_ends_in_nan_fails_and_the_search_goes_on(tmp_path, faults):
    (faults / "raise_32").touch()
    (faults / "nan_16").touch()
    summary, trials, _ = run(tmp_path, budget={"trials": 12})
    for trial in trials:
        size = trial.params["optim.batch_size"]
        assert (trial.outcome.state == "failed") == (size != 8)
        if size == 32:
            assert trial.outcome.reason == "RuntimeError: planted fault of batch 32"
        if size == 16:
            assert "nan" in trial.outcome.reason
    assert {trial.params["optim.batch_size"] for trial in trials} == {8, 16, 32}
    assert summary.best.params["optim.batch_size"] == 8
    for number in (t.number for t in trials if t.params["optim.batch_size"] == 32):
        assert "_suffer" in (tmp_path / "run" / "trials" / f"{number:03d}" / "error.txt").read_text()


def test_a_process_that_dies_goes_on_from_its_checkpoint(tmp_path, faults):
    (faults / "die_once_8_300").touch()
    summary, trials, lines = run(tmp_path, budget={"trials": 1})
    assert summary.state == "complete"
    assert any("restarts: its process died" in line for line in lines)
    assert [r.samples_seen for r in trials[0].results] == [100, 300, 900]
    assert trials[0].values(METRIC)[900] == score(0.0, 1e-4, 8, 900)


def test_a_search_whose_trials_all_fail_at_once_is_given_up(tmp_path, faults):
    for size in (8, 16, 32):
        (faults / f"raise_{size}").touch()
    summary, trials, _ = run(tmp_path, budget={"trials": 20})
    assert summary.state == "failed"
    assert len(trials) <= 4
    assert summary.reason.startswith("the first 3 trials failed, the last one with: RuntimeError: planted fault")
    assert summary.best is None


def test_more_than_the_machine_has_is_refused_and_leaves_nothing(tmp_path):
    with pytest.raises(ConfigError, match=r"asks for 1 CPUs and 8 GPUs.*--set resources.gpus=0"):
        run(tmp_path, resources={"cpus": 1, "gpus": 8})
    assert not (tmp_path / "run").exists()


def test_hours_are_a_budget_too(tmp_path, faults):
    (faults / "slow").write_text("0.3")
    summary, trials, _ = run(tmp_path, budget={"trials": 500, "hours": 20 / 3600})
    assert summary.state == "complete"
    assert summary.reason == "out of time"
    assert 1 <= len(trials) < 500
    assert summary.best is not None


def test_mlflow_holds_one_parent_and_a_child_a_trial_all_ended(tmp_path, faults):
    (faults / "raise_32").touch()
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    point = {"weighting.alpha": 0.0, "optim.lr": 1e-4}
    changes = {
        "tracking": {"uri": uri, "experiment": "stub"},
        "warm_start": {"seed_baseline": {**point, "optim.batch_size": 8}, "large": {**point, "optim.batch_size": 32}},
    }
    run(tmp_path, **changes, budget={"trials": 8})
    summary, trials, _ = run(tmp_path, resume=True, **changes, budget={"trials": 10})
    client = MlflowClient(uri)
    runs = client.search_runs([client.get_experiment_by_name("stub").experiment_id])
    children = {int(r.data.tags["trial.number"]): r for r in runs if "trial.number" in r.data.tags}
    (parent,) = [r for r in runs if "trial.number" not in r.data.tags]
    assert len(runs) == 11
    assert sorted(children) == list(range(10))
    status = {"complete": "FINISHED", "pruned": "KILLED", "failed": "FAILED"}
    for trial in trials:
        child = children[trial.number]
        assert child.info.status == status[trial.outcome.state]
        history = {point.step: point.value for point in client.get_metric_history(child.info.run_id, METRIC)}
        assert history == trial.values(METRIC)
        assert child.data.params["optim.batch_size"] == str(trial.params["optim.batch_size"])
    assert {trial.outcome.state for trial in trials} == set(status)
    assert [n for n, child in children.items() if child.data.tags.get("best") == "true"] == [summary.best.number]
    assert parent.info.status == "FINISHED"
    assert f"trial {summary.best.number}" in parent.data.tags["mlflow.note.content"]


def driver(tmp_path: Path, changes: dict, *rest: str, faults: Path | None = None, **streams) -> subprocess.Popen:
    command = [sys.executable, "-m", "tests.stub_driver", str(tmp_path), str(tmp_path / "run"), json.dumps(changes)]
    environment = os.environ | ({} if faults is None else {"STUB_FAULTS": str(faults)})
    return subprocess.Popen([*command, *rest], cwd=ROOT, env=environment, start_new_session=True, **streams)


def wait_for_reports(run_dir: Path, count: int, process: subprocess.Popen, kind: str = "trials") -> None:
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and process.poll() is None:
        reports = sum(len(f.read_text().splitlines()) for f in run_dir.glob(f"{kind}/*/results.jsonl"))
        if reports >= count:
            return
        time.sleep(0.05)
    raise AssertionError(f"the driver ended or hung before {count} reports")


@pytest.mark.parametrize("sent", [signal.SIGKILL, signal.SIGINT, signal.SIGTERM])
def test_a_killed_or_interrupted_driver_is_resumed_to_the_same_study(tmp_path, sent):
    faults = tmp_path / "slowly"
    faults.mkdir()
    (faults / "slow").write_text("0.2")
    changes = {"tracking": {"uri": f"sqlite:///{tmp_path / 'mlflow.db'}", "experiment": "stub"}}
    process = driver(tmp_path, changes, faults=faults)
    wait_for_reports(tmp_path / "run", 8, process)
    with pytest.raises(StudyBusyError, match=f"run by process {process.pid}"):
        run(tmp_path, resume=True, **changes)
    process.send_signal(sent)
    assert process.wait(timeout=60) == (1 if sent != signal.SIGKILL else -signal.SIGKILL)
    left = Records(tmp_path / "run").trials()
    ended = story([trial for trial in left if trial.outcome is not None])
    assert 0 < len(ended) < 8

    summary, trials, lines = run(tmp_path, resume=True, **changes)
    assert summary.state == "complete"
    assert story(trials)[: len(ended)] == ended
    assert story(trials) == story(run(tmp_path, "uninterrupted")[1])
    client = MlflowClient(changes["tracking"]["uri"])
    runs = client.search_runs([client.get_experiment_by_name("stub").experiment_id])
    assert len(runs) == 9
    assert all(found.info.status != "RUNNING" for found in runs)
