"""Environments that are acted in, a whole chunk of actions at a time."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from smolvla_core.closed_loop.environment import Env, EnvSpec, Live, control_hz
from smolvla_core.closed_loop.video import Film
from smolvla_core.errors import DataError


@dataclass(frozen=True)
class Episode:
    """What came of an instance."""

    instance: int
    eggs_placed: float
    q: float
    success: bool
    steps: int
    seconds: float


@dataclass(frozen=True)
class Begin:
    """Begin the episode of an instance in a slot; film it where ``video`` names a file."""

    slot: int
    instance: int
    video: Path | None = None


@dataclass(frozen=True)
class Act:
    """Do actions (N, A), one a step, in a slot's episode."""

    slot: int
    actions: NDArray[np.float32]


@dataclass(frozen=True)
class Turn:
    """What is seen after that; and, where the episode has ended, what came of it."""

    slot: int
    live: Live
    episode: Episode | None = None


class Stage:
    """Environments by slot, made when they are first needed.

    Args:
        spec: of all of them.
    """

    def __init__(self, spec: EnvSpec):
        self._spec = spec
        self._envs: dict[int, Env] = {}
        self._running: dict[int, _Running] = {}

    def do(self, order: Begin | Act) -> Turn:
        """Begin an episode, or go on with one until the actions are done or it has ended."""
        return self._begin(order) if isinstance(order, Begin) else self._act(order)

    def close(self) -> None:
        """Close every environment."""
        for env in self._envs.values():
            env.close()
        self._envs.clear()

    def _begin(self, order: Begin) -> Turn:
        env = self._envs.get(order.slot) or self._envs.setdefault(order.slot, self._spec.make())
        hz = control_hz(env)
        film = Film(order.video, hz) if order.video else None
        _show(env, self._spec.pictures)
        live, _ = env.reset(options={"instance": order.instance})
        if film:
            film.add(live)
        self._running[order.slot] = _Running(env, order.instance, hz, film)
        return Turn(order.slot, live)

    def _act(self, order: Act) -> Turn:
        running = self._running[order.slot]
        env, film = running.env, running.film
        live: Live = {}
        for number, action in enumerate(order.actions, start=1):
            _show(env, self._spec.pictures and (film is not None or number == len(order.actions)))
            live, _, terminated, truncated, info = env.step(action)
            running.steps += 1
            if film:
                film.add(live)
            if terminated or truncated:
                if film:
                    film.close()
                del self._running[order.slot]
                return Turn(order.slot, {}, running.episode(info))
        return Turn(order.slot, live)


@dataclass
class _Running:
    env: Env
    instance: int
    hz: float
    film: Film | None
    steps: int = 0

    def episode(self, info: dict[str, Any]) -> Episode:
        seconds = self.steps / self.hz
        try:
            scores = float(info["eggs_placed"]), float(info["q"]), bool(info["success"])
        except KeyError as error:
            raise DataError(f"env: instance {self.instance} ended without {error} in its info; add it") from None
        return Episode(self.instance, *scores, self.steps, seconds)


def _show(env: Env, wanted: bool) -> None:
    """Have pictures rendered or not, where the environment leaves the choice."""
    if hasattr(env, "pictures"):
        env.pictures = wanted
