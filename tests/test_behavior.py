"""Import of BEHAVIOR's raw layout: what comes out is what went in, and interruptions cost nothing."""

import json
import re
import shutil
import subprocess
import sys
from fractions import Fraction

import av
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from smolvla_core.data.annotations import load_annotations, read_annotation
from smolvla_core.data.behavior import import_behavior, main
from smolvla_core.data.behavior.source import Keep
from smolvla_core.data.synthetic import write_synthetic
from smolvla_core.data.video_files import frames_at, inspect_video
from smolvla_core.errors import DataError
from tests.raw_behavior import (
    FIRST,
    HEAD,
    SECOND,
    annotation_file,
    contents,
    data_file,
    edit_column,
    set_column,
    video_file,
)

EPISODES = 4
NUMBERS = [60010, 60020, 60030, 60040]
RGB = [f"observation.images.rgb.{camera}" for camera in ("head", "left_wrist", "right_wrist")]


@pytest.fixture(scope="module")
def raw(tmp_path_factory):
    root = tmp_path_factory.mktemp("raw") / "download"
    write_synthetic(root, episodes=EPISODES, seconds=1.0, size=48, depth_and_seg=True)
    return root


@pytest.fixture(scope="module")
def imported(raw, tmp_path_factory):
    target = tmp_path_factory.mktemp("imported") / "dataset"
    import_behavior(raw, target)
    return target


@pytest.fixture
def copy(raw, tmp_path):
    return shutil.copytree(raw, tmp_path / "copy")


def column(path, key):
    return np.array(pq.read_table(path)[key].to_pylist())


def test_the_source_is_only_read(raw, tmp_path):
    def state():
        stamps = {path: path.stat().st_mtime_ns for path in raw.rglob("*")}
        return contents(raw), stamps

    before = state()
    import_behavior(raw, tmp_path / "dataset")
    assert state() == before


def test_state_and_action_keep_their_bits_and_videos_their_bytes(raw, imported):
    row = 0
    for episode, number in enumerate(NUMBERS):
        new = imported / f"data/chunk-000/file-{episode:03d}.parquet"
        for key in ("observation.state", "action"):
            np.testing.assert_array_equal(column(new, key), column(data_file(raw, number), key))
        frames = len(column(new, "index"))
        assert column(new, "index").tolist() == list(range(row, row + frames))
        assert column(new, "frame_index").tolist() == list(range(frames))
        assert set(column(new, "episode_index")) == {episode}
        assert set(column(new, "task_index")) == {0}
        np.testing.assert_allclose(column(new, "timestamp"), np.arange(frames) / 30, atol=1e-6)
        row += frames
        for key in RGB:
            copied = imported / f"videos/{key}/chunk-000/file-{episode:03d}.mp4"
            assert copied.read_bytes() == video_file(raw, number, key).read_bytes()


def test_stock_lerobot_gives_the_same_state_action_and_pictures(raw, imported):
    from lerobot.datasets import LeRobotDataset

    dataset = LeRobotDataset("local/eggs", root=imported, delta_timestamps={"action": [0, 1 / 30, 2 / 30]})
    assert dataset.meta.robot_type == "R1Pro"
    assert dataset.meta.fps == 30
    assert dataset.num_episodes == EPISODES
    lengths = [len(column(data_file(raw, number), "index")) for number in NUMBERS]
    for episode, frame in ((0, 0), (1, 7), (3, lengths[3] - 2)):
        item = dataset[sum(lengths[:episode]) + frame]
        number = NUMBERS[episode]
        actions = column(data_file(raw, number), "action")
        np.testing.assert_array_equal(
            item["observation.state"], column(data_file(raw, number), "observation.state")[frame]
        )
        np.testing.assert_array_equal(item["action"], actions[np.minimum(frame + np.arange(3), lengths[episode] - 1)])
        assert item["action_is_pad"].tolist() == [frame + i >= lengths[episode] for i in range(3)]
        assert item["task"].startswith("Take the three Easter eggs")
        for key in RGB:
            path = video_file(raw, number, key)
            (picture,) = frames_at(path, [inspect_video(path).seconds[frame]], 1e-4)
            shown = item[key].permute(1, 2, 0).numpy() * 255
            assert np.abs(shown - picture).max() <= 1, f"{key} of episode {number}, frame {frame}"


