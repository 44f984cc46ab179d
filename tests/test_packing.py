"""``resources: auto``: as many trials on a machine as fit, and no more."""

import math
import os

import pytest
import ray
from ray.cluster_utils import Cluster

from smolvla_core.errors import ConfigError
from tests.core_fixtures import tiny_trial
from tests.test_probe import make
from tune.capacity import concurrency
from tune.gpus import hide_those_not_given, in_use, least_free
from tune.packing import Machine, idle, left_idle, machines, pack, packed_line, resources_of, while_measuring
from tune.probe import Measured
from tune.spec import Resources, SearchSpec, SpecError

GIB = 2**30


def measured(memory: float, held: float = 0, total: float = 0) -> Measured:
    return Measured(1.0, 1.0, 1.0, int(memory * GIB), int(held * GIB), 0.0, int(held * GIB), int(total * GIB))


@pytest.mark.parametrize(
    ("trial", "machine", "cpus", "gpus"),
    [
        # 72 of 80 GiB are given out: three trials of 21
        (measured(4, 21, 80), Machine(16, 1, 128 * GIB), 5.3333, 0.3333),
        (measured(4, 21, 80), Machine(32, 4, 512 * GIB), 2.6666, 0.3333),
        # one that needs more than is given out still runs, alone
        (measured(4, 75, 80), Machine(16, 1, 128 * GIB), 16, 1),
        # two CPUs for eight that would fit by memory
        (measured(1, 8, 80), Machine(2, 1, 64 * GIB), 1, 0.5),
        # 0.8 of 16 GiB hold three of 4
        (measured(4, 2, 80), Machine(16, 1, 16 * GIB), 5.3333, 0.3333),
        # without a GPU: a CPU each, unless memory ends first
        (measured(2), Machine(8, 0, 64 * GIB), 1, 0),
        (measured(10), Machine(8, 0, 64 * GIB), 1.6, 0),
        (measured(100), Machine(8, 0, 64 * GIB), 8, 0),
        # Ray does not tell the memory
        (measured(10), Machine(8, 0, math.inf), 1, 0),
    ],
)
def test_by_hand(trial, machine, cpus, gpus):
    asked = pack(trial, [machine])
    assert (asked.cpus, asked.gpus) == (cpus, gpus)
    # Ray places that many, and their memory fits
    at_once = math.floor(machine.cpus / asked.cpus)
    if gpus:
        at_once = min(at_once, math.floor(1 / gpus) * int(machine.gpus))
        assert math.floor(1 / gpus) * trial.gpu_held_bytes <= max(0.9 * trial.gpu_total_bytes, trial.gpu_held_bytes)
    assert at_once * trial.memory_bytes <= max(0.8 * machine.memory_bytes, trial.memory_bytes)


def test_machines_that_differ_get_what_fits_on_each():
    trial = measured(4, 21, 80)
    asked = pack(trial, [Machine(16, 1, 128 * GIB), Machine(4, 1, 128 * GIB)])
    assert asked.cpus == 1.3333
    assert math.floor(1 / asked.gpus) == 3


def gpu(free: float, number: float = 1) -> Machine:
    return Machine(16, number, 256 * GIB, free * GIB, f"of {free}")


@pytest.mark.parametrize(
    ("held", "on", "gpus", "left"),
    [
        # what is free counts, and not the whole: 0.9 of 45 hold two of 20
        (20, [gpu(45)], 0.5, []),
        # three on each of the four large, none on the small: 12 trials, and not the five of a whole GPU each
        (21, [gpu(80, 4), gpu(24)], 0.3333, [24]),
        # one on each of the nine, and not three on the large one
        (21, [gpu(80), gpu(24, 8)], 1, []),
        # the GPU that holds none is idle in any case
        (30, [gpu(80), gpu(24)], 0.5, [24]),
        # none can be left out where all are too small: it is tried nevertheless
        (30, [gpu(24), gpu(24.5)], 1, []),
    ],
)
def test_gpus_that_differ_run_as_many_trials_as_they_can_in_all(held, on, gpus, left):
    trial = measured(4, held, 80)
    asked = pack(trial, on)
    assert asked.gpus == gpus
    assert [machine.gpu_free_bytes / GIB for machine in idle(trial, on, asked)] == left


