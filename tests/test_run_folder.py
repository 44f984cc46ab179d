"""A study's folder: its name, what is kept in it, and what a resumed study may change."""

import errno
import os
import tempfile
import time
from pathlib import Path

import pytest

from smolvla_core.errors import ConfigError, DataError
from tests.spec_yaml import loaded, written
from tune.records import Records
from tune.report.__main__ import main as report
from tune.run import main as run
from tune.run_folder import (
    DATASET,
    GIVEN,
    RESOLVED,
    find_folder,
    new_folder,
    refuse_other_data,
    resumed_spec,
    stored_spec,
    stored_yaml,
    taken,
    write_specification,
)
from tune.spec import SearchSpec, load_spec

YAML = "study: eggs  # as the user wrote it\n"


def spec_in(storage: Path, study: str = "eggs", **sections: object) -> SearchSpec:
    values = {
        "study": study,
        "trial": {"data": {"train": [{"root": "/data/eggs"}]}, "optim": {"samples": 900, "lr": 1e-4}},
        "search": {"weighting.alpha": {"type": "float", "low": 0.0, "high": 2.0}},
        "warm_start": {"seed_baseline": {"weighting.alpha": 0.0}},
        "budget": {"trials": 8, "hours": 2},
        "asha": {"grace_samples": 100},
        "storage": str(storage),
    }
    return SearchSpec.from_dict(values | sections)


def started(storage: Path, name: str, **changes: object) -> Path:
    folder = storage / name
    write_specification(folder, spec_in(storage, **changes), YAML)
    return folder


def test_a_new_folder_is_named_by_study_and_time_and_not_made(tmp_path):
    folder = new_folder(spec_in(tmp_path))
    begun = time.strptime(folder.name, "eggs-%Y%m%d-%H%M%S")
    assert abs(time.mktime(begun) - time.time()) < 60
    assert folder.parent == tmp_path
    assert list(tmp_path.iterdir()) == []


def test_a_storage_that_cannot_be_written_is_refused_before_anything_starts(tmp_path):
    (tmp_path / "file").touch()
    for storage in (tmp_path / "file", tmp_path / "file" / "runs", Path("/proc/runs")):
        with pytest.raises(ConfigError, match=f"^storage: {storage} cannot be written .*; give a folder that can be"):
            new_folder(spec_in(storage))
    assert new_folder(spec_in(tmp_path / "not" / "yet")).parent == tmp_path / "not" / "yet"
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_question_mark_ends_the_address_of_an_sqlite_file(tmp_path):
    with pytest.raises(ConfigError, match=r"^storage: .*/eggs\? holds a '\?', .*; give another folder$"):
        new_folder(spec_in(tmp_path / "eggs?"))


@pytest.mark.parametrize("text", [b"", b"[1]", b"{}", b"\xff\xfe", b"\x00"])
def test_a_damaged_file_of_a_study_is_one_line(tmp_path, text):
    folder = started(tmp_path, "eggs-20260131-120000")
    (folder / DATASET).write_bytes(text)
    with pytest.raises(DataError, match=f"^{folder / DATASET}: damaged, .*; restore it, or remove it$"):
        refuse_other_data(folder, {"digest": "a", "frames": 1})
    (folder / RESOLVED).write_bytes(text)
    with pytest.raises(ConfigError, match=f"^--resume: {folder / RESOLVED} was damaged, or written by another version"):
        stored_spec(folder)


def test_a_study_whose_own_yaml_is_gone_or_no_text_goes_on(tmp_path):
    folder = started(tmp_path, "eggs-20260131-120000")
    assert stored_yaml(folder) == YAML
    (folder / GIVEN).write_bytes(b"study: eggs\xff\n")
    assert stored_yaml(folder) == "study: eggs\ufffd\n"
    (folder / GIVEN).unlink()
    assert stored_yaml(folder) == ""


