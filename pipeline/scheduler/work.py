"""Does one task: prepares its attempts, listens to them, and says what came of them."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from pipeline.attempt import AttemptRequest, AttemptResult, run_attempt
from pipeline.layout import Journal, RunLayout, read_answers
from pipeline.models import (
    AnswerLine,
    AttemptRecord,
    DataItem,
    Evaluation,
    Plan,
    Reporter,
    Silence,
    Status,
    Task,
    TaskResult,
)
from pipeline.plan import data_of
from pipeline.protocol import Message, item_document, job_document, record_documents

if TYPE_CHECKING:
    import threading

    from pipeline.slots import Slot

_LONGEST_BACKOFF_S = 30.0


@dataclass(frozen=True)
class Setting:
    """What all tasks of a run share.

    Attributes:
        plan: the plan.
        layout: the run's paths.
        events: its journal of events.
        interrupted: set when everything is to end.
        reporter: who watches.
        grace_s: seconds between asking a worker to end and killing it.
        backoff_s: seconds before a second try; doubled before each further one.
        variables: environment variables for every worker.
    """

    plan: Plan
    layout: RunLayout
    events: Journal
    interrupted: threading.Event
    reporter: Reporter = field(default_factory=Silence)
    grace_s: float = 10.0
    backoff_s: float = 1.0
    variables: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Finished:
    """A task that has ended; `slot_lost` where something of it still holds its slot."""

    result: TaskResult
    evaluation: Evaluation | None = None
    slot_lost: bool = False


def unstarted(task: Task, status: Status, code: str, error: str) -> TaskResult:
    """The result of a task that never began."""
    return TaskResult(
        task.id,
        task.stage,
        task.environment.plugin,
        status,
        data=task.data,
        inference=task.inference,
        params=task.params,
        code=code,
        error=error,
        environment=task.environment.key,
        versions=task.environment.versions,
        identity=task.identity,
    )


class Tries:
    """The attempts at one task."""

    def __init__(self, setting: Setting, task: Task, slot: Slot) -> None:
        self._setting = setting
        self.task = task
        self._slot = slot
        self.records: list[AttemptRecord] = []
        self.last: AttemptResult | None = None
        self.log: str | None = None
        self.notes: list[str] = []

    def run(self, contents: Callable[[], Mapping[str, object] | None], listen: Callable[[Message, str], None]) -> None:
        """Try until it went well, trying again is no use, or there were enough tries.

        Args:
            contents: what the stage works on, asked for before each try; None where nothing is left to do.
            listen: gets each message, and the attempt's id.
        """
        setting = self._setting
        for number in range(1, setting.plan.retries + 2):
            work = contents()
            if work is None:
                break
            last = self._attempt(setting.layout.attempt_id(self.task.id, number), work, listen)
            if last.status == "ok" or last.survivors or not last.worth_retrying:
                break
            if number <= setting.plan.retries:
                setting.reporter.noted(self.task, f"{last.error}; tries again")
                if setting.interrupted.wait(min(setting.backoff_s * 2 ** (number - 1), _LONGEST_BACKOFF_S)):
                    break

    def _attempt(
        self, attempt: str, work: Mapping[str, object], listen: Callable[[Message, str], None]
    ) -> AttemptResult:
        setting, task, layout = self._setting, self.task, self._setting.layout
        folder = layout.attempt_dir(attempt)
        job = job_document(task, attempt, folder=folder, device=self._slot.device, gpu_name=self._slot.name)
        request = AttemptRequest(
            attempt,
            task.environment,
            {**job, **work},
            folder,
            layout.stdout(attempt),
            layout.stderr(attempt),
            {**setting.variables, **self._slot.variables()},
            task.timeout_s,
            task.item_timeout_s,
            setting.grace_s,
        )
        self.log = str(request.stderr)
        setting.events.append({"event": "attempt-started", "task": task.id, "attempt": attempt})

        def hear(message: Message) -> None:
            if message.kind == "log":
                self.note(message.text("text") or "")
            listen(message, attempt)

        last = run_attempt(request, interrupted=setting.interrupted, listen=hear)
        self._keep(attempt, last)
        return last

    def _keep(self, attempt: str, last: AttemptResult) -> None:
        self.last = last
        record = AttemptRecord(
            attempt, last.status, last.code, last.error, last.wall_s, last.returncode, dict(last.anomalies)
        )
        self.records.append(record)
        ended = {"status": last.status, "code": last.code, "error": last.error, "returncode": last.returncode}
        event = {"event": "attempt-ended", "task": self.task.id, "attempt": attempt, **ended}
        self._setting.events.append({**event, "anomalies": dict(last.anomalies), "survivors": list(last.survivors)})
        if last.anomalies:
            told = ", ".join(f"{count} {name}" for name, count in last.anomalies.items())
            self.note(f"odd lines on the protocol's descriptor: {told}")
        if last.survivors:
            self.note(f"still alive after SIGKILL: {', '.join(map(str, last.survivors))}; its slot stays taken")

    def note(self, text: str) -> None:
        """Keep a remark, and pass it on to whoever watches."""
        self.notes.append(text)
        self._setting.reporter.noted(self.task, text)

    def result(self) -> TaskResult:
        """What came of it, but for the items."""
        last = self.last
        plain = unstarted(self.task, "ok", "", "")
        if last is None:
            return replace(plain, code=None, error=None)
        loaded, end = last.messages.get("loaded"), last.messages.get("done") or last.messages.get("failed")
        versions = loaded.body.get("versions") if loaded else None
        return replace(
            plain,
            status=last.status,
            code=last.code,
            error=last.error,
            log=self.log,
            device=(loaded.text("device") if loaded else None) or self._slot.device,
            device_name=(loaded.text("device_name") if loaded else None) or self._slot.name,
            load_s=loaded.number("load_s") if loaded else None,
            wall_s=sum(record.wall_s for record in self.records),
            peak_ram_bytes=_whole(end, "peak_ram_bytes"),
            peak_gpu_bytes=_whole(end, "peak_gpu_bytes"),
            cpu_s=end.number("cpu_s") if end else None,
            versions={**self.task.environment.versions, **(versions if isinstance(versions, dict) else {})},
            notes=tuple(self.notes),
            attempts=tuple(self.records),
        )

    def finished(self, result: TaskResult, evaluation: Evaluation | None = None) -> Finished:
        """The task with its result."""
        return Finished(result, evaluation, slot_lost=bool(self.last and self.last.survivors))


def _whole(message: Message | None, name: str) -> int | None:
    number = message.number(name) if message else None
    return None if number is None else int(number)


class _Answers:
    """Takes answers, keeps them, counts them."""

    def __init__(self, setting: Setting, task: Task, items: Sequence[DataItem]) -> None:
        self._setting = setting
        self._task = task
        self._items = items
        self._known = {item.id for item in items}
        self._journal = Journal(setting.layout.answers(task.id))
        self.lines: dict[str, AnswerLine] = {}

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
        self._setting.reporter.progressed(self._task, len(self.lines), len(self.failed))

    def hear(self, message: Message, attempt: str) -> None:
        """Keep an answer that was asked for."""
        if message.kind != "answer":
            return
        item, answer, extra = message.text("item"), message.text("answer"), message.body.get("extra")
        if item is None or item in self.lines or item not in self._known:
            event = {"event": "unexpected-answer", "task": self._task.id, "attempt": attempt, "item": item}
            self._setting.events.append(event)
            return
        error = None if answer is not None else message.text("error") or "no-answer: neither an answer nor an error"
        kept = {str(key): value for key, value in extra.items()} if isinstance(extra, dict) else {}
        self.keep(AnswerLine(item, self._task.id, attempt, answer, error, message.number("latency_s"), kept))

    def close(self) -> None:
        self._journal.close()


def do_inference(setting: Setting, task: Task, slot: Slot) -> Finished:
    """Have every item of the task's data set answered."""
    items = data_of(setting.plan, task).items
    answers = _Answers(setting, task, items)
    setting.reporter.started(task, len(items), slot.name or slot.device)
    tries = Tries(setting, task, slot)

    def contents() -> dict[str, object] | None:
        left = answers.left()
        return {"items": [item_document(item) for item in left]} if left else None

    try:
        for item in items:
            if item.error:
                answers.keep(AnswerLine(item.id, task.id, "", error=item.error))
        tries.run(contents, answers.hear)
        if tries.last is not None and tries.last.status == "ok":
            for item in answers.left():
                text = "no-answer: the worker ended well without answering"
                answers.keep(AnswerLine(item.id, task.id, tries.records[-1].id, error=text))
    finally:
        answers.close()
    return tries.finished(_with_items(tries.result(), items, answers))


