"""Measure a few steps of a search's trials, to know their hours and cost before they are spent."""

import resource
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import ray

from tune.plan import expected_rungs, expected_samples
from tune.report import duration
from tune.space import make_space, to_trial_config, warm_starts
from tune.spec import SearchSpec

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
    """

    samples_per_s: float
    evaluation_s: float
    start_s: float
    memory_bytes: int
    gpu_bytes: int


def measure(config: Mapping[str, Any]) -> Measured:
    """Measure one configuration in this process.

    Args:
        config: a ``TrialConfig`` as nested values.

    Raises:
        UserError: the trial could not be prepared.
    """
    import torch

    from smolvla_core.config import TrialConfig
    from smolvla_core.evaluate import evaluate
    from smolvla_core.schedule import learning_rate
    from smolvla_core.trial import prepare

    trial_config = TrialConfig.from_dict(config)
    began = time.perf_counter()
    trial = prepare(trial_config)
    start_s = time.perf_counter() - began
    learner, batch_size = trial.learner, trial_config.optim.batch_size

    def step() -> None:
        batch = trial.maker.training(trial.stream, learner.samples_seen, batch_size)
        learner.step(batch, learning_rate(trial_config.optim, learner.samples_seen))

    step()  # the first allocates and compiles
    began = time.perf_counter()
    for _ in range(STEPS):
        step()
    steps_s = time.perf_counter() - began
    began = time.perf_counter()
    evaluate(learner, trial.maker, trial.frames)
    evaluation_s = time.perf_counter() - began
    gpu = torch.cuda.max_memory_allocated() if learner.device.type == "cuda" else 0
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return Measured(STEPS * batch_size / steps_s, evaluation_s, start_s, peak, gpu)


def probe(spec: SearchSpec) -> dict[str, Measured]:
    """Measure the warm starts and the largest batch of a search, each in a process with a trial's resources.

    Returns:
        name of the point -> what was measured. Call it inside a Ray session.
    """
    points = warm_starts(spec) or {"first": make_space(spec).cover()[0]}
    largest = max(make_space(spec).corners(), key=lambda point: (point.get("optim.batch_size", 0), str(point)))
    if largest.get("optim.batch_size") not in [point.get("optim.batch_size") for point in points.values()]:
        points["largest batch"] = largest
    remote = ray.remote(max_calls=1)(measure).options(num_cpus=spec.resources.cpus, num_gpus=spec.resources.gpus)
    # one after the other: trials that share a machine would slow each other, which is said below
    return {name: ray.get(remote.remote(to_trial_config(spec, point).to_dict())) for name, point in points.items()}


def probe_lines(spec: SearchSpec, measured: Mapping[str, Measured], concurrent: int) -> Iterator[str]:
    """What was measured, and what the whole search would take.

    Args:
        spec: the search.
        measured: what :func:`probe` returned.
        concurrent: trials at once.
    """
    width = max(len(name) for name in measured)
    yield f"Measured over {STEPS} steps, one trial at a time"
    for name, point in measured.items():
        gpu = f", {point.gpu_bytes / 2**30:.1f} GiB on the GPU" if point.gpu_bytes else ""
        yield (
            f"  {name:<{width}}  {point.samples_per_s:8.1f} samples/s   evaluation {point.evaluation_s:.1f} s   "
            f"start {point.start_s:.1f} s   {point.memory_bytes / 2**30:.1f} GiB{gpu}"
        )
    slow, fast = (search_seconds(spec, m, concurrent) for m in _slowest_and_fastest(measured))
    span = duration(slow) if duration(slow) == duration(fast) else f"{duration(fast)} to {duration(slow)}"
    yield f"The search: about {span} with {concurrent} trials at once, if they do not slow each other"
    price = spec.resources.cost_per_hour
    if price is not None:
        hours = slow * concurrent / 3600
        yield f"Cost: at most about {hours * price:,.2f} ({hours:,.1f} trial-hours at {price:g})"
    if spec.budget.hours is not None and fast > spec.budget.hours * 3600:
        yield f"Warning: that is more than budget.hours ({spec.budget.hours:g}); fewer trials will run"


def search_seconds(spec: SearchSpec, measured: Measured, concurrent: int) -> float:
    """Seconds of a whole search whose trials all behave like one that was measured."""
    evaluations = sum(rung.trials for rung in expected_rungs(spec))
    training = expected_samples(spec) / measured.samples_per_s
    starts = spec.budget.trials * measured.start_s
    return (training + evaluations * measured.evaluation_s + starts) / concurrent


def _slowest_and_fastest(measured: Mapping[str, Measured]) -> tuple[Measured, Measured]:
    by_speed = sorted(measured.values(), key=lambda point: point.samples_per_s)
    return by_speed[0], by_speed[-1]
