"""One try at a task: a worker, cold or warm, is told its job, listened to, timed, and ended with all it started."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from envbuilder import caches
from envbuilder.process import clean_environment
from pipeline import guard, orphans
from pipeline.layout import CONTEXT_NAME, write_context
from pipeline.protocol import CONTEXT_VARIABLE, Decoder, Message, script, worker_argv
from pipeline.redaction import clean_file, clean_text
from pipeline.supervisor import Documents, packed

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from pipeline.models import Environment, Status

_STATUSES: Mapping[str, Status] = {"oom-gpu": "oom-gpu", "oom-host": "oom-host", "killed": "killed"}
# What a second try may find otherwise. What a plugin raised or was refused for would come again.
_FLEETING = frozenset(
    {"worker-crashed", "worker-killed", "worker-hung", "oom-killed", "gpu-memory-foreign", "gpu-broken"}
)
_TICK_S = 0.1
_BLOCK = 1 << 16
# A worker that has said all it has to say may take so long to end: libraries have threads and caches to put away.
_LEAVE_S = 30.0
# A supervisor gives up after a minute on what hangs in the kernel, and says so.
_SUPERVISOR_S = 90.0
_LOG_BYTES = 64 * 1024 * 1024
# Who points one of these into the state folder means it to be written.
_CACHES = ("TMPDIR", "XDG_CACHE_HOME", "HF_HOME", "HF_HUB_CACHE", "TORCH_HOME", "TRITON_CACHE_DIR", "CUDA_CACHE_PATH")


@dataclass(frozen=True)
class AttemptRequest:
    """What to try.

    Attributes:
        id: the attempt's id, also in each of its messages.
        environment: where it runs.
        job: the context document, whole.
        folder: working folder; the context file is written there.
        stdout: log file of the standard output of a worker that is started for it.
        stderr: log file of its standard error.
        variables: environment variables beside the environment's own.
        timeout_s: seconds for all of it, or None.
        item_timeout_s: seconds for each item of a batch, or None.
        silence_s: seconds without any message after which a worker counts as hung, or None.
        grace_s: seconds between asking a worker to end and killing it.
        spent_s: seconds of the limit for all of it that are gone already, where it goes on from another attempt.
        closed: what its worker cannot write, where the kernel sees to that.
        opened: what of it it can write all the same.
    """

    id: str
    environment: Environment
    job: Mapping[str, object]
    folder: Path
    stdout: Path
    stderr: Path
    variables: Mapping[str, str] = field(default_factory=dict)
    timeout_s: float | None = None
    item_timeout_s: float | None = None
    silence_s: float | None = None
    grace_s: float = 10.0
    spent_s: float = 0.0
    closed: tuple[Path, ...] = ()
    opened: tuple[Path, ...] = ()

    @property
    def context(self) -> Path:
        """The file with the job."""
        return self.folder / CONTEXT_NAME


@dataclass(frozen=True)
class AttemptResult:
    """How a try ended.

    Attributes:
        status: as of a task.
        code: what went wrong, finer than the status; None for ``ok``.
        error: the same in words.
        wall_s: seconds from start to end.
        returncode: as in `subprocess`; None where the worker was not started, or still lives.
        anomalies: what was odd about the messages, counted.
        survivors: process ids that even SIGKILL has not ended; their slot must not be given back.
        messages: the last message of each kind but answers.
        peak_ram_bytes: of the largest process, by the kernel's accounting; None while the worker lives.
        cpu_s: seconds of CPU time of all its processes that have been reaped; None while the worker lives.
        oom_kills: how often the kernel killed for want of memory meanwhile: in our ``cgroup``, on the ``machine``.
        stderr: the log of the worker's standard error.
        guard: what kept the worker from writing where it has no business.
    """

    status: Status
    code: str | None = None
    error: str | None = None
    wall_s: float = 0.0
    returncode: int | None = None
    anomalies: Mapping[str, int] = field(default_factory=dict)
    survivors: tuple[int, ...] = ()
    messages: Mapping[str, Message] = field(default_factory=dict)
    peak_ram_bytes: int | None = None
    cpu_s: float | None = None
    oom_kills: Mapping[str, int] = field(default_factory=dict)
    stderr: Path | None = None
    guard: str = ""

    @property
    def worth_retrying(self) -> bool:
        """Whether another try may end otherwise."""
        return self.status == "killed" or self.code in _FLEETING


@dataclass(frozen=True)
class Ended:
    """How a worker's whole tree of processes ended, as its supervisor tells it; see `AttemptResult`."""

    returncode: int | None = None
    survivors: tuple[int, ...] = ()
    peak_ram_bytes: int | None = None
    cpu_s: float | None = None
    oom_kills: Mapping[str, int] = field(default_factory=dict)
    refused: str | None = None


