"""One trial as a function that Ray Tune can run: in a study of this package, or in anybody's own ``Tuner``.

from ray import tune as ray_tune
from tune.trainable import smolvla_trainable

ray_tune.Tuner(
    ray_tune.with_resources(smolvla_trainable, {"gpu": 1}),
    param_space={
        "data": {"train": [{"root": "/data/eggs"}]},
        "optim.batch_size": ray_tune.choice([8, 16, 32]),
        "eval.at": [50_000, 150_000, 450_000],
    },
    tune_config=ray_tune.TuneConfig(metric="val/critical_action_mse", mode="min", num_samples=8, reuse_actors=True),
).fit()
"""

import logging
import os
import sys
import tempfile
import traceback
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ray import tune as ray_tune

from smolvla_core.config import TrialConfig
from smolvla_core.config_values import set_dotted
from smolvla_core.errors import DamagedStateError, DivergedError, InfeasibleError, UserError, disk_is_full
from tune.gpus import hide_those_not_given
from tune.notice import Listener, listen_to
from tune.patience import report_patiently
from tune.searcher import FAILURE

if TYPE_CHECKING:
    from smolvla_core.train import Snapshot

Trainable = Callable[[dict[str, Any]], Any]

STATE = "state"
"""Folder of a checkpoint that holds the trial's state (``smolvla_core.checkpoint``)."""
EPISODES = "episode_errors"
"""Key of a report: its errors by episode (``smolvla_core.evaluate.EpisodeErrors``)."""
CURVE = "curve"
"""Key of a report: the training metrics since the report before, each with its ``samples_seen``."""
TRACEBACK = "traceback"
DISK_FULL = "disk_full"
"""Key of a failure that is the disk's, not the trial's."""
_REUSE_WAIT = "TUNE_FUNCTION_THREAD_TIMEOUT_S"


def smolvla_trainable(config: dict[str, Any]) -> None:
    """Train one trial, reporting to Ray Tune at each of ``eval.at`` and at the end.

    Every report holds ``samples_seen``, ``step``, the training and validation metrics, ``curve``,
    ``episode_errors``, and a checkpoint from which Ray resumes the trial to the same numbers; one that is damaged
    is not taken, and the trial starts anew. In a study it reports its state between them too, without validation
    metrics, when that is asked for (``tune.notice``). May run in reused actors.

    Args:
        config: a ``TrialConfig``: nested sections, dotted keys (``"optim.batch_size"``), or both;
            dotted keys win.

    Raises:
        UserError: bad input, before the first step.
        DivergedError: the loss or a gradient is not finite.
    """
    # a stopped trial leaves its actor to the next one once its thread has ended; Ray gives up after
    # two seconds, which a long step would exceed
    os.environ.setdefault(_REUSE_WAIT, "120")
    hide_those_not_given()
    from smolvla_core.train import train

    trial = trial_config(config)
    curve: list[dict[str, float]] = []
    listener = Listener()

    def report(metrics: Mapping[str, float], save: "Snapshot") -> None:
        if not listener.due and not any(key.startswith("val/") for key in metrics):
            curve.append(dict(metrics))
            return
        with tempfile.TemporaryDirectory(prefix="trial-") as folder:
            save(Path(folder) / STATE)
            result = {**metrics, CURVE: list(curve), EPISODES: save.episodes}
            report_patiently(result, ray_tune.Checkpoint.from_directory(folder), ray_tune.report)
        curve.clear()
        listener.saved()

    with ExitStack() as stack:
        checkpoint = ray_tune.get_checkpoint()
        restore = Path(stack.enter_context(checkpoint.as_directory())) / STATE if checkpoint else None
        try:
            train(trial, report, restore=restore, report_now=listener)
        except DamagedStateError as error:
            logging.getLogger(__name__).warning("%s; the trial starts anew", error)
            train(trial, report, report_now=listener)


def trial_config(config: Mapping[str, Any]) -> TrialConfig:
    """A ``TrialConfig`` from nested sections and dotted keys.

    Raises:
        ConfigError: one line with the wrong key or value.
    """
    nested = {key: value for key, value in config.items() if "." not in key}
    dotted = {key: value for key, value in config.items() if "." in key}
    return TrialConfig.from_dict(set_dotted(nested, dotted))


def in_study(trainable: Trainable, notice: str) -> Trainable:
    """A trainable that reports its failures, and saves its state upon its driver's notice.

    Args:
        trainable: one training.
        notice: ``tune.notice.Notice.key``.
    """
    inner = reporting_failures(trainable)

    def run(config: dict[str, Any]) -> None:
        listen_to(notice)
        inner(config)

    return run


def reporting_failures(trainable: Trainable) -> Trainable:
    """A trainable that reports an exception as a last result, ``{"failure": reason, "traceback": text}``.

    An exception that reaches Ray ends the process, and the next trial would pay for importing
    torch and lerobot again.
    """

    def run(config: dict[str, Any]) -> None:
        try:
            trainable(config)
        except Exception as error:  # noqa: BLE001 - whatever it is, it is recorded and the search goes on
            report: dict[str, Any] = {FAILURE: failure_reason(error), TRACEBACK: traceback.format_exc()}
            if disk_is_full(error):
                report[DISK_FULL] = True
            # the traceback's frames hold the model, and on a GPU its memory, until they are let go
            error.__traceback__ = None
            del error
            _free_memory()
            ray_tune.report(report)

    return run


def failure_reason(error: BaseException) -> str:
    """One line: why a trial failed."""
    lines = str(error).strip().splitlines()
    text = (lines[0] if lines else "")[:300]
    if isinstance(error, DivergedError):
        return f"diverged: {text}"
    if isinstance(error, InfeasibleError):
        return f"out of memory: {text}; give each trial more (resources), or a smaller policy"
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return f"out of memory: {text}; lower optim.micro_batch or raise resources"
    if isinstance(error, UserError):
        return text
    return f"{type(error).__name__}: {text}"


def _free_memory() -> None:
    import gc

    gc.collect()
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        torch.cuda.empty_cache()
