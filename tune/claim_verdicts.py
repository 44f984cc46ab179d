"""What the recipe claims, and by which rule trainings support it; ``tune.claims`` makes them."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tune.acted import gain_over, points
from tune.closed_loop import pooled
from tune.effects import OBJECTIVE, PRECISION, Effect, fall, saving
from tune.fixed_runs import SEED
from tune.intervals import Interval, percent
from tune.records import TrialRecord
from tune.space import warm_starts
from tune.spec import SearchSpec
from tune.summary import BASELINE

STARTING_POINT = {
    "weighting.scheme": "temporal",
    "weighting.alpha": 0.0,
    "optim.batch_size": 8,
    "policy.chunk_size": 50,
}
CHANGES: dict[str, dict[str, Any]] = {
    "alpha 1": {"weighting.alpha": 1.0},
    "batch 16": {"optim.batch_size": 16},
    "chunk 30": {"policy.chunk_size": 30},
}
TOGETHER = "together"


@dataclass(frozen=True)
class Claim:
    """What the recipe promises: at least ``promised``, as a share."""

    key: str
    words: str
    measured: str
    promised: float


PLACED = "eggs placed in the closed loop, in points"
CLAIMS = (
    Claim("hard segments", "+15-25 % on hard segments", f"fall of {OBJECTIVE}", 0.15),
    Claim("convergence, samples", "+10 % convergence", "samples saved to the baseline's final error", 0.10),
    Claim("convergence, seconds", "+10 % convergence", "seconds saved to the baseline's final error", 0.10),
    Claim("precision", "+8 % precision", f"fall of {PRECISION}", 0.08),
    Claim("success", "success 60 to 75-80 %", PLACED, 0.15),
)


def variants(spec: SearchSpec) -> dict[str, dict[str, Any]]:
    """Name -> values by dotted key: the baseline, each change alone, all together."""
    points = warm_starts(spec)
    start = {**points.get(BASELINE, next(iter(points.values()), {})), **STARTING_POINT}
    every = {key: value for change in CHANGES.values() for key, value in change.items()}
    return {BASELINE: start, **{name: start | change for name, change in CHANGES.items()}, TOGETHER: start | every}


def verdict(effect: Effect, promised: float) -> str:
    """``supported``, ``not supported`` or ``undecided``.

    Supported: the whole interval is above 0 and the estimate is at least what is promised. Not
    supported: the whole interval is below what is promised. Else undecided, and where an estimate is
    an upper bound it supports nothing.
    """
    value = effect.value
    if value is None:
        return "not measured"
    if value.low is None or value.high is None:
        return "undecided"
    if value.high < promised:
        return "not supported"
    return "supported" if value.low > 0 and value.mean >= promised and not effect.at_most else "undecided"


def evaluated(spec: SearchSpec, records: Sequence[TrialRecord], evaluator: str | None = None) -> list[dict[str, Any]]:
    """A row for each change and claim, from the trainings that are complete with the same seeds as the baseline's.

    Args:
        spec: of the trainings.
        records: of them.
        evaluator: whose word on what they achieve counts; None where none has let them act.
    """
    runs: dict[str, dict[int, TrialRecord]] = {name: {} for name in variants(spec)}
    for record in records:
        if record.outcome is not None and record.outcome.state == "complete" and record.name in runs:
            runs[record.name][int(record.params[SEED])] = record
    rows = []
    for name in (*CHANGES, TOGETHER):
        seeds = sorted(set(runs[name]) & set(runs[BASELINE]))
        changed, baseline = ([runs[each][seed] for seed in seeds] for each in (name, BASELINE))
        for claim in CLAIMS:
            effect = Effect(None, "no pair of trainings is complete")
            if seeds:
                effect = _effect(claim, changed, baseline, evaluator)
            rows.append(
                {
                    "change": name,
                    "claim": claim.words,
                    "measured": claim.measured,
                    "promised": claim.promised,
                    "seeds": len(seeds),
                    "effect": effect.value.to_dict() if effect.value else None,
                    "at_most": effect.at_most,
                    "verdict": verdict(effect, claim.promised),
                    "note": effect.note,
                }
            )
    return rows


def _effect(
    claim: Claim, changed: Sequence[TrialRecord], baseline: Sequence[TrialRecord], evaluator: str | None
) -> Effect:
    if claim.measured == PLACED:
        return _placed(changed, baseline, evaluator)
    if claim.key.startswith("convergence"):
        return saving(changed, baseline, seconds=claim.key.endswith("seconds"))
    return fall(changed, baseline, OBJECTIVE if claim.key == "hard segments" else PRECISION)


def _placed(changed: Sequence[TrialRecord], baseline: Sequence[TrialRecord], evaluator: str | None) -> Effect:
    """Points gained in the closed loop, paired by seed and instance."""
    if evaluator is None:
        return Effect(None, "no closed loop")
    ours, theirs = (
        [each for run in runs for each in run.achieved if each.evaluator == evaluator] for runs in (changed, baseline)
    )
    if not len(ours) == len(theirs) == len(changed):
        return Effect(None, "not all of these trainings have acted")
    if not any(next(iter(pooled(side).values())).mean for side in (ours, theirs)):
        return Effect(None, "neither places an egg")
    return Effect(gain_over(ours, theirs))


def table_lines(rows: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """The rows as a Markdown table."""
    yield "| change | claim | measured as | effect | seeds | verdict |"
    yield "|---|---|---|---|---|---|"
    for row in rows:
        effect = row["effect"]
        text = "-"
        if effect:
            text = points(effect) if row["measured"] == PLACED else percent(Interval(**effect))
        text = f"{'at most ' if row['at_most'] else ''}{text}"
        note = f" ({row['note']})" if row["note"] else ""
        yield (
            f"| {row['change']} | {row['claim']} | {row['measured']} | {text} | {row['seeds']} | "
            f"{row['verdict']}{note} |"
        )
