"""`matrix`."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

import click

from envbuilder.cli.base import Settings, common, plugins_argument
from envbuilder.errors import UsageError

if TYPE_CHECKING:
    from envbuilder.errors import Problem
    from envbuilder.render import Outcome, Table
    from envbuilder.workflow.matrix import Cell


@click.command()
@plugins_argument
@click.option(
    "--changed-since", "revision", metavar="REV", help="Only what the changes since a git revision can affect."
)
@click.option("--python", "pythons", metavar="VERSION", multiple=True, help="Try checkouts with these Pythons instead.")
@functools.partial(common, formats=("github", "gitlab"))
def matrix(settings: Settings, plugins: tuple[str, ...], revision: str | None, pythons: tuple[str, ...]) -> Outcome:
    """Print what CI can test: plugin, Python, torch backend and profile.

    Both profiles, where nothing names one: dev's checkouts with every Python that their packages accept, and prod's tags
    with the Python and the torch backends of their locks.
    """
    from envbuilder.render import Outcome
    from envbuilder.workflow import matrix as making

    names = [settings.profile] if settings.is_named else ["dev", "prod"]
    found: list[Cell] = []
    problems: list[Problem] = []
    for name in names:
        more, wrong = _in_profile(settings, name, plugins, revision, pythons)
        found += more
        problems += wrong
    found.sort(key=making.order)
    if settings.output == "github" and len(found) > making.GITHUB_MOST:
        message = f"{len(found)} cells, of which GitHub takes {making.GITHUB_MOST}"
        raise UsageError(message, code="matrix-too-large", hint="envbuilder matrix --format github --profile prod")
    text: Table | str
    match settings.output:
        case "github":
            text = making.github(found)
        case "gitlab":
            text = making.gitlab(found)
        case _:
            text = _table(found)
            if not found and settings.output == "text" and not settings.quiet:
                click.echo(
                    f"nothing to test{f': no change since {revision} concerns it' if revision else ''}", err=True
                )
    result = {"cells": [cell.plain for cell in found]}
    profile = names[0] if len(names) == 1 else ""
    return Outcome("matrix", profile, result=result, problems=tuple(problems), text=(text,))


def _in_profile(
    settings: Settings, name: str, plugins: tuple[str, ...], revision: str | None, pythons: tuple[str, ...]
) -> tuple[list[Cell], list[Problem]]:
    from dataclasses import replace

    from envbuilder.cli.testing import read_python, tested_entries
    from envbuilder.workflow import matrix as making

    here = replace(settings, profile=name).open()
    view = making.View(here.workspace, here.profile, here.registry)
    chosen = tested_entries(here, plugins)
    if revision is not None:
        affected = making.affected(view, revision)
        chosen = [entry for entry in chosen if entry.name in affected]
    for python in pythons:
        read_python(python)
    return making.cells(view, chosen, pythons or making.PYTHONS)


def _table(found: list[Cell]) -> Table:
    from envbuilder.render import Table

    rows = tuple((cell.plugin, cell.profile, cell.python, cell.torch, cell.key) for cell in found)
    return Table(("plugin", "profile", "python", "torch", "key"), rows)
