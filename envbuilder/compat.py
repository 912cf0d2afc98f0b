"""Whether versions fit: tags, cores and Pythons. Pure; the rules are those of PEP 440."""

from __future__ import annotations

from collections.abc import Iterable

from packaging.requirements import InvalidRequirement, Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name
from packaging.version import InvalidVersion, Version


def tag_version(tag: str, name: str) -> Version | None:
    """The version that a tag names, or None.

    A leading ``v`` is optional; monorepos put the package's name before it (``name-v1.0``, ``name/1.0``).
    """
    text = tag
    for mark in ("-", "/", "@", "=="):
        prefix = text[: len(name)]
        if canonicalize_name(prefix) == canonicalize_name(name) and text[len(name) :].startswith(mark):
            text = text[len(name) + len(mark) :]
            break
    try:
        return Version(text)
    except InvalidVersion:
        return None


def tag_fits(tag: str, version: str, name: str) -> bool:
    """Whether a tag and the version declared at it are the same version."""
    named = tag_version(tag, name)
    try:
        return named is not None and named == Version(version)
    except InvalidVersion:
        return False


def accepts(specifier: str, version: str) -> bool:
    """Whether a specifier holds for a version that is there already, pre-releases included.

    A pre-release in hand is judged by its order: ``>=0.2`` takes 0.3.0rc1, ``<0.3`` does not (PEP 440, exclusive
    ordered comparison).
    """
    return SpecifierSet(specifier).contains(Version(version), prereleases=True)


def python_possible(specifiers: Iterable[str]) -> bool:
    """Whether any released or coming CPython 3 satisfies all specifiers together."""
    together = SpecifierSet(",".join(part for part in specifiers if part))
    # Patch releases up to 30 cover every series so far (3.6 ended at 15, 3.9 at 25).
    candidates = (f"3.{minor}.{patch}" for minor in range(6, 20) for patch in range(31))
    return any(together.contains(candidate) for candidate in candidates)


def requirement_on(name: str, requirements: Iterable[str]) -> str | None:
    """What a package's dependencies say of one distribution: its specifier, empty for any version, None for nothing.

    Requirements behind an extra do not count: they bind only who asks for it.
    """
    found: list[str] = []
    for text in requirements:
        try:
            requirement = Requirement(text)
        except InvalidRequirement:
            continue
        if canonicalize_name(requirement.name) != canonicalize_name(name):
            continue
        if requirement.marker is not None and "extra" in str(requirement.marker):
            continue
        found.append(str(requirement.specifier))
    if not found:
        return None
    return ",".join(part for part in found if part)


def requirement_names(requirements: Iterable[str]) -> tuple[str, ...]:
    """The normalised names of the distributions that requirements name; unreadable ones are left out."""
    names = []
    for text in requirements:
        try:
            names.append(str(canonicalize_name(Requirement(text).name)))
        except InvalidRequirement:
            continue
    return tuple(names)
