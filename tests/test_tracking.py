"""The study in MLflow, against real SQLite stores."""

import fcntl
import json
import os
import shlex
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient

from smolvla_core.config import TrialConfig
from tune import driver
from tune.records import Records, Result
from tune.tracking import NullTracker, Tracker, make_tracker, reconcile, viewing_command, viewing_page
from tune.tracking.mlflow_entities import flatten, metrics, study_note
from tune.tracking.mlflow_store import TrackingError, connect, mask, read_pointer, resolve_uri
from tune.tracking.mlflow_tracker import MlflowTracker
from tune.tracking.outbox import Outbox

EXPERIMENT = "easter_eggs"
DATASET = {"name": "eggs", "root": "/data/eggs", "episodes": 12, "frames": 3400, "fps": 30, "digest": "ab" * 32}
SPEC = {"study": "eggs", "budget": {"trials": 4}, "search": {"optim.batch_size": {"choices": [8, 16]}}}
YAML = "study: eggs  # as the user wrote it\ntracking: {uri: 'postgresql://me:secret@db/mlflow'}\n"
CONFIG = TrialConfig.from_dict({"data": {"train": [{"root": "/data/eggs"}]}}).to_dict()
SUMMARY = {
    "metric": "val/critical_action_mse",
    "best": {"number": 1, "value": 0.4, "params": {"optim.batch_size": 16}},
    "baseline": {"number": 0, "name": "seed_baseline", "value": 0.5},
    "gain": 0.2,
    "trials": {"complete": 2, "pruned": 1},
}


@pytest.fixture(scope="session")
def empty_database(tmp_path_factory) -> Path:
    """MLflow takes seconds to make a database, so tests copy one."""
    path = tmp_path_factory.mktemp("mlflow") / "mlflow.db"
    connect(f"sqlite:///{path}").get_experiment_by_name("none")
    return path


@pytest.fixture
def run_dir(tmp_path, empty_database) -> Path:
    folder = tmp_path / "runs" / "eggs-1"
    folder.mkdir(parents=True)
    shutil.copy(empty_database, folder.parent / "mlflow.db")
    yield folder
    driver.release(folder)


@pytest.fixture
def client(run_dir) -> MlflowClient:
    return connect(resolve_uri(None, run_dir))


def start(run_dir: Path, resume: bool = False, **options) -> MlflowTracker:
    tracker = MlflowTracker(resolve_uri(None, run_dir), EXPERIMENT, **options)
    tracker.start_study(run_dir, SPEC, YAML, DATASET, resume)
    return tracker


def runs_of(client: MlflowClient):
    """The parent, and the trials by number."""
    experiment = client.get_experiment_by_name(EXPERIMENT)
    runs = client.search_runs([experiment.experiment_id])
    (parent,) = [run for run in runs if "mlflow.parentRunId" not in run.data.tags]
    children = [run for run in runs if "mlflow.parentRunId" in run.data.tags]
    assert all(run.data.tags["mlflow.parentRunId"] == parent.info.run_id for run in children)
    numbers = [int(run.data.tags["trial.number"]) for run in children]
    assert len(set(numbers)) == len(numbers)
    return parent, dict(zip(numbers, children, strict=True))


def steps(client: MlflowClient, run, key: str) -> list[int]:
    return [point.step for point in client.get_metric_history(run.info.run_id, key)]


