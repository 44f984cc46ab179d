"""The finalists: who is trained again to the full budget, and what the test episodes say of them.

A search's best value is flattered by having been chosen, and was trained with one seed. So the best
trials and the warm starts are trained again with seeds that the search has not used, and are scored
once on test episodes that nothing else looks at. What is said of them is rebuilt from the records.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tune.acted import acted
from tune.choice import chosen_params, winner_by_acting
from tune.closed_loop import evaluator_name
from tune.console import counted, format_value
from tune.fixed_runs import SEED, FixedRuns, Run, recorded_runs, seconds_of_all
from tune.intervals import Errors, Interval, mean_error, percent, relative_gain
from tune.ray_session import OUT_OF_TIME, Brake
from tune.records import FINALISTS, Records, TrialRecord
from tune.space import base_values
from tune.spec import SearchSpec
from tune.summary import Summary, baseline_trial, is_lost, ranked, summarize

NOUN = "finalist"
SHARED = {"eval.test": True}
"""What the finalists' runs have beyond a trial's configuration."""
KEPT_AT_MOST = 0.5
"""The finalists have at most this share of ``budget.hours`` kept for them, however long they would take."""
CHOOSING = 0.1
"""The share that is kept for trials that act to be chosen between, whose pace is not known before."""
MARGIN = 1.1
"""Time is kept for so many times what the finalists are expected to take."""


@dataclass(frozen=True)
class Contender:
    """A configuration among the finalists: a warm start by its name, or ``trial 12``."""

    name: str
    trial: int
    params: Mapping[str, Any]


def contenders(spec: SearchSpec, trials: Sequence[TrialRecord]) -> list[Contender]:
    """The baseline, the other warm starts, then the best ``k`` trials; none that failed.

    Trials that have come further go before better values at a lower rung.
    """
    if spec.finalists is None:
        return []
    baseline = baseline_trial(trials)
    warm = [trial for trial in trials if trial.name is not None and not is_lost(trial)]
    warm.sort(key=lambda trial: (baseline is None or trial.number != baseline.number, trial.number))
    found = [
        trial for trial in ranked(trials, spec.objective.metric, spec.objective.mode, spec.rungs) if not trial.name
    ]
    chosen = [*warm, *found[: spec.finalists.k]]
    return [Contender(trial.name or f"trial {trial.number}", trial.number, chosen_params(trial)) for trial in chosen]


def planned_runs(spec: SearchSpec) -> int:
    """Trainings of the finalists, if as many trials as asked for are there."""
    return (spec.finalists.k + len(spec.warm_start)) * spec.finalists.seeds if spec.finalists else 0


def wanted_runs(spec: SearchSpec, chosen: Sequence[Contender]) -> list[Run]:
    """Every contender with its first seed, then with its second: what is cut off at the end is a whole seed."""
    if spec.finalists is None:
        return []
    return [Run(each.name, {**each.params, SEED: seed}) for seed in _seeds(spec) for each in chosen]


def recorded_finalists(
    spec: SearchSpec, chosen: Sequence[Contender], finalists: Sequence[TrialRecord]
) -> dict[tuple[str, int], TrialRecord]:
    """Name and seed of a contender -> its training's record; none of a configuration that it no longer is."""
    return recorded_runs(spec, wanted_runs(spec, chosen), SHARED, finalists)


def kept_seconds(spec: SearchSpec, run_dir: Path, at_once: int) -> float:
    """Seconds of ``budget.hours`` that are left to the finalists, by the pace of the search's trials so far."""
    if spec.finalists is None or spec.budget.hours is None:
        return 0.0
    records = Records(run_dir)
    trials, starts = records.trials(), [session.time for session in records.sessions()]
    there = recorded_finalists(spec, contenders(spec, trials), Records(run_dir, FINALISTS).trials())
    runs = max(0, planned_runs(spec) - sum(run.outcome is not None for run in there.values()))
    expected = seconds_of_all(trials, starts, spec.samples, at_once, runs)
    return min(MARGIN * expected, KEPT_AT_MOST * spec.budget.hours * 3600)


def kept_from_search(spec: SearchSpec, run_dir: Path, at_once: int) -> float:
    """Seconds of ``budget.hours`` that the search leaves to all that comes after it."""
    chooses = spec.finalists is not None and spec.closed_loop is not None and spec.closed_loop.choose is not None
    choosing = CHOOSING * (spec.budget.hours or 0.0) * 3600 if chooses else 0.0
    return kept_seconds(spec, run_dir, at_once) + choosing


