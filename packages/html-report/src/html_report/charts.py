"""Charts, as plain Plotly figures; colours of text and lines are put in by the page, which knows the scheme."""

from __future__ import annotations

import html
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from html_report.results import Metric, Result
from html_report.text import figure, seconds, visible

Json = dict[str, object]

COLOURS = ("#3f7fd9", "#e0812c", "#22a07f", "#c44f9d", "#8468dc", "#d4504f", "#a38a12", "#6f8791")
"""Told apart on white and on near black, also by most people who see colours differently."""

_DASHES = ("solid", "dash", "dot", "dashdot", "longdash", "longdashdot")
_SYMBOLS = ("circle", "diamond", "square", "triangle-up", "x", "star", "pentagon", "cross")
_PATTERNS = ("", "/", "x", ".", "-", "+", "|", "\\")

POINTS = 400
"""Points of a distribution's curve: more can't be seen."""

LABELLED = 12
"""Up to so many marks are labelled in the chart itself."""

COMPARED = 2
"""From so many figures on there is something to compare; fewer are read off the table."""

MODELS = 16
"""Models in one chart: with more, neither colours nor bars can be told apart."""


@dataclass(frozen=True)
class Chart:
    """A chart and what it says.

    Attributes:
        id: unique on the page.
        title: what is shown.
        summary: the same in words, for whoever doesn't see it.
        note: how to read it.
        spec: data and layout, as Plotly takes them.
        crowded: whether it needs the page's whole width.
    """

    id: str
    title: str
    summary: str
    note: str
    spec: Json
    crowded: bool = False


def class_chart(results: Sequence[Result], metric: Metric, number: int) -> Chart | None:
    """Draw a metric by class as grouped bars, a colour for each model and a group for all items.

    Args:
        results: models on data sets.
        metric: what to draw.
        number: of the chart on the page.
    """
    bars = _bars_by_model(results, metric)
    traces = [_bars(model, slot, bars[model]) for model, slot in _slots(results).items() if bars[model]]
    told = [f"{model}, {name}: {figure(value)}" for model, own in bars.items() for name, value in own.items()]
    if len(told) < COMPARED:
        return None
    if len(told) <= 2 * LABELLED:
        for trace in traces:
            trace |= {"texttemplate": "%{y:.3f}", "textposition": "outside", "cliponaxis": False}
    layout: Json = {
        "barmode": "group",
        "bargap": 0.3,
        "bargroupgap": 0.06,
        "xaxis": {"type": "category", **_group_names(bars)},
        "yaxis": {"rangemode": "tozero", "title": _axis_title(metric)},
        "showlegend": True,
    }
    title = f"{metric.title} by class" if any(result.by_class for result in results) else metric.title
    return _chart((f"class-{number}", title, ""), told, traces, layout)


def trade_chart(results: Sequence[Result], metric: Metric) -> Chart | None:
    """Draw a metric against median latency, a point for each model on each data set."""
    slots = _slots(results)
    data = list(dict.fromkeys(result.data for result in results))
    points = [
        _Point(result, _curve_name(result, several=len(data) > 1), middle, result.overall[metric])
        for result in results
        if (middle := result.latency(0.5)) is not None and metric in result.overall
    ]
    if len(points) < COMPARED:
        return None
    labelled = len(points) <= LABELLED
    traces = [
        _mark(point, _pick(COLOURS, slots[point.result.model]), _pick(_SYMBOLS, data.index(point.result.data)))
        | {"mode": "markers+text" if labelled else "markers"}
        for point in points
    ]
    told = [f"{point.name}: median {seconds(point.latency)}, {figure(point.value)}" for point in points]
    layout = _trade_layout(points, metric, legend=not labelled)
    note = "Horizontal line: the middle half of the items."
    return _chart(("trade", f"{metric.title} against latency", note), told, traces, layout)


def latency_chart(results: Sequence[Result]) -> Chart | None:
    """Draw how many items were answered within how many milliseconds: the empirical distribution function."""
    slots = _slots(results)
    several = len({result.data for result in results}) > 1
    timed = [result for result in results if result.latencies]
    if not timed:
        return None
    traces = []
    told = []
    for place, result in enumerate(timed):
        name = _curve_name(result, several=several)
        line: Json = {"color": _pick(COLOURS, slots[result.model]), "dash": _pick(_DASHES, place)}
        traces.append(_curve(result, name, line))
        told.append(f"{name}: half within {seconds(result.latency(0.5))}, 95% within {seconds(result.latency(0.95))}")
    scale = _scale(value for result in timed for value in result.latencies)
    layout: Json = {
        "xaxis": {"title": {"text": "latency of an item, ms"}, **scale},
        "yaxis": {"title": {"text": "items answered, %"}, "range": [0, 101]},
        "showlegend": True,
    }
    note = "A line climbs to the share of items answered in that time: further left is faster, steeper is steadier."
    return _chart(("latency", "Latency distribution", note), told, traces, layout)


def model_colours(results: Sequence[Result]) -> dict[str, str]:
    """Give each model its colour, by its name."""
    return {model: _pick(COLOURS, slot) for model, slot in _slots(results).items()}


def leading(results: Sequence[Result]) -> list[Result]:
    """Keep the models that charts have room for: those that come first in the results."""
    models = set(list(_slots(results))[:MODELS])
    return [result for result in results if result.model in models]


@dataclass(frozen=True)
class _Point:
    """A model on one data set, by median latency in seconds and a metric's value."""

    result: Result
    name: str
    latency: float
    value: float


