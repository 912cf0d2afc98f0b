"""GPUs and CPU capacity, handed out to attempts, and taken back once their memory is seen to be free."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from envbuilder import gpus
from envbuilder.errors import ToolError
from envbuilder.gpus import VISIBLE, Driver, Gpu, allowed, hiding, is_part, units

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from pipeline.models import Wish

__all__ = ["Gpu", "Refusal", "Slot", "Slots", "allowed", "thread_variables", "units"]

_MIB = 2**20
# NVML is asked no more often than this.
_LOOK_EVERY_S = 0.5
# Memory that moves by less tells of nobody.
_TOLERANCE = 256 * _MIB
# What a driver keeps of a GPU for itself, at most: this much, and this part of it.
_RESERVED = 1024 * _MIB
_RESERVED_PART = 0.02
_ROUNDING = 1e-9


@dataclass(frozen=True)
class Slot:
    """What an attempt holds: a share of each of some GPUs, or, without any, one unit of CPU capacity.

    Attributes:
        gpus: the GPUs, or parts of GPUs (MIG devices).
        share: of each of them; 1 is all of it.
        number: tells slots apart that are held at the same time or one after the other.
        by_index: whether workers are told a GPU's number in place of its UUID.
        vram_bytes: memory that was asked for on each GPU; 0 where none was.
        timing: whether everything else waits meanwhile.
        remark: why it is not what would have been given, where a variable hides GPUs; empty elsewhere.
    """

    gpus: tuple[Gpu, ...] = ()
    share: float = 1.0
    number: int = 0
    by_index: bool = False
    vram_bytes: int = 0
    timing: bool = False
    remark: str = ""

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
        return "+".join(_label(gpu) for gpu in self.gpus) or "cpu"

    def variables(self) -> dict[str, str]:
        """What lets a worker see its GPUs and no others. A MIG device has no number that CUDA knows."""
        ids = [str(gpu.index) if self.by_index and not is_part(gpu) else gpu.uuid for gpu in self.gpus]
        return {"CUDA_VISIBLE_DEVICES": ",".join(ids), "CUDA_DEVICE_ORDER": "PCI_BUS_ID"}


def _label(gpu: Gpu) -> str:
    return f"gpu{gpu.index}/{gpu.uuid[4:12]}" if is_part(gpu) else f"gpu{gpu.index}"


@dataclass(frozen=True)
class Refusal:
    """Why there is no slot now; `may_pass` where that is others' doing, or only a matter of moments."""

    text: str = ""
    may_pass: bool = False


@dataclass
class _Unit:
    """One GPU, or part of one, and what is held of it.

    Attributes:
        gpu: as last seen.
        share: handed out.
        promised: memory in bytes that was asked for by those who hold it.
        baseline: bytes in use when the first of them got it.
        cooling: given back, and its memory not yet seen to be free.
        gone: no longer listed by the driver.
    """

    gpu: Gpu
    share: float = 0.0
    promised: int = 0
    baseline: int = 0
    cooling: bool = False
    gone: bool = False

    @property
    def used_bytes(self) -> int:
        return self.gpu.total_bytes - self.gpu.free_bytes

    @property
    def foreign_bytes(self) -> int:
        """What others hold of a GPU of which we hold nothing."""
        told = sum(process.used_bytes or 0 for process in self.gpu.processes)
        # In a container the driver may list no processes, and still tell what is used.
        hidden = self.used_bytes - _RESERVED - int(self.gpu.total_bytes * _RESERVED_PART)
        return max(told, hidden, 0)

    def see(self, gpu: Gpu | None) -> None:
        """Take in what the driver says now."""
        self.gone = gpu is None
        self.gpu = gpu or self.gpu
        if self.cooling and self.used_bytes <= self.baseline + _TOLERANCE:
            self.cooling = False

    def refuses(self, share: float, wish: Wish) -> Refusal | None:
        """Why a share of it cannot be had now, or None."""
        label = _label(self.gpu)
        if self.gone:
            return Refusal(f"{label} is gone")
        if self.share + share > 1 + _ROUNDING:
            return Refusal(f"{label} is taken")
        if self.cooling:
            more = _gib(self.used_bytes - self.baseline)
            return Refusal(f"the memory of {label} is not free yet: {more} more than before", may_pass=True)
        is_whole = share > 1 - _ROUNDING and not wish.vram_bytes
        if not self.share and (is_whole or wish.timing) and self.foreign_bytes > _TOLERANCE:
            pids = ", ".join(str(process.pid) for process in self.gpu.processes)
            who = f" (process {pids})" if pids else ""
            return Refusal(f"{label} is used by others: {_gib(self.foreign_bytes)}{who}", may_pass=True)
        coming = max(0, self.promised - max(0, self.used_bytes - self.baseline)) if self.share else 0
        free = self.gpu.free_bytes - coming
        if wish.vram_bytes > free:
            return Refusal(f"{label} has {_gib(free)} free, {_gib(wish.vram_bytes)} are wanted", may_pass=True)
        return None


