"""`doctor`: whether this machine and this workspace have what they need, each line with its remedy."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from envbuilder.cli.base import Open, Settings, common, offline_option
from envbuilder.errors import ConfigError, EnvbuilderError, Problem, UsageError
from envbuilder.threads import at_once

if TYPE_CHECKING:
    from envbuilder.render import Outcome
    from envbuilder.workflow.health import Finding, View

_PATIENCE_S = 60.0
_SEVERITY = {"warn": "warning", "fail": "error"}


@click.command()
@offline_option
@common
def doctor(settings: Settings, offline: bool) -> Outcome:
    """Look at tools, interpreters, GPUs, file systems, state and network: a line each, with the remedy.

    Works outside a workspace too, and looks then at what does not need one. Exit status 1 where a line says fail.
    """
    from envbuilder.render import Findings, Outcome
    from envbuilder.workflow.health import plain

    here = _open(settings)
    findings = _look(settings, here, offline=offline)
    problems = tuple(
        Problem(f"doctor-{each.what.split()[0]}", each.found, hint=each.remedy, severity=_SEVERITY[each.state])
        for each in findings
        if each.state != "ok"
    )
    rows = tuple((each.state, each.what, each.found, each.remedy or "") for each in findings)
    name = here.profile.name if here else settings.profile
    result = {"findings": plain(findings)}
    return Outcome("doctor", name, result=result, problems=problems, text=(Findings(rows),), is_told=True)


def _open(settings: Settings) -> Open | None:
    try:
        return settings.open()
    except UsageError as error:
        if error.code != "no-workspace":
            raise
        return None


def _look(settings: Settings, here: Open | None, *, offline: bool) -> list[Finding]:
    """All findings in their order; what waits for disks, programs or the network is looked at side by side."""
    from envbuilder.places import state_folders
    from envbuilder.workflow import health, reaching

    views, broken = _views(settings, here)
    shared = here.workspace.shared if here else state_folders(settings.folder.resolve())[0]
    looks: list[Callable[[], Iterable[Finding]]] = [
        lambda: [*health.tools(views), *health.surroundings()],
        lambda: health.interpreters(views),
        lambda: health.graphics(views),
        lambda: health.disks(shared),
        lambda: [health.caches(here.workspace if here else None)],
        lambda: [_guard(shared)],
    ]
    if here is not None:
        looks.append(lambda: health.state(here.workspace))
        looks.append(lambda: reaching.reach(here.workspace, views, offline=offline))
    parts = at_once(lambda look: list(_safely(look)), looks, len(looks), name="doctor")
    found = [each for part in parts for each in part]
    if here is None:
        found.append(
            health.Finding("workspace", "warn", "none here: only the machine was looked at", "envbuilder init")
        )
    return [*found, *broken]


def _guard(shared: Path) -> Finding:
    """What keeps workers from writing into environments here."""
    from envbuilder import process
    from envbuilder.workflow.health import Finding
    from pipeline import guard

    place = next(folder for folder in (shared, *shared.parents) if folder.exists())
    argv = [sys.executable, "-I", guard.__file__, os.environ.get(guard.VARIABLE, ""), str(place)]
    holds = process.run(argv, timeout_s=_PATIENCE_S).stdout.strip() or guard.NOTHING
    if holds != guard.NOTHING:
        return Finding("guard", "ok", f"{holds}: environments and records are read-only to workers")
    told = f"{holds}: workers can write everywhere; what a run used is compared with its seals afterwards"
    if not (version := guard.landlock_version()):
        return Finding("guard", "ok", told)
    cost = ", ".join(guard.costs([str(place)])[-2:])
    told += f"; {guard.LANDLOCK}-{version} would close them, and nothing new could be made directly in {cost}"
    return Finding("guard", "ok", told)


def _safely(look: Callable[[], Iterable[Finding]]) -> Iterator[Finding]:
    from envbuilder.workflow.health import Finding

    try:
        yield from look()
    except EnvbuilderError as error:  # One line that cannot be had must not hide the others.
        yield Finding(error.code, "fail", error.message, error.hint)


def _views(settings: Settings, here: Open | None) -> tuple[list[View], list[Finding]]:
    """The workspace as each profile sees it; the other profile may be broken, and this one whole."""
    from envbuilder.workflow.health import Finding, View

    if here is None:
        return [], []
    views, broken = [View(here.profile, here.registry)], []
    other = "prod" if here.profile.name == "dev" else "dev"
    try:
        opened = replace(settings, profile=other).open()
        views.append(View(opened.profile, opened.registry))
    except ConfigError as error:
        hint = f"envbuilder status --profile {other}"
        broken.append(Finding(f"profile {other}", "warn", f"{error.where}: {error.message}", hint))
    return views, broken
