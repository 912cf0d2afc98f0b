"""Run a run file, or plan one."""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import threading
from dataclasses import dataclass, field, replace
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING

from envbuilder.errors import ConfigError, Interrupted, Problem, UsageError, counted, nearest, remedy
from envbuilder.gpus import VISIBLE
from pipeline import guard, orphans
from pipeline.cli.history import load_outcome
from pipeline.config import RunConfig, load_run, plugins_named, read_run_file
from pipeline.config.load import check_plugins
from pipeline.devices import kinds_for
from pipeline.errors import RecordError, SlotsError
from pipeline.layout import (
    Journal,
    RunLayout,
    items_document,
    new_run_id,
    now,
    remove_contexts,
    sweep_runs,
    write_environments,
    write_json,
)
from pipeline.models import Environment, Keeper, Plan, Reporter, RunOutcome, Silence, Stage, Task, TaskResult
from pipeline.placement import LocalMachine, Stop
from pipeline.plan import make_plan
from pipeline.redaction import learn
from pipeline.scheduler import Archive, Header, Past, Record, Scheduler, Setting, Terms
from pipeline.slots import Gpu, Slots, thread_variables

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence


@dataclass(frozen=True)
class RunRequest:
    """What to run.

    Attributes:
        run_file: the run file.
        environments: ready environments, at least of every plugin that the run file names.
        state_dir: the workspace's state folder; the record goes to its ``runs/``.
        profile: ``dev`` or ``prod``, for the record.
        pins: what git sources were pinned to, as plain JSON, for the record.
        jobs: how many attempts may use the CPU at once; more than one blurs latencies.
        grace_s: seconds between asking a worker to end and killing it.
        backoff_s: seconds before a failed attempt is made again.
        terms: which results of earlier runs count.
        keeper: knows what the environments are now; None where nobody will look at them again.
    """

    run_file: Path
    environments: Sequence[Environment]
    state_dir: Path
    profile: str = "prod"
    pins: Mapping[str, object] = field(default_factory=dict)
    jobs: int = 1
    grace_s: float = 10.0
    backoff_s: float = 1.0
    terms: Terms = field(default_factory=Terms)
    keeper: Keeper | None = None


def plugins_of(run_file: Path, known: Mapping[str, Stage] | None = None) -> tuple[str, ...]:
    """The plugins that a run file names, each once, in the order of stages; reads no data set.

    Args:
        run_file: the run file.
        known: the stage of every plugin there is, where that is to be checked too.

    Raises:
        ConfigError: with one problem for each thing that is wrong with the file.
    """
    config = read_run_file(run_file)
    problems = check_plugins(config, known) if known is not None else []
    if problems:
        raise ConfigError(problems)
    return plugins_named(config)


def plan_run(request: RunRequest) -> Plan:
    """What a run would do.

    Raises:
        ConfigError: with one problem for each thing that is wrong with the run file or its data.
    """
    plan = make_plan(_load(request), request.environments)
    for task in plan.tasks:
        learn(task.params)
        learn(task.environment.env)
    return plan


def _load(request: RunRequest) -> RunConfig:
    known = {each.plugin: each.stage for each in request.environments}
    return load_run(request.run_file, known, memo=weights_memo(request.state_dir))


def weights_memo(state_dir: Path) -> Path:
    """Where digests of weights are remembered."""
    return state_dir / "weights.json"


def refuse_unknown(plan: Plan, terms: Terms) -> None:
    """Refuse to force what is not in a plan.

    Raises:
        UsageError: there is no such task and no such plugin.
    """
    known = {name for task in plan.tasks for name in (task.id, task.environment.plugin)}
    for name in sorted(terms.force - known):
        near = nearest(name, known, cutoff=0.4)
        text = f"--force {name}: the run has no such task and no such plugin"
        raise UsageError(text + (f"; nearest: {near}" if near else ""), hint="envbuilder plan")


