"""Files that survive: written whole or not at all; and locks that die with their owner."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import functools
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from envbuilder.errors import ToolError
from envbuilder.places import ELSEWHERE, STATE

if TYPE_CHECKING:
    import ctypes

# From linux/fs.h and fcntl.h.
_RENAME_EXCHANGE = 2
_AT_FDCWD = -100


def write_atomically(path: Path, text: str) -> None:
    """Write a file so that it holds the old text or the new one, whatever happens meanwhile.

    A file that holds this text already is left alone.

    Raises:
        ToolError: the file system refuses (full, read-only).
    """
    import tempfile

    with contextlib.suppress(OSError, UnicodeDecodeError):
        if path.read_text(encoding="utf-8") == text:
            return
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".tmp", dir=path.parent)
        try:
            with os.fdopen(handle, "w", encoding="utf-8") as stream:
                stream.write(text)
                stream.flush()
                os.fsync(stream.fileno())
            Path(name).chmod(0o644)
            Path(name).replace(path)
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise
        sync_folder(path.parent)
    except OSError as error:
        raise unwritable(path, error) from error


def keep_from_git(state: Path) -> None:
    """Have git leave a state folder alone, whatever the workspace's own .gitignore says."""
    if not (state / ".gitignore").exists():
        write_atomically(state / ".gitignore", "*\n")


def sync_folder(folder: Path) -> None:
    """Make a rename in a folder durable."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def point(link: Path, target: Path) -> None:
    """Make a symbolic link, or swing an existing one over, in one step."""
    try:
        if link.is_symlink() and Path(os.readlink(link)) == target:  # noqa: PTH115 - the text as it stands
            return
        link.parent.mkdir(parents=True, exist_ok=True)
        fresh = link.with_name(f".{link.name}.{os.getpid()}.tmp")
        fresh.unlink(missing_ok=True)
        fresh.symlink_to(target)
        fresh.replace(link)
        sync_folder(link.parent)
    except OSError as error:
        raise unwritable(link, error) from error


def unwritable(path: Path, error: OSError) -> ToolError:
    """A file system's refusal as an error with a remedy."""
    full = error.errno in {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
    shut = error.errno in {errno.EACCES, errno.EPERM, errno.EROFS} and STATE in path.parts
    return ToolError(
        f"cannot write {path}: {error.strerror or error}",
        code="disk-full" if full else "unwritable",
        where=str(path),
        hint=f"df -h {path.parent}" if full else ELSEWHERE if shut else f"ls -ld {path.parent}",
    )


def listed(folder: Path) -> list[Path]:
    """What a folder holds, sorted; nothing where it is not there.

    Raises:
        PermissionError: nobody lets us look, which says nothing of what is in there.
    """
    try:
        with os.scandir(folder) as found:
            return sorted(folder / each.name for each in found)
    except (FileNotFoundError, NotADirectoryError):
        return []


@contextlib.contextmanager
def locked(path: Path, *, waiting: Callable[[], None] | None = None, shared: bool = False) -> Iterator[None]:
    """Hold a lock between processes; it ends with its owner, however that ends.

    Args:
        path: the lock's file; it stays, empty.
        waiting: called once where another process holds the lock.
        shared: whether others may hold it too, if they share it likewise.
    """
    kind = fcntl.LOCK_SH if shared else fcntl.LOCK_EX
    handle = _open_lock(path)
    try:
        try:
            fcntl.flock(handle, kind | fcntl.LOCK_NB)
        except BlockingIOError:
            if waiting is not None:
                waiting()
            fcntl.flock(handle, kind)
        except OSError as error:  # A file system without locks.
            raise unwritable(path, error) from error
        yield
    finally:
        os.close(handle)


@contextlib.contextmanager
def held_by_nobody(path: Path) -> Iterator[bool]:
    """Hold a lock if it is free, and tell whether it was; never waits."""
    handle = _open_lock(path)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
        else:
            yield True
    finally:
        os.close(handle)


def _open_lock(path: Path) -> int:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    except OSError as error:
        raise unwritable(path, error) from error


@functools.cache
def _libc() -> ctypes.CDLL:
    import ctypes

    return ctypes.CDLL(None, use_errno=True)


def durable(folder: Path) -> None:
    """Have everything that was written to a folder's file system on the disk, hard-linked contents included."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        if _libc().syncfs(handle) != 0:
            os.sync()
    finally:
        os.close(handle)


def exchange(one: Path, other: Path) -> None:
    """Let two folders change places in one step, where the kernel and the file system can.

    Raises:
        OSError: they cannot.
    """
    result = _libc().renameat2(_AT_FDCWD, os.fsencode(one), _AT_FDCWD, os.fsencode(other), _RENAME_EXCHANGE)
    if result != 0:
        import ctypes

        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), str(other))
