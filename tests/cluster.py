"""A Ray cluster of several nodes on this machine, whose nodes and processes tests kill."""

import logging
import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import ray
from ray.cluster_utils import Cluster


class Nodes:
    """A head that runs no trials, and worker nodes that do.

    Args:
        workers: how many.
        cpus: of each worker.
    """

    def __init__(self, workers: int, cpus: int = 1):
        self._cpus = cpus
        self._cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0})
        self.workers: list[Any] = [self._add() for _ in range(workers)]

    def connect(self) -> None:
        """Make this process the driver."""
        ray.init(address=self._cluster.address, log_to_driver=False, logging_level=logging.ERROR)

    def add(self) -> None:
        """A new worker, as an autoscaler brings one."""
        self.workers.append(self._add())

    def kill(self, node: Any) -> None:
        """Take a worker away with all its processes, as a machine that is switched off."""
        self.workers.remove(node)
        raylet = raylet_of(node)
        processes = [pid for pid in map(int, filter(str.isdecimal, os.listdir("/proc"))) if parent_of(pid) == raylet]
        self._cluster.remove_node(node, allow_graceful=False)
        for pid in processes:  # by themselves they notice a second later, in which a short trial comes to its end
            kill(pid)

    def node_of(self, pid: int) -> Any:
        """The worker that a process runs on."""
        return next(node for node in self.workers if raylet_of(node) == parent_of(pid))

    def shut_down(self) -> None:
        """End all of it."""
        ray.shutdown()
        self._cluster.shutdown()

    def _add(self) -> Any:
        return self._cluster.add_node(num_cpus=self._cpus)


def raylet_of(node: Any) -> int:
    """The process id of a node's raylet, whose children its workers are."""
    return int(node.all_processes["raylet"][0].process.pid)


def parent_of(pid: int) -> int:
    """The process that started another; 0 where it is gone."""
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8") as file:
            return int(file.read().rpartition(")")[2].split()[1])
    except (FileNotFoundError, ProcessLookupError):
        return 0


def kill(pid: int) -> bool:
    """``kill -9``; False where the process is gone."""
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return False
    return True


def wait_until(true: Any, seconds: float = 120.0) -> None:
    """Wait for a condition, and fail where it does not come."""
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, "it did not come in time"
        time.sleep(0.05)


@contextmanager
def nodes(workers: int, cpus: int = 1) -> Iterator[Nodes]:
    """A cluster to which this process is connected."""
    cluster = Nodes(workers, cpus)
    try:
        cluster.connect()
        yield cluster
    finally:
        cluster.shut_down()
