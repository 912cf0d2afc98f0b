"""Which of torch's builds a driver can run, and what NVML is understood to say."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import pytest

from envbuilder import gpus
from envbuilder.accelerators import UnfitError, choose, unfit
from envbuilder.errors import ToolError
from envbuilder.gpus import Driver, Gpu, GpuProcess


def driver(version: str, *capabilities: tuple[int, int] | None, cuda: tuple[int, int] = (12, 8)) -> Driver:
    """A driver with GPUs of those compute capabilities."""
    return Driver(
        version, cuda, tuple(Gpu(n, f"GPU-{n}", "Some GPU", 0, 0, each) for n, each in enumerate(capabilities))
    )


@pytest.mark.parametrize(
    ("name", "version", "fits"),
    [
        ("cu118", "450.80.02", True),
        ("cu118", "450.36.06", False),
        ("cu128", "525.60.13", True),  # Minor version compatibility: every 12.x runs from here on.
        ("cu128", "525.60.12", False),
        ("cu121", "580.65.06", True),  # Drivers run what is older than they are.
        ("cu130", "575.51.03", False),
        ("cu130", "580.65.06", True),
        ("cu132", "580.65.06", True),
        ("cu140", "580.65.06", False),  # Of a series that is not known yet the driver's own CUDA tells.
        ("cpu", "390.46", True),
        ("default", "390.46", True),
    ],
)
def test_driver_decides_what_can_be_run(name: str, version: str, fits: bool) -> None:
    """As NVIDIA's tables have it."""
    assert (unfit(name, driver(version, (9, 0))) is None) is fits


def test_gpu_that_cuda_has_dropped_counts_too() -> None:
    """A Volta card runs CUDA 12 and not 13; beside a newer one 13 may be asked for, but is not chosen."""
    old, mixed = driver("580.65.06", (7, 0)), driver("580.65.06", (7, 0), (9, 0))
    assert unfit("cu130", old) == "cu130 needs a GPU of compute capability 7.5 or later; found 7.0"
    assert unfit("cu130", mixed) is None
    assert choose(["cpu", "cu128", "cu130"], old) == "cu128"
    assert choose(["cpu", "cu128", "cu130"], mixed) == "cu128"
    assert choose(["cpu", "cu128", "cu130"], driver("580.65.06", None)) == "cu130"


@pytest.mark.parametrize(
    ("names", "version", "chosen"),
    [
        (["cu118", "cu126", "cu128"], "570.86.10", "cu128"),
        (["cu128", "cu118", "cpu"], "470.82.01", "cu118"),
        (["default", "cu128", "cpu"], "390.46", "cpu"),
        (["default", "cu128", "cpu"], None, "cpu"),
        (["default", "cu128"], None, "default"),
        (["default"], "570.86.10", "default"),
    ],
)
def test_auto_takes_the_newest_that_runs(names: list[str], version: str | None, chosen: str) -> None:
    """Then the CPU's, then what the package index has."""
    assert choose(names, driver(version, (8, 0)) if version else None) == chosen


def test_auto_without_anything_that_runs_is_an_error() -> None:
    """Where only CUDA's builds are listed, a machine without a driver is told how to build for another one."""
    with pytest.raises(
        UnfitError, match="none of the backends cu126, cu128 is for this machine: there is no"
    ) as caught:
        choose(["cu128", "cu126"], None)
    assert caught.value.hint == "envbuilder build --torch cu126  # if it is to run elsewhere"


