"""Does one task of the eval or the report stage, and says what came of it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from envbuilder.fs import move
from pipeline.identity import answers_digest
from pipeline.layout import read_answers
from pipeline.models import Evaluation, Task, chunked
from pipeline.plan import data_of
from pipeline.protocol import record_documents
from pipeline.scheduler.tries import Finished, Setting, Tries

if TYPE_CHECKING:
    from pathlib import Path

    from pipeline.placement import Slot


def do_eval(setting: Setting, task: Task, slot: Slot) -> Finished:
    """Have an inference task's answers judged."""
    items = data_of(setting.plan, task).items
    answers = read_answers(setting.layout.answers(task.inference or ""))
    setting.reporter.started(task.id, len(items), slot.name or slot.device)
    tries = Tries(setting, task, slot)
    tries.parts["answers"] = answers_digest(items, answers)
    tries.run(lambda: {"records": record_documents(items, answers)}, lambda _message, _attempt: None)
    result = replace(tries.result(), items=len(items))
    message = tries.last.messages.get("evaluation") if tries.last else None
    if result.status != "ok":
        return tries.finished(result)
    body = message.body if message else {}
    try:
        evaluation = read_evaluation(task, body)
        if lost := without_value(body):
            tries.note(
                f"{len(lost)} figures have no value (NaN, infinite or nothing) and are left out: {chunked(lost)}"
            )
            result = replace(result, notes=tuple(tries.notes))
        return tries.finished(result, evaluation)
    except ValueError as error:
        return tries.finished(replace(result, status="failed", code="plugin-invalid", error=str(error)))


def without_value(body: Mapping[str, object]) -> list[str]:
    """Figures of an eval plugin that are no number, by where they stand."""
    classes = body.get("by_class")
    parts = [("overall", body.get("overall")), *(classes.items() if isinstance(classes, Mapping) else ())]
    return [
        f"{part}.{name}"
        for part, figures in parts
        if isinstance(figures, Mapping)
        for name, each in figures.items()
        if each is None
    ]


def read_evaluation(task: Task, body: Mapping[str, object]) -> Evaluation:
    """An eval plugin's figures; those that are no numbers (NaN became None on the way) are left out.

    Raises:
        ValueError: they are not what the contract says.
    """
    by_class, by_item, lower = (body.get(name) or () for name in ("by_class", "by_item", "lower_is_better"))
    if isinstance(by_item, str) or not isinstance(by_item, Sequence) or not isinstance(lower, Sequence):
        raise ValueError("by_item and lower_is_better must be lists")
    classes = dict(by_class) if isinstance(by_class, Mapping) else {}
    return Evaluation(
        inference=task.inference or "",
        eval=task.id,
        data=task.data or "",
        overall=_figures("overall", body.get("overall")),
        by_class={str(name): _figures(f"by_class.{name}", figures) for name, figures in classes.items()},
        by_item=tuple(dict(each) for each in by_item if isinstance(each, Mapping)),
        lower_is_better=tuple(map(str, lower)),
    )


def _figures(where: str, value: object) -> dict[str, float]:
    if not isinstance(value, Mapping):
        raise ValueError(f"{where} must map metric names to numbers, found {type(value).__name__}")
    wrong = [name for name, each in value.items() if each is not None and not isinstance(each, int | float)]
    if wrong:
        raise ValueError(f"{where}.{wrong[0]} must be a number, found {json.dumps(value[wrong[0]])[:60]}")
    figures = {}
    for name, each in value.items():
        try:
            if each is not None:
                figures[str(name)] = float(each)
        except OverflowError:
            raise ValueError(
                f"{where}.{name} must be a number of at most 308 digits, found one of {len(str(each))}"
            ) from None
    return figures


def do_report(setting: Setting, task: Task, slot: Slot, document: Mapping[str, object]) -> Finished:
    """Have a report written."""
    reports = setting.plan.stage("report")
    output = setting.layout.report(task.id, only=task.id == reports[0].id)
    setting.reporter.started(task.id, 0, slot.name or slot.device)
    tries = Tries(setting, task, slot)
    tries.run(lambda: {"report": document, "output": output.name}, lambda _message, _attempt: None)
    result = tries.result()
    if result.status == "ok" and tries.records:
        _publish(setting.layout.output_dir(tries.records[-1].id), output)
    return tries.finished(result)


def _publish(folder: Path, output: Path) -> None:
    """Put a report, and what was written beside it, into the run's folder; nothing else that is there gives way.

    Raises:
        OSError: the disk refuses.
    """
    kept = output.with_name(f"{output.stem}_files")
    for path in folder.iterdir():
        place = output.with_name(path.name)
        if place == kept and place.is_dir():
            shutil.rmtree(place)
        if place in {output, kept} or not place.exists():
            move(path, place)
