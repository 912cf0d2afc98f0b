"""What two sets of packages hold differently: of two profiles, commits, generations or runs. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from packaging.markers import default_environment

from envbuilder.lock.graph import Graph


@dataclass(frozen=True)
class Held:
    """What is held of a package.

    Attributes:
        version: several, joined by commas, in a lock with alternatives.
        commit: of a package from git.
        origin: ``git``, ``path``, ``index``, or empty where nothing is known of it.
    """

    version: str
    commit: str | None = None
    origin: str = ""

    def __str__(self) -> str:
        if self.commit:
            return f"{self.version} ({self.commit[:12]})"
        return f"{self.version} (path)" if self.origin == "path" else self.version


@dataclass(frozen=True)
class Snapshot:
    """The packages of plugins at one moment, plugin to package to what is held of it.

    Attributes:
        label: how people name it.
        plugins: what there is.
        graphs: the locks that it was read from; empty where it is of environments, which hold what one machine gets.
        pythons: of environments, the version of each one's Python.
        unknown: plugins whose packages cannot be told any more.
        partial: whether a plugin that is not there says nothing: a run uses some of them.
    """

    label: str
    plugins: Mapping[str, Mapping[str, Held]]
    graphs: Mapping[str, Graph] = field(default_factory=dict)
    pythons: Mapping[str, str] = field(default_factory=dict)
    unknown: frozenset[str] = frozenset()
    partial: bool = False


@dataclass(frozen=True)
class Change:
    """One package of one plugin that is not the same on both sides; None where a side has none."""

    plugin: str
    package: str
    old: Held | None
    new: Held | None

    @property
    def kind(self) -> str:
        return "added" if self.old is None else "removed" if self.new is None else "changed"


def of_graphs(label: str, graphs: Mapping[str, Graph]) -> Snapshot:
    """All packages of locks, those for other platforms included."""
    return Snapshot(label, {name: _held(graph, None) for name, graph in graphs.items()}, graphs)


def alike(old: Snapshot, new: Snapshot) -> tuple[Snapshot, Snapshot]:
    """Two snapshots of one kind: beside environments, a lock counts with what this machine gets of it."""
    if old.graphs and not new.graphs:
        return _on_this_machine(old, new.pythons), new
    if new.graphs and not old.graphs:
        return old, _on_this_machine(new, old.pythons)
    return old, new


def _on_this_machine(snapshot: Snapshot, pythons: Mapping[str, str]) -> Snapshot:
    here = {name: str(value) for name, value in default_environment().items()}
    plugins = {}
    for name, graph in snapshot.graphs.items():
        full = pythons.get(name, here["python_full_version"])
        python = {"python_full_version": full, "python_version": ".".join(full.split(".")[:2])}
        plugins[name] = _held(graph, {**here, **python})
    return replace(snapshot, plugins=plugins)


def _held(graph: Graph, environment: Mapping[str, str] | None) -> dict[str, Held]:
    wanted = None if environment is None else {graph.packages[index].name for index in graph.installed(environment)}
    held = {}
    for name, packages in graph.held.items():
        if wanted is None or name in wanted:
            versions = ", ".join(sorted({package.version or "dynamic" for package in packages}))
            commit = next((package.commit for package in packages if package.commit), None)
            held[name] = Held(versions, commit, _origin(packages[0].source))
    return held


def _origin(source: Mapping[str, str]) -> str:
    if "git" in source:
        return "git"
    return "path" if source.keys() & {"editable", "directory", "path"} else "index"


def compared(old: Snapshot, new: Snapshot) -> list[str]:
    """The plugins of which both sides say something; what one of two whole sides lacks, it lacks."""
    either = {*old.plugins, *new.plugins} - old.unknown - new.unknown
    for side in (old, new):
        either &= set(side.plugins) if side.partial else either
    return sorted(either)


def changes(old: Snapshot, new: Snapshot) -> list[Change]:
    """What differs in the plugins that are compared, by plugin and package."""
    return [
        Change(plugin, package, before.get(package), after.get(package))
        for plugin in compared(old, new)
        for before, after in [(old.plugins.get(plugin, {}), new.plugins.get(plugin, {}))]
        for package in sorted({*before, *after})
        if not _same(before.get(package), after.get(package))
    ]


def _same(old: Held | None, new: Held | None) -> bool:
    if old is None or new is None or old.version != new.version:
        return old is new
    # Of some environments the version is all that is known.
    return "" in (old.origin, new.origin) or (old.origin, old.commit) == (new.origin, new.commit)


def summary(found: Sequence[Change]) -> list[tuple[str, str, str, list[str]]]:
    """The changes over all plugins: package, old, new, and the plugins that it happened in; the most frequent first."""
    together: dict[tuple[str, str, str], list[str]] = {}
    for each in found:
        key = (each.package, str(each.old or ""), str(each.new or ""))
        together.setdefault(key, []).append(each.plugin)
    ordered = sorted(together.items(), key=lambda item: (-len(item[1]), item[0]))
    return [(*key, plugins) for key, plugins in ordered]
