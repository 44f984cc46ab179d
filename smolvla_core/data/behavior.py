"""Import of the 2025 challenge's demonstrations into LeRobot v3.0, one task at a time.

``python -m smolvla_core.data.behavior SRC --task 6 --out DST``. LeRobot's own converter refuses this
layout (`behavior_layout`). Videos are copied byte for byte, one file an episode; state and action
keep their bits; episodes are numbered from 0, and ``meta/behavior_episodes.jsonl`` keeps their
original numbers. The source is only read. A v3.0 dataset (the 2026 release) needs no import.
"""

import argparse
import fcntl
import json
import os
import shutil
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from smolvla_core.data.annotations import SkillSpan, load_annotations, manipulation_spans
from smolvla_core.data.behavior_episode import Assignment, import_episode, write_json
from smolvla_core.data.behavior_layout import EASTER_EGGS, INFO_FILE
from smolvla_core.data.behavior_meta import write_metadata
from smolvla_core.data.behavior_source import Keep, Selection, Source, open_source, select_episodes
from smolvla_core.errors import DataError, UserError

__all__ = ["ImportSummary", "SkillSpan", "import_behavior", "load_annotations", "manipulation_spans"]

PROGRESS_FOLDER = ".import"
PLAN_FILE = "meta/behavior_import.json"
"""What was imported and how; an import continues only under the same plan."""

OnEpisode = Callable[[int, int], None]


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
    workers: int = 1,
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
        workers: processes.
        on_episode: called with (episodes done, of how many) at the start and after each.

    Raises:
        DataError: the source is damaged or lacks the task, or ``dst`` is something else.
    """
    if episodes is not None and episodes < 1:
        raise DataError(f"--episodes is {episodes}; it must be 1 or more")
    if workers < 1:
        raise DataError(f"--workers is {workers}; it must be 1 or more")
    source = open_source(Path(src), task, keep or Keep())
    _refuse_nesting(source.root, Path(dst))
    selection = select_episodes(source, episodes, frozenset(exclude), skip_incomplete)
    plan = _plan(source, selection)
    target = Path(dst)
    _open_target(target, plan)
    assignments = _assign(selection)
    if (target / INFO_FILE).is_file():
        records = None
        already = len(assignments)
    else:
        with _only_one(target):
            already = sum(_record_file(target, a).is_file() for a in assignments)
            records = _run(source, target, assignments, workers, on_episode)
            write_metadata(source, target, records)
    shutil.rmtree(target / PROGRESS_FOLDER, ignore_errors=True)
    annotated = load_annotations(target) or {}
    return ImportSummary(
        root=target,
        task_name=source.task_name,
        episodes=len(assignments),
        frames=sum(selection.lengths),
        already_done=already,
        skipped=tuple(f"episode {n}: {file} is missing" for n, file in selection.incomplete.items()),
        not_on_disk=selection.not_on_disk,
        without_annotation=len(assignments) - len(annotated),
        length_differs=sum(source.listed[a.number] != a.length for a in assignments),
    )


def _refuse_nesting(src: Path, dst: Path) -> None:
    inner, outer = dst.resolve(), src.resolve()
    if inner == outer or outer in inner.parents or inner in outer.parents:
        raise DataError(f"--out: {dst} and the source {src} overlap; the source is never written to, give another")


def _plan(source: Source, selection: Selection) -> dict[str, Any]:
    sizes = [source.data_file(number).stat().st_size for number in selection.numbers]
    return {
        "source": str(source.root.resolve()),
        "task": source.task,
        "task_name": source.task_name,
        "episodes": list(selection.numbers),
        "data_bytes": sizes,
        "video_keys": list(source.video_keys),
        "columns": list(source.columns),
    }


def _open_target(target: Path, plan: dict[str, Any]) -> None:
    """Begin or continue in ``target``; refuse what is not this very import."""
    if target.exists() and not target.is_dir():
        raise DataError(f"--out: {target} is a file; give a new folder")
    plan_file = target / PLAN_FILE
    if plan_file.is_file():
        try:
            begun = json.loads(plan_file.read_text(encoding="utf-8"))
        except ValueError:
            begun = None
        if begun != plan:
            differs = [key for key in plan if not isinstance(begun, dict) or begun.get(key) != plan[key]]
            raise DataError(
                f"--out: {target} was begun with other {' and '.join(differs[:2]).replace('_', ' ')}; "
                "repeat that command to finish it, or give a new folder"
            )
        return
    if target.is_dir() and any(target.iterdir()):
        raise DataError(f"--out: {target} is not empty and no import was begun there; give a new folder")
    write_json(plan_file, plan)


def _assign(selection: Selection) -> list[Assignment]:
    assignments, first_row = [], 0
    for episode, (number, length) in enumerate(zip(selection.numbers, selection.lengths, strict=True)):
        assignments.append(Assignment(number, episode, first_row, length))
        first_row += length
    return assignments


def _record_file(target: Path, assignment: Assignment) -> Path:
    return target / PROGRESS_FOLDER / f"episode_{assignment.episode:06d}.json"


def _run(
    source: Source, target: Path, assignments: list[Assignment], workers: int, on_episode: OnEpisode | None
) -> list[dict[str, Any]]:
    """Records of all episodes, importing those that have none yet."""
    open_ones = [a for a in assignments if not _record_file(target, a).is_file()]
    done = len(assignments) - len(open_ones)
    notify = on_episode or (lambda done, total: None)
    notify(done, len(assignments))
    for count, _ in enumerate(_finished(source, target, open_ones, workers), start=1):
        notify(done + count, len(assignments))
    return [json.loads(_record_file(target, a).read_text(encoding="utf-8")) for a in assignments]


def _finished(source: Source, target: Path, assignments: list[Assignment], workers: int) -> Iterator[None]:
    if workers == 1 or len(assignments) < 2:
        for assignment in assignments:
            yield _import_and_record(source, target, assignment)
        return
    with ProcessPoolExecutor(
        min(workers, len(assignments)), mp_context=get_context("spawn"), initializer=_leave_interrupts
    ) as pool:
        futures = [pool.submit(_import_and_record, source, target, a) for a in assignments]
        try:
            for future in futures:
                yield future.result()
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def _leave_interrupts() -> None:
    """Ctrl-C reaches every process of a terminal; only the first answers it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _import_and_record(source: Source, target: Path, assignment: Assignment) -> None:
    record = import_episode(source, target, assignment)
    write_json(_record_file(target, assignment), record)


