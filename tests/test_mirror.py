"""A search whose storage is an S3 bucket: all of it is there, and goes on from there on another machine."""

import json
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from smolvla_core.errors import ConfigError
from tests.s3 import CREDENTIALS, s3_server
from tests.stub import stub_spec, stub_trainable
from tune import driver, mirror
from tune.driver import StudyBusyError
from tune.mirror import Mirror, fetched, home_of
from tune.records import Records, Result
from tune.remote import Folder, join
from tune.run_folder import find_folder, new_folder
from tune.spec import SearchSpec
from tune.study import Study

BUCKET = "s3://eggs/runs"
TRIAL = {"data": {"train": [{"root": "/nowhere"}], "test_fraction": 0.1}, "optim": {"samples": 300}}


@pytest.fixture(scope="module")
def s3() -> Iterator[str]:
    with pytest.MonkeyPatch.context() as patch, s3_server("eggs") as address:
        for name, value in (CREDENTIALS | {"AWS_ENDPOINT_URL": address}).items():
            patch.setenv(name, value)
        yield address


@pytest.fixture(autouse=True)
def _here(tmp_path, monkeypatch, s3):
    monkeypatch.chdir(tmp_path)


def in_bucket(name: str) -> Folder:
    return Folder.at(join(BUCKET, name))


@pytest.fixture
def study(tmp_path) -> Path:
    """A study's folder here, as a driver has begun it."""
    folder = tmp_path / "runs" / f"eggs-{tmp_path.name}"
    records = Records(folder)
    records.start_session()
    records.start_trial(0, None, {"optim.lr": 1e-4}, {})
    return folder


@pytest.mark.slow
def test_a_search_lives_in_the_bucket_and_goes_on_elsewhere(s3, one_ray):
    storage = f"s3://eggs/searches?endpoint_override={s3.removeprefix('http://')}&scheme=http"
    parts = {"trial": TRIAL, "finalists": {"k": 1, "seeds": 1}}
    spec = stub_spec(storage, **parts, budget={"trials": 3})
    folder = new_folder(spec)
    summary = Study(spec, folder, "a: yaml", trainable=stub_trainable).run()
    assert summary.state == "complete"
    there = Folder.at(join(storage, folder.name)).files()
    here = {file.relative_to(folder).as_posix() for file in folder.rglob("*") if file.is_file()}
    assert {name for name in there if not name.startswith("ray/")} == here - {"driver.lock"}
    assert {"report.html", "summary.json", "trials.parquet", "best.yaml", "optuna.db"} <= set(there)
    before = Records(folder).trials()
    whole = [trial.checkpoint for trial in before if trial.outcome.state == "complete"]
    assert whole
    for checkpoint in whole:
        assert json.loads(Folder.at(checkpoint).read("stub.json")) == {"samples": 300}

    shutil.rmtree(folder)  # another machine has nothing of it
    again = find_folder(spec)
    assert again == folder
    assert Records(again).trials() == before
    longer = stub_spec(storage, **parts, budget={"trials": 4})
    summary = Study(longer, again, trainable=stub_trainable).run(resume=True)
    assert (summary.state, sum(summary.trials.values())) == ("complete", 4)
    assert Records(again).trials()[:3] == before
    assert "trials/003/outcome.json" in Folder.at(join(storage, folder.name)).files()


def test_it_is_worked_on_in_a_folder_here(tmp_path):
    folder = new_folder(in_storage(BUCKET))
    assert folder.parent == tmp_path / "runs"
    assert home_of(in_storage(BUCKET), folder) == f"{BUCKET}/{folder.name}"
    assert not [name for name in Folder.at(BUCKET).files() if ".writable" in name]


def test_every_change_is_copied_and_every_deletion(study):
    remote = in_bucket(study.name)
    (study / "best").mkdir()
    (study / "best" / "old.bin").write_bytes(b"old")
    with Mirror(study, remote) as copies:
        copies.push()
        assert {"sessions.jsonl", "trials/000/params.json", "best/old.bin", "driver.json"} == set(remote.files())
        Records(study).add_result(0, Result({"samples_seen": 5}))
        (study / "best" / "old.bin").unlink()
        copies.push()
        assert remote.read("trials/000/results.jsonl") == (study / "trials/000/results.jsonl").read_bytes()
        assert "best/old.bin" not in remote.files()
        (study / "summary.json").write_text("{}")
    assert remote.read("summary.json") == b"{}"
    assert "driver.json" not in remote.files()


def test_records_that_are_there_are_not_copied_again(study, monkeypatch):
    remote, copied = in_bucket(study.name), []
    send = Folder._send
    monkeypatch.setattr(Folder, "_send", lambda self, name, file: (copied.append(name), send(self, name, file)))
    for _ in range(2):
        with Mirror(study, remote) as copies:
            copies.push()
    assert copied.count("trials/000/params.json") == 1


def test_a_driver_that_copies_for_long_is_heard_of_all_the_while(study, monkeypatch):
    beats, heard, send, write = [], [], Folder._send, Folder.write

    def slow(self, name, file):
        before, deadline = len(beats), time.monotonic() + 30
        while len(beats) < before + 3 and time.monotonic() < deadline:
            time.sleep(0.01)
        heard.append(len(beats) - before)
        send(self, name, file)

    monkeypatch.setattr(mirror, "HEARTBEAT_S", 0.01)
    monkeypatch.setattr(Folder, "_send", slow)
    monkeypatch.setattr(Folder, "write", lambda self, name, data: (beats.append(name), write(self, name, data)))
    with Mirror(study, in_bucket(study.name)):
        (study / "summary.json").write_text("{}")  # for the last copy at the latest
    assert heard
    assert min(heard) >= 3


