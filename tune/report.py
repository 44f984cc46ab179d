"""What a study leaves behind in its folder: ``summary.json``, ``trials.parquet``, the best policy and its YAML."""

import json
import shlex
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
from ray import tune as ray_tune

from smolvla_core.command import python_command
from smolvla_core.config import TrialConfig
from tune.console import counted, duration, format_value
from tune.finalists import finalist_lines, winners_record
from tune.records import Records, TrialRecord
from tune.run_folder import write_whole
from tune.summary import Summary
from tune.trainable import STATE

BEST_POLICY, BEST_CONFIG = "best", "best.yaml"
SUMMARY_FILE, TRIALS_FILE = "summary.json", "trials.parquet"
MOST_REASONS = 5
"""Reasons of failed trials that the closing lines name."""

_STATES = {"complete": "completed", "pruned": "stopped early"}


def write_results(summary: Summary, run_dir: Path, records: Records) -> tuple[Summary, list[Path]]:
    """Write everything that a study leaves behind; what an earlier session left is replaced.

    Args:
        summary: of the study.
        run_dir: its folder.
        records: its trials.

    Returns:
        the summary with the places of the best policy and of its YAML, and the files to keep with it.
    """
    trials = records.trials()
    part = run_dir / f".{TRIALS_FILE}.part"
    trial_table(trials).to_parquet(part, index=False)
    part.replace(run_dir / TRIALS_FILE)
    artifacts = [run_dir / TRIALS_FILE, run_dir / SUMMARY_FILE]
    best = winners_record(summary.finalists, run_dir)
    best = best or next((trial for trial in trials if summary.best and trial.number == summary.best.number), None)
    if best is not None:
        write_whole(run_dir / BEST_CONFIG, TrialConfig.from_dict(best.config).to_yaml())
        summary = replace(summary, config=str(run_dir / BEST_CONFIG))
        artifacts.append(run_dir / BEST_CONFIG)
        if _export(best, records, run_dir / BEST_POLICY):
            summary = replace(summary, checkpoint=str(run_dir / BEST_POLICY))
    write_whole(run_dir / SUMMARY_FILE, json.dumps(summary.to_dict(), indent=2) + "\n")
    return summary, artifacts


def _export(trial: TrialRecord, records: Records, out: Path) -> bool:
    """Write a trial's last state as a LeRobot policy; False, and nothing there, where it left no such state."""
    if trial.checkpoint is not None:
        with ray_tune.Checkpoint(records.locate(trial.checkpoint)).as_directory() as folder:
            state = Path(folder) / STATE
            if state.is_dir():
                from smolvla_core.checkpoint import export_policy

                export_policy(state, out)
                return True
    shutil.rmtree(out, ignore_errors=True)  # an earlier session's best, which is another trial's
    return False


def trial_table(trials: Sequence[TrialRecord]) -> pd.DataFrame:
    """One row a report: trial, its parameters (``param.*``), how it ended, and the report's numbers.

    A trial without a report has one row.
    """
    rows: list[dict[str, Any]] = []
    for trial in trials:
        outcome = trial.outcome
        head = {
            "trial": trial.number,
            "name": trial.name,
            "state": outcome.state if outcome else "interrupted",
            "reason": outcome.reason if outcome else None,
        }
        params = {f"param.{key}": value for key, value in trial.params.items()}
        reports = [{**result.metrics, "host": result.host, "time": result.time} for result in trial.results]
        rows += [{**head, **report, **params} for report in reports or [{}]]
    table = pd.DataFrame(rows, columns=None if rows else ["trial", "name", "state", "reason"])
    whole = {key: "Int64" for key in ("samples_seen", "step") if key in table}
    # choices of several types, such as 8 and "all", fit no column of parquet
    mixed = {key: "string" for key in table if table[key].dtype == object and table[key].map(type).nunique() > 1}
    return table.astype(mixed | whole)


def closing_lines(summary: Summary, mlflow_command: str | None) -> list[str]:
    """What a study prints when it ends.

    Args:
        summary: of the study.
        mlflow_command: how to look at it in MLflow; None where it is not tracked.
    """
    counts = ", ".join(f"{count} {_STATES.get(state, state)}" for state, count in summary.trials.items())
    spent = f"{counted(summary.samples, 'sample')} in {duration(summary.seconds)}"
    lines = ["", f"{summary.study}: {counts or 'no trials'}; {spent}"]
    if summary.reason:
        lines.append(f"Ended early: {summary.reason}")
    lines += _failure_lines(summary.failures)
    best = summary.best
    if best is None:
        lines.append("No trial has reported a score, so there is no best one.")
    else:
        lines += [
            "",
            f"Best trial      {best.number}{f' ({best.name})' if best.name else ''}",
            *_parameter_lines(best.params),
            f"  objective     {summary.metric} {best.value:.5g} at {best.rung:,} samples",
            f"  improvement   {_gain(summary)}",
        ]
    lines += finalist_lines(summary.finalists)
    if mlflow_command:
        lines.append(f"MLflow          {mlflow_command}")
    if summary.checkpoint:
        lines.append(f"Checkpoint      {summary.checkpoint}")
    if summary.config:
        lines.append(f"Train it again  {python_command()} -m smolvla_core.train {shlex.quote(summary.config)}")
    return lines


def _failure_lines(failures: Mapping[int, str]) -> list[str]:
    """One line a reason, with the trials that failed by it."""
    by_reason: dict[str, list[int]] = {}
    for number, reason in failures.items():
        by_reason.setdefault(reason, []).append(number)
    lines = [
        f"Failed: trial{'s' if len(numbers) > 1 else ''} {', '.join(map(str, numbers))}: {reason}"
        for reason, numbers in list(by_reason.items())[:MOST_REASONS]
    ]
    left_out = len(by_reason) - len(lines)
    return [*lines, f"Failed: for {counted(left_out, 'more reason')}, see {SUMMARY_FILE}"] if left_out else lines


def _parameter_lines(params: Mapping[str, Any]) -> list[str]:
    width = max(map(len, params), default=0)
    texts = [f"{key:<{width}}  {format_value(value)}" for key, value in params.items()]
    return [f"  {'parameters' if not row else '':<12}  {text}" for row, text in enumerate(texts)]


def _gain(summary: Summary) -> str:
    baseline, best = summary.baseline, summary.best
    if baseline is None or best is None:
        return "unknown: no baseline has come as far"
    if baseline.number == best.number:
        return f"none: the best trial is the baseline, {baseline.name}"
    if summary.gain is None:
        return f"from 0, the value of {baseline.name}"
    direction = "better" if summary.gain >= 0 else "worse"
    return f"{abs(summary.gain):.1%} {direction} than {baseline.name} ({baseline.value:.5g}){summary.gain_noise}"