def a_whole_study(run_dir: Path) -> None:
    tracker = start(run_dir)
    tracker.start_trial(0, "seed_baseline", {"optim.batch_size": 8}, CONFIG)
    tracker.start_trial(1, None, {"optim.batch_size": 16}, CONFIG)
    curve = [{"samples_seen": 500, "train/loss": 2.0}, {"samples_seen": 1000, "train/loss": 1.5}]
    tracker.log_result(0, {"samples_seen": 1000, "train/loss": 1.5, "val/critical_action_mse": 0.5}, curve)
    tracker.log_result(1, {"samples_seen": 1000, "val/critical_action_mse": 0.45})
    tracker.end_trial(0, "complete", "reached the full budget", {"host": "node-a"})
    tracker.log_result(1, {"samples_seen": 3000, "val/critical_action_mse": 0.4})
    tracker.end_trial(1, "complete", None)
    tracker.start_trial(2, None, {"optim.batch_size": 8}, CONFIG)
    tracker.end_trial(2, "pruned", "ASHA at 1000 samples")
    tracker.start_trial(3, None, {"optim.batch_size": 8}, CONFIG)
    tracker.end_trial(3, "failed", "DivergedError: loss is nan at step 7")
    tracker.start_trial(4, None, {"optim.batch_size": 8}, CONFIG)  # never ended
    (run_dir / "report.html").write_text("<html>", encoding="utf-8")
    (run_dir / "best").mkdir()
    (run_dir / "best" / "config.json").write_text("{}", encoding="utf-8")
    tracker.end_study(SUMMARY, [run_dir / "report.html", run_dir / "best"])


def test_a_study_is_one_parent_with_a_child_a_trial_and_nothing_is_left_running(run_dir, client):
    a_whole_study(run_dir)
    parent, trials = runs_of(client)
    assert parent.info.status == "FINISHED"
    statuses = {number: run.info.status for number, run in trials.items()}
    assert statuses == {0: "FINISHED", 1: "FINISHED", 2: "KILLED", 3: "FAILED", 4: "KILLED"}
    assert trials[2].data.tags["why"] == "ASHA at 1000 samples"
    assert trials[3].data.tags["why"].startswith("DivergedError")
    assert trials[4].data.tags["state"] == "interrupted"
    assert trials[0].data.tags["host"] == "node-a"
    assert trials[0].data.tags["warm_start"] == "seed_baseline"
    assert trials[0].info.run_name == "trial 0 · seed_baseline"
    assert all(run.info.end_time for run in [parent, *trials.values()])


def test_every_value_of_the_configuration_is_a_flat_parameter_and_the_searched_ones_stand_out(run_dir, client):
    a_whole_study(run_dir)
    parent, trials = runs_of(client)
    params = trials[1].data.params
    assert params["optim.lr"] == "0.0001"
    assert params["optim.betas"] == "[0.9, 0.95]"
    assert params["policy.n_action_steps"] == "null"
    assert params["data.train"].startswith("[{")
    assert trials[1].data.tags["search.optim.batch_size"] == "16"
    assert "`optim.batch_size`: 16" in trials[1].data.tags["mlflow.note.content"]
    assert parent.data.params["budget.trials"] == "4"


def test_metrics_stand_against_samples_seen_with_the_curve_between_reports(run_dir, client):
    a_whole_study(run_dir)
    _, trials = runs_of(client)
    assert steps(client, trials[0], "train/loss") == [500, 1000]
    assert steps(client, trials[1], "val/critical_action_mse") == [1000, 3000]
    assert trials[1].data.metrics["val/critical_action_mse"] == 0.4


def test_the_parent_links_the_best_trial_and_states_its_gain(run_dir, client):
    a_whole_study(run_dir)
    parent, trials = runs_of(client)
    note = parent.data.tags["mlflow.note.content"]
    assert f"[trial 1](#/experiments/{parent.info.experiment_id}/runs/{trials[1].info.run_id})" in note
    assert "20.0% better than the baseline" in note
    assert [number for number, run in trials.items() if run.data.tags.get("best") == "true"] == [1]
    assert parent.data.metrics["gain"] == pytest.approx(0.2)


def test_the_dataset_the_code_and_the_yaml_are_kept_without_credentials(run_dir, client, tmp_path):
    a_whole_study(run_dir)
    parent, trials = runs_of(client)
    for run in (parent, trials[1]):
        (entry,) = run.inputs.dataset_inputs
        assert entry.dataset.name == "eggs"
        assert entry.dataset.digest == DATASET["digest"][:36]
        assert json.loads(entry.dataset.profile)["digest"] == DATASET["digest"]
    tags = parent.data.tags
    assert tags["version.lerobot"]
    assert tags["version.optuna"]
    stored = Path(client.download_artifacts(parent.info.run_id, "study.yaml", str(tmp_path))).read_text()
    assert stored == YAML.replace("me:secret@", "***@")
    listed = {item.path for item in client.list_artifacts(parent.info.run_id)}
    assert listed == {"study.yaml", "study.resolved.yaml", "report.html", "best"}
    assert (run_dir.parent / "mlartifacts").is_dir()


