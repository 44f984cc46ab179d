"""Every experiment that ships is valid, and is the recipe that it says it is."""

from pathlib import Path

import pytest

from smolvla_core.config_file import load_config
from smolvla_core.errors import ConfigError
from tune.space import make_space, to_trial_config, warm_starts
from tune.spec import load_spec

FOLDER = Path(__file__).parent.parent / "search_spaces"
FILES = sorted(FOLDER.glob("*.yaml"))


@pytest.fixture(autouse=True)
def _data(monkeypatch, tmp_path):
    monkeypatch.setenv("EGGS_DATA", str(tmp_path))
    monkeypatch.setenv("DATASET", str(tmp_path))
    monkeypatch.setenv("MOUSETRAPS_DATA", str(tmp_path))


def test_the_folder_holds_experiments():
    assert {path.stem for path in FILES} >= {"any_lerobot", "demo", "easter_eggs"}


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_it_is_valid(path):
    spec, source = load_spec(path)
    assert source.text == path.read_text()
    for point in make_space(spec).cover():
        config = to_trial_config(spec, point)
        assert (*config.eval.at, config.optim.samples) == spec.rungs
    assert len(spec.rungs) >= 2


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_gains_are_measured_against_the_recipe_s_baseline(path):
    spec, _ = load_spec(path)
    baseline = warm_starts(spec)["seed_baseline"]
    assert next(iter(warm_starts(spec))) == "seed_baseline"
    assert baseline["weighting.alpha"] == 0
    assert baseline["optim.batch_size"] == 8
    stride = to_trial_config(spec, baseline).data.frame_stride
    assert baseline["policy.chunk_size"] == 50 // stride  # as long as fifty recorded frames
    assert baseline["optim.schedule"] == "constant"


def test_the_whole_recipe_is_searched_and_nothing_idle_is():
    spec = load_spec(FOLDER / "easter_eggs_full.yaml")[0]
    searched = set(spec.search)
    sections = {key.partition(".")[0] for key in searched}
    assert sections == {"weighting", "curriculum", "optim", "augment", "state", "data", "policy"}
    assert set(load_spec(FOLDER / "easter_eggs.yaml")[0].search) <= searched
    assert {"data.train.1.weight", "data.frame_stride", "policy.freeze_vision_encoder", "optim.ema_decay"} <= searched
    assert set(spec.search["weighting.scheme"].choices) == {"uniform", "temporal", "segment", "annotation"}
    assert set(spec.search["optim.schedule"].choices) == {"constant", "cosine", "linear"}
    for point in make_space(spec).corners():
        uniform = point["weighting.scheme"] == "uniform"
        assert uniform == ("weighting.per_step" not in point) == ("weighting.normalize" not in point)
        assert ("weighting.alpha" in point) == (point["weighting.scheme"] == "temporal")
        assert ("augment.gripper_jitter_m" in point) == (point["state.preset"] != "winner23")
        assert ("optim.lr_scaling" in point) == (point["optim.batch_size"] > 8)
        assert ("optim.final_lr" in point) == (point["optim.schedule"] != "constant")
        assert not {"augment.color_views", "augment.color_same_draw"} & set(point) or point["augment.brightness"] > 0
    alone = warm_starts(spec)["seed_baseline"]
    assert (alone["data.train.1.weight"], alone["data.frame_stride"]) == (0, 1)
    assert to_trial_config(spec, alone).eval.frame_stride == 6


@pytest.mark.parametrize("name", ["easter_eggs", "demo"])
def test_the_quick_wins_are_a_warm_start(name):
    point = warm_starts(load_spec(FOLDER / f"{name}.yaml")[0])["quick_wins"]
    assert (point["weighting.alpha"], point["optim.batch_size"], point["policy.chunk_size"]) == (1, 16, 30)


def test_the_garden_s_search_goes_on_from_its_base():
    base = load_config(FOLDER / "bases" / "garden.yaml")
    spec = load_spec(FOLDER / "garden.yaml")[0]
    for point in make_space(spec).corners():
        tuned = to_trial_config(spec, point)
        assert tuned.policy.pretrained.endswith("search_spaces/bases/garden")
        assert (tuned.state, tuned.data.frame_stride) == (base.state, base.data.frame_stride)
        assert tuned.policy.train_expert_only == base.policy.train_expert_only


def test_easter_eggs_is_the_recipe():
    spec = load_spec(FOLDER / "easter_eggs.yaml")[0]
    assert spec.samples == 800_000
    assert spec.trial["policy"]["pretrained"] == "lerobot/smolvla_base"
    assert spec.search["optim.batch_size"].choices == (8, 16, 32)
    assert spec.search["policy.chunk_size"].choices == (30, 40, 50)
    assert (spec.search["weighting.alpha"].low, spec.search["weighting.alpha"].high) == (0, 2)
    final = spec.search["optim.final_lr"]
    assert final.low <= 1e-6 <= final.high
    assert spec.rungs[0] == spec.asha.grace_samples


@pytest.mark.parametrize(("name", "variable"), [("easter_eggs", "EGGS_DATA"), ("any_lerobot", "DATASET")])
def test_the_data_s_place_is_asked_for(name, variable, monkeypatch):
    monkeypatch.delenv(variable)
    with pytest.raises(ConfigError, match=rf"{name}.yaml:\d+: trial.data.train.0.root: .* run: export {variable}="):
        load_spec(FOLDER / f"{name}.yaml")
