"""Finalists: who they are, what is said of them, and whole studies of stubs that have some."""

import json
import signal
from dataclasses import replace

import pytest
from mlflow.tracking import MlflowClient

from tests.stub import BEST, METRIC, SAMPLES, score, stub_spec
from tests.test_study import driver, run, story, wait_for_reports
from tune.closed_loop_spec import ClosedLoop
from tune.finalists import (
    SHARED,
    compared,
    contenders,
    finalist_lines,
    kept_from_search,
    kept_seconds,
    planned_runs,
    wanted_runs,
)
from tune.fixed_runs import run_config
from tune.ray_session import OUT_OF_TIME, TIME_IS_KEPT, Brake
from tune.records import FINALISTS, Outcome, Records, Result, TrialRecord
from tune.report import closing_lines
from tune.report.finalists import finalists_outcome

TEST = METRIC.replace("val/", "test/")
TWO = {"finalists": {"k": 2, "seeds": 2}}
POINT = {"weighting.alpha": 0.0, "optim.lr": 1e-4, "optim.batch_size": 8}
WARM = {"quick_wins": POINT | {"weighting.alpha": 1.0}, "seed_baseline": POINT}


def trial(number, values, state="complete", name=None):
    """A record of the search."""
    results = tuple(Result({"samples_seen": samples, METRIC: value}) for samples, value in values.items())
    return TrialRecord(number, name, POINT | {"optim.lr": 10.0**-number}, {}, 0.0, results, Outcome(state))


SEARCHED = [
    trial(0, {100: 0.9, 900: 0.7}, name="quick_wins"),
    trial(1, {100: 0.9, 900: 0.8}, name="seed_baseline"),
    trial(2, {100: 0.1}, "pruned"),
    trial(3, {100: 0.5, 900: 0.6}),
    trial(4, {100: 0.2, 300: 0.4}, "pruned"),
    trial(5, {100: 0.1, 900: 0.1}, "failed"),
    trial(6, {100: 0.2, 300: 0.3}, "pruned"),
]


def config_of(name, seed, **changes):
    """The configuration of a contender among ``SEARCHED``, trained again with a seed."""
    params = next((each.params for each in SEARCHED if name in (each.name, f"trial {each.number}")), {})
    return run_config(stub_spec("/nowhere"), {**params, "runtime.seed": seed, **changes}, SHARED).to_dict()


def finalist(number, name, seed, errors, state="complete", val=0.5, **changes):
    """A record of a finalist: its error on each test episode; ``changes`` of its configuration."""
    rows = [(episode, 10, error) for episode, error in enumerate(errors)]
    metrics = {"samples_seen": 900, METRIC: val, TEST: sum(errors) / len(errors)}
    results = (Result(metrics, episodes={TEST: rows}),)
    return TrialRecord(
        number,
        name,
        {"runtime.seed": seed},
        config_of(name, seed, **changes),
        0.0,
        results,
        Outcome(state, "out of memory" if state == "failed" else None),
    )


def spec_of(tmp_path, k=1, seeds=2, **changes):
    return stub_spec(tmp_path, warm_start=WARM, finalists={"k": k, "seeds": seeds}, **changes)


def test_finalists_are_the_warm_starts_and_the_best_at_the_highest_rung(tmp_path):
    def names(k):
        return [each.name for each in contenders(spec_of(tmp_path, k), SEARCHED)]

    assert names(1) == ["seed_baseline", "quick_wins", "trial 3"]
    # beyond those at the highest rung the next lower one is asked: 0.1 at 100 samples is no reason
    assert names(3) == ["seed_baseline", "quick_wins", "trial 3", "trial 6", "trial 4"]
    assert names(9)[-1] == "trial 2"
    lost = [replace(SEARCHED[0], outcome=Outcome("failed")), *SEARCHED[1:]]
    assert [each.name for each in contenders(spec_of(tmp_path), lost)] == ["seed_baseline", "trial 3"]
    assert contenders(stub_spec(tmp_path), SEARCHED) == []


