"""What a report says beyond figures: when what ran where, what it used, what went wrong, and what made each number."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

from pipeline.layout import RunLayout
from pipeline.models import Plan, Task, TaskResult, to_json
from pipeline.redaction import hidden

# More points than that are not seen on a page.
_MOST_POINTS = 300
_TAIL_LINES = 40
_TAIL_BYTES = 16_384
_PIN_FIELDS = ("url", "ref_kind", "ref", "subdirectory", "commit", "tree", "version")

Json = dict[str, object]
# Seconds since the attempt began, bytes of memory, bytes of GPU memory.
_Point = tuple[float, int, int | None]


@dataclass
class Bar:
    """One attempt on the timeline.

    Attributes:
        slot: where it ran.
        task: the task that it was for.
        attempt: its id.
        session: counts the times that the run was begun or gone on with, from 0.
        start: ISO 8601, UTC.
        end: likewise; when the runner was last heard of, where that did not live to see the end.
        load_s: seconds of it that went into loading; None where nothing was loaded.
        status: how it ended.
        code: the same, finer.
    """

    slot: str
    task: str
    attempt: str
    session: int
    start: str
    end: str = ""
    load_s: float | None = None
    status: str = "killed"
    code: str | None = "runner-gone"


@dataclass
class _Curve:
    task: str
    attempt: str
    session: int
    start: str
    points: list[_Point] = field(default_factory=list)


def read_events(path: Path) -> Iterator[Mapping[str, object]]:
    """The events of a run in their order; what is torn or no event is passed over."""
    try:
        stream = path.open("rb")
    except FileNotFoundError:
        return
    with stream:
        for line in stream:
            try:
                event = json.loads(line)
            except ValueError:
                continue
            if isinstance(event, dict) and isinstance(event.get("event"), str):
                yield event


class History:
    """What the events of a run say of its attempts: when they ran, in which slot, and what they used."""

    def __init__(self, events: Iterable[Mapping[str, object]]) -> None:
        self._session = -1
        self._last = ""
        self._open: dict[str, Bar] = {}
        self._bars: list[Bar] = []
        self._curves: dict[str, _Curve] = {}
        for event in events:
            self._take(event)
        self._close_open()

    def _take(self, event: Mapping[str, object]) -> None:
        time, kind, attempt = (_text(event, name) for name in ("time", "event", "attempt"))
        if kind in {"run-started", "run-resumed"}:
            self._close_open()
            self._session += 1
        elif kind == "attempt-started":
            bar = Bar(_text(event, "slot"), _text(event, "task"), attempt, max(self._session, 0), time)
            self._open[attempt] = bar
            self._bars.append(bar)
        elif kind == "attempt-ended" and attempt in self._open:
            bar = self._open.pop(attempt)
            bar.end, bar.status, bar.code = time, _text(event, "status"), _text(event, "code") or None
            load_s = event.get("load_s")
            bar.load_s = float(load_s) if isinstance(load_s, int | float) else None
        elif kind == "sample" and attempt in self._open:
            self._measure(event, self._open[attempt])
        self._last = time or self._last

    def _close_open(self) -> None:
        for bar in self._open.values():
            bar.end = self._last
        self._open.clear()

    def _measure(self, event: Mapping[str, object], bar: Bar) -> None:
        ram, gpu, after_s = (
            event.get("ram_bytes"),
            event.get("gpu_bytes"),
            seconds_between(bar.start, _text(event, "time")),
        )
        if isinstance(ram, int) and after_s is not None:
            curve = self._curves.setdefault(bar.attempt, _Curve(bar.task, bar.attempt, bar.session, bar.start))
            curve.points.append((after_s, ram, gpu if isinstance(gpu, int) else None))

    def timeline(self) -> list[Json]:
        """The attempts in the order in which they began; see `Bar`."""
        return [vars(bar).copy() for bar in self._bars]

    def samples(self) -> list[Json]:
        """What attempts used: seconds since the attempt began, bytes of memory, and bytes of GPU memory or None.

        Of a task no more than 300 points are told, each the most that was used since the point before.
        """
        of_task: Counter[str] = Counter()
        for curve in self._curves.values():
            of_task[curve.task] += len(curve.points)
        return [
            {**vars(curve), "points": [list(point) for point in _thinned(curve.points, of_task[curve.task])]}
            for curve in self._curves.values()
        ]


def _thinned(points: Sequence[_Point], of_task: int) -> list[_Point]:
    step = -(-of_task // _MOST_POINTS)
    thinned = []
    for first in range(0, len(points), step):
        part = points[first : first + step]
        gpu = [used for _, _, used in part if used is not None]
        thinned.append((part[-1][0], max(ram for _, ram, _ in part), max(gpu) if gpu else None))
    return thinned


def _text(event: Mapping[str, object], name: str) -> str:
    value = event.get(name)
    return value if isinstance(value, str) else ""


def seconds_between(start: str, end: str) -> float | None:
    """Seconds from one moment to another, both ISO 8601; None where one is none."""
    try:
        begun, ended = (datetime.fromisoformat(each.replace("Z", "+00:00")) for each in (start, end))
    except ValueError:
        return None
    return round((ended - begun).total_seconds(), 3)


def evidence(result: TaskResult, layout: RunLayout) -> Json:
    """What is left to look at of a task that did not end well: its log and the log's last lines."""
    if result.status == "ok" or not result.attempts:
        return {"log": None, "log_tail": []}
    found: tuple[Path, list[str]] | None = None
    attempt = result.attempts[-1].id
    for path in (Path(result.log) if result.log else layout.stderr(attempt), layout.stdout(attempt)):
        tail = _tail(path)
        if tail and found is None:
            found = path, tail
    path, tail = found or (Path(result.log or layout.stderr(attempt)), [])
    shown = path.relative_to(layout.root) if path.is_relative_to(layout.root) else path
    return {"log": str(shown), "log_tail": tail}


