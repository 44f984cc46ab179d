"""``resources: auto``: how many trials share a machine, by what the largest of them was measured to need."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import ray

from smolvla_core.errors import ConfigError
from tune.console import counted
from tune.probe import Measured, largest_point, probe
from tune.spec import Resources, SearchSpec

GPU_SHARE = 0.9
"""Of a GPU's memory that is given out: what a trial needs varies a little."""
MEMORY_SHARE = 0.8
"""Of a machine's memory."""
_GRAIN = 10_000
"""Ray counts shares of a GPU in parts of this many."""


@dataclass(frozen=True)
class Machine:
    """What a machine has."""

    cpus: float
    gpus: float
    memory_bytes: float


def machines() -> list[Machine]:
    """Those of the Ray cluster that a trial would run on: with GPUs where any has some."""
    alive = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    every = [Machine(have.get("CPU", 0), have.get("GPU", 0), have.get("memory", math.inf)) for have in alive]
    with_gpus = [machine for machine in every if machine.gpus >= 1]
    return with_gpus or [machine for machine in every if machine.cpus >= 1]


def pack(measured: Measured, on: Iterable[Machine]) -> Resources:
    """What a trial asks Ray for, so that as many run at once as fit on every one of the machines.

    On a GPU their number is bounded by its memory, and everywhere by a CPU and the main memory a trial.
    """
    asked = [_pack(measured, machine) for machine in on]
    return Resources(cpus=min(each.cpus for each in asked), gpus=max(each.gpus for each in asked))


def _pack(measured: Measured, machine: Machine) -> Resources:
    by_memory = math.floor(MEMORY_SHARE * machine.memory_bytes / measured.memory_bytes) if machine.memory_bytes else 1
    at_most = max(1, min(math.floor(machine.cpus), by_memory))
    if not measured.gpu_held_bytes:
        return Resources(cpus=_floored(machine.cpus / at_most))
    on_a_gpu = math.floor(GPU_SHARE * measured.gpu_total_bytes / measured.gpu_held_bytes)
    on_a_gpu = max(1, min(on_a_gpu, math.floor(at_most / machine.gpus)))
    return Resources(cpus=_floored(machine.cpus / (on_a_gpu * machine.gpus)), gpus=_floored(1 / on_a_gpu))


def _floored(share: float) -> float:
    return math.floor(share * _GRAIN) / _GRAIN


def while_measuring(on: Iterable[Machine]) -> Resources:
    """What a measurement takes: one CPU, and a whole GPU where there are any."""
    return Resources(gpus=1 if any(machine.gpus for machine in on) else 0)


def resources_of(spec: SearchSpec) -> tuple[Resources, str | None]:
    """What each trial of a search gets, and a line on how that was found; None where it was given.

    Call it inside a Ray session.

    Raises:
        ConfigError: the largest trial cannot be measured.
    """
    if not spec.resources.auto:
        return spec.resources, None
    on = machines()
    name, point = largest_point(spec)
    found = probe(spec, while_measuring(on), {name: point})[name]
    if isinstance(found, str):
        raise ConfigError(f"resources.auto: the largest trial ({_named(point)}) cannot be measured: {found}")
    resources = pack(found, on)
    return resources, packed_line(found, resources)


def packed_line(measured: Measured, resources: Resources) -> str:
    """How many trials share what, and by which measurement."""
    if measured.gpu_held_bytes:
        need, have = measured.gpu_held_bytes / 2**30, measured.gpu_total_bytes / 2**30
        count = counted(math.floor(1 / resources.gpus), "trial")
        return f"Resources  {count} on a GPU, {resources.cpus:g} CPUs each: one holds {need:.1f} of {have:.1f} GiB"
    return f"Resources  {resources.cpus:g} CPUs a trial: the largest takes {measured.memory_bytes / 2**30:.1f} GiB"


def _named(point: Mapping[str, Any]) -> str:
    return ", ".join(f"{key}={value}" for key, value in point.items())
