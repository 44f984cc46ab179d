"""A study's time, which goes on evenly whatever is done to the machine's clock.

Hours that were used, the order in which results arrived and each trial's pace are read from recorded
times. A clock that is set while a study runs, or between two sessions of it, would spoil all three.
"""

import time
from functools import cache
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
