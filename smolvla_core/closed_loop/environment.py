"""What a policy is evaluated in: any environment with BEHAVIOR's live observations and actions."""

import contextlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from smolvla_core.errors import ConfigError
from smolvla_core.live import CONTROL_HZ

GARDEN = "garden"
_PLACES = {GARDEN: "smolvla_core.garden:GardenEnv"}

SMALL_PICTURES = 96
"""Pixels to a side of the pictures that are rendered unless another size is asked for."""
AT_ONCE = 8
"""Environments that run side by side unless another number is asked for."""

Live = Mapping[str, Any]
"""A live observation by BEHAVIOR's keys; see ``smolvla_core.live``."""


class Env(Protocol):
    """A Gymnasium environment of one R1Pro.

    It may have a ``pictures`` that can be set: whether the observations from then on hold pictures. They
    are then rendered only where somebody looks at them.
    """

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Live, dict[str, Any]]:
        """Begin the episode of ``options["instance"]``, which determines the scene."""

    def step(self, action: NDArray[np.float32]) -> tuple[Live, float, bool, bool, dict[str, Any]]:
        """Do an action (23,); the info holds ``eggs_placed``, ``q`` and ``success`` as they are now."""

    def close(self) -> None:
        """Free what it holds."""


@dataclass(frozen=True)
class EnvSpec:
    """Which environment, to be made anywhere.

    Attributes:
        name: ``garden``, or ``package.module:factory``.
        picture_size: pixels to a side of all cameras; None takes BEHAVIOR's 720 and 480.
        pictures: whether it renders at all.
        max_seconds: an episode's length; None: its own.
        task: None: its own.
    """

    name: str = GARDEN
    picture_size: int | None = SMALL_PICTURES
    pictures: bool = True
    max_seconds: float | None = None
    task: str | None = None

    def make(self) -> Env:
        """A new environment.

        Raises:
            ConfigError: there is none of this name, or it does not take the settings.
        """
        optional = {"max_seconds": self.max_seconds, "task": self.task}
        given = {key: value for key, value in optional.items() if value is not None}
        factory = environment_factory(self.name)
        try:
            return factory(picture_size=self.picture_size, pictures=self.pictures, **given)
        except TypeError as error:
            raise ConfigError(f"env: '{self.name}' cannot be made ({error})") from None

    def control_hz(self) -> float:
        """Actions a second.

        Raises:
            ConfigError: as :meth:`make`.
        """
        factory = environment_factory(self.name)
        if hasattr(factory, "metadata"):  # a class, which need not be made to know
            return control_hz(factory)
        with contextlib.closing(self.make()) as env:
            return control_hz(env)


def environment_factory(name: str) -> Callable[..., Env]:
    """What makes environments of a name.

    Raises:
        UserError: there is none, or its packages are not installed.
    """
    module, _, factory = _PLACES.get(name, name).partition(":")
    if not module or not factory:
        known = ", ".join(_PLACES)
        raise ConfigError(f"env: there is no '{name}'; give {known}, or one of your own as package.module:factory")
    try:
        found = getattr(import_module(module), factory, None)
    except ImportError as error:
        raise ConfigError(f"env: '{name}' cannot be imported ({error}); is it installed?") from None
    if not callable(found):
        raise ConfigError(f"env: {module} has no '{factory}'")
    make: Callable[..., Env] = found
    return make


def control_hz(env: Any) -> float:
    """Actions a second, of an environment or its class."""
    return float(getattr(env, "metadata", {}).get("render_fps", CONTROL_HZ))


def parse_instances(text: str) -> tuple[int, ...]:
    """``301-303,400`` -> (301, 302, 303, 400).

    Raises:
        ConfigError: it is no such list, or names one twice.
    """
    numbers: list[int] = []
    for part in text.replace(" ", "").split(","):
        first, dash, last = part.partition("-")
        if not (first.isdecimal() and (last.isdecimal() if dash else not last)):
            raise ConfigError(f"instances: '{text}' is no list of numbers; give e.g. 301-400 or 301,305,310-320")
        numbers += range(int(first), int(last or first) + 1)
        if dash and int(last) < int(first):
            raise ConfigError(f"instances: '{part}' runs backwards; give {last}-{first}")
    if len(set(numbers)) < len(numbers):
        raise ConfigError(f"instances: '{text}' names one twice; name each once")
    return tuple(numbers)
