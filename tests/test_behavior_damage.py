"""Bad input to the importer: each is one line that names it, exit code 2, and nothing is written."""

import json
import shutil

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from smolvla_core.data.behavior import main
from smolvla_core.data.inside import check_template, check_video_key
from smolvla_core.data.synthetic import write_synthetic
from smolvla_core.data.video_files import frames_at, inspect_video, write_hevc
from smolvla_core.errors import DataError
from tests.raw_behavior import (
    SECOND,
    annotation_file,
    contents,
    data_file,
    edit_column,
    edit_json,
    set_column,
    video_file,
)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    root = tmp_path_factory.mktemp("raw") / "download"
    write_synthetic(root, episodes=3, seconds=1.0, size=48)
    return root


@pytest.fixture
def raw(whole, tmp_path):
    return shutil.copytree(whole, tmp_path / "raw")


def put(key, place, value):
    """Set one number of a column of the second episode."""

    def change(values):
        values[place] = value
        return values

    return lambda root: edit_column(data_file(root, SECOND), key, change)


def column(key, make):
    """Replace a column of the second episode by an array made from its length; None removes it."""

    def damage(root):
        file = data_file(root, SECOND)
        set_column(file, key, make and make(pq.read_metadata(file).num_rows))

    return damage


def replace(path, content):
    return lambda root: (root / path).write_bytes(content)


def rewrite(path, change):
    return lambda root: edit_json(root / path, change)


def feature(key, **values):
    return rewrite("meta/info.json", lambda info: info["features"].setdefault(key, {}).update(values))


def without(path):
    def damage(root):
        target = root / path
        shutil.rmtree(target) if target.is_dir() else target.unlink()

    return damage


def film_again(change, fps=30):
    def damage(root):
        file = video_file(root, SECOND)
        shown = frames_at(file, inspect_video(file).seconds.tolist(), 1e-4)
        write_hevc(file, change(shown), fps)

    return damage


def half(path_of):
    def damage(root):
        file = path_of(root, SECOND)
        file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])

    return damage


def spoil(path_of, start, stop):
    def damage(root):
        file = path_of(root, SECOND)
        content = bytearray(file.read_bytes())
        content[start:stop] = bytes(255 - byte for byte in content[start:stop])
        file.write_bytes(content)

    return damage


def lists(width):
    return lambda rows: pa.array(np.zeros((rows, width)).tolist(), type=pa.list_(pa.float32()))


def ragged(rows):
    return pa.array([[0.0] * (23 if row else 22) for row in range(rows)], type=pa.list_(pa.float32()))


def annotated(change):
    return lambda root: edit_json(annotation_file(root, SECOND), change)


INFO = "meta/info.json"
EPISODES = "meta/episodes.jsonl"
STATE, ACTION = "observation.state", "action"

