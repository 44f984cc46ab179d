"""``resources: auto``: as many trials on a machine as fit, and no more."""

import math

import pytest
import ray

from smolvla_core.errors import ConfigError
from tests.core_fixtures import tiny_trial
from tests.test_probe import make
from tune.packing import Machine, machines, pack, packed_line, resources_of, while_measuring
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


def test_auto_is_in_place_of_numbers_and_survives_being_written():
    spec = make(resources="auto")
    assert spec.resources.auto
    assert spec.to_dict()["resources"] == {"auto": True, "cost_per_hour": None}
    assert SearchSpec.from_dict(spec.to_dict()) == spec
    assert make(resources={"auto": True, "cost_per_hour": 2}).resources.cost_per_hour == 2
    with pytest.raises(SpecError, match="auto measures gpus and cpus; leave them out, or auto"):
        make(resources={"auto": True, "gpus": 0.5})


def test_what_is_given_is_taken_without_a_measurement():
    assert resources_of(make(resources={"cpus": 3})) == (Resources(cpus=3), None)


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
        resources, line = resources_of(spec)
        assert resources.gpus == 0
        assert resources.cpus in (1, 2)
        assert line.startswith(f"Resources  {resources.cpus:g} CPUs a trial: the largest takes ")
        lost = {**trial, "data": {**trial["data"], "train": [{"root": "/nowhere"}]}}
        with pytest.raises(
            ConfigError, match=r"the largest trial \(policy.chunk_size=30\) cannot be measured: .*/nowhere"
        ):
            resources_of(make(resources="auto", trial=lost, search=search, warm_start={}))
    finally:
        ray.shutdown()
