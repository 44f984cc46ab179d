"""The report: one HTML file that asks nothing of any other, made of a study's files."""

import time
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from plotly.offline import get_plotlyjs

from tune.console import counted, duration, format_value, short_keys
from tune.records import TrialRecord
from tune.report import figures, space_figures, words
from tune.report.closed_loop import closed_loop_view
from tune.report.cost import Cost, busy_seconds, cost_of
from tune.report.finalists import finalists_outcome, finalists_view, intervals_of
from tune.report.importances import Importances, importances
from tune.report.rungs import at_rung, fullest_rung, paired_gains, rung_rows
from tune.report.study_files import StudyFiles
from tune.report.use import use_of
from tune.space import Space, describe, make_space
from tune.summary import Summary, baseline_trial, ranked, scored, state_of

HERE = Path(__file__).parent
SECTIONS = {
    "best": "Best trial",
    "gain": "Gain",
    "curves": "Curves",
    "parameters": "What mattered",
    "rungs": "Rungs",
    "trials": "Trials",
    "failures": "Failures",
    "cost": "Cost",
    "objective": "Objective",
    "origin": "Versions",
}


def page(study: StudyFiles, summary: Summary) -> str:
    """The report as HTML, with its scripts and styles in it.

    Args:
        study: what the study's folder holds.
        summary: what it came to, with the places of the best policy and of its YAML.
    """
    space, spec = make_space(study.spec), study.spec
    starts = [session.time for session in study.sessions]
    baseline = baseline_trial(study.trials)
    rows = rung_rows(study.trials, study.metric, summary.mode, spec.rungs, spec.asha.reduction_factor)
    cost = cost_of(study.trials, study.sessions, spec.samples, study.resources)
    found = importances(space, study.trials, study.metric, summary.mode, spec.rungs)
    drawn = figures.drawn(study.trials, summary, spec.rungs)
    template = _environment().get_template("page.html.jinja")
    return template.render(
        css=_text("page.css"),
        js=_text("page.js"),
        plotly=get_plotlyjs(),
        sections=SECTIONS.items(),
        written=time.strftime("%-d %B %Y, %H:%M"),
        study=summary.study,
        state=summary.state,
        reason=summary.reason,
        folder=str(study.run_dir),
        when=words.when(study, summary),
        metric=study.metric,
        verdict=words.verdict(summary, baseline),
        tiles=_tiles(summary, cost, baseline),
        best=summary.best,
        baseline_name=(baseline.name or f"trial {baseline.number}") if baseline else None,
        params=_params(space, summary, baseline),
        use=use_of(study, summary),
        gains=paired_gains(summary, study.trials, spec.rungs) if baseline else [],
        intervals=intervals_of(summary.to_dict()),
        gain_words=words.gain_words(summary, baseline),
        one_seed=words.ONE_SEED,
        finalists=finalists_view(summary.to_dict().get("finalists")),
        closed_loop=closed_loop_view(summary.closed_loop),
        drawings=_drawings(study, summary, space, drawn, found, starts),
        drawn_note="" if len(drawn) == len(study.trials) else words.only_drawn(len(drawn), len(study.trials)),
        rung_legend=space_figures.rung_colors(spec.rungs).items(),
        importance_words=words.importance_words(found) if isinstance(found, Importances) else "",
        no_importances=found if isinstance(found, str) else "",
        parallel_words=words.parallel_words(_parallel_rung(study)),
        rungs=rows,
        any_open=any(row.open for row in rows),
        rung_words=words.rung_words(spec),
        rung_levels=spec.rungs,
        trials=_trial_rows(study, summary, space, starts),
        keys=short_keys(space.distributions),
        failures=_failures(summary),
        cost=words.cost_facts(
            cost, study.seconds, cost_of(study.finalists, study.sessions, spec.samples, study.resources)
        ),
        saved_words=words.saved_words(cost, spec.samples),
        objective=words.objective_view(study),
        data=words.data_facts(study.dataset, study.spec),
        versions=words.version_facts(study),
        versions_note=words.versions_note(study),
        yaml=study.yaml_text,
        resolved=spec.to_yaml(),
    )


@cache
def _environment() -> Environment:
    return Environment(
        loader=FileSystemLoader(HERE), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )


def _text(name: str) -> str:
    return (HERE / name).read_text(encoding="utf-8")


