"""Fixtures that all tests share."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import pytest
from workshop import Workshop

# First where uv looks for interpreters stands the one that the tests run on: a version manager's shim, which uv asks
# anew each time, takes fifty times as long to answer, and nearly every test has a workspace that has asked nobody yet.
os.environ["PATH"] = f"{Path(sys.base_prefix) / 'bin'}{os.pathsep}{os.environ.get('PATH', os.defpath)}"

# A shell that starts the tests in the background has them ignore Ctrl-C, and all that they start: some tests send it.
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture
def workshop(tmp_path: Path) -> Workshop:
    """An empty workspace with a place for remotes."""
    return Workshop(tmp_path)
