"""The searcher, driven as Ray drives it: what it suggests, what Optuna is told, and a search that is taken up again."""

import json
import math
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from copy import deepcopy
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import TrialState

from tune.searcher import FAILURE, RungSearch
from tune.space import Space

RUNGS = (10, 30, 90)
SPACE = Space(
    {
        "alpha": FloatDistribution(0.0, 2.0),
        "schedule": CategoricalDistribution(["constant", "cosine"]),
        "final": FloatDistribution(1e-7, 1e-5, log=True),
        "batch": CategoricalDistribution([8, 16, 32]),
        "chunk": IntDistribution(30, 50, step=10),
    },
    {"final": {"schedule": ("cosine",)}},
)
BASELINE = {"alpha": 0.0, "schedule": "constant", "batch": 8, "chunk": 50}
QUICK_WINS = {"alpha": 1.0, "schedule": "cosine", "final": 1e-6, "batch": 16, "chunk": 30}


def make(space: Any = SPACE, **options: Any) -> RungSearch:
    return RungSearch(space, **{"metric": "error", "mode": "min", "rungs": RUNGS, **options})


def trials_of(search: RungSearch) -> list[optuna.trial.FrozenTrial]:
    return search._study.get_trials()


def error_of(params: dict[str, Any], used: int) -> float:
    """A learning curve whose best point is alpha 1.3, batch 16, a cosine to 1e-6."""
    off = (params["alpha"] - 1.3) ** 2 + (params["batch"] != 16) + 0.2 * abs(math.log10(params.get("final", 1e-4)) + 6)
    return off + 1 + 10 / used


def at(used: int, value: float | None, **more: Any) -> dict[str, Any]:
    """A result, as Ray hands it on."""
    return {"samples_seen": used, "error": value, **more}


def ending(used: int, value: float) -> str | None:
    """How a trial ends upon a result, if it does."""
    if used == RUNGS[-1]:
        return "complete"
    return "pruned" if value > {10: 4.0, 30: 2.0}[used] else None


@dataclass
class Life:
    """A search at one trial at a time, with ASHA's part played by a rule, and what is recorded of it.

    ``kill_at``: the process dies after so many records; :meth:`resumed` starts another from them.
    """

    search: RungSearch
    trials: int
    kill_at: int | None = None
    params: dict[int, dict[str, Any]] = field(default_factory=dict)
    values: dict[int, dict[int, float]] = field(default_factory=dict)
    outcomes: dict[int, str] = field(default_factory=dict)
    events: int = 0

    def run(self) -> "Life":
        try:
            while len(self.outcomes) < self.trials:
                self._trial(f"id{self.events}_{len(self.outcomes)}")
        except InterruptedError:
            pass
        return self

    def resumed(self, search: RungSearch) -> "Life":
        outcomes = dict(self.outcomes)
        for number, params in self.params.items():
            seen = self.values.get(number, {})
            if number not in outcomes and seen and ending(*list(seen.items())[-1]):
                outcomes[number] = ending(*list(seen.items())[-1])  # its driver died before it wrote so
            params = json.loads(json.dumps(params))  # as the records keep them
            search.restore_trial(number, params, seen, outcomes.get(number))
        return Life(search, self.trials, None, dict(self.params), deepcopy(self.values), outcomes)

    def _trial(self, trial_id: str) -> None:
        params = self.search.suggest(trial_id)
        number = self.search.number(trial_id)
        self._record(self.params, number, params)
        seen = self.values.setdefault(number, {})
        for used in RUNGS:
            if used in seen:
                continue
            value = error_of(params, used)
            if used == 30 and params["batch"] == 32:
                self.search.on_trial_complete(trial_id, {"samples_seen": used, FAILURE: "out of memory"})
                self._record(self.outcomes, number, "failed")
                return
            self._record(seen, used, value)
            outcome = ending(used, value)
            if outcome is not None:
                self.search.on_trial_complete(trial_id, at(used, value, done=True))
                self._record(self.outcomes, number, outcome)
                return
            self.search.on_trial_result(trial_id, at(used, value))

    def _record(self, where: dict, key: int, value: Any) -> None:
        where[key] = value
        self.events += 1
        if self.events == self.kill_at:
            raise InterruptedError


