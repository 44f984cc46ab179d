"""A study's time, which goes on evenly whatever is done to the machine's clock.

Hours that were used, the order in which results arrived and each trial's pace are read from recorded
times. A clock that is set while a study runs, or between two sessions of it, would spoil all three.
"""

import time
from collections.abc import Iterable, Sequence
from functools import cache
from itertools import pairwise
from pathlib import Path


class StudyClock:
    """Seconds since the epoch as they were when the clock was made, and from there on by the monotonic clock."""

    def __init__(self) -> None:
        self._offset = time.time() - time.monotonic()

    def now(self) -> float:
        """The time, in seconds since the epoch; never less than before."""
        return self._offset + time.monotonic()

    def not_before(self, recorded: float) -> None:
        """Go on from a time that was recorded, where the machine's clock has been set back since."""
        self._offset = max(self._offset, recorded - time.monotonic())


@cache
def clock_of(run_dir: Path) -> StudyClock:
    """The one clock of a study's folder in this process."""
    return StudyClock()


def seconds_at(times: Sequence[float], starts: Iterable[float]) -> list[float]:
    """How long a trial had been running at each of its records.

    A study's start between two records means that the trial was not running up to then; what it had
    done since its last record was lost and is not counted.

    Args:
        times: of its start and what was recorded after it, ascending; in seconds since the epoch.
        starts: of the study's sessions, likewise.
    """
    starts, seconds = list(starts), [0.0]
    for before, after in pairwise(times):
        began = max([before, *(start for start in starts if before < start <= after)])
        seconds.append(seconds[-1] + max(0.0, after - began))
    return seconds
