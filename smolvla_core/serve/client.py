"""A client of BEHAVIOR's policy protocol: asks a server for actions, as the official evaluator does."""

import time
from collections.abc import Mapping
from types import TracebackType
from typing import Any, Self
from urllib.parse import urlsplit

import numpy as np
from numpy.typing import NDArray
from websockets.exceptions import ConnectionClosed, InvalidStatus, InvalidURI, WebSocketException
from websockets.sync.client import ClientConnection, connect

from smolvla_core.errors import ConfigError
from smolvla_core.serve.messages import MessageError, pack, unpack

LOOPBACK = ("127.0.0.1", "::1", "localhost")
_BETWEEN_TRIES_S = 0.5


class PolicyServerError(ConfigError):
    """The server is away, refuses, or does not speak the protocol; one line."""


class PolicyClient:
    """A connection to a policy server, of one robot (or of several that act in step).

    Args:
        url: ``ws://host:port`` or ``wss://...``.
        api_key: sent as ``Authorization: Api-Key ...``.
        wait_s: how long to go on trying to connect, in seconds.

    Raises:
        PolicyServerError: nothing answers there, or the key is refused.
    """

    def __init__(self, url: str, api_key: str | None = None, wait_s: float = 0.0):
        self._url = url
        self._connection = _connected(url, api_key, wait_s)
        metadata = self._receive()
        if not isinstance(metadata, Mapping):
            raise PolicyServerError(f"{url}: did not begin with a metadata map; it is no policy server of BEHAVIOR's")
        self.metadata: Mapping[str, Any] = metadata

    def reset(self) -> None:
        """An episode begins."""
        self._send({"reset": True})

    def act(self, observation: Mapping[str, Any]) -> NDArray[np.float32]:
        """The action for a live observation.

        Raises:
            PolicyServerError: the server refused it, or went away.
        """
        self.ask(observation)
        return self.answer()

    def ask(self, observation: Mapping[str, Any]) -> None:
        """Send an observation; :meth:`answer` is to follow. For asking several servers at once."""
        self._send(observation)

    def answer(self) -> NDArray[np.float32]:
        """The action for what was asked."""
        reply = self._receive()
        action = reply.get("action") if isinstance(reply, Mapping) else None
        if not isinstance(action, np.ndarray):
            raise PolicyServerError(f"{self._url}: the reply has no 'action' that is an array")
        return action.astype(np.float32)

    def close(self) -> None:
        """End the connection."""
        self._connection.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _send(self, message: Mapping[str, Any]) -> None:
        try:
            self._connection.send(pack(message))
        except ConnectionClosed as error:
            raise self._gone(error) from None

    def _receive(self) -> Any:
        try:
            data = self._connection.recv()
        except ConnectionClosed as error:
            raise self._gone(error) from None
        if isinstance(data, str):
            raise PolicyServerError(f"{self._url}: the server refused the observation: {data.strip()}")
        try:
            return unpack(data)
        except MessageError as error:
            raise PolicyServerError(f"{self._url}: {error}") from None

    def _gone(self, error: ConnectionClosed) -> PolicyServerError:
        said = f" ({error.rcvd.code} {error.rcvd.reason})" if error.rcvd else ""
        return PolicyServerError(f"{self._url}: the server closed the connection{said}; see what it printed")


def _connected(url: str, api_key: str | None, wait_s: float) -> ClientConnection:
    until = time.monotonic() + wait_s
    headers = {"Authorization": f"Api-Key {api_key}"} if api_key else None
    while True:
        try:
            host = urlsplit(url).hostname
            return connect(
                url,
                compression=None,
                max_size=None,
                additional_headers=headers,
                ping_interval=60,
                ping_timeout=300,
                proxy=None if host in LOOPBACK else True,
            )
        except (InvalidURI, ValueError):  # of a port, or of brackets
            raise PolicyServerError(f"{url}: is no address of a policy server; give ws://HOST:PORT") from None
        except InvalidStatus as error:
            status = error.response.status_code
            why = "it asks for another API key" if status == 401 else f"it answered {status}"
            raise PolicyServerError(f"{url}: the policy server refuses the connection; {why}") from None
        except (OSError, TimeoutError, WebSocketException) as error:
            if time.monotonic() >= until:
                raise PolicyServerError(
                    f"{url}: no policy server answers ({error}); start one with python -m smolvla_core.serve CHECKPOINT"
                ) from None
        time.sleep(_BETWEEN_TRIES_S)