def test_they_are_trained_with_seeds_that_the_search_has_not_used_one_whole_seed_after_the_other(tmp_path):
    spec = spec_of(tmp_path, trial={"data": {"train": [{"root": "/nowhere"}]}, "runtime": {"seed": 4}})
    wanted = wanted_runs(spec, contenders(spec, SEARCHED))
    assert [(run.role, run.seed) for run in wanted] == [
        (role, seed) for seed in (5, 6) for role in ("seed_baseline", "quick_wins", "trial 3")
    ]
    assert len(wanted) == planned_runs(spec)


def records_of(base, wins, third, **states):
    """Two seeds of each: errors by episode."""
    runs = []
    for name, seeds in (("seed_baseline", base), ("quick_wins", wins), ("trial 3", third)):
        for seed, errors in enumerate(seeds, 1):
            runs.append(finalist(len(runs), name, seed, errors, val=0.5 + 0.1 * seed))
    return runs


HARD = (0.4, 1.6, 0.8, 1.2)


def times(share):
    return [[share * error for error in HARD], [share * 1.02 * error for error in HARD]]


def test_the_winner_is_the_best_mean_and_its_gain_is_paired(tmp_path):
    found = compared(spec_of(tmp_path), SEARCHED, records_of(times(1.0), times(0.95), times(0.8)))
    assert found["winner"] == "trial 3"
    by_name = {row["name"]: row for row in found["contenders"]}
    assert list(by_name) == ["seed_baseline", "quick_wins", "trial 3"]
    assert by_name["seed_baseline"]["gain"] is None
    assert by_name["seed_baseline"]["test"]["mean"] == pytest.approx(1.01)
    assert by_name["trial 3"]["gain"]["mean"] == pytest.approx(0.2)
    assert by_name["trial 3"]["gain"]["low"] > 0.15  # episodes differ fourfold, the gain does not
    assert (by_name["trial 3"]["trial"], by_name["trial 3"]["seeds"]) == (3, [1, 2])
    assert (found["test_episodes"], found["seeds"], found["metric"]) == (4, 2, TEST)
    assert found["verdict"].startswith("trial 3 is better than seed_baseline by 20.0 % (95 % interval")
    assert found["missing"] is None
    assert json.loads(json.dumps(found)) == found
    lines = finalist_lines(found)
    assert lines[1].startswith("Finalists       trial 3 is better")
    assert any("quick_wins" in line and "gain 5.0 %" in line for line in lines)


def test_a_gain_within_noise_is_said_to_be(tmp_path):
    base = [[1.0, 1.0, 1.0, 1.0], [1.0, 1.0, 1.0, 1.0]]
    mixed = [[0.7, 1.2, 0.8, 1.2], [0.8, 1.2, 0.7, 1.2]]
    found = compared(spec_of(tmp_path), SEARCHED, records_of(base, mixed, [[2.0] * 4] * 2))
    assert found["winner"] == "quick_wins"
    assert found["verdict"].startswith("Within noise: quick_wins is better than seed_baseline by 2.5 %")
    assert "may be chance" in found["verdict"]
    worse = compared(spec_of(tmp_path), SEARCHED, records_of(base, [[1.1] * 4] * 2, [[2.0] * 4] * 2))
    assert worse["winner"] == "seed_baseline"
    assert "nothing better was found" in worse["verdict"]


def test_the_exported_training_is_the_median_by_validation_and_not_by_test(tmp_path):
    spec = spec_of(tmp_path, seeds=3)
    runs = [finalist(seed - 1, "seed_baseline", seed, HARD) for seed in (1, 2, 3)]
    runs.append(finalist(9, "quick_wins", 1, HARD, "failed"))
    for seed, (val, factor) in enumerate([(0.9, 0.1), (0.2, 0.5), (0.5, 0.4)], 1):
        runs.append(finalist(2 + seed, "trial 3", seed, [factor * error for error in HARD], val=val))
    found = compared(spec, SEARCHED, runs)
    exported = {"number": 5, "seed": 3, "validation": 0.5, "samples": 900}
    assert (found["winner"], found["policy"]) == ("trial 3", exported)


