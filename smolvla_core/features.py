"""Engineered numbers that are appended to the selected state, computed from the raw observation.

They come after the augmentation, so a jittered dim moves what is made of it. To add one: a class
here, its place in ``FEATURES``, its name in ``config.py``.

Shapes: B frames, R raw state dims, Q dims of ``observation.task_info``, G grippers.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from types import MappingProxyType
from typing import Any, ClassVar, Protocol, Self

import numpy as np
from numpy.typing import NDArray

from smolvla_core.config import DatasetSource, StateConfig
from smolvla_core.errors import ConfigError
from smolvla_core.r1pro import EEF_POSITION_KEYS, GRIPPER_KEYS, JOINTS, RELEASES
from smolvla_core.state import key_dims, robot_pose_dims

Rows = NDArray[np.float32]


class Feature(Protocol):
    """Numbers of a frame: a frozen, pure function of its raw observation."""

    name: ClassVar[str]
    reads_task_info: ClassVar[bool]

    @property
    def width(self) -> int:
        """How many numbers it is."""

    @property
    def dims(self) -> tuple[int, ...]:
        """Raw state dims that it is made of."""

    def __call__(self, raw: Rows, task_info: Rows | None) -> Rows:
        """The numbers (B, width) of raw states (B, R) and object poses (B, Q)."""

    @classmethod
    def resolve(cls, release: str, source: DatasetSource, task_info_width: int | None) -> Self:
        """The feature for a dataset; see :func:`resolve_features`.

        Raises:
            ConfigError: the dataset does not have what it is made of.
        """


@dataclass(frozen=True)
class ContactForce:
    """Mean absolute effort of each gripper's joints, (B, G)."""

    name: ClassVar[str] = "contact_force"
    reads_task_info: ClassVar[bool] = False

    fingers: tuple[tuple[int, ...], ...]
    """Raw dims of each gripper's joint efforts."""

    @property
    def width(self) -> int:
        """One for each gripper."""
        return len(self.fingers)

    @property
    def dims(self) -> tuple[int, ...]:
        """The efforts."""
        return tuple(dim for joints in self.fingers for dim in joints)

    def __call__(self, raw: Rows, task_info: Rows | None) -> Rows:
        """See :class:`Feature`."""
        return np.stack([np.abs(raw[:, list(joints)]).mean(axis=1) for joints in self.fingers], axis=1)

    @classmethod
    def resolve(cls, release: str, source: DatasetSource, task_info_width: int | None) -> Self:
        """See :class:`Feature`."""
        if "joint_qeffort" not in RELEASES[release]:
            raise ConfigError(
                f"state.features: contact_force is made of joint efforts, which the {release} release does not have; "
                "remove it"
            )
        efforts = key_dims(("joint_qeffort",), release)
        joints = (JOINTS[key.removesuffix("_qpos")] for key in GRIPPER_KEYS)
        return cls(tuple(tuple(efforts[place] for place in places) for places in joints))


