"""What was done before: by this run, where it is resumed, and by earlier ones whose results are those of a task of today.

A task that ended well counts as it is, items that failed included. Of one that did not, the answers count; what failed
in it is asked again.
"""

from __future__ import annotations

import contextlib
import json
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, NamedTuple

from pydantic import TypeAdapter, ValidationError

from pipeline.errors import RecordError
from pipeline.identity import answers_digest, differences
from pipeline.layout import RunLayout, find_answers, read_json, run_ids, write_text
from pipeline.models import AnswerLine, AttemptRecord, DataSet, Evaluation, Task, TaskResult
from pipeline.redaction import hidden
from pipeline.scheduler.reporting import History, read_events, seconds_between

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Mapping
    from pathlib import Path

_RESULT = TypeAdapter(TaskResult)
_EVALUATION = TypeAdapter(Evaluation)
_RECORD = TypeAdapter(AttemptRecord)


class Planned(NamedTuple):
    """A task as an earlier run planned it, and how it ended there."""

    run: str
    parts: Mapping[str, str]
    identity: str
    result: TaskResult


@dataclass(frozen=True)
class Found:
    """An earlier result of the same identity.

    Attributes:
        run: the run that measured it.
        result: how its task ended.
        lines: the answers that count, by item; all lines where it is whole.
        is_whole: whether nothing is left to do.
        evaluation: its figures, at the eval stage.
    """

    run: str
    result: TaskResult
    lines: Mapping[str, AnswerLine] = field(default_factory=dict)
    is_whole: bool = False
    evaluation: Evaluation | None = None


@dataclass(frozen=True)
class Begun:
    """What there is of an inference task that is to run: its lines so far, and the kind of device that gave them.

    `source` is the run that they were taken from, where that is another one.
    """

    lines: Mapping[str, AnswerLine] = field(default_factory=dict)
    device: str | None = None
    source: str | None = None


@dataclass(frozen=True)
class Terms:
    """Which earlier results count.

    Attributes:
        fresh: none of other runs.
        force: ids of tasks and names of plugins that are done anew.
        retry_failed: whether items that failed are asked again, though their task ended well.
        proved: whether environments were verified: then a result only counts if its own was, when its stage had ended.
    """

    fresh: bool = False
    force: frozenset[str] = frozenset()
    retry_failed: bool = False
    proved: bool = False

    def bar(self, task: Task) -> str | None:
        """What forbids to reuse results of other runs, in the command line's words; None where nothing does."""
        if self.fresh:
            return "--fresh"
        named = sorted({task.id, task.environment.plugin} & self.force)
        return f"--force {named[0]}" if named else None


class Archive:
    """The records of earlier runs, the newest first.

    Args:
        state_dir: the state folder.
        but: the id of a run that is no earlier one.
    """

    def __init__(self, state_dir: Path, but: str | None = None) -> None:
        self._layouts = [RunLayout(state_dir, name) for name in reversed(run_ids(state_dir)) if name != but]
        self._texts: dict[str, str] = {}
        self._planned: dict[str, tuple[Planned, ...]] = {}

    def layout(self, run: str) -> RunLayout:
        """Where a run stands."""
        return next(each for each in self._layouts if each.id == run)

    def alike(self, identity: str) -> Iterator[Planned]:
        """Tasks that were planned with this identity."""
        for layout in self._layouts:
            # Most records have nothing to do with it; they need not be parsed to see that.
            if identity in self._text(layout):
                yield from (each for each in self._tasks(layout) if each.identity == identity)

    def nearest(self, task: Task) -> Planned | None:
        """The task that shares most parts with one, among those of the same plugin on the same data set."""
        best: Planned | None = None
        fewest = 0
        for layout in self._layouts:
            for each in self._tasks(layout):
                result = each.result
                if (result.stage, result.plugin, result.data) != (task.stage, task.environment.plugin, task.data):
                    continue
                count = len(differences(each.parts, task.parts))
                if result.status not in {"pending", "cancelled"} and (best is None or count < fewest):
                    best, fewest = each, count
        return best

    def _text(self, layout: RunLayout) -> str:
        if layout.id not in self._texts:
            self._texts[layout.id] = ""
            with contextlib.suppress(OSError):
                self._texts[layout.id] = layout.run_json.read_text(encoding="utf-8", errors="replace")
        return self._texts[layout.id]

    def _tasks(self, layout: RunLayout) -> tuple[Planned, ...]:
        if layout.id not in self._planned:
            # A record that is damaged, or of another time, is no source of results.
            with contextlib.suppress(ValueError, KeyError, TypeError, AttributeError):
                document = json.loads(self._text(layout))
                self._planned[layout.id] = tuple(planned_in(document))
        return self._planned.setdefault(layout.id, ())


