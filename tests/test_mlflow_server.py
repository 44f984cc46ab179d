"""Studies on real MLflow servers: with a password, killed in the middle, on PostgreSQL."""

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.mlflow_truth import assert_told_once
from tests.servers import PASSWORD, USER, MlflowServer, postgres, postgres_programs
from tests.stub import stub_spec, stub_trainable
from tests.test_study import driver
from tune.records import Records, TrialRecord
from tune.study import Study
from tune.tracking import make_tracker
from tune.tracking.mlflow_store import TrackingError
from tune.tracking.outbox import Outbox

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("one_ray")]


@pytest.fixture(scope="module")
def running(tmp_path_factory) -> Iterator[MlflowServer]:
    server = MlflowServer(tmp_path_factory.mktemp("mlflow"))
    server.start()
    yield server
    server.kill()


@pytest.fixture
def server(running, monkeypatch) -> MlflowServer:
    """The module's server, and its name and password in the environment."""
    monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", USER)
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", PASSWORD)
    return running


def run(folder: Path, uri: str, say=lambda line: None, **changes) -> list[TrialRecord]:
    spec = stub_spec(folder, tracking={"uri": uri, "experiment": "stub"}, **changes)
    summary = Study(spec, folder / "run", "study: stub", trainable=stub_trainable, say=say).run()
    assert summary.state == "complete"
    return Records(folder / "run").trials()


def test_a_server_that_is_killed_and_comes_back_lacks_nothing_and_has_nothing_twice(tmp_path, server, monkeypatch):
    boxes: list[Outbox] = []

    def remembered(uri: str) -> Outbox:
        boxes.append(Outbox(uri, retry_after_s=0.2))
        return boxes[-1]

    monkeypatch.setattr("tune.tracking.mlflow_tracker.Outbox", remembered)
    reports, kept = [], []

    def say(line: str) -> None:
        if " samples   " not in line:
            return
        reports.append(line)
        if len(reports) == 4:
            server.kill()
        if len(reports) == 12:
            kept.append(len(boxes[0]))
            server.start()

    trials = run(tmp_path, server.uri, say, budget={"trials": 10})
    assert len(reports) > 12
    assert kept[0] >= 8  # whose trainings went on without it
    assert len(boxes[0]) == 0
    assert boxes[0].refused == []
    assert_told_once(server.uri, trials)


def test_a_wrong_password_is_one_line_that_does_not_hold_it(tmp_path, server, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "wrong-guess")
    (tmp_path / "run").mkdir()
    tracker = make_tracker(server.uri, "stub", tmp_path / "run")
    with pytest.raises(TrackingError, match=r"refuses the name and password; set MLFLOW_TRACKING_USERNAME") as caught:
        tracker.start_study(tmp_path / "run", {}, "", None, False)
    assert "\n" not in str(caught.value)
    assert "wrong-guess" not in str(caught.value)


SECRETS = {
    "MLFLOW_TRACKING_PASSWORD": "hush-from-the-environment",
    "AWS_SECRET_ACCESS_KEY": "hush-of-the-bucket",
    "HF_TOKEN": "hf_hushOfTheHub",
}


def test_secrets_are_written_and_printed_nowhere(tmp_path, server, monkeypatch):
    """Neither those of the environment nor those in an address: not in a file, not in MLflow, not on the screen."""
    for name, secret in SECRETS.items():
        monkeypatch.setenv(name, secret)
    monkeypatch.delenv("MLFLOW_TRACKING_USERNAME")
    uri = server.uri.replace("http://", f"http://{USER}:{PASSWORD}@")
    changes = {"tracking": {"uri": uri, "experiment": "secret"}, "budget": {"trials": 2}}
    process = driver(tmp_path, changes, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    output, _ = process.communicate(timeout=300)
    assert process.returncode == 0, output
    kept = sorted(SECRETS.values()) + [PASSWORD]
    places = [file for file in tmp_path.rglob("*") if file.is_file()]
    places += [file for file in server.folder.rglob("*") if file.is_file() and "accounts" not in file.name]
    assert {"study.yaml", "tuner.pkl", "mlflow.db", "report.html"} <= {file.name for file in places}
    told = {str(file): secret for file in places for secret in kept if secret.encode() in file.read_bytes()}
    assert told == {}
    assert not [secret for secret in kept if secret in output]


@pytest.mark.skipif(postgres_programs() is None, reason="PostgreSQL is not installed (apt-get install postgresql)")
def test_sixteen_trials_at_once_on_postgresql_are_each_there_once(tmp_path):
    with postgres() as database:
        trials = run(
            tmp_path,
            database,
            budget={"trials": 32},
            resources={"cpus": 0.1},
            max_concurrent=16,
        )
        running = [sum(other.started <= trial.started < other.outcome.time for other in trials) for trial in trials]
        assert max(running) >= 16
        assert_told_once(database, trials)
