"""Align groups: plugins that lock the same versions of what they share.

The members of a group are resolved once as one project. What comes out for the packages that at least two of them reach
is recorded, and constrains each member's own lock.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass

import tomlkit
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name
from packaging.version import Version

from envbuilder.compat import python_hull
from envbuilder.documents import parse_toml
from envbuilder.errors import EnvbuilderError, Interrupted
from envbuilder.lock.graph import Graph
from envbuilder.lock.project import Member, digest, edit_hint
from envbuilder.models import Entry, GroupRecord, Registry


@dataclass(frozen=True)
class Bare:
    """A plugin by itself: its project's text, its closure, and the specifier of its Python."""

    text: str
    members: tuple[Member, ...]
    python: str


Draw = Callable[[Entry, Sequence[Entry]], Bare]
Solve = Callable[[str, str, Sequence[Member], Sequence[Entry]], Graph]


class Aligner:
    """Resolves groups, and knows what each has in common.

    Args:
        registry: the plugins.
        known: what groups had in common when they were last locked.
        draw: a plugin's project, given further entries of its closure.
        solve: resolves a group's project; keeps what the locks of the given plugins hold.

    Attributes:
        records: what groups have in common now.
    """

    def __init__(self, registry: Registry, known: Mapping[str, GroupRecord], draw: Draw, solve: Solve):
        self._registry = registry
        self._draw = draw
        self._solve = solve
        self._failed: dict[str, EnvbuilderError] = {}
        self.records = dict(known)

    def align(self, chosen: Sequence[Entry], *, afresh: bool, moving: Collection[str] = ()) -> None:
        """Bring the groups of these plugins up to date; those that follow from the same as before are left alone.

        Args:
            chosen: the plugins that are being locked.
            afresh: whether versions are to be chosen anew.
            moving: packages whose versions alone are.
        """
        for group, plugins in groups(self._registry).items():
            if any(plugin in chosen for plugin in plugins):
                try:
                    self._align(group, plugins, afresh=afresh, moving=moving)
                except Interrupted:
                    raise
                except EnvbuilderError as error:
                    self._failed[group] = error

    def refuse_failed(self, plugin: Entry) -> None:
        """Raise where one of a plugin's groups cannot be had: locked alone, it would leave the others behind."""
        for group in plugin.align:
            if error := self._failed.get(group):
                names = ", ".join(each.name for each in groups(self._registry)[group])
                message = f"group {group} ({names}) cannot be aligned: {error.message}"
                place = plugin.at("align")
                raise EnvbuilderError(message, code="align-conflict", where=place, hint=error.hint) from error

    def left_behind(self, plugin: Entry, chosen: Sequence[Entry], before: Mapping[str, GroupRecord]) -> list[str]:
        """Plugins of this one's groups that were not chosen, and whose locks follow from what the groups were before."""
        moved = [
            group
            for group in plugin.align
            if group in before and before[group].constraints != self.records[group].constraints
        ]
        known = groups(self._registry)
        return sorted({each.name for group in moved for each in known[group] if each not in chosen})

    def _align(self, group: str, plugins: Sequence[Entry], *, afresh: bool, moving: Collection[str]) -> None:
        drawn = [self._draw(plugin, ()) for plugin in plugins]
        facts = [
            [each.text, [[item.pin.commit if item.pin else None, item.code] for item in each.members]] for each in drawn
        ]
        inputs = digest(json.dumps(facts).encode())
        record = self.records.get(group)
        lines = record.constraints if record and not afresh else ()
        kept = tuple(line for line in lines if Requirement(line).name not in moving)
        if record and record.inputs == inputs and kept == record.constraints:
            return
        try:
            found = self._find(group, plugins, kept)
        except EnvbuilderError:
            if not kept:
                raise
            found = self._find(group, plugins, ())
        self.records[group] = GroupRecord(inputs, found)

    def _find(self, group: str, plugins: Sequence[Entry], kept: Sequence[str]) -> tuple[str, ...]:
        extra: list[Entry] = []
        while True:
            drawn = [self._draw(plugin, extra) for plugin in plugins]
            texts, pythons = [each.text for each in drawn], [each.python for each in drawn]
            members = {item.entry.name: item for each in drawn for item in each.members}
            graph = self._solve(group, union(group, texts, pythons, kept), list(members.values()), plugins)
            # Entries that only an index's package asks for.
            held = graph.held
            missed = [entry for entry in self._registry.entries if entry.name in held and entry.name not in members]
            if not missed:
                break
            extra += missed
        apart = {name: found for name, found in _shared(graph, texts).items() if len(found) > 1}
        if apart and len(set(pythons)) > 1:
            told = "; ".join(f"{name} would be {' and '.join(map(str, sorted(apart[name])))}" for name in sorted(apart))
            raise EnvbuilderError(
                f"no one version fits the Pythons of all: {told}", hint=edit_hint(plugins[0], "python")
            )
        return constraints(graph, texts)


