"""Real recordings, where REAL_LEROBOT_DATASET names a folder: audited, opened, and converted if they are of v2.1."""

import os
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from smolvla_core.data.audit import audit, main

SOURCE = os.environ.get("REAL_LEROBOT_DATASET")

pytestmark = pytest.mark.skipif(SOURCE is None, reason="set REAL_LEROBOT_DATASET to a LeRobot dataset's folder")


@pytest.fixture(scope="module")
def source():
    return Path(SOURCE)


def stamps(root):
    return {path: (path.stat().st_size, path.stat().st_mtime_ns) for path in sorted(root.rglob("*"))}


@pytest.fixture(scope="module")
def opened(source, tmp_path_factory):
    """The dataset, opened for training, with its cache beside it."""
    from smolvla_core.config import DataConfig
    from smolvla_core.data.dataset import open_dataset

    cache = tmp_path_factory.mktemp("cache")
    before = stamps(source)
    dataset = open_dataset(DataConfig(train=({"root": str(source)},), cache_dir=str(cache)))
    assert stamps(source) == before  # converting writes to the cache only
    return dataset


def test_the_audit_is_one_page_and_only_reads(source, capsys):
    before = stamps(source)
    assert main([str(source)]) == 0
    page = capsys.readouterr().out.splitlines()
    assert len(page) <= 60
    assert max(map(len, page)) <= 80
    assert page[-1].startswith(("Good", "Usable"))
    assert stamps(source) == before


def test_the_audit_measures_a_lag_and_every_camera(source):
    report = audit(source, videos=2)
    (lag,) = report.of("action/state lag")
    assert "the state follows the action by" in lag.found
    assert [finding.verdict for finding in report.of("cameras")] == ["ok"]


def test_numbers_are_the_source_s_own(source, opened):
    files = sorted((source / "data").rglob("*.parquet"))
    for key, mine in (("observation.state", opened.state), ("action", opened.action)):
        rows = [np.array(pq.read_table(file)[key].to_pylist(), dtype=np.float32) for file in files]
        np.testing.assert_array_equal(mine, np.concatenate(rows))
    assert sum(opened.lengths) == len(opened.state)
    assert all(text.strip() for text in opened.instructions)


def test_pictures_decode_and_differ_over_an_episode(opened):
    from smolvla_core.data.pictures import Camera

    for key in opened.camera_keys:
        for episode in (0, len(opened.lengths) - 1):
            first = opened.starts[episode]
            rows = np.array([first, first + opened.lengths[episode] // 2, first + opened.lengths[episode] - 1])
            shown = Camera(opened, key).frames(rows).float()
            assert shown.std() > 5
            assert (shown[0] - shown[1]).abs().mean() > 0.5


def test_the_audit_says_the_same_of_what_training_reads(source, opened):
    before, after = audit(source, videos=1), audit(opened.root, videos=1)
    assert after.version.startswith("v3")
    assert (before.lengths, before.instructions) == (after.lengths, after.instructions)
    numbers = ("values", "constant dims", "held values", "outliers", "idle frames", "action/state lag", "time stamps")
    for check in numbers:
        assert before.of(check) == after.of(check)
    assert after.verdict == before.verdict
