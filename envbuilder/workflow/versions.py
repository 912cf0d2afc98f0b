"""Versions and the tags that name them."""

from __future__ import annotations

from packaging.version import Version

from envbuilder import compat

BUMPS = ("patch", "minor", "major")


def bumped(current: Version, part: str) -> Version:
    """The next version: a pre-release leads to its own release, everything else is counted up from what is released."""
    major, minor, micro = current.major, current.minor, current.micro
    numbers = {"major": (major + 1, 0, 0), "minor": (major, minor + 1, 0), "patch": (major, minor, micro + 1)}[part]
    if current.is_prerelease:
        own = {"major": minor == micro == 0, "minor": micro == 0, "patch": True}[part]
        numbers = (major, minor, micro) if own else numbers
    return Version(".".join(map(str, numbers)))


def tag_like(pinned: str | None, name: str, version: Version) -> str:
    """The tag of a version, written as the pinned one is: with its prefix, or ``v`` where there is none to go by."""
    named = compat.tag_version(pinned, name) if pinned else None
    if pinned and named is not None:
        for start in range(len(pinned)):
            if pinned[start].isdigit() and compat.tag_version(pinned[start:], name) == named:
                return f"{pinned[:start]}{version}"
    return f"v{version}"


def would_become(declared: str | None, pinned: str | None, name: str, *, changed: bool) -> str:
    """The tag that a checkout would become if it were released now; empty where there is nothing to release.

    Args:
        declared: the version that the checkout says; None where a build would have to tell.
        pinned: the tag that the base entry names.
        name: the distribution.
        changed: whether the checkout is other than that tag.
    """
    before = compat.tag_version(pinned, name) if pinned else None
    own = Version(declared) if declared else None
    if own is not None and (before is None or own > before):
        return tag_like(pinned, name, own)
    return tag_like(pinned, name, bumped(before, "patch")) if changed and before is not None else ""