def planned_in(document: Mapping[str, object]) -> Iterator[Planned]:
    """The tasks of a run's record.

    Raises:
        ValueError, KeyError, TypeError, AttributeError: it is no such record.
    """
    results = {each["id"]: each for each in document["tasks"]}  # type: ignore[attr-defined]
    for each in document["plan"]:  # type: ignore[attr-defined]
        result = _RESULT.validate_python(results[each["id"]])
        yield Planned(str(document["id"]), dict(each["parts"]), str(each["identity"]), result)


def trusted(result: TaskResult, task: Task, *, is_proved: bool) -> bool:
    """Whether what a task came to in an earlier run, or before this one was resumed, can count.

    Where the runner did not live to look, the environment that was verified just now tells: the same seal is the same
    environment, and it was not built anew in between.

    Args:
        result: how it ended.
        task: the same task of today.
        is_proved: whether today's environments were verified; where they were not, nobody looks at the earlier one's.
    """
    if result.touched:
        return False
    seal = task.environment.seal
    return not is_proved or result.proved or bool(seal and seal == result.seal)


class Past:
    """What is known of a run's tasks before they run.

    Args:
        layout: the run.
        data: its data sets, by name.
        kinds: the devices that a task may get here.
        archive: other runs; None where their results do not count.
        terms: which results count.
        own: results so far, where the run is resumed.
    """

    def __init__(
        self,
        layout: RunLayout,
        data: Mapping[str, DataSet],
        kinds: Callable[[Task], Collection[str]],
        *,
        archive: Archive | None = None,
        terms: Terms = Terms(),
        own: Mapping[str, TaskResult] | None = None,
    ) -> None:
        self._layout = layout
        self._data = data
        self._kinds = kinds
        self._archive = archive
        self._terms = terms
        self._own = dict(own or {})
        self._found: dict[str, Found | None] = {}

    def before(self, task: Task) -> TaskResult | None:
        """How a task stood when the run was resumed."""
        return self._own.get(task.id)

    def settled(self, task: Task) -> tuple[TaskResult, Evaluation | None] | None:
        """The result of a task that need not run; its answers are in the run's journal then.

        Raises:
            OSError: answers cannot be written.
        """
        if task.stage == "report":
            return None
        answers = self._judged(task) if task.stage == "eval" else ""
        kept = self._kept(task, answers)
        if kept is not None:
            return kept
        own = find_answers(self._layout.answers(task.id)).lines if task.stage == "inference" else {}
        if not all(line.reused_from for line in own.values()):
            return None
        found = self.find(task, answers)
        if found is None or not found.is_whole:
            return None
        if task.stage == "inference":
            self._copy(task, found)
        evaluation = found.evaluation and replace(
            found.evaluation, inference=task.inference or "", eval=task.id, data=task.data or ""
        )
        facts = {
            "id": task.id,
            "data": task.data,
            "inference": task.inference,
            "params": hidden(task.params),
            "proved": self._terms.proved,
        }
        return replace(found.result, **facts, reused=found.run), evaluation  # type: ignore[arg-type]

    def begun(self, task: Task) -> Begun:
        """What there is of an inference task that is to run; answers of another run are copied into the journal.

        Raises:
            OSError: answers cannot be written.
        """
        items = {item.id: item for item in self._data[task.data or ""].items}
        own = find_answers(self._layout.answers(task.id))
        if not own.is_missing:
            # What no plugin can be offered fails as it did.
            before = self.before(task)
            # A task that had ended well and lost answers since has only those asked again.
            keeps_failed = before is not None and before.status == "ok" and not self._wants_more(before)
            lines = {
                name: line
                for name, line in own.lines.items()
                if name in items and (line.answer is not None or items[name].error or keeps_failed)
            }
            return Begun(lines, before.identity_parts.get("device") if before else None)
        found = self.find(task)
        if found is None or not found.lines:
            return Begun()
        return Begun(self._copy(task, found), found.result.identity_parts.get("device"), found.run)

    def find(self, task: Task, answers: str = "") -> Found | None:
        """The best earlier result of the task's identity in another run: a whole one, else that with most answers.

        Args:
            task: of the inference or eval stage.
            answers: at the eval stage, the digest of the answers to judge.
        """
        if self._archive is None or self._terms.bar(task):
            return None
        if task.id not in self._found:
            self._found[task.id] = self._search(self._archive, task, answers)
        return self._found[task.id]

    def _search(self, archive: Archive, task: Task, answers: str) -> Found | None:
        best: Found | None = None
        kinds = self._kinds(task)
        for each in archive.alike(task.identity):
            if each.result.identity_parts.get("device") not in kinds:
                continue
            if not trusted(each.result, task, is_proved=self._terms.proved):
                continue
            layout = archive.layout(each.run)
            found = (
                self._evaluated(layout, each, answers) if task.stage == "eval" else self._answered(layout, each, task)
            )
            if found and found.is_whole:
                return found
            if found and len(found.lines) > len(best.lines if best else ()):
                best = found
        return best

    def _answered(self, layout: RunLayout, each: Planned, task: Task) -> Found | None:
        items = self._data[task.data or ""].items
        lines = find_answers(layout.answers(each.result.id)).lines
        lines = {item.id: lines[item.id] for item in items if item.id in lines}
        answered = {name: line for name, line in lines.items() if line.answer is not None}
        run = each.result.reused or each.run
        result = each.result
        is_counted = len(answered) == result.items - result.failed_items
        if result.status == "ok" and len(lines) == len(items) and is_counted and not self._wants_more(result):
            return Found(run, result, lines, is_whole=True)
        # Of a run that goes on meanwhile, answers may be half written.
        return Found(run, result, answered) if answered and not layout.is_held() else None

    def _evaluated(self, layout: RunLayout, each: Planned, answers: str) -> Found | None:
        result = each.result
        if result.status != "ok" or result.identity_parts.get("answers") != answers:
            return None
        evaluation = read_evaluation_of(layout, result.id)
        run = result.reused or each.run
        return Found(run, result, is_whole=True, evaluation=evaluation) if evaluation else None

    def _kept(self, task: Task, answers: str) -> tuple[TaskResult, Evaluation | None] | None:
        """What the run itself has ended well with before."""
        result = self._own.get(task.id)
        if result is None or result.status != "ok" or self._wants_more(result):
            return None
        result = replace(result, proved=self._terms.proved)
        if task.stage == "eval":
            evaluation = read_evaluation_of(self._layout, task.id)
            is_same = result.identity_parts.get("answers") == answers
            return (result, evaluation) if evaluation and is_same else None
        found = find_answers(self._layout.answers(task.id))
        is_whole = found.answered >= result.items - result.failed_items and len(found.lines) >= result.items
        return (result, None) if is_whole else None

    def _wants_more(self, result: TaskResult) -> bool:
        return self._terms.retry_failed and result.failed_items > 0

    def _judged(self, task: Task) -> str:
        """The digest of the answers that an eval task works on."""
        lines = find_answers(self._layout.answers(task.inference or "")).lines
        return answers_digest(self._data[task.data or ""].items, lines)

    def _copy(self, task: Task, found: Found) -> dict[str, AnswerLine]:
        """Make a journal of another run's answers, whole or not at all."""
        lines = {
            name: replace(line, task=task.id, reused_from=line.reused_from or found.run)
            for name, line in found.lines.items()
        }
        text = "".join(json.dumps(line.to_json(), ensure_ascii=False) + "\n" for line in lines.values())
        write_text(self._layout.answers(task.id), text)
        return lines


