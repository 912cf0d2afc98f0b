"""Seals: what an environment was when it was finished, kept outside of it, in two files.

The head (``<key>.json``) is small: what the environment was made from, and what a glance compares. The list
(``<key>.files.json``) holds every file; the head holds its digest, so that an edit of either shows.
"""

from __future__ import annotations

import hashlib
import json
import os
import stat
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from envbuilder.fs import write_atomically
from envbuilder.store.digests import Digests, walk

SEAL_VERSION = 3

# Mode, size, mtime in ns, content: the fields of `Facts`.
Row = tuple[int, int, int, str]


@dataclass(frozen=True)
class Facts:
    """One file, link or folder of an environment.

    Attributes:
        mode: type and permission bits, as in ``st_mode``.
        size: bytes; 0 for links and folders.
        mtime_ns: nanoseconds; 0 for links and folders.
        content: ``sha256:…`` of a file, the target of a link, empty for a folder.
    """

    mode: int
    size: int = 0
    mtime_ns: int = 0
    content: str = ""

    @property
    def is_file(self) -> bool:
        return stat.S_ISREG(self.mode)


@dataclass(frozen=True)
class Seal:
    """The head of a seal.

    Attributes:
        key: the environment's key.
        inputs: what the key was made from, for people.
        distributions: name to version.
        tools: versions of envbuilder and uv that made it.
        count: how many files, links and folders the list holds.
        size: their bytes, apparent.
        list_digest: of the list's text, and so of everything.
        packages: site-packages, relative to the environment.
        names: digest of the names in site-packages.
        stats: for a glance: size and mtime in ns of each RECORD and of pyvenv.cfg, by relative path.
    """

    key: str
    inputs: Mapping[str, object]
    distributions: Mapping[str, str]
    tools: Mapping[str, str]
    count: int
    size: int
    list_digest: str
    packages: str
    names: str
    stats: Mapping[str, list[int]]


def facts_of(path: str | Path, status: os.stat_result, content: str = "") -> Facts:
    """The facts of what is at a path, given its `lstat`; `content` is a file's digest, where it is wanted."""
    if stat.S_ISREG(status.st_mode):
        return Facts(status.st_mode, status.st_size, status.st_mtime_ns, content)
    if stat.S_ISLNK(status.st_mode):
        return Facts(status.st_mode, content=os.readlink(path))  # noqa: PTH115 - the link's own text
    return Facts(status.st_mode)


def survey(root: Path, digests: Digests) -> dict[str, Facts]:
    """Every file, link and folder below a root, by relative path, with digests.

    Raises:
        OSError: something cannot be read.
    """
    found = {entry.path: (name, entry.stat(follow_symlinks=False)) for name, entry in walk(root)}
    contents = digests.of_all({path: status for path, (_, status) in found.items() if stat.S_ISREG(status.st_mode)})
    return {name: facts_of(path, status, contents.get(path, "")) for path, (name, status) in found.items()}


def names_digest(names: Iterable[str]) -> str:
    """One digest for the names in a folder, whatever their order."""
    return hashlib.sha256("\n".join(sorted(names)).encode()).hexdigest()


def list_text(files: Mapping[str, Facts]) -> str:
    """The list of files as it is written."""
    rows = {name: [each.mode, each.size, each.mtime_ns, each.content] for name, each in sorted(files.items())}
    return json.dumps(rows, separators=(",", ":"))


def write(head: Path, listing: Path, seal: Seal, text: str) -> None:
    """Write a seal, the head last: where there is a head, there is a list."""
    write_atomically(listing, text)
    document = {"version": SEAL_VERSION, **asdict(seal)}
    write_atomically(head, json.dumps({**document, "digest": _digest(document)}, indent=1, sort_keys=True))


def _digest(document: Mapping[str, object]) -> str:
    return hashlib.sha256(json.dumps(document, sort_keys=True).encode()).hexdigest()


def read(head: Path, key: str) -> Seal | None:
    """The head of a seal; None where there is none or it is damaged, which means: not built.

    Raises:
        PermissionError: nobody lets us look.
    """
    try:
        document = json.loads(head.read_text(encoding="utf-8"))
        if document.pop("digest") != _digest(document) or document["version"] != SEAL_VERSION or document["key"] != key:
            return None
        return Seal(**{field.name: document[field.name] for field in fields(Seal)})
    except PermissionError:
        raise
    except (OSError, ValueError, KeyError, TypeError):
        return None


def read_rows(listing: Path, seal: Seal) -> dict[str, Row] | None:
    """The list of files as it is written, by path; None where it is not what the head says.

    Plain rows, since an environment may have tens of thousands: `Facts(*row)` makes one readable.
    """
    try:
        text = listing.read_bytes()
        if hashlib.sha256(text).hexdigest() != seal.list_digest:
            return None
        rows = json.loads(text)
    except (OSError, ValueError):
        return None
    return rows if isinstance(rows, dict) else None
