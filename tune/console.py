"""What a running study says: one plain line an event; and how numbers are put into words."""

import math
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from tune.records import TrialRecord

Say = Callable[[str], None]

_ENDINGS = {"complete": "done", "pruned": "stopped", "failed": "FAILED"}


def say_line(text: str) -> None:
    """Print a line at once, also where the output is a pipe."""
    print(text, flush=True)


class Events:
    """A study's events as lines: the time, the trial, what happened.

    Args:
        say: takes each line.
        metric: the objective's key.
        mode: ``min`` or ``max``.
        trials: how many the study will run.
        noun: what a line calls one.
    """

    def __init__(self, say: Say, metric: str, mode: str, trials: int, noun: str = "trial"):
        self._say = say
        self._metric = metric
        self._mode = mode
        self._noun = noun
        self._width = len(str(max(trials - 1, 0)))
        self._best: dict[int, float] = {}

    def recall(self, trial: TrialRecord, values: Mapping[int, float]) -> None:
        """Take note of a trial of an earlier session, with its values at the rungs."""
        for rung, value in values.items():
            self._is_best(rung, value)

    def shown(self) -> AbstractContextManager[None]:
        """While the search runs; lines need nothing for it."""
        return nullcontext()

    def started(self, number: int, name: str | None, params: Mapping[str, Any], samples: int) -> None:
        """A trial began, or goes on from ``samples``."""
        verb = f"continues from {samples:,} samples" if samples else "started"
        self._trial(number, f"{verb}   {f'{name}: ' if name else ''}{format_params(short_params(params))}")

    def reported(self, number: int, metrics: Mapping[str, float], rung: int) -> None:
        """A trial reported at a rung; the best value there so far is called so."""
        value = metrics.get(self._metric)
        if value is None:
            return
        samples, name = f"{int(metrics['samples_seen']):,}", self._metric.rpartition("/")[2]
        speed = metrics.get("train/samples_per_s")
        pace = f"   {speed:,.1f} samples/s" if speed is not None else ""
        best = "   best so far" if self._is_best(rung, value) else ""
        self._trial(number, f"{samples:>9} samples   {name} {value:.5g}{pace}{best}")

    def ended(self, number: int, state: str, reason: str | None) -> None:
        """A trial ended."""
        self._trial(number, f"{_ENDINGS.get(state, state)}{f': {reason}' if reason else ''}")

    def retried(self, number: int, reason: str) -> None:
        """A trial's process died, and it is started again from its last state."""
        self._trial(number, f"restarts: {reason}")

    def _trial(self, number: int, text: str) -> None:
        self._say(f"{_clock()}  {self._noun} {number:>{self._width}}  {text}")

    def _is_best(self, rung: int, value: float) -> bool:
        """Whether it beats an earlier value at the rung: a first one beats nothing."""
        before = self._best.get(rung)
        if not math.isfinite(value):
            return False
        better = before is None or (value < before if self._mode == "min" else value > before)
        if better:
            self._best[rung] = value
        return better and before is not None


def format_params(params: Mapping[str, Any]) -> str:
    """``optim.batch_size=16  weighting.alpha=0.712``."""
    return "  ".join(f"{key}={format_value(value)}" for key, value in params.items())


def format_value(value: Any) -> str:
    """A parameter's value, a number to four digits."""
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def counted(count: float, noun: str) -> str:
    """``1 CPU``, ``0.5 GPUs``, ``1,435 frames``."""
    number = f"{count:,}" if isinstance(count, int) else f"{count:g}"
    return f"{number} {noun}{'' if count == 1 else 's'}"


def duration(seconds: float) -> str:
    """``95 s``, ``12 min`` or ``3.4 h``."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def short_keys(keys: Iterable[str]) -> dict[str, str]:
    """Each key -> it without its section; in full where two would look alike."""
    names = {key: key.rpartition(".")[2] for key in keys}
    return {key: key if list(names.values()).count(name) > 1 else name for key, name in names.items()}


def short_params(params: Mapping[str, Any]) -> dict[str, Any]:
    """The parameters by their :func:`short_keys`, so that a line stays short."""
    return {name: params[key] for key, name in short_keys(params).items()}


def _clock() -> str:
    return time.strftime("%H:%M:%S")
