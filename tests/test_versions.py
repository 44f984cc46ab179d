"""Which code ran."""

import subprocess

from tune import versions


def test_versions_are_those_that_are_installed_and_the_checkouts_commit():
    found = versions.code_versions()
    assert found["torch"].startswith("2.")
    assert found["python"].startswith("3.")
    assert {"lerobot", "ray", "optuna", "mlflow", "smolvla-tune"} <= found.keys()
    head = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True)
    if head.returncode == 0:
        assert found["commit"] == head.stdout.strip()
        assert found["dirty"] in ("true", "false")


def test_outside_a_checkout_there_is_no_commit(monkeypatch, tmp_path):
    monkeypatch.setenv("GIT_DIR", str(tmp_path))
    assert versions.commit() == {}
    monkeypatch.setenv("PATH", str(tmp_path))  # no git at all
    assert versions.commit() == {}
