"""How many trials are started at once, on machines that are there and on those that would be added."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import ray
import yaml
from ray.cluster_utils import Cluster

from smolvla_core.errors import ConfigError
from tune import capacity
from tune.capacity import at_largest, concurrency, fit
from tune.spec import Resources

ROOT = Path(__file__).parents[1]


@pytest.mark.parametrize(
    ("machine", "trial", "count"),
    [
        ({"CPU": 8}, Resources(cpus=1.5), 5),
        ({"CPU": 8, "GPU": 2}, Resources(cpus=1, gpus=0.5), 4),
        ({"CPU": 8, "GPU": 2}, Resources(cpus=1, gpus=0.6), 2),  # and not three: a trial is on one GPU
        ({"CPU": 3, "GPU": 2}, Resources(cpus=1, gpus=0.5), 3),
        ({"CPU": 32, "GPU": 4}, Resources(cpus=1, gpus=2), 2),
        ({"CPU": 8}, Resources(cpus=1, gpus=0.5), 0),
    ],
)
def test_by_hand(machine, trial, count):
    assert fit(machine, trial) == count


def test_a_cluster_of_the_launcher_at_its_largest():
    kinds = {
        "head": {"resources": {"CPU": 0}},
        "small": {"resources": {"CPU": 8, "GPU": 1}, "max_workers": 10},
        "large": {"resources": {"CPU": 64, "GPU": 8}, "max_workers": 2},
    }
    launched = {"head_node_type": "head", "max_workers": 5, "available_node_types": kinds}
    assert at_largest(launched, Resources(cpus=4, gpus=0.5)) == 2 * 16 + 3 * 2
    shipped = yaml.safe_load((ROOT / "docker" / "cluster.yaml").read_text())
    assert at_largest(shipped, Resources(cpus=4, gpus=0.5)) == 16


@pytest.fixture(scope="module")
def machines() -> Iterator[None]:
    """A head that runs no trial, and two machines with a pretended GPU each."""
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    try:
        for _ in range(2):
            cluster.add_node(num_cpus=2, num_gpus=1)
        ray.init(address=cluster.address, log_to_driver=False, logging_level="ERROR")
        yield
    finally:
        ray.shutdown()
        cluster.shutdown()


@pytest.mark.slow
def test_machines_are_counted_one_by_one(machines, monkeypatch, tmp_path):
    monkeypatch.setattr(capacity, "LAUNCHED", tmp_path / "none.yaml")
    assert concurrency(Resources(cpus=1, gpus=0.5), None) == 4
    assert concurrency(Resources(cpus=1, gpus=0.5), 3) == 3
    assert concurrency(Resources(cpus=1.5), None) == 2  # and not the 2.67 of four CPUs
    many_cpus = r"a trial asks for 3 CPUs and 0 GPUs, and Ray has 4 and 2 on 3 machines; .* --set resources.cpus=2$"
    with pytest.raises(ConfigError, match=many_cpus):
        concurrency(Resources(cpus=3), None)
    with pytest.raises(ConfigError, match=r"a trial asks for 1 CPUs and 4 GPUs, .* --set resources.gpus=0$"):
        concurrency(Resources(cpus=1, gpus=4), None)

    launched = tmp_path / "launched.yaml"
    kinds = {"head": {"resources": {"CPU": 0}}, "gpu": {"resources": {"CPU": 2, "GPU": 1}, "max_workers": 9}}
    launched.write_text(yaml.safe_dump({"head_node_type": "head", "max_workers": 9, "available_node_types": kinds}))
    monkeypatch.setattr(capacity, "LAUNCHED", launched)
    assert concurrency(Resources(cpus=1, gpus=0.5), None) == 18
    assert concurrency(Resources(cpus=1, gpus=0.5), 5) == 5

    monkeypatch.setattr(capacity, "LAUNCHED", tmp_path / "none.yaml")
    monkeypatch.setenv("KUBERAY_GEN_RAY_START_CMD", "ray start")
    assert concurrency(Resources(cpus=1, gpus=0.5), 64) == 64