def refuse_guard() -> None:
    """Refuse a guard that is none.

    Raises:
        UsageError: `ENVBUILDER_GUARD` is no name of one.
    """
    wanted = os.environ.get(guard.VARIABLE)
    if wanted and wanted not in guard.KINDS:
        text = f"{guard.VARIABLE}: expected one of {', '.join(guard.KINDS)}, or nothing; found {wanted}"
        raise UsageError(text, hint=f"unset {guard.VARIABLE}")


def execute_run(
    request: RunRequest, *, interrupted: Stop | None = None, reporter: Reporter | None = None
) -> RunOutcome:
    """Run a run file from inference to report.

    Args:
        request: what to run.
        interrupted: set it (from a signal handler, say) to end the run. Where it is not given and this is the main
            thread, Ctrl-C and SIGTERM do so.
        reporter: who watches; see `pipeline.render.make_display`.

    Returns:
        How it went; what tasks failed at is a value in it.

    Raises:
        ConfigError: the run file or its data cannot be used; nothing was run.
        RecordError: the state folder cannot be written.
        SlotsError: something of an earlier run cannot be killed.
        Interrupted: it was ended early; what was written stays.
    """
    plan = plan_run(request)
    refuse_unknown(plan, request.terms)
    refuse_guard()
    layout = RunLayout(request.state_dir, new_run_id(plan.name, datetime.now(timezone.utc)))
    with writing(request.state_dir), stoppable(interrupted) as stop:
        clear_slots(request.state_dir, reporter or Silence())
        layout.create()
        with layout.held():
            write_json(layout.run_file, read_run_file(request.run_file).tree.value)
            watcher = reporter or Silence()
            for warning in plan.warnings:
                watcher.noted(str(warning.where), warning.message)
            carry_out(request, plan, layout, stop, watcher)
    return outcome_of(layout, stop)


def outcome_of(layout: RunLayout, stop: Stop) -> RunOutcome:
    """How a run went that has just ended.

    Raises:
        Interrupted: it was told to.
    """
    if stop.is_set():
        text = f"run {layout.id} was interrupted; what was answered stays, and is not asked again"
        raise Interrupted(text, hint=f"envbuilder resume {layout.id}")
    return load_outcome(layout)


@contextlib.contextmanager
def writing(state_dir: Path) -> Iterator[None]:
    """Tell of a state folder that cannot be written."""
    try:
        yield
    except OSError as error:
        where = str(error.filename or state_dir)
        gone = error.errno in {errno.ENOENT, errno.ENOTDIR}  # Room on the disk has nothing to do with it.
        hint = remedy(error) or (f"ls -la {Path(where).parent}" if gone else f"df -h {state_dir}; ls -ld {state_dir}")
        raise RecordError(f"cannot be written: {error.strerror or error}", where=where, hint=hint) from error


def clear_slots(state_dir: Path, reporter: Reporter) -> None:
    """End what killed runners have left, before any slot is given out, and remove the files that they left: contexts, and what was half written.

    Supervisors end with their runner; where both are killed, a daemon may live on, and hold a GPU.

    Raises:
        SlotsError: something cannot be killed.
    """
    ended, left = orphans.end_left()
    if left:
        pids = ",".join(map(str, left))
        text = f"processes of an earlier run, whose runner is gone, cannot be killed: {pids}; they may hold a slot"
        raise SlotsError(text, hint=f"ps -o pid,stat,args -p {pids}")
    if ended:
        pids = ", ".join(map(str, ended))
        reporter.noted("slots", f"ended {counted(len(ended), 'process', 'processes')} that a killed run left: {pids}")
    remove_contexts(state_dir)
    sweep_runs(state_dir)


@dataclass(frozen=True)
class Before:
    """What a run had come to when it was resumed: its results by task, when it was started, and when resumed before."""

    results: Mapping[str, TaskResult]
    started: str
    resumed: tuple[str, ...]


