"""Proprioception by name: which raw state dims the policy sees.

BEHAVIOR-1K publishes R1Pro's proprioception in two releases with different widths. A preset is a
list of *keys*, resolved to raw dims by the release, so the same preset means the same quantities
in both. Layouts: BEHAVIOR-1K ``omnigibson/learning/utils/eval_utils.py``.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

from smolvla_core.config import StateConfig, suggest
from smolvla_core.errors import ConfigError


def _layout(*entries: tuple[str, int]) -> Mapping[str, range]:
    layout, start = {}, 0
    for key, width in entries:
        layout[key] = range(start, start + width)
        start += width
    return MappingProxyType(layout)


RELEASES: Mapping[str, Mapping[str, range]] = MappingProxyType(
    {
        "2025": _layout(
            ("joint_qpos", 28),
            ("joint_qpos_sin", 28),
            ("joint_qpos_cos", 28),
            ("joint_qvel", 28),
            ("joint_qeffort", 28),
            ("robot_pos", 3),
            ("robot_ori_cos", 3),
            ("robot_ori_sin", 3),
            ("robot_2d_ori", 1),
            ("robot_2d_ori_cos", 1),
            ("robot_2d_ori_sin", 1),
            ("robot_lin_vel", 3),
            ("robot_ang_vel", 3),
            ("arm_left_qpos", 7),
            ("arm_left_qpos_sin", 7),
            ("arm_left_qpos_cos", 7),
            ("arm_left_qvel", 7),
            ("eef_left_pos", 3),
            ("eef_left_quat", 4),
            ("gripper_left_qpos", 2),
            ("gripper_left_qvel", 2),
            ("arm_right_qpos", 7),
            ("arm_right_qpos_sin", 7),
            ("arm_right_qpos_cos", 7),
            ("arm_right_qvel", 7),
            ("eef_right_pos", 3),
            ("eef_right_quat", 4),
            ("gripper_right_qpos", 2),
            ("gripper_right_qvel", 2),
            ("trunk_qpos", 4),
            ("trunk_qvel", 4),
            ("base_qpos", 3),
            ("base_qpos_sin", 3),
            ("base_qpos_cos", 3),
            ("base_qvel", 3),
        ),
        "2026": _layout(
            ("base_qvel", 3),
            ("arm_left_qpos", 7),
            ("arm_left_qvel", 7),
            ("eef_left_pos", 3),
            ("eef_left_quat", 4),
            ("gripper_left_qpos", 2),
            ("gripper_left_qvel", 2),
            ("arm_right_qpos", 7),
            ("arm_right_qvel", 7),
            ("eef_right_pos", 3),
            ("eef_right_quat", 4),
            ("gripper_right_qpos", 2),
            ("gripper_right_qvel", 2),
            ("trunk_qpos", 4),
            ("trunk_qvel", 4),
        ),
    }
)

WHOLE = None
FORBIDDEN: Mapping[str, int | None] = MappingProxyType(
    {
        "joint_qpos": 6,
        "joint_qpos_sin": 6,
        "joint_qpos_cos": 6,
        "robot_pos": WHOLE,
        "robot_ori_cos": WHOLE,
        "robot_ori_sin": WHOLE,
        "robot_2d_ori": WHOLE,
        "robot_2d_ori_cos": WHOLE,
        "robot_2d_ori_sin": WHOLE,
        "base_qpos": WHOLE,
        "base_qpos_sin": WHOLE,
        "base_qpos_cos": WHOLE,
    }
)
"""What the challenge's standard track forbids: the key's first dims, or all of it."""

TOP32: tuple[tuple[str, int], ...] = (
    ("arm_left_qpos", 7),
    ("arm_left_qvel", 2),
    ("eef_left_pos", 3),
    ("gripper_left_qpos", 2),
    ("arm_right_qpos", 7),
    ("arm_right_qvel", 2),
    ("eef_right_pos", 3),
    ("gripper_right_qpos", 2),
    ("trunk_qpos", 4),
)
"""The recipe's 32 dims: a key and how many of its first dims."""

GRIPPER_KEYS = ("gripper_left_qpos", "gripper_right_qpos")
EEF_POSITION_KEYS = ("eef_left_pos", "eef_right_pos")


