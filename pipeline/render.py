"""What people see of a run: progress while it goes on, tables when it is over."""

from __future__ import annotations

import os
import statistics
import threading
import time
from decimal import Decimal
from typing import TYPE_CHECKING, Protocol, TextIO

from envbuilder.errors import counted, visible
from pipeline.models import (
    Decision,
    Evaluation,
    Figures,
    Plan,
    Reporter,
    RunOutcome,
    RunsDiff,
    Sample,
    Silence,
    Table,
    TaskResult,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from types import TracebackType

    from rich.progress import Progress, TaskID
    from typing_extensions import Self

_COLOURS = {"ok": "green", "cancelled": "yellow", "running": "cyan", "pending": ""}
_LINE_EVERY_S = 10.0
_LONG_S = 600.0
# The class of everything; no class of a data set's own is in brackets like that.
_ALL = "(all)"
# Marks speeds that compare with no others.
_ODD = "*"
# A SHA-256 in hexadecimal digits.
_DIGEST_LENGTH = 64


class Display(Reporter, Protocol):
    """A reporter that has to be opened and closed."""

    def __enter__(self) -> Self:
        """Begin to show."""

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None:
        """Leave the terminal as it was."""


def make_display(stream: TextIO, *, quiet: bool = False) -> Display:
    """Live bars on a terminal, plain lines elsewhere, nothing where it shall be quiet."""
    if quiet:
        return _Quiet()
    return LiveDisplay(stream) if stream.isatty() else LineDisplay(stream)


class _Quiet(Silence):
    """Shows nothing."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass


class LineDisplay:
    """A line when a task begins and ends, and now and then between."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._guard = threading.Lock()
        self._totals: dict[str, int] = {}
        self._told: dict[str, float] = {}
        self._unstarted = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._unstarted:
            self._say(_not_started(self._unstarted))
        self._stream.flush()

    def started(self, task: str, items: int, device: str) -> None:
        """Tell a task's beginning."""
        self._totals[task] = items
        self._told[task] = time.monotonic()
        self._say(f"{task}: starts on {device}" + (f", {counted(items, 'item')}" if items else ""))

    def progressed(self, task: str, done: int, failed: int) -> None:
        """Tell how far a task is, but not too often."""
        if time.monotonic() - self._told.get(task, 0.0) >= _LINE_EVERY_S:
            self._told[task] = time.monotonic()
            self._say(f"{task}: {done}/{self._totals.get(task, 0)}" + (f", {failed} failed" if failed else ""))

    def finished(self, result: TaskResult) -> None:
        """Tell a task's end; of those that an interruption kept from starting only the number, at the end."""
        if _kept_from_starting(result):
            self._unstarted += 1
            return
        self._say(f"{result.id}: {ending(result)}")

    def noted(self, task: str, text: str) -> None:
        """Tell what happened."""
        self._say(f"{task}: {text}")

    def measured(self, task: str, sample: Sample) -> None:
        """Say nothing: lines that remain are for what happened."""

    def _say(self, text: str) -> None:
        with self._guard:
            self._stream.write(visible(text, line=True) + "\n")
            self._stream.flush()


class LiveDisplay:
    """A bar for each task at work; a line remains of those that have ended."""

    def __init__(self, stream: TextIO) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        self._progress: Progress = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[failed]}", style="red"),
            TextColumn("{task.fields[speed]}"),
            TimeRemainingColumn(compact=True, elapsed_when_finished=True),
            TextColumn("{task.fields[memory]}", style="dim"),
            # Without colours no style at all is left: NO_COLOR (no-color.org) is asked for where escapes only disturb.
            console=Console(file=stream, color_system=None if os.environ.get("NO_COLOR") else "auto"),
            transient=True,
        )
        self._bars: dict[str, TaskID] = {}
        # When the first progress was told of each, and how much there was by then: a resumed task has some already.
        self._begun: dict[str, tuple[float, int]] = {}
        self._unstarted = 0

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._unstarted:
            self._print(_not_started(self._unstarted), "yellow")
        self._progress.stop()

    def started(self, task: str, items: int, device: str) -> None:
        """Show a bar."""
        self._bars[task] = self._progress.add_task(
            visible(f"{device}: {task}", line=True), total=items or None, failed="", speed="", memory=""
        )

    def progressed(self, task: str, done: int, failed: int) -> None:
        """Move it."""
        text = f"{failed} failed" if failed else ""
        begun, before = self._begun.setdefault(task, (time.monotonic(), done))
        taken_s = time.monotonic() - begun
        speed = f"{rounded((done - before) / taken_s)}/s" if taken_s and done > before else ""
        self._update(task, completed=done, failed=text, speed=speed)

    def finished(self, result: TaskResult) -> None:
        """Turn it into a line; those that an interruption kept from starting are only counted."""
        if _kept_from_starting(result):
            self._unstarted += 1
            return
        bar = self._bars.pop(result.id, None)
        if bar is not None:
            self._progress.remove_task(bar)
        self._print(f"{result.id}: {ending(result)}", "green" if result.ok else "yellow" if _mild(result) else "red")

    def noted(self, task: str, text: str) -> None:
        """Print it above the bars."""
        self._print(f"{task}: {text}", "yellow")

    def measured(self, task: str, sample: Sample) -> None:
        """Show what its processes use."""
        words = [f"{sample.ram_bytes / 2**30:.1f} GiB"]
        words += [f"{sample.gpu_bytes / 2**30:.1f} GiB on the GPU"] if sample.gpu_bytes is not None else []
        self._update(task, memory=", ".join(words))

    def _update(self, task: str, **fields: object) -> None:
        bar = self._bars.get(task)
        if bar is not None:
            self._progress.update(bar, **fields)  # type: ignore[arg-type]  # the library's own way of taking fields

    def _print(self, text: str, style: str) -> None:
        self._progress.console.print(visible(text, line=True), style=style, markup=False, highlight=False)


