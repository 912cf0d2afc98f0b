"""Digests of files, each inode hashed once: hard links share them across environments and with uv's cache."""

from __future__ import annotations

import contextlib
import hashlib
import os
import threading
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import sqlite3

# As much as a core's own cache holds beside other things: measured, larger and smaller ones are slower.
_BLOCK = 1 << 18
# What is hashed before a second thread would have started.
_LITTLE = 1 << 22
# How many questions a statement of SQLite's may hold, at the least.
_ASKED_AT_ONCE = 900


def sha256_of(path: str | Path) -> str:
    """The digest of a file's bytes, as seals and RECORDs name it.

    Raises:
        OSError: it cannot be read.
    """
    return _sha256(path, bytearray(_BLOCK))


def _sha256(path: str | Path, block: bytearray) -> str:
    # Plain descriptors: most files are small, and a file object costs more than their bytes.
    handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        digest = hashlib.sha256()
        view = memoryview(block)
        while count := os.readv(handle, (block,)):
            digest.update(view[:count])
        return f"sha256:{digest.hexdigest()}"
    finally:
        os.close(handle)


def sha256_of_all(sizes: Mapping[str, int]) -> dict[str, str | OSError]:
    """The digests of many files, with all cores that this process may use.

    The time of large files goes into hashing, which threads do side by side; that of small ones into Python, which they
    do not. So one thread takes the smallest of what is left, the others the largest.

    Args:
        sizes: bytes by path, as the order to take them in; they need not be exact.

    Returns:
        The digest by path, or why a file cannot be read.
    """
    left = deque(sorted(sizes, key=sizes.__getitem__))
    found: dict[str, str | OSError] = {}

    def work(take: Callable[[], str]) -> None:
        block = bytearray(_BLOCK)
        with contextlib.suppress(IndexError):  # Nothing is left.
            while True:
                path = take()
                try:
                    found[path] = _sha256(path, block)
                except OSError as error:
                    found[path] = error

    cores = len(os.sched_getaffinity(0)) if sum(sizes.values()) > _LITTLE else 1
    helpers = [threading.Thread(target=work, args=(left.pop,)) for _ in range(cores - 1)]
    for helper in helpers:
        helper.start()
    try:
        work(left.popleft)
    finally:
        left.clear()  # Where this thread was interrupted, the others end with the file that they are at.
        for helper in helpers:
            helper.join()
    return found


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

    def of_all(self, files: Mapping[str, os.stat_result]) -> dict[str, str]:
        """The digests of files, by path, given their `lstat`; what is not remembered is hashed with all cores.

        Raises:
            OSError: one cannot be read.
        """
        inodes = {
            path: f"{each.st_dev}:{each.st_ino}:{each.st_size}:{each.st_mtime_ns}" for path, each in files.items()
        }
        known = self._known(list(set(inodes.values())))
        missing = {inode: path for path, inode in inodes.items() if inode not in known}
        hashed = sha256_of_all({path: files[path].st_size for path in missing.values()})
        for inode, path in missing.items():
            digest = hashed[path]
            if isinstance(digest, OSError):
                raise digest
            known[inode] = digest
            self._fresh.append((inode, digest))
        return {path: known[inode] for path, inode in inodes.items()}

    def _known(self, inodes: Sequence[str]) -> dict[str, str]:
        if self._database is None or not self._asked:
            return {}
        known: dict[str, str] = {}
        with contextlib.suppress(self._error):
            for start in range(0, len(inodes), _ASKED_AT_ONCE):
                some = inodes[start : start + _ASKED_AT_ONCE]
                marks = ",".join("?" * len(some))
                known.update(self._database.execute(f"select * from digests where inode in ({marks})", some))  # noqa: S608 - marks only
        return known


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
