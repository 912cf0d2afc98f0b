"""The attempts at one task: prepares each, listens to it, and keeps how it ended."""

from __future__ import annotations

import contextlib
import random
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeVar

from envbuilder.errors import counted
from pipeline.devices import kind_of
from pipeline.identity import identity_of
from pipeline.layout import Journal, RunLayout, now
from pipeline.models import AttemptRecord, Evaluation, Keeper, Plan, Reporter, Sample, Silence, Status, Task, TaskResult
from pipeline.placement import AttemptRequest, AttemptResult, Placement, Slot, Stop
from pipeline.protocol import Message, job_document
from pipeline.redaction import clean_text, hidden

if TYPE_CHECKING:
    from pipeline.scheduler.past import Past

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
        past: what was done before.
        reporter: who watches.
        grace_s: seconds between asking a worker to end and killing it.
        backoff_s: seconds before a second try; doubled before each further one.
        variables: environment variables for every worker.
        keeper: knows what environments were; None where nobody does.
        folder: what paths of weights are relative to.
    """

    plan: Plan
    layout: RunLayout
    placement: Placement
    events: Journal
    interrupted: Stop
    past: Past
    reporter: Reporter = field(default_factory=Silence)
    grace_s: float = 10.0
    backoff_s: float = 1.0
    variables: Mapping[str, str] = field(default_factory=dict)
    keeper: Keeper | None = None
    folder: Path = Path()

    def closed(self, task: Task) -> tuple[Path, ...]:
        """What a task's workers have no business to write."""
        environments = {each.environment.path for each in self.plan.tasks}
        more = self.keeper.closed(task.environment) if self.keeper else ()
        return (self.layout.runs, *environments, *more)


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
        params=hidden(task.params),  # type: ignore[arg-type]  # a mapping stays one
        code=code,
        error=error,
        environment=task.environment.key,
        versions=task.environment.versions,
        identity=task.identity,
        identity_parts=task.parts,
        seal=task.environment.seal,
        weights=task.weights,
    )


def on_slot(task: Task, slot: Slot) -> dict[str, str]:
    """What a task's result depends on, now that it has its slot."""
    return {**task.parts, "device": kind_of(gpu.name for gpu in slot.gpus)}


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


_PARTED = {
    "miscounted": (
        "got another number of answers than it has items",
        "got another number of answers than they have items",
    ),
    "failed": ("failed", "failed"),
}


@dataclass
class Parted:
    """Batches that were taken apart for one kind of reason.

    Attributes:
        kind: the kind.
        first: the reason of the first of them.
        batches: how many, their parts aside.
        items: of these batches.
        calls: of `predict`, beyond those that were asked for.
    """

    kind: str
    first: str
    batches: int = 0
    items: int = 0
    calls: int = 0

    def add(self, items: int) -> None:
        """Count one; with no items it is a part of another."""
        self.batches += bool(items)
        self.items += items
        self.calls += 2

    def told(self) -> str:
        """All of them in a sentence."""
        one, several = _PARTED.get(self.kind, _PARTED["failed"])
        what = f"{counted(self.batches, 'batch', 'batches')} {one if self.batches == 1 else several}"
        again = f"{counted(self.items, 'item')} asked again in parts, by {counted(self.calls, 'more call')}"
        return f"{what}: {again}; first: {self.first}"