def test_a_driver_that_was_taken_for_dead_leaves_the_next_one_s_sign_of_life(study):
    remote = in_bucket(study.name)
    with Mirror(study, remote):
        remote.write("driver.json", json.dumps({driver.HOST: "elsewhere", driver.PID: "7"}).encode())
    assert json.loads(remote.read("driver.json"))[driver.HOST] == "elsewhere"


def test_a_storage_that_is_away_for_a_while_loses_nothing(study, monkeypatch, caplog):
    remote, send = in_bucket(study.name), Folder._send
    monkeypatch.setattr(mirror, "RETRY_S", 0.0)
    with Mirror(study, remote) as copies:
        monkeypatch.setattr(Folder, "_send", _fails)
        copies.push()
        copies.push()
        assert len(caplog.messages) == 1
        assert "tried again until it succeeds" in caplog.text
        monkeypatch.setattr(Folder, "_send", send)
        copies.push()
        assert "trials/000/params.json" in remote.files()


def _fails(*_: object) -> None:
    raise OSError("the storage is away")


def test_the_later_records_win(study, tmp_path):
    address = join(BUCKET, study.name)
    with Mirror(study, Folder.at(address)):
        pass
    Records(study).add_result(0, Result({"samples_seen": 5}))  # and the machine lost its network
    assert fetched(address) == study
    assert Records(study).trials()[0].results[0].samples_seen == 5

    elsewhere = tmp_path / "elsewhere" / study.name
    shutil.copytree(study, elsewhere)
    Records(elsewhere).start_session()
    with Mirror(elsewhere, Folder.at(address)):
        Records(elsewhere).add_result(0, Result({"samples_seen": 9}))
    (study / "trials/000/error.txt").write_text("of a session that the other does not know")
    assert fetched(address) == study
    assert [each.samples_seen for each in Records(study).trials()[0].results] == [5, 9]
    assert not (study / "trials/000/error.txt").exists()


def test_a_study_that_was_fetched_in_part_is_fetched_again(study, monkeypatch):
    address = join(BUCKET, study.name)
    with Mirror(study, Folder.at(address)):
        pass
    shutil.rmtree(study)
    fetch = Folder._fetch

    def without_trials(self, name, file):
        if name.startswith("trials/"):
            raise OSError("the network\nis away")
        fetch(self, name, file)

    monkeypatch.setattr(Folder, "_fetch", without_trials)
    with pytest.raises(ConfigError, match=rf"^--resume: {address} could not be fetched \(the network\); try again$"):
        fetched(address)
    monkeypatch.setattr(Folder, "_fetch", fetch)
    with pytest.raises(ConfigError, match="holds a part of the study at"), Mirror(study, Folder.at(address)):
        pass
    assert fetched(address) == study
    with Mirror(study, Folder.at(address)):
        pass
    assert "trials/000/params.json" in Folder.at(address).files()
    assert len(Records(study).trials()) == 1


def test_a_living_driver_elsewhere_keeps_its_study(study, monkeypatch):
    remote = in_bucket(study.name)
    with Mirror(study, remote) as copies:
        copies.push()
    remote.write("driver.json", json.dumps(driver.identity(study) | {driver.HOST: "elsewhere"}).encode())
    with pytest.raises(StudyBusyError, match=r"is being run by process \d+ on elsewhere .* try again in \d+ s$"):
        fetched(remote.address)
    with pytest.raises(StudyBusyError), Mirror(study, remote):
        raise AssertionError
    monkeypatch.setattr(mirror, "SILENT_S", 0.0)
    assert fetched(remote.address) == study


def test_a_dead_driver_of_this_machine_is_not_waited_for(study):
    remote = in_bucket(study.name)
    with Mirror(study, remote) as copies:
        copies.push()
    dead = driver.identity(study) | {driver.PID: "4194305"}  # above Linux's largest
    remote.write("driver.json", json.dumps(dead).encode())
    assert fetched(remote.address) == study


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: new_folder(in_storage("s3://nowhere/runs")), "storage: s3://nowhere/runs cannot be written"),
        (lambda: new_folder(in_storage("what://eggs/runs")), "storage: what://eggs/runs cannot be opened"),
        (lambda: fetched("s3://eggs/nothing"), "--resume: s3://eggs/nothing holds no sessions.jsonl"),
        (lambda: find_folder(in_storage("s3://eggs/none")), "s3://eggs/none holds no run of the study 'stub'"),
    ],
)
def test_a_mistake_is_one_line(call, words):
    with pytest.raises(ConfigError, match=words) as caught:
        call()
    assert "\n" not in str(caught.value)


def in_storage(address: str) -> SearchSpec:
    return stub_spec(address)


def test_options_of_an_address_stay_at_its_end():
    assert join("s3://eggs/runs/?scheme=http", "a", "b") == "s3://eggs/runs/a/b?scheme=http"
    assert join("s3://eggs/runs/", "a") == "s3://eggs/runs/a"