def _kept_from_starting(result: TaskResult) -> bool:
    return result.code == "interrupted" and not result.attempts


def _not_started(number: int) -> str:
    return f"{counted(number, 'task')} {'was' if number == 1 else 'were'} not started"


def _mild(result: TaskResult) -> bool:
    return result.status in {"ok", "cancelled"}


def ending(result: TaskResult) -> str:
    """How a task ended, in a few words."""
    if result.status != "ok":
        return f"{result.status}: {result.error}" if result.error else result.status
    words = [f"ok, reused from {result.reused}" if result.reused else "ok"]
    if result.stage == "inference":
        words.append(f"{result.items - result.failed_items}/{result.items} items")
        if result.items_per_s and not result.reused:
            words.append(f"{rounded(result.items_per_s)}/s in predict")
        if result.task_items_per_s and not result.reused:
            words.append(f"{rounded(result.task_items_per_s)}/s in all")
    if result.wall_s is not None and not result.reused:
        words.append(f"{result.wall_s:.1f} s")
    return ", ".join(words)


def outcome_tables(results: Sequence[TaskResult], evaluations: Sequence[Evaluation]) -> tuple[Table, ...]:
    """The tables of a run, none of them wide.

    How its tasks went (those of eval and report only where they did not end well), their figures, how far repetitions
    lie apart, and on what tasks ran and what they used.
    """
    shown = [result for result in results if result.stage == "inference" or result.status != "ok"]
    columns = ("task", "status", "items", "failed", "predict/s", "task/s", "device")
    found = (
        Table("tasks", columns, tuple(_facts(result) for result in shown)),
        _figures_table(evaluations),
        _spread_table(results, evaluations),
        _resources_table(results),
    )
    return tuple(table for table in found if table.rows or table.title == "tasks")


def _figures_table(evaluations: Sequence[Evaluation]) -> Table:
    names = _metric_names(evaluations)
    rows = dict.fromkeys((each.inference, name) for each in evaluations for name in ("", *each.by_class))
    written = tuple((task, name or _ALL, *_figures(task, name, evaluations, names)) for task, name in rows)
    return Table("figures", ("task", "class", *names.values()), written)


def _resources_table(results: Sequence[TaskResult]) -> Table:
    """What is worth knowing beside the figures; a column that has nothing to say is left out."""
    columns = ("task", "slot", "load", "time", "RAM", "GPU", "guard", "remarks")
    rows = [_resources(result) for result in results if result.stage == "inference"]
    told = [row for row in rows if any(row[1:])]
    kept = [place for place in range(len(columns)) if not place or any(row[place] for row in told)]
    return Table(
        "resources",
        tuple(columns[place] for place in kept),
        tuple(tuple(row[place] for place in kept) for row in told),
    )


