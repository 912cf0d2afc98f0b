"""Git repositories as envbuilder sees them: one bare clone for each address, filled ref by ref.

The clone is also what uv fetches from (`uv_settings`), so that what was proved is what is installed, each object
crosses the network once, and a mirror or bundle serves uv too without a trace in the lock.
"""

from envbuilder.git.history import History
from envbuilder.git.repository import (
    OddFileError,
    RemoteError,
    Repository,
    Resolved,
    facts_of,
    mirrored,
    preload,
    uv_settings,
)
from envbuilder.git.running import OLDEST, OLDEST_SIGNED, version

__all__ = [
    "OLDEST",
    "OLDEST_SIGNED",
    "History",
    "OddFileError",
    "RemoteError",
    "Repository",
    "Resolved",
    "facts_of",
    "mirrored",
    "preload",
    "uv_settings",
    "version",
]
