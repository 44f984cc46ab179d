"""The study's records: complete after a kill at any moment, in any place, and counted once."""

import json
import math
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from smolvla_core.errors import DataError
from tune.clock import clock_of
from tune.records import FINALISTS, Records, Result

PARAMS = {"optim.lr": 1e-4, "optim.batch_size": 8, "policy.train_expert_only": True, "optim.ema_decay": None}
CONFIG = {"optim": {"lr": 1e-4}}


def at(samples: int, value: float = 1.0, **more) -> Result:
    return Result({"samples_seen": samples, "val/error": value}, **more)


@pytest.fixture
def records(tmp_path) -> Records:
    return Records(tmp_path / "eggs-0")


def started(records: Records, number: int = 0, name: str | None = None) -> Records:
    records.start_trial(number, name, PARAMS, CONFIG)
    return records


def file(records: Records, name: str, number: int = 0) -> Path:
    return records.run_dir / "trials" / f"{number:03d}" / name


def test_what_is_written_is_read(records):
    started(records, 0, "seed_baseline")
    curve = ({"samples_seen": 5, "train/loss": 0.5},)
    records.add_result(0, at(10, 2.0, curve=curve, checkpoint="ray/000/c0", host="node1", pid=7))
    records.add_result(0, at(30, 1.5, last=True))
    records.end_trial(0, "pruned", "1.5 at 30 samples, the cut-off is 1.2")
    started(records, 1)
    (first, second) = Records(records.run_dir).trials()
    assert (first.number, first.name, first.params, first.config) == (0, "seed_baseline", PARAMS, CONFIG)
    assert first.values("val/error") == {10: 2.0, 30: 1.5}
    assert first.checkpoint == "ray/000/c0"
    assert first.results[0].curve == curve
    assert (first.results[0].host, first.results[0].pid, first.results[0].last) == ("node1", 7, False)
    assert first.results[1].last
    assert first.results[0].time <= first.results[1].time
    assert (first.outcome.state, first.outcome.reason) == ("pruned", "1.5 at 30 samples, the cut-off is 1.2")
    assert (second.number, second.name, second.results, second.outcome) == (1, None, (), None)


def test_an_empty_study(records):
    assert records.trials() == []
    assert records.seconds_used() == 0


def test_trials_come_by_number_past_a_thousand(records):
    for number in (1000, 2, 999, 10):
        started(records, number)
    assert [trial.number for trial in records.trials()] == [2, 10, 999, 1000]


def test_numbers_survive_exactly(records):
    started(records)
    records.add_result(0, at(10, 0.1 + 0.2))
    records.add_result(0, at(30, math.nan))
    values = Records(records.run_dir).trials()[0].values("val/error")
    assert values[10] == 0.1 + 0.2
    assert math.isnan(values[30])


def test_a_continued_trial_keeps_its_record(records):
    started(records, 0, "seed_baseline")
    before = records.trials()[0]
    Records(records.run_dir).start_trial(0, None, {"other": 1}, {})
    assert records.trials()[0] == before


# --- a kill at any moment


@pytest.mark.parametrize("cut", range(1, 60, 7))
def test_a_line_that_was_cut_off_is_dropped_alone(records, cut):
    started(records)
    records.add_result(0, at(10, 3.0))
    records.add_result(0, at(30, 2.0))
    path = file(records, "results.jsonl")
    whole = path.read_bytes()
    path.write_bytes(whole[:-cut])
    again = Records(records.run_dir)
    kept = {10: 3.0, 30: 2.0} if cut == 1 else {10: 3.0}  # only the line's end is missing
    assert again.trials()[0].values("val/error") == kept
    assert again.add_result(0, at(30, 2.0)) == (cut > 1)  # the trial reports it again
    assert again.add_result(0, at(90, 1.0))
    assert again.trials()[0].values("val/error") == {10: 3.0, 30: 2.0, 90: 1.0}


def test_killed_before_the_parameters_were_whole(records):
    folder = records.run_dir / "trials" / "000"
    folder.mkdir(parents=True)
    assert records.trials() == []
    (folder / "params.json.part").write_text('{"number": 0, "na')
    assert records.trials() == []
    started(records)
    assert [trial.params for trial in records.trials()] == [PARAMS]


