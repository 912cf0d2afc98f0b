"""Answers as the tables that upstream tools read."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from envbuilder.errors import Problem, counted
from pipeline.cli.history import answers_problems, load_outcome
from pipeline.errors import RecordError
from pipeline.layout import (
    AnswersFound,
    csv_text,
    find_answers,
    find_run,
    harmless_cell,
    read_items,
    safe_name,
    write_text,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from pipeline.layout import RunLayout
    from pipeline.models import TaskResult


@dataclass(frozen=True)
class Export:
    """Tables that were written, and what is not in them; as an iterable, the tables."""

    paths: tuple[Path, ...]
    problems: tuple[Problem, ...] = ()

    def __iter__(self) -> Iterator[Path]:
        return iter(self.paths)


def export_csv(state_dir: Path, run: str | None = None, *, folder: Path | None = None, raw: bool = False) -> Export:
    """Write each inference task's answers as a table ``id;model_answer``, as upstream tools read them.

    The rows are in the data set's order. An item without an answer (it failed, or the run did not get to it) has no
    row: an empty one would be an answer, and a wrong one. How many were left out is told in the problems, and so is
    what is wrong with the answers on disk; a task without any answer, or whose answers count for nothing, has no table. The tables come from the answers
    themselves, those of a run that was killed or still goes on too, and go to the run's own ``export/`` where no
    folder is given.

    Raises:
        UnknownRunError: there is no run of that name.
        RecordError: the run's record is damaged, there is no answer at all, or a table cannot be written.
    """
    layout = find_run(state_dir, run)
    target = folder or layout.export_dir
    written: list[Path] = []
    problems: list[Problem] = []
    try:
        for result in load_outcome(layout).tasks:
            if result.stage == "inference":
                found = find_answers(layout.answers(result.id))
                if result.touched:
                    problems.append(touched_problem(result, layout))
                    continue
                problems += [*answers_problems(result, found), *_left_out(result, found, layout)]
                if found.answered:
                    path, rows = _table(target, result, found, layout)
                    problems += [] if raw else _quoted(result, rows, layout)
                    write_text(path, csv_text(("id", "model_answer"), rows, delimiter=";", raw=raw))
                    written.append(path)
    except OSError as error:
        raise RecordError(f"cannot be written: {error}", where=str(target), hint=f"ls -ld {target}") from error
    if not written:
        text = f"run {layout.id}: nothing to export: no item has an answer"
        told = "".join(f"; {each.message}" for each in problems if each.code != "items-left-out")
        hint = f"envbuilder runs show {layout.id}"
        raise RecordError(text + told, where=str(layout.answers_dir), hint=hint)
    return Export(tuple(written), tuple(problems))


def touched_problem(result: TaskResult, layout: RunLayout) -> Problem:
    """The problem of a task whose answers count for nothing, so that they go into no table."""
    text = f"{result.id}: left out: its answers count for nothing: {result.touched}"
    hint = f"envbuilder runs show {layout.id}"
    return Problem(result.code or result.status, text, result.plugin, str(layout.answers(result.id)), hint)


def _left_out(result: TaskResult, found: AnswersFound, layout: RunLayout) -> list[Problem]:
    missing = result.items - found.answered
    if missing <= 0:
        return []
    text = f"{result.id}: {missing} of {result.items} items have no answer and are left out"
    hint = f"envbuilder runs show {layout.id}"
    return [Problem("items-left-out", text, result.plugin, str(found.path), hint, severity="warning")]


def _quoted(result: TaskResult, rows: Sequence[tuple[str, str]], layout: RunLayout) -> list[Problem]:
    count = sum(harmless_cell(cell) != cell for row in rows for cell in row)
    if not count:
        return []
    text = f"{result.id}: {counted(count, 'cell')} would be a formula in a spreadsheet, and got an apostrophe before it"
    hint = f"envbuilder runs show {layout.id} --export csv --raw  # for tools that compare answers to the letter"
    return [Problem("cells-quoted", text, result.plugin, hint=hint, severity="warning")]


def _table(
    target: Path, result: TaskResult, found: AnswersFound, layout: RunLayout
) -> tuple[Path, list[tuple[str, str]]]:
    target.mkdir(parents=True, exist_ok=True)
    rank = {item: number for number, item in enumerate(read_items(layout.items(result.data or "")))}
    lines = sorted(found.lines.values(), key=lambda line: rank.get(line.item, len(rank)))
    rows = [(line.item, line.answer) for line in lines if line.answer is not None]
    return target / f"{safe_name(result.id)}.csv", rows
