"""The table of a running study in a terminal."""

import io
import os
import pty
import re
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from tests.stub import METRIC, stub_spec
from tune.console import Events, say_line
from tune.live import LiveEvents, Shown, is_terminal, make_events
from tune.live_table import Row, Snapshot, render, seconds_left
from tune.records import Outcome, Result, TrialRecord

RUNGS = (100, 300, 900)
PARAMS = {"weighting.alpha": 1.25, "optim.lr": 3e-4, "optim.batch_size": 16}
ESCAPES = re.compile(r"\x1b\[[0-9;?]*[a-zA-Z]|\r")
SHOW_CURSOR = "\x1b[?25h"


def snapshot(**changes) -> Snapshot:
    values = {
        "study": "eggs",
        "metric": METRIC,
        "mode": "min",
        "rungs": RUNGS,
        "trials": 12,
        "ended": {"complete": 2, "pruned": 3, "failed": 1},
        "running": [Row(7, None, PARAMS, 300, since=5, speed=20.0, rung=300, value=0.75), Row(8, None, PARAMS)],
        "best": [Row(3, None, PARAMS, 900, rung=900, value=0.5), Row(0, "seed_baseline", PARAMS, 900, 0, 1, 900, 0.8)],
        "baseline": 0.8,
        "seconds": 130.0,
        "samples_per_trial": 400.0,
    }
    return Snapshot(**(values | changes))


def drawn(now: Snapshot, width: int = 120, height: int = 30) -> list[str]:
    console = Console(file=io.StringIO(), width=width, height=height, color_system=None)
    console.print(render(now, width, height))
    return console.file.getvalue().splitlines()


def test_the_table_holds_what_runs_and_what_is_best():
    head, columns, *rows = drawn(snapshot())
    assert head.startswith("eggs  6 of 12 trials ended · 2 completed · 3 stopped · 1 failed · 2 running · 2 min")
    assert columns.split() == ["Trial", "Samples", "critical_action_mse", "Samples/s", "To", "rung", "Parameters"]
    running, starting, best, second = rows
    # 5 seconds at 20 samples a second since its report at 300; 500 are left to 900
    assert re.match(r" +7 +400 .* 0.75 at 300 +20.0 +25 s +alpha=1.25 ", running)
    assert re.match(r" +8 +starts +alpha=1.25", starting)
    assert re.match(r" *best 3 +900 +0.5 \(\+37.5%\) +alpha=1.25", best)
    assert re.match(r" +2nd 0 +900 +0.8 +seed_baseline: alpha=1.25", second)


@pytest.mark.parametrize("width", [24, 30, 46, 79, 80, 99, 100, 200])
def test_no_line_is_longer_than_the_terminal_is_wide_and_the_essentials_stay(width):
    lines = drawn(snapshot(), width)
    assert all(len(line) <= width for line in lines)
    assert len(lines) == 6  # none is broken
    text = "\n".join(lines)
    assert "best 3" in text
    assert ("Parameters" in text) == (width >= 80)


def test_many_trials_leave_room_for_the_best_ones():
    running = [Row(number, None, PARAMS, 100 + number, 0, 10.0, 100, 0.9) for number in range(500)]
    lines = drawn(snapshot(running=running), height=24)
    assert len(lines) <= 20
    assert any("and 486 more" in line for line in lines)
    assert any("best 3" in line for line in lines)
    assert re.match(r" +499 ", lines[2])  # those that came furthest are shown


def test_how_long_it_takes_is_told_once_a_trial_has_ended():
    # 4 to come of 400 samples each, 8 has all 400 to go, 7 has had its 400; at 20 samples a second
    assert seconds_left(snapshot()) == pytest.approx((4 * 400 + 400) / 20)
    assert "about 100 s left" in drawn(snapshot())[0]
    assert seconds_left(snapshot(samples_per_trial=None)) is None
    assert seconds_left(snapshot(running=[Row(8, None, PARAMS)])) is None


def test_a_search_that_is_being_ended_says_so():
    assert "stopping; trials keep their states, Ctrl-C again ends at once" in drawn(snapshot(stopping="interrupted"))[0]


class Screen:
    """Live events in a terminal of so many columns, and what was written to it."""

    def __init__(self, tmp_path: Path, width: int = 120, **changes):
        self.file = io.StringIO()
        console = Console(file=self.file, force_terminal=True, width=width, height=30, color_system=None)
        self.events = LiveEvents(console, replace(Shown.search(stub_spec(tmp_path)), **changes), lambda: None)

    @property
    def text(self) -> str:
        return ESCAPES.sub("", self.file.getvalue())


