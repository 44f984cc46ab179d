"""A study in MLflow's own pages, in a real browser against a real server: from the experiment to the best trial."""

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest

from smolvla_core.config import TrialConfig
from tests.browser import browser, chromium_path
from tests.stub import METRIC
from tests.test_report_page import DATASET, VALUES, make_study
from tests.test_tracking import CONFIG, SPEC, YAML, empty_database  # noqa: F401 - a fixture
from tune import driver
from tune.report.results import REPORT_FILE, refresh_results
from tune.tracking.mlflow_tracker import MlflowTracker

pytestmark = pytest.mark.slow
PATIENCE_MS = 60_000
EXPERIMENT = "easter_eggs"


@pytest.fixture
def server(tmp_path, empty_database):  # noqa: F811
    """Address of a server with an empty database."""
    chromium_path()  # before seconds are spent on the server
    shutil.copy(empty_database, tmp_path / "mlflow.db")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "mlflow", "server", "--backend-store-uri", f"sqlite:///{tmp_path}/mlflow.db"]
    log = (tmp_path / "server.log").open("w")
    process = subprocess.Popen(
        [*command, "--host", "127.0.0.1", "--port", str(port), "--workers", "1"],
        cwd=tmp_path,
        stdout=log,
        stderr=subprocess.STDOUT,
        start_new_session=True,  # it starts processes of its own
        env=os.environ | {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"},
    )
    try:
        address = f"http://127.0.0.1:{port}"
        _wait_for(address, process, tmp_path / "server.log")
        yield address
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        log.close()


def _wait_for(address: str, process: subprocess.Popen, log: Path) -> None:
    end = time.monotonic() + 180
    while time.monotonic() < end and process.poll() is None:
        try:
            urllib.request.urlopen(f"{address}/health", timeout=5).close()
        except OSError:
            time.sleep(0.2)
        else:
            return
    pytest.fail(f"the server did not start: {log.read_text()[-2000:]}")


def track_a_study(address: str, folder: Path) -> MlflowTracker:
    """Two trials, of which the second is better, with a report and a policy; sent to the server."""
    make_study(folder, VALUES)
    summary = refresh_results(folder, "complete").to_dict()
    (folder / "best").mkdir()
    (folder / "best" / "model.safetensors").write_bytes(b"weights")
    tracker = MlflowTracker(address, EXPERIMENT)
    tracker.start_study(folder, SPEC, YAML, DATASET, resume=False)
    for number, batch, end in ((0, 8, 0.8), (2, 16, 0.6)):
        config = TrialConfig.from_dict(CONFIG).with_values({"optim.batch_size": batch}).to_dict()
        tracker.start_trial(number, None if number else "seed_baseline", {"optim.batch_size": batch}, config)
        tracker.log_result(number, {"samples_seen": 300, METRIC: 0.9})
        tracker.log_result(number, {"samples_seen": 900, METRIC: end})
        tracker.end_trial(number, "complete", None)
    told = summary | {"study": "eggs", "checkpoint": str(folder / "best")}
    tracker.end_study(told, [folder / REPORT_FILE, folder / "summary.json"])
    driver.release(folder)
    return tracker


def test_the_best_trial_is_one_click_from_the_study(server, tmp_path):
    tracker = track_a_study(server, tmp_path / "runs" / "eggs-1")
    with browser() as chromium:
        look_at(chromium, server, tracker.trial_url(2))


def look_at(chromium, server: str, best: str) -> None:
    """Follow the way from the experiment to the best trial, and look at what belongs to it."""
    page = chromium.new_page(viewport={"width": 1400, "height": 900})
    page.set_default_timeout(PATIENCE_MS)
    page.goto(f"{server}/#/experiments")
    page.get_by_text("Model training").first.click()  # MLflow's pages begin with conversations
    page.get_by_role("link", name=EXPERIMENT, exact=True).first.click()
    page.get_by_role("link", name="eggs-1").first.click()
    description = page.get_by_test_id("note-editor-preview-content")
    description.get_by_text("25.0% better than the baseline").wait_for()
    study = page.url.partition("?")[0]

    # one click from there: the best trial's parameters, value and dataset
    with page.expect_popup() as opened:
        description.get_by_role("link", name="trial 2").click()
    trial = opened.value
    trial.set_default_timeout(PATIENCE_MS)
    trial.wait_for_url(f"**/{best}*")
    trial.get_by_text(f"{DATASET['name']} (abab").wait_for()
    trial.get_by_placeholder("Search parameters").fill("optim.batch_size")
    trial.get_by_role("row", name="optim.batch_size 16").wait_for()
    trial.get_by_role("row", name=f"{METRIC} 0.6").wait_for()

    # its curve
    trial.get_by_role("tab", name="Model metrics").click()
    trial.get_by_text(METRIC.rpartition("/")[2], exact=True).first.wait_for()
    trial.locator(".js-plotly-plot").first.wait_for()

    # its policy
    trial.get_by_role("tab", name="Artifacts").click()
    for name in ("policy", "900_samples", "model.safetensors"):
        trial.get_by_text(name, exact=True).first.click()

    # the same policy as a registered model
    page.get_by_text("Show more").click()
    with page.expect_popup() as opened:
        description.get_by_role("link", name=re.compile("^eggs, version")).click()
    model = opened.value
    model.set_default_timeout(PATIENCE_MS)
    model.get_by_text("champion").first.wait_for()

    # and the report, within MLflow
    page.goto(f"{study}/artifacts")
    page.get_by_text(REPORT_FILE, exact=True).first.click()
    report = page.frame_locator("iframe").first
    report.get_by_text("Trial 2 is 25.0% better than seed_baseline").wait_for()
    report.locator("#plot-curves .main-svg").first.wait_for()
