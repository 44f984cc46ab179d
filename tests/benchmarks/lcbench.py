"""LCBench's surrogate: learning curves of small networks on tabular tasks, for searchers to be compared on.

Zimmer, Lindauer and Hutter, "Auto-PyTorch Tabular", TPAMI 2021; the surrogate is YAHPO Gym's
(Pfisterer et al., AutoML 2022). A query is a configuration, a task and an epoch; the answer holds the
validation accuracy, the validation cross-entropy and the seconds since the start of the training.
"""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from optuna.distributions import BaseDistribution, FloatDistribution, IntDistribution

EPOCHS = 52
"""Of a whole trial."""
TASKS = (7593, 34539, 126029, 167149, 167168, 167184, 168331, 168908, 189354, 189865, 189873, 189906)
METRICS = {"accuracy": "max", "cross_entropy": "min"}
_COLUMN = {"accuracy": 1, "cross_entropy": 2}
_INPUTS = (
    "batch_size",
    "learning_rate",
    "momentum",
    "weight_decay",
    "num_layers",
    "max_units",
    "max_dropout",
)
SPACE: dict[str, BaseDistribution] = {
    "batch_size": IntDistribution(16, 512, log=True),
    "learning_rate": FloatDistribution(1e-4, 0.1, log=True),
    "momentum": FloatDistribution(0.1, 0.99),
    "weight_decay": FloatDistribution(1e-5, 0.1),
    "num_layers": IntDistribution(1, 5),
    "max_units": IntDistribution(64, 1024, log=True),
    "max_dropout": FloatDistribution(0.0, 1.0),
}
SCALE_SAMPLES, SCALE_ROUNDS = 4000, 20


@dataclass(frozen=True)
class Scale:
    """What regret is measured in: 0 at the best known whole trial, 1 at the median of random ones."""

    best: float
    median: float

    def regret(self, value: float) -> float:
        """A value's distance from the best."""
        return (value - self.best) / (self.median - self.best)


class Surrogate:
    """The model of all tasks.

    Args:
        folder: with ``model.onnx`` and ``encoding.json``.
    """

    def __init__(self, folder: Path):
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        self._session = onnxruntime.InferenceSession(str(folder / "model.onnx"), options)
        self._codes = json.loads((folder / "encoding.json").read_text(encoding="utf-8"))["OpenML_task_id"]

    def query(self, task: int, inputs: np.ndarray) -> np.ndarray:
        """The model's outputs (n, 6) for rows (n, 8) of epoch and configuration."""
        codes = np.full((len(inputs), 1), self._codes[str(task)], dtype=np.int32)
        return self._session.run(None, {"x_cat": codes, "x_cont": inputs.astype(np.float32)})[0]

    def curve(
        self, task: int, metric: str, params: Mapping[str, Any], epochs: Sequence[int]
    ) -> tuple[list[float], list[float]]:
        """One trial's values and its seconds since the start, at some epochs."""
        row = [params[name] for name in _INPUTS]
        found = self.query(task, np.array([[epoch, *row] for epoch in epochs]))
        seconds = np.maximum.accumulate(np.maximum(found[:, 0], 1e-3))
        return found[:, _COLUMN[metric]].tolist(), seconds.tolist()

    def scale(self, task: int, metric: str) -> Scale:
        """Best by a random sample whose best points are then mutated; always the same."""
        rng = np.random.default_rng([task, _COLUMN[metric]])
        sign = -1 if METRICS[metric] == "max" else 1
        unit = rng.random((SCALE_SAMPLES, len(_INPUTS)))
        values = sign * self._whole(task, metric, unit)
        median = float(np.median(values))
        for round_ in range(SCALE_ROUNDS):
            best = np.argsort(values)[:40]
            unit, values = unit[best], values[best]
            width = 0.3 * 0.8**round_
            moved = rng.random((400, len(_INPUTS))) < 0.4
            children = np.clip(np.repeat(unit, 10, 0) + moved * rng.normal(0, width, moved.shape), 0, 1)
            unit = np.concatenate([unit, children])
            values = np.concatenate([values, sign * self._whole(task, metric, children)])
        return Scale(sign * float(values.min()), sign * median)

    def _whole(self, task: int, metric: str, unit: np.ndarray) -> np.ndarray:
        columns = [np.full(len(unit), EPOCHS)]
        columns += [_spread(SPACE[name], unit[:, place]) for place, name in enumerate(_INPUTS)]
        return self.query(task, np.column_stack(columns))[:, _COLUMN[metric]]


def _spread(distribution: BaseDistribution, unit: np.ndarray) -> np.ndarray:
    """Numbers in [0, 1] over a distribution's range."""
    assert isinstance(distribution, FloatDistribution | IntDistribution)
    low, high = distribution.low, distribution.high
    if distribution.log:
        spread = np.exp(math.log(low) + unit * (math.log(high) - math.log(low)))
    else:
        spread = low + unit * (high - low)
    return np.round(spread) if isinstance(distribution, IntDistribution) else spread