def test_killed_before_the_outcome_was_whole(records):
    started(records)
    records.add_result(0, at(90, 1.0, last=True))
    file(records, "outcome.json.part").write_text('{"state": "comp')
    (trial,) = records.trials()
    assert trial.outcome is None
    assert trial.results[-1].last  # from which the outcome can be told
    records.end_trial(0, "complete", None)
    assert records.trials()[0].outcome.state == "complete"


def test_a_trial_that_could_not_start_is_not_listed_and_leaves_no_outcome(records):
    records.keep_traceback(0, "ActorDiedError: no such node")
    records.end_trial(0, "failed", "its process died")
    assert records.trials() == []
    started(records)
    assert records.trials()[0].outcome is None
    assert file(records, "error.txt").read_text() == "ActorDiedError: no such node"


def test_a_process_that_is_killed_while_it_writes_leaves_whole_records(records):
    program = (
        "import sys; from pathlib import Path; from tune.records import *\n"
        "records = Records(Path(sys.argv[1])); records.start_session()\n"
        "for number in range(10**6):\n"
        "    records.start_trial(number, None, {'x': number}, {})\n"
        "    for samples in (10, 30, 90):\n"
        "        records.add_result(number, Result({'samples_seen': samples, 'e': number + samples}))\n"
        "    records.end_trial(number, 'complete', None)\n"
        "    print(number, flush=True)\n"
    )
    writer = subprocess.Popen([sys.executable, "-c", program, str(records.run_dir)], stdout=subprocess.PIPE, text=True)
    finished = [int(writer.stdout.readline()) for _ in range(12)][-1]
    writer.kill()
    writer.wait()
    trials = records.trials()
    assert len(trials) > finished
    for trial in trials[: finished + 1]:
        assert trial.outcome.state == "complete"
        assert trial.values("e") == {samples: trial.number + samples for samples in (10, 30, 90)}
    assert [trial.number for trial in trials] == list(range(len(trials)))


# --- counted once


def test_a_report_that_was_recorded_is_refused(records):
    started(records)
    assert records.add_result(0, at(10))
    assert not records.add_result(0, at(10))
    assert records.add_result(0, at(30))
    again = Records(records.run_dir)  # the trial goes on from an older checkpoint, in another process
    assert not again.add_result(0, at(10, 9.0))
    assert not again.add_result(0, at(30, 9.0))
    assert again.add_result(0, at(90))
    assert again.trials()[0].values("val/error") == {10: 1.0, 30: 1.0, 90: 1.0}


def test_each_trial_counts_for_itself(records):
    started(started(records, 0), 1)
    assert records.add_result(0, at(30))
    assert records.add_result(1, at(10))


def test_a_failure_without_samples_is_recorded(records):
    started(records)
    records.add_result(0, at(10))
    assert records.add_result(0, Result({}, failure="out of memory", last=True))
    assert Records(records.run_dir).trials()[0].results[-1].failure == "out of memory"
    assert records.trials()[0].values("val/error") == {10: 1.0}


# --- another place


def test_a_moved_folder_finds_its_checkpoints(records, tmp_path):
    started(records)
    checkpoint = records.run_dir / "ray" / "000" / "checkpoint_000001"
    checkpoint.mkdir(parents=True)
    records.add_result(0, at(10, checkpoint=records.relative(str(checkpoint))))
    shutil.move(records.run_dir, tmp_path / "elsewhere")
    moved = Records(tmp_path / "elsewhere")
    assert moved.locate(moved.trials()[0].checkpoint) == str(
        tmp_path / "elsewhere" / "ray" / "000" / "checkpoint_000001"
    )


def test_paths_outside_and_addresses_stay(records):
    assert records.relative("/elsewhere/c0") == records.locate("/elsewhere/c0") == "/elsewhere/c0"
    address = "s3://bucket/runs/c0"
    assert records.relative(address) == records.locate(address) == address


def test_a_folder_by_a_relative_path_or_through_a_link(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    relative = Records(Path("eggs"))
    assert relative.relative(str(tmp_path / "eggs" / "c0")) == "c0"
    assert relative.locate("c0") == str(tmp_path / "eggs" / "c0")
    (tmp_path / "eggs").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "eggs")
    assert Records(tmp_path / "link").relative(str(tmp_path / "eggs" / "c0")) == "c0"


def test_other_things_in_the_folder_are_left_alone(records):
    started(records)
    for name in ("000.bak", "0 (copy)", "notes", ".tmp"):
        shutil.copytree(records.run_dir / "trials" / "000", records.run_dir / "trials" / name)
    assert len(records.trials()) == 1


