"""The report's figures, as plotly's: what they share, the learning curves and the importances.

The colours of ink and grid are set in the page, which knows the theme.
"""

import html
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import plotly.graph_objects as go
from plotly.utils import PlotlyJSONEncoder

from tune.clock import seconds_at
from tune.console import format_params, short_keys, short_params
from tune.records import TrialRecord
from tune.report.importances import Importances
from tune.report.rungs import at_rung
from tune.summary import Summary, baseline_trial, state_of

STATE_COLORS = {
    "complete": "#4f8fe0",
    "pruned": "#9aa4b2",
    "failed": "#d9534f",
    "running": "#a678de",
    "interrupted": "#c9a227",
}
STATE_WORDS = {"complete": "completed", "pruned": "stopped early"}
BEST_COLOR, BASELINE_COLOR = "#12a37a", "#e5823a"
MOST_DRAWN = 400
"""Trials that a figure shows; with more it would only be slow and full."""
LOG_RATIO = 6
"""The objective's axis is logarithmic where its values span more than this factor."""


@dataclass(frozen=True)
class Figure:
    """A figure for the page.

    Attributes:
        name: unique in the page.
        says: what it shows, for those who do not see it.
        figure: plotly's.
        views: name of a button -> what it changes: plotly's ``update`` arguments.
        min_width: pixels; on narrower screens it scrolls within itself.
    """

    name: str
    says: str
    figure: go.Figure
    views: Mapping[str, tuple[dict[str, Any], dict[str, Any]]] = field(default_factory=dict)
    min_width: int = 0

    def json(self) -> str:
        """For a script element: no ``<`` in it, so that nothing within can end the element."""
        document = {"figure": self.figure.to_plotly_json(), "views": self.views}
        document["figure"]["layout"].pop("template", None)
        return json.dumps(document, cls=PlotlyJSONEncoder).replace("<", "\\u003c").replace("&", "\\u0026")


def drawn(trials: Sequence[TrialRecord], summary: Summary, rungs: Sequence[int]) -> list[TrialRecord]:
    """The trials that figures show: all, or the ``MOST_DRAWN`` best at the highest rungs, warm starts among them."""
    if len(trials) <= MOST_DRAWN:
        return list(trials)
    sign = 1.0 if summary.mode == "min" else -1.0
    order: dict[int, None] = dict.fromkeys(trial.number for trial in trials if trial.name is not None)
    for rung in reversed(rungs):
        there = at_rung(trials, summary.metric, rungs, rung)
        order |= dict.fromkeys(one.number for one in sorted(there, key=lambda one: sign * one.value))
    chosen = set(list(order)[:MOST_DRAWN])
    return [trial for trial in trials if trial.number in chosen]


def curves(trials: Sequence[TrialRecord], summary: Summary, rungs: Sequence[int], starts: Sequence[float]) -> Figure:
    """The objective of every trial against samples, or against the hours that the trial had been running."""
    figure, samples, hours = go.Figure(), [], []
    for name, color, width, group in _groups(trials, summary):
        points = [point for trial in group for point in (*_curve(trial, summary.metric, starts), None)]
        if not any(points):
            continue
        columns = [[point[i] if point else None for point in points] for i in range(4)]
        samples.append(columns[0])
        hours.append(columns[1])
        figure.add_scatter(
            x=columns[0], y=columns[2], text=columns[3], name=html.escape(name), **line_style(color, width)
        )
    figure.update_layout(**layout(430), legend=legend_above(), hovermode="closest")
    ticks = {"type": "log", "tickvals": list(rungs), "ticktext": [f"{rung:,}" for rung in rungs]}
    figure.update_xaxes(title="samples seen", **ticks)
    figure.update_yaxes(title=summary.metric, **value_axis(trials, summary.metric))
    at_rungs = {"title.text": "samples seen", "tickmode": "array", "autorange": True, **ticks}
    by_time = {
        "title.text": "hours that the trial had been running",
        "tickmode": "auto",
        "autorange": True,
        "type": "linear",
    }
    views = {
        "Samples": ({"x": samples}, {f"xaxis.{key}": value for key, value in at_rungs.items()}),
        "Hours": ({"x": hours}, {f"xaxis.{key}": value for key, value in by_time.items()}),
    }
    return Figure("curves", f"{summary.metric} of each trial at each rung", figure, views)


