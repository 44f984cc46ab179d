"""How many trials run at once: on the machines that Ray has, and on those that an autoscaler would add."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import ray
import yaml

from smolvla_core.errors import ConfigError
from tune.packing import nodes_left_idle
from tune.spec import Resources

LAUNCHED = Path("~/ray_bootstrap_config.yaml")
"""What `ray up` leaves on the head: the cluster's YAML, with every default."""
_KUBERAY = "KUBERAY_GEN_RAY_START_CMD"  # an environment variable of KubeRay's containers


def concurrency(resources: Resources, limit: int | None) -> int:
    """How many trials run at once; none on GPUs that are left idle (``tune.packing.left_idle``).

    Where an autoscaler adds machines on demand, that many are demanded; KubeRay does not say how many it would
    add, so that there ``limit`` decides.

    Args:
        resources: of each.
        limit: at most so many; None: as many as fit.

    Raises:
        ConfigError: not even one fits, and no autoscaler would add machines.
    """
    idle = nodes_left_idle()
    machines = [
        node["Resources"] | ({"GPU": 0} if node["NodeID"] in idle else {}) for node in ray.nodes() if node["Alive"]
    ]
    fits = sum(fit(machine, resources) for machine in machines)
    launched = LAUNCHED.expanduser()
    if launched.is_file():
        fits = max(fits, at_largest(yaml.safe_load(launched.read_text(encoding="utf-8")), resources))
    elif _KUBERAY in os.environ:
        return limit or max(fits, 1)
    elif not fits:
        have = ray.cluster_resources()
        most = max((machine.get("CPU", 0) for machine in machines), default=0)
        change = "resources.gpus=0" if most >= resources.cpus else f"resources.cpus={most:g}"
        raise ConfigError(
            f"resources: a trial asks for {resources.cpus:g} CPUs and {resources.gpus:g} GPUs, and Ray has "
            f"{have.get('CPU', 0):g} and {have.get('GPU', 0):g} on {_machines(len(machines))}; lower them, e.g. --set "
            f"{change}"
        )
    return min(limit or fits, fits) or limit or 1


def fit(machine: Mapping[str, float], resources: Resources) -> int:
    """How many trials fit on a machine with these of Ray's resources."""
    by_cpu = int(machine.get("CPU", 0) / resources.cpus)
    if not resources.gpus:
        return by_cpu
    # a share lies on one GPU: two of 0.6 do not fit on two GPUs' halves
    gpus = machine.get("GPU", 0)
    on_gpus = int(gpus) * int(1 / resources.gpus) if resources.gpus <= 1 else int(gpus / resources.gpus)
    return min(by_cpu, on_gpus)


def at_largest(launched: Mapping[str, Any], resources: Resources) -> int:
    """How many trials fit on a cluster of Ray's launcher when it has all the machines that its YAML allows.

    Args:
        launched: the cluster's YAML.
        resources: of each trial.
    """
    head = launched.get("head_node_type")
    kinds = launched.get("available_node_types", {})
    added = [
        (fit(kind.get("resources", {}), resources), int(kind.get("max_workers", 0)))
        for name, kind in kinds.items()
        if name != head
    ]
    total, left = fit(kinds.get(head, {}).get("resources", {}), resources), int(launched.get("max_workers", 0))
    for fits, count in sorted(added, reverse=True):
        taken = min(count, left)
        total, left = total + fits * taken, left - taken
    return total


def _machines(count: int) -> str:
    return f"{count} machine{'s' if count != 1 else ''}"