def test_what_was_cut_or_failed_is_told_and_only_common_seeds_count(tmp_path):
    whole = records_of(times(1.0), times(0.95), times(0.8))
    cut = [run for run in whole if not (run.name == "trial 3" and run.params["runtime.seed"] == 2)]
    found = compared(spec_of(tmp_path), SEARCHED, cut)
    assert found["seeds"] == 1
    assert "with one seed the noise of training is not in the interval" in found["verdict"]
    assert found["missing"] == "1 of 6 trainings were cut: the study ended before them"
    failed = [*cut, finalist(9, "trial 3", 2, HARD, "failed")]
    assert compared(spec_of(tmp_path), SEARCHED, failed)["missing"] == "failed: trial 3, seed 2: out of memory"
    none = compared(spec_of(tmp_path), SEARCHED, [])
    assert (none["winner"], none["contenders"], none["policy"]) == (None, [], None)
    assert "No finalist has been trained" in none["verdict"]
    assert compared(stub_spec(tmp_path), SEARCHED, whole) is None


def test_none_is_the_best_while_one_has_yet_to_be_trained(tmp_path):
    found = compared(spec_of(tmp_path), SEARCHED, records_of(times(1.0), [], []))
    assert [row["name"] for row in found["contenders"]] == ["seed_baseline"]
    assert (found["winner"], found["policy"]) == (None, None)
    assert found["verdict"] == "quick_wins and trial 3 have yet to be trained: none is the best."
    assert finalists_outcome(found, "seed_baseline") is None
    ran_out = [finalist(8, "quick_wins", 1, HARD, "failed"), finalist(9, "trial 3", 1, HARD, "failed")]
    over = compared(spec_of(tmp_path), SEARCHED, [*records_of(times(1.0), [], []), *ran_out])
    assert over["winner"] == "seed_baseline"


def test_a_training_in_another_configuration_does_not_count_for_a_contender(tmp_path):
    spec = spec_of(tmp_path)
    others = records_of(times(1.0), times(0.95), [])
    before = [finalist(4 + seed, "trial 3", seed, [0.1] * 4, **{"policy.n_action_steps": 5}) for seed in (1, 2)]
    found = compared(spec, SEARCHED, [*others, *before])
    assert [row["name"] for row in found["contenders"]] == ["seed_baseline", "quick_wins"]
    assert found["missing"] == "2 of 6 trainings were cut: the study ended before them"
    now = [finalist(6 + seed, "trial 3", seed, [9.0] * 4) for seed in (1, 2)]
    assert compared(spec, SEARCHED, [*now, *others, *before])["contenders"][-1]["test"]["mean"] == 9.0


def test_a_baseline_that_failed_in_the_search_is_no_baseline(tmp_path):
    lost = [SEARCHED[0], replace(SEARCHED[1], outcome=Outcome("failed")), *SEARCHED[2:]]
    found = compared(spec_of(tmp_path), lost, records_of([], times(0.95), times(0.8)))
    assert [(row["name"], row["gain"]) for row in found["contenders"]] == [("quick_wins", None), ("trial 3", None)]


def test_without_a_baseline_no_gain_is_claimed(tmp_path):
    spec = stub_spec(tmp_path, warm_start={}, finalists={"k": 2, "seeds": 1})
    runs = [finalist(0, "trial 3", 1, HARD), finalist(1, "trial 6", 1, [2 * error for error in HARD])]
    found = compared(spec, [replace(each, name=None) for each in SEARCHED[2:]], runs)
    assert (found["winner"], [row["gain"] for row in found["contenders"]]) == ("trial 3", [None, None])
    assert "no baseline" in found["verdict"]


