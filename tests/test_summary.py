"""The best trial is compared at equal budgets only, and so is its gain."""

import json
import re

import pytest

from tune.records import Outcome, Result, TrialRecord
from tune.summary import Scored, Summary, best_trial, ranked, scored, summarize

METRIC = "val/critical_action_mse"
RUNGS = (100, 300, 900)


def trial(number, values, state=None, name=None, reason=None):
    """A record of a trial: samples seen -> value, and how it ended (None: it was interrupted)."""
    results = tuple(Result({"samples_seen": samples, METRIC: value}) for samples, value in values.items())
    outcome = Outcome(state, reason) if state else None
    return TrialRecord(number, name, {"optim.lr": 10.0**-number}, {}, 0.0, results, outcome)


def best(*trials, mode="min"):
    found = best_trial(trials, METRIC, mode, RUNGS)
    return (found.number, found.value, found.rung) if found else None


def summary_of(*trials, mode="min", **changes):
    values = {"state": "complete", "reason": None, "seconds": 60.0} | changes
    return summarize("eggs", trials, metric=METRIC, mode=mode, rungs=RUNGS, **values)


WHOLE = trial(0, {100: 0.9, 300: 0.8, 900: 0.7}, "complete", "seed_baseline")
STOPPED_LOW = trial(1, {100: 0.1}, "pruned")
BETTER = trial(2, {100: 0.8, 300: 0.6, 900: 0.5}, "complete")


def test_the_best_is_sought_at_the_highest_rung_that_any_has_reached():
    assert best(WHOLE, STOPPED_LOW, BETTER) == (2, 0.5, 900)
    # 0.1 at 100 samples is no reason to prefer a trial over one that was trained to the end
    assert best(WHOLE, STOPPED_LOW) == (0, 0.7, 900)
    assert best(STOPPED_LOW, trial(3, {100: 0.2, 300: 0.3})) == (3, 0.3, 300)


@pytest.mark.parametrize(("mode", "number"), [("min", 2), ("max", 0)])
def test_max_mode_takes_the_highest_value(mode, number):
    assert best(WHOLE, STOPPED_LOW, BETTER, mode=mode)[0] == number


@pytest.mark.parametrize("mode", ["min", "max"])
def test_the_earlier_of_equal_trials_is_the_best(mode):
    assert best(trial(5, {900: 0.5}), trial(3, {900: 0.5}), trial(4, {900: 0.5}), mode=mode) == (3, 0.5, 900)


def test_a_failed_trial_is_never_the_best_nor_does_it_set_the_rung():
    failed = trial(3, {100: 0.01, 300: 0.01, 900: 0.01}, "failed")
    assert best(failed, trial(4, {100: 0.4, 300: 0.3}, "pruned")) == (4, 0.3, 300)
    assert best(failed) is None


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_a_value_that_is_not_finite_is_no_score(value):
    # its driver was killed before it could record the failure
    assert best(trial(0, {900: value}), trial(1, {900: 0.5})) == (1, 0.5, 900)
    assert best(trial(0, {100: 0.3, 900: value})) == (0, 0.3, 100)


def test_without_a_report_there_is_no_best():
    assert best() is None
    assert best(trial(0, {}), trial(1, {50: 0.1})) is None  # before the first rung


def test_a_trial_scores_at_a_rung_with_its_first_value_past_it():
    # a batch of 32 passes 100 at 128; the value at 256 belongs to the same rung, as ASHA sees it
    record = trial(7, {128: 0.6, 256: 0.2, 320: 0.4})
    assert scored(record, METRIC, RUNGS, 100) == Scored(7, None, 0.6, 100, record.params)
    assert scored(record, METRIC, RUNGS, 300).value == 0.4
    assert scored(record, METRIC, RUNGS, 900) is None
    assert scored(trial(8, {900: 0.1, 1000: 0.05}), METRIC, RUNGS, 900).value == 0.1


def test_the_baseline_is_read_at_the_rung_of_the_best():
    found = summary_of(WHOLE, STOPPED_LOW, BETTER)
    assert (found.baseline.number, found.baseline.value, found.baseline.rung) == (0, 0.7, 900)
    assert found.gain == pytest.approx((0.7 - 0.5) / 0.7)
    # the baseline is further than the rest, which are compared with what it was there
    early = summary_of(trial(0, {100: 0.9, 300: 0.8}, None, "seed_baseline"), trial(1, {100: 0.5, 300: 0.6}, "pruned"))
    assert (early.best.rung, early.baseline.value) == (300, 0.8)
    assert early.gain == pytest.approx(0.25)


def test_a_baseline_that_has_not_come_as_far_gives_no_gain():
    found = summary_of(trial(0, {100: 0.9, 300: 0.8}, "failed", "seed_baseline"), BETTER)
    assert (found.best.number, found.baseline, found.gain) == (2, None, None)
    assert summary_of(BETTER).gain is None  # no warm start at all
    assert summary_of().gain is None


def test_the_baseline_is_seed_baseline_else_the_first_warm_start():
    wins, first = trial(0, {900: 0.6}, "complete", "quick_wins"), trial(1, {900: 0.8}, "complete", "seed_baseline")
    assert summary_of(wins, first, BETTER).baseline.name == "seed_baseline"
    second = trial(1, {900: 0.8}, "complete", "slow")
    assert summary_of(wins, second, BETTER).baseline.name == "quick_wins"


