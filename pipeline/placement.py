"""Where attempts run. Nothing above this room knows: this machine today, a cluster's engine another day."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from pipeline.attempt import AttemptRequest, AttemptResult, Worker, run_attempt
from pipeline.slots import Slot, Slots

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable

    from pipeline.models import Task
    from pipeline.protocol import Message

__all__ = ["AttemptRequest", "AttemptResult", "Listener", "LocalMachine", "Placement", "Slot"]

if TYPE_CHECKING:
    Listener = Callable[[Message], None]


class Placement(Protocol):
    """Gives slots to tasks, and runs attempts in them.

    Slots are taken and given back by one thread; attempts run, and workers are released, in others.
    """

    def lacking(self, task: Task) -> str | None:
        """Why a task can never have a slot here, or None."""

    def take(self, task: Task) -> Slot | None:
        """A slot for a task, or None while there is none free."""

    def give_back(self, slot: Slot) -> None:
        """Take back what `take` gave; nothing of any attempt in it is alive."""

    def attempt(
        self, slot: Slot, request: AttemptRequest, *, interrupted: threading.Event, listen: Listener, keep: bool
    ) -> AttemptResult:
        """Run an attempt in a slot, by the worker that was kept there, if one was; with `keep`, keep it afterwards."""

    def release(self, slot: Slot) -> tuple[int, ...]:
        """End the worker that was kept in a slot, if one was; what is still alive then, though killed."""


class LocalMachine:
    """This machine."""

    def __init__(self, slots: Slots) -> None:
        self._slots = slots
        self._kept: dict[int, Worker] = {}

    def lacking(self, task: Task) -> str | None:
        """Why a task can never have a slot here, or None."""
        return self._slots.lacking(task.gpus)

    def take(self, task: Task) -> Slot | None:
        """A slot for a task, or None while there is none free."""
        return self._slots.take(task.gpus)

    def give_back(self, slot: Slot) -> None:
        """Take a slot back."""
        self._slots.give_back(slot)

    def attempt(
        self, slot: Slot, request: AttemptRequest, *, interrupted: threading.Event, listen: Listener, keep: bool
    ) -> AttemptResult:
        """Run an attempt in a slot."""
        result, kept = run_attempt(
            request, interrupted=interrupted, listen=listen, warm=self._kept.pop(slot.number, None), keep=keep
        )
        if kept is not None:
            self._kept[slot.number] = kept
        return result

    def release(self, slot: Slot) -> tuple[int, ...]:
        """End the worker that was kept in a slot."""
        worker = self._kept.pop(slot.number, None)
        return worker.leave().survivors if worker else ()