def test_the_time_that_is_kept_is_that_of_the_runs_at_the_pace_of_the_furthest_trial(tmp_path):
    spec = spec_of(tmp_path, k=1, seeds=2, budget={"trials": 9, "hours": 1})
    assert kept_seconds(spec, tmp_path / "run", 1) == 0  # nothing is known yet
    folder = tmp_path / "run" / "trials" / "000"
    folder.mkdir(parents=True)
    head = {"number": 0, "name": None, "params": {}, "config": {}, "time": 1000.0}
    (folder / "params.json").write_text(json.dumps(head))
    line = {"metrics": {"samples_seen": 300, METRIC: 0.5}, "time": 1030.0}
    (folder / "results.jsonl").write_text(json.dumps(line) + "\n")
    # 30 s for 300 samples, so 90 s for each of 6 runs, and a tenth more
    assert kept_seconds(spec, tmp_path / "run", 1) == pytest.approx(1.1 * 6 * 90)
    assert kept_seconds(spec, tmp_path / "run", 4) == pytest.approx(1.1 * 2 * 90)
    slow = spec_of(tmp_path, k=1, seeds=9, budget={"trials": 9, "hours": 0.5})
    assert kept_seconds(slow, tmp_path / "run", 1) == 0.5 * 0.5 * 3600  # the search has the other half
    assert kept_seconds(stub_spec(tmp_path, budget={"trials": 9, "hours": 1}), tmp_path / "run", 1) == 0
    # a tenth of the hours more, where trials act before
    acts = {"env": "garden", "instances": "1-9", "choose": {"instances": "11-14"}}
    assert kept_from_search(slow, tmp_path / "run", 1) == 0.5 * 0.5 * 3600
    assert kept_from_search(slow.model_copy(update={"closed_loop": ClosedLoop(**acts)}), tmp_path / "run", 1) == (
        0.6 * 0.5 * 3600
    )