def test_the_page_that_shows_the_runs_is_known_once_the_store_has_the_study(run_dir, client):
    assert viewing_page(None, run_dir) is None
    a_whole_study(run_dir)
    number = runs_of(client)[0].info.experiment_id
    shown = f"#/experiments/{number}/runs?workflowType=machine_learning"
    assert viewing_page(None, run_dir) == f"http://127.0.0.1:5000/{shown}"
    assert viewing_page("https://me:secret@tracks.example/", run_dir) == f"https://***@tracks.example/{shown}"
    assert viewing_page(None, run_dir, enabled=False) is None


@pytest.mark.parametrize("text", ["", "[1]", "{}", "\x00\x00"])
def test_a_damaged_pointer_hides_the_page_and_refuses_a_resume_in_one_line(run_dir, text):
    (run_dir / "mlflow.json").write_text(text)
    assert viewing_page(None, run_dir) is None
    with pytest.raises(TrackingError, match=r"mlflow.json: damaged, .*; restore it, or remove it: the study then gets"):
        read_pointer(run_dir)


def test_the_command_that_shows_the_runs_holds_for_a_folder_with_blanks(tmp_path):
    command = viewing_command(None, tmp_path / "my runs" / "eggs-1")
    assert shlex.split(command)[-2:] == ["--backend-store-uri", f"sqlite:///{tmp_path}/my runs/mlflow.db"]


def test_datasets_that_are_trained_together_are_all_inputs_of_the_run(run_dir, client):
    others = [{**DATASET, "name": "mousetraps", "digest": "cd" * 32}]
    tracker = MlflowTracker(resolve_uri(None, run_dir), EXPERIMENT)
    tracker.start_study(run_dir, SPEC, YAML, {**DATASET, "others": others}, False)
    tracker.start_trial(0, None, {"optim.batch_size": 8}, CONFIG)
    parent, trials = runs_of(client)
    for run in (parent, trials[0]):
        entries = {entry.dataset.name: entry.dataset.digest for entry in run.inputs.dataset_inputs}
        assert entries == {"eggs": "ab" * 18, "mousetraps": "cd" * 18}


def test_a_resumed_study_goes_on_in_the_same_runs_without_doubling_anything(run_dir, client):
    tracker = start(run_dir)
    tracker.start_trial(0, None, {"optim.batch_size": 8}, CONFIG)
    tracker.log_result(0, {"samples_seen": 1000, "val/critical_action_mse": 0.5})
    tracker.end_trial(0, "complete", None)
    tracker.start_trial(1, None, {"optim.batch_size": 16}, CONFIG)
    tracker.log_result(1, {"samples_seen": 1000, "val/critical_action_mse": 0.6})
    first_parent, first = runs_of(client)
    driver.release(run_dir)  # as the kernel does for a process that is killed

    extended = {**SPEC, "budget": {"trials": 8}}
    outbox = Outbox("store")
    again = MlflowTracker(resolve_uri(None, run_dir), EXPERIMENT, outbox)
    again.start_study(run_dir, extended, YAML, DATASET, resume=True)
    _, between = runs_of(client)
    assert between[1].info.status == "KILLED"
    assert between[1].data.tags["why"] == "driver died"
    again.start_trial(1, None, {"optim.batch_size": 16}, CONFIG)
    assert runs_of(client)[1][1].info.status == "RUNNING"
    again.log_result(1, {"samples_seen": 1000, "val/critical_action_mse": 0.6})  # trained again from the rung before
    again.log_result(1, {"samples_seen": 3000, "val/critical_action_mse": 0.4})
    again.end_trial(1, "complete", None)
    again.end_study(SUMMARY)

    parent, trials = runs_of(client)
    assert parent.info.run_id == first_parent.info.run_id
    assert {n: run.info.run_id for n, run in trials.items()} == {n: run.info.run_id for n, run in first.items()}
    assert steps(client, trials[1], "val/critical_action_mse") == [1000, 3000]
    assert {run.info.status for run in [parent, *trials.values()]} == {"FINISHED"}
    assert len(outbox) == 0
    assert outbox.refused == []


