"""Sources that packages name themselves, in their requirements or their own uv settings, and no registry entry does."""

from __future__ import annotations

import contextlib
import shlex
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import PurePosixPath
from urllib.parse import parse_qsl, unquote, urlsplit, urlunsplit

from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name

from envbuilder.compat import requested, tag_version
from envbuilder.documents import parse_toml, subtree
from envbuilder.errors import EnvbuilderError
from envbuilder.lock.graph import Graph
from envbuilder.lock.project import LockedPackage, Member, git_source
from envbuilder.lock.surroundings import project_file
from envbuilder.models import GitSource, Metadata, PathSource, Pin

# Closures are shallow; what goes on for longer goes in a circle.
_MOST = 200


@dataclass(frozen=True)
class Dependency:
    """A package of a lock whose source no registry entry names.

    Attributes:
        package: the package.
        way: the names from the plugin to it, both included.
        is_inside: whether it comes from the same commit as a package that asks for it.
        pin: what its git source was when it was locked.
    """

    package: LockedPackage
    way: tuple[str, ...]
    is_inside: bool = False
    pin: Pin | None = None

    @property
    def source(self) -> GitSource | None:
        """Its git source; of what kind the ref is, the pin tells."""
        return self.pin.source if self.pin else self.package.git

    @property
    def shown(self) -> str:
        return " → ".join(self.way)


def is_own(package: LockedPackage, registered: Collection[str]) -> bool:
    """Whether a package's source is one that it was given by a package: git, an address or a folder."""
    named = {"git", "url", "path", "directory", "editable"} & package.source.keys()
    return bool(named) and package.name not in registered


def dependencies(graph: Graph, plugin: str, registered: Collection[str]) -> Iterator[Dependency]:
    """The packages of a plugin's lock whose sources packages name, each with the shortest way to it."""
    for number, package in enumerate(graph.packages):
        if number == graph.root or not is_own(package, registered):
            continue
        chains = [chain for chain in graph.chains(package.name) if chain[-1][1].target == number]
        names = [graph.packages[index].name for index, _ in chains[0] if index != graph.root] if chains else []
        way = tuple(dict.fromkeys((plugin, *names, package.name)))
        askers = (graph.packages[chain[-1][0]] for chain in chains)
        yield Dependency(package, way, any(_same_commit(package, asker) for asker in askers))


def _same_commit(one: LockedPackage, other: LockedPackage) -> bool:
    ours, theirs = one.git, other.git
    return ours is not None and theirs is not None and (ours.url, one.commit) == (theirs.url, other.commit)


def settled(source: GitSource, refs: Mapping[str, object]) -> GitSource:
    """A source whose ref, where a requirement names it without its kind, is the tag or branch that a remote has."""
    if source.ref_kind != "rev":
        return source
    kinds = {"tag": "tags", "branch": "heads"}
    found = (kind for kind, place in kinds.items() if f"refs/{place}/{source.ref}" in refs)
    return replace(source, ref_kind=next(found, "rev"))


def adoption(package: LockedPackage, source: GitSource, refs: Mapping[str, object]) -> str:
    """The command that makes a library entry of a dependency, at the newest version tag, else at the locked commit."""
    tags = (ref.removeprefix("refs/tags/") for ref in refs if ref.startswith("refs/tags/"))
    versions = [(version, tag) for tag in tags if (version := tag_version(tag, package.name))]
    ref = ["--tag", max(versions)[1]] if versions else ["--rev", str(package.commit)]
    folder = ["--subdirectory", source.subdirectory] if source.subdirectory else []
    return shlex.join(["envbuilder", "add", package.name, "--library", "--git", source.url, *ref, *folder])


