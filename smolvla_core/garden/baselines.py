"""What the garden asks for: the expert, and three ways to act without looking.

``python -m smolvla_core.garden.baselines --instances 1-200`` prints the share of eggs placed by the
expert, by doing nothing, by replaying one demonstration, and by the expert when it is told where things
are in another instance. A task that the last three could do would not need pictures. ``--task`` names another.
"""

import argparse
import json
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache, partial

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import track

from smolvla_core.command import OK, Parser, answer
from smolvla_core.data.workers import each
from smolvla_core.errors import UserError
from smolvla_core.garden.demonstration import demonstrate
from smolvla_core.garden.env import GardenEnv, Observation
from smolvla_core.garden.expert import Expert, draw_style
from smolvla_core.garden.tasks import TASKS
from smolvla_core.garden.world import resting_action
from smolvla_core.live import PROPRIOCEPTION

Act = Callable[[Observation, Mapping], NDArray[np.float32]]

REPLAYED = 0
"""The instance whose demonstration is replayed."""
SHUFFLED_BY = 1000
"""The expert is told the poses of the instance whose number is higher by this."""


def _expert(env: GardenEnv, instance: int) -> Act:
    expert = Expert(draw_style(np.random.default_rng([0, instance]), misses=0.15), TASKS[env.task].errand())
    return lambda observation, info: expert.act(observation[PROPRIOCEPTION], info["task_info"])


def _nothing(env: GardenEnv, instance: int) -> Act:
    rest = resting_action()
    return lambda observation, info: rest


def _replay(env: GardenEnv, instance: int) -> Act:
    actions = iter(_replayed(env.task))
    rest = resting_action()
    return lambda observation, info: next(actions, rest)


@lru_cache(maxsize=1)
def _replayed(task: str) -> NDArray[np.float32]:
    shown = demonstrate(GardenEnv(task=task, pictures=False), REPLAYED)
    assert shown is not None
    return shown.done


def _shuffled(env: GardenEnv, instance: int) -> Act:
    _, info = env.reset(options={"instance": instance + SHUFFLED_BY})
    elsewhere, expert = info["task_info"], Expert(errand=TASKS[env.task].errand())
    return lambda observation, info: expert.act(observation[PROPRIOCEPTION], elsewhere)


POLICIES: Mapping[str, Callable[[GardenEnv, int], Act]] = {
    "expert": _expert,
    "nothing": _nothing,
    "replay": _replay,
    "shuffled": _shuffled,
}


def run(policy: str, task: str, instance: int) -> dict[str, float]:
    """One episode of a policy: ``eggs_placed``, ``q``, ``success`` and ``seconds``."""
    env = GardenEnv(task=task, pictures=False)
    act = POLICIES[policy](env, instance)
    observation, info = env.reset(options={"instance": instance})
    steps, ended = 0, False
    while not ended:
        observation, _, terminated, truncated, info = env.step(act(observation, info))
        steps, ended = steps + 1, terminated or truncated
    return {
        "eggs_placed": info["eggs_placed"],
        "q": info["q"],
        "success": float(info["success"]),
        "seconds": steps / env.metadata["render_fps"],
    }


def instance_range(text: str) -> range:
    """Instances of ``1-200`` or ``7``.

    Raises:
        UserError: neither.
    """
    match = re.fullmatch(r"(\d+)(?:-(\d+))?", text)
    if match is None or int(match[2] or match[1]) < int(match[1]):
        raise UserError(f"--instances is '{text}'; give a number or a range like 1-200")
    return range(int(match[1]), int(match[2] or match[1]) + 1)


def main(argv: Sequence[str] | None = None) -> int:
    """Command line."""
    parser = Parser(prog="python -m smolvla_core.garden.baselines", description=__doc__.split("\n")[0])
    parser.add_argument("--instances", default="1-200", help="default 1-200")
    parser.add_argument("--policies", nargs="+", choices=POLICIES, default=list(POLICIES))
    parser.add_argument("--task", choices=TASKS, default=next(iter(TASKS)), help=f"default {next(iter(TASKS))}")
    parser.add_argument("--jobs", type=int, default=1, help="processes (default 1)")
    args = parser.parse_args(argv)
    return answer(lambda: _main(args))


def _main(args: argparse.Namespace) -> int:
    instances = instance_range(args.instances)
    if args.jobs < 1:
        raise UserError(f"--jobs is {args.jobs}; it must be 1 or more")
    for policy in args.policies:
        if args.jobs == 1:
            bar = track(instances, policy, console=Console(stderr=True), transient=True)
            results = [run(policy, args.task, instance) for instance in bar]
        else:
            results = each(partial(run, policy, args.task), list(instances), args.jobs, lambda done, total: None)
        means = {key: float(np.mean([result[key] for result in results])) for key in results[0]}
        times = [result["seconds"] for result in results]
        row = {"policy": policy, "instances": args.instances, **means, "seconds_p95": float(np.quantile(times, 0.95))}
        print(json.dumps({key: round(value, 4) if isinstance(value, float) else value for key, value in row.items()}))
    return OK


if __name__ == "__main__":
    sys.exit(main())