def _resources(result: TaskResult) -> tuple[str, ...]:
    remarks = [f"reused from {result.reused}"] if result.reused else []
    remarks += ["warm"] if result.warm else []
    remarks += ["degraded"] if result.degraded else []
    remarks += [f"{len(result.attempts)} attempts"] if len(result.attempts) > 1 else []
    loaded = None if result.warm else result.load_s
    return (
        result.id,
        result.slot,
        _seconds(loaded),
        _seconds(result.wall_s),
        _size(result.peak_tree_bytes, result.peak_ram_bytes),
        _size(result.peak_gpu_tree_bytes, result.peak_gpu_bytes)
        + (" (card)" if result.gpu_memory_of == "card" else ""),
        result.attempts[-1].guard if result.attempts else "",
        ", ".join(remarks),
    )


def _seconds(value: float | None) -> str:
    return "" if value is None else f"{value:.1f} s" if value < _LONG_S else f"{value / 60:.1f} min"


def _size(*measured: int | None) -> str:
    """The most of what was measured, in MiB or GiB."""
    most = max((value for value in measured if value is not None), default=None)
    if most is None:
        return ""
    return f"{most / 2**20:.0f} MiB" if most < 2**30 else f"{most / 2**30:.1f} GiB"


def _spread_table(results: Sequence[TaskResult], evaluations: Sequence[Evaluation]) -> Table:
    """A row for each figure of each task that was done several times: mean, sample standard deviation, least, most."""
    groups: dict[str, list[TaskResult]] = {}
    for result in results:
        base, mark, number = result.id.rpartition("#")
        if result.stage == "inference" and mark and number.isdigit():
            groups.setdefault(base, []).append(result)
    names = _metric_names(evaluations)
    rows = []
    for base, group in groups.items():
        for name, values in (*_metric_values(group, evaluations, names), *_speeds(group)):
            if len(group) > 1 and values:
                rows.append((base, name, str(len(values)), *_spread(values)))
    return Table("spread", ("task", "figure", "n", "mean", "sd", "least", "most"), tuple(rows))


def _metric_values(
    group: Sequence[TaskResult], evaluations: Sequence[Evaluation], names: Mapping[tuple[str, str], str]
) -> list[tuple[str, list[float]]]:
    judged = [(_label(each), each.overall) for result in group for each in evaluations if each.inference == result.id]
    return [
        (title, [overall[metric] for judge, overall in judged if judge == label and metric in overall])
        for (label, metric), title in names.items()
    ]


def _speeds(group: Sequence[TaskResult]) -> tuple[tuple[str, list[float]], ...]:
    """Both speeds of repetitions, but for those that did other than they were asked."""
    alike = [result for result in group if _compares(result)]
    inside = [result.items_per_s for result in alike if result.items_per_s is not None]
    whole = [result.task_items_per_s for result in alike if result.task_items_per_s is not None]
    return ("predict/s", inside), ("task/s", whole)


def _spread(values: Sequence[float]) -> tuple[str, ...]:
    apart = statistics.stdev(values) if len(values) > 1 else None
    told = (statistics.fmean(values), apart, min(values), max(values))
    return tuple("" if value is None else f"{value:.5g}" for value in told)


def _facts(result: TaskResult) -> tuple[str, ...]:
    speeds = (_marked(result, result.items_per_s), _marked(result, result.task_items_per_s))
    is_inference = result.stage == "inference"
    items, failed = (str(result.items), str(result.failed_items)) if is_inference else ("", "")
    is_partly = result.status == "ok" and result.failed_items
    status = f"ok, {result.failed_items} failed" if is_partly else result.status
    if result.left_items:
        status = f"{result.status}, {result.left_items} left"
    if result.status == "pending" and result.code == "runner-gone":
        status = "not started"
    return (result.id, status, items, failed, *speeds, result.device)


def _compares(result: TaskResult) -> bool:
    """Whether a task's speeds compare with others'; records of earlier versions do not say so themselves."""
    return result.speed_comparable and not result.degraded


def _marked(result: TaskResult, speed: float | None) -> str:
    return rounded(speed) + ("" if _compares(result) else _ODD) if speed else ""


def speed_notes(results: Iterable[TaskResult]) -> tuple[str, ...]:
    """What the speeds of a run count, and which of them compare with no others, and why not."""
    timed = [result for result in results if result.items_per_s or result.task_items_per_s]
    if not timed:
        return ()
    told = ["items/s: predict/s counts the time inside predict alone, task/s the whole task, loading included"]
    odd = [result for result in timed if not _compares(result)]
    told += [f"{_ODD} not comparable: {result.id}: {'; '.join(result.degraded)}" for result in odd]
    return tuple(told)