def of_requirement(text: str) -> tuple[str, GitSource] | None:
    """The name and git source of a requirement such as ``lib @ git+https://…@v1.0#subdirectory=lib``; else None."""
    try:
        requirement = Requirement(text)
    except InvalidRequirement:
        return None
    if not (requirement.url or "").startswith("git+"):
        return None
    parts = urlsplit(str(requirement.url).removeprefix("git+"))
    path, at, ref = parts.path.rpartition("@")
    said: dict[str, object] = {"rev": unquote(ref)} if at else {}
    said |= {key: value for key, value in parse_qsl(parts.fragment) if key == "subdirectory"}
    url = urlunsplit((parts.scheme, parts.netloc, path if at else parts.path, parts.query, ""))
    return str(canonicalize_name(requirement.name)), git_source(url, said)


@dataclass(frozen=True)
class Wish:
    """A git source that a package asks for: the distribution's name, and the extras asked of it."""

    name: str
    extras: frozenset[str]
    source: GitSource


def wishes(lines: Iterable[str], extras: Collection[str], texts: Sequence[str]) -> list[Wish]:
    """The git sources among a package's requirements; its own uv settings, nearest first, come before addresses.

    Args:
        lines: its requirements.
        extras: the extras asked of it.
        texts: its ``pyproject.toml`` and those of the folders around it.
    """
    lines = list(lines)
    found = dict(filter(None, map(of_requirement, lines)))
    for text in reversed(texts):
        found |= _settings(text)
    return [Wish(name, asked, found[name]) for name, asked in requested(lines, extras) if name in found]


def _settings(text: str) -> dict[str, GitSource]:
    found: dict[str, GitSource] = {}
    with contextlib.suppress(EnvbuilderError):  # It is told where the package is read.
        tables = subtree(parse_toml(text, ""), ("tool", "uv", "sources")).value
        for name, rows in (tables if isinstance(tables, Mapping) else {}).items():
            for row in rows if isinstance(rows, list) else [rows]:
                if isinstance(row, Mapping) and isinstance(row.get("git"), str):
                    found[str(canonicalize_name(name))] = git_source(row["git"], row)
    return found


def around(subdirectory: str) -> list[str]:
    """Where a package's ``pyproject.toml`` and those of the folders around it are in its repository."""
    file = PurePosixPath(project_file(subdirectory))
    return [str(folder / "pyproject.toml") for folder in file.parents]


@dataclass(frozen=True)
class Reader:
    """What `foresee` asks of the repositories.

    Attributes:
        texts: the ``pyproject.toml`` of a pinned package and of the folders around it.
        folder: the text of a checkout's; None where there is none.
        pin: the pin of a git source that a package of that name has.
        declared: what the package at a pin declares.
    """

    texts: Callable[[Pin], Sequence[str]]
    folder: Callable[[str], str | None]
    pin: Callable[[GitSource, str], Pin]
    declared: Callable[[Pin], Metadata]


def foresee(members: Sequence[Member], registered: Collection[str], reader: Reader) -> list[Pin]:
    """The pins of the git sources that a closure's packages will ask uv for, as far as their metadata tells.

    What cannot be read or reached is left out: uv may not need it, and says so where it does.

    Args:
        members: the closure, plugin first.
        registered: the names of the registry's entries, whose sources are the registry's.
        reader: reads packages.
    """
    pins: dict[GitSource, Pin] = {}
    queue: list[Wish] = []
    for number, item in enumerate(members):
        lines = [*(item.metadata.dependencies or ()), *(item.entry.requires if number == 0 else ())]
        texts: Sequence[str] = ()
        with contextlib.suppress(EnvbuilderError):
            if item.pin is not None:
                texts = reader.texts(item.pin)
            elif isinstance(item.entry.source, PathSource):
                texts = [reader.folder(item.entry.source.path) or ""]
        queue += wishes(lines, item.extras, texts)
    seen: set[Wish] = set()
    while queue and len(seen) < _MOST:
        wish = queue.pop()
        if wish in seen or wish.name in registered:
            continue
        seen.add(wish)
        with contextlib.suppress(EnvbuilderError):
            pin = pins[wish.source] = reader.pin(wish.source, wish.name)
            queue += wishes(reader.declared(pin).dependencies or (), wish.extras, reader.texts(pin))
    return list(dict.fromkeys(pins.values()))
