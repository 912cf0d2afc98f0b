"""Several things at a time, in threads, for a caller that can be interrupted."""

from __future__ import annotations

import concurrent.futures
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

T = TypeVar("T")
R = TypeVar("R")

# A signal that reaches another thread, or this one just before it begins to wait, wakes nobody: whoever waits looks up.
_TICK_S = 0.25


def at_once(function: Callable[[T], R], items: Iterable[T], jobs: int, *, name: str = "") -> Iterator[R]:
    """What a function makes of each item, in order, several at a time; what has not begun when the caller stops never does.

    Args:
        function: what to do; the first error that it raises ends everything.
        items: what with.
        jobs: how many at a time, at least one.
        name: what its threads are called.
    """
    with concurrent.futures.ThreadPoolExecutor(max(1, jobs), thread_name_prefix=name) as pool:
        futures = [pool.submit(function, item) for item in items]
        try:
            for future in futures:
                while not future.done():
                    concurrent.futures.wait((future,), _TICK_S)
                yield future.result()
        finally:
            for future in futures:
                future.cancel()
