"""Augmentation changes training frames by the amounts asked for, reproducibly, and validation not at all."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torchvision.transforms import v2

from smolvla_core.augment import (
    BUILDERS,
    ColorDraw,
    ColorJitter,
    PositionJitter,
    RawFrames,
    adjust_colors,
    augment,
    augmentations,
)
from smolvla_core.config import StateConfig, TrialConfig
from smolvla_core.data.sampler import keyed_generator
from smolvla_core.errors import ConfigError
from smolvla_core.features import ContactForce
from smolvla_core.state import select_state
from smolvla_core.trial import prepare
from tests.core_fixtures import tiny_trial

EEF = (186, 187, 188, 225, 226, 227)
COLORS = {"augment__brightness": 0.4, "augment__contrast": 0.3, "augment__saturation": 0.5, "augment__hue": 0.1}


def raw_frames(samples, *, cameras=1, state=256, seed=0):
    images = torch.from_numpy(np.random.default_rng(seed).integers(0, 256, (len(samples), 3, 8, 8), dtype=np.uint8))
    return RawFrames(
        samples=np.asarray(samples, dtype=np.int64),
        rows=np.asarray(samples, dtype=np.int64) + 100,
        images=(images,) * cameras,
        state=np.zeros((len(samples), state), dtype=np.float32),
        task_info=None,
    )


def chain(state_config, width=256, features=(), **augment_values):
    """The augmentations of a configuration, for a state of R1Pro."""
    values = {"data": {"train": [{"root": "/x"}]}, "augment": augment_values}
    robot = "R1Pro" if width in (256, 61) else None
    interface = SimpleNamespace(selection=select_state(state_config, width, robot), features=features)
    return augmentations(TrialConfig.from_dict(values), interface)


# --- position jitter


def test_it_moves_both_end_effectors_by_metres():
    before = raw_frames(range(2000))
    after = PositionJitter(EEF, 0.02, seed=0)(before)
    moved = after.state[:, EEF]
    assert np.abs(moved).max() <= 0.02
    # uniform on +-2 cm: deviation 0.04 / sqrt(12), and no arm or axis follows another
    assert moved.std(axis=0) == pytest.approx([0.04 / 12**0.5] * 6, rel=0.05)
    assert np.abs(np.corrcoef(moved.T) - np.eye(6)).max() < 0.1
    assert not np.delete(after.state, EEF, axis=1).any()
    assert not before.state.any()


def test_dims_are_found_by_name_in_both_releases():
    for width, dims in ((256, EEF), (61, (17, 18, 19, 42, 43, 44))):
        (jitter,) = chain(StateConfig(), width, gripper_jitter_m=0.02)
        assert jitter == PositionJitter(dims, 0.02, seed=0)


def test_off_is_off():
    assert chain(StateConfig(preset="identity"), 5) == ()


def test_a_knob_that_would_do_nothing_is_refused():
    with pytest.raises(ConfigError, match="it would do nothing"):
        chain(StateConfig(preset="winner23"), gripper_jitter_m=0.02)
    with pytest.raises(ConfigError, match="it would do nothing"):
        chain(StateConfig(keys=("trunk_qpos",)), features=(ContactForce(((136, 137),)),), gripper_jitter_m=0.02)
    with pytest.raises(ConfigError, match="needs R1Pro's named state"):
        chain(StateConfig(preset="identity"), 5, gripper_jitter_m=0.02)


# --- colour jitter


def test_changes_of_colour_by_hand():
    grey = torch.full((3, 2, 2), 100, dtype=torch.uint8)
    brightness, contrast, saturation, hue = np.eye(4)
    draw = ColorDraw(order=(3, 2, 1, 0), extent=(0.5, -1.0, 1.0, 1.0))
    # brightness: 100 * (1 + 0.4 * 0.5)
    assert adjust_colors(grey, tuple(0.4 * brightness), draw).unique().tolist() == [120]
    halves = torch.tensor([[0, 200]], dtype=torch.uint8).expand(3, 1, 2)
    # contrast by 1 - 0.5: half way to the mean of 100, rounded down
    assert adjust_colors(halves, tuple(0.5 * contrast), draw)[0, 0].tolist() == pytest.approx([50, 150], abs=1)
    red = torch.tensor([200, 0, 0], dtype=torch.uint8).reshape(3, 1, 1)
    # saturation by 1 + 0.5: away from the grey of 0.299 * 200 = 59
    assert adjust_colors(red, tuple(0.5 * saturation), draw).flatten().tolist() == [255, 0, 0]
    # hue by a third of a turn: red becomes green
    assert adjust_colors(red, tuple(hue / 3), draw).flatten().tolist() == [0, 200, 0]


def test_colours_change_as_torchvision_changes_them():
    picture = raw_frames([0]).images[0][0]
    draw = ColorDraw.of(keyed_generator(3, 1))
    amounts = (0.4, 0.3, 0.5, 0.1)
    factors = [1 + a * u for a, u in zip(amounts, draw.extent, strict=True)]
    names = ("brightness_factor", "contrast_factor", "saturation_factor", "hue_factor")
    params = {"fn_idx": list(draw.order), **dict(zip(names, [*factors[:3], factors[3] - 1], strict=True))}
    expected = v2.ColorJitter(*amounts).transform(picture, params)
    assert torch.equal(adjust_colors(picture, amounts, draw), expected)
    assert not torch.equal(expected, picture)


def test_amounts_of_zero_are_exactly_off():
    assert chain(StateConfig(), brightness=0.0, hue=0.0) == ()
    frames = raw_frames(range(8))
    assert torch.equal(ColorJitter((0, 0, 0, 0), True, None, 0)(frames).images[0], frames.images[0])


def test_draws_belong_to_the_sample_not_to_the_batch():
    for jitter in (ColorJitter((0.4, 0.3, 0.5, 0.1), True, None, 7), PositionJitter(EEF, 0.02, 7)):
        whole = jitter(raw_frames(range(8)))
        for start in (0, 3, 5):
            part = raw_frames(range(8))
            part = jitter(
                RawFrames(part.samples[start:], part.rows[start:], (part.images[0][start:],), part.state[start:], None)
            )
            assert torch.equal(part.images[0], whole.images[0][start:])
            assert np.array_equal(part.state, whole.state[start:])
        assert not torch.equal(replace(jitter, seed=8)(raw_frames(range(8))).images[0], whole.images[0]) or (
            not np.array_equal(replace(jitter, seed=8)(raw_frames(range(8))).state, whole.state)
        )


def test_cameras_share_a_draw_or_have_their_own():
    frames = raw_frames(range(6), cameras=3)
    shared = ColorJitter((0.4, 0.3, 0.5, 0.1), True, None, 0)(frames).images
    assert torch.equal(shared[0], shared[1])
    assert torch.equal(shared[0], shared[2])
    own = ColorJitter((0.4, 0.3, 0.5, 0.1), False, None, 0)(frames).images
    assert torch.equal(own[0], shared[0])
    assert not torch.equal(own[0], own[1])
    assert not torch.equal(own[1], own[2])


def test_a_frame_has_a_fixed_number_of_views():
    one_row = raw_frames(range(60))
    picture = one_row.images[0][:1].expand(60, -1, -1, -1)
    one_row = replace(one_row, rows=np.full(60, 17), images=(picture,))
    jitter = ColorJitter((0.4, 0.3, 0.5, 0.1), True, 4, seed=0)
    seen = jitter(one_row).images[0]
    assert len(seen.unique(dim=0)) == 4
    fresh = replace(jitter, views=None)(one_row).images[0]
    assert len(fresh.unique(dim=0)) > 40
    counts = np.bincount([jitter.view_of(sample) for sample in range(4000)])
    assert counts == pytest.approx(np.full(4, 1000), rel=0.1)
    # a view is the same whatever the seed, so that stored ones serve every trial; which one is drawn is not
    other = replace(jitter, seed=1)
    assert other.view_draws(17, 2, 1) == jitter.view_draws(17, 2, 1)
    assert other.view_draws(18, 2, 1) != jitter.view_draws(17, 2, 1)
    assert [other.view_of(sample) for sample in range(60)] != [jitter.view_of(sample) for sample in range(60)]


# --- all of them


def test_every_augmentation_is_frozen_pure_and_never_meets_validation():
    every = chain(StateConfig(), gripper_jitter_m=0.02, brightness=0.4)
    assert len(every) == len(BUILDERS)
    for augmentation in every:
        frames = raw_frames(range(4))
        state, image = frames.state.copy(), frames.images[0].clone()
        augmentation(frames)
        assert np.array_equal(frames.state, state)
        assert torch.equal(frames.images[0], image)
        with pytest.raises(AttributeError):
            augmentation.seed = 1
        # the sample number of frames that no stream drew keys no random numbers
        with pytest.raises(ValueError, match="[Ee]xpected|non-negative"):
            augmentation(raw_frames([-1]))


def test_training_is_augmented_and_validation_is_not(eggs_root, cache_dir):
    values = {"state__preset": "top32", "eval__horizon_s": 0.3}
    plain = prepare(tiny_trial(eggs_root, cache_dir, **values))
    changed = prepare(tiny_trial(eggs_root, cache_dir, augment__gripper_jitter_m=0.02, **COLORS, **values))
    before, after = (t.maker.training(t.stream, 0, 8) for t in (plain, changed))
    positions = [changed.learner.interface.selection.indices.index(dim) for dim in EEF]
    difference = (after.state - before.state).numpy()
    assert np.abs(difference[:, positions]).max() <= 0.02 + 1e-6
    assert (difference[:, positions] != 0).all()
    assert not np.delete(difference, positions, axis=1).any()
    assert len(before.images) == 3
    for old, new in zip(before.images, after.images, strict=True):
        assert all((new[i] != old[i]).any() for i in range(8))
        assert new.dtype == torch.uint8
    for name in ("rows", "action", "noise", "time", "is_pad"):
        assert getattr(before, name).equal(getattr(after, name))
    rows = plain.frames.critical[:4]
    noise, time = np.zeros((4, 10, 32), np.float32), np.zeros(4, np.float32)
    recorded, scored = (t.maker.validation(rows, noise, time) for t in (plain, changed))
    assert recorded.state.equal(scored.state)
    assert all(a.equal(b) for a, b in zip(recorded.images, scored.images, strict=True))
    # the statistics of the normaliser are of the recorded state too
    assert plain.learner.interface.to_dict() == changed.learner.interface.to_dict()


def test_the_batch_size_changes_no_sample(eggs_root, cache_dir):
    values = {"state__preset": "top32", "eval__horizon_s": 0.3, "augment__gripper_jitter_m": 0.02, **COLORS}
    trial = prepare(tiny_trial(eggs_root, cache_dir, augment__color_same_draw=False, **values))
    whole = trial.maker.training(trial.stream, 0, 6)
    late = trial.maker.training(trial.stream, 4, 2)
    assert whole.slice(4, 6).state.equal(late.state)
    assert all(a.equal(b) for a, b in zip(whole.slice(4, 6).images, late.images, strict=True))


def test_they_are_applied_in_order():
    frames = raw_frames([0])

    def record(name):
        return lambda frames: replace(frames, rows=np.append(frames.rows, name))

    assert augment(frames, (record(1), record(2))).rows.tolist() == [100, 1, 2]
