"""The NVIDIA driver and its GPUs as NVML tells of them: the one place that talks to NVML, and it only reads.

A file named by ``ENVBUILDER_NVML`` stands in for the machine: `Driver` as JSON, or ``null`` for a machine without one.
"""

from __future__ import annotations

import importlib
import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from envbuilder.errors import ToolError

RECORDED = "ENVBUILDER_NVML"
VISIBLE = "CUDA_VISIBLE_DEVICES"
# What containers are given, of GPUs that NVML does not list in them.
_GIVEN = "NVIDIA_VISIBLE_DEVICES"
# What the kernel's module says of itself, and what a container is given where it may use the driver.
_TRACES = (Path("/sys/module/nvidia/version"), Path("/dev/nvidiactl"))


@dataclass(frozen=True)
class GpuProcess:
    """A process that computes on a GPU; `used_bytes` is None where the driver does not tell."""

    pid: int
    used_bytes: int | None


@dataclass(frozen=True)
class Gpu:
    """One GPU.

    Attributes:
        index: its number, in the order of the PCI bus.
        uuid: such as ``GPU-5c8a…``; what ``CUDA_VISIBLE_DEVICES`` takes.
        name: as the maker calls it.
        total_bytes, free_bytes: its memory; 0 where the driver does not tell.
        capability: its compute capability, such as (9, 0); None where the driver does not tell.
        processes: what computes on it now.
        mig: the devices that it is split into, each with the GPU's own index; empty where it is whole.
    """

    index: int
    uuid: str
    name: str
    total_bytes: int
    free_bytes: int
    capability: tuple[int, int] | None = None
    processes: tuple[GpuProcess, ...] = ()
    mig: tuple[Gpu, ...] = ()


@dataclass(frozen=True)
class Driver:
    """The driver: its version, such as ``570.86.10``, the CUDA version that it brings, and its GPUs."""

    version: str
    cuda: tuple[int, int]
    gpus: tuple[Gpu, ...] = ()


def units(driver: Driver | None) -> tuple[Gpu, ...]:
    """What can be handed out: whole GPUs, and in place of those that are split their parts."""
    found: list[Gpu] = []
    for gpu in driver.gpus if driver else ():
        found += gpu.mig or (gpu,)
    return tuple(found)


def is_part(gpu: Gpu) -> bool:
    """Whether it is a part of a GPU, a MIG device."""
    return gpu.uuid.startswith("MIG-")


def allowed(listed: Sequence[Gpu], visible: str | None) -> tuple[Gpu, ...]:
    """Those GPUs that ``CUDA_VISIBLE_DEVICES`` names, in its order; as CUDA does, up to the first unknown one."""
    return _read_list(listed, visible)[0]


def _read_list(listed: Sequence[Gpu], visible: str | None) -> tuple[tuple[Gpu, ...], str]:
    """The GPUs that a list names, and why it ends early; the reason is empty where it does not."""
    if visible is None:
        return tuple(listed), ""
    chosen: list[Gpu] = []
    for word in (each.strip() for each in visible.split(",")):
        numbered = [gpu for gpu in listed if word == str(gpu.index) and not is_part(gpu)]
        fits = numbered or [gpu for gpu in listed if word and gpu.uuid.startswith(word)]
        if len(fits) == 1 and fits[0] not in chosen:
            chosen.append(fits[0])
            continue
        if fits:
            return tuple(chosen), f"{word!r} names {'several' if len(fits) > 1 else 'one twice'}"
        is_split = any(is_part(gpu) and word == str(gpu.index) for gpu in listed)
        return tuple(chosen), f"{word!r} is split into parts, which have names of their own" if is_split else (
            f"there is none called {word!r}" if word not in {"", "-1"} else ""
        )
    return tuple(chosen), ""


@dataclass(frozen=True)
class Hiding:
    """GPUs that a variable hides: `text` says which variable hides how many; `left` are those that can be used.

    It is `meant` where the list names what there is, and leaves at least one.
    """

    variable: str
    text: str
    left: int
    meant: bool = False


def hiding(driver: Driver | None, environ: Mapping[str, str] | None = None) -> Hiding | None:
    """The GPUs that variables of the shell hide from programs; None where they hide none."""
    environ = os.environ if environ is None else environ
    listed, visible = units(driver), environ.get(VISIBLE)
    if not listed:
        given = environ.get(_GIVEN)
        if given is None or given.strip() not in {"", "void", "none"}:
            return None
        return Hiding(_GIVEN, f"{_GIVEN}={given!r} gives this container none of the machine's GPUs", 0)
    chosen, reason = _read_list(listed, visible)
    if len(chosen) == len(listed):
        return None
    named = f"{VISIBLE}={visible!r}" if visible else f"{VISIBLE} is empty and"
    many = f"{len(listed)} GPU{'s' if len(listed) > 1 else ''}"
    text = f"{named} hides {len(listed) - len(chosen)} of the machine's {many}{': ' if reason else ''}{reason}"
    return Hiding(VISIBLE, text, len(chosen), meant=bool(chosen) and not reason)


