"""Segments of gripper motion, on openings drawn by hand."""

import numpy as np
import pytest

from smolvla_core.config import SegmentConfig
from smolvla_core.errors import ConfigError
from smolvla_core.segments import dilate, episode_segments, main, merge_gaps, moving
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
