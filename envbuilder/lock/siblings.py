"""Whether a closure has an order, and whether the closures of a profile hold one library at one commit. Pure."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence

from envbuilder.compat import requested
from envbuilder.errors import Problem
from envbuilder.lock.project import LockedPackage, Member
from envbuilder.models import Profile


def divergent(
    locks: Mapping[str, Sequence[LockedPackage]], profile: Profile, registered: Collection[str]
) -> Iterator[Problem]:
    """Libraries from git that stand at several commits, though every closure asks for the same of them.

    Entries of the registry are one source by definition. What no entry names is compared where address and ref are the
    same: two plugins may well want two tags of one library.

    Args:
        locks: the packages of each plugin's lock.
        profile: whose.
        registered: the names of the registry's entries.
    """
    found: dict[tuple[str, str], dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
    for plugin, packages in sorted(locks.items()):
        for package in packages:
            if package.commit is not None:
                asked = "" if package.name in registered else package.source["git"].partition("#")[0]
                found[package.name, asked][package.commit].append(plugin)
    for (name, asked), commits in sorted(found.items()):
        if len(commits) > 1:
            shown = "; ".join(f"{commit} in {', '.join(plugins)}" for commit, plugins in commits.items())
            plugins = sorted(plugin for each in commits.values() for plugin in each)
            newer = [] if name in registered else ["--upgrade-package", name]
            hint = " ".join(["envbuilder", "lock", "--profile", profile.name, *newer, *plugins])
            message = f"{name}{f' ({asked})' if asked else ''} is at {shown}"
            yield Problem("sibling-divergent", message, name, f"profiles/{profile.name}", hint)


def cyclic(members: Sequence[Member], profile: Profile) -> Problem | None:
    """Where entries of a plugin's closure (itself first) need one another in a circle."""
    if not (way := _circle(members)):
        return None
    entry = next(item.entry for item in members if item.entry.name == way[0])
    message = f"entries need one another in a circle: {' → '.join(way)}; one of them has to do without"
    plugin = members[0].entry.name
    hint = f"envbuilder lock --profile {profile.name} {plugin}  # once one of them does"
    return Problem("sibling-cyclic", message, plugin, entry.at("source"), hint)


def _circle(members: Sequence[Member]) -> tuple[str, ...]:
    """The names along the first way that leads from a member back to it, it at both ends; none where none does."""
    needs = {item.entry.name: sorted(_needed(item)) for item in members}
    done: set[str] = set()

    def follow(name: str, way: tuple[str, ...]) -> tuple[str, ...]:
        if name in way:
            return (*way[way.index(name) :], name)
        if name in done:
            return ()
        found = next(filter(None, (follow(needed, (*way, name)) for needed in needs.get(name, ()))), ())
        done.add(name)
        return found

    return next(filter(None, (follow(name, ()) for name in needs)), ())


def _needed(member: Member) -> set[str]:
    # A package that names itself, with an extra, does so for another extra's sake.
    return {name for name, _ in requested(member.metadata.dependencies or (), member.extras)} - {member.entry.name}
