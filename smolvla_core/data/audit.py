"""A one-page check of a dataset, before money is spent on it.

``python -m smolvla_core.data.audit ROOT`` reads any LeRobot dataset (v3.0, v2.1, BEHAVIOR's raw
layout), writes nothing, and ends with 0 (no failure), 1 (something failed) or 2 (bad input).
"""

import argparse
import sys
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.progress import Progress
from rich.table import Table
from rich.text import Text

from smolvla_core.data import audit_checks as checks
from smolvla_core.data.annotations import load_annotations, manipulation_spans
from smolvla_core.data.audit_checks import Finding
from smolvla_core.data.audit_read import Recording, read_recording
from smolvla_core.data.audit_videos import OnClip, check_cameras
from smolvla_core.errors import DataError, UserError

OUTLIER_Z = 8.0
SAMPLED_EPISODES = 20
WIDTH = 80
BINS = 6
STYLES = {"ok": "green", "warn": "yellow", "fail": "bold red"}


@dataclass(frozen=True)
class AuditReport:
    """What an audit found."""

    root: Path
    version: str
    robot_type: str | None
    fps: float
    frames: int
    state_width: int
    action_width: int
    lengths: tuple[int, ...]
    """Frames of each episode."""
    instructions: tuple[str, ...]
    """Each once."""
    findings: tuple[Finding, ...]

    @property
    def verdict(self) -> checks.Verdict:
        """The worst of the findings'."""
        found = {finding.verdict for finding in self.findings}
        return "fail" if "fail" in found else "warn" if "warn" in found else "ok"

    def of(self, check: str) -> tuple[Finding, ...]:
        """Findings of one check."""
        return tuple(finding for finding in self.findings if finding.check == check)


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
    if z <= 0:
        raise DataError(f"--z is {z:g}; it must be above 0")
    if videos is not None and videos < 1:
        raise DataError(f"--videos is {videos}; it must be 1 or more")
    recording = read_recording(Path(root))
    findings = [
        *checks.check_lengths(recording),
        *checks.check_clock(recording),
        *checks.check_values(recording),
        *checks.check_constant(recording),
        *checks.check_outliers(recording, z),
        *checks.check_idle(recording),
        *checks.check_lag(recording),
        *check_cameras(recording, videos, on_clip),
        *checks.check_instructions(recording),
        *_check_annotations(recording),
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
        instructions=tuple(sorted(set(recording.instructions))),
        findings=tuple(findings),
    )


def _check_annotations(recording: Recording) -> list[Finding]:
    annotations = load_annotations(recording.root)
    if annotations is None:
        return []
    inside = np.zeros(len(recording.episode), dtype=bool)
    starts = dict(zip(recording.numbers.tolist(), recording.starts.tolist(), strict=True))
    for episode, spans in annotations.items():
        for span in manipulation_spans(spans):
            inside[starts[episode] + span.start : starts[episode] + span.stop] = True
    found = (
        f"{len(annotations)} of {len(recording.lengths)} episodes; picks and places cover "
        f"{100 * inside.mean():.0f} % of the frames"
    )
    return [Finding("annotations", "ok", found)]


def render(report: AuditReport, console: Console) -> None:
    """Print a report: a table in a terminal, plain lines elsewhere."""
    width = min(console.width, 110) if console.is_terminal else WIDTH
    for line in _head(report):
        console.print(Text(line), width=width, soft_wrap=False, highlight=False)
    console.print()
    if console.is_terminal:
        table = Table(box=None, pad_edge=False, width=width)
        table.add_column("verdict", width=7)
        table.add_column("check", style="bold", width=16)
        table.add_column("found")
        for finding in report.findings:
            found = Text(finding.found)
            if finding.todo:
                found.append(f"\n→ {finding.todo}", style="italic")
            table.add_row(Text(finding.verdict, style=STYLES[finding.verdict]), finding.check, found)
        console.print(table)
    else:
        for finding in report.findings:
            _print_plain(console, finding)
    console.print()
    for line in histogram(report.lengths, report.fps):
        console.print(Text(line), highlight=False)
    console.print()
    console.print(Text(_closing(report), style=STYLES[report.verdict]), width=width, highlight=False)


def histogram(lengths: Sequence[int], fps: float) -> list[str]:
    """Episode lengths in seconds as lines of bars."""
    seconds = np.asarray(lengths) / fps
    if seconds.min() == seconds.max():
        return [f"episode length  {seconds[0]:.1f} s  ({len(seconds)} episodes)"]
    counts, edges = np.histogram(seconds, bins=BINS)
    lines = ["episode length, seconds"]
    for count, low, high in zip(counts, edges[:-1], edges[1:], strict=True):
        bar = "#" * int(np.ceil(40 * count / counts.max()))
        lines.append(f"  {low:7.1f} – {high:7.1f}  {bar:<40} {count}")
    return lines


def _head(report: AuditReport) -> list[str]:
    minutes = report.frames / report.fps / 60
    kind = f"LeRobot {report.version}, {report.robot_type or 'robot not named'}"
    size = f"{len(report.lengths)} episodes, {report.frames} frames ({minutes:.1f} min) at {report.fps:g} Hz"
    lines = [str(report.root), f"{kind}: {size}", f"state {report.state_width} dims, action {report.action_width}"]
    for text in report.instructions[:3]:
        lines.append("“" + textwrap.shorten(text, WIDTH - 4, placeholder=" …") + "”")
    if len(report.instructions) > 3:
        lines.append(f"and {len(report.instructions) - 3} more instructions")
    return lines


def _print_plain(console: Console, finding: Finding) -> None:
    indent = " " * 24
    text = f"{finding.verdict:<6} {finding.check:<16} {finding.found}"
    lines = textwrap.wrap(text, WIDTH, subsequent_indent=indent)
    if finding.todo:
        lines += textwrap.wrap(f"-> {finding.todo}", WIDTH, initial_indent=indent, subsequent_indent=indent + "   ")
    for line in lines:
        console.print(Text(line), highlight=False, soft_wrap=True)


def _closing(report: AuditReport) -> str:
    counts = {verdict: sum(f.verdict == verdict for f in report.findings) for verdict in ("fail", "warn")}
    if report.verdict == "fail":
        return f"FAIL: {counts['fail']} to repair before training, {counts['warn']} to look at."
    if report.verdict == "warn":
        return f"Usable: nothing failed, {counts['warn']} to look at."
    return "Good: nothing found."


def main(argv: Sequence[str] | None = None) -> int:
    """Command line: exit code 0 where nothing failed, 1 where something did, 2 on bad input."""
    parser = argparse.ArgumentParser(
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
    progress = Progress(console=Console(stderr=True), disable=not sys.stderr.isatty(), transient=True)
    shown = progress.add_task("looking at videos", total=None)
    try:
        with progress:
            report = audit(
                args.root,
                z=args.z,
                videos=None if args.all_videos else args.videos,
                on_clip=lambda done, total: progress.update(shown, completed=done, total=total),
            )
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    render(report, Console())
    return 1 if report.verdict == "fail" else 0


if __name__ == "__main__":
    sys.exit(main())
