"""The table of a running study, as rich draws it: pure functions of what is known."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rich.console import Group, RenderableType
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from tune.console import duration, format_params, short_params

PLACES = ("best", "2nd", "3rd")
BEST_SHOWN = len(PLACES)
WIDE, MEDIUM = 100, 80
"""Columns of the terminal from which the table shows everything, and everything but the bars."""
LINES_AROUND = 8
"""Lines that the table leaves to its heads, to the best trials' title and to the lines above it."""


@dataclass(frozen=True)
class Row:
    """A trial as it is known.

    Attributes:
        number, name, params: which it is.
        samples: at its last report; since: seconds ago.
        speed: samples a second; None until it has reported.
        value: at ``rung``, the highest rung it has reached; None before the first.
    """

    number: int
    name: str | None
    params: Mapping[str, Any]
    samples: int = 0
    since: float = 0.0
    speed: float | None = None
    rung: int = 0
    value: float | None = None

    def expected(self, rungs: Sequence[int]) -> int:
        """Samples it has drawn by now, at its last speed: it would have reported at the next rung."""
        due = next((rung for rung in rungs if rung > self.samples), rungs[-1])
        return min(due, self.samples + round((self.speed or 0.0) * self.since))


@dataclass(frozen=True)
class Snapshot:
    """A running study at one moment.

    Attributes:
        study, metric, mode: of the search.
        rungs: the last is a trial's budget.
        trials: that the search will run; noun: what one is called.
        ended: state -> how many trials ended so.
        running, best: trials that run, and the best of all, the best first.
        baseline: the baseline's value at the best trial's rung.
        seconds: since the search was started or resumed.
        samples_per_trial: mean over the trials that have ended; None before.
        stopping: why the search is ending, if it is.
    """

    study: str
    metric: str
    mode: str
    rungs: Sequence[int]
    trials: int
    ended: Mapping[str, int]
    running: Sequence[Row]
    best: Sequence[Row]
    baseline: float | None = None
    seconds: float = 0.0
    samples_per_trial: float | None = None
    stopping: str | None = None
    noun: str = "trial"


def render(now: Snapshot, width: int, height: int) -> RenderableType:
    """The head, the running trials and the best ones, in so many columns and lines."""
    room = max(1, height - LINES_AROUND - min(BEST_SHOWN, len(now.best)))
    running = sorted(now.running, key=lambda row: (-row.expected(now.rungs), row.number))
    table = _table(now, width)
    for row in running[:room]:
        table.add_row(*_cells(row, now, width))
    if len(running) > room:
        table.add_row("…", f"and {len(running) - room} more")
    if now.best:
        for place, row in enumerate(now.best[:BEST_SHOWN]):
            table.add_row(*_cells(row, now, width, PLACES[place]), style="bold green" if not place else "green")
    return Group(_head(now, width), table)


def _head(now: Snapshot, width: int) -> Text:
    parts = [f"{sum(now.ended.values())} of {now.trials} {now.noun}s ended"]
    if now.stopping is not None:
        parts.append(f"stopping; {now.noun}s keep their states, Ctrl-C again ends at once")
    else:
        parts += [f"{count} {word}" for state, word in _ENDED.items() if (count := now.ended.get(state))]
        parts += [f"{len(now.running)} running", duration(now.seconds)]
        left = seconds_left(now)
        parts += [f"about {duration(left)} left"] if left is not None else []
    text = Text(f"{now.study}  ", style="bold", no_wrap=True, overflow="ellipsis")
    text.append(" · ".join(parts), style="yellow" if now.stopping is not None else "default")
    return text


_ENDED = {"complete": "completed", "pruned": "stopped", "failed": "failed"}


def seconds_left(now: Snapshot) -> float | None:
    """To the end of the search, if trials to come draw as many samples as those that ended; None if unknown."""
    speed = sum(row.speed or 0.0 for row in now.running)
    if now.samples_per_trial is None or not speed:
        return None
    to_come = max(0, now.trials - sum(now.ended.values()) - len(now.running))
    open_ones = sum(max(0.0, now.samples_per_trial - row.expected(now.rungs)) for row in now.running)
    return (to_come * now.samples_per_trial + open_ones) / speed


def _table(now: Snapshot, width: int) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), expand=True, header_style="dim")
    table.add_column(now.noun.capitalize(), no_wrap=True, justify="right", min_width=7)
    table.add_column("Samples", no_wrap=True, justify="right")
    if width >= WIDE:
        table.add_column("", width=12)
    objective = now.metric.rpartition("/")[2] if width >= MEDIUM else "Objective"
    table.add_column(objective, no_wrap=True, overflow="ellipsis", justify="right")
    if width >= MEDIUM:
        table.add_column("Samples/s", no_wrap=True, justify="right")
        table.add_column("To rung", no_wrap=True, justify="right")
        table.add_column("Parameters", no_wrap=True, overflow="ellipsis", ratio=1)
    return table


def _cells(row: Row, now: Snapshot, width: int, best: str = "") -> list[RenderableType]:
    """A row; ``best``: which of the best ones it is, empty for a trial that runs."""
    budget = now.rungs[-1]
    seen = row.rung if best else row.expected(now.rungs)
    cells: list[RenderableType] = [f"{best} {row.number}".lstrip(), f"{seen:,}" if seen else "starts"]
    if width >= WIDE:
        cells.append("" if best else ProgressBar(total=budget, completed=seen, width=12))
    cells.append(_value(row, now, bool(best)))
    if width >= MEDIUM:
        cells.append("" if best or row.speed is None else f"{row.speed:,.1f}")
        cells.append("" if best else _to_rung(row, now))
        name = f"{row.name}: " if row.name else ""
        cells.append(f"{name}{format_params(short_params(row.params))}")
    return cells


def _value(row: Row, now: Snapshot, best: bool) -> str:
    if row.value is None:
        return ""
    gain = _gain(row.value, now) if best and row is now.best[0] else ""
    return f"{row.value:.5g}{gain}" if best else f"{row.value:.5g} at {row.rung:,}"


def _gain(value: float, now: Snapshot) -> str:
    """The best trial's gain over the baseline."""
    if not now.baseline or value == now.baseline:
        return ""
    sign = 1.0 if now.mode == "min" else -1.0
    return f" ({sign * (now.baseline - value) / abs(now.baseline):+.1%})"


def _to_rung(row: Row, now: Snapshot) -> str:
    """How long until its next report."""
    next_rung = next((rung for rung in now.rungs if rung > row.samples), None)
    if next_rung is None or not row.speed or not math.isfinite(row.speed):
        return ""
    return duration(max(0.0, (next_rung - row.samples) / row.speed - row.since))
