"""What a study prints when it ends."""

import shlex
from collections.abc import Mapping
from typing import Any

from smolvla_core.command import python_command
from tune.acted import acted_lines
from tune.console import counted, duration, format_value
from tune.finalists import finalist_lines
from tune.report.study_files import SUMMARY_FILE
from tune.summary import Summary

MOST_REASONS = 5
"""Reasons of failed trials that the closing lines name."""

_STATES = {"complete": "completed", "pruned": "stopped early"}


def closing_lines(summary: Summary, mlflow_command: str | None, mlflow_page: str | None = None) -> list[str]:
    """What a study prints when it ends.

    Args:
        summary: of the study.
        mlflow_command: how to look at it in MLflow; None where it is not tracked.
        mlflow_page: the address to open then, where it is known.
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
    lines += acted_lines(summary.closed_loop)
    if mlflow_command:
        lines.append(f"MLflow          {mlflow_command}")
        if mlflow_page:
            lines.append(f"                then open {mlflow_page}")
    if summary.report:
        lines.append(f"Report          {summary.report}")
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
