"""One line of an audit, and how its numbers are put into words."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Verdict = Literal["ok", "warn", "fail"]

SHOWN_RUNS = 5


@dataclass(frozen=True)
class Finding:
    """What one check found."""

    check: str
    verdict: Verdict
    found: str
    todo: str = ""
    """What to do about it; empty where nothing is."""


def percent(part: int, whole: int) -> str:
    """A share, with two digits where it is small: '12.3 %', '0.02 %', '0 %'."""
    share = 100 * part / whole
    return f"{share:.1f} %" if share >= 0.1 else f"{share:.2g} %"


def runs(numbers: Sequence[int] | NDArray[np.int64]) -> str:
    """Ascending numbers as ranges: '3, 7–9, 40 and 12 more'."""
    found: list[list[int]] = []
    for number in (int(n) for n in numbers):
        if found and number == found[-1][1] + 1:
            found[-1][1] = number
        else:
            found.append([number, number])
    shown = [f"{a}" if a == b else f"{a}–{b}" for a, b in found[:SHOWN_RUNS]]
    rest = sum(b - a + 1 for a, b in found[SHOWN_RUNS:])
    return ", ".join(shown) + (f" and {rest} more" if rest else "")


def dims(numbers: Sequence[int] | NDArray[np.int64]) -> str:
    """'dim 3' or 'dims 3, 7–9'."""
    return f"{'dim' if len(numbers) == 1 else 'dims'} {runs(numbers)}"


def episodes(numbers: Sequence[int] | NDArray[np.int64]) -> str:
    """'episode 3' or 'episodes 3, 7–9'."""
    return f"{'episode' if len(numbers) == 1 else 'episodes'} {runs(numbers)}"


def span(low: float, high: float, form: str) -> str:
    """'3' or '3–4', each in a number format."""
    first, last = format(low, form), format(high, form)
    return first if first == last else f"{first}–{last}"
