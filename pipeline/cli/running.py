"""Run a run file, or plan one."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from dataclasses import dataclass, field
from datetime import datetime, timezone
from typing import TYPE_CHECKING

from envbuilder.errors import ConfigError, Interrupted
from pipeline.cli.history import load_outcome
from pipeline.config import RunConfig, load_run, plugins_named, read_run_file
from pipeline.config.load import check_plugins
from pipeline.errors import RecordError
from pipeline.layout import Journal, RunLayout, new_run_id, write_environments, write_json
from pipeline.models import Environment, Plan, Reporter, RunOutcome, Silence, Stage
from pipeline.placement import LocalMachine, Stop
from pipeline.plan import make_plan
from pipeline.scheduler import Header, Record, Scheduler, Setting
from pipeline.slots import Slots, thread_variables

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path


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
    """

    run_file: Path
    environments: Sequence[Environment]
    state_dir: Path
    profile: str = "prod"
    pins: Mapping[str, object] = field(default_factory=dict)
    jobs: int = 1
    grace_s: float = 10.0
    backoff_s: float = 1.0


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
    return make_plan(_load(request), request.environments)


def _load(request: RunRequest) -> RunConfig:
    return load_run(request.run_file, {each.plugin: each.stage for each in request.environments})


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
        Interrupted: it was ended early; what was written stays.
    """
    plan = plan_run(request)
    try:
        layout = RunLayout(request.state_dir, new_run_id(plan.name, datetime.now(timezone.utc)))
        layout.create()
        with layout.held(), _stoppable(interrupted) as stop:
            _carry_out(request, plan, layout, stop, reporter or Silence())
    except OSError as error:
        where = str(error.filename or request.state_dir)
        hint = f"df -h {request.state_dir}; ls -ld {request.state_dir}"
        raise RecordError(f"cannot be written: {error.strerror or error}", where=where, hint=hint) from error
    if stop.is_set():
        raise Interrupted(f"run {layout.id} was interrupted", hint=f"envbuilder runs show {layout.id}")
    return load_outcome(layout)


def _carry_out(request: RunRequest, plan: Plan, layout: RunLayout, stop: Stop, reporter: Reporter) -> None:
    slots = Slots(visible=os.environ.get("CUDA_VISIBLE_DEVICES"), jobs=request.jobs)
    driver = slots.driver.version if slots.driver else ""
    used = {task.environment.plugin: task.environment for task in plan.tasks}
    write_environments(layout.environments, used.values())
    for data in plan.data:
        write_json(layout.items(data.name), {"items": [item.id for item in data.items]})
    run_file = str(request.run_file.absolute())
    record = Record(plan, layout, Header(request.profile, run_file, request.pins, request.jobs, slots.gpus, driver))
    record.save()
    events = Journal(layout.events, timed=True)
    at_once = min(request.jobs, len(plan.stage("inference")))
    variables = thread_variables(at_once, os.environ)
    placement = LocalMachine(slots)
    setting = Setting(plan, layout, placement, events, stop, reporter, request.grace_s, request.backoff_s, variables)
    events.append({"event": "run-started", "run": layout.id})
    status = "failed"
    try:
        Scheduler(setting, record).run()
        status = "cancelled" if stop.is_set() else "ok" if all(each.ok for each in record.results) else "failed"
    finally:
        record.close(status)
        events.append({"event": "run-ended", "run": layout.id, "status": status})
        events.close()


@contextlib.contextmanager
def _stoppable(interrupted: Stop | None) -> Iterator[Stop]:
    """What ends the run; set by Ctrl-C and SIGTERM where the caller has none of its own. The second time kills."""
    if interrupted is not None or threading.current_thread() is not threading.main_thread():
        yield interrupted or Stop()
        return
    stop = Stop()

    def handle(*_: object) -> None:
        if stop.is_set():
            stop.at_once.set()
        stop.set()

    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    for number in before:
        signal.signal(number, handle)
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
