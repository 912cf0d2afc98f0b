"""`dev on`, `dev off` and `dev status`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from envbuilder.cli.base import Open, Settings, common, offline_option, plugin_argument, plugins_argument

if TYPE_CHECKING:
    from envbuilder.models import Entry, PluginOutcome
    from envbuilder.render import Outcome
    from envbuilder.workflow.developing import Row


@click.group()
def dev() -> None:
    """Work on plugins: as checkouts in packages/, editable in the dev profile. Prod's locks stay as they are."""


@dev.command("on", short_help="Turn a plugin into a checkout, editable in dev.")
@plugin_argument
@click.option("--path", type=click.Path(path_type=Path), metavar="DIR", help="Where the checkout is, or is to be.")
@click.option("--branch", is_flag=True, help="Clone the tip of the default branch, not what prod pins.")
@offline_option
@common
def dev_on(settings: Settings, plugin: str, path: Path | None, branch: bool, offline: bool) -> Outcome:
    """Clone a plugin at its pinned tag, write its overlay, and lock and build dev with it.

    A checkout that is there already is used as it is. The clone's origin is the address that the entry names, also where
    it came through a mirror.
    """
    from envbuilder.lock.files import read_pins
    from envbuilder.render import Outcome
    from envbuilder.workflow.developing import Desk

    prod, here = _both(settings)
    base, overlaid = _entry(prod, plugin), _entry(here, plugin)
    pin = read_pins(prod.workspace, prod.profile).entries.get(base.name)
    schemas = (here.workspace.root / "profiles" / "schemas").is_dir()
    desk = Desk(here.workspace)
    folder, state = desk.take(base, overlaid, pin, path=path, default_branch=branch, editor_line=schemas)
    outcomes = _rebuild(settings, base, offline=offline)
    row = desk.row(base, _entry(_both(settings)[1], plugin), pin, fetch=False)
    shown = here.workspace.show(folder)
    text = [f"{base.name}: {shown} ({state}), editable in dev; {_place(row)}"]
    if row.standing and not row.standing.branch:
        text.append(f"next: git -C {shown} switch -c BRANCH  # no branch is checked out")
    return Outcome(
        "dev on",
        "dev",
        result={"plugin": base.name, "path": shown, "state": state, **_facts(row)},
        problems=tuple(problem for outcome in outcomes for problem in outcome.problems),
        text=tuple(text),
    )


def _place(row: Row) -> str:
    standing = row.standing
    if standing is None:
        return "in no repository"
    return f"on {standing.branch}" if standing.branch else f"at {standing.commit[:12]}"


@dev.command("off", short_help="Put the overlay back, and remove the clone.")
@plugin_argument
@offline_option
@common
def dev_off(settings: Settings, plugin: str, offline: bool) -> Outcome:
    """Put the overlay back as it was, and remove the clone, unless something would be lost with it.

    Work that is not committed, not pushed, or stashed is named, and nothing is done. A checkout that `dev on` found, not
    made, stays where it is.
    """
    from envbuilder.render import Outcome
    from envbuilder.workflow.checkout import missing
    from envbuilder.workflow.developing import Desk

    prod, here = _both(settings)
    base = _entry(prod, plugin)
    desk = Desk(here.workspace)
    if problems := desk.losses(base.name, offline=offline):
        return Outcome("dev off", "dev", result={"plugin": base.name, "removed": False}, problems=tuple(problems))
    folder, removed = desk.leave(base.name)
    row = desk.row(base, _entry(_both(settings)[1], plugin), None, fetch=False)
    outcomes = [] if row.state == "missing" else _rebuild(settings, base, offline=offline)
    problems = [problem for outcome in outcomes for problem in outcome.problems]
    problems += filter(None, [missing(here.workspace, row.entry)])
    what = "removed" if removed else "left where it is"
    return Outcome(
        "dev off",
        "dev",
        result={"plugin": base.name, "path": folder, "removed": removed},
        problems=tuple(problems),
        text=(f"{base.name}: dev takes {row.entry.source} again; {folder} was {what}",),
    )


