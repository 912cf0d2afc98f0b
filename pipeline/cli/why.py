"""What a run would do anew, and why: task by task."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from envbuilder.errors import Problem, counted
from pipeline.cli.resuming import tell
from pipeline.cli.running import RunRequest, kinds_of, machine, plan_run, refuse_unknown
from pipeline.identity import answers_digest, differences
from pipeline.layout import RunLayout
from pipeline.models import AnswerLine, Decision, Task
from pipeline.scheduler import Archive, Found, Past, trusted

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping


@dataclass(frozen=True)
class Explained:
    """A plan's tasks, what is to become of each, and what is wrong with their images."""

    tasks: tuple[Task, ...]
    decisions: tuple[Decision, ...]
    warnings: tuple[Problem, ...] = ()


def explain_run(request: RunRequest) -> Explained:
    """What a run would do, what it would take from earlier ones, and why it would not take more.

    Raises:
        ConfigError: with one problem for each thing that is wrong with the run file or its data.
        UsageError: what is to be done anew is not in the plan.
    """
    plan = plan_run(request)
    refuse_unknown(plan, request.terms)
    kinds = kinds_of(machine().gpus)
    archive = Archive(request.state_dir)
    data = {each.name: each for each in plan.data}
    past = Past(
        RunLayout(request.state_dir, "planned"),
        data,
        kinds,
        archive=archive,
        terms=replace(request.terms, proved=request.keeper is not None),
    )
    decisions: dict[str, Decision] = {}
    answers: dict[str, Mapping[str, AnswerLine]] = {}
    for task in plan.tasks:
        items = data[task.data].items if task.data else ()
        if task.stage == "report":
            decisions[task.id] = Decision(task.id, "run", why="reports are written anew each time")
            continue
        judged = decisions.get(task.inference or "")
        if judged is not None and judged.what != "reuse":
            decisions[task.id] = Decision(task.id, "run", why=f"the answers of {judged.task} come first")
            continue
        found = past.find(task, answers_digest(items, answers[judged.task]) if judged else "")
        if found is not None:
            answers[task.id] = found.lines
        decisions[task.id] = _decide(task, found, len(items), request, archive, kinds(task))
    return Explained(plan.tasks, tuple(decisions.values()), plan.warnings)


def _decide(
    task: Task, found: Found | None, items: int, request: RunRequest, archive: Archive, kinds: Collection[str]
) -> Decision:
    if found is not None and found.is_whole:
        return Decision(task.id, "reuse", found.run, 0, items, why=f"everything is as in {found.run}")
    if found is not None:
        left = items - len(found.lines)
        why = f"{found.run} {_ended(found.result.status)} with {counted(len(found.lines), 'answer')}"
        if found.result.status == "ok":
            why = f"{counted(left, 'item')} failed in {found.run}"
        return Decision(task.id, "continue", found.run, left, items, why)
    if forbidden := request.terms.bar(task):
        return Decision(task.id, "run", None, items, items, forbidden)
    why = _reason(task, archive, kinds, is_proved=request.keeper is not None)
    return Decision(task.id, "run", None, items, items, why)


def _reason(task: Task, archive: Archive, kinds: Collection[str], *, is_proved: bool) -> str:
    """Why nothing earlier serves, told of what comes nearest."""
    nearest = archive.nearest(task)
    if nearest is None:
        return f"no earlier result of {task.environment.plugin} on {task.data}"
    if nearest.result.touched:
        return f"{nearest.run} counts for nothing: {nearest.result.touched}"
    told = tell(nearest, task)
    device = nearest.result.identity_parts.get("device")
    if device is not None and device not in kinds:
        told = (*told, f"device {device} → {' or '.join(sorted(kinds)) or 'none'}")
    if told:
        return f"since {nearest.run}: {', '.join(told)}"
    if not trusted(nearest.result, task, is_proved=is_proved):
        return f"the environment of {nearest.run} was built anew since, and nobody looked whether it was as sealed"
    if differences(nearest.parts, task.parts) or nearest.result.status == "ok":
        return (
            f"the answers are others than in {nearest.run}" if task.stage == "eval" else f"{nearest.run} lost answers"
        )
    return f"{nearest.run} {_ended(nearest.result.status)} without an answer"


def _ended(status: str) -> str:
    # What a record calls at work, or waiting, when nobody writes it any more.
    return "was killed" if status in {"running", "pending"} else f"ended as {status}"
