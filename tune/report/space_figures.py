"""The report's figures of the search space: slices, and all parameters at once."""

import html
import math
from collections.abc import Iterator, Sequence
from typing import Any

import plotly.graph_objects as go
from optuna.distributions import FloatDistribution

from tune.console import short_keys
from tune.records import TrialRecord
from tune.report.axes import ABSENT, ABSENT_PLACE, Axis
from tune.report.figures import (
    BASELINE_COLOR,
    BEST_COLOR,
    Figure,
    hover,
    layout,
    legend_above,
    line_style,
    value_axis,
)
from tune.report.rungs import at_rung
from tune.space import Space
from tune.summary import Scored, Summary, baseline_trial

PALE, FULL = (158, 184, 214), (28, 100, 200)
"""Colours of the first and of the last rung."""
THIRDS = {"best third": ("#4f8fe0", 1.8), "middle third": ("#9fb0c6", 1.2), "last third": ("#c3c9d2", 1.0)}
"""Name -> colour and width of the lines of a third of the trials."""


def rung_colors(rungs: Sequence[int]) -> dict[int, str]:
    """A colour a rung, from pale to full."""
    colors = {}
    for index, rung in enumerate(rungs):
        share = index / max(1, len(rungs) - 1)
        red, green, blue = (round(a + (b - a) * share) for a, b in zip(PALE, FULL, strict=True))
        colors[rung] = f"rgb({red},{green},{blue})"
    return colors


def slices(space: Space, trials: Sequence[TrialRecord], summary: Summary, rungs: Sequence[int]) -> Iterator[Figure]:
    """For each parameter its values against the objective; a colour a rung, since only equal budgets compare."""
    names, baseline = short_keys(space.distributions), baseline_trial(trials)
    rings = {baseline.number: BASELINE_COLOR} if baseline else {}
    rings |= {summary.best.number: BEST_COLOR} if summary.best else {}
    values = {rung: at_rung(trials, summary.metric, rungs, rung) for rung in rungs}
    for index, (key, distribution) in enumerate(space.distributions.items()):
        axis = Axis(distribution, [trial.params[key] for trial in trials if key in trial.params])
        figure = go.Figure()
        for rung, color in rung_colors(rungs).items():
            there = [one for one in values[rung] if key in one.params]
            if there:
                figure.add_scatter(
                    x=[axis.place(one.params[key], one.number) for one in there],
                    y=[one.value for one in there],
                    text=[hover(one.number, one.name, one.value, rung, one.params) for one in there],
                    hoverinfo="text",
                    mode="markers",
                    marker=_markers(there, color, rings),
                )
        figure.update_layout(**layout(240, left=46, right=26, top=8, bottom=42), showlegend=False)
        figure.update_xaxes(title={"text": html.escape(names[key]), "standoff": 6}, **axis.layout())
        figure.update_yaxes(**value_axis(trials, summary.metric))
        yield Figure(f"slice-{index}", f"{summary.metric} against {key}", figure)


def _markers(there: Sequence[Scored], color: str, rings: dict[int, str]) -> dict[str, Any]:
    """Points, those of some trials with a ring."""
    return {
        "color": color,
        "opacity": 0.85,
        "size": [12 if one.number in rings else 8 for one in there],
        "line": {
            "color": [rings.get(one.number, color) for one in there],
            "width": [3 if one.number in rings else 0 for one in there],
        },
    }


def parallel(space: Space, results: Sequence[Scored], summary: Summary, rung: int) -> Figure:
    """Every trial with a value at the rung as a line through its parameters, by how good that value is."""
    keys, names = list(space.distributions), short_keys(space.distributions)
    columns = {key: [one.params.get(key, ABSENT) for one in results] for key in keys}
    axes = [Axis(space.distributions[key], columns[key]) for key in keys]
    values = [one.value for one in results]
    score = Axis(FloatDistribution(min(values), max(values)), values)
    figure = go.Figure()
    for name, group, color, width in _ranked_groups(results, summary):
        figure.add_scatter(
            x=[*range(len(keys) + 1), None] * len(group),
            y=[place for one in group for place in (*_places(one, keys, axes), score.unit(one.value), None)],
            text=[
                text
                for one in group
                for text in [hover(one.number, one.name, one.value, rung, one.params)] * (len(keys) + 2)
            ],
            name=name,
            **line_style(color, width),
        )
    for place, axis in enumerate([*axes, score]):
        for at, text in axis.labels():
            figure.add_annotation(x=place, y=at, text=html.escape(text), showarrow=False, xanchor="right", xshift=-4)
    heads = [*(html.escape(names[key]) for key in keys), summary.metric.rpartition("/")[2]]
    figure.update_layout(**layout(440, left=12, right=12, top=76, bottom=12), legend=legend_above(1.1))
    figure.update_xaxes(
        tickvals=list(range(len(heads))), ticktext=heads, side="top", zeroline=False, range=[-0.5, len(heads) - 0.5]
    )
    lowest = ABSENT_PLACE if any(ABSENT in column for column in columns.values()) else 0.0
    figure.update_yaxes(visible=False, range=[lowest - 0.06, 1.06])
    says = f"parameters and {summary.metric} of each trial at {rung:,} samples"
    return Figure("parallel", says, figure, min_width=108 * len(heads))


def _places(one: Scored, keys: Sequence[str], axes: Sequence[Axis]) -> list[float]:
    return [axis.unit(one.params.get(key, ABSENT), one.number) for key, axis in zip(keys, axes, strict=True)]


def _ranked_groups(results: Sequence[Scored], summary: Summary) -> list[tuple[str, list[Scored], str, float]]:
    """Name, trials, colour and width of what is drawn alike, the foremost last."""
    sign = 1.0 if summary.mode == "min" else -1.0
    ranked = sorted(results, key=lambda one: (sign * one.value, one.number))
    third = math.ceil(len(ranked) / len(THIRDS))
    groups = [
        (name, ranked[index * third : (index + 1) * third], color, width)
        for index, (name, (color, width)) in enumerate(THIRDS.items())
    ]
    groups = [group for group in reversed(groups) if group[1]]
    by_number = {one.number: one for one in ranked}
    for what, chosen, color in (("baseline", summary.baseline, BASELINE_COLOR), ("best", summary.best, BEST_COLOR)):
        if chosen is not None and chosen.number in by_number:
            groups.append((f"{what}: trial {chosen.number}", [by_number[chosen.number]], color, 3.0))
    return groups
