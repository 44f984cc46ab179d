"""The way to an MLflow store: its address, a client, and an outbox for when it does not answer."""

import logging
import os
import re
import time
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from smolvla_core.errors import UserError

if TYPE_CHECKING:
    from mlflow.entities import Run
    from mlflow.tracking import MlflowClient

SQLITE = "sqlite:///"
POINTER, EXPERIMENT_ID = "mlflow.json", "experiment_id"
"""The file of a study's folder that says where the study is in MLflow, and a key of it."""
RETRY_AFTER_S = 30.0
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
        "UNAUTHENTICATED",
        "CUSTOMER_UNAUTHORIZED",
        "PERMISSION_DENIED",
    ]
)


class TrackingError(UserError):
    """A tracking store that cannot be used."""


def resolve_uri(uri: str | None, run_dir: Path) -> str:
    """The store's address with every local path made absolute; None: ``mlflow.db`` beside the runs."""
    if uri is None:
        return f"{SQLITE}{run_dir.resolve().parent / 'mlflow.db'}"
    if uri.startswith(SQLITE):
        path, question, query = uri.removeprefix(SQLITE).partition("?")
        return f"{SQLITE}{Path(path).expanduser().resolve()}{question}{query}"
    if "://" not in uri and not uri.startswith(("databricks", "file:")):
        return str(Path(uri).expanduser().resolve())
    return uri


def sqlite_file(uri: str) -> Path | None:
    """The database file of an SQLite address, else None."""
    return Path(uri.removeprefix(SQLITE).partition("?")[0]) if uri.startswith(SQLITE) else None


def mask(text: str) -> str:
    """``text`` with the user and password of every URL in it blotted out."""
    return re.sub(r"(?<=://)[^/\s'\"]+@", "***@", text)


def connect(uri: str) -> "MlflowClient":
    """A client for a resolved address; an SQLite database is made where there is none.

    MLflow's own retries would block a training driver for minutes on a server that is away, so they
    are cut short (unless the environment says otherwise); :class:`Outbox` retries instead.

    Raises:
        TrackingError: MLflow cannot open it.
    """
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "30")
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    # At each run's end MLflow prints the address, with the password where it holds one.
    os.environ["MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT"] = "true"
    from mlflow.exceptions import MlflowException
    from mlflow.tracking import MlflowClient

    for noisy in ("alembic", "mlflow.store.db.utils"):
        logging.getLogger(noisy).setLevel(logging.CRITICAL)
    database = sqlite_file(uri)
    try:
        if database is not None:
            database.parent.mkdir(parents=True, exist_ok=True)
        return MlflowClient(tracking_uri=uri)
    except (MlflowException, OSError) as error:
        raise TrackingError(
            f"tracking.uri: {mask(uri)}: MLflow cannot open it ({first_line(error)}); "
            "give an sqlite:/// path, a database URL or the http(s):// address of a server"
        ) from None


def search_runs(client: "MlflowClient", experiment_id: str, query: str) -> Iterator["Run"]:
    """Every run of an experiment that fits a filter, page by page."""
    token: str | None = None
    while True:
        page = client.search_runs([experiment_id], query, page_token=token)
        yield from page
        token = page.token
        if not token:
            return


def first_line(error: BaseException) -> str:
    """An error's first line without credentials, at most 300 characters."""
    lines = str(error).strip().splitlines()
    return mask(lines[0])[:300] if lines else type(error).__name__


class Outbox:
    """Calls to MLflow, made in order; those it does not answer are kept in memory and made later.

    A call must bear being made twice: a time-out does not tell whether it arrived. Nothing here
    raises for MLflow's sake, so that tracking never ends a training.
    """

    def __init__(self, store: str, retry_after_s: float = RETRY_AFTER_S) -> None:
        self._store = mask(store)
        self._retry_after_s = retry_after_s
        self._waiting: deque[tuple[str, Callable[[], Any]]] = deque()
        self._not_before = 0.0
        self._away = False
        self._reason = ""
        self.refused: list[str] = []

    def __len__(self) -> int:
        return len(self._waiting)

    def send(self, what: str, call: Callable[[], Any]) -> None:
        """Queue a call, named for the report of what failed, and make all that are due."""
        self._waiting.append((what, call))
        if time.monotonic() >= self._not_before:
            self._deliver(failures_allowed=0)

    def close(self) -> str | None:
        """Try everything once more; one line on what could not be delivered, None if nothing."""
        self._deliver(failures_allowed=2)
        lost = len(self._waiting) + len(self.refused)
        if not lost:
            return None
        reason = self._reason if self._waiting else self.refused[0]
        return f"MLflow at {self._store}: {lost} updates could not be delivered ({reason})"

    def _deliver(self, failures_allowed: int) -> None:
        from mlflow.exceptions import MlflowException

        skipped: list[tuple[str, Callable[[], Any]]] = []
        while self._waiting:
            what, call = self._waiting[0]
            try:
                call()
            except (MlflowException, OSError) as error:
                if isinstance(error, MlflowException) and error.error_code not in _PASSING:
                    self.refused.append(f"{what}: {first_line(error)}")
                    self._waiting.popleft()
                    continue
                self._pause(f"{what}: {first_line(error)}")
                if len(skipped) >= failures_allowed:
                    break
                skipped.append(self._waiting.popleft())
            else:
                self._waiting.popleft()
                self._away = False
        self._waiting.extendleft(reversed(skipped))

    def _pause(self, reason: str) -> None:
        self._reason = reason
        self._not_before = time.monotonic() + self._retry_after_s
        if not self._away:
            self._away = True
            _logger.warning(
                "MLflow at %s does not answer (%s); training goes on, and updates are sent when it does",
                self._store,
                reason,
            )
