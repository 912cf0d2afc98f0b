"""Digests of files, each inode hashed once: hard links share them across environments and with uv's cache."""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import sqlite3

_BLOCK = 1 << 20


def sha256_of(path: Path) -> str:
    """The digest of a file's bytes, as seals and RECORDs name it.

    Raises:
        OSError: it cannot be read.
    """
    digest = hashlib.sha256()
    with path.open("rb", buffering=0) as stream:
        while block := stream.read(_BLOCK):
            digest.update(block)
    return f"sha256:{digest.hexdigest()}"


class Digests:
    """Digests remembered by device, inode, size and mtime; link() leaves all four alone.

    What is remembered saves work when an environment is made. `verify --full` never asks it: an edit that puts the
    mtime back is just what it looks for.

    Args:
        file: the database; where it cannot be used, everything is hashed.
        fresh: whether to hash everything anew, and remember that.
    """

    def __init__(self, file: Path, *, fresh: bool = False) -> None:
        import sqlite3

        self._asked = not fresh
        self._error = sqlite3.Error
        self._database: sqlite3.Connection | None = None
        self._fresh: list[tuple[str, str]] = []
        with contextlib.suppress(self._error, OSError):
            file.parent.mkdir(parents=True, exist_ok=True)
            self._database = sqlite3.connect(file, timeout=30, isolation_level=None)
            self._database.execute("pragma synchronous = off")  # Losing it costs time, nothing else.
            self._database.execute(
                "create table if not exists digests (inode text primary key, digest text) without rowid"
            )

    def __enter__(self) -> Digests:  # noqa: PYI034 - nobody derives from it
        return self

    def __exit__(self, *_: object) -> None:
        if self._database is not None:
            with contextlib.suppress(self._error):
                self._database.execute("begin immediate")
                self._database.executemany("insert or replace into digests values (?, ?)", self._fresh)
                self._database.execute("commit")
            self._database.close()

    def of(self, path: Path, status: os.stat_result) -> str:
        """The digest of a file whose `lstat` is `status`.

        Raises:
            OSError: it cannot be read.
        """
        inode = f"{status.st_dev}:{status.st_ino}:{status.st_size}:{status.st_mtime_ns}"
        if (known := self._known(inode)) is not None:
            return known
        digest = sha256_of(path)
        self._fresh.append((inode, digest))
        return digest

    def _known(self, inode: str) -> str | None:
        if self._database is None or not self._asked:
            return None
        try:
            row = self._database.execute("select digest from digests where inode = ?", (inode,)).fetchone()
        except self._error:
            return None
        return str(row[0]) if row else None


def walk(root: Path) -> Iterator[tuple[str, os.DirEntry[str]]]:
    """Everything below a folder, folders first, by path relative to it; links are not followed."""
    queue = [("", str(root))]
    while queue:
        prefix, folder = queue.pop()
        with os.scandir(folder) as entries:
            for entry in entries:
                name = prefix + entry.name
                yield name, entry
                if entry.is_dir(follow_symlinks=False):
                    queue.append((f"{name}/", entry.path))
