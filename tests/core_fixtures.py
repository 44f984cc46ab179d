"""Fixtures over the small datasets, made once per session."""

from pathlib import Path

import pytest

from smolvla_core.config import TrialConfig


@pytest.fixture(scope="session")
def cache_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="session")
def generic_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from tests.datasets import write_generic

    return write_generic(tmp_path_factory.mktemp("generic") / "dataset")


@pytest.fixture(scope="session")
def lookalike(tmp_path_factory: pytest.TempPathFactory, cache_dir: Path) -> Path:
    from tests.lookalike import write_lookalike

    return write_lookalike(tmp_path_factory.mktemp("pretrained") / "smolvla_base", cache_dir)


@pytest.fixture(scope="session")
def eggs_raw(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The synthetic BEHAVIOR task in the 2025 release's own layout; its episodes hide one egg each."""
    from smolvla_core.data.synthetic import write_synthetic

    folder = tmp_path_factory.mktemp("eggs")
    write_synthetic(folder / "raw", episodes=6, seconds=2.0, size=48, seed=0)
    return folder / "raw"


@pytest.fixture(scope="session")
def eggs_root(eggs_raw: Path) -> Path:
    """The synthetic BEHAVIOR task, imported as the real one would be."""
    from smolvla_core.data.behavior import import_behavior

    import_behavior(eggs_raw, eggs_raw.with_name("lerobot"), task=6)
    return eggs_raw.with_name("lerobot")


@pytest.fixture(scope="session")
def mousetraps_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Task 5 beside task 6: other motions, another instruction, and larger pictures."""
    from smolvla_core.data.behavior import import_behavior
    from smolvla_core.data.synthetic import write_synthetic

    folder = tmp_path_factory.mktemp("mousetraps")
    write_synthetic(folder / "raw", episodes=4, seconds=2.0, size=64, seed=1, task=5)
    import_behavior(folder / "raw", folder / "lerobot", task=5)
    return folder / "lerobot"


@pytest.fixture(scope="session")
def privileged_root(eggs_raw: Path) -> Path:
    """As ``eggs_root``, with the object poses: egg x, y, z, then basket x, y, then tree x, y."""
    from smolvla_core.data.behavior import import_behavior
    from smolvla_core.data.behavior.source import Keep

    import_behavior(eggs_raw, eggs_raw.with_name("privileged"), task=6, keep=Keep(privileged=True))
    return eggs_raw.with_name("privileged")


@pytest.fixture(scope="session")
def release_2026_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from tests.release_2026 import write_release_2026

    return write_release_2026(tmp_path_factory.mktemp("eggs_2026") / "dataset")


def tiny_trial(root: Path, cache_dir: Path, **values: object) -> TrialConfig:
    """A trial that trains in a second: 4 steps of batch 4, scored on 4 frames."""
    base = {
        "data": {"train": [{"root": str(root)}], "cache_dir": str(cache_dir)},
        "state": {"preset": "identity"},
        "policy": {"pretrained": "tiny", "chunk_size": 10, "num_steps": 2},
        "optim": {"samples": 16, "batch_size": 4, "lr": 1e-3},
        "eval": {"frames": 4, "draws": 2, "horizon_s": 0.5},
        "runtime": {"log_every_samples": 8, "cache": "off"},
    }
    return TrialConfig.from_dict(base).with_values({key.replace("__", "."): value for key, value in values.items()})


@pytest.fixture
def trial_config(generic_root: Path, cache_dir: Path) -> TrialConfig:
    return tiny_trial(generic_root, cache_dir)
