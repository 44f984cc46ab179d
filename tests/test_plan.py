"""The plan: expected trials and samples by hand and by ASHA itself, and what a person reads."""

import random

import pytest

from tests.spec_yaml import loaded
from tune import plan
from tune.asha import Rungs
from tune.plan import WIDTH, expected_rungs, expected_samples, late_knobs, plan_lines
from tune.preflight import Facts
from tune.spec import SearchSpec

FACTS = Facts(
    {"name": "eggs", "root": "/data/eggs", "episodes": 12, "frames": 1435, "fps": 30, "digest": "0"},
    {
        "critical_rule": "annotation",
        "critical_frames": 24,
        "draws": 1,
        "horizon_s": 1.0,
        "train_episodes": 9,
        "val_episodes": 2,
        "test_episodes": 1,
    },
)
ALPHA = {"weighting.alpha": {"type": "float", "low": 0.0, "high": 2.0}}
SCHEDULE = {"optim.schedule": {"type": "categorical", "choices": ["constant", "cosine"]}}
UNFROZEN = {"train_expert_only": False, "freeze_vision_encoder": False}


def make(trials=12, *, warm=0, samples=900, grace=100, eta=3.0, search=None, trial=None, **sections):
    """A search of ``trials`` trials, of which ``warm`` are warm starts."""
    values = {
        "study": "eggs",
        "trial": {"data": {"train": [{"root": "/data/eggs"}]}, "optim": {"samples": samples}} | (trial or {}),
        "search": search or ALPHA,
        "warm_start": {f"point_{i}": {"weighting.alpha": i / 4} for i in range(warm)},
        "budget": {"trials": trials},
        "asha": {"grace_samples": grace, "reduction_factor": eta},
        "storage": "/runs",
    }
    return SearchSpec.from_dict(values | sections)


def lines_of(spec, facts=FACTS, folder="runs/eggs-20260131-120000"):
    return list(plan_lines(spec, facts, folder))


@pytest.mark.parametrize(
    ("spec", "reached"),
    [
        # the first goes on, the second if it beats it, the third if it beats their middle: 1 + 1/2 + 1/2
        (make(3, samples=400, eta=2.0), [3, 2, 1.5]),
        # eta 3, the warm start first: 1 + 1/2 + (1/3 + 1/9) + (1/3 + 1/12) = 2.361; of these
        # 1 + 1/2 + 0.361 * (1/3 + 1/9) = 1.6605
        (make(4, warm=1), [4, 2.3611, 1.6605]),
        # all protected
        (make(4, warm=4), [4, 4, 4]),
        (make(1), [1, 1, 1]),
    ],
)
def test_expected_trials_by_hand(spec, reached):
    rungs = expected_rungs(spec)
    assert [rung.samples for rung in rungs] == list(spec.rungs)
    assert [rung.trials for rung in rungs] == pytest.approx(reached, abs=1e-4)


@pytest.mark.parametrize(("trials", "warm", "eta"), [(30, 2, 3.0), (12, 0, 4.0), (16, 1, 2.0)])
def test_expected_trials_are_those_that_asha_lets_go_on(trials, warm, eta):
    """Values without order, through the rungs of the service, 200 times."""
    spec = make(trials, warm=warm, eta=eta)
    rng, reached = random.Random(0), [0] * len(spec.rungs)
    for _ in range(200):
        rungs = Rungs(spec.rungs, eta, "min")
        for number in range(trials):
            for level, samples in enumerate(spec.rungs):
                reached[level] += 1
                if rungs.record(number, samples, rng.random()) is not None and number >= warm:
                    break
    assert [rung.trials for rung in expected_rungs(spec)] == pytest.approx([r / 200 for r in reached], rel=0.05)


def test_expected_samples_by_hand():
    # 3 trials to 100, 2 of them on to 200, 1.5 on to 400
    assert expected_samples(make(3, samples=400, eta=2.0)) == pytest.approx(3 * 100 + 2 * 100 + 1.5 * 200)
    assert expected_samples(make(4, warm=4)) == 4 * 900


def test_a_search_that_ends_at_its_first_rungs_has_them_all():
    """The last rung is the budget, though it is no power of eta times the first."""
    rungs = expected_rungs(make(9, samples=1000, grace=100))
    assert [rung.samples for rung in rungs] == [100, 300, 900, 1000]
    assert rungs[0].trials == 9


@pytest.mark.parametrize(
    ("samples", "grace", "trial", "late"),
    [
        # 1 - cos lr: (1 - cos(pi / 9)) / 2 = 3.0 %; at a third 25 %
        (900, 100, {}, "cosine has lowered the learning rate by 3.0% there"),
        (900, 300, {}, None),
        (800_000, 50_000, {}, "cosine has lowered the learning rate by 1.0% there"),
        # the cosine begins after the warm-up: (1 - cos(pi 100 / 700)) / 2 = 5.0 %
        (900, 300, {"warmup_samples": 200}, "cosine has lowered the learning rate by 5.0% there"),
        (900, 300, {"warmup_samples": 300}, "cosine has lowered the learning rate by 0.0% there"),
    ],
)
def test_a_cosine_that_has_hardly_moved_is_decided_late(samples, grace, trial, late):
    search = SCHEDULE | {"optim.final_lr": {"type": "float", "low": 1e-7, "high": 1e-5, "log": True, "when": {"optim.schedule": "cosine"}}}  # fmt: skip # noqa: E501
    spec = make(samples=samples, grace=grace, search=search, trial={"optim": {"samples": samples, **trial}})
    assert late_knobs(spec) == ({} if late is None else dict.fromkeys(search, late))


