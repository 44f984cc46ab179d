"""Recordings of the garden's expert: whole, the same however they were made, and taken by import and audit."""

import errno
import json
import os
import subprocess
import sys
from dataclasses import asdict

import numpy as np
import pyarrow.parquet as pq
import pytest

from smolvla_core.data.annotations import manipulation_spans, skill_spans
from smolvla_core.data.audit import main as audit_main
from smolvla_core.data.behavior import import_behavior
from smolvla_core.data.behavior.importer import main as import_main
from smolvla_core.data.video_files import frames_at, inspect_video
from smolvla_core.garden import record as record_module
from smolvla_core.garden.cameras import Cameras, NoDisplayError
from smolvla_core.garden.demonstration import demonstrate
from smolvla_core.garden.env import CAM_REL_POSES, GardenEnv
from smolvla_core.garden.folder import PARTS, held
from smolvla_core.garden.record import Settings, main, record
from smolvla_core.garden.scene import TRUNK_RADIUS_M
from smolvla_core.live import PROPRIOCEPTION
from tests.garden_fixtures import needs_pictures
from tests.raw_behavior import annotation_file, contents, data_file, video_file

SETTINGS = Settings(episodes=3, first_instance=2, picture_size=32, misses=0.5)
AS_OPTIONS = ["--episodes", "3", "--first-instance", "2", "--picture-size", "32", "--misses", "0.5"]
NUMBERS = (60010, 60020, 60030)


@pytest.fixture(scope="module")
def raw(tmp_path_factory):
    needs_pictures()
    out = tmp_path_factory.mktemp("raw") / "garden"
    assert record(out, SETTINGS) == 0
    return out


@pytest.fixture(scope="module")
def toys(tmp_path_factory):
    """One episode of the second task, undisturbed."""
    needs_pictures()
    out = tmp_path_factory.mktemp("toys") / "garden"
    record(out, Settings(task="picking_up_toys", episodes=1, first_instance=51, picture_size=64, noise=0.0))
    return out


@pytest.fixture(scope="module")
def imported(raw, tmp_path_factory):
    out = tmp_path_factory.mktemp("imported") / "eggs"
    import_behavior(raw, out)
    return out


def columns(path, *keys):
    table = pq.read_table(path)
    return [np.array(table[key].to_pylist(), dtype=np.float32) for key in keys]


def annotation(raw, number):
    return json.loads(annotation_file(raw, number).read_text())


# The same recording, however it was made.


def test_killed_midway_it_goes_on_in_two_processes_to_the_same_bytes(raw, tmp_path):
    """The second episode's last video is half written when the process dies."""
    out = tmp_path / "garden"
    program = (
        "import os, signal, sys\n"
        "from smolvla_core.garden import record\n"
        "written, whole = [], record.write_hevc\n"
        "def write(path, frames, fps):\n"
        "    written.append(path)\n"
        "    if len(written) == 6: path.write_bytes(b'half a video'); os.kill(os.getpid(), signal.SIGKILL)\n"
        "    whole(path, frames, fps)\n"
        "record.write_hevc = write\n"
        "sys.exit(record.main(sys.argv[1:]))\n"
    )
    command = [sys.executable, "-c", program, str(out), *AS_OPTIONS, "--jobs", "1"]
    killed = subprocess.run(command, capture_output=True, timeout=300, check=False)
    assert killed.returncode == -9, killed.stderr
    assert not (out / "meta/info.json").exists()
    assert sorted(path.name for path in (out / PARTS).glob("*.json")) == ["00060010.json"]
    assert not video_file(out, 60020, "observation.images.rgb.right_wrist").exists()
    assert record(out, SETTINGS, jobs=2) == 1
    assert contents(out) == contents(raw)


def test_what_is_complete_is_left_alone(raw, capsys):
    before = {path: path.stat().st_mtime_ns for path in raw.rglob("*") if path.is_file()}
    (raw / PARTS).mkdir()  # as a kill leaves it that comes last
    assert main([str(raw), *AS_OPTIONS]) == 0
    assert capsys.readouterr().out == f"{raw}: 3 episodes of hiding_easter_eggs, 3 of them before\n"
    assert {path: path.stat().st_mtime_ns for path in raw.rglob("*") if path.is_file()} == before
    assert not (raw / PARTS).exists()


