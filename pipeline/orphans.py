"""Finds what a killed supervisor, or a killed runner, may have left behind, by a mark that no process can shed.

The mark of an attempt is a number. Its worker gets it as the limit ``RLIMIT_LOCKS``, which has limited nothing since
Linux 2.4.25: children inherit it, it lasts through ``exec``, and without privileges no process can raise it again. A
daemon that leaves its session, forks twice, empties its environment, closes its descriptors and changes its folder
still carries it, and ``/proc/<pid>/limits`` shows it to everybody. Where a limit cannot be set (a sandbox that knows it
not) the same number in the environment is all there is.

The number tells who made it: the runner's process id and the moment at which it was started, and in which namespace of
processes. So whatever carries the mark of a runner that is gone is left over, and any later command can tell.
"""

from __future__ import annotations

import itertools
import os
import signal
import time
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence

# Every process of an attempt has them, unless it emptied its environment: ``<run>/<attempt>``, and the mark.
WORKER = "ENVBUILDER_WORKER"
MARK = "ENVBUILDER_MARK"

_PATIENCE_S = 60.0
# Who forks and ends in the middle of a look is seen under neither of its two ids: a look during which anybody went
# proves little, and so many of them in a row are taken for proof.
_UNSURE_LOOKS = 100
# Every run looks for what others left; nobody is just ending that, and so it seldom runs away.
_LOOKS_FOR_LEFT = 10
# One look may still miss a child whose id is lower than its parent's; two in a row do not.
_SURE_LOOKS = 2
_PAUSE_S = 0.005
_BLOCK = 1 << 16
# PF_KTHREAD, from linux/sched.h.
_KERNEL_THREAD = 0x00200000
# More than a line of the table of limits.
_LINE = 100

# A mark, from its highest bit: a sign that it is one, the runner's namespace, process id and start, and a count.
_SIGN, _NAMESPACE_BITS, _RUNNER_BITS, _START_BITS, _COUNT_BITS = 0b10110, 12, 22, 12, 11

_count = itertools.count()
# Marks of this process whose attempts are under way, or have left something that cannot be killed.
_live: set[int] = set()


class _Maker(NamedTuple):
    """Who made a mark; start and namespace only as far as a mark has room for them."""

    namespace: int
    runner: int
    start: int


def new_mark() -> int:
    """A mark for the next attempt of this process; it counts as under way until it is given to `settle`."""
    here = _maker_here()
    number = _SIGN
    for value, bits in zip(here, (_NAMESPACE_BITS, _RUNNER_BITS, _START_BITS), strict=True):
        number = number << bits | value
    mark = number << _COUNT_BITS | next(_count) % (1 << _COUNT_BITS)
    _live.add(mark)
    return mark


def settle(mark: int) -> None:
    """Take note that nothing of an attempt is left."""
    _live.discard(mark)


def _maker_here() -> _Maker:
    return _Maker(_namespace("self"), os.getpid(), _start(os.getpid()) or 0)


def _maker_of(mark: int) -> _Maker | None:
    """Who made a number, if it is a mark."""
    rest = mark >> _COUNT_BITS
    start, rest = rest & ((1 << _START_BITS) - 1), rest >> _START_BITS
    runner, rest = rest & ((1 << _RUNNER_BITS) - 1), rest >> _RUNNER_BITS
    namespace, sign = rest & ((1 << _NAMESPACE_BITS) - 1), rest >> _NAMESPACE_BITS
    return _Maker(namespace, runner, start) if sign == _SIGN else None


def _namespace(process: str) -> int:
    try:
        return os.stat(f"/proc/{process}/ns/pid").st_ino % (1 << _NAMESPACE_BITS)  # noqa: PTH116 - as below
    except OSError:
        return 0


def _start(process: int) -> int | None:
    """When a living process was started, as far as a mark has room for it; None where it has ended."""
    try:
        words = _stat(process)
    except OSError:
        return None
    return None if _is_zombie(words) else int(words[19]) % (1 << _START_BITS)


def _stat(process: int | str) -> list[bytes]:
    return _read(f"/proc/{process}/stat").rpartition(b")")[2].split()


def _is_zombie(words: Sequence[bytes]) -> bool:
    # A thread may live on where the first one has ended.
    return words[0] in {b"Z", b"X"} and int(words[17]) <= 1


