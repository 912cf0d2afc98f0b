"""Which versions of build backends a plugin's packages are built with: what was current when it was locked.

A lock says nothing of them: a package from source would be built next year with whatever is newest then.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

from envbuilder.errors import EnvbuilderError
from envbuilder.lock.project import LockedPackage, Member
from envbuilder.models import PypiSource

# What packages are built with of which nobody says with what; those that the index does not have are left out.
_USUAL = (
    "cython",
    "flit-core",
    "hatch-vcs",
    "hatchling",
    "maturin",
    "meson-python",
    "ninja",
    "numpy",
    "packaging",
    "pdm-backend",
    "poetry-core",
    "pybind11",
    "scikit-build-core",
    "setuptools",
    "setuptools-scm",
    "wheel",
)

# PEP 517 and 518: what builds a package that names no backend.
_DEFAULT = ("setuptools>=40.8.0",)


@dataclass(frozen=True)
class Wanted:
    """What a plugin's packages are built with.

    Attributes:
        declared: the build requirements of its members, sorted.
        more: whether the lock holds other packages that are built, of which nothing is known.
    """

    declared: tuple[str, ...]
    more: bool = False


def declared_in(document: Mapping[str, object]) -> tuple[str, ...]:
    """The build requirements in a parsed ``pyproject.toml``, without those at addresses."""
    return tuple(line for line in build_lines(document) if not Requirement(line).url)


def build_lines(document: Mapping[str, object]) -> tuple[str, ...]:
    """The build requirements in a parsed ``pyproject.toml``, unreadable ones left out."""
    system = document.get("build-system")
    lines = system.get("requires", _DEFAULT) if isinstance(system, Mapping) else _DEFAULT
    found = []
    for line in lines if isinstance(lines, list | tuple) else _DEFAULT:
        with contextlib.suppress(InvalidRequirement, TypeError):
            Requirement(line)
            found.append(line)
    return tuple(found)


def others_built(packages: Iterable[LockedPackage], members: Sequence[Member]) -> bool:
    """Whether a lock holds packages that are built and are no members: without a wheel, or from a git of their own."""
    known = {item.entry.name for item in members if not isinstance(item.entry.source, PypiSource)}
    return any(
        not package.wheels and package.name not in known and "virtual" not in package.source for package in packages
    )


class Backends:
    """Finds the constraints for builds, the same for all plugins that want the same.

    Args:
        solve: resolves requirements under constraints for a Python; raises where that is impossible.
        given: the profile's own build constraints, which come first.
    """

    def __init__(
        self, solve: Callable[[Sequence[str], Sequence[str], str], tuple[LockedPackage, ...]], given: Sequence[str]
    ):
        self._solve = solve
        self._given = tuple(given)
        self._known: dict[object, tuple[str, ...]] = {}
        self._guard = threading.Lock()

    def constraints(self, wanted: Wanted, kept: Sequence[str], python: str) -> tuple[str, ...]:
        """The build constraints for what is wanted.

        They are exact where all that is built says what it needs, and one version of each does for all; else they say
        "at most the version that is newest now", under which whatever wants an older one can still be built.

        Args:
            wanted: what is built with what.
            kept: the constraints of the last lock, which stay where they can.
            python: the specifier of the Pythons that build.

        Raises:
            EnvbuilderError: a declared build requirement is not to be had.
        """
        if not wanted.declared and not wanted.more:
            return ()
        with self._guard:
            key = (wanted, tuple(kept), python)
            if key not in self._known:
                self._known[key] = self._find(wanted, kept, python)
            return self._known[key]

    def _find(self, wanted: Wanted, kept: Sequence[str], python: str) -> tuple[str, ...]:
        names = {_name(line) for line in wanted.declared}
        usual = ({_name(line) for line in kept} or set(_USUAL)) if wanted.more else set()
        lines = sorted(names | usual) if wanted.more else list(wanted.declared)
        for constraints in ([*self._given, *kept], self._given):
            with contextlib.suppress(EnvbuilderError):
                return self._told(self._solve(lines, constraints, python), exact=not wanted.more)
        found: list[LockedPackage] = []
        for name in sorted(names | usual):
            try:
                found += self._solve([name], self._given, python)
            except EnvbuilderError:
                if name in names:
                    raise
        return self._told(found, exact=False)

    def _told(self, packages: Iterable[LockedPackage], *, exact: bool) -> tuple[str, ...]:
        versions: dict[str, set[Version]] = {}
        for package in packages:
            if package.version is not None and "registry" in package.source:
                versions.setdefault(package.name, set()).add(Version(package.version))
        given = {_name(line) for line in self._given}
        return tuple(
            f"{name}{'==' if exact and len(found) == 1 else '<='}{max(found)}"
            for name, found in sorted(versions.items())
            if name not in given
        )


def _name(line: str) -> str:
    return str(canonicalize_name(Requirement(line).name))