class Nvml:
    """What ``pynvml`` would be on a machine with two GPUs, the second of them split and shy."""

    class NVMLError(Exception):
        """The root of its errors."""

    class NVMLError_LibraryNotFound(NVMLError):  # noqa: N801, N818 - likewise
        """There is no driver."""

    class NVMLError_DriverNotLoaded(NVMLError):  # noqa: N801, N818 - likewise
        """There is one, and no GPU."""

    def __init__(self, trouble: type[Exception] | None = None) -> None:
        self.trouble = trouble
        self.open = 0

    def nvmlInit(self) -> None:  # noqa: N802 - likewise, and below
        if self.trouble:
            raise self.trouble
        self.open += 1

    def nvmlShutdown(self) -> None:  # noqa: N802
        self.open -= 1

    def __getattr__(self, name: str) -> object:
        """The functions whose answers matter here."""

        def refuse(*_: object) -> None:
            raise self.NVMLError

        whole = SimpleNamespace(total=80 << 30, free=70 << 30)
        answers = {
            "nvmlDeviceGetCount": lambda: 2,
            "nvmlDeviceGetHandleByIndex": lambda index: f"gpu{index}",
            "nvmlSystemGetCudaDriverVersion_v2": lambda: 12080,
            "nvmlSystemGetDriverVersion": lambda: "570.86.10",
            "nvmlDeviceGetUUID": lambda handle: f"UUID-{handle}",
            "nvmlDeviceGetName": lambda _: "NVIDIA H100",
            "nvmlDeviceGetMemoryInfo": lambda handle: whole if handle == "gpu0" else refuse(),
            "nvmlDeviceGetCudaComputeCapability": lambda handle: [9, 0] if handle == "gpu0" else refuse(),
            "nvmlDeviceGetComputeRunningProcesses": lambda handle: (
                [SimpleNamespace(pid=7, usedGpuMemory=None)] if handle == "gpu0" else refuse()
            ),
            "nvmlDeviceGetMigMode": lambda handle: [1, 1] if handle == "gpu1" else refuse(),
            "nvmlDeviceGetMaxMigDeviceCount": lambda _: 3,
            "nvmlDeviceGetMigDeviceHandleByIndex": lambda handle, n: f"{handle}-{n}" if n < 2 else refuse(),
        }
        return answers[name]


def test_nvml_is_read_with_what_it_does_not_tell() -> None:
    """Versions, memory in bytes, processes, MIG devices; where a GPU refuses to tell, that much is left open."""
    nvml = Nvml()
    found = gpus.read(nvml)
    first = Gpu(0, "UUID-gpu0", "NVIDIA H100", 80 << 30, 70 << 30, (9, 0), (GpuProcess(7, None),))
    parts = tuple(Gpu(1, f"UUID-gpu1-{number}", "NVIDIA H100", 0, 0) for number in range(2))
    second = Gpu(1, "UUID-gpu1", "NVIDIA H100", 0, 0, mig=parts)
    assert found == Driver("570.86.10", (12, 8), (first, second))
    assert nvml.open == 0


def test_machine_without_a_driver_is_no_error_and_a_broken_one_is() -> None:
    """No library and no module mean no driver; anything else is told."""
    assert gpus.read(Nvml(Nvml.NVMLError_LibraryNotFound)) is None
    assert gpus.read(Nvml(Nvml.NVMLError_DriverNotLoaded)) is None
    with pytest.raises(ToolError, match="the NVIDIA driver does not answer") as caught:
        gpus.read(Nvml(Nvml.NVMLError))
    assert caught.value.hint == "nvidia-smi"


def test_recorded_machine_is_read_back_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A record holds all that NVML tells; one that cannot be read is an error, not a machine without a GPU."""
    record = tmp_path / "nvml.json"
    monkeypatch.setenv(gpus.RECORDED, str(record))
    part = Gpu(0, "MIG-1", "A MIG", 1, 1)
    found = Driver("580.1", (13, 0), (Gpu(0, "GPU-1", "A", 2, 1, (9, 0), (GpuProcess(7, 3),), (part,)),))
    record.write_text(json.dumps(found, default=vars))
    assert gpus.read() == found
    record.write_text("null")
    assert gpus.read() is None
    before = gpus.trace()
    record.write_text('{"version": "580"}')
    assert gpus.trace() != before
    with pytest.raises(ToolError, match="no record of a driver"):
        gpus.read()