@pytest.mark.parametrize(("main", "before", "asked_by"), [(report, (), "RUN"), (run, ("--resume",), "--resume")])
def test_a_study_that_cannot_be_written_is_one_line(monkeypatch, tmp_path, capsys, main, before, asked_by):
    folder = started(tmp_path, "eggs-20260131-120000")

    def read_only(dir: Path) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(dir))

    monkeypatch.setattr(tempfile, "TemporaryFile", read_only)
    assert main([*before, str(folder)]) == 2
    told = f"{folder} cannot be written (Read-only file system); give a folder that can be written to"
    assert capsys.readouterr().err == f"error: {asked_by}: {told}\n"
    assert sorted(path.name for path in folder.iterdir()) == [RESOLVED, GIVEN]


def test_folders_of_the_same_second_are_numbered(tmp_path, monkeypatch):
    monkeypatch.setattr(time, "strftime", lambda form: "20260131-120000")
    names = []
    for _ in range(3):
        folder = new_folder(spec_in(tmp_path))
        folder.mkdir()
        names.append(folder.name)
    assert names == ["eggs-20260131-120000", "eggs-20260131-120000-2", "eggs-20260131-120000-3"]


def test_two_searches_that_were_given_the_same_name_get_a_folder_each(tmp_path, monkeypatch):
    monkeypatch.setattr(time, "strftime", lambda form: "20260131-120000")
    spec = spec_in(tmp_path / "runs")
    named = [new_folder(spec) for _ in range(3)]
    assert len(set(named)) == 1  # none has made it yet
    with taken(named[0], spec) as first, taken(named[1], spec) as second:
        write_specification(first, spec, YAML)
        write_specification(second, spec, YAML)
        with taken(named[2], spec) as third:  # it ends before it keeps anything
            assert third.is_dir()
    assert [first.name, second.name] == ["eggs-20260131-120000", "eggs-20260131-120000-2"]
    assert third.name == "eggs-20260131-120000-3"
    assert sorted(path.name for path in (tmp_path / "runs").iterdir()) == [first.name, second.name]


def test_both_yamls_are_kept_whole(tmp_path):
    folder = started(tmp_path, "eggs-20260131-120000")
    assert (folder / GIVEN).read_text() == YAML
    assert stored_spec(folder) == spec_in(tmp_path)
    assert sorted(path.name for path in folder.iterdir()) == [RESOLVED, GIVEN]


def test_what_load_spec_reads_survives_the_folder(tmp_path):
    """Numbers such as 1.0e-07, conditions, steps and warm starts come back as they were."""
    spec = load_spec(written(tmp_path))[0]
    write_specification(tmp_path / "run", spec, YAML)
    assert stored_spec(tmp_path / "run") == spec
    assert resumed_spec(tmp_path / "run", spec, 0) == spec


def test_a_killed_writer_leaves_the_old_file(tmp_path, monkeypatch):
    folder = started(tmp_path, "eggs-20260131-120000")
    before = (folder / RESOLVED).read_text()

    def killed(self, target):
        raise KeyboardInterrupt

    monkeypatch.setattr(Path, "replace", killed)
    with pytest.raises(KeyboardInterrupt):
        write_specification(folder, spec_in(tmp_path, seed=1), YAML)
    assert (folder / RESOLVED).read_text() == before


@pytest.mark.parametrize(
    ("names", "newest"),
    [
        (["eggs-20260131-120000", "eggs-20260130-235959"], "eggs-20260131-120000"),
        (["eggs-20260131-120000", "eggs-20260131-120000-2", "eggs-20260131-120000-10"], "eggs-20260131-120000-10"),
        # other studies, whose names begin alike
        (["eggs-20260101-120000", "eggs-two-20260202-120000"], "eggs-20260101-120000"),
        (["eggs-20260101-120000", "eggs-2026-20260202-120000"], "eggs-20260101-120000"),
        (["eggs-20260101-120000", "eggs-copy", "eggs", "eggs-20260202"], "eggs-20260101-120000"),
    ],
)
def test_resume_finds_the_newest_folder_of_the_study(tmp_path, names, newest):
    for name in names:
        started(tmp_path, name)
    (tmp_path / "eggs-20270101-120000").mkdir()  # it holds no study
    assert find_folder(spec_in(tmp_path)).name == newest


@pytest.mark.parametrize("home", ["", "missing"])
def test_without_a_folder_the_line_says_how_to_start(tmp_path, home):
    started(tmp_path, "other-20260131-120000")
    with pytest.raises(ConfigError, match=r"holds no run of the study 'eggs'; leave --resume out to start one"):
        find_folder(spec_in(tmp_path / home))


