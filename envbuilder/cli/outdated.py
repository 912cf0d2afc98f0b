"""`outdated`: what is newer than what is locked, and which of it fits."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from envbuilder.cli.base import Open, Settings, common, plugins_argument
from envbuilder.cli.comparing import changes_table, plain_change
from envbuilder.cli.inquiry import lock_graph
from envbuilder.errors import Problem

if TYPE_CHECKING:
    from envbuilder.lock.comparing import Change
    from envbuilder.lock.newer import Newer, Outlook
    from envbuilder.models import Entry
    from envbuilder.render import Outcome


@click.command()
@plugins_argument
@click.option("--all", "everything", is_flag=True, help="Also what `lock --upgrade` would change in each lock.")
@click.option("--pre", is_flag=True, help="Pre-releases too.")
@common
def outdated(settings: Settings, plugins: tuple[str, ...], everything: bool, pre: bool) -> Outcome:
    """Show tags and releases newer than those the registry names, whether they fit the core, and what takes them.

    To be outdated is no failure: the exit status is 1 only where a remote or an index could not be asked.
    """
    from envbuilder.render import Outcome, Table

    here = settings.open()
    chosen = here.select(plugins)
    found = _outlooks(here, _entries(here, chosen, whole=not plugins), pre=pre)
    upgrades, failed = _upgrades(here, chosen) if everything else ([], [])
    problems = [each.problem for each in found if each.problem is not None] + failed
    behind = [each for each in found if each.newer]
    rows = [(each.entry.name, each.current, *_row(newer)) for each in behind for newer in each.newer]
    commands = [f"{each.entry.name}: {each.command}" for each in behind if each.command]
    tables = [Table(("entry", "named", "newer", "fits", "why not"), tuple(rows))] if rows else []
    known = sum(each.problem is None or bool(each.newer) for each in found)
    return Outcome(
        "outdated",
        here.profile.name,
        result={"entries": [_plain(each) for each in found], "packages": [plain_change(each) for each in upgrades]},
        problems=tuple(problems),
        text=(
            *tables,
            *commands,
            *changes_table(upgrades, "locked", "newest that fits"),
            f"{len(behind)} of {known} entries have something newer",
        ),
    )


def _entries(here: Open, chosen: Sequence[Entry], *, whole: bool) -> list[Entry]:
    """The entries of plugins' closures, as their locks hold them; all of the registry for all plugins."""
    if whole:
        return list(here.registry.entries)
    held = {plugin.name for plugin in chosen} | {name for plugin in chosen for name in lock_graph(here, plugin).held}
    return [entry for entry in here.registry.entries if entry.name in held]


def _outlooks(here: Open, entries: Sequence[Entry], *, pre: bool) -> list[Outlook]:
    from envbuilder.config import core_versions
    from envbuilder.lock.checking import list_remotes
    from envbuilder.lock.files import read_pins
    from envbuilder.lock.fitting import CoreJudge
    from envbuilder.lock.newer import Watch
    from envbuilder.lock.sources import Sources

    sources = Sources(here.workspace, here.profile, read_pins(here.workspace, here.profile))
    judge = CoreJudge(here.profile, sources, core_versions(here.workspace), ())
    return Watch(here.profile, judge, list_remotes(sources, [entry.source for entry in entries]), pre=pre).look(entries)


def _upgrades(here: Open, chosen: Sequence[Entry]) -> tuple[list[Change], list[Problem]]:
    from envbuilder.lock import graph
    from envbuilder.lock.comparing import changes, of_graphs
    from envbuilder.lock.locking import preview_upgrades

    texts = preview_upgrades(here.workspace, here.profile, here.registry, chosen)
    problems = [text for text in texts.values() if isinstance(text, Problem)]
    new = {name: graph.parse(text, name) for name, text in texts.items() if isinstance(text, str)}
    old = {plugin.name: lock_graph(here, plugin) for plugin in chosen if plugin.name in new}
    return changes(of_graphs("locked", old), of_graphs("newest", new)), problems


def _row(newer: Newer) -> tuple[str, str, str]:
    return newer.place, {True: "yes", False: "no", None: "?"}[newer.fits], newer.reason


def _plain(found: Outlook) -> dict[str, object]:
    return {
        "entry": found.entry.name,
        "source": found.entry.source.kind,
        "current": found.current,
        "newer": [{"place": each.place, "fits": each.fits, "reason": each.reason} for each in found.newer],
        "command": found.command,
        "known": found.problem is None,
    }
