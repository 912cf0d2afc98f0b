"""Runs other programs. Nothing else in envbuilder spawns."""

from __future__ import annotations

import contextlib
import errno
import itertools
import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from envbuilder import variables
from envbuilder.errors import Interrupted, ToolError, redacted, remedy

# What would lead a child into an environment that is not meant: the one that the tool itself was started from, a
# person's own packages, another interpreter's home.
_LEAKS = (
    "PYTHONDONTWRITEBYTECODE",  # Bytecode goes beside environments, where it bothers nobody.
    "PYTHONHOME",
    "PYTHONPATH",
    "PYTHONSTARTUP",
    "PYTHONUSERBASE",
    "VIRTUAL_ENV",
    "VIRTUAL_ENV_PROMPT",
    "CONDA_PREFIX",
    "UV_PROJECT_ENVIRONMENT",
    "UV_PYTHON",
    "UV_PROJECT",
    "UV_WORKING_DIRECTORY",
    "UV_CONFIG_FILE",
    "__PYVENV_LAUNCHER__",
    # A git hook sets these: every git below it would work on the repository of the hook.
    "GIT_ALTERNATE_OBJECT_DIRECTORIES",
    "GIT_COMMON_DIR",
    "GIT_DIR",
    "GIT_GRAFT_FILE",
    "GIT_IMPLICIT_WORK_TREE",
    "GIT_INDEX_FILE",
    "GIT_NAMESPACE",
    "GIT_OBJECT_DIRECTORY",
    "GIT_PREFIX",
    "GIT_REPLACE_REF_BASE",
    "GIT_SHALLOW_FILE",
    "GIT_WORK_TREE",
)

_GRACE_S = 5.0
_TICK_S = 0.25
# How long what a program leaves behind may hold its output open.
_LEFT_S = 1.0

# Who is told of the programs that are started, and whether of their ends too.
_witness: tuple[Callable[[str], None], bool] | None = None
_numbers = itertools.count(1)
_MOST_WORD_CHARS = 200
_live: set[subprocess.Popen[str]] = set()
# The handler of a signal may run in a thread that holds it already.
_live_guard = threading.RLock()
_stopping = threading.Event()


class OverdueError(ToolError):
    """A program that did not end in time."""


@dataclass(frozen=True)
class Completed:
    """How a program ended; `returncode` is negative for a signal, as in `subprocess`.

    In `stderr`, which ends up in errors and logs, addresses hold no passwords: git and uv repeat those of settings.
    """

    argv: tuple[str, ...]
    returncode: int
    stdout: str
    stderr: str

    @property
    def ok(self) -> bool:
        return self.returncode == 0


def told(done: Completed) -> object:
    """The JSON that a program printed last, after whatever else was printed; None where there is none."""
    lines = done.stdout.strip().splitlines() if done.ok else []
    with contextlib.suppress(ValueError):
        return json.loads(lines[-1]) if lines else None
    return None


def clean_environment(
    extra: Mapping[str, str] | None = None, *, base: Mapping[str, str] | None = None
) -> dict[str, str]:
    """The environment of a program that a person runs, or might have run: the shell's less what leaks, plus `extra`."""
    source = os.environ if base is None else base
    environment = {name: value for name, value in source.items() if name not in _LEAKS}
    environment.update(extra or {})
    return environment


def tool_environment(extra: Mapping[str, str] | None = None, *, more: Iterable[str] = ()) -> dict[str, str]:
    """The environment of uv, git and what they build: of the shell's what is allowed, and the names in `more`; plus `extra`."""
    return {**variables.allowed(clean_environment(), more=more), **(extra or {})}


@contextlib.contextmanager
def witnessed(tell: Callable[[str], None], *, ends: bool = False) -> Iterator[None]:
    """Have a line told of each program that is started, such as a shell would take, from whatever thread.

    Args:
        tell: gets the line; addresses in it hold no passwords.
        ends: whether a second line tells how it ended, and after how many seconds.
    """
    global _witness  # noqa: PLW0603 - one command line, one who watches
    _witness = (tell, ends)
    try:
        yield
    finally:
        _witness = None


def _tell(words: Sequence[str], cwd: Path | None = None) -> Callable[[str], None]:
    """Tell of a program that starts; the outcome is for telling how it ends."""
    if _witness is None:
        return lambda _: None
    tell, ends = _witness
    number = f"[{next(_numbers)}] " if ends else ""
    place = f"cd {shlex.quote(str(cwd))} && " if cwd is not None else ""
    tell(redacted(f"{number}{place}{shlex.join(map(_shortened, words))}"))
    return (lambda ending: tell(f"{number}{ending}")) if ends else lambda _: None


