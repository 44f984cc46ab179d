"""Measure a few steps of a search's trials, to know their hours and cost before they are spent."""

import math
import resource
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import ray
from ray.exceptions import RayError, RayTaskError

from smolvla_core.errors import first_line
from tune.console import counted, duration
from tune.finalists import planned_runs
from tune.gpus import hide_those_not_given, in_use
from tune.plan import expected_rungs, expected_samples
from tune.space import base_values, make_space, to_trial_config, warm_starts
from tune.spec import Resources, SearchSpec
from tune.trainable import failure_reason

STEPS = 3
"""Steps that are timed, after one that is not."""


@dataclass(frozen=True)
class Measured:
    """One point of the space, measured.

    Attributes:
        samples_per_s: of training, data loading and optimizer included.
        evaluation_s: one evaluation.
        start_s: from nothing to the first step, imports not counted.
        memory_bytes: the process's peak, imports included.
        gpu_bytes: the GPU's peak; 0 on a CPU.
        import_s: of the libraries, which a worker pays once and not each of its trials.
        gpu_held_bytes: what the process keeps of the GPU, CUDA's context and PyTorch's cache included.
        gpu_total_bytes: the whole GPU.
    """

    samples_per_s: float
    evaluation_s: float
    start_s: float
    memory_bytes: int
    gpu_bytes: int
    import_s: float = 0.0
    gpu_held_bytes: int = 0
    gpu_total_bytes: int = 0


def measure(config: Mapping[str, Any]) -> Measured:
    """Measure one configuration in this process.

    Args:
        config: a ``TrialConfig`` as nested values.

    Raises:
        UserError: the trial could not be prepared.
    """
    hide_those_not_given()
    others = in_use()
    began = time.perf_counter()
    import torch

    from smolvla_core.config import TrialConfig
    from smolvla_core.schedule import learning_rate
    from smolvla_core.trial import prepare

    import_s = time.perf_counter() - began
    trial_config = TrialConfig.from_dict(config)
    began = time.perf_counter()
    trial = prepare(trial_config)
    start_s = time.perf_counter() - began
    learner, batch_size = trial.learner, trial_config.optim.batch_size

    def step() -> None:
        batch = trial.training(learner.samples_seen, batch_size)
        learner.step(batch, learning_rate(trial_config.optim, learner.samples_seen))

    step()  # the first allocates and compiles
    began = time.perf_counter()
    for _ in range(STEPS):
        step()
    steps_s = time.perf_counter() - began
    began = time.perf_counter()
    trial.scores()
    evaluation_s = time.perf_counter() - began
    on_gpu = learner.device.type == "cuda"
    gpu = torch.cuda.max_memory_allocated() if on_gpu else 0
    free, total = torch.cuda.mem_get_info() if on_gpu else (0, 0)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    held = max(gpu, total - free - round(others))  # others' memory may have been freed meanwhile
    return Measured(STEPS * batch_size / steps_s, evaluation_s, start_s, peak, gpu, import_s, held, total)


def points_to_measure(spec: SearchSpec) -> dict[str, dict[str, Any]]:
    """The warm starts, and the point that needs the most memory."""
    points, (name, largest) = warm_starts(spec), largest_point(spec)
    return points if name in points else {**points, name: largest}


def largest_point(spec: SearchSpec) -> tuple[str, dict[str, Any]]:
    """The point that needs the most memory: a warm start by its name where no corner of the space needs more."""
    base = base_values(spec)

    def weight(point: Mapping[str, Any]) -> tuple[bool, int, int]:
        values = {**base, **point}
        batch = values["optim.batch_size"]
        at_once = min(batch, values["optim.micro_batch"] or batch)
        return not values["policy.train_expert_only"], at_once, values["policy.chunk_size"]

    points = {**warm_starts(spec), "largest": max(make_space(spec).corners(), key=weight)}
    return max(points.items(), key=lambda item: weight(item[1]))  # the first of equals


def probe(spec: SearchSpec, resources: Resources, points: Mapping[str, Mapping[str, Any]]) -> dict[str, Measured | str]:
    """Measure some points, each in a process of its own with a trial's resources.

    Returns:
        name of the point -> what was measured, or why it could not be. Call it inside a Ray session.
    """
    options = {"num_cpus": resources.cpus, "num_gpus": resources.gpus, "max_retries": 0}
    remote = ray.remote(max_calls=1)(measure).options(**options)
    found: dict[str, Measured | str] = {}
    # one after the other: trials that share a machine would slow each other, which is said below
    for name, point in points.items():
        try:
            found[name] = ray.get(remote.remote(to_trial_config(spec, point).to_dict()))
        except RayTaskError as error:
            found[name] = failure_reason(error.cause)
        except RayError as error:  # its process was killed, most often for its memory
            found[name] = f"its process died: {first_line(error)[:200]}"
    return found


