"""Where the workspace is and where its state lives; quick, since every command begins here."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shlex
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

from envbuilder.errors import UsageError

# Where a workspace keeps its state unless told otherwise, and how to tell it.
STATE = ".envbuilder"
# More is no file that people wrote, and whoever reads it says so.
_MOST_BYTES = 5_000_000
_WIDE = ("utf-16-le", "utf-16-be")
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
        text = _bytes(folder / "pyproject.toml")
        # Of another encoding, it is refused where it is read, with a way out, and not taken for no workspace.
        if b"tool.envbuilder" in text or any("tool.envbuilder".encode(code) in text for code in _WIDE):
            yield folder


def _bytes(file: Path) -> bytes:
    try:
        with file.open("rb") if file.is_file() else BytesIO() as stream:
            return stream.read(_MOST_BYTES)
    except OSError:
        return b""


def refuse_unusable(path: str | Path, what: str, hint: str | None = None) -> None:
    """Refuse a path that git, uv or a file of ours cannot hold: one with a line break, or that is no UTF-8.

    Args:
        path: absolute.
        what: how the message names it.
        hint: a command that helps; without one, the one that renames the folder.

    Raises:
        UsageError: it is such a path.
    """
    folder, wrong = Path("/"), ""
    for part in Path(path).parts[1:]:
        wrong = "a line break" if "\n" in part or "\r" in part else "" if _is_text(part) else "bytes that are no UTF-8"
        folder /= part
        if wrong:
            break
    if wrong:
        better = folder.with_name(re.sub(r"[\n\r\ud800-\udfff]+", "-", folder.name))
        shown = f"mv {shell_word(folder)} {shell_word(better)}"
        message = f"{what} holds {wrong}, which git and uv cannot take: {shell_word(folder)}"
        raise UsageError(message, code="path-unusable", where=shell_word(folder), hint=hint or shown)


def _is_text(part: str) -> bool:
    try:
        part.encode()
    except UnicodeEncodeError:
        return False
    return True


def shell_word(path: str | Path) -> str:
    """Return a path as bash takes it, on one line and in printable characters."""
    text = str(path)
    if text.isprintable():
        return shlex.quote(text)
    escaped = "".join(_escaped(char) for char in text)
    return f"$'{escaped}'"


def _escaped(char: str) -> str:
    if char in "\\'":
        return f"\\{char}"
    if char.isprintable():
        return char
    return "".join(f"\\x{byte:02x}" for byte in os.fsencode(char))


def state_folders(root: Path, home: str | None = None) -> tuple[Path, Path]:
    """Where a workspace's state lives: what workspaces may share, and what is its own.

    Args:
        root: the workspace.
        home: what counts in place of ``ENVBUILDER_HOME``.

    Raises:
        UsageError: it is no absolute path: it would be another folder wherever a command is given.
    """
    refuse_unusable(root, "the workspace's path")
    home = home or os.environ.get("ENVBUILDER_HOME")
    if home:
        refuse_unusable(Path(home).absolute(), "ENVBUILDER_HOME", ELSEWHERE.partition("  #")[0])
    if not home:
        return root / STATE, root / STATE
    place = Path(os.path.expanduser(home))  # noqa: PTH111 - Path's own fails on ~nobody
    if not place.is_absolute():
        hint = f"export ENVBUILDER_HOME={shlex.quote(str(place.absolute()))}"
        raise UsageError(f"ENVBUILDER_HOME: expected an absolute path; found {home}", hint=hint)
    shared = place.resolve()
    own = own_folder(root, shared)
    return shared, own if own.exists() else _moved(shared, root) or own


def own_folder(root: Path, shared: Path) -> Path:
    """Where a workspace keeps what is its own in a shared state folder."""
    digest = hashlib.sha256(os.fsencode(root)).hexdigest()[:8]
    return shared / "workspaces" / f"{root.name}-{digest}"


@dataclass(frozen=True)
class Owner:
    """The workspace whose state a folder in a shared state folder is.

    Attributes:
        root: where it was last.
        identity: what its folder keeps wherever it is moved to, and no copy has; empty where that cannot be told.
    """

    root: Path
    identity: str


OWNER = "workspace.json"


def owner_of(own: Path) -> Owner | None:
    """Whose state a folder is; None where it does not say."""
    try:
        told = json.loads((own / OWNER).read_text(encoding="utf-8"))
        return Owner(Path(told["root"]), str(told["identity"]))
    except (OSError, ValueError, KeyError, TypeError):
        return None


def abandoned(shared: Path) -> list[tuple[Path, Owner]]:
    """The workspaces' own folders in a shared state folder whose workspace is not where it was."""
    folders = sorted((shared / "workspaces").glob("*/"))
    owned = [(folder, owner) for folder in folders if (owner := owner_of(folder)) is not None]
    return [(folder, owner) for folder, owner in owned if not (owner.root / "pyproject.toml").exists()]


def _moved(shared: Path, root: Path) -> Path | None:
    """The state of a workspace that was moved here."""
    left = abandoned(shared)
    mine = identity_of(root) if left else ""
    return next((folder for folder, owner in left if mine and owner.identity == mine), None)


def identity_of(folder: Path) -> str:
    """Device, inode and time of birth of a folder: a move keeps them, a copy or a clone has others; empty if unknown."""
    import ctypes

    # struct statx of linux/stat.h: the mask of what is told comes first, the time of birth at byte 80.
    found = ctypes.create_string_buffer(256)
    try:
        status = folder.stat()
        if ctypes.CDLL(None).statx(-100, os.fsencode(folder), 0, 0x800, found) != 0:
            return ""
    except (OSError, AttributeError):
        return ""
    if not int.from_bytes(found.raw[:4], sys.byteorder) & 0x800:
        return ""
    born = found.raw[80:92]
    return f"{status.st_dev}:{status.st_ino}:{born.hex()}"
