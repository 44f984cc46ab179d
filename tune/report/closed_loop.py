"""The report's table of what trainings achieved when they acted."""

from collections.abc import Mapping, Sequence
from typing import Any

from tune.acted import WORDS, points, share

EMPTY = "–"
_INTRODUCTION = (
    "What policies achieved when they acted, with 95% intervals over instances (and seeds, where there are several). "
    "Differences to the baseline are in points, paired by seed and instance."
)


def closed_loop_view(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any] | None:
    """The table; None where nothing has acted.

    Args:
        rows: of :func:`tune.acted.acted`.
    """
    if not rows:
        return None
    known = [name for name in WORDS if any(name in row["scores"] for row in rows)]
    return {
        "words": _INTRODUCTION,
        "scores": [WORDS[name][0].upper() + WORDS[name][1:] for name in known],
        "any_gain": any(row["gain"] for row in rows),
        "rows": [
            {
                "name": row["name"],
                "evaluator": row["evaluator"],
                "rollouts": f"{row['rollouts']:,}" + (f" of {row['seeds']} seeds" if row["seeds"] > 1 else ""),
                "scores": [_signs(share(row["scores"][name])) if name in row["scores"] else EMPTY for name in known],
                "gain": _signs(points(row["gain"])) if row["gain"] else EMPTY,
            }
            for row in rows
        ],
    }


def _signs(text: str) -> str:
    return text.replace("-", "−").replace(" %", "%")
