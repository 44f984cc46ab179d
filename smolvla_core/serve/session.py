"""What a server knows of one client: the actions that its robots have still to do."""

import zlib
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from smolvla_core.acting import Actor, NoiseKey, asked_noise, own_noise
from smolvla_core.live import Observation, observed
from smolvla_core.serve.messages import MessageError

RESET = "reset"
NOISE_KEY = "noise_key"
"""Of an observation, beyond the official protocol: numbers that its noise is made of. An evaluation that
sends them gets the same actions as if it had loaded the policy itself. Announced in the metadata."""

_MOST_KEY_PARTS = 8


@dataclass(frozen=True)
class Asked:
    """An observation message.

    Attributes:
        observations: of each robot.
        batched: it has a dim for robots.
        noise_key: of the noise, where the client gave one.
    """

    observations: Sequence[Observation]
    batched: bool
    noise_key: NoiseKey | None


class Session:
    """The state of one client.

    Args:
        actor: the policy, which all clients share.
        seed: of the noise. Without a ``noise_key`` the noise is a pure function of it, of the
            observation and of how many predictions were made since the last reset, so that a client's
            actions do not depend on the other clients.
    """

    def __init__(self, actor: Actor, seed: int):
        self._actor, self._seed = actor, seed
        self._actions: deque[NDArray[np.float32]] = deque()
        self._robots = 0
        self._predictions = 0

    def reset(self) -> None:
        """Forget what was to be done: an episode begins."""
        self._actions.clear()
        self._predictions = 0

    def read(self, message: Any) -> Asked:
        """What a message asks for.

        Raises:
            MessageError, ObservationError: it is no observation that the policy can act on.
        """
        if not isinstance(message, Mapping):
            raise MessageError(
                f"the message is a {type(message).__name__}; it must be a map, an observation or a reset"
            )
        observations, batched = observed(message, tuple(self._actor.cameras))
        return Asked(observations, batched, _noise_key(message))

    def must_predict(self, asked: Asked) -> bool:
        """Whether nothing is left to do, so that :meth:`predict` comes before :meth:`next`.

        Raises:
            MessageError: there are more or fewer robots than in the message before.
        """
        if self._actions and len(asked.observations) != self._robots:
            raise MessageError(
                f"{len(asked.observations)} robots are in the observation, {self._robots} were in the one before; "
                "reset before their number changes"
            )
        return not self._actions

    def predict(self, asked: Asked) -> None:
        """Ask the policy what to do next."""
        keys = [self._key(asked, robot) for robot in range(len(asked.observations))]
        chunks = self._actor.chunks(asked.observations, self._actor.noise(keys))
        self._robots, self._predictions = len(chunks), self._predictions + 1
        self._actions.extend(chunks.transpose(1, 0, 2))

    def next(self, asked: Asked) -> NDArray[np.float32]:
        """The next action: (A,), or (robots, A) where the observation has a dim for robots."""
        actions = self._actions.popleft()
        return np.ascontiguousarray(actions if asked.batched else actions[0])

    def _key(self, asked: Asked, robot: int) -> NoiseKey:
        if asked.noise_key is not None:
            return asked_noise(self._seed, *asked.noise_key, *([robot] if asked.batched else []))
        return own_noise(self._seed, self._predictions, _digest(asked.observations[robot]))


def _noise_key(message: Mapping[Any, Any]) -> NoiseKey | None:
    key = message.get(NOISE_KEY)
    if key is None:
        return None
    if not isinstance(key, list) or len(key) > _MOST_KEY_PARTS or not all(type(n) is int and n >= 0 for n in key):
        raise MessageError(f"'{NOISE_KEY}' must be a list of at most {_MOST_KEY_PARTS} whole numbers from 0 on")
    return tuple(key)


def _digest(observation: Observation) -> int:
    digest = zlib.crc32(observation.state.tobytes())
    for camera in sorted(observation.pictures):
        digest = zlib.crc32(np.ascontiguousarray(observation.pictures[camera]), digest)
    return digest
