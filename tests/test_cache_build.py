"""The cache planned and built ahead: as large as was said, and nothing left to compute."""

import os

import numpy as np
import pytest
import yaml

from smolvla_core.cache.__main__ import main
from smolvla_core.cache.build import build, jobs_of
from smolvla_core.cache.plan import plan_cache
from smolvla_core.cache.store import WRITTEN
from smolvla_core.train import train
from smolvla_core.trial import prepare, resolve
from tests.core_fixtures import tiny_trial
from tests.test_cache import JITTER, UNFROZEN, cached
from tests.test_cache import decoded as decoded  # noqa: PLC0414 - a fixture
from tests.test_cotraining import two_tasks


def stored(folder):
    return sum(int((np.fromfile(file, np.uint8) != 0).sum()) for file in folder.glob(f"*/{WRITTEN}"))


def planned(config):
    return plan_cache(config, resolve(config))


@pytest.mark.parametrize(
    "values",
    [{}, {"optim__samples": 500}, {**JITTER, "augment__color_views": 2}, JITTER, UNFROZEN],
    ids=["first samples", "everything", "views", "fresh colours", "trained tower"],
)
def test_nothing_is_computed_after_it(generic_root, cache_dir, tmp_path, decoded, values):
    folder = tmp_path / "features"
    config = cached(tiny_trial(generic_root, cache_dir, **values), folder)
    plan, seen = planned(config), []
    build(config, 1, lambda done, total: seen.append((done, total)))
    assert seen[0][0] == 0
    assert seen[-1][0] == seen[-1][1] == len(jobs_of(config))
    cameras = 2
    assert 0 < stored(folder) <= cameras * plan.frames + (2 * cameras * 8 if values is JITTER else 0)
    decoded.clear()
    if config.optim.samples == 500:
        config = config.with_values({"optim.samples": 16, "runtime.seed": 5})  # whatever is drawn is there
    train(config)
    assert not decoded


def test_the_size_is_what_is_written(generic_root, cache_dir, tmp_path):
    config = cached(tiny_trial(generic_root, cache_dir, optim__samples=5000), tmp_path / "features")
    plan = planned(config)
    trial = prepare(config)
    assert plan.frame_bytes == sum(store.item_bytes for store in trial.maker.embeddings.stores)
    rows = len(trial.stream.curriculum.rows) + len(trial.frames.rows)
    assert (plan.frames, plan.bytes, plan.fit) == (rows, rows * plan.frame_bytes, None)
    frames = planned(config.with_values({"runtime.fast_forward": False}))
    assert (frames.kind, frames.frame_bytes) == ("frames", 3 * (48 * 64 + 32 * 32))
    assert planned(config.with_values({"runtime.cache": "off"})) is None


def test_a_search_without_room_for_all_takes_what_has_room(generic_root, cache_dir, tmp_path):
    config = cached(tiny_trial(generic_root, cache_dir, optim__samples=5000), tmp_path / "features")
    plan = planned(config)
    held_out = len(resolve(config).frames.rows)
    for share, fits in ((0.5, True), (0.15, False)):  # 10 Hz: one frame in ten is the least
        room = round(plan.bytes * share)
        small = planned(config.with_values({"runtime.cache_gb": room / 1e9}))
        assert small.fit == (room // plan.frame_bytes - held_out if fits else None)
        assert ("all trials draw from the same" in small.text()) == fits
        assert "the rest is computed whenever it is drawn" in small.text(thinned=False)
    assert planned(config.with_values({"runtime.cache_gb": 1e-5, "data.frames": 50})).fit is None


def test_two_datasets_by_two_processes(eggs_root, mousetraps_root, cache_dir, tmp_path, decoded):
    folder = tmp_path / "features"
    config = cached(two_tasks(eggs_root, mousetraps_root, cache_dir), folder)
    built = build(config, 2, lambda done, total: None)
    assert built == (stored(folder), 0)
    train(config)
    assert not decoded
    assert build(config, 1, lambda done, total: None) == (0, 0)


def test_a_worker_that_dies_is_one_line(generic_root, cache_dir, tmp_path, capfd, monkeypatch):
    trial = tmp_path / "trial.yaml"
    trial.write_text(cached(tiny_trial(generic_root, cache_dir), tmp_path / "features").to_yaml())
    monkeypatch.setattr("smolvla_core.cache.build._Fill", _Dies)
    assert main(["build", str(trial), "--workers", "2"]) == 1
    told = capfd.readouterr().err
    assert told.startswith("error: a worker process died")
    assert told.count("\n") == 1


class _Dies:
    """A job whose process is ended by the system."""

    def __init__(self, values):
        pass

    def __call__(self, job):
        os._exit(9)


def test_the_command_takes_trials_and_searches(generic_root, cache_dir, tmp_path, capsys):
    config = cached(tiny_trial(generic_root, cache_dir), tmp_path / "features")
    trial, search = tmp_path / "trial.yaml", tmp_path / "search.yaml"
    trial.write_text(config.to_yaml())
    search.write_text(yaml.safe_dump({"study": "s", "trial": config.to_dict(), "search": {"optim.lr": {}}}))
    assert main(["build", str(search), "--dry-run"]) == 0
    assert "image embeddings of at most" in capsys.readouterr().out
    assert not list((tmp_path / "features").glob("*-*"))
    assert main(["build", str(trial)]) == 0
    count = stored(tmp_path / "features")
    assert f"{count} computed in" in capsys.readouterr().out
    assert main(["build", str(search)]) == 0
    assert "\n0 computed in" in capsys.readouterr().out
    assert main(["build", str(trial), "--set", "runtime.cache=off"]) == 2
    assert "error: runtime.cache: is off; set it to auto, or to a folder" in capsys.readouterr().err
    bare = {"runtime.cache_gb": 1e-6, "policy.tiny.init_seed": 1}
    assert main(["build", str(trial), *(word for key, value in bare.items() for word in ("--set", f"{key}={value}"))]) == 1  # fmt: skip # noqa: E501
    assert "were not kept: no room; raise runtime.cache_gb" in capsys.readouterr().out
