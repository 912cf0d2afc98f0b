"""What a ``uv.lock`` holds, as a graph: packages, and which of them asks for which. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from packaging.markers import InvalidMarker, Marker, UndefinedComparison, UndefinedEnvironmentName

from envbuilder.accelerators import PACKAGES
from envbuilder.documents import parse_toml
from envbuilder.errors import ConfigError, Problem
from envbuilder.lock.project import LockedPackage, locked_packages


@dataclass(frozen=True)
class Link:
    """One package's wish for another.

    Attributes:
        target: index of the package that the lock gives it, in `Graph.packages`.
        extras: the extras that it asks for.
        marker: the condition, empty where there is none.
        extra: the extra of the asking package that it stands behind, empty where it always counts.
    """

    target: int
    extras: tuple[str, ...] = ()
    marker: str = ""
    extra: str = ""


@dataclass(frozen=True)
class Graph:
    """The packages of a lock, and each one's links, by index.

    `root` is the index of the generated project, None in a lock that has none. `asked` holds, for packages that uv
    records it of (the project, paths, git), what their own metadata says of others: index, name and specifier.
    """

    packages: tuple[LockedPackage, ...]
    links: tuple[tuple[Link, ...], ...]
    root: int | None
    asked: Mapping[tuple[int, str], str] = field(default_factory=dict)

    @property
    def held(self) -> dict[str, list[LockedPackage]]:
        """The packages by name, without the generated project; a lock may hold several versions of one."""
        found: dict[str, list[LockedPackage]] = {}
        for number, package in enumerate(self.packages):
            if number != self.root:
                found.setdefault(package.name, []).append(package)
        return found

    @property
    def backends(self) -> list[str]:
        """The torch backends that the lock offers: extras of the project, of which an environment gets one."""
        return [] if self.root is None else sorted({link.extra for link in self.links[self.root]} - {""})

    def installed(self, environment: Mapping[str, str]) -> set[int]:
        """The packages that a machine gets, given its markers' values (PEP 508, "Environment Markers").

        Where there are torch backends, those of each of them.
        """
        found: set[int] = set()
        for backend in self.backends or [""]:
            found |= self._installed({**environment, "extra": self._conflict(backend)}, backend)
        return found - {self.root}

    def _conflict(self, backend: str) -> str:
        # How uv names an extra of the project in the markers of what differs between extras.
        name = self.packages[self.root or 0].name
        return f"extra-{len(name)}-{name}-{backend}" if backend else ""

    def _installed(self, environment: Mapping[str, str], backend: str) -> set[int]:
        seen = {(self.root or 0, backend)}
        queue = list(seen)
        while queue:
            index, extra = queue.pop()
            for link in self.links[index]:
                if link.extra in {"", extra} and _holds(link.marker, environment):
                    fresh = {(link.target, each) for each in ("", *link.extras)} - seen
                    seen |= fresh
                    queue.extend(fresh)
        return {index for index, _ in seen}

    def chains(self, name: str) -> Iterator[tuple[tuple[int, Link], ...]]:
        """For every package that asks for `name` directly, the shortest way to it from the project, shortest first.

        A chain is a sequence of steps: the asking package and its link. An extra counts only where a step before asks
        for it.
        """
        ways: dict[tuple[int, str], tuple[tuple[int, Link], ...]] = {
            (self.root or 0, backend): () for backend in self.backends or [""]
        }
        placed = self._placed()
        queue = list(ways)
        told: set[tuple[int, int]] = set()
        for index, extra in queue:  # Grows while it is read: breadth first.
            for link in self.links[index]:
                if link.extra not in {"", extra} or (index == self.root and link.target in placed):
                    continue
                way = (*ways[index, extra], (index, link))
                if self.packages[link.target].name == name and (index, link.target) not in told:
                    told.add((index, link.target))
                    yield way
                for each in ("", *link.extras):
                    if (link.target, each) not in ways:
                        ways[link.target, each] = way
                        queue.append((link.target, each))

    def _placed(self) -> set[int]:
        """What the project names only so that it comes from a torch backend's index: others ask for it."""
        others = (links for index, links in enumerate(self.links) if index != self.root)
        asked = {link.target for links in others for link in links}
        return {index for index in asked if self.packages[index].name in PACKAGES} if self.backends else set()


def _holds(marker: str, environment: Mapping[str, str]) -> bool:
    if not marker:
        return True
    try:
        return Marker(marker).evaluate({"extra": "", **environment})
    except (InvalidMarker, UndefinedComparison, UndefinedEnvironmentName):
        return True


def parse(text: str, where: str) -> Graph:
    """Read the text of a ``uv.lock``; `where` is how messages name it.

    Raises:
        ConfigError: it is no lock of uv's.
    """
    hint = f"git checkout -- {where}  # or, to lock anew: envbuilder lock"
    try:
        document = parse_toml(text, where).value
    except ConfigError as error:
        message = f"not a lock of uv's: {error.message}"
        raise ConfigError([Problem("lock-stale", message, where=error.where, hint=hint)]) from error
    try:
        packages = locked_packages(document)
        tables = document["package"]
        links = tuple(tuple(_links(table, packages)) for table in tables)
        root = next((index for index, package in enumerate(packages) if package.source.get("virtual") == "."), None)
        return Graph(packages, links, root, dict(_asked(tables)))
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise ConfigError([Problem("lock-stale", f"not a lock of uv's: {error}", where=where, hint=hint)]) from error


def _links(table: Mapping[str, object], packages: tuple[LockedPackage, ...]) -> Iterator[Link]:
    optional = table.get("optional-dependencies") or {}
    groups = {"": table.get("dependencies") or [], **(optional if isinstance(optional, Mapping) else {})}
    for extra, items in groups.items():
        for item in items if isinstance(items, list) else []:
            target = _target(item, packages)
            if target is not None:
                yield Link(target, tuple(item.get("extra", ())), str(item.get("marker", "")), extra)


def _target(item: Mapping[str, object], packages: tuple[LockedPackage, ...]) -> int | None:
    # Version and source stand there only where the name alone leaves a choice.
    for index, package in enumerate(packages):
        if (
            package.name == item["name"]
            and item.get("version", package.version) == package.version
            and item.get("source", dict(package.source)) == dict(package.source)
        ):
            return index
    return None


def _asked(tables: list[Mapping[str, object]]) -> Iterator[tuple[tuple[int, str], str]]:
    for index, table in enumerate(tables):
        metadata = table.get("metadata")
        requires = metadata.get("requires-dist", []) if isinstance(metadata, Mapping) else []
        for item in requires:
            if specifier := item.get("specifier"):
                yield (index, item["name"]), specifier
