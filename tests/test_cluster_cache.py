"""The cache filled by workers of a Ray cluster is the one that trials read."""

import pytest
import yaml

from smolvla_core.train import train
from tests.core_fixtures import tiny_trial
from tests.test_cache import cached
from tests.test_cache import decoded as decoded  # noqa: PLC0414 - a fixture
from tests.test_cache_build import stored
from tune.cluster_cache import main, shared_trial
from tune.spec import load_spec


@pytest.mark.parametrize("workers", ["0", "-1", "two"])
def test_workers_are_counted(capsys, workers):
    with pytest.raises(SystemExit) as ended:
        main(["search.yaml", "--workers", workers])
    assert ended.value.code == 2
    assert f"argument --workers: '{workers}' is no number above 0" in capsys.readouterr().err


@pytest.mark.slow
def test_a_cluster_fills_it(generic_root, cache_dir, tmp_path, decoded, capsys):
    folder = tmp_path / "features"
    config = cached(tiny_trial(generic_root, cache_dir), folder)
    search = {
        "study": "s",
        "trial": config.to_dict(),
        "search": {"optim.lr": {"type": "float", "low": 1e-4, "high": 1e-3}},
        "budget": {"trials": 2},
        "asha": {"grace_samples": 8, "reduction_factor": 2},
    }
    del search["trial"]["eval"]["at"]
    path = tmp_path / "search.yaml"
    path.write_text(yaml.safe_dump(search))
    assert main([str(path), "--workers", "1"]) == 0
    count = stored(folder)
    assert count > 20
    assert f"{count} computed in" in capsys.readouterr().out
    decoded.clear()
    train(shared_trial(load_spec(path)[0]))
    assert not decoded
    assert main([str(path), "--workers", "1"]) == 0
    assert "\n0 computed in" in capsys.readouterr().out
    assert stored(folder) == count
