"""How far a policy gets in the egg garden, in smaller steps than eggs placed.

``python -m tests.benchmarks.progress POLICY --instances 301-320``

A policy that places no egg may still drive to the basket, or hold a hand over an egg. For each
instance it prints four shares from 0 to 1, and their mean as ``progress``:

- ``came``: of the way to where an egg can be picked, how much was made at the nearest moment;
- ``reached``: how near a hand came to an egg that it had not moved: 1 within reach, 0 from 0.5 m on;
- ``lifted``: eggs that a hand lifted;
- ``placed``: eggs placed, as the garden counts them at the end.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import torch

from smolvla_core.acting import load_actor
from smolvla_core.closed_loop.environment import parse_instances
from smolvla_core.closed_loop.policies import ROWS, ActorPolicy, Request
from smolvla_core.garden import GardenEnv
from smolvla_core.garden.robot import SIDES
from smolvla_core.garden.scene import BASKET, EGG_NAMES
from smolvla_core.garden.world import GRASP_REACH_M, World

STAND_M = 0.62
"""From the robot to the basket, where eggs can be picked."""
FAR_M = 0.5


@dataclass(frozen=True)
class Progress:
    """How far one episode came; shares from 0 to 1."""

    instance: int
    came: float
    reached: float
    lifted: float
    placed: float
    q: float

    @property
    def progress(self) -> float:
        """The mean of the four."""
        return (self.came + self.reached + self.lifted + self.placed) / 4


class Watch:
    """One environment, and what was seen of its episode so far."""

    def __init__(self, picture_size: int, max_seconds: float):
        self.env = GardenEnv(picture_size=picture_size, max_seconds=max_seconds)
        self.instance = -1

    def begin(self, instance: int) -> Any:
        """Begin an episode: the first observation."""
        self.instance = instance
        self.env.pictures = True
        observation, _ = self.env.reset(options={"instance": instance})
        self.start = self.nearest = _to_basket(self.env.world)
        self.hand = FAR_M
        return observation

    def act(self, actions: np.ndarray) -> tuple[Any, Progress | None]:
        """Do actions (N, A): what is seen then, and how far the episode came where it has ended."""
        for number, action in enumerate(actions, start=1):
            self.env.pictures = number == len(actions)
            observation, _, terminated, truncated, info = self.env.step(action)
            world = self.env.world
            self.nearest = min(self.nearest, _to_basket(world))
            self.hand = min(self.hand, _to_egg(world))
            if terminated or truncated:
                return observation, self._progress(info)
        return observation, None

    def _progress(self, info: dict[str, Any]) -> Progress:
        lifted = float(np.mean(self.env.world.lifted))
        way = self.start - STAND_M
        came = 1.0 if way <= 0 else float(np.clip((self.start - self.nearest) / way, 0, 1))
        reached = float(np.clip((FAR_M - self.hand) / (FAR_M - GRASP_REACH_M), 0, 1))
        return Progress(
            self.instance, came, 1.0 if lifted else reached, lifted, float(info["eggs_placed"]), float(info["q"])
        )


def watch(
    policy: ActorPolicy, instances: Sequence[int], *, picture_size: int = 96, max_seconds: float = 20.0
) -> list[Progress]:
    """How far a policy comes in each instance; the same as ``smolvla_core.evaluate`` does, and watched."""
    waiting, done = list(instances), []
    stages = [Watch(picture_size, max_seconds) for _ in range(min(ROWS, len(waiting)))]
    live: dict[int, Request] = {}
    while waiting or live:
        for slot, stage in enumerate(stages):
            if slot not in live and waiting:
                instance = waiting.pop(0)
                live[slot] = Request(slot, instance, 0, stage.begin(instance))
        requests = list(live.values())
        for request, actions in zip(requests, policy.chunks(requests), strict=True):
            observation, ended = stages[request.slot].act(actions)
            if ended is not None:
                done.append(ended)
                del live[request.slot]
            else:
                live[request.slot] = Request(request.slot, request.instance, request.chunk + 1, observation)
    for stage in stages:
        stage.env.close()
    return sorted(done, key=lambda each: each.instance)


def means(episodes: Sequence[Progress]) -> dict[str, float]:
    """The mean of each share, and of ``progress``."""
    names = [field.name for field in fields(Progress) if field.name != "instance"]
    found = {name: float(np.mean([getattr(each, name) for each in episodes])) for name in names}
    return found | {"progress": float(np.mean([each.progress for each in episodes]))}


def _to_basket(world: World) -> float:
    base, basket = world.data.body("base_link").xpos[:2], world.data.body(BASKET).xpos[:2]
    return float(np.linalg.norm(basket - base))


def _to_egg(world: World) -> float:
    hands = np.stack([world.data.site(f"{side}_eef").xpos for side in SIDES])
    eggs = np.stack([world.data.body(name).xpos for name in EGG_NAMES])
    return float(np.linalg.norm(hands[:, None] - eggs[None], axis=2).min())


def main() -> int:
    """Watch one policy."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.progress", description=__doc__.splitlines()[0])
    parser.add_argument("policy", type=Path)
    parser.add_argument("--instances", default="301-320")
    parser.add_argument("--n-action-steps", type=int)
    parser.add_argument("--picture-size", type=int, default=96)
    parser.add_argument("--max-seconds", type=float, default=20.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--each", action="store_true", help="print every instance too")
    options = parser.parse_args()
    torch.set_num_threads(1)
    actor = load_actor(options.policy, torch.device("cpu"), options.n_action_steps)
    found = watch(
        ActorPolicy(actor, options.seed),
        parse_instances(options.instances),
        picture_size=options.picture_size,
        max_seconds=options.max_seconds,
    )
    for episode in found if options.each else ():
        print(json.dumps({name: round(value, 3) for name, value in asdict(episode).items()}))
    print(json.dumps({name: round(value, 4) for name, value in means(found).items()} | {"instances": len(found)}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