def test_an_earlier_best_trial_loses_its_tag(run_dir, client):
    a_whole_study(run_dir)
    tracker = start(run_dir, resume=True)
    tracker.end_study(SUMMARY | {"best": {"number": 0, "value": 0.3}})
    _, trials = runs_of(client)
    assert [number for number, run in trials.items() if run.data.tags.get("best")] == [0]


def policy(run_dir: Path) -> Path:
    folder = run_dir / "best"
    folder.mkdir(exist_ok=True)
    (folder / "model.safetensors").write_text("weights", encoding="utf-8")
    return folder


def a_study_with_a_winner(run_dir: Path, number: int, rung: int = 3000, resume: bool = False, **summary) -> Outbox:
    outbox = Outbox("store")
    tracker = start(run_dir, resume=resume, outbox=outbox)
    tracker.start_trial(number, None, {"optim.batch_size": 8}, CONFIG)
    tracker.end_trial(number, "complete", None)
    best = {"number": number, "value": 0.5 - number / 10, "rung": rung}
    told = {"study": "eggs", "state": "complete", "checkpoint": str(policy(run_dir)), "best": best}
    tracker.end_study(SUMMARY | told | summary)
    return outbox


def versions_of(client: MlflowClient) -> dict[str, str]:
    """Version -> number of its trial."""
    found = client.search_model_versions("name = 'eggs'")
    return {str(one.version): one.tags["trial.number"] for one in found}


def test_the_winner_is_a_registered_model_once_however_often_the_study_is_resumed(run_dir, client, tmp_path):
    a_study_with_a_winner(run_dir, 1)
    a_study_with_a_winner(run_dir, 1, resume=True)
    assert versions_of(client) == {"1": "1"}
    champion = client.get_model_version_by_alias("eggs", "champion")
    parent, trials = runs_of(client)
    assert champion.run_id == trials[1].info.run_id
    assert champion.source == f"runs:/{champion.run_id}/policy/3000_samples"
    weights = client.download_artifacts(champion.run_id, "policy/3000_samples/model.safetensors", str(tmp_path))
    assert Path(weights).read_text() == "weights"
    assert trials[1].data.tags["checkpoint"] == str(run_dir / "best")
    note = parent.data.tags["mlflow.note.content"]
    assert "Registered model: [eggs, version 1](#/models/eggs/versions/1), alias `champion`" in note


def test_another_winner_is_another_version_and_takes_the_alias(run_dir, client):
    a_study_with_a_winner(run_dir, 1)
    a_study_with_a_winner(run_dir, 2, resume=True)
    assert versions_of(client) == {"1": "1", "2": "2"}
    assert client.get_model_version_by_alias("eggs", "champion").version == 2
    _, trials = runs_of(client)
    assert [number for number, run in trials.items() if "checkpoint" in run.data.tags] == [2]


def test_only_a_finished_study_with_a_policy_is_registered(run_dir, client):
    a_study_with_a_winner(run_dir, 1, state="interrupted")
    a_study_with_a_winner(run_dir, 1, resume=True, checkpoint=None)
    assert versions_of(client) == {}


@pytest.mark.parametrize("code", ["FEATURE_DISABLED", "ENDPOINT_NOT_FOUND"])
def test_a_store_without_a_registry_loses_nothing_else(run_dir, client, monkeypatch, caplog, code):
    from mlflow.protos.databricks_pb2 import ErrorCode

    def absent(*arguments, **options):
        raise MlflowException("no registry here", ErrorCode.Value(code))

    monkeypatch.setattr(MlflowClient, "create_registered_model", absent)
    outbox = a_study_with_a_winner(run_dir, 1)
    parent, trials = runs_of(client)
    assert parent.info.status == "FINISHED"
    assert trials[1].data.tags["best"] == "true"
    assert "Registered" not in parent.data.tags["mlflow.note.content"]
    assert outbox.refused == []
    assert caplog.text == ""