def carry_out(
    request: RunRequest,
    plan: Plan,
    layout: RunLayout,
    stop: Stop,
    reporter: Reporter,
    before: Before | None = None,
) -> None:
    """Do what a plan says, or what is left of it; the caller holds the run's lock.

    Raises:
        OSError: something cannot be written.
    """
    slots = machine(request.jobs)
    driver = slots.driver.version if slots.driver else ""
    used = {task.environment.plugin: task.environment for task in plan.tasks}
    layout.make_folders()
    write_environments(layout.environments, used.values())
    for data in plan.data:
        write_json(layout.items(data.name), items_document(data))
    run_file = str(request.run_file.absolute())
    header = Header(request.profile, run_file, request.pins, request.jobs, slots.gpus, driver, terms=request.terms)
    if before is not None:
        header = replace(header, started=before.started, resumed=(*before.resumed, now()))
    own = before.results if before else {}
    record = Record(plan, layout, header, own)
    record.save()
    past = Past(
        layout,
        {data.name: data for data in plan.data},
        kinds_of(slots.gpus),
        archive=Archive(request.state_dir, but=layout.id),
        terms=replace(request.terms, proved=request.keeper is not None),
        own=own,
    )
    events = Journal(layout.events, timed=True)
    at_once = min(request.jobs, len(plan.stage("inference")))
    variables = thread_variables(at_once, os.environ)
    placement = LocalMachine(slots)
    setting = Setting(
        plan,
        layout,
        placement,
        events,
        stop,
        past,
        reporter,
        request.grace_s,
        request.backoff_s,
        variables,
        request.keeper,
        request.run_file.absolute().parent,
    )
    events.append({"event": "run-resumed" if before else "run-started", "run": layout.id})
    status = "failed"
    try:
        Scheduler(setting, record).run()
        status = "cancelled" if stop.is_set() else "ok" if all(each.ok for each in record.results) else "failed"
    finally:
        record.close(status)
        events.append({"event": "run-ended", "run": layout.id, "status": status})
        events.close()


def machine(jobs: int = 1) -> Slots:
    """The slots of this machine, as far as ``CUDA_VISIBLE_DEVICES`` allows."""
    return Slots(visible=os.environ.get(VISIBLE), jobs=jobs)


def machine_problems(plan: Plan) -> tuple[Problem, ...]:
    """Warnings of what a plan's tasks would not get on this machine, and of GPUs that a variable hides from them."""
    slots = machine()
    found = []
    for task in plan.tasks:
        if lacking := slots.lacking(task.wish):
            hint = "nvidia-smi -L" if slots.hiding is None else f"env -u {slots.hiding.variable} envbuilder plan"
            text = f"{task.id} {lacking}"
            found.append(Problem("gpu-missing", text, task.environment.plugin, hint=hint, severity="warning"))
    wanted = [task for task in plan.tasks if task.wish.gpus != 0 and task.stage == "inference"]
    if slots.hiding and wanted and not slots.hiding.meant:
        auto = (
            "; gpus: auto takes the CPU" if not slots.hiding.left and any(t.wish.gpus is None for t in wanted) else ""
        )
        hint = f"env -u {slots.hiding.variable} envbuilder plan"
        found.append(Problem("gpus-hidden", f"{slots.hiding.text}{auto}", hint=hint, severity="warning"))
    return tuple(found)


def kinds_of(gpus: Sequence[Gpu]) -> Callable[[Task], frozenset[str]]:
    """What tells the kinds of devices that a task may get."""
    names = [gpu.name for gpu in gpus]
    return lambda task: kinds_for(task.wish.gpus, names)


@contextlib.contextmanager
def stoppable(interrupted: Stop | None) -> Iterator[Stop]:
    """What ends the run; set by Ctrl-C and SIGTERM where the caller has none of its own. The second time kills."""
    if interrupted is not None or threading.current_thread() is not threading.main_thread():
        yield interrupted or Stop()
        return
    stop = Stop()

    def handle(*_: object) -> None:
        if stop.is_set():
            stop.at_once.set()
        stop.set()

    # A terminal that is closed says SIGHUP; nohup has it ignored, and then it stays so.
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = {number: signal.getsignal(number) for number in numbers if signal.getsignal(number) != signal.SIG_IGN}
    for number in before:
        signal.signal(number, handle)
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
