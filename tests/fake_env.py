"""A small environment in BEHAVIOR's live format, without physics: what a policy does decides what it sees."""

import numpy as np

from smolvla_core.closed_loop.environment import EnvSpec
from smolvla_core.errors import ConfigError
from smolvla_core.live import CAMERAS, PROPRIOCEPTION
from smolvla_core.r1pro import ACTION, RELEASES

NAME = "tests.fake_env:Pond"
SHORT = EnvSpec(NAME, picture_size=32, max_seconds=0.8)


class Pond:
    """An R1Pro that is at once where it is told to be; its eggs count what its grippers were told.

    The episode of instance n ends after ``max_seconds``, or a fifth earlier where n is odd. ``q`` is made
    of the mean of the left gripper's actions, so that it depends on every one of them.
    """

    metadata = {"render_fps": 30}

    def __init__(self, picture_size=None, pictures=True, max_seconds=1.0):
        self.size, self.pictures, self.last = picture_size or 64, pictures, round(30 * max_seconds)
        self.drawn = 0

    def reset(self, *, seed=None, options=None):
        self.instance = options["instance"]
        self.rng = np.random.default_rng(self.instance)
        self.state = self.rng.uniform(-0.2, 0.2, 256).astype(np.float32)
        self.background = self.rng.integers(0, 200, 3)
        self.steps, self.told = 0, []
        return self._live(), {}

    def step(self, action):
        assert action.shape == (23,)
        assert action.dtype == np.float32
        layout = RELEASES["2025"]
        self.state[list(layout["base_qvel"])] = action[ACTION["base"]]
        for part in ("trunk", "arm_left", "arm_right"):
            self.state[list(layout[f"{part}_qpos"])] = action[list(ACTION[part])]
        self.told.append(action)
        self.steps += 1
        ended = self.steps >= (self.last - self.last // 5 if self.instance % 2 else self.last)
        told = np.array(self.told)
        scores = {
            "eggs_placed": round(3 * float(np.clip(told[:, 14].mean() + 0.5, 0, 1))) / 3,
            "q": 0.5 + 0.5 * float(np.tanh(told[:, 14].astype(np.float64).mean())),
            "success": bool(self.instance % 3 == 0),
        }
        return self._live(), 0.0, ended and self.instance % 2 == 1, ended, scores

    def close(self):
        pass

    def _live(self):
        live = {PROPRIOCEPTION: self.state.copy(), "task_id": 6}
        if self.pictures:
            self.drawn += 1
            for number, key in enumerate(CAMERAS.values()):
                picture = np.empty((self.size, self.size, 3), np.uint8)
                picture[:] = self.background
                picture[: self.size // 2, :, number] = int(127 * (1 + np.tanh(self.state[158 + number])))
                live[key] = picture
        return live


class Broken(Pond):
    """Fails in the middle of an episode."""

    def step(self, action):
        if self.steps == 3:
            raise ZeroDivisionError("the pond is dry")
        return super().step(action)


class Leaky(Pond):
    """Fails where it leaks; counts how often an episode begins."""

    leaks = frozenset({13})
    begun = 0

    def reset(self, *, seed=None, options=None):
        type(self).begun += 1
        return super().reset(seed=seed, options=options)

    def step(self, action):
        if self.instance in self.leaks:
            raise ZeroDivisionError("the pond is dry")
        return super().step(action)


class FastPond(Pond):
    """A pond at twice the rate."""

    metadata = {"render_fps": 60}


def make_fast_pond(**settings):
    """A function in place of a class."""
    return FastPond(**settings)


class Closed(Pond):
    """Knows none of the instances."""

    def reset(self, *, seed=None, options=None):
        raise ConfigError(f"the pond has no instance {options['instance']}")


class Silent(Pond):
    """Does not say how well it went."""

    def step(self, action):
        *moved, scores = super().step(action)
        del scores["q"]
        return *moved, scores


class Unscored(Pond):
    """Does not know how well it went."""

    def step(self, action):
        *moved, scores = super().step(action)
        return *moved, scores | {"q": float("nan")}
