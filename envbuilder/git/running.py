"""git as it is run on clones: never a prompt, never a helper program from an address."""

from __future__ import annotations

from collections.abc import Mapping

from envbuilder import process

TIMEOUT_S = 600.0

# What is fetched stays in the pack it came in, which is there whole or not at all. Unpacked object by object, as git
# does with small packs, a commit may come before a full disk or a kill does, and its files never.
PACKED = ("fetch.unpackLimit", "1")


def git(*arguments: str, env: Mapping[str, str] | None = None, feed: str | None = None) -> process.Completed:
    """Run git to its end; large files that nobody asked for stay where they are."""
    said = ("protocol.ext.allow=never", "gc.auto=0", "advice.detachedHead=false", "=".join(PACKED))
    settings = [word for each in said for word in ("-c", each)]
    own = {"GIT_TERMINAL_PROMPT": "0", "GIT_LFS_SKIP_SMUDGE": "1", "LC_ALL": "C", **(env or {})}
    whole = process.clean_environment(own)
    return process.run(["git", *settings, *arguments], env=whole, timeout_s=TIMEOUT_S, feed=feed)
