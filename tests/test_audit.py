"""The audit: a clean dataset gives nothing, and every planted fault is found and named."""

import json
import re
import shutil

import numpy as np
import pyarrow.parquet as pq
import pytest
from rich.console import Console

from smolvla_core.data.audit import audit, main
from smolvla_core.data.audit.finding import percent, runs
from smolvla_core.data.audit.lag import check_lag, comparable_dims
from smolvla_core.data.audit.layout import EpisodeFiles
from smolvla_core.data.audit.motion import check_idle, idle_frames
from smolvla_core.data.audit.numbers import check_constant, check_held, check_outliers, held_frames
from smolvla_core.data.audit.page import histogram
from smolvla_core.data.audit.read import Recording
from smolvla_core.data.audit.videos import is_blank, is_frozen
from smolvla_core.data.behavior import import_behavior
from smolvla_core.data.synthetic import write_synthetic
from smolvla_core.data.video_files import frames_at, inspect_video, write_hevc
from smolvla_core.errors import DataError
from smolvla_core.trial import resolve
from tests.core_fixtures import tiny_trial
from tests.raw_behavior import (
    FIRST,
    SECOND,
    annotation_file,
    contents,
    data_file,
    edit_column,
    edit_info,
    set_column,
    video_file,
)

STATE, ACTION = "observation.state", "action"
CHECKS = {
    "files",
    "episode lengths",
    "time stamps",
    "values",
    "constant dims",
    "held values",
    "outliers",
    "idle frames",
    "action/state lag",
    "cameras",
    "instructions",
    "annotations",
}


@pytest.mark.parametrize("names", [["channels", "height", "width"], {"axes": ["height", "width", "channels"]}])
def test_pictures_may_be_declared_with_their_channels_first(eggs_root, tmp_path, names):
    root = shutil.copytree(eggs_root, tmp_path / "dataset")
    info = json.loads((root / "meta" / "info.json").read_text())
    for feature in (feature for feature in info["features"].values() if feature["dtype"] == "video"):
        height, width, channels = feature["shape"]
        feature["shape"] = [channels, height, width] if isinstance(names, list) else feature["shape"]
        feature["names"] = names
    (root / "meta" / "info.json").write_text(json.dumps(info))
    (cameras,) = audit(root).of("cameras")
    assert cameras.verdict == "ok", cameras.found
    seen = resolve(tiny_trial(root, tmp_path, state__preset="top32", policy__chunk_size=20)).interface.cameras
    assert [(view.height, view.width) for view in seen] == [(48, 48), (32, 32), (32, 32)]


@pytest.fixture(scope="module")
def clean(tmp_path_factory):
    root = tmp_path_factory.mktemp("raw") / "download"
    write_synthetic(root, episodes=4, seconds=2.0, size=48)
    return root


@pytest.fixture(scope="module")
def clean_v3(clean, tmp_path_factory):
    root = tmp_path_factory.mktemp("imported") / "dataset"
    import_behavior(clean, root)
    return root


@pytest.fixture
def raw(clean, tmp_path):
    return shutil.copytree(clean, tmp_path / "raw")


@pytest.fixture
def v3(clean_v3, tmp_path):
    return shutil.copytree(clean_v3, tmp_path / "v3")


def only_fault(report, check):
    """The one finding that is not ok; any other would be a false alarm."""
    (finding,) = [finding for finding in report.findings if finding.verdict != "ok"]
    assert finding.check == check
    return finding


@pytest.mark.parametrize("layout", ["clean", "clean_v3"])
def test_a_clean_dataset_gives_nothing(layout, request, capsys):
    root = request.getfixturevalue(layout)
    before = contents(root)
    report = audit(root)
    assert [finding for finding in report.findings if finding.verdict != "ok" or finding.todo] == []
    assert {finding.check for finding in report.findings} == CHECKS
    assert main([str(root)]) == 0
    page = capsys.readouterr().out.splitlines()
    assert page[-1].startswith("Good")
    assert max(map(len, page)) <= 80
    assert len(page) <= 50
    assert contents(root) == before


def frozen(values):
    return np.repeat(values[:1], len(values), axis=0)


def test_an_idle_episode(raw):
    for key in (STATE, ACTION):
        edit_column(data_file(raw, SECOND), key, frozen)
    finding = only_fault(audit(raw), "idle frames")
    assert finding.verdict == "fail"
    assert finding.found.startswith("episode 60020: nothing moves")


