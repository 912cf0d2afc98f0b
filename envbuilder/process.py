"""Runs other programs. Nothing else in envbuilder spawns."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from envbuilder.errors import Interrupted, ToolError

# What would lead a child into an environment that is not meant: the one that the tool itself was started from, a
# person's own packages, another interpreter's home.
_LEAKS = (
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
)

_GRACE_S = 5.0

_live: set[subprocess.Popen[str]] = set()
_live_guard = threading.Lock()
_stopping = threading.Event()


@dataclass(frozen=True)
class Completed:
    """How a program ended; `returncode` is negative for a signal, as in `subprocess`."""

    argv: tuple[str, ...]
    returncode: int
    stdout: str
    stderr: str

    @property
    def ok(self) -> bool:
        return self.returncode == 0


def clean_environment(
    extra: Mapping[str, str] | None = None, *, base: Mapping[str, str] | None = None
) -> dict[str, str]:
    """The environment variables for a child: the base (this process's own by default) less what leaks, plus `extra`."""
    source = os.environ if base is None else base
    environment = {name: value for name, value in source.items() if name not in _LEAKS}
    environment.update(extra or {})
    return environment


def run(
    argv: Sequence[str | Path],
    *,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
    timeout_s: float | None = None,
) -> Completed:
    """Run a program to its end and keep what it wrote.

    Its process group is its own, so that Ctrl-C reaches it only through us, and everything it started goes with it.

    Args:
        argv: program and arguments; never through a shell.
        cwd: the folder to run in.
        env: the whole environment of the child; `clean_environment()` where not given.
        timeout_s: seconds after which it is ended.

    Raises:
        ToolError: the program cannot be started, or did not end in time.
        Interrupted: `stop_all` was called meanwhile.
    """
    words = tuple(str(word) for word in argv)
    if _stopping.is_set():
        raise Interrupted
    try:
        process = subprocess.Popen(
            words,
            cwd=cwd,
            env=dict(env) if env is not None else clean_environment(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            encoding="utf-8",
            errors="replace",
            start_new_session=True,
        )
    except OSError as error:
        raise ToolError(
            f"cannot start {words[0]}: {error.strerror or error}", code="tool-missing", hint=f"command -v {words[0]}"
        ) from error
    with _live_guard:
        _live.add(process)
    try:
        stdout, stderr = process.communicate(timeout=timeout_s)
    except subprocess.TimeoutExpired as error:
        raise ToolError(f"{words[0]} did not end within {timeout_s:g} s") from error
    finally:
        with _live_guard:
            _live.discard(process)
        if process.poll() is None:
            end_group(process)
    if _stopping.is_set():
        raise Interrupted
    return Completed(words, process.returncode, stdout, stderr)


def end_group(process: subprocess.Popen[str], grace_s: float = _GRACE_S) -> None:
    """End a program and its process group: ask, wait, kill."""
    for number, patience in ((signal.SIGTERM, grace_s), (signal.SIGKILL, None)):
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, number)
        try:
            process.wait(patience)
        except subprocess.TimeoutExpired:
            continue
        break


def stop_all() -> None:
    """Ask every program that `run` waits for to end, and start no further one; callers of `run` get `Interrupted`."""
    _stopping.set()
    with _live_guard:
        processes = list(_live)
    for process in processes:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGTERM)


def replace(argv: Sequence[str | Path], env: Mapping[str, str]) -> None:
    """Become another program; does not return."""
    words = [str(word) for word in argv]
    sys.stdout.flush()
    sys.stderr.flush()
    try:
        os.execvpe(words[0], words, dict(env))  # noqa: S606
    except OSError as error:
        raise ToolError(f"cannot start {words[0]}: {error.strerror or error}", code="tool-missing") from error
