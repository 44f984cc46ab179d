"""Whether a dataset can be trained on beside the main one; see ``data.train``."""

import hashlib

import numpy as np
from numpy.typing import NDArray

from smolvla_core.data.dataset import Dataset, Split
from smolvla_core.errors import ConfigError
from smolvla_core.relative import Pairs


def refuse_other_rate(number: int, dataset: Dataset, main: Dataset) -> None:
    """An action must last as long in both: a chunk is so many actions, whatever the dataset.

    Raises:
        ConfigError: with both rates.
    """
    if dataset.fps != main.fps:
        raise ConfigError(
            f"data.train.{number}: {dataset.root} has {dataset.fps} frames a second, the main dataset {main.fps}; one "
            "policy has one rate, import it at the main one's"
        )


def refuse_other_widths(number: int, state: int, action: int, main_state: int, main_action: int) -> None:
    """What the policy sees and does must be as wide in both.

    Raises:
        ConfigError: with both widths.
    """
    for what, width, wanted, way_out in (
        ("state", state, main_state, "choose state.preset or state.keys by names that both have"),
        ("action", action, main_action, "take a dataset of the same robot"),
    ):
        if width != wanted:
            raise ConfigError(
                f"data.train.{number}: gives the policy {width} {what} dims, the main dataset {wanted}; {way_out}"
            )


def refuse_other_relative(number: int, relative: Pairs, main_relative: Pairs) -> None:
    """An action is a way in both or a position in both.

    Raises:
        ConfigError: with the first that differs.
    """
    differ = {action for action, _ in relative} ^ {action for action, _ in main_relative}
    if differ:
        raise ConfigError(
            f"data.train.{number}: action {min(differ)} has the name of a number of the state in this dataset or in "
            "the main one alone, so that it would be relative in one of them; rename it, or set "
            "policy.relative_actions to false"
        )


def refuse_held_out_episodes(number: int, dataset: Dataset, main: Dataset, split: Split) -> None:
    """Episodes that the main task holds out would be trained on under another name.

    Raises:
        ConfigError: an episode of ``dataset`` has the actions of a held-out one.
    """
    held_out = (*split.val, *split.test)
    lengths = {int(main.lengths[episode]) for episode in held_out}
    known = {_digest(main.action[main.rows_of((episode,))]): episode for episode in held_out}
    for episode, length in enumerate(dataset.lengths):
        if int(length) not in lengths:
            continue
        same = known.get(_digest(dataset.action[dataset.rows_of((episode,))]))
        if same is not None:
            raise ConfigError(
                f"data.train.{number}: episode {episode} of {dataset.root} is the main dataset's episode {same}, which "
                "is held out to score trials; remove the dataset, or that episode from it"
            )


def _digest(actions: NDArray[np.float32]) -> bytes:
    return hashlib.blake2b(actions.tobytes(), digest_size=16).digest()
