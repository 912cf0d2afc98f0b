"""`status --differences`: what plugins lock in different versions, and why."""

from __future__ import annotations

from typing import TYPE_CHECKING

from envbuilder.cli.base import Open
from envbuilder.cli.inquiry import installed, lock_graph

if TYPE_CHECKING:
    from collections.abc import Sequence

    from envbuilder.lock.differences import Side
    from envbuilder.models import Entry
    from envbuilder.render import Outcome


def show_differences(here: Open, plugins: Sequence[Entry]) -> Outcome:
    """The packages that plugins do not lock in one version, with who holds which, and why."""
    from envbuilder.lock.differences import differences
    from envbuilder.render import Outcome, Table

    found = differences({plugin.name: _side(here, plugin) for plugin in plugins})
    rows = tuple(
        (each.package if number == 0 else "", holder.version, holder.plugin, "; ".join(holder.why))
        for each in found
        for number, holder in enumerate(each.holders)
    )
    plain = [
        {
            "package": each.package,
            "plugins": [
                {"plugin": holder.plugin, "version": holder.version, "why": list(holder.why)} for holder in each.holders
            ],
        }
        for each in found
    ]
    count = f"{len(found)} of the packages that {len(plugins)} plugins lock are not the same version in all"
    table = Table(("package", "version", "plugin", "why not the newest"), rows)
    return Outcome(
        "status", here.profile.name, result={"differences": plain}, text=(table, count) if found else (count,)
    )


def _side(here: Open, plugin: Entry) -> Side:
    from envbuilder.config import python_specifier
    from envbuilder.documents import read_toml, subtree
    from envbuilder.lock import files, reasons
    from envbuilder.lock.differences import Side

    graph = lock_graph(here, plugin)
    pins = files.read_pins(here.workspace, here.profile).entries
    file = files.lock_folder(here.workspace, here.profile, plugin.name) / "pyproject.toml"
    rules = subtree(read_toml(file, here.workspace.show(file)), ("tool", "uv", "constraint-dependencies")).value
    python = python_specifier(plugin.python or here.profile.python)
    told = reasons.teller(pins, installed(here, plugin))
    return Side(graph, told, python, [str(rule) for rule in rules or ()])
