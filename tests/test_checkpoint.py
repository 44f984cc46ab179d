"""Checkpoints are complete LeRobot policies."""

import json
import os
import shutil
import stat
import subprocess
import sys
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from huggingface_hub.errors import EntryNotFoundError
from lerobot.configs import PreTrainedConfig
from lerobot.policies.factory import make_pre_post_processors
from lerobot.policies.smolvla.modeling_smolvla import SmolVLAPolicy
from safetensors.torch import load_file

from smolvla_core.checkpoint import export_policy, load_state, main, read_state, relocate, save_state
from smolvla_core.data.batch import to_lerobot
from smolvla_core.errors import ConfigError, DataError
from smolvla_core.objective import evaluation_noise
from smolvla_core.pretrained import STATE_PROJ
from smolvla_core.trial import prepare
from tests.core_fixtures import tiny_trial

STOCK = """
import sys
import numpy as np, torch
from lerobot.policies.smolvla.modeling_smolvla import SmolVLAPolicy
from lerobot.policies.factory import make_pre_post_processors
folder, inputs, output = sys.argv[1:]
raw = np.load(inputs)
policy = SmolVLAPolicy.from_pretrained(folder)
preprocess, postprocess = make_pre_post_processors(policy.config, folder)
observation = {key: torch.from_numpy(raw[key]) for key in raw.files if key.startswith("observation")}
observation["task"] = [str(task) for task in raw["task"]]
chunk = policy.predict_action_chunk(preprocess(observation), noise=torch.from_numpy(raw["noise"]))
np.save(output, postprocess(chunk).numpy())
assert not [name for name in sys.modules if name.split(".")[0] in ("smolvla_core", "tune")]
"""


def predict_with_stock_lerobot(folder, trial, rows, noise, tmp_path):
    """Actions (B, T, A) that a clean process predicts from the dataset's raw observations."""
    raw = {"observation.state": trial.dataset.state[rows], "noise": noise}
    raw["task"] = np.array([trial.dataset.instructions[which] for which in trial.dataset.instruction[rows]])
    for view, camera in zip(trial.learner.interface.cameras, trial.maker.cameras, strict=True):
        raw[view.dataset_key] = camera.frames(rows).numpy().astype(np.float32) / 255
    np.savez(tmp_path / "inputs.npz", **raw)
    script = tmp_path / "stock.py"
    script.write_text(STOCK)
    subprocess.run(
        [
            sys.executable,
            str(script),
            str(folder),
            str(tmp_path / "inputs.npz"),
            str(tmp_path / "actions.npy"),
        ],
        check=True,
        cwd=tmp_path,
    )
    return np.load(tmp_path / "actions.npy")


def predict_from_checkpoint(folder, trial, rows, noise, changes=None):
    """Actions (B, T, A) that lerobot's own loaders give, in this process; ``changes`` to the raw state."""
    policy = SmolVLAPolicy.from_pretrained(folder)
    preprocess, postprocess = make_pre_post_processors(policy.config, folder)
    state = trial.dataset.state[rows].copy()
    for dims, value in (changes or {}).items():
        state[:, dims] = value
    observation = {"observation.state": torch.from_numpy(state)}
    observation["task"] = [trial.dataset.instructions[which] for which in trial.dataset.instruction[rows]]
    if trial.dataset.task_info is not None:
        observation["observation.task_info"] = torch.from_numpy(trial.dataset.task_info[rows])
    for view, camera in zip(trial.learner.interface.cameras, trial.maker.cameras, strict=True):
        observation[view.dataset_key] = camera.frames(rows).float() / 255
    chunk = policy.predict_action_chunk(preprocess(observation), noise=torch.from_numpy(noise))
    return postprocess(chunk).numpy()


def predict_with_ours(trial, rows, noise):
    learner = trial.learner
    batch = trial.maker.validation(rows, noise, np.zeros(len(rows), dtype=np.float32))
    learner.policy.eval()
    inputs = to_lerobot(batch, learner.interface, learner.processors, learner.device)
    return learner.processors.post(learner.policy.predict_action_chunk(inputs, noise=batch.noise)).numpy()


def noise_for(trial, rows):
    shape = (trial.maker.chunk_size, trial.maker.action_dims)
    return np.stack([evaluation_noise(0, int(row), 0, *shape) for row in rows])


