"""A policy server on loopback, in a thread of the test's process, and live observations for it."""

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np

from smolvla_core.acting import Actor
from smolvla_core.live import CAMERAS, PROPRIOCEPTION
from smolvla_core.serve.server import Address, PolicyServer


@contextmanager
def serving(actor: Actor, *, api_key: str | None = None, max_message_mb: float = 64, seed: int = 0) -> Iterator[str]:
    """The server's address while it runs."""
    ready, found = threading.Event(), {}

    async def run() -> None:
        found["loop"], found["stop"] = asyncio.get_running_loop(), asyncio.Event()

        def listening(port: int) -> None:
            found["port"] = port
            ready.set()

        address = Address(port=0, api_key=api_key, max_message_mb=max_message_mb)
        await PolicyServer(actor, address, seed).run(listening, found["stop"])

    thread = threading.Thread(target=lambda: asyncio.run(run()), daemon=True)
    thread.start()
    assert ready.wait(120)
    try:
        yield f"ws://127.0.0.1:{found['port']}"
    finally:
        found["loop"].call_soon_threadsafe(found["stop"].set)
        thread.join(120)
        assert not thread.is_alive()


def live_observation(seed: int, size: int = 48, channels: int = 3, width: int = 256) -> dict[str, np.ndarray]:
    """A live observation as the evaluator sends it, of random values."""
    rng = np.random.default_rng(seed)
    observation = {PROPRIOCEPTION: rng.uniform(-0.5, 0.5, width).astype(np.float32)}
    for key in CAMERAS.values():
        observation[key] = rng.integers(0, 255, (size, size, channels), dtype=np.uint8)
    observation["robot_r1::cam_rel_poses"] = np.zeros(21, np.float32)
    observation["task_id"] = np.array([6], dtype=np.int64)
    return observation
