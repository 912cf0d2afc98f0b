"""Looks at the runs there are, from what they left on disk."""

from __future__ import annotations

import shlex
from dataclasses import replace
from typing import TYPE_CHECKING

from pydantic import TypeAdapter, ValidationError

from envbuilder.errors import Problem, counted
from pipeline.errors import EnvironmentsError, RecordError
from pipeline.layout import (
    AnswersFound,
    RunLayout,
    csv_text,
    find_answers,
    find_run,
    parse_run_id,
    read_environments,
    read_json,
    run_ids,
)
from pipeline.models import LATER, Evaluation, RunOutcome, TaskResult
from pipeline.render import outcome_tables
from pipeline.scheduler.past import read_evaluation_of
from pipeline.scheduler.record import metric_rows

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
    """Return the keys of the environments that runs under way use.

    Raises:
        RecordError: a run under way does not tell them, and so may use any.
    """
    keys: set[str] = set()
    for run_id in run_ids(state_dir):
        layout = RunLayout(state_dir, run_id)
        if layout.is_held():
            try:
                keys.update(each.key for each in read_environments(layout.environments))
            except EnvironmentsError as error:
                text = f"run {run_id} is under way, and which environments it uses {error.message}"
                hint = f"envbuilder runs show {run_id} --follow  # nothing is removed until it has ended"
                raise RecordError(text, where=error.where, hint=hint) from error
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
    lost = lost_parts(layout, outcome)
    is_ok = outcome.ok and all(problem.severity != "error" for problem in lost)
    return replace(outcome, ok=is_ok, problems=(*outcome.problems, *lost))


def lost_parts(layout: RunLayout, outcome: RunOutcome) -> list[Problem]:
    """What the record of a run says to be there, and is not: answers, figures, reports."""
    problems: list[Problem] = []
    reports = [result.id for result in outcome.tasks if result.stage == "report"]
    for result in outcome.tasks:
        if result.stage == "inference":
            problems += answers_problems(result, find_answers(layout.answers(result.id)))
        elif result.status != "ok":
            continue
        elif result.stage == "report":
            path = layout.report(result.id, only=result.id == reports[0])
            if not path.is_file() or not path.stat().st_size:
                problems.append(_lost("report-missing", result, "its report is", path, layout.id))
        elif read_evaluation_of(layout, result.id) is None:
            problems.append(_lost("metrics-missing", result, "its figures are", layout.metrics(result.id), layout.id))
        elif not _has_rows(layout, outcome, result):
            problems.append(_lost("metrics-missing", result, "its rows are", layout.metrics_csv, layout.id))
    return problems


def _lost(code: str, result: TaskResult, what: str, path: Path, run: str) -> Problem:
    text = f"{result.id}: {what} no longer whole in {path.name}"
    return Problem(code, text, result.plugin, str(path), f"envbuilder resume {run}")


def _has_rows(layout: RunLayout, outcome: RunOutcome, result: TaskResult) -> bool:
    """Whether the table of figures has a task's rows; their number is enough for what was cut off or removed."""
    figures = [each for each in outcome.evaluations if each.eval == result.id]
    wanted = csv_text((), metric_rows(layout.id, figures, outcome.tasks)).splitlines()[1:]
    try:
        found = set(layout.metrics_csv.read_text(encoding="utf-8", errors="replace").splitlines())
    except OSError:
        return False
    return found.issuperset(wanted)


def answers_problems(result: TaskResult, found: AnswersFound) -> list[Problem]:
    """What is wrong with an inference task's answers on disk."""
    if result.status in {"pending", "running"}:
        return []
    problems = []
    expected = result.items - result.failed_items - result.left_items
    is_short = result.status == "ok" and len(found.lines) < result.items
    if (found.answered < expected or is_short) and result.code != "runner-gone":
        text = f"{result.id}: {expected} items were answered, {found.answered} of them are in the answers file"
        if found.answered >= expected:
            count = result.items - len(found.lines)
            text = f"{result.id}: {counted(count, 'item')} that failed {'is' if count == 1 else 'are'} not in the answers file"
        what = f"{text}, which is missing" if found.is_missing else text
        hint = f"envbuilder resume {found.path.parents[1].name}"
        problems.append(Problem("answers-missing", what, result.plugin, str(found.path), hint))
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