def run_finalists(runs: FixedRuns, trials: Sequence[TrialRecord], *, session: str, limit: int, brake: Brake) -> None:
    """Train and score the finalists that have not been.

    Args:
        runs: where they go.
        trials: of the search.
        session: as for :meth:`FixedRuns.run`, as are the others.
        limit: how many at once.
        brake: ends them.
    """
    chosen = contenders(runs.spec, trials)
    wanted = wanted_runs(runs.spec, chosen)
    if not wanted:
        return
    if brake.left is not None and brake.left <= 0:
        trained = recorded_finalists(runs.spec, chosen, runs.records.trials())
        if all((run.role, run.seed) in trained and trained[run.role, run.seed].outcome for run in wanted):
            return
        brake.pull(OUT_OF_TIME)
        runs.say("No time of budget.hours is left for the finalists; give more and continue with --resume")
        return
    seeds = counted(len(_seeds(runs.spec)), "seed")
    runs.say(
        f"Finalists: {', '.join(each.name for each in chosen)}, with {seeds} each, to {runs.spec.samples:,} samples"
    )
    runs.run(wanted, session=session, limit=limit, brake=brake)


def compared(
    spec: SearchSpec, trials: Sequence[TrialRecord], finalists: Sequence[TrialRecord]
) -> dict[str, Any] | None:
    """What the test episodes say of the finalists; None where the search has none.

    Returns:
        ``contenders``: ``name``, ``trial``, ``params``, ``seeds``, ``test`` (the mean error with its
        interval) and ``gain`` (over the baseline, paired, as a share of its error); ``winner``: the name
        of the one with the best mean, or of the one that places most where that is to choose
        (``tune.choice``), None while one of them has yet to be trained; ``verdict``: one sentence; ``metric``,
        ``test_episodes``, ``seeds``; ``policy``: the run that is exported; ``missing``: a sentence on what was cut
        or failed.
    """
    if spec.finalists is None:
        return None
    metric = f"test/{spec.objective.metric.removeprefix('val/')}"
    chosen = contenders(spec, trials)
    recorded = recorded_finalists(spec, chosen, finalists)
    scored = {
        key: run
        for key, run in recorded.items()
        if run.outcome is not None and run.outcome.state == "complete" and run.results and run.results[-1].episodes
        if metric in run.results[-1].episodes
    }
    there = [each for each in chosen if any((each.name, seed) in scored for seed in _seeds(spec))]
    seeds = [seed for seed in _seeds(spec) if there and all((each.name, seed) in scored for each in there)]
    errors = {
        each.name: Errors.of([(scored[each.name, seed].results[-1].episodes or {})[metric] for seed in seeds])
        for each in there
        if seeds
    }
    against = baseline_trial(trials)
    first = against.name if against is not None and not is_lost(against) else None
    baseline = errors.get(first) if first is not None else None
    rows: list[dict[str, Any]] = []
    gains: dict[str, Interval] = {}
    for each in there:
        if each.name not in errors:
            continue
        own = errors[each.name]
        if baseline is not None and each.name != first:
            gains[each.name] = relative_gain(own, baseline)
        gain = gains.get(each.name)
        rows.append(
            {
                "name": each.name,
                "trial": each.trial,
                "params": dict(each.params),
                "seeds": seeds,
                "test": mean_error(own).to_dict(),
                "gain": gain.to_dict() if gain else None,
            }
        )
    failed = {key: str(run.outcome.reason) for key, run in recorded.items() if run.outcome and is_lost(run)}
    awaited = [
        each.name
        for each in chosen
        if each not in there and not any((each.name, seed) in failed for seed in _seeds(spec))
    ]
    winner: str | None = min(rows, key=lambda row: row["test"]["mean"])["name"] if rows and not awaited else None
    episodes = max((len(own.episodes) for own in errors.values()), default=0)
    verdict = _verdict(winner, first if baseline is not None else None, gains, episodes, len(seeds))
    if rows and awaited:
        verdict = (
            f"{' and '.join(awaited)} {'has' if len(awaited) == 1 else 'have'} yet to be trained: none is the best."
        )
    result: dict[str, Any] = {
        "contenders": rows,
        "winner": winner,
        "verdict": verdict,
        "metric": metric,
        "test_episodes": episodes,
        "seeds": len(seeds),
        "acting": None,
    }
    if winner is not None and spec.closed_loop is not None and spec.closed_loop.choose is not None:
        acting = {each.name: [scored[each.name, seed] for seed in seeds] for each in there}
        if (found := winner_by_acting(evaluator_name(spec.closed_loop.env), acting, first)) is not None:
            winner = found.winner
            decided = {"score": found.score, "gain": found.gain.to_dict() if found.gain else None}
            result |= {"winner": winner, "verdict": found.verdict, "acting": decided}
        else:
            result["verdict"] += " Not all of them have acted on the same instances, so that test errors decide."
    result["policy"] = _exported(spec, [scored[winner, seed] for seed in seeds]) if winner is not None else None
    result["missing"] = _missing(wanted_runs(spec, chosen), scored, failed)
    return result