def test_a_folder_without_a_study_is_refused_with_an_example(tmp_path):
    with pytest.raises(ConfigError, match=rf"--resume: {tmp_path} holds no {RESOLVED}; give a study's folder, e\.g\."):
        stored_spec(tmp_path)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("study: [", "not valid YAML"),
        ("", "was damaged"),
        ("just text", "was damaged"),
        ("study: eggs\nasha: {grace: 100}\n", "was damaged, or written by another version"),
    ],
)
def test_a_damaged_specification_is_named_by_its_file(tmp_path, text, words):
    (tmp_path / RESOLVED).write_text(text)
    with pytest.raises(ConfigError) as error:
        stored_spec(tmp_path)
    line = str(error.value)
    assert words in line
    assert str(tmp_path / RESOLVED) in line
    assert "\n" not in line


def test_a_study_is_resumed_with_the_budget_finalists_and_resources_of_now(tmp_path):
    folder = started(tmp_path, "eggs-20260131-120000")
    now = spec_in(
        tmp_path,
        budget={"trials": 20, "hours": 5},
        resources={"gpus": 1, "cpus": 4},
        max_concurrent=3,
        finalists={"k": 2, "seeds": 3},
    )  # fmt: skip
    assert resumed_spec(folder, now, 0) == now
    assert resumed_spec(folder, None, 0) == spec_in(tmp_path)


def test_a_folder_of_the_claims_is_no_study_to_resume(tmp_path):
    folder = started(tmp_path, "eggs-claims-20260131-120000")
    (folder / "claims_plan.json").write_text("{}")
    with pytest.raises(ConfigError, match=rf"go on with python -m tune\.claims --resume {folder}$"):
        resumed_spec(folder, None, 0)


def test_a_password_is_not_kept_and_is_given_again_when_a_study_is_resumed(tmp_path, monkeypatch):
    for name in ("MLFLOW_TRACKING_URI", "MLFLOW_TRACKING_USERNAME"):
        monkeypatch.delenv(name, raising=False)
    spec = spec_in(tmp_path, tracking={"uri": "http://ada:secret@host:5000"})
    folder = tmp_path / "eggs-20260131-120000"
    write_specification(folder, spec, "tracking: {uri: 'http://ada:secret@host:5000'}\n")
    assert "secret" not in "".join(file.read_text() for file in folder.iterdir())
    assert resumed_spec(folder, spec, 0) == spec
    with pytest.raises(
        ConfigError, match=r"the password of tracking.uri \(http://\*\*\*@host:5000\) is not kept"
    ) as error:
        resumed_spec(folder, None, 0)
    assert "\n" not in str(error.value)
    monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", "ada")
    assert resumed_spec(folder, stored_spec(folder), 0).tracking.uri == "http://host:5000"
    assert resumed_spec(folder, None, 0).tracking.uri == "http://host:5000"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://ada:secret@host:5000")
    assert resumed_spec(folder, None, 0).tracking.uri == "http://ada:secret@host:5000"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://ada:secret@elsewhere:5000")
    assert resumed_spec(folder, None, 0).tracking.uri == "http://host:5000"
    with pytest.raises(ConfigError, match=r"tracking.uri differs from what .* was started with"):
        resumed_spec(folder, spec_in(tmp_path, tracking={"uri": "http://ada:secret@elsewhere:5000"}), 0)


@pytest.mark.parametrize(
    ("stored", "now", "extend", "trials"),
    [
        (8, None, 0, 8),
        (8, None, 5, 13),
        (8, 8, 5, 13),
        (8, 20, 0, 20),
        (8, 20, 5, 25),
        (13, 8, 0, 13),  # it was extended before; the YAML still says 8
        (13, 8, 5, 18),
    ],
)
def test_extending_adds_to_the_trials_there_are(tmp_path, stored, now, extend, trials):
    folder = started(tmp_path, "eggs-20260131-120000", budget={"trials": stored})
    given = None if now is None else spec_in(tmp_path, budget={"trials": now})
    assert resumed_spec(folder, given, extend).budget.trials == trials


