"""Which interpreter a request led to, remembered, so that a build with nothing to do asks nobody."""

from __future__ import annotations

import contextlib
import json
import os
import threading
from dataclasses import asdict
from pathlib import Path

from envbuilder import uv, variables
from envbuilder.errors import ToolError
from envbuilder.fs import write_atomically
from envbuilder.models import Interpreter

# Several locks at a time want the same interpreter: one of them asks.
_asking = threading.Lock()


def find(shared: Path, request: str, *, offline: bool) -> Interpreter:
    """The interpreter for a request; remembered as long as PATH and the executable stay the same.

    Raises:
        ToolError: there is none.
    """
    with _asking:
        memo = shared / "interpreters.json"
        known = _read(memo)
        steering = "".join(f" {each}={os.environ[each]}" for each in variables.DISCOVERY if each in os.environ)
        name = f"{request} on {os.environ.get('PATH', '')}{steering}"
        if name in known and (found := _still_valid(known[name])) is not None:
            return found
        found = uv.find_python(request, offline=offline)
        known[name] = {**asdict(found), "path": str(found.path), "stamp": stamp_of(found.path)}
        with contextlib.suppress(ToolError):  # Where nothing can be kept, the next command asks again.
            write_atomically(memo, json.dumps(known, indent=1, sort_keys=True))
        return found


def _read(memo: Path) -> dict[str, dict[str, object]]:
    try:
        document = json.loads(memo.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return document if isinstance(document, dict) else {}


def _still_valid(record: dict[str, object]) -> Interpreter | None:
    try:
        fields = {name: str(record[name]) for name in ("implementation", "version", "abi", "platform")}
        path = Path(str(record["path"]))
        return Interpreter(path, **fields) if stamp_of(path) == record["stamp"] else None
    except (KeyError, TypeError, OSError):
        return None


def stamp_of(python: Path) -> list[object]:
    """What tells an interpreter from the one that takes its place: where it really is, its size, its mtime in ns."""
    # A patch release replaces the executable, behind whatever links lead to it.
    real = python.resolve()
    status = real.stat()
    return [str(real), status.st_size, status.st_mtime_ns]