def told(search: RungSearch) -> list[tuple]:
    """What Optuna knows of each trial."""
    return [(t.params, t.state, t.value, t.intermediate_values, t.distributions) for t in trials_of(search)]


# --- what is suggested


def test_warm_starts_come_first_and_in_order():
    search = make(warm_start=[BASELINE, QUICK_WINS])
    assert [search.suggest(name) for name in "ab"] == [BASELINE, QUICK_WINS]
    assert [search.number(name) for name in "ab"] == [0, 1]
    assert search.params(1) == QUICK_WINS
    third = search.suggest("c")
    assert third not in (BASELINE, QUICK_WINS)
    assert SPACE.restrict({"final": None, **third}) == third


@pytest.mark.parametrize(
    ("point", "reason"),
    [
        ({**BASELINE, "alpha": 2.5}, "alpha=2.5 is outside"),
        ({**BASELINE, "batch": 12}, "batch=12|'12' not in"),
        ({**BASELINE, "chunk": 35}, "chunk=35 is outside"),
        ({**BASELINE, "final": 1e-6}, "'final' is not active there"),
        ({**BASELINE, "schedule": "cosine"}, "'final' is not found"),
        ({**BASELINE, "other": 1}, "'other' is not active there"),
    ],
)
def test_a_point_that_is_none_of_the_space_is_refused(point, reason):
    with pytest.raises(ValueError, match=f"is no point of the space: .*({reason})"):
        make(warm_start=[point])
    with pytest.raises(ValueError, match="is no point of the space"):
        make().restore_trial(0, point, {}, "pruned")


def test_a_seed_gives_the_same_search_and_another_one_another():
    def params(seed):
        return Life(make(seed=seed, warm_start=[BASELINE]), 14).run().params

    assert params(3) == params(3)
    assert params(3) != params(4)


def test_a_seed_gives_the_same_search_in_another_process():
    program = "from tests.test_searcher import *; print(json.dumps(Life(make(seed=3), 13).run().params))"
    here = Life(make(seed=3), 13).run().params
    environment = {**os.environ, "PYTHONHASHSEED": "11"}
    there = subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True, cwd=Path.cwd()
    )
    assert json.loads(there.stdout) == {str(number): params for number, params in here.items()}


@pytest.mark.parametrize("mode", ["min", "max"])
def test_it_learns(mode):
    sign = 1 if mode == "min" else -1
    search = make({"x": FloatDistribution(-1.0, 1.0), "y": FloatDistribution(-1.0, 1.0)}, mode=mode)
    distances = []
    for number in range(45):
        point = search.suggest(str(number))
        distances.append((point["x"] - 0.6) ** 2 + (point["y"] + 0.4) ** 2)
        search.on_trial_complete(str(number), {"samples_seen": 90, "error": sign * distances[-1]})
    assert sorted(distances[-15:])[7] < 0.3 * sorted(distances[:10])[5]


def test_a_trial_that_was_stopped_early_does_not_pass_for_a_good_one():
    search = make({"x": FloatDistribution(0.0, 1.0)}, warm_start=[{"x": (n + 0.5) / 24} for n in range(24)])
    suggested = []
    for number in range(36):
        suggested.append(search.suggest(str(number))["x"])
        if suggested[-1] < 0.5:  # looks better than all others, at a ninth of the budget
            search.on_trial_complete(str(number), {"samples_seen": 10, "error": 0.1})
        else:
            search.on_trial_complete(str(number), at(90, 0.5 + (suggested[-1] - 0.8) ** 2))
    # below 0.5 nothing is known of the full budget, so a look there is due now and then
    assert sum(x >= 0.5 for x in suggested[24:]) >= 8


SMALL = {"a": CategoricalDistribution(["x", "y"]), "b": IntDistribution(1, 3), "c": FloatDistribution(0, 1, step=0.5)}