def test_fewer_trials_are_taken_where_they_are_set_and_not_begun(tmp_path):
    folder = started(tmp_path, "eggs-20260131-120000")
    for number in range(3):
        Records(folder).start_trial(number, None, {}, {})
    assert resumed_spec(folder, spec_in(tmp_path, budget={"trials": 3}), 0, trials_set=True).budget.trials == 3
    assert resumed_spec(folder, spec_in(tmp_path, budget={"trials": 3}), 2, trials_set=True).budget.trials == 5
    with pytest.raises(ConfigError, match=r"^--set: budget\.trials=2 is fewer than the 3 that .*; give at least 3$"):
        resumed_spec(folder, spec_in(tmp_path, budget={"trials": 2}), 0, trials_set=True)


BASE = {"data": {"train": [{"root": "/data/eggs"}]}, "optim": {"samples": 900, "lr": 1e-4}}


@pytest.mark.parametrize(
    ("changes", "key", "before", "now"),
    [
        ({"seed": 1}, "seed", "0", "1"),
        ({"study": "ham"}, "study", "eggs", "ham"),
        ({"trial": BASE | {"optim": {"samples": 900, "lr": 2e-4}}}, "trial.optim.lr", "0.0001", "0.0002"),
        ({"trial": BASE | {"optim": {"samples": 900}}}, "trial.optim.lr", "0.0001", "absent"),
        ({"trial": BASE | {"state": {"preset": "all"}}}, "trial.state", "absent", "{'preset': 'all'}"),
        (
            {"trial": BASE | {"data": {"train": [{"root": "/data/ham"}]}}},
            "trial.data.train.0.root",
            "/data/eggs",
            "/data/ham",
        ),
        (
            {"search": {"weighting.alpha": {"type": "float", "low": 0.0, "high": 1.0}}},
            "search.weighting.alpha.high",
            "2.0",
            "1.0",
        ),
        ({"warm_start": {}}, "warm_start.seed_baseline", "{'weighting.alpha': 0.0}", "absent"),
        ({"asha": {"grace_samples": 300}}, "asha.grace_samples", "100", "300"),
        ({"tracking": {"enabled": False}}, "tracking.enabled", "True", "False"),
    ],
)
def test_any_other_change_is_refused_by_the_first_key_that_differs(tmp_path, changes, key, before, now):
    folder = started(tmp_path, "eggs-20260131-120000")
    kept = {path.name: path.read_text() for path in folder.iterdir()}
    with pytest.raises(ConfigError) as error:
        resumed_spec(folder, spec_in(tmp_path, **changes), 0)
    assert str(error.value) == (
        f"--resume: {key} differs from what {folder} was started with ({before} then, {now} now); "
        "put it back, or leave --resume out to start a new study"
    )
    assert {path.name: path.read_text() for path in folder.iterdir()} == kept


def test_the_first_of_several_changes_is_named_and_a_long_value_is_cut(tmp_path):
    spec = loaded(tmp_path)
    write_specification(tmp_path / "run", spec, YAML)
    now = loaded(tmp_path, assignments=("seed=3", f"policy.pretrained={'x' * 200}"))
    with pytest.raises(ConfigError, match=r"trial\.policy\.pretrained differs .*absent then, x{57}\.\.\. now"):
        resumed_spec(tmp_path / "run", now, 0)


def test_the_order_of_keys_is_no_change(tmp_path):
    folder = started(tmp_path, "eggs-20260131-120000")
    turned = spec_in(tmp_path, trial=dict(reversed(BASE.items())))
    assert resumed_spec(folder, turned, 0) == spec_in(tmp_path)


def test_data_that_has_changed_since_is_refused(tmp_path):
    spec = spec_in(tmp_path)
    data = {"root": "/data/eggs", "digest": "a", "frames": 1000}
    write_specification(tmp_path / "run", spec, "study: stub", data)
    refuse_other_data(tmp_path / "run", data)
    with pytest.raises(ConfigError, match=r"/data/eggs has changed since .*run was started \(1,000 frames then, 999"):
        refuse_other_data(tmp_path / "run", {**data, "digest": "b", "frames": 999})
