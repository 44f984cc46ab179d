"""What a search will do, in words, before it does it."""

import math
import textwrap
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from smolvla_core.r1pro import MOST_OFF_M
from smolvla_core.schedule import SHAPES
from tune.console import counted, format_value
from tune.finalists import planned_runs
from tune.preflight import Facts
from tune.space import Space, base_values, describe, ends, make_space, to_distribution, warm_starts
from tune.spec import SearchSpec
from tune.tracking.mlflow_store import mask

FEW_EPISODES = 5
"""Fewer held-out episodes than this are called few: an interval over them is wide."""
WIDTH = 80
"""Columns that the plan's prose keeps to; a path is never broken."""
LATE_SHARE = 0.1
"""A schedule that has moved the learning rate by less than this at the first rung is called late."""


@dataclass(frozen=True)
class RungPlan:
    """A rung, and how many trials are expected to reach it."""

    samples: int
    trials: float


def expected_rungs(spec: SearchSpec) -> list[RungPlan]:
    """How many trials reach each rung, if their values came in random order and the warm starts first.

    Asynchronous halving lets more go on than 1 in eta: a trial is compared with those before it, and
    the first of a rung with none.
    """
    protected, reached = len(spec.warm_start), float(spec.budget.trials)
    rungs = []
    for samples in spec.rungs:
        rungs.append(RungPlan(samples, reached))
        # trials between the last whole number and `reached` count by their share
        others = range(protected, math.ceil(reached))
        reached = protected + sum(_goes_on(i, spec.asha.reduction_factor) * min(1.0, reached - i) for i in others)
    return rungs


def _goes_on(before: int, eta: float) -> float:
    """Chance that a trial passes a rung that ``before`` trials have reached: that of a uniform value
    above the (1 - 1/eta) quantile of as many uniform values (Ray's, which interpolates).
    """
    return 1.0 if before == 0 else 1 / eta + (1 - 2 / eta) / (before + 1)


def expected_samples(spec: SearchSpec) -> float:
    """Samples that all trials are expected to draw."""
    rungs = expected_rungs(spec)
    before = [0, *(rung.samples for rung in rungs)]
    return sum(rung.trials * (rung.samples - start) for rung, start in zip(rungs, before, strict=False))


def late_knobs(spec: SearchSpec) -> dict[str, str]:
    """Searched keys that barely act before the first rung, each with the reason."""
    late = {}
    schedule, moved = _most_moved(spec)
    stage = min(_tried(spec, "curriculum.share")) * spec.samples
    for key in spec.search:
        if key in ("optim.schedule", "optim.final_lr") and 0 <= moved < LATE_SHARE:
            late[key] = f"{schedule} has lowered the learning rate by {moved:.1%} there"
        elif key.startswith("curriculum.") and stage > spec.asha.grace_samples:
            late[key] = f"the curriculum's late stage begins at {stage:,.0f} samples"
    return late


def _most_moved(spec: SearchSpec) -> tuple[str, float]:
    """Of the schedules that are tried, the one that has moved the learning rate most at the first
    rung, and by which share at most; -1 where all are constant.
    """
    warmup = min(_tried(spec, "optim.warmup_samples"))
    share = max(0.0, (spec.asha.grace_samples - warmup) / (spec.samples - warmup))
    moved = {name: 1.0 - SHAPES[name](1.0, 0.0, share) for name in _tried(spec, "optim.schedule") if name != "constant"}
    return max(moved.items(), key=lambda item: item[1], default=("constant", -1.0))


def _tried(spec: SearchSpec, key: str) -> list[Any]:
    """A key's choices, or the ends of its range; its one value where it is not searched."""
    return ends(to_distribution(spec.search[key])) if key in spec.search else [base_values(spec)[key]]


