"""Attach an evaluator's results to a trial: ``python -m tune.attach RUN --trial BEST RESULTS.json ...``.

They are kept with the trial's record and its MLflow run, and stand in the report. Attaching them again
changes nothing. Exit code 0 on success, 2 on bad input, 1 where MLflow could not be told.
"""

import argparse
import sys
from pathlib import Path

from smolvla_core.command import FAILED, OK, Parser, answer, refuse_unwritable
from smolvla_core.errors import ConfigError
from tune.closed_loop import Achieved, achieved, attach, read_results
from tune.console import counted
from tune.records import FINALISTS, Records, TrialRecord
from tune.report.results import REPORT_FILE, refresh_results
from tune.report.study_files import BEST_POLICY, SUMMARY_FILE, StudyFiles, read_study
from tune.run_folder import with_password
from tune.tracking.mlflow_attach import attach_to_run
from tune.tracking.mlflow_store import TrackingError

BEST = "best"


def main(arguments: list[str] | None = None) -> int:
    """The command line; see ``--help``."""
    parser = Parser(
        prog="python -m tune.attach",
        description="Attach results of BEHAVIOR's evaluator, or of python -m smolvla_core.evaluate, to a trial.",
        epilog="Exit code: 0 success, 2 bad input, 1 where MLflow could not be told; the same command tries again.",
    )
    parser.add_argument("run", metavar="RUN", help="a study's folder, e.g. runs/eggs-20260131-120000")
    parser.add_argument("results", nargs="+", metavar="RESULTS.json", help="as the evaluator wrote them")
    parser.add_argument(
        "--trial",
        required=True,
        metavar="BEST|N",
        help="whose results: BEST is what best/ holds; N a trial's number; 'finalist N' a finalist's training",
    )
    options = parser.parse_args(arguments)
    return answer(lambda: _attach(options))


def _attach(options: argparse.Namespace) -> int:
    study = read_study(Path(options.run))
    records, training = _whose(study, str(options.trial))
    files = [Path(path) for path in options.results]
    for file in files:
        read_results(file)  # all of them before one is kept
    refuse_unwritable("RUN", study.run_dir)
    folder = records.folder(training.number)
    added = sum(attach(folder, file) for file in files)
    noun = _key(records, training.number)
    print(f"{counted(added, 'file')} of {len(files)} attached to {noun}, the others were there already")
    told = [_told(each) for each in achieved(folder)]
    print("\n".join(told))
    print(f"Report   {refresh_results(study.run_dir).report}")
    return _tell_mlflow(study, records, training)


def _whose(study: StudyFiles, asked: str) -> tuple[Records, TrialRecord]:
    """The record of a training, and where it is.

    Raises:
        ConfigError: there is no such trial.
    """
    kind, number = "trial", asked.strip()
    if number.lower() == BEST:
        kind, number = _best(study)
    elif number.lower().startswith("finalist "):
        kind, number = "finalist", number.split()[1]
    trials, records = (
        (study.finalists, Records(study.run_dir, FINALISTS))
        if kind == "finalist"
        else (study.trials, Records(study.run_dir))
    )
    found = next((trial for trial in trials if str(trial.number) == number), None)
    if found is None:
        known = f"0 to {max(trial.number for trial in trials)}" if trials else "none"
        raise ConfigError(f"--trial: there is no {kind} '{number}' in {study.run_dir} (it has {known}); or give BEST")
    return records, found


def _best(study: StudyFiles) -> tuple[str, str]:
    """The training whose policy ``best/`` holds.

    Raises:
        ConfigError: there is none, or the best is another by now.
    """
    summary = study.summary()
    if summary.best is None:
        raise ConfigError(f"--trial: {study.run_dir} has no best trial yet; give a trial's number")
    if summary.checkpoint is None:
        raise ConfigError(
            f"--trial: {study.run_dir / BEST_POLICY} may be another trial's than what is best now (study "
            f"{summary.state}); give the number of the trial that acted"
        )
    policy = (summary.finalists or {}).get("policy")
    return ("finalist", str(policy["number"])) if policy else ("trial", str(summary.best.number))


def _key(records: Records, number: int) -> str:
    return f"finalist {number}" if records.kind == FINALISTS else f"trial {number}"


def _told(each: Achieved) -> str:
    scores = ", ".join(f"{name} {100 * score.mean:.1f} %" for name, score in each.scores().items())
    return f"{each.evaluator:<8} {counted(len(each.rollouts), 'rollout')}: {scores}"


def _tell_mlflow(study: StudyFiles, records: Records, training: TrialRecord) -> int:
    if not study.spec.tracking.enabled:
        return OK
    samples = max((result.samples_seen for result in training.results), default=0)
    number = training.number
    try:
        attach_to_run(
            study.run_dir,
            with_password(study.spec, study.run_dir).tracking.uri,
            number if records.kind != FINALISTS else _key(records, number),
            achieved(records.folder(number)),
            samples,
            [study.run_dir / name for name in (REPORT_FILE, SUMMARY_FILE)],
        )
    except (ConfigError, TrackingError) as error:
        print(f"MLflow could not be told: {error}", file=sys.stderr)
        return FAILED
    return OK


if __name__ == "__main__":
    sys.exit(main())
