"""Import of the 2025 challenge's demonstrations into LeRobot v3.0, one task at a time.

``python -m smolvla_core.data.behavior SRC --task 6 --out DST``. LeRobot's own converter refuses this
layout (`layout.py`). Everything is checked before anything is written. Videos are copied byte
for byte, one file an episode; state and action keep their bits; episodes are numbered from 0, and
``meta/behavior_episodes.jsonl`` keeps their original numbers. The source is only read.
"""

import argparse
import json
import os
import sys
from collections.abc import Callable, Sequence
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from smolvla_core.command import FAILED, OK, Parser, answer
from smolvla_core.data.annotations import EPISODE_MAP
from smolvla_core.data.behavior import target as targets
from smolvla_core.data.behavior.episode import Checked, try_episode, write_episode
from smolvla_core.data.behavior.layout import EASTER_EGGS
from smolvla_core.data.behavior.meta import assign, refuse_unlike, write_metadata
from smolvla_core.data.behavior.source import Keep, Selection, Source, open_source, select_episodes
from smolvla_core.data.wording import counted, print_anywhere
from smolvla_core.data.workers import each
from smolvla_core.errors import DataError

NAMED_EPISODES = 8
SMALL_BYTES = 500_000_000
MOST_WORKERS = 4
CONTINUE = "run the same command again to continue"

OnEpisode = Callable[[str, int, int], None]


@dataclass(frozen=True)
class ImportSummary:
    """What an import did."""

    root: Path
    task_name: str
    episodes: int
    frames: int
    already_done: int
    """Episodes that an earlier, interrupted run had finished."""
    skipped: tuple[str, ...]
    """A line for each incomplete episode that was left out."""
    not_on_disk: int
    """Episodes that the source lists and that were not downloaded."""
    unlisted: tuple[Path, ...]
    """Files of episodes that the source does not list; left out."""
    without_annotation: int
    length_differs: int
    """Episodes whose length is not what ``episodes.jsonl`` says; the files' own was taken."""


def import_behavior(
    src: Path,
    dst: Path,
    task: int | str = EASTER_EGGS,
    *,
    episodes: int | None = None,
    keep: Keep | None = None,
    exclude: Sequence[int] = (),
    skip_incomplete: bool = False,
    workers: int | None = None,
    on_episode: OnEpisode | None = None,
) -> ImportSummary:
    """Import one task. Run again after an interruption, it continues; when complete, it does nothing.

    Args:
        src: the download, holding ``meta/info.json``.
        dst: a new folder, or one that the same import has begun. ``meta/info.json`` appears in it
            when everything else is there.
        task: number or name of the task.
        episodes: the most episodes to take; None takes all that are on disk.
        keep: what to take over besides RGB pictures, state and action.
        exclude: original episode numbers to leave out.
        skip_incomplete: leave out episodes of which a file is missing, rather than refuse them.
        workers: processes that check; None takes as many as pay off. Copying waits for the disk only.
        on_episode: called with (``checking`` or ``copying``, episodes done, of how many).

    Raises:
        DataError: the source is damaged or lacks the task (nothing was written then), or ``dst``
            is something else.
    """
    for name, value in (("--episodes", episodes), ("--workers", workers)):
        if value is not None and value < 1:
            raise DataError(f"{name} is {value}; it must be 1 or more")
    target = Path(dst)
    try:
        source = open_source(Path(src), task, keep or Keep())
        _refuse_nesting(source.root, target)
        selection = select_episodes(source, episodes, frozenset(exclude), skip_incomplete)
        plan = _plan(source, selection)
        targets.refuse_other(target, plan)
        targets.refuse_busy(target)
    except OSError as error:
        raise DataError(f"{error.filename or src}: cannot be read ({error.strerror}); give another path") from None
    notify = on_episode or (lambda stage, done, total: None)
    already = len(selection.numbers)
    if not targets.is_complete(target):
        workers = workers or _paying_workers(plan)
        records = targets.saved_records(target) or _check(source, selection, workers, partial(notify, "checking"))
        with targets.held(target, plan):
            if not targets.is_complete(target):  # another import may have ended while this one checked
                targets.save_records(target, records)
                already = _copy(source, target, [Checked(**r) for r in records], partial(notify, "copying"))
    targets.finish(target)
    return _summary(source, target, selection, already)


def _refuse_nesting(src: Path, dst: Path) -> None:
    inner, outer = dst.resolve(), src.resolve()
    if inner == outer or outer in inner.parents or inner in outer.parents:
        raise DataError(f"--out: {dst} and the source {src} overlap; the source is never written to, give another")


def _plan(source: Source, selection: Selection) -> dict[str, Any]:
    return {
        "source": str(source.root.resolve()),
        "task": source.task.number,
        "task_name": source.task.name,
        "episodes": list(selection.numbers),
        "bytes": [sum(file.stat().st_size for file in source.files(number)) for number in selection.numbers],
        "video_keys": list(source.video_keys),
        "columns": list(source.columns),
    }


def _paying_workers(plan: dict[str, Any]) -> int:
    """Processes that take longer to start than a small import's work are not started."""
    return 1 if sum(plan["bytes"]) < SMALL_BYTES else min(MOST_WORKERS, os.cpu_count() or 1)


