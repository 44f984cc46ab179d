"""The way to an MLflow store: its address, its credentials, and a client."""

import fcntl
import json
import logging
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from smolvla_core.errors import UserError

if TYPE_CHECKING:
    from mlflow.entities import Run
    from mlflow.tracking import MlflowClient

SQLITE = "sqlite:///"
ADDRESS = "MLFLOW_TRACKING_URI"
USERNAME, PASSWORD = "MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD"
"""MLflow's own environment variables."""
BLOT = "***@"
"""What stands for a user and password in an address."""
REQUEST_TIMEOUT_S = 10
LOCKED_OUT = frozenset(["UNAUTHENTICATED", "CUSTOMER_UNAUTHORIZED", "PERMISSION_DENIED"])
"""Error codes of a server that wants other credentials."""
POINTER, EXPERIMENT_ID, STUDY_ID = "mlflow.json", "experiment_id", "study_id"
"""The file of a study's folder that says where the study is in MLflow, and keys of it."""


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


def read_pointer(run_dir: Path) -> dict[str, Any] | None:
    """Where a study is in MLflow; None where it was never told.

    Raises:
        TrackingError: the file was damaged.
    """
    file = run_dir / POINTER
    if not file.is_file():
        return None
    try:
        pointer = json.loads(file.read_text(encoding="utf-8"))
    except ValueError:
        pointer = None
    if isinstance(pointer, dict) and STUDY_ID in pointer:
        return pointer
    raise TrackingError(
        f"{file}: damaged, so that the study's runs in MLflow are not known; restore it, or remove it: the study then "
        "gets runs of its own"
    )


def sqlite_file(uri: str) -> Path | None:
    """The database file of an SQLite address, else None."""
    return Path(uri.removeprefix(SQLITE).partition("?")[0]) if uri.startswith(SQLITE) else None


def is_server(uri: str) -> bool:
    """Whether it is the address of an MLflow server."""
    return uri.startswith(("http://", "https://"))


def mask(text: str) -> str:
    """``text`` with the user and password of every URL in it blotted out."""
    return re.sub(r"(?<=://)[^/\s'\"]+@", BLOT, text)


def connect(uri: str) -> "MlflowClient":
    """A client for a resolved address; an SQLite database is made where there is none.

    MLflow's own retries would block a training driver for minutes on a server that is away, so they
    are cut short (unless the environment says otherwise); ``tune.tracking.outbox`` retries instead.

    Raises:
        TrackingError: MLflow cannot open it.
    """
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", str(REQUEST_TIMEOUT_S))
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    # At each run's end MLflow prints the address, with the password where it holds one.
    os.environ["MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT"] = "true"
    from mlflow.exceptions import MlflowException
    from mlflow.tracking import MlflowClient
    from sqlalchemy.exc import SQLAlchemyError

    for noisy in ("alembic", "mlflow.store.db.utils", "urllib3.connectionpool"):
        logging.getLogger(noisy).setLevel(logging.CRITICAL)
    database = sqlite_file(uri)
    try:
        if database is not None:
            database.parent.mkdir(parents=True, exist_ok=True)
            with _alone_in(database.parent):
                return MlflowClient(tracking_uri=uri)
        return MlflowClient(tracking_uri=uri)
    except (MlflowException, OSError, SQLAlchemyError, ImportError) as error:  # ImportError: a database's driver
        raise TrackingError(
            f"tracking.uri: {mask(uri)}: MLflow cannot open it ({first_line(error)}); "
            "give an sqlite:/// path, a database URL or the http(s):// address of a server"
        ) from None


@contextmanager
def _alone_in(folder: Path) -> Iterator[None]:
    """One process at a time: two that make or migrate MLflow's tables at once fail, and leave them half made."""
    place = os.open(folder, os.O_RDONLY)
    try:
        with suppress(OSError):  # a file system without locks
            fcntl.flock(place, fcntl.LOCK_EX)
        yield
    finally:
        os.close(place)


def refuse_locked_out(client: "MlflowClient", uri: str) -> None:
    """Refuse a server that does not let this process in. One that is away is none of this function's business.

    Raises:
        TrackingError: it wants other credentials.
    """
    from mlflow.exceptions import MlflowException

    try:
        client.search_experiments(max_results=1)
    except (MlflowException, OSError) as error:
        if isinstance(error, MlflowException) and error.error_code in LOCKED_OUT:
            given = "refuses the name and password" if USERNAME in os.environ or "@" in uri else "wants a name"
            raise TrackingError(
                f"tracking.uri: MLflow at {mask(uri)} {given}; set {USERNAME} and {PASSWORD} in the environment"
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
