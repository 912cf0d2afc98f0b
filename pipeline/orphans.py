"""Finds processes by a mark in their environment: what a killed supervisor, or a killed runner, may have left behind."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from pathlib import Path

# Every worker has it, and so has what it starts: ``<run>/<attempt>``.
WORKER = "ENVBUILDER_WORKER"

_PATIENCE_S = 60.0
# Who forks and ends in the middle of a look is seen under neither of its two ids: a look during which anybody went
# proves little, and so many of them in a row are taken for proof.
_INCONCLUSIVE_LOOKS = 100
_PAUSE_S = 0.005


def find(variable: str, value: str) -> tuple[int, ...]:
    """Living processes whose environment had `variable` begin with `value` when they were started."""
    return _look(variable, value)[0]


def _look(variable: str, value: str) -> tuple[tuple[int, ...], bool]:
    """Those processes, and whether nobody can have been missed."""
    mark = f"{variable}={value}".encode()
    found = []
    conclusive = True
    for name in os.listdir("/proc"):  # noqa: PTH208 - quick, for those who are in a hurry to get away
        if name.isdigit() and int(name) != os.getpid():
            try:
                words = Path(f"/proc/{name}/environ").read_bytes().split(b"\0")
            except PermissionError:
                continue  # Not ours to read, and so none of ours.
            except OSError:
                conclusive = False
                continue
            if any(word == mark or word.startswith(mark + b"/") for word in words):
                found.append(int(name))
    return tuple(found), conclusive


def end(variable: str, value: str) -> tuple[int, ...]:
    """Kill them all; gives those that are still there after a minute."""
    deadline = time.monotonic() + _PATIENCE_S
    quiet = 0
    while time.monotonic() < deadline:
        left, conclusive = _look(variable, value)
        quiet = 0 if left else quiet + 1
        if quiet and (conclusive or quiet >= _INCONCLUSIVE_LOOKS):
            return ()
        for process in left:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(process, signal.SIGKILL)
        time.sleep(_PAUSE_S)
    return find(variable, value)