def test_a_linear_schedule_moves_sooner_than_a_cosine():
    choices = {"optim.schedule": {"type": "categorical", "choices": ["constant", "cosine", "linear"]}}
    assert late_knobs(make(search=choices)) == {}  # a ninth of the way is 11 %
    assert late_knobs(make(samples=1800, search=choices))["optim.schedule"].startswith("linear has lowered")


def test_schedules_that_do_not_move_are_not_late():
    search = ALPHA | {"optim.lr": {"type": "float", "low": 1e-5, "high": 1e-3}}
    assert late_knobs(make(search=search)) == {}


@pytest.mark.parametrize(
    ("share", "late"),
    [
        (None, 450),  # the default, half of 900
        ({"type": "float", "low": 0.25, "high": 0.75}, 225),
        ({"type": "categorical", "choices": [0.75, 0.5]}, 450),
        ({"type": "float", "low": 0.1, "high": 0.75}, None),  # it may begin at 90, before the first rung
    ],
)
def test_a_curriculum_whose_late_stage_begins_after_the_first_rung_is_decided_late(share, late):
    search = {"curriculum.scheme": {"type": "categorical", "choices": ["none", "second_half"]}}
    search |= {"curriculum.share": share} if share else {}
    reason = f"the curriculum's late stage begins at {late} samples"
    assert late_knobs(make(search=search)) == ({} if late is None else dict.fromkeys(search, reason))


def test_the_finalists_are_in_the_plan():
    def told(facts=FACTS, **sections):
        lines = lines_of(make(9, warm=2, budget={"trials": 9, "hours": 5}, **sections), facts)
        start = next(number for number, line in enumerate(lines) if line.startswith("Finalists"))
        return lines[start : lines.index("", start)]

    assert told() == [
        "Finalists: none, so that no gain is measured on test episodes",
        "  add e.g. finalists: {k: 2, seeds: 3}",
    ]
    many = Facts(FACTS.dataset, {**FACTS.objective, "test_episodes": 20})
    assert told(many, finalists={"k": 2, "seeds": 3}) == [
        "Finalists: trained again to 900 samples, and scored once on test episodes",
        "  the best 2 trials and point_0, point_1, with 3 seeds each: 12 trainings,",
        "    10,800 samples more",
        "  within the 5 hours: the search keeps time for them, at most half of it",
    ]
    acting = {"closed_loop": {"instances": "301-320"}}
    assert told(many, finalists={"k": 2, "seeds": 3}, **acting)[-1] == (
        "  then each acts in garden: 240 episodes, 20 each"
    )
    few = "\n".join(told(Facts(FACTS.dataset, {**FACTS.objective, "test_episodes": 2}), finalists={"k": 1, "seeds": 1}))
    assert "few: 2 test episodes can show a large gain only" in few
    assert "the best trial and point_0, point_1, with 1 seed each: 3 trainings" in few
    assert "with one seed, the noise of training is in no interval" in few


def test_what_cannot_be_known_of_the_objective_is_said():
    def told(**objective):
        return "\n".join(lines_of(make(), Facts(FACTS.dataset, {**FACTS.objective, **objective})))

    assert "few: trials are compared on 1 episode; what another choice would change is not known" in told(
        scored_episodes=1
    )
    assert "few:" not in told(scored_episodes=20)
    assert "Hands      placed from the joints by a calibrated chain, 0.4 mm off\n" in told(eef_off_m=4e-4)
    too_far = " ".join(told(eef_off_m=0.035).split())
    assert "35.0 mm off, which is too much: its error is left out" in too_far


