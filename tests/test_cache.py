"""Training from the cache gives the numbers of training without, whoever filled it."""

import os

import pytest
import torch

from smolvla_core.data.pictures import Camera
from smolvla_core.train import train
from smolvla_core.trial import prepare
from tests.core_fixtures import tiny_trial
from tests.test_cotraining import two_tasks
from tests.test_learner import gradients

JITTER = {"augment__brightness": 0.4, "augment__hue": 0.1, "augment__color_same_draw": False}
UNFROZEN = {"policy__train_expert_only": False, "policy__freeze_vision_encoder": False}


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "features"


def cached(config, folder, **values):
    return config.with_values({"runtime.cache": str(folder), "runtime.prefixes": "off", **values})


def timeless(metrics):
    return {key: value for key, value in metrics.items() if "_per_s" not in key}


def reports_of(config, **arguments):
    reports = []
    train(config, lambda metrics, save: reports.append(timeless(metrics)), **arguments)
    return reports


@pytest.fixture
def decoded(monkeypatch):
    """Rows that were decoded, by camera."""
    rows = []
    frames = Camera.frames

    def counted(self, wanted):
        rows.extend((self.key, int(row)) for row in wanted)
        return frames(self, wanted)

    monkeypatch.setattr(Camera, "frames", counted)
    return rows


@pytest.mark.parametrize(
    "values",
    [{}, {**JITTER, "augment__color_views": 2}, JITTER, UNFROZEN, {"runtime__fast_forward": False}],
    ids=["embeddings", "views", "fresh colours", "trained tower", "lerobot's forward"],
)
def test_a_run_gives_the_same_numbers_cold_and_warm_as_without(generic_root, cache_dir, folder, decoded, values):
    config = tiny_trial(generic_root, cache_dir, eval__at=[8], **values)
    expected = reports_of(config)
    decoded.clear()
    assert reports_of(cached(config, folder)) == expected
    assert len(set(decoded)) <= len(decoded) <= len(set(decoded)) * values.get("augment__color_views", 1)
    decoded.clear()
    assert reports_of(cached(config, folder)) == expected
    assert not decoded


def test_gradients_are_the_same_to_the_bit(generic_root, cache_dir, folder):
    config = tiny_trial(generic_root, cache_dir)
    plain = prepare(config)
    expected, _ = gradients(plain, plain.training(0, 4)[0])
    for _ in range(2):
        trial = prepare(cached(config, folder))
        batch = trial.training(0, 4)[0]
        assert not batch.images
        found, _ = gradients(trial, batch)
        assert all(torch.equal(found[name], expected[name]) for name in expected)


def test_trials_of_other_batches_and_chunks_share_it(generic_root, cache_dir, folder, decoded):
    config = cached(tiny_trial(generic_root, cache_dir), folder)
    reports_of(config)
    decoded.clear()
    others = {"optim.batch_size": 8, "optim.micro_batch": 3, "policy.chunk_size": 6, "optim.lr": 1e-4}
    reports_of(config.with_values(others))
    assert not decoded


def test_resuming_from_the_cache_is_exact(generic_root, cache_dir, folder, tmp_path):
    config = cached(tiny_trial(generic_root, cache_dir, eval__at=[8]), folder)
    reports = []

    def report(metrics, save):
        reports.append(timeless(metrics))
        if metrics["samples_seen"] == 8 and len(reports) == 1:
            save(tmp_path / "state")

    train(config, report)
    assert reports_of(config, restore=tmp_path / "state") == reports[1:]


def test_two_datasets_have_their_own(eggs_root, mousetraps_root, cache_dir, folder, decoded):
    config = two_tasks(eggs_root, mousetraps_root, cache_dir)
    expected = reports_of(config)
    for _ in range(2):
        decoded.clear()
        assert reports_of(cached(config, folder)) == expected
    assert not decoded
    assert len(list(folder.glob("lerobot-*-embeddings-*"))) == 6


def test_other_weights_of_the_tower_have_their_own(generic_root, cache_dir, folder, decoded):
    config = cached(tiny_trial(generic_root, cache_dir), folder)
    reports_of(config)
    seen = set(decoded)
    decoded.clear()
    other = config.with_values({"policy.tiny.init_seed": 1})
    assert reports_of(other) == reports_of(other.with_values({"runtime.cache": "off"}))
    assert set(decoded) == seen


def test_a_full_cache_changes_no_number(generic_root, cache_dir, folder, decoded):
    config = tiny_trial(generic_root, cache_dir)
    expected = reports_of(config)
    small = cached(config, folder, **{"runtime.cache_gb": 40_000 / 1e9})  # a place for some frames
    for _ in range(2):
        decoded.clear()
        assert reports_of(small) == expected
    assert decoded
    used = sum(file.stat().st_blocks * 512 for file in folder.glob("*/data"))
    assert 0 < used <= 40_000 + 2 * 4096  # and what the file system needs for its own
    line = prepare(small).cache_lines[-1]
    assert "have room (runtime.cache_gb is 4e-05); the rest is computed whenever it is drawn" in line


@pytest.mark.parametrize("call", ["pwrite", "fdatasync"])
def test_a_full_disk_changes_no_number(generic_root, cache_dir, folder, monkeypatch, call):
    config = tiny_trial(generic_root, cache_dir)
    expected = reports_of(config)
    count, real = [], getattr(os, call)

    def fails(*arguments):
        count.append(1)
        if len(count) > 1:
            raise OSError(28, "No space left on device")
        return real(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(f"smolvla_core.cache.store.os.{call}", fails)
        assert reports_of(cached(config, folder)) == expected
    assert len(count) > 1
    assert reports_of(cached(config, folder)) == expected


def test_what_was_unused_longest_makes_room(generic_root, cache_dir, folder):
    config = cached(tiny_trial(generic_root, cache_dir), folder)
    reports_of(config)
    first = {path.name for path in folder.glob("*-*")}
    assert len(first) == 2
    other = config.with_values({"policy.tiny.init_seed": 1, "runtime.cache_gb": 50e-6})
    lines = prepare(other).cache_lines
    assert [line for line in lines if line.startswith("cache: removed generic") or "dataset-images.top" in line]
    assert not first <= {path.name for path in folder.glob("*-*")}


def test_what_is_in_use_is_not_removed(generic_root, cache_dir, folder):
    config = cached(tiny_trial(generic_root, cache_dir), folder)
    reports_of(config)
    using = prepare(config)
    first = {path.name for path in folder.glob("*-*")}
    prepare(config.with_values({"policy.tiny.init_seed": 1, "runtime.cache_gb": 50e-6}))
    assert first <= {path.name for path in folder.glob("*-*")}
    assert using.training(0, 4)