def test_the_pause_between_two_sessions_is_no_pace_and_what_was_trained_before_is_not_done(tmp_path):
    spec = spec_of(tmp_path, k=1, seeds=1, budget={"trials": 9, "hours": 1})
    records, finalists = Records(tmp_path / "run"), Records(tmp_path / "run", FINALISTS)
    finalists.start_trial(0, "trial 0", {}, config_of("trial 6", 1))  # of an earlier contender
    finalists.end_trial(0, "complete", None)
    folder = records.folder(0)
    folder.mkdir(parents=True)
    head = {"number": 0, "name": None, "params": POINT, "config": {}, "time": 1000.0}
    (folder / "params.json").write_text(json.dumps(head))
    lines = [{"metrics": {"samples_seen": n, METRIC: 0.5}, "time": t} for n, t in ((100, 1030.0), (300, 90_060.0))]
    (folder / "results.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    sessions = [{"time": 990.0}, {"time": 90_000.0}]  # it was stopped for a day
    (records.run_dir / "sessions.jsonl").write_text("".join(json.dumps(line) + "\n" for line in sessions))
    # 30 and 60 s for 300 samples, so 270 s for each of 3 runs
    assert kept_seconds(spec, records.run_dir, 1) == pytest.approx(1.1 * 3 * 270)
    finalists.start_trial(1, "trial 0", {}, config_of("seed_baseline", 1, **POINT))
    finalists.end_trial(1, "complete", None)
    assert kept_seconds(spec, records.run_dir, 1) == pytest.approx(1.1 * 2 * 270)


def test_a_brake_leaves_the_time_that_is_kept():
    brake = Brake(100.0, lambda: 99.999)
    assert not Brake(100.0, lambda: 50.0).stop_all()
    while not brake.stop_all():
        pass
    assert brake.reason == TIME_IS_KEPT
    assert 99 < brake.left < 100


def finalists_of(run_dir):
    return Records(run_dir, FINALISTS).trials()


@pytest.mark.slow
def test_a_study_trains_its_finalists_and_scores_them_on_test_episodes_that_no_trial_saw(tmp_path, one_ray):
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    changes = {**TWO, "tracking": {"uri": uri, "experiment": "stub"}}
    summary, trials, lines = run(tmp_path, **changes)
    assert summary.state == "complete"
    assert not [key for t in trials for r in t.results for key in r.metrics if key.startswith("test/")]
    finalists = finalists_of(tmp_path / "run")
    assert len(finalists) == 3 * 2
    for each in finalists:
        assert each.outcome.state == "complete"
        assert [TEST in result.metrics for result in each.results] == [False, False, True]
        point = [each.params[key] for key in BEST]
        assert each.results[-1].metrics[TEST] == score(*point, SAMPLES, each.params["runtime.seed"])
    document = json.loads((tmp_path / "run" / "summary.json").read_text())["finalists"]
    assert document == summary.finalists
    assert document["contenders"][0]["name"] == "seed_baseline"
    means = {row["name"]: row["test"]["mean"] for row in document["contenders"]}
    assert document["winner"] == min(means, key=means.get)
    assert document["winner"] != "seed_baseline"
    assert document["verdict"] in "\n".join(closing_lines(summary, None))
    assert any("finalist 0  started   seed_baseline" in line for line in lines)

    client = MlflowClient(uri)
    runs = client.search_runs([client.get_experiment_by_name("stub").experiment_id])
    children = {r.data.tags["mlflow.runName"]: r for r in runs if r.data.tags.get("finalist") == "true"}
    assert len(runs) == 1 + 8 + 6
    assert "finalist 0 · seed_baseline, seed 1" in children
    child = children["finalist 0 · seed_baseline, seed 1"]
    assert (child.data.tags["role"], child.data.tags["seed"]) == ("seed_baseline", "1")
    assert child.info.status == "FINISHED"
    assert child.data.metrics[TEST] == finalists[0].results[-1].metrics[TEST]

    # a finished study that is resumed changes nothing; one that is extended trains new contenders alone
    again, _, lines = run(tmp_path, resume=True, **changes)
    assert again.finalists == summary.finalists
    assert not [line for line in lines if "finalist" in line and "started" in line]
    more, _, _ = run(tmp_path, resume=True, **changes | {"finalists": {"k": 2, "seeds": 3}})
    assert story(finalists_of(tmp_path / "run"))[:6] == story(finalists)
    assert len(finalists_of(tmp_path / "run")) == 9
    assert more.finalists["seeds"] == 3


@pytest.mark.slow
def test_finalists_that_die_fail_or_are_interrupted_go_on(tmp_path, one_ray, faults):
    changes = {**TWO, "warm_start": {"seed_baseline": POINT}, "budget": {"trials": 3}}
    process = driver(tmp_path, changes)
    wait_for_reports(tmp_path / "run", 7, process, FINALISTS)
    process.send_signal(signal.SIGKILL)
    process.wait(timeout=60)
    before = [each for each in finalists_of(tmp_path / "run") if each.outcome is not None]
    assert 0 < len(before) < 6
    (faults / "die_once_8_300").touch()
    summary, _, lines = run(tmp_path, resume=True, **changes)
    assert summary.state == "complete"
    after = finalists_of(tmp_path / "run")
    assert story(after)[: len(before)] == story(before)
    assert [len(each.results) for each in after] == [3] * 6
    assert summary.finalists["seeds"] == 2
    whole, _, _ = run(tmp_path, "uninterrupted", **changes)
    assert whole.finalists == summary.finalists


@pytest.mark.slow
def test_hours_keep_time_for_the_finalists(tmp_path, one_ray, faults):
    (faults / "slow").write_text("0.1")
    summary, trials, _ = run(tmp_path, **TWO, budget={"trials": 500, "hours": 25 / 3600})
    assert summary.state == "complete"
    assert len(trials) < 500
    # whether the time that was kept has sufficed depends on the machine; what is said does not
    cut = summary.finalists["missing"] is not None
    assert summary.reason == (OUT_OF_TIME if cut else TIME_IS_KEPT)


@pytest.mark.slow
def test_a_finalist_that_fails_is_told(tmp_path, one_ray, faults):
    changes = {**TWO, "budget": {"trials": 2}}
    run(tmp_path, budget={"trials": 2})
    (faults / "raise_8").touch()
    summary, _, _ = run(tmp_path, resume=True, **changes)
    assert "seed_baseline, seed 1: RuntimeError: planted fault of batch 8" in summary.finalists["missing"]
