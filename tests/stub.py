"""A trial whose learning curve is a formula: searches in seconds, through the whole service.

Its optimum is planted: ``weighting.alpha`` 1.3, ``optim.lr`` 3e-4, ``optim.batch_size`` 16. It
reports, checkpoints and resumes as ``tune.trainable.smolvla_trainable`` does, and takes faults from
files in the folder that the environment variable ``STUB_FAULTS`` names. It has four validation and three
test episodes.
"""

import json
import math
import os
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from ray import tune as ray_tune

from tune.spec import SearchSpec
from tune.trainable import EPISODES, trial_config

METRIC = "val/critical_action_mse"
BEST = {"weighting.alpha": 1.3, "optim.lr": 3e-4, "optim.batch_size": 16}
SAMPLES, GRACE = 900, 100


def distance(alpha: float, lr: float, batch_size: int) -> float:
    """How far a point is from the optimum; 0 there, about 1 at the far corners."""
    return 0.3 * (alpha - 1.3) ** 2 + 0.4 * math.log10(lr / 3e-4) ** 2 + 0.1 * abs(math.log2(batch_size / 16))


def score(alpha: float, lr: float, batch_size: int, samples: int, seed: int = 0) -> float:
    """A falling curve above the point's distance, with noise that is fixed by its arguments."""
    rng = np.random.default_rng([int(alpha * 1e6), int(lr * 1e9), batch_size, samples, *([seed] if seed else [])])
    return 0.2 + distance(alpha, lr, batch_size) + math.exp(-samples / 200) + 0.01 * rng.standard_normal()


def by_episode(value: float, part: str) -> dict[str, list[tuple[int, int, float]]]:
    """The episodes' errors behind a value: some are hard and some easy, whoever is scored on them."""
    hardness = {"val": (0.4, 0.8, 1.2, 1.6), "test": (0.5, 1.0, 1.5)}[part]
    rows = [(number, 10, value * share) for number, share in enumerate(hardness)]
    return {f"{part}/critical_action_mse": rows}


def stub_trainable(config: dict[str, Any]) -> None:
    """Report the formula at every rung, with a checkpoint that remembers how far it came."""
    trial = trial_config(config)
    point = (trial.weighting.alpha, trial.optim.lr, trial.optim.batch_size)
    faults = Path(os.environ["STUB_FAULTS"]) if "STUB_FAULTS" in os.environ else None
    seen, checkpoint = 0, ray_tune.get_checkpoint()
    if checkpoint is not None:
        with checkpoint.as_directory() as folder:
            seen = json.loads((Path(folder) / "stub.json").read_text())["samples"]
    for samples in (*trial.eval.at, trial.optim.samples):
        if samples <= seen:
            continue
        if faults is not None:
            _suffer(faults, trial.optim.batch_size, samples)
        value = score(*point, samples, trial.runtime.seed)
        if faults is not None and (faults / f"nan_{trial.optim.batch_size}").exists():
            value = math.nan
        with tempfile.TemporaryDirectory() as folder:
            (Path(folder) / "stub.json").write_text(json.dumps({"samples": samples}))
            report = {METRIC: value, "samples_seen": samples, "step": samples // point[2], "train/loss": value}
            report["train/samples_per_s"] = 100.0 * point[2] / 8
            report[EPISODES] = by_episode(value, "val")
            if trial.eval.test and samples == trial.optim.samples:
                report["test/critical_action_mse"] = value
                report[EPISODES] |= by_episode(value, "test")
            ray_tune.report(report, checkpoint=ray_tune.Checkpoint.from_directory(folder))


def _suffer(faults: Path, batch_size: int, samples: int) -> None:
    if (faults / "slow").exists():
        time.sleep(float((faults / "slow").read_text()))
    if (faults / f"raise_{batch_size}").exists():
        raise RuntimeError(f"planted fault of batch {batch_size}")
    die = faults / f"die_once_{batch_size}_{samples}"
    if die.exists():
        die.unlink()
        os._exit(1)


def stub_spec(storage: Path | str, **changes: Any) -> SearchSpec:
    """A search over the stub's three parameters; ``changes`` replace whole sections."""
    values = {
        "study": "stub",
        "trial": {"data": {"train": [{"root": "/nowhere"}]}, "optim": {"samples": SAMPLES}},
        "search": {
            "weighting.alpha": {"type": "float", "low": 0.0, "high": 2.0},
            "optim.lr": {"type": "float", "low": 3e-5, "high": 3e-3, "log": True},
            "optim.batch_size": {"type": "categorical", "choices": [8, 16, 32]},
        },
        "warm_start": {"seed_baseline": {"weighting.alpha": 0.0, "optim.lr": 1e-4, "optim.batch_size": 8}},
        "budget": {"trials": 8},
        "asha": {"grace_samples": GRACE, "reduction_factor": 3},
        "resources": {"cpus": 1},
        "max_concurrent": 1,
        "tracking": {"enabled": False},
        "storage": str(storage),
    }
    return SearchSpec.from_dict(values | changes)
