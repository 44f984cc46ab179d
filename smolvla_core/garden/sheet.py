"""A contact sheet of the expert: ``python -m smolvla_core.garden.sheet OUT.png --instance 3``.

Columns are moments of one demonstration, rows a bystander's view, the head's and the left wrist's.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

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


def moments(shown: Demonstration) -> list[int]:
    """Frames that tell the story: the start, the end of each skill that ends alone, and the last."""
    last = len(shown.done) - 1
    ends = sorted({min(last, skill.stop) for skill in shown.recording.skills})
    apart = [end for end, after in zip(ends, [*ends[1:], last], strict=True) if after - end > CONTROL_HZ // 2]
    return [0, *apart, last]


def contact_sheet(env: GardenEnv, shown: Demonstration) -> Image.Image:
    """The sheet of a demonstration."""
    world = env.world
    cameras = Cameras(world.model, dict.fromkeys(_SHOWN, TILE))
    world.reset(TASKS[shown.task].draw(shown.instance))
    wanted, columns = moments(shown), []
    for t, action in enumerate(shown.done):
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
    args = parser.parse_args(argv)
    return answer(lambda: _run(args))


def _run(args: argparse.Namespace) -> int:
    env = GardenEnv(task=args.task, pictures=False)
    shown = demonstrate(env, args.instance)
    if shown is None:
        raise UserError(f"--instance {args.instance}: the expert fails; give another")
    try:
        contact_sheet(env, shown).save(args.out)
    except (OSError, ValueError) as error:
        print(f"error: {args.out}: cannot be written ({error}); give another name", file=sys.stderr)
        return BAD_INPUT
    print(f"{args.out}: {args.task}, instance {args.instance}, {len(shown.done) / CONTROL_HZ:.1f} s")
    return OK


if __name__ == "__main__":
    sys.exit(main())