@dev.command("status", short_help="Show where the checkouts are.")
@plugins_argument
@click.option("--fetch", is_flag=True, help="Ask the remotes of clones first.")
@common
def dev_status(settings: Settings, plugins: tuple[str, ...], fetch: bool) -> Outcome:
    """Show what dev has of each plugin and library: its branch, how far that is, and the tag it would become."""
    from envbuilder.lock.files import read_pins
    from envbuilder.render import Outcome, Table
    from envbuilder.workflow.checkout import missing
    from envbuilder.workflow.developing import Desk

    prod, here = _both(settings)
    pins = read_pins(prod.workspace, prod.profile).entries
    desk = Desk(here.workspace)
    wanted = [_entry(here, name).name for name in plugins] or [entry.name for entry in here.registry.entries]
    rows = [desk.row(_entry(prod, name), _entry(here, name), pins.get(name), fetch=fetch) for name in wanted]
    columns = ("plugin", "profile", "source", "branch", "ahead", "behind", "dirty", "would become")
    table = Table(columns, tuple(_cells(row) for row in rows), numeric=frozenset({"ahead", "behind", "dirty"}))
    absent = filter(None, (missing(here.workspace, row.entry) for row in rows))
    result = {"plugins": [{"plugin": row.entry.name, **_facts(row)} for row in rows]}
    return Outcome("dev status", "dev", result=result, problems=tuple(absent), text=(table,))


def _facts(row: Row) -> dict[str, object]:
    standing = row.standing
    return {
        "profile": "dev" if row.state in {"checkout", "missing", "branch"} else "prod",
        "source": str(row.entry.source),
        "checkout": row.state == "checkout",
        "commit": standing.commit if standing else None,
        "branch": standing.branch or None if standing else None,
        "upstream": standing.upstream or None if standing else None,
        "ahead": standing.ahead if standing else None,
        "behind": standing.behind if standing else None,
        "dirty": list(standing.dirty) if standing else [],
        "would-become": row.becomes or None,
    }


def _cells(row: Row) -> tuple[str, ...]:
    facts, standing = _facts(row), row.standing
    where = (str(facts["profile"]), str(row.entry.source))
    if standing is None:
        return (row.entry.name, *where, "", "", "", "", row.becomes)
    branch = standing.branch or f"({standing.commit[:12]})"
    numbers = (str(standing.ahead), str(standing.behind)) if standing.upstream else ("", "")
    return (row.entry.name, *where, branch, *numbers, str(len(standing.dirty)), row.becomes)


def _both(settings: Settings) -> tuple[Open, Open]:
    """The workspace as prod and as dev see it."""
    return replace(settings, profile="prod").open(), replace(settings, profile="dev").open()


def _entry(here: Open, name: str) -> Entry:
    """The plugin or library of that name."""
    from packaging.utils import canonicalize_name

    entry = here.registry.get(str(canonicalize_name(name)))
    return entry if entry is not None else here.select([name])[0]


def _rebuild(settings: Settings, entry: Entry, *, offline: bool) -> list[PluginOutcome]:
    """Lock and build dev anew where the entry matters: itself, or of a library those that are locked with it."""
    from envbuilder.cli.environments import build_environments

    here = replace(settings, profile="dev").open()
    chosen: Sequence[Entry] = [here.select([entry.name])[0]] if entry.is_plugin else _locked_with(here, entry.name)
    if not chosen:
        return []
    _, outcomes = build_environments(settings, here, chosen, jobs=2, offline=offline)
    return outcomes


def _locked_with(here: Open, library: str) -> list[Entry]:
    from envbuilder.lock.files import lock_folder, read_lock

    found = []
    for plugin in here.registry.plugins:
        folder = lock_folder(here.workspace, here.profile, plugin.name)
        if (folder / "uv.lock").exists() and any(package.name == library for package in read_lock(folder)):
            found.append(plugin)
    return found