def _tail(path: Path) -> list[str]:
    try:
        with path.open("rb") as stream:
            stream.seek(0, 2)
            stream.seek(max(0, stream.tell() - _TAIL_BYTES))
            return stream.read().decode("utf-8", "replace").splitlines()[-_TAIL_LINES:]
    except OSError:
        return []


def provenance(task: Task, result: TaskResult, plan: Plan, pins: Mapping[str, object]) -> Json:
    """What made a task's figures: environment, code, data, parameters, device, and the attempts themselves."""
    environment, data, pin = task.environment, plan.data_set(task.data), pins.get(task.environment.plugin)
    return {
        "environment": environment.key,
        "lock_digest": environment.lock_digest,
        "source": {name: value for name, value in environment.source.items() if value},
        "pin": {name: pin[name] for name in _PIN_FIELDS if pin.get(name)} if isinstance(pin, Mapping) else {},
        "code": to_json(environment.code),
        "data": {"name": data.name, "digest": data.digest, "items": len(data.items)} if data else None,
        "judged": task.inference,
        "params": hidden(task.params),
        "weights": dict(task.weights),
        "batch": task.batch,
        "seed": task.seed,
        "deterministic": task.deterministic,
        "device": result.device_name or result.device,
        "identity": result.identity,
        "attempts": [attempt.id for attempt in result.attempts],
        "run": result.reused,
    }


def repetitions(plan: Plan) -> list[Json]:
    """The inference tasks that are one task done several times, together; none where nothing is repeated."""
    groups: dict[str, list[Task]] = {}
    for task in plan.stage("inference"):
        groups.setdefault(base_name(task), []).append(task)
    return [
        {"name": name, "data": tasks[0].data, "tasks": [task.id for task in tasks]}
        for name, tasks in groups.items()
        if len(tasks) > 1
    ]


def base_name(task: Task) -> str:
    """A task's id without the number of its repetition."""
    return task.id.removesuffix(f"#{task.repetition}")
