"""The attempts at one task: prepares each, listens to it, and keeps how it ended."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Literal

from pipeline.layout import Journal, RunLayout, now
from pipeline.models import AttemptRecord, Evaluation, Plan, Reporter, Sample, Silence, Status, Task, TaskResult
from pipeline.placement import AttemptRequest, AttemptResult, Placement, Slot, Stop
from pipeline.protocol import Message, job_document

_LONGEST_BACKOFF_S = 30.0
# Without it cuBLAS may add up in another order each time; it counts only if it is there before CUDA starts.
_DETERMINISTIC = {"CUBLAS_WORKSPACE_CONFIG": ":4096:8"}
_DENSE_SAMPLES = 600
_SPARSE_EVERY = 15


@dataclass(frozen=True)
class Setting:
    """What all tasks of a run share.

    Attributes:
        plan: the plan.
        layout: the run's paths.
        placement: where attempts run.
        events: its journal of events.
        interrupted: set when everything is to end.
        reporter: who watches.
        grace_s: seconds between asking a worker to end and killing it.
        backoff_s: seconds before a second try; doubled before each further one.
        variables: environment variables for every worker.
    """

    plan: Plan
    layout: RunLayout
    placement: Placement
    events: Journal
    interrupted: Stop
    reporter: Reporter = field(default_factory=Silence)
    grace_s: float = 10.0
    backoff_s: float = 1.0
    variables: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Finished:
    """A task that has ended.

    Attributes:
        result: how.
        evaluation: its figures, at the eval stage.
        slot_lost: whether something of it still holds its slot.
        warm_key: of the tasks that a worker that is kept in its slot can do; None where there is none.
    """

    result: TaskResult
    evaluation: Evaluation | None = None
    slot_lost: bool = False
    warm_key: str | None = None


def unstarted(task: Task, status: Status, code: str | None = None, error: str | None = None) -> TaskResult:
    """The result of a task that has not begun."""
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


# What comes after an attempt that did not go well: the same again, going on with what is left, or nothing.
Step = Literal["again", "on", "stop"]


class Patience:
    """Counts how often something was tried, up to as many retries as the plan allows."""

    def __init__(self, retries: int) -> None:
        self._retries = retries
        self._spent: Counter[str] = Counter()

    def lasts(self, about: str = "") -> bool:
        """Whether there is a retry left for one thing; uses it up."""
        self._spent[about] += 1
        return self._spent[about] <= self._retries

    def judge(self, last: AttemptResult) -> Step:
        """Try again what may go otherwise."""
        return "again" if last.worth_retrying and self.lasts() else "stop"


class _Ear:
    """Passes on what is heard and seen of one attempt."""

    def __init__(self, tries: Tries, attempt: str, listen: Callable[[Message, str], None]) -> None:
        self._tries = tries
        self._attempt = attempt
        self._listen = listen

    def heard(self, message: Message) -> None:
        """Pass a message on."""
        self._tries.hear(message)
        self._listen(message, self._attempt)

    def measured(self, sample: Sample) -> None:
        """Pass a sample on."""
        self._tries.measure(self._attempt, sample)


class Tries:
    """The attempts at one task."""

    def __init__(self, setting: Setting, task: Task, slot: Slot) -> None:
        self._setting = setting
        self.task = task
        self._slot = slot
        self._spent_s = 0.0
        self.records: list[AttemptRecord] = []
        self.last: AttemptResult | None = None
        self.log: str | None = None
        self.notes: list[str] = []
        self._degraded: list[str] = []
        self._metrics: dict[str, float] = {}
        self._samples = 0
        self._peak_ram: int | None = None
        self._peak_gpu: int | None = None
        self._started = now()

    def run(
        self,
        contents: Callable[[], Mapping[str, object] | None],
        listen: Callable[[Message, str], None],
        judge: Callable[[AttemptResult], Step] | None = None,
    ) -> None:
        """Try until it went well, or trying is no use any more.

        Args:
            contents: what the stage works on, asked for before each try; None where nothing is left to do.
            listen: gets each message, and the attempt's id.
            judge: says what comes after a try that did not go well; as many retries as the plan has where not given.
        """
        setting = self._setting
        judge = judge or Patience(setting.plan.retries).judge
        again = 0
        while (work := contents()) is not None:
            last = self._attempt(setting.layout.attempt_id(self.task.id, len(self.records) + 1), work, listen)
            step = "stop" if last.status == "ok" or last.survivors else judge(last)
            if step == "stop":
                break
            # Going on is one attempt in several workers, and has the time of one; a retry has its own.
            self._spent_s = self._spent_s + last.wall_s if step == "on" else 0.0
            again = again + 1 if step == "again" else 0
            if again:
                setting.reporter.noted(self.task, f"{last.error}; tries again")
                if setting.interrupted.wait(_pause_s(setting.backoff_s, again)):
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
            {**setting.variables, **(_DETERMINISTIC if task.deterministic else {}), **self._slot.variables()},
            task.timeout_s,
            task.item_timeout_s,
            task.silence_s,
            setting.grace_s,
            self._spent_s,
        )
        started = {"event": "attempt-started", "task": task.id, "attempt": attempt, "slot": self._slot.label}
        setting.events.append(started)

        keep = setting.plan.shares_worker(task)
        last = setting.placement.attempt(
            self._slot, request, interrupted=setting.interrupted, watcher=_Ear(self, attempt, listen), keep=keep
        )
        self.log = str(last.stderr or request.stderr)
        self._keep(attempt, last)
        return last

    def measure(self, attempt: str, sample: Sample) -> None:
        """Keep what its processes use."""
        self._samples += 1
        self._peak_ram = max(self._peak_ram or 0, sample.ram_bytes)
        if sample.gpu_bytes is not None:
            self._peak_gpu = max(self._peak_gpu or 0, sample.gpu_bytes)
        self._setting.reporter.measured(self.task, sample)
        # Every second of a night would be more than anybody plots: the longer it takes, the fewer are kept.
        if self._samples < _DENSE_SAMPLES or self._samples % _SPARSE_EVERY == 0:
            event = {"event": "sample", "task": self.task.id, "attempt": attempt, "slot": self._slot.label}
            self._setting.events.append({**event, **asdict(sample)})

    def hear(self, message: Message) -> None:
        """Keep what a worker says beside its answers."""
        text, name, value = message.text("text") or "", message.text("name"), message.number("value")
        if message.kind == "log":
            self.note(text)
        elif message.kind == "degraded":
            self.degrade(text)
        elif message.kind == "metric" and name is not None and value is not None:
            self._metrics[name] = value

    def _keep(self, attempt: str, last: AttemptResult) -> None:
        self.last = last
        record = AttemptRecord(
            attempt,
            last.status,
            last.code,
            last.error,
            last.wall_s,
            last.returncode,
            dict(last.anomalies),
            dict(last.oom_kills),
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

    def degrade(self, text: str) -> None:
        """Keep what was done less well than asked for, and pass it on to whoever watches."""
        self._degraded.append(text)
        self._setting.events.append({"event": "degraded", "task": self.task.id, "text": text})
        self._setting.reporter.noted(self.task, text)

    def result(self) -> TaskResult:
        """What came of it, but for the items."""
        last = self.last
        plain = unstarted(self.task, "ok")
        if last is None:
            return plain
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
            peak_ram_bytes=_whole(end, "peak_ram_bytes") or last.peak_ram_bytes,
            peak_gpu_bytes=_whole(end, "peak_gpu_bytes"),
            peak_tree_bytes=self._peak_ram,
            peak_gpu_tree_bytes=self._peak_gpu,
            cpu_s=end.number("cpu_s") if end else last.cpu_s,
            versions={**self.task.environment.versions, **(versions if isinstance(versions, dict) else {})},
            started=self._started,
            finished=now(),
            slot=self._slot.label,
            warm=bool(loaded and loaded.body.get("warm") is True),
            degraded=tuple(self._degraded),
            metrics=dict(self._metrics),
            notes=tuple(self.notes),
            attempts=tuple(self.records),
        )

    def finished(self, result: TaskResult, evaluation: Evaluation | None = None) -> Finished:
        """The task with its result."""
        last = self.last
        lost = bool(last and last.survivors)
        return Finished(result, evaluation, lost, self.task.warm_key if last and last.status == "ok" else None)


def _pause_s(backoff_s: float, again: int) -> float:
    """How long to wait before the next try: doubled each time, and spread, so that those who failed together part."""
    longest: float = min(backoff_s * 2.0 ** (again - 1), _LONGEST_BACKOFF_S)
    return longest * random.uniform(0.5, 1.0)  # noqa: S311 - no secret


def _whole(message: Message | None, name: str) -> int | None:
    number = message.number(name) if message else None
    return None if number is None else int(number)
