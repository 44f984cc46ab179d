"""R1Pro's state by name, against the published slices."""

import numpy as np
import pytest

from smolvla_core.config import StateConfig
from smolvla_core.errors import ConfigError
from smolvla_core.r1pro import RELEASES
from smolvla_core.state import forbidden_dims, key_dims, layout_width, select_state

R1PRO = "R1Pro"


def test_top32_is_the_recipe():
    expected = [*range(158, 165), 179, 180, *range(186, 189), 193, 194, *range(197, 204), 218, 219]
    expected += [*range(225, 228), 232, 233, *range(236, 240)]
    assert list(select_state(StateConfig(), 256, R1PRO).indices) == expected
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


TRUNK_25, TRUNK_26 = range(236, 240), range(53, 57)


@pytest.mark.parametrize(
    ("preset", "release_2025", "release_2026"),
    [
        (
            "top31_base",
            [*range(158, 165), *range(186, 189), 193, 194, *range(197, 204), *range(225, 228), 232, 233]
            + [*TRUNK_25, 253, 254, 255],
            [*range(3, 10), *range(17, 20), 24, 25, *range(28, 35), *range(42, 45), 49, 50, *TRUNK_26, 0, 1, 2],
        ),
        (
            "winner23",
            [253, 254, 255, *TRUNK_25, *range(158, 165), (193, 194), *range(197, 204), (232, 233)],
            [0, 1, 2, *TRUNK_26, *range(3, 10), (24, 25), *range(28, 35), (49, 50)],
        ),
        (
            "top32",
            [*range(158, 165), 179, 180, *range(186, 189), 193, 194, *range(197, 204), 218, 219]
            + [*range(225, 228), 232, 233, *TRUNK_25],
            [*range(3, 10), 10, 11, *range(17, 20), 24, 25, *range(28, 35), 35, 36, *range(42, 45), 49, 50, *TRUNK_26],
        ),
    ],
)
def test_a_preset_means_the_same_keys_in_both_releases(preset, release_2025, release_2026):
    for width, expected in ((256, release_2025), (61, release_2026)):
        chosen = select_state(StateConfig(preset=preset), width, R1PRO)
        assert [c.dims for c in chosen.columns] == [(dim,) if isinstance(dim, int) else dim for dim in expected]


def test_widths_of_the_presets_are_their_names():
    for preset in ("top32", "top31_base", "winner23"):
        width = select_state(StateConfig(preset=preset), 256, R1PRO).width
        assert width == int("".join(filter(str.isdigit, preset)))


@pytest.mark.parametrize(("release", "left", "right"), [(256, (193, 194), (232, 233)), (61, (24, 25), (49, 50))])
def test_a_winners_gripper_is_one_number_in_its_actions_unit(release, left, right):
    chosen = select_state(StateConfig(preset="winner23"), release, R1PRO)
    raw = np.zeros((3, release), dtype=np.float32)
    raw[:, left] = [[0.05, 0.05], [0.0, 0.0], [0.02, 0.03]]
    raw[:, right] = [[0.0, 0.0], [0.05, 0.05], [0.05, 0.04]]
    seen = chosen(raw)
    # the action's order: base 0:3, trunk 3:7, left arm 7:14, left gripper 14, right arm 15:22, right gripper 22
    assert seen[:, 14] == pytest.approx([1, -1, 0], abs=1e-6)
    assert seen[:, 22] == pytest.approx([-1, 1, 0.8], abs=1e-6)
    matrix, offset = chosen.matrix()
    assert matrix[14, left[0]] == 20
    np.testing.assert_allclose(raw @ matrix.T + offset, seen, atol=1e-6)


def test_standard217():
    chosen = select_state(StateConfig(preset="standard217"), 256, R1PRO)
    assert chosen.width == 217
    assert not set(chosen.indices) & forbidden_dims("2025")
    assert select_state(StateConfig(preset="standard217"), 61, R1PRO).keeps_everything


def test_keys_keep_their_order():
    chosen = select_state(StateConfig(keys=("trunk_qpos", "base_qvel")), 256, R1PRO)
    assert chosen.indices == (236, 237, 238, 239, 253, 254, 255)
    assert key_dims(("base_qvel",), "2026") == (0, 1, 2)


def test_keys_can_be_one_text_that_a_search_chooses():
    listed = StateConfig(keys="base_qvel, arm_left_qvel[:2]")
    assert listed.keys == ("base_qvel", "arm_left_qvel[:2]")
    assert listed.preset is None
    assert select_state(listed, 256, R1PRO).indices == (253, 254, 255, 179, 180)


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
        (StateConfig(keys=("joint_qeffort",)), 61, R1PRO, "release 2026 has no 'joint_qeffort'"),
        (StateConfig(keys=("trunk_qpos[:5]",)), 256, R1PRO, "asks for 5 dims; it has 1 to 4"),
        (StateConfig(keys=("trunk_qpos", "trunk_qpos[:1]")), 256, R1PRO, "state.keys: a dim is listed twice"),
        (StateConfig(keys=("observation.task_info",)), 256, R1PRO, "is privileged and no part of the state"),
        (StateConfig(indices=(0, 300)), 256, R1PRO, "300 is outside the raw state's 0..255"),
        (StateConfig(indices=(160, 160)), 256, R1PRO, "listed twice"),
    ],
)
def test_refusals(config, width, robot, message):
    with pytest.raises(ConfigError, match=message):
        select_state(config, width, robot)


def test_open_track_allows_everything():
    assert select_state(StateConfig(preset="all", track="open"), 256, R1PRO).keeps_everything
