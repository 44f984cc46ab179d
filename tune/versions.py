"""Which code ran: the versions of what matters, and the commit of this package."""

import platform
import subprocess  # nosec B404 # git, with fixed arguments
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

PACKAGES = ("smolvla-tune", "lerobot", "torch", "transformers", "ray", "optuna", "mlflow")
COMMIT, DIRTY = "commit", "dirty"


def package_versions() -> dict[str, str]:
    """Name -> version; what is not installed is left out."""
    found = {}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def commit() -> dict[str, str]:
    """``commit``, and ``dirty`` ("true" or "false"): whether files were changed since; empty outside a checkout."""
    found = _git("rev-parse", "HEAD")
    return {COMMIT: found, DIRTY: "true" if _git("status", "--porcelain") else "false"} if found else {}


def code_versions() -> dict[str, str]:
    """Python's version, those of :func:`package_versions`, and the :func:`commit`."""
    return {"python": platform.python_version(), **package_versions(), **commit()}


def _git(*arguments: str) -> str | None:
    folder = Path(__file__).resolve().parent
    try:
        done = subprocess.run(  # nosec B603 B607 # the user's own git, without a shell
            ["git", "-C", str(folder), *arguments], capture_output=True, text=True, timeout=10, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()