class Stop(threading.Event):
    """Set when everything is to end; ``at_once`` when nobody wants to wait for it any more."""

    def __init__(self) -> None:
        super().__init__()
        self.at_once = threading.Event()


class _Clock:
    """Knows when an attempt is out of time."""

    def __init__(self, request: AttemptRequest) -> None:
        self.begin = time.monotonic()
        self._request = request
        self._waiting: dict[str, None] = {}
        self._since = self._heard = self.begin
        self._left_at: float | None = None

    def note(self, message: Message) -> None:
        """Start, restart or stop the item clock, as the message says."""
        self._heard = time.monotonic()
        if message.kind == "started":
            listed = message.body.get("items")
            self._waiting = dict.fromkeys(map(str, listed)) if isinstance(listed, list) else {}
            self._since = self._heard
        elif message.kind == "answer":
            self._waiting.pop(str(message.body.get("item")), None)
            self._since = self._heard
        elif message.kind in {"done", "failed"}:
            self._left_at = self._heard

    @property
    def is_leaving(self) -> bool:
        """Whether the worker has said its last word on this attempt."""
        return self._left_at is not None

    def overdue(self) -> tuple[str, str] | None:
        """Code and words of what took too long, or None."""
        now, request = time.monotonic(), self._request
        if self._left_at is not None:
            return ("leave", "did not end") if now - self._left_at > _LEAVE_S else None
        if request.timeout_s is not None and now - self.begin + request.spent_s > request.timeout_s:
            return "timeout", f"did not end within {request.timeout_s:g} s"
        most = (request.item_timeout_s or 0.0) * len(self._waiting)
        if most and now - self._since > most:
            what = f"item {next(iter(self._waiting))!r}" if len(self._waiting) == 1 else f"{len(self._waiting)} items"
            return "item-timeout", f"{what} not answered within {most:g} s"
        if request.silence_s is not None and now - self._heard > request.silence_s:
            return "worker-hung", f"the worker gave no sign of life for {request.silence_s:g} s"
        return None


