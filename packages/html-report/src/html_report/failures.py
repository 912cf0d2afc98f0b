"""What did not work, with the words it failed with."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from vlm_core import ReportDocument, TaskDocument

from html_report.facts import Facts, read_facts
from html_report.results import Result

LONGEST = 4000
"""Characters of an error that are shown, from its end: a traceback says last what went wrong."""

NAMED = 6
"""Items that are named for one error, and kinds of failures in the headline."""


@dataclass(frozen=True)
class FailedTask:
    """A task that did not end well, with what is left to look at."""

    task: TaskDocument
    error: str
    facts: Facts


@dataclass(frozen=True)
class Trouble:
    """A task that ended well, but not at the first attempt, or with less than was asked for."""

    task: TaskDocument
    facts: Facts


@dataclass(frozen=True)
class FailedItems:
    """Items of one model that failed with the same words.

    Attributes:
        model, data: whose they are.
        error: the words.
        count: how many items.
        items: the first of them.
    """

    model: str
    data: str
    error: str
    count: int
    items: tuple[str, ...]


def failed_tasks(report: ReportDocument) -> list[FailedTask]:
    """List the tasks of every stage that are not ok."""
    return [
        FailedTask(task, _shorten(task["error"] or "no message"), read_facts(task))
        for task in report["tasks"]
        if task["status"] != "ok"
    ]


def name_failures(failed: Sequence[FailedTask]) -> str:
    """Name plugins with how their tasks ended, those that ended the same together, a few of them."""
    counted = Counter(f"{each.task['plugin']} ({each.task['status']})" for each in failed)
    named = [f"{name} {count}×" if count > 1 else name for name, count in counted.most_common(NAMED)]
    more = [f"and {len(counted) - NAMED} more"] if len(counted) > NAMED else []
    return ", ".join([*named, *more])


def troubles(report: ReportDocument) -> list[Trouble]:
    """List the tasks that ended well after something had gone wrong."""
    found = (Trouble(task, read_facts(task)) for task in report["tasks"] if task["status"] == "ok")
    return [each for each in found if each.facts.degraded or len(each.facts.attempts) > 1]


def failed_items(results: Sequence[Result]) -> list[FailedItems]:
    """List items without an answer, those with the same error together, the most frequent first."""
    groups: dict[tuple[str, str, str], list[str]] = {}
    for result in (run for each in results for run in each.runs or (each,)):
        for record in result.records:
            if record["error"] is not None or record["answer"] is None:
                error = _shorten(record["error"] or "no answer and no error")
                groups.setdefault((result.model, result.data, error), []).append(record["item"])
    found = [
        FailedItems(model, data, error, len(items), tuple(items[:NAMED]))
        for (model, data, error), items in groups.items()
    ]
    return sorted(found, key=lambda group: -group.count)


def _shorten(error: str) -> str:
    return error if len(error) <= LONGEST else "…" + error[-LONGEST:]