def _with_items(result: TaskResult, items: Sequence[DataItem], answers: _Answers) -> TaskResult:
    failed = [line.error or "" for line in answers.failed]
    left = len(answers.left())
    timed = [line.latency_s for line in answers.lines.values() if line.latency_s is not None]
    through = len(answers.lines) - sum(item.error is not None for item in items)
    busy_s = sum(timed) if len(timed) == through else result.wall_s or 0.0
    result = replace(
        result,
        items=len(items),
        failed_items=len(failed) + left,
        items_per_s=through / busy_s if through and busy_s else None,
    )
    if len(failed) == len(items):
        kind = next((status for status in ("oom-gpu", "oom-host") if all(e.startswith(status) for e in failed)), None)
        status: Status = "oom-gpu" if kind == "oom-gpu" else "oom-host" if kind == "oom-host" else "failed"
        return replace(result, status=status, code="all-items-failed", error=f"every item failed; first: {failed[0]}")
    if result.status == "ok" and failed:
        return replace(result, error=failed[0])
    return result


def do_eval(setting: Setting, task: Task, slot: Slot) -> Finished:
    """Have an inference task's answers judged."""
    items = data_of(setting.plan, task).items
    answers = read_answers(setting.layout.answers(task.inference or ""))
    setting.reporter.started(task, len(items), slot.name or slot.device)
    tries = Tries(setting, task, slot)
    tries.run(lambda: {"records": record_documents(items, answers)}, lambda _message, _attempt: None)
    result = replace(tries.result(), items=len(items))
    message = tries.last.messages.get("evaluation") if tries.last else None
    if result.status != "ok":
        return tries.finished(result)
    try:
        return tries.finished(result, read_evaluation(task, message.body if message else {}))
    except ValueError as error:
        return tries.finished(replace(result, status="failed", code="plugin-invalid", error=str(error)))


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
    return {str(name): float(each) for name, each in value.items() if each is not None}


def do_report(setting: Setting, task: Task, slot: Slot, document: Mapping[str, object]) -> Finished:
    """Have a report written."""
    reports = setting.plan.stage("report")
    output = setting.layout.report(task.id, only=task.id == reports[0].id)
    setting.reporter.started(task, 0, slot.name or slot.device)
    tries = Tries(setting, task, slot)
    tries.run(lambda: {"report": document, "output": str(output)}, lambda _message, _attempt: None)
    return tries.finished(tries.result())