DAMAGES = [
    # metadata
    (without(INFO), "info.json: missing"),
    (without("meta"), "info.json: missing"),
    (replace(INFO, b"{"), "not valid JSON"),
    (replace(INFO, b""), "not valid JSON"),
    (replace(INFO, b"\xff\xfe\x00"), "not valid JSON"),
    (replace(INFO, b"[" * 100_000), "not valid JSON"),
    (replace(INFO, b"[]"), "holds no JSON object"),
    (rewrite(INFO, lambda info: info.pop("features")), "has no 'features'"),
    (rewrite(INFO, lambda info: info.update(features=["action"])), "has no 'features'"),
    (rewrite(INFO, lambda info: info.update(codebase_version="v2.0")), "codebase_version is v2.0"),
    (rewrite(INFO, lambda info: info.update(codebase_version="v3.0")), "needs no import"),
    (rewrite(INFO, lambda info: info.update(fps=0)), "fps is 0; it must be a whole number from 1 to 1000"),
    (rewrite(INFO, lambda info: info.update(fps=29.97)), "fps is 29.97"),
    (rewrite(INFO, lambda info: info.update(fps=float("nan"))), "fps is nan"),
    (rewrite(INFO, lambda info: info.update(fps=10**400)), "fps is 1000000"),
    (rewrite(INFO, lambda info: info.update(fps=True)), "fps is True"),
    (rewrite(INFO, lambda info: info.update(fps=float("inf"))), "fps is inf"),
    (rewrite(INFO, lambda info: info.update(fps=15)), "timestamp is 0.0333 s at frame 1, not 0.0667 s"),
    (rewrite(INFO, lambda info: info.update(chunks_size="all")), "chunks_size is 'all'"),
    (feature(STATE, shape=[26]), "'observation.state' has 26 dims, BEHAVIOR's 2025 release 256; other LeRobot"),
    (feature(ACTION, shape="23"), "'action' has None dims"),
    (rewrite(INFO, lambda info: info["features"].pop(ACTION)), "declares no 'action'"),
    (
        rewrite(INFO, lambda info: [f.update(dtype="image") for k, f in info["features"].items() if "rgb" in k]),
        "declares no rgb camera",
    ),
    (without("meta/tasks.jsonl"), "tasks.jsonl: missing"),
    (replace("meta/tasks.jsonl", b""), "lists no tasks"),
    (replace("meta/tasks.jsonl", b'{"task_index": "six"}\n'), "line 1 is damaged"),
    (replace("meta/tasks.jsonl", b'{"task_index": 3, "task_name": "cleaning"}\n'), "the nearest is 3 (cleaning)"),
    (without(EPISODES), "episodes.jsonl: missing"),
    (replace(EPISODES, b'{"episode_index": 60010, "length": 1}\n\n{"epi'), "line 3 is damaged"),
    (replace(EPISODES, b'{"episode_index": 1e999, "length": 1}\n'), "line 1 is damaged"),
    (replace(EPISODES, b'{"episode_index": 60010}\n'), "line 1 is damaged"),
    (replace(EPISODES, b"\xff\n"), "is no text in UTF-8"),
    (replace(EPISODES, b""), "no episode of task 6 (hiding_Easter_eggs) is on disk"),
    # paths that leave the dataset, or that two files would share
    (rewrite(INFO, lambda i: i.update(data_path="../{episode_index}.parquet")), "must stay inside"),
    (rewrite(INFO, lambda i: i.update(data_path="/data/{episode_index}.parquet")), "must stay inside"),
    (rewrite(INFO, lambda i: i.update(data_path="data/{episode_index.real}.parquet")), "has the placeholder"),
    (rewrite(INFO, lambda i: i.update(data_path="data/all.parquet")), "must contain {episode_index}"),
    (rewrite(INFO, lambda i: i.update(data_path=7)), "data_path is 7"),
    (
        rewrite(INFO, lambda i: i.update(data_path="d" * 5000 + "{episode_index}")),
        "cannot be read (File name too long)",
    ),
    (rewrite(INFO, lambda i: i.update(video_path="videos/{episode_index}.mp4")), "must contain {video_key}"),
    (rewrite(INFO, lambda i: i.update(video_path="v/{video_key:04d}/{episode_index}")), "has the placeholder"),
    (rewrite(INFO, lambda i: i.update(video_path="v/{video_key}/{episode_index")), "braces do not match"),
    (rewrite(INFO, lambda i: i.update(annotation_path="a/../../{episode_index}")), "must stay inside"),
    (feature("observation.images.rgb.../../../x", dtype="video", shape=[8, 8, 3]), "is no plain name"),
    (feature("observation.images.rgb./etc", dtype="video", shape=[8, 8, 3]), "is no plain name"),
    # a download that is not whole
    (without("data"), "episode 60010 is incomplete (3 such)"),
    (lambda root: data_file(root, SECOND).unlink(), "episode 60020 is incomplete"),
    (lambda root: video_file(root, SECOND).unlink(), "episode 60020 is incomplete"),
    (half(data_file), "damaged or cut off; download it again, or leave it out: --exclude 60020"),
    (half(video_file), "the video cannot be read"),
    (lambda root: data_file(root, SECOND).write_bytes(b""), "damaged or cut off"),
    (lambda root: video_file(root, SECOND).write_bytes(b""), "the video cannot be read"),
    (lambda root: video_file(root, SECOND).write_bytes(b"\x00" * 5000), "the video cannot be read"),
    (lambda root: shutil.copy(data_file(root), data_file(root, SECOND)), "episode_index is 60010, its name says 60020"),
    (lambda root: shutil.copy(video_file(root, 60030), video_file(root, SECOND)), "pictures, its episode"),
    # numbers
    (put(STATE, (4, 200), np.nan), "'observation.state' dim 200 is nan at frame 4; repair it, or leave it out"),
    (put(ACTION, (slice(3, 5), 2), np.inf), "'action' dim 2 is inf at frame 3 (2 such values)"),
    (put("timestamp", 9, 5.0), "timestamp is 5.0000 s at frame 9, not 0.3000 s as at 30 Hz"),
    (put("timestamp", 9, np.nan), "timestamp is nan s at frame 9"),
    (column(ACTION, None), "has no column 'action'"),
    (column("episode_index", None), "has no column 'episode_index'"),
    (column(ACTION, lists(22)), "'action' has 22 dims at frame 0, not 23"),
    (column(ACTION, ragged), "'action' has 22 dims at frame 0, not 23"),
    (column(ACTION, lambda rows: pa.nulls(rows, pa.list_(pa.float32()))), "empty rows"),
    (column(ACTION, lambda rows: pa.array([["a"] * 23] * rows)), "not lists of numbers"),
    (column(ACTION, lambda rows: pa.array(np.zeros(rows))), "'action' holds double, not lists of numbers"),
    (column("timestamp", lists(1)), "'timestamp' holds list"),
    (column("episode_index", lambda rows: pa.nulls(rows, pa.int64())), "episode_index is nan, its name says 60020"),
    # pictures
    (film_again(lambda shown: shown[:-1]), "pictures, its episode"),
    (film_again(lambda shown: [*shown, shown[0]]), "pictures, its episode"),
    (film_again(lambda shown: shown, fps=25), "not on the 30 Hz grid"),
    (
        film_again(lambda shown: [picture[:32] for picture in shown]),
        "is 32×48 hevc yuv420p, in episode 60010 it is 48×48",
    ),
    (spoil(video_file, 900, 1900), "a picture cannot be decoded"),
    # annotations
    (lambda root: annotation_file(root, SECOND).write_text("{"), "the annotation is not valid JSON"),
    (annotated(lambda a: a.pop("skill_annotation")), "not a BEHAVIOR annotation, it lacks 'skill_annotation'"),
    (annotated(lambda a: a["skill_annotation"][0].update(frame_duration=[1, 2, 3])), "holds no [start, stop] pairs"),
    (annotated(lambda a: a["skill_annotation"][0].update(skill_description=None)), "not a BEHAVIOR annotation"),
]


