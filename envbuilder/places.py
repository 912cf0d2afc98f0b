"""Where the workspace is and where its state lives; quick, since every command begins here."""

from __future__ import annotations

import hashlib
import os
import shlex
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path

from envbuilder.errors import UsageError

# Where a workspace keeps its state unless told otherwise, and how to tell it.
STATE = ".envbuilder"
# More is no file that people wrote, and whoever reads it says so.
_MOST_BYTES = 5_000_000
ELSEWHERE = "export ENVBUILDER_HOME=~/.cache/envbuilder  # keeps state there"


def candidates(start: Path) -> Iterator[Path]:
    """The folders around a folder, from inside out, whose ``pyproject.toml`` may make them a workspace.

    Raises:
        UsageError: there is no such folder.
    """
    if not start.is_dir():
        there = next(parent for parent in start.absolute().parents if parent.is_dir())
        raise UsageError(f"no such folder: {start}", hint=f"ls {there}")
    for folder in (start.resolve(), *start.resolve().parents):
        if b"tool.envbuilder" in _bytes(folder / "pyproject.toml"):
            yield folder


def _bytes(file: Path) -> bytes:
    try:
        with file.open("rb") if file.is_file() else BytesIO() as stream:
            return stream.read(_MOST_BYTES)
    except OSError:
        return b""


def state_folders(root: Path, home: str | None = None) -> tuple[Path, Path]:
    """Where a workspace's state lives: what workspaces may share, and what is its own.

    Args:
        root: the workspace.
        home: what counts in place of ``ENVBUILDER_HOME``.

    Raises:
        UsageError: it is no absolute path: it would be another folder wherever a command is given.
    """
    home = home or os.environ.get("ENVBUILDER_HOME")
    if not home:
        return root / STATE, root / STATE
    place = Path(os.path.expanduser(home))  # noqa: PTH111 - Path's own fails on ~nobody
    if not place.is_absolute():
        hint = f"export ENVBUILDER_HOME={shlex.quote(str(place.absolute()))}"
        raise UsageError(f"ENVBUILDER_HOME: expected an absolute path; found {home}", hint=hint)
    shared = place.resolve()
    digest = hashlib.sha256(str(root).encode()).hexdigest()[:8]
    return shared, shared / "workspaces" / f"{root.name}-{digest}"
