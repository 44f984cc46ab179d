"""Which states of trials are kept: the last one of those that run or are complete, and the best one's.

A rung's state serves a trial to go on from. One that was stopped or failed does not go on, so its state
is deleted as soon as another that has ended is better (one that still runs may yet fail); otherwise a
search of hundreds of trials would fill the disk with states that nobody looks at.
"""

import logging
from collections.abc import Callable, Mapping, Sequence

from pyarrow import ArrowException
from ray import tune as ray_tune

from tune.asha import Rungs
from tune.records import TrialRecord

_LOG = logging.getLogger(__name__)


class Retention:
    """Deletes the states of a study's losing trials.

    Args:
        locate: a recorded checkpoint -> its path or address.
        recorded: trials of earlier sessions.
        rungs: its values; a trial is entered before :meth:`ended` is called for it.
        mode: ``min`` or ``max``.
        keep_stopped: delete only those of failed trials.
    """

    def __init__(
        self,
        locate: Callable[[str], str],
        recorded: Sequence[TrialRecord],
        rungs: Rungs,
        mode: str,
        keep_stopped: bool = False,
    ):
        self._locate = locate
        self._keep_stopped = keep_stopped
        self._rungs = rungs
        self._sign = 1.0 if mode == "min" else -1.0
        self._losing: dict[int, str] = {}
        self._whole: set[int] = set()
        for trial in recorded:
            if trial.outcome is not None:
                self.ended(trial.number, trial.outcome.state, trial.checkpoint, sweep=False)
        self._sweep()

    def replaced(self, checkpoint: str) -> None:
        """Delete a trial's recorded state, since a newer one is recorded, and known to Ray."""
        _delete(self._locate(checkpoint))

    def ended(self, number: int, state: str, checkpoint: str | None, *, sweep: bool = True) -> None:
        """Take note of a trial's end, and delete what has become useless by it.

        Args:
            number: of the trial.
            state: ``complete``, ``pruned`` or ``failed``.
            checkpoint: its last state, as it is recorded.
            sweep: whether to delete now.
        """
        if state != "failed":
            self._whole.add(number)
        kept = state == "complete" or (self._keep_stopped and state == "pruned")
        if not kept and checkpoint is not None:
            self._losing[number] = checkpoint
        if sweep:
            self._sweep()

    def _sweep(self) -> None:
        best = best_number(self._rungs.values(), self._whole, self._sign)
        for number in [number for number in self._losing if number != best]:
            _delete(self._locate(self._losing.pop(number)))


def best_number(rungs: Mapping[int, Mapping[int, float]], among: set[int], sign: float) -> int | None:
    """The best of some trials at the highest rung that any of them has reached, as ``tune.summary`` chooses it."""
    for level in sorted(rungs, reverse=True):
        there = {number: value for number, value in rungs[level].items() if number in among}
        if there:
            return min(there, key=lambda number: (sign * there[number], number))
    return None


def _delete(place: str) -> None:
    """Delete a folder here or in a remote storage; one that cannot be deleted costs disk, not the search."""
    try:
        found = ray_tune.Checkpoint(place)
        found.filesystem.delete_dir(found.path)
    except FileNotFoundError:
        return
    except (OSError, ArrowException) as error:
        _LOG.warning("%s could not be deleted: %s", place, error)
