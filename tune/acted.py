"""What a study's trainings achieved when they acted, for its summary."""

from collections.abc import Mapping, Sequence
from typing import Any

from tune.closed_loop import SCORES, Achieved, difference, pooled
from tune.console import counted
from tune.fixed_runs import SEED
from tune.intervals import Interval
from tune.records import TrialRecord
from tune.summary import baseline_trial

WORDS = {"eggs_placed": "eggs placed", "q": "Q", "success": "success"}
"""What the scores are called."""


def acted(
    finalists: Mapping[str, Any] | None, trials: Sequence[TrialRecord], trainings: Sequence[TrialRecord]
) -> list[dict[str, Any]]:
    """A row for each configuration and evaluator: finalists first, over their seeds, then single trials.

    Args:
        finalists: ``tune.finalists.compared``; None where the study has none.
        trials: of the search.
        trainings: of the finalists.

    Returns:
        rows with ``name``, ``evaluator``, ``rollouts``, ``seeds``, ``scores`` (name -> mean, low, high) and
        ``gain``: the difference to the baseline's first score (``mean``, ``low``, ``high``, paired by seed and
        instance, over the seeds that both have), None where there is none.
    """
    rows = []
    by_role: dict[tuple[str, str], dict[int, Achieved]] = {}
    for run in sorted(trainings, key=lambda run: run.number):
        for each in run.achieved:
            by_role.setdefault((str(run.name), each.evaluator), {})[int(run.params[SEED])] = each
    names = [str(row["name"]) for row in (finalists or {}).get("contenders", ())]
    names += sorted({name for name, _ in by_role} - set(names))
    against = baseline_trial(trials)
    first = against.name if against is not None else None
    for evaluator in sorted({evaluator for _, evaluator in by_role}):
        baseline = by_role.get((first, evaluator), {}) if first is not None else {}
        for name in names:
            seeds = by_role.get((name, evaluator))
            if seeds:
                shared = [seed for seed in seeds if seed in baseline] if name != first else []
                gain = gain_over([seeds[s] for s in shared], [baseline[s] for s in shared]) if shared else None
                rows.append(_row(name, evaluator, list(seeds.values()), gain))
    for trial in trials:
        rows += [_row(trial_name(trial), each.evaluator, [each], None) for each in trial.achieved]
        tried = sorted(trial.tried, key=lambda each: each.n_action_steps or 0)
        rows += [_row(trial_name(trial), _tried(each), [each], None) for each in tried]
    return rows


def acted_lines(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """What a study prints of it when it ends."""
    if not rows:
        return []
    width = max(len(row["name"]) for row in rows)
    lines = ["", "Closed loop"]
    for row in rows:
        scores = ", ".join(f"{WORDS[name]} {share(score)}" for name, score in row["scores"].items())
        gain = f"; {points(row['gain'])} {WORDS[next(iter(row['scores']))]} over the baseline" if row["gain"] else ""
        lines.append(
            f"  {row['name']:<{width}}  {row['evaluator']}, {counted(row['rollouts'], 'rollout')}: {scores}{gain}"
        )
    return lines


def share(score: Mapping[str, Any]) -> str:
    """``42.0 % (36.1 to 48.3)``."""
    return f"{100 * score['mean']:.1f} %{_between(score, '.1f')}"


def points(gain: Mapping[str, Any]) -> str:
    """``+15.2 points (3.0 to 27.4)``."""
    return f"{100 * gain['mean']:+.1f} points{_between(gain, '+.1f')}"


def _between(value: Mapping[str, Any], form: str) -> str:
    if value["low"] is None or value["high"] is None:
        return ""
    return f" ({100 * value['low']:{form}} to {100 * value['high']:{form}})"


def _row(name: str, evaluator: str, seeds: Sequence[Achieved], gain: Interval | None) -> dict[str, Any]:
    return {
        "name": name,
        "evaluator": evaluator,
        "rollouts": sum(len(each.rollouts) for each in seeds),
        "seeds": len(seeds),
        "scores": {key: score.to_dict() for key, score in pooled(seeds).items()},
        "gain": gain.to_dict() if gain else None,
    }


def gain_over(seeds: Sequence[Achieved], baseline: Sequence[Achieved]) -> Interval | None:
    """The difference to the baseline, of the first score that both know."""
    return next((found for score in SCORES if (found := difference(seeds, baseline, score)) is not None), None)


def _tried(one: Achieved) -> str:
    """What a way of acting is called that a trial was to be chosen by."""
    return f"to choose, {counted(one.n_action_steps, 'action')} of a chunk" if one.n_action_steps else "to choose"


def trial_name(trial: TrialRecord) -> str:
    """What a trial is called: by its number, and its name where it has one."""
    return f"trial {trial.number}" + (f" ({trial.name})" if trial.name else "")