@pytest.mark.parametrize("preset", ["top32", "winner23"])
def test_stock_lerobot_gets_the_same_actions_from_the_raw_observation(eggs_root, cache_dir, tmp_path, preset):
    values = {"state__preset": preset, "policy__chunk_size": 30, "eval__horizon_s": 1.0}
    trial = prepare(tiny_trial(eggs_root, cache_dir, **values))
    trial.learner.step(trial.maker.training(trial.stream, 0, 4), lr=1e-2)
    rows = trial.dataset.rows_of(trial.split.val)[[0, 17, 40]]
    noise = noise_for(trial, rows)
    ours = predict_with_ours(trial, rows, noise)

    save_state(trial.learner, tmp_path / "state")
    export_policy(tmp_path / "state", tmp_path / "first")
    # it can be moved: the tokenizer and the VLM's configuration travel inside
    shutil.move(tmp_path / "first", tmp_path / "policy")
    relocate(tmp_path / "policy")
    config = json.loads((tmp_path / "policy" / "config.json").read_text())
    assert config["input_features"]["observation.state"]["shape"] == [256]
    assert config["vlm_model_name"] == str(tmp_path / "policy" / "vlm")

    stock = predict_with_stock_lerobot(tmp_path / "policy", trial, rows, noise, tmp_path)
    assert stock.shape == (3, 30, 23)
    np.testing.assert_allclose(stock, ours, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["config.json", "policy_preprocessor.json"])
@pytest.mark.parametrize("text", [None, "{", "[]"], ids=["missing", "cut off", "no object"])
def test_a_policy_that_was_copied_in_part_is_not_relocated(tmp_path, capsys, name, text):
    (tmp_path / "vlm").mkdir()
    whole = '{"vlm_model_name": "/elsewhere"}'
    files = {"config.json": whole, "policy_preprocessor.json": "{}", name: text}
    for file, content in files.items():
        if content is not None:
            (tmp_path / file).write_text(content)
    assert main(["relocate", str(tmp_path)]) == 2
    error = capsys.readouterr().err
    assert f"{tmp_path / name}: " in error
    assert "copy the policy again, whole" in error
    assert len(error.splitlines()) == 1
    if name != "config.json":
        assert (tmp_path / "config.json").read_text() == whole


def test_an_exported_policy_may_be_read_by_whom_the_umask_lets(eggs_root, cache_dir, tmp_path):
    before = os.umask(0o027)
    try:
        exported(eggs_root, cache_dir, tmp_path, state__preset="top32")
    finally:
        os.umask(before)
    modes = {
        path.name: stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "policy").rglob("*") if path.is_file()
    }
    assert "model.safetensors" in modes
    assert set(modes.values()) == {0o640}


def exported(eggs_root, cache_dir, tmp_path, **values):
    trial = prepare(tiny_trial(eggs_root, cache_dir, eval__horizon_s=0.3, **values))
    trial.learner.step(trial.maker.training(trial.stream, 0, 4), lr=1e-2)
    save_state(trial.learner, tmp_path / "state")
    export_policy(tmp_path / "state", tmp_path / "policy")
    return trial


@pytest.mark.parametrize("preset", ["top32", "winner23"])
def test_training_goes_on_from_an_exported_policy(eggs_root, cache_dir, tmp_path, preset):
    values = {"state__preset": preset, "optim__ema_decay": None}
    before = exported(eggs_root, cache_dir, tmp_path, **values)
    values["policy__pretrained"] = str(tmp_path / "policy")
    after = prepare(tiny_trial(eggs_root, cache_dir, eval__horizon_s=0.3, **values))
    for name, weight in before.learner.policy.state_dict().items():
        assert torch.equal(after.learner.policy.state_dict()[name], weight), name
    batch = before.maker.training(before.stream, 4, 4)
    assert after.learner.step(batch, lr=0.0).loss == before.learner.step(batch, lr=0.0).loss


