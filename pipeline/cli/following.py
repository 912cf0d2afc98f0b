"""Watches a run that another process makes, from what it writes down."""

from __future__ import annotations

import json
import threading
from collections.abc import Mapping
from typing import TYPE_CHECKING

from pipeline.cli.history import load_outcome
from pipeline.errors import RecordError
from pipeline.layout import RunLayout, find_run
from pipeline.models import Reporter, RunOutcome, Sample, TaskResult

if TYPE_CHECKING:
    from pathlib import Path

_LOOK_EVERY_S = 0.3


class _Tail:
    """The whole lines of a file that grows, each once."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._position = 0

    def read(self) -> list[dict[str, object]]:
        """What was added since the last time; what is no object is passed over."""
        try:
            with self._path.open("rb") as stream:
                stream.seek(self._position)
                block = stream.read()
        except FileNotFoundError:
            return []
        whole = block[: block.rfind(b"\n") + 1]
        self._position += len(whole)
        found = []
        for line in whole.splitlines():
            try:
                document = json.loads(line)
            except ValueError:
                continue
            if isinstance(document, dict):
                found.append(document)
        return found


class _Progress:
    """How far one inference task is."""

    def __init__(self, layout: RunLayout, task: str) -> None:
        self._tail = _Tail(layout.answers(task))
        self._failed: dict[str, bool] = {}

    def told(self) -> tuple[int, int]:
        """Items that are through, and how many of them failed."""
        for line in self._tail.read():
            self._failed[str(line.get("item"))] = line.get("answer") is None
        return len(self._failed), sum(self._failed.values())


def follow_run(
    state_dir: Path, run: str | None, reporter: Reporter, *, interrupted: threading.Event | None = None
) -> RunOutcome:
    """Tell a reporter what goes on in a run until it ends; one that has ended is told at once.

    Args:
        state_dir: the workspace's state folder.
        run: its id, the beginning or end of it; the latest for None.
        reporter: who watches.
        interrupted: set to stop looking; the run goes on.

    Raises:
        UnknownRunError: there is none of that name.
        RecordError: its record is damaged.
    """
    layout = find_run(state_dir, run)
    stop = interrupted or threading.Event()
    follower = _Follower(layout, reporter)
    while True:
        # Asked before the last look, so that nothing is missed that was written before the end.
        is_live = layout.is_held()
        follower.look()
        if not is_live or stop.wait(_LOOK_EVERY_S):
            return load_outcome(layout)


class _Follower:
    def __init__(self, layout: RunLayout, reporter: Reporter) -> None:
        self._layout = layout
        self._reporter = reporter
        self._events = _Tail(layout.events)
        self._going: dict[str, _Progress] = {}

    def look(self) -> None:
        """Pass on what is new."""
        for event in self._events.read():
            self._take(event)
        for task, progress in self._going.items():
            self._reporter.progressed(task, *progress.told())

    def _take(self, event: Mapping[str, object]) -> None:
        kind, task = event.get("event"), str(event.get("task"))
        if kind == "attempt-started" and task not in self._going:
            result = self._result(task)
            self._going[task] = _Progress(self._layout, task)
            self._reporter.started(task, result.items if result else 0, str(event.get("slot")))
        elif kind in {"degraded", "task-touched"}:
            self._reporter.noted(task, str(event.get("text")))
        elif kind == "sample" and task in self._going:
            ram, gpu = event.get("ram_bytes"), event.get("gpu_bytes")
            if isinstance(ram, int):
                self._reporter.measured(task, Sample(ram, gpu if isinstance(gpu, int) else None))
        elif kind == "task-ended" and self._going.pop(task, None) is not None:
            result = self._result(task)
            if result is not None:
                self._reporter.finished(result)

    def _result(self, task: str) -> TaskResult | None:
        try:
            return next((each for each in load_outcome(self._layout).tasks if each.id == task), None)
        except RecordError:  # In the making.
            return None