class Worker:
    """A process in an environment that does one job after the other, below a supervisor of its own.

    Args:
        request: the first attempt that it is for; its environment, variables and logs hold for all that follow.

    Raises:
        OSError: the supervisor cannot be started.
    """

    def __init__(self, request: AttemptRequest) -> None:
        self.stdout, self.stderr = request.stdout, request.stderr
        self.ended: Ended | None = None
        self.guard = ""
        self._refused: str | None = None
        self._mark = orphans.new_mark()
        self.messages, messages_out = os.pipe()
        jobs_in, self._jobs = os.pipe()
        self.control, theirs = socket.socketpair()
        self._told = Documents(self.control.fileno())
        try:
            self._supervisor = subprocess.Popen(
                (sys.executable, "-I", "-S", *script("supervisor.py", theirs.fileno())),
                env=clean_environment(),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                pass_fds=(theirs.fileno(), messages_out, jobs_in),
                start_new_session=True,
            )
        except OSError:
            orphans.settle(self._mark)
            self._let_go()
            raise
        finally:
            theirs.close()
            os.close(messages_out)
            os.close(jobs_in)
        variables = _variables(request, self._mark)
        order = {
            "argv": worker_argv(request.environment, protocol=messages_out, jobs=jobs_in),
            "cwd": str(request.folder),
            "env": variables,
            "guard": _guard(request, variables),
            "mark": self._mark,
            "pass_fds": (messages_out, jobs_in),
            "stdout": str(request.stdout),
            "stderr": str(request.stderr),
            "log_bytes": _LOG_BYTES,
            "grace_s": request.grace_s,
        }
        self._send(order)
        os.set_blocking(self.messages, False)
        self.control.setblocking(False)

    @property
    def root(self) -> int:
        """The process below which everything of it is: its supervisor's."""
        return self._supervisor.pid

    def assign(self, request: AttemptRequest) -> None:
        """Give it a job, by the path of its context file, which its supervisor removes where we cannot.

        Raises:
            OSError: the context cannot be written.
        """
        self._send({"context": str(request.context)})
        write_context(request.context, request.job)
        with contextlib.suppress(BrokenPipeError):  # Its end is told elsewhere.
            os.write(self._jobs, os.fsencode(request.context) + b"\n")

    def dismiss(self) -> None:
        """Let it know that no further job comes: it ends by itself."""
        if self._jobs >= 0:
            os.close(self._jobs)
            self._jobs = -1

    def hear(self) -> Ended | None:
        """Take in what the supervisor says; how it all ended, once it has."""
        if self.ended is not None:
            return self.ended
        with contextlib.suppress(BlockingIOError):
            for document in self._told.read():
                self._refused = document.get("refused", self._refused)
                self.guard = document.get("guard", self.guard)
                if "ended" in document:
                    self.ended = Ended(**document["ended"], refused=self._refused)
        if self._told.ended and self.ended is None:
            # Somebody killed the supervisor. The worker dies with it; the rest is found by a mark that it inherited.
            self.ended = Ended(survivors=orphans.end({self._mark}))
        if self.ended is not None and not self.ended.survivors:
            orphans.settle(self._mark)
        return self.ended

    def finish(self, grace_s: float, at_once: threading.Event | None = None) -> Ended:
        """End it and everything it started: ask, wait (unless `at_once` is set), kill, wait until all are gone."""
        self.dismiss()
        self._ask_to_end(grace_s)
        deadline = time.monotonic() + grace_s + _SUPERVISOR_S
        while (ended := self.hear()) is None:
            _readable((self.control.fileno(),), _TICK_S)
            if at_once is not None and at_once.is_set():
                self._ask_to_end(0.0)
            if time.monotonic() > deadline:
                self._supervisor.kill()
        return ended

    def _ask_to_end(self, grace_s: float) -> None:
        self._send({"end": grace_s})

    def _send(self, document: Mapping[str, object]) -> None:
        with contextlib.suppress(OSError):  # A supervisor that is gone already shows in its silence.
            self.control.sendall(packed(document))

    def leave(self) -> Ended:
        """Let it end by itself, now that no further job comes; end it where it does not, and let go of it."""
        self.dismiss()
        deadline = time.monotonic() + _LEAVE_S
        while self.hear() is None and time.monotonic() < deadline:
            _readable((self.control.fileno(),), _TICK_S)
        ended = self.finish(0.0)
        self.close()
        return ended

    def close(self) -> None:
        """Let go of everything that leads to it. Where it still lived, its supervisor would end it now."""
        self._let_go()
        self._supervisor.wait()
        for log in (self.stdout, self.stderr):
            clean_file(log)

    def _let_go(self) -> None:
        self.dismiss()
        self.control.close()
        if self.messages >= 0:
            os.close(self.messages)
            self.messages = -1


