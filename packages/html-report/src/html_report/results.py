"""The figures of each model on each data set: what the report is about."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from vlm_core import EvaluationDocument, RecordDocument, ReportDocument, TaskDocument

from html_report.facts import is_comparable
from html_report.names import name_device, name_models, name_variants
from html_report.provenance import repeated
from html_report.text import metric_name


@dataclass(frozen=True)
class Metric:
    """A column of figures.

    Attributes:
        judge: the eval plugin's name, with parameters where it ran with several.
        name: the metric's name in the evaluation.
        title: the name as people read it; with the judge's where two judges share the name.
        lower_is_better: whether a smaller figure is the better one.
    """

    judge: str
    name: str
    title: str
    lower_is_better: bool

    def better(self, one: float, other: float) -> bool:
        """Tell whether one figure beats the other."""
        return one < other if self.lower_is_better else one > other


Figures = Mapping[Metric, float]


@dataclass(frozen=True)
class Result:
    """One model on one data set.

    Attributes:
        task: the inference task.
        model: the model's name; the same on every data set.
        data: the data set's name.
        device: ``CPU`` or the GPU's name.
        overall: figures over all items.
        by_class: class to figures.
        by_item: item to figures.
        records: the items as this model answered them.
        latencies: seconds of each answer, ascending.
        made_by: the tasks that made the figures: the inference tasks first, then those that judged.
        runs: where the model was run several times on the data set, each of these; then the figures are their means,
            the records those of the first, the latencies those of all.
    """

    task: TaskDocument
    model: str
    data: str
    device: str
    overall: Figures
    by_class: Mapping[str, Figures]
    by_item: Mapping[str, Figures]
    records: Sequence[RecordDocument]
    latencies: Sequence[float]
    made_by: tuple[str, ...] = ()
    runs: tuple[Result, ...] = ()

    @property
    def comparable(self) -> bool:
        """Tell whether its speed compares with others': each run of it ended well, and did what it was asked."""
        return all(is_comparable(run.task) for run in self.runs or (self,))

    def latency(self, share: float) -> float | None:
        """Give the seconds in which a share (0 to 1) of the items was answered; None where nothing was timed."""
        return quantile(self.latencies, share)


def quantile(ordered: Sequence[float], share: float) -> float | None:
    """Interpolate a quantile linearly: type 7 of Hyndman and Fan, "Sample Quantiles in Statistical Packages", 1996.

    Args:
        ordered: values, ascending.
        share: which quantile, 0 to 1.
    """
    if not ordered:
        return None
    place = (len(ordered) - 1) * share
    below = math.floor(place)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (ordered[above] - ordered[below]) * (place - below)


def read_metrics(report: ReportDocument) -> list[Metric]:
    """List the metrics of all evaluations, in the order they first appear."""
    judges = _judges(report)
    found: dict[tuple[str, str], bool] = {}
    for evaluation in report["evaluations"]:
        for name in evaluation["overall"]:
            found.setdefault((judges[evaluation["eval"]], name), name in evaluation["lower_is_better"])
    shared = [name for _, name in found]
    return [
        Metric(judge, name, metric_name(name) if shared.count(name) == 1 else f"{metric_name(name)} ({judge})", lower)
        for (judge, name), lower in found.items()
    ]


def read_results(report: ReportDocument) -> list[Result]:
    """Put together what is known of each model on each data set.

    Args:
        report: the document that a report plugin gets.

    Returns:
        A result for each inference task, repetitions as one, by data set, the best by the first metric first, those without figures last.
    """
    tasks = [task for task in report["tasks"] if task["stage"] == "inference"]
    names = name_models(tasks, repeated(report))
    metrics = read_metrics(report)
    records: dict[str, list[RecordDocument]] = {task["id"]: [] for task in tasks}
    for record in report["records"]:
        records.setdefault(record["task"], []).append(record)
    results = []
    for task in tasks:
        evaluations = [found for found in report["evaluations"] if found["inference"] == task["id"]]
        columns = _Columns(metrics, _judges(report), evaluations)
        own = records[task["id"]]
        results.append(
            Result(
                task=task,
                model=names[task["id"]],
                data=task["data"] or (own[0]["data"] if own else ""),
                device=name_device(task),
                overall=columns.overall(),
                by_class=columns.by_class(),
                by_item=columns.by_item(),
                records=own,
                latencies=_latencies(own),
                made_by=(task["id"], *(found["eval"] for found in evaluations)),
            )
        )
    results = _joined(results, repeated(report))
    order = list(dict.fromkeys(result.data for result in results))
    return sorted(results, key=lambda result: (order.index(result.data), *_rank(result)))


