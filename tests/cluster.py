"""A Ray cluster of several nodes on this machine, whose nodes and processes tests kill."""

import logging
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from subprocess import DEVNULL, Popen
from typing import Any

import ray
from ray.cluster_utils import Cluster

from tests.processes import kill, name_of, parent_of, process_ids, session_of


class Worker:
    """A node that runs trials, started as on a machine of its own: ``ray start --block``."""

    def __init__(self, address: str, cpus: int):
        command = [str(Path(sys.executable).with_name("ray")), "start", f"--address={address}", f"--num-cpus={cpus}"]
        small = ["--object-store-memory=100000000", "--block"]
        self._process = Popen(command + small, stdout=DEVNULL, stderr=DEVNULL, start_new_session=True)

    @property
    def raylet(self) -> int:
        """The process whose children the node's trials are; 0 while it is being started."""
        return next((pid for pid in self._processes() if name_of(pid) == "raylet"), 0)

    def kill(self) -> None:
        """``kill -9`` of all its processes at once, as a machine that is switched off.

        Workers left to themselves notice a second later that their raylet is gone, in which a short trial ends.
        """
        while found := self._processes():
            for pid in found:
                kill(pid)
            self._process.poll()
        self._process.wait()

    def _processes(self) -> list[int]:
        return [pid for pid in process_ids() if session_of(pid) == self._process.pid]


class Nodes:
    """A head that runs no trials, to which this process is connected, and worker nodes that do.

    Args:
        cpus: of each worker.
    """

    def __init__(self, cpus: int = 1):
        self._cpus = cpus
        self._cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0})
        self.workers: list[Worker] = []
        ray.init(address=self._cluster.address, log_to_driver=False, logging_level=logging.ERROR)

    def wait(self) -> None:
        """Wait until every worker has joined."""
        wait_until(lambda: ray.cluster_resources().get("CPU", 0) == self._cpus * len(self.workers))

    def add(self) -> None:
        """A new worker, which joins some seconds later, as an autoscaler brings one; one at a time on one machine."""
        self.workers.append(Worker(self._cluster.address, self._cpus))

    def kill(self, node: Worker) -> None:
        """Take a worker away."""
        self.workers.remove(node)
        node.kill()

    def node_of(self, pid: int) -> Worker:
        """The worker that a process runs on."""
        return next(node for node in self.workers if node.raylet == parent_of(pid))

    def shut_down(self) -> None:
        """End all of it."""
        ray.shutdown()
        for node in self.workers:
            node.kill()
        self._cluster.shutdown()


def wait_until(true: Any, seconds: float = 120.0) -> None:
    """Wait for a condition, and fail where it does not come."""
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, "it did not come in time"
        time.sleep(0.05)


@contextmanager
def nodes(workers: int, cpus: int = 1) -> Iterator[Nodes]:
    """A cluster to which this process is connected."""
    cluster = Nodes(cpus)
    try:
        for _ in range(workers):
            cluster.add()
            cluster.wait()
        yield cluster
    finally:
        cluster.shut_down()