def _shortened(word: str) -> str:
    # Code that is handed to an interpreter is no line to be read.
    first = word.partition("\n")[0]
    return word if word == first and len(word) <= _MOST_WORD_CHARS else f"{first[:_MOST_WORD_CHARS]}…"


def run(  # noqa: PLR0913 - what a program may be given, each with a name
    argv: Sequence[str | Path],
    *,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
    timeout_s: float | None = None,
    hear: Callable[[str], None] | None = None,
    log: Path | None = None,
    feed: str | None = None,
) -> Completed:
    """Run a program to its end and keep what it wrote.

    Its process group is its own, so that Ctrl-C reaches it only through us, and everything it started goes with it.

    Args:
        argv: program and arguments; never through a shell.
        cwd: the folder to run in.
        env: the whole environment of the child; `tool_environment()` where not given.
        timeout_s: seconds after which it is ended.
        hear: called, in another thread, with each line of its stderr as it comes.
        log: a file that gets what it writes, as it comes, in place of us.
        feed: what it reads from its standard input, which is empty otherwise.

    Raises:
        ToolError: the program cannot be started, or, as an `OverdueError`, did not end in time.
        Interrupted: `stop_all` was called meanwhile.
    """
    words = tuple(str(word) for word in argv)
    if _stopping.is_set():
        raise Interrupted
    tell_end, begun = _tell(words, cwd), time.monotonic()
    try:
        ear = _Ear(hear) if hear is not None else None
    except OSError as error:
        raise _unstartable(words[0], error) from error
    process = _start(words, cwd, dict(env) if env is not None else tool_environment(), ear, log, feed is not None)
    with _live_guard:
        _live.add(process)
    if _stopping.is_set():  # `stop_all` may have looked before this one was there.
        _signal_group(process, signal.SIGTERM)
    ended = False
    try:
        stdout, stderr = _heard_out(process, feed, timeout_s)
        ended = True
    except subprocess.TimeoutExpired as error:
        raise OverdueError(f"{words[0]} did not end within {timeout_s:g} s") from error
    finally:
        with _live_guard:
            _live.discard(process)
        if not ended:  # Also where the program itself has ended: what it left behind holds its output open.
            end_group(process)
            _close(process)
    if _stopping.is_set():
        raise Interrupted
    tell_end(f"exit {process.returncode}, {time.monotonic() - begun:.2f} s")
    return Completed(words, process.returncode, stdout or "", redacted(ear.text() if ear else stderr or ""))


def _heard_out(process: subprocess.Popen[str], feed: str | None, timeout_s: float | None) -> tuple[str, str]:
    """What a program writes until it ends.

    Raises:
        TimeoutExpired: it did not in time.
        Interrupted: it was asked to by `stop_all`, and would not; or something that it left behind holds its output.
    """
    deadline = None if timeout_s is None else time.monotonic() + timeout_s
    patience: float | None = None
    gone_at: float | None = None
    while True:
        left = _TICK_S if deadline is None else min(_TICK_S, max(deadline - time.monotonic(), 0))
        try:
            return process.communicate(feed, timeout=left)
        except subprocess.TimeoutExpired as error:
            now = time.monotonic()
            if process.poll() is not None:
                # Only what it left behind holds its output open now: that is ended, and not waited for.
                gone_at = gone_at or now
                if now - gone_at >= _LEFT_S:
                    _signal_group(process, signal.SIGKILL)
                if now - gone_at >= 2 * _LEFT_S:
                    _close(process)
                    return _text(error.stdout), _text(error.stderr)
            if deadline is not None and now >= deadline:
                raise
            if _stopping.is_set():
                patience = patience or now + _GRACE_S
                if now >= patience:
                    raise Interrupted from None
        feed = None  # It was handed over the first time.


def _text(output: bytes | str | None) -> str:
    return output.decode("utf-8", "replace") if isinstance(output, bytes) else output or ""


class _Ear(threading.Thread):
    """Reads a pipe to its end, and hands on each line as it comes."""

    def __init__(self, hear: Callable[[str], None]) -> None:
        super().__init__(daemon=True)
        source, self.mouth = os.pipe()
        self._stream = os.fdopen(source, encoding="utf-8", errors="replace")
        self._hear = hear
        self._lines: list[str] = []

    def run(self) -> None:
        with self._stream:
            for line in self._stream:
                self._lines.append(line)
                with contextlib.suppress(OSError):  # Telling may fail; reading must not stop, or the program would.
                    self._hear(redacted(line))

    def text(self) -> str:
        """All that came; what a program leaves behind may hold the pipe open, and is not waited for."""
        self.join(_GRACE_S)
        return "".join(self._lines)


