"""Fixtures of whole studies of stubs."""

from collections.abc import Iterator
from pathlib import Path

import pytest


@pytest.fixture(scope="module")
def one_ray() -> Iterator[None]:
    """Ray's start takes seconds; the studies of a module share one."""
    import ray

    from tune.ray_session import ray_session

    with ray_session():
        yield
    assert not ray.is_initialized()


@pytest.fixture
def faults(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder whose files the stubs suffer from."""
    folder = tmp_path / "faults"
    folder.mkdir()
    monkeypatch.setenv("STUB_FAULTS", str(folder))
    return folder