def groups(registry: Registry) -> dict[str, tuple[Entry, ...]]:
    """The plugins of each group, both sorted by name."""
    names = sorted({group for plugin in registry.plugins for group in plugin.align})
    return {name: tuple(plugin for plugin in registry.plugins if name in plugin.align) for name in names}


def union(group: str, texts: Sequence[str], pythons: Sequence[str], kept: Sequence[str]) -> str:
    """The text of a project that is all members of a group at once.

    Args:
        group: its name.
        texts: the members' generated projects, without what earlier alignments brought.
        pythons: the specifier of each member's Python.
        kept: constraints to hold on to.
    """
    documents = [parse_toml(text, group).value for text in texts]
    one_python = len(set(pythons)) == 1
    settings: dict[str, object] = {}
    backends: list[str] = []
    lines: list[str] = []
    for document, python in zip(documents, pythons, strict=True):
        project = document["project"]
        optional = project.get("optional-dependencies", {})
        wanted = [*project["dependencies"], *(line for each in optional.values() for line in each)]
        lines += [line if one_python else _only_on(line, python) for line in wanted]
        backends += optional
        _merge(settings, document["tool"]["uv"])
    _merge(settings, {"constraint-dependencies": list(kept)} if kept else {})
    if not one_python:
        settings["fork-strategy"] = "fewest"  # Else uv takes for each Python the newest that it can have.
    # With torch backends, what any member asks for holds in each: what is there beside them would be free of it.
    lines, backends = list(dict.fromkeys(lines)), list(dict.fromkeys(backends))
    if len(backends) > 1:
        settings["conflicts"] = [[{"extra": backend} for backend in backends]]
    project = {
        "name": f"envbuilder-group-{group}",
        "version": "0",
        "requires-python": pythons[0] if one_python else python_hull(pythons),
        "dependencies": [] if backends else lines,
        **({"optional-dependencies": dict.fromkeys(backends, lines)} if backends else {}),
    }
    return tomlkit.dumps({"project": project, "tool": {"uv": settings}})


def _merge(into: dict[str, object], more: Mapping[str, object]) -> None:
    for key, value in more.items():
        known = into.get(key)
        if isinstance(known, dict) and isinstance(value, Mapping):
            _merge(known, value)
        elif isinstance(known, list) and isinstance(value, list):
            known += [item for item in value if item not in known]
        elif key not in into:
            into[key] = dict(value) if isinstance(value, Mapping) else list(value) if isinstance(value, list) else value


def _only_on(line: str, python: str) -> str:
    requirement = Requirement(line)
    parts = [f"python_full_version {each.operator} '{each.version}'" for each in SpecifierSet(python)]
    marker = " and ".join([*([f"({requirement.marker})"] if requirement.marker else []), *parts])
    requirement.marker = None
    return f"{requirement} ; {marker}"


def constraints(graph: Graph, texts: Sequence[str]) -> tuple[str, ...]:
    """The versions, in the union's lock, of what at least two members reach: a requirement for each, sorted.

    What comes from elsewhere than an index is not told: the registry gives it one source already. Where platforms need
    several versions of a package, it is bound as far as they have in common.
    """
    return tuple(f"{name}{_bound(versions)}" for name, versions in sorted(_shared(graph, texts).items()))


def _shared(graph: Graph, texts: Sequence[str]) -> dict[str, set[Version]]:
    reaching: Counter[str] = Counter()
    for text in texts:
        reaching.update({graph.packages[index].name for index in _reached(graph, set(_asked(text)))})
    found: dict[str, set[Version]] = {}
    for package in graph.packages:
        if reaching[package.name] > 1 and package.version is not None and "registry" in package.source:
            # Builds of one version for several accelerators differ in the local part alone.
            found.setdefault(package.name, set()).add(Version(Version(package.version).public))
    return found


def _bound(versions: set[Version]) -> str:
    return f"=={versions.pop()}" if len(versions) == 1 else f">={min(versions)},<={max(versions)}"


def _asked(text: str) -> Iterator[str]:
    project = parse_toml(text, "it").value["project"]
    for lines in (project["dependencies"], *project.get("optional-dependencies", {}).values()):
        yield from (str(canonicalize_name(Requirement(line).name)) for line in lines)


def _reached(graph: Graph, names: Collection[str]) -> set[int]:
    first = [link for link in graph.links[graph.root or 0] if graph.packages[link.target].name in names]
    queue = [(link.target, extra) for link in first for extra in ("", *link.extras)]
    seen = set(queue)
    while queue:
        index, extra = queue.pop()
        for link in graph.links[index]:
            if link.extra in {"", extra}:
                fresh = {(link.target, each) for each in ("", *link.extras)} - seen
                seen |= fresh
                queue.extend(fresh)
    return {index for index, _ in seen}
