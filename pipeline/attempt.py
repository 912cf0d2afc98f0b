"""One try at a task: a worker in a session of its own, listened to, timed, and ended with all it started."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from envbuilder.process import clean_environment
from pipeline.layout import write_json
from pipeline.protocol import CONTEXT_VARIABLE, Decoder, Message, worker_argv

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable, Mapping

    from pipeline.models import Environment, Status

_STATUSES: Mapping[str, Status] = {"oom-gpu": "oom-gpu", "oom-host": "oom-host", "killed": "killed"}
_TICK_S = 0.1
_BLOCK = 1 << 16
# A worker that has said all it has to say may take so long to end: libraries have threads and caches to put away.
_LEAVE_S = 30.0
_GONE_S = 60.0


@dataclass(frozen=True)
class AttemptRequest:
    """What to try.

    Attributes:
        id: the attempt's id, also in each of its messages.
        environment: where it runs.
        job: the context document, whole.
        folder: working folder; the context file is written there.
        stdout: log file of the worker's standard output.
        stderr: log file of its standard error.
        variables: environment variables beside the environment's own.
        timeout_s: seconds for all of it, or None.
        item_timeout_s: seconds for each item of a batch, or None.
        grace_s: seconds between asking a worker to end and killing it.
        spent_s: seconds of the limit for all of it that are gone already, where it goes on from another attempt.
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
    grace_s: float = 10.0
    spent_s: float = 0.0


@dataclass(frozen=True)
class AttemptResult:
    """How a try ended.

    Attributes:
        status: as of a task.
        code: what went wrong, finer than the status; None for ``ok``.
        error: the same in words.
        wall_s: seconds from start to end.
        returncode: as in `subprocess`; None where nothing was started.
        anomalies: what was odd about the messages, counted.
        survivors: process ids of the session that even SIGKILL has not ended; its slot must not be given back.
        messages: the last message of each kind but answers.
    """

    status: Status
    code: str | None = None
    error: str | None = None
    wall_s: float = 0.0
    returncode: int | None = None
    anomalies: Mapping[str, int] = field(default_factory=dict)
    survivors: tuple[int, ...] = ()
    messages: Mapping[str, Message] = field(default_factory=dict)

    @property
    def worth_retrying(self) -> bool:
        """Whether another try may end otherwise: what a plugin raised or was refused for would come again."""
        return self.status == "killed" or self.code == "worker-crashed"


class _Clock:
    """Knows when an attempt is out of time."""

    def __init__(self, request: AttemptRequest) -> None:
        self.begin = time.monotonic()
        self._request = request
        self._waiting: dict[str, None] = {}
        self._since = self.begin
        self._left_at: float | None = None

    def note(self, message: Message) -> None:
        """Start, restart or stop the item clock, as the message says."""
        if message.kind == "started":
            listed = message.body.get("items")
            self._waiting = dict.fromkeys(map(str, listed)) if isinstance(listed, list) else {}
            self._since = time.monotonic()
        elif message.kind == "answer":
            self._waiting.pop(str(message.body.get("item")), None)
            self._since = time.monotonic()
        elif message.kind in {"done", "failed"}:
            self._left_at = time.monotonic()

    @property
    def is_leaving(self) -> bool:
        """Whether the worker has said its last word."""
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
        return None


def run_attempt(
    request: AttemptRequest, *, interrupted: threading.Event, listen: Callable[[Message], None]
) -> AttemptResult:
    """Run a worker to its end, and be sure that nothing of it is left.

    Args:
        request: what to try.
        interrupted: set when everything is to end.
        listen: gets each message as it comes.
    """
    request.folder.mkdir(parents=True, exist_ok=True)
    context = request.folder / "context.json"
    write_json(context, request.job)
    with contextlib.ExitStack() as stack:
        messages_in, messages_out = _pipe(stack)
        # Never written to: when this process is gone, however it went, its end closes and the worker's watcher acts.
        death_in, _death_out = _pipe(stack)
        clock = _Clock(request)
        try:
            process = _spawn(request, context, protocol=messages_out.fileno(), death=death_in.fileno())
        except OSError as error:
            reason = f"cannot start {request.environment.python}: {error.strerror or error}"
            return AttemptResult("failed", "worker-missing", reason)
        messages_out.close()
        death_in.close()
        ears = _Ears(messages_in.fileno(), Decoder(request.id), clock, listen)
        try:
            verdict = _await(process, ears, clock, interrupted)
        finally:
            survivors = end_session(process, 0.0 if clock.is_leaving else request.grace_s)
        ears.drain()
        status, code, text = _judge(process, ears, verdict)
        wall_s = time.monotonic() - clock.begin
        odd = dict(ears.decoder.anomalies)
        return AttemptResult(status, code, text, wall_s, process.returncode, odd, survivors, ears.last)


def _pipe(stack: contextlib.ExitStack) -> tuple[_Descriptor, _Descriptor]:
    ends = tuple(_Descriptor(number) for number in os.pipe())
    for end in ends:
        stack.callback(end.close)
    return ends[0], ends[1]


class _Descriptor:
    """A file descriptor that is closed once."""

    def __init__(self, number: int) -> None:
        self._number: int | None = number

    def fileno(self) -> int:
        if self._number is None:
            raise ValueError("closed")
        return self._number

    def close(self) -> None:
        if self._number is not None:
            os.close(self._number)
            self._number = None


