"""Several things at a time: in order, and open to interruption."""

from __future__ import annotations

import signal
import threading
import time
from types import FrameType

import pytest

from envbuilder.threads import at_once


def test_results_come_in_the_order_of_the_items() -> None:
    """However long each takes, and however many there are at a time."""

    def wait(seconds: float) -> float:
        time.sleep(seconds)
        return seconds

    assert list(at_once(wait, [0.1, 0.0, 0.05], 3)) == [0.1, 0.0, 0.05]
    assert list(at_once(str, range(5), 1)) == ["0", "1", "2", "3", "4"]
    assert list(at_once(str, [], 4)) == []


def test_an_error_leaves_what_has_not_begun() -> None:
    """It reaches the caller, and nothing starts after it."""
    begun = []

    def fail(number: int) -> None:
        begun.append(number)
        raise ValueError(str(number))

    with pytest.raises(ValueError, match="0"):
        list(at_once(fail, range(100), 1))
    assert len(begun) < 100


def test_a_signal_that_another_thread_takes_is_heard() -> None:
    """The kernel hands a signal to any thread, and Python acts on it in the main one, which therefore looks up."""
    heard = threading.Event()

    def stop(_number: int, _frame: FrameType | None) -> None:
        heard.set()
        raise KeyboardInterrupt

    def work(_item: int) -> bool:
        time.sleep(0.2)  # Until the caller waits.
        signal.pthread_kill(threading.get_ident(), signal.SIGUSR1)
        in_time.append(heard.wait(20))
        return True

    in_time: list[bool] = []
    before = signal.signal(signal.SIGUSR1, stop)
    try:
        with pytest.raises(KeyboardInterrupt):
            list(at_once(work, [0], 1))
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert in_time == [True]
