"""The configuration: defaults of the recipe, and one readable line for every mistake."""

import pytest

from smolvla_core.config import TrialConfig, dotted_keys
from smolvla_core.config_file import load_config
from smolvla_core.config_values import expand_environment, load_yaml, parse_assignments, set_dotted
from smolvla_core.errors import ConfigError

DATA = {"data": {"train": [{"root": "/data/eggs"}]}}


def test_defaults_are_the_recipe():
    config = TrialConfig.from_dict(DATA)
    assert config.optim.batch_size == 8
    assert config.optim.lr == 1e-4
    assert config.optim.schedule == "constant"
    assert config.optim.samples == 800_000
    assert config.optim.betas == (0.9, 0.95)
    assert config.optim.eps == 1e-8
    assert config.optim.weight_decay == 1e-10
    assert config.optim.grad_clip == 10
    assert config.policy.chunk_size == config.policy.action_steps == 50
    assert config.policy.tokenizer_max_length == 64
    assert config.policy.train_expert_only
    assert config.policy.freeze_vision_encoder
    assert config.weighting.alpha == 0


def test_action_steps_follow_the_chunk_unless_given():
    config = TrialConfig.from_dict(DATA).with_values({"policy.chunk_size": 30})
    assert config.policy.action_steps == 30
    assert config.with_values({"policy.n_action_steps": 10}).policy.action_steps == 10


def test_lr_scaling_is_relative_to_batch_8():
    config = TrialConfig.from_dict(DATA).with_values({"optim.batch_size": 32, "optim.lr_scaling": "sqrt"})
    assert config.optim.peak_lr == pytest.approx(2e-4)


@pytest.mark.parametrize("state", [{}, {"keys": ["base_qvel"]}, {"indices": [3, 1]}, {"features": "contact_force"}])
def test_yaml_round_trip(state):
    values = {"eval.at": [100, 200], "optim.final_lr": 1e-7, "state": state}
    config = TrialConfig.from_dict(DATA).with_values({k: v for k, v in values.items() if v})
    assert TrialConfig.from_dict(load_yaml(config.to_yaml(), "x")) == config


@pytest.mark.parametrize(
    ("values", "line"),
    [
        ({"optim.batchsize": 3}, "optim.batchsize: unknown key; did you mean 'optim.batch_size'?"),
        ({"optim.batch_size": 0}, "optim.batch_size: got 0; input should be greater than or equal to 1"),
        ({"weighting.alpha": -1}, "weighting.alpha: got -1; input should be greater than or equal to 0"),
        ({"opt.x": 1}, "opt: unknown key; did you mean 'optim'?"),
        (
            {"policy.n_action_steps": 60},
            "policy.n_action_steps is 60; it cannot exceed policy.chunk_size (50)",
        ),
        ({"data.train": [{"rot": 1}]}, "data.train.0.rot: unknown key; did you mean 'data.train.0.root'?"),
        ({"data.train": [{}]}, "data.train.0: needs 'root' (a folder) or 'repo_id' (a hub id)"),
        ({"eval.at": [3, 2]}, "eval.at: got [3, 2]; must be positive and strictly ascending"),
        ({"optim.lr": float("nan")}, "optim.lr: got nan; input should be a finite number"),
        ({"optim.lr.x": 3}, "lr.x: 'lr' is a value, not a section; remove '.x'"),
        ({"optim.micro_batch": 9}, "optim.micro_batch is 9; it cannot exceed optim.batch_size (8)"),
        ({"data.val_fraction": 0.9}, "data.val_fraction + data.test_fraction is 1; it must stay below 1"),
        ({"state.preset": "top31base"}, "state.preset: got 'top31base'; no such preset; did you mean 'top31_base'?"),
        ({"state.preset": "top32", "state.keys": ["base_qvel"]}, "state.preset and state.keys are both given"),
        ({"state.preset": None}, "state.preset is None; give a preset, state.keys or state.indices"),
        ({"state.features": ["contact_force", "contact_force"]}, "a feature is listed twice"),
        ({"state.features": ["basket_distance"]}, "observation.task_info), which the standard track forbids"),
        ({"data.train": [{"root": "/x", "task_info": {"basket": [3, 9]}}]}, "of 2 or 3 dims, e.g. [13, 16]"),
        ({"augment.color_views": 4}, "augment.color_views is 4, but no colour is jittered"),
        ({"augment.color_same_draw": False}, "augment.color_same_draw is false, but no colour is jittered"),
        ({"augment.hue": 0.6}, "augment.hue: got 0.6; input should be less than or equal to 0.5"),
        ({"policy.max_state_dim": 33}, "policy.max_state_dim: got 33; input should be a multiple of 8"),
        (
            {"policy.freeze_vision_encoder": False},
            "policy.freeze_vision_encoder is false while policy.train_expert_only is true",
        ),
    ],
)
def test_a_mistake_is_one_line(values, line):
    with pytest.raises(ConfigError) as caught:
        TrialConfig.from_dict(DATA).with_values(values)
    assert line in str(caught.value)
    assert "\n" not in str(caught.value)