def _groups(trials: Sequence[TrialRecord], summary: Summary) -> Iterator[tuple[str, str, float, Sequence[TrialRecord]]]:
    """Name, colour, width of the line and trials of what is drawn alike, the foremost last."""
    baseline, best = baseline_trial(trials), summary.best
    apart = {trial.number for trial in (baseline, best) if trial is not None}
    for state, color in STATE_COLORS.items():
        group = [t for t in trials if state_of(t, summary.state) == state and t.number not in apart]
        yield STATE_WORDS.get(state, state), color, 1.2, group
    if baseline is not None and not (best and best.number == baseline.number):
        yield f"baseline: {_title(baseline)}", BASELINE_COLOR, 3.0, [baseline]
    if best is not None:
        yield f"best: trial {best.number}", BEST_COLOR, 3.0, [t for t in trials if t.number == best.number]


def _curve(trial: TrialRecord, metric: str, starts: Sequence[float]) -> Iterator[tuple[int, float, float, str]]:
    """Samples, hours, value and words of each report with a finite value."""
    seconds = seconds_at([trial.started, *(result.time for result in trial.results)], starts)[1:]
    for result, second in zip(trial.results, seconds, strict=True):
        value = result.metrics.get(metric)
        if value is not None and math.isfinite(value):
            yield (
                result.samples_seen,
                second / 3600,
                value,
                hover(trial.number, trial.name, value, result.samples_seen, trial.params),
            )


def importance_bars(found: Importances) -> Figure:
    """A bar a parameter, with the range of the resampled studies."""
    names = short_keys(found.of)
    # the first bar is drawn at the bottom
    rows = [(html.escape(names[key]), one) for key, one in reversed(list(found.of.items()))]
    figure = go.Figure(
        go.Bar(
            x=[one.share for _, one in rows],
            y=[name for name, _ in rows],
            orientation="h",
            marker={"color": STATE_COLORS["complete"]},
            error_x={
                "type": "data",
                "symmetric": False,
                "array": [max(0.0, one.high - one.share) for _, one in rows],
                "arrayminus": [max(0.0, one.share - one.low) for _, one in rows],
                "color": STATE_COLORS["pruned"],
                "thickness": 1.5,
            },
            hovertemplate="%{y}: %{x:.0%}<extra></extra>",
        )
    )
    figure.update_layout(**layout(90 + 34 * len(rows), top=12), showlegend=False, bargap=0.45)
    figure.update_xaxes(tickformat=".0%", rangemode="tozero", title="share of the importance")
    figure.update_yaxes(automargin=True, ticksuffix="  ")
    return Figure("importances", "importance of each parameter", figure)


def hover(number: int, name: str | None, value: float, samples: int, params: Mapping[str, Any]) -> str:
    """What a point says: trial, value, samples, and a line a parameter."""
    words = f"trial {number}{f' ({name})' if name else ''}: {value:.5g} at {samples:,} samples"
    return "<br>".join(html.escape(line) for line in (words, *format_params(short_params(params)).split("  ")))


def line_style(color: str, width: float) -> dict[str, Any]:
    """Plotly's settings of lines with points; thin ones let others shine through."""
    return {
        "mode": "lines+markers",
        "hoverinfo": "text",
        "line": {"color": color, "width": width},
        "marker": {"color": color, "size": 4 + width},
        "opacity": 0.75 if width < 2 else 1.0,
    }


def layout(height: int, left: int = 62, right: int = 16, top: int = 44, bottom: int = 52) -> dict[str, Any]:
    """Height and margins, in pixels."""
    return {"height": height, "margin": {"l": left, "r": right, "t": top, "b": bottom}}


def legend_above(y: float = 1.02) -> dict[str, Any]:
    """A legend in a row above the figure."""
    return {"orientation": "h", "x": 0, "y": y, "yanchor": "bottom", "xanchor": "left"}


def value_axis(trials: Sequence[TrialRecord], metric: str) -> dict[str, Any]:
    """The objective's axis: the same range in every figure."""
    values = [v for trial in trials for v in trial.values(metric).values() if math.isfinite(v)]
    if not values:
        return {}
    low, high = min(values), max(values)
    log = low > 0 and high / low > LOG_RATIO
    ticks: dict[str, Any] = {}
    if log:
        powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
        nice = [digit * 10.0**power for power in powers for digit in (1, 2, 5)]
        ticks = {"tickvals": nice, "ticktext": [f"{value:g}" for value in nice]}
        low, high = math.log10(low), math.log10(high)
    pad = 0.06 * (high - low or 1.0)
    return {"type": "log" if log else "linear", "range": [low - pad, high + pad], **ticks}


def _title(trial: TrialRecord) -> str:
    return f"trial {trial.number}" + (f" ({trial.name})" if trial.name else "")
