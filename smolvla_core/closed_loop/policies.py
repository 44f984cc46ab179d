"""Who acts in an evaluation: a policy that is loaded, one behind a server, or nobody.

Each is asked for all environments at once, and answers with as many actions as it decides ahead.
"""

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from smolvla_core.acting import Actor, asked_noise
from smolvla_core.closed_loop.environment import Live
from smolvla_core.errors import DataError
from smolvla_core.live import Observation, ObservationError, observed, staying_action
from smolvla_core.serve.client import PolicyClient
from smolvla_core.serve.session import NOISE_KEY

ROWS, ROWS_ON_GPU = 8, 32
"""Robots of one forward pass, always: how a kernel rounds may depend on the size of its input, and what a
robot does must not depend on how many others there are."""
WAIT_S = 20.0
"""How long a server that does not answer yet is waited for, in seconds: it may be loading its policy."""


@dataclass(frozen=True)
class Request:
    """An environment that waits to be told what to do: its slot, the instance, how many chunks it has had."""

    slot: int
    instance: int
    chunk: int
    live: Live


class ChunkPolicy(Protocol):
    """Decides some steps ahead."""

    sees: bool
    """Whether it looks at pictures."""

    def chunks(self, requests: Sequence[Request]) -> list[NDArray[np.float32]]:
        """What to do, (steps, A) for each, in the order of the requests.

        Raises:
            UserError: an observation does not suit it.
        """

    def describe(self) -> dict[str, Any]:
        """What is recorded of it."""

    def close(self) -> None:
        """Free what it holds."""


@dataclass
class ActorPolicy:
    """A loaded policy. Its noise is a pure function of (seed, instance, chunk).

    ``blind``: it is shown black pictures, which tells what it achieves without looking.
    """

    actor: Actor
    seed: int = 0
    blind: bool = False
    sees: bool = field(default=True, init=False)

    def chunks(self, requests: Sequence[Request]) -> list[NDArray[np.float32]]:
        """See :class:`ChunkPolicy`."""
        rows = ROWS_ON_GPU if self.actor.device.type == "cuda" else ROWS
        found: list[NDArray[np.float32]] = []
        for start in range(0, len(requests), rows):
            part = requests[start : start + rows]
            observations = [_observation(self.actor, request) for request in part]
            if self.blind:
                observations = [_blinded(each) for each in observations]
            noise = self.actor.noise([asked_noise(0, self.seed, each.instance, each.chunk) for each in part])
            padding = rows - len(part)
            with _as_data_error():
                chunks = self.actor.chunks(
                    observations + observations[-1:] * padding, np.concatenate([noise, noise[-1:].repeat(padding, 0)])
                )
            found += list(chunks[: len(part)])
        return found

    def describe(self) -> dict[str, Any]:
        """See :class:`ChunkPolicy`."""
        actor = self.actor
        return {
            "policy": actor.name,
            "n_action_steps": actor.n_action_steps,
            "chunk_size": actor.chunk_size,
            "hold": actor.hold,
            "instruction": actor.instruction,
            "blind": self.blind,
        }

    def close(self) -> None:
        """Nothing is held."""


@dataclass
class StayingPolicy:
    """Keeps every joint where it was when the episode began: what is achieved by doing nothing."""

    steps: int = 30
    sees: bool = field(default=False, init=False)
    _staying: dict[int, NDArray[np.float32]] = field(default_factory=dict, init=False)

    def chunks(self, requests: Sequence[Request]) -> list[NDArray[np.float32]]:
        """See :class:`ChunkPolicy`."""
        for request in requests:
            if request.chunk == 0:
                with _as_data_error():
                    self._staying[request.slot] = staying_action(observed(request.live, ())[0][0])
        return [np.tile(self._staying[request.slot], (self.steps, 1)) for request in requests]

    def describe(self) -> dict[str, Any]:
        """See :class:`ChunkPolicy`."""
        return {"policy": "nothing"}

    def close(self) -> None:
        """Nothing is held."""


class ServedPolicy:
    """A policy behind a server, asked at every step: a connection a slot, all of them at once.

    Args:
        url: of the server.
        api_key: where it asks for one.
        seed: of the noise, where the server lets its clients choose it.

    Raises:
        PolicyServerError: no server answers.
    """

    sees = True

    def __init__(self, url: str, api_key: str | None = None, seed: int = 0):
        self._url, self._api_key, self._seed = url, api_key, seed
        self._clients: dict[int, PolicyClient] = {0: PolicyClient(url, api_key, WAIT_S)}
        self._metadata = self._clients[0].metadata
        self._pool = ThreadPoolExecutor(64, thread_name_prefix="client")

    def chunks(self, requests: Sequence[Request]) -> list[NDArray[np.float32]]:
        """See :class:`ChunkPolicy`."""
        for request in requests:
            if request.slot not in self._clients:
                self._clients[request.slot] = PolicyClient(self._url, self._api_key)
        return list(self._pool.map(self._ask, requests))

    def describe(self) -> dict[str, Any]:
        """See :class:`ChunkPolicy`."""
        plain = {key: value for key, value in self._metadata.items() if isinstance(value, str | int | float | list)}
        return {"policy": self._url, "server": {str(key): value for key, value in plain.items()}}

    def close(self) -> None:
        """Leave the server."""
        for client in self._clients.values():
            client.close()
        self._pool.shutdown()

    def _ask(self, request: Request) -> NDArray[np.float32]:
        client = self._clients[request.slot]
        message: Mapping[str, Any] = request.live
        if self._metadata.get(NOISE_KEY):
            steps = int(self._metadata["n_action_steps"]) * int(self._metadata["hold"])
            message = {**message, NOISE_KEY: [self._seed, request.instance, request.chunk // steps]}
        if request.chunk == 0:
            client.reset()
        action = client.act(message)
        return action.reshape(1, -1)


def _observation(actor: Actor, request: Request) -> Observation:
    with _as_data_error():
        return observed(request.live, tuple(actor.cameras))[0][0]


def _blinded(observation: Observation) -> Observation:
    return replace(observation, pictures={key: np.zeros_like(shown) for key, shown in observation.pictures.items()})


@contextlib.contextmanager
def _as_data_error() -> Iterator[None]:
    """An observation that does not suit a policy is a mistake of whoever brought the two together."""
    try:
        yield
    except ObservationError as error:
        raise DataError(f"the environment does not suit the policy: {error}") from None