def test_numbers_as_people_write_them():
    assert load_yaml("[1e-4, 800_000, 1.0e-7, -2E+3]", "x") == [1e-4, 800_000, 1e-7, -2000.0]


def test_yaml_runs_no_code():
    with pytest.raises(ConfigError, match="not valid YAML"):
        load_yaml("!!python/object/apply:os.system ['true']", "space.yaml")


def test_assignments():
    assert parse_assignments(["a.b=1e-3", "c=[1, 2]", "d=x=y"]) == {"a.b": 1e-3, "c": [1, 2], "d": "x=y"}
    with pytest.raises(ConfigError, match="expected KEY=VALUE"):
        parse_assignments(["a.b"])


def test_a_policys_folder_may_stand_in_the_home(monkeypatch):
    monkeypatch.setenv("HOME", "/home/anna")
    tree = {"data": {"train": [{"root": "/x"}]}}
    for given, taken in (("~/policy", "/home/anna/policy"), ("lerobot/smolvla_base", "lerobot/smolvla_base")):
        assert TrialConfig.from_dict(tree | {"policy": {"pretrained": given}}).policy.pretrained == taken


def test_set_dotted_copies():
    before = {"a": {"b": 1}}
    assert set_dotted(before, {"a.c": 2, "d.e": 3}) == {"a": {"b": 1, "c": 2}, "d": {"e": 3}}
    assert before == {"a": {"b": 1}}


def test_environment(monkeypatch):
    monkeypatch.setenv("EGGS", "/data")
    assert expand_environment({"root": ["${EGGS}/x"]}) == {"root": ["/data/x"]}
    assert expand_environment("${EGGS:-runs}, ${NO_SUCH:-sqlite:///runs/m.db}") == "/data, sqlite:///runs/m.db"
    monkeypatch.setenv("EGGS", "")
    assert expand_environment("${EGGS:-runs}") == "runs"
    with pytest.raises(ConfigError, match=r"root: \$\{NO_SUCH\} is not set; run: export NO_SUCH=..."):
        expand_environment({"root": "${NO_SUCH}"})


def test_load_config_names_the_file(tmp_path):
    file = tmp_path / "trial.yaml"
    file.write_text("data: {train: [{root: /x}]}\noptim: {lr: fast}\n")
    with pytest.raises(ConfigError, match=r"trial.yaml: optim.lr: got 'fast'"):
        load_config(file)
    assert load_config(file, ["optim.lr=1"]).optim.lr == 1
    with pytest.raises(ConfigError, match="no such file"):
        load_config(tmp_path / "other.yaml")


def test_every_leaf_has_a_dotted_key():
    keys = dotted_keys()
    assert {"optim.lr", "policy.tiny.image_size", "weighting.alpha"} <= set(keys)
    assert "optim" not in keys
