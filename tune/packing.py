"""``resources: auto``: how many trials share a machine, by what the largest of them was measured to need."""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import ray
from ray.util import list_named_actors
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from smolvla_core.errors import ConfigError
from tune.console import counted
from tune.gpus import least_free
from tune.probe import Measured, largest_point, probe
from tune.spec import Resources, SearchSpec

GPU_SHARE = 0.9
"""Of a GPU's free memory that is given out: what a trial needs varies a little."""
MEMORY_SHARE = 0.8
"""Of a machine's memory."""
_HELD = "left idle: "
"""The name of who holds a machine's GPUs begins with it; Ray's id of the machine follows."""
_GRAIN = 10_000
"""Ray counts shares of a GPU in parts of this many."""


@dataclass(frozen=True)
class Machine:
    """What a machine has.

    Attributes:
        cpus, gpus: by Ray's count.
        memory_bytes: main memory.
        gpu_free_bytes: of its GPU with the least free; None where that is not known.
        node: Ray's id.
    """

    cpus: float
    gpus: float
    memory_bytes: float
    gpu_free_bytes: float | None = None
    node: str = ""


def machines() -> list[Machine]:
    """Those of the Ray cluster that a trial would run on: with GPUs where any has some."""
    nodes = {node["NodeID"]: node["Resources"] for node in ray.nodes() if node["Alive"]}
    free = _free_gpu_memory([node for node, have in nodes.items() if have.get("GPU", 0) >= 1])
    every = [
        Machine(have.get("CPU", 0), have.get("GPU", 0), have.get("memory", math.inf), free.get(node), node)
        for node, have in nodes.items()
    ]
    with_gpus = [machine for machine in every if machine.gpus >= 1]
    return with_gpus or [machine for machine in every if machine.cpus >= 1]


def _free_gpu_memory(nodes: Sequence[str]) -> dict[str, float | None]:
    task: Any = ray.remote(num_cpus=0)(least_free)
    asked = {
        node: task.options(scheduling_strategy=NodeAffinitySchedulingStrategy(node, soft=False)).remote()
        for node in nodes
    }
    return {node: ray.get(answer) for node, answer in asked.items()}


def pack(measured: Measured, on: Sequence[Machine]) -> Resources:
    """What a trial asks Ray for, so that as many run at once as fit.

    Ray gives every trial the same share of a GPU. Where GPUs differ, the share is the one with which most trials
    run; it may be more than a small GPU holds, which is then to be :func:`left_idle`. On a GPU the number of trials
    is bounded by its free memory, and everywhere by a CPU and the main memory a trial.
    """
    if not measured.gpu_held_bytes:
        at_once = {machine: _by_memory(measured, machine) for machine in on}
        return Resources(cpus=min(_floored(machine.cpus / count) for machine, count in at_once.items()))
    held = {machine: _on_a_gpu(measured, machine) for machine in on}

    def trials(number: int) -> tuple[float, int]:
        return sum(number * machine.gpus for machine, most in held.items() if most >= number), -number

    number = max({most for most in held.values() if most} or {1}, key=trials)
    used = [machine for machine, most in held.items() if most >= number] or list(on)
    cpus = min(_floored(machine.cpus / (number * machine.gpus)) for machine in used)
    return Resources(cpus=cpus, gpus=_floored(1 / number))


def idle(measured: Measured, on: Sequence[Machine], resources: Resources) -> list[Machine]:
    """Machines whose GPUs do not hold as many trials as the share would place there."""
    if not resources.gpus:
        return []
    number = math.floor(1 / resources.gpus)
    found = [machine for machine in on if _on_a_gpu(measured, machine) < number]
    return found if len(found) < len(on) else []