@pytest.mark.parametrize(
    ("mode", "baseline", "other", "gain"),
    [
        ("min", 0.8, 0.6, 0.25),
        ("max", 0.4, 0.5, 0.25),
        ("max", -0.8, -0.6, 0.25),  # a loss with its sign turned
        ("min", -0.4, -0.5, 0.25),
        ("min", 0.0, -1.0, None),  # no share of nothing
    ],
)
def test_gain_is_a_share_of_the_baselines_value_in_the_better_direction(mode, baseline, other, gain):
    base, better = trial(0, {900: baseline}, "complete", "seed_baseline"), trial(1, {900: other}, "complete")
    assert summary_of(base, better, mode=mode).gain == (None if gain is None else pytest.approx(gain))


def test_the_baseline_itself_gains_nothing():
    found = summary_of(WHOLE)
    assert found.best == found.baseline
    assert str(found.gain) == "0.0"


def test_trials_samples_and_failures_are_counted():
    failed = trial(3, {100: 0.3}, "failed", reason="out of memory")
    found = summary_of(WHOLE, STOPPED_LOW, failed, trial(4, {128: 0.2}), trial(5, {}))
    assert found.trials == {"complete": 1, "pruned": 1, "failed": 1, "interrupted": 2}
    assert found.samples == 900 + 100 + 100 + 128 + 0
    assert found.failures == {3: "out of memory"}


def test_the_summary_survives_json_with_its_gain():
    found = summary_of(WHOLE, BETTER, reason="out of time")
    document = json.loads(json.dumps(found.to_dict()))
    assert document["best"] == {
        "number": 2, "name": None, "value": 0.5, "rung": 900, "params": {"optim.lr": 0.01},
    }  # fmt: skip
    assert document["gain"] == pytest.approx(2 / 7)
    assert document["reason"] == "out of time"
    assert Summary("eggs", METRIC, "min", "failed", None, None, None, {}, 0, 0.0).to_dict()["gain"] is None


def by_episode(number, at, state="complete", name=None):
    """A record with errors by episode: samples -> the error of each."""
    results = []
    for samples, errors in at.items():
        rows = {METRIC: [(episode, 10, error) for episode, error in enumerate(errors)]}
        mean = sum(errors) / len(errors)
        results.append(Result({"samples_seen": samples, METRIC: mean}, episodes=rows))
    return TrialRecord(number, name, {"optim.lr": 0.1}, {}, 0.0, tuple(results), Outcome(state))


def test_gains_are_paired_with_the_baseline_at_every_rung_that_both_have_reached():
    base = by_episode(0, {100: (0.5, 4.0, 1.5), 300: (0.4, 3.2, 1.2), 900: (0.3, 2.4, 0.9)}, name="seed_baseline")
    better = by_episode(1, {128: (0.45, 3.6, 1.35), 320: (0.2, 1.6, 0.6)}, "pruned")
    worse = by_episode(2, {100: (0.6, 4.4, 1.2)}, "pruned")
    found = summary_of(base, better, worse).gains
    assert [(gain["trial"], gain["rung"], gain["episodes"]) for gain in found] == [
        (1, 100, 3),
        (2, 100, 3),
        (1, 300, 3),
    ]
    # episodes differ eightfold, the gain does not
    assert [found[0][key] for key in ("mean", "low", "high")] == pytest.approx([0.1, 0.1, 0.1])
    assert found[2]["mean"] == pytest.approx(0.5)
    assert found[1]["low"] < 0 < found[1]["high"]
    assert json.loads(json.dumps(summary_of(base, better).to_dict()))["gains"][0]["trial"] == 1


def test_the_gain_s_noise_is_said_with_it():
    base = by_episode(0, {900: (0.5, 4.0, 1.5)}, name="seed_baseline")
    sure = summary_of(base, by_episode(1, {900: (0.45, 3.5, 1.36)}))
    assert re.fullmatch(r"; 95 % interval \d+\.\d to \d+\.\d % over 3 episodes", sure.gain_noise)
    assert summary_of(base, by_episode(1, {900: (0.6, 3.0, 1.6)})).gain_noise.startswith("; within noise, 95 % inter")
    alone = summary_of(by_episode(0, {900: (1.0,)}, name="seed_baseline"), by_episode(1, {900: (0.5,)}))
    assert alone.gain_noise == "; one validation episode, so its noise is not known"
    assert summary_of(base).gain_noise == summary_of(WHOLE, BETTER).gain_noise == ""


def test_a_gain_needs_the_same_episodes_and_a_baseline():
    base = by_episode(0, {100: (0.5, 1.0)}, name="seed_baseline")
    other = by_episode(1, {100: (0.5, 1.0, 2.0)})
    assert summary_of(base, other).gains == []
    assert summary_of(other, by_episode(2, {100: (0.5, 1.0, 1.0)})).gains == []
    assert summary_of(WHOLE, BETTER).gains == []  # recorded without episodes
    (alone,) = summary_of(by_episode(0, {100: (1.0,)}, name="seed_baseline"), by_episode(1, {100: (0.5,)})).gains
    assert (alone["mean"], alone["low"], alone["high"]) == (0.5, None, None)


def test_trials_are_ranked_by_how_far_they_have_come_then_by_their_value():
    lost = trial(5, {900: 0.1}, "failed")
    order = ranked([WHOLE, STOPPED_LOW, BETTER, trial(3, {100: 0.9, 300: 0.3}, "pruned"), lost], METRIC, "min", RUNGS)
    assert [each.number for each in order] == [2, 0, 3, 1]
