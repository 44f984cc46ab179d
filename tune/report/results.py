"""What a study leaves behind in its folder: the report, ``summary.json``, ``trials.parquet``, the best policy."""

import json
import logging
import os
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd

from smolvla_core.command import refuse_unwritable
from smolvla_core.config import TrialConfig
from tune.finalists import winners_record
from tune.records import Records, TrialRecord
from tune.report.study_files import BEST_CONFIG, BEST_OF, BEST_POLICY, SUMMARY_FILE, best_of, read_study
from tune.run_folder import write_whole
from tune.summary import Summary, state_of

REPORT_FILE, TRIALS_FILE = "report.html", "trials.parquet"
_logger = logging.getLogger(__name__)


def write_results(summary: Summary, run_dir: Path, records: Records) -> tuple[Summary, list[Path]]:
    """Write everything that a study leaves behind when it ends; what an earlier session left is replaced.

    A report that cannot be written is a warning: the search itself has not failed.

    Args:
        summary: of the study.
        run_dir: its folder.
        records: its trials.

    Returns:
        the summary with the places of the best policy, its YAML and the report, and the files to keep with it.
    """
    trials = records.trials()
    best = winners_record(summary.finalists, run_dir)
    best = best or next((trial for trial in trials if summary.best and trial.number == summary.best.number), None)
    (run_dir / BEST_OF).unlink(missing_ok=True)  # nobody's, until both are written
    if best is not None:
        write_whole(run_dir / BEST_CONFIG, TrialConfig.from_dict(best.config).to_yaml())
        summary = replace(summary, config=str(run_dir / BEST_CONFIG))
        if write_policy(best, records, run_dir / BEST_POLICY):
            summary = replace(summary, checkpoint=str(run_dir / BEST_POLICY))
        write_whole(run_dir / BEST_OF, json.dumps(best_of(summary)) + "\n")
    _write_tables(summary, run_dir, trials)
    try:
        summary = _write_page(summary, run_dir)
    except Exception as error:  # noqa: BLE001 - whatever it is, the trials' results are not lost for it
        _logger.warning("%s could not be written (%s: %s)", run_dir / REPORT_FILE, type(error).__name__, error)
    kept = (TRIALS_FILE, SUMMARY_FILE, *((REPORT_FILE,) if summary.report else ()))
    return summary, [*(run_dir / name for name in kept), *([Path(summary.config)] if summary.config else [])]


def refresh_results(run_dir: Path, state: str | None = None, asked_by: str = "RUN") -> Summary:
    """Write the report, the summary and the table of a study as it stands; the best policy is left as it is.

    Args:
        run_dir: the study's folder.
        state: of the study; None: what the folder tells.
        asked_by: the argument that named the folder, for the message.

    Raises:
        ConfigError: the folder holds no study, or cannot be written.
        DataError: one of its files was damaged.
    """
    study = read_study(run_dir, asked_by)
    refuse_unwritable(asked_by, study.run_dir)
    summary = study.summary(state)
    _write_tables(summary, run_dir, study.trials)
    return _write_page(summary, run_dir, asked_by)


def _write_page(summary: Summary, run_dir: Path, asked_by: str = "RUN") -> Summary:
    """Write the report, and its place into the summary."""
    from tune.report.page import page  # plotly and jinja2, which a study needs at its end only

    summary = replace(summary, report=str(run_dir / REPORT_FILE))
    write_whole(run_dir / REPORT_FILE, page(read_study(run_dir, asked_by), summary))
    write_whole(run_dir / SUMMARY_FILE, _json(summary))
    return summary


def _write_tables(summary: Summary, run_dir: Path, trials: Sequence[TrialRecord]) -> None:
    part = run_dir / f".{TRIALS_FILE}.{os.getpid()}.part"
    trial_table(trials, summary.state).to_parquet(part, index=False)
    part.replace(run_dir / TRIALS_FILE)
    write_whole(run_dir / SUMMARY_FILE, _json(summary))


def _json(summary: Summary) -> str:
    return json.dumps(summary.to_dict(), indent=2) + "\n"


def write_policy(trial: TrialRecord, records: Records, out: Path) -> bool:
    """Write a trial's last state as a LeRobot policy; False, and nothing there, where it left no such state."""
    if trial.checkpoint is not None:
        from ray import tune as ray_tune

        from tune.trainable import STATE

        with ray_tune.Checkpoint(records.locate(trial.checkpoint)).as_directory() as folder:
            state = Path(folder) / STATE
            if state.is_dir():
                from smolvla_core.checkpoint import export_policy

                export_policy(state, out)
                return True
    shutil.rmtree(out, ignore_errors=True)  # an earlier session's best, which is another trial's
    return False


def trial_table(trials: Sequence[TrialRecord], study: str = "interrupted") -> pd.DataFrame:
    """One row a report: trial, its parameters (``param.*``), how it ended, and the report's numbers.

    A trial without a report has one row. ``study`` is the study's state, which decides what a trial
    is called that has not ended.
    """
    rows: list[dict[str, Any]] = []
    for trial in trials:
        outcome = trial.outcome
        head = {
            "trial": trial.number,
            "name": trial.name,
            "state": state_of(trial, study),
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
