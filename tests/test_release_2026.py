"""BEHAVIOR's 2026 release opens as it is: its widths, its camera keys, its key names."""

import shutil

import numpy as np
import pytest
import torch

from smolvla_core.checkpoint import export_policy, save_state
from smolvla_core.config import DataConfig
from smolvla_core.data.dataset import open_dataset
from smolvla_core.data.pictures import Camera
from smolvla_core.data.synthetic.pictures import film
from smolvla_core.errors import ConfigError, DataError
from smolvla_core.r1pro import RELEASES
from smolvla_core.train import train
from smolvla_core.trial import prepare, resolve
from tests.core_fixtures import tiny_trial
from tests.release_2026 import SIZE, scripted, state_2026, write_release_2026
from tests.test_checkpoint import noise_for, predict_from_checkpoint, predict_with_ours

CAMERA_KEYS = [f"observation.rgb.{name}" for name in ("head", "left_wrist", "right_wrist")]


def trial_2026(root, cache_dir, **values):
    return tiny_trial(root, cache_dir, **{"state__preset": "top32", "eval__horizon_s": 0.3, **values})


def test_it_opens_as_it_is_without_its_depth_videos(release_2026_root, cache_dir):
    dataset = open_dataset(DataConfig(train=({"root": str(release_2026_root)},), cache_dir=str(cache_dir)))
    assert dataset.state.shape[1] == 61
    assert list(dataset.camera_keys) == CAMERA_KEYS
    assert not list(release_2026_root.rglob("*depth*"))
    assert dataset.lengths.tolist() == [40] * 4


def test_the_policys_cameras_are_named_after_the_datasets(release_2026_root, cache_dir):
    views = resolve(trial_2026(release_2026_root, cache_dir)).interface.cameras
    assert [view.dataset_key for view in views] == CAMERA_KEYS
    # the names that the 2025 release's cameras give
    assert [view.policy_key for view in views] == [
        key.replace("observation.", "observation.images.") for key in CAMERA_KEYS
    ]


def test_a_pretrained_policys_cameras_are_mapped(release_2026_root, lookalike, cache_dir):
    cameras = {f"camera{i + 1}": key for i, key in enumerate(CAMERA_KEYS)}
    values = {"policy__pretrained": str(lookalike), "data__cameras": cameras}
    views = resolve(trial_2026(release_2026_root, cache_dir, **values)).interface.cameras
    assert [(view.policy_key[-1], view.dataset_key) for view in views] == list(zip("123", CAMERA_KEYS, strict=True))


@pytest.mark.parametrize("preset", ["top32", "top31_base", "winner23", "standard217"])
def test_presets_show_the_same_quantities_as_in_2025(release_2026_root, eggs_root, cache_dir, preset):
    """The 2025 state, cut to 2026's keys, gives the policy the same numbers through the same preset."""
    old = open_dataset(DataConfig(train=({"root": str(eggs_root)},), cache_dir=str(cache_dir)))
    raw = old.state[::7]
    see = [
        resolve(tiny_trial(root, cache_dir, state__preset=preset, eval__horizon_s=0.3)).interface.selection
        for root in (eggs_root, release_2026_root)
    ]
    if preset == "standard217":
        assert (see[0].width, see[1].width) == (217, 61)
        kept = [dim for key in RELEASES["2026"] for dim in RELEASES["2025"][key]]
        assert set(kept) <= set(see[0].indices)
    else:
        np.testing.assert_array_equal(see[0](raw), see[1](state_2026(raw)))


def test_it_trains(release_2026_root, cache_dir):
    reports = []
    config = trial_2026(release_2026_root, cache_dir, optim__samples=8, augment__gripper_jitter_m=0.02)
    result = train(config, lambda metrics, save: reports.append(metrics))
    assert result.step == 2
    assert np.isfinite(result.metrics["val/critical_action_mse"])


