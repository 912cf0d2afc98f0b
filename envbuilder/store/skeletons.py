"""Empty virtual environments: uv makes one for each interpreter, every other is written after it in a millisecond."""

from __future__ import annotations

import os
import shutil
import stat
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from envbuilder import process, uv
from envbuilder.fs import locked
from envbuilder.store.digests import walk

# Stands where uv writes a virtual environment's name for a shell's prompt: into pyvenv.cfg and the activation scripts.
_PROMPT = "prompt-to-be-named"


@dataclass(frozen=True)
class Skeleton:
    """Everything in an empty virtual environment.

    Attributes:
        folders: paths relative to it, parents first.
        links: path to target.
        files: path to permission bits and contents.
    """

    folders: tuple[str, ...]
    links: Mapping[str, str]
    files: Mapping[str, tuple[int, bytes]]

    @property
    def names(self) -> set[str]:
        return {*self.folders, *self.links, *self.files}

    def lay(self, folder: Path, prompt: str) -> None:
        """Write it to a new folder.

        Raises:
            OSError: the file system refuses.
        """
        folder.mkdir()
        for name in self.folders:
            (folder / name).mkdir()
        for name, target in self.links.items():
            (folder / name).symlink_to(target)
        for name, (mode, content) in self.files.items():
            (folder / name).write_bytes(content.replace(_PROMPT.encode(), prompt.encode()))
            (folder / name).chmod(mode)


class Skeletons:
    """The skeletons of this process's interpreters, each made when it is first wanted.

    Args:
        staging: a folder to make them in; what a killed build leaves there as ``skeleton@…`` is swept.
        lock: the file whose lock keeps the sweeper away.
    """

    def __init__(self, staging: Path, lock: Path) -> None:
        self._staging = staging
        self._lock = lock
        self._guard = threading.Lock()
        self._known: dict[Path, Skeleton] = {}

    def of(self, interpreter: Path) -> Skeleton | process.Completed:
        """The skeleton for an interpreter, or how uv failed to make it.

        Raises:
            OSError: it cannot be read.
            ToolError: the file system refuses the lock.
        """
        with self._guard:
            if interpreter not in self._known:
                folder = self._staging / f"skeleton@{os.getpid()}"
                with locked(self._lock):
                    folder.parent.mkdir(parents=True, exist_ok=True)
                    try:
                        made = uv.venv(folder, interpreter, prompt=_PROMPT)
                        if not made.ok:
                            return made
                        self._known[interpreter] = _read(folder)
                    finally:
                        shutil.rmtree(folder, ignore_errors=True)
            return self._known[interpreter]


def _read(root: Path) -> Skeleton:
    folders, links, files = [], {}, {}
    for name, entry in walk(root):
        if entry.is_symlink():
            links[name] = os.readlink(entry.path)  # noqa: PTH115 - the link's own text
        elif entry.is_dir():
            folders.append(name)
        else:
            files[name] = (stat.S_IMODE(entry.stat().st_mode), Path(entry.path).read_bytes())
    return Skeleton(tuple(folders), links, files)
