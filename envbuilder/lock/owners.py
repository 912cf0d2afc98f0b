"""Distributions of a lock that install the same files: who asks for each, and which can be left out. Pure."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from envbuilder.errors import Problem, counted
from envbuilder.lock.graph import Graph
from envbuilder.lock.project import Member, edit_hint
from envbuilder.models import Entry


def explain(
    graph: Graph, plugin: Entry, members: Sequence[Member], owners: Sequence[str], files: Sequence[str]
) -> Problem:
    """Return the problem that several distributions of a plugin's lock install other files under the same names.

    Args:
        graph: the plugin's lock.
        plugin: its entry.
        members: the registry entries in its closure.
        owners: the distributions.
        files: the files, relative to the environment.
    """
    ways = "; ".join(f"{name} comes by {_asked_by(graph, plugin, name)}" for name in owners)
    more = f" and {counted(len(files) - 1, 'more file')}" if len(files) > 1 else ""
    message = (
        f"{' and '.join(owners)} install different files of the same name, {files[0]}{more}: which is there in the end "
        f"is chance, expected one owner; {ways}"
    )
    hint = _ending(graph, plugin, owners, {item.entry.name for item in members})
    return Problem("files-clash", message, plugin.name, plugin.where, hint)


def _asked_by(graph: Graph, plugin: Entry, name: str) -> str:
    """Return the shortest way from a plugin to a package of its lock, as ``reader → timm → opencv-python``."""
    way = _way(graph, name)
    if not way:
        return f"{name}, which nothing in the lock asks for"
    return " → ".join(way if way[0] == plugin.name else [f"requires of {plugin.name}", *way])


def _way(graph: Graph, name: str) -> list[str]:
    chain = next(iter(graph.chains(name)), ())
    return [graph.packages[link.target].name for _, link in chain]


def _ending(graph: Graph, plugin: Entry, owners: Sequence[str], members: Collection[str]) -> str:
    """Return the command that opens an entry, with the line that leaves all but one of a file's owners out."""

    def rank(name: str) -> tuple[bool, int, bool, str]:
        # A headless build runs everywhere; the other one wants libraries of a desktop.
        return name not in members, len(_way(graph, name)) or len(graph.packages), "headless" not in name, name

    kept = min(owners, key=rank)
    spared = sorted({*plugin.exclude, *owners} - {kept})
    again = f"then envbuilder lock {plugin.name}"
    return f"{edit_hint(plugin, 'exclude')}  # exclude: [{', '.join(spared)}], which keeps {kept}; {again}"
