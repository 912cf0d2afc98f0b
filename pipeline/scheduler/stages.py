"""Starts tasks in order as slots become free, one stage after the other."""

from __future__ import annotations

import queue
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from envbuilder.errors import Interrupted
from pipeline.models import Evaluation, Task, TaskResult
from pipeline.placement import Slot
from pipeline.scheduler.inference import do_inference
from pipeline.scheduler.proof import Proof, Touched
from pipeline.scheduler.tries import Finished, Setting, unstarted
from pipeline.scheduler.work import do_eval, do_report

if TYPE_CHECKING:
    from pipeline.scheduler.record import Record

_Work = Callable[[Task, Slot], Finished]
_TICK_S = 0.2
# A task may be overtaken so often by those that need less; then they wait with it.
_MOST_OVERTAKEN = 8


class _Released:
    """What is left of a slot's worker that was no longer needed."""

    def __init__(self, *, slot_lost: bool) -> None:
        self.slot_lost = slot_lost


class Scheduler:
    """Carries out one plan.

    Tasks run in threads of their own, each waiting for its worker; everything else, the record included, is done by
    the thread that calls `run`.
    """

    def __init__(self, setting: Setting, record: Record) -> None:
        self._setting = setting
        self._placement = setting.placement
        self._record = record
        self._told: set[str] = set()
        self._begun: dict[str, None] = {}
        self._touched: dict[str, Touched] = {}
        self._proof = Proof(setting.plan, setting.keeper, setting.folder)
        self._ended: queue.SimpleQueue[tuple[Slot, Finished | _Released | BaseException]] = queue.SimpleQueue()

    def run(self) -> None:
        """Run every stage; results go to the record.

        Raises:
            OSError: what a task has to keep could not be written.
        """
        plan, setting = self._setting.plan, self._setting
        self._stage(plan.stage("inference"), lambda task, slot: do_inference(setting, task, slot))
        self._prove(plan.stage("eval"))
        self._stage(plan.stage("eval"), lambda task, slot: do_eval(setting, task, slot))
        self._prove(reports := plan.stage("report"))
        if reports:
            document = self._record.report_document()
            self._stage(reports, lambda task, slot: do_report(setting, task, slot, document))
            self._prove(())

    def _prove(self, coming: Sequence[Task]) -> None:
        """See whether what was used since the last time is what it was, and whether the next stage's tasks can start."""
        if not self._begun:
            return
        used = [task for task in self._setting.plan.tasks if task.id in self._begun]
        self._begun.clear()
        found = self._proof.of([*used, *coming])
        if coming and coming[0].stage == "eval":
            found |= self._proof.rewritten()
        self._touched = {task.id: found[task.id] for task in coming if task.id in found}
        names = {task.id for task in used} | found.keys()
        ended = [result for result in self._record.results if result.id in names]
        results = [self._proved(result, found.get(result.id)) for result in ended]
        self._record.prove(results)
        for result in results:
            if result.touched:
                event = {"event": "task-touched", "task": result.id, "text": result.touched}
                self._setting.events.append(event)
                self._setting.reporter.noted(result.id, f"counts for nothing: {result.touched}")

    def _proved(self, result: TaskResult, touched: Touched | None) -> TaskResult:
        if touched is None:
            return replace(result, proved=self._proof.is_whole)
        result = replace(result, proved=False, touched=touched.text, notes=(*result.notes, touched.text))
        return (
            replace(result, status="failed", code=touched.code, error=touched.text) if result.status == "ok" else result
        )

    def _stage(self, tasks: Sequence[Task], work: _Work) -> None:
        waiting = [task for task in tasks if not self._is_settled(task)]
        overtaken: Counter[str] = Counter()
        held = 0
        idle_since: float | None = None
        errors: list[BaseException] = []
        while waiting or held:
            held += self._start(waiting, work, overtaken)
            if held:
                held -= self._next(waiting, work, errors)
                idle_since = None
            elif waiting:
                # Nothing runs and nothing fits: others hold the GPUs, or something of ours that cannot be killed.
                idle_since = idle_since or time.monotonic()
                self._wait(waiting, time.monotonic() - idle_since)
        if errors:
            raise errors[0]

    def _start(self, waiting: list[Task], work: _Work, overtaken: Counter[str]) -> int:
        """Start whatever can start now; gives how many did.

        What does not fit yet is overtaken by what does, but not for ever.
        """
        number = 0
        passed: list[str] = []
        for task in tuple(waiting):
            refused = self._refusal(task)
            slot = None if refused else self._placement.take(task)
            if refused is not None:
                waiting.remove(task)
                self._end(refused)
            elif slot is not None:
                waiting.remove(task)
                self._begin(work, task, slot)
                overtaken.update(passed)
                number += 1
            else:
                passed.append(task.id)
                self._explain(task)
                if overtaken[task.id] >= _MOST_OVERTAKEN:
                    break
        return number

    def _wait(self, waiting: list[Task], waited_s: float) -> None:
        refusal = self._placement.refusal
        if not refusal.may_pass:
            reason = f"its slot is held by a process that cannot be killed: {refusal.text}"
            self._end(unstarted(waiting.pop(0), "failed", "slot-lost", reason))
        elif waited_s >= self._setting.plan.gpu_wait_s:
            self._end(unstarted(waiting.pop(0), "failed", "slot-busy", f"waited {waited_s:.0f} s: {refusal.text}"))
        else:
            self._setting.interrupted.wait(_TICK_S)

    def _explain(self, task: Task) -> None:
        """Say once that a task waits for what is not the run's own."""
        if self._placement.refusal.may_pass and task.id not in self._told:
            self._told.add(task.id)
            self._setting.reporter.noted(task.id, f"waits: {self._placement.refusal.text}")

    def _begin(self, work: _Work, task: Task, slot: Slot) -> None:
        self._begun[task.id] = None
        self._record.begin(task, slot)
        threading.Thread(target=self._work, args=(work, task, slot), name=task.id).start()

    def _work(self, work: _Work, task: Task, slot: Slot) -> None:
        try:
            self._ended.put((slot, work(task, slot)))
        except BaseException as error:  # noqa: BLE001 - the scheduler's own thread raises it again.
            self._ended.put((slot, error))

    def _next(self, waiting: list[Task], work: _Work, errors: list[BaseException]) -> int:
        """Take in what has ended meanwhile, waiting a moment for it; gives how many slots are no longer held."""
        try:
            slot, outcome = self._ended.get(timeout=_TICK_S)
        except queue.Empty:
            return 0
        except (KeyboardInterrupt, Interrupted):
            # The caller's own way of being interrupted: end the workers first, tell afterwards.
            self._setting.interrupted.set()
            return 0
        if isinstance(outcome, Finished):
            self._end(outcome.result, outcome.evaluation)
            if not outcome.slot_lost:
                self._go_on(slot, outcome, waiting, work)
                return 0
        elif isinstance(outcome, BaseException):
            # Nothing can be kept any more, or it is our own mistake: end the others, then tell.
            self._setting.interrupted.set()
            errors.append(outcome)
            self._release(slot)
            return 0
        elif not outcome.slot_lost:
            self._placement.give_back(slot)
        return 1

    def _go_on(self, slot: Slot, ended: Finished, waiting: list[Task], work: _Work) -> None:
        """Give the slot, and the worker that is warm in it, to a task that it can do; else end it."""
        for task in waiting if ended.warm_key else ():
            if task.warm_key == ended.warm_key and self._refusal(task) is None:
                waiting.remove(task)
                self._begin(work, task, slot)
                return
        self._release(slot)

    def _release(self, slot: Slot) -> None:
        """End what is kept in a slot; that may take a while, so others see to it."""

        def release() -> None:
            lost = True
            try:
                lost = bool(self._placement.release(slot))
            finally:
                self._ended.put((slot, _Released(slot_lost=lost)))

        threading.Thread(target=release, name=f"release-{slot.label}").start()

    def _is_settled(self, task: Task) -> bool:
        """Whether a task need not run, because what it would come to is known; then its result is taken."""
        known = None if self._refusal(task) else self._setting.past.settled(task)
        if known is not None and known[0].reused is None:
            self._keep_answers(known[0])
            self._record.add(*known)
            self._setting.reporter.noted(task.id, "ended before the run was resumed; stays as it is")
        elif known is not None:
            self._end(*known)
        return known is not None

    def _refusal(self, task: Task) -> TaskResult | None:
        """Why a task is not to start, if it is not."""
        if self._setting.interrupted.is_set():
            return unstarted(task, "cancelled", "interrupted", "not started: the run was interrupted")
        if task.id in self._touched:
            touched = self._touched[task.id]
            return replace(
                unstarted(task, "failed", touched.code, f"not started: {touched.text}"), touched=touched.text
            )
        judged = self._record.result(task.inference)
        if judged is not None and judged.status != "ok":
            return unstarted(task, "cancelled", "skipped", f"skipped: {judged.id} ended as {judged.status}")
        failed = next((each for each in self._record.results if each.status not in {"ok", "cancelled"}), None)
        if self._setting.plan.stop_on_failure and failed and task.stage != "report":
            return unstarted(task, "cancelled", "skipped", f"skipped: {failed.id} failed and on-failure is stop")
        lacking = self._placement.lacking(task)
        return unstarted(task, "failed", "gpu-missing", lacking) if lacking else None

    def _keep_answers(self, result: TaskResult) -> None:
        if result.stage == "inference":
            self._proof.keep(result.id, self._setting.layout.answers(result.id))

    def _end(self, result: TaskResult, evaluation: Evaluation | None = None) -> None:
        self._keep_answers(result)
        self._record.add(result, evaluation)
        event = {"event": "task-ended", "task": result.id, "status": result.status, "reused": result.reused}
        self._setting.events.append({**event, "code": result.code, "error": result.error})
        self._setting.reporter.finished(result)
