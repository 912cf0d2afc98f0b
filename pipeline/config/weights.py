"""Digests of the files that models are loaded from: gigabytes, so each is read once and remembered by its inode."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Iterator
from pathlib import Path

from envbuilder.errors import ToolError
from envbuilder.fs import write_atomically

_BLOCK = 1 << 20


class Digests:
    """Digests of files, remembered by device, inode, size and time of change.

    Args:
        memo: the file to remember them in; None to remember nothing.
    """

    def __init__(self, memo: Path | None) -> None:
        self._memo = memo
        self._known: dict[str, str] = {}
        self._is_new = False
        with contextlib.suppress(OSError, ValueError):
            found = json.loads(memo.read_text(encoding="utf-8")) if memo else {}
            self._known = {str(inode): str(digest) for inode, digest in found.items()}

    def of(self, path: Path) -> str:
        """The digest of a file, or of a folder: of the names and contents of all files in it but hidden ones.

        Raises:
            OSError: it cannot be read.
        """
        if not path.is_dir():
            return self._of_file(path)
        whole = hashlib.sha256()
        for name in sorted(_files(path)):
            whole.update(json.dumps([name, self._of_file(path / name)]).encode() + b"\n")
        return whole.hexdigest()

    def _of_file(self, path: Path) -> str:
        status = path.stat()
        inode = f"{status.st_dev}:{status.st_ino}:{status.st_size}:{status.st_mtime_ns}"
        if inode not in self._known:
            digest = hashlib.sha256()
            with path.open("rb") as stream:
                while block := stream.read(_BLOCK):
                    digest.update(block)
            self._known[inode] = digest.hexdigest()
            self._is_new = True
        return self._known[inode]

    def save(self) -> None:
        """Remember; that it cannot be written costs time, nothing else."""
        if self._memo is None or not self._is_new:
            return
        with contextlib.suppress(ToolError):
            write_atomically(self._memo, json.dumps(self._known))


def weight_files(path: Path) -> Iterator[Path]:
    """The files that the digest of weights at a path is made of."""
    if path.is_dir():
        yield from (path / name for name in _files(path))
    else:
        yield path


def _files(folder: Path) -> Iterator[str]:
    """Files below a folder, through links too, as caches of weights are made of them."""
    seen = set()
    for root, folders, names in os.walk(folder, followlinks=True):
        folders[:] = [name for name in folders if not name.startswith(".")]
        if os.path.realpath(root) in seen:  # A link back to where we have been.
            folders.clear()
            continue
        seen.add(os.path.realpath(root))
        yield from (str((Path(root) / name).relative_to(folder)) for name in names if not name.startswith("."))
