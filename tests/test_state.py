"""R1Pro's state by name, against the published slices."""

import pytest

from smolvla_core.config import StateConfig
from smolvla_core.errors import ConfigError
from smolvla_core.state import RELEASES, forbidden_dims, key_dims, layout_width, select_state, top32_indices

R1PRO = "R1Pro"


def test_top32_is_the_recipe():
    expected = [*range(158, 165), 179, 180, *range(186, 189), 193, 194, *range(197, 204), 218, 219]
    expected += [*range(225, 228), 232, 233, *range(236, 240)]
    assert list(top32_indices()) == expected
    assert len(expected) == 32


@pytest.mark.parametrize(
    ("release", "key", "start", "stop"),
    [
        ("2025", "joint_qeffort", 112, 140),
        ("2025", "robot_2d_ori_sin", 151, 152),
        ("2025", "arm_left_qvel", 179, 186),
        ("2025", "eef_right_quat", 228, 232),
        ("2025", "base_qvel", 253, 256),
        ("2026", "eef_left_pos", 17, 20),
        ("2026", "gripper_right_qpos", 49, 51),
        ("2026", "trunk_qvel", 57, 61),
    ],
)
def test_slices(release, key, start, stop):
    assert RELEASES[release][key] == range(start, stop)


def test_widths():
    assert layout_width("2025") == 256
    assert layout_width("2026") == 61
    assert len(forbidden_dims("2025")) == 39
    assert not forbidden_dims("2026")


def test_a_preset_means_the_same_keys_in_both_releases():
    new = select_state(StateConfig(preset="top32"), 61, R1PRO)
    assert new.width == 32
    assert new.indices[:7] == tuple(RELEASES["2026"]["arm_left_qpos"])


def test_standard217():
    chosen = select_state(StateConfig(preset="standard217"), 256, R1PRO)
    assert chosen.width == 217
    assert not set(chosen.indices) & forbidden_dims("2025")


def test_keys_keep_their_order():
    chosen = select_state(StateConfig(keys=("trunk_qpos", "base_qvel")), 256, R1PRO)
    assert chosen.indices == (236, 237, 238, 239, 253, 254, 255)
    assert key_dims(("base_qvel",), "2026") == (0, 1, 2)


def test_identity_suits_any_robot():
    chosen = select_state(StateConfig(preset="identity"), 26, "Unitree_G1")
    assert chosen.keeps_everything
    assert chosen.release is None


@pytest.mark.parametrize(
    ("config", "width", "robot", "message"),
    [
        (StateConfig(preset="top32"), 26, "Unitree_G1", "set state.preset to identity"),
        (StateConfig(preset="top32"), 30, R1PRO, "needs an R1Pro state of 256"),
        (StateConfig(preset="all"), 256, R1PRO, "forbidden in the standard track"),
        (StateConfig(keys=("robot_pos",)), 256, R1PRO, "dim 140 \\('robot_pos'\\)"),
        (StateConfig(keys=("trunk_qpso",)), 256, R1PRO, "did you mean 'trunk_qpos'"),
        (StateConfig(indices=(0, 300)), 256, R1PRO, "300 is outside the raw state's 0..255"),
        (StateConfig(indices=(160, 160)), 256, R1PRO, "listed twice"),
    ],
)
def test_refusals(config, width, robot, message):
    with pytest.raises(ConfigError, match=message):
        select_state(config, width, robot)


def test_open_track_allows_everything():
    assert select_state(StateConfig(preset="all", track="open"), 256, R1PRO).keeps_everything