def _joined(results: Sequence[Result], groups: Mapping[str, tuple[str, int]]) -> list[Result]:
    """Make one result of the repetitions of a task."""
    together: dict[str, list[Result]] = {}
    for result in results:
        first, _ = groups.get(result.task["id"], (result.task["id"], 1))
        together.setdefault(first, []).append(result)
    return [runs[0] if len(runs) == 1 else _mean(runs) for runs in together.values()]


def _mean(runs: Sequence[Result]) -> Result:
    first = runs[0]
    worst = next((run.task for run in runs if run.task["status"] != "ok"), first.task)
    ended = [run.task for run in runs if run.task["status"] == "ok"]
    task: TaskDocument = {
        **worst,
        "id": first.task["id"],
        "failed_items": sum(run.task["failed_items"] for run in runs),
        "items_per_s": _average([each["items_per_s"] for each in ended]),
        "load_s": _average([each["load_s"] or None for each in ended]),  # Warm workers had nothing to load.
        "wall_s": _average([each["wall_s"] for each in ended]),
        "peak_ram_bytes": max((run.task["peak_ram_bytes"] or 0 for run in runs), default=0) or None,
    }
    classes = dict.fromkeys(name for run in runs for name in run.by_class)
    return replace(
        first,
        task=task,
        model=first.model.removesuffix(" #1"),
        overall=_averages([run.overall for run in runs]),
        by_class={name: _averages([run.by_class.get(name, {}) for run in runs]) for name in classes},
        latencies=sorted(latency for run in runs for latency in run.latencies),
        made_by=tuple(task for run in runs for task in run.made_by),
        runs=tuple(runs),
    )


def _averages(figures: Sequence[Figures]) -> Figures:
    names = dict.fromkeys(metric for each in figures for metric in each)
    return {metric: statistics.fmean(each[metric] for each in figures if metric in each) for metric in names}


def _average(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return statistics.fmean(known) if known else None


@dataclass(frozen=True)
class _Columns:
    """Sorts the figures of one inference task's evaluations into columns."""

    metrics: Sequence[Metric]
    judges: Mapping[str, str]
    evaluations: Sequence[EvaluationDocument]

    def overall(self) -> Figures:
        return self._merge((found, found["overall"]) for found in self.evaluations)

    def by_class(self) -> Mapping[str, Figures]:
        names = dict.fromkeys(name for found in self.evaluations for name in found["by_class"])
        return {
            name: self._merge((found, found["by_class"].get(name, {})) for found in self.evaluations) for name in names
        }

    def by_item(self) -> Mapping[str, Figures]:
        figures: dict[str, dict[Metric, float]] = {}
        for found in self.evaluations:
            for row in found["by_item"]:
                figures.setdefault(str(row["item"]), {}).update(self._merge([(found, row)]))
        return figures

    def _merge(self, rows: Iterable[tuple[EvaluationDocument, Mapping[str, object]]]) -> dict[Metric, float]:
        figures: dict[Metric, float] = {}
        for found, row in rows:
            judge = self.judges[found["eval"]]
            for metric in self.metrics:
                value = row.get(metric.name)
                if metric.judge == judge and isinstance(value, (int, float)) and math.isfinite(value):
                    figures[metric] = float(value)
        return figures


def _rank(result: Result) -> tuple[bool, float]:
    metric, value = next(iter(result.overall.items()), (None, 0.0))
    return metric is None, value if metric is None or metric.lower_is_better else -value


def _judges(report: ReportDocument) -> dict[str, str]:
    names = name_variants([task for task in report["tasks"] if task["stage"] == "eval"])
    # An evaluation may outlive its task, as in a report over several runs.
    return {**{found["eval"]: found["eval"] for found in report["evaluations"]}, **names}


def _latencies(records: Sequence[RecordDocument]) -> list[float]:
    timed = (record["latency_s"] for record in records if record["answer"] is not None)
    return sorted(value for value in timed if value is not None and math.isfinite(value))
