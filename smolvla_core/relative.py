"""Actions as differences to where the robot is when a chunk begins (``policy.relative_actions``).

A joint that is to be at a position is predicted as the way from where it stands in the chunk's first frame, and
given out as a position again: openpi's delta actions, lerobot's ``RelativeActionsProcessorStep``. Where joints move
slowly the way is small beside their whole range, so that the same step of the loss is a finer difference of
positions. Velocities and grippers stay as they are.

Legend: B frames, T actions of a chunk, A action dims, R raw state dims.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from lerobot.lerobot_types import EnvTransition, TransitionKey
from lerobot.processor import AbsoluteActionsProcessorStep, RelativeActionsProcessorStep, to_relative_actions
from numpy.typing import NDArray
from torch import Tensor

from smolvla_core.data.dataset import MIN_STD, Dataset, Moments
from smolvla_core.data.keys import ACTION, STATE, dim_names
from smolvla_core.errors import ConfigError
from smolvla_core.r1pro import ACTION as R1PRO_ACTION
from smolvla_core.r1pro import ACTION_WIDTH
from smolvla_core.state import key_dims, release_of

Pairs = tuple[tuple[int, int], ...]
"""(action dim, the raw state dim that it is relative to)."""

_PARTS = ("trunk", "arm_left", "arm_right")
_NO_POSITION = re.compile(r"gripper|velocity|(^|[^a-z])vel([^a-z]|$)")
"""In the name of an action that stays absolute."""
_FRAMES_AT_MOST, _FRAMES_AT_ONCE = 20_000, 2_048


def resolve_pairs(dataset: Dataset) -> Pairs:
    """An R1Pro's trunk and arms; of another robot the actions that have the name of a number of its state.

    Raises:
        ConfigError: there is none.
    """
    release = release_of(dataset.state.shape[1], dataset.robot_type)
    if release is not None and dataset.action.shape[1] == ACTION_WIDTH:
        dims = (key_dims((f"{part}_qpos",), release) for part in _PARTS)
        return tuple(
            pair
            for part, state in zip(_PARTS, dims, strict=True)
            for pair in zip(R1PRO_ACTION[part], state, strict=True)
        )
    widths = (ACTION, dataset.action.shape[1]), (STATE, dataset.state.shape[1])
    actions, states = (dim_names(dataset.meta.features[key])[:width] for key, width in widths)
    found = tuple(
        (dim, states.index(name))
        for dim, name in enumerate(actions)
        if name in states and not _NO_POSITION.search(name.lower())
    )
    if not found:
        raise ConfigError(
            f"policy.relative_actions: no action of {dataset.root} has the name of a number of its state (names in "
            "meta/info.json); set false"
        )
    return found


def anchors(pairs: Pairs, raw: NDArray[np.float32], width: int) -> NDArray[np.float32]:
    """What actions are relative to, (B, A), in raw states (B, R): 0 where they are absolute."""
    found = np.zeros((len(raw), width), dtype=np.float32)
    if pairs:
        actions, states = map(list, zip(*pairs, strict=True))
        found[:, actions] = raw[:, states]
    return found


def chunk_moments(
    dataset: Dataset, rows: NDArray[np.int64], pairs: Pairs, absolute: Moments, steps: int, stride: int
) -> Moments:
    """Moments (A,) of what is learned: of relative actions over all steps of the chunks that begin in some rows.

    Args:
        dataset: the dataset.
        rows: those that are trained on; at most 20,000 of them are looked at, evenly spaced.
        pairs: which actions are relative.
        absolute: the moments of all actions, which those that are not keep.
        steps: actions of a chunk, T.
        stride: recorded frames from one to the next.
    """
    if not pairs:
        return absolute
    some = rows[np.linspace(0, len(rows) - 1, min(len(rows), _FRAMES_AT_MOST)).astype(np.int64)]
    width = dataset.action.shape[1]
    count, total, squares = 0, np.zeros(width), np.zeros(width)
    low, high = np.full(width, np.inf), np.full(width, -np.inf)
    for start in range(0, len(some), _FRAMES_AT_ONCE):
        block = some[start : start + _FRAMES_AT_ONCE]
        chunks = dataset.chunk_actions(block, steps, stride) - anchors(pairs, dataset.state[block], width)[:, None]
        within = chunks[~dataset.chunk_rows(block, steps, stride)[1]].astype(np.float64)
        count, total, squares = count + len(within), total + within.sum(axis=0), squares + np.square(within).sum(axis=0)
        low, high = np.minimum(low, within.min(axis=0)), np.maximum(high, within.max(axis=0))
    mean = total / count
    std = np.sqrt(np.maximum(squares / count - np.square(mean), 0.0))
    relative = np.isin(np.arange(width), [dim for dim, _ in pairs])
    own = {"mean": mean, "std": np.where(std < MIN_STD, 1.0, std), "min": low, "max": high}
    return Moments(**{name: np.where(relative, values, getattr(absolute, name)) for name, values in own.items()})


@dataclass
class AnchorStep(RelativeActionsProcessorStep):
    """Remembers where a robot stands whose state is in another order than its actions.

    A saved pre-processor names it by its import path. The other half, which makes positions of what was predicted,
    is lerobot's own ``AbsoluteActionsProcessorStep``.

    Args:
        pairs: :data:`Pairs`, as lists.
        width: number of action dims.
    """

    pairs: Sequence[Sequence[int]] = ()
    width: int = 0
    _registry_name: ClassVar[None] = None  # lerobot would save the step as the one that it is made of

    def __call__(self, transition: EnvTransition) -> EnvTransition:
        """Keep what the state says of the actions' joints; actions that are given become relative to it."""
        state: Tensor | None = (transition.get(TransitionKey.OBSERVATION) or {}).get(STATE)
        if state is None:
            return transition
        actions, states = map(list, zip(*self.pairs, strict=True))
        found = state.new_zeros(*state.shape[:-1], self.width)
        found[..., actions] = state[..., states]
        self._last_state = found
        action = transition.get(TransitionKey.ACTION)
        if action is None:
            return transition
        changed = transition.copy()
        changed[TransitionKey.ACTION] = to_relative_actions(action, found, [True] * self.width)
        return changed

    def get_config(self) -> dict[str, Any]:
        """What a saved pre-processor keeps of the step."""
        return {"enabled": True, "pairs": [list(pair) for pair in self.pairs], "width": self.width}


def acting_steps(
    pairs: Pairs, width: int, raw_width: int
) -> tuple[RelativeActionsProcessorStep, AbsoluteActionsProcessorStep]:
    """For the beginning of a policy's pre-processor and the end of its post-processor.

    Both are lerobot's own where state and actions have one order (:func:`is_stock`).

    Args:
        pairs: which actions are relative, and to what.
        width: action dims, A.
        raw_width: raw state dims, R.
    """
    before: RelativeActionsProcessorStep
    if is_stock(pairs, width, raw_width):
        relative = {dim for dim, _ in pairs}
        kinds = ["relative" if dim in relative else "absolute" for dim in range(width)]
        before = RelativeActionsProcessorStep(enabled=True, exclude_joints=["absolute"], action_names=kinds)
    else:
        before = AnchorStep(enabled=True, pairs=pairs, width=width)
    return before, AbsoluteActionsProcessorStep(enabled=True, relative_step=before)


def is_stock(pairs: Pairs, width: int, raw_width: int) -> bool:
    """Whether lerobot's own step knows them: each action has the place of the number that it is relative to."""
    return width <= raw_width and all(action == state for action, state in pairs)
