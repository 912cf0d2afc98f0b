"""Everything that the page shows, worked out before anything is written."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from vlm_core import ReportDocument, TaskDocument

from html_report.charts import Chart, class_chart, latency_chart, leading, trade_chart
from html_report.examples import Group, pick_examples
from html_report.failures import FailedItems, FailedTask, failed_items, failed_tasks
from html_report.params import Params
from html_report.results import Metric, Result, read_metrics, read_results
from html_report.tables import ClassRow, Environment, Row, class_rows, devices, environments, result_rows
from html_report.text import duration, moment, seconds
from html_report.verdicts import Decision, decide, first_metric

SHARES = ((0.5, "p50"), (0.9, "p90"), (0.95, "p95"), (0.99, "p99"), (1.0, "max"))
"""Which quantiles of the latency are listed, and how they are headed."""


@dataclass(frozen=True)
class LatencyRow:
    """One model's latencies on one data set."""

    result: Result
    values: tuple[str, ...]


@dataclass(frozen=True)
class View:
    """The page, section by section.

    Attributes:
        report: the document itself, for what is shown as it is.
        started, took: when the run began and how long it took.
        devices: what models ran on, and which.
        hidden: how many models the charts leave out.
        several: whether there is more than one data set.
        decisions: who leads, by data set.
        metrics: columns of the tables.
        rows, class_rows, latency_rows: tables.
        first_charts: for the first screen.
        class_charts, latency_chart: for the sections below.
        groups: the most wrong answers.
        failed_tasks, failed_items: what did not work.
        environments: software and hardware.
        tasks: every task, with its wall time as text.
    """

    report: ReportDocument
    started: str
    took: str
    devices: list[tuple[str, list[str]]]
    hidden: int
    several: bool
    decisions: list[Decision]
    metrics: list[Metric]
    rows: list[Row]
    class_rows: list[ClassRow]
    latency_rows: list[LatencyRow]
    first_charts: list[Chart]
    class_charts: list[Chart]
    latency_chart: Chart | None
    groups: list[Group]
    failed_tasks: list[FailedTask]
    failed_items: list[FailedItems]
    environments: list[Environment]
    tasks: list[TaskDocument]


def build_view(report: ReportDocument, params: Params) -> View:
    """Work out what the page shows.

    Args:
        report: the document that a report plugin gets.
        params: how much of it to show.
    """
    results = read_results(report)
    metrics = read_metrics(report)
    first = first_metric(results)
    drawn = leading(results)
    latency = latency_chart(drawn)
    shown = _drawn([class_chart(drawn, first, 0), trade_chart(drawn, first)] if first else [])
    if latency and len(shown) < 2:  # noqa: PLR2004 - two fit side by side
        shown.append(latency)
    run = report["run"]
    return View(
        report=report,
        started=moment(run["started"]),
        took=duration(run["started"], run["finished"]),
        devices=devices(results),
        hidden=len({result.model for result in results}) - len({result.model for result in drawn}),
        several=len({result.data for result in results}) > 1,
        decisions=decide(results),
        metrics=metrics,
        rows=result_rows(results, metrics),
        class_rows=class_rows(results, metrics),
        latency_rows=_latency_rows(results),
        first_charts=shown,
        class_charts=_drawn(
            class_chart(drawn, metric, number)
            for number, metric in enumerate(metrics, 1)
            if metric != first and any(result.by_class for result in drawn)
        ),
        latency_chart=None if latency in shown else latency,
        groups=pick_examples(results, params.examples),
        failed_tasks=failed_tasks(report),
        failed_items=failed_items(results),
        environments=environments(report),
        tasks=report["tasks"],
    )


def _drawn(charts: Iterable[Chart | None]) -> list[Chart]:
    return [chart for chart in charts if chart]


def _latency_rows(results: Sequence[Result]) -> list[LatencyRow]:
    return [
        LatencyRow(result, tuple(seconds(result.latency(share)) for share, _ in SHARES))
        for result in results
        if result.latencies
    ]
