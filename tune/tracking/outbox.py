"""Calls to MLflow that it does not answer, kept in their order until it does.

They are kept in memory alone: what a study's records say of a trial is told to MLflow again when the
study is resumed (``Tracker.recall_trial``), so that nothing is lost with the process.
"""

import logging
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from smolvla_core.errors import UserError
from tune.tracking.mlflow_store import LOCKED_OUT, first_line, mask

RETRY_AFTER_S = 30.0
PATIENCE = 0.3
"""Each second that a call waited in vain adds this share to the time until the next try."""
TRIES_AT_THE_END = 3
_logger = logging.getLogger(__name__)

# Error codes after which the same call may succeed later; any other answer is final.
_PASSING = frozenset(
    [
        "INTERNAL_ERROR",
        "TEMPORARILY_UNAVAILABLE",
        "REQUEST_LIMIT_EXCEEDED",
        "RESOURCE_EXHAUSTED",
        "DEADLINE_EXCEEDED",
        "ABORTED",
        "CANCELLED",
        *LOCKED_OUT,  # a server whose accounts are being put back
    ]
)


@dataclass(frozen=True)
class _Update:
    what: str
    call: Callable[[], Any]
    in_order: bool


class Outbox:
    """Makes calls in order; those that are not answered, and all after them, are made later.

    A call must bear being made twice: a time-out does not tell whether it arrived. Nothing here
    raises for MLflow's sake, so that tracking never ends a training; a user's mistake is raised.

    Args:
        store: its address, for what is said of it.
        retry_after_s: the least time between two tries.
    """

    def __init__(self, store: str, retry_after_s: float = RETRY_AFTER_S) -> None:
        self._store = mask(store)
        self._retry_after_s = retry_after_s
        self._waiting: deque[_Update] = deque()
        self._put_off: list[_Update] = []
        self._not_before = 0.0
        self._away = False
        self._reason = ""
        self.refused: list[str] = []

    def __len__(self) -> int:
        return len(self._waiting) + len(self._put_off)

    def send(self, what: str, call: Callable[[], Any], in_order: bool = True) -> None:
        """Queue a call, and make all that are due.

        Args:
            what: names it in the report of what failed.
            call: the call.
            in_order: nothing that comes after it is sent before it. False: of files, whose store may
                be away while the server is not; tried again at the end.
        """
        self._waiting.append(_Update(what, call, in_order))
        if time.monotonic() >= self._not_before:
            self._deliver(pausing=True)

    def close(self) -> str | None:
        """Try everything once more; one line on what could not be delivered, None if nothing."""
        for _ in range(TRIES_AT_THE_END):
            self._waiting.extend(self._put_off)
            self._put_off = []
            if not self._waiting:
                break
            self._deliver(pausing=False)
        lost = len(self) + len(self.refused)
        if not lost:
            return None
        reason = self._reason if len(self) else self.refused[0]
        return f"MLflow at {self._store}: {lost} updates could not be delivered ({reason})"

    def _deliver(self, pausing: bool) -> None:
        while self._waiting:
            update, began = self._waiting[0], time.monotonic()
            try:
                update.call()
            except UserError:
                raise
            except Exception as error:  # noqa: BLE001 - files go through the libraries of any store
                reason = f"{update.what}: {first_line(error)}"
                if not update.in_order:
                    self._reason = reason
                    self._put_off.append(self._waiting.popleft())
                elif _passes(error):
                    self._pause(reason, time.monotonic() - began if pausing else 0.0)
                    return
                else:
                    self.refused.append(reason)
                    self._waiting.popleft()
            else:
                self._waiting.popleft()
                self._away = False

    def _pause(self, reason: str, waited_s: float) -> None:
        """Let some time pass before the next try, so that trials seldom wait for a server that hangs."""
        self._reason = reason
        self._not_before = time.monotonic() + self._retry_after_s * (1 + PATIENCE * waited_s)
        if not self._away:
            self._away = True
            _logger.warning(
                "MLflow at %s does not answer (%s); training goes on, and updates are sent when it does",
                self._store,
                reason,
            )


def _passes(error: Exception) -> bool:
    """Whether the same call may succeed later."""
    from mlflow.exceptions import MlflowException

    return error.error_code in _PASSING if isinstance(error, MlflowException) else isinstance(error, OSError)
