"""What a study leaves behind in its folder: ``summary.json``, ``trials.parquet``, the best policy and its YAML."""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
from ray import tune as ray_tune

from smolvla_core.config import TrialConfig
from tune.console import format_params
from tune.records import Records, TrialRecord
from tune.summary import Summary
from tune.trainable import STATE

BEST_POLICY, BEST_CONFIG = "best", "best.yaml"
SUMMARY_FILE, TRIALS_FILE = "summary.json", "trials.parquet"


def write_results(summary: Summary, run_dir: Path, records: Records) -> tuple[Summary, list[Path]]:
    """Write everything that a study leaves behind.

    Args:
        summary: of the study.
        run_dir: its folder.
        records: its trials.

    Returns:
        the summary with the places of the best policy and of its YAML, and the files to keep with it.
    """
    trials = records.trials()
    artifacts = []
    if summary.best is not None:
        best = next(trial for trial in trials if trial.number == summary.best.number)
        config = TrialConfig.from_dict(best.config)
        (run_dir / BEST_CONFIG).write_text(config.to_yaml(), encoding="utf-8")
        summary = replace(summary, config=str(run_dir / BEST_CONFIG))
        artifacts.append(run_dir / BEST_CONFIG)
        if _export(best, records, run_dir / BEST_POLICY):
            summary = replace(summary, checkpoint=str(run_dir / BEST_POLICY))
    trial_table(trials).to_parquet(run_dir / TRIALS_FILE, index=False)
    (run_dir / SUMMARY_FILE).write_text(json.dumps(summary.to_dict(), indent=2) + "\n", encoding="utf-8")
    return summary, [*artifacts, run_dir / TRIALS_FILE, run_dir / SUMMARY_FILE]


def _export(trial: TrialRecord, records: Records, out: Path) -> bool:
    """Write a trial's last state as a LeRobot policy; False where it left no such state."""
    if trial.checkpoint is None:
        return False
    with ray_tune.Checkpoint(records.locate(trial.checkpoint)).as_directory() as folder:
        state = Path(folder) / STATE
        if not state.is_dir():
            return False
        from smolvla_core.checkpoint import export_policy

        export_policy(state, out)
    return True


def trial_table(trials: Sequence[TrialRecord]) -> pd.DataFrame:
    """One row a report: trial, its parameters (``param.*``), how it ended, and the report's numbers."""
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
    table = pd.DataFrame(rows)
    mixed = [key for key in table if table[key].map(type).nunique() > 1 and table[key].dtype == object]
    return table.astype({key: "string" for key in mixed})


def closing_lines(summary: Summary, mlflow_command: str | None) -> list[str]:
    """What a study prints when it ends."""
    counts = ", ".join(f"{count} {_STATES.get(state, state)}" for state, count in summary.trials.items())
    lines = [
        "",
        f"{summary.study}: {counts or 'no trials'}; {summary.samples:,} samples in {duration(summary.seconds)}",
    ]
    if summary.reason:
        lines.append(f"Ended early: {summary.reason}")
    if summary.best is None:
        lines.append("No trial has reported; the reasons are above and in MLflow.")
        return lines
    best = summary.best
    lines += [
        "",
        f"Best trial     {best.number}{f' ({best.name})' if best.name else ''}",
        f"  parameters   {format_params(best.params)}",
        f"  objective    {summary.metric} {best.value:.5g} at {best.rung:,} samples",
        f"  improvement  {_gain(summary)}",
    ]
    if mlflow_command:
        lines.append(f"MLflow         {mlflow_command}")
    if summary.checkpoint:
        lines.append(f"Checkpoint     {summary.checkpoint}")
    if summary.config:
        lines.append(f"Train it again python -m smolvla_core.train {summary.config}")
    return lines


_STATES = {"complete": "completed", "pruned": "stopped early"}


def _gain(summary: Summary) -> str:
    baseline, best = summary.baseline, summary.best
    if baseline is None or best is None or summary.gain is None:
        return "unknown: no baseline has reached that many samples"
    if baseline.number == best.number:
        return f"none: the best trial is the baseline, {baseline.name}"
    direction = "better" if summary.gain >= 0 else "worse"
    return f"{abs(summary.gain):.1%} {direction} than {baseline.name} ({baseline.value:.5g})"


def duration(seconds: float) -> str:
    """``95 s``, ``12 min`` or ``3.4 h``."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