def test_the_whole_plan_as_it_is_read(tmp_path):
    spec = make(
        10,
        search=SCHEDULE | {"optim.final_lr": {"type": "float", "low": 1e-6, "high": 1e-4, "log": True, "when": {"optim.schedule": "cosine"}}},  # noqa: E501
        warm_start={"seed_baseline": {"optim.schedule": "constant"}, "wins": {"optim.schedule": "cosine", "optim.final_lr": 1e-5}},  # noqa: E501
        budget={"trials": 10, "hours": 1},
        max_concurrent=2,
        tracking={"uri": "sqlite:////runs/mlflow.db", "experiment": "hunt"},
        trial={"policy": {"pretrained": "tiny"}},
    )  # fmt: skip
    assert (
        "\n".join(lines_of(spec))
        == """\
Study eggs: 10 trials in at most 1 hour, to minimise val/critical_action_mse

Data       /data/eggs
           12 episodes, 1,435 frames at 30 Hz
           9 to train, 2 to validate, 1 kept for the final test
           few: trials are compared on 2 episodes
Objective  24 critical frames (rule: annotation), 1 prediction each, over 1 s
Policy     tiny; trains its expert on 900 samples in a whole trial

Search space
  optim.schedule  one of constant, cosine
  optim.final_lr  1e-06 to 0.0001, log; when optim.schedule is cosine

Warm starts: run first, never stopped early
  seed_baseline  optim.schedule constant
  wins           optim.schedule cosine, optim.final_lr 1e-05

Rungs: trials are compared at each, and about 1 in 3 goes on (ASHA)
  100 samples   reached by all
  300 samples   reached by about 5 of 10
  900 samples   reached by about 3 of 10
  about 4,020 samples in all, 45% of 10 whole trials

Finalists: none, so that no gain is measured on test episodes
  add e.g. finalists: {k: 2, seeds: 3}

Decided late: they hardly act before the first rung, so it cannot judge them
  optim.schedule: cosine has lowered the learning rate by 3.0% there
  optim.final_lr: cosine has lowered the learning rate by 3.0% there

Cache      off
Machine    1 CPU and 0 GPUs a trial, at most 2 at once
Results    runs/eggs-20260131-120000
MLflow     sqlite:////runs/mlflow.db, experiment hunt"""
    )


def test_gpus_that_are_asked_for_and_are_not_here_are_in_the_plan(monkeypatch):
    monkeypatch.setattr(plan, "gpus_here", lambda: 1)

    def says(resources):
        return any("1 GPU here: run it where Ray has them" in line for line in lines_of(make(resources=resources)))

    assert says({"gpus": 2})
    assert not any(says(enough) for enough in ({"gpus": 1}, {"gpus": 0.5}, {"gpus": 0}, "auto"))


@pytest.mark.parametrize("trials", [1, 64])
def test_no_line_is_longer_than_a_screen_but_for_a_path(tmp_path, trials):
    long = {f"a_warm_start_with_quite_a_long_name_{i}": {"weighting.alpha": i / 4} for i in range(3)}
    specs = [make(64, warm_start=long), make(trials, max_concurrent=1), loaded(tmp_path)]
    for spec in specs:
        for line in lines_of(spec, folder="runs/eggs"):
            assert len(line) <= WIDTH or line.startswith(("Results", "MLflow", "Data")), line
            assert line == line.rstrip()
            assert "\0" not in line


def test_a_line_is_broken_between_a_value_and_the_next_key(tmp_path):
    lines = lines_of(loaded(tmp_path))
    start = next(number for number, line in enumerate(lines) if line.startswith("  baseline"))
    assert lines[start : start + 2] == [
        "  baseline    weighting.alpha 0, optim.batch_size 8, policy.chunk_size 50,",
        "              optim.schedule constant",
    ]


@pytest.mark.parametrize(
    ("changes", "expected", "absent"),
    [
        ({"resources": {"cpus": 2, "gpus": 0.5}}, "2 CPUs and 0.5 GPUs a trial, as many as fit at once", "at most"),
        ({"budget": {"trials": 1}}, "Study eggs: 1 trial, to minimise", "hour"),
        ({"budget": {"trials": 3, "hours": 48}}, "3 trials in at most 48 hours, to minimise", None),
        ({"budget": {"trials": 3, "hours": 0.5}}, "in at most 0.5 hours", None),
        ({"tracking": {"enabled": False}}, "MLflow     off", "experiment"),
        ({}, "MLflow     mlflow.db beside the results, experiment eggs", None),
        ({"tracking": {"uri": "http://ada:secret@host:5000"}}, "MLflow     http://***@host:5000", "secret"),
        ({}, "Warm starts: none, so that there is no baseline to measure a gain against", "never stopped"),
        ({"trial": {"policy": UNFROZEN}}, "its expert and VLM on", None),
        (
            {"search": ALPHA | {"policy.train_expert_only": {"type": "categorical", "choices": [True, False]}}},
            "trains its expert, or the VLM too, on",
            None,
        ),
        (
            {"search": ALPHA | {"policy.pretrained": {"type": "categorical", "choices": ["tiny", "org/other"]}}},
            "Policy     tiny or org/other; trains",
            None,
        ),
    ],
)  # fmt: skip
def test_every_part_reads_well(changes, expected, absent):
    text = " ".join("\n".join(lines_of(make(3, **changes))).split())  # wherever its lines are broken
    assert " ".join(expected.split()) in text
    assert absent is None or absent not in text


def test_where_a_remote_study_keeps_its_states():
    spec = make(3, storage="s3://bucket/eggs/", tracking={"uri": "http://mlflow:5000"})
    text = lines_of(spec)
    assert "Results    runs/eggs-20260131-120000" in text
    assert "States     s3://bucket/eggs/eggs-20260131-120000" in text


def test_without_data_the_plan_leaves_it_out():
    text = "\n".join(lines_of(make(3), facts=None))
    assert "Data" not in text
    assert "Objective" not in text
    assert "Rungs" in text
