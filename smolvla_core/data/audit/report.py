"""A one-page check of a dataset, before money is spent on it.

``python -m smolvla_core.data.audit ROOT`` reads any LeRobot dataset (v3.0, v2.1, BEHAVIOR's raw
layout), writes nothing, and ends with 0 (no failure), 1 (something failed) or 2 (bad input).
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.progress import Progress

from smolvla_core.command import FAILED, OK, Parser, answer
from smolvla_core.data.audit.episodes import (
    check_annotations,
    check_clock,
    check_files,
    check_instructions,
    check_lengths,
)
from smolvla_core.data.audit.lag import check_lag
from smolvla_core.data.audit.motion import check_idle
from smolvla_core.data.audit.numbers import check_constant, check_held, check_outliers, check_values
from smolvla_core.data.audit.page import AuditReport, render
from smolvla_core.data.audit.read import read_recording
from smolvla_core.data.audit.videos import OnClip, check_cameras
from smolvla_core.data.wording import print_anywhere, printable
from smolvla_core.errors import DataError

OUTLIER_Z = 8.0
SAMPLED_EPISODES = 20


def audit(
    root: Path, *, z: float = OUTLIER_Z, videos: int | None = SAMPLED_EPISODES, on_clip: OnClip | None = None
) -> AuditReport:
    """Check a dataset; it is only read.

    Args:
        root: the folder that holds ``meta/info.json``.
        z: standard deviations from the mean beyond which a value is an outlier.
        videos: how many episodes' videos are counted and decoded; None for all.
        on_clip: called with (videos looked at, of how many).

    Raises:
        DataError: no dataset there, or one that cannot be read at all.
    """
    if not z > 0:
        raise DataError(f"--z is {z:g}; it must be above 0")
    if videos is not None and videos < 1:
        raise DataError(f"--videos is {videos}; it must be 1 or more")
    recording = read_recording(Path(root))
    findings = [
        *check_files(recording),
        *check_lengths(recording),
        *check_clock(recording),
        *check_values(recording),
        *check_constant(recording),
        *check_held(recording),
        *check_outliers(recording, z),
        *check_idle(recording),
        *check_lag(recording),
        *check_cameras(recording, videos, on_clip),
        *check_instructions(recording),
        *check_annotations(recording),
    ]
    return AuditReport(
        root=recording.root,
        version=recording.version,
        robot_type=recording.robot_type,
        fps=recording.fps,
        frames=len(recording.episode),
        state_width=recording.state.shape[1],
        action_width=recording.action.shape[1],
        lengths=tuple(int(length) for length in recording.lengths),
        instructions=tuple(sorted({printable(text) for text in recording.files.instructions})),
        findings=tuple(findings),
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Command line: exit code 0 where nothing failed, 1 where something did, 2 on bad input."""
    parser = Parser(
        prog="python -m smolvla_core.data.audit",
        description="Check a LeRobot dataset before training on it. It is only read.",
    )
    parser.add_argument("root", type=Path, metavar="ROOT", help="the folder that holds meta/info.json")
    parser.add_argument("--z", type=float, default=OUTLIER_Z, help=f"outlier threshold (default {OUTLIER_Z:g})")
    parser.add_argument(
        "--videos",
        type=int,
        default=SAMPLED_EPISODES,
        metavar="N",
        help=f"episodes whose videos are looked into (default {SAMPLED_EPISODES})",
    )
    parser.add_argument("--all-videos", action="store_true", help="look into the videos of every episode")
    args = parser.parse_args(argv)
    print_anywhere()
    return answer(lambda: _run(args))


def _run(args: argparse.Namespace) -> int:
    with Progress(console=Console(stderr=True), disable=not sys.stderr.isatty(), transient=True) as progress:
        shown = progress.add_task("auditing", total=None)
        try:
            report = audit(
                args.root,
                z=args.z,
                videos=None if args.all_videos else args.videos,
                on_clip=lambda done, total: progress.update(shown, completed=done, total=total),
            )
        except OSError as error:
            reason = f"cannot be read ({error.strerror}); check the path and the disk"
            raise DataError(f"{error.filename or args.root}: {reason}") from None
    render(report, Console())
    return FAILED if report.verdict == "fail" else OK