def _read(path: str) -> bytes:
    """A file of the kernel's; by hand, for hundreds are read at a time."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        found = b""
        while block := os.read(descriptor, _BLOCK):
            found += block
        return found
    finally:
        os.close(descriptor)


def _marks(process: str) -> set[int]:
    """The marks that a process carries: as a limit, and in its environment; both where one runner runs another."""
    found = set()
    limits = _read(f"/proc/{process}/limits")
    place = limits.find(b"Max file locks")
    if place >= 0:
        found.add(limits[place : place + _LINE].split()[4])
    head = f"{MARK}=".encode()
    try:
        found |= {word[len(head) :] for word in _environ(process) if word.startswith(head)}
    except OSError as error:  # Not ours to read; or it is just ending, and its memory went first.
        if not isinstance(error, PermissionError) and not any(map(bytes.isdigit, found)):
            raise
    return {int(word) for word in found if word.isdigit()}


def _environ(process: str) -> list[bytes]:
    return _read(f"/proc/{process}/environ").split(b"\0")


class _Look:
    """Looks at all processes, time and again.

    Args:
        is_meant: tells by a process's id whether it is looked for.

    Attributes:
        found: living processes that are meant, as last seen.
        is_sure: whether none can have been missed in the last look.
    """

    def __init__(self, is_meant: Callable[[str], bool]) -> None:
        self._is_meant = is_meant
        self._dead: set[str] = set()
        self.found: tuple[int, ...] = ()
        self.is_sure = True

    def again(self) -> tuple[int, ...]:
        """Look once more."""
        found = []
        self.is_sure = True
        for name in os.listdir("/proc"):  # noqa: PTH208 - quick, for those who are in a hurry to get away
            if name.isdigit() and int(name) != os.getpid():
                try:
                    if self._is_meant(name) and not self._has_ended(name):
                        found.append(int(name))
                except PermissionError:
                    continue  # Not ours to read, and so none of ours.
                except OSError:
                    self._has_ended(name)
        self.found = tuple(found)
        return self.found

    def _has_ended(self, name: str) -> bool:
        """Whether a process has ended; who does so during a look may have left a child that it does not show."""
        try:
            words = _stat(name)
        except OSError:
            self.is_sure = False
            return True
        if int(words[6]) & _KERNEL_THREAD:
            return True
        is_dead = _is_zombie(words)
        self.is_sure = self.is_sure and name in self._dead
        if is_dead:
            self._dead.add(name)
        return is_dead


def find(run: str) -> tuple[int, ...]:
    """Living processes of a run, by its name in their environment."""
    word = f"{WORKER}={run}/".encode()
    return _Look(lambda process: any(each.startswith(word) for each in _environ(process))).again()


def end(marks: Collection[int]) -> tuple[int, ...]:
    """Kill all that carries one of these marks; gives what is still there after a minute."""
    return _end(lambda process: not _marks(process).isdisjoint(marks))[1]


def end_left() -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Kill what is left of attempts whose runner is gone; gives what was there, and what cannot be killed.

    That is whatever carries the mark of a runner that has ended, whichever run, workspace or state folder it worked
    for, and that of an attempt of this process that is over.
    """
    here = _maker_here()

    def is_left(mark: int) -> bool:
        maker = _maker_of(mark)
        # Process ids of another namespace (a container's) say nothing here.
        if maker is None or maker.namespace != here.namespace:
            return False
        return mark not in _live if maker == here else _start(maker.runner) != maker.start

    return _end(lambda process: any(map(is_left, _marks(process))), looks=_LOOKS_FOR_LEFT)


def _end(is_meant: Callable[[str], bool], looks: int = _UNSURE_LOOKS) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Kill all that is meant, until nobody is left or a minute is over: what was there, and what still is."""
    deadline = time.monotonic() + _PATIENCE_S
    look = _Look(is_meant)
    met: dict[int, None] = {}
    others: set[int] = set()
    sure = unsure = 0
    while time.monotonic() < deadline:
        left = [process for process in look.again() if process not in others]
        sure = sure + 1 if look.is_sure and not left else 0
        unsure = 0 if left else unsure + 1
        if sure >= _SURE_LOOKS or unsure >= looks:
            return tuple(met), ()
        for process in left:
            met[process] = None
            try:
                os.kill(process, signal.SIGKILL)
            except ProcessLookupError:
                continue
            except PermissionError:  # Another person's; theirs to end.
                others.add(process)
        if left or not look.is_sure:
            time.sleep(_PAUSE_S)
    return tuple(met), tuple(process for process in look.again() if process not in others)
