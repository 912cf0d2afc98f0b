"""Makes files read-only to one process and all that it will start, without root; called just before it becomes a worker.

Two means of the kernel serve, tried in this order:

* A mount namespace of the worker's own, in which what is closed is mounted upon itself, read-only. It closes just that:
  whatever lies beside it, or is made there later, can be written. Without the right to mount, a user namespace gives it.
* Landlock. It knows no exceptions below a folder that it allows, so it has to allow, one by one, what lies beside the
  closed folders; in the folders above them nothing new can be made then. It serves where nobody could make anything
  there anyway, or where it is asked for.

Where neither does, nothing is closed, and only the later comparison with the seal tells that something was written.
Standard library only, and little of it: a supervisor loads this file into the worker's process (see `supervisor`). Called
as a program it prints what would hold for the folder that it is given.
"""

from __future__ import annotations

import ctypes
import os
import struct
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

MOUNTS = "mount-namespace"
LANDLOCK = "landlock"
NOTHING = "walk"
KINDS = (MOUNTS, LANDLOCK, NOTHING)
# Set to one of them, only that one is tried.
VARIABLE = "ENVBUILDER_GUARD"

# From linux/sched.h, linux/mount.h and linux/fcntl.h.
_NEW_MOUNTS, _NEW_USER = 0x20000, 0x10000000
_BIND, _RECURSIVE, _SLAVE = 1 << 12, 1 << 14, 1 << 19
_SET_ATTRIBUTES = 442
_READ_ONLY = 1
_HERE, _ALL_BELOW = -100, 0x8000
# From linux/landlock.h and linux/prctl.h.
_CREATE, _ADD, _RESTRICT = 444, 445, 446
_ASK_VERSION = 1
_BENEATH = 1
_NO_NEW_PRIVILEGES = 38
_WRITE_FILE, _REFER, _TRUNCATE = 1 << 1, 1 << 13, 1 << 14
# Write, remove and make, each of all kinds.
_CHANGES = _WRITE_FILE | sum(1 << bit for bit in range(4, 13))
_FILE_CHANGES = _WRITE_FILE | _TRUNCATE
_REFER_SINCE, _TRUNCATE_SINCE = 2, 3


def hold(closed: Sequence[str], opened: Sequence[str], wanted: str = "") -> str:
    """Let this process write nothing below `closed`, but for what is below `opened`; tell what holds from now on.

    Args:
        closed: files and folders; what is not there is passed over. One may lie below an opened one, and so on.
        opened: what can be written all the same.
        wanted: `MOUNTS`, `LANDLOCK` or `NOTHING` where only that is to be tried.
    """
    steps = tuple(_steps(closed, opened))
    if not steps or wanted == NOTHING:
        return NOTHING
    # What fails half-way would leave a process that is neither here nor there: a child tries first.
    if wanted in {MOUNTS, ""} and _succeeds(steps):
        _mount(steps)
        return MOUNTS
    version = landlock_version()
    if version and wanted != MOUNTS and (wanted or not costs([path for path, is_open in steps if not is_open])):
        try:
            _restrict(steps, version)
        except OSError:
            return NOTHING
        return f"{LANDLOCK}-{version}"
    return NOTHING


def _steps(closed: Sequence[str], opened: Sequence[str]) -> Iterator[tuple[str, bool]]:
    """What changes on the way down, as paths and whether they are open: each after all that it lies in."""
    asked = {os.path.realpath(path): True for path in opened} | {os.path.realpath(path): False for path in closed}
    taken: dict[str, bool] = {}
    for path in sorted(asked, key=lambda each: each.count("/")):
        around = next((taken[above] for above in _above(path) if above in taken), True)
        if asked[path] != around and os.path.exists(path):
            taken[path] = asked[path]
            yield path, asked[path]


def _above(path: str) -> Iterator[str]:
    """The folders that a path lies in, the nearest first."""
    while path != "/":
        path = os.path.dirname(path)
        yield path


def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


def _check(result: int, what: str) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, what + ": " + os.strerror(number))
    return result


def _succeeds(steps: Sequence[tuple[str, bool]]) -> bool:
    """Whether a process can have such mounts here."""
    child = os.fork()
    if not child:
        status = 1
        try:
            _mount(steps)
            status = 0
        finally:
            os._exit(status)
    return os.waitpid(child, 0)[1] == 0


