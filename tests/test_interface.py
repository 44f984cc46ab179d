"""What a policy sees and does survives a round trip, and mistakes in it are refused."""

import json

import pytest

from smolvla_core.errors import ConfigError
from smolvla_core.interface import Interface
from smolvla_core.trial import prepare, resolve
from tests.core_fixtures import tiny_trial


@pytest.mark.parametrize("state", [{"preset": "identity"}, {"preset": "winner23", "features": ["contact_force"]}])
def test_json_round_trip(generic_root, eggs_root, cache_dir, state):
    root = generic_root if state["preset"] == "identity" else eggs_root
    interface = resolve(tiny_trial(root, cache_dir, state=state, eval__horizon_s=0.3)).interface
    again = Interface.from_dict(json.loads(json.dumps(interface.to_dict())))
    assert again.to_dict() == interface.to_dict()
    assert again.selection == interface.selection
    assert again.cameras == interface.cameras
    assert again.features == interface.features


def test_a_new_policy_takes_the_datasets_cameras(trial_config):
    cameras = prepare(trial_config).learner.interface.cameras
    assert [view.policy_key for view in cameras] == ["observation.images.top", "observation.images.wrist"]
    assert [(view.height, view.width) for view in cameras] == [(48, 64), (32, 32)]


def test_some_of_the_cameras_under_other_names(generic_root, cache_dir):
    config = tiny_trial(generic_root, cache_dir, data__cameras={"front": "observation.images.top"})
    cameras = prepare(config).learner.interface.cameras
    assert [(view.policy_key, view.dataset_key) for view in cameras] == [
        ("observation.images.front", "observation.images.top")
    ]


def test_an_unknown_camera_names_the_nearest(generic_root, cache_dir):
    config = tiny_trial(generic_root, cache_dir, data__cameras={"front": "observation.images.wrsit"})
    with pytest.raises(ConfigError, match="did you mean 'observation.images.wrist'"):
        prepare(config)