def key(point: dict[str, Any]) -> tuple:
    return tuple(sorted(point.items()))


@pytest.mark.parametrize("outcome", ["complete", "failed", "running"])
def test_no_point_is_suggested_twice_while_another_is_left(outcome):
    search = make(SMALL, warm_start=[{"a": "x", "b": 2, "c": 0.5}])
    points = []
    for number in range(18):
        points.append(key(search.suggest(str(number))))
        if outcome != "running":  # one point is far better, so that TPE would return to it
            result = {"samples_seen": 90, "error": 0.0 if dict(points[-1])["a"] == "x" else 9.0}
            search.on_trial_complete(str(number), result, error=outcome == "failed")
    assert len(set(points)) == 18
    assert key(search.suggest("one more")) in points  # nothing is left: the search goes on all the same


def test_a_finite_branch_that_is_used_up_is_left():
    space = Space(
        {"kind": CategoricalDistribution(["plain", "tuned"]), "rate": FloatDistribution(0, 1)},
        {"rate": {"kind": ("tuned",)}},
    )
    search = make(space)
    points = []
    for number in range(20):
        points.append(key(search.suggest(str(number))))
        value = 0.0 if ("kind", "plain") in points[-1] else 1.0
        search.on_trial_complete(str(number), {"samples_seen": 90, "error": value})
    assert len(set(points)) == 20


# --- the space's forms


def test_distributions_by_name():
    search = make({"lr": FloatDistribution(1e-5, 1e-3, log=True), "batch": CategoricalDistribution([8, 16])})
    point = search.suggest("a")
    assert 1e-5 <= point["lr"] <= 1e-3
    assert point["batch"] in (8, 16)


def test_a_function_that_suggests_and_may_return_constants():
    def plain(trial):
        trial.suggest_int("n", 1, 50)

    def with_constants(trial):
        trial.suggest_int("n", 1, 50)
        return {"layers": [4, 4]}

    assert set(make(plain).suggest("a")) == {"n"}
    search = make(with_constants, warm_start=[{"n": 7}])
    assert search.suggest("a") == {"n": 7, "layers": [4, 4]}
    again = make(with_constants)
    again.restore_trial(0, search.params(0), {10: 1.0}, "pruned")
    assert again.params(0) == search.params(0)


# --- what Optuna is told


def one(search: RungSearch, results: list[dict], error: bool = False) -> optuna.trial.FrozenTrial:
    """A trial whose last result stopped it."""
    search.suggest("a")
    for result in results[:-1]:
        search.on_trial_result("a", result)
    search.on_trial_complete("a", results[-1] if results else None, error=error)
    return trials_of(search)[0]


def test_a_whole_trial_is_complete_with_its_last_value():
    trial = one(make(), [at(10, 3.0), at(30, 2.0), at(90, 1.0)])
    assert (trial.state, trial.value) == (TrialState.COMPLETE, 1.0)
    assert trial.intermediate_values == {10: 3.0, 30: 2.0, 90: 1.0}


def test_a_stopped_trial_is_pruned_at_its_rung():
    trial = one(make(), [at(10, 3.0), at(30, 2.0)])
    assert (trial.state, trial.value, trial.last_step) == (TrialState.PRUNED, 2.0, 30)


def test_the_last_result_counts_though_ray_shows_it_on_completion_only():
    trial = one(make(), [at(10, 3.0)])
    assert trial.intermediate_values == {10: 3.0}


def test_the_first_value_at_a_rung_counts():
    results = [
        at(4, 9.0),
        at(12, 3.0),
        at(28, 2.5),
        at(33, 2.0),
        at(31, 1.9),
        {"samples_seen": 60, "loss": 1},
        at(95, 1.0),
    ]
    trial = one(make(), results)
    assert trial.intermediate_values == {10: 3.0, 30: 2.0, 90: 1.0}
    assert trial.state == TrialState.COMPLETE