@contextmanager
def left_idle(on: Sequence[Machine]) -> Iterator[None]:
    """Keep Ray from placing anything on the GPUs of some machines while the block runs."""
    taken = [
        _Nothing.options(  # type: ignore[attr-defined]
            name=f"{_HELD}{machine.node}",
            num_gpus=machine.gpus,
            scheduling_strategy=NodeAffinitySchedulingStrategy(machine.node, soft=False),
        ).remote()
        for machine in on
    ]
    ray.get([actor.__ray_ready__.remote() for actor in taken])
    try:
        yield
    finally:
        for actor in taken:
            ray.kill(actor)


def nodes_left_idle() -> set[str]:
    """Ray's ids of the machines that are :func:`left_idle`, by this study or another on the same cluster."""
    names = [str(actor["name"]) for actor in list_named_actors(all_namespaces=True)]
    return {name.removeprefix(_HELD) for name in names if name.startswith(_HELD)}


@ray.remote(num_cpus=0)
class _Nothing:
    """Holds what it was given."""


def _by_memory(measured: Measured, machine: Machine) -> int:
    """Trials that a machine's main memory and CPUs hold."""
    by_memory = MEMORY_SHARE * machine.memory_bytes / measured.memory_bytes if machine.memory_bytes else 1
    return max(1, math.floor(min(machine.cpus, by_memory)))  # in this order: the memory may be unknown, and infinite


def _on_a_gpu(measured: Measured, machine: Machine) -> int:
    """Trials that each GPU of a machine holds; 0 where it has not the memory for one."""
    free = machine.gpu_free_bytes
    if free is not None and free < measured.gpu_held_bytes:
        return 0
    room = measured.gpu_total_bytes if free is None else free
    by_gpu = math.floor(GPU_SHARE * room / measured.gpu_held_bytes)
    return max(1, min(by_gpu, math.floor(_by_memory(measured, machine) / machine.gpus)))


def _floored(share: float) -> float:
    return math.floor(share * _GRAIN) / _GRAIN


def while_measuring(on: Iterable[Machine]) -> Resources:
    """What a measurement takes: one CPU, and a whole GPU where there are any."""
    return Resources(gpus=1 if any(machine.gpus for machine in on) else 0)


@contextmanager
def resources_of(spec: SearchSpec) -> Iterator[tuple[Resources, str | None]]:
    """What each trial of a search gets, and a line on how that was found; None where it was given.

    Call it inside a Ray session. GPUs that are too small are kept free of trials while the block runs.

    Raises:
        ConfigError: the largest trial cannot be measured.
    """
    if not spec.resources.auto:
        yield spec.resources, None
        return
    on = machines()
    if not on:
        raise ConfigError(
            "resources.auto: the Ray cluster has no machine to measure a trial on yet; let it begin with one "
            "(min_workers: 1), or give gpus and cpus"
        )
    name, point = largest_point(spec)
    found = probe(spec, while_measuring(on), {name: point})[name]
    if isinstance(found, str):
        raise ConfigError(f"resources.auto: the largest trial ({_named(point)}) cannot be measured: {found}")
    resources = pack(found, on)
    too_small = idle(found, on, resources)
    with left_idle(too_small):
        yield resources, packed_line(found, resources) + _idle_words(too_small)


def _idle_words(machines: Sequence[Machine]) -> str:
    gpus = int(sum(machine.gpus for machine in machines))
    return f"; {counted(gpus, 'GPU')} with less free memory left idle" if gpus else ""


def packed_line(measured: Measured, resources: Resources) -> str:
    """How many trials share what, and by which measurement."""
    if measured.gpu_held_bytes:
        need, have = measured.gpu_held_bytes / 2**30, measured.gpu_total_bytes / 2**30
        count = counted(math.floor(1 / resources.gpus), "trial")
        return f"Resources  {count} on a GPU, {resources.cpus:g} CPUs each: one holds {need:.1f} of {have:.1f} GiB"
    return f"Resources  {resources.cpus:g} CPUs a trial: the largest takes {measured.memory_bytes / 2**30:.1f} GiB"


def _named(point: Mapping[str, Any]) -> str:
    return ", ".join(f"{key}={value}" for key, value in point.items())
