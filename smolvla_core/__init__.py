"""Train and evaluate one SmolVLA trial. Knows neither Ray, Optuna nor MLflow."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from smolvla_core.config import TrialConfig

if TYPE_CHECKING:
    from smolvla_core.evaluate import evaluate
    from smolvla_core.train import TrainResult, train

__all__ = ["TrainResult", "TrialConfig", "evaluate", "train"]

_HOMES = {"train": "smolvla_core.train", "TrainResult": "smolvla_core.train", "evaluate": "smolvla_core.evaluate"}


def __getattr__(name: str) -> Any:
    # torch and lerobot take seconds to import; reading a configuration should not
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
