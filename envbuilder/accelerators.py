"""PyTorch's builds for CPUs and for CUDA: what they are called, where they are served, what each needs. Pure."""

from __future__ import annotations

import re
from collections.abc import Collection

from packaging.version import Version

from envbuilder.errors import EnvbuilderError
from envbuilder.gpus import Driver

AUTO = "auto"
CPU = "cpu"
DEFAULT = "default"
# Each build has an index of its own below this address; `torch-index-url` names another.
INDEX = "https://download.pytorch.org/whl"
# What those indexes serve and builds differ in. Where a closure holds one, it must come from the same index as torch.
PACKAGES = frozenset({"torch", "torchao", "torchaudio", "torchcodec", "torchrec", "torchtext", "torchvision"})


class UnfitError(EnvbuilderError):
    """A backend that this machine cannot run."""

    code = "torch-unsupported"


_CUDA = re.compile(r"cu(\d{1,2})(\d)", re.ASCII)
# NVIDIA, "CUDA Compatibility", minor version compatibility (docs.nvidia.com/deploy/cuda-compatibility), and the release
# notes of 11.8, 12.x and 13.x, table 2: from this driver on every CUDA of the series runs. uv's table is the same.
_DRIVERS = {11: "450.80.02", 12: "525.60.13", 13: "580"}
# From the release notes of 11.0, 12.0 and 13.0: the oldest GPUs that a series still has code for.
_CAPABILITIES = {11: (3, 5), 12: (5, 0), 13: (7, 5)}


def backend(text: str) -> str:
    """The name of a backend, proved.

    Raises:
        ValueError: it is none.
    """
    if text not in {CPU, DEFAULT} and not _CUDA.fullmatch(text):
        raise ValueError("expected default, cpu, or cu and a CUDA version without its dot, such as cu128")
    return text


def cuda(name: str) -> tuple[int, int] | None:
    """The CUDA version of a backend: (12, 8) for ``cu128``; None for those without one."""
    found = _CUDA.fullmatch(name)
    return (int(found[1]), int(found[2])) if found else None


def index_url(name: str, base: str) -> str:
    """The index that serves a backend; it must not be ``default``, which whatever index there is serves."""
    return f"{base.rstrip('/')}/{name}"


def offered(pin: str | None, listed: tuple[str, ...]) -> tuple[str, ...]:
    """The backends that a plugin's lock holds: the profile's, or the one that its entry pins.

    None where it is to hold torch as the package index and the package's own metadata have it, and nothing else.
    """
    kept = listed if pin in {None, AUTO} else (str(pin),)
    return () if kept == (DEFAULT,) else kept


def unfit(name: str, driver: Driver | None, *, every: bool = False) -> str | None:
    """Why a driver cannot run a backend, found against required; None where it can.

    Without a driver nothing is unfit: CUDA builds compute on the CPU then, and may be built here for elsewhere.

    Args:
        name: the backend.
        driver: this machine's.
        every: whether it must run on all GPUs, not only on one.
    """
    version = cuda(name)
    if version is None or driver is None:
        return None
    needed = _DRIVERS.get(version[0])
    if needed is not None and Version(driver.version) < Version(needed):
        return f"{name} needs an NVIDIA driver {needed} or later; found {driver.version}"
    if needed is None and driver.cuda < version:
        return f"{name} needs an NVIDIA driver with CUDA {_dotted(version)}; found CUDA {_dotted(driver.cuda)}"
    oldest = _CAPABILITIES.get(version[0], (0, 0))
    known = [gpu.capability for gpu in driver.gpus if gpu.capability is not None]
    if known and (found := (min if every else max)(known)) < oldest:
        return f"{name} needs a GPU of compute capability {_dotted(oldest)} or later; found {_dotted(found)}"
    return None


def series(driver: Driver) -> tuple[int, ...]:
    """The major versions of CUDA whose builds all GPUs of a driver can run."""
    return tuple(major for major in _DRIVERS if not unfit(f"cu{major}0", driver, every=True))


def _dotted(version: tuple[int, int]) -> str:
    return f"{version[0]}.{version[1]}"


def choose(names: Collection[str], driver: Driver | None) -> str:
    """The backend for this machine: the newest that its driver and all its GPUs can run, else the CPU's, else ``default``.

    Raises:
        UnfitError: none of them will do.
    """
    fitting = [name for name in names if cuda(name) and driver is not None and not unfit(name, driver, every=True)]
    if fitting:
        return max(fitting, key=lambda name: cuda(name) or (0, 0))
    for name in (CPU, DEFAULT):
        if name in names:
            return name
    found = f"the NVIDIA driver is {driver.version}" if driver else "there is no NVIDIA driver"
    raise UnfitError(
        f"none of the backends {', '.join(sorted(names))} is for this machine: {found}",
        hint=f"envbuilder build --torch {min(names)}  # if it is to run elsewhere",
    )