# What is in it.


def test_it_is_the_challenge_s_layout(raw):
    info = json.loads((raw / "meta/info.json").read_text())
    assert (info["codebase_version"], info["fps"], info["robot_type"]) == ("v2.1", 30, "R1Pro")
    assert info["features"]["observation.images.rgb.head"]["shape"] == [32, 32, 3]
    assert sorted(path.name for path in (raw / "data/task-0006").iterdir()) == [
        f"episode_{n:08d}.parquet" for n in NUMBERS
    ]
    rows = [json.loads(line) for line in (raw / "meta/episodes.jsonl").read_text().splitlines()]
    lengths = {row["episode_index"]: row["length"] for row in rows}
    start = 0
    for number in NUMBERS:
        table = pq.read_table(data_file(raw, number))
        assert "frame_index" not in table.schema.names
        assert table["index"].to_pylist() == list(range(start, start + lengths[number]))
        assert set(table["episode_index"].to_pylist()) == {number}
        assert len(table["observation.state"][0]) == 256
        assert len(table["action"][0]) == 23
        assert len(table["observation.task_info"][0]) == 56
        for camera in ("head", "left_wrist", "right_wrist"):
            facts = inspect_video(video_file(raw, number, f"observation.images.rgb.{camera}"))
            assert (facts.frames, facts.codec, facts.width) == (lengths[number], "hevc", 32)
        start += lengths[number]


def test_skills_have_the_layout_s_form(raw):
    for number in NUMBERS:
        found = annotation(raw, number)
        length = len(pq.read_table(data_file(raw, number)))
        skills = found["skill_annotation"]
        assert found["task_name"] == "hiding_Easter_eggs"
        assert found["meta_data"] == {
            "task_duration": length,
            "valid_duration": [0, max(skill["frame_duration"][1] for skill in skills)],
        }
        assert [skill["skill_idx"] for skill in skills] == list(range(len(skills)))
        kinds = [skill["skill_description"] for skill in skills]
        assert {kind for (kind,) in kinds} == {"move to", "pick up from", "place on next to"}
        assert [kinds.count([kind]) for kind in ("pick up from", "place on next to")] == [3, 3]
        starts = [skill["frame_duration"][0] for skill in skills]
        assert starts == sorted(starts)
        for skill in skills:
            first, last = skill["frame_duration"]
            assert 0 <= first < last <= length
            (objects,) = skill["object_id"]
            assert skill["manipulating_object_id"] == ([] if skill["skill_description"] == ["move to"] else objects[:1])
        assert len(skill_spans(found, length)) == len(skills)


def test_picks_raise_their_egg_and_places_lay_it_next_to_the_tree(raw):
    for number in NUMBERS:
        (info,) = columns(data_file(raw, number), "observation.task_info")
        poses = info.reshape(len(info), -1, 7)[:, :, :3]
        for skill in annotation(raw, number)["skill_annotation"]:
            (kind,), (objects,), (first, last) = (
                skill[key] for key in ("skill_description", "object_id", "frame_duration")
            )
            if kind == "move to":
                continue
            egg = poses[:, int(objects[0][-1])]
            if kind == "pick up from":
                assert objects[1:] == ["wicker_basket_1"]
                assert egg[first, 2] < 0.05 < 0.1 < egg[last - 1, 2]
            else:
                assert objects[1] == "lawn_1"
                tree = poses[-1, 3 + int(objects[2][-1])]
                assert egg[first, 2] > 0.1
                assert egg[last - 1, 2] < 0.04
                assert np.linalg.norm(egg[last - 1, :2] - tree[:2]) - TRUNK_RADIUS_M < 0.6


