"""The supervisor of one worker: starts it, outlives it, and leaves nothing of it behind.

A small process between the runner and a worker, of the standard library alone, called as
``python -I -S … supervisor.py CONTROL_FD``. It is in a session of its own and the reaper of every orphan below it
(``PR_SET_CHILD_SUBREAPER``), so that double forks and ``setsid`` lead nowhere else: while anything that the worker
started is alive, or not yet reaped, ``waitpid`` has something to say, and once it has not, nothing is left.

On the control socket the runner sends one document that says what to start, then ``{"context": path}`` for each job,
and later, if it wants the worker to end, ``{"end": seconds of grace}``. The supervisor answers ``{"pid": ...}`` and, when nothing is left, ``{"ended": ...}``.
Where the socket ends, the runner is gone, however it went: everything is killed at once, and the context, which may
hold secrets, removed.

Each task waits for a supervisor to start, so it imports little: both ends are one interpreter and need no more than
`marshal` to talk, which unlike `json` and `socket` is there already.
"""

from __future__ import annotations

import ctypes
import marshal
import os
import resource
import select
import signal
import sys
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from typing import Any

# From linux/prctl.h.
_SET_PDEATHSIG = 1
_SET_CHILD_SUBREAPER = 36
# From asm-generic/resource.h. It limits nothing, and so it can carry a mark; see `pipeline.orphans`.
_RLIMIT_LOCKS = 10

_BLOCK = 1 << 16
_LENGTH = 4
# What even SIGKILL has not ended by then hangs in the kernel.
_GONE_S = 60.0
_PAUSE_S = 0.005
# A log that grows beyond any use keeps its beginning and its end.
_LOG_TAIL = 1 << 20


def main() -> int:
    """Supervise one worker."""
    control = int(sys.argv[1])
    os.set_inheritable(control, False)
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    wakeup_in, wakeup_out = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    signal.set_wakeup_fd(wakeup_out, warn_on_full_buffer=False)
    for number in (signal.SIGCHLD, signal.SIGTERM):
        signal.signal(number, lambda *_: None)
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    orders = Documents(control)
    while not orders.ended:
        for order in orders.read():
            Supervisor(control, orders, wakeup_in, libc, order).run()
            return 0
    return 0


def packed(document: Mapping[str, object]) -> bytes:
    """A document as it goes over the control socket: its length in four bytes, and `marshal`'s form of it."""
    data = marshal.dumps(dict(document))
    return len(data).to_bytes(_LENGTH, "big") + data


class Documents:
    """What comes in over a control socket.

    Args:
        descriptor: the socket's.
    """

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._rest = b""
        self.ended = False

    def read(self) -> Iterator[Any]:
        """The documents that one read completes.

        Raises:
            BlockingIOError: there is nothing to read now.
        """
        try:
            block = os.read(self._descriptor, _BLOCK)
        except ConnectionError:
            block = b""
        self.ended = not block
        self._rest += block
        while len(self._rest) >= _LENGTH:
            end = _LENGTH + int.from_bytes(self._rest[:_LENGTH], "big")
            if len(self._rest) < end:
                return
            document, self._rest = self._rest[_LENGTH:end], self._rest[end:]
            yield marshal.loads(document)  # noqa: S302 - it comes from the process that started us, or that we started


class _Log:
    """A log file fed through a pipe, with a limit: beyond it the middle is left out."""

    def __init__(self, path: str, limit: int) -> None:
        self.source, self.sink = os.pipe2(os.O_CLOEXEC)
        os.set_blocking(self.source, False)
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)
        self._left = limit - os.fstat(self._file).st_size
        self._tail = b""
        self._dropped = 0
        self.open = True

    def pump(self) -> None:
        """Take what is there now."""
        try:
            block = os.read(self.source, _BLOCK * 16)
        except BlockingIOError:
            return
        if not block:
            self.open = False
        fitting = block[: max(self._left, 0)]
        self._left -= len(fitting)
        self._write(fitting)
        rest = self._tail + block[len(fitting) :]
        self._tail = rest[-_LOG_TAIL:]
        self._dropped += len(rest) - len(self._tail)

    def close(self) -> None:
        """Write the end of what did not fit."""
        for _ in range(64):
            if self.open:
                self.pump()
        if self._dropped:
            self._write(b"\n[%d bytes are left out here]\n" % self._dropped)
        self._write(self._tail)
        os.close(self._file)
        os.close(self.source)

    def _write(self, data: bytes) -> None:
        try:
            _write(self._file, data)
        except OSError:  # A full disk must not keep anybody from ending processes.
            self._left = 0