def _check(
    source: Source, selection: Selection, workers: int, notify: Callable[[int, int], None]
) -> list[dict[str, Any]]:
    """What is known of every episode; all of them are read before the first mistake is reported."""
    found = each(partial(try_episode, source), selection.numbers, workers, notify)
    bad = {n: result for n, result in zip(selection.numbers, found, strict=True) if isinstance(result, str)}
    if bad:
        numbers = " ".join(str(number) for number in list(bad)[:NAMED_EPISODES])
        more = f" and {len(bad) - NAMED_EPISODES} more" if len(bad) > NAMED_EPISODES else ""
        which = "it" if len(bad) == 1 else f"the {len(bad)} damaged episodes"
        raise DataError(f"{next(iter(bad.values()))}, or leave {which} out: --exclude {numbers}{more}")
    good = [result for result in found if not isinstance(result, str)]
    refuse_unlike([Checked(**record) for record in good])
    return good


def _copy(source: Source, target: Path, episodes: list[Checked], notify: Callable[[int, int], None]) -> int:
    """Write what is not there yet; how many episodes were."""
    already = 0
    for done, (checked, place) in enumerate(zip(episodes, assign(episodes), strict=True)):
        notify(done, len(episodes))
        if targets.is_done(target, place.episode):
            already += 1
        else:
            write_episode(source, target, checked, place)
            targets.mark_done(target, place.episode)
    notify(len(episodes), len(episodes))
    write_metadata(source, target, episodes)
    return already


def _summary(source: Source, target: Path, selection: Selection, already: int) -> ImportSummary:
    rows = [json.loads(line) for line in (target / EPISODE_MAP).read_text(encoding="utf-8").splitlines()]
    return ImportSummary(
        root=target,
        task_name=source.task.name,
        episodes=len(rows),
        frames=sum(row["length"] for row in rows),
        already_done=already,
        skipped=tuple(f"episode {n}: {file} is missing" for n, file in selection.incomplete.items()),
        not_on_disk=selection.not_on_disk,
        unlisted=selection.unlisted,
        without_annotation=sum(row["annotation"] is None for row in rows),
        length_differs=sum(row["length"] != source.listed[row["source_episode"]] for row in rows),
    )


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = Parser(
        prog="python -m smolvla_core.data.behavior",
        description="Import one task of the 2025 BEHAVIOR challenge's demonstrations into LeRobot v3.0.",
        epilog="Interrupted, run the same command again: it continues.",
    )
    parser.add_argument("src", type=Path, metavar="SRC", help="the download, holding meta/info.json; only read")
    parser.add_argument("--task", default=str(EASTER_EGGS), help="number or name (default 6: hiding_Easter_eggs)")
    parser.add_argument("--out", type=Path, required=True, metavar="DST", help="the new dataset's folder")
    parser.add_argument("--episodes", type=int, metavar="N", help="take the first N only")
    parser.add_argument("--exclude", type=int, nargs="+", default=[], metavar="NUMBER", help="leave episodes out")
    parser.add_argument("--skip-incomplete", action="store_true", help="leave out episodes that lack a file")
    parser.add_argument("--keep-depth", action="store_true", help="take the depth videos over")
    parser.add_argument("--keep-seg", action="store_true", help="take the segmentation videos over")
    parser.add_argument("--keep-privileged", action="store_true", help="take camera and object poses over")
    parser.add_argument("--workers", type=int, metavar="N", help="processes that check (default: as many as pay off)")
    return parser.parse_args(argv)


def _print_summary(summary: ImportSummary) -> None:
    fresh = summary.episodes - summary.already_done
    size = f"{counted(summary.episodes, 'episode')}, {counted(summary.frames, 'frame')}"
    print(f"{summary.root}: {size} of {summary.task_name}")
    if summary.already_done:
        print(f"  there already: {counted(summary.already_done, 'episode')}; imported now: {fresh:,}")
    if summary.not_on_disk:
        print(f"  listed, but not on disk: {counted(summary.not_on_disk, 'episode')}")
    if summary.unlisted:
        left = f"{counted(len(summary.unlisted), 'file')}, the first {summary.unlisted[0].name}"
        print(f"  on disk, but not listed in meta/episodes.jsonl, and left out: {left}")
    for line in summary.skipped:
        print(f"  left out: {line}")
    if summary.without_annotation:
        print(f"  without an annotation: {counted(summary.without_annotation, 'episode')}")
    if summary.length_differs:
        differs = counted(summary.length_differs, "episode")
        print(f"  of another length than episodes.jsonl says: {differs}; the files' own was taken")


def main(argv: Sequence[str] | None = None) -> int:
    """Command line: exit code 0, 1 when interrupted, 2 on bad input."""
    args = _parse(argv)
    print_anywhere()
    return answer(lambda: _run(args), f"interrupted; {CONTINUE}")


def _run(args: argparse.Namespace) -> int:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    bar = Progress(*columns, console=Console(stderr=True), disable=not sys.stderr.isatty(), transient=True)
    shown = bar.add_task("reading", total=None)
    try:
        with bar:
            summary = import_behavior(
                args.src,
                args.out,
                args.task,
                episodes=args.episodes,
                keep=Keep(depth=args.keep_depth, seg=args.keep_seg, privileged=args.keep_privileged),
                exclude=args.exclude,
                skip_incomplete=args.skip_incomplete,
                workers=args.workers,
                on_episode=lambda stage, done, total: bar.update(
                    shown, description=f"{stage} episodes", completed=done, total=total
                ),
            )
    except BrokenProcessPool:
        print(f"error: a worker process died (out of memory?); {CONTINUE}, with fewer --workers", file=sys.stderr)
        return FAILED
    except OSError as error:
        print(f"error: {error}; {CONTINUE}", file=sys.stderr)
        return FAILED
    _print_summary(summary)
    return OK