def _mark(point: _Point, colour: str, symbol: str) -> Json:
    low, high = (point.result.latency(share) or point.latency for share in (0.25, 0.75))
    return {
        "type": "scatter",
        "name": _plain(_shorten(point.name)),
        "x": [point.latency * 1e3],
        "y": [point.value],
        "text": [_plain(_shorten(point.name))],
        "textposition": "top center",
        "cliponaxis": False,
        "marker": {"size": 13, "color": colour, "symbol": symbol},
        "error_x": {
            "type": "data",
            "symmetric": False,
            "array": [(high - point.latency) * 1e3],
            "arrayminus": [(point.latency - low) * 1e3],
            "color": colour,
            "thickness": 1.5,
        },
        "hovertemplate": "%{text}<br>median %{x:.3~g} ms<br>%{y:.4f}<extra></extra>",
    }


def _curve(result: Result, name: str, line: Json) -> Json:
    count = min(len(result.latencies), POINTS)
    shares = [(step + 1) / count for step in range(count)]
    # The value at a share is the smallest one that so many items do not pass.
    values = [result.latencies[max(0, round(share * len(result.latencies)) - 1)] * 1e3 for share in shares]
    return {
        "type": "scatter",
        "mode": "lines",
        "name": _plain(_shorten(name)),
        "x": [values[0], *values],
        "y": [0.0, *(share * 100 for share in shares)],
        "line": {"shape": "hv", "width": 2.5, **line},
        "hovertemplate": "%{y:.0f}% within %{x:,.3~g} ms<extra>%{fullData.name}</extra>",
    }


def _chart(names: tuple[str, str, str], told: Sequence[str], traces: Sequence[Json], layout: Json) -> Chart:
    """Put a chart together from its id, title and note, what it says in words, its data and its layout."""
    crowded = len(traces) > len(COLOURS)
    if crowded:
        layout = {**layout, "legend": {"orientation": "v", "x": 1.01, "y": 1}}
    name, title, note = names
    return Chart(name, title, f"{title}. {'; '.join(told)}.", note, {"data": list(traces), "layout": layout}, crowded)


def _axis_title(metric: Metric) -> Json:
    return {
        "text": f"{_plain(_shorten(metric.title, 24))} ({'lower' if metric.lower_is_better else 'higher'} is better)"
    }


def _trade_layout(points: Sequence[_Point], metric: Metric, *, legend: bool) -> Json:
    values = [point.value for point in points]
    pad = (max(values) - min(values)) * 0.2 or max(abs(values[0]) * 0.2, 0.05)
    floor = 0.0 if min(values) >= 0 else -math.inf
    edges = [edge for point in points for share in (0.25, 0.75) if (edge := point.result.latency(share)) is not None]
    return {
        "xaxis": {"title": {"text": "median latency of an item, ms (lower is better)"}, **_scale(edges, pad=0.35)},
        # Room for the labels above the points.
        "yaxis": {
            "title": _axis_title(metric),
            "range": [max(min(values) - pad, floor), max(values) + 1.5 * pad],
        },
        "showlegend": legend,
    }


def _scale(values: Iterable[float], pad: float = 0.05) -> Json:
    """Choose an axis for seconds shown as milliseconds: logarithmic where they span more than a factor of 20."""
    known = sorted(value * 1e3 for value in values if value > 0)
    if not known:
        return {}
    low, high = known[0], known[-1]
    if high > 20 * low:
        steps = (1, 2, 5) if high < 1000 * low else (1,)
        powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
        ticks = [step * 10.0**power for power in powers for step in steps]
        return {"type": "log", "tickvals": ticks, "ticktext": [f"{tick:g}" for tick in ticks]}
    room = (high - low) * pad or high * pad
    return {"range": [max(0.0, low - room), high + room]}


def _bars_by_model(results: Sequence[Result], metric: Metric) -> dict[str, dict[str, float]]:
    """List, for each model, group of bars to height: all items first, then each class."""
    several = len({result.data for result in results}) > 1
    bars: dict[str, dict[str, float]] = {model: {} for model in _slots(results)}
    for result in results:
        for name, figures in (("all items", result.overall), *result.by_class.items()):
            if metric in figures:
                bars[result.model][f"{result.data}: {name}" if several else name] = figures[metric]
    return bars


def _group_names(bars: Mapping[str, Mapping[str, float]]) -> Json:
    names = list(dict.fromkeys(name for own in bars.values() for name in own))
    return {"tickvals": [_plain(name) for name in names], "ticktext": [_plain(_shorten(name, 24)) for name in names]}


def _bars(model: str, slot: int, bars: dict[str, float]) -> Json:
    return {
        "type": "bar",
        "name": _plain(_shorten(model)),
        "x": [_plain(name) for name in bars],
        "y": list(bars.values()),
        "marker": {"color": _pick(COLOURS, slot), "pattern": {"shape": _pick(_PATTERNS, slot // len(COLOURS))}},
        "hovertemplate": "%{x}<br>%{y:.4f}<extra>%{fullData.name}</extra>",
    }


def _slots(results: Sequence[Result]) -> dict[str, int]:
    """Give each model a number, so that it has the same colour in every chart."""
    return {model: slot for slot, model in enumerate(dict.fromkeys(result.model for result in results))}


def _curve_name(result: Result, *, several: bool) -> str:
    return f"{result.model} · {result.data}" if several else result.model


def _shorten(name: str, most: int = 40) -> str:
    """Cut what would leave no room for the chart; the tables have it whole."""
    return name if len(name) <= most else name[: most - 1] + "…"


def _plain(name: str) -> str:
    """Escape what Plotly would take for markup."""
    return html.escape(visible(name), quote=False)


def _pick(choices: Sequence[str], place: int) -> str:
    return choices[place % len(choices)]
