"""Goes on with a run that was interrupted, was killed, or had failures."""

from __future__ import annotations

import contextlib
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from envbuilder.errors import Problem
from envbuilder.fs import move
from pipeline.cli.history import load_outcome, lost_parts
from pipeline.cli.running import (
    Before,
    RunRequest,
    carry_out,
    clear_slots,
    outcome_of,
    plan_run,
    refuse_guard,
    stoppable,
    writing,
)
from pipeline.errors import ChangedError, LostError, RecordError
from pipeline.identity import changes, differences
from pipeline.layout import RunLayout, find_run, read_json
from pipeline.models import AttemptRecord, Environment, Plan, Reporter, RunOutcome, Silence, Task, TaskResult
from pipeline.scheduler import Planned, Terms, attempts_in, planned_in, trusted

if TYPE_CHECKING:
    from pipeline.placement import Stop


@dataclass(frozen=True)
class Resumable:
    """A run that can be gone on with.

    Attributes:
        id: its id.
        run_file: its run file, as it is now.
        profile: the profile that it was made in.
        terms: which results of other runs it may take.
        is_done: whether there is nothing left to do.
        lost: parts of what had ended well that are no longer there, and are made again.
    """

    id: str
    run_file: Path
    profile: str
    terms: Terms
    is_done: bool
    lost: tuple[Problem, ...] = ()


def find_resumable(state_dir: Path, run: str | None = None, *, retry_failed: bool = False) -> Resumable:
    """What a resume needs to know of a run before environments are looked at.

    Args:
        state_dir: the workspace's state folder.
        run: its id, the beginning or end of it; the latest for None.
        retry_failed: whether items that failed in tasks that ended well are asked again.

    Raises:
        UnknownRunError: there is none of that name.
        RecordError: its record is damaged, its runner lives, or its run file is gone.
    """
    layout = find_run(state_dir, run)
    if layout.is_held():
        raise _busy(layout)
    document = _document(layout)
    run_file = Path(str(document.get("run_file")))
    if not run_file.is_file():
        text = f"run {layout.id}: its run file is gone"
        hint = f"cp {shlex.quote(str(layout.run_file))} {shlex.quote(str(run_file))}"
        raise RecordError(text, where=str(run_file), hint=hint)
    told = document.get("reuse")
    reuse = told if isinstance(told, Mapping) else {}
    terms = Terms(bool(reuse.get("fresh")), frozenset(map(str, reuse.get("force") or ())), retry_failed)
    outcome = load_outcome(layout)
    lost = tuple(problem for problem in lost_parts(layout, outcome) if problem.severity == "error")
    is_ended = outcome.status == "ok" or (
        not retry_failed and outcome.status == "failed" and all(task.status == "ok" for task in outcome.tasks)
    )
    return Resumable(layout.id, run_file, str(document.get("profile")), terms, is_ended and not lost, lost)


def resume_run(
    request: RunRequest, run: str, *, interrupted: Stop | None = None, reporter: Reporter | None = None
) -> RunOutcome:
    """Go on with a run, in its own folder.

    Tasks that ended well stay as they are. Of others, items with an answer are not asked again, those that failed are.
    Reports are written anew.

    Args:
        request: the run's run file with its environments, as they are now.
        run: the run's id.
        interrupted, reporter: as `pipeline.cli.execute_run` has them.

    Raises:
        ConfigError: the run file or its data cannot be used; nothing was run.
        ChangedError: environments, code, data or parameters are other than when the run began; a `LostError` where the
            run had ended, and has lost answers, figures or reports since.
        RecordError: another process is at it, or its record cannot be read or written.
        Interrupted: it was ended early; what was written stays.
    """
    layout = find_run(request.state_dir, run)
    plan = plan_run(request)
    refuse_guard()
    with writing(request.state_dir), stoppable(interrupted) as stop:
        try:
            with layout.held():
                _go_on(request, plan, layout, stop, reporter or Silence())
        except BlockingIOError as error:
            raise _busy(layout) from error
    return outcome_of(layout, stop)


def _go_on(request: RunRequest, plan: Plan, layout: RunLayout, stop: Stop, reporter: Reporter) -> None:
    layout.make_folders()
    clear_slots(request.state_dir, reporter)
    document = _document(layout)
    planned = _planned(layout, document)
    if problems := list(_changes(plan, planned, layout, request.run_file)):
        lost = [each for each in lost_parts(layout, load_outcome(layout)) if each.severity == "error"]
        raise LostError([*lost, *problems]) if lost else ChangedError(problems)
    attempts = attempts_in(layout.events)
    tasks = {task.id: task for task in plan.tasks}
    for result in [each.result for each in planned if each.result.stage == "inference"]:
        if not trusted(result, tasks[result.id], is_proved=request.keeper is not None):
            _set_aside(layout, result)
    results = {
        each.result.id: _as_left(each.result, attempts, is_kept=_is_kept(each.result, tasks, request))
        for each in planned
    }
    told = document.get("resumed")
    resumed = tuple(map(str, told)) if isinstance(told, list) else ()
    carry_out(request, plan, layout, stop, reporter, Before(results, str(document.get("started")), resumed))


