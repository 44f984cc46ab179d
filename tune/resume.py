"""Where a study's trials and finalists go on after its process ended."""

import logging
from collections.abc import Sequence
from pathlib import Path

from tune.recorder import ending
from tune.records import Records, TrialRecord
from tune.remote import Folder, join
from tune.spec import SearchSpec

RAY_FOLDER = "ray"


def state_storage(spec: SearchSpec, run_dir: Path) -> str:
    """Where Ray keeps the states of a study's trainings: a path, or an address in the remote storage."""
    if spec.is_remote:
        return join(spec.storage, run_dir.name, RAY_FOLDER)
    return str(run_dir.absolute() / RAY_FOLDER)


def settle(records: Records, spec: SearchSpec) -> None:
    """Give an outcome to trials whose last report ended them, but whose driver died before it wrote so."""
    for trial in records.trials():
        if trial.outcome is not None or not trial.results or not trial.results[-1].last:
            continue
        last = trial.results[-1]
        known = {**last.metrics, "failure": last.failure} if last.failure is not None else dict(last.metrics)
        records.end_trial(trial.number, *ending(known, spec.objective.metric, spec.samples, "stopped at a rung"))


def resumable(records: Records, recorded: Sequence[TrialRecord]) -> dict[int, tuple[str, int]]:
    """Number -> (checkpoint, samples seen) of the trials that go on; one whose state is gone starts anew."""
    found = {}
    for trial in recorded:
        if trial.outcome is not None or trial.checkpoint is None:
            continue
        place = records.locate(trial.checkpoint)
        if _is_there(place):
            samples = next(r.samples_seen for r in reversed(trial.results) if r.checkpoint)
            found[trial.number] = (place, samples)
        else:
            logging.getLogger(__name__).warning("%s is gone; trial %d starts anew", place, trial.number)
    return found


def _is_there(place: str) -> bool:
    if "://" not in place:
        return Path(place).is_dir()
    found = Folder.at(place)
    return bool(found.files())