class Tries:
    """The attempts at one task."""

    def __init__(self, setting: Setting, task: Task, slot: Slot) -> None:
        self._setting = setting
        self.task = task
        self._slot = slot
        self._spent_s = 0.0
        self._before = setting.past.before(task)
        self._first = setting.layout.last_attempt(task.id) + 1
        self.parts = on_slot(task, slot)
        self.records: list[AttemptRecord] = []
        self.last: AttemptResult | None = None
        self.log: str | None = None
        self.notes: list[str] = []
        self._degraded: list[str] = []
        self._parted: dict[str, Parted] = {}
        self._metrics: dict[str, float] = {}
        self._samples = 0
        self._peak_ram: int | None = None
        self._peak_gpu: dict[str, int] = {}
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
        if self._slot.remark:
            self.note(self._slot.remark)
        judge = judge or Patience(setting.plan.retries).judge
        again = 0
        while (work := contents()) is not None:
            number = self._first + len(self.records)
            last = self._attempt(setting.layout.attempt_id(self.task.id, number), work, listen)
            step = "stop" if last.status == "ok" or last.survivors else judge(last)
            if step == "stop":
                break
            # Going on is one attempt in several workers, and has the time of one; a retry has its own.
            self._spent_s = self._spent_s + last.wall_s if step == "on" else 0.0
            again = again + 1 if step == "again" else 0
            if again:
                setting.reporter.noted(self.task.id, f"{last.error}; tries again")
                if setting.interrupted.wait(_pause_s(setting.backoff_s, again)):
                    break

    def _attempt(
        self, attempt: str, work: Mapping[str, object], listen: Callable[[Message, str], None]
    ) -> AttemptResult:
        setting, task, layout = self._setting, self.task, self._setting.layout
        folder = layout.attempt_dir(attempt)
        job = job_document(
            task, attempt, folder=layout.output_dir(attempt), device=self._slot.device, gpu_name=self._slot.name
        )
        outputs = layout.output_dir(attempt)
        outputs.mkdir(parents=True, exist_ok=True)
        if "output" in work:
            # The run's own folder is not for workers; a report is taken from here.
            work = {**work, "output": str(outputs / str(work["output"]))}
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
            (*setting.closed(task), *(each for each in folder.parent.glob("*/") if each != folder)),
            (folder.parent, outputs),
        )
        started = {"event": "attempt-started", "task": task.id, "attempt": attempt, "slot": self._slot.label}
        setting.events.append(started)

        keep = setting.plan.shares_worker(task)
        last = setting.placement.attempt(
            self._slot, request, interrupted=setting.interrupted, watcher=_Ear(self, attempt, listen), keep=keep
        )
        self.log = str(last.stderr or request.stderr)
        self._keep(attempt, last)
        with contextlib.suppress(OSError):  # Most attempts leave nothing there.
            outputs.rmdir()
        return last

    def measure(self, attempt: str, sample: Sample) -> None:
        """Keep what its processes use."""
        self._samples += 1
        self._peak_ram = max(self._peak_ram or 0, sample.ram_bytes)
        if sample.gpu_bytes is not None:
            self._peak_gpu[sample.gpu_of] = max(self._peak_gpu.get(sample.gpu_of, 0), sample.gpu_bytes)
        self._setting.reporter.measured(self.task.id, sample)
        # Every second of a night would be more than anybody plots: the longer it takes, the fewer are kept.
        if self._samples < _DENSE_SAMPLES or self._samples % _SPARSE_EVERY == 0:
            event = {"event": "sample", "task": self.task.id, "attempt": attempt, "slot": self._slot.label}
            self._setting.events.append({**event, **asdict(sample)})

    def hear(self, message: Message) -> None:
        """Keep what a worker says beside its answers."""
        text, name, value = clean_text(message.text("text") or ""), message.text("name"), message.number("value")
        if message.kind == "log":
            self.note(text)
        elif message.kind == "degraded" and message.text("parted"):
            self._part(message.text("parted") or "", int(message.number("items") or 0), text)
        elif message.kind == "degraded":
            self.degrade(text)
        elif message.kind == "loaded" and message.text("device") == "cpu" and self._slot.gpus:
            self.degrade(f"runs on the CPU, though it holds {self._slot.label}")
        elif message.kind == "metric" and name is not None and value is not None:
            self._metrics[clean_text(name)] = value

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
            last.guard,
        )
        self.records.append(record)
        loaded = last.messages.get("loaded")
        ended = {
            "status": last.status,
            "code": last.code,
            "error": last.error,
            "returncode": last.returncode,
            "guard": last.guard,
            "load_s": loaded.number("load_s") if loaded and loaded.body.get("warm") is not True else None,
        }
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
        self._setting.reporter.noted(self.task.id, text)

    def degrade(self, text: str) -> None:
        """Keep what was done less well than asked for, and pass it on to whoever watches."""
        self._degraded.append(text)
        self._setting.events.append({"event": "degraded", "task": self.task.id, "text": text})
        self._setting.reporter.noted(self.task.id, text)

    def _part(self, kind: str, items: int, text: str) -> None:
        """Count a batch that was taken apart; the first of a kind is told at once."""
        if kind not in self._parted:
            self._parted[kind] = Parted(kind, text)
            self._setting.reporter.noted(self.task.id, f"{text}; asks the batch again in parts")
        self._parted[kind].add(items)

    def _sum_up(self) -> None:
        """Tell how many batches were taken apart."""
        for parted in self._parted.values():
            self.degrade(parted.told())
        self._parted.clear()

    def result(self) -> TaskResult:
        """What came of it, but for the items; what was tried before the run was resumed is part of it."""
        self._sum_up()
        last, before = self.last, self._before
        loaded = last.messages.get("loaded") if last else None
        if loaded and loaded.text("device") == "cpu":
            # Also where the slot has a GPU that the plugin's torch cannot use.
            held = kind_of(gpu.name for gpu in self._slot.gpus)
            self.parts["device"] = self.parts["device"].replace(held, kind_of(()))
        plain = replace(unstarted(self.task, "ok"), identity=identity_of(self.parts), identity_parts=dict(self.parts))
        if last is None:
            return replace(before, status="ok", code=None, error=None, finished=now()) if before else plain
        end = last.messages.get("done") or last.messages.get("failed")
        versions = loaded.body.get("versions") if loaded else None
        whose: Literal["", "processes", "card"] = "processes" if "processes" in self._peak_gpu else "card"
        whose = whose if self._peak_gpu else ""
        result = replace(
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
            peak_gpu_tree_bytes=self._peak_gpu.get(whose),
            gpu_memory_of=whose,
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
        return joined(before, result) if before else result

    def finished(self, result: TaskResult, evaluation: Evaluation | None = None) -> Finished:
        """The task with its result."""
        last = self.last
        lost = bool(last and last.survivors)
        return Finished(result, evaluation, lost, self.task.warm_key if last and last.status == "ok" else None)


def joined(before: TaskResult, result: TaskResult) -> TaskResult:
    """A result together with what was tried before the run was resumed; what it says of its end is the later one's."""
    if before.reused or not before.attempts:
        return result
    return replace(
        result,
        started=before.started or result.started,
        wall_s=sum(record.wall_s for record in (*before.attempts, *result.attempts)),
        cpu_s=_both(before.cpu_s, result.cpu_s, sum),
        peak_ram_bytes=_both(before.peak_ram_bytes, result.peak_ram_bytes, max),
        peak_gpu_bytes=_both(before.peak_gpu_bytes, result.peak_gpu_bytes, max),
        degraded=(*before.degraded, *result.degraded),
        metrics={**before.metrics, **result.metrics},
        notes=(*before.notes, *result.notes),
        attempts=(*before.attempts, *result.attempts),
    )


_Figure = TypeVar("_Figure", int, float)


def _both(
    one: _Figure | None, other: _Figure | None, together: Callable[[tuple[_Figure, _Figure]], _Figure]
) -> _Figure | None:
    return other if one is None else one if other is None else together((one, other))


def _pause_s(backoff_s: float, again: int) -> float:
    """How long to wait before the next try: doubled each time, and spread, so that those who failed together part."""
    longest: float = min(backoff_s * 2.0 ** (again - 1), _LONGEST_BACKOFF_S)
    return longest * random.uniform(0.5, 1.0)  # noqa: S311 - no secret


def _whole(message: Message | None, name: str) -> int | None:
    number = message.number(name) if message else None
    return None if number is None else int(number)