def _as_variable(visible: str | None) -> Mapping[str, str]:
    given = {name: value for name, value in os.environ.items() if name != VISIBLE}
    return given if visible is None else {**given, VISIBLE: visible}


def _gib(size: int) -> str:
    return f"{size / 2**30:.1f} GiB"


class Slots:
    """What is free. Not for several threads: whoever starts attempts asks.

    Args:
        read: the driver and its GPUs as they are now.
        visible: what ``CUDA_VISIBLE_DEVICES`` allows, by index or UUID; all where it is not given.
        jobs: how many attempts may use the CPU alone at the same time; more than one blurs latencies.
    """

    def __init__(
        self, read: Callable[[], Driver | None] = gpus.read, *, visible: str | None = None, jobs: int = 1
    ) -> None:
        self._read = read
        self.driver = self._driver()
        self._units = {gpu.uuid: _Unit(gpu) for gpu in allowed(units(self.driver), visible)}
        self.hiding = hiding(self.driver, _as_variable(visible))
        self._jobs = jobs
        self._cpu_used = 0
        self._timing = False
        self._given = 0
        self._looked = time.monotonic()
        self.refusal = Refusal()

    @property
    def gpus(self) -> tuple[Gpu, ...]:
        """The GPUs there are, as last seen."""
        return tuple(unit.gpu for unit in self._units.values())

    def _driver(self) -> Driver | None:
        try:
            return self._read()
        except ToolError:
            return None

    def lacking(self, wish: Wish) -> str | None:
        """Why a wish can never be granted on this machine, or None."""
        there, count = len(self._units), wish.gpus
        if count is not None and count > there:
            why = f": {self.hiding.text}" if self.hiding else ""
            return f"needs {count:g} GPU{'s' if count > 1 else ''}, found {there or 'none'}{why}"
        largest = sorted((unit.gpu.total_bytes for unit in self._units.values()), reverse=True)
        number = self._number(wish)
        if number and wish.vram_bytes > largest[number - 1] > 0:
            return f"needs {_gib(wish.vram_bytes)} on a GPU, the largest has {_gib(largest[0])}"
        return None

    def _number(self, wish: Wish) -> int:
        """How many GPUs a wish is for; 0 for the CPU."""
        if wish.gpus is None:
            return 1 if self._units else 0
        return max(1, round(wish.gpus)) if wish.gpus else 0

    def take(self, wish: Wish) -> Slot | None:
        """A slot for a wish, or None while there is none; `refusal` then says why."""
        number = self._number(wish)
        occupied = self._occupied(wish, needs_cpu=not number)
        if occupied:
            self.refusal = Refusal(occupied)
            return None
        if not number:
            self._cpu_used += 1
            return self._slot((), 1.0, wish)
        share = min(1.0 if wish.gpus is None else wish.gpus, 1.0)
        self._look()
        refusals = {uuid: unit.refuses(share, wish) for uuid, unit in self._units.items()}
        fitting = [unit for uuid, unit in self._units.items() if refusals[uuid] is None]
        if len(fitting) < number:
            told = [refusal for refusal in refusals.values() if refusal]
            self.refusal = Refusal("; ".join(each.text for each in told), any(each.may_pass for each in told))
            return None
        # The fullest first: shares gather on one GPU and leave whole ones to those who want them.
        chosen = sorted(fitting, key=lambda unit: -unit.share)[:number]
        for unit in chosen:
            if not unit.share:
                unit.baseline = unit.used_bytes
            unit.share += share
            unit.promised += wish.vram_bytes
        return self._slot(tuple(unit.gpu for unit in chosen), share, wish)

    def _occupied(self, wish: Wish, *, needs_cpu: bool) -> str | None:
        if self._timing:
            return "a timing task has the machine to itself"
        if wish.timing and (self._cpu_used or any(unit.share for unit in self._units.values())):
            return "a timing task waits until nothing else runs"
        return "the CPU is taken" if needs_cpu and self._cpu_used >= self._jobs else None

    def _look(self) -> None:
        if time.monotonic() - self._looked < _LOOK_EVERY_S:
            return
        self._looked = time.monotonic()
        self.driver = self._driver()
        seen = {gpu.uuid: gpu for gpu in units(self.driver)}
        for uuid, unit in self._units.items():
            unit.see(seen.get(uuid))

    def _slot(self, chosen: tuple[Gpu, ...], share: float, wish: Wish) -> Slot:
        self._given += 1
        self._timing = wish.timing
        remark = ""
        if wish.gpus is None and not chosen and self.hiding:
            remark = f"gpus: auto takes the CPU: {self.hiding.text}"
        return Slot(chosen, share, self._given, wish.by_index, wish.vram_bytes, wish.timing, remark)

    def give_back(self, slot: Slot) -> None:
        """Take back what `take` gave. A GPU is handed out again only once its memory is seen to be free."""
        self._timing = self._timing and not slot.timing
        if not slot.gpus:
            self._cpu_used -= 1
        for gpu in slot.gpus:
            unit = self._units[gpu.uuid]
            unit.share = max(0.0, unit.share - slot.share)
            unit.promised -= slot.vram_bytes
            if unit.share <= _ROUNDING:
                unit.share = 0.0
                unit.cooling = unit.gpu.total_bytes > 0
        self._looked = 0.0


