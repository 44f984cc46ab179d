"""The search space: conditions, order, corners, and points that are completed."""

import optuna
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import FixedTrial

from smolvla_core.errors import ConfigError
from tests.spec_yaml import loaded
from tune.space import (
    MOST_CORNERS,
    Space,
    base_values,
    complete,
    contains,
    describe,
    make_space,
    sorted_by_condition,
    to_trial_config,
    warm_starts,
)

SCHEDULE = CategoricalDistribution(["constant", "cosine"])
RATE = FloatDistribution(1e-7, 1e-5, log=True)


def schedule_space() -> Space:
    return Space({"schedule": SCHEDULE, "final": RATE}, {"final": {"schedule": ("cosine",)}})


def drawn(space: Space, count: int) -> list[dict]:
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    return [space(study.ask()) for _ in range(count)]


def test_a_conditional_parameter_is_drawn_where_it_acts():
    points = drawn(schedule_space(), 40)
    assert {point["schedule"] for point in points} == {"constant", "cosine"}
    assert all(("final" in point) == (point["schedule"] == "cosine") for point in points)


def test_whole_numbers_reach_both_ends():
    points = drawn(Space({"chunk": IntDistribution(30, 50, step=10)}), 40)
    assert {point["chunk"] for point in points} == {30, 40, 50}


def test_a_key_below_an_inactive_one_is_inactive():
    space = Space(
        {"a": CategoricalDistribution([0, 1]), "b": IntDistribution(1, 2), "c": IntDistribution(1, 2)},
        {"b": {"a": (1,)}, "c": {"b": (2,)}},
    )
    assert space.restrict({"a": 0, "b": 2, "c": 1}) == {"a": 0}
    assert space.restrict({"a": 1, "b": 1, "c": 1}) == {"a": 1, "b": 1}
    assert space.restrict({"a": 1, "b": 2, "c": 1}) == {"a": 1, "b": 2, "c": 1}


def test_every_condition_must_hold_and_any_of_its_values():
    space = Space(
        {"a": CategoricalDistribution(["x", "y", "z"]), "b": IntDistribution(1, 2), "c": IntDistribution(1, 2)},
        {"c": {"a": ("x", "y"), "b": (2,)}},
    )
    active = {(a, b) for a in "xyz" for b in (1, 2) if "c" in space.restrict({"a": a, "b": b, "c": 1})}
    assert active == {("x", 2), ("y", 2)}


def test_a_condition_on_a_fixed_value():
    space = Space({"a": IntDistribution(1, 2)}, {"a": {"frozen": (True,)}}, {"frozen": True})
    assert space.restrict({"a": 1}) == {"a": 1}
    assert Space(space.distributions, space.conditions, {"frozen": False}).restrict({"a": 1}) == {}
    assert Space(space.distributions, space.conditions, {"frozen": 1}).restrict({"a": 1}) == {}


def test_true_is_not_one():
    space = Space({"flag": CategoricalDistribution([True, False]), "n": IntDistribution(1, 2)}, {"n": {"flag": (1,)}})
    assert all("n" not in corner for corner in space.corners())
    assert not contains(CategoricalDistribution([True, False]), 1)
    assert not contains(CategoricalDistribution([0, 1]), True)
    assert contains(CategoricalDistribution([0, 1]), 1)
    assert not contains(IntDistribution(0, 1), True)
    assert not contains(FloatDistribution(0, 1), False)


def test_conditions_are_ordered_whatever_the_yaml_s_order():
    conditions = {"final": {"schedule": ("cosine",)}, "warmup": {"final": (1.0,)}}
    assert sorted_by_condition(conditions, ["warmup", "final", "lr", "schedule"]) == [
        "schedule",
        "final",
        "warmup",
        "lr",
    ]
    assert sorted_by_condition({}, ["b", "a"]) == ["b", "a"]
    assert sorted_by_condition({"a": {"fixed": (1,)}}, ["a"]) == ["a"]


@pytest.mark.parametrize(
    "conditions", [{"a": {"a": 1}}, {"a": {"b": 1}, "b": {"a": 1}}, {"a": {"b": 1}, "b": {"c": 1}, "c": {"b": 1}}]
)
def test_conditions_in_a_circle(conditions):
    with pytest.raises(ValueError, match="^[abc]$"):
        sorted_by_condition(conditions, ["a", "b", "c"])


def test_corners_are_all_combinations_of_ends():
    space = Space(
        {"lr": FloatDistribution(1, 2), "batch": CategoricalDistribution([8, 16, 32]), "n": IntDistribution(3, 5)}
    )
    corners = [tuple(corner.values()) for corner in space.corners()]
    assert len(corners) == len(set(corners)) == 2 * 3 * 2
    assert {corner[0] for corner in corners} == {1, 2}
    assert {corner[2] for corner in corners} == {3, 5}


def test_corners_try_the_values_that_conditions_name():
    space = Space({"chunk": IntDistribution(30, 50), "n": IntDistribution(1, 2)}, {"n": {"chunk": (40,)}})
    assert {corner["chunk"] for corner in space.corners()} == {30, 40, 50}
    assert {"chunk": 40, "n": 1} in list(space.corners())
    assert space.is_reachable("n")


def test_corners_of_a_large_space_are_a_seeded_choice():
    space = Space({f"x{i}": CategoricalDistribution([0, 1, 2]) for i in range(9)})
    corners = list(space.corners(seed=1))
    assert len(corners) == MOST_CORNERS
    assert corners == list(space.corners(seed=1))
    assert corners != list(space.corners(seed=2))


def test_reachable():
    space = Space(
        {"a": CategoricalDistribution([0, 1]), "b": IntDistribution(1, 2), "c": IntDistribution(1, 2)},
        {"b": {"a": (1,)}, "c": {"a": (0,), "b": (2,)}},
    )
    assert space.is_reachable("b")
    assert not space.is_reachable("c")  # b acts only where a is 1


