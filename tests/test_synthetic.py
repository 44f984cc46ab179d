"""The scripted dataset: exactly the 2025 challenge's layout, and a motion that agrees with itself and its pictures."""

import json
import re

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from smolvla_core.data.behavior.layout import EASTER_EGGS_INSTRUCTION
from smolvla_core.data.synthetic import main, write_synthetic
from smolvla_core.data.synthetic.motion import GRIPPER_OPEN_M, LEAD, perform
from smolvla_core.data.synthetic.pictures import HEAD_VIEW_M, film
from smolvla_core.data.synthetic.scene import draw_scene, to_robot, to_world
from smolvla_core.data.video_files import inspect_video
from smolvla_core.errors import DataError
from smolvla_core.state import RELEASES
from tests.raw_behavior import contents, data_file, video_file

EGG_COLOURS = np.array([[236, 72, 92], [70, 120, 240], [245, 205, 60]])
ARM = {"left": slice(7, 14), "right": slice(15, 22)}
GRIPPER = {"left": 14, "right": 22}


@pytest.fixture(scope="module")
def raw(tmp_path_factory):
    root = tmp_path_factory.mktemp("raw") / "download"
    write_synthetic(root, episodes=2, seconds=2.0, size=48, depth_and_seg=True)
    return root


@pytest.fixture(scope="module")
def info(raw):
    return json.loads((raw / "meta/info.json").read_text())


def lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


# The layout, as the release has it.


def test_info_is_the_release_s_with_its_gaps(info):
    assert info["codebase_version"] == "v2.1"
    assert info["robot_type"] == "R1Pro"
    assert (info["fps"], info["chunks_size"]) == (30, 10_000)
    assert "total_chunks" not in info
    assert info["data_path"] == "data/task-{episode_chunk:04d}/episode_{episode_index:08d}.parquet"
    assert info["video_path"] == "videos/task-{episode_chunk:04d}/{video_key}/episode_{episode_index:08d}.mp4"
    assert info["metainfo_path"] == "meta/episodes/task-{episode_chunk:04d}/episode_{episode_index:08d}.json"
    assert info["annotation_path"] == "annotations/task-{episode_chunk:04d}/episode_{episode_index:08d}.json"


def test_features_are_the_release_s(info):
    features = info["features"]
    videos = [
        f"observation.images.{modality}.{camera}"
        for modality in ("rgb", "depth", "seg_instance_id")
        for camera in ("head", "left_wrist", "right_wrist")
    ]
    assert [key for key, feature in features.items() if feature["dtype"] == "video"] == videos
    shapes = {key: (feature["dtype"], feature["shape"]) for key, feature in features.items() if key not in videos}
    assert shapes == {
        "action": ("float32", [23]),
        "observation.state": ("float32", [256]),
        "observation.cam_rel_poses": ("float32", [21]),
        "observation.task_info": ("float32", [None]),
        "timestamp": ("float64", [1]),
        "episode_index": ("int64", [1]),
        "index": ("int64", [1]),
    }
    head = features["observation.images.rgb.head"]["info"]
    assert (head["video.codec"], head["video.pix_fmt"]) == ("hevc", "yuv420p")


def test_parquet_columns_are_the_release_s(raw):
    schema = pq.read_schema(data_file(raw))
    assert "frame_index" not in schema.names
    kinds = {name: schema.field(name).type for name in schema.names}
    floats = pa.list_(pa.float32())
    assert kinds == {
        "index": pa.int64(),
        "episode_index": pa.int64(),
        "task_index": pa.int64(),
        "timestamp": pa.float64(),
        "observation.state": floats,
        "observation.cam_rel_poses": floats,
        "action": floats,
        "observation.task_info": floats,
    }
    table = pq.read_table(data_file(raw))
    assert set(table["episode_index"].to_pylist()) == {60010}
    assert set(table["task_index"].to_pylist()) == {6}
    assert table["timestamp"].to_pylist()[:2] == [0.0, 1 / 30]


