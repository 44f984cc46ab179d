"""The state projection: widened without a change of output, and folded over the raw state exactly."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from smolvla_core.config import StateConfig
from smolvla_core.data.dataset import Moments
from smolvla_core.errors import ConfigError
from smolvla_core.policy import widen_state
from smolvla_core.state import select_state
from smolvla_core.state_proj import NORMALIZER_EPS, folded, state_dims, widened
from smolvla_core.trial import prepare
from tests.core_fixtures import tiny_trial
from tests.test_checkpoint import noise_for, predict_with_ours


@pytest.mark.parametrize(
    ("asked", "width", "present", "expected"),
    [
        (None, 23, 32, 32),
        (None, 32, 32, 32),
        (None, 33, 32, 40),
        (None, 217, 32, 224),
        (None, 32, 256, 256),
        (48, 34, 32, 48),
    ],
)
def test_as_wide_as_needed(asked, width, present, expected):
    assert state_dims(asked, width, present) == expected


def test_too_few_columns_are_refused():
    with pytest.raises(ConfigError, match="217 dims are selected, policy.max_state_dim is 64.*set it to 224"):
        state_dims(64, 217, 32)
    with pytest.raises(ConfigError, match="policy.max_state_dim is 24, the checkpoint has 32, which are kept"):
        state_dims(24, 23, 32)


def test_added_columns_are_zero():
    linear = torch.nn.Linear(3, 2)
    wide = widened(linear, 8)
    assert torch.equal(wide.weight[:, :3], linear.weight)
    assert wide.weight[:, 3:].count_nonzero() == 0
    assert torch.equal(wide.bias, linear.bias)
    assert wide.weight.requires_grad


def test_widening_changes_no_output(trial_config):
    trial = prepare(trial_config)
    batch = trial.maker.training(trial.stream, 0, 4)
    ones = torch.ones(4, 1)
    before = trial.learner.losses(batch, ones)[0]
    widen_state(trial.learner.policy, 224)
    after = trial.learner.losses(batch, ones)[0]
    assert trial.learner.policy.model.state_proj.in_features == 224
    assert torch.allclose(before, after, rtol=1e-6, atol=1e-6)


def test_appended_dims_change_nothing_at_step_0_and_something_after_it(eggs_root, lookalike, cache_dir):
    cameras = {"camera1": "observation.images.rgb.head"}
    values = {"state__preset": "top32", "policy__pretrained": str(lookalike), "data__cameras": cameras}
    plain, longer = (
        prepare(tiny_trial(eggs_root, cache_dir, eval__horizon_s=0.3, **values, **more))
        for more in ({}, {"state__features": ["contact_force"]})
    )
    assert plain.learner.policy.model.state_proj.in_features == 32
    assert longer.learner.policy.model.state_proj.in_features == 40
    # frames that hold an egg: the appended numbers are not what they are on average
    held = np.flatnonzero(np.abs(plain.dataset.state[:, 136:140]).max(axis=1) > 0)[[0, 20, 40]]
    noise = noise_for(plain, held)
    before = [predict_with_ours(trial, held, noise) for trial in (plain, longer)]
    np.testing.assert_allclose(before[0], before[1], rtol=0, atol=1e-6)
    for trial in (plain, longer):
        trial.learner.step(trial.maker.training(trial.stream, 0, 8), lr=1e-2)
    after = [predict_with_ours(trial, held, noise) for trial in (plain, longer)]
    assert np.abs(after[0] - after[1]).max() > 1e-5


def test_standard217_keeps_the_pretrained_columns_and_trains(eggs_root, lookalike, cache_dir):
    cameras = {"camera1": "observation.images.rgb.head"}
    values = {"state__preset": "standard217", "policy__pretrained": str(lookalike), "data__cameras": cameras}
    trial = prepare(tiny_trial(eggs_root, cache_dir, eval__horizon_s=0.3, **values))
    projection = trial.learner.policy.model.state_proj
    stored = load_file(lookalike / "model.safetensors")["model.state_proj.weight"]
    assert projection.in_features == 224
    assert torch.equal(projection.weight[:, :32], stored)
    assert projection.weight[:, 32:].count_nonzero() == 0
    assert trial.learner.step(trial.maker.training(trial.stream, 0, 4), lr=1e-4).grad_norm > 0
    assert projection.weight[:, 32:217].count_nonzero() > 0
    assert projection.weight[:, 217:].count_nonzero() == 0


def test_the_other_weights_of_a_tiny_policy_do_not_depend_on_the_state(eggs_root, cache_dir):
    policies = [
        prepare(tiny_trial(eggs_root, cache_dir, eval__horizon_s=0.3, state__preset=preset)).learner.policy.state_dict()
        for preset in ("top32", "standard217")
    ]
    name = "model.state_proj.weight"
    assert all(torch.equal(policies[0][other], policies[1][other]) for other in policies[0] if other != name)
    assert torch.equal(policies[0][name], policies[1][name][:, :32])


def test_folding_is_exact_for_every_preset():
    """The folded projection of the normalised raw state is the projection of what the policy sees."""
    rng = np.random.default_rng(0)
    raw = rng.normal(rng.normal(size=256), rng.uniform(0.01, 2, size=256), size=(50, 256)).astype(np.float32)
    raw[:, 232:234] = 0.05  # a gripper that never moves
    features = rng.normal(size=(50, 2)).astype(np.float32)
    for preset in ("top32", "top31_base", "winner23", "standard217"):
        selection = select_state(StateConfig(preset=preset), 256, "R1Pro")
        seen = np.concatenate([selection(raw), features], axis=1)
        interface = SimpleNamespace(
            selection=selection, state=Moments.of(raw), seen=Moments.of(seen), state_width=seen.shape[1]
        )
        linear = torch.nn.Linear(224, 16).double()
        expected = linear(padded(normalised(seen, interface.seen), 224))
        wide = folded(linear, interface, 264)
        both = np.concatenate([normalised(raw, interface.state), normalised(seen, interface.seen)[:, -2:]], axis=1)
        torch.testing.assert_close(wide(padded(both, 264)), expected, rtol=0, atol=1e-5)
        unseen = sorted(set(range(256)) - set(selection.indices))
        assert wide.weight[:, unseen].count_nonzero() == 0


def normalised(values, moments):
    return (values.astype(np.float64) - moments.mean) / (moments.std + NORMALIZER_EPS)


def padded(values, width):
    return torch.nn.functional.pad(torch.from_numpy(values), (0, width - values.shape[1]))