@dataclass(frozen=True)
class BasketDistance:
    """Distance in metres of each gripper's end effector to the basket, (B, G).

    End-effector positions are in the robot's frame, poses of ``task_info`` in the world (BEHAVIOR-1K
    ``omnigibson/tasks/behavior_task.py``), so the end effectors are taken into the world first. Where
    the basket's position is x and y alone, the distance is that on the ground.
    """

    name: ClassVar[str] = "basket_distance"
    reads_task_info: ClassVar[bool] = True

    hands: tuple[tuple[int, ...], ...]
    """Raw dims of each end effector's position."""
    basket: tuple[int, int]
    """Slice of ``task_info``."""
    robot: tuple[tuple[int, ...], ...]
    """Raw dims of the robot's position, and of the cosines and sines of its roll, pitch and yaw;
    empty where the basket's position is in the robot's frame."""

    @property
    def width(self) -> int:
        """One for each gripper."""
        return len(self.hands)

    @property
    def dims(self) -> tuple[int, ...]:
        """The end effectors' positions and the robot's pose."""
        return tuple(dim for dims in (*self.hands, *self.robot) for dim in dims)

    def __call__(self, raw: Rows, task_info: Rows | None) -> Rows:
        """See :class:`Feature`."""
        assert task_info is not None
        basket = task_info[:, slice(*self.basket)]
        distances = []
        for dims in self.hands:
            hand = raw[:, list(dims)]
            if self.robot:
                position, cos, sin = (raw[:, list(part)] for part in self.robot)
                hand = position + rotate(hand, cos, sin)
            distances.append(np.linalg.norm(hand[:, : basket.shape[1]] - basket, axis=1))
        return np.stack(distances, axis=1).astype(np.float32)

    @classmethod
    def resolve(cls, release: str, source: DatasetSource, task_info_width: int | None) -> Self:
        """See :class:`Feature`."""
        where = source.task_info
        if where is None or where.basket is None or task_info_width is None:
            raise ConfigError(
                "state.features: basket_distance needs the basket's place in observation.task_info; "
                "give it with the dataset, e.g. task_info: {basket: [13, 16]}"
            )
        if where.basket[1] > task_info_width:
            raise ConfigError(
                f"data.train: task_info.basket is {list(where.basket)}, the dataset's observation.task_info has "
                f"{task_info_width} dims; give the slice within it"
            )
        hands = tuple(key_dims((key,), release) for key in EEF_POSITION_KEYS)
        return cls(hands, where.basket, _robot_pose(release) if where.frame == "world" else ())


def rotate(points: Rows, cos: Rows, sin: Rows) -> Rows:
    """``R_z(yaw) R_y(pitch) R_x(roll) @ point`` of points (B, 3).

    Args:
        points: in the rotated frame.
        cos: of roll, pitch and yaw, (B, 3).
        sin: likewise.
    """
    x, y, z = points.T
    y, z = cos[:, 0] * y - sin[:, 0] * z, sin[:, 0] * y + cos[:, 0] * z
    x, z = cos[:, 1] * x + sin[:, 1] * z, -sin[:, 1] * x + cos[:, 1] * z
    x, y = cos[:, 2] * x - sin[:, 2] * y, sin[:, 2] * x + cos[:, 2] * y
    return np.stack([x, y, z], axis=1)


def append_features(state: Rows, features: Sequence[Feature], raw: Rows, task_info: Rows | None) -> Rows:
    """``state`` (B, S) with the features' numbers after it; they are computed from ``raw`` (B, R)."""
    return np.concatenate([state, *(feature(raw, task_info) for feature in features)], axis=1)


FEATURES: Mapping[str, type[Feature]] = MappingProxyType(
    {feature.name: feature for feature in (ContactForce, BasketDistance)}
)


def resolve_features(
    config: StateConfig, release: str | None, source: DatasetSource, task_info_width: int | None
) -> tuple[Feature, ...]:
    """The configuration's features, in its order.

    Args:
        config: their names.
        release: of the dataset's state.
        source: the dataset, with the places of object poses.
        task_info_width: width of its ``observation.task_info``; None where it was not read.

    Raises:
        ConfigError: the dataset does not have what a feature is made of.
    """
    if config.features and release is None:
        raise ConfigError(
            f"state.features: {config.features[0]} needs R1Pro's named state (2025: 256 dims, 2026: 61); remove it"
        )
    return tuple(FEATURES[name].resolve(str(release), source, task_info_width) for name in config.features)


def feature_to_dict(feature: Any) -> dict[str, Any]:
    """Plain values for JSON."""
    return {"name": feature.name, **asdict(feature)}


def feature_from_dict(values: Mapping[str, Any]) -> Feature:
    """The inverse of :func:`feature_to_dict`."""
    return FEATURES[values["name"]](**{key: _frozen(value) for key, value in values.items() if key != "name"})


def _frozen(value: Any) -> Any:
    """Lists of JSON as tuples, at every depth."""
    return tuple(_frozen(item) for item in value) if isinstance(value, list | tuple) else value


def _robot_pose(release: str) -> tuple[tuple[int, ...], ...]:
    dims = robot_pose_dims(release)
    if dims is None:
        raise ConfigError(
            f"state.features: basket_distance needs the robot's own pose, which the {release} release does not have; "
            "remove it, or set task_info.frame to robot if the dataset's poses are relative to it"
        )
    return dims
