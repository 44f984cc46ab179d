"""What every test runs under: no network, no progress output of libraries."""

import os

import pytest

# Set before any library is imported, and inherited by the processes that tests start.
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["HF_DATASETS_OFFLINE"] = "1"
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
# A cluster that another process's test starts would otherwise be joined, and its end takes this process along.
os.environ["RAY_ADDRESS"] = "local"
if "PYTEST_XDIST_WORKER" in os.environ:  # processes share the cores, in place of threads
    os.environ.setdefault("OMP_NUM_THREADS", "1")

pytest_plugins = ["tests.core_fixtures", "tests.study_fixtures"]

_ON_REQUEST = ("cluster", "faults")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Tests that take minutes run where ``-m`` names their marker, and not else."""
    unasked = [marker for marker in _ON_REQUEST if marker not in config.option.markexpr]
    left_out = [item for item in items if any(item.get_closest_marker(marker) for marker in unasked)]
    if left_out:
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if item not in left_out]
