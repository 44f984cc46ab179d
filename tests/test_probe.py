"""The probe: what is measured, and hours and cost by hand."""

import pytest
import ray

from tests.core_fixtures import tiny_trial
from tune.plan import expected_samples
from tune.probe import (
    Measured,
    finalist_seconds,
    measure,
    points_to_measure,
    probe,
    probe_lines,
    search_seconds,
    trial_seconds,
)
from tune.spec import SearchSpec

GIB = 2**30
SLOW = Measured(samples_per_s=10.0, evaluation_s=2.0, start_s=5.0, memory_bytes=3 * GIB, gpu_bytes=0)
FAST = Measured(samples_per_s=20.0, evaluation_s=1.0, start_s=5.0, memory_bytes=GIB, gpu_bytes=0)


def make(trials=3, **sections):
    values = {
        "study": "eggs",
        "trial": {"data": {"train": [{"root": "/data/eggs"}]}, "optim": {"samples": 400}},
        "search": {"optim.batch_size": {"type": "categorical", "choices": [8, 16, 32]}},
        "budget": {"trials": trials},
        "asha": {"grace_samples": 100, "reduction_factor": 2},
        "storage": "/runs",
    }
    return SearchSpec.from_dict(values | sections)


def test_seconds_by_hand():
    # 3 trials to 100 samples, 2 of them on to 200, 1.5 on to 400
    assert expected_samples(make()) == 800
    # 800 samples at 10/s, 6.5 evaluations of 2 s, 3 starts of 5 s
    assert trial_seconds(make(), SLOW) == pytest.approx(80 + 13 + 15)
    assert search_seconds(make(), SLOW, 1) == pytest.approx(108)
    assert search_seconds(make(), SLOW, 2) == pytest.approx(54)


def test_no_number_of_machines_makes_a_search_shorter_than_one_trial():
    # 400 samples at 10/s, 3 evaluations of 2 s, a start of 5 s
    assert search_seconds(make(), SLOW, 3) == pytest.approx(51)
    assert search_seconds(make(), SLOW, 1000) == pytest.approx(51)
    assert search_seconds(make(1), SLOW, 8) == search_seconds(make(1), SLOW, 1) == pytest.approx(51)


def test_imports_are_paid_once_and_not_by_each_trial():
    with_import = Measured(10.0, 2.0, 5.0, GIB, 0, import_s=30.0)
    assert search_seconds(make(), with_import, 1) == pytest.approx(108 + 30)


def test_what_is_printed():
    spec = make(resources={"cpus": 1, "cost_per_hour": 36.0})
    lines = list(probe_lines(spec, {"seed_baseline": SLOW, "largest": FAST}, 2))
    assert (
        "\n".join(lines)
        == """\
Measured over 3 steps, one trial at a time
                 samples/s  evaluation     start     memory
  seed_baseline       10.0       2.0 s     5.0 s    3.0 GiB
  largest             20.0       1.0 s     5.0 s    1.0 GiB
The search: about 31 s to 54 s, 2 at once, if they do not slow each other
Cost: about 0.61 to 1.08, for 0.02 to 0.03 hours of trials at 36 an hour"""
    )


def test_columns_line_up_with_a_gpu_and_large_numbers():
    big = Measured(12_345.6, 1234.5, 123.4, 123 * GIB, 79 * GIB)
    lines = list(probe_lines(make(), {"a": big, "b": SLOW}, 1))
    assert lines[1].endswith("GPU")
    assert len({len(line) for line in lines[1:4]}) == 1
    assert "79.0 GiB" in lines[2]
    assert lines[4] == "The search: about 31 s to 108 s, 1 at once" or lines[4].endswith("1 at once")
    assert not any(line.startswith(("Cost", "Warning")) for line in lines)


@pytest.mark.parametrize(
    ("hours", "words"),
    [
        (1.0, None),
        (0.02, "Warning: that may be more than budget.hours, 0.02 hours; fewer trials will run then"),  # 72 s
        (0.01, "Warning: that is more than budget.hours, 0.01 hours; fewer trials will run then"),  # 36 s
    ],
)
def test_a_budget_of_hours_that_will_not_do_is_said(hours, words):
    spec = make(budget={"trials": 3, "hours": hours})
    lines = list(probe_lines(spec, {"slow": SLOW, "fast": FAST}, 1))  # 108 s and 61.5 s
    warnings = [line for line in lines if line.startswith("Warning")]
    assert warnings == ([] if words is None else [words])


