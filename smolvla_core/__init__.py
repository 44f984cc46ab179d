"""Train and evaluate one SmolVLA trial. Knows neither Ray, Optuna nor MLflow."""

import sys
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any

from smolvla_core.config import TrialConfig

if TYPE_CHECKING:
    from smolvla_core.evaluate import evaluate
    from smolvla_core.train import TrainResult, train

__all__ = ["TrainResult", "TrialConfig", "evaluate", "train"]


class _LazyExport:
    """A public name that is imported on first use: torch and lerobot take seconds to import, and
    reading a configuration should not. A data descriptor, because importing the submodule
    ``smolvla_core.train`` would otherwise replace the function of the same name.
    """

    def __init__(self, module: str, name: str):
        self.module, self.name = module, name

    def __get__(self, instance: Any, owner: Any = None) -> Any:
        return getattr(import_module(self.module), self.name)

    def __set__(self, instance: Any, value: Any) -> None:
        """Ignore the import system's binding of the submodule."""


class _Package(ModuleType):
    train = _LazyExport("smolvla_core.train", "train")
    TrainResult = _LazyExport("smolvla_core.train", "TrainResult")
    evaluate = _LazyExport("smolvla_core.evaluate", "evaluate")


sys.modules[__name__].__class__ = _Package