def used_on(slot: Slot, driver: Driver | None) -> int | None:
    """Bytes in use on a slot's GPUs now, whoever uses them; None for a CPU slot."""
    seen = {gpu.uuid: gpu for gpu in units(driver)}
    found = [seen[gpu.uuid] for gpu in slot.gpus if gpu.uuid in seen]
    return sum(gpu.total_bytes - gpu.free_bytes for gpu in found) if found else None


def used_by(processes: Iterable[int], slot: Slot, driver: Driver | None) -> int | None:
    """Bytes that processes use of a slot's GPUs now; None where the driver tells of none of them."""
    own = set(processes)
    held = {gpu.uuid for gpu in slot.gpus}
    told = [
        process.used_bytes
        for gpu in units(driver)
        if gpu.uuid in held
        for process in gpu.processes
        if process.pid in own and process.used_bytes is not None
    ]
    return sum(told) if told else None


def without_numbers(gpu: Gpu) -> Gpu:
    """A GPU without what changes from one moment to the next."""
    return replace(gpu, free_bytes=0, processes=())


def cpu_count() -> int:
    """Processors that this process may use."""
    return len(os.sched_getaffinity(0))


def thread_variables(at_once: int, environ: Mapping[str, str]) -> dict[str, str]:
    """A fair share of the processors where several attempts run at once; nothing where one has them all."""
    if at_once < 2 or "OMP_NUM_THREADS" in environ:
        return {}
    return {"OMP_NUM_THREADS": str(max(1, cpu_count() // at_once))}