def test_an_outlier(raw):
    def glitch(values):
        values[7, 160] = 40.0
        return values

    edit_column(data_file(raw, SECOND), STATE, glitch)
    finding = only_fault(audit(raw), "outliers")
    assert finding.verdict == "warn"
    assert re.search(
        r"state: 1 frame \(.* %\) beyond .* in dim 160; .* in dim 160, episode 60020, frame 7", finding.found
    )
    assert audit(raw, z=1000).of("outliers")[0].verdict == "ok"


def test_a_constant_action(raw):
    def still(values):
        values[:, 9] = 0.5
        return values

    for number in (60010, 60020, 60030, 60040):
        edit_column(data_file(raw, number), ACTION, still)
    finding = only_fault(audit(raw), "constant dims")
    assert finding.found == "action: 1 of 23 (dim 9)"


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_value_that_is_not_finite(raw, value):
    def poison(values):
        values[5, 3] = value
        return values

    edit_column(data_file(raw, SECOND), ACTION, poison)
    finding = only_fault(audit(raw), "values")
    assert finding.verdict == "fail"
    assert finding.found == ("action: 1 value in 1 episode is not finite; the first is dim 3, episode 60020, frame 5")


def test_numbers_that_were_never_written(raw):
    edit_column(data_file(raw, SECOND), STATE, lambda values: np.full_like(values, 3e38))
    finding = audit(raw).of("values")[0]
    assert (finding.verdict, finding.found) == ("warn", "state: values beyond 1,000,000 in dims 0–255")


def test_no_time_stamps_are_fine_and_some_are_not(raw):
    for number in (60010, 60020, 60030):
        set_column(data_file(raw, number), "timestamp", None)
    with pytest.raises(DataError, match="some files have a column 'timestamp' and some do not"):
        audit(raw)
    set_column(data_file(raw, 60040), "timestamp", None)
    (finding,) = audit(raw).of("time stamps")
    assert (finding.verdict, finding.found) == ("ok", "none stored; frames are taken to be 1/30 s apart")


def later(frames):
    return lambda values: np.concatenate([np.repeat(values[:1], frames, axis=0), values[:-frames]])


def test_actions_that_come_after_their_effect(raw):
    for number in (60010, 60020, 60030, 60040):
        edit_column(data_file(raw, number), ACTION, later(6))
    report = audit(raw)
    (finding,) = report.of("action/state lag")
    assert (report.verdict, finding.verdict) == ("fail", "fail")
    assert finding.found.startswith("the action comes after its effect: -3 frames (-0.10 s")


def test_one_episode_whose_actions_are_shifted(raw):
    edit_column(data_file(raw, 60030), ACTION, later(6))  # its right arm works, as in one other episode
    finding = only_fault(audit(raw), "action/state lag")
    assert finding.found == "episode 60030: the state follows 6 frames (0.20 s) earlier than in the others"


def test_a_gap_in_the_time_stamps(raw):
    edit_column(data_file(raw, SECOND), "timestamp", lambda seconds: seconds + (np.arange(len(seconds)) >= 20) * 0.1)
    finding = only_fault(audit(raw), "time stamps")
    assert finding.verdict == "fail"
    assert re.search(r"the first episode 60020, frame 20; 1 gap$", finding.found)


def test_another_rate_than_declared(raw):
    edit_info(raw, fps=15)
    (finding,) = audit(raw).of("time stamps")
    assert finding.found.endswith("the usual rate is 30.00 Hz")


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda file: file.unlink(), r"rgb.head: 1 of 4 videos are missing, the first episode_00060020.mp4"),
        (
            lambda file: file.write_bytes(file.read_bytes()[:2000]),
            r"rgb.head: 1 of 4 .* 60020: the video cannot be read",
        ),
        (lambda file: file.write_bytes(b""), r"rgb.head: 1 of 4 .* episode 60020: the video cannot be read"),
        (lambda file: refilm(file, lambda shown: shown[:-3]), r"episode 60020: \d+ pictures for \d+ frames"),
        (lambda file: refilm(file, lambda shown: [p[:32] for p in shown]), r"32×48 pixels, info.json says 48×48"),
        (lambda file: refilm(file, lambda shown: shown, fps=25), r"episode 60020: pictures are off the 30 Hz grid"),
        (lambda file: refilm(file, lambda shown: shown[:1] * len(shown)), r"one picture throughout in episode 60020"),
        (lambda file: refilm(file, lambda shown: [p * 0 for p in shown]), r"black or empty pictures in episode 60020"),
    ],
)
def test_damaged_videos(raw, damage, message):
    damage(video_file(raw, SECOND))
    report = audit(raw)
    faults = [finding for finding in report.findings if finding.verdict != "ok"]
    assert {finding.check for finding in faults} == {"cameras"}
    assert re.search(message, faults[0].found), faults[0].found