class Supervisor:
    """One worker from start to end.

    Args:
        control: the socket to the runner.
        orders: what comes in on it.
        wakeup: a descriptor that can be read when a signal has come.
        libc: for prctl.
        order: ``argv``, ``cwd``, ``env``, ``mark``, ``pass_fds``, ``stdout``, ``stderr`` (paths), ``log_bytes``,
            ``grace_s``, and ``guard``: what it cannot write, if anything.
    """

    def __init__(
        self, control: int, orders: Documents, wakeup: int, libc: ctypes.CDLL, order: Mapping[str, Any]
    ) -> None:
        self._control = control
        self._orders = orders
        self._wakeup = wakeup
        self._libc = libc
        self._order = order
        self._logs = [_Log(order[name], order["log_bytes"]) for name in ("stdout", "stderr")]
        self._status: int | None = None
        self._alone = False
        self._kill_at: float | None = None
        self._deadline: float | None = None
        self._context: str | None = None
        self._evidence = oom_kills()
        self._worker = self._start()

    def _start(self) -> int:
        """Fork the worker; it dies with us, should we be killed."""
        supervisor = os.getpid()
        worker = os.fork()
        if worker:
            for descriptor in self._order["pass_fds"]:
                os.close(descriptor)
            for log in self._logs:
                os.close(log.sink)
            return worker
        try:
            os.setsid()
            self._guard()
            self._libc.prctl(_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
            if os.getppid() != supervisor:
                os._exit(1)
            signal.set_wakeup_fd(-1)
            for number in (signal.SIGCHLD, signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
                signal.signal(number, signal.SIG_DFL)
            # What Python has its own processes ignore is not for others to inherit.
            for ignored in (signal.SIGPIPE, signal.SIGXFSZ):
                signal.signal(ignored, signal.SIG_DFL)
            _set_mark(self._order["mark"])
            os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
            for descriptor, log in enumerate(self._logs, 1):
                os.dup2(log.sink, descriptor)
            for descriptor in self._order["pass_fds"]:
                os.set_inheritable(descriptor, True)
            os.chdir(self._order["cwd"])
            os.execvpe(self._order["argv"][0], self._order["argv"], self._order["env"])  # noqa: S606
        except OSError as error:
            self._tell({"refused": error.strerror or str(error)})
        os._exit(127)

    def _guard(self) -> None:
        """Have the worker's process write only where it has business to; without that it works all the same."""
        order = self._order.get("guard")
        if not order:
            return
        from importlib.machinery import SourceFileLoader

        module: dict[str, Any] = {"__name__": "guard"}
        held = "walk"
        try:
            exec(SourceFileLoader("guard", order["program"]).get_code("guard"), module)  # type: ignore[arg-type]  # noqa: S102 - a file of ours
            held = module["hold"](order["closed"], order["opened"], order["wanted"])
        except Exception:  # noqa: BLE001 - whatever it is, no worker fails for it.
            held = "walk"
        self._tell({"guard": held})

    def run(self) -> None:
        """Wait for the end, whatever brings it."""
        self._tell({"pid": self._worker})
        while not self._alone and not self._is_hopeless():
            self._listen()
            self._reap()
            self._end_if_due()
        survivors = () if self._alone else tuple(descendants(os.getpid()))
        for log in self._logs:
            log.close()
        if self._orders.ended and self._context is not None:
            _remove(self._context)
        used = resource.getrusage(resource.RUSAGE_CHILDREN)
        after = oom_kills()
        ended = {
            "returncode": None if self._status is None else os.waitstatus_to_exitcode(self._status),
            "survivors": survivors,
            "peak_ram_bytes": used.ru_maxrss * 1024,
            "cpu_s": used.ru_utime + used.ru_stime,
            "oom_kills": {name: after[name] - count for name, count in self._evidence.items() if name in after},
        }
        self._tell({"ended": ended})

    def _listen(self) -> None:
        """Wait for the runner, the logs or a signal, but no longer than something is due."""
        poll = select.poll()
        watched = {log.source: log for log in self._logs if log.open}
        for descriptor in (*watched, self._wakeup, *([] if self._orders.ended else [self._control])):
            poll.register(descriptor, select.POLLIN)
        for descriptor, _ in poll.poll(self._patience_ms()):
            if descriptor in watched:
                watched[descriptor].pump()
            elif descriptor == self._wakeup:
                if signal.SIGTERM in os.read(self._wakeup, _BLOCK):
                    self._ask_to_end(self._order["grace_s"])
            else:
                for order in self._orders.read():
                    self._context = order.get("context", self._context)
                    if "end" in order:
                        self._ask_to_end(order["end"])
                if self._orders.ended:
                    self._ask_to_end(0.0)

    def _patience_ms(self) -> float | None:
        if self._kill_at is None:
            return None
        return max(self._kill_at - time.monotonic(), _PAUSE_S) * 1000

    def _ask_to_end(self, grace_s: float) -> None:
        """Ask everything below to end, and set the moment from which it is killed; the soonest holds."""
        if grace_s and self._kill_at is None:
            for process in descendants(os.getpid()):
                _signal(process, signal.SIGTERM)
        moment = time.monotonic() + grace_s
        self._kill_at = moment if self._kill_at is None else min(self._kill_at, moment)

    def _reap(self) -> None:
        """Reap whoever has ended; once there is nobody left to wait for, nothing of the worker is left."""
        while True:
            try:
                process, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                self._alone = True
                return
            if not process:
                return
            if process == self._worker:
                self._status = status
                # What it left behind has no business any more.
                self._ask_to_end(0.0)

    def _end_if_due(self) -> None:
        """Kill all that is below, again and again: a fork bomb may be quicker than one look."""
        if self._kill_at is None or time.monotonic() < self._kill_at:
            return
        self._deadline = self._deadline or time.monotonic() + _GONE_S
        known: set[int] = set()
        while fresh := set(descendants(os.getpid())) - known:
            for process in fresh:
                _signal(process, signal.SIGKILL)
            known |= fresh

    def _is_hopeless(self) -> bool:
        return self._deadline is not None and time.monotonic() > self._deadline

    def _tell(self, document: Mapping[str, object]) -> None:
        try:
            _write(self._control, packed(document))
        except OSError:
            pass  # Nobody is left to be told.


def _set_mark(mark: int) -> None:
    try:
        resource.setrlimit(_RLIMIT_LOCKS, (mark, mark))
    except (ValueError, OSError):
        pass  # Within another worker, or a sandbox that knows no such limit; the environment has the mark too.


def _write(descriptor: int, data: bytes) -> None:
    """Write all of it, in as many goes as it takes."""
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]


def _remove(path: str) -> None:
    try:
        os.unlink(path)
    except OSError:
        pass


def _signal(process: int, number: int) -> None:
    try:
        os.kill(process, number)
    except (ProcessLookupError, PermissionError):
        pass


def descendants(root: int) -> list[int]:
    """Everything below a process that is not reaped yet, in whatever session or group it is."""
    children: dict[int, list[int]] = {}
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                with open("/proc/" + name + "/stat", "rb") as stream:
                    # The name, in brackets, may hold anything, brackets too.
                    parent = int(stream.read().rpartition(b")")[2].split()[1])
            except (OSError, ValueError):
                continue
            children.setdefault(parent, []).append(int(name))
    found: list[int] = []
    queue = [root]
    while queue:
        below = children.get(queue.pop(), [])
        found += below
        queue += below
    return found


def oom_kills() -> dict[str, int]:
    """How often the kernel, short of memory, has killed: in our own cgroup (of either version), and on the machine."""
    counts = {}
    for name, path, key in (*_cgroup_files(), ("machine", "/proc/vmstat", "oom_kill")):
        try:
            with open(path, encoding="ascii") as stream:
                words = dict(line.split()[:2] for line in stream if len(line.split()) > 1)
            counts[name] = int(words[key])
        except (OSError, ValueError, KeyError):
            continue
    return counts


def _cgroup_files() -> Iterator[tuple[str, str, str]]:
    try:
        with open("/proc/self/cgroup", encoding="utf-8") as stream:
            lines = [line.rstrip("\n").split(":", 2) for line in stream]
    except OSError:
        return
    for _, controllers, path in lines:
        if controllers == "":
            yield "cgroup", "/sys/fs/cgroup" + path + "/memory.events", "oom_kill"
        elif "memory" in controllers.split(","):
            yield "cgroup", "/sys/fs/cgroup/memory" + path + "/memory.oom_control", "oom_kill"


if __name__ == "__main__":
    # Nothing is left to put away, and a runner waits.
    os._exit(main())