def test_an_exported_policy_is_not_read_as_another_state(eggs_root, cache_dir, tmp_path):
    """Its columns stand in the raw state's order, so a selection would read others than its own."""
    exported(eggs_root, cache_dir, tmp_path, state__preset="top32")
    values = {"policy__pretrained": str(tmp_path / "policy"), "eval__horizon_s": 0.3}
    message = r"other state columns \(32 of 256 state dims\) than this trial's \(23 of 256 state dims\); take the state"
    with pytest.raises(ConfigError, match=message):
        prepare(tiny_trial(eggs_root, cache_dir, state__preset="winner23", **values))


def test_an_export_on_the_hub_is_not_read_as_another_state_either(eggs_root, cache_dir, tmp_path, monkeypatch):
    exported(eggs_root, cache_dir, tmp_path, state__preset="top32")

    def fetch(repo_id, filename):
        if not (tmp_path / "policy" / filename).is_file():
            raise EntryNotFoundError(filename)
        return str(tmp_path / "policy" / filename)

    def hub(name):
        return PreTrainedConfig.from_pretrained(tmp_path / "policy")

    monkeypatch.setattr("smolvla_core.pretrained.hf_hub_download", fetch)
    monkeypatch.setattr("smolvla_core.pretrained.PreTrainedConfig", SimpleNamespace(from_pretrained=hub))
    values = {"policy__pretrained": "me/eggs", "eval__horizon_s": 0.3}
    with pytest.raises(ConfigError, match="other state columns"):
        prepare(tiny_trial(eggs_root, cache_dir, state__preset="winner23", **values))
    same = prepare(tiny_trial(eggs_root, cache_dir, state__preset="top32", **values))
    trained = load_file(tmp_path / "policy" / "state_proj.safetensors")["weight"]
    assert torch.equal(same.learner.policy.model.state_proj.weight[:, : trained.shape[1]], trained)


def test_an_incomplete_export_is_refused_in_one_line(eggs_root, cache_dir, tmp_path):
    exported(eggs_root, cache_dir, tmp_path, state__preset="top32")
    values = {"policy__pretrained": str(tmp_path / "policy"), "eval__horizon_s": 0.3, "state__preset": "top32"}
    (tmp_path / "policy" / "state_proj.safetensors").unlink()
    with pytest.raises(ConfigError, match=r"state_proj.safetensors of .* cannot be read"):
        prepare(tiny_trial(eggs_root, cache_dir, **values))
    (tmp_path / "policy" / "state_seen.json").write_text("{")
    with pytest.raises(ConfigError, match=r"state_seen.json of .* cannot be read"):
        prepare(tiny_trial(eggs_root, cache_dir, **values))
    file = tmp_path / "policy" / "config.json"
    file.write_text(file.read_text().replace("observation.images.", "observation.image."))
    with pytest.raises(ConfigError, match="names that begin with 'observation.images.' are needed"):
        prepare(tiny_trial(eggs_root, cache_dir, **values))


def test_an_exported_policy_can_read_the_raw_state(eggs_root, cache_dir, tmp_path):
    """The export is folded over the raw state, so the whole of it is what it takes."""
    before = exported(eggs_root, cache_dir, tmp_path, state__preset="top32")
    values = {"state__preset": "identity", "state__track": "open", "eval__horizon_s": 0.3}
    after = prepare(tiny_trial(eggs_root, cache_dir, policy__pretrained=str(tmp_path / "policy"), **values))
    rows = before.dataset.rows_of(before.split.val)[[0, 17, 40]]
    noise = noise_for(before, rows)
    np.testing.assert_allclose(
        predict_with_ours(after, rows, noise), predict_with_ours(before, rows, noise), rtol=1e-4, atol=1e-5
    )


@pytest.mark.parametrize("preset", ["top31_base", "standard217"])
def test_every_preset_is_exported_for_the_raw_observation(eggs_root, cache_dir, tmp_path, preset):
    trial = prepare(tiny_trial(eggs_root, cache_dir, state__preset=preset, eval__horizon_s=0.3))
    trial.learner.step(trial.maker.training(trial.stream, 0, 4), lr=1e-2)
    rows = trial.dataset.rows_of(trial.split.val)[[0, 40]]
    noise = noise_for(trial, rows)
    ours = predict_with_ours(trial, rows, noise)
    save_state(trial.learner, tmp_path / "state")
    export_policy(tmp_path / "state", tmp_path / "policy")
    np.testing.assert_allclose(
        predict_from_checkpoint(tmp_path / "policy", trial, rows, noise), ours, rtol=1e-4, atol=1e-5
    )
    assert json.loads((tmp_path / "policy" / "smolvla_core.json").read_text())["needs"] == []


