"""`why`: how a package came into a lock."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from envbuilder.cli.base import Open, Settings, common, plugin_argument
from envbuilder.errors import EnvbuilderError, UsageError, nearest

if TYPE_CHECKING:
    from envbuilder.lock.graph import Graph
    from envbuilder.lock.reasons import Step
    from envbuilder.models import Entry
    from envbuilder.render import Outcome


@click.command()
@plugin_argument
@click.argument("package")
@common
def why(settings: Settings, plugin: str, package: str) -> Outcome:
    """Show who asks for PACKAGE in PLUGIN's lock, through whom, and which versions each of them accepts."""
    from packaging.utils import canonicalize_name

    from envbuilder.lock import files, reasons
    from envbuilder.render import Outcome

    here = settings.open()
    entry = here.select([plugin])[0]
    graph = lock_graph(here, entry)
    name = str(canonicalize_name(package))
    held = graph.held.get(name)
    if held is None:
        raise _not_locked(here, entry, name, graph)
    pins = files.read_pins(here.workspace, here.profile).entries
    found = reasons.chains(graph, name, reasons.teller(pins, installed(here, entry)))
    versions = ", ".join(sorted({each.version or "dynamic" for each in held}))
    rules = _rules(here, entry, name)
    return Outcome(
        "why",
        here.profile.name,
        result={
            "plugin": entry.name,
            "package": name,
            "versions": [{"version": each.version, "source": dict(each.source)} for each in held],
            "chains": [[_plain(step) for step in steps] for steps in found],
            "rules": rules,
        },
        text=(
            f"{name} {versions} is in {here.profile.name}'s lock of {entry.name}:",
            *(f"  {' → '.join(map(str, steps))}" for steps in found),
            *(f"  {where}: {rule}" for where, said in rules.items() for rule in said),
        ),
    )


def _plain(step: Step) -> dict[str, object]:
    return {
        "package": step.package.name,
        "version": step.package.version,
        "commit": step.package.commit,
        "extras": list(step.extras),
        "specifier": step.specifier,
        "marker": step.marker,
        "extra": step.extra,
    }


def lock_graph(here: Open, plugin: Entry) -> Graph:
    """A plugin's lock as it stands, stale or not.

    Raises:
        UsageError: there is none.
        ConfigError: it is none of uv's.
    """
    from envbuilder.lock import files, graph

    file = lock_file(here, plugin)
    shown = here.workspace.show(file)
    if not file.exists():
        hint = f"envbuilder lock --profile {here.profile.name} {plugin.name}"
        raise UsageError(f"{plugin.name} has no lock", code="lock-missing", where=shown, hint=hint)
    return graph.parse(files.lock_text(file.parent, shown), shown)


def lock_file(here: Open, plugin: Entry) -> Path:
    """Where a plugin's lock stands, if it has one."""
    from envbuilder.lock import files

    return files.lock_folder(here.workspace, here.profile, plugin.name) / "uv.lock"


def locked_names(here: Open, plugin: Entry) -> set[str]:
    """The packages of a plugin's lock; none where it cannot be read."""
    with contextlib.suppress(EnvbuilderError):
        return set(lock_graph(here, plugin).held)
    return set()


def holders(here: Open, package: str) -> list[str]:
    """The plugins whose locks hold a package."""
    return [plugin.name for plugin in here.registry.plugins if package in locked_names(here, plugin)]


def _not_locked(here: Open, entry: Entry, name: str, graph: Graph) -> UsageError:
    from envbuilder.lock.project import edit_hint

    near = nearest(name, graph.held)
    message = f"{name} is not in {here.profile.name}'s lock of {entry.name}"
    where = f"profiles/{here.profile.name}/{entry.name}/uv.lock"
    if name in entry.exclude:
        where = entry.at("exclude")
        message += "; the entry excludes it"
        return UsageError(message, code="package-not-locked", where=where, hint=edit_hint(entry, "exclude"))
    if near:
        message += f"; nearest: {near}"
    hint = f"envbuilder why --profile {here.profile.name} {entry.name} {near or ''}"
    if not near:
        others = holders(here, name)
        message += f"; it is in that of {', '.join(others)}" if others else ""
        hint = (
            f"envbuilder why --profile {here.profile.name} {others[0]} {name}"
            if others
            else f"grep '^name' {here.workspace.show(lock_file(here, entry))}  # all that it holds"
        )
    return UsageError(message, code="package-not-locked", where=where, hint=hint)


def _rules(here: Open, entry: Entry, name: str) -> dict[str, list[str]]:
    """What the generated project says of a package, beside what packages ask for."""
    from envbuilder.documents import read_toml, subtree
    from envbuilder.lock import files
    from envbuilder.lock.reasons import naming

    file = files.lock_folder(here.workspace, here.profile, entry.name) / "pyproject.toml"
    if not file.exists():
        return {}
    tree = read_toml(file, here.workspace.show(file))
    found = {}
    sibling = here.registry.get(name)
    if sibling is not None:
        found["registry"] = [f"{sibling.source}, {sibling.at('source')}"]
    for what, key in (("constraint", "constraint-dependencies"), ("override", "override-dependencies")):
        lines = naming(subtree(tree, ("tool", "uv", key)).value, name)
        if lines and not (what == "override" and sibling is not None):
            found[what] = lines
    return found


def installed(here: Open, entry: Entry) -> Mapping[str, tuple[str, Sequence[str]]]:
    """What a built environment's packages require; of releases from an index, a lock keeps no versions asked for."""
    from packaging.markers import default_environment

    from envbuilder.store.environments import Store
    from envbuilder.store.installed import metadata, requirements

    link = here.workspace.own / "envs" / here.profile.name / entry.name
    seal = Store(here.workspace.shared).seal(link.resolve().name)
    if seal is None:
        return {}
    python = str(seal.inputs["python"])
    markers = {name: str(value) for name, value in default_environment().items()}
    markers |= {"python_full_version": python, "python_version": ".".join(python.split(".")[:2])}
    return {name: (str(each["Version"]), requirements(each, markers)) for name, each in metadata(link).items()}