def study_summary(
    spec: SearchSpec,
    trials: Sequence[TrialRecord],
    finalists: Sequence[TrialRecord],
    *,
    state: str,
    reason: str | None,
    seconds: float,
) -> Summary:
    """A study's summary, with what its finalists came to; the arguments are those of :func:`summarize`."""
    summary = summarize(
        spec.study,
        trials,
        metric=spec.objective.metric,
        mode=spec.objective.mode,
        rungs=spec.rungs,
        state=state,
        reason=reason,
        seconds=seconds,
    )
    found = compared(spec, trials, finalists)
    return replace(summary, finalists=found, closed_loop=acted(found, trials, _as_contenders(spec, trials, finalists)))


def _as_contenders(
    spec: SearchSpec, trials: Sequence[TrialRecord], finalists: Sequence[TrialRecord]
) -> list[TrialRecord]:
    """The contenders' trainings, then those of earlier ones; none of a contender in another configuration."""
    chosen = contenders(spec, trials)
    own = [replace(run, name=name) for (name, _), run in recorded_finalists(spec, chosen, finalists).items()]
    names, numbers = {each.name for each in chosen}, {run.number for run in own}
    return [*own, *(run for run in finalists if run.name not in names and run.number not in numbers)]


def winners_record(finalists: Mapping[str, Any] | None, run_dir: Path) -> TrialRecord | None:
    """The finalist's training that is exported; None where there is none.

    Its configuration is as it was but for ``eval.test``: to train it again is no reason to look at the
    test episodes again.
    """
    policy = (finalists or {}).get("policy")
    if policy is None:
        return None
    record = next(run for run in Records(run_dir, FINALISTS).trials() if run.number == policy["number"])
    return replace(record, config={**record.config, "eval": {**record.config["eval"], "test": False}})


def finalist_lines(finalists: Mapping[str, Any] | None) -> list[str]:
    """What a study prints of its finalists when it ends."""
    if finalists is None:
        return []
    lines = ["", "Finalists       " + str(finalists["verdict"])]
    width = max((len(row["name"]) for row in finalists["contenders"]), default=0)
    for row in finalists["contenders"]:
        gain = f"   gain {percent(Interval(**row['gain']))}" if row["gain"] else ""
        lines.append(f"  {row['name']:<{width}}  {finalists['metric']} {format_value(row['test']['mean'])}{gain}")
    if finalists["missing"]:
        lines.append(f"  {finalists['missing']}")
    policy = finalists["policy"]
    if policy is not None:
        lines.append(f"  best/ is {finalists['winner']}, seed {policy['seed']}: the median of its seeds by validation")
    return lines


def _seeds(spec: SearchSpec) -> list[int]:
    """Training seeds that the search has not used: its trials all have the one of the specification."""
    used = int(base_values(spec)[SEED])
    return [used + 1 + number for number in range(spec.finalists.seeds if spec.finalists else 0)]


def _exported(spec: SearchSpec, runs: Sequence[TrialRecord]) -> dict[str, Any]:
    """Of the winner's trainings that with the median *validation* error: test errors choose nothing more."""
    metric = spec.objective.metric
    by_error = sorted(runs, key=lambda run: run.results[-1].metrics[metric])
    median = by_error[(len(by_error) - 1) // 2]
    last = median.results[-1]
    return {
        "number": median.number,
        "seed": int(median.params[SEED]),
        "validation": last.metrics[metric],
        "samples": last.samples_seen,
    }


def _verdict(winner: str | None, baseline: str | None, gains: Mapping[str, Interval], episodes: int, seeds: int) -> str:
    if winner is None:
        return "No finalist has been trained and scored on the test episodes with the seeds of the others."
    where = f"on {counted(episodes, 'test episode')}, over {counted(seeds, 'training seed')}"
    alone = "; with one seed the noise of training is not in the interval" if seeds == 1 else ""
    if baseline is None:
        return f"{winner} has the lowest error {where}; there is no baseline to measure a gain against."
    if winner == baseline:
        return f"The baseline, {baseline}, has the lowest error {where}: nothing better was found."
    gain = gains[winner]
    if gain.sign > 0:
        return f"{winner} is better than {baseline} by {percent(gain)} {where}{alone}."
    return f"Within noise: {winner} is better than {baseline} by {percent(gain)} {where}, which may be chance{alone}."


def _missing(
    wanted: Sequence[Run],
    scored: Mapping[tuple[str, int], TrialRecord],
    failed: Mapping[tuple[str, int], str],
) -> str | None:
    absent = [run for run in wanted if (run.role, run.seed) not in scored]
    if not absent:
        return None
    reasons = [f"{r.role}, seed {r.seed}: {failed[r.role, r.seed]}" for r in absent if (r.role, r.seed) in failed]
    cut = len(absent) - len(reasons)
    parts = [f"{cut} of {len(wanted)} trainings were cut: the study ended before them"] if cut else []
    parts += [f"failed: {'; '.join(reasons)}"] if reasons else []
    return "; ".join(parts)