@dataclass(frozen=True)
class StateSelection:
    """Raw dims in the order the policy sees them, and where they came from."""

    indices: tuple[int, ...]
    raw_width: int
    release: str | None

    @property
    def width(self) -> int:
        """Number of dims the policy sees, S."""
        return len(self.indices)

    @property
    def keeps_everything(self) -> bool:
        """Whether the selection is the raw state itself."""
        return self.indices == tuple(range(self.raw_width))


def release_of(raw_width: int, robot_type: str | None) -> str | None:
    """The BEHAVIOR release of an R1Pro dataset by its state's width, else None."""
    if robot_type is None or robot_type.lower().replace("_", "") != "r1pro":
        return None
    widths = {layout_width(release): release for release in RELEASES}
    return widths.get(raw_width)


def layout_width(release: str) -> int:
    """Width of a release's raw state."""
    return max(dims.stop for dims in RELEASES[release].values())


def key_dims(keys: Sequence[str], release: str) -> tuple[int, ...]:
    """Raw dims of named keys, in the keys' order.

    Raises:
        ConfigError: a key the release lacks, with the nearest that it has.
    """
    layout = RELEASES[release]
    for key in keys:
        if key not in layout:
            raise ConfigError(f"state.keys: release {release} has no '{key}'{suggest(key, layout)}")
    return tuple(dim for key in keys for dim in layout[key])


def forbidden_dims(release: str) -> frozenset[int]:
    """Raw dims that the standard track forbids."""
    layout = RELEASES[release]
    return frozenset(dim for key, count in FORBIDDEN.items() if key in layout for dim in layout[key][:count])


def top32_indices(release: str = "2025") -> tuple[int, ...]:
    """The 32 raw dims of the recipe, ascending in the 2025 release."""
    layout = RELEASES[release]
    return tuple(dim for key, count in TOP32 for dim in layout[key][:count])


def select_state(config: StateConfig, raw_width: int, robot_type: str | None) -> StateSelection:
    """Resolve a configuration against a dataset's raw state.

    Args:
        config: preset, explicit keys or explicit dims.
        raw_width: width of the dataset's ``observation.state``.
        robot_type: ``robot_type`` of the dataset's ``info.json``.

    Raises:
        ConfigError: unknown key, dim out of range, a preset that needs BEHAVIOR's layout, or a
            dim that the standard track forbids.
    """
    release = release_of(raw_width, robot_type)
    indices = _resolve(config, raw_width, release, robot_type)
    out_of_range = [dim for dim in indices if not 0 <= dim < raw_width]
    if out_of_range:
        raise ConfigError(
            f"state.indices: {out_of_range[0]} is outside the raw state's 0..{raw_width - 1}; give dims within it"
        )
    if len(set(indices)) < len(indices):
        raise ConfigError("state.indices: a dim is listed twice; list each once")
    if release is not None and config.track == "standard":
        _refuse_forbidden(indices, release)
    return StateSelection(indices, raw_width, release)


def _resolve(config: StateConfig, raw_width: int, release: str | None, robot_type: str | None) -> tuple[int, ...]:
    if config.indices:
        return config.indices
    if not config.keys and config.preset in ("all", "identity"):
        return tuple(range(raw_width))
    if release is None:
        wanted = "state.keys" if config.keys else f"state.preset '{config.preset}'"
        raise ConfigError(
            f"{wanted} needs an R1Pro state of 256 (2025) or 61 (2026) dims, the dataset's robot_type is "
            f"{robot_type!r} and its state has {raw_width}; set state.preset to identity or give state.indices"
        )
    if config.keys:
        return key_dims(config.keys, release)
    if config.preset == "top32":
        return top32_indices(release)
    forbidden = forbidden_dims(release)
    return tuple(dim for dim in range(raw_width) if dim not in forbidden)


def _refuse_forbidden(indices: Sequence[int], release: str) -> None:
    taken = sorted(forbidden_dims(release) & set(indices))
    if not taken:
        return
    key = next(key for key, dims in RELEASES[release].items() if taken[0] in dims)
    others = f" and {len(taken) - 1} more are" if len(taken) > 1 else " is"
    raise ConfigError(
        f"state: dim {taken[0]} ('{key}'){others} forbidden in the standard track; "
        "choose other dims or set state.track to open"
    )