@pytest.mark.parametrize(
    ("results", "error"),
    [
        ([], True),  # its process died
        ([at(10, 3.0)], True),
        ([], False),  # it ended without a word
        ([at(4, 3.0)], False),  # before the first rung
        ([at(10, float("nan"))], False),
        ([at(10, 3.0), at(30, float("nan"))], False),
        ([at(10, 3.0), at(30, float("inf"))], False),
        ([at(10, 3.0), {FAILURE: "diverged: loss is nan"}], False),
        ([at(10, 3.0), at(90, 1.0, failure="could not save")], False),
    ],
)
def test_a_failed_trial_is_told_as_failed(results, error):
    trial = one(make(), results, error)
    assert (trial.state, trial.value) == (TrialState.FAIL, None)


def test_the_reason_of_a_failure_is_kept_for_the_dashboard():
    assert one(make(), [at(10, 3.0), {FAILURE: "out of memory"}]).user_attrs == {"failure": "out of memory"}


def test_a_trial_ends_once():
    search = make()
    trial = one(search, [at(10, 3.0), at(90, 1.0)])
    search.on_trial_complete("a", None, error=True)  # Ray does so when stopping it fails
    assert trials_of(search)[0].state == trial.state == TrialState.COMPLETE


def test_another_resource():
    search = make(resource="training_iteration")
    trial = one(search, [{"training_iteration": 10, "samples_seen": 90, "error": 3.0}])
    assert (trial.state, trial.last_step) == (TrialState.PRUNED, 10)


# --- taken up again


@pytest.fixture(scope="module")
def whole() -> Life:
    return Life(make(warm_start=[BASELINE, QUICK_WINS]), 20).run()


def test_the_life_that_is_interrupted_has_every_ending(whole):
    assert set(whole.outcomes.values()) == {"complete", "pruned", "failed"}
    kinds = {"final" in params for params in whole.params.values()}
    assert kinds == {True, False}


@pytest.mark.parametrize("kill_at", [1, 2, 4, 6, 30, 33, 50, 51, 52, 53, 54, 55, 56, -2, -1])
def test_a_search_that_was_killed_goes_on_as_if_it_had_not_been(whole, kill_at):
    kill_at = kill_at if kill_at > 0 else whole.events + kill_at
    dead = Life(make(warm_start=[BASELINE, QUICK_WINS]), 20, kill_at=kill_at).run()
    assert dead.events == kill_at < whole.events
    alive = dead.resumed(make(warm_start=[BASELINE, QUICK_WINS])).run()
    assert alive.params == whole.params
    assert alive.values == whole.values
    assert alive.outcomes == whole.outcomes
    assert told(alive.search) == told(whole.search)


def test_a_search_may_be_killed_again_and_again(whole):
    life = Life(make(warm_start=[BASELINE, QUICK_WINS]), 20, kill_at=9).run()
    while len(life.outcomes) < 20:
        life = life.resumed(make(warm_start=[BASELINE, QUICK_WINS]))
        life.kill_at = 13
        life.run()
    assert life.params == whole.params
    assert life.outcomes == whole.outcomes


def test_a_trial_that_was_lost_before_it_was_recorded_is_suggested_again():
    search = make(warm_start=[BASELINE, QUICK_WINS])
    lost = [search.suggest(str(number)) for number in range(4)]
    again = make(warm_start=[BASELINE, QUICK_WINS])
    again.restore_trial(0, lost[0], {10: 1.0}, "pruned")
    again.restore_trial(2, lost[2], {10: 1.0}, None)
    assert [again.suggest(name) for name in "ab"] == [QUICK_WINS, lost[2]]
    assert [again.number(name) for name in "ab"] == [1, 2]
    again.suggest("c")
    assert again.number("c") == 3


def test_a_continued_trial_keeps_the_values_it_had():
    search = make()
    search.restore_trial(0, BASELINE, {4: 9.0, 10: 3.0, 30: math.nan}, None)
    assert search.suggest("a") == BASELINE
    search.on_trial_result("a", at(10, 2.9))  # from an older checkpoint: the first value counts
    search.on_trial_result("a", at(30, 2.0))
    search.on_trial_complete("a", at(90, 1.0))
    assert trials_of(search)[0].intermediate_values == {10: 3.0, 30: 2.0, 90: 1.0}


