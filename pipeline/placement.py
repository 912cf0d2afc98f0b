"""Where attempts run. Nothing above this room knows: this machine today, a cluster's engine another day."""

from __future__ import annotations

import contextlib
import os
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Protocol

from envbuilder import gpus
from envbuilder.errors import ToolError
from pipeline import supervisor
from pipeline.attempt import AttemptRequest, AttemptResult, Stop, Worker, run_attempt
from pipeline.models import Sample
from pipeline.slots import Refusal, Slot, Slots, used_by, used_on

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from envbuilder.gpus import Driver
    from pipeline.models import Task
    from pipeline.protocol import Message

__all__ = ["AttemptRequest", "AttemptResult", "LocalMachine", "Placement", "Slot", "Stop", "Watcher"]

_SAMPLE_EVERY_S = 1.0
_PAGE = os.sysconf("SC_PAGE_SIZE")


class Watcher(Protocol):
    """Who is told of an attempt while it runs."""

    def heard(self, message: Message) -> None:
        """A message of the worker's."""

    def measured(self, sample: Sample) -> None:
        """What its processes use now; called from another thread, about once a second."""


class Placement(Protocol):
    """Gives slots to tasks, and runs attempts in them.

    Slots are taken and given back by one thread; attempts run, and workers are released, in others.
    """

    def lacking(self, task: Task) -> str | None:
        """Why a task can never have a slot here, or None."""

    def take(self, task: Task) -> Slot | None:
        """A slot for a task, or None while there is none free; `refusal` then says why."""

    @property
    def refusal(self) -> Refusal:
        """Why the last task that asked got no slot."""

    def give_back(self, slot: Slot) -> None:
        """Take back what `take` gave; nothing of any attempt in it is alive."""

    def attempt(
        self, slot: Slot, request: AttemptRequest, *, interrupted: Stop, watcher: Watcher, keep: bool
    ) -> AttemptResult:
        """Run an attempt in a slot, by the worker that was kept there, if one was; with `keep`, keep it afterwards."""

    def release(self, slot: Slot) -> tuple[int, ...]:
        """End the worker that was kept in a slot, if one was; what is still alive then, though killed."""


class LocalMachine:
    """This machine.

    Args:
        slots: its GPUs and its CPU capacity.
        read: the driver and its GPUs as they are now.
    """

    def __init__(self, slots: Slots, read: Callable[[], Driver | None] = gpus.read) -> None:
        self._slots = slots
        self._read = read
        self._kept: dict[int, Worker] = {}

    def lacking(self, task: Task) -> str | None:
        """Why a task can never have a slot here, or None."""
        return self._slots.lacking(task.wish)

    def take(self, task: Task) -> Slot | None:
        """A slot for a task, or None while there is none free."""
        return self._slots.take(task.wish)

    @property
    def refusal(self) -> Refusal:
        """Why the last task that asked got no slot."""
        return self._slots.refusal

    def give_back(self, slot: Slot) -> None:
        """Take a slot back."""
        self._slots.give_back(slot)

    def attempt(
        self, slot: Slot, request: AttemptRequest, *, interrupted: Stop, watcher: Watcher, keep: bool
    ) -> AttemptResult:
        """Run an attempt in a slot."""
        with self._watched(slot, watcher) as begun:
            result, kept = run_attempt(
                request,
                interrupted=interrupted,
                listen=watcher.heard,
                begun=begun,
                warm=self._kept.pop(slot.number, None),
                keep=keep,
            )
        if kept is not None:
            self._kept[slot.number] = kept
        return result

    def release(self, slot: Slot) -> tuple[int, ...]:
        """End the worker that was kept in a slot."""
        worker = self._kept.pop(slot.number, None)
        return worker.leave().survivors if worker else ()

    @contextlib.contextmanager
    def _watched(self, slot: Slot, watcher: Watcher) -> Iterator[Callable[[int], None]]:
        """Look about once a second at what an attempt uses, from when it has begun, below its supervisor's process id."""
        over = threading.Event()
        threads = []

        def begun(root: int) -> None:
            thread = threading.Thread(target=self._look, args=(slot, root, watcher, over), name=f"look-{slot.label}")
            threads.append(thread)
            thread.start()

        try:
            yield begun
        finally:
            over.set()
            for thread in threads:
                thread.join()

    def _look(self, slot: Slot, root: int, watcher: Watcher, over: threading.Event) -> None:
        before = used_on(slot, self._driver(slot))
        listed = False
        while not over.wait(_SAMPLE_EVERY_S):
            tree = supervisor.descendants(root)
            driver = self._driver(slot)
            own = used_by(tree, slot, driver)
            # Before a process has begun with its GPU it is not listed; in a container, or under WSL, it never is.
            listed = listed or own is not None
            used = used_on(slot, driver)
            grown = None if used is None or before is None else max(0, used - before)
            of_gpu = own or 0 if listed else grown
            whose: Literal["", "processes", "card"] = "processes" if listed else "card"
            ram = sum(map(_resident, tree))
            watcher.measured(Sample(ram) if of_gpu is None else Sample(ram, of_gpu, whose))

    def _driver(self, slot: Slot) -> Driver | None:
        if not slot.gpus:
            return None
        try:
            return self._read()
        except ToolError:
            return None


def _resident(process: int) -> int:
    """Resident memory of a process in bytes; 0 where it has ended."""
    try:
        return int(Path(f"/proc/{process}/statm").read_bytes().split()[1]) * _PAGE
    except (OSError, IndexError):
        return 0
