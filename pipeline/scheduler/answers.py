"""The answers of one inference task while they come."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pipeline.layout import Journal
from pipeline.models import AnswerLine, DataItem, Task
from pipeline.redaction import clean_text, clean_values

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pipeline.protocol import Message
    from pipeline.scheduler.tries import Setting


class Answers:
    """Takes answers, keeps them, counts them."""

    def __init__(self, setting: Setting, task: Task, items: Sequence[DataItem]) -> None:
        self._setting = setting
        self._task = task
        self._items = items
        self._known = {item.id for item in items}
        self.begun = setting.past.begun(task)
        self.lines: dict[str, AnswerLine] = dict(self.begun.lines)
        self._failures = len(self.failed)
        self._journal = Journal(setting.layout.answers(task.id))
        if self.lines:
            setting.reporter.progressed(task.id, len(self.lines), self._failures)

    @property
    def failed(self) -> list[AnswerLine]:
        return [line for line in self.lines.values() if line.answer is None]

    def left(self) -> list[DataItem]:
        """Items of which nothing is known yet."""
        return [item for item in self._items if item.id not in self.lines]

    def keep(self, line: AnswerLine) -> None:
        """Write a line; the first of an item stands."""
        self._journal.append(line.to_json())
        self.lines[line.item] = line
        self._failures += line.answer is None
        self._setting.reporter.progressed(self._task.id, len(self.lines), self._failures)

    def hear(self, message: Message, attempt: str) -> None:
        """Keep an answer that was asked for."""
        if message.kind != "answer":
            return
        item, answer, extra = message.text("item"), message.text("answer"), message.body.get("extra")
        if item is None or item in self.lines or item not in self._known:
            event = {"event": "unexpected-answer", "task": self._task.id, "attempt": attempt, "item": item}
            self._setting.events.append(event)
            return
        told = message.text("error") or "no-answer: neither an answer nor an error"
        error = None if answer is not None else clean_text(told)
        kept = {str(key): clean_values(value) for key, value in extra.items()} if isinstance(extra, dict) else {}
        self.keep(AnswerLine(item, self._task.id, attempt, answer, error, message.number("latency_s"), kept))

    def close(self) -> None:
        self._journal.close()
