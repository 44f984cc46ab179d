"""v2.1 datasets are converted once, in a cache; the source is only read."""

import errno
import json
import os

import numpy as np
import pytest

from smolvla_core.config import DataConfig
from smolvla_core.data import pictures
from smolvla_core.data.dataset import open_dataset
from smolvla_core.data.legacy import converted
from smolvla_core.data.pictures import Camera
from smolvla_core.errors import DataError
from tests.datasets import write_grey_video, write_legacy
from tests.test_dataset import tree_digest

INFO = {"codebase_version": "v2.1", "total_chunks": 1}


def test_conversion_keeps_the_source_and_the_frames(tmp_path):
    source = write_legacy(tmp_path / "legacy")
    before = tree_digest(source)
    config = DataConfig(train=({"root": str(source)},), cache_dir=str(tmp_path / "cache"))
    dataset = open_dataset(config)
    assert tree_digest(source) == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["cache", "legacy"]
    assert dataset.lengths.tolist() == [20] * 4
    assert (dataset.action - dataset.state).mean() == pytest.approx(1.0)
    rows = dataset.rows_of((2,))[[0, 7, 19]]
    greys = Camera(dataset, "observation.images.top").frames(rows).float().mean(dim=(1, 2, 3))
    assert greys.tolist() == pytest.approx([2, 72, 192], abs=2)


def test_the_second_call_converts_nothing(tmp_path):
    source = write_legacy(tmp_path / "legacy")
    first = converted(source, INFO, str(tmp_path / "cache"))
    stamp = (first / "meta" / "info.json").stat().st_mtime_ns
    assert converted(source, INFO, str(tmp_path / "cache")) == first
    assert (first / "meta" / "info.json").stat().st_mtime_ns == stamp


def test_a_layout_that_lerobot_refuses_is_one_line_and_leaves_nothing(tmp_path):
    source = write_legacy(tmp_path / "legacy")
    (source / "meta" / "episodes_stats.jsonl").unlink()
    with pytest.raises(DataError, match="lerobot could not convert") as caught:
        converted(source, INFO, str(tmp_path / "cache"))
    assert "\n" not in str(caught.value)
    assert not [path for path in (tmp_path / "cache" / "converted").iterdir() if path.is_dir()]


def video(source, episode):
    return source / "videos" / "chunk-000" / "observation.images.top" / f"episode_{episode:06d}.mp4"


def opened(source, tmp_path):
    return open_dataset(DataConfig(train=({"root": str(source)},), cache_dir=str(tmp_path / "cache")))


def test_a_video_that_is_shorter_than_its_episode_is_refused(tmp_path):
    """Lerobot's converter puts the next episode's pictures where the missing ones would be looked for."""
    source = write_legacy(tmp_path / "legacy")
    write_grey_video(video(source, 1), [10 * t + 1 for t in range(17)])
    with pytest.raises(DataError, match=r"has 17 pictures for the 20 frames of episode 1; fetch it again"):
        opened(source, tmp_path)


def test_videos_that_were_fetched_again_are_converted_again(tmp_path):
    source = write_legacy(tmp_path / "legacy")
    first = converted(source, INFO, str(tmp_path / "cache"))
    os.utime(video(source, 2), (0, 0))
    assert converted(source, INFO, str(tmp_path / "cache")) != first


def test_episodes_with_gaps_between_their_numbers_are_one_line(tmp_path):
    source = write_legacy(tmp_path / "legacy")
    video(source, 1).unlink()
    (source / "data" / "chunk-000" / "episode_000001.parquet").unlink()
    for name in ("episodes.jsonl", "episodes_stats.jsonl"):
        lines = (source / "meta" / name).read_text().splitlines(keepends=True)
        (source / "meta" / name).write_text("".join(line for line in lines if json.loads(line)["episode_index"] != 1))
    with pytest.raises(DataError, match=r"lerobot could not convert .*numbered with gaps") as caught:
        converted(source, INFO, str(tmp_path / "cache"))
    assert "\n" not in str(caught.value)


def test_a_disk_that_is_full_is_no_damaged_dataset(tmp_path, monkeypatch):
    def full(**_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("lerobot.scripts.convert_dataset_v21_to_v30.convert_dataset", full)
    with pytest.raises(OSError, match="No space left"):
        converted(write_legacy(tmp_path / "legacy"), INFO, str(tmp_path / "cache"))
    assert not [path for path in (tmp_path / "cache" / "converted").iterdir() if path.is_dir()]


def test_pyav_is_not_asked_for_pictures_far_apart_at_once(tmp_path, monkeypatch):
    camera = Camera(opened(write_legacy(tmp_path / "legacy"), tmp_path), "observation.images.top")
    rows, asked, decode = np.array([0, 3, 15, 19, 65]), [], pictures.decode_video_frames
    expected = camera.frames(rows)

    def counted(path, seconds, *rest, **more):
        asked.append(len(seconds))
        return decode(path, seconds, *rest, **more)

    monkeypatch.setattr(pictures, "video_decoder", lambda: "pyav")
    monkeypatch.setattr(pictures, "decode_video_frames", counted)
    found = camera.frames(rows)
    assert asked == [2, 2, 1]
    assert (found.float() - expected.float()).abs().max() <= 2