def _tiles(summary: Summary, cost: Cost, baseline: TrialRecord | None) -> list[dict[str, str]]:
    best, share = summary.best, cost.saved_share
    states = ", ".join(
        f"{count} {figures.STATE_WORDS.get(state, state)}" for state, count in sorted(summary.trials.items())
    )
    return [
        {
            "label": "Best objective",
            "value": f"{best.value:.5g}" if best else "–",
            "note": f"{summary.metric} at {best.rung:,} samples" if best else summary.metric,
        },
        _gain_tile(summary, baseline),
        {"label": "Trials", "value": str(sum(summary.trials.values())), "note": states or "none yet"},
        {"label": "Time", "value": duration(summary.seconds), "note": f"{counted(cost.samples, 'sample')} drawn"},
        {
            "label": "Saved by ASHA",
            "value": f"{share:.0%}" if share is not None else "–",
            "note": "of the samples of whole trials",
        },
    ]


def _gain_tile(summary: Summary, baseline: TrialRecord | None) -> dict[str, str]:
    """The gain over the baseline: on the test episodes where the finalists were scored there."""
    tested = finalists_outcome(summary.finalists, baseline.name if baseline else None)
    if tested is not None:
        value, note = tested["value"], tested["note"]
    elif summary.baseline is None:
        value, note = "–", "the baseline has not come as far" if baseline else "no baseline to compare with"
    elif summary.best and summary.best.number == summary.baseline.number:
        value, note = "none", f"nothing beats {summary.baseline.name}"
    else:
        value = f"{summary.gain:+.1%}" if summary.gain is not None else "–"
        note = f"over {summary.baseline.name}{', within noise' if summary.within_noise else ''}"
    return {"label": "Gain", "value": value, "note": note}


def _params(space: Space, summary: Summary, baseline: TrialRecord | None) -> list[dict[str, Any]]:
    """A row a searched parameter: the best trial's value, the baseline's, and what was searched."""
    best, base = (summary.best.params if summary.best else {}), (baseline.params if baseline else {})
    rows = []
    for key, distribution in space.distributions.items():
        when = " and ".join(f"{k} is {' or '.join(map(str, v))}" for k, v in space.conditions.get(key, {}).items())
        rows.append({
            "key": key,
            "best": format_value(best[key]) if key in best else "not used",
            "baseline": format_value(base[key]) if key in base else "not used" if base else "–",
            "differs": best.get(key) != base.get(key),
            "space": describe(distribution) + (f"; when {when}" if when else ""),
        })  # fmt: skip
    return rows


def _drawings(
    study: StudyFiles,
    summary: Summary,
    space: Space,
    drawn: Sequence[TrialRecord],
    found: Importances | str,
    starts: Sequence[float],
) -> dict[str, Any]:
    """The figures; one that has nothing to show is absent (None, or an empty list)."""
    rungs, rung = study.spec.rungs, _parallel_rung(study)
    if rung is None:
        return {"curves": None, "importances": None, "slices": [], "parallel": None}
    return {
        "curves": figures.curves(drawn, summary, rungs, starts),
        "importances": figures.importance_bars(found) if isinstance(found, Importances) else None,
        "slices": list(space_figures.slices(space, drawn, summary, rungs)),
        "parallel": space_figures.parallel(space, at_rung(drawn, study.metric, rungs, rung), summary, rung),
    }


def _parallel_rung(study: StudyFiles) -> int | None:
    return fullest_rung(study.trials, study.metric, study.spec.rungs)


def _trial_rows(study: StudyFiles, summary: Summary, space: Space, starts: Sequence[float]) -> list[dict[str, Any]]:
    """Every trial, the best of the highest rung first, those without a value last."""
    rungs, baseline = study.spec.rungs, baseline_trial(study.trials)
    best_first = ranked(study.trials, study.metric, summary.mode, rungs)
    place = {trial.number: place for place, trial in enumerate(best_first)}
    marks = {baseline.number: "base"} if baseline else {}
    marks |= {summary.best.number: "best"} if summary.best else {}
    rows = []
    for trial in study.trials:
        values = [one.value if (one := scored(trial, study.metric, rungs, rung)) else None for rung in rungs]
        state = state_of(trial, summary.state)
        speed = next((s for r in reversed(trial.results) if (s := r.metrics.get("train/samples_per_s"))), None)
        rows.append({
            "order": (place.get(trial.number, len(place)), trial.number),
            "number": trial.number,
            "name": trial.name,
            "state": state,
            "words": figures.STATE_WORDS.get(state, state),
            "at_rungs": values,
            "speed": speed,
            "time": duration(busy_seconds(trial, starts)),
            "params": [format_value(trial.params[key]) if key in trial.params else "" for key in space.distributions],
            "mark": marks.get(trial.number, ""),
        })  # fmt: skip
    return sorted(rows, key=lambda row: row["order"])


def _failures(summary: Summary) -> list[tuple[str, list[int]]]:
    """Reason -> the trials that failed by it, the most frequent first."""
    by_reason: dict[str, list[int]] = {}
    for number, reason in summary.failures.items():
        by_reason.setdefault(reason, []).append(number)
    return sorted(by_reason.items(), key=lambda item: -len(item[1]))
