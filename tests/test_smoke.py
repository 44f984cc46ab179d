"""The short search: every branch of the space is in it, and nothing that is long, remote or far away."""

from functools import partial
from pathlib import Path

import pytest

from smolvla_core.errors import ConfigError
from tests.spec_yaml import loaded
from tune import smoke
from tune.records import Outcome, TrialRecord
from tune.smoke import all_branches_ran, branch_lines, smoke_spec, with_demo_data
from tune.space import make_space, to_trial_config, warm_starts
from tune.spec import SearchSpec, load_spec

SPACES = Path(__file__).parents[1] / "search_spaces"


def make(search, trial=None, **sections):
    values = {
        "study": "eggs",
        "trial": {"data": {"train": [{"root": "/data/eggs"}]}} | (trial or {}),
        "search": search,
        "budget": {"trials": 64, "hours": 48},
        "asha": {"grace_samples": 50_000},
        "resources": {"gpus": 1, "cpus": 4, "cost_per_hour": 2},
        "storage": "/runs",
    }
    return SearchSpec.from_dict(values | sections)


def choice(*choices, **when):
    return {"type": "categorical", "choices": list(choices), **when}


def values_of(spec, key):
    return {point[key] for point in warm_starts(spec).values() if key in point}


def test_every_choice_every_end_and_every_condition_is_in_a_short_trial(tmp_path):
    short = smoke_spec(loaded(tmp_path))
    assert values_of(short, "optim.batch_size") == {8, 16, 32}
    assert values_of(short, "policy.chunk_size") == {30, 50}
    assert values_of(short, "weighting.alpha") == {0.0, 2.0}
    assert values_of(short, "optim.schedule") == {"constant", "cosine"}
    assert values_of(short, "optim.final_lr") == {1e-7, 1e-5}
    assert len(warm_starts(short)) == short.budget.trials == 3


def test_it_is_short_and_stays_on_this_machine(tmp_path):
    spec = loaded(tmp_path)
    short = smoke_spec(spec)
    # two steps of the largest batch, a rung after the first
    assert short.samples == 64
    assert short.rungs == (32, 64)
    assert (short.resources.gpus, short.resources.cpus, short.budget.hours) == (0, 1, None)
    assert short.storage == f"{spec.storage}/smoke"
    assert short.tracking.uri is None
    for params in warm_starts(short).values():
        config = to_trial_config(short, params)
        assert config.policy.pretrained == "tiny"
        assert config.runtime.device == "cpu"
        assert config.optim.samples == 64
        assert (config.eval.frames, config.eval.draws) == (4, 1)
    # what is searched and scored is the same
    assert short.search == spec.search
    assert to_trial_config(short, params).eval.horizon_s == 1.0


