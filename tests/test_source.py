"""Where a key of a YAML stands, and what ``--set`` does to the tree."""

import pytest

from smolvla_core.errors import ConfigError
from tune.source import Source, SpecError, assign, expand, read

TEXT = """\
study: eggs
trial:
  data:
    train:
    - root: /a
    - {root: /b,
       weight: 2}
search:
  optim.lr: {type: float,
             low: 1.0e-5}
"""


def test_every_key_and_entry_has_its_line():
    values, source = read(TEXT, "eggs.yaml")
    assert values["trial"]["data"]["train"][1] == {"root": "/b", "weight": 2}
    assert source.text == TEXT
    assert source.lines["trial", "data", "train"] == 4
    assert source.lines["trial", "data", "train", 0] == 5
    assert source.lines["trial", "data", "train", 1, "weight"] == 7
    assert source.lines["search", "optim.lr", "low"] == 10


def test_an_error_is_placed_at_the_nearest_line_above_it():
    source = read(TEXT, "eggs.yaml")[1]

    def place(*path):
        return str(source.located(SpecError(path, "wrong")))

    assert place("search", "optim.lr", "low") == "eggs.yaml:10: search.optim.lr.low: wrong"
    assert place("search", "optim.lr", "high") == "eggs.yaml:9: search.optim.lr.high: wrong"
    assert place("budget", "trials") == "eggs.yaml:1: budget.trials: wrong"
    assert place() == "eggs.yaml:1: wrong"


def test_an_error_that_set_brought_names_it():
    tree, source = read(TEXT, "eggs.yaml")
    changed = assign(tree, {"search.optim.lr.low": 1, "budget.trials": 0})[1]
    source = Source(source.name, source.text, source.lines, changed)

    def place(*path):
        return str(source.located(SpecError(path, "wrong")))

    assert place("search", "optim.lr", "low") == "--set: search.optim.lr.low: wrong"
    assert place("budget") == "--set: budget: wrong"  # the file has no such section
    assert place("search", "optim.lr") == "eggs.yaml:9: search.optim.lr: wrong (with --set search.optim.lr.low)"
    assert place("search", "optim.lr", "high") == "eggs.yaml:9: search.optim.lr.high: wrong"
    assert place("trial") == "eggs.yaml:2: trial: wrong"


def test_merged_and_repeated_mappings():
    text = "base: &base {low: 0, high: 1}\na:\n  <<: *base\n  high: 2\nb: *base\n"
    values, source = read(text, "x.yaml")
    assert values["a"] == {"low": 0, "high": 2}
    assert values["b"] == {"low": 0, "high": 1}
    assert source.lines["a", "high"] == 4


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("a: 1\nb:\n  c: 1\n  c: 2\n", "x.yaml:4: not valid YAML: 'c' stands here and in line 3; remove one of them"),
        ("a: [{b: 1, b: 2}]\n", "x.yaml:1: not valid YAML: 'b' stands here and in line 1"),
        ("a:\n  on: 1\n", "x.yaml:2: a.on: YAML reads this key as true or false, not as text; put it in quotes"),
        ("1.5: 1\n", "x.yaml:1: 1.5: YAML reads this key as a number"),
        ("~: 1\n", "x.yaml:1: ~: YAML reads this key as null"),
        ("a: &a [*a]\n", "x.yaml:1: a.0: holds itself; remove the alias (*)"),
        ("[1]: 2\n", "x.yaml:1: not valid YAML"),
        (
            "a: 2024-13-01\n",
            "x.yaml: a value is read as a date or number, and is none (month must be in 1..12); quote it",
        ),
    ],
)
def test_mistakes_of_form(text, line):
    with pytest.raises(ConfigError) as caught:
        read(text, "x.yaml")
    assert str(caught.value).startswith(line)
    assert "\n" not in str(caught.value)


def test_assign_copies():
    tree = {"search": {"optim.lr": {"low": 1}}, "warm_start": {"a": {"optim.lr": 1}}}
    before = {"search": {"optim.lr": {"low": 1}}, "warm_start": {"a": {"optim.lr": 1}}}
    changed, paths = assign(tree, {"search.optim.lr.low": 2, "warm_start.a.optim.lr": 3, "optim.samples": 9})
    assert tree == before
    assert changed == {
        "search": {"optim.lr": {"low": 2}},
        "warm_start": {"a": {"optim.lr": 3}},
        "trial": {"optim": {"samples": 9}},
    }
    assert paths == (("search", "optim.lr", "low"), ("warm_start", "a", "optim.lr"), ("trial", "optim", "samples"))


def test_null_is_a_value_where_a_value_is_set():
    assert assign({"budget": {"hours": 2}}, {"budget.hours": None})[0] == {"budget": {"hours": None}}
    assert assign({"trial": {"optim": {"ema_decay": 0.9}}}, {"optim.ema_decay": None})[0] == {
        "trial": {"optim": {"ema_decay": None}}
    }


def test_of_two_keys_of_the_trial_the_longest_is_meant():
    tree = assign({}, {"search.optim.lr_scaling.choices": ["none"], "search.policy.tiny.layers.low": 2})[0]
    assert tree["search"] == {"optim.lr_scaling": {"choices": ["none"]}, "policy.tiny.layers": {"low": 2}}


def test_a_warm_start_may_have_a_number_for_a_name():
    assert assign({"warm_start": {"7": {"optim.lr": 1}}}, {"warm_start.7.optim.lr": 2})[0] == {
        "warm_start": {"7": {"optim.lr": 2}}
    }


def test_expand(monkeypatch):
    monkeypatch.setenv("EGGS", "/data")
    monkeypatch.delenv("NONE", raising=False)
    tree = {"a": ["${EGGS}/x", 1, None, True], "b": {"c": "${EGGS}${EGGS}"}}
    assert expand(tree) == {"a": ["/data/x", 1, None, True], "b": {"c": "/data/data"}}
    with pytest.raises(SpecError, match=r"^a.1.b: \$\{NONE\} is not set; run: export NONE=...$") as caught:
        expand({"a": [0, {"b": "${NONE}"}]})
    assert caught.value.path == ("a", 1, "b")