def test_features_are_computed_by_a_step_of_the_saved_preprocessor(privileged_root, cache_dir, tmp_path, monkeypatch):
    source = {"root": str(privileged_root), "task_info": {"basket": [3, 5]}}
    values = {"state__preset": "winner23", "state__track": "open", "data__train": [source], "eval__horizon_s": 0.3}
    features = ["contact_force", "basket_distance"]
    trial = prepare(tiny_trial(privileged_root, cache_dir, state__features=features, **values))
    for first in (0, 4, 8):
        trial.learner.step(trial.maker.training(trial.stream, first, 4), lr=1e-2)
    rows = trial.dataset.rows_of(trial.split.val)[[0, 30, 40]]
    noise = noise_for(trial, rows)
    ours = predict_with_ours(trial, rows, noise)
    save_state(trial.learner, tmp_path / "state")
    export_policy(tmp_path / "state", tmp_path / "policy")

    # lerobot imports the step by itself
    monkeypatch.delitem(sys.modules, "smolvla_core.lerobot_step")
    loaded = predict_from_checkpoint(tmp_path / "policy", trial, rows, noise)
    np.testing.assert_allclose(loaded, ours, rtol=1e-4, atol=1e-5)
    # an effort that only the feature looks at changes the action
    squeezed = predict_from_checkpoint(tmp_path / "policy", trial, rows, noise, {slice(136, 140): 100.0})
    assert np.abs(squeezed - loaded).max() > 1e-4

    card = json.loads((tmp_path / "policy" / "smolvla_core.json").read_text())
    assert (card["state_features"], card["needs"]) == (features, ["smolvla_core"])
    assert card["privileged_inputs"] == ["observation.task_info"]
    readme = (tmp_path / "policy" / "README.md").read_text()
    assert "loads only where the Python package `smolvla_core`" in readme
    assert "standard track does not provide" in readme
    trial = replace(trial, dataset=replace(trial.dataset, task_info=None))
    with pytest.raises(DataError, match="the observation has no 'observation.task_info'"):
        predict_from_checkpoint(tmp_path / "policy", trial, rows, noise)
    # and says what is missing where the package is not installed
    monkeypatch.setitem(sys.modules, "smolvla_core.lerobot_step", None)
    with pytest.raises(ImportError, match="smolvla_core.lerobot_step' is installed"):
        predict_from_checkpoint(tmp_path / "policy", trial, rows, noise)


def test_export_of_a_pretrained_policy_keeps_its_precisions(eggs_root, lookalike, cache_dir, tmp_path):
    cameras = {f"camera{i + 1}": f"observation.images.rgb.{name}" for i, name in enumerate(("head", "left_wrist"))}
    values = {"state__preset": "top32", "policy__pretrained": str(lookalike), "data__cameras": cameras}
    trial = prepare(tiny_trial(eggs_root, cache_dir, **values, eval__horizon_s=0.3))
    rows = trial.dataset.rows_of(trial.split.val)[[3, 30]]
    noise = noise_for(trial, rows)
    save_state(trial.learner, tmp_path / "state")
    export_policy(tmp_path / "state", tmp_path / "policy")
    stored = load_file(tmp_path / "policy" / "model.safetensors")
    assert all(
        torch.equal(stored[name], value)
        for name, value in trial.learner.trained.items()
        if name != f"{STATE_PROJ}.weight"
    )
    stock = predict_with_stock_lerobot(tmp_path / "policy", trial, rows, noise, tmp_path)
    # stock lerobot rounds the expert to its VLM's precision when it loads any policy; so do we, to compare
    for name, value in SmolVLAPolicy(trial.learner.policy.config).named_parameters():
        parameter = trial.learner.policy.get_parameter(name)
        parameter.data = parameter.data.to(value.dtype)
    ours = predict_with_ours(trial, rows, noise)
    np.testing.assert_allclose(stock, ours, rtol=1e-3, atol=1e-4)


