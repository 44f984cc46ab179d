"""A study as its folder holds it, read back for the report."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tune import driver
from tune.finalists import study_summary
from tune.records import FINALISTS, Records, Session, TrialRecord
from tune.run_folder import DATASET, OBJECTIVE, stored_spec, stored_yaml
from tune.spec import Resources, SearchSpec
from tune.summary import Summary

BEST_POLICY, BEST_CONFIG = "best", "best.yaml"
BEST_OF = "best.json"
"""Whose the two are: the summary is written anew while a search runs, they are not."""
SUMMARY_FILE = "summary.json"


@dataclass(frozen=True)
class StudyFiles:
    """What a study's folder holds.

    Attributes:
        run_dir: the folder.
        spec: what is searched.
        yaml_text: its YAML as the user wrote it.
        trials: by number.
        finalists: the finalists' trainings, likewise.
        sessions: each time the study was started.
        seconds: that they lasted.
        dataset: ``smolvla_core.data.dataset.fingerprint``; empty where it was not recorded.
        objective: ``smolvla_core.evaluate.describe_objective``; likewise.
        written: the summary that was written last; likewise.
        best_of: of what was the best when ``best/`` and ``best.yaml`` were written, :func:`best_of`; likewise.
    """

    run_dir: Path
    spec: SearchSpec
    yaml_text: str
    trials: tuple[TrialRecord, ...]
    finalists: tuple[TrialRecord, ...]
    sessions: tuple[Session, ...]
    seconds: float
    dataset: Mapping[str, Any]
    objective: Mapping[str, Any]
    written: Mapping[str, Any]
    best_of: Mapping[str, Any]

    @property
    def resources(self) -> Resources:
        """What a trial was given: as recorded (it may have been measured), else as the search asks for it."""
        asked = self.spec.resources
        given = self.sessions[-1].resources if self.sessions else {}
        if not given:
            return asked
        return Resources(cpus=given["cpus"], gpus=given["gpus"], cost_per_hour=asked.cost_per_hour)

    @property
    def metric(self) -> str:
        """The objective's key."""
        return self.spec.objective.metric

    def summary(self, state: str | None = None) -> Summary:
        """The study as it stands now.

        Args:
            state: of the study. None: ``running`` where a living process drives it, else what was
                written at its end; ``interrupted`` where it had none.
        """
        reason = None
        if state is None:
            state, reason = self._state()
        found = study_summary(self.spec, self.trials, self.finalists, state=state, reason=reason, seconds=self.seconds)
        return self._with_best_files(found) if state != "running" else found

    def _state(self) -> tuple[str, str | None]:
        if driver.is_alive({driver.RUN_DIR: str(self.run_dir.resolve())}):
            return "running", None
        before = self.written.get("state")
        if before in (None, "running"):  # its driver was killed before it could say how it ended
            return "interrupted", "its process ended before the study did"
        return str(before), self.written.get("reason")

    def _with_best_files(self, summary: Summary) -> Summary:
        """With the best policy and its YAML where they lie here and belong to what is now the best."""
        if summary.best is None or self.best_of != best_of(summary):
            return summary
        policy, config = self.run_dir / BEST_POLICY, self.run_dir / BEST_CONFIG
        return replace(
            summary,
            checkpoint=str(policy) if policy.is_dir() else None,
            config=str(config) if config.is_file() else None,
        )


def read_study(run_dir: Path, asked_by: str = "RUN") -> StudyFiles:
    """Read a study's folder.

    Args:
        run_dir: the folder.
        asked_by: the argument that named it, for the message.

    Raises:
        ConfigError: it holds no study.
        DataError: a file was damaged.
    """
    run_dir = run_dir.absolute()
    spec, records = stored_spec(run_dir, asked_by), Records(run_dir)
    return StudyFiles(
        run_dir=run_dir,
        spec=spec,
        yaml_text=stored_yaml(run_dir),
        trials=tuple(records.trials()),
        finalists=tuple(Records(run_dir, FINALISTS).trials()),
        sessions=tuple(records.sessions()),
        seconds=records.seconds_used(),
        dataset=_document(run_dir / DATASET),
        objective=_document(run_dir / OBJECTIVE),
        written=_document(run_dir / SUMMARY_FILE),
        best_of=_document(run_dir / BEST_OF),
    )


def best_of(summary: Summary) -> dict[str, Any]:
    """What tells a study's best training: the best ``trial``, its ``rung``, and the ``finalist`` that is exported.

    Empty where no trial has reached a rung; ``finalist`` is None where it is the trial itself.
    """
    if summary.best is None:
        return {}
    policy = (summary.finalists or {}).get("policy")
    number = policy["number"] if policy else None
    return {"trial": summary.best.number, "rung": summary.best.rung, "finalist": number}


def _document(file: Path) -> Mapping[str, Any]:
    """A JSON object; empty where the file is absent or holds none."""
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