@contextmanager
def _only_one(target: Path) -> Iterator[None]:
    folder = target / PROGRESS_FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / "lock", "w", encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise DataError(f"--out: another import is writing to {target}; wait for it to end") from None
        yield


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
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
    parser.add_argument("--workers", type=int, default=min(4, os.cpu_count() or 1), metavar="N", help="processes")
    return parser.parse_args(argv)


def _print_summary(summary: ImportSummary) -> None:
    fresh = summary.episodes - summary.already_done
    print(f"{summary.root}: {summary.episodes} episodes, {summary.frames} frames of {summary.task_name}")
    if summary.already_done:
        print(f"  {summary.already_done} episodes were there already, {fresh} imported now")
    if summary.not_on_disk:
        print(f"  {summary.not_on_disk} more episodes are listed but not on disk")
    for line in summary.skipped:
        print(f"  left out {line}")
    if summary.without_annotation:
        print(f"  {summary.without_annotation} episodes have no annotation")
    if summary.length_differs:
        print(f"  {summary.length_differs} episodes differ in length from episodes.jsonl; the files' own was taken")


def main(argv: Sequence[str] | None = None) -> int:
    """Command line: exit code 0, 1 when interrupted, 2 on bad input."""
    args = _parse(argv)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    bar = Progress(*columns, console=Console(stderr=True), disable=not sys.stderr.isatty(), transient=True)
    shown = bar.add_task("importing episodes", total=None)
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
                on_episode=lambda done, total: bar.update(shown, completed=done, total=total),
            )
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except OSError as error:
        print(f"error: {error}; run the same command again to continue", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted; run the same command again to continue", file=sys.stderr)
        return 1
    _print_summary(summary)
    return 0


if __name__ == "__main__":
    sys.exit(main())
