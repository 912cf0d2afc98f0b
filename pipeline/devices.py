"""What the devices of this machine are called: a result is that of a kind of device, not of one piece of it."""

from __future__ import annotations

import functools
import platform
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable


@functools.cache
def processor() -> str:
    """The processor's own name."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    named = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(named, "") or platform.processor() or platform.machine()


def kind_of(gpus: Iterable[str]) -> str:
    """What a slot's devices are called, given its GPUs' names: several of one kind are that kind."""
    return " + ".join(sorted(set(gpus))) or processor()


def kinds_for(wanted: float | None, gpus: Iterable[str]) -> frozenset[str]:
    """What a task may run on here.

    Args:
        wanted: as in a task's wish: 0 for the CPU, None for a GPU if there is any.
        gpus: the names of the GPUs there are.
    """
    names = list(gpus)
    if wanted == 0 or (wanted is None and not names):
        return frozenset({processor()})
    return frozenset({*names, kind_of(names)} if names else ())