def test_a_recording_is_what_the_environment_gives_for_its_actions(toys):
    """State, poses and pictures of the undisturbed episode, frame by frame."""
    path = data_file(toys, 70010)
    state, action, cams, info = columns(
        path, "observation.state", "action", "observation.cam_rel_poses", "observation.task_info"
    )
    env = GardenEnv(task="picking_up_toys", pictures=False)
    cameras = Cameras(env.world.model, {"head": 64, "left_wrist": 64, "right_wrist": 64})
    looked_at = [0, len(action) // 3, 2 * len(action) // 3]
    drawn = {name: [] for name in cameras.pixels}
    observation, extra = env.reset(options={"instance": 51})
    for t in range(len(action)):
        assert np.array_equal(observation[PROPRIOCEPTION], state[t])
        assert np.array_equal(observation[CAM_REL_POSES], cams[t])
        assert np.array_equal(extra["task_info"], info[t])
        if t in looked_at:
            for name, picture in cameras.pictures(env.world.data).items():
                drawn[name].append(picture.astype(float))
        observation, _, success, _, extra = env.step(action[t])
    cameras.close()
    assert success
    for name, pictures in drawn.items():
        file = video_file(toys, 70010, f"observation.images.rgb.{name}")
        kept = frames_at(file, [t / 30 for t in looked_at], 0.01)
        near = [np.abs(a - b).mean() for a, b in zip(kept, pictures, strict=True)]
        assert max(near) < 6
        assert np.abs(kept[0].astype(float) - pictures[1]).mean() > 2 * near[0]


# What is made of it.


def test_the_import_takes_it_and_the_audit_calls_it_good(imported, capsys):
    assert audit_main([str(imported)]) == 0
    assert "Good: nothing to repair, nothing to look at." in capsys.readouterr().out


def test_annotations_arrive_for_critical_frames(imported):
    rows = [json.loads(line) for line in (imported / "meta/behavior_episodes.jsonl").read_text().splitlines()]
    assert len(rows) == 3
    for row in rows:
        found = json.loads((imported / row["annotation"]).read_text())
        spans = manipulation_spans(skill_spans(found, row["length"]))
        assert 0.2 < sum(span.stop - span.start for span in spans) / row["length"] < 1.2


def test_the_second_task_is_imported_by_its_number(toys, tmp_path, capsys):
    assert import_main([str(toys), "--task", "7", "--out", str(tmp_path / "toys")]) == 0
    assert "1 episode" in capsys.readouterr().out
    skills = annotation(toys, 70010)["skill_annotation"]
    kinds = [skill["skill_description"][0] for skill in skills]
    assert (kinds.count("pick up from"), kinds.count("place in")) == (3, 3)
    last = [skill for skill in skills if skill["skill_description"] == ["place in"]][-1]
    assert last["object_id"][0][1:] == ["wicker_basket_1"]


# What is refused, in one line.


def one_line(capsys):
    out, err = capsys.readouterr()
    assert out == ""
    assert len(err.splitlines()) == 1
    return err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--episodes", "4"], "was begun with episodes 3, not 4"),
        (["--seed", "1"], "was begun with seed 0, not 1"),
        (["--noise", "0.1"], "was begun with noise 0.3, not 0.1"),
        (["--task", "picking_up_toys"], "was begun with task hiding_easter_eggs, not picking_up_toys"),
        (["--full-size"], "was begun with picture_size 32, not None"),
    ],
)
def test_a_folder_keeps_its_settings(raw, capsys, options, message):
    before = contents(raw)
    given = AS_OPTIONS if "--full-size" not in options else AS_OPTIONS[:4] + AS_OPTIONS[6:]
    assert main([str(raw), *given, *options]) == 2
    assert one_line(capsys) == f"error: {raw}: {message}; give the same, or another folder\n"
    assert contents(raw) == before


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--task", "tea"], "--task: the garden has no 'tea'; it has hiding_easter_eggs, picking_up_toys"),
        (["--episodes", "0"], "--episodes is 0; it must be 1 to 999"),
        (["--episodes", "1000"], "--episodes is 1000; it must be 1 to 999"),
        (["--picture-size", "33"], "--picture-size is 33; it must be an even number of 32 to 720 pixels"),
        (["--picture-size", "16"], "--picture-size is 16"),
        (["--first-instance", "-1"], "--first-instance is -1; it must be 0 or more"),
        (["--seed", "-1"], "--seed is -1"),
        (["--noise", "nan"], "--noise is nan; it must be 0 to 1"),
        (["--misses", "1.5"], "--misses is 1.5; it must be 0 to 1"),
        (["--max-seconds", "0"], "--max-seconds is 0; it must be 1 to 600"),
        (["--jobs", "0"], "--jobs is 0; it must be 1 or more"),
    ],
)
def test_bad_options_are_one_line_and_leave_nothing(tmp_path, capsys, options, message):
    assert main([str(tmp_path / "new"), *options]) == 2
    assert message in one_line(capsys)
    assert not (tmp_path / "new").exists()


