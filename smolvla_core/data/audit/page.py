"""An audit's page: 80 columns of plain lines, coloured in a terminal."""

import textwrap
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.text import Text

from smolvla_core.data.audit.finding import Finding, Verdict
from smolvla_core.data.wording import counted, printable

WIDTH = 80
WIDEST = 110
BINS = 6
BAR = 40
SHOWN_INSTRUCTIONS = 3
STYLES = {"ok": "green", "warn": "yellow", "fail": "bold red"}
INDENT = 24
"""Where the words of a finding begin."""


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
    def verdict(self) -> Verdict:
        """The worst of the findings'."""
        found = {finding.verdict for finding in self.findings}
        return "fail" if "fail" in found else "warn" if "warn" in found else "ok"

    def of(self, check: str) -> tuple[Finding, ...]:
        """Findings of one check."""
        return tuple(finding for finding in self.findings if finding.check == check)


def render(report: AuditReport, console: Console) -> None:
    """Print a report; as wide as the terminal where there is one."""
    width = max(WIDTH // 2, min(console.width, WIDEST)) if console.is_terminal else WIDTH
    for line in _page(report, width):
        console.print(line, highlight=False, soft_wrap=True)


def _page(report: AuditReport, width: int) -> Iterator[Text]:
    for line in _head(report):
        yield from (Text(part) for part in textwrap.wrap(printable(line), width, break_on_hyphens=False))
    yield Text()
    for finding in report.findings:
        yield from _lines(finding, width)
    yield Text()
    yield from (Text(line) for line in histogram(report.lengths, report.fps, min(BAR, width - 26)))
    yield Text()
    yield Text(_closing(report), style=STYLES[report.verdict])


def _head(report: AuditReport) -> Iterator[str]:
    size = f"{counted(len(report.lengths), 'episode')}, {counted(report.frames, 'frame')}"
    minutes = report.frames / report.fps / 60
    yield str(report.root)
    yield (
        f"LeRobot {report.version}, {report.robot_type or 'robot not named'}: {size} "
        f"({minutes:.1f} min) at {report.fps:g} Hz; state of {report.state_width} dims, action of {report.action_width}"
    )
    for text in report.instructions[:SHOWN_INSTRUCTIONS]:
        yield f"“{textwrap.shorten(text, 2 * WIDTH - 10, placeholder=' …')}”"
    if len(report.instructions) > SHOWN_INSTRUCTIONS:
        yield f"and {len(report.instructions) - SHOWN_INSTRUCTIONS} more instructions"


def _lines(finding: Finding, width: int) -> Iterator[Text]:
    indent = " " * INDENT
    start = f"{finding.verdict:<5} {finding.check:<17} "
    words = textwrap.wrap(printable(finding.found), width, initial_indent=start, subsequent_indent=indent)
    words += textwrap.wrap(finding.todo, width, initial_indent=f"{indent}→ ", subsequent_indent=f"{indent}  ")
    for number, line in enumerate(words):
        text = Text(line)
        if number == 0:
            text.stylize(STYLES[finding.verdict], 0, len(finding.verdict))
        yield text


def histogram(lengths: Sequence[int], fps: float, longest: int = BAR) -> list[str]:
    """Episode lengths in seconds as lines of bars, of at most ``longest`` characters."""
    seconds = np.asarray(lengths) / fps
    if seconds.min() == seconds.max():
        return [f"every episode lasts {seconds[0]:.1f} s"]
    counts, edges = np.histogram(seconds, bins=BINS)
    lines = ["episodes by their length in seconds"]
    for count, low, high in zip(counts, edges[:-1], edges[1:], strict=True):
        bar = "#" * int(np.ceil(longest * count / counts.max()))
        lines.append(f"  {low:6.1f} –{high:6.1f} {count:6d}  {bar}".rstrip())
    return lines


def _closing(report: AuditReport) -> str:
    counts = Counter(finding.verdict for finding in report.findings)
    if report.verdict == "fail":
        return f"FAIL: {counts['fail']} to repair before training, {counts['warn']} to look at."
    if report.verdict == "warn":
        return f"Usable: nothing failed, {counts['warn']} to look at."
    return "Good: nothing to repair, nothing to look at."
