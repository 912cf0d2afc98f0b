"""Whether versions fit: tags, cores and Pythons. Pure; the rules are those of PEP 440."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterable, Iterator

from packaging.markers import UndefinedComparison, UndefinedEnvironmentName
from packaging.requirements import InvalidRequirement, Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name
from packaging.version import InvalidVersion, Version

_EXTRA_MARKER = re.compile(r"""\bextra\s*==\s*["']([^"']+)["']""")


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
    """Whether any released or coming CPython 3 satisfies all specifiers together.

    Raises:
        ValueError: one of them is no specifier.
    """
    return any(True for _ in _pythons(specifiers))


def python_hull(specifiers: Iterable[str]) -> str:
    """The smallest range of CPython 3 series that holds all that each of the specifiers accepts."""
    minors = {int(version.split(".")[1]) for each in specifiers for version in _pythons([each])}
    return f">=3.{min(minors)},<3.{max(minors) + 1}" if minors else ">=3"


def _pythons(specifiers: Iterable[str]) -> Iterator[str]:
    together = SpecifierSet(",".join(part for part in specifiers if part))
    # Patch releases up to 30 cover every series so far (3.6 ended at 15, 3.9 at 25).
    candidates = (f"3.{minor}.{patch}" for minor in range(6, 20) for patch in range(31))
    return (candidate for candidate in candidates if together.contains(candidate))


def requirement_on(
    name: str, requirements: Iterable[str], *, extras: Iterable[str] = (), python: str | None = None
) -> str | None:
    """What a package's dependencies say of one distribution: its specifier, empty for any version, None for nothing.

    Args:
        name: the distribution.
        requirements: the package's dependencies.
        extras: extras that are asked for; a requirement behind another extra binds nobody.
        python: the Python request; a requirement that binds only on Pythons outside of it does not count. Markers that
            speak of the platform are taken as this machine's.
    """
    named = (item for item in _parsed(requirements) if canonicalize_name(item.name) == canonicalize_name(name))
    found = [str(requirement.specifier) for requirement in named if _binds(requirement, extras, python)]
    if not found:
        return None
    return ",".join(part for part in found if part)


def requested(requirements: Iterable[str], extras: Iterable[str] = ()) -> Iterator[tuple[str, frozenset[str]]]:
    """The normalised names of the distributions that requirements name, each with the extras asked of it.

    What stands behind an extra counts where that extra is in `extras`. Other markers are not judged: a lock serves every
    platform. Unreadable requirements are left out.
    """
    known = {canonicalize_name(extra) for extra in extras}
    for requirement in _parsed(requirements):
        behind = _EXTRA_MARKER.findall(str(requirement.marker or ""))
        if not behind or known.intersection(map(canonicalize_name, behind)):
            asked = frozenset(str(canonicalize_name(extra)) for extra in requirement.extras)
            yield str(canonicalize_name(requirement.name)), asked


def _parsed(requirements: Iterable[str]) -> Iterator[Requirement]:
    for text in requirements:
        with contextlib.suppress(InvalidRequirement):
            yield Requirement(text)


def _binds(requirement: Requirement, extras: Iterable[str], python: str | None) -> bool:
    if requirement.marker is None:
        return True
    environments = [_python_facts(version) for version in _pythons([python])] if python else [{}]
    try:
        return any(
            requirement.marker.evaluate({**facts, "extra": extra}) for facts in environments for extra in ("", *extras)
        )
    except (UndefinedComparison, UndefinedEnvironmentName):
        return True  # A marker that cannot be judged excuses nobody.


def _python_facts(version: str) -> dict[str, str]:
    return {"python_version": version.rpartition(".")[0], "python_full_version": version}
