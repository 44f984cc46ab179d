"""Real servers on the loopback for tests: MLflow with names and passwords, and PostgreSQL."""

import os
import pwd
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

USER, PASSWORD = "ada", "correct-horse-battery"
"""Of the MLflow server."""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class MlflowServer:
    """``mlflow server`` that asks for a name and a password; its data outlives it.

    Args:
        folder: of its accounts and artifacts, and its database where no other is given.
        backend: address of the database.
    """

    def __init__(self, folder: Path, backend: str | None = None):
        self.folder, self.port = folder, free_port()
        self.backend = backend or f"sqlite:///{folder / 'mlflow.db'}"
        self.process: subprocess.Popen | None = None
        self.accounts = folder / "accounts.ini"
        folder.mkdir(parents=True, exist_ok=True)
        self.accounts.write_text(
            f"[mlflow]\ndefault_permission = MANAGE\ndatabase_uri = sqlite:///{folder / 'accounts.db'}\n"
            f"admin_username = {USER}\nadmin_password = {PASSWORD}\n"
            "authorization_function = mlflow.server.auth:authenticate_request_basic_auth\n"
        )

    @property
    def uri(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        """Start it, and wait until it answers."""
        command = [sys.executable, "-m", "mlflow", "server", "--backend-store-uri", self.backend]
        command += ["--artifacts-destination", str(self.folder / "artifacts"), "--app-name", "basic-auth"]
        command += ["--host", "127.0.0.1", "--port", str(self.port), "--workers", "1"]
        own = {"MLFLOW_AUTH_CONFIG_PATH": str(self.accounts), "MLFLOW_FLASK_SERVER_SECRET_KEY": "of a test"}
        with (self.folder / "server.log").open("ab") as log:
            self.process = subprocess.Popen(
                command, cwd=self.folder, env=os.environ | own, stdout=log, stderr=log, start_new_session=True
            )
        deadline = time.monotonic() + 180
        while time.monotonic() < deadline and self.process.poll() is None:
            try:
                urllib.request.urlopen(f"{self.uri}/health", timeout=5).close()
                return
            except urllib.error.HTTPError:
                return
            except OSError:
                time.sleep(0.2)
        raise AssertionError(f"mlflow server did not start: {(self.folder / 'server.log').read_text()[-2000:]}")

    def kill(self) -> None:
        """Kill it and its workers, as a machine that is switched off."""
        if self.process is not None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
            self.process = None


def postgres_programs() -> Path | None:
    """Where PostgreSQL's programs are; None where it is not installed."""
    found = [Path(place).resolve().parent for place in (shutil.which("initdb"), shutil.which("postgres")) if place]
    found += sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    return next((folder for folder in found if (folder / "initdb").is_file() and (folder / "pg_ctl").is_file()), None)


@contextmanager
def postgres() -> Iterator[str]:
    """The address of a database in a server of the test's own; it does not run as root."""
    programs, port = postgres_programs(), free_port()
    assert programs is not None
    home = Path(tempfile.mkdtemp(prefix="postgres-"))
    as_user: dict = {}
    if os.getuid() == 0:
        account = pwd.getpwnam("postgres")
        os.chown(home, account.pw_uid, account.pw_gid)
        as_user = {"user": account.pw_uid, "group": account.pw_gid, "extra_groups": []}
    options = f"-p {port} -k {home} -c listen_addresses=127.0.0.1 -c fsync=off"

    def run(*arguments: str) -> None:
        subprocess.run(arguments, check=True, cwd=home, stdout=subprocess.DEVNULL, **as_user)

    try:
        run(str(programs / "initdb"), "-D", str(home / "data"), "-A", "trust", "-U", "mlflow", "--no-sync")
        control = (str(programs / "pg_ctl"), "-D", str(home / "data"), "-w", "-l", str(home / "log"))
        run(*control, "-o", options, "start")
        try:
            yield f"postgresql://mlflow@127.0.0.1:{port}/postgres"
        finally:
            run(*control, "-m", "immediate", "stop")
    finally:
        shutil.rmtree(home, ignore_errors=True)
