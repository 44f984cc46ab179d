"""A contact sheet of an episode: ``python -m smolvla_core.garden.sheet OUT.png --instance 3 [--policy CHECKPOINT]``.

Columns are moments, rows a bystander's view, the head's and the left wrist's. The expert acts, or a policy.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from smolvla_core.closed_loop.environment import SMALL_PICTURES
from smolvla_core.command import BAD_INPUT, OK, Parser, answer
from smolvla_core.errors import UserError
from smolvla_core.garden.cameras import Cameras, Picture
from smolvla_core.garden.demonstration import Demonstration, demonstrate
from smolvla_core.garden.env import GardenEnv
from smolvla_core.garden.tasks import TASKS
from smolvla_core.garden.world import World
from smolvla_core.live import CONTROL_HZ

TILE = 200
"""Pixels to a side of one picture."""
_SHOWN = ("head", "left_wrist")
_COLOURS = 256
_MOMENTS = 9


def moments(shown: Demonstration) -> list[int]:
    """Frames that tell the story: the start, the end of each skill that ends alone, and the last."""
    last = len(shown.done) - 1
    ends = sorted({min(last, skill.stop) for skill in shown.recording.skills})
    apart = [end for end, after in zip(ends, [*ends[1:], last], strict=True) if after - end > CONTROL_HZ // 2]
    return [0, *apart, last]


def evenly(steps: int) -> list[int]:
    """As many moments of an episode, from the first to the last, the same time apart."""
    return sorted({round(t) for t in np.linspace(0, steps - 1, _MOMENTS)})


def policy_actions(env: GardenEnv, policy: Path, instance: int) -> NDArray[np.float32]:
    """What a policy does in an instance (T, 23), as in ``python -m smolvla_core.evaluate``.

    Args:
        env: renders pictures.
        policy: folder of an exported policy.
        instance: its number.

    Raises:
        UserError: the folder holds no policy, or not one for this robot.
    """
    from smolvla_core.acting import device_of, load_actor
    from smolvla_core.closed_loop.policies import ActorPolicy, Request

    acting = ActorPolicy(load_actor(policy, device_of("auto")))
    live, _ = env.reset(options={"instance": instance})
    done: list[NDArray[np.float32]] = []
    ended, chunk = False, 0
    while not ended:
        for action in acting.chunks([Request(0, instance, chunk, live)])[0]:
            live, _, success, cut_off, _ = env.step(action)
            done.append(action)
            if ended := success or cut_off:
                break
        chunk += 1
    return np.array(done)


def contact_sheet(env: GardenEnv, instance: int, done: NDArray[np.float32], wanted: Sequence[int]) -> Image.Image:
    """The sheet of an episode: an instance of the environment's task in which actions (T, 23) are done."""
    world = env.world
    cameras = Cameras(world.model, dict.fromkeys(_SHOWN, TILE))
    world.reset(TASKS[env.task].draw(instance))
    columns = []
    for t, action in enumerate(done):
        if t in wanted:
            columns.append(_column(world, cameras, t))
        world.step(action)
    cameras.close()
    return Image.fromarray(np.concatenate(columns, axis=1)).quantize(
        _COLOURS, Image.Quantize.FASTOCTREE, dither=Image.Dither.NONE
    )


def _column(world: World, cameras: Cameras, t: int) -> Picture:
    base = world.data.body("base_link").xpos
    pictures = cameras.pictures(world.data)
    bystander = cameras.view(world.data, (TILE, TILE), (base[0], base[1], 0.55), 3.0)
    column = Image.fromarray(np.concatenate([bystander, *(pictures[name] for name in _SHOWN)]))
    ImageDraw.Draw(column).text((6, 4), f"{t / CONTROL_HZ:.1f} s", fill=(255, 255, 255), font_size=15)
    return np.asarray(column)


def main(argv: Sequence[str] | None = None) -> int:
    """Command line: exit code 0, 2 on bad input."""
    parser = Parser(prog="python -m smolvla_core.garden.sheet", description=__doc__.split("\n")[0])
    parser.add_argument("out", type=Path, metavar="OUT.png")
    parser.add_argument("--task", choices=TASKS, default=next(iter(TASKS)))
    parser.add_argument("--instance", type=int, default=1, help="default 1")
    parser.add_argument("--policy", type=Path, metavar="CHECKPOINT", help="acts in place of the expert")
    args = parser.parse_args(argv)
    return answer(lambda: _run(args))


def _run(args: argparse.Namespace) -> int:
    if args.instance < 0:
        raise UserError(f"--instance {args.instance}: it must be a whole number from 0")
    env = GardenEnv(task=args.task, pictures=args.policy is not None, picture_size=SMALL_PICTURES)
    if args.policy is not None:
        done = policy_actions(env, args.policy, args.instance)
        wanted = evenly(len(done))
    else:
        shown = demonstrate(env, args.instance)
        if shown is None:
            raise UserError(f"--instance {args.instance}: the expert fails; give another")
        done, wanted = shown.done, moments(shown)
    try:
        contact_sheet(env, args.instance, done, wanted).save(args.out)
    except (OSError, ValueError) as error:
        print(f"error: {args.out}: cannot be written ({error}); give another name", file=sys.stderr)
        return BAD_INPUT
    print(f"{args.out}: {args.task}, instance {args.instance}, {len(done) / CONTROL_HZ:.1f} s")
    return OK


if __name__ == "__main__":
    sys.exit(main())
