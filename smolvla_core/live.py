"""Live observations of BEHAVIOR's R1Pro: what its evaluator, and the egg garden, hand to a policy.

Names: BEHAVIOR-1K ``omnigibson/learning/utils/eval_utils.py``, of a robot called ``robot_r1``. The
2026 evaluator puts a dim for its robots before every value; the 2025 one has one robot and no such dim.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from smolvla_core.r1pro import ACTION_WIDTH, RELEASES
from smolvla_core.state import key_columns, layout_width

PROPRIOCEPTION = "robot_r1::proprio"
CAMERAS: Mapping[str, str] = {
    "head": "robot_r1::robot_r1:zed_link:Camera:0::rgb",
    "left_wrist": "robot_r1::robot_r1:left_realsense_link:Camera:0::rgb",
    "right_wrist": "robot_r1::robot_r1:right_realsense_link:Camera:0::rgb",
}
"""Which camera it is -> its key."""
OBJECT_POSES = "task_info"
"""Last part of the key of object poses, where an environment gives them."""
CONTROL_HZ = 30
"""Actions a second."""

_OTHER_PICTURES = ("depth", "seg", "seg_instance_id")


class ObservationError(ValueError):
    """An observation that a policy cannot act on; one line that says why."""


@dataclass(frozen=True)
class Observation:
    """What one robot sees.

    Attributes:
        state: raw proprioception (R,) float32.
        pictures: camera -> (height, width, 3) uint8.
        object_poses: (Q,) float32 where they are given.
    """

    state: NDArray[np.float32]
    pictures: Mapping[str, NDArray[np.uint8]]
    object_poses: NDArray[np.float32] | None = None


def observed(live: Mapping[Any, Any], cameras: Sequence[str]) -> tuple[list[Observation], bool]:
    """The observations of each robot in a live one, and whether it has a dim for robots.

    Args:
        live: flat, by BEHAVIOR's keys; keys that are not known are left.
        cameras: those of :data:`CAMERAS` that are wanted.

    Raises:
        ObservationError: a key is missing, or its value is not of the form.
    """
    state = _value(live, PROPRIOCEPTION)
    if state.ndim not in (1, 2) or state.size == 0 or state.dtype.kind != "f":
        raise ObservationError(f"'{PROPRIOCEPTION}' is {_form(state)}; it must be numbers of shape (R,) or (robots, R)")
    if not np.isfinite(state).all():
        raise ObservationError(
            f"'{PROPRIOCEPTION}' holds {int((~np.isfinite(state)).sum())} values that are not finite"
        )
    batched = state.ndim == 2
    pictures = {camera: _pictures(live, camera, len(state) if batched else None) for camera in cameras}
    poses = next((np.asarray(v) for k, v in live.items() if str(k).split("::")[-1].endswith(OBJECT_POSES)), None)
    robots = len(state) if batched else 1
    if poses is not None and (not batched or len(poses) != robots):
        poses = poses.reshape(1, -1) if robots == 1 else None
    states = state.astype(np.float32).reshape(robots, -1)
    return [
        Observation(
            states[robot],
            {camera: each[robot] for camera, each in pictures.items()},
            None if poses is None else poses[robot].astype(np.float32),
        )
        for robot in range(robots)
    ], batched


def camera_of(dataset_key: str) -> str | None:
    """Which live camera a dataset's pictures are of: ``observation.images.rgb.head`` -> ``head``.

    None for other robots' cameras, and for what is no picture in colours.
    """
    *before, last = dataset_key.split(".")
    return last if last in CAMERAS and not set(before) & set(_OTHER_PICTURES) else None


def state_of(observation: Observation, width: int) -> NDArray[np.float32]:
    """The raw state as a dataset of this width has it: as it comes, or 2025's in 2026's order.

    Raises:
        ObservationError: neither is possible.
    """
    state, (wide, narrow) = observation.state, (layout_width("2025"), layout_width("2026"))
    if len(state) == width:
        return state
    if (len(state), width) == (wide, narrow):
        return state[[column.dims[0] for column in key_columns(RELEASES["2026"], "2025")]]
    raise ObservationError(f"the state has {len(state)} dims, the policy takes {width}")


def staying_action(observation: Observation) -> NDArray[np.float32]:
    """The action (A,) that keeps an R1Pro where it is: no velocity, and every joint at its position.

    Raises:
        ObservationError: the state is not R1Pro's.
    """
    release = next((name for name in RELEASES if layout_width(name) == len(observation.state)), None)
    if release is None:
        raise ObservationError(f"the state has {len(observation.state)} dims; an R1Pro has 256 or 61")
    keys = ("trunk_qpos", "arm_left_qpos", "gripper_left_opening", "arm_right_qpos", "gripper_right_opening")
    positions = np.array([column(observation.state[None])[0] for column in key_columns(keys, release)], np.float32)
    return np.concatenate([np.zeros(ACTION_WIDTH - len(positions), np.float32), positions])


def _value(live: Mapping[Any, Any], key: str) -> NDArray[Any]:
    if key not in live:
        raise ObservationError(f"the observation has no '{key}'")
    value = live[key]
    if not isinstance(value, np.ndarray):
        raise ObservationError(f"'{key}' is a {type(value).__name__}; it must be an array")
    return value


def _pictures(live: Mapping[Any, Any], camera: str, robots: int | None) -> NDArray[np.uint8]:
    """A camera's pictures (robots, height, width, 3); an alpha channel is left out."""
    key = CAMERAS[camera]
    value = _value(live, key)
    pictures = value if robots is not None else value[None]
    good = pictures.ndim == 4 and pictures.shape[3] in (3, 4) and pictures.dtype == np.uint8 and pictures.size > 0
    if not good or len(pictures) != (robots or 1):
        raise ObservationError(
            f"'{key}' is {_form(value)}; it must be uint8 of shape (height, width, 3 or 4), behind the robots' dim "
            "where the proprioception has one"
        )
    return pictures[..., :3]


def _form(value: NDArray[Any]) -> str:
    return f"{value.dtype} of shape {value.shape}"
