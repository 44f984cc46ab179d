"""v2.1 datasets are converted once, in a cache; the source is only read."""

import pytest

from smolvla_core.config import DataConfig
from smolvla_core.data.dataset import open_dataset
from smolvla_core.data.legacy import converted
from smolvla_core.data.pictures import Camera
from smolvla_core.errors import DataError
from tests.datasets import write_legacy
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