def _spawn(request: AttemptRequest, context: Path, *, protocol: int, death: int) -> subprocess.Popen[bytes]:
    environment = request.environment
    base = clean_environment()
    variables = {
        "PYTHONNOUSERSITE": "1",
        "PYTHONHASHSEED": str(request.job.get("seed", 0)),
        "VIRTUAL_ENV": str(environment.path),
        "PATH": f"{environment.path / 'bin'}{os.pathsep}{base.get('PATH', os.defpath)}",
        **request.variables,
        **environment.env,
        CONTEXT_VARIABLE: str(context),
    }
    with request.stdout.open("ab") as out, request.stderr.open("ab") as err:
        return subprocess.Popen(
            worker_argv(environment, protocol=protocol, death=death),
            cwd=request.folder,
            env={**base, **variables},
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=err,
            pass_fds=(protocol, death),
            start_new_session=True,
        )


class _Ears:
    """Reads the protocol's pipe."""

    def __init__(self, descriptor: int, decoder: Decoder, clock: _Clock, listen: Callable[[Message], None]) -> None:
        self._descriptor = descriptor
        self.decoder = decoder
        self._clock = clock
        self._listen = listen
        self.last: dict[str, Message] = {}
        self.open = True
        os.set_blocking(descriptor, False)

    def hear(self, patience_s: float) -> bool:
        """Read once; False where nothing came."""
        if not self.open:
            time.sleep(patience_s)
            return False
        poll = select.poll()
        poll.register(self._descriptor, select.POLLIN)
        if not poll.poll(patience_s * 1000):
            return False
        block = os.read(self._descriptor, _BLOCK)
        self.open = bool(block)
        for message in self.decoder.feed(block):
            self._clock.note(message)
            if message.kind != "answer":
                self.last[message.kind] = message
            self._listen(message)
        return self.open

    def drain(self) -> None:
        """Read what is left; whoever holds the other end still does not keep us."""
        deadline = time.monotonic() + _TICK_S * 10
        while time.monotonic() < deadline and self.hear(0.0):
            pass
        self.decoder.finish()


def _await(
    process: subprocess.Popen[bytes], ears: _Ears, clock: _Clock, interrupted: threading.Event
) -> tuple[Status, str, str] | None:
    """Listen until the worker ends or has to; the verdict where it is ours."""
    while not _has_exited(process.pid):
        ears.hear(_TICK_S)
        if interrupted.is_set():
            return "cancelled", "interrupted", "stopped because the run was interrupted"
        overdue = clock.overdue()
        if overdue:
            return ("timeout", *overdue) if not clock.is_leaving else None
    return None


def _has_exited(process_id: int) -> bool:
    # Looks without reaping: until it is reaped its id, which is the group's and the session's, is nobody else's.
    return os.waitid(os.P_PID, process_id, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None


def _judge(
    process: subprocess.Popen[bytes], ears: _Ears, verdict: tuple[Status, str, str] | None
) -> tuple[Status, str | None, str | None]:
    failed = ears.last.get("failed")
    if "done" in ears.last:
        return "ok", None, None
    if failed is not None:
        status = _STATUSES.get(failed.text("status") or "", "failed")
        return status, failed.text("code") or "plugin-failed", failed.text("error")
    if verdict is not None:
        return verdict
    if process.returncode is None:
        return "failed", "worker-stuck", f"process {process.pid} hangs in the kernel and cannot be killed"
    if process.returncode < 0:
        return "killed", "worker-killed", _signal_text(-process.returncode)
    return "failed", "worker-crashed", f"the worker ended with exit status {process.returncode} and no last word"


def _signal_text(number: int) -> str:
    name = signal.Signals(number).name if number in set(signal.Signals) else str(number)
    text = f"the worker was killed by {name}"
    return f"{text}; the kernel short of memory is suspected" if number == signal.SIGKILL else text


def end_session(process: subprocess.Popen[bytes], grace_s: float) -> tuple[int, ...]:
    """End a session leader and everything in its session: ask, wait, kill, wait until all are gone.

    Returns:
        Those that are still there after a minute: they hang in the kernel.
    """
    if not _has_exited(process.pid):
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGTERM)
        deadline = time.monotonic() + grace_s
        while time.monotonic() < deadline and not _has_exited(process.pid):
            time.sleep(_TICK_S / 5)
    deadline = time.monotonic() + _GONE_S
    while True:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
        members = session_members(process.pid)
        for member in members:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(member, signal.SIGKILL)
        if not members or time.monotonic() > deadline:
            break
        time.sleep(_TICK_S / 5)
    if process.pid not in members:
        process.wait()
    return members


def session_members(session: int) -> tuple[int, ...]:
    """Living processes of a session, whatever group they are in; zombies are none."""
    members = []
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            with contextlib.suppress(OSError, ValueError):
                # The name, in brackets, may hold anything, brackets too.
                state, _, _, its = (folder / "stat").read_bytes().rpartition(b")")[2].split()[:4]
                if int(its) == session and state not in {b"Z", b"X"}:
                    members.append(int(folder.name))
    return tuple(members)
