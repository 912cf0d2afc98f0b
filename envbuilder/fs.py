"""Files that survive: written whole or not at all; and locks that die with their owner.

Nothing else in the project replaces files that survive, or takes locks on files.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import functools
import os
import re
import secrets
import shutil
import stat
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, TYPE_CHECKING, NamedTuple

from envbuilder.errors import ToolError, remedy
from envbuilder.places import ELSEWHERE, STATE

if TYPE_CHECKING:
    import ctypes

# From linux/fs.h and fcntl.h.
_RENAME_EXCHANGE = 2
_AT_FDCWD = -100

_DRAFT = re.compile(r"\..*\.[0-9a-f]{8}\.envbuilder-draft", re.DOTALL)
# The longest name of a file is 255 bytes.
_LONGEST_NAME = 220
# A link cannot be locked; it takes its place within microseconds of being made.
_OLD_LINK_S = 60.0


class Draft(NamedTuple):
    """A file that is being written beside its place."""

    path: Path
    stream: IO[bytes]


def draft_path(path: Path) -> Path:
    """A new name beside a path, by which `sweep` knows what a killed process left."""
    name = os.fsdecode(os.fsencode(path.name)[:_LONGEST_NAME])
    return path.with_name(f".{name}.{secrets.token_hex(4)}.envbuilder-draft")


@contextlib.contextmanager
def drafted(path: Path) -> Iterator[Draft]:
    """Write a file beside its place; it takes the place, whole and durable, when the block ends without an error.

    The file that is there keeps its mode. Drafts that killed processes left in the folder are removed.

    Raises:
        OSError: the file system refuses.
    """
    sweep(path.parent)
    draft, stream = _begin(path)
    try:
        with stream:
            yield Draft(draft, stream)
            sync(stream)
            draft.replace(path)  # The lock is still held, so that nobody sweeps the draft away.
    except BaseException:
        with contextlib.suppress(OSError):
            draft.unlink()
        raise
    sync_folder(path.parent)


def _begin(path: Path) -> tuple[Path, IO[bytes]]:
    """Make an empty draft and hold its lock, which says that its writer lives."""
    while True:
        draft = draft_path(path)
        handle = os.open(draft, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
        stream = os.fdopen(handle, "w+b")
        with contextlib.suppress(OSError):  # A file system without locks; nobody can sweep there either.
            fcntl.flock(handle, fcntl.LOCK_EX)
        if os.fstat(handle).st_nlink:  # Else it was swept before it was locked.
            break
        stream.close()
    with contextlib.suppress(OSError):
        os.fchmod(handle, stat.S_IMODE(path.stat(follow_symlinks=False).st_mode))
    return draft, stream


def replace_file(path: Path, data: bytes) -> None:
    """Write a file so that it holds the old bytes or the new ones, whatever happens meanwhile.

    Raises:
        OSError: the file system refuses.
    """
    with drafted(path) as draft:
        draft.stream.write(data)


def move(path: Path, place: Path) -> None:
    """Put a file, or a folder, that somebody else wrote into its place, in one step.

    Raises:
        OSError: the file system refuses.
    """
    if path.is_file() and not path.is_symlink():
        with path.open("rb") as stream:
            os.fsync(stream.fileno())
    path.replace(place)
    sync_folder(place.parent)


def write_atomically(path: Path, text: str | bytes) -> None:
    """Write a file, and its folders, so that it holds the old text or the new one, whatever happens meanwhile.

    A file that holds this text already is left alone.

    Raises:
        ToolError: the file system refuses (full, read-only).
    """
    data = text.encode() if isinstance(text, str) else text
    with contextlib.suppress(OSError):
        if path.read_bytes() == data:
            return
    try:
        make_folder(path.parent)
        replace_file(path, data)
    except OSError as error:
        raise unwritable(path, error) from error


def make_folder(folder: Path) -> None:
    """Make a folder, and those around it, where they are not there yet; durably.

    Raises:
        OSError: the file system refuses.
    """
    if not folder.is_dir():
        make_folder(folder.parent)
        with contextlib.suppress(FileExistsError):  # A neighbour was quicker; or a file, as whoever writes will see.
            folder.mkdir()
        sync_folder(folder.parent)


@contextlib.contextmanager
def drafted_folder(folder: Path) -> Iterator[Path]:
    """Fill a folder beside its place; it takes the place when the block ends without an error.

    The folders that killed processes left there are removed.

    Raises:
        OSError: the file system refuses, or something is in its place.
    """
    make_folder(folder.parent)
    sweep(folder.parent)
    draft = draft_path(folder)
    draft.mkdir()
    handle = os.open(draft, os.O_RDONLY | os.O_CLOEXEC)
    try:
        with contextlib.suppress(OSError):
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield draft
        draft.rename(folder)
        sync_folder(folder.parent)
    finally:
        shutil.rmtree(draft, ignore_errors=True)
        os.close(handle)


def sweep(*folders: Path) -> None:
    """Remove the drafts that killed processes left in folders; those of living ones stay. Never fails."""
    for folder in folders:
        drafts: list[str] = []
        with contextlib.suppress(OSError), os.scandir(folder) as found:
            drafts = [each.name for each in found if each.name[0] == "." and _DRAFT.fullmatch(each.name)]
        for name in drafts:
            with contextlib.suppress(OSError):
                _remove_abandoned(folder / name)


def _remove_abandoned(draft: Path) -> None:
    status = draft.lstat()
    if stat.S_ISLNK(status.st_mode):
        if time.time() - status.st_mtime > _OLD_LINK_S:
            draft.unlink()
        return
    is_folder = stat.S_ISDIR(status.st_mode)
    kind = os.O_RDONLY | os.O_DIRECTORY if is_folder else os.O_RDWR | os.O_NONBLOCK
    handle = os.open(draft, kind | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if is_folder:
            shutil.rmtree(draft)
        else:
            draft.unlink()
    finally:
        os.close(handle)


def keep_from_git(state: Path) -> None:
    """Have git leave a state folder alone, whatever the workspace's own .gitignore says."""
    if not (state / ".gitignore").exists():
        write_atomically(state / ".gitignore", "*\n")


