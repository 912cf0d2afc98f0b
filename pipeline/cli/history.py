"""Looks at the runs there are, from what they left on disk."""

from __future__ import annotations

import contextlib
import shlex
from dataclasses import replace
from typing import TYPE_CHECKING

from pydantic import TypeAdapter, ValidationError

from envbuilder.errors import Problem
from pipeline.errors import EnvironmentsError, RecordError
from pipeline.layout import (
    AnswersFound,
    RunLayout,
    find_answers,
    find_run,
    parse_run_id,
    read_environments,
    read_json,
    run_ids,
)
from pipeline.models import LATER, Evaluation, RunOutcome, TaskResult
from pipeline.render import outcome_tables

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

_RESULTS = TypeAdapter(tuple[TaskResult, ...], config=LATER)
_EVALUATIONS = TypeAdapter(tuple[Evaluation, ...], config=LATER)
_PROBLEMS = TypeAdapter(tuple[Problem, ...], config=LATER)
_LIST = "envbuilder runs list"


def list_runs(state_dir: Path) -> tuple[RunOutcome, ...]:
    """Every run, the oldest first; one whose record cannot be read has the status ``damaged`` and says why."""
    return tuple(_listed(RunLayout(state_dir, run_id)) for run_id in run_ids(state_dir))


def _listed(layout: RunLayout) -> RunOutcome:
    try:
        return load_outcome(layout)
    except RecordError as error:
        name, started = parse_run_id(layout.id)
        # A runner that has just begun has not written its record yet.
        status = "running" if layout.is_held() else "damaged"
        problems = error.problems if status == "damaged" else ()
        paths = {"run": str(layout.root)}
        return RunOutcome(False, layout.id, status, problems, (), (), (), paths, name=name, started=started)


def live_environments(state_dir: Path) -> set[str]:
    """The keys of the environments that runs under way use."""
    keys: set[str] = set()
    for run_id in run_ids(state_dir):
        layout = RunLayout(state_dir, run_id)
        if layout.is_held():
            with contextlib.suppress(RecordError, EnvironmentsError):
                keys.update(each.key for each in read_environments(layout.environments))
    return keys


def show_run(state_dir: Path, run: str | None = None) -> RunOutcome:
    """One run, from its record and its answers.

    Args:
        state_dir: the workspace's state folder.
        run: its id, the beginning or end of it, or ``latest``, which is also meant by None.

    Raises:
        UnknownRunError: there is none of that name.
        RecordError: its record is damaged or missing.
    """
    layout = find_run(state_dir, run)
    outcome = load_outcome(layout)
    inference = [result for result in outcome.tasks if result.stage == "inference"]
    found = [each for result in inference for each in answers_problems(result, find_answers(layout.answers(result.id)))]
    return replace(outcome, problems=(*outcome.problems, *found))


def answers_problems(result: TaskResult, found: AnswersFound) -> list[Problem]:
    """What is wrong with an inference task's answers on disk."""
    if result.status in {"pending", "running"}:
        return []
    problems = []
    expected = result.items - result.failed_items - result.left_items
    if found.answered < expected and result.code != "runner-gone":
        text = f"{result.id}: {expected} items were answered, {found.answered} of them are in the answers file"
        what = f"{text}, which is missing" if found.is_missing else text
        problems.append(
            Problem("answers-missing", what, result.plugin, str(found.path), f"ls -l {shlex.quote(str(found.path))}")
        )
    if found.damaged:
        text = f"{result.id}: {found.damaged} damaged lines in the answers file were passed over"
        hint = f"tail -n 1 {shlex.quote(str(found.path))}"
        problems.append(Problem("answers-damaged", text, result.plugin, str(found.path), hint, severity="warning"))
    return problems


def load_outcome(layout: RunLayout) -> RunOutcome:
    """A run's outcome from its record; one that says it runs, though its runner is gone, was ``killed``.

    Raises:
        RecordError: the record is damaged or missing.
    """
    document = _document(layout)
    where = str(layout.run_json)
    try:
        results = _RESULTS.validate_python(document.get("tasks"))
        evaluations = _EVALUATIONS.validate_python(document.get("evaluations"))
        problems = _PROBLEMS.validate_python(document.get("problems"))
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        place = ".".join(str(step) for step in first["loc"])
        text = f"run {layout.id}: its record is damaged: {place}: {first['msg']}"
        raise RecordError(text, where=where, hint=_LIST) from error
    status = str(document.get("status"))
    is_live = status == "running" and layout.is_held()
    results = tuple(_as_left(result, layout, is_live=is_live) for result in results)
    if status == "running" and not is_live:
        status = "killed"
        layout.sweep()
        problems = (*problems, _killed(layout, results))
    return RunOutcome(
        ok=status == "ok",
        id=layout.id,
        status=status,
        problems=problems,
        tasks=results,
        evaluations=evaluations,
        tables=outcome_tables(results, evaluations),
        paths=_paths(layout, results),
        name=str(document.get("name")),
        started=str(document.get("started")),
        finished=None if document.get("finished") is None else str(document.get("finished")),
        profile=str(document.get("profile") or ""),
    )


def _document(layout: RunLayout) -> dict[str, object]:
    try:
        document = read_json(layout.run_json)
    except RecordError as error:
        text = f"run {layout.id}: its record {error.message}"
        raise RecordError(text, where=error.where, hint=_LIST) from error
    if not isinstance(document.get("status"), str):
        text = f"run {layout.id}: its record is damaged: it has no status"
        raise RecordError(text, where=str(layout.run_json), hint=_LIST)
    return document


def _as_left(result: TaskResult, layout: RunLayout, *, is_live: bool) -> TaskResult:
    """A task as it stands; what its runner did not see the end of has failed items only where a line says so."""
    if result.status not in {"pending", "running"}:
        return result
    found = find_answers(layout.answers(result.id)) if result.stage == "inference" else None
    if found:
        result = replace(result, failed_items=len(found.lines) - found.answered)
    if is_live:
        return result
    if found and found.lines:
        result = replace(result, left_items=result.items - len(found.lines))
    if result.status == "pending":
        return replace(result, code="runner-gone", error="not started: the runner was gone")
    through = f", {found.answered} of {result.items} items answered" if found else ""
    error = f"the runner was gone before the task had ended{through}"
    return replace(result, status="killed", code="runner-gone", error=error)


def _killed(layout: RunLayout, results: Sequence[TaskResult]) -> Problem:
    ended = sum(result.code != "runner-gone" for result in results)
    text = (
        f"run {layout.id}: the runner was killed, or its machine went down; {ended} of {len(results)} tasks had ended"
        + "".join(f"; {result.id}: {result.error}" for result in results if result.status == "killed")
    )
    hint = f"envbuilder resume {layout.id}"
    return Problem("runner-gone", text, where=str(layout.root), hint=hint)


def _paths(layout: RunLayout, results: Sequence[TaskResult]) -> dict[str, str]:
    paths = {"run": layout.root, "answers": layout.answers_dir, "logs": layout.logs_dir, "metrics": layout.metrics_csv}
    if any(result.stage == "report" and result.status == "ok" for result in results):
        # Several report tasks write several files; the first of them has the plain name.
        found = sorted(layout.root.glob("report*.html"), key=lambda path: (path.name != "report.html", path.name))
        paths["report"] = found[0] if found else layout.root / "report.html"
    return {name: str(path) for name, path in paths.items() if path.exists()}