def read(nvml: Any = None) -> Driver | None:
    """The driver and its GPUs as they are now; None where there is no driver.

    Args:
        nvml: what to ask in place of ``pynvml``.

    Raises:
        ToolError: there is a driver, and it does not answer.
    """
    if nvml is None:
        if recorded := os.environ.get(RECORDED):
            return _recorded(Path(recorded))
        nvml = importlib.import_module("pynvml")
    try:
        nvml.nvmlInit()
    except (nvml.NVMLError_LibraryNotFound, nvml.NVMLError_DriverNotLoaded):
        return None
    except nvml.NVMLError as error:
        raise _unusable(error) from error
    try:
        handles = [nvml.nvmlDeviceGetHandleByIndex(index) for index in range(nvml.nvmlDeviceGetCount())]
        cuda = nvml.nvmlSystemGetCudaDriverVersion_v2()
        gpus = tuple(_gpu(nvml, index, handle) for index, handle in enumerate(handles))
        return Driver(nvml.nvmlSystemGetDriverVersion(), (cuda // 1000, cuda % 1000 // 10), gpus)
    except nvml.NVMLError as error:
        raise _unusable(error) from error
    finally:
        nvml.nvmlShutdown()


def _unusable(error: Exception) -> ToolError:
    # After an upgrade of its packages and before a reboot, most often.
    return ToolError(f"the NVIDIA driver does not answer: {error}", code="driver-unusable", hint="nvidia-smi")


def _gpu(nvml: Any, index: int, handle: Any) -> Gpu:
    memory = _told(nvml, None, nvml.nvmlDeviceGetMemoryInfo, handle)
    capability = _told(nvml, None, nvml.nvmlDeviceGetCudaComputeCapability, handle)
    computing = _told(nvml, (), nvml.nvmlDeviceGetComputeRunningProcesses, handle)
    return Gpu(
        index=index,
        uuid=nvml.nvmlDeviceGetUUID(handle),
        name=nvml.nvmlDeviceGetName(handle),
        total_bytes=memory.total if memory else 0,
        free_bytes=memory.free if memory else 0,
        capability=(capability[0], capability[1]) if capability else None,
        processes=tuple(GpuProcess(each.pid, each.usedGpuMemory) for each in computing),
        mig=tuple(_gpu(nvml, index, part) for part in _parts(nvml, handle)),
    )


def _told(nvml: Any, otherwise: object, ask: Callable[..., Any], *arguments: object) -> Any:
    try:
        return ask(*arguments)
    except nvml.NVMLError:  # Not every GPU tells everything, nor to everybody.
        return otherwise


def _parts(nvml: Any, handle: Any) -> list[Any]:
    """The MIG devices of a GPU; one of them has none itself."""
    enabled, _ = _told(nvml, (0, 0), nvml.nvmlDeviceGetMigMode, handle)
    count = _told(nvml, 0, nvml.nvmlDeviceGetMaxMigDeviceCount, handle) if enabled else 0
    parts = [_told(nvml, None, nvml.nvmlDeviceGetMigDeviceHandleByIndex, handle, number) for number in range(count)]
    return [part for part in parts if part is not None]


def _recorded(path: Path) -> Driver | None:
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        return None if document is None else _driver(document)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ToolError(
            f"{RECORDED} names {path}, which is no record of a driver: {error}", hint=f"cat {path}"
        ) from error


def _driver(document: dict[str, Any]) -> Driver:
    major, minor = document["cuda"]
    return Driver(document["version"], (major, minor), tuple(_recorded_gpu(each) for each in document.get("gpus", ())))


def _recorded_gpu(document: dict[str, Any]) -> Gpu:
    return Gpu(
        **{
            **document,
            "capability": tuple(document["capability"]) if document.get("capability") else None,
            "processes": tuple(GpuProcess(**process) for process in document.get("processes", ())),
            "mig": tuple(_recorded_gpu(part) for part in document.get("mig", ())),
        }
    )


def trace() -> str:
    """What differs, most likely, once another driver is there; costs a few stats, and asks no library."""
    recorded = os.environ.get(RECORDED)
    told = []
    for path in (Path(recorded),) if recorded else _TRACES:
        try:
            told.append(path.read_text(encoding="utf-8").strip() if path.is_file() else str(path.exists()))
        except OSError as error:
            told.append(str(error.errno))
    return " ".join(told)