def read_evaluation_of(layout: RunLayout, task: str) -> Evaluation | None:
    """The figures of an eval task, those of single items included; None where they cannot be read."""
    with contextlib.suppress(RecordError, ValidationError):
        document = read_json(layout.metrics(task))
        known = {name: document[name] for name in Evaluation.__dataclass_fields__ if name in document}
        return _EVALUATION.validate_python(known)
    return None


def attempts_in(events: Path) -> dict[str, tuple[AttemptRecord, ...]]:
    """The attempts at each task that a journal of events tells of; one without an end, its runner did not see.

    Seconds are told by the clock of the events.
    """
    told = list(read_events(events))
    ended = {event.get("attempt"): event for event in told if event["event"] == "attempt-ended"}
    found: dict[str, dict[str, AttemptRecord]] = {}
    for bar in History(told).timeline():
        end = ended.get(bar["attempt"], {"error": "the runner was gone before the attempt had ended"})
        facts = {**{name: end.get(name) for name in ("error", "returncode")}, "status": bar["status"]}
        facts["guard"] = str(end.get("guard") or "")
        wall_s = seconds_between(str(bar["start"]), str(bar["end"])) or 0.0
        with contextlib.suppress(ValidationError):
            record = _RECORD.validate_python({"id": bar["attempt"], "code": bar["code"], "wall_s": wall_s, **facts})
            found.setdefault(str(bar["task"]), {})[record.id] = record
    return {task: tuple(records.values()) for task, records in found.items()}
