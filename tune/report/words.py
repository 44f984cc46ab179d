"""What the report says in words, each from the study's own numbers."""

import time
from collections.abc import Mapping
from typing import Any

from tune.console import counted, duration
from tune.records import TrialRecord
from tune.report.cost import Cost
from tune.report.finalists import finalists_outcome
from tune.report.importances import FEWEST, RESAMPLES, Importances
from tune.report.study_files import StudyFiles
from tune.space import base_values
from tune.spec import SearchSpec
from tune.summary import Summary
from tune.versions import COMMIT, DIRTY

ONE_SEED = (
    "Each trial was trained once, from one seed, and the best of many is picked by the numbers that it is shown with. "
    "One seed cannot tell a gain from noise: train the best and the baseline again with several seeds, and compare "
    "them on test episodes, before the gain is believed."
)
RULES = {
    "annotation": "inside annotated picks and places",
    "gripper": "near a gripper's motion",
    "progress": "late in the episode",
}
Facts = list[tuple[str, str]]


def when(study: StudyFiles, summary: Summary) -> str:
    """From when to when the study ran."""
    every = [*study.trials, *study.finalists]
    times = [t.outcome.time for t in every if t.outcome] + [r.time for t in every for r in t.results]
    if not study.sessions:
        return "not started"
    start, end = time.localtime(study.sessions[0].time), time.localtime(max([study.sessions[0].time, *times]))
    if summary.state == "running":
        return f"since {time.strftime('%-d %B %Y, %H:%M', start)}"
    same_day = start[:3] == end[:3]
    until = time.strftime("%H:%M" if same_day else "%-d %B %Y, %H:%M", end)
    return f"{time.strftime('%-d %B %Y, %H:%M', start)} – {until}"


def verdict(summary: Summary, baseline: TrialRecord | None) -> dict[str, str]:
    """The study's result: a headline, and a sentence of detail; of the finalists, where the test has been made."""
    tested = finalists_outcome(summary.finalists, baseline.name if baseline else None)
    if tested is not None:
        return {key: tested[key] for key in ("headline", "detail")}
    best, against = summary.best, summary.baseline
    if best is None:
        running = summary.state == "running"
        return {
            "headline": "No result yet" if running else "No trial has reported a score",
            "detail": "The first trials are on their way." if running else "There is no best trial; see the failures.",
        }
    so_far = " so far" if summary.state == "running" else ""
    at = f"at {best.rung:,} samples"
    if against is None:
        why = "no baseline has come as far" if baseline else "the search has no warm start to serve as the baseline"
        return {
            "headline": f"Trial {best.number} is the best{so_far}",
            "detail": f"{summary.metric} {best.value:.5g} {at}; {why}, so its gain is unknown.",
        }
    if against.number == best.number:
        return {
            "headline": f"Nothing beats {against.name}{so_far}",
            "detail": f"The baseline itself is the best trial: {summary.metric} {best.value:.5g} {at}.",
        }
    pair = f"{summary.metric} {best.value:.5g} against {against.value:.5g}, both {at}"
    share = summary.gain
    if share is None:
        return {"headline": f"Trial {best.number} is the best{so_far}", "detail": f"{pair}."}
    direction = "better" if share >= 0 else "worse"
    noise = "Within noise: trial" if summary.within_noise else "Trial"
    return {
        "headline": f"{noise} {best.number} is {abs(share):.1%} {direction} than {against.name}{so_far}",
        "detail": f"{pair}; from one seed each{summary.gain_noise}.",
    }


def gain_words(summary: Summary, baseline: TrialRecord | None) -> str:
    """What the table of gains compares."""
    if baseline is None:
        return "The search has no warm start, so there is no baseline to measure a gain against."
    if summary.best is None:
        return "No trial has reported a score yet."
    return (
        f"{baseline.name} ran first and is never stopped early, so the best trial can be compared with it at every "
        "rung: the same samples, the same held-out frames, the same noise."
    )


def importance_words(found: Importances) -> str:
    """On what the importances stand."""
    few = ", ".join(f"{key} ({count})" for key, count in found.left_out.items())
    left_out = f" Left out, since fewer than {FEWEST} results have it: {few}." if few else ""
    return (
        f"Which parameters separate the best third from the rest (PED-ANOVA), on {found.results} results, all at "
        f"{found.rung:,} samples, since later rungs hold only the trials that went on. The thin lines hold 80% of "
        f"what {RESAMPLES} resampled studies gave: where they overlap, the order is open.{left_out}"
    )


def parallel_words(rung: int | None) -> str:
    """What the parallel coordinates show."""
    at = f"at {rung:,} samples" if rung is not None else ""
    return f"A line is a trial {at}. Click a name above the figure to hide its lines, twice to see them alone."


def only_drawn(drawn: int, of: int) -> str:
    """Said under figures that leave trials out."""
    return f"The best {drawn:,} of {of:,} trials are drawn; the table has all."


