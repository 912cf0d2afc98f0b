"""git as it is run on clones: never a prompt, never a helper program from an address."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping

from envbuilder import process, variables

TIMEOUT_S = 600.0

# What is fetched stays in the pack it came in, which is there whole or not at all. Unpacked object by object, as git
# does with small packs, a commit may come before a full disk or a kill does, and its files never.
PACKED = ("fetch.unpackLimit", "1")


# The first that takes settings from variables (GIT_CONFIG_COUNT), by which uv's git is led to the clones.
OLDEST = (2, 31)
# The first that knows ssh signatures.
OLDEST_SIGNED = (2, 34)


def version() -> tuple[int, ...]:
    """Git's version as numbers; empty where it does not answer.

    Raises:
        ToolError: there is no git.
    """
    done = process.run(["git", "--version"], timeout_s=60)
    found = re.search(r"(\d+)\.(\d+)(?:\.(\d+))?", done.stdout)
    return tuple(int(part) for part in found.groups() if part) if found else ()


def trust_hint(words: str) -> str | None:
    """What has git read a repository of somebody else's, where that is what it refuses in these words."""
    found = re.search(r"dubious ownership in repository at '([^'\n]+)'", words)
    return (
        f"git config --global --add safe.directory {shlex.quote(found[1])}  # if its owner is trusted"
        if found
        else None
    )


def git(
    *arguments: str,
    env: Mapping[str, str] | None = None,
    feed: str | None = None,
    timeout_s: float = TIMEOUT_S,
) -> process.Completed:
    """Run git to its end; large files that nobody asked for stay where they are."""
    pairs = (PACKED, *variables.GIT_SETTINGS)
    said = ("protocol.ext.allow=never", "gc.auto=0", "advice.detachedHead=false", *map("=".join, pairs))
    settings = [word for each in said for word in ("-c", each)]
    own = {"GIT_TERMINAL_PROMPT": "0", "GIT_LFS_SKIP_SMUDGE": "1", "LC_ALL": "C", **(env or {})}
    whole = process.tool_environment(own)
    return process.run(["git", *settings, *arguments], env=whole, timeout_s=timeout_s, feed=feed)
