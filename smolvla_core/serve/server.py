"""The websocket server of BEHAVIOR's policy protocol.

``GET /healthz`` is answered with 200. A client that connects is sent the metadata map. ``{"reset": True}``
gets no reply; every other message is an observation, answered with
``{"action": float32, "server_timing": {"infer_ms": ...}}``. A message that cannot be answered is told
why in a text message, as the official server does when it debugs, and its connection is closed with
code 1011; the other clients are not disturbed. Protocol: BEHAVIOR-1K
``omnigibson/learning/utils/network_utils.py``.
"""

import asyncio
import hmac
import logging
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.exceptions import ConnectionClosed
from websockets.frames import CloseCode
from websockets.http11 import Request, Response

from smolvla_core.acting import Actor
from smolvla_core.errors import ConfigError, DataError
from smolvla_core.live import ObservationError
from smolvla_core.serve.messages import MessageError, pack, unpack
from smolvla_core.serve.session import NOISE_KEY, RESET, Session

HEALTH = "/healthz"
_PING_S, _PONG_S = 60, 300  # as patient as the official client: a prediction on a CPU takes a while
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Address:
    """Where a server listens, and to whom.

    Attributes:
        host: loopback reaches this machine alone.
        port: 0 takes a free one.
        api_key: clients must send it; None: none is asked for.
        max_message_mb: the largest message that is read, in MB (10**6 bytes).
    """

    host: str = "127.0.0.1"
    port: int = 8000
    api_key: str | None = None
    max_message_mb: float = 256


class PolicyServer:
    """Serves one policy to any number of clients, each with its own queue of actions.

    Predictions are made one after the other, in a thread, so that the others' queued actions, health
    checks and pings are not kept waiting.

    Args:
        actor: the policy.
        address: where to listen.
        seed: of the noise; see :class:`smolvla_core.serve.session.Session`.
    """

    def __init__(self, actor: Actor, address: Address, seed: int = 0):
        self._actor, self._address, self._seed = actor, address, seed
        self._predictor = ThreadPoolExecutor(1, thread_name_prefix="policy")

    async def run(self, listening: Callable[[int], None], stop: asyncio.Event) -> None:
        """Serve until ``stop`` is set.

        Args:
            listening: called with the port once clients can connect.
            stop: ends the server, and closes its connections.

        Raises:
            ConfigError: the address cannot be listened on.
        """
        address = self._address
        try:
            server = await serve(
                self._handle,
                address.host,
                address.port,
                compression=None,
                max_size=int(address.max_message_mb * 1e6),
                max_queue=1,  # a client waits for its answer; nothing is read ahead
                ping_interval=_PING_S,
                ping_timeout=_PONG_S,
                process_request=self._admit,
                origins=[None],  # no page that a browser shows may talk to it
            )
        except OSError as error:
            raise ConfigError(
                f"{address.host}:{address.port} cannot be listened on ({error.strerror or error}); "
                "give another --host or --port"
            ) from None
        async with server:
            listening(_port(server))
            await stop.wait()
        self._predictor.shutdown(cancel_futures=True)

    def metadata(self) -> dict[str, Any]:
        """What a client is told first."""
        actor = self._actor
        return {
            "policy": actor.name,
            "instruction": actor.instruction,
            "chunk_size": actor.chunk_size,
            "n_action_steps": actor.n_action_steps,
            "hold": actor.hold,
            "cameras": list(actor.cameras),
            "state_width": actor.state_width,
            NOISE_KEY: True,
        }

    def _admit(self, connection: ServerConnection, request: Request) -> Response | None:
        if request.path == HEALTH:
            return connection.respond(HTTPStatus.OK, "OK\n")
        wanted = self._address.api_key
        given = request.headers.get("Authorization", "")
        if wanted is not None and not hmac.compare_digest(given.encode(), f"Api-Key {wanted}".encode()):
            return connection.respond(HTTPStatus.UNAUTHORIZED, "a valid 'Authorization: Api-Key ...' is needed\n")
        return None

    async def _handle(self, connection: ServerConnection) -> None:
        who = f"{connection.remote_address[0]}:{connection.remote_address[1]}"
        _log.info("%s connected", who)
        session = Session(self._actor, self._seed)
        try:
            await connection.send(pack(self.metadata()))
            while True:
                reply = await self._answer(session, await connection.recv())
                if reply is not None:
                    await connection.send(pack(reply))
        except ConnectionClosed:
            _log.info("%s left", who)
        except (MessageError, ObservationError, DataError) as error:
            await _refuse(connection, who, str(error))
        except Exception as error:  # noqa: BLE001 - one client's trouble must not end the others' server
            _log.exception("%s: a message could not be answered", who)
            await _refuse(connection, who, f"{type(error).__name__}: {error}")

    async def _answer(self, session: Session, data: bytes | str) -> dict[str, Any] | None:
        began = time.perf_counter()
        message = unpack(data)
        if isinstance(message, dict) and RESET in message:
            session.reset()
            return None
        asked = session.read(message)
        if session.must_predict(asked):
            await asyncio.get_running_loop().run_in_executor(self._predictor, session.predict, asked)
        action = session.next(asked)
        return {"action": action, "server_timing": {"infer_ms": 1000 * (time.perf_counter() - began)}}


def _port(server: Server) -> int:
    return int(next(iter(server.sockets)).getsockname()[1])


async def _refuse(connection: ServerConnection, who: str, reason: str) -> None:
    """Say why, and close with 1011."""
    _log.warning("%s: %s", who, reason)
    try:
        await connection.send(reason)
        await connection.close(CloseCode.INTERNAL_ERROR, "Internal server error. The reason is in the message before.")
    except ConnectionClosed:
        pass
