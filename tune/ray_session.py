"""Ray, started quietly, and stopped in an orderly way by a signal or when the hours are used up."""

import logging
import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

import ray
from ray._private.utils import read_ray_address
from ray.tune import Stopper

from smolvla_core.errors import ConfigError, first_line
from tune import heap
from tune.notice import GRACE_S, Notice

_SETTINGS = {
    "RAY_AIR_NEW_OUTPUT": "0",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_TRAIN_ENABLE_V2_MIGRATION_WARNINGS": "0",
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_DISABLE_SIGINT_HANDLER": "1",
    "TUNE_DISABLE_STRICT_METRIC_CHECKING": "1",  # a failure is reported without the metric
    "TUNE_GLOBAL_CHECKPOINT_S": "3600",  # Ray's own record, which is not used
    "TUNE_PRINT_ALL_TRIAL_ERRORS": "0",
    "TUNE_WARN_EXCESSIVE_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S": "0",
}
_ANSWERS_WITHIN_S = 10.0
_LOGGERS = ("ray.tune", "ray.train", "ray.air")
INTERRUPTED = "interrupted"
OUT_OF_TIME = "out of time"
TIME_IS_KEPT = "out of time: the rest of budget.hours is for the finalists"
ENDED_BY_TIME = (OUT_OF_TIME, TIME_IS_KEPT)


@contextmanager
def ray_session() -> Iterator[None]:
    """Ray for the length of the block: the session this process has, else a running cluster's, else one of its own.

    Ray reads its settings from the environment; they are put back at the end.
    """
    heap.keep_small()
    before = {name: os.environ.get(name) for name in _SETTINGS}
    levels = {name: logging.getLogger(name).level for name in _LOGGERS}
    os.environ.update(_SETTINGS)
    for name in _LOGGERS:
        logging.getLogger(name).setLevel(logging.CRITICAL)
    starts = not ray.is_initialized()
    try:
        if starts:
            _start()
        yield
    finally:
        if starts:
            ray.shutdown()
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
        for name, level in levels.items():
            logging.getLogger(name).setLevel(level)


def _start() -> None:
    """Start Ray; it gives itself 30 seconds, which a busy machine may exceed, so try twice.

    Raises:
        ConfigError: it did not start, or the cluster that it would join does not answer.
    """
    _check_that_cluster_answers()
    for last in (False, True):
        try:
            ray.init(log_to_driver=False, logging_level=logging.ERROR, include_dashboard=False)
            return
        except Exception as error:  # Ray raises a bare Exception for a time-out
            ray.shutdown()
            if last:
                raise ConfigError(
                    f"Ray did not start ({first_line(error)}); is the machine too busy? Try again"
                ) from error


def _check_that_cluster_answers() -> None:
    """Ray itself waits for most of an hour for a cluster that is gone."""
    named = os.environ.get("RAY_ADDRESS", "")
    address = read_ray_address() or "" if named in ("", "auto") else named
    host, _, port = address.rpartition("/")[2].rpartition(":")
    if not port.isdecimal():  # "local", or none runs here
        return
    try:
        socket.create_connection((host.strip("[]"), int(port)), _ANSWERS_WITHIN_S).close()
    except OSError as error:
        raise ConfigError(
            f"Ray: the cluster at {address}, which {'RAY_ADDRESS' if address == named else '`ray start`'} names, does "
            f"not answer ({first_line(error)}); start it, or search on this machine alone: export RAY_ADDRESS=local"
        ) from error


class Brake(Stopper):
    """Ends a search when the seconds are used up, when :meth:`pull` is called, or soon after :meth:`ask`.

    Args:
        seconds: that there are; None: no limit.
        kept: says how many of them are kept for what comes after; asked now and then, since it is
            known better the longer the search runs.
        say: takes a line about what is waited for.

    Attributes:
        notice: by which the trainings that run are asked for their states.
    """

    def __init__(
        self,
        seconds: float | None,
        kept: Callable[[], float] | None = None,
        say: Callable[[str], None] | None = None,
    ):
        self.notice = Notice()
        self._say = say
        self._asked_at: float | None = None
        self._began = time.monotonic()
        self._seconds = seconds
        self._know_kept = kept
        self._kept = 0.0
        self._ask_at = self._began
        self.reason: str | None = None

    def __getstate__(self) -> dict[str, Any]:
        """Nothing: Ray pickles it into a file that this package never loads, and what it asks may know passwords."""
        return {}

    @property
    def left(self) -> float | None:
        """Seconds that are left, those that are kept included; None: no limit."""
        return None if self._seconds is None else self._began + self._seconds - time.monotonic()

    def pull(self, reason: str = INTERRUPTED) -> None:
        """End the search; the trials that run can be continued."""
        self.reason = reason

    def ask(self) -> None:
        """End the search once the trials that run have saved their states, or after some seconds."""
        self._asked_at = time.monotonic()

    @property
    def is_asked(self) -> bool:
        """Whether it is about to end, or has ended, by :meth:`ask`."""
        return self._asked_at is not None

    def __call__(self, trial_id: str, result: dict) -> bool:
        """No single trial is stopped."""
        return False

    def stop_all(self) -> bool:
        """Asked by Ray several times a second."""
        if self._asked_at is not None and self.reason is None:
            self._await_states(self._asked_at)
        if self.reason is None and self._seconds is not None and self.left is not None:
            self._ask_again(self._seconds)
            if self.left <= self._kept:
                self.reason = TIME_IS_KEPT if self._kept else OUT_OF_TIME
        return self.reason is not None

    def _await_states(self, since: float) -> None:
        if not self.notice.given:
            self.notice.give()
            if self._say is not None and not self.notice.answered:
                self._say(f"Stopping; the trials save their states, which takes at most {GRACE_S:g} s ...")
        if self.notice.answered or time.monotonic() > since + GRACE_S:
            self.pull()

    def _ask_again(self, seconds: float) -> None:
        now = time.monotonic()
        if self._know_kept is not None and now >= self._ask_at:
            self._kept = self._know_kept()
            self._ask_at = now + min(30.0, 0.01 * seconds)


@contextmanager
def stopped_by_signals(brake: Brake) -> Iterator[None]:
    """SIGINT and SIGTERM end a search as :meth:`Brake.ask` does; the second one ends the process at once."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def handle(number: int, frame: FrameType | None) -> None:
        if brake.is_asked:
            raise KeyboardInterrupt
        brake.ask()

    before = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        if brake.is_asked and brake.reason is None:  # all trials ended while it was waited for
            brake.pull()