@pytest.mark.parametrize(("damage", "message"), DAMAGES, ids=range(len(DAMAGES)))
def test_damage_is_one_line_and_nothing_is_written(raw, damage, message, tmp_path, capfd):
    damage(raw)
    before = contents(raw)
    assert main([str(raw), "--out", str(tmp_path / "dataset")]) == 2
    captured = capfd.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("error: ")
    assert captured.err.count("\n") == 1
    assert message in captured.err, captured.err
    assert not (tmp_path / "dataset").exists()
    assert contents(raw) == before


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--task", "60"], "has no task 60; the nearest is 9"),
        (["--task", "9" * 5000], "has no task"),
        (["--task", "hiding_easter_eggs"], "has no task 'hiding_easter_eggs'"),
        (["--episodes", "0"], "--episodes is 0; it must be 1 or more"),
        (["--workers", "-1"], "--workers is -1; it must be 1 or more"),
        (["--exclude", "10"], "--exclude: task 6 has no episode 10; its episodes are 60010 to 62000"),
        (["--keep-depth"], "depth.head/episode_00060010.mp4: missing, so episode 60010 is incomplete (3 such)"),
        (["--exclude", "60010", "60020", "60030"], "no episode of task 6 (hiding_Easter_eggs) is on disk"),
    ],
)
def test_wrong_options_are_one_line(whole, arguments, message, tmp_path, capsys):
    assert main([str(whole), "--out", str(tmp_path / "dataset"), *arguments]) == 2
    complaint = capsys.readouterr().err
    assert message in complaint
    assert complaint.count("\n") == 1
    assert not (tmp_path / "dataset").exists()


@pytest.mark.parametrize("arguments", [["--episodes", "many", "--out", "x"], [], ["--out", "x", "--keep", "all"]])
def test_options_that_argparse_refuses_are_one_line(whole, arguments, capsys):
    with pytest.raises(SystemExit) as ended:
        main([str(whole), *arguments])
    assert ended.value.code == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_a_target_that_cannot_be_written_to(whole, tmp_path, capsys):
    (tmp_path / "file").write_text("mine")
    for target, message in (("file", "is a file"), ("file/dataset", "file/dataset")):
        assert main([str(whole), "--out", str(tmp_path / target)]) == 2
        complaint = capsys.readouterr().err
        assert message in complaint
        assert complaint.count("\n") == 1
    assert (tmp_path / "file").read_text() == "mine"


def test_a_full_disk_keeps_what_was_done(whole, tmp_path, monkeypatch, capsys):
    from smolvla_core.data.behavior import episode

    def full(source, target):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(episode.shutil, "copyfile", full)
    assert main([str(whole), "--out", str(tmp_path / "dataset")]) == 1
    assert capsys.readouterr().err == (
        "error: [Errno 28] No space left on device; run the same command again to continue\n"
    )
    monkeypatch.undo()
    assert main([str(whole), "--out", str(tmp_path / "dataset")]) == 0


def test_ctrl_c_is_one_line(whole, tmp_path, monkeypatch, capsys):
    from smolvla_core.data.behavior import importer

    def stop(*arguments, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr(importer, "import_behavior", stop)
    assert main([str(whole), "--out", str(tmp_path / "dataset")]) == 1
    assert capsys.readouterr().err == "interrupted; run the same command again to continue\n"


def test_templates_and_keys_that_are_fine_pass():
    for template in ("data/task-{episode_chunk:04d}/episode_{episode_index:08d}.parquet", "{episode_index}.x"):
        assert check_template("data_path", template) == template
    assert check_video_key("observation.images.rgb.left_wrist")
    for key in ("", "a/b", "a b", "..", "a..b", "a.", "ä"):
        with pytest.raises(DataError, match="is no plain name"):
            check_video_key(key)


def test_every_damage_names_its_file(raw, tmp_path, capsys):
    """So that a user knows what to download again."""
    data_file(raw, SECOND).write_bytes(b"")
    main([str(raw), "--out", str(tmp_path / "dataset")])
    assert str(data_file(raw, SECOND)) in capsys.readouterr().err
    rows = [json.loads(line) for line in (raw / EPISODES).read_text().splitlines()]
    assert len(rows) == 2000  # the rest of the release is listed, and is no fault
