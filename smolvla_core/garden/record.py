"""Record demonstrations of the expert: ``python -m smolvla_core.garden.record OUT --episodes 200``.

Writes the layout of BEHAVIOR's 2025 challenge, with RGB videos of three cameras and skill annotations,
for ``python -m smolvla_core.data.behavior OUT --task 6 --out DST``. The same options give the same
episodes. Killed midway, the same command goes on; no half episode is left.
"""

import argparse
import json
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from smolvla_core.command import FAILED, OK, Parser, answer
from smolvla_core.data.behavior import layout, release
from smolvla_core.data.inside import INFO_FILE
from smolvla_core.data.video_files import write_hevc
from smolvla_core.data.wording import counted
from smolvla_core.data.workers import each
from smolvla_core.errors import DataError
from smolvla_core.garden import folder
from smolvla_core.garden.cameras import Cameras
from smolvla_core.garden.demonstration import Demonstration, demonstrate, film
from smolvla_core.garden.env import GardenEnv
from smolvla_core.garden.tasks import TASKS
from smolvla_core.r1pro import CAMERA_PIXELS

SMALLEST, LARGEST = 32, 720
EXPERT = 2
"""Goes up where the same settings give other demonstrations than before."""
STAND_INS = (1_000_000, 2_000_000)
"""For an instance that the expert cannot do stand in those so many numbers on, where nobody evaluates."""
CONTINUE = "run the same command again to go on"


@dataclass(frozen=True)
class Settings:
    """What determines a recording."""

    task: str = "hiding_easter_eggs"
    episodes: int = 200
    first_instance: int = 1
    """Instances are numbered on from it, one an episode; where the expert cannot do one, another stands in."""
    picture_size: int | None = 96
    """Pixels to a side of every camera; None takes BEHAVIOR's 720 and 480."""
    seed: int = 0
    """Of the expert's styles and the noise."""
    noise: float = 0.3
    """Share of the full disturbance of what the expert does."""
    misses: float = 0.15
    """Share of grasps whose first attempt goes astray."""
    max_seconds: float = 20.0

    @property
    def pixels(self) -> dict[str, int]:
        """Pixels to a side, by camera."""
        return {camera: self.picture_size or pixels for camera, pixels in CAMERA_PIXELS.items()}


def record(
    out: Path, settings: Settings, *, jobs: int = 1, notify: Callable[[int, int], None] = lambda done, total: None
) -> int:
    """Record what is missing of a folder, and complete it.

    Args:
        out: a new folder, or one that the same settings have begun.
        settings: what to record.
        jobs: processes that record.
        notify: called with (episodes done, of how many).

    Returns:
        How many episodes were there already.

    Raises:
        DataError: a setting is out of range, the folder holds something else, or the expert fails.
        NoDisplayError: pictures cannot be rendered on this machine.
    """
    _check(settings, jobs)
    with folder.held(out, asdict(settings) | {"expert": EXPERT}):
        there = _record(out, settings, jobs, notify)
        folder.finish(out)
    return there


def _record(out: Path, settings: Settings, jobs: int, notify: Callable[[int, int], None]) -> int:
    numbers = [layout.episode_number(TASKS[settings.task].number, i) for i in range(settings.episodes)]
    if folder.is_complete(out):
        notify(len(numbers), len(numbers))
        return len(numbers)
    missing = [i for i, number in enumerate(numbers) if not folder.part(out, number, "json").is_file()]
    there = len(numbers) - len(missing)
    if missing:
        Cameras(*_model(), settings.pixels).close()  # a machine that cannot render says so once, before any work
    each(partial(record_episode, out, settings), missing, jobs, lambda done, _: notify(there + done, len(numbers)))
    _complete(out, settings, numbers)
    return there


def record_episode(out: Path, settings: Settings, ordinal: int) -> None:
    """Record one episode; its part appears when all of its files are there."""
    env, cameras = _stage(settings.task, settings.max_seconds, tuple(settings.pixels.items()))
    task = TASKS[settings.task].number
    number = layout.episode_number(task, ordinal)
    shown = _shown(env, settings, settings.first_instance + ordinal)
    recording = shown.recording
    for camera in settings.pixels:
        path = layout.episode_file(Path(), layout.VIDEO_PATH, number, key=layout.video_key("rgb", camera))
        with folder.placed(out, path) as staging:
            write_hevc(staging, film(env.world, shown, cameras, camera), layout.FPS)
    extra = {"instance": shown.instance, "attempt": shown.attempt, "seed": settings.seed, "noise": shown.noise}
    release.write_json(layout.episode_file(out, layout.ANNOTATION_PATH, number), release.annotation(recording, task))
    release.write_json(
        layout.episode_file(out, layout.METAINFO_PATH, number), release.metainfo(recording, task) | {"garden": extra}
    )
    table = release.columns(recording, number, task, 0)
    release.write_table(folder.part(out, number, "parquet"), table)
    row = {
        "listing": release.listing(number, task, len(recording.state), recording),
        "stats": {"episode_index": number, "stats": release.stats(table)},
    }
    with folder.placed(out, folder.part(Path(), number, "json")) as staging:
        staging.write_text(json.dumps(row), encoding="utf-8")


def _shown(env: GardenEnv, settings: Settings, instance: int) -> Demonstration:
    """A demonstration of an instance, or of the one that stands in for it.

    Raises:
        DataError: the expert fails in all of them.
    """
    for further in (0, *STAND_INS):
        shown = demonstrate(env, instance + further, seed=settings.seed, noise=settings.noise, misses=settings.misses)
        if shown is not None:
            return shown
    raise DataError(f"instance {instance}: the expert fails in every style; lower --noise, or raise --max-seconds")