@pytest.mark.parametrize("name", ["params.json", "outcome.json"])
@pytest.mark.parametrize("content", [b"", b'{"number": 0', b"[]", b"{}", b"\xff\xfe"])
def test_a_damaged_file_is_named_in_one_line(records, name, content):
    started(records)
    records.end_trial(0, "complete", None)
    file(records, name).write_bytes(content)
    with pytest.raises(DataError) as caught:
        records.trials()
    assert str(caught.value).startswith(f"{file(records, name)}: damaged (")
    assert "restore it from a backup, or remove its folder" in str(caught.value)
    assert "\n" not in str(caught.value)


# --- the time that was used


def test_seconds_are_those_of_the_sessions_and_not_between_them(records, monkeypatch):
    clock = 1000.0
    monkeypatch.setattr("tune.clock.StudyClock.now", lambda self: clock)
    assert records.start_session() == 1
    clock = 1010.0
    started(records)
    clock = 1050.0
    records.add_result(0, at(10))  # the last that is heard of the first session: 50 s
    assert records.seconds_used() == 50
    clock = 9000.0
    assert Records(records.run_dir).start_session() == 2
    assert records.seconds_used() == 50
    clock = 9020.0
    started(records, 0)  # goes on, and keeps its start
    clock = 9030.0
    records.end_trial(0, "complete", None)
    clock = 9025.0
    assert records.seconds_used() == 50 + 30
    clock = 20_000.0
    assert records.start_session() == 3  # nothing came of it
    clock = 30_000.0
    assert records.start_session() == 4
    clock = 30_007.0
    started(records, 1)
    assert records.seconds_used() == 50 + 30 + 0 + 7


@pytest.mark.parametrize("jump", [86_400.0, -86_400.0])
def test_a_clock_that_is_set_while_a_study_runs_or_between_its_sessions_costs_no_hours(records, monkeypatch, jump):
    real = time.time
    records.start_session()
    started(records)
    monkeypatch.setattr("time.time", lambda: real() + jump)
    records.add_result(0, at(10))
    records.add_result(0, at(20))
    clock_of.cache_clear()  # as in another process
    again = Records(records.run_dir)
    again.start_session()
    again.add_result(0, at(30))
    again.end_trial(0, "complete", None)
    (trial,) = again.trials()
    times = [trial.started, *(result.time for result in trial.results), trial.outcome.time]
    assert times == sorted(times)
    assert 0 <= again.seconds_used() < 60


def test_a_session_line_that_was_cut_off_is_dropped(records):
    records.start_session()
    path = records.run_dir / "sessions.jsonl"
    path.write_bytes(path.read_bytes() + b'[17]\n{"time": 17')
    assert records.start_session() == 2
    assert [set(json.loads(line)) for line in path.read_text().splitlines() if line.endswith("}")] == [
        {"time", "pid", "code", "resources"}
    ] * 2


def test_finalists_are_recorded_beside_the_trials_and_count_in_the_seconds(records, monkeypatch):
    monkeypatch.setattr("tune.clock.StudyClock.now", lambda self: 1000.0)
    records.start_session()
    records.start_trial(0, None, {}, {})
    monkeypatch.setattr("tune.clock.StudyClock.now", lambda self: 1060.0)
    finalists = Records(records.run_dir, FINALISTS)
    finalists.start_trial(0, "seed_baseline", {"runtime.seed": 1}, {})
    rows = {"test/critical_action_mse": [[3, 10, 0.5]]}
    finalists.add_result(0, Result({"samples_seen": 900, "test/critical_action_mse": 0.5}, episodes=rows))
    assert [trial.name for trial in records.trials()] == [None]
    (again,) = Records(records.run_dir, FINALISTS).trials()
    assert (again.name, again.results[0].episodes) == ("seed_baseline", rows)
    assert records.seconds_used() == finalists.seconds_used() == 60


def test_the_hours_that_trainings_acted_for_are_used(records, monkeypatch):
    clock = 1000.0
    monkeypatch.setattr("tune.clock.StudyClock.now", lambda self: clock)
    records.start_session()
    clock = 1060.0
    started(records)
    records.end_trial(0, "complete", None)
    clock = 1160.0
    Records(records.run_dir, FINALISTS).note_act(0)
    assert records.seconds_used() == 160
    clock = 9000.0
    records.start_session()
    clock = 9040.0
    records.note_act(0)
    assert records.seconds_used() == 160 + 40
