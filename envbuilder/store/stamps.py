"""What a finished `build` looked at, so that the next one can tell by stats alone that there is nothing to do.

A stamp says: these files looked so, these variables were set so, and then every environment was there. It never makes
a damaged environment pass: each is still glanced at. Anything that differs, or is too fresh to tell, means that the
whole of `build` runs.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from envbuilder import __version__, gpus
from envbuilder.errors import ToolError
from envbuilder.fs import write_atomically

# File systems may stamp two writes within a few milliseconds alike; what changed so lately is looked at again.
_TOO_FRESH_NS = 50_000_000
# Variables that steer which interpreter is found, or what uv does.
_STEERING = ("PATH", "PYENV_ROOT", "HOME", "ENVBUILDER_HOME")
# `uv run` counts itself, and steers nothing by it.
_COUNTED = "UV_RUN_RECURSION_DEPTH"


@dataclass(frozen=True)
class Ready:
    """An environment that is there: whose, under which key, where, and with which torch backend."""

    plugin: str
    key: str
    path: Path
    torch: str | None = None


def nothing_to_do(file: Path, store: Path) -> list[Ready] | None:
    """The environments of a workspace's profile, if a stamp proves that they are what a `build` would leave.

    Args:
        file: the stamp.
        store: the folder of environments.
    """
    keys = meant(file)
    if keys is None:
        return None
    from envbuilder.store import seals, verify  # Not for a `lock`, which begins here too.

    ready = []
    for plugin, key in keys.items():
        seal = seals.read(store / f"{key}.json", key)
        if seal is None or verify.glance(store / key, seal) is not None:
            return None
        backend = seal.inputs.get("torch")
        ready.append(Ready(plugin, key, store / key, str(backend) if backend else None))
    return ready


def meant(file: Path) -> dict[str, str] | None:
    """The environments that registry, locks and interpreters lead to, plugin to key, if a stamp proves it.

    Says nothing about the environments themselves: whether they are there, and whole, is for the caller to see.
    """
    try:
        stamp = json.loads(file.read_text(encoding="utf-8"))
        # A copy of a workspace brings the stamp along, which speaks of the original's files.
        if stamp["place"] != str(file) or stamp["version"] != __version__ or stamp["variables"] != _variables():
            return None
        limit = stamp["made-ns"] - _TOO_FRESH_NS
        for name, known in stamp["files"].items():
            found = _stat(name)
            if found != known or (found is not None and found[1] > limit):
                return None
        return {str(plugin): str(key) for plugin, key in stamp["environments"].items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def write(file: Path, watched: Iterable[Path], environments: Mapping[str, str], *, since_ns: int | None = None) -> None:
    """Note what was looked at and what is there: plugin to key.

    Args:
        file: where to.
        watched: files and folders.
        environments: plugin to key.
        since_ns: when the looking began, in ns: what was written since may not be what was looked at, and there is no
            stamp then. None where the caller wrote some of it himself.
    """
    if since_ns is None:
        # What was written just now (the generation, most likely) would make the stamp worthless.
        time.sleep(2 * _TOO_FRESH_NS / 1e9)
    files = {str(path): _stat(path) for path in watched}
    if since_ns is not None and any(found is not None and found[1] >= since_ns for found in files.values()):
        return
    document = {
        "place": str(file),
        "version": __version__,
        "variables": _variables(),
        "files": files,
        "made-ns": time.time_ns(),
        "environments": dict(environments),
    }
    with contextlib.suppress(ToolError):  # A stamp saves time, nothing else.
        write_atomically(file, json.dumps(document, indent=0))


def stamp_path(own: Path, profile: str, command: str = "build") -> Path:
    """Where a workspace keeps the stamp of a profile's last whole `build`, or of another command."""
    return own / "stamps" / f"{command}-{profile}.json"


def _variables() -> str:
    steering = {
        name: value
        for name, value in os.environ.items()
        if name in _STEERING or (name.startswith("UV_") and name != _COUNTED)
    }
    # Another driver may mean another build of torch.
    return hashlib.sha256(json.dumps([steering, gpus.trace()], sort_keys=True).encode()).hexdigest()


def _stat(path: str | Path) -> list[int] | None:
    try:
        status = Path(path).stat()
    except OSError:
        return None
    return [status.st_size, status.st_mtime_ns, status.st_ino]