def test_restored_trials_come_in_order_and_with_a_known_outcome():
    search = make()
    search.restore_trial(0, BASELINE, {10: 1.0}, "pruned")
    with pytest.raises(ValueError, match="trial 0 comes after trial 0; restore them in ascending order"):
        search.restore_trial(0, QUICK_WINS, {10: 1.0}, "pruned")
    with pytest.raises(ValueError, match="outcome is 'stopped'; it must be None or one of complete, pruned, failed"):
        search.restore_trial(1, QUICK_WINS, {10: 1.0}, "stopped")


def test_complete_without_a_value_at_the_budget_is_not_compared_with_whole_trials():
    search = make()
    search.restore_trial(0, BASELINE, {10: 0.1}, "complete")
    assert trials_of(search)[0].state == TrialState.PRUNED


def test_save_and_restore_while_trials_run(tmp_path):
    search = make(warm_start=[BASELINE, QUICK_WINS])
    for number in range(12):
        search.suggest(str(number))
        search.on_trial_result(str(number), at(10, error_of(search.params(number), 10)))
        if number < 9:
            search.on_trial_complete(str(number), at(30, error_of(search.params(number), 30)))
    search.save(str(tmp_path / "state"))
    other = make(warm_start=[BASELINE, QUICK_WINS], rungs=RUNGS)
    other.suggest("is forgotten")
    other.restore(str(tmp_path / "state"))
    assert told(other) == told(search)
    for each in (search, other):  # Ray goes on with the ids it knows
        each.on_trial_result("9", at(30, 0.7))
        each.on_trial_complete("9", at(90, 0.5))
        each.on_trial_complete("10", None, error=True)
        each.suggest("12")
        each.suggest("13")
    assert told(other) == told(search)
    assert other.number("11") == 11
    assert [path.name for path in tmp_path.iterdir()] == ["state"]


def test_evaluated_points_take_no_warm_start_s_turn(tmp_path):
    search = make(warm_start=[BASELINE, QUICK_WINS])
    search.add_evaluated_point({**BASELINE, "alpha": 0.1}, 1.0, intermediate_values=[3.0, 2.0])
    search.add_evaluated_point({**BASELINE, "alpha": 0.2}, 2.0, pruned=True, intermediate_values=[3.0, 2.0])
    search.add_evaluated_point({**BASELINE, "alpha": 0.3}, math.nan, error=True)
    assert search.suggest("a") == BASELINE
    search.add_evaluated_point({**BASELINE, "alpha": 0.4}, 1.5)
    assert search.suggest("b") == QUICK_WINS
    search.save(str(tmp_path / "state"))
    found = [(t.state.name, t.value, t.intermediate_values) for t in trials_of(search) if t.state.is_finished()]
    assert found == [
        ("COMPLETE", 1.0, {10: 3.0, 30: 2.0, 90: 1.0}),
        ("PRUNED", 2.0, {10: 3.0, 30: 2.0}),
        ("FAIL", None, {}),
        ("COMPLETE", 1.5, {90: 1.5}),
    ]
    other = make(warm_start=[BASELINE, QUICK_WINS])
    other.restore(str(tmp_path / "state"))
    assert other.suggest("c") == search.suggest("c") not in (BASELINE, QUICK_WINS)


def test_evaluated_points_are_learned_from():
    search = make({"x": FloatDistribution(0.0, 1.0)})
    for x in (0.03, 0.1, 0.17, 0.24, 0.3, 0.36, 0.43, 0.51, 0.58, 0.66, 0.97):
        search.add_evaluated_point({"x": x}, (x - 0.8) ** 2)
    assert sum(0.66 < search.suggest(str(n))["x"] < 0.97 for n in range(4)) >= 3


# --- Optuna's database


@pytest.fixture
def database() -> Iterator[str]:
    """An SQLite address; in memory where the machine has a place for it, since Optuna syncs each write."""
    folder = Path("/dev/shm") if os.access("/dev/shm", os.W_OK) else Path("/tmp")
    path = folder / f"test_searcher_{os.getpid()}.db"
    yield f"sqlite:///{path}"
    path.unlink(missing_ok=True)