def plan_lines(spec: SearchSpec, facts: Facts | None, run_dir: str) -> Iterator[str]:
    """The plan, a line each.

    Args:
        spec: the search.
        facts: what the data holds; None where it was not opened.
        run_dir: where the results will go.
    """
    trials = counted(spec.budget.trials, "trial")
    hours = f" in at most {counted(spec.budget.hours, 'hour')}" if spec.budget.hours is not None else ""
    yield f"Study {spec.study}: {trials}{hours}, to {spec.objective.mode}imise {spec.objective.metric}"
    yield ""
    if facts is not None:
        yield from _data_lines(facts)
    yield from _labelled("Policy", _policy(spec))
    yield ""
    yield "Search space"
    yield from _space_lines(make_space(spec))
    yield ""
    yield from _warm_start_lines(spec)
    yield ""
    yield from _rung_lines(spec)
    yield ""
    yield from _finalist_lines(spec, facts)
    late = late_knobs(spec)
    if late:
        yield ""
        decided = "; finalists decide about them" if spec.finalists else ""
        yield f"Decided late: they hardly act before the first rung, so it cannot judge them{decided}"
        for key, reason in late.items():
            yield from _wrapped(f"{key}: {reason}")
    yield ""
    if facts is not None:
        yield from _labelled("Cache", facts.cache.text() if facts.cache else "off")
    yield from _labelled("Machine", _resources(spec))
    yield from _missing_gpus(spec)
    yield f"Results    {run_dir}"
    if spec.is_remote:
        yield f"States     {spec.storage.rstrip('/')}/{Path(run_dir).name}"
    uri = mask(spec.tracking.uri or "mlflow.db beside the results")
    yield f"MLflow     {f'{uri}, experiment {spec.experiment}' if spec.tracking.enabled else 'off'}"


def _data_lines(facts: Facts) -> Iterator[str]:
    data, objective = facts.dataset, facts.objective
    yield f"Data       {data['root']}"
    yield f"           {counted(data['episodes'], 'episode')}, {counted(data['frames'], 'frame')} at {data['fps']} Hz"
    yield (
        f"           {objective['train_episodes']} to train, {objective['val_episodes']} to validate, "
        f"{objective['test_episodes']} kept for the final test"
    )
    for other in data.get("others", ()):
        yield f"           and beside it {other['root']}"
        yield f"           {counted(other['episodes'], 'episode')}, {counted(other['frames'], 'frame')}, all to train"
    scored = objective.get("scored_episodes", objective["val_episodes"])
    if scored < FEW_EPISODES:
        unknown = "; what another choice would change is not known" if scored == 1 else ""
        yield f"           few: trials are compared on {counted(scored, 'episode')}{unknown}"
    yield from _labelled(
        "Objective",
        f"{counted(objective['critical_frames'], 'critical frame')} (rule: {objective['critical_rule']}), "
        f"{counted(objective['draws'], 'prediction')} each, over {objective['horizon_s']:g} s"
        + (f" at {objective['scored_hz']:g} Hz" if objective.get("scored_hz", data["fps"]) != data["fps"] else ""),
    )
    if "eef_off_m" in objective:
        off = f"{1000 * objective['eef_off_m']:.1f} mm off"
        used = "" if objective["eef_off_m"] <= MOST_OFF_M else ", which is too much: its error is left out"
        yield from _labelled("Hands", f"placed from the joints by a calibrated chain, {off}{used}")


def _policy(spec: SearchSpec) -> str:
    pretrained, frozen = _tried(spec, "policy.pretrained"), _tried(spec, "policy.train_expert_only")
    parts = {(True,): "its expert", (False,): "its expert and VLM"}.get(tuple(frozen), "its expert, or the VLM too,")
    return f"{' or '.join(map(str, pretrained))}; trains {parts} on {spec.samples:,} samples in a whole trial"


def _space_lines(space: Space) -> Iterator[str]:
    width = max(map(len, space.distributions))
    for key, distribution in space.distributions.items():
        when = " and ".join(f"{k} is {' or '.join(map(str, v))}" for k, v in space.conditions.get(key, {}).items())
        text = f"{describe(distribution)}{f'; when {when}' if when else ''}"
        yield from _wrapped(f"{key:<{width}}  {text}", hang=width + 2)


def _warm_start_lines(spec: SearchSpec) -> Iterator[str]:
    points = warm_starts(spec)
    if not points:
        yield "Warm starts: none, so that there is no baseline to measure a gain against"
        return
    yield "Warm starts: run first, never stopped early"
    width = max(map(len, points))
    for name, params in points.items():
        yield from _wrapped(f"{name:<{width}}  {_point(params)}", hang=width + 2)


