"""Changes to training samples. Pure functions; validation never passes through here."""

import numpy as np
from numpy.typing import NDArray

from smolvla_core.config import AugmentConfig
from smolvla_core.errors import ConfigError
from smolvla_core.state import EEF_POSITION_KEYS, StateSelection, key_dims


def jittered_dims(config: AugmentConfig, selection: StateSelection) -> tuple[int, ...]:
    """Raw dims that position jitter moves: the end-effector positions of both arms.

    Raises:
        ConfigError: the jitter would do nothing, because the policy sees no such dim.
    """
    if config.gripper_jitter_m == 0:
        return ()
    if selection.release is None:
        raise ConfigError(
            "augment.gripper_jitter_m: needs R1Pro's named state to find the end-effector positions; set it to 0"
        )
    dims = key_dims(EEF_POSITION_KEYS, selection.release)
    if not set(dims) & set(selection.indices):
        raise ConfigError(
            "augment.gripper_jitter_m: the selected state has no end-effector position, so it would do nothing; "
            "set it to 0 or add eef_left_pos and eef_right_pos to the state"
        )
    return dims


def jitter_positions(
    state: NDArray[np.float32], dims: tuple[int, ...], amount_m: float, draws: NDArray[np.float32]
) -> NDArray[np.float32]:
    """A copy of the raw ``state`` (B, R) with ``dims`` moved by ``amount_m * draws`` metres.

    Args:
        state: raw proprioception (B, R).
        dims: the d dims to move.
        amount_m: half-width of the uniform jitter.
        draws: uniform in [-1, 1), (B, d).
    """
    moved = state.copy()
    moved[:, list(dims)] += amount_m * draws
    return moved
