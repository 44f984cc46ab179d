"""One demonstration: the expert performs an instance, perhaps disturbed, and is filmed.

What is recorded is what the expert meant to do; what is done may differ from it by noise, so that the
demonstrations also show the way back (DART: Laskey et al., 2017). The physics is so much faster than
pictures that an episode is first performed without them, and then replayed for each camera.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from smolvla_core.data.behavior.release import Recording, Skill
from smolvla_core.garden.cameras import Cameras, Picture
from smolvla_core.garden.env import CAM_REL_POSES, GardenEnv
from smolvla_core.garden.expert import Expert, Style, draw_style
from smolvla_core.garden.scene import BASKET, TREE_NAMES
from smolvla_core.garden.tasks import TASKS
from smolvla_core.garden.world import World
from smolvla_core.live import CONTROL_HZ, PROPRIOCEPTION
from smolvla_core.r1pro import ACTION, ACTION_WIDTH, HANDS, RELEASES

NOISE_OF_ATTEMPTS = (1.0, 1.0, 1.0, 1.0, 1.0, 0.8, 0.6, 0.4, 0.2, 0.0)
"""Share of the noise in each attempt: a style in which the expert fails is drawn anew, at last without any."""
_NOISE_LASTS_S = 0.4
_NOISE = {"base": 0.20, "trunk": 0.02, "arm_left": 0.04, "arm_right": 0.04}
"""Standard deviation at full noise: m/s and rad/s of the base, rad of the joints. Grippers have none."""


class Disturbance:
    """Noise that comes and goes over a few tenths of a second (an Ornstein-Uhlenbeck process).

    Args:
        rng: its numbers.
        amount: share of the full disturbance.
    """

    def __init__(self, rng: np.random.Generator, amount: float):
        self.amount = amount
        self._rng = rng
        self._deviation = np.zeros(ACTION_WIDTH)
        for group, size in _NOISE.items():
            self._deviation[list(ACTION[group])] = amount * size
        self._keep = float(np.exp(-1 / (CONTROL_HZ * _NOISE_LASTS_S)))
        self._now = np.zeros(ACTION_WIDTH)

    def __call__(self, action: NDArray[np.float32]) -> NDArray[np.float32]:
        """The action (23,) that is done in place of the one that was meant."""
        fresh = np.sqrt(1 - self._keep**2) * self._rng.standard_normal(ACTION_WIDTH)
        self._now = self._keep * self._now + fresh
        return (action + self._deviation * self._now).astype(np.float32)


@dataclass(frozen=True)
class Demonstration:
    """An episode in which every egg was placed."""

    task: str
    instance: int
    attempt: int
    """0, or how many styles failed before."""
    noise: float
    """Share of the full disturbance."""
    recording: Recording
    done: NDArray[np.float32]
    """(T, 23) the actions as they were done."""


def demonstrate(
    env: GardenEnv, instance: int, *, seed: int = 0, noise: float = 0.0, misses: float = 0.0
) -> Demonstration | None:
    """Let the expert perform an instance; None where it fails in every style.

    Args:
        env: without pictures.
        instance: its number.
        seed: of style and noise, together with the instance.
        noise: share of the full disturbance, in the first attempts.
        misses: share of grasps whose first attempt goes astray.
    """
    for attempt, share in enumerate(NOISE_OF_ATTEMPTS):
        rng = np.random.default_rng([seed, instance, attempt])
        performed = _perform(env, instance, draw_style(rng, misses), Disturbance(rng, noise * share))
        if performed is not None:
            return Demonstration(env.task, instance, attempt, noise * share, *performed)
    return None


def film(world: World, demonstration: Demonstration, cameras: Cameras, camera: str) -> Iterator[Picture]:
    """What a camera sees at each frame of a demonstration, (H, W, 3): the episode is replayed."""
    world.reset(TASKS[demonstration.task].draw(demonstration.instance))
    for action in demonstration.done:
        yield cameras.pictures(world.data, [camera])[camera]
        world.step(action)


def _perform(
    env: GardenEnv, instance: int, style: Style, disturb: Disturbance
) -> tuple[Recording, NDArray[np.float32]] | None:
    errand = TASKS[env.task].errand()
    expert = Expert(style, errand)
    observation, info = env.reset(options={"instance": instance})
    start = info["task_info"].reshape(-1, 7)[:, :3]
    rows: dict[str, list[NDArray[np.float32]]] = {"state": [], "poses": [], "info": [], "meant": [], "done": []}
    ended = False
    while not ended:
        done = disturb(expert.act(observation[PROPRIOCEPTION], info["task_info"]))
        values = (observation[PROPRIOCEPTION], observation[CAM_REL_POSES], info["task_info"], expert.meant, done)
        for row, value in zip(rows.values(), values, strict=True):
            row.append(value)
        observation, _, terminated, truncated, info = env.step(values[-1])
        ended = terminated or truncated
    if info["eggs_placed"] < 1 or not info["success"]:
        return None
    table = {name: np.stack(values) for name, values in rows.items()}
    state = table["state"]
    layout = RELEASES["2025"]
    assert env.world.instance is not None
    names = (BASKET, *errand.things, *TREE_NAMES[: len(env.world.instance.trees)])
    recording = Recording(
        state=state,
        action=table["meant"],
        cam_rel_poses=table["poses"],
        task_info=table["info"],
        base=state[:, list(layout["base_qpos"])],
        hands=np.stack([state[:, list(layout[f"eef_{side}_pos"])] for side in HANDS], axis=1),
        skills=tuple(Skill(s.description, s.objects, s.manipulating, s.start, s.stop) for s in expert.finish()),
        scene=f"egg_garden_{instance}",
        objects={name: place.tolist() for name, place in zip(names, start.astype(float), strict=False)},
    )
    return recording, table["done"]