def _document(layout: RunLayout) -> dict[str, object]:
    return read_json(layout.run_json)


def _planned(layout: RunLayout, document: Mapping[str, object]) -> tuple[Planned, ...]:
    try:
        return tuple(planned_in(document))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        text = f"run {layout.id}: its record is damaged, or of an earlier envbuilder: {error!r:.200}"
        raise RecordError(text, where=str(layout.run_json), hint="envbuilder runs list") from error


def _is_kept(result: TaskResult, tasks: Mapping[str, Task], request: RunRequest) -> bool:
    """Whether a result counts; reports are written anew in any case."""
    task = tasks.get(result.id)
    return task is None or trusted(result, task, is_proved=request.keeper is not None)


def _set_aside(layout: RunLayout, result: TaskResult) -> None:
    """Take answers out of the way that an environment gave which may not have been as it was sealed."""
    path = layout.answers(result.id)
    with contextlib.suppress(FileNotFoundError):
        move(path, path.with_suffix(".touched"))


def _as_left(
    result: TaskResult, attempts: Mapping[str, Sequence[AttemptRecord]], *, is_kept: bool = True
) -> TaskResult:
    """A result as the run goes on from it: what did not end well, or does not count, is to be done anew.

    Its attempts stay known.
    """
    if not is_kept:
        result = replace(result, status="pending", touched=None, items_per_s=None, failed_items=0, reused=None)
    if result.status == "ok":
        return result
    known = {record.id: record for record in attempts.get(result.id, ())}
    known |= {record.id: record for record in result.attempts}
    return replace(result, status="pending", code=None, error=None, attempts=tuple(known.values()))


def _changes(plan: Plan, planned: Sequence[Planned], layout: RunLayout, run_file: Path) -> list[Problem]:
    """What is other than when the run began; reports are written anew in any case."""
    before = {each.result.id: each for each in planned if each.result.stage != "report"}
    after = {task.id: task for task in plan.tasks if task.stage != "report"}
    hint = f"envbuilder run {shlex.quote(str(run_file))}"
    problems = []
    for name in {**before, **after}:
        if name not in after or name not in before:
            how = "is no longer in" if name in before else "is new in"
            text = f"{name} {how} the run file since {layout.id} began"
        elif told := tell(before[name], after[name]):
            text = f"{name}: changed since {layout.id} began: {', '.join(told)}"
        else:
            continue
        plugin = after[name].environment.plugin if name in after else before[name].result.plugin
        problems.append(Problem("run-changed", text, plugin, str(run_file), hint))
    return problems


def tell(before: Planned, after: Task) -> tuple[str, ...]:
    """What differs between a task of an earlier run and one of today, in words; nothing of what follows from others."""
    parts = differences(before.parts, after.parts)
    return tell_parts([name for name in parts if name != "judged"], before.result, after) or (
        ("the tasks that it judges",) if parts else ()
    )


def tell_parts(parts: Sequence[str], before: TaskResult, after: Task) -> tuple[str, ...]:
    """Parts in words, with their values where the records have them."""
    told: list[str] = []
    for name in parts:
        kind, _, rest = name.partition(".")
        if kind == "params":
            told += [f"params.{text}" for text in changes(_only(before.params, rest), _only(after.params, rest))]
        elif kind == "code":
            told.append(f"code in {rest.rstrip('/')}")
        elif name == "environment":
            told.append(_environment(before, after.environment))
        elif name in {"seed", "repetition", "deterministic", "plugin"}:
            told += changes(_only(before.identity_parts, name), _only(after.parts, name))
        else:
            told.append(name)
    return tuple(told)


def _only(values: Mapping[str, object], name: str) -> dict[str, object]:
    return {name: values[name]} if name in values else {}


def _environment(before: TaskResult, after: Environment) -> str:
    was = {name: version for name, version in before.versions.items() if name in after.versions}
    found = changes(was, {name: version for name, version in after.versions.items() if name in was})
    more = len(found) - 4
    return "environment" + (f" ({', '.join(found[:4])}{f' and {more} more' if more > 0 else ''})" if found else "")


def _busy(layout: RunLayout) -> RecordError:
    text = f"run {layout.id} goes on: another process is at it"
    return RecordError(text, where=str(layout.lock), hint=f"envbuilder runs show {layout.id}", code="run-live")
