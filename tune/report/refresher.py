"""The report written anew while the search runs, in a thread that costs the search little and cannot hurt it."""

import logging
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ray.tune import Callback

from tune.report.results import refresh_results

FIRST_AFTER_S = 20.0
EVERY_S = 60.0
LARGEST_SHARE = 0.05
"""Of a processor's time, that is spent on writing; with very many trials the report comes more rarely."""
_logger = logging.getLogger(__name__)


class Refresher(Callback):
    """Ray calls it several times a second; it writes the report from the study's records when that is due.

    Args:
        run_dir: the study's folder.
        write: to be given in tests.
        first_after_s: seconds from the start of the search to the first report.
        every_s: seconds from one to the next, at least.
    """

    def __init__(
        self,
        run_dir: Path,
        write: Callable[[Path, str], Any] = refresh_results,
        first_after_s: float = FIRST_AFTER_S,
        every_s: float = EVERY_S,
    ):
        self._run_dir = run_dir
        self._write = write
        self._every_s = every_s
        self._due = time.monotonic() + first_after_s
        self._thread: threading.Thread | None = None

    def __getstate__(self) -> dict[str, Any]:
        """Nothing: Ray pickles its callbacks into a file that this package never loads."""
        return {}

    def on_step_end(self, iteration: int, trials: list, **info: Any) -> None:
        """Begin a report if one is due and the one before is finished."""
        if time.monotonic() < self._due or (self._thread is not None and self._thread.is_alive()):
            return
        self._thread = threading.Thread(target=self._refresh, name="report", daemon=True)
        self._thread.start()

    def on_experiment_end(self, trials: list, **info: Any) -> None:
        """Wait for a report that is being written, so that it does not come after the last one."""
        if self._thread is not None:
            self._thread.join()
            self._thread = None

    def _refresh(self) -> None:
        try:
            self._write(self._run_dir, "running")
        except Exception as error:  # noqa: BLE001 - whatever it is, the search goes on
            _logger.warning("the report could not be refreshed (%s: %s)", type(error).__name__, error)
            self._due = float("inf")  # it would fail again, and say so again; the last one is tried anyway
            return
        self._due = time.monotonic() + max(self._every_s, time.thread_time() / LARGEST_SHARE)
