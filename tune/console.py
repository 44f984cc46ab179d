"""What a running study says: one plain line an event."""

import time
from collections.abc import Callable, Mapping
from typing import Any

Say = Callable[[str], None]


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
    """

    def __init__(self, say: Say, metric: str, mode: str, trials: int):
        self._say = say
        self._metric = metric
        self._mode = mode
        self._width = len(str(max(trials - 1, 0)))
        self._best: dict[int, float] = {}

    def note(self, text: str) -> None:
        """Something about the study as a whole."""
        self._say(f"{_clock()}  {text}")

    def started(self, number: int, name: str | None, params: Mapping[str, Any], samples: int) -> None:
        """A trial began, or goes on from ``samples``."""
        verb = f"continues from {samples:,} samples" if samples else "started"
        self._trial(number, f"{verb}   {f'{name}: ' if name else ''}{format_params(params)}")

    def reported(self, number: int, metrics: Mapping[str, float], rung: int) -> None:
        """A trial reported at a rung; a star marks the best value there so far."""
        value = metrics.get(self._metric)
        if value is None:
            return
        star = " *" if self._is_best(rung, value) else ""
        speed = metrics.get("train/samples_per_s")
        pace = f"   {speed:,.1f} samples/s" if speed is not None else ""
        samples = f"{int(metrics['samples_seen']):,}"
        self._trial(number, f"{samples:>9} samples   {self._metric} {value:.5g}{star}{pace}")

    def ended(self, number: int, state: str, reason: str | None) -> None:
        """A trial ended."""
        verb = {"complete": "done", "pruned": "stopped", "failed": "FAILED"}.get(state, state)
        self._trial(number, f"{verb}{f': {reason}' if reason else ''}")

    def retried(self, number: int, reason: str) -> None:
        """A trial's process died, and it is started again from its last state."""
        self._trial(number, f"restarts: {reason}")

    def _trial(self, number: int, text: str) -> None:
        self._say(f"{_clock()}  trial {number:>{self._width}}  {text}")

    def _is_best(self, rung: int, value: float) -> bool:
        before = self._best.get(rung)
        better = before is None or (value < before if self._mode == "min" else value > before)
        if better:
            self._best[rung] = value
        return better and before is not None


def format_params(params: Mapping[str, Any]) -> str:
    """``optim.batch_size=16  weighting.alpha=0.712``."""
    return "  ".join(
        f"{key}={value:.4g}" if isinstance(value, float) else f"{key}={value}" for key, value in params.items()
    )


def _clock() -> str:
    return time.strftime("%H:%M:%S")
