"""What the plugins of one profile lock in different versions, and why. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from packaging.requirements import Requirement
from packaging.specifiers import InvalidSpecifier, SpecifierSet
from packaging.version import Version

from envbuilder.lock.graph import Graph
from envbuilder.lock.reasons import Told, chains


@dataclass(frozen=True)
class Side:
    """A plugin's lock, and what is known around it.

    Attributes:
        graph: the lock.
        told: what its packages require of others, as far as anybody at hand knows.
        python: the specifier of its Python.
        rules: the requirements that the generated project lays down (siblings, align groups).
    """

    graph: Graph
    told: Told
    python: str
    rules: Sequence[str] = ()


@dataclass(frozen=True)
class Holder:
    """A plugin, the version that it locks, and why that is not the newest that any of them has; nothing where it is."""

    plugin: str
    version: str
    why: tuple[str, ...] = ()


@dataclass(frozen=True)
class Difference:
    """A package that several plugins lock, not all in one version; the newest comes first."""

    package: str
    holders: tuple[Holder, ...]


def differences(sides: Mapping[str, Side]) -> list[Difference]:
    """What plugins lock in different versions, of what comes from an index; by package."""
    held: dict[str, dict[str, str]] = {}
    for plugin, side in sides.items():
        for name, packages in side.graph.held.items():
            versions = sorted(
                {Version(each.version) for each in packages if each.version and "registry" in each.source}
            )
            if versions:
                held.setdefault(name, {})[plugin] = ", ".join(map(str, versions))
    return [
        Difference(name, tuple(_holders(name, plugins, sides)))
        for name, plugins in sorted(held.items())
        if len(set(plugins.values())) > 1
    ]


def _holders(name: str, plugins: Mapping[str, str], sides: Mapping[str, Side]) -> Iterator[Holder]:
    newest = max(plugins.values(), key=_last)
    pythons = {sides[plugin].python for plugin, version in plugins.items() if version == newest}
    for plugin, version in sorted(plugins.items(), key=lambda item: (item[1] != newest, item[1], item[0])):
        why = () if version == newest else tuple(_why(sides[plugin], name, _last(newest), pythons))
        yield Holder(plugin, version, why)


def _last(versions: str) -> Version:
    return Version(versions.rpartition(", ")[2])


def _why(side: Side, name: str, newest: Version, pythons: set[str]) -> Iterator[str]:
    found, unknown = [], []
    for steps in chains(side.graph, name, side.told):
        asker = steps[-2].package.name if len(steps) > 1 else "the registry entry"
        if steps[-1].specifier is None:
            unknown.append(asker)
        elif not _accepts(steps[-1].specifier, newest):
            found.append(f"{asker} asks for {steps[-1].specifier}")
    bound = [rule for rule in map(Requirement, side.rules) if rule.name == name]
    found += [f"bound to {rule.specifier}" for rule in bound if not _accepts(str(rule.specifier), newest)]
    if found:
        yield from dict.fromkeys(found)
    elif side.python not in pythons:
        yield f"its Python is {side.python}, theirs {' or '.join(sorted(pythons))}"
    elif unknown:
        yield f"what {', '.join(dict.fromkeys(unknown))} asks for shows once it is built"
    else:
        yield "nothing forbids the newest; it was locked at another time"


def _accepts(specifier: str, version: Version) -> bool:
    try:
        return SpecifierSet(specifier).contains(version, prereleases=True)
    except InvalidSpecifier:
        return True