def test_statistics_are_those_of_all_frames(raw, imported):
    stats = json.loads((imported / "meta/stats.json").read_text())
    for key in ("observation.state", "action"):
        rows = np.concatenate([column(data_file(raw, number), key) for number in NUMBERS]).astype(np.float64)
        np.testing.assert_allclose(stats[key]["mean"], rows.mean(0), atol=1e-9)
        np.testing.assert_allclose(stats[key]["std"], rows.std(0), atol=1e-6)
        np.testing.assert_array_equal(stats[key]["min"], rows.min(0))
        np.testing.assert_array_equal(stats[key]["max"], rows.max(0))
        assert stats[key]["count"] == [len(rows)]
    green = np.array(stats[HEAD]["mean"]).ravel()
    assert green[1] > green[0] > green[2] > 0.1  # a lawn


def test_original_numbers_and_annotations_are_kept(raw, imported):
    rows = [json.loads(line) for line in (imported / "meta/behavior_episodes.jsonl").read_text().splitlines()]
    assert [row["source_episode"] for row in rows] == NUMBERS
    assert [row["episode_index"] for row in rows] == list(range(EPISODES))
    annotations = load_annotations(imported)
    for episode, number in enumerate(NUMBERS):
        assert (imported / rows[episode]["annotation"]).read_bytes() == annotation_file(raw, number).read_bytes()
        assert annotations[episode] == read_annotation(annotation_file(raw, number), rows[episode]["length"])


def test_only_rgb_state_and_action_are_taken_unless_asked(raw, imported, tmp_path):
    features = json.loads((imported / "meta/info.json").read_text())["features"]
    assert [key for key in features if key.startswith("observation")] == [*RGB, "observation.state"]
    assert sorted(path.name for path in (imported / "videos").iterdir()) == sorted(RGB)
    import_behavior(raw, tmp_path / "all", keep=Keep(depth=True, seg=True, privileged=True))
    kept = json.loads((tmp_path / "all/meta/info.json").read_text())["features"]
    assert {"observation.cam_rel_poses", "observation.task_info"} < set(kept)
    assert kept["observation.task_info"]["shape"] == [7]  # null in the release: one egg, basket, tree
    videos = [key for key, feature in kept.items() if feature["dtype"] == "video"]
    assert len(videos) == 9
    assert [key for key in videos if kept[key]["info"]["is_depth_map"]] == [k for k in videos if ".depth." in k]


def test_another_task_is_found_by_its_name(tmp_path):
    write_synthetic(tmp_path / "raw", episodes=1, seconds=1.0, size=48, task=4)
    summary = import_behavior(tmp_path / "raw", tmp_path / "dataset", task="can_meat")
    assert (summary.task_name, summary.episodes) == ("can_meat", 1)
    assert pd.read_parquet(tmp_path / "dataset/meta/tasks.parquet").index.tolist() == ["Can meat."]
    with pytest.raises(DataError, match="no episode of task 6 .* is on disk; .*task-0004"):
        import_behavior(tmp_path / "raw", tmp_path / "other")