def test_a_registry_that_refuses_is_one_warning(run_dir, client, monkeypatch, caplog):
    def refuses(*arguments, **options):
        raise MlflowException.invalid_parameter_value("no such name")

    monkeypatch.setattr(MlflowClient, "create_model_version", refuses)
    a_study_with_a_winner(run_dir, 1)
    assert runs_of(client)[0].info.status == "FINISHED"
    assert "registered model: no such name" in caplog.text


DRIVER = """
import os, sys, time
from pathlib import Path
from tests.test_tracking import CONFIG, start
tracker = start(Path(sys.argv[1]))
tracker.start_trial(0, None, {"optim.batch_size": 8}, CONFIG)
print("running", flush=True)
time.sleep(60)
"""


def test_reconcile_closes_a_killed_drivers_runs_and_leaves_a_living_ones_alone(run_dir, client):
    root = Path(__file__).parents[1]
    process = subprocess.Popen([sys.executable, "-c", DRIVER, run_dir], cwd=root, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout.readline().strip() == "running"
        uri = resolve_uri(None, run_dir)
        assert reconcile(uri, EXPERIMENT, run_dir.parent) == 0
        with pytest.raises(driver.StudyBusyError, match=f"run by process {process.pid}"):
            start(run_dir, resume=True)
    finally:
        process.kill()
        process.wait()
        process.stdout.close()
    assert reconcile(None, None, run_dir.parent) == 2
    parent, trials = runs_of(client)
    assert parent.info.status == trials[0].info.status == "KILLED"
    assert trials[0].data.tags["why"] == "driver died"
    assert reconcile(uri, EXPERIMENT, run_dir.parent) == 0


def test_the_next_study_of_an_experiment_closes_what_a_dead_one_left(run_dir, client):
    dead = start(run_dir)
    dead.start_trial(0, None, {}, CONFIG)
    driver.release(run_dir)
    other = run_dir.parent / "eggs-2"
    other.mkdir()
    tracker = start(other)
    tracker.end_study({})
    experiment = client.get_experiment_by_name(EXPERIMENT)
    assert client.search_runs([experiment.experiment_id], "attributes.status = 'RUNNING'") == []


def test_reconcile_of_a_store_that_is_not_there_makes_none(tmp_path):
    assert reconcile(f"sqlite:///{tmp_path}/mlflow.db", EXPERIMENT, tmp_path) == 0
    assert list(tmp_path.iterdir()) == []


def test_a_process_id_that_was_given_away_or_another_host_is_told_apart(tmp_path):
    mine = driver.identity(tmp_path)
    assert driver.is_alive(mine) is True
    assert driver.is_alive(mine | {driver.STARTED: "1"}) is False
    assert driver.is_alive(mine | {driver.BOOT: "earlier"}) is False
    assert driver.is_alive(mine | {driver.HOST: "elsewhere"}) is None


def test_the_lock_of_another_driver_in_a_folder_of_that_name_says_nothing_of_one_elsewhere(tmp_path):
    driver.hold(tmp_path)
    mine, elsewhere = driver.identity(tmp_path), {driver.HOST: "elsewhere", driver.PID: "7"}
    assert driver.is_alive(mine) is True
    driver.release(tmp_path)
    assert driver.is_alive(mine) is False
    assert driver.is_alive(mine | elsewhere) is None
    assert driver.is_alive({driver.RUN_DIR: str(tmp_path)}) is False


def test_what_a_training_achieves_is_stored_anew_where_it_acted_again(run_dir, client):
    tracker = start(run_dir)
    tracker.start_trial(0, None, {}, CONFIG)
    for value in (0.5, 0.5, 0.25):
        acted = {"closed_loop/garden/eggs_placed": value, "tried/5/q": value, "val/critical_action_mse": value}
        tracker.log_result(0, {"samples_seen": 1000, **acted})
    tracker.end_trial(0, "complete", None)
    tracker.end_study(SUMMARY)
    (_, trials) = runs_of(client)
    stored = trials[0].data.metrics
    assert (stored["closed_loop/garden/eggs_placed"], stored["tried/5/q"]) == (0.25, 0.25)
    assert stored["val/critical_action_mse"] == 0.5
    assert steps(client, trials[0], "tried/5/q") == [1000, 1000]


class Failing:
    """A client whose server is away while ``away`` is true; everything else is the real client."""

    def __init__(self, client: MlflowClient):
        self.client, self.away, self.error = client, True, ConnectionError("http://me:secret@host refused")

    def __getattr__(self, name):
        def call(*args, **kwargs):
            if self.away:
                raise self.error
            return getattr(self.client, name)(*args, **kwargs)

        return call


@pytest.fixture
def failing(client, monkeypatch) -> Failing:
    """What trackers made in the test talk to; away from the start."""
    failing = Failing(client)
    monkeypatch.setattr("tune.tracking.mlflow_tracker.connect", lambda uri: failing)
    return failing


def test_what_a_server_that_is_away_missed_arrives_once_it_is_back(run_dir, client, failing, caplog):
    tracker = MlflowTracker(resolve_uri(None, run_dir), EXPERIMENT, Outbox("http://me:secret@host", retry_after_s=0))
    tracker.start_study(run_dir, SPEC, YAML, DATASET, False)
    tracker.start_trial(0, None, {"optim.batch_size": 8}, CONFIG)
    tracker.log_result(0, {"samples_seen": 1000, "val/critical_action_mse": 0.5})
    failing.away = False
    tracker.log_result(0, {"samples_seen": 3000, "val/critical_action_mse": 0.4})
    failing.away = True
    tracker.end_trial(0, "complete", None)
    failing.away = False
    tracker.end_study(SUMMARY | {"best": {"number": 0, "value": 0.4}})
    parent, trials = runs_of(client)
    assert steps(client, trials[0], "val/critical_action_mse") == [1000, 3000]
    assert parent.info.status == trials[0].info.status == "FINISHED"
    warnings = [record.getMessage() for record in caplog.records if record.name.startswith("tune")]
    assert len(warnings) == 2  # one for each time it went away
    assert all("does not answer" in line and "secret" not in line for line in warnings)


def test_a_server_that_is_away_is_told_of_once_and_not_by_the_libraries_too(caplog):
    with pytest.raises(MlflowException):
        connect("http://127.0.0.1:1").search_experiments()
    assert caplog.records == []


def test_two_processes_do_not_make_mlflows_tables_at_once(tmp_path):
    connect(f"sqlite:///{tmp_path}/another/mlflow.db")  # the libraries are loaded now
    other = os.open(tmp_path, os.O_RDONLY)
    fcntl.flock(other, fcntl.LOCK_EX)  # as a process that makes them does
    ours = threading.Thread(target=connect, args=[f"sqlite:///{tmp_path}/mlflow.db"])
    ours.start()
    ours.join(2)
    assert ours.is_alive()
    assert not (tmp_path / "mlflow.db").exists()
    os.close(other)
    ours.join()
    assert (tmp_path / "mlflow.db").exists()


def test_an_experiment_that_another_study_makes_at_the_same_moment_is_shared(run_dir, client, monkeypatch):
    number = client.create_experiment(EXPERIMENT)
    tracker = MlflowTracker(resolve_uri(None, run_dir), EXPERIMENT)
    looks = iter([None, client.get_experiment(number)])
    monkeypatch.setattr(MlflowClient, "get_experiment_by_name", lambda *_: next(looks))
    tracker.start_study(run_dir, SPEC, YAML, DATASET, False)
    tracker.end_study({"state": "complete"})
    (parent,) = client.search_runs([number])
    assert parent.info.status == "FINISHED"


def test_what_died_with_a_driver_before_it_was_delivered_is_told_of_the_studys_records(run_dir, client, failing):
    """The server goes away, comes back for one report, and is away again when the driver is killed."""
    records = Records(run_dir)
    failing.away = False
    tracker = start(run_dir, outbox=Outbox("store", retry_after_s=0))

    def trial(number: int) -> None:
        records.start_trial(number, None, {"optim.batch_size": 8}, CONFIG)
        tracker.start_trial(number, None, {"optim.batch_size": 8}, CONFIG)

    def report(number: int, samples: int) -> None:
        metrics = {"samples_seen": samples, "val/critical_action_mse": 1.0 / samples}
        records.add_result(number, Result(metrics, curve=({"samples_seen": samples - 1, "train/loss": 2.0},)))
        tracker.log_result(number, metrics, [{"samples_seen": samples - 1, "train/loss": 2.0}])

    def end(number: int, state: str) -> None:
        records.end_trial(number, state, "as it was")
        tracker.end_trial(number, state, "as it was")

    trial(0)
    report(0, 100)
    end(0, "complete")
    trial(1)
    report(1, 100)
    failing.away = True
    report(1, 300)
    end(1, "pruned")
    trial(2)
    report(2, 100)
    driver.release(run_dir)  # as the kernel does for a process that is killed
    failing.away = False
    begun = runs_of(client)[1][0].info.end_time

    again = start(run_dir, resume=True)
    for each in records.trials():
        again.recall_trial(each.number, each.name, each)
    again.start_trial(2, None, {"optim.batch_size": 8}, CONFIG)
    again.log_result(2, {"samples_seen": 100, "val/critical_action_mse": 0.01})  # trained again from the start
    again.log_result(2, {"samples_seen": 300, "val/critical_action_mse": 0.003})
    again.end_trial(2, "complete", None)
    again.end_study({})
    _, trials = runs_of(client)
    assert {number: run.info.status for number, run in trials.items()} == {0: "FINISHED", 1: "KILLED", 2: "FINISHED"}
    assert [steps(client, trials[number], "val/critical_action_mse") for number in range(3)] == [
        [100],
        [100, 300],
        [100, 300],
    ]
    assert steps(client, trials[1], "train/loss") == [99, 299]
    assert trials[1].data.tags["why"] == "as it was"
    assert trials[2].data.params["optim.batch_size"] == trials[0].data.params["optim.batch_size"]
    assert trials[0].info.end_time == begun  # what was whole is not touched


@pytest.mark.usefixtures("failing")
def test_what_was_never_delivered_is_reported_in_one_line(run_dir, caplog):
    tracker = MlflowTracker(resolve_uri(None, run_dir), EXPERIMENT)
    tracker.start_study(run_dir, SPEC, YAML, DATASET, False)
    tracker.start_trial(0, None, {}, CONFIG)
    tracker.end_study({})
    last = caplog.records[-1].getMessage()
    assert "updates could not be delivered" in last
    assert "--resume delivers them" in last
    assert "\n" not in last
    assert "secret" not in last


def test_files_whose_store_is_away_hold_up_nothing_and_are_tried_again_at_the_end():
    """An artifact store fails in its own library's words, while the server answers."""
    outbox, made, stored = Outbox("store"), [], []

    def upload():
        if not stored:
            stored.append("next time")
            raise RuntimeError("Unable to locate credentials")
        made.append("file")

    outbox.send("file", upload, in_order=False)
    outbox.send("report", lambda: made.append("report"))
    assert made == ["report"]
    assert len(outbox) == 1
    assert outbox.close() is None
    assert made == ["report", "file"]


def test_a_refused_call_does_not_hold_up_the_next():
    outbox, made = Outbox("store"), []

    def refused():
        raise MlflowException.invalid_parameter_value("Param value too long")

    outbox.send("a", refused)
    outbox.send("b", lambda: made.append("b"))
    assert made == ["b"]
    assert "1 updates could not be delivered (a: Param value too long)" in (outbox.close() or "")


def test_a_server_that_is_away_is_not_asked_again_at_every_report():
    outbox, asked = Outbox("store", retry_after_s=60), []

    def away():
        asked.append(1)
        raise ConnectionError("away")

    for _ in range(5):
        outbox.send("report", away)
    assert len(asked) == 1
    assert len(outbox) == 5


def test_an_address_that_mlflow_does_not_know_is_a_user_error(run_dir):
    with pytest.raises(TrackingError, match=r"tracking\.uri: carrier-pigeon://\*\*\*@host: MLflow cannot open it"):
        make_tracker("carrier-pigeon://me:secret@host", EXPERIMENT, run_dir)


def test_paths_are_made_absolute_and_the_default_stands_beside_the_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert resolve_uri(None, Path("runs/eggs-1")) == f"sqlite:///{tmp_path}/runs/mlflow.db"
    assert resolve_uri("sqlite:///runs/mlflow.db", Path("x")) == f"sqlite:///{tmp_path}/runs/mlflow.db"
    assert resolve_uri("http://host:5000", Path("x")) == "http://host:5000"
    assert mask("mysql://me:p@host/db and http://host") == "mysql://***@host/db and http://host"


def test_no_tracking_is_a_tracker_too(tmp_path):
    tracker: Tracker = make_tracker(None, EXPERIMENT, tmp_path / "eggs-1", enabled=False)
    assert isinstance(tracker, NullTracker)
    tracker.start_study(tmp_path, SPEC, YAML, None, False)
    tracker.end_study({})
    assert list(tmp_path.iterdir()) == []


def test_flat_values_and_note_by_hand():
    assert flatten({"a": {"b": [1, 2], "c": None, "d": True}, "e": {}}) == {
        "a.b": "[1, 2]", "a.c": "null", "a.d": "true", "e": "{}",
    }  # fmt: skip
    worse = {"best": {"number": 1, "value": 0.6}, "baseline": {"number": 0, "value": 0.4}, "gain": -0.5}
    assert "50.0% worse than the baseline." in study_note(worse, {})
    noise = {"gain": 0.1, "gain_noise": "; within noise, 95 % interval -1.0 to 21.0 % over 4 episodes"}
    assert "10.0% better than the baseline; within noise, 95 % interval" in study_note({**worse, **noise}, {})
    same = {**worse, "best": {"number": 0, "value": 0.4}, "gain": 0.0}
    assert "It is the baseline: nothing better was found." in study_note(same, {})
    assert "no baseline" in study_note({"best": {"value": 0.6, "number": 1}}, {})
    assert "No trial was completed" in study_note({}, {})


def test_a_step_is_logged_once_and_what_is_no_number_is_left_out():
    points = metrics({"samples_seen": 8, "loss": 1.0, "done": True, "host": "a"}, [{"samples_seen": 8, "loss": 9.0}], 0)
    assert [(point.key, point.value, point.step) for point in points] == [("loss", 1.0, 8), ("samples_seen", 8.0, 8)]


def test_where_finalists_were_trained_the_registered_model_is_the_one_of_theirs_that_is_exported(run_dir, client):
    tracker = start(run_dir)
    tracker.start_trial(1, None, {"optim.batch_size": 8}, CONFIG)
    tracker.start_trial("finalist 4", None, {"optim.batch_size": 8}, CONFIG)
    best = {"number": 1, "value": 0.4, "rung": 3000}
    told = {"study": "eggs", "state": "complete", "checkpoint": str(policy(run_dir)), "best": best}
    found = {"winner": "trial 1", "verdict": "trial 1 is better than it was.",
             "policy": {"number": 4, "seed": 2, "validation": 0.45, "samples": 9000}}  # fmt: skip
    tracker.end_study(SUMMARY | told | {"finalists": found})
    every = client.search_runs([client.get_experiment_by_name(EXPERIMENT).experiment_id])
    (parent,) = [run for run in every if "mlflow.parentRunId" not in run.data.tags]
    (searched,) = [run for run in every if run.data.tags.get("trial.number") == "1"]
    marked = [run for run in every if run.data.tags.get("best")]
    assert [run.info.run_name for run in marked] == ["finalist 4"]
    assert marked[0].data.tags["checkpoint"] == str(run_dir / "best")
    note, place = parent.data.tags["mlflow.note.content"], f"#/experiments/{parent.info.experiment_id}/runs"
    assert f"**Best: [finalist 4 (trial 1, seed 2)]({place}/{marked[0].info.run_id})**. trial 1 is better" in note
    assert f"Best trial of the search: [trial 1]({place}/{searched.info.run_id})" in note
    version = client.get_model_version_by_alias("eggs", "champion")
    assert client.get_run(version.run_id).info.run_name == "finalist 4"
    # it was trained to the full budget, which the search's best trial may not have been
    assert version.description == "Finalist 4: val/critical_action_mse = 0.45 at 9,000 samples."
    assert version.source.endswith("/policy/9000_samples")
