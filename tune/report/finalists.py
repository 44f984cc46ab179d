"""What the report says of the finalists, and the intervals of the gains: where a study has them, in words and rows."""

from collections.abc import Mapping
from typing import Any

from tune.intervals import Interval


def finalists_outcome(finalists: Mapping[str, Any] | None, baseline: str | None) -> dict[str, str] | None:
    """Who won, as the report's headline and its tile of the gain say it; None where no finalist has been scored.

    Args:
        finalists: as for :func:`finalists_view`; ``acting``, where acting decided between them, has the ``score``
            that did and its ``gain`` over the baseline.
        baseline: its name.

    Returns:
        ``headline`` and ``detail``, ``value`` and ``note``.
    """
    if not finalists or finalists["winner"] is None:
        return None
    winner = next(row for row in finalists["contenders"] if row["name"] == finalists["winner"])
    name, acting = str(winner["name"]), finalists.get("acting")
    gain = (acting or winner)["gain"]
    most = f"has the most {acting['score']}" if acting else "has the lowest test error"
    if name == baseline:
        headline, value, note = f"Nothing beats {name}", "none", f"nothing beats {name}"
    elif gain is None:
        headline, value, note = f"{name} {most}", "–", "no baseline to compare with"
    elif acting:
        value = f"{100 * gain['mean']:+.1f} points"
        headline, note = f"{name} {most}, {value} over {baseline}", f"{name}, {acting['score']}"
    else:
        value, note = f"{gain['mean']:+.1%}", f"{name}, on test episodes"
        direction = "better" if gain["mean"] >= 0 else "worse"
        headline = f"{name} is {abs(gain['mean']):.1%} {direction} than {baseline or 'the baseline'} on test episodes"
    if gain is not None and Interval(**gain).sign == 0:
        headline, note = f"Within noise: {headline}", f"{note}, within noise"
    return {
        "headline": f"{headline[0].upper()}{headline[1:]}",
        "detail": str(finalists["verdict"]),
        "value": value,
        "note": note,
    }


def finalists_view(finalists: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """What the finalists' training with several seeds came to; None where the study has none.

    Args:
        finalists: ``verdict`` and ``missing`` (sentences), ``winner`` (a name), ``metric``, ``seeds`` and
            ``test_episodes`` (counts), and ``contenders``: each with ``name``, ``trial``, ``seeds`` (a
            list), ``test`` and ``gain`` (``mean``, ``low``, ``high``; the gain is a share, or None);
            ``policy``, with its ``seed``: the winner's training that is exported.
    """
    if not finalists:
        return None
    rows = [
        {
            "name": row["name"],
            "trial": row["trial"],
            "seeds": len(row["seeds"]),
            "error": row["test"]["mean"],
            "error_interval": _interval(row["test"], "{:.4g}"),
            "gain": row["gain"]["mean"] if row["gain"] else None,
            "gain_interval": _interval(row["gain"], "{:+.1%}"),
            "winner": row["name"] == finalists.get("winner"),
        }
        for row in finalists.get("contenders", ())
    ]
    words = (
        f"Trained again to the full budget with {finalists['seeds']} seeds that the search had not used, and scored "
        f"once on {finalists['test_episodes']} test episodes that nothing else looks at ({finalists['metric']}). "
        "Gains are over the baseline, paired by seed and episode; intervals resample episodes and seeds."
        if rows
        else ""
    )
    return {
        "verdict": str(finalists.get("verdict") or ""),
        "words": words,
        "rows": rows,
        "missing": str(finalists.get("missing") or ""),
        "exported": f"{finalists['winner']}, seed {finalists['policy']['seed']}" if finalists.get("policy") else "",
    }


def intervals_of(summary: Mapping[str, Any]) -> dict[int, str]:
    """Rung -> the interval of the best trial's gain there, of those that the summary has in ``gains``."""
    best = summary.get("best")
    if not best:
        return {}
    return {
        gain["rung"]: f"{_interval(gain, '{:+.1%}')} ({gain['episodes']} episodes)"
        for gain in summary.get("gains") or ()
        if gain["trial"] == best["number"] and gain["low"] is not None
    }


def _interval(interval: Mapping[str, Any] | None, form: str) -> str:
    if not interval or interval["low"] is None or interval["high"] is None:
        return "–"
    return f"{form.format(interval['low'])} to {form.format(interval['high'])}".replace("-", "−")
