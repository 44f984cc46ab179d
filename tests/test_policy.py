"""Policies: built tiny, loaded from a pretrained folder, and widened without a change."""

import json
import shutil
from pathlib import Path

import pytest
import torch

from smolvla_core.config import TinyConfig
from smolvla_core.errors import ConfigError
from smolvla_core.policy import refuse_cut_instruction
from smolvla_core.pretrained import pretrained_config
from smolvla_core.tiny_vlm import tiny_vlm_folder
from smolvla_core.trial import prepare, resolve
from tests.core_fixtures import tiny_trial

TASK_6 = (
    "Take the three Easter eggs out of the wicker basket on the lawn in the garden, then place them on the lawn "
    "next to a single tree (choose any tree) so that all three eggs are next to the same tree and none are left "
    "in the basket."
)


def test_tiny_is_the_same_in_every_process(trial_config):
    first, second = (prepare(trial_config).learner.policy.state_dict() for _ in range(2))
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_tiny_folder_is_reused(cache_dir):
    folder = tiny_vlm_folder(TinyConfig(), str(cache_dir))
    before = (folder / "config.json").stat().st_mtime_ns
    assert tiny_vlm_folder(TinyConfig(), str(cache_dir)) == folder
    assert (folder / "config.json").stat().st_mtime_ns == before
    assert tiny_vlm_folder(TinyConfig(layers=2), str(cache_dir)) != folder


def test_the_task_fits_64_tokens_and_not_48(trial_config):
    config = prepare(trial_config).learner.policy.config
    refuse_cut_instruction(config, TASK_6)
    config.tokenizer_max_length = 48
    with pytest.raises(ConfigError, match=r"policy.tokenizer_max_length is 48, the instruction has \d+ tokens"):
        refuse_cut_instruction(config, TASK_6)


def test_pretrained_keeps_its_weights_and_precisions(eggs_root, lookalike, cache_dir):
    cameras = {f"camera{i + 1}": f"observation.images.rgb.{n}" for i, n in enumerate(("head", "left_wrist"))}
    values = {"state__preset": "top32", "policy__pretrained": str(lookalike), "data__cameras": cameras}
    learner = prepare(tiny_trial(eggs_root, cache_dir, eval__horizon_s=0.3, **values)).learner
    from safetensors.torch import load_file

    stored = load_file(lookalike / "model.safetensors")
    present = learner.policy.state_dict()
    assert all(torch.equal(present[name], value) for name, value in stored.items())
    assert "model.vlm_with_expert.lm_expert.layers.0.self_attn.q_proj.weight" in stored
    assert next(learner.policy.model.vlm_with_expert.vlm.parameters()).dtype == torch.bfloat16
    assert {value.dtype for value in learner.trained.values()} == {torch.float32}
    assert list(learner.policy.config.image_features) == [
        "observation.images.camera1",
        "observation.images.camera2",
    ]
    assert learner.policy.config.chunk_size == 10
    assert learner.policy.config.n_action_steps == 10


def test_frozen_weights_are_the_files_own_pages(eggs_root, lookalike, cache_dir):
    cameras = {f"camera{i + 1}": f"observation.images.rgb.{n}" for i, n in enumerate(("head", "left_wrist"))}
    values = {"state__preset": "top32", "policy__pretrained": str(lookalike), "data__cameras": cameras}
    learner = prepare(tiny_trial(eggs_root, cache_dir, eval__horizon_s=0.3, **values)).learner
    file = str((lookalike / "model.safetensors").resolve())
    maps = Path("/proc/self/maps").read_text().splitlines()
    spans = [line.split()[0].split("-") for line in maps if line.endswith(file)]
    spans = [range(int(start, 16), int(stop, 16)) for start, stop in spans]

    def mapped(tensor):
        return any(tensor.data_ptr() in span for span in spans)

    vlm = learner.policy.model.vlm_with_expert.vlm
    assert all(mapped(parameter) for parameter in vlm.parameters())
    assert not any(mapped(parameter) for parameter in learner.trained.values())


def test_weights_that_are_not_all_stored_are_read_over_the_vlms_own(eggs_root, lookalike, cache_dir, tmp_path):
    """Lerobot's way, for checkpoints that leave out what nobody trained; the numbers are the same."""
    from safetensors.torch import load_file, save_file

    folder = shutil.copytree(lookalike, tmp_path / "lean")
    weights = load_file(folder / "model.safetensors")
    vlm = "model.vlm_with_expert.vlm."
    save_file({k: v for k, v in weights.items() if not k.startswith(vlm)}, folder / "model.safetensors")
    cameras = {f"camera{i + 1}": f"observation.images.rgb.{n}" for i, n in enumerate(("head", "left_wrist"))}
    values = {"state__preset": "top32", "data__cameras": cameras, "eval__horizon_s": 0.3}
    lean, whole = (
        prepare(tiny_trial(eggs_root, cache_dir, policy__pretrained=str(path), **values)).learner.policy
        for path in (folder, lookalike)
    )
    theirs = whole.state_dict()
    assert [(k, v.dtype) for k, v in lean.state_dict().items()] == [(k, v.dtype) for k, v in theirs.items()]
    assert all(torch.equal(value, theirs[key]) for key, value in lean.state_dict().items())
    buffers = dict(whole.named_buffers())
    assert all(torch.equal(value, buffers[key]) for key, value in lean.named_buffers())