def test_its_policy_takes_its_raw_observation(release_2026_root, cache_dir, tmp_path):
    trial = prepare(trial_2026(release_2026_root, cache_dir, state__preset="winner23"))
    trial.learner.step(trial.maker.training(trial.stream, 0, 4), lr=1e-2)
    rows = trial.dataset.rows_of(trial.split.val)[[0, 30]]
    noise = noise_for(trial, rows)
    save_state(trial.learner, tmp_path / "state")
    export_policy(tmp_path / "state", tmp_path / "policy")
    stock = predict_from_checkpoint(tmp_path / "policy", trial, rows, noise)
    np.testing.assert_allclose(stock, predict_with_ours(trial, rows, noise), rtol=1e-4, atol=1e-5)


def test_what_the_release_does_not_have_is_refused(release_2026_root, cache_dir):
    with pytest.raises(ConfigError, match="joint efforts, which the 2026 release does not have; remove it"):
        resolve(trial_2026(release_2026_root, cache_dir, state__features=["contact_force"]))


def test_pictures_come_from_their_episodes_place_in_the_shared_video(release_2026_root, cache_dir):
    trial = prepare(trial_2026(release_2026_root, cache_dir))
    assert len(list((release_2026_root / "videos" / CAMERA_KEYS[0]).rglob("*.mp4"))) == 1
    recorded = trial.maker.cameras[0].frames(trial.dataset.starts + 10).float()
    filmed = [list(film(*scripted(episode), "head", "rgb", SIZE, 0))[10] for episode in range(4)]
    filmed = torch.from_numpy(np.stack(filmed)).permute(0, 3, 1, 2).float()
    differences = (recorded[:, None] - filmed[None]).abs().mean(dim=(2, 3, 4))
    assert differences.argmin(dim=1).tolist() == [0, 1, 2, 3]
    assert differences.diag().max() < 10


@pytest.fixture(scope="module")
def two_tasks_root(tmp_path_factory):
    """Every second episode is of task 1; every episode has files of its own."""
    folder = tmp_path_factory.mktemp("two_tasks")
    instructions = ("hide the eggs", "set the traps")
    return write_release_2026(folder / "dataset", episodes=6, instructions=instructions, megabytes=1e-6)


def open_task(root, cache_dir, task):
    return open_dataset(DataConfig(train=({"root": str(root), "task": task},), cache_dir=str(cache_dir)))


def test_one_task_of_several_is_used(two_tasks_root, cache_dir):
    whole, part = open_task(two_tasks_root, cache_dir, None), open_task(two_tasks_root, cache_dir, 1)
    assert part.recorded.tolist() == [1, 3, 5]
    assert part.instructions == ("set the traps",)
    np.testing.assert_array_equal(part.action, whole.action[whole.rows_of((1, 3, 5))])
    np.testing.assert_array_equal(part.episode, np.repeat([0, 1, 2], 40))
    rows, same = part.starts + 11, whole.starts[[1, 3, 5]] + 11
    pictures = (Camera(dataset, CAMERA_KEYS[1]).frames(at) for dataset, at in ((part, rows), (whole, same)))
    assert torch.equal(*pictures)


def test_the_other_tasks_files_need_not_be_there(two_tasks_root, cache_dir, tmp_path):
    root = shutil.copytree(two_tasks_root, tmp_path / "fetched")
    kept = open_task(two_tasks_root, cache_dir, 1)
    files = {kept.meta.get_data_file_path(int(e)) for e in kept.recorded}
    files |= {kept.meta.get_video_file_path(int(e), key) for e in kept.recorded for key in CAMERA_KEYS}
    for file in [*(root / "data").rglob("*.parquet"), *(root / "videos").rglob("*.mp4")]:
        if file.relative_to(root) not in files:
            file.unlink()
    np.testing.assert_array_equal(open_task(root, cache_dir, 1).state, kept.state)
    with pytest.raises(DataError, match="promises 240 frames, data/ holds 120; .* set 'task' beside its root"):
        open_task(root, cache_dir, None)
    with pytest.raises(DataError, match=r"data/chunk-.*parquet: is missing; fetch the file"):
        open_task(root, cache_dir, 0)


def test_a_task_that_is_not_there_is_refused_with_those_that_are(two_tasks_root, cache_dir):
    with pytest.raises(DataError, match="has no task 6; its tasks are 0 'hide the eggs', 1 'set the traps'"):
        open_task(two_tasks_root, cache_dir, 6)