def test_finalists_are_counted_in_the_hours_and_the_cost():
    spec = make(budget={"trials": 3, "hours": 0.05}, resources={"cost_per_hour": 36}, finalists={"k": 2, "seeds": 3})
    without = make(budget={"trials": 3, "hours": 0.05}, resources={"cost_per_hour": 36})
    whole = spec.samples / SLOW.samples_per_s + len(spec.rungs) * SLOW.evaluation_s + SLOW.start_s
    assert finalist_seconds(spec, SLOW, 1) == pytest.approx(6 * whole)
    assert finalist_seconds(spec, SLOW, 4) == pytest.approx(2 * whole)
    assert finalist_seconds(without, SLOW, 1) == 0
    lines = list(probe_lines(spec, {"slow": SLOW}, 1))
    assert any(line.startswith("The finalists: about ") for line in lines)
    assert any(line.endswith("fewer trials will run then, and perhaps not all finalists") for line in lines)
    assert not any("Warning" in line for line in probe_lines(without, {"slow": SLOW}, 1))
    cost, alone = (next(line for line in probe_lines(s, {"slow": SLOW}, 1) if "Cost" in line) for s in (spec, without))
    paid, paid_alone = (float(line.split()[2].rstrip(",")) for line in (cost, alone))
    assert paid == pytest.approx(paid_alone + 36 * 6 * whole / 3600, abs=0.02)


def test_a_point_that_could_not_be_measured_is_told_and_left_out():
    lines = list(probe_lines(make(), {"baseline": SLOW, "largest": "out of memory"}, 1))
    assert "  largest   FAILED: out of memory" in lines
    assert "The search: about 108 s, 1 at once" in lines
    none = list(probe_lines(make(resources={"cost_per_hour": 1}), {"largest": "out of memory"}, 1))
    assert none[-1] == "The search would fail as these did; nothing can be said about its hours"


BATCH = {"optim.batch_size": {"type": "categorical", "choices": [8, 32]}}
CHUNK = {"policy.chunk_size": {"type": "categorical", "choices": [30, 50]}}
WHOLE = {"policy.train_expert_only": {"type": "categorical", "choices": [True, False]}}


@pytest.mark.parametrize(
    ("search", "start", "fixed", "largest"),
    [
        (BATCH | CHUNK, {}, {}, {"optim.batch_size": 32, "policy.chunk_size": 50}),
        (BATCH | CHUNK, {"optim.batch_size": 32, "policy.chunk_size": 50}, {}, None),  # measured as a warm start
        (
            BATCH | CHUNK,
            {"optim.batch_size": 32, "policy.chunk_size": 30},
            {},
            {"optim.batch_size": 32, "policy.chunk_size": 50},
        ),
        # four samples at once whatever the batch: every point needs as much
        (BATCH, {"optim.batch_size": 8}, {"optim": {"samples": 400, "micro_batch": 4}}, None),
        # what is trained weighs more than the batch
        (
            BATCH | WHOLE,
            {"optim.batch_size": 32, "policy.train_expert_only": True},
            {},
            {"optim.batch_size": 32, "policy.train_expert_only": False},
        ),
    ],
)
def test_the_warm_starts_are_measured_and_the_point_that_needs_most_memory(search, start, fixed, largest):
    trial = {"data": {"train": [{"root": "/data/eggs"}]}, "optim": {"samples": 400}} | fixed
    spec = make(search=search, trial=trial, warm_start={"seed_baseline": start} if start else {})
    points = points_to_measure(spec)
    assert points.pop("seed_baseline", {}) == start
    assert points == ({} if largest is None else {"largest": largest})


def test_a_trial_is_measured(generic_root, cache_dir):
    found = measure(tiny_trial(generic_root, cache_dir).to_dict())
    assert found.samples_per_s > 0
    assert found.evaluation_s > 0
    assert found.memory_bytes > 100 * 2**20
    assert found.gpu_bytes == 0


@pytest.fixture
def one_ray():
    ray.init(num_cpus=1, include_dashboard=False, logging_level="ERROR", log_to_driver=False)
    yield
    ray.shutdown()


@pytest.mark.slow
def test_a_point_that_fails_or_dies_is_a_line_and_no_traceback(one_ray, monkeypatch):
    def stub(config):
        import os

        size = config["optim"]["batch_size"]
        if size == 8:
            raise RuntimeError("planted fault\nwith more lines")
        if size == 16:
            os._exit(1)
        return "measured"

    monkeypatch.setattr("tune.probe.measure", stub)
    spec = make(warm_start={"raises": {"optim.batch_size": 8}, "dies": {"optim.batch_size": 16}})
    found = probe(spec, spec.resources, points_to_measure(spec))
    assert found["raises"] == "RuntimeError: planted fault"
    assert found["dies"].startswith("its process died: ")
    assert "\n" not in found["dies"]
    assert found["largest"] == "measured"