def _complete(out: Path, settings: Settings, numbers: Sequence[int]) -> None:
    """Write what depends on all episodes; ``info.json`` comes last, and says that the folder is complete."""
    task = TASKS[settings.task].number
    rows = [json.loads(folder.part(out, number, "json").read_text(encoding="utf-8")) for number in numbers]
    start = 0
    for number, row in zip(numbers, rows, strict=True):
        table = pq.read_table(folder.part(out, number, "parquet"))
        index = np.asarray(table["index"]) + start
        path = layout.episode_file(out, layout.DATA_PATH, number)
        path.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(table.set_column(table.schema.get_field_index("index"), "index", [index]), path)
        start += row["listing"]["length"]
    release.write_meta(out, [row["listing"] for row in rows], [row["stats"] for row in rows], task)
    with folder.placed(out, INFO_FILE) as staging:
        release.write_json(staging, release.info([row["listing"] for row in rows], task, settings.pixels))


def _check(settings: Settings, jobs: int) -> None:
    most = layout.CHUNKS_SIZE // layout.EPISODE_STEP - 1
    if settings.task not in TASKS:
        raise DataError(f"--task: the garden has no '{settings.task}'; it has {', '.join(TASKS)}")
    if not 1 <= settings.episodes <= most:
        raise DataError(f"--episodes is {settings.episodes}; it must be 1 to {most}")
    size = settings.picture_size
    if size is not None and (not SMALLEST <= size <= LARGEST or size % 2):
        raise DataError(f"--picture-size is {size}; it must be an even number of {SMALLEST} to {LARGEST} pixels")
    for name, value in (("--first-instance", settings.first_instance), ("--seed", settings.seed)):
        if value < 0:
            raise DataError(f"{name} is {value}; it must be 0 or more")
    for name, share in (("--noise", settings.noise), ("--misses", settings.misses)):
        if not 0 <= share <= 1:
            raise DataError(f"{name} is {share:g}; it must be 0 to 1")
    if not 1 <= settings.max_seconds <= 600:
        raise DataError(f"--max-seconds is {settings.max_seconds:g}; it must be 1 to 600")
    if jobs < 1:
        raise DataError(f"--jobs is {jobs}; it must be 1 or more")


def _model() -> tuple[Any]:
    return (GardenEnv(pictures=False).world.model,)


@lru_cache(maxsize=1)
def _stage(task: str, max_seconds: float, pixels: tuple[tuple[str, int], ...]) -> tuple[GardenEnv, Cameras]:
    """A process's own garden and cameras."""
    env = GardenEnv(task=task, pictures=False, max_seconds=max_seconds)
    return env, Cameras(env.world.model, dict(pixels))


def main(argv: Sequence[str] | None = None) -> int:
    """Command line: exit code 0, 1 when interrupted or the disk is full, 2 on bad input."""
    plain = Settings()
    parser = Parser(
        prog="python -m smolvla_core.garden.record",
        description="Record demonstrations of the egg garden's expert in the layout of the 2025 BEHAVIOR challenge.",
        epilog=f"Interrupted, {CONTINUE}.",
    )
    parser.add_argument("out", type=Path, metavar="OUT", help="a new folder, or one that was begun")
    parser.add_argument("--task", default=plain.task, help=f"{', '.join(TASKS)} (default {plain.task})")
    parser.add_argument("--episodes", type=int, default=plain.episodes, help=f"default {plain.episodes}")
    parser.add_argument(
        "--first-instance", type=int, default=plain.first_instance, help=f"default {plain.first_instance}"
    )
    sizes = parser.add_mutually_exclusive_group()
    sizes.add_argument(
        "--picture-size", type=int, default=plain.picture_size, help=f"pixels to a side (default {plain.picture_size})"
    )
    sizes.add_argument("--full-size", action="store_true", help="BEHAVIOR's pictures: head 720, wrists 480")
    parser.add_argument("--seed", type=int, default=plain.seed, help=f"of styles and noise (default {plain.seed})")
    parser.add_argument("--noise", type=float, default=plain.noise, help=f"0 to 1 (default {plain.noise:g})")
    parser.add_argument(
        "--misses", type=float, default=plain.misses, help=f"grasps that first go astray (default {plain.misses:g})"
    )
    parser.add_argument("--max-seconds", type=float, default=plain.max_seconds, help=f"default {plain.max_seconds:g}")
    cores = os.cpu_count() or 1
    parser.add_argument("--jobs", type=int, default=cores, help=f"processes (default: cores, here {cores})")
    args = parser.parse_args(argv)
    return answer(lambda: _run(args), f"interrupted; {CONTINUE}")


def _run(args: argparse.Namespace) -> int:
    values: Mapping[str, Any] = vars(args)
    names = Settings.__dataclass_fields__
    settings = Settings(**{name: values[name] for name in names if name in values})
    if args.full_size:
        settings = Settings(**asdict(settings) | {"picture_size": None})
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    try:
        with Progress(*columns, console=Console(stderr=True), disable=not sys.stderr.isatty(), transient=True) as bar:
            shown = bar.add_task("recording", total=settings.episodes)
            there = record(args.out, settings, jobs=args.jobs, notify=lambda done, _: bar.update(shown, completed=done))
    except BrokenProcessPool:
        print(f"error: a process died, perhaps for want of memory; {CONTINUE}, with fewer --jobs", file=sys.stderr)
        return FAILED
    except OSError as error:
        print(f"error: {error}; {CONTINUE}", file=sys.stderr)
        return FAILED
    before = f", {there} of them before" if there else ""
    print(f"{args.out}: {counted(settings.episodes, 'episode')} of {settings.task}{before}")
    return OK


if __name__ == "__main__":
    sys.exit(main())
