"""GPUs and CPU capacity, handed out to attempts."""

from __future__ import annotations

import csv
import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from envbuilder.errors import ToolError
from envbuilder.process import run

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_QUERY = ("index", "uuid", "name", "memory.total", "driver_version")
_QUERY_TIMEOUT_S = 30.0
_MIB = 1024 * 1024


@dataclass(frozen=True)
class Gpu:
    """One GPU, as the driver numbers and names it."""

    index: int
    uuid: str
    name: str
    memory_bytes: int
    driver: str


@dataclass(frozen=True)
class Slot:
    """What an attempt holds: a share of each of some GPUs, or, without any, one unit of CPU capacity.

    Attributes:
        gpus: the GPUs.
        share: of each of them; 1 is all of it.
        number: tells slots apart that are held at the same time or one after the other.
    """

    gpus: tuple[Gpu, ...] = ()
    share: float = 1.0
    number: int = 0

    @property
    def device(self) -> str:
        """``cuda`` or ``cpu``."""
        return "cuda" if self.gpus else "cpu"

    @property
    def name(self) -> str:
        """The GPU's own name; empty for the CPU."""
        return self.gpus[0].name if self.gpus else ""

    @property
    def label(self) -> str:
        """The slot in a word or two, for people."""
        return "+".join(f"gpu{gpu.index}" for gpu in self.gpus) or "cpu"

    def variables(self) -> dict[str, str]:
        """What lets a worker see its GPUs and no others."""
        visible = ",".join(gpu.uuid for gpu in self.gpus)
        return {"CUDA_VISIBLE_DEVICES": visible, "CUDA_DEVICE_ORDER": "PCI_BUS_ID"}


def discover_gpus(visible: str | None = None) -> tuple[Gpu, ...]:
    """The machine's NVIDIA GPUs; none where there is no driver.

    Args:
        visible: what ``CUDA_VISIBLE_DEVICES`` allows, by index or UUID; all where it is not given.
    """
    if visible is not None and not visible.strip():
        return ()
    argv = ("nvidia-smi", f"--query-gpu={','.join(_QUERY)}", "--format=csv,noheader,nounits")
    try:
        found = run(argv, timeout_s=_QUERY_TIMEOUT_S)
    except ToolError:
        return ()
    return allowed(parse_gpus(found.stdout), visible) if found.ok else ()


def parse_gpus(listing: str) -> tuple[Gpu, ...]:
    """GPUs of nvidia-smi's listing; a line that is none (an error message) is passed over."""
    gpus = []
    for row in csv.reader(listing.splitlines(), skipinitialspace=True):
        if len(row) == len(_QUERY) and row[0].isdigit() and row[1].startswith("GPU-"):
            memory = int(row[3]) * _MIB if row[3].isdigit() else 0
            gpus.append(Gpu(int(row[0]), row[1], row[2], memory, row[4]))
    return tuple(gpus)


def allowed(gpus: Sequence[Gpu], visible: str | None) -> tuple[Gpu, ...]:
    """Those GPUs that ``CUDA_VISIBLE_DEVICES`` names, in its order; as CUDA does, up to the first unknown one."""
    if visible is None:
        return tuple(gpus)
    chosen: list[Gpu] = []
    for word in (each.strip() for each in visible.split(",")):
        fits = [gpu for gpu in gpus if word == str(gpu.index) or (word and gpu.uuid.startswith(word))]
        if len(fits) != 1:
            break
        chosen.append(fits[0])
    return tuple(chosen)


@dataclass
class Slots:
    """What is free. Not for several threads: whoever starts attempts asks.

    Attributes:
        gpus: the GPUs there are.
        jobs: how many attempts may use the CPU alone at the same time; more than one blurs latencies.
    """

    gpus: tuple[Gpu, ...] = ()
    jobs: int = 1
    _used: dict[str, float] = field(default_factory=dict)
    _cpu_used: int = 0
    _given: int = 0

    def lacking(self, wanted: float | None) -> str | None:
        """Why a wish can never be granted on this machine, or None."""
        if wanted is None or wanted <= len(self.gpus):
            return None
        return f"needs {wanted:g} GPU{'s' if wanted > 1 else ''}, found {len(self.gpus) or 'none'}"

    def take(self, wanted: float | None) -> Slot | None:
        """A slot for a wish, or None while there is none free.

        Args:
            wanted: GPUs, or a share of one below 1; None for one if there is any, else the CPU.
        """
        count = (1.0 if self.gpus else 0.0) if wanted is None else wanted
        if count == 0:
            if self._cpu_used >= self.jobs:
                return None
            self._cpu_used += 1
            return self._slot()
        share = min(count, 1.0)
        fitting = [gpu for gpu in self.gpus if self._used.get(gpu.uuid, 0.0) + share <= 1.0 + 1e-9]
        number = max(1, round(count))
        if len(fitting) < number:
            return None
        # The fullest first: shares gather on one GPU and leave whole ones to those who want them.
        chosen = sorted(fitting, key=lambda gpu: -self._used.get(gpu.uuid, 0.0))[:number]
        for gpu in chosen:
            self._used[gpu.uuid] = self._used.get(gpu.uuid, 0.0) + share
        return self._slot(tuple(chosen), share)

    def _slot(self, gpus: tuple[Gpu, ...] = (), share: float = 1.0) -> Slot:
        self._given += 1
        return Slot(gpus, share, self._given)

    def give_back(self, slot: Slot) -> None:
        """Take back what `take` gave."""
        if not slot.gpus:
            self._cpu_used -= 1
        for gpu in slot.gpus:
            self._used[gpu.uuid] -= slot.share


def cpu_count() -> int:
    """Processors that this process may use."""
    return len(os.sched_getaffinity(0))


def thread_variables(at_once: int, environ: Mapping[str, str]) -> dict[str, str]:
    """A fair share of the processors where several attempts run at once; nothing where one has them all."""
    if at_once < 2 or "OMP_NUM_THREADS" in environ:
        return {}
    return {"OMP_NUM_THREADS": str(max(1, cpu_count() // at_once))}
