"""The same comparison through a real Ray ``Tuner``: that the simulation leaves nothing out that matters."""

import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tests.benchmarks.lcbench import EPOCHS, METRICS, SPACE, Surrogate
from tune.asha import RungScheduler
from tune.searcher import RungSearch

FASTER = 1e-3
"""Seconds a simulated trainable waits for each second of the surrogate's training."""


def search(
    data: Path, task: int, metric: str, rungs: Sequence[int], reduction: int, seed: int, trials: int, workers: int
) -> tuple[float, int]:
    """One search by ``RungSearch`` and ``RungScheduler``; its best whole trial's value and the epochs spent."""
    import ray
    from ray import tune as ray_tune

    def trainable(config: Mapping[str, Any]) -> None:
        values, seconds = Surrogate(data).curve(task, metric, config, rungs)
        before = 0.0
        for rung, value, now in zip(rungs, values, seconds, strict=True):
            time.sleep(min(0.5, FASTER * (now - before)))
            before = now
            ray_tune.report({"value": value, "epochs": rung})

    mode = METRICS[metric]
    searcher = RungSearch(dict(SPACE), metric="value", mode=mode, rungs=rungs, resource="epochs", seed=seed)
    scheduler = RungScheduler(
        metric="value", mode=mode, rungs=rungs, reduction_factor=reduction, number=searcher.number, resource="epochs"
    )
    ray.init(num_cpus=workers, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    folder = tempfile.TemporaryDirectory()
    try:
        results = ray_tune.Tuner(
            ray_tune.with_resources(trainable, {"cpu": 1}),
            tune_config=ray_tune.TuneConfig(
                search_alg=searcher,
                scheduler=scheduler,
                num_samples=trials,
                max_concurrent_trials=workers,
                reuse_actors=True,
            ),
            run_config=ray_tune.RunConfig(verbose=0, storage_path=folder.name),
        ).fit()
        last = [result.metrics for result in results if result.metrics]
    finally:
        ray.shutdown()
        folder.cleanup()
    whole = [result["value"] for result in last if result["epochs"] == EPOCHS]
    return (max if mode == "max" else min)(whole), sum(result["epochs"] for result in last)
