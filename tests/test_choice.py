"""The closed loop as the top rung's objective: who acts, who is ranked by it, and who wins by it."""

import json
from dataclasses import replace

import pytest

from smolvla_core.errors import ConfigError
from tests.stub import METRIC, stub_spec
from tests.test_attach import Told, garden_results
from tests.test_finalists import WARM, finalist, trial
from tune.acted import acted
from tune.choice import ASIDE, chosen_params, put_aside, trials_acts, winner_by_acting
from tune.closed_loop import TRIED, Achieved, achieved, read_results
from tune.closed_loop_checks import refuse_unsuited
from tune.closed_loop_runs import let_act
from tune.closed_loop_spec import ClosedLoop
from tune.finalists import compared, contenders, study_summary
from tune.plan import plan_lines
from tune.ray_session import INTERRUPTED, TIME_IS_KEPT, Brake
from tune.records import Records, Result
from tune.source import SpecError
from tune.space import to_trial_config
from tune.spec import Resources
from tune.study import Study
from tune.summary import best_trial, ranked
from tune.tracking import NullTracker

CHOOSE = {"instances": "201-203", "n_action_steps": [2, 5]}
POND = {"instances": "301-303", "choose": CHOOSE}
RUNGS = (100, 300, 900)


def spec_of(tmp_path, seeds=2, budget=None, **choose):
    changes = {"warm_start": WARM, "finalists": {"k": 1, "seeds": seeds}, "budget": budget or {"trials": 8}}
    return stub_spec(tmp_path, closed_loop={**POND, "choose": CHOOSE | choose}, **changes)


@pytest.fixture
def acts(tmp_path):
    """``acts([1, 0], steps)``: a way of acting that placed so many eggs on each instance."""

    def make(eggs, steps=None, first=201) -> Achieved:
        found = read_results(garden_results(tmp_path / "results", eggs, first, steps))
        return Achieved(str(steps or "own"), (), found.rollouts, found.settings, 0.0)

    return make


def searched(first=(), second=(), third=()):
    """By the metric trial 3 is the best of those at the top, then trial 0, then trial 1."""
    return [
        replace(trial(0, {100: 0.9, 900: 0.7}, name="quick_wins"), tried=tuple(first)),
        replace(trial(1, {100: 0.9, 900: 0.8}, name="seed_baseline"), tried=tuple(second)),
        trial(2, {100: 0.1}, "pruned"),
        replace(trial(3, {100: 0.5, 900: 0.6}), tried=tuple(third)),
    ]


def test_what_the_trials_at_the_top_rung_achieve_ranks_them(acts):
    def numbers(trials):
        return [each.number for each in ranked(trials, METRIC, "min", RUNGS)]

    assert numbers(searched()) == [3, 0, 1, 2]
    placed, nothing = acts([1, 1, 0], 5), acts([0, 0, 0], 5)
    assert numbers(searched([nothing], [nothing, placed], [nothing])) == [1, 3, 0, 2]  # equals go by the metric
    assert best_trial(searched([nothing], [placed], [nothing]), METRIC, "min", RUNGS).number == 1
    # while one of them has not acted there is nothing to rank by
    assert numbers(searched([nothing], [placed])) == [3, 0, 1, 2]
    # Q decides between those that place as many
    near = replace(nothing, rollouts=tuple(replace(each, q=0.5) for each in nothing.rollouts))
    assert numbers(searched([near], [nothing], [nothing])) == [0, 3, 1, 2]


