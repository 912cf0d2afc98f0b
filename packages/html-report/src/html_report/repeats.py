"""Repetitions of one task: as one result, and how far they lie apart."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from html_report.facts import is_comparable
from html_report.results import Metric, Result
from html_report.text import NOTHING, rate, seconds, spread


@dataclass(frozen=True)
class SpreadCell:
    """A figure over repetitions: mean and standard deviation, the least and the most, and of how many."""

    mean: str
    range: str
    count: int


@dataclass(frozen=True)
class SpreadRow:
    """One model on one data set, over its repetitions."""

    result: Result
    cells: tuple[SpreadCell, ...]


def spread_rows(results: Sequence[Result], metrics: Sequence[Metric]) -> list[SpreadRow]:
    """Make a row for each model that was run several times on a data set: its metrics, median latency and speed."""
    rows = []
    for result in results:
        if result.runs:
            cells = [_cell([run.overall.get(metric) for run in result.runs], spread) for metric in metrics]
            ended = [run for run in result.runs if is_comparable(run.task)]
            cells.append(_cell([run.latency(0.5) for run in ended], _unit(seconds)))
            cells.append(_cell([run.task["items_per_s"] for run in ended], _unit(rate)))
            rows.append(SpreadRow(result, tuple(cells)))
    return rows


def _cell(values: Sequence[float | None], write: Callable[[Sequence[float], float], str]) -> SpreadCell:
    known = [value for value in values if value is not None]
    if not known:
        return SpreadCell(NOTHING, "", 0)
    middle = statistics.fmean(known)
    apart = statistics.stdev(known) if len(known) > 1 else None
    deviation = NOTHING if apart is None else write(known, apart) if apart else "0"
    low, high = write(known, min(known)), write(known, max(known))
    return SpreadCell(f"{write(known, middle)} ± {deviation}", low if low == high else f"{low} to {high}", len(known))


def _unit(write: Callable[[float], str]) -> Callable[[Sequence[float], float], str]:
    return lambda _, value: write(value)