def probe_lines(spec: SearchSpec, measured: Mapping[str, Measured | str], concurrent: int) -> Iterator[str]:
    """What was measured, and what the whole search would take.

    Args:
        spec: the search.
        measured: what :func:`probe` returned.
        concurrent: trials at once.
    """
    width = max(map(len, measured))
    gpu = any(isinstance(point, Measured) and point.gpu_bytes for point in measured.values())
    yield f"Measured over {STEPS} steps, one trial at a time"
    yield f"  {'':<{width}}  samples/s  evaluation     start     memory{'        GPU' if gpu else ''}"
    for name, point in measured.items():
        yield f"  {name:<{width}}  {_cells(point, gpu) if isinstance(point, Measured) else f'FAILED: {point}'}"
    points = [point for point in measured.values() if isinstance(point, Measured)]
    if not points:
        yield "The search would fail as these did; nothing can be said about its hours"
        return
    seconds = sorted(search_seconds(spec, point, concurrent) for point in points)
    shared = ", if they do not slow each other" if concurrent > 1 else ""
    yield f"The search: about {_span(*map(duration, (seconds[0], seconds[-1])))}, {concurrent} at once{shared}"
    if spec.finalists is not None:
        after = sorted(finalist_seconds(spec, point, concurrent) for point in points)
        yield f"The finalists: about {_span(*map(duration, (after[0], after[-1])))} after it"
        seconds = [search + finalists for search, finalists in zip(seconds, after, strict=True)]
    price = spec.resources.cost_per_hour
    if price is not None:
        hours = sorted(
            (trial_seconds(spec, point) + planned_runs(spec) * _whole_trial(spec, point)) / 3600 for point in points
        )
        costs = _span(*(f"{price * end:,.2f}" for end in (hours[0], hours[-1])))
        spent = _span(*(f"{end:,.2f}" for end in (hours[0], hours[-1])))
        yield f"Cost: about {costs}, for {spent} hours of trials at {price:g} an hour"
    limit = spec.budget.hours
    if limit is not None and seconds[-1] > limit * 3600:
        verb = "is" if seconds[0] > limit * 3600 else "may be"
        less = "fewer trials will run then" + (", and perhaps not all finalists" if spec.finalists else "")
        yield f"Warning: that {verb} more than budget.hours, {counted(limit, 'hour')}; {less}"


def search_seconds(spec: SearchSpec, measured: Measured, concurrent: int) -> float:
    """Seconds of a whole search whose trials all behave like one that was measured.

    At least those of a whole trial, such as the baseline's: more machines do not make it faster.
    """
    together = trial_seconds(spec, measured) / min(concurrent, spec.budget.trials)
    return max(together, _whole_trial(spec, measured)) + measured.import_s


def finalist_seconds(spec: SearchSpec, measured: Measured, concurrent: int) -> float:
    """Seconds of the finalists, each like a trial that was measured."""
    return math.ceil(planned_runs(spec) / concurrent) * _whole_trial(spec, measured)


def _whole_trial(spec: SearchSpec, measured: Measured) -> float:
    return spec.samples / measured.samples_per_s + len(spec.rungs) * measured.evaluation_s + measured.start_s


def trial_seconds(spec: SearchSpec, measured: Measured) -> float:
    """Seconds of all trials one after the other, each like one that was measured."""
    evaluations = sum(rung.trials for rung in expected_rungs(spec))
    training = expected_samples(spec) / measured.samples_per_s
    return training + evaluations * measured.evaluation_s + spec.budget.trials * measured.start_s


def _cells(point: Measured, gpu: bool) -> str:
    memory = f"{point.memory_bytes / 2**30:.1f} GiB"
    graphics = f"  {point.gpu_bytes / 2**30:5.1f} GiB" if gpu else ""
    return f"{point.samples_per_s:9,.1f}  {point.evaluation_s:8,.1f} s  {point.start_s:6,.1f} s  {memory:>9}{graphics}"


def _span(low: str, high: str) -> str:
    return low if low == high else f"{low} to {high}"
