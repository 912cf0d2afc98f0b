"""Everything that the page shows, worked out before anything is written."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from vlm_core import ReportDocument, TaskDocument

from html_report.charts import Chart, class_chart, latency_chart, leading, model_colours, trade_chart
from html_report.examples import Group, pick_examples
from html_report.facts import read_facts
from html_report.failures import FailedItems, FailedTask, Trouble, failed_items, failed_tasks, name_failures, troubles
from html_report.params import Params
from html_report.provenance import Checkout, Origins, checkouts, explain, read_origins
from html_report.repeats import SpreadRow, spread_rows
from html_report.results import Metric, Result, read_metrics, read_results
from html_report.tables import ClassRow, Environment, Row, class_rows, devices, environments, result_rows
from html_report.text import NOTHING, duration, moment, seconds
from html_report.timeline import OTHER, Session, Who, read_sessions
from html_report.verdicts import Decision, decide, first_metric

SHARES = ((0.5, "p50"), (0.9, "p90"), (0.95, "p95"), (0.99, "p99"), (1.0, "max"))
"""Which quantiles of the latency are listed, and how they are headed."""


@dataclass(frozen=True)
class LatencyRow:
    """One model's latencies on one data set, and what made them."""

    result: Result
    values: tuple[str, ...]
    origin: str


@dataclass(frozen=True)
class View:
    """The page, section by section.

    Attributes:
        report: the document itself, for what is shown as it is.
        started, took: when the run began and how long it took.
        devices: what models ran on, and which.
        drawn: the results that are in charts.
        hidden: how many models the charts leave out.
        several: whether there is more than one data set.
        decisions: who leads, by data set.
        metrics: columns of the tables.
        rows, class_rows, latency_rows: tables.
        first_charts: for the first screen.
        class_charts, latency_chart: for the sections below.
        groups: the most wrong answers.
        failed_tasks, failures_named, failed_items, troubles: what did not work, or only just.
        spread_rows: how far repetitions lie apart.
        sessions: timelines.
        origins: what made the figures, by task.
        checkouts: code that no tag holds.
        reused: how many tasks' results are those of other runs, and of which.
        has_whole: whether any model's speed over its whole task is known.
        has_gpu: whether any model's GPU memory is known.
        environments: software and hardware.
        tasks: every task, with its wall time as text.
    """

    report: ReportDocument
    started: str
    took: str
    devices: list[tuple[str, list[str]]]
    drawn: list[Result]
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
    failures_named: str
    failed_items: list[FailedItems]
    troubles: list[Trouble]
    spread_rows: list[SpreadRow]
    sessions: list[Session]
    origins: Origins
    checkouts: list[Checkout]
    reused: tuple[int, tuple[str, ...]]
    has_whole: bool
    has_gpu: bool
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
    failed = failed_tasks(report)
    origins = read_origins(report)
    rows = result_rows(results, metrics, origins)
    reused = [found for task in report["tasks"] if (found := read_facts(task).reused)]
    return View(
        report=report,
        started=moment(run["started"]),
        took=duration(run["started"], run["finished"]),
        devices=devices(results),
        drawn=drawn,
        hidden=len({result.model for result in results}) - len({result.model for result in drawn}),
        several=len({result.data for result in results}) > 1,
        decisions=decide(results),
        metrics=metrics,
        rows=rows,
        class_rows=class_rows(results, metrics, origins),
        latency_rows=_latency_rows(results, origins),
        first_charts=shown,
        class_charts=_drawn(
            class_chart(drawn, metric, number)
            for number, metric in enumerate(metrics, 1)
            if metric != first and any(result.by_class for result in drawn)
        ),
        latency_chart=None if latency in shown else latency,
        groups=pick_examples(results, params.examples),
        failed_tasks=failed,
        failures_named=name_failures(failed),
        failed_items=failed_items(results),
        troubles=troubles(report),
        spread_rows=spread_rows(results, metrics),
        sessions=_sessions(report, results),
        origins=origins,
        checkouts=checkouts(report),
        reused=(len(reused), tuple(dict.fromkeys(reused))),
        has_whole=any(row.whole_speed.text != NOTHING for row in rows),
        has_gpu=any(row.peak_gpu != NOTHING for row in rows),
        environments=environments(report),
        tasks=report["tasks"],
    )


def _sessions(report: ReportDocument, results: Sequence[Result]) -> list[Session]:
    """Lay out the timeline, in the colours that models have in the charts."""
    colours = model_colours(results)
    several = len({result.data for result in results}) > 1
    known = {
        run.task["id"]: Who(f"{run.model} · {run.data}" if several else run.model, result.model, colours[result.model])
        for result in results
        for run in result.runs or (result,)
    }
    others = (task for task in report["tasks"] if task["stage"] != "inference")
    return read_sessions(
        report, {**{task["id"]: Who(task["plugin"], task["plugin"], OTHER) for task in others}, **known}
    )


def _drawn(charts: Iterable[Chart | None]) -> list[Chart]:
    return [chart for chart in charts if chart]


def _latency_rows(results: Sequence[Result], origins: Origins) -> list[LatencyRow]:
    return [
        LatencyRow(
            result, tuple(seconds(result.latency(share)) for share, _ in SHARES), explain(origins, result.made_by)
        )
        for result in results
        if result.latencies
    ]