def rounded(value: float) -> str:
    """A number to three figures, in plain digits however large or small it is."""
    return format(Decimal(f"{value:.3g}"), "f")


def _label(evaluation: Evaluation) -> str:
    return evaluation.eval.removesuffix(f":{evaluation.inference}")


def _metric_names(evaluations: Sequence[Evaluation]) -> dict[tuple[str, str], str]:
    """A column for each metric of each judge; the judge is named only where two share a metric's name."""
    found = dict.fromkeys((_label(each), metric) for each in evaluations for metric in each.overall)
    metrics = [metric for _, metric in found]
    return {(label, name): f"{label}.{name}" if metrics.count(name) > 1 else name for label, name in found}


def _figures(
    task: str, name: str, evaluations: Sequence[Evaluation], names: Mapping[tuple[str, str], str]
) -> tuple[str, ...]:
    found: dict[tuple[str, str], float] = {}
    for each in evaluations:
        if each.inference == task:
            figures = each.by_class.get(name, {}) if name else each.overall
            found.update({(_label(each), metric): value for metric, value in figures.items()})
    return tuple(f"{found[key]:.4f}" if key in found else "" for key in names)


def plan_table(plan: Plan) -> Table:
    """What a run would do."""
    rows = []
    for task in plan.tasks:
        data = plan.data_set(task.data)
        gpus = "auto" if task.wish.gpus is None else f"{task.wish.gpus:g}"
        items = str(len(data.items)) if data and task.stage == "inference" else ""
        rows.append((task.id, task.stage, task.environment.plugin, items, gpus, task.identity[:12]))
    return Table("plan", ("task", "stage", "plugin", "items", "gpus", "identity"), tuple(rows))


def why_table(decisions: Sequence[Decision]) -> Table:
    """What a run would do with each task, and why."""
    rows = []
    for each in decisions:
        items = f"{each.left}/{each.items}" if each.items else ""
        rows.append((each.task, each.what, items, each.why))
    return Table("plan", ("task", "what", "items left", "why"), tuple(rows))


def diff_tables(found: RunsDiff) -> tuple[Table, ...]:
    """What differs between two runs, and their figures; digests are cut short."""
    rows = tuple((each.task or "run", each.part, _cut(each.old), _cut(each.new)) for each in found.differences)
    tables = [Table("differences", ("task", "part", found.old, found.new), rows)] if rows else []
    if found.figures:
        figures = tuple((each.task, each.name, *_side_by_side(each), each.note) for each in found.figures)
        tables.append(Table("figures", ("task", "figure", found.old, found.new, "change", "note"), figures))
    return tuple(tables)


def _cut(text: str, most: int = 60) -> str:
    if len(text) == _DIGEST_LENGTH and set(text) <= set("0123456789abcdef"):
        return text[:12]
    return text if len(text) <= most else f"{text[: most - 1]}…"


def _side_by_side(figures: Figures) -> tuple[str, str, str]:
    old, new = (f"{value:.4g}" if value is not None else "" for value in (figures.old, figures.new))
    if figures.old is None or figures.new is None:
        return old, new, ""
    return old, new, "=" if figures.old == figures.new else f"{figures.new - figures.old:+.4g}"


def runs_table(outcomes: Sequence[RunOutcome]) -> Table:
    """Runs, the oldest first; profile and failed items only where they tell runs apart."""
    profiles = len({outcome.profile for outcome in outcomes if outcome.profile}) > 1
    failed = any(outcome.failed_items for outcome in outcomes)
    rows = []
    for outcome in outcomes:
        well = sum(result.ok for result in outcome.tasks)
        tasks = f"{well}/{len(outcome.tasks)}" if outcome.tasks else ""
        more = ((outcome.profile,) if profiles else ()), ((str(outcome.failed_items or ""),) if failed else ())
        started = outcome.started[:19].replace("T", " ")
        rows.append((outcome.id, outcome.name, *more[0], outcome.status, tasks, *more[1], started))
    columns = (
        "run",
        "name",
        *(["profile"] * profiles),
        "status",
        "tasks ok",
        *(["failed items"] * failed),
        "started (UTC)",
    )
    return Table("runs", columns, tuple(rows))


def _colour(status: str) -> str:
    return "yellow" if status.startswith("ok, ") else _COLOURS.get(status, "red")
