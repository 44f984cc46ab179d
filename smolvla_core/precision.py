"""What the mean error hides: each part of the robot, how near the hands come, when the grippers move.

For an R1Pro's action, whose dims are known by name; of another robot nothing is said here.

Legend: F frames, K draws of noise, T scored steps, A action dims, G grippers.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from smolvla_core.data.dataset import Dataset
from smolvla_core.kinematics import HandChain
from smolvla_core.objective import frame_errors
from smolvla_core.r1pro import ACTION, ACTION_GROUPS, ACTION_WIDTH
from smolvla_core.state import release_of

Actions = NDArray[np.float32]

GRIPPER_MIDDLE = 0.0
"""A gripper's command is -1 closed to 1 open."""


def knows_action(dataset: Dataset) -> bool:
    """Whether the action's dims are R1Pro's."""
    release = release_of(dataset.state.shape[1], dataset.robot_type)
    return release is not None and dataset.action.shape[1] == ACTION_WIDTH


def group_dims(group: str) -> list[int]:
    """Action dims of one of ``ACTION_GROUPS``."""
    return [dim for part in ACTION_GROUPS[group] for dim in ACTION[part]]


def group_errors(
    predicted: Actions, actual: Actions, is_pad: NDArray[np.bool_], scale: NDArray[np.float64]
) -> dict[str, NDArray[np.float64]]:
    """Part of the robot -> each frame's mean squared error (F,) over its dims; as ``frame_errors``."""
    return {
        group: frame_errors(predicted[..., dims], actual[..., dims], is_pad, scale[dims])
        for group, dims in ((group, group_dims(group)) for group in ACTION_GROUPS)
    }


def eef_errors(
    predicted: Actions, actual: Actions, is_pad: NDArray[np.bool_], hands: Sequence[HandChain]
) -> NDArray[np.float64]:
    """How far from the demonstrated place the hands are sent, (F,): metres, the mean over draws, steps and hands.

    Places are in the robot's frame: what the base does wrong is not in it.
    """
    valid = np.broadcast_to(~is_pad[:, None], predicted.shape[:3])
    apart = [np.linalg.norm(hand(predicted) - hand(actual)[:, None], axis=-1) for hand in hands]
    distance = np.mean(apart, axis=0)
    errors: NDArray[np.float64] = (distance * valid).sum(axis=(1, 2)) / valid.sum(axis=(1, 2))
    return errors


def gripper_timing_errors(
    predicted: Actions, actual: Actions, is_pad: NDArray[np.bool_], step_s: float
) -> NDArray[np.float64]:
    """Seconds between the demonstrated and the predicted moment of a gripper's opening or closing.

    A moment is the first step at which a gripper's command is on the other side of its middle than at
    the first step; of a prediction, the first at which it is on that same side. One that never gets
    there is as late as the last scored step and one more. A motion that is predicted where there is
    none is not counted.

    Args:
        predicted: (F, K, T, A).
        actual: (F, T, A).
        is_pad: (F, T) true past the episode's end.
        step_s: from a scored step to the next.

    Returns:
        (F,) mean over draws and the grippers that move; NaN where none does.
    """
    dims = group_dims("grippers")
    valid = ~is_pad
    steps = valid.sum(axis=1)
    opens = actual[..., dims] > GRIPPER_MIDDLE  # (F, T, G)
    moved = (opens != opens[:, :1]) & valid[..., None]
    target = ~opens[:, 0]  # (F, G) the side that it moves to
    reached = ((predicted[..., dims] > GRIPPER_MIDDLE) == target[:, None, None]) & valid[:, None, :, None]
    moment = moved.argmax(axis=1)  # (F, G)
    found = np.where(reached.any(axis=2), reached.argmax(axis=2), steps[:, None, None])  # (F, K, G)
    late = np.abs(found - moment[:, None]).mean(axis=1) * step_s  # (F, G)
    moves = moved.any(axis=1)
    count = moves.sum(axis=1)
    total = (late * moves).sum(axis=1)
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)
