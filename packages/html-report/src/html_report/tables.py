"""Tables of figures, with the best of each column marked."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from vlm_core import ReportDocument, TaskDocument

from html_report.facts import Badge, read_facts
from html_report.names import name_device
from html_report.provenance import Origins, explain
from html_report.reading import number
from html_report.results import Metric, Result
from html_report.text import figure, rate, seconds, size


@dataclass(frozen=True)
class Cell:
    """A figure in a table.

    Attributes:
        text: as it is written.
        best: whether nothing else in its column and data set is better, and something is worse.
    """

    text: str
    best: bool = False


@dataclass(frozen=True)
class Row:
    """One model on one data set in the main table.

    Attributes:
        result: the figures.
        metrics, median, p95: as they are written.
        speed: items a second inside ``predict``.
        whole_speed: items a second of the whole task.
        badges: what to keep in mind of them.
        peak_ram, peak_gpu: as text.
        origin: what made them, a line for each task.
    """

    result: Result
    metrics: tuple[Cell, ...]
    median: Cell
    p95: Cell
    speed: Cell
    whole_speed: Cell
    badges: tuple[Badge, ...]
    peak_ram: str
    peak_gpu: str
    origin: str


@dataclass(frozen=True)
class ClassRow:
    """One model's figures in one class, and what made them."""

    data: str
    name: str
    items: int
    model: str
    metrics: tuple[Cell, ...]
    origin: str


@dataclass(frozen=True)
class Environment:
    """Software and hardware that one or more tasks had.

    Attributes:
        plugins: the plugins that had it.
        device: ``CPU`` or the GPU's name, with the processor's name where it is known.
        key: the environment's key.
        versions: packages and versions, sorted by name but Python first.
    """

    plugins: tuple[str, ...]
    device: str
    key: str
    versions: tuple[tuple[str, str], ...]


def result_rows(results: Sequence[Result], metrics: Sequence[Metric], origins: Origins) -> list[Row]:
    """Make the main table's rows; the best is found among the models on one data set."""
    rows = []
    for data in dict.fromkeys(result.data for result in results):
        rivals = [result for result in results if result.data == data]
        columns = [_metric_cells([rival.overall.get(metric) for rival in rivals], metric) for metric in metrics]
        medians = _timed(rivals, [rival.latency(0.5) for rival in rivals], seconds, lower=True)
        tails = _timed(rivals, [rival.latency(0.95) for rival in rivals], seconds, lower=True)
        speeds = _timed(rivals, [rival.task["items_per_s"] for rival in rivals], rate, lower=False)
        whole = _timed(rivals, [_whole_rate(rival) for rival in rivals], rate, lower=False)
        rows += [
            Row(
                rival,
                tuple(column[place] for column in columns),
                medians[place],
                tails[place],
                speeds[place],
                whole[place],
                *_circumstances(rival),
                explain(origins, rival.made_by),
            )
            for place, rival in enumerate(rivals)
        ]
    return rows


def _circumstances(result: Result) -> tuple[tuple[Badge, ...], str, str]:
    """Say what to keep in mind of a result's figures, and how much memory they took."""
    told = [read_facts(run.task) for run in result.runs or (result,)]
    badges = {badge.word: badge for facts in told for badge in facts.badges}
    if result.runs:
        badges = {"repeated": Badge(f"{len(result.runs)}×", "Means of repetitions; their spread is below."), **badges}
    ram = [facts.peak_ram for facts in told if facts.peak_ram is not None]
    gpu = [facts.peak_gpu for facts in told if facts.peak_gpu is not None]
    mark = " (card)" if gpu and any(facts.of_card for facts in told) else ""
    return tuple(badges.values()), size(max(ram, default=None)), size(max(gpu, default=None)) + mark


def class_rows(results: Sequence[Result], metrics: Sequence[Metric], origins: Origins) -> list[ClassRow]:
    """Make a row for each class and model; the best is found among the models of one class."""
    rows = []
    for data in dict.fromkeys(result.data for result in results):
        rivals = [result for result in results if result.data == data]
        for name in dict.fromkeys(name for rival in rivals for name in rival.by_class):
            members = [rival for rival in rivals if name in rival.by_class]
            columns = [
                _metric_cells([member.by_class[name].get(metric) for member in members], metric) for metric in metrics
            ]
            rows += [
                ClassRow(
                    data,
                    name,
                    _count(member, name),
                    member.model,
                    tuple(column[place] for column in columns),
                    explain(origins, member.made_by),
                )
                for place, member in enumerate(members)
            ]
    return rows


def environments(report: ReportDocument) -> list[Environment]:
    """List environments, each once, with the plugins that ran in them."""
    found: dict[tuple[str, str, tuple[tuple[str, str], ...]], list[str]] = {}
    for task in report["tasks"]:
        versions = sorted(task["versions"].items(), key=lambda pair: (pair[0].lower() != "python", pair[0].lower()))
        found.setdefault((task["environment"], _hardware(task), tuple(versions)), []).append(task["plugin"])
    return [
        Environment(tuple(dict.fromkeys(plugins)), device, key, versions)
        for (key, device, versions), plugins in found.items()
    ]


def devices(results: Iterable[Result]) -> list[tuple[str, list[str]]]:
    """List what models ran on, and which models on what."""
    found: dict[str, list[str]] = {}
    for result in results:
        models = found.setdefault(_hardware(result.task), [])
        if result.model not in models:
            models.append(result.model)
    return list(found.items())


def _hardware(task: TaskDocument) -> str:
    device = name_device(task)
    named = device == "CPU" and task["device_name"].strip().upper() not in {"", "CPU"}
    return f"CPU ({task['device_name']})" if named else device


def _ended(result: Result, value: float | None) -> float | None:
    """Withhold the speed of a task that stopped half way: it would look fast."""
    return value if result.task["status"] == "ok" else None


def _count(result: Result, name: str) -> int:
    return sum(record["doc_class"] == name for record in result.records)


def _metric_cells(values: Sequence[float | None], metric: Metric) -> list[Cell]:
    return _cells(values, figure, lower=metric.lower_is_better)


def _timed(
    rivals: Sequence[Result], values: Sequence[float | None], write: Callable[[float | None], str], *, lower: bool
) -> list[Cell]:
    """Make cells of times or speeds; those that compare with no others have a star, and are never the best."""
    ended = [_ended(rival, value) for rival, value in zip(rivals, values, strict=True)]
    alike = [value if rival.comparable else None for rival, value in zip(rivals, ended, strict=True)]
    return [
        cell if rival.comparable or value is None else Cell(f"{write(value)}*")
        for cell, rival, value in zip(_cells(alike, write, lower=lower), rivals, ended, strict=True)
    ]


def _whole_rate(result: Result) -> float | None:
    """Give the items a second of the whole task; of repetitions the mean."""
    known = [value for run in result.runs or (result,) if (value := number(run.task, "task_items_per_s")) is not None]
    return statistics.fmean(known) if known else None


def _cells(values: Sequence[float | None], write: Callable[[float | None], str], *, lower: bool) -> list[Cell]:
    known = [value for value in values if value is not None]
    best = write((min if lower else max)(known)) if known else ""
    # As written: nobody decides by what the table doesn't show.
    contested = len({write(value) for value in known}) > 1
    texts = [write(value) for value in values]
    return [
        Cell(text, best=contested and value is not None and text == best)
        for text, value in zip(texts, values, strict=True)
    ]
