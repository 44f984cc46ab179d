"""The project's own files: what set-up, the Makefile and CI promise. Nothing is installed here."""

import ast
import os
import re
import subprocess
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
TARGETS = ["setup", "demo", "garden", "test", "lint", "types", "mlflow"]


def names(requirements: list[str]) -> set[str]:
    return {re.match(r"[\w-]+", requirement).group().lower() for requirement in requirements}


def pinned() -> dict[str, str]:
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    return dict(line.split("==") for line in lines if line and not line.startswith("#"))


def project() -> dict:
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def test_every_dependency_is_pinned_to_an_exact_version():
    extras = project()["optional-dependencies"]
    required = names(project()["dependencies"]) | set().union(*map(names, extras.values()))
    assert required <= pinned().keys()


def test_constraints_hold_versions_only_and_no_address():
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pins = [line for line in lines if not line.startswith("#")]
    assert all(re.fullmatch(r"[a-z0-9._-]+==[\w.+!]+", line) for line in pins)


@pytest.mark.parametrize("target", TARGETS)
def test_each_target_sets_the_project_up_first(target):
    """`make -n` with a stamp that does not exist begins with the set-up."""
    plan = subprocess.run(
        ["make", "-n", target, "READY=.venv/.never", "DEMO=runs/.never"],
        cwd=ROOT, capture_output=True, text=True, check=True, env=bare_environment(),
    ).stdout  # fmt: skip
    assert plan.splitlines()[0] == "sh bootstrap.sh"


def test_a_python_that_is_too_old_is_refused_in_one_line(tmp_path):
    old = tmp_path / "python"
    old.write_text("#!/bin/sh\nexit 1\n", encoding="utf-8")
    old.chmod(0o755)
    done = subprocess.run(
        ["sh", "bootstrap.sh"], cwd=ROOT, capture_output=True, text=True, env=bare_environment() | {"PYTHON": str(old)}
    )
    assert done.returncode == 1
    assert done.stderr.strip().splitlines() == [
        f"setup: PYTHON={old} does not run or is older than 3.12; give the path of a newer one"
    ]


def test_a_shim_that_exists_but_does_not_run_is_passed_over(tmp_path):
    """pyenv puts a `python3.12` on PATH that fails unless that version is selected."""
    script = (ROOT / "bootstrap.sh").read_text(encoding="utf-8")
    functions = script[script.index("real_path()") : script.index("# uv from PATH")]
    for name, body in {"python3.12": "exit 127", "python3.13": "exit 127", "python3": "exit 0"}.items():
        path = tmp_path / name
        path.write_text(f"#!/bin/sh\n[ $1 = -c ] && case $2 in *executable*) echo {path};; esac\n{body}\n")
        path.chmod(0o755)
    command = ["sh", "-c", f"{functions}\nfind_interpreter"]
    environment = {"PATH": f"{tmp_path}:/usr/bin:/bin", "HOME": str(tmp_path)}
    found = subprocess.run(command, capture_output=True, text=True, env=environment, check=True).stdout
    assert found.strip() == str(tmp_path / "python3")


def test_only_one_module_imports_lerobots_smolvla():
    importers = set()
    for package in ("smolvla_core", "tune"):
        for path in (ROOT / package).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                module = node.module or "" if isinstance(node, ast.ImportFrom) else ""
                modules = [alias.name for alias in node.names] if isinstance(node, ast.Import) else [module]
                if any(name.startswith("lerobot.policies.smolvla") for name in modules):
                    importers.add(path.relative_to(ROOT).as_posix())
    assert importers <= {"smolvla_core/policy.py"}


def bare_environment() -> dict[str, str]:
    """Without what an outer `make` passes on to an inner one."""
    return {key: value for key, value in os.environ.items() if not key.startswith(("MAKE", "MFLAGS"))}