def test_a_finalist_acts_with_the_chunk_s_actions_that_achieved_most(tmp_path, acts):
    spec = spec_of(tmp_path)
    few, many = acts([1, 0, 0], 2), acts([1, 1, 0], 5)
    trials = searched([few, many], [acts([1, 0, 0], 2), acts([1, 0, 0], 5)], [acts([1, 1, 1], 2), acts([0, 0, 0], 5)])
    steps = {each.name: each.params["policy.n_action_steps"] for each in contenders(spec, trials)}
    # of equals that which asks the policy least often
    assert steps == {"seed_baseline": 5, "quick_wins": 5, "trial 3": 2}
    best = contenders(spec, trials)[-1]
    assert to_trial_config(spec, best.params).policy.n_action_steps == 2
    # the one number that was tried is what it is ranked by
    assert chosen_params(replace(trials[3], tried=(acts([1], 5),)))["policy.n_action_steps"] == 5
    # what was not tried is left as the trial has it
    assert chosen_params(trials[2]) == trials[2].params
    own = replace(acts([1], 7), evaluator="own")
    assert chosen_params(replace(trials[3], tried=(own,))) == trials[3].params
    names = [row["name"] + ": " + row["evaluator"] for row in acted(None, trials, [])]
    assert names[0] == "trial 0 (quick_wins): to choose, 2 actions of a chunk"
    assert len(names) == 6
    rows = acted(None, [replace(trials[3], tried=(acts([1], 10), acts([1], 2)))], [])
    assert [row["evaluator"] for row in rows] == [
        "to choose, 2 actions of a chunk",
        "to choose, 10 actions of a chunk",
    ]


def try_all(closed_loop, records, *rest):
    let_act(trials_acts(closed_loop, records.trials()), records, *rest)


def test_only_trials_at_the_top_act_each_way_once(tmp_path):
    records, lines, tracker, asked = Records(tmp_path / "run"), [], Told(), []
    for number, (samples, state, chunk) in enumerate(
        [(900, "complete", 10), (100, "pruned", 10), (900, "complete", 4)]
    ):
        place = tmp_path / f"state{number}"
        place.mkdir()
        records.start_trial(number, None, {}, {"policy": {"chunk_size": chunk}})
        records.add_result(number, Result({"samples_seen": samples, METRIC: 0.5}, checkpoint=str(place)))
        records.end_trial(number, state, None)

    def evaluate(policy, closed_loop, out, brake):
        asked.append((closed_loop.n_action_steps, closed_loop.numbers))
        out.mkdir(parents=True, exist_ok=True)
        garden_results(out, [closed_loop.n_action_steps / 10] * 3, 201, closed_loop.n_action_steps)
        document = json.loads((out / "results.json").read_text())
        document["policy"] |= {"asked_n_action_steps": closed_loop.n_action_steps, "asked_instruction": None}
        document["env"] = vars(closed_loop.environment)
        (out / "results.json").write_text(json.dumps(document))

    def write_policy(trial, records, out):
        out.mkdir()
        return True

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tune.report.results.write_policy", write_policy)
        try_all(ClosedLoop(**POND), records, tracker, lines.append, Brake(None), evaluate)
        # the third trial's chunk has no 5 actions
        assert asked == [(2, (201, 202, 203)), (5, (201, 202, 203)), (2, (201, 202, 203))]
        assert lines[0] == "Closed loop: 2 trials of the top rung in garden, 3 instances each time"
        assert lines[2] == "trial 0, 5 actions of a chunk: eggs_placed 50.0 % of 3 rollouts"
        assert tracker.said[0]["tried/5/eggs_placed"] == 0.5
        assert [each.evaluator for each in achieved(records.folder(0), TRIED)] == ["2", "5"]
        assert not achieved(records.folder(1), TRIED)
        assert records.trials()[0].achieved == ()  # it is no result that anybody reports of the trial

        lines.clear()
        try_all(ClosedLoop(**POND), records, tracker, lines.append, Brake(None), evaluate)
        assert lines == []
        others = ClosedLoop(**POND | {"choose": CHOOSE | {"instances": "201-202"}})
        try_all(others, records, tracker, lines.append, Brake(None), evaluate)
        assert len(lines) == 4
        lines.clear()
        try_all(ClosedLoop(), records, tracker, lines.append, Brake(None), evaluate)
        assert lines == []