def test_options_that_are_none_are_one_line(tmp_path, capsys):
    for options in (["--episodes", "many"], ["--picture-size", "64", "--full-size"], ["--colour"]):
        with pytest.raises(SystemExit) as ended:
            main([str(tmp_path / "new"), *options])
        assert ended.value.code == 2
        assert "--help" in one_line(capsys)


def test_other_folders_are_left_alone(tmp_path, capsys):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/notes").write_text("mine")
    (tmp_path / "file").write_text("a file")
    (tmp_path / "damaged/meta").mkdir(parents=True)
    (tmp_path / "damaged/meta/garden.json").write_text("[1, 2")
    before = contents(tmp_path)
    for name, message in (
        ("mine", "exists and was not recorded here"),
        ("file", "is a file; give a new folder"),
        ("file/below", "cannot be written to"),
        ("damaged", "damaged; remove"),
    ):
        assert main([str(tmp_path / name)]) == 2
        assert message in one_line(capsys)
    assert contents(tmp_path) == before


def test_two_recordings_do_not_meet(tmp_path, capsys):
    with held(tmp_path / "new", asdict(Settings(episodes=1)) | {"expert": record_module.EXPERT}):
        assert main([str(tmp_path / "new"), "--episodes", "1"]) == 2
    assert "another recording is writing to it; wait for it to end" in one_line(capsys)


def test_an_expert_that_fails_is_named_with_its_instance(tmp_path, capsys):
    needs_pictures()
    assert main([str(tmp_path / "new"), "--episodes", "1", "--picture-size", "32", "--max-seconds", "1"]) == 2
    assert "instance 1: the expert fails in every style; lower --noise, or raise --max-seconds" in one_line(capsys)


def test_for_an_instance_that_the_expert_cannot_do_another_stands_in(tmp_path, monkeypatch):
    needs_pictures()
    monkeypatch.setattr(
        record_module, "demonstrate", lambda env, number, **how: demonstrate(env, number, **how) if number > 5 else None
    )
    record(tmp_path / "new", Settings(episodes=1, first_instance=5, picture_size=32))
    (meta,) = (tmp_path / "new").glob("meta/episodes/*/*.json")
    assert json.loads(meta.read_text())["garden"]["instance"] == 1_000_005


def test_without_egl_one_line_names_the_packages(tmp_path, capsys, monkeypatch):
    def missing(*_):
        raise NoDisplayError("the garden's pictures need EGL; apt-get install libegl1 libgl1-mesa-dri")

    monkeypatch.setattr(record_module, "Cameras", missing)
    assert main([str(tmp_path / "new"), "--episodes", "1"]) == 2
    assert "apt-get install libegl1 libgl1-mesa-dri" in one_line(capsys)


def test_a_full_disk_is_one_line_and_the_same_command_goes_on(tmp_path):
    """Files may not grow beyond 20 kB, a video does."""
    needs_pictures()
    program = (
        "import resource, signal, sys\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))\n"
        "from smolvla_core.garden.record import main\n"
        "sys.exit(main(sys.argv[1:]))\n"
    )
    out = tmp_path / "garden"
    command = [sys.executable, "-c", program, str(out), "--episodes", "1", "--picture-size", "64", "--jobs", "1"]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert ended.returncode == 1
    assert ended.stderr.startswith(f"error: [Errno {errno.EFBIG}] {os.strerror(errno.EFBIG)}")
    assert ended.stderr.endswith("run the same command again to go on\n")
    assert len(ended.stderr.splitlines()) == 1
    assert not (out / "meta/info.json").exists()
    assert [path.name for path in out.rglob("*.mp4") if PARTS not in path.parts] == []
