"""A run's answers and figures as Parquet files, a table of each."""

from __future__ import annotations

import io
import json
import sys
from typing import TYPE_CHECKING, Any

from envbuilder import fs
from envbuilder.errors import Problem, ToolError
from pipeline.cli.export import Export, touched_problem
from pipeline.cli.history import answers_problems, load_outcome
from pipeline.errors import RecordError
from pipeline.layout import find_answers, find_run, plain_bytes, read_items
from pipeline.scheduler.record import METRICS_HEADER, metric_rows

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path
    from types import ModuleType

    from pipeline.layout import AnswersFound, KeptItem, RunLayout
    from pipeline.models import TaskResult

ANSWERS_HEADER = (
    "run",
    "task",
    "plugin",
    "data",
    "item",
    "class",
    "references",
    "answer",
    "error",
    "latency_s",
    "attempt",
    "reused_from",
    "extra",
)


def export_parquet(state_dir: Path, run: str | None = None, *, folder: Path | None = None) -> Export:
    """Write ``answers.parquet`` and, where anything was judged, ``metrics.parquet``.

    One table holds the answers of all inference tasks, in the data sets' order: an item that failed has its error and no
    answer, what a plugin said beside the answer is JSON text in ``extra``. The other holds the figures in long form; an
    empty class is the whole. They go to the run's own ``export/`` where no folder is given.

    Raises:
        ToolError: pyarrow is not installed.
        UnknownRunError: there is no run of that name.
        RecordError: the run's record is damaged, there is nothing in its answers, or a table cannot be written.
    """
    arrow = _pyarrow()
    layout = find_run(state_dir, run)
    target = folder or layout.export_dir
    outcome = load_outcome(layout)
    rows: list[tuple[object, ...]] = []
    problems: list[Problem] = []
    for result in outcome.tasks:
        if result.stage == "inference":
            found = find_answers(layout.answers(result.id))
            if result.touched:
                problems.append(touched_problem(result, layout))
                continue
            problems += [*answers_problems(result, found), *_not_reached(result, found, layout)]
            rows += _rows(layout, result, found)
    if not rows:
        hint = f"envbuilder runs show {layout.id}"
        raise RecordError(f"run {layout.id}: nothing to export: no item", where=str(layout.answers_dir), hint=hint)
    figures = list(metric_rows(layout.id, outcome.evaluations, outcome.tasks))
    written = [_write(arrow, target / "answers.parquet", ANSWERS_HEADER, rows)]
    if figures:
        written.append(_write(arrow, target / "metrics.parquet", METRICS_HEADER, figures))
    return Export(tuple(written), tuple(problems))


def _pyarrow() -> ModuleType:
    try:
        import pyarrow.parquet
    except ImportError as error:
        hint = f"uv pip install --python {sys.executable} 'pyarrow>=17'"
        raise ToolError("writing Parquet files needs pyarrow, which is not installed", hint=hint) from error
    module: ModuleType = pyarrow
    return module


def _not_reached(result: TaskResult, found: AnswersFound, layout: RunLayout) -> list[Problem]:
    missing = result.items - len(found.lines)
    if missing <= 0:
        return []
    text = f"{result.id}: {missing} of {result.items} items were not reached and are left out"
    hint = f"envbuilder resume {layout.id}"
    return [Problem("items-left-out", text, result.plugin, str(found.path), hint, severity="warning")]


def _rows(layout: RunLayout, result: TaskResult, found: AnswersFound) -> Iterator[tuple[object, ...]]:
    kept: Mapping[str, KeptItem] = read_items(layout.items(result.data or ""))
    rank = {item: number for number, item in enumerate(kept)}
    for line in sorted(found.lines.values(), key=lambda each: rank.get(each.item, len(rank))):
        item = kept.get(line.item)
        yield (
            layout.id,
            result.id,
            result.plugin,
            result.data,
            line.item,
            item.doc_class if item else None,
            list(item.references) if item else None,
            line.answer,
            line.error,
            line.latency_s,
            line.attempt,
            line.reused_from,
            json.dumps(dict(line.extra), ensure_ascii=False) if line.extra else None,
        )


def _write(arrow: ModuleType, path: Path, header: Sequence[str], rows: Sequence[Sequence[object]]) -> Path:
    numbers, lists = {"latency_s", "value"}, {"references"}
    types = {name: arrow.float64() if name in numbers else arrow.string() for name in header}
    types |= {name: arrow.list_(arrow.string()) for name in lists & set(header)}
    columns = zip(*rows, strict=True)
    arrays = [
        arrow.array([_plain(value) for value in column], types[name])
        for name, column in zip(header, columns, strict=True)
    ]
    out = io.BytesIO()
    arrow.parquet.write_table(arrow.Table.from_arrays(arrays, names=list(header)), out, compression="zstd")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        fs.replace_file(path, out.getvalue())
    except OSError as error:
        where = str(path.parent)
        raise RecordError(f"cannot be written: {error}", where=where, hint=f"ls -ld {where}") from error
    return path


def _plain(value: object) -> Any:
    """A value that Arrow takes: it has no lone surrogates."""
    if isinstance(value, str):
        return plain_bytes(value).decode("utf-8")
    return [_plain(each) for each in value] if isinstance(value, list) else value