def test_episode_numbers_are_sparse_and_most_episodes_are_not_on_disk(raw):
    rows = lines(raw / "meta/episodes.jsonl")
    assert len(rows) == 2000
    numbers = [row["episode_index"] for row in rows if row["episode_index"] // 10_000 == 6]
    assert numbers == list(range(60010, 62001, 10))
    assert sorted(path.name for path in (raw / "data").iterdir()) == ["task-0006"]
    assert {"tasks", "length", "distance_traveled"} < set(rows[0])
    assert rows[1200]["length"] == pq.read_metadata(data_file(raw)).num_rows


def test_tasks_and_statistics_are_the_release_s(raw):
    tasks = lines(raw / "meta/tasks.jsonl")
    assert [task["task_name"] for task in tasks][:7:6] == ["turning_on_radio", "hiding_Easter_eggs"]
    assert tasks[6] == {"task_index": 6, "task_name": "hiding_Easter_eggs", "task": EASTER_EGGS_INSTRUCTION}
    assert len(EASTER_EGGS_INSTRUCTION.split()) == 48
    stats = lines(raw / "meta/episodes_stats.jsonl")[0]["stats"]
    assert set(stats) == {"action", "observation.state", "observation.cam_rel_poses"}  # none of pictures
    assert set(stats["action"]) == {"min", "max", "mean", "std", "q01", "q99", "count"}


def test_annotations_have_the_release_s_form(raw):
    annotation = json.loads((raw / "annotations/task-0006/episode_00060010.json").read_text())
    frames = pq.read_metadata(data_file(raw)).num_rows
    assert annotation["task_name"] == "hiding_Easter_eggs"
    assert annotation["meta_data"]["task_duration"] == frames
    skills = annotation["skill_annotation"]
    assert [skill["skill_description"] for skill in skills] == [
        ["move to"],
        ["pick up from"],
        ["move to"],
        ["place on next to"],
    ]
    for skill in skills:
        assert {"skill_idx", "skill_id", "object_id", "manipulating_object_id", "frame_duration"} < set(skill)
        assert isinstance(skill["object_id"][0], list)
    spans = [skill["frame_duration"] for skill in skills]
    assert [a[1] for a in spans[:-1]] == [b[0] for b in spans[1:]]
    assert 0 <= spans[0][0] < spans[-1][1] <= frames
    assert annotation["primitive_annotation"]


def test_videos_are_hevc_with_a_picture_for_every_frame(raw, info):
    for key, feature in info["features"].items():
        if feature["dtype"] == "video":
            facts = inspect_video(video_file(raw, key=key))
            assert facts.codec == "hevc"
            assert facts.pix_fmt == feature["info"]["video.pix_fmt"]
            assert [facts.height, facts.width, 3] == feature["shape"]
            assert facts.frames == pq.read_metadata(data_file(raw)).num_rows
            np.testing.assert_allclose(np.diff(facts.seconds), 1 / 30, atol=1e-6)


def test_the_same_arguments_give_the_same_bytes_and_another_seed_others(tmp_path):
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        write_synthetic(tmp_path / name, episodes=1, seconds=1.0, size=32, seed=seed)
    assert contents(tmp_path / "a") == contents(tmp_path / "b")
    assert contents(tmp_path / "a") != contents(tmp_path / "c")


def test_the_first_episodes_do_not_depend_on_how_many_follow(raw, tmp_path):
    write_synthetic(tmp_path / "one", episodes=1, seconds=2.0, size=48)
    assert (tmp_path / "one").joinpath("data/task-0006/episode_00060010.parquet").read_bytes() == (
        data_file(raw).read_bytes()
    )


# The motion.


@pytest.fixture(scope="module", params=range(3))
def acted(request):
    rng = np.random.default_rng(request.param)
    scene = draw_scene(rng, eggs=2)
    return scene, perform(scene, 120, rng)


def named(motion, key):
    dims = RELEASES["2025"][key]
    return motion.state[:, dims.start : dims.stop].astype(np.float64)


def test_the_state_s_parts_agree_with_each_other(acted):
    _, motion = acted
    qpos, qvel = named(motion, "joint_qpos"), named(motion, "joint_qvel")
    for arm, side in enumerate(("left", "right")):
        np.testing.assert_array_equal(named(motion, f"arm_{side}_qpos"), qpos[:, 10 + arm : 24 : 2])
        np.testing.assert_array_equal(named(motion, f"arm_{side}_qvel"), qvel[:, 10 + arm : 24 : 2])
        gripper = slice(24 + 2 * arm, 26 + 2 * arm)
        np.testing.assert_array_equal(named(motion, f"gripper_{side}_qpos"), qpos[:, gripper])
        np.testing.assert_allclose(named(motion, f"eef_{side}_pos"), motion.hands[:, arm], atol=1e-6)
        np.testing.assert_allclose(np.linalg.norm(named(motion, f"eef_{side}_quat"), axis=1), 1, atol=1e-6)
    np.testing.assert_array_equal(named(motion, "trunk_qpos"), qpos[:, 6:10])
    np.testing.assert_array_equal(named(motion, "base_qpos"), qpos[:, [0, 1, 5]])
    for key in ("joint_qpos", "arm_left_qpos", "arm_right_qpos", "base_qpos"):
        np.testing.assert_allclose(named(motion, f"{key}_sin"), np.sin(named(motion, key)), atol=1e-6)
        np.testing.assert_allclose(named(motion, f"{key}_cos"), np.cos(named(motion, key)), atol=1e-6)
    np.testing.assert_allclose(qvel, np.gradient(qpos, axis=0) * 30, atol=2e-3)


def test_the_action_leads_the_state(acted):
    _, motion = acted
    for side in ("left", "right"):
        ahead = motion.action[:-LEAD, ARM[side]]
        state = named(motion, f"arm_{side}_qpos")
        assert np.abs(ahead - state[LEAD:]).max() < 5e-3  # the sensors' noise
        moving = np.abs(np.diff(state, axis=0)).max() > 0.02
        assert not moving or np.abs(ahead - state[:-LEAD]).max() > 0.02
    np.testing.assert_allclose(motion.action[:-LEAD, 0:3], named(motion, "base_qvel")[LEAD:], atol=1e-6)


def test_base_velocity_takes_the_robot_where_it_goes(acted):
    _, motion = acted
    velocity, pose = named(motion, "base_qvel"), motion.base
    for t in range(len(pose) - 1):
        step = to_world(velocity[t, :2] / 30, pose[t]) - pose[t, :2]
        np.testing.assert_allclose(pose[t, :2] + step, pose[t + 1, :2], atol=1e-6)
        assert pose[t, 2] + velocity[t, 2] / 30 == pytest.approx(pose[t + 1, 2], abs=1e-6)


def test_actions_keep_r1pro_s_limits(acted):
    _, motion = acted
    assert np.all(np.abs(motion.action[:, 0:3]) <= [0.75, 0.75, 1.0])
    left_low = [-4.4506, -0.1745, -2.3562, -2.0944, -2.3562, -1.0472, -1.5708]
    left_high = [1.3090, 3.1416, 2.3562, 0.3491, 2.3562, 1.0472, 1.5708]
    assert np.all((motion.action[:, 7:14] >= left_low) & (motion.action[:, 7:14] <= left_high))
    right_low, right_high = [left_low[0], -3.1416, *left_low[2:]], [left_high[0], 0.1745, *left_high[2:]]
    assert np.all((motion.action[:, 15:22] >= right_low) & (motion.action[:, 15:22] <= right_high))
    trunk_low, trunk_high = [-1.1345, -2.7925, -1.8326, -3.0543], [1.8326, 2.5307, 1.5708, 3.0543]
    assert np.all((motion.action[:, 3:7] >= trunk_low) & (motion.action[:, 3:7] <= trunk_high))
    assert np.all(np.abs(motion.action[:, [14, 22]]) <= 1)


def test_eggs_are_picked_carried_and_placed_as_annotated(acted):
    scene, motion = acted
    side = ("left", "right")[scene.side]
    picks = [skill for skill in motion.skills if skill.description == "pick up from"]
    places = [skill for skill in motion.skills if skill.description == "place on next to"]
    assert len(picks) == len(places) == len(scene.eggs)
    opening = named(motion, f"gripper_{side}_qpos")[:, 0]
    effort = named(motion, "joint_qeffort")[:, 24 + 2 * scene.side]
    hand = np.array([to_world(h[:2], base) for h, base in zip(motion.hands[:, scene.side], motion.base, strict=True)])
    reach = np.linalg.norm(np.diff(np.column_stack([hand, motion.hands[:, scene.side, 2]]), axis=0), axis=1)
    for egg, (pick, place) in enumerate(zip(picks, places, strict=True)):
        path = motion.eggs[:, egg, :2]
        np.testing.assert_allclose(path[: pick.start], np.tile(scene.eggs[egg], (pick.start, 1)))
        np.testing.assert_allclose(path[place.stop :], np.tile(scene.drops[egg], (len(path) - place.stop, 1)))
        steps = np.linalg.norm(np.diff(motion.eggs[:, egg], axis=0), axis=1)
        assert np.all(steps <= reach + 1e-3)  # an egg moves with the hand, and never jumps
        assert opening[pick.start] == pytest.approx(GRIPPER_OPEN_M, abs=1e-3)
        assert opening[pick.stop : place.start].max() < 0.6 * GRIPPER_OPEN_M  # closed on the egg while carried
        assert effort[pick.stop : place.start].max() < 0  # and feels it
        assert opening[min(place.stop, len(opening) - 1)] > 0.9 * GRIPPER_OPEN_M  # open again after the place
        command = motion.action[:, GRIPPER[side]]
        assert command[(pick.stop + place.start) // 2] == pytest.approx(-1)
        carried = slice(pick.stop, place.start)
        np.testing.assert_allclose(path[carried], hand[carried], atol=1e-9)
    assert np.all(np.linalg.norm(scene.eggs - scene.basket, axis=1) < 0.1)
    assert np.all(np.linalg.norm(scene.drops - scene.tree, axis=1) < 0.2)


# The pictures.


def colours_of(picture):
    """(H, W) number of the egg whose colour a pixel has, else -1."""
    distance = np.abs(picture[:, :, None].astype(int) - EGG_COLOURS).max(axis=3)
    return np.where(distance.min(axis=2) < 40, distance.argmin(axis=2), -1)


def test_the_head_sees_every_egg_where_it_is(acted):
    scene, motion = acted
    size = 96
    pictures = list(film(scene, motion, "head", "rgb", size, seed=0))
    assert len(pictures) == len(motion.state)
    for egg in range(len(scene.eggs)):
        for t in (0, len(pictures) - 1):  # at rest, no hand above it
            x, y = to_robot(motion.eggs[t, egg, :2], motion.base[t])
            row, column = (size / 2 - (x - 0.62) * size / HEAD_VIEW_M, size / 2 - y * size / HEAD_VIEW_M)
            seen = np.argwhere(colours_of(pictures[t]) == egg)
            assert len(seen) > 5
            assert np.abs(seen.mean(axis=0) + 0.5 - [row, column]).max() < 2


def test_the_working_hand_sees_the_egg_that_it_holds(acted):
    scene, motion = acted
    pick = next(skill for skill in motion.skills if skill.description == "pick up from")
    held = round(pick.start + 0.9 * (pick.stop - pick.start))
    cameras = ("left_wrist", "right_wrist")
    working, resting = cameras[scene.side], cameras[1 - scene.side]
    shown = list(film(scene, motion, working, "rgb", 64, seed=0))[held]
    assert (colours_of(shown)[24:40, 24:40] == 0).sum() > 20  # in the middle, under the hand
    idle = list(film(scene, motion, resting, "rgb", 64, seed=0))[held]
    assert (colours_of(idle)[24:40, 24:40] == 0).sum() == 0


def test_depth_and_segmentation_show_the_same_scene(acted):
    scene, motion = acted
    depth = next(film(scene, motion, "head", "depth", 96, seed=0))
    seg = next(film(scene, motion, "head", "seg_instance_id", 96, seed=0))
    rgb = next(film(scene, motion, "head", "rgb", 96, seed=0))
    eggs = colours_of(rgb) == 0
    assert np.median(seg[eggs][:, 0]) == 90
    assert depth[eggs].mean() < depth[:8].mean()  # nearer to the camera than the lawn


# The program.


def test_command_line(tmp_path, capsys):
    arguments = [str(tmp_path / "out"), "--episodes", "1", "--seconds", "1", "--size", "32"]
    assert main(arguments) == 0
    assert capsys.readouterr().out == f"{tmp_path / 'out'}: 1 episode of task 6 (hiding_Easter_eggs)\n"
    assert main(arguments) == 2
    assert re.search(r"^error: .*out: exists and is not an empty folder; .*\n$", capsys.readouterr().err)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"episodes": 0}, "--episodes is 0; it must be 1 to 999"),
        ({"seconds": 0.5}, "--seconds is 0.5; it must be 1 to 600"),
        ({"seconds": float("nan")}, "--seconds is nan"),
        ({"size": 16}, "--size is 16; it must be 32 to 1080"),
        ({"seed": -1}, "--seed is -1"),
        ({"task": 10}, "--task is 10; it must be 0 to 9"),
    ],
)
def test_wrong_arguments_are_refused_and_leave_nothing(tmp_path, values, message):
    with pytest.raises(DataError, match=message):
        write_synthetic(tmp_path / "out", **values)
    assert list(tmp_path.iterdir()) == []


def test_an_interrupted_writer_leaves_nothing(tmp_path, monkeypatch):
    from smolvla_core.data.synthetic import writer

    def stop(*arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr(writer, "write_hevc", stop)
    assert writer.main([str(tmp_path / "out"), "--episodes", "1"]) == 1
    assert list(tmp_path.iterdir()) == []


def test_odd_sizes_and_other_tasks(tmp_path):
    write_synthetic(tmp_path / "out", episodes=1, seconds=1.0, size=33, task=0)
    root = tmp_path / "out"
    facts = inspect_video(video_file(root, 10))
    assert (facts.height, facts.width) == (32, 32)
    assert (root / "data/task-0000/episode_00000010.parquet").is_file()
