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
# Who forks and ends in the middle of a look is seen by none of its two names: one look that finds nobody proves little.
_QUIET_LOOKS = 3
_PAUSE_S = 0.02


def find(variable: str, value: str) -> tuple[int, ...]:
    """Living processes whose environment had `variable` begin with `value` when they were started."""
    mark = f"{variable}={value}".encode()
    found = []
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit() and int(folder.name) != os.getpid():
            # What is not ours to read, or ends meanwhile, is not ours; of a zombie nothing is left to read.
            with contextlib.suppress(OSError):
                words = (folder / "environ").read_bytes().split(b"\0")
                if any(word == mark or word.startswith(mark + b"/") for word in words):
                    found.append(int(folder.name))
    return tuple(found)


def end(variable: str, value: str) -> tuple[int, ...]:
    """Kill them all; gives those that are still there after a minute."""
    deadline = time.monotonic() + _PATIENCE_S
    quiet = 0
    while quiet < _QUIET_LOOKS and time.monotonic() < deadline:
        left = find(variable, value)
        quiet = 0 if left else quiet + 1
        for process in left:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(process, signal.SIGKILL)
        time.sleep(_PAUSE_S)
    return find(variable, value)
