"""A running study in the terminal: a table that is drawn anew, below the lines of what happened.

Where the output is no terminal there are the lines alone.
"""

import math
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, TextIO

from rich.console import Console, RenderableType
from rich.live import Live
from rich.text import Text

from tune.console import Events, Say, say_line
from tune.live_table import BEST_SHOWN, Row, Snapshot, render
from tune.records import TrialRecord
from tune.spec import SearchSpec
from tune.summary import BASELINE, scored

REFRESHES_PER_S = 2


@dataclass(frozen=True)
class Shown:
    """What is shown of a study: the trials of its search, or others that it trains.

    Attributes:
        study, metric, mode: of the search.
        rungs: at which they are compared; the last is a trial's budget.
        trials: how many there will be.
        noun: what one is called.
    """

    study: str
    metric: str
    mode: str
    rungs: tuple[int, ...]
    trials: int
    noun: str = "trial"

    @classmethod
    def search(cls, spec: SearchSpec) -> "Shown":
        """The trials of a search."""
        return cls(spec.study, spec.objective.metric, spec.objective.mode, spec.rungs, spec.budget.trials)


def make_events(say: Say, what: Shown, recorded: Sequence[TrialRecord], stopping: Callable[[], str | None]) -> Events:
    """A study's events: lines for ``say``, and a table too where they go to a terminal.

    Args:
        say: takes each line.
        what: is shown.
        recorded: trials of earlier sessions.
        stopping: why they are ending, if they are.
    """
    if say is say_line and is_terminal(sys.stdout):
        events: Events = LiveEvents(Console(), what, stopping)
    else:
        events = Events(say, what.metric, what.mode, what.trials, what.noun)
    for trial in recorded:
        there = [scored(trial, what.metric, what.rungs, rung) for rung in what.rungs]
        events.recall(trial, {one.rung: one.value for one in there if one is not None})
    return events


def is_terminal(stream: TextIO) -> bool:
    """Whether lines can be drawn over; not so in a pipe, a file, or a dumb terminal."""
    return stream.isatty() and not Console(file=stream).is_dumb_terminal


class LiveEvents(Events):
    """A study's events as lines, and below them a table of the trials that run and the best ones.

    Args:
        console: of the terminal.
        what: is shown.
        stopping: why the search is ending, if it is.
    """

    def __init__(self, console: Console, what: Shown, stopping: Callable[[], str | None]):
        super().__init__(self._print, what.metric, what.mode, what.trials, what.noun)
        self._console = console
        self._what = what
        self._stopping = stopping
        self._lock = threading.Lock()  # the table is drawn in a thread of its own
        self._began = time.monotonic()
        self._rows: dict[int, Row] = {}
        self._heard: dict[int, float] = {}
        self._values: dict[int, dict[int, float]] = {}
        self._ended: dict[int, str] = {}
        self._drawn: dict[int, int] = {}

    @contextmanager
    def shown(self) -> Iterator[None]:
        """Draw the table for the length of the block; what else is printed comes above it."""
        with Live(
            console=self._console,
            get_renderable=self._render,
            refresh_per_second=REFRESHES_PER_S,
            transient=True,
        ):
            yield

    def recall(self, trial: TrialRecord, values: Mapping[int, float]) -> None:
        """Take note of a trial of an earlier session, with its values at the rungs."""
        super().recall(trial, values)
        with self._lock:
            samples = max((result.samples_seen for result in trial.results), default=0)
            self._rows[trial.number] = Row(trial.number, trial.name, trial.params, samples)
            self._values[trial.number] = dict(values)
            self._drawn[trial.number] = samples
            self._ended[trial.number] = trial.outcome.state if trial.outcome else "waiting"

    def started(self, number: int, name: str | None, params: Mapping[str, Any], samples: int) -> None:
        """A trial began, or goes on from ``samples``."""
        with self._lock:
            self._rows[number] = Row(number, name, params, samples)
            self._heard[number] = time.monotonic()
            self._ended.pop(number, None)
        super().started(number, name, params, samples)

    def reported(self, number: int, metrics: Mapping[str, float], rung: int) -> None:
        """A trial reported at a rung."""
        value, samples = metrics.get(self._what.metric), int(metrics.get("samples_seen", 0))
        with self._lock:
            row, now = self._rows[number], time.monotonic()
            measured = (samples - row.samples) / max(now - self._heard[number], 1e-9)
            speed = metrics.get("train/samples_per_s", measured)
            self._rows[number] = replace(row, samples=samples, speed=speed)
            self._heard[number], self._drawn[number] = now, samples
            if value is not None and rung and math.isfinite(value):
                self._values.setdefault(number, {}).setdefault(rung, value)
        super().reported(number, metrics, rung)

    def ended(self, number: int, state: str, reason: str | None) -> None:
        """A trial ended."""
        with self._lock:
            self._ended[number] = state
        super().ended(number, state, reason)

    def snapshot(self) -> Snapshot:
        """The study as it is now."""
        with self._lock:
            moment, what = time.monotonic(), self._what
            rows = [self._with_value(row) for row in self._rows.values()]
            running = [
                replace(row, since=moment - self._heard[row.number]) for row in rows if row.number not in self._ended
            ]
            known = {number: state for number, state in self._ended.items() if state != "waiting"}
            drawn = [self._drawn.get(number, 0) for number, state in known.items() if state != "failed"]
            sign = 1.0 if what.mode == "min" else -1.0
            best = sorted(
                (row for row in rows if row.value is not None and known.get(row.number) != "failed"),
                key=lambda row: (-row.rung, sign * (row.value or 0.0), row.number),
            )
            return Snapshot(
                study=what.study,
                metric=what.metric,
                mode=what.mode,
                rungs=what.rungs,
                trials=what.trials,
                noun=what.noun,
                ended=Counter(known.values()),
                running=running,
                best=best[:BEST_SHOWN],
                baseline=self._baseline_at(best[0].rung) if best else None,
                seconds=moment - self._began,
                samples_per_trial=sum(drawn) / len(drawn) if drawn else None,
                stopping=self._stopping(),
            )

    def _with_value(self, row: Row) -> Row:
        values = self._values.get(row.number)
        return replace(row, rung=max(values), value=values[max(values)]) if values else row

    def _baseline_at(self, rung: int) -> float | None:
        named = sorted((row for row in self._rows.values() if row.name is not None), key=lambda row: row.number)
        baseline = next((row for row in named if row.name == BASELINE), named[0] if named else None)
        return self._values.get(baseline.number, {}).get(rung) if baseline is not None else None

    def _render(self) -> RenderableType:
        """The table; a mistake in drawing it must not end its thread, nor the search."""
        try:
            size = self._console.size
            return render(self.snapshot(), size.width, size.height)
        except Exception as error:  # noqa: BLE001 - whatever it is, the lines above tell the same
            return Text(f"the table cannot be drawn ({type(error).__name__}: {error})")

    def _print(self, line: str) -> None:
        self._console.print(line, markup=False, highlight=False, soft_wrap=True)
