"""A small dataset in the exact layout of the 2025 challenge, with a scripted motion.

``python -m smolvla_core.data.synthetic OUT`` makes something to try everything on: it takes the same
road as the downloaded demonstrations (`smolvla_core.data.behavior` imports both).
"""

import argparse
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.progress import Progress

from smolvla_core.command import FAILED, OK, Parser, answer
from smolvla_core.data.behavior import layout, release
from smolvla_core.data.inside import INFO_FILE
from smolvla_core.data.synthetic.motion import Motion, perform, recording
from smolvla_core.data.synthetic.pictures import film, picture_sizes
from smolvla_core.data.synthetic.scene import MAX_EGGS, Scene, draw_scene
from smolvla_core.data.video_files import write_hevc
from smolvla_core.data.wording import counted
from smolvla_core.errors import DataError

SECONDS_PER_EGG = 2.0
MIN_SECONDS = 1.0
MIN_SIZE = 32
LONGEST_CHANGE = 0.15
"""Episodes differ in length by up to this share."""


def write_synthetic(
    out: Path,
    *,
    episodes: int = 12,
    seconds: float = 4.0,
    size: int = 96,
    seed: int = 0,
    task: int = layout.EASTER_EGGS,
    depth_and_seg: bool = False,
    progress: bool = False,
) -> None:
    """Write a dataset of scripted episodes; the same arguments give the same bytes.

    Args:
        out: a folder that is missing or empty.
        episodes: how many are on disk; ``episodes.jsonl`` lists far more, as in the release.
        seconds: mean length of an episode.
        size: pixels to a side of the head's pictures; the wrists' are two thirds of it.
        seed: of scenes, motion and texture.
        task: the task that they are filed under, 0 to 9.
        depth_and_seg: whether depth and segmentation videos are written too.
        progress: whether a progress bar is drawn on stderr.

    Raises:
        DataError: ``out`` holds something already, or an argument is out of range.
    """
    _check(out, episodes, seconds, size, seed, task)
    with _whole(out) as folder:
        rows: list[dict[str, Any]] = []
        stats: list[dict[str, Any]] = []
        index = 0
        with Progress(console=Console(stderr=True), disable=not progress, transient=True) as bar:
            for ordinal in bar.track(range(episodes), description="synthetic episodes"):
                rng = np.random.default_rng([seed, task, ordinal])
                frames = round(seconds * rng.uniform(1 - LONGEST_CHANGE, 1 + LONGEST_CHANGE) * layout.FPS)
                scene = draw_scene(rng, eggs=int(np.clip(seconds // SECONDS_PER_EGG, 1, MAX_EGGS)))
                motion = perform(scene, frames, rng)
                number = layout.episode_number(task, ordinal)
                recorded = recording(scene, motion)
                table = release.columns(recorded, number, task, index)
                release.write_table(layout.episode_file(folder, layout.DATA_PATH, number), table)
                _write_videos(folder, number, scene, motion, size, seed, depth_and_seg)
                for path, value in (
                    (layout.ANNOTATION_PATH, release.annotation(recorded, task)),
                    (layout.METAINFO_PATH, release.metainfo(recorded, task)),
                ):
                    release.write_json(layout.episode_file(folder, path, number), value)
                rows.append(release.listing(number, task, frames, recorded))
                stats.append({"episode_index": number, "stats": release.stats(table)})
                index += frames
        release.write_meta(folder, rows, stats, task)
        release.write_json(folder / INFO_FILE, release.info(rows, task, picture_sizes(size)))


@contextmanager
def _whole(out: Path) -> Iterator[Path]:
    """A folder to write in; it becomes ``out`` when the block ends, whole or not at all."""
    parent = out.resolve().parent
    try:
        parent.mkdir(parents=True, exist_ok=True)
        folder = Path(tempfile.mkdtemp(prefix=f".{out.name}-", dir=parent))
    except OSError as error:
        raise DataError(f"{out}: cannot be written to ({error.strerror}); give another folder") from None
    try:
        yield folder
        folder.chmod(0o755)
        os.replace(folder, out.resolve())
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise


def _check(out: Path, episodes: int, seconds: float, size: int, seed: int, task: int) -> None:
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise DataError(f"{out}: exists and is not an empty folder; give another, or remove it first")
    if not 1 <= episodes < layout.CHUNKS_SIZE // layout.EPISODE_STEP:
        raise DataError(f"--episodes is {episodes}; it must be 1 to {layout.CHUNKS_SIZE // layout.EPISODE_STEP - 1}")
    if not MIN_SECONDS <= seconds <= 600:
        raise DataError(f"--seconds is {seconds:g}; it must be {MIN_SECONDS:g} to 600")
    if not MIN_SIZE <= size <= 1080:
        raise DataError(f"--size is {size}; it must be {MIN_SIZE} to 1080 pixels")
    if seed < 0:
        raise DataError(f"--seed is {seed}; it must be 0 or more")
    if task not in layout.TASKS:
        raise DataError(f"--task is {task}; it must be 0 to {max(layout.TASKS)} ({layout.EASTER_EGGS}: Easter eggs)")


def _write_videos(
    out: Path, number: int, scene: Scene, motion: Motion, size: int, seed: int, depth_and_seg: bool
) -> None:
    for modality in layout.MODALITIES if depth_and_seg else ("rgb",):
        for camera, pixels in picture_sizes(size).items():
            path = layout.episode_file(out, layout.VIDEO_PATH, number, key=layout.video_key(modality, camera))
            pictures = film(scene, motion, camera, modality, pixels, seed)
            write_hevc(path, pictures, layout.FPS, release.pix_fmt(modality))


def main(argv: list[str] | None = None) -> int:
    """Command line: exit code 0, 1 when interrupted or the disk is full, 2 on bad input."""
    parser = Parser(
        prog="python -m smolvla_core.data.synthetic",
        description="Write a small scripted dataset in the layout of the 2025 BEHAVIOR challenge.",
    )
    parser.add_argument("out", type=Path, metavar="OUT", help="a new folder")
    parser.add_argument("--episodes", type=int, default=12, help="episodes on disk (default 12)")
    parser.add_argument("--seconds", type=float, default=4.0, help="mean length of an episode (default 4)")
    parser.add_argument("--size", type=int, default=96, help="pixels to a side, head camera (default 96)")
    parser.add_argument("--seed", type=int, default=0, help="of scenes, motion and texture (default 0)")
    parser.add_argument("--task", type=int, default=layout.EASTER_EGGS, help="task number (default 6)")
    parser.add_argument("--depth-and-seg", action="store_true", help="write depth and segmentation videos too")
    args = parser.parse_args(argv)
    return answer(lambda: _run(args), "interrupted; nothing was left behind")


def _run(args: argparse.Namespace) -> int:
    try:
        write_synthetic(
            args.out,
            episodes=args.episodes,
            seconds=args.seconds,
            size=args.size,
            seed=args.seed,
            task=args.task,
            depth_and_seg=args.depth_and_seg,
            progress=sys.stderr.isatty(),
        )
    except OSError as error:
        print(f"error: {error}; nothing was left behind", file=sys.stderr)
        return FAILED
    print(f"{args.out}: {counted(args.episodes, 'episode')} of task {args.task} ({layout.TASKS[args.task]})")
    return OK
