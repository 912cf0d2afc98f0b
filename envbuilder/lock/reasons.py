"""Why a package is in a plugin's lock: who asks for it, through whom, and in which words."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name

from envbuilder.lock.graph import Graph, Link
from envbuilder.lock.project import LockedPackage
from envbuilder.models import Pin


@dataclass(frozen=True)
class Step:
    """One package of a chain, and what the package before it says of it.

    Attributes:
        package: as it is locked.
        extras: which of its extras are asked for.
        marker: the condition under which it is wanted, as the lock has it.
        extra: the extra of the asking package that it stands behind.
        specifier: the versions that the asking package accepts; None where neither lock, pins nor environment tell.
    """

    package: LockedPackage
    extras: tuple[str, ...]
    marker: str
    extra: str
    specifier: str | None

    def __str__(self) -> str:
        extras = f"[{','.join(self.extras)}]" if self.extras else ""
        behind = f"extra {self.extra}" if self.extra else ""
        # What tells torch's backends apart is uv's own notation, and long; the versions say it.
        marker = "" if "extra-" in self.marker else self.marker
        said = "; ".join(part for part in (self.specifier, marker, behind) if part)
        return f"{self.package.name}{extras} {self.package.version or ''}".rstrip() + (f" ({said})" if said else "")


# What a locked package requires of others, in PEP 508's words; None where nobody at hand knows.
Told = Callable[[LockedPackage], Sequence[str] | None]


def chains(graph: Graph, package: str, told: Told) -> list[list[Step]]:
    """For every package that asks for `package`, the shortest chain to it, from the plugin on; shortest first."""
    return [[_step(graph, index, link, told) for index, link in chain] for chain in graph.chains(package)]


def _step(graph: Graph, index: int, link: Link, told: Told) -> Step:
    target = graph.packages[link.target]
    specifier = graph.asked.get((index, target.name))
    if specifier is None and index != graph.root:
        lines = told(graph.packages[index])
        specifier = None if lines is None else _specifier(lines, target.name)
    return Step(target, link.extras, link.marker, link.extra, specifier)


def _specifier(lines: Sequence[str], name: str) -> str:
    return ",".join(dict.fromkeys(str(each.specifier) for each in _naming(lines, name) if each.specifier))


def _naming(lines: Sequence[str], name: str) -> Iterator[Requirement]:
    for line in lines:
        try:
            requirement = Requirement(line)
        except InvalidRequirement:
            continue
        if canonicalize_name(requirement.name) == name:
            yield requirement


def naming(lines: object, name: str) -> list[str]:
    """Those of a list of requirements that are about one package."""
    texts = [str(line) for line in lines] if isinstance(lines, list) else []
    return [str(each) for each in _naming(texts, name)]


def teller(pins: Mapping[str, Pin], installed: Mapping[str, tuple[str, Sequence[str]]]) -> Told:
    """What packages require, from pins and from an environment (name to version and requirements) where it is built."""

    def told(package: LockedPackage) -> Sequence[str] | None:
        pin = pins.get(package.name)
        if pin is not None and pin.commit == package.commit:
            return pin.requires
        version, requires = installed.get(package.name, ("", ()))
        return requires if version and version == package.version else None

    return told