def refilm(file, change, fps=30):
    shown = frames_at(file, inspect_video(file).seconds.tolist(), 1e-4)
    write_hevc(file, change(shown), fps)


def test_an_episode_of_one_frame_and_a_short_one(raw):
    for number, frames in ((FIRST, 1), (SECOND, 20)):
        table = pq.read_table(data_file(raw, number)).slice(0, frames)
        pq.write_table(table, data_file(raw, number))
        for key in ("head", "left_wrist", "right_wrist"):
            refilm(video_file(raw, number, f"observation.images.rgb.{key}"), lambda shown, n=frames: shown[:n])
    report = audit(raw)
    assert [finding.found for finding in report.of("episode lengths")] == [
        "episode 60010: one frame only",
        "episode 60020: under 1 s",
    ]
    assert report.of("files")[0].found.endswith("episodes 60010, 60020 have another length than listed")
    assert report.of("cameras")[0].verdict == "ok"


def test_an_episode_that_is_there_twice(raw):
    other = np.array(pq.read_table(data_file(raw, FIRST))[ACTION].to_pylist(), dtype=np.float32)
    frames = pq.read_metadata(data_file(raw, SECOND)).num_rows
    shutil.copy(data_file(raw, FIRST), data_file(raw, SECOND))
    edit_column(data_file(raw, SECOND), "episode_index", lambda numbers: numbers + 10)
    assert len(other) != frames  # so that the videos differ in length, which is another fault
    (finding,) = audit(raw).of("episode lengths")
    assert finding.found == "episodes 60010 and 60020 are the same recording"


def test_less_than_the_metadata_promises(v3):
    (v3 / "data/chunk-000/file-003.parquet").unlink()
    finding = audit(v3).of("files")[0]
    assert finding.verdict == "fail"
    assert re.match(r"info.json promises 4 episodes of \d+ frames, the files hold 3 of \d+", finding.found)


