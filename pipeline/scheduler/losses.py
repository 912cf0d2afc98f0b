"""Which items cost a worker, and when it has been enough.

A worker that hangs at an item, or dies on it, is ended, and the next one goes on without that item. Where several
were in work nobody can tell which it was: the next worker gets them one by one. None of this is known of a plugin
that is a program: it gets all items at once, and its end is its own.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from pipeline.models import AnswerLine, TaskResult
from pipeline.protocol import item_document
from pipeline.scheduler.tries import Patience, Step, Tries

if TYPE_CHECKING:
    from pipeline.placement import AttemptResult
    from pipeline.scheduler.answers import Answers

# Each loss costs a start and a loading of the model; a plugin that fails at everything shall come to its end.
_MOST_LOST = 10
# So many batches may be taken apart before all that is left is offered one by one.
_MOST_PARTED = 3


class Losses:
    """Decides after each attempt at a task's items how to go on."""

    def __init__(self, answers: Answers, tries: Tries, retries: int) -> None:
        self._answers = answers
        self._tries = tries
        self._patience = Patience(retries)
        self._alone: set[str] = set()
        self._parted = 0
        self._offered_before = len(answers.lines)
        self._lost = 0
        self._row = 0
        self._through = 0
        self._excused = False
        self._given_up: str | None = None

    def contents(self) -> dict[str, object] | None:
        """What the next worker gets: all items that are left, and which of them it is to be offered alone."""
        left = self._answers.left()
        alone = [item.id for item in left if item.id in self._alone or self._parted >= _MOST_PARTED]
        return {"items": [item_document(item) for item in left], "alone": alone} if left else None

    def judge(self, last: AttemptResult) -> Step:
        """What comes after an attempt that did not go well."""
        self._excused = False
        if last.code == "gpu-memory-foreign":  # Nobody's items are to blame; others may leave.
            return "again" if self._patience.lasts(last.code) else "stop"
        is_slow = last.code == "item-timeout"
        suspects = self._suspects(last)
        if not (last.worth_retrying or (is_slow and suspects)):
            return "stop"
        if len(suspects) > 1:
            return self._part(suspects, last)
        if not is_slow and self._patience.lasts(suspects[0] if suspects else ""):
            return "again"
        return self._lose(suspects[0], last) if suspects else "stop"

    def mended(self, result: TaskResult) -> TaskResult:
        """The task's result; where the last worker's end was an item's doing, it is not the task's."""
        if self._given_up:
            return replace(result, error=self._given_up)
        if self._excused and not self._answers.left():
            return replace(result, status="ok", code=None, error=None)
        return result

    def _suspects(self, last: AttemptResult) -> list[str]:
        """Items that the worker had begun with and not answered."""
        started = last.messages.get("started")
        listed = started.body.get("items") if started else None
        if self._tries.task.environment.command or not isinstance(listed, list):
            return []
        left = {item.id for item in self._answers.left()}
        return [item for item in map(str, listed) if item in left]

    def _part(self, suspects: list[str], last: AttemptResult) -> Step:
        self._alone.update(suspects)
        self._parted += 1
        which = "all that is left" if self._parted == _MOST_PARTED else f"its {len(suspects)} items"
        self._tries.degrade(f"{last.error}; offers {which} one by one")
        return "on"

    def _lose(self, item: str, last: AttemptResult) -> Step:
        is_slow = last.code == "item-timeout"
        limit_s = self._tries.task.item_timeout_s or 0.0
        reason = f"item-timeout: not answered within {limit_s:g} s" if is_slow else f"worker-crashed: {last.error}"
        through = len(self._answers.lines) - self._lost
        self._row = self._row + 1 if through == self._through else 1
        self._through = through
        self._lost += 1
        self._answers.keep(AnswerLine(item, self._tries.task.id, self._tries.records[-1].id, error=reason))
        self._excused = True
        tried = len(self._answers.lines) - self._offered_before
        if self._answers.left() and self._lost >= _MOST_LOST and (self._row >= _MOST_LOST or self._lost * 2 > tried):
            self._given_up = f"gave up: {self._lost} of {tried} items tried cost a worker each; last: {reason}"
            return "stop"
        return "on"
