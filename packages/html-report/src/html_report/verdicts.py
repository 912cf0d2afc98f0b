"""What decides between models, in a line each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from html_report.results import Metric, Result
from html_report.text import figure, seconds

RUNNERS_UP = 3
"""How many models are named after the winner."""


@dataclass(frozen=True)
class Standing:
    """A model and its figure, as text."""

    model: str
    value: str


@dataclass(frozen=True)
class Verdict:
    """Who leads in one respect.

    Attributes:
        title: the respect, such as ``Lowest CER``.
        scope: the class that it holds for; empty where it is everything.
        leaders: the best model, or all that share its figure as written.
        others: the next best ones, in order, `RUNNERS_UP` at most.
    """

    title: str
    scope: str
    leaders: tuple[Standing, ...]
    others: tuple[Standing, ...]


@dataclass(frozen=True)
class Decision:
    """What decides on one data set.

    Attributes:
        data: the data set.
        items: how many items it has.
        quality: who is best over all items; None without evaluations.
        speed: who answers fastest; None where nothing was timed.
        classes: who is best in each class.
        note: what to keep in mind when comparing; may be empty.
    """

    data: str
    items: int
    quality: Verdict | None
    speed: Verdict | None
    classes: tuple[Verdict, ...]
    note: str


def decide(results: Sequence[Result]) -> list[Decision]:
    """Find the leaders on each data set, by the first metric and by median latency."""
    decisions = []
    for data in dict.fromkeys(result.data for result in results):
        rivals = [result for result in results if result.data == data]
        metric = first_metric(rivals)
        values = {rival.model: rival.overall.get(metric) for rival in rivals} if metric else {}
        decisions.append(
            Decision(
                data=data,
                items=max(len({record["item"] for record in rival.records}) or rival.task["items"] for rival in rivals),
                quality=_quality(metric, values) if metric else None,
                speed=_speed(rivals),
                classes=_classes(metric, rivals) if metric else (),
                note=_note(rivals),
            )
        )
    return decisions


def first_metric(results: Sequence[Result]) -> Metric | None:
    """Give the metric that stands first in the evaluations of these results; models are ranked by it."""
    return next((metric for result in results for metric in result.overall), None)


def _quality(metric: Metric, values: Mapping[str, float | None], scope: str = "") -> Verdict | None:
    known = {model: value for model, value in values.items() if value is not None}
    title = f"{'Lowest' if metric.lower_is_better else 'Highest'} {metric.title}" if len(known) > 1 else metric.title
    ordered = sorted(known, key=lambda model: known[model], reverse=not metric.lower_is_better)
    return _rank(title, scope, [Standing(model, figure(known[model])) for model in ordered])


def _speed(rivals: Sequence[Result]) -> Verdict | None:
    medians = {rival.model: rival.latency(0.5) for rival in rivals if rival.comparable}
    known = {model: value for model, value in medians.items() if value is not None}
    title = "Lowest median latency" if len(known) > 1 else "Median latency"
    return _rank(title, "", [Standing(model, seconds(known[model])) for model in sorted(known, key=known.__getitem__)])


def _classes(metric: Metric, rivals: Sequence[Result]) -> tuple[Verdict, ...]:
    names = dict.fromkeys(name for rival in rivals for name in rival.by_class)
    found = (
        _quality(metric, {rival.model: rival.by_class.get(name, {}).get(metric) for rival in rivals}, name)
        for name in names
    )
    return tuple(verdict for verdict in found if verdict)


def _rank(title: str, scope: str, standings: Sequence[Standing]) -> Verdict | None:
    if not standings:
        return None
    # What is written the same leads together: nobody decides by the fourth decimal.
    leaders = tuple(standing for standing in standings if standing.value == standings[0].value)
    return Verdict(title, scope, leaders, tuple(standings[len(leaders) :][:RUNNERS_UP]))


def _note(rivals: Sequence[Result]) -> str:
    notes = []
    if len({rival.device for rival in rivals}) > 1:
        notes.append("Models ran on different devices: their latencies do not compare.")
    odd = [rival.model for rival in rivals if rival.task["status"] == "ok" and not rival.comparable]
    if odd:
        more = f" and {len(odd) - RUNNERS_UP} more models" if len(odd) > RUNNERS_UP else ""
        names = ", ".join(odd[:RUNNERS_UP])
        notes.append(f"Degraded, so that their speeds (marked *) do not compare: {names}{more}.")
    failed = [f"{rival.model} ({rival.task['failed_items']})" for rival in rivals if rival.task["failed_items"]]
    if failed:
        more = f" and {len(failed) - RUNNERS_UP} more models" if len(failed) > RUNNERS_UP else ""
        notes.append(f"Items without an answer, counted as wrong: {', '.join(failed[:RUNNERS_UP])}{more}.")
    return " ".join(notes)