def test_a_remote_studys_short_search_is_local(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    spec = make({"optim.batch_size": choice(8, 16)}, storage="s3://bucket/eggs", tracking={"uri": "http://mlflow:5000"})
    short = smoke_spec(spec)
    assert short.storage == str(tmp_path / "runs" / "smoke")
    assert short.tracking.uri is None
    assert smoke_spec(spec.model_copy(update={"tracking": spec.tracking.model_copy(update={"enabled": False})})).tracking.enabled is False  # fmt: skip # noqa: E501


def test_a_fixed_batch_size_gives_the_budget():
    spec = make({"weighting.alpha": {"type": "float", "low": 0.0, "high": 2.0}}, {"optim": {"batch_size": 24}})
    assert smoke_spec(spec).samples == 48


def test_a_searched_key_is_not_overruled():
    spec = make({"policy.num_steps": choice(5, 10), "optim.batch_size": choice(8, 16)})
    assert values_of(smoke_spec(spec), "policy.num_steps") == {5, 10}


@pytest.mark.parametrize(
    ("warmup", "choices", "short"),
    [
        (choice(0, 1000, 5000), [0, 16, 32], {0: 0, 1000: 16, 5000: 32}),
        ({"type": "int", "low": 100, "high": 10_000}, [0, 32], {100: 0, 10_000: 32}),
        (choice(2000), [0], {2000: 0}),
    ],
)
def test_a_searched_warm_up_is_shortened_with_the_budget(warmup, choices, short):
    """It is in samples, and would be longer than the whole run."""
    spec = make({"optim.warmup_samples": warmup, "optim.batch_size": choice(8, 32)})
    assert list(smoke_spec(spec).search["optim.warmup_samples"].choices) == choices
    assert values_of(smoke_spec(spec), "optim.warmup_samples") == set(short.values())


def test_a_fixed_warm_up_is_left_out():
    spec = make({"optim.batch_size": choice(8, 32)}, {"optim": {"warmup_samples": 5000}})
    (config, *_) = [to_trial_config(smoke_spec(spec), p) for p in warm_starts(smoke_spec(spec)).values()]
    assert config.optim.warmup_samples == 0


@pytest.mark.parametrize("name", sorted(path.name for path in SPACES.glob("*.yaml")))
def test_every_search_space_that_ships_has_a_short_search(name, tmp_path, monkeypatch):
    monkeypatch.setenv("EGGS_DATA", str(tmp_path))
    monkeypatch.setenv("DATASET", str(tmp_path))
    monkeypatch.setenv("MOUSETRAPS_DATA", str(tmp_path))
    assert smoke_spec(load_spec(SPACES / name)[0]).samples <= 64


def trial(number, state, **params):
    params = {key.replace("__", "."): value for key, value in params.items()}
    return TrialRecord(number, None, params, {}, 0.0, (), Outcome(state) if state else None)


SPACE = make_space(
    make(
        {
            "optim.batch_size": choice(8, 16),
            "weighting.normalize": choice(True, False),
            "policy.num_steps": choice(1, 2),
        }
    )
)


def test_the_branches_that_ran_are_listed_in_columns():
    trials = [
        trial(0, "complete", optim__batch_size=8, weighting__normalize=True, policy__num_steps=1),
        trial(1, "failed", optim__batch_size=16, weighting__normalize=True, policy__num_steps=1),
        trial(2, None, optim__batch_size=8, weighting__normalize=False),
    ]
    assert branch_lines(SPACE, trials) == [
        "  optim.batch_size     8      complete, interrupted",
        "  optim.batch_size     16     failed",
        "  weighting.normalize  True   complete, failed",
        "  weighting.normalize  False  interrupted",
        "  policy.num_steps     1      complete, failed",
        "  policy.num_steps     2      DID NOT RUN",
    ]
    assert not all_branches_ran(SPACE, trials)


def test_all_ran_only_where_each_was_in_a_trial_that_completed():
    first = trial(0, "complete", optim__batch_size=8, weighting__normalize=True, policy__num_steps=1)
    second = {"optim__batch_size": 16, "weighting__normalize": False, "policy__num_steps": 2}
    assert all_branches_ran(SPACE, [first, trial(1, "complete", **second)])
    assert not all_branches_ran(SPACE, [first, trial(1, "failed", **second)])
    assert not all_branches_ran(SPACE, [first, trial(1, None, **second)])
    # one step is not the same choice as true
    assert not all_branches_ran(SPACE, [first, trial(1, "complete", **second | {"weighting__normalize": 0})])


YAML = """\
study: eggs
trial:
  data: {{train: [{{{data}}}], cameras: {{camera1: observation.images.rgb.head}}}}
  state: {{preset: identity}}
search:
  optim.batch_size: {{type: categorical, choices: [8, 16]}}
budget: {{trials: 4}}
asha: {{grace_samples: 50_000}}
"""


@pytest.fixture
def demo(monkeypatch, tmp_path):
    folder = tmp_path / "demo"
    monkeypatch.setattr(smoke, "demo_data", lambda: folder)
    monkeypatch.chdir(tmp_path)
    return folder


@pytest.mark.parametrize("data", ["root: /nowhere/eggs", 'root: "${THE_DATA_OF_NOBODY}"'])
def test_the_demos_data_stands_in_for_data_that_is_not_here(demo, tmp_path, data):
    file = tmp_path / "eggs.yaml"
    file.write_text(YAML.format(data=data))
    spec, source = load_spec(file, with_demo_data(str(file), ["optim.samples=100_000"]))
    assert spec.trial["data"]["train"][0]["root"] == str(demo)
    # and is described as it is: 256 dims are no state of 32, and it has no camera1
    assert spec.trial["state"] == {"preset": "top32"}
    assert spec.trial["data"]["cameras"] == {}
    assert spec.samples == 100_000
    assert source.changed


@pytest.mark.parametrize("data", ["root: {here}", "repo_id: somebody/eggs"])
def test_data_that_is_here_or_on_the_hub_is_taken(demo, tmp_path, data):
    file = tmp_path / "eggs.yaml"
    file.write_text(YAML.format(data=data.format(here=tmp_path)))
    assert with_demo_data(str(file), ["seed=3"]) == ["seed=3"]


TWO = YAML.replace("train: [{{{data}}}]", "train: [{{{data}}}, {{{beside}, cameras: {{camera1: other.head}}}}]")


@pytest.fixture
def second(monkeypatch, tmp_path):
    monkeypatch.setattr(smoke, "second_demo_data", lambda number: tmp_path / f"second_{number}")
    return tmp_path / "second_1"


@pytest.mark.parametrize("beside", ["root: /nowhere/traps", 'root: "${THE_DATA_OF_NOBODY}"'])
def test_a_second_dataset_that_is_not_here_is_replaced_alone(demo, second, tmp_path, beside):
    file = tmp_path / "eggs.yaml"
    file.write_text(TWO.format(data=f"root: {tmp_path}", beside=beside))
    main, other = load_spec(file, with_demo_data(str(file), []))[0].trial["data"]["train"]
    assert main["root"] == str(tmp_path)
    assert other == {"root": str(second), "cameras": {"camera1": "other.head"}}


def test_the_main_dataset_is_replaced_with_all_others(demo, second, tmp_path):
    file = tmp_path / "eggs.yaml"
    file.write_text(TWO.format(data="root: /nowhere/eggs", beside=f"root: {tmp_path}"))
    main, other = load_spec(file, with_demo_data(str(file), []))[0].trial["data"]["train"]
    assert (main["root"], other) == (str(demo), {"root": str(second), "cameras": None})


def test_the_second_demo_data_is_of_another_task(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    root = smoke.second_demo_data(1)
    assert root == tmp_path / "runs/demo_data/beside_1/lerobot"
    written = (root / "meta/info.json").stat().st_mtime_ns
    assert smoke.second_demo_data(1) == root
    assert (root / "meta/info.json").stat().st_mtime_ns == written
    from smolvla_core.config import DataConfig
    from smolvla_core.data.dataset import open_dataset

    dataset = open_dataset(DataConfig(train=({"root": str(root)},)))
    assert "mousetrap" in dataset.instructions[0]
    assert dataset.state.shape[1] == 256


def test_other_mistakes_are_told_before_data_is_written(tmp_path, monkeypatch):
    monkeypatch.setattr(smoke, "demo_data", lambda: pytest.fail("wrote the demo's data"))
    file = tmp_path / "eggs.yaml"
    file.write_text(YAML.format(data="root: /nowhere").replace("trials", "trails"))
    with pytest.raises(ConfigError, match=r"eggs\.yaml:7: budget\.trails: unknown key"):
        with_demo_data(str(file), [])


def test_the_demos_data_is_written_once(tmp_path, monkeypatch):
    from smolvla_core.data import synthetic

    small = partial(synthetic.write_synthetic, episodes=2, seconds=1.0, size=48)
    monkeypatch.setattr(synthetic, "write_synthetic", small)
    monkeypatch.chdir(tmp_path)
    first = smoke.demo_data()
    assert first == tmp_path / "runs/demo_data/lerobot"
    written = (first / "meta/info.json").stat().st_mtime_ns
    assert smoke.demo_data() == first
    assert (first / "meta/info.json").stat().st_mtime_ns == written