def _point(params: Mapping[str, Any]) -> str:
    # a key stays with its value when the line is broken
    return ", ".join(f"{key}\0{format_value(value)}" for key, value in params.items())


def _rung_lines(spec: SearchSpec) -> Iterator[str]:
    rungs, trials = expected_rungs(spec), spec.budget.trials
    width = len(f"{rungs[-1].samples:,}")
    yield f"Rungs: trials are compared at each, and about 1 in {spec.asha.reduction_factor:g} goes on (ASHA)"
    for rung in rungs:
        about = "reached by all" if rung.trials == trials else f"reached by about {round(rung.trials)} of {trials}"
        yield f"  {rung.samples:>{width},} samples   {about}"
    total = expected_samples(spec)
    yield (
        f"  about {_rounded(total):,} samples in all, {total / (trials * spec.samples):.0%} of "
        f"{counted(trials, 'whole trial')}"
    )


def _finalist_lines(spec: SearchSpec, facts: Facts | None) -> Iterator[str]:
    if spec.finalists is None:
        yield "Finalists: none, so that no gain is measured on test episodes"
        yield "  add e.g. finalists: {k: 2, seeds: 3}"
        return
    runs = planned_runs(spec)
    yield f"Finalists: trained again to {spec.samples:,} samples, and scored once on test episodes"
    warm = f" and {', '.join(spec.warm_start)}" if spec.warm_start else ""
    best = "trial" if spec.finalists.k == 1 else f"{spec.finalists.k} trials"
    yield from _wrapped(
        f"the best {best}{warm}, with {counted(spec.finalists.seeds, 'seed')} each: {counted(runs, 'training')}, "
        f"{runs * spec.samples:,} samples more"
    )
    if spec.budget.hours is not None:
        yield f"  within the {counted(spec.budget.hours, 'hour')}: the search keeps time for them, at most half of it"
    if facts is not None and facts.objective["test_episodes"] < FEW_EPISODES:
        episodes = counted(facts.objective["test_episodes"], "test episode")
        yield f"  few: {episodes} can show a large gain only"
    if spec.finalists.seeds == 1:
        yield "  with one seed, the noise of training is in no interval"
    if spec.closed_loop is not None:
        instances, choose = len(spec.closed_loop.numbers), spec.closed_loop.choose
        yield f"  then each acts in {spec.closed_loop.env}: {counted(runs * instances, 'episode')}, {instances} each"
        if choose is not None:
            tries = max(1, len(choose.n_action_steps)) * len(choose.numbers)
            yield from _wrapped(
                f"what it achieves decides; so do the trials at the top rung before: {counted(tries, 'episode')} each"
            )


def _rounded(samples: float) -> int:
    """To three digits: it is an estimate."""
    digits = max(0, len(str(round(samples))) - 3)
    return round(samples / 10**digits) * 10**digits


def _resources(spec: SearchSpec) -> str:
    if spec.resources.auto:
        limit = f", at most {spec.max_concurrent} at once" if spec.max_concurrent else ""
        return f"as many trials at once as fit by what the largest is measured to need (auto){limit}"
    each = f"{counted(spec.resources.cpus, 'CPU')} and {counted(spec.resources.gpus, 'GPU')} a trial"
    limit = f"at most {spec.max_concurrent}" if spec.max_concurrent else "as many as fit"
    return f"{each}, {limit} at once"


def _missing_gpus(spec: SearchSpec) -> Iterator[str]:
    here = gpus_here()
    if not spec.resources.auto and spec.resources.gpus > here:
        yield from _wrapped(
            f"{counted(here, 'GPU')} here: run it where Ray has them, or lower what a trial asks for, e.g. "
            "--set resources.gpus=0"
        )


def gpus_here() -> int:
    """GPUs that torch can use on this machine."""
    import torch

    return torch.cuda.device_count()


def _labelled(label: str, text: str) -> Iterator[str]:
    return _wrapped(f"{label:<9}  {text}", hang=11, indent="")


def _wrapped(text: str, hang: int = 2, indent: str = "  ") -> Iterator[str]:
    lines = textwrap.wrap(
        text,
        WIDTH,
        initial_indent=indent,
        subsequent_indent=indent + " " * hang,
        break_long_words=False,
        break_on_hyphens=False,
    )
    for line in lines:
        yield line.replace("\0", " ")