def rung_words(spec: SearchSpec) -> str:
    """The rule by which trials were stopped."""
    eta = f"{spec.asha.reduction_factor:g}"
    protected = ", ".join(spec.warm_start)
    never = f" {protected}: never stopped." if protected else ""
    return (
        f"At each rung a trial goes on if its value is among the best 1 in {eta} of those that came there before it "
        f"(ASHA).{never} The cut-off is the one at the end; it was another when earlier trials came by."
    )


def cost_facts(cost: Cost, seconds: float, finalists: Cost) -> Facts:
    """What was spent, by the trials and, where there are some, by the finalists."""
    facts = [
        ("Samples drawn", f"{cost.samples:,}"),
        ("Hours of the search", f"{seconds / 3600:.2f} h"),
        ("Hours of all trials", f"{cost.trial_hours:.2f} h"),
        ("CPU-hours", f"{cost.cpu_hours:.2f}"),
        ("GPU-hours", f"{cost.gpu_hours:.2f}"),
    ]
    if cost.price is not None:
        facts.append(("Price, at resources.cost_per_hour", f"{cost.price + (finalists.price or 0):,.2f}"))
    if finalists.samples:
        hours = f"{finalists.trial_hours:.2f} h, {finalists.gpu_hours:.2f} GPU-hours"
        facts.append(("Finalists, beyond the trials", f"{finalists.samples:,} samples, {hours}"))
    return facts


def saved_words(cost: Cost, budget: int) -> str:
    """What stopping early saved; empty where no trial has ended."""
    if cost.saved_share is None:
        return ""
    return (
        f"ASHA stopped {counted(cost.stopped, 'trial')} and saved {cost.saved_samples:,} samples, about "
        f"{duration(3600 * cost.saved_hours)} at those trials' own speed: {cost.saved_share:.0%} of the "
        f"{cost.whole_samples:,} that the trials which ended would have drawn at {budget:,} each."
    )


def objective_view(study: StudyFiles) -> dict[str, Any]:
    """On which frames, draws and horizon every trial was scored."""
    facts, base = study.objective, base_values(study.spec)
    rule = facts.get("critical_rule")
    where = f" ({RULES[rule]})" if rule in RULES else ""
    shown = [
        ("Objective", f"{study.metric}, to be {study.spec.objective.mode}imised"),
        ("Critical frames", f"{facts['critical_frames']:,}, by the rule “{rule}”{where}" if facts else "not recorded"),
        ("Noise draws per frame", f"{facts.get('draws', base['eval.draws'])}"),
        ("Horizon", f"{facts.get('horizon_s', base['eval.horizon_s']):g} s"),
    ]
    if facts:
        shown += [
            ("Rate of the scored steps", f"{facts['scored_hz']:g} Hz"),
            ("Frames anywhere, beside it", f"{facts['frames_anywhere']:,}"),
            (
                "Episodes",
                f"{facts['train_episodes']:,} to train, {facts['val_episodes']:,} to compare, "
                f"{facts['test_episodes']:,} kept for a test",
            ),
        ]
    text = (
        "Every trial is asked the same question: predict the actions at the same held-out frames from the same noise, "
        "unweighted, in units of the training data's deviation, whatever its batch, chunk or loss weighting. Only "
        "values at equal samples are compared, and all trials draw from one stream of samples."
    )
    missing = "" if facts else "Which frames were critical was not recorded with this study."
    return {"words": text, "facts": shown, "missing": missing}


def data_facts(dataset: Mapping[str, Any], spec: SearchSpec) -> Facts:
    """What the study was trained on."""
    if not dataset:
        roots = [str(source.get("root") or source.get("repo_id")) for source in base_values(spec)["data.train"]]
        return [("Dataset", ", ".join(roots))]
    facts = []
    for one in (dataset, *dataset.get("others", ())):
        size = f"{one['episodes']:,} episodes, {one['frames']:,} frames at {one['fps']:g} Hz"
        facts.append(("Dataset" if one is dataset else "Trained beside it", f"{one['name']}: {size}; {one['root']}"))
        facts.append(("Its digest", str(one["digest"])[:16]))
    return facts


def version_facts(study: StudyFiles) -> Facts:
    """The versions that the last session ran with, and the machines."""
    code = dict(study.sessions[-1].code) if study.sessions else {}
    if not code:
        return []
    found, dirty = code.pop(COMMIT, None), code.pop(DIRTY, None)
    facts = [(name, version) for name, version in code.items()]
    if found:
        facts.append(("commit", found[:12] + (", with changes since" if dirty == "true" else "")))
    hosts = sorted({r.host for t in study.trials for r in t.results if r.host})
    return [*facts, ("Sessions", str(len(study.sessions))), ("Machines", ", ".join(hosts) or "–")]


def versions_note(study: StudyFiles) -> str:
    """Said where the sessions of a study did not run the same code."""
    codes = [dict(session.code) for session in study.sessions if session.code]
    differing = sorted({key for code in codes for key in code if code[key] != codes[0].get(key)})
    if not differing:
        return ""
    return f"{counted(len(study.sessions), 'session')} did not run the same code: {', '.join(differing)} differ."