def test_length_and_columns_come_from_the_files_themselves(raw, copy, tmp_path):
    rows = [json.loads(line) for line in (copy / "meta/episodes.jsonl").read_text().splitlines()]
    for row in rows:
        row["length"] += row["episode_index"] == FIRST
    (copy / "meta/episodes.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    for file in copy.glob("meta/episodes_stats.jsonl"):
        file.unlink()
    edit_column(data_file(copy, SECOND), "timestamp", lambda seconds: seconds + 2e-4)
    fixed = pa.array(column(data_file(copy, SECOND), "action").tolist(), type=pa.list_(pa.float64(), 23))
    set_column(data_file(copy, SECOND), "action", fixed)
    set_column(data_file(copy, SECOND), "task_index", None)
    summary = import_behavior(copy, tmp_path / "dataset")
    assert (summary.episodes, summary.length_differs) == (EPISODES, 1)
    new = tmp_path / "dataset/data/chunk-000/file-001.parquet"
    np.testing.assert_array_equal(column(new, "action"), column(data_file(raw, SECOND), "action"))


def test_videos_that_begin_late_are_found_at_their_own_time(copy, tmp_path):
    """Some recorders' first picture does not stand at 0 s."""
    path = video_file(copy, SECOND)
    shown = frames_at(path, inspect_video(path).seconds.tolist(), 1e-4)
    small = "log-level=none:rc-lookahead=0:bframes=0:scenecut=0:pools=none:frame-threads=1"  # as video_files has it
    with av.open(str(path), "w") as output:
        stream = output.add_stream("libx265", rate=30, options={"x265-params": small})
        stream.height, stream.width, stream.pix_fmt = 48, 48, "yuv420p"
        for t, picture in enumerate(shown):
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            frame.pts, frame.time_base = t + 15, Fraction(1, 30)
            output.mux(stream.encode(frame))
        output.mux(stream.encode())
    assert inspect_video(path).seconds[0] == pytest.approx(0.5)
    import_behavior(copy, tmp_path / "dataset")
    rows = pd.read_parquet(tmp_path / "dataset/meta/episodes/chunk-000/file-000.parquet")
    assert rows[f"videos/{HEAD}/from_timestamp"].tolist()[:2] == pytest.approx([0, 0.5])
    lengths = rows["length"].to_numpy()
    assert rows[f"videos/{HEAD}/to_timestamp"].tolist()[:2] == pytest.approx([lengths[0] / 30, 0.5 + lengths[1] / 30])


def test_a_damaged_episode_is_named_and_can_be_left_out(copy, tmp_path):
    for number in (60020, 60040):
        data_file(copy, number).write_bytes(b"nothing")
    with pytest.raises(DataError, match=r"leave the 2 damaged episodes out: --exclude 60020 60040$"):
        import_behavior(copy, tmp_path / "dataset")
    assert not (tmp_path / "dataset").exists()
    summary = import_behavior(copy, tmp_path / "dataset", exclude=[60020, 60040])
    assert (summary.episodes, load_annotations(tmp_path / "dataset").keys()) == (2, {0, 1})


def test_incomplete_episodes_are_refused_or_skipped(copy, tmp_path):
    video_file(copy, SECOND).unlink()
    with pytest.raises(DataError, match=r"episode 60020 is incomplete \(1 such\).*--skip-incomplete"):
        import_behavior(copy, tmp_path / "dataset")
    annotation_file(copy, FIRST).unlink()
    shutil.copy(data_file(copy, FIRST), data_file(copy, 69990))
    summary = import_behavior(copy, tmp_path / "dataset", skip_incomplete=True)
    assert summary.episodes == 3
    assert summary.skipped[0].startswith("episode 60020: ")
    assert summary.not_on_disk == 200 - EPISODES
    assert summary.without_annotation == 1
    assert [path.name for path in summary.unlisted] == ["episode_00069990.parquet"]


class StoppedError(Exception):
    """Stands for whatever ends a process."""


def stop_at(stage, episode):
    def on_episode(now, done, total):
        if (now, done) == (stage, episode):
            raise StoppedError

    return on_episode


@pytest.mark.parametrize(("stage", "episode", "kept"), [("checking", 2, 0), ("copying", 2, 2), ("copying", 4, 4)])
def test_an_interrupted_import_continues_to_the_same_bytes(raw, imported, tmp_path, stage, episode, kept):
    target = tmp_path / "dataset"
    with pytest.raises(StoppedError):
        import_behavior(raw, target, on_episode=stop_at(stage, episode))
    assert not (target / "meta/info.json").exists()
    if kept < EPISODES and target.exists():
        half = target / f"videos/{HEAD}/chunk-000/file-{kept:03d}.mp4"
        half.write_bytes(b"half a video")
    assert import_behavior(raw, target).already_done == kept
    assert contents(target) == contents(imported)


def test_a_killed_import_continues_to_the_same_bytes(raw, imported, tmp_path):
    target = tmp_path / "dataset"
    program = (
        "import os, signal, sys\n"
        "from smolvla_core.data.behavior import import_behavior\n"
        "def kill(stage, done, total):\n"
        "    if (stage, done) == ('copying', 1): os.kill(os.getpid(), signal.SIGKILL)\n"
        "import_behavior(sys.argv[1], sys.argv[2], on_episode=kill)\n"
    )
    ended = subprocess.run([sys.executable, "-c", program, raw, target], capture_output=True, timeout=60)
    assert ended.returncode == -9, ended.stderr
    assert import_behavior(raw, target).already_done == 1
    assert contents(target) == contents(imported)


def test_a_finished_import_is_left_alone(raw, tmp_path):
    target = tmp_path / "dataset"
    first = import_behavior(raw, target)
    stamps = {path: path.stat().st_mtime_ns for path in target.rglob("*")}
    again = import_behavior(raw, target)
    assert again.already_done == EPISODES
    assert (again.frames, again.episodes) == (first.frames, first.episodes)
    assert {path: path.stat().st_mtime_ns for path in target.rglob("*")} == stamps


def test_several_workers_give_the_same_bytes(raw, imported, tmp_path):
    import_behavior(raw, tmp_path / "dataset", workers=2)
    assert contents(tmp_path / "dataset") == contents(imported)


def test_two_imports_at_once_do_not_meet(raw, imported, tmp_path):
    target, refused = tmp_path / "dataset", []

    def second(stage, done, total):
        if stage == "copying" and done in (1, 3):
            with pytest.raises(DataError, match="another import is writing"):
                import_behavior(raw, target)
            refused.append(done)

    import_behavior(raw, target, on_episode=second)
    assert refused == [1, 3]
    assert contents(target) == contents(imported)


def test_an_import_that_ended_meanwhile_is_left_alone(raw, tmp_path):
    target, stamps = tmp_path / "dataset", {}

    def other(stage, done, total):
        if (stage, done) == ("checking", 2) and not stamps:
            import_behavior(raw, target)
            stamps.update({path: path.stat().st_mtime_ns for path in target.rglob("*") if path.is_file()})

    assert import_behavior(raw, target, on_episode=other).already_done == EPISODES
    assert {path: path.stat().st_mtime_ns for path in target.rglob("*") if path.is_file()} == stamps


def test_another_command_does_not_continue_an_import(raw, tmp_path):
    target = tmp_path / "dataset"
    with pytest.raises(StoppedError):
        import_behavior(raw, target, on_episode=stop_at("copying", 1))
    before = contents(target)
    with pytest.raises(DataError, match="was begun with other episodes and bytes"):
        import_behavior(raw, target, episodes=2)
    assert contents(target) == before


def test_a_folder_with_something_else_in_it_is_left_alone(raw, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/notes.txt").write_text("keep")
    with pytest.raises(DataError, match="is not empty and no import was begun there"):
        import_behavior(raw, tmp_path / "mine")
    assert [path.name for path in (tmp_path / "mine").rglob("*")] == ["notes.txt"]


def test_the_source_and_its_folders_are_no_target(raw):
    before = contents(raw)
    for target in (raw, raw / "new", raw.parent):
        with pytest.raises(DataError, match="the source is never written to"):
            import_behavior(raw, target)
    assert contents(raw) == before


def test_command_line_says_what_it_did(raw, tmp_path, capsys):
    arguments = [str(raw), "--task", "6", "--out", str(tmp_path / "dataset"), "--episodes", "2"]
    assert main(arguments) == 0
    lines = capsys.readouterr().out.splitlines()
    assert re.fullmatch(r".*/dataset: 2 episodes, \d+ frames of hiding_Easter_eggs", lines[0])
    assert lines[1] == "  listed, but not on disk: 196 episodes"
    assert main(arguments) == 0
    assert "  there already: 2 episodes; imported now: 0" in capsys.readouterr().out
    assert main([str(raw), "--task", "hiding_Easter_egg", "--out", str(tmp_path / "other")]) == 2
    complaint = capsys.readouterr().err
    assert complaint.startswith("error: --task: ")
    assert "hiding_Easter_eggs" in complaint
    assert complaint.count("\n") == 1