def _start(
    words: tuple[str, ...], cwd: Path | None, env: dict[str, str], ear: _Ear | None, log: Path | None, fed: bool
) -> subprocess.Popen[str]:
    source = subprocess.PIPE if fed else subprocess.DEVNULL
    try:
        if log is None:
            return _spawn(words, cwd, env, (source, subprocess.PIPE, ear.mouth if ear else subprocess.PIPE))
        with log.open("ab") as stream:
            return _spawn(words, cwd, env, (source, stream.fileno(), stream.fileno()))
    except OSError as error:
        hint = remedy(error) or f"ls -ld {shlex.quote(str(log and log.parent))}"
        code = "system-limit" if remedy(error) else "unwritable"
        raise ToolError(
            f"cannot write {log}: {error.strerror or error}", code=code, where=str(log), hint=hint
        ) from error
    finally:
        if ear is not None:
            os.close(ear.mouth)
            ear.start()


def _spawn(
    words: tuple[str, ...], cwd: Path | None, env: dict[str, str], streams: tuple[int, int, int]
) -> subprocess.Popen[str]:
    stdin, stdout, stderr = streams
    try:
        return subprocess.Popen(
            words,
            cwd=cwd,
            env=env,
            stdin=stdin,
            stdout=stdout,
            stderr=stderr,
            text=True,
            encoding="utf-8",
            errors="replace",
            start_new_session=True,
        )
    except OSError as error:
        if cwd is not None and not cwd.is_dir():
            message = f"cannot start {words[0]} in {cwd}: no such folder"
            raise ToolError(message, where=str(cwd), hint=f"ls -ld {cwd}") from error
        raise _unstartable(words[0], error) from error
    except ValueError as error:  # A NUL character.
        raise ToolError(f"cannot start {words[0]}: {error}") from error


def _unstartable(program: str, error: OSError) -> ToolError:
    """Return the error for a program that does not start: there is none, it is no program, or a limit is reached."""
    message = f"cannot start {program}: {error.strerror or error}"
    if hint := remedy(error):
        return ToolError(message, code="system-limit", hint=hint)
    found = shutil.which(program)
    if found is not None and error.errno == errno.ENOENT:
        message = f"cannot start {found}: the interpreter that its first line names is not there"
        return ToolError(message, code="tool-missing", where=found, hint=f"head -n 1 {shlex.quote(found)}")
    places = [Path(part) / program for part in os.environ.get("PATH", "").split(os.pathsep)]  # One with / stays itself.
    if error.errno == errno.EACCES and (closed := [each for each in places if each.is_file()]):
        where, hint = str(closed[0]), f"chmod +x {shlex.quote(str(closed[0]))}"
        if not os.access(where, os.X_OK):
            message += f": {where} is not executable"
            return ToolError(message, code="tool-missing", where=where, hint=hint)
    if error.errno in {errno.EACCES, errno.ENOEXEC}:
        return ToolError(message, code="tool-missing", hint=f"ls -l {shlex.quote(found or program)}")
    return ToolError(message, code="tool-missing", hint=f"command -v {shlex.quote(program)}")


def end_group(process: subprocess.Popen[str], grace_s: float = _GRACE_S) -> None:
    """End a program and its process group: ask, wait, kill."""
    _signal_group(process, signal.SIGTERM)
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(grace_s)
    _signal_group(process, signal.SIGKILL)  # The program may have gone without its children.
    process.wait()


def _signal_group(process: subprocess.Popen[str], number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, number)


def _close(process: subprocess.Popen[str]) -> None:
    for stream in (process.stdout, process.stderr):
        if stream is not None:
            stream.close()


def stop_all() -> None:
    """Ask every program that `run` waits for to end, and start no further one; callers of `run` get `Interrupted`."""
    _stopping.set()
    with _live_guard:
        processes = list(_live)
    for process in processes:
        _signal_group(process, signal.SIGTERM)


def replace(argv: Sequence[str | Path], env: Mapping[str, str]) -> None:
    """Become another program; does not return."""
    words = [str(word) for word in argv]
    _tell(words)
    sys.stdout.flush()
    sys.stderr.flush()
    try:
        os.execvpe(words[0], words, dict(env))  # noqa: S606
    except OSError as error:
        raise _unstartable(words[0], error) from error