def _variables(request: AttemptRequest, mark: int) -> dict[str, str]:
    environment = request.environment
    base = clean_environment()
    bytecode = {"PYTHONPYCACHEPREFIX": str(environment.pycache)} if environment.pycache else {}
    return {
        **base,
        **caches.variables(environment.cache_dir / "compiled" / environment.key, base),
        **bytecode,
        "PYTHONNOUSERSITE": "1",
        "PYTHONHASHSEED": str(request.job.get("seed", 0)),
        "VIRTUAL_ENV": str(environment.path),
        "PATH": f"{environment.path / 'bin'}{os.pathsep}{base.get('PATH', os.defpath)}",
        **request.variables,
        **environment.env,
        CONTEXT_VARIABLE: str(request.context),
        orphans.WORKER: f"{request.folder.parent.parent.name}/{request.id}",
        orphans.MARK: str(mark),
    }


def _guard(request: AttemptRequest, variables: Mapping[str, str]) -> dict[str, object]:
    """What a worker cannot write, what of it it can all the same, and the program that sees to it."""
    environment = request.environment
    own = [environment.cache_dir, *filter(None, [environment.pycache])]
    for folder in own:
        with contextlib.suppress(OSError):  # Then it cannot be written either.
            folder.mkdir(parents=True, exist_ok=True)
    caches = [variables[name] for name in _CACHES if variables.get(name)]
    return {
        "program": str(Path(guard.__file__)),
        "closed": list(map(str, request.closed)),
        "opened": [*map(str, (*request.opened, *own)), *caches],
        "wanted": os.environ.get(guard.VARIABLE, ""),
    }


def _readable(descriptors: tuple[int, ...], patience_s: float) -> set[int]:
    poll = select.poll()
    for descriptor in descriptors:
        poll.register(descriptor, select.POLLIN)
    return {descriptor for descriptor, _ in poll.poll(patience_s * 1000)}


@dataclass
class _Conversation:
    """One attempt's talk with its worker."""

    request: AttemptRequest
    worker: Worker
    listen: Callable[[Message], None]

    def __post_init__(self) -> None:
        self.decoder = Decoder(self.request.id)
        self.clock = _Clock(self.request)
        self.last: dict[str, Message] = {}
        self._open = True

    def until_said(self, interrupted: Stop, *, keep: bool) -> tuple[Status, str, str] | None:
        """Listen until the worker has ended, has to, or (where it is kept) has done; the verdict where it is ours."""
        while self.worker.hear() is None:
            self._hear(_TICK_S)
            if self.clock.is_leaving:
                if keep and "done" in self.last:
                    return None
                self.worker.dismiss()
            if interrupted.is_set() and not self.clock.is_leaving:
                return "cancelled", "interrupted", "stopped because the run was interrupted"
            overdue = self.clock.overdue()
            if overdue:
                return None if self.clock.is_leaving else ("timeout", *overdue)
        return None

    def _hear(self, patience_s: float) -> bool:
        """Read once; False where no message can come."""
        watched = (self.worker.control.fileno(), *([self.worker.messages] if self._open else []))
        if self.worker.messages not in _readable(watched, patience_s):
            return False
        block = os.read(self.worker.messages, _BLOCK)
        self._open = bool(block)
        for message in self.decoder.feed(block):
            self.clock.note(message)
            if message.kind != "answer":
                self.last[message.kind] = message
            self.listen(message)
        return self._open

    def conclude(self, stop: Stop) -> None:
        """End the worker, and read what it still said."""
        self.worker.finish(0.0 if self.clock.is_leaving else self.request.grace_s, stop.at_once)
        self._drain()
        self.worker.close()

    def _drain(self) -> None:
        """Read what is left; whoever holds the other end still does not keep us."""
        deadline = time.monotonic() + _TICK_S * 10
        while time.monotonic() < deadline and self._hear(0.0):
            pass
        self.decoder.finish()