def sync(stream: IO[bytes]) -> None:
    """Have the disk take what was written to a file.

    Raises:
        OSError: the file system refuses.
    """
    stream.flush()
    os.fsync(stream.fileno())


def sync_folder(folder: Path) -> None:
    """Make a rename in a folder durable, where its file system can."""
    handle = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno not in {errno.EINVAL, errno.ENOTSUP}:
            raise
    finally:
        os.close(handle)


def point(link: Path, target: Path) -> None:
    """Make a symbolic link, or swing an existing one over, in one step.

    Raises:
        ToolError: the file system refuses.
    """
    try:
        swing(link, target)
    except OSError as error:
        raise unwritable(link, error) from error


def swing(link: Path, target: Path | str) -> None:
    """Make a symbolic link, or swing an existing one over, in one step.

    Raises:
        OSError: the file system refuses.
    """
    if link.is_symlink() and os.readlink(link) == str(target):  # noqa: PTH115 - the text as it stands
        return
    make_folder(link.parent)
    sweep(link.parent)
    draft = draft_path(link)
    try:
        draft.symlink_to(target)
        draft.replace(link)
    except BaseException:
        with contextlib.suppress(OSError):
            draft.unlink()
        raise
    sync_folder(link.parent)


def unwritable(path: Path, error: OSError) -> ToolError:
    """Return a file system's refusal, or a limit of the system, as an error with a remedy."""
    if hint := remedy(error):
        return ToolError(f"cannot write {path}: {error.strerror}", code="system-limit", where=str(path), hint=hint)
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


def is_locked(path: Path) -> bool:
    """Whether another holds a lock now; makes no file, and needs no right to write."""
    try:
        handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    except OSError:
        return True
    try:
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return True
    finally:
        os.close(handle)
    return False


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