def test_the_moving_average_is_what_is_exported(generic_root, cache_dir, tmp_path):
    trial = prepare(tiny_trial(generic_root, cache_dir, optim__ema_decay=0.9))
    trial.learner.step(trial.maker.training(trial.stream, 0, 4), lr=1e-1)
    save_state(trial.learner, tmp_path / "state")
    export_policy(tmp_path / "state", tmp_path / "policy")
    from safetensors.torch import load_file

    name = "model.action_out_proj.weight"
    exported = load_file(tmp_path / "policy" / "model.safetensors")[name]
    assert torch.equal(exported, trial.learner.ema[name])
    assert not torch.equal(exported, trial.learner.trained[name])


def test_statistics_in_the_checkpoint_are_of_the_training_episodes(generic_root, cache_dir, tmp_path):
    trial = prepare(tiny_trial(generic_root, cache_dir))
    save_state(trial.learner, tmp_path / "state")
    export_policy(tmp_path / "state", tmp_path / "policy")
    from safetensors.torch import load_file

    (file,) = (tmp_path / "policy").glob("policy_preprocessor_step_*_normalizer_processor.safetensors")
    rows = trial.dataset.rows_of(trial.split.train)
    expected = trial.dataset.state[rows].mean(axis=0)
    np.testing.assert_allclose(load_file(file)["observation.state.mean"], expected, rtol=1e-5, atol=1e-6)
    assert not np.allclose(expected, trial.dataset.state.mean(axis=0), rtol=1e-5)


def test_state_of_another_architecture_is_refused(generic_root, cache_dir, tmp_path):
    trial = prepare(tiny_trial(generic_root, cache_dir))
    save_state(trial.learner, tmp_path / "state")
    other = prepare(tiny_trial(generic_root, cache_dir, policy__tiny__layers=2))
    with pytest.raises(DataError, match="resume with the configuration it was saved by"):
        load_state(other.learner, tmp_path / "state")


def test_a_state_whose_replacement_was_killed_is_put_back(generic_root, cache_dir, tmp_path, monkeypatch):
    trial = prepare(tiny_trial(generic_root, cache_dir))
    save_state(trial.learner, tmp_path / "state")
    trial.learner.samples_seen = 8
    replaced = os.replace

    def killed(source, target):
        if ".partial-" in str(source):
            raise KeyboardInterrupt
        replaced(source, target)

    monkeypatch.setattr(os, "replace", killed)
    with pytest.raises(KeyboardInterrupt):
        save_state(trial.learner, tmp_path / "state")
    monkeypatch.undo()
    assert not (tmp_path / "state").exists()
    assert read_state(tmp_path / "state")["samples_seen"] == 0
    save_state(trial.learner, tmp_path / "state")
    assert read_state(tmp_path / "state")["samples_seen"] == 8


def test_an_export_replaces_an_export_and_nothing_else(generic_root, cache_dir, tmp_path, capsys):
    trial = prepare(tiny_trial(generic_root, cache_dir))
    save_state(trial.learner, tmp_path / "state")
    (tmp_path / "models").mkdir()
    for kept in (tmp_path / "models" / "mine.txt", tmp_path / "file"):
        kept.write_text("not to be lost")
    for taken in ("models", "file", "file/below"):
        assert main(["export", str(tmp_path / "state"), str(tmp_path / taken)]) == 2
        assert capsys.readouterr().err.count("\n") == 1
    assert (tmp_path / "models" / "mine.txt").read_text() == (tmp_path / "file").read_text() == "not to be lost"
    (tmp_path / "empty").mkdir()
    for again in range(2):
        assert main(["export", str(tmp_path / "state"), str(tmp_path / "empty")]) == 0, again
    assert (tmp_path / "empty" / "model.safetensors").is_file()


def test_damaged_states_are_refused(generic_root, cache_dir, tmp_path, capsys):
    with pytest.raises(DataError, match="holds no trial state"):
        read_state(tmp_path)
    trial = prepare(tiny_trial(generic_root, cache_dir))
    save_state(trial.learner, tmp_path / "state")
    (tmp_path / "state" / "trial.safetensors").write_bytes(b"half written")
    with pytest.raises(DataError, match="damaged"):
        load_state(trial.learner, tmp_path / "state")
    assert main(["export", str(tmp_path / "state"), str(tmp_path / "out")]) == 2
    assert "damaged" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
    assert main(["frobnicate"]) == 2