def play(events: Events) -> None:
    events.started(0, "seed_baseline", PARAMS, 0)
    events.reported(0, {METRIC: 0.9, "samples_seen": 100, "train/samples_per_s": 12.0}, 100)
    events.started(1, None, PARAMS, 0)
    events.reported(1, {METRIC: 0.5, "samples_seen": 100}, 100)
    events.ended(1, "pruned", "cut [bold]")
    events.reported(0, {METRIC: 0.8, "samples_seen": 300}, 300)
    events.started(2, None, PARAMS, 0)
    events.reported(2, {METRIC: 0.1, "samples_seen": 300}, 300)
    events.ended(2, "failed", "out of memory")


def test_the_best_is_of_the_highest_rung_and_no_failed_one(tmp_path):
    screen = Screen(tmp_path)
    play(screen.events)
    now = screen.events.snapshot()
    assert [(row.number, row.rung, row.value) for row in now.best] == [(0, 300, 0.8), (1, 100, 0.5)]
    assert now.baseline == 0.8
    assert [row.number for row in now.running] == [0]
    assert now.ended == {"pruned": 1, "failed": 1}
    assert now.running[0].speed > 0


def test_what_happened_stands_above_the_table_as_in_a_pipe(tmp_path):
    lines: list[str] = []
    play(Events(lines.append, METRIC, "min", 8))
    screen = Screen(tmp_path)
    with screen.events.shown():
        play(screen.events)
        print("of some library")
    for line in lines:
        assert line[10:] in screen.text  # without the clock
    assert "of some library" in screen.text
    assert "trials ended" in screen.text


@pytest.mark.parametrize("end", [KeyboardInterrupt, RuntimeError])
def test_the_terminal_gets_its_cursor_back_however_it_ends(tmp_path, end):
    screen = Screen(tmp_path)
    with pytest.raises(end), screen.events.shown():
        raise end
    assert screen.file.getvalue().count(SHOW_CURSOR) == 1


def test_finalists_are_shown_as_trials_are_and_called_so(tmp_path):
    screen = Screen(tmp_path, rungs=(900,), trials=6, noun="finalist")
    with screen.events.shown():
        screen.events.started(0, "seed_baseline", PARAMS, 0)
        screen.events.reported(0, {METRIC: 0.8, "samples_seen": 300}, 0)
        screen.events.reported(0, {METRIC: 0.7, "samples_seen": 900}, 900)
        screen.events.ended(0, "complete", None)
    assert "1 of 6 finalists ended · 1 completed" in screen.text
    assert re.search(r"best 0 +900 .*0\.7 .*seed_baseline", screen.text)
    assert re.search(r"finalist 0 +started", screen.text)


def test_a_mistake_in_drawing_does_not_end_the_search(tmp_path, monkeypatch):
    def broken(*arguments):
        raise ZeroDivisionError("no")

    monkeypatch.setattr("tune.live.render", broken)
    screen = Screen(tmp_path)
    with screen.events.shown():
        play(screen.events)
    assert "the table cannot be drawn (ZeroDivisionError: no)" in screen.text
    assert "out of memory" in screen.text


def test_a_resumed_search_knows_its_trials(tmp_path):
    def record(number, values, state, name=None):
        results = tuple(Result({METRIC: value, "samples_seen": rung}) for rung, value in values.items())
        return TrialRecord(number, name, PARAMS, {}, 0.0, results, Outcome(state) if state else None)

    screen = Screen(tmp_path)
    screen.events.recall(record(0, {100: 0.9, 300: 0.8, 900: 0.7}, "complete", "seed_baseline"), {100: 0.9, 900: 0.7})
    screen.events.recall(record(1, {100: 0.6}, None), {100: 0.6})
    now = screen.events.snapshot()
    assert now.ended == {"complete": 1}
    assert now.running == []  # it waits for its turn
    assert [row.number for row in now.best] == [0, 1]
    screen.events.started(1, None, PARAMS, 100)
    assert [row.samples for row in screen.events.snapshot().running] == [100]


def test_without_a_terminal_there_are_lines_alone(tmp_path, monkeypatch, capsys):
    spec = Shown.search(stub_spec(tmp_path))
    assert type(make_events(say_line, spec, [], lambda: None)) is Events  # pytest's stdout is a file
    assert type(make_events([].append, spec, [], lambda: None)) is Events
    main, worker = pty.openpty()
    with os.fdopen(main), os.fdopen(worker, "w") as terminal:
        monkeypatch.setenv("TERM", "xterm")
        assert is_terminal(terminal)
        monkeypatch.setattr("sys.stdout", terminal)
        assert isinstance(make_events(say_line, spec, [], lambda: None), LiveEvents)
        monkeypatch.setenv("TERM", "dumb")
        assert not is_terminal(terminal)


def test_a_trial_that_is_being_scored_waits_at_its_rung():
    late = Row(7, None, PARAMS, 100, since=60, speed=20.0, rung=100, value=0.75)
    assert late.expected(RUNGS) == 300
    assert re.match(r" +7 +300 .* 0.75 at 100 +20.0 +0 s ", drawn(snapshot(running=[late]))[2])