def _mount(steps: Sequence[tuple[str, bool]]) -> None:
    """Give this process mounts of its own.

    Raises:
        OSError: the kernel refuses, or is older than 5.12.
    """
    libc = _libc()
    user, group = os.geteuid(), os.getegid()
    if libc.unshare(_NEW_MOUNTS):
        if not user:
            # In a user namespace, root could not read the files of those who are not in it.
            raise OSError(ctypes.get_errno(), "unshare")
        _check(libc.unshare(_NEW_USER | _NEW_MOUNTS), "unshare")
        for name, text in (("setgroups", "deny"), ("uid_map", f"{user} {user} 1"), ("gid_map", f"{group} {group} 1")):
            with open(f"/proc/self/{name}", "w", encoding="ascii") as stream:
                stream.write(text)
    _check(libc.mount(None, b"/", None, _RECURSIVE | _SLAVE, None), "mount")
    for path, is_open in steps:
        place = os.fsencode(path)
        _check(libc.mount(place, place, None, _BIND | _RECURSIVE, None), "mount")
        below, given, taken = (0, 0, _READ_ONLY) if is_open else (_ALL_BELOW, _READ_ONLY, 0)
        attributes = struct.pack("=4Q", given, taken, 0, 0)
        _check(libc.syscall(_SET_ATTRIBUTES, _HERE, place, below, attributes, len(attributes)), "mount_setattr")


def landlock_version() -> int:
    """The version of Landlock that the kernel has; 0 where there is none, or it is switched off."""
    version: int = _libc().syscall(_CREATE, None, 0, _ASK_VERSION)
    return max(0, version)


def costs(closed: Sequence[str]) -> list[str]:
    """The folders above some paths in which this user could make something now, and under Landlock could not."""
    above = {folder for path in closed for folder in _above(os.path.realpath(path))}
    return sorted(folder for folder in above if os.access(folder, os.W_OK))


def _restrict(steps: Sequence[tuple[str, bool]], version: int) -> None:
    """Have Landlock allow changes everywhere but in what is closed.

    Raises:
        OSError: the kernel refuses; then nothing has changed.
    """
    libc = _libc()
    handled = _CHANGES | (_REFER if version >= _REFER_SINCE else 0) | (_TRUNCATE if version >= _TRUNCATE_SINCE else 0)
    attributes = struct.pack("=Q", handled)
    rules: int = _check(libc.syscall(_CREATE, attributes, len(attributes), 0), "landlock_create_ruleset")
    try:
        for path in _writable("/", dict(steps), is_open=True):
            _allow(libc, rules, path, handled)
        _check(libc.prctl(_NO_NEW_PRIVILEGES, 1, 0, 0, 0), "prctl")
        _check(libc.syscall(_RESTRICT, rules, 0), "landlock_restrict_self")
    finally:
        os.close(rules)


def _writable(path: str, steps: dict[str, bool], *, is_open: bool) -> Iterator[str]:
    """The topmost paths below which nothing is closed."""
    is_open = steps.get(path, is_open)
    prefix = path.rstrip("/") + "/"
    inside = [each for each in steps if each.startswith(prefix)]
    if is_open and not inside:
        yield path
    elif is_open:
        try:
            names = os.listdir(path)
        except OSError:
            names = [each[len(prefix) :].partition("/")[0] for each in inside]
        for name in dict.fromkeys(names):
            if not os.path.islink(prefix + name):
                yield from _writable(prefix + name, steps, is_open=True)
    else:
        for each in inside:
            if steps[each] and not any(each.startswith(other + "/") for other in inside):
                yield from _writable(each, steps, is_open=False)


def _allow(libc: ctypes.CDLL, rules: int, path: str, handled: int) -> None:
    try:
        place = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except OSError:
        return  # Gone meanwhile, or not ours to look at.
    try:
        rights = handled if os.path.isdir(path) else handled & _FILE_CHANGES
        # Refused for what is no place on a file system, such as a pipe; that stays as it is.
        libc.syscall(_ADD, rules, _BENEATH, struct.pack("=Qi", rights, place), 0)
    finally:
        os.close(place)


if __name__ == "__main__":
    print(hold(sys.argv[2:], (), sys.argv[1]))
