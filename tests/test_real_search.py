"""The template search on real recordings, where REAL_LEROBOT_DATASET names a folder."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

ROOT = Path(__file__).parents[1]
SOURCE = os.environ.get("REAL_LEROBOT_DATASET")
SMALL = (
    "policy.pretrained=tiny",
    "optim.samples=96",
    "asha.grace_samples=32",
    "search.optim.batch_size.choices=[8,16]",
    "eval.frames=8",
    "eval.draws=1",
    "budget.trials=4",
    "resources.cpus=1",
    "max_concurrent=1",
)

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(SOURCE is None, reason="set REAL_LEROBOT_DATASET to a LeRobot dataset's folder"),
]


def test_the_template_searches_real_recordings_and_leaves_a_policy(tmp_path):
    settings = [part for assignment in SMALL for part in ("--set", assignment)]
    line = [sys.executable, "-m", "tune.run", str(ROOT / "search_spaces" / "any_lerobot.yaml"), *settings]
    cache = tmp_path / "cache"
    environment = {**os.environ, "DATASET": str(SOURCE), "PYTHONPATH": str(ROOT), "XDG_CACHE_HOME": str(cache)}
    done = subprocess.run(line, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=540)
    assert done.returncode == 0, done.stderr
    (folder,) = (tmp_path / "runs").glob("any_lerobot-*")
    summary = json.loads((folder / "summary.json").read_text())
    assert sum(summary["trials"].values()) == 4
    assert set(summary["trials"]) <= {"complete", "pruned"}
    reports = pd.read_parquet(folder / "trials.parquet")
    assert reports["val/critical_action_mse"].notna().all()
    state = json.loads((folder / "best" / "config.json").read_text())["input_features"]["observation.state"]
    card = json.loads((folder / "best" / "smolvla_core.json").read_text())
    assert state["shape"] == [card["raw_state_width"]]
