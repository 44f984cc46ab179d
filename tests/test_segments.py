"""Segments of gripper motion, on openings drawn by hand."""

import numpy as np
import pytest

from smolvla_core.config import SegmentConfig
from smolvla_core.errors import ConfigError
from smolvla_core.segments import dilate, episode_segments, gripper_openings, main, merge_gaps, moving
from smolvla_core.trial import prepare
from tests.core_fixtures import tiny_trial


def mask(text):
    return np.array([letter == "x" for letter in text])


def test_moving_reaches_both_ways():
    opening = np.array([0, 0, 0, 0, 1, 1, 1, 1, 1], dtype=np.float32)
    assert moving(opening, 2, 0.5).tolist() == mask("..xxxx...").tolist()


def test_gaps_are_merged_up_to_a_length():
    assert merge_gaps(mask("x..x...x"), 2).tolist() == mask("xxxx...x").tolist()
    assert merge_gaps(mask("....."), 2).tolist() == mask(".....").tolist()


def test_dilation():
    assert dilate(mask("...x....."), 2).tolist() == mask(".xxxxx...").tolist()
    assert dilate(mask("x..."), 1).tolist() == mask("xx..").tolist()
    assert dilate(mask(".x."), 0).tolist() == mask(".x.").tolist()


def test_an_episode_with_one_grasp():
    openings = np.zeros((60, 2), dtype=np.float32)
    openings[:30, 1] = 0.1
    config = SegmentConfig(threshold_m=0.05, window_s=0.4, merge_s=0, dilate_s=0.3)
    found = episode_segments(openings, config, fps=10)
    # the change lies between frames 29 and 30, is seen 2 frames either way and dilated by 3
    assert np.flatnonzero(found).tolist() == list(range(25, 35))


def test_two_grasps_are_one_segment_where_the_gap_is_short():
    openings = np.full((60, 1), 0.1, dtype=np.float32)
    openings[20:31] = 0.0  # closes between frames 19 and 20, opens between 30 and 31
    apart = SegmentConfig(threshold_m=0.05, window_s=0.2, merge_s=0.8, dilate_s=0.2)
    # each change is seen 1 frame either way, 9 frames lie between; both are dilated by 2
    assert np.flatnonzero(episode_segments(openings, apart, fps=10)).tolist() == [*range(17, 23), *range(28, 34)]
    merged = apart.model_copy(update={"merge_s": 0.9})
    assert np.flatnonzero(episode_segments(openings, merged, fps=10)).tolist() == list(range(17, 34))
    # the threshold is a distance: what moves by exactly as much does not count
    higher = apart.model_copy(update={"threshold_m": 0.1})
    assert not episode_segments(openings, higher, fps=10).any()


def test_an_opening_is_the_sum_of_a_grippers_joints(eggs_root, cache_dir):
    config = tiny_trial(eggs_root, cache_dir, state__preset="top32", eval__horizon_s=0.3)
    dataset = prepare(config).dataset
    openings = gripper_openings(config, dataset)
    for gripper, first in enumerate((193, 232)):
        np.testing.assert_array_equal(openings[:, gripper], dataset.state[:, first] + dataset.state[:, first + 1])
    assert openings.max() == pytest.approx(0.1, abs=0.01)


def test_threshold_beyond_any_motion_is_refused(eggs_root, cache_dir):
    values = {"state__preset": "top32", "eval__horizon_s": 0.3, "weighting__scheme": "segment"}
    with pytest.raises(ConfigError, match=r"no gripper moves that much.*lower it"):
        prepare(tiny_trial(eggs_root, cache_dir, weighting__segment__threshold_m=5.0, **values))


def test_found_once_and_stored(eggs_root, tmp_path):
    values = {"state__preset": "top32", "eval__horizon_s": 0.3, "weighting__scheme": "segment"}
    prepare(tiny_trial(eggs_root, tmp_path, **values))
    (stored,) = (tmp_path / "segments").iterdir()
    before = stored.stat().st_mtime_ns
    prepare(tiny_trial(eggs_root, tmp_path, **values))
    assert stored.stat().st_mtime_ns == before


def test_the_page_to_look_at(eggs_root, cache_dir, tmp_path, capsys):
    file = tmp_path / "trial.yaml"
    file.write_text(tiny_trial(eggs_root, cache_dir, state__preset="top32").to_yaml())
    assert main([str(file), "--out", str(tmp_path / "segments.html"), "--episodes", "2"]) == 0
    page = (tmp_path / "segments.html").read_text()
    assert "episode 1" in page
    assert main([str(tmp_path / "none.yaml")]) == 2
    assert main([str(file), "--dataset", "1"]) == 2
    assert "--dataset: got 1; data.train lists 1, from 0" in capsys.readouterr().err
    assert main([str(file), "--out", str(file / "page.html")]) == 2
    assert "is a file); give a folder that can be written to" in capsys.readouterr().err
    assert main([str(file), "--out", str(tmp_path)]) == 2
    assert "is a folder; give the name of a file" in capsys.readouterr().err
    assert main([str(file), "--episodes", "0"]) == 2
    assert "--episodes is 0; it must be at least 1" in capsys.readouterr().err
    file.write_bytes(b"data: \xff")
    assert main([str(file)]) == 2
    assert "is no text in UTF-8; save it as such" in capsys.readouterr().err