def test_what_is_no_longer_asked_for_ranks_nothing_and_is_kept(tmp_path):
    records = Records(tmp_path / "run")
    records.start_trial(0, None, {}, {"policy": {"chunk_size": 10}})
    records.add_result(0, Result({"samples_seen": 900, METRIC: 0.5}))
    records.end_trial(0, "complete", None)
    for steps in (2, 5):
        place = records.folder(0) / TRIED / str(steps)
        place.mkdir(parents=True)
        file = garden_results(place, [1, 0, 0], 201, steps)
        document = json.loads(file.read_text())
        document["policy"] |= {"asked_n_action_steps": steps, "asked_instruction": None}
        document["env"] = vars(ClosedLoop().environment)
        file.write_text(json.dumps(document))

    def tried():
        return [each.evaluator for each in records.trials()[0].tried]

    put_aside(ClosedLoop(**POND), records)
    assert tried() == ["2", "5"]
    put_aside(ClosedLoop(**POND | {"choose": CHOOSE | {"n_action_steps": [5, 10]}}), records)
    assert tried() == ["5"]
    put_aside(ClosedLoop(**POND | {"choose": CHOOSE | {"instances": "201-202"}}), records)
    assert tried() == []
    assert len(list((records.folder(0) / ASIDE).glob("*/results.json"))) == 2
    put_aside(None, records)


def seeds_of(name, acts, *eggs, error=0.5):
    """Trainings of a finalist that acted; without eggs one that has not."""
    runs = []
    for seed, placed in enumerate(eggs, 1):
        run = finalist(seed, name, seed, [error, error], val=error)
        own = (replace(acts(placed, 5, 301), evaluator="garden"),) if placed else ()
        runs.append(replace(run, achieved=own))
    return runs


@pytest.mark.parametrize("ended", [TIME_IS_KEPT, INTERRUPTED])
def test_acting_to_choose_leaves_the_finalists_their_time_but_an_interrupt_ends_all(tmp_path, monkeypatch, ended):
    spec = spec_of(tmp_path, budget={"trials": 3, "hours": 1})
    run_dir, began, left = tmp_path / "run", [], []

    def acting(acts, records, tracker, say, brake):
        if ended == INTERRUPTED:
            brake.pull()
        began.append(not brake.stop_all())

    monkeypatch.setattr("tune.study.let_act", acting)
    monkeypatch.setattr("tune.study.kept_seconds", lambda *arguments: 600.0)
    monkeypatch.setattr("tune.study.run_finalists", lambda *arguments, brake, **more: left.append(brake.left))
    study = Study(spec, run_dir)
    brake = study._compare(Records(run_dir), NullTracker(), Brake(500.0), Resources(), 1, "finalists", [])
    assert brake.reason == ended
    assert began[0] is False
    assert [round(seconds, -2) for seconds in left] == ([500] if ended == TIME_IS_KEPT else [])


def test_the_finalist_that_places_most_wins_whatever_its_error(tmp_path, acts):
    spec = spec_of(tmp_path)
    base = seeds_of("seed_baseline", acts, [0, 0, 0], [0, 0, 1 / 3], error=0.1)
    wins = seeds_of("quick_wins", acts, [0, 1 / 3, 0], [0, 0, 0], error=0.2)
    best = seeds_of("trial 3", acts, [1, 2 / 3, 1], [1, 1, 1], error=0.9)
    found = compared(spec, searched(), [*base, *wins, *best])
    assert found["winner"] == "trial 3"
    assert found["verdict"].startswith(
        "trial 3 has the most eggs placed on 3 instances, over 2 training seeds: 94.4 %, +88.9 points ("
    )
    assert "chance" not in found["verdict"]
    assert found["acting"]["score"] == "eggs placed"
    assert found["acting"]["gain"]["mean"] == pytest.approx(16 / 18)
    assert found["policy"]["number"] in (1, 2)
    # one that has not acted leaves the decision to the test episodes
    late = compared(spec, searched(), [*base, *wins, *seeds_of("trial 3", acts, [1, 1, 1], None, error=0.9)])
    assert (late["winner"], late["acting"]) == ("seed_baseline", None)
    assert late["verdict"].endswith("have acted on the same instances, so that test errors decide.")
    without = stub_spec(tmp_path, warm_start=WARM, finalists={"k": 1, "seeds": 2})
    assert compared(without, searched(), [*base, *wins, *best])["winner"] == "seed_baseline"