@pytest.mark.parametrize(
    ("cameras", "message"),
    [
        ({}, r"expects camera1, camera2, camera3.*map them, e.g. data.cameras: \{'camera1'"),
        ({"camera9": "observation.images.rgb.head"}, "has no camera 'camera9'"),
        ({"camera1": "observation.images.rgb.haed"}, "did you mean 'observation.images.rgb.head'"),
        (
            {"camera1": "observation.images.rgb.head", "camera2": "observation.images.rgb.head"},
            "name the same dataset key",
        ),
    ],
)
def test_cameras_are_mapped_by_name_and_checked(eggs_root, lookalike, cache_dir, cameras, message):
    values = {"state__preset": "top32", "policy__pretrained": str(lookalike), "data__cameras": cameras}
    with pytest.raises(ConfigError, match=message):
        prepare(tiny_trial(eggs_root, cache_dir, eval__horizon_s=0.3, **values))


def test_camera_order_is_the_policys(eggs_root, lookalike, cache_dir):
    cameras = {"camera2": "observation.images.rgb.head", "camera1": "observation.images.rgb.left_wrist"}
    values = {"state__preset": "top32", "policy__pretrained": str(lookalike), "data__cameras": cameras}
    views = prepare(tiny_trial(eggs_root, cache_dir, eval__horizon_s=0.3, **values)).learner.interface.cameras
    assert [view.policy_key[-1] for view in views] == ["1", "2"]


def test_weights_that_are_missing_are_refused(eggs_root, lookalike, cache_dir, tmp_path):
    from safetensors.torch import load_file, save_file

    folder = shutil.copytree(lookalike, tmp_path / "broken")
    weights = load_file(folder / "model.safetensors")
    del weights["model.action_out_proj.weight"]
    save_file(weights, folder / "model.safetensors")
    cameras = {"camera1": "observation.images.rgb.head"}
    values = {"state__preset": "top32", "policy__pretrained": str(folder), "data__cameras": cameras}
    with pytest.raises(ConfigError, match="lacks 'model.action_out_proj.weight'"):
        prepare(tiny_trial(eggs_root, cache_dir, eval__horizon_s=0.3, **values))


def test_a_policy_that_was_compiled_is_trained_as_any_other(eggs_root, lookalike, cache_dir, tmp_path):
    shutil.copytree(lookalike, tmp_path / "policy")
    file = tmp_path / "policy" / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"compile_model": True}))
    before = torch.get_float32_matmul_precision()
    values = {"policy__pretrained": str(tmp_path / "policy"), "state__preset": "top32"}
    cameras = {"camera1": "observation.images.rgb.head"}
    trial = prepare(tiny_trial(eggs_root, cache_dir, eval__horizon_s=0.3, data__cameras=cameras, **values))
    assert torch.get_float32_matmul_precision() == before
    assert trial.learner.policy.model.forward.__func__ is type(trial.learner.policy.model).forward


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (
            {"of_a_newer_release": 3},
            "config.json of .* is not read by lerobot .*`of_a_newer_release`.* correct that entry",
        ),
        ({"chunk_size": "fifty"}, "is not read by lerobot"),
        ({"input_features": None}, "has no camera among its input_features"),
    ],
)
def test_a_configuration_of_another_release_is_one_line(lookalike, tmp_path, change, words):
    shutil.copytree(lookalike, tmp_path / "policy")
    file = tmp_path / "policy" / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | change))
    with pytest.raises(ConfigError, match=words) as caught:
        pretrained_config(str(tmp_path / "policy"))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("preset", "mode", "words"),
    [
        ("top32", "QUANTILES", "normalises ACTION by QUANTILES, of which no statistics are made here"),
        ("winner23", "MIN_MAX", "normalises STATE by MIN_MAX, over which a state of sums"),
        ("top32", "MIN_MAX", None),
    ],
)
def test_a_normaliser_that_cannot_be_exported_is_refused(
    eggs_root, lookalike, cache_dir, tmp_path, preset, mode, words
):
    shutil.copytree(lookalike, tmp_path / "policy")
    file = tmp_path / "policy" / "config.json"
    state = "MIN_MAX" if mode == "QUANTILES" else mode
    mapping = {"normalization_mapping": {"VISUAL": "IDENTITY", "STATE": state, "ACTION": mode}}
    file.write_text(json.dumps(json.loads(file.read_text()) | mapping))
    views = ("head", "left_wrist", "right_wrist")
    cameras = {f"camera{i}": f"observation.images.rgb.{view}" for i, view in enumerate(views, start=1)}
    values = {"policy__pretrained": str(tmp_path / "policy"), "state__preset": preset, "data__cameras": cameras}
    trial = tiny_trial(eggs_root, cache_dir, policy__chunk_size=20, **values)
    if words is None:
        resolve(trial)
        return
    with pytest.raises(ConfigError, match=words) as caught:
        resolve(trial)
    assert "\n" not in str(caught.value)


def test_another_kind_of_policy_is_refused(generic_root, cache_dir, tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"type": "act"}))
    with pytest.raises(ConfigError, match="is a 'act' policy; a 'smolvla' one is needed"):
        prepare(tiny_trial(generic_root, cache_dir, policy__pretrained=str(tmp_path)))
