"""What a fresh environment must hold: every file of every RECORD, whole, and nothing from elsewhere."""

from __future__ import annotations

import base64
import csv
import hashlib
from collections.abc import Iterator
from pathlib import Path

# What uv or the interpreter may write into a dist-info folder without a line of its own in RECORD.
_UNRECORDED = frozenset({"RECORD", "REQUESTED", "INSTALLER", "uv_build.json", "uv_cache.json", "direct_url.json"})


def site_packages(environment: Path) -> Path:
    """The folder that packages are installed in.

    Raises:
        FileNotFoundError: there is none.
    """
    found = sorted(environment.glob("lib/python*/site-packages"))
    if not found:
        raise FileNotFoundError(f"no site-packages in {environment}")
    return found[0]


def findings(environment: Path, *, hashed: bool = False) -> Iterator[str]:
    """What differs between the RECORDs and the files, a line each.

    Args:
        environment: the root of a virtual environment.
        hashed: whether contents are compared too, not only presence and size.
    """
    try:
        packages = site_packages(environment)
    except FileNotFoundError as error:
        yield str(error)
        return
    for info in sorted(packages.glob("*.dist-info")):
        record = info / "RECORD"
        if not record.is_file():
            yield f"{info.name}: no RECORD"
            continue
        with record.open(encoding="utf-8", newline="") as stream:
            for row in csv.reader(stream):
                yield from _row(packages, info.name, row, hashed=hashed)


def _row(packages: Path, info: str, row: list[str], *, hashed: bool) -> Iterator[str]:
    name, algorithm, size = (*row, "", "", "")[:3]
    path = packages / name
    if not path.is_file():
        if not name.endswith(".pyc"):
            yield f"{info}: {name} is missing"
        return
    # Scripts get the environment's own first line, so their recorded size is the wheel's, not the file's.
    if name.startswith("..") or Path(name).name in _UNRECORDED:
        return
    if size.isdigit() and path.stat().st_size != int(size):
        yield f"{info}: {name} has {path.stat().st_size} bytes, RECORD says {size}"
    elif hashed and algorithm.startswith("sha256="):
        digest = base64.urlsafe_b64encode(hashlib.sha256(path.read_bytes()).digest()).rstrip(b"=").decode()
        if digest != algorithm.removeprefix("sha256="):
            yield f"{info}: {name} has other contents than RECORD says"


def distributions(environment: Path) -> dict[str, str]:
    """The installed distributions, normalised name to version, by the names of their dist-info folders."""
    found = {}
    for info in site_packages(environment).glob("*.dist-info"):
        name, _, version = info.name.removesuffix(".dist-info").rpartition("-")
        found[name.lower().replace("_", "-").replace(".", "-")] = version
    return found