def run_attempt(
    request: AttemptRequest,
    *,
    interrupted: Stop,
    listen: Callable[[Message], None],
    begun: Callable[[int], None] = lambda _: None,
    warm: Worker | None = None,
    keep: bool = False,
) -> tuple[AttemptResult, Worker | None]:
    """Have a worker do one job, and be sure that nothing of it is left, or that it waits for the next.

    Args:
        request: what to try.
        interrupted: set when everything is to end.
        listen: gets each message as it comes.
        begun: gets the id of the process below which everything of the attempt is.
        warm: a worker that has done jobs before; a fresh one is started where there is none.
        keep: whether a worker that did its job well is to be kept for another.

    Returns:
        How it went, and the worker, where it is kept.
    """
    begin = time.monotonic()
    request.folder.mkdir(parents=True, exist_ok=True)
    try:
        worker = warm or Worker(request)
    except OSError as error:
        reason = f"cannot start a supervisor: {error.strerror or error}"
        return AttemptResult("failed", "worker-missing", reason), None
    talk = _Conversation(request, worker, listen)
    kept = False
    verdict = None
    try:
        begun(worker.root)
        worker.assign(request)
        verdict = talk.until_said(interrupted, keep=keep)
        kept = keep and "done" in talk.last and worker.ended is None
    finally:
        if not kept:
            talk.conclude(interrupted)
        request.context.unlink(missing_ok=True)  # It holds parameters as they are, secrets too.
        for name in ("answers", "evaluation"):  # What a program wrote, which may repeat them.
            clean_file(Path(str(request.job.get(name))))
    status, code, text = _judge(worker, talk, verdict)
    ended = worker.ended or Ended()
    result = AttemptResult(
        status,
        code,
        text and clean_text(text),
        time.monotonic() - begin,
        ended.returncode,
        dict(talk.decoder.anomalies),
        ended.survivors,
        talk.last,
        ended.peak_ram_bytes,
        ended.cpu_s,
        ended.oom_kills,
        worker.stderr,
        worker.guard,
    )
    return result, worker if kept else None


def _judge(
    worker: Worker, talk: _Conversation, verdict: tuple[Status, str, str] | None
) -> tuple[Status, str | None, str | None]:
    failed = talk.last.get("failed")
    if "done" in talk.last:
        return "ok", None, None
    if failed is not None:
        status = _STATUSES.get(failed.text("status") or "", "failed")
        told = status, failed.text("code") or "plugin-failed", failed.text("error")
        return _starved(worker.ended, *told) if worker.ended and status == "killed" else told
    return verdict or _wordless(worker.ended or Ended(), talk.request.environment)


def _wordless(ended: Ended, environment: Environment) -> tuple[Status, str, str | None]:
    """The verdict on a worker that ended without a last word."""
    if ended.refused is not None:
        return "failed", "worker-missing", f"cannot start {environment.python}: {ended.refused}"
    if ended.returncode is None and ended.survivors:
        return "failed", "worker-stuck", "the worker hangs in the kernel and cannot be killed"
    if ended.returncode is None:
        return "killed", "worker-killed", "the worker's supervisor was killed, and the worker with it"
    if ended.returncode < 0:
        return _starved(ended, "killed", "worker-killed", _signal_text(-ended.returncode))
    text = f"the worker ended with exit status {ended.returncode} and no last word"
    return "failed", "worker-crashed", text + _shell_text(ended.returncode)


def _starved(ended: Ended, status: Status, code: str, text: str | None) -> tuple[Status, str, str | None]:
    """The same, or ``oom-host`` where the kernel's own counters are evidence of it."""
    if ended.returncode not in {-signal.SIGKILL, None} and code == "worker-killed":
        return status, code, text
    if count := ended.oom_kills.get("cgroup"):
        evidence = f"the kernel killed {count} process{'es' * (count > 1)} of its cgroup for want of memory meanwhile"
        return "oom-host", "oom-killed", f"{text}; {evidence}"
    if ended.oom_kills.get("machine"):
        # Another cgroup's memory may have been short, and something else have killed this one.
        text = f"{text}; want of memory is suspected: the kernel killed for it on this machine meanwhile"
    return status, code, text


def _signal_text(number: int) -> str:
    name = signal.Signals(number).name if number in set(signal.Signals) else str(number)
    return f"the worker was killed by {name}"


def _shell_text(returncode: int) -> str:
    number = returncode - 128
    return f" (a shell's way of telling {signal.Signals(number).name})" if number in set(signal.Signals) else ""
