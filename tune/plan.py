"""What a search will do, in words, before it does it."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from smolvla_core.config import OptimConfig
from tune.preflight import Facts
from tune.space import Space, base_values, describe, make_space, to_trial_config, warm_starts
from tune.spec import SearchSpec

LATE_SHARE = 0.1
"""A schedule that has moved the learning rate by less than this at the first rung is called late."""


@dataclass(frozen=True)
class RungPlan:
    """A rung, and how many trials are expected to reach it."""

    samples: int
    trials: float


def expected_rungs(spec: SearchSpec) -> list[RungPlan]:
    """How many trials reach each rung if ASHA lets the best 1/eta of the unprotected go on."""
    protected = len(spec.warm_start)
    others = spec.budget.trials - protected
    eta = spec.asha.reduction_factor
    return [RungPlan(rung, protected + others / eta**level) for level, rung in enumerate(spec.rungs)]


def expected_samples(spec: SearchSpec) -> float:
    """Samples that all trials are expected to draw."""
    rungs = expected_rungs(spec)
    before = [0, *(rung.samples for rung in rungs)]
    return sum(rung.trials * (rung.samples - start) for rung, start in zip(rungs, before, strict=False))


def late_knobs(spec: SearchSpec) -> dict[str, str]:
    """Searched keys that barely act before the first rung, each with the reason."""
    grace, budget, base = spec.asha.grace_samples, spec.samples, base_values(spec)
    late = {}
    moved = 0.5 * (1 - math.cos(math.pi * grace / budget))
    for key in spec.search:
        if key in ("optim.schedule", "optim.final_lr") and moved < LATE_SHARE:
            late[key] = f"a cosine has lowered the learning rate by {moved:.1%} there"
        elif key.startswith("curriculum."):
            share = (
                base["curriculum.share"]
                if "curriculum.share" not in spec.search
                else spec.search["curriculum.share"].low
            )  # type: ignore[union-attr]
            if share * budget > grace:
                late[key] = f"the curriculum's late stage begins at {share * budget:,.0f} samples"
    return late


def plan_lines(spec: SearchSpec, facts: Facts | None, run_dir: str, concurrent: int | None = None) -> Iterator[str]:
    """The plan, a line each.

    Args:
        spec: the search.
        facts: what the data holds; None where it was not opened.
        run_dir: where the results will go.
        concurrent: trials at once, where that is known.
    """
    space = make_space(spec)
    yield f"Study {spec.study}: {spec.budget.trials} trials{_hours(spec)}, {spec.objective.mode}imise {spec.objective.metric}"
    if facts is not None:
        yield ""
        yield from _data_lines(facts)
    yield ""
    yield "Search space"
    yield from _space_lines(space)
    yield ""
    yield "Warm starts (run first, never stopped early)"
    for name, params in warm_starts(spec).items():
        yield f"  {name}: {_point(params)}"
    yield ""
    yield f"Rungs (ASHA, reduction factor {spec.asha.reduction_factor:g}); expected trials"
    for rung in expected_rungs(spec):
        yield f"  {rung.samples:>12,} samples   {rung.trials:5.1f}"
    total, whole = expected_samples(spec), spec.budget.trials * spec.samples
    yield f"  in all about {total:,.0f} samples, {total / whole:.0%} of {spec.budget.trials} full trainings"
    late = late_knobs(spec)
    if late:
        yield ""
        yield "Decided late: these act after the first rung, where trials that differ in them alone look alike"
        for key, reason in late.items():
            yield f"  {key}: {reason}"
    yield ""
    yield f"Each trial takes {spec.resources.cpus:g} CPUs and {spec.resources.gpus:g} GPUs{_concurrent(concurrent)}"
    yield f"Policy    {_policy(spec)}"
    yield f"Results   {run_dir}"
    uri = spec.tracking.uri or "mlflow.db beside the results"
    yield f"MLflow    {f'{uri}, experiment {spec.experiment}' if spec.tracking.enabled else 'off'}"


def _data_lines(facts: Facts) -> Iterator[str]:
    data, objective = facts.dataset, facts.objective
    yield f"Data      {data['root']}"
    yield (
        f"          {data['episodes']} episodes, {data['frames']:,} frames at {data['fps']} Hz: "
        f"{objective['train_episodes']} to train, {objective['val_episodes']} to validate, "
        f"{objective['test_episodes']} kept for the test"
    )
    yield (
        f"Objective {objective['critical_frames']} critical frames (rule: {objective['critical_rule']}), "
        f"{objective['draws']} draws, {objective['horizon_s']:g} s of each prediction"
    )


def _space_lines(space: Space) -> Iterator[str]:
    width = max(len(key) for key in space.distributions)
    for key, distribution in space.distributions.items():
        when = " and ".join(f"{k} is {' or '.join(map(str, v))}" for k, v in space.conditions.get(key, {}).items())
        yield f"  {key:<{width}}  {describe(distribution)}{f'   when {when}' if when else ''}"


def _point(params: Mapping[str, Any]) -> str:
    return ", ".join(
        f"{key} {value:g}" if isinstance(value, float) else f"{key} {value}" for key, value in params.items()
    )


def _hours(spec: SearchSpec) -> str:
    return "" if spec.budget.hours is None else f" or {spec.budget.hours:g} hours"


def _concurrent(concurrent: int | None) -> str:
    return "" if concurrent is None else f"; {concurrent} at once"


def _policy(spec: SearchSpec) -> str:
    config = to_trial_config(spec, make_space(spec).cover()[0])
    trained = "the expert" if config.policy.train_expert_only else "the expert and the VLM"
    return f"{config.policy.pretrained}, training {trained} for {_budget(config.optim)}"


def _budget(optim: OptimConfig) -> str:
    return f"{optim.samples:,} samples"