def test_optuna_reads_the_study_from_its_database(database):
    search = make(storage=database, study_name="eggs", warm_start=[BASELINE])
    life = Life(search, 12).run()
    study = optuna.load_study(study_name="eggs", storage=database)
    assert study.direction == optuna.study.StudyDirection.MINIMIZE
    assert [trial.params for trial in study.trials] == list(life.params.values())
    states = {"complete": TrialState.COMPLETE, "pruned": TrialState.PRUNED, "failed": TrialState.FAIL}
    assert [trial.state for trial in study.trials] == [states[outcome] for outcome in life.outcomes.values()]
    assert [trial.intermediate_values for trial in study.trials] == list(life.values.values())
    assert study.best_trial.number == min(
        (number for number, outcome in life.outcomes.items() if outcome == "complete"), key=lambda n: life.values[n][90]
    )


def test_a_resumed_search_replaces_its_study_and_leaves_others(database):
    optuna.create_study(study_name="other", storage=database)
    dead = Life(make(storage=database, study_name="eggs"), 4, kill_at=9).run()
    running = [t.state for t in optuna.load_study(study_name="eggs", storage=database).trials]
    assert TrialState.RUNNING in running
    dead.resumed(make(storage=database, study_name="eggs")).run()
    study = optuna.load_study(study_name="eggs", storage=database)
    assert [trial.number for trial in study.trials] == [0, 1, 2, 3]
    assert all(trial.state.is_finished() for trial in study.trials)
    assert set(optuna.study.get_all_study_names(database)) == {"eggs", "other"}


def test_a_database_changes_no_suggestion(database):
    assert Life(make(storage=database), 12).run().params == Life(make(), 12).run().params


# --- Ray's side


def test_the_metric_belongs_to_the_searcher():
    search = make()
    assert search.metric == "error"
    assert search.set_search_properties(None, None, {"lr": 1}) is False  # the space is not Ray's param_space
    assert search.set_search_properties("error", "min", {}) is False
    for metric, mode in (("loss", "min"), ("error", "max")):
        with pytest.raises(ValueError, match="leave them out of TuneConfig"):
            search.set_search_properties(metric, mode, {})


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"mode": "least"}, "mode is 'least'; it must be 'min' or 'max'"),
        ({"rungs": ()}, r"rungs are \[\]; they must be positive and strictly ascending"),
        ({"rungs": (0, 10)}, "must be positive"),
        ({"rungs": (10, 10)}, "strictly ascending"),
        ({"rungs": (30, 10)}, "strictly ascending"),
    ],
)
def test_wrong_arguments(options: dict[str, Any], reason: str):
    with pytest.raises(ValueError, match=reason):
        make(**options)


def _drive(search: RungSearch, report: Callable[[dict[str, Any]], float], trials: int) -> list[dict[str, Any]]:
    """Through Ray's own generator and limiter, as a ``Tuner`` would."""
    from ray.tune.experiment import Experiment
    from ray.tune.search import ConcurrencyLimiter, SearchGenerator

    generator = SearchGenerator(ConcurrencyLimiter(search, max_concurrent=2))
    generator.add_configurations(Experiment("stub", lambda config: None, config={"fixed": 1}, num_samples=trials))
    configs, running = [], []
    while not generator.is_finished() or running:
        trial = generator.next_trial()
        if trial is not None:
            configs.append(trial.config)
            running.append(trial)
            continue
        done = running.pop(0)
        generator.on_trial_result(done.trial_id, at(10, report(done.config)))
        generator.on_trial_complete(done.trial_id, at(90, report(done.config)))
    return configs


def test_through_ray_s_generator_and_limiter():
    search = make(warm_start=[BASELINE])
    configs = _drive(search, lambda config: error_of(config, 90), 5)
    assert len(configs) == 5
    assert configs[0] == {**BASELINE, "fixed": 1}
    assert [trial.state for trial in trials_of(search)] == [TrialState.COMPLETE] * 5
