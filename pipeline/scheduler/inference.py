"""Does an inference task: has every item answered, whatever single items do to the worker."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from envbuilder.errors import counted
from pipeline.models import AnswerLine, DataItem, Status, Task, TaskResult
from pipeline.plan import data_of
from pipeline.scheduler.answers import Answers
from pipeline.scheduler.losses import Losses
from pipeline.scheduler.tries import Finished, Setting, Tries

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pipeline.placement import Slot

# What a task is where every item of it failed for one reason.
_KINDS: tuple[tuple[str, Status], ...] = (("oom-gpu", "oom-gpu"), ("oom-host", "oom-host"), ("item-timeout", "timeout"))


def do_inference(setting: Setting, task: Task, slot: Slot) -> Finished:
    """Have every item of the task's data set answered."""
    items = data_of(setting.plan, task).items
    setting.reporter.started(task.id, len(items), slot.name or slot.device)
    answers = Answers(setting, task, items)
    tries = Tries(setting, task, slot)
    try:
        _go_on(tries, answers)
        for item in items:
            if item.error and item.id not in answers.lines:
                answers.keep(AnswerLine(item.id, task.id, "", error=item.error))
        losses = Losses(answers, tries, setting.plan.retries)
        tries.run(losses.contents, answers.hear, losses.judge)
        if tries.last is not None and tries.last.status == "ok":
            for item in answers.left():
                text = "no-answer: the worker ended well without answering"
                answers.keep(AnswerLine(item.id, task.id, tries.records[-1].id, error=text))
    finally:
        answers.close()
    return tries.finished(_with_items(losses.mended(tries.result()), items, answers))


def _go_on(tries: Tries, answers: Answers) -> None:
    """Say what is there already."""
    begun, here = answers.begun, tries.parts["device"]
    if begun.source:
        tries.note(f"{len(begun.lines)} answers are those of {begun.source}")
    elif begun.lines:
        tries.note(f"{counted(len(begun.lines), 'item was', 'items were')} through before the run was resumed")
    if begun.lines and begun.device and begun.device != here:
        tries.degrade(f"{len(begun.lines)} answers were given on {begun.device}, not on {here}")
        tries.parts["device"] = " + ".join(sorted({begun.device, here}))


def _with_items(result: TaskResult, items: Sequence[DataItem], answers: Answers) -> TaskResult:
    failed = [line.error or "" for line in answers.failed]
    result = replace(
        result,
        items=len(items),
        failed_items=len(failed),
        left_items=len(answers.left()),
        items_per_s=_speed(result, answers),
        task_items_per_s=_rate(result, answers),
        speed_comparable=not result.degraded,
    )
    if len(failed) == len(items):
        status: Status = next(
            (kind for code, kind in _KINDS if all(each.startswith(code) for each in failed)), "failed"
        )
        return replace(result, status=status, code="all-items-failed", error=f"every item failed; first: {failed[0]}")
    if result.status == "ok" and failed:
        return replace(result, error=failed[0])
    return result


def _asked(answers: Answers) -> list[AnswerLine]:
    """The answers that this run asked for, not an earlier one."""
    return [line for line in answers.lines.values() if line.answer is not None and line.reused_from is None]


def _rate(result: TaskResult, answers: Answers) -> float | None:
    """Items a second of the whole task: loading, waiting and whatever was asked in vain included."""
    answered = len(_asked(answers))
    return answered / result.wall_s if result.status == "ok" and answered and result.wall_s else None


def _speed(result: TaskResult, answers: Answers) -> float | None:
    """Items a second inside ``predict``: of those that were answered, for a failure may take no time or a whole limit."""
    answered = _asked(answers)
    timed = [line.latency_s for line in answered if line.latency_s is not None]
    busy_s = sum(timed) if len(timed) == len(answered) else result.wall_s or 0.0
    return len(answered) / busy_s if result.status == "ok" and answered and busy_s else None