@pytest.mark.slow
def test_nothing_is_placed_on_gpus_that_are_left_idle(tmp_path):
    """Two machines with a pretended GPU each, of which one says that it has little memory left."""
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    try:
        for name, free in (("large", (81_000, 79_000)), ("small", (9_000,))):
            program = tmp_path / name / "nvidia-smi"
            program.parent.mkdir()
            program.write_text("#!/bin/sh\n" + "".join(f"echo {each}\n" for each in free))
            program.chmod(0o755)
            path = f"{program.parent}:{os.environ['PATH']}"
            cluster.add_node(num_cpus=2, num_gpus=len(free), env_vars={"PATH": path})
        ray.init(address=cluster.address, log_to_driver=False, logging_level="ERROR")
        small, large = sorted(machines(), key=lambda machine: machine.gpu_free_bytes)
        assert (small.gpu_free_bytes, large.gpu_free_bytes) == (9_000 * 2**20, 79_000 * 2**20)
        trial = measured(1, 30, 80)
        asked = pack(trial, [small, large])
        assert asked.gpus == 1  # two CPUs for two GPUs
        assert idle(trial, [small, large], asked) == [small]
        task = ray.remote(num_cpus=0, num_gpus=asked.gpus)(lambda: ray.get_runtime_context().get_node_id())
        assert concurrency(asked, None) == 3
        with left_idle([small]):
            assert {ray.get(task.remote()) for _ in range(3)} == {large.node}
            assert concurrency(asked, None) == 2
    finally:
        ray.shutdown()
        cluster.shutdown()


def test_a_gpu_s_memory_is_asked_for_by_the_number_that_a_process_sees(tmp_path, monkeypatch):
    program = tmp_path / "nvidia-smi"
    program.write_text(
        '#!/bin/sh\ncase "$*" in *memory.used*--id=1) echo 30000;; *memory.used*) echo 10;; *) echo 7; esac\n'
    )
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    assert least_free() == 7 * 2**20
    for seen, used in (("1,0", 30_000), ("0", 10), (None, 10), ("", 0)):
        if seen is None:
            monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
        else:
            monkeypatch.setenv("CUDA_VISIBLE_DEVICES", seen)
        assert in_use() == used * 2**20
    monkeypatch.setenv("PATH", str(tmp_path / "nothing"))
    assert (least_free(), in_use()) == (None, 0.0)


def test_a_trial_without_a_gpu_of_its_own_sees_none_of_the_machine_s():
    ray.init(num_cpus=1, num_gpus=1, include_dashboard=False, logging_level="ERROR", log_to_driver=False)

    def seen() -> str:
        os.environ.setdefault("CUDA_VISIBLE_DEVICES", "0")  # as Ray leaves it
        hide_those_not_given()
        return os.environ["CUDA_VISIBLE_DEVICES"]

    try:
        asked = [ray.remote(num_cpus=0, num_gpus=share)(seen).remote() for share in (0, 0.5)]
        assert ray.get(asked) == ["", "0"]
    finally:
        ray.shutdown()


def test_auto_is_in_place_of_numbers_and_survives_being_written():
    spec = make(resources="auto")
    assert spec.resources.auto
    assert spec.to_dict()["resources"] == {"auto": True, "cost_per_hour": None}
    assert SearchSpec.from_dict(spec.to_dict()) == spec
    assert make(resources={"auto": True, "cost_per_hour": 2}).resources.cost_per_hour == 2
    with pytest.raises(SpecError, match="auto measures gpus and cpus; leave them out, or auto"):
        make(resources={"auto": True, "gpus": 0.5})


def test_what_is_given_is_taken_without_a_measurement():
    with resources_of(make(resources={"cpus": 3})) as found:
        assert found == (Resources(cpus=3), None)


def test_lines():
    assert packed_line(measured(4, 21, 80), Resources(gpus=0.3333, cpus=5)) == (
        "Resources  3 trials on a GPU, 5 CPUs each: one holds 21.0 of 80.0 GiB"
    )
    assert packed_line(measured(2.5), Resources(cpus=1)) == "Resources  1 CPUs a trial: the largest takes 2.5 GiB"


@pytest.mark.slow
def test_the_largest_trial_is_measured_on_this_machine(generic_root, cache_dir):
    trial = tiny_trial(generic_root, cache_dir, optim__samples=400).to_dict()
    search = {"policy.chunk_size": {"type": "categorical", "choices": [20, 30]}}
    spec = make(resources="auto", trial=trial, search=search, warm_start={})
    ray.init(num_cpus=2, include_dashboard=False, logging_level="ERROR", log_to_driver=False)
    try:
        (here,) = machines()
        assert (here.cpus, here.gpus) == (2, 0)
        assert while_measuring([here]) == Resources(cpus=1, gpus=0)
        with resources_of(spec) as (resources, line):
            assert resources.gpus == 0
            assert resources.cpus in (1, 2)
            assert line.startswith(f"Resources  {resources.cpus:g} CPUs a trial: the largest takes ")
        lost = {**trial, "data": {**trial["data"], "train": [{"root": "/nowhere"}]}}
        impossible = make(resources="auto", trial=lost, search=search, warm_start={})
        words = r"the largest trial \(policy.chunk_size=30\) cannot be measured: .*/nowhere"
        with pytest.raises(ConfigError, match=words), resources_of(impossible):
            raise AssertionError
    finally:
        ray.shutdown()
