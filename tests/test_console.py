"""The lines of a running study."""

import math
import re

import pytest

from tune.console import Events, counted, duration, format_params, say_line
from tune.records import TrialRecord

METRIC = "val/critical_action_mse"


class Heard:
    """Events whose lines are kept, without the time that each begins with."""

    def __init__(self, mode="min", trials=12):
        self.lines = []
        self.events = Events(self._keep, METRIC, mode, trials)

    def _keep(self, line):
        assert re.match(r"\d\d:\d\d:\d\d  ", line)
        assert "\n" not in line
        self.lines.append(line[10:])

    def report(self, number, value, rung=100, **metrics):
        self.events.reported(number, {METRIC: value, "samples_seen": rung, **metrics}, rung)
        return self.lines[-1]


def test_a_trial_begins_with_its_values_by_their_short_names():
    heard = Heard()
    heard.events.started(3, None, {"optim.batch_size": 16, "optim.lr": 0.000123456, "optim.schedule": "cosine"}, 0)
    heard.events.started(11, "quick_wins", {"weighting.alpha": 1.0}, 0)
    heard.events.started(3, None, {"weighting.alpha": 0.5}, 96_000)
    assert heard.lines == [
        "trial  3  started   batch_size=16  lr=0.0001235  schedule=cosine",
        "trial 11  started   quick_wins: alpha=1",
        "trial  3  continues from 96,000 samples   alpha=0.5",
    ]


def test_keys_of_the_same_short_name_keep_their_sections():
    heard = Heard(trials=1)
    heard.events.started(0, None, {"weighting.scheme": "temporal", "curriculum.scheme": "none", "optim.lr": 1.0}, 0)
    assert heard.lines == ["trial 0  started   weighting.scheme=temporal  curriculum.scheme=none  lr=1"]


def test_a_report_says_how_far_how_good_and_how_fast():
    heard = Heard()
    line = heard.report(3, 0.123456, 150_000, **{"train/samples_per_s": 1234.56})
    assert line == "trial  3    150,000 samples   critical_action_mse 0.12346   1,234.6 samples/s"
    assert heard.report(4, 2.0, 96) == "trial  4         96 samples   critical_action_mse 2"


@pytest.mark.parametrize(("mode", "values"), [("min", (0.5, 0.6, 0.4, 0.4)), ("max", (0.5, 0.4, 0.6, 0.6))])
def test_the_best_at_a_rung_is_named_where_it_beats_another(mode, values):
    heard = Heard(mode)
    first, worse, better, equal = (heard.report(number, value) for number, value in enumerate(values))
    assert better.endswith("best so far")
    assert not any(line.endswith("best so far") for line in (first, worse, equal))
    # another rung is another comparison
    assert not heard.report(5, 100.0 if mode == "min" else -100.0, rung=300).endswith("best so far")


@pytest.mark.parametrize("mode", ["min", "max"])
def test_a_value_that_is_not_finite_is_never_the_best_and_hides_no_other(mode):
    heard = Heard(mode)
    for value in (math.nan, math.inf, -math.inf):
        assert not heard.report(0, value).endswith("best so far")
    heard.report(1, 0.5)
    assert heard.report(2, 0.4 if mode == "min" else 0.6).endswith("best so far")


def test_a_report_without_the_metric_says_nothing():
    heard = Heard()
    heard.events.reported(0, {"samples_seen": 8, "train/loss": 1.0}, 0)
    assert heard.lines == []


def test_the_best_so_far_goes_on_after_a_resume():
    heard = Heard()
    heard.events.recall(TrialRecord(0, None, {}, {}, 0.0), {100: 0.5})
    assert not heard.report(0, 0.6).endswith("best so far")
    assert heard.report(1, 0.4).endswith("best so far")


def test_a_trial_ends_in_words():
    heard = Heard(trials=5)
    heard.events.ended(0, "complete", None)
    heard.events.ended(1, "pruned", "0.9 at 100 samples, the cut-off is 0.8")
    heard.events.ended(2, "failed", "out of memory")
    heard.events.retried(3, "its process died")
    assert heard.lines == [
        "trial 0  done",
        "trial 1  stopped: 0.9 at 100 samples, the cut-off is 0.8",
        "trial 2  FAILED: out of memory",
        "trial 3  restarts: its process died",
    ]


def test_lines_of_usual_length_fit_a_screen():
    heard = Heard()
    line = heard.report(11, 0.123456, 800_000, **{"train/samples_per_s": 123.4})
    assert len("20:48:48  " + line) <= 90


def test_parameters_keep_their_keys_and_four_digits():
    assert format_params({"optim.lr": 0.00012345, "optim.batch_size": 16, "a.b": None, "c": True}) == (
        "optim.lr=0.0001234  optim.batch_size=16  a.b=None  c=True"
    )


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (1, "1 CPU"),
        (1.0, "1 CPU"),
        (0, "0 CPUs"),
        (0.0, "0 CPUs"),
        (0.5, "0.5 CPUs"),
        (2, "2 CPUs"),
        (1435, "1,435 CPUs"),
    ],
)
def test_nouns_follow_their_number(count, text):
    assert counted(count, "CPU") == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0 s"),
        (95.4, "95 s"),
        (119, "119 s"),
        (120, "2 min"),
        (3599, "60 min"),
        (7200, "2.0 h"),
        (172_800, "48.0 h"),
    ],
)
def test_durations_in_a_fitting_unit(seconds, text):
    assert duration(seconds) == text


def test_a_line_is_out_at_once(capsys):
    say_line("hello")
    assert capsys.readouterr().out == "hello\n"