def test_what_finalists_achieve_is_of_their_configuration_and_paired_by_the_seeds_that_both_have(tmp_path, acts):
    base = seeds_of("seed_baseline", acts, [0, 0, 0], None, [1, 0, 0])
    best = seeds_of("trial 3", acts, [1, 0, 0], [1, 1, 1])  # the second has no counterpart
    before = finalist(9, "trial 3", 2, [0.5, 0.5], **{"policy.n_action_steps": 2})
    before = replace(before, achieved=best[1].achieved)
    spec = spec_of(tmp_path, seeds=3)
    ended = {"state": "complete", "reason": None, "seconds": 1.0}

    def row(*runs):
        return study_summary(spec, searched(), [*base, *runs], **ended).closed_loop[-1]

    assert (row(*best)["seeds"], row(*best)["rollouts"]) == (2, 6)
    assert row(*best)["gain"]["mean"] == pytest.approx(1 / 3)
    assert row(best[0], before)["seeds"] == 1


def test_the_verdict_says_what_the_gain_is_worth(acts):
    def verdict(baseline="seed_baseline", **seeds):
        return winner_by_acting("garden", {name: seeds_of(name, acts, *eggs) for name, eggs in seeds.items()}, baseline)

    found = verdict(seed_baseline=[[1, 0, 1]], other=[[1, 1, 0]])
    assert (found.winner, found.gain) == ("seed_baseline", None)
    assert found.verdict.endswith("66.7 %; it is the baseline: nothing better was found.")
    found = verdict(seed_baseline=[[1, 0, 0]], other=[[0, 1, 1]])
    assert (found.winner, found.gain.sign) == ("other", 0)
    assert found.verdict.endswith("over seed_baseline, which may be chance.")
    found = verdict(None, other=[[0, 1, 1]])
    assert found.verdict.endswith("there is no baseline to measure a gain against.")
    assert verdict(seed_baseline=[[1, 0, 0]], other=[[0, 1]]) is None  # not the same instances
    assert winner_by_acting("another", {"a": seeds_of("a", acts, [1])}, None) is None
    assert winner_by_acting("garden", {}, None) is None


def test_a_choice_that_cannot_be_is_refused_before_the_start(tmp_path):
    def refused(message, **section):
        with pytest.raises(ConfigError, match=message):
            stub_spec(tmp_path, finalists={"k": 1}, closed_loop=section)

    refused("instance 301 is among both instances and choose.instances", choose={"instances": "290-301"})
    refused("choose.n_action_steps tries others", n_action_steps=4, choose=CHOOSE)
    refused("different whole numbers", choose={"n_action_steps": [5, 5]})
    refused("different whole numbers", choose={"n_action_steps": [0]})
    refused("'9-7' runs backwards", choose={"instances": "9-7"})
    refused("did you mean 'n_action_steps'", choose={"n_action_step": [2]})
    assert ClosedLoop(choose={"instances": [5, 7]}).choose.numbers == (5, 7)
    assert "30 episodes" in " ".join(plan_lines(spec_of(tmp_path, n_action_steps=list(range(1, 11))), None, ""))


def test_a_chunk_that_has_none_of_the_actions_is_refused(eggs_root, cache_dir):
    from smolvla_core.trial import prepare
    from tests.core_fixtures import tiny_trial
    from tests.fake_env import NAME

    learner = prepare(tiny_trial(eggs_root, cache_dir, eval__horizon_s=0.3, state__preset="top32")).learner
    pond = ClosedLoop(env=NAME, choose={"n_action_steps": [4, 11]})
    refuse_unsuited(pond, learner.interface, [learner.config])
    far = ClosedLoop(env=NAME, choose={"n_action_steps": [11, 12]})
    with pytest.raises(SpecError, match="has none that policy.chunk_size"):
        refuse_unsuited(far, learner.interface, [learner.config])