def test_missing_instructions_and_damaged_annotations(raw, v3):
    rows = [json.loads(line) for line in (raw / "meta/episodes.jsonl").read_text().splitlines()]
    for row in rows:
        row["tasks"] = [] if row["episode_index"] == SECOND else row["tasks"]
    (raw / "meta/episodes.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert only_fault(audit(raw), "instructions").found == "episode 60020: none"
    (v3 / "annotations/episode_000001.json").write_text("{}")
    assert "not a BEHAVIOR annotation, it lacks 'skill_annotation'" in only_fault(audit(v3), "annotations").found


def test_annotations_are_counted_in_frames(raw):
    frames = 0
    for number in (60010, 60020, 60030, 60040):
        skills = [
            {"skill_description": ["pick up"], "frame_duration": [5, 15]},
            {"skill_description": ["move to"], "frame_duration": [15, 9999]},
        ]
        annotation_file(raw, number).write_text(json.dumps({"skill_annotation": skills}))
        frames += pq.read_metadata(data_file(raw, number)).num_rows
    (finding,) = audit(raw).of("annotations")
    assert finding.found == f"4 of 4 episodes; picks and places cover {4000 / frames:.0f} % of the frames"


def test_annotations_of_some_episodes(raw):
    annotation_file(raw, SECOND).unlink()
    assert only_fault(audit(raw), "annotations").found.endswith("none for episode 60020")


def test_no_camera_and_cameras_that_were_not_downloaded(raw):
    shutil.rmtree(raw / "videos/task-0006/observation.images.rgb.head")
    finding = only_fault(audit(raw), "cameras")
    assert finding.found.startswith("rgb.head: 4 of 4 videos are missing")
    features = json.loads((raw / "meta/info.json").read_text())["features"]
    edit_info(raw, features={key: value for key, value in features.items() if value["dtype"] != "video"})
    assert only_fault(audit(raw), "cameras").found == "no pictures"


def test_exit_codes_and_the_failing_page(raw, capsys):
    video_file(raw, SECOND).unlink()
    assert main([str(raw)]) == 1
    page = capsys.readouterr().out
    assert "fail  cameras           rgb.head: 1 of 4 videos are missing" in page
    assert page.splitlines()[-1] == "FAIL: 1 to repair before training, 0 to look at."


def test_black_flat_and_frozen_pictures():
    rng = np.random.default_rng(0)
    scene = rng.integers(40, 200, (48, 64, 3), dtype=np.uint8)
    assert not is_blank(scene)
    assert is_blank(
        np.repeat(rng.integers(0, 14, (48, 64, 1), dtype=np.uint8), 3, axis=2)
    )  # a covered lens is dark, not even
    assert is_blank(np.full((48, 64, 3), 128, dtype=np.uint8))
    moved = scene.copy()
    moved[8:14, 8:14] = 255  # something small
    noise = (scene + rng.integers(0, 3, scene.shape)).astype(np.uint8)
    assert is_frozen([scene, noise, scene, noise])
    assert not is_frozen([scene, scene, scene, moved])
    assert not is_frozen([scene, scene])  # too few to tell


# The checks on their own, with numbers that can be followed by hand.


def recording(action, state, lengths=None, *, fps=30.0, names=(), robot=None):
    action, state = (np.asarray(rows, dtype=np.float32) for rows in (action, state))
    lengths = np.array(lengths or [len(action)])
    starts = np.cumsum(lengths) - lengths
    files = EpisodeFiles(False, ("task",) * len(lengths), {}, None, {}, {}, (), {})
    return Recording(
        root=None,
        version="v3.0",
        robot_type=robot,
        fps=fps,
        state=state,
        action=action,
        seconds=None,
        clock_step_s=0.0,
        episode=np.repeat(np.arange(len(lengths)), lengths),
        starts=starts,
        lengths=lengths,
        state_names=tuple(names[1]) if names else (),
        action_names=tuple(names[0]) if names else (),
        files=files,
    )


def wander(frames, dims, seed=0):
    steps = np.random.default_rng(seed).normal(size=(frames, dims))
    return np.cumsum(np.cumsum(steps, axis=0) * 0.9 ** np.arange(frames)[:, None] + steps, axis=0)


def test_lag_is_told_for_each_group_of_dims():
    path = wander(400, 4)
    action = np.stack([path[12:, 0], path[12:, 1], path[12:, 2], path[12:, 3]], axis=1)
    state = np.stack([path[10:-2, 0], path[10:-2, 1], path[3:-9, 2], path[3:-9, 3]], axis=1)
    (finding,) = check_lag(recording(action, state))
    assert finding.verdict == "ok"
    assert "2 frames (0.07 s, r 1.00) in dims 0–1; 9 frames (0.30 s, r 1.00) in dims 2–3" in finding.found


def test_lag_pairs_dims_by_name_and_needs_a_pairing():
    path = wander(300, 3)
    names = (("a", "b"), ("c", "b", "a"))
    (finding,) = check_lag(recording(path[4:, :2], path[:-4, [2, 1, 0]], names=names))
    assert "4 frames (0.13 s, r 1.00) in every dim that moves" in finding.found
    (finding,) = check_lag(recording(path[:, :2], path))
    assert finding.found.startswith("not measured")


def test_a_weak_negative_lag_is_no_failure():
    path = wander(400, 1)
    noisy = path[8:] + 3 * np.abs(np.diff(path, axis=0)).mean() * np.random.default_rng(2).normal(size=(392, 1))
    (finding,) = check_lag(recording(path[:-8], noisy))
    assert re.match(r"the action comes after its effect: -\d+ frames \(-0.\d\d s, r 0.[34]\d\)", finding.found)
    assert finding.verdict == "warn"
    (finding,) = check_lag(recording(path[:-8], path[8:]))
    assert finding.verdict == "fail"


def test_lag_is_of_the_episodes_in_which_a_dim_moves():
    path = wander(310, 1)
    resting = 0.01 * path[:200]  # its small motion comes at another lag
    action = np.concatenate([path[9:209], resting, resting])
    state = np.concatenate([path[5:205], resting, resting])
    (finding,) = check_lag(recording(action, state, [200, 200, 200]))
    assert "4 frames (0.13 s, r 1.00)" in finding.found


def test_an_r1pro_s_parts_are_paired_in_both_releases():
    old = comparable_dims(recording(np.zeros((9, 23)), np.zeros((9, 256)), robot="R1Pro"))
    new = comparable_dims(recording(np.zeros((9, 23)), np.zeros((9, 61)), robot="R1Pro"))
    assert [pair.action for pair in old] == [pair.action for pair in new] == [*range(14), *range(15, 22)]
    assert [pair.state for pair in old] == [253, 254, 255, *range(236, 240), *range(158, 165), *range(197, 204)]
    assert [pair.state for pair in new] == [0, 1, 2, *range(53, 57), *range(3, 10), *range(28, 35)]


def test_actions_that_copy_the_state_or_have_nothing_to_do_with_it():
    path = wander(300, 3)
    (finding,) = check_lag(recording(path, path))
    assert (finding.verdict, finding.found) == ("warn", "none in every dim that moves")
    (finding,) = check_lag(recording(path, np.random.default_rng(1).normal(size=path.shape)))
    assert (finding.verdict, finding.found) == ("warn", "the state follows the action at no shift within 0.5 s")
    (finding,) = check_lag(recording(path[14:], path[:-14]))
    assert finding.verdict == "warn"
    assert "14 frames (0.47 s" in finding.found


def test_held_values():
    slow = np.repeat(np.arange(60.0), 4)
    rest = np.concatenate([np.arange(60.0), np.full(120, 60.0), np.arange(60.0, 120.0)])
    both = recording(np.stack([rest, slow], axis=1), rest[:, None])
    assert held_frames(both, both.action[:, 1]) == 4
    assert held_frames(both, both.action[:, 0]) == 1  # a long rest is no slow sensor
    toggles = np.repeat(np.arange(60.0), 30)[:, None]
    assert held_frames(recording(toggles, toggles), toggles[:, 0]) == 0  # once a second is rest, too
    (finding,) = check_held(both)
    assert finding.found == "action: dim 1 changes about every 4 frames while moving (8 Hz, recorded at 30 Hz)"


def test_idle_frames_by_hand():
    still, ramp = np.zeros(30), np.arange(30.0)
    path = np.concatenate([still, ramp, np.full(60, 30.0), 30 + ramp])[:, None]
    idle = idle_frames(recording(path, path))
    # a ramp of 60 moves 2 % within 0.2 s (3 frames to either side) as soon as 2 of its steps are in view
    assert np.flatnonzero(idle).tolist() == [*range(0, 29), *range(62, 119)]
    (finding,) = check_idle(recording(path, path))
    assert finding.verdict == "warn"
    assert (
        finding.found
        == "57.3 % of all: 19.3 % before the first motion, 0 % after the last; the longest pause between is 1.9 s"
    )


def test_a_trembling_arm_is_idle():
    rng = np.random.default_rng(0)
    reach = np.concatenate([np.zeros(100), np.linspace(0, 1, 100)])
    tremble = 0.003 * np.sin(np.arange(200) * 0.05) + 0.00005 * rng.normal(size=200)
    rows = np.stack([reach, reach, tremble], axis=1)
    assert idle_frames(recording(rows, rows))[:95].all()


def test_a_constant_state_of_an_r1pro_matters_where_a_preset_uses_it():
    state = wander(100, 256)
    action = wander(100, 23, seed=1)
    state[:, 0:3] = 0
    (finding,) = check_constant(recording(action, state, robot="R1Pro"))
    assert (finding.verdict, finding.found) == ("ok", "state: 3 of 256 (dims 0–2); the preset top32 uses none of them")
    state[:, 193] = 0
    (finding,) = check_constant(recording(action, state, robot="R1Pro"))
    assert (finding.verdict, finding.found) == ("warn", "state: dim 193")
    (finding,) = check_constant(recording(action, state))
    assert finding.found == "state: 4 of 256 (dims 0–2, 193)"
    (finding, _) = check_constant(recording(action * 0, state))
    assert (finding.verdict, finding.found) == ("fail", "action: all 23 dims")


def test_outliers_are_looked_for_beside_what_is_not_finite():
    rows = np.random.default_rng(0).normal(size=(1000, 2))
    rows[10, 0], rows[20, 1] = np.nan, 100.0
    (finding,) = check_outliers(recording(rows, rows[:, :1]), 8.0)
    assert finding.found.startswith("action: 1 frame (0.1 %) beyond |z| 8 in dim 1; the worst, 30, in dim 1, episode 0")


def test_words_for_numbers():
    assert runs([3, 7, 8, 9]) == "3, 7–9"
    assert runs([0, 2, 4, 6, 8, 10, 12]) == "0, 2, 4, 6, 8 and 2 more"
    assert [percent(1, 3), percent(1, 5000), percent(0, 9)] == ["33.3 %", "0.02 %", "0 %"]
    assert histogram([30, 30], 30) == ["every episode lasts 1.0 s"]
    assert histogram([30, 60, 60], 30)[1:] == [
        "     1.0 –   1.2      1  ####################",
        "     1.2 –   1.3      0",
        "     1.3 –   1.5      0",
        "     1.5 –   1.7      0",
        "     1.7 –   1.8      0",
        "     1.8 –   2.0      2  ########################################",
    ]


def test_a_terminal_gets_colour_and_its_own_width(raw, monkeypatch):
    from smolvla_core.data.audit.page import render

    edit_info(raw, robot_type="R1Pro\x1b[31m")
    console = Console(force_terminal=True, width=60, record=True, color_system="standard")
    with console.capture() as captured:
        render(audit(raw), console)
    shown = captured.get()
    assert "\x1b[32mok\x1b[0m" in shown
    plain = re.sub(r"\x1b\[[0-9;]*m", "", shown)
    assert max(map(len, plain.splitlines())) <= 60
    assert "\x1b[31m" not in shown


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda root: shutil.rmtree(root), "missing; give the folder that holds meta/info.json"),
        (lambda root: (root / "meta/info.json").write_text("{"), "not valid JSON"),
        (lambda root: (root / "meta/info.json").write_bytes(b"\xff\xfe"), "not valid JSON"),
        (lambda root: (root / "meta/info.json").write_text("[" * 100_000), "not valid JSON"),
        (lambda root: (root / "meta/info.json").write_text("[]"), "has no 'features'"),
        (lambda root: edit_info(root, features={"a": 1}), "has no 'features'"),
        (lambda root: edit_info(root, codebase_version="v1.6"), "v2.1 and v3.0 can be read"),
        (lambda root: edit_info(root, features={"action": {"dtype": "float32"}}), "declares no 'observation.state'"),
        (lambda root: edit_info(root, fps=0), "fps is 0"),
        (lambda root: edit_info(root, fps="30"), "fps is '30'"),
        (lambda root: edit_info(root, fps=float("nan")), "fps is nan"),
        (lambda root: edit_info(root, video_path="../{video_key}/{episode_index}.mp4"), "must stay inside"),
        (lambda root: edit_info(root, video_path="/etc/{video_key}/{episode_index}"), "must stay inside"),
        (lambda root: edit_info(root, video_path="{video_key.__class__}/{episode_index}"), "has the placeholder"),
        (lambda root: edit_info(root, video_path="videos/{video_key:04d}/{episode_index}"), "has the placeholder"),
        (lambda root: edit_info(root, video_path="videos/{episode_index}.mp4"), "must contain {video_key}"),
        (lambda root: edit_info(root, video_path="videos/{"), "braces do not match"),
        (lambda root: edit_info(root, chunks_size="many"), "damaged"),
        (lambda root: shutil.rmtree(root / "data"), "holds no parquet file"),
        (lambda root: data_file(root).write_bytes(b"PAR1"), "damaged or cut off"),
        (
            lambda root: pq.write_table(pq.read_table(data_file(root)).drop(["action"]), data_file(root)),
            "no column 'action'",
        ),
        (lambda root: (root / "meta/episodes.jsonl").write_text("{}\n"), "line 1 is damaged"),
    ],
)
def test_what_cannot_be_read_is_one_line(raw, damage, message, capsys):
    damage(raw)
    assert main([str(raw)]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("\n") == 1
    assert captured.err.startswith("error: ")
    assert message in captured.err


def test_damaged_metadata_of_v3(v3, capsys):
    (v3 / "meta/episodes/chunk-000/file-000.parquet").write_bytes(b"x" * 100)
    assert main([str(v3)]) == 2
    assert "damaged or cut off" in capsys.readouterr().err
    shutil.rmtree(v3 / "meta/episodes")
    with pytest.raises(DataError, match="meta/episodes: missing"):
        audit(v3)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--z", "0"], "--z is 0; it must be above 0"),
        (["--z", "nan"], "--z is nan; it must be above 0"),
        (["--videos", "0"], "--videos is 0; it must be 1 or more"),
    ],
)
def test_wrong_options_are_one_line(clean, arguments, message, capsys):
    assert main([str(clean), *arguments]) == 2
    assert capsys.readouterr().err == f"error: {message}\n"


def test_unknown_options_are_one_line(clean, capsys):
    with pytest.raises(SystemExit) as ended:
        main([str(clean), "--videos", "few"])
    assert ended.value.code == 2
    assert capsys.readouterr().err.count("\n") == 1