def test_reachable_in_a_space_whose_corners_are_too_many_to_try():
    others = {f"x{i}": CategoricalDistribution(list(range(10))) for i in range(8)}
    space = Space({**others, "y": IntDistribution(1, 2)}, {"y": {f"x{i}": (7,) for i in range(3)}})
    assert space.is_reachable("y")


def test_cover_shows_every_value_and_condition_in_few_points():
    space = Space(
        {
            "batch": CategoricalDistribution([8, 16, 32]),
            "alpha": FloatDistribution(0, 2),
            "schedule": SCHEDULE,
            "final": RATE,
        },
        {"final": {"schedule": ("cosine",)}},
    )
    points = space.cover()
    assert len(points) == 3  # one for each batch size: fewer cannot be
    for key, values in {
        "batch": {8, 16, 32},
        "alpha": {0, 2},
        "schedule": {"constant", "cosine"},
        "final": {1e-7, 1e-5},
    }.items():
        assert {point[key] for point in points if key in point} == values
    assert points == [space.restrict(point | {"final": point.get("final")}) for point in points]


@pytest.mark.parametrize(
    ("distribution", "inside", "outside"),
    [
        (FloatDistribution(0.0, 2.0), [0.0, 2.0, 1, 0.3], [-0.1, 2.1, "1", None, float("nan"), float("inf")]),
        (FloatDistribution(0.0, 1.0, step=0.1), [0.0, 0.3, 0.7, 1.0], [0.25, 1.1]),
        (RATE, [1e-7, 1e-5, 3e-6], [0.0, 2e-5]),
        (IntDistribution(30, 50, step=10), [30, 40, 50, 40.0], [35, 40.5, 60, "40", float("inf")]),
        (IntDistribution(1, 8), [1, 8], [0, 9, 1.5]),
        (SCHEDULE, ["constant", "cosine"], ["Cosine", None, 0]),
        (CategoricalDistribution([None, 4]), [None, 4], [0, "None"]),
    ],
)
def test_contains(distribution, inside, outside):
    assert all(contains(distribution, value) for value in inside)
    assert not any(contains(distribution, value) for value in outside)


def test_describe():
    assert describe(RATE) == "1e-07 to 1e-05, log"
    assert describe(IntDistribution(30, 50, step=10)) == "30 to 50, step 10"
    assert describe(IntDistribution(1, 8)) == "1 to 8"
    assert describe(SCHEDULE) == "one of constant, cosine"


def test_the_space_of_a_specification(tmp_path):
    spec = loaded(tmp_path, {23: "    when: {optim.schedule: cosine, policy.train_expert_only: true}"})
    space = make_space(spec)
    assert space.conditions == {"optim.final_lr": {"optim.schedule": ("cosine",), "policy.train_expert_only": (True,)}}
    assert space.fixed == {"policy.train_expert_only": True}
    assert space.distributions["policy.chunk_size"] == IntDistribution(30, 50, step=10)
    assert space.distributions["optim.final_lr"] == RATE
    assert space.distributions["optim.batch_size"] == CategoricalDistribution([8, 16, 32])


def test_a_condition_may_stand_before_what_it_names(tmp_path):
    edits = {
        10: "  optim.final_lr: {type: float, low: 1.0e-7, high: 1.0e-5, log: true, when: {optim.schedule: cosine}}"
    }
    spec = loaded(tmp_path, edits | {n: None for n in range(18, 31)})
    keys = list(make_space(spec).distributions)
    assert keys.index("optim.schedule") < keys.index("optim.final_lr")
    assert make_space(spec)(FixedTrial({"optim.batch_size": 8, "policy.chunk_size": 30, "optim.schedule": "constant"}))


def test_a_warm_start_is_completed_by_fixed_values_and_defaults(tmp_path):
    edits = {
        4: "  policy: {chunk_size: 40}",
        25: "  baseline: {weighting.alpha: 0.0}",
        26: "  quick_wins: {optim.schedule: cosine}",
        27: None,
        28: None,
        29: None,
        30: None,
    }
    found = warm_starts(loaded(tmp_path, edits))
    assert list(found) == ["baseline", "quick_wins"]
    assert found["baseline"] == {
        "weighting.alpha": 0.0,
        "optim.batch_size": 8,
        "policy.chunk_size": 40,
        "optim.schedule": "constant",
    }
    assert found["quick_wins"]["optim.final_lr"] == 1e-6


def test_complete_leaves_inactive_keys_out():
    base = {"schedule": "cosine", "final": 1e-6}
    assert complete(schedule_space(), {}, base) == {"schedule": "cosine", "final": 1e-6}
    assert complete(schedule_space(), {"schedule": "constant"}, base) == {"schedule": "constant"}


def test_base_values_are_the_yaml_s_else_the_defaults(tmp_path):
    base = base_values(loaded(tmp_path, {7: "    lr: 2.0e-4"}))
    assert base["optim.lr"] == 2e-4
    assert base["optim.batch_size"] == 8
    assert base["policy.tiny.layers"] == 4
    assert base["policy.n_action_steps"] is None


def test_a_trial_s_configuration_reports_at_every_rung(tmp_path):
    spec = loaded(tmp_path)
    config = to_trial_config(spec, {"weighting.alpha": 0.5, "policy.chunk_size": 30})
    assert config.eval.at == (50_000, 150_000, 450_000)
    assert config.optim.samples == 800_000
    assert config.weighting.alpha == 0.5
    assert config.policy.action_steps == 30
    with pytest.raises(ConfigError, match="weighting.alpha: got -1"):
        to_trial_config(spec, {"weighting.alpha": -1})
