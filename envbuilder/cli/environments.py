"""`build`, `status`, `path` and `exec`."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import click

from envbuilder.cli.base import (
    Open,
    Settings,
    common,
    offline_option,
    plain,
    plugin_argument,
    plugins_argument,
    summary,
)
from envbuilder.errors import Problem, UsageError

if TYPE_CHECKING:
    from envbuilder.build import Builder, Built
    from envbuilder.models import Entry, PluginOutcome
    from envbuilder.render import Outcome, Table
    from envbuilder.store.generations import Generations


@click.command()
@plugins_argument
@click.option("-j", "--jobs", type=click.IntRange(1), default=2, show_default=True, help="How many at a time.")
@click.option("--torch", metavar="BACKEND", help="One of the profile's torch-backends, or auto, from now on.")
@click.option(
    "--compile-bytecode/--no-compile-bytecode",
    default=None,
    help="Compile every module of new environments, not only what their import needs; by default as the profile says.",
)
@offline_option
@common
def build(
    settings: Settings,
    plugins: tuple[str, ...],
    jobs: int,
    torch: str | None,
    compile_bytecode: bool | None,
    offline: bool,
) -> Outcome:
    """Make each plugin's environment, where it is not there already."""
    from envbuilder.render import Outcome

    if not plugins and torch is None and (quick := _nothing_to_do(settings)):
        return quick
    here = settings.open()
    if compile_bytecode is not None:
        here = replace(here, profile=replace(here.profile, compile_bytecode=compile_bytecode))
    chosen = here.select(plugins)
    if torch is not None:
        _choose_backend(here, chosen, torch)
    builder, outcomes = build_environments(settings, here, chosen, jobs=jobs, offline=offline)
    environments = [
        {**plain(outcome), **({"key": built.key, "path": str(built.path), "torch": built.torch} if built else {})}
        for outcome in outcomes
        for built in [builder.built.get(outcome.plugin)]
    ]
    return Outcome(
        "build",
        here.profile.name,
        result={"environments": environments},
        problems=tuple(problem for outcome in outcomes for problem in outcome.problems),
        text=(summary(outcomes, here.workspace.show(here.workspace.own / "envs" / here.profile.name)),),
    )


def _choose_backend(here: Open, chosen: Sequence[Entry], torch: str) -> None:
    """Use a torch backend for some plugins from now on.

    Raises:
        UsageError: the profile does not list it.
        UnfitError: this machine's driver cannot run it.
    """
    from envbuilder import accelerators, gpus
    from envbuilder.store.choices import Choices

    listed = here.profile.torch_backends
    if torch not in {accelerators.AUTO, *listed}:
        raise UsageError(
            f"--torch: expected auto or one of the profile's torch-backends, {', '.join(listed)}; found {torch!r}",
            code="torch-unlisted",
            where=f"profiles/{here.profile.name}/profile.toml",
            hint=f"${{EDITOR:-vi}} profiles/{here.profile.name}/profile.toml",
        )
    if accelerators.cuda(torch) and (reason := accelerators.unfit(torch, gpus.read())):
        raise accelerators.UnfitError(reason, hint=f"envbuilder build --torch auto --profile {here.profile.name}")
    Choices(here.workspace.own, here.profile.name).note([plugin.name for plugin in chosen], torch)


def _is_damaged(generations: Generations) -> bool:
    """Whether a generation cannot be read, which a whole build mends."""
    return bool(generations.look()[1])


def _nothing_to_do(settings: Settings) -> Outcome | None:
    """The outcome of a `build` that a stamp proves to be a no-op; reads neither registry nor locks."""
    from envbuilder.places import candidates, state_folders
    from envbuilder.render import Outcome
    from envbuilder.store import stamps
    from envbuilder.store.generations import Generations

    root = next(candidates(settings.folder), None)
    if root is None:
        return None
    shared, own = state_folders(root)
    ready = stamps.nothing_to_do(stamps.stamp_path(own, settings.profile), shared / "store")
    if ready is None or _is_damaged(Generations(own, settings.profile, shared / "store")):
        return None
    environments = [
        {
            "plugin": each.plugin,
            "state": "unchanged",
            "seconds": 0.0,
            "key": each.key,
            "path": str(each.path),
            "torch": each.torch,
        }
        for each in ready
    ]
    if not settings.quiet:
        for each in ready:
            click.echo(f"= build {each.plugin}  unchanged", err=True)
    place = own / "envs" / settings.profile
    where = place.relative_to(root) if place.is_relative_to(root) else place
    return Outcome(
        "build", settings.profile, result={"environments": environments}, text=(f"{len(ready)} unchanged: {where}",)
    )


def build_environments(
    settings: Settings, here: Open, chosen: Sequence[Entry], *, jobs: int, offline: bool, mend: Sequence[str] = ()
) -> tuple[Builder, list[PluginOutcome]]:
    """Build plugins and show how they get on; in dev, lock first what has changed."""
    from envbuilder.build import Builder
    from envbuilder.render import Progress

    if here.profile.name == "dev":
        _relock(settings, here, chosen, offline=offline)
    builder = Builder(here.workspace, here.profile, here.registry, offline=offline)
    with Progress("build", [plugin.name for plugin in chosen], silent=settings.quiet) as progress:
        return builder, builder.build(chosen, progress.report, jobs=jobs, mend=mend)


def _relock(settings: Settings, here: Open, chosen: Sequence[Entry], *, offline: bool) -> None:
    """Dev follows edits of metadata by itself; prod never does."""
    from envbuilder.lock import files, locker, locking
    from envbuilder.render import Progress

    pins = files.read_pins(here.workspace, here.profile)
    found = locking.find_stale(here.workspace, here.profile, here.registry, chosen, pins)
    stale = [plugin for plugin in chosen if isinstance(found[plugin.name], Problem)]
    if not stale:
        return
    request = locker.Request(offline=offline)
    with Progress("lock", [plugin.name for plugin in stale], silent=settings.quiet) as progress:
        outcomes = locking.lock_plugins(
            here.workspace, here.profile, here.registry, stale, request=request, report=progress.report
        )
    failed = [problem for outcome in outcomes for problem in outcome.problems]
    if failed:
        from envbuilder.render import show_problems

        show_problems(failed)


@click.command()
@plugins_argument
@click.option("--differences", is_flag=True, help="What plugins lock in different versions, and why, instead.")
@common
def status(settings: Settings, plugins: tuple[str, ...], differences: bool) -> Outcome:
    """Show each plugin's source, lock and environment."""
    from envbuilder.build import Builder
    from envbuilder.lock.files import read_pins
    from envbuilder.render import Outcome, Table

    here = settings.open()
    if differences:
        from envbuilder.cli.differences import show_differences

        return show_differences(here, here.select(plugins))
    builder = Builder(here.workspace, here.profile, here.registry, offline=True)
    pins = read_pins(here.workspace, here.profile).entries
    rows, plain = [], []
    for plugin in here.select(plugins):
        found = builder.find(plugin)
        state = found if isinstance(found, str) else "ready"
        pinned = pins[plugin.name].version if found == "not built" and plugin.name in pins else ""
        version = pinned if isinstance(found, str) else found.versions.get(plugin.name, "")
        python = "" if isinstance(found, str) else found.versions["python"]
        torch = None if isinstance(found, str) else found.torch
        rows.append((plugin.name, plugin.stage or "", str(plugin.source), version, python, torch or "", state))
        path = None if isinstance(found, str) else str(found.path)
        plain.append(
            {
                "plugin": plugin.name,
                "stage": plugin.stage,
                "source": str(plugin.source),
                "version": version or None,
                "python": python or None,
                "torch": torch,
                "state": state,
                "path": path,
            }
        )
    columns = ("plugin", "stage", "source", "version", "python", "torch", "environment")
    kept = {"plugin", "stage", "source", "environment"}
    shown = [number for number, column in enumerate(columns) if column in kept or any(row[number] for row in rows)]
    table = Table(
        tuple(columns[number] for number in shown), tuple(tuple(row[number] for number in shown) for row in rows)
    )
    text: list[Table | str] = [table if rows else "no plugins yet; next: envbuilder new NAME --stage inference"]
    held = builder.generations.current() if builder.generations.held else None
    if held is not None:
        name = here.profile.name
        text.append(
            f"{name} is held at generation {held.number}, rolled back to; envbuilder build returns to the locks"
        )
    result = {"plugins": plain, "held": held.number if held else None}
    return Outcome("status", here.profile.name, result=result, text=tuple(text))


def _ready(settings: Settings, here: Open, name: str) -> Built:
    """A plugin's environment, which must be there and look whole."""
    from envbuilder.build import Builder

    plugin = here.select([name])[0]
    found = Builder(here.workspace, here.profile, here.registry, offline=True).find(plugin)
    if isinstance(found, str) and here.profile.name == "dev" and found.startswith("lock-stale"):
        # Edits of what a checkout depends on are followed here, too.
        builder, outcomes = build_environments(
            settings, here, [plugin], jobs=1, offline=bool(os.environ.get("UV_OFFLINE"))
        )
        found = builder.built.get(plugin.name) or outcomes[0].problems[0].message
    if isinstance(found, str):
        raise UsageError(
            f"{plugin.name} has no environment in {here.profile.name}: {found}",
            code="not-built",
            hint=f"envbuilder build --profile {here.profile.name} {plugin.name}",
        )
    return found


@click.command()
@plugin_argument
@common
def path(settings: Settings, plugin: str) -> Outcome:
    """Print the folder of a plugin's environment."""
    from envbuilder.render import Outcome

    here = settings.open()
    built = _ready(settings, here, plugin)
    result = {"plugin": built.plugin.name, "path": str(built.path), "key": built.key}
    return Outcome("path", here.profile.name, result=result, text=(str(built.path),))


@click.command("exec", context_settings={"ignore_unknown_options": True})
@plugin_argument
@click.argument("command", nargs=-1, type=click.UNPROCESSED, required=True)
@common
def execute(settings: Settings, plugin: str, command: tuple[str, ...]) -> Outcome:
    """Run a command inside a plugin's environment: envbuilder exec PLUGIN -- python -c '…'."""
    from envbuilder import caches, process
    from envbuilder.build import worker_environment

    here = settings.open()
    built = _ready(settings, here, plugin)
    inside = built.path / "bin" / command[0]
    program = str(inside) if "/" not in command[0] and inside.exists() else command[0]
    compiled = caches.folder(here.workspace.shared, plugin, built.key)
    env = worker_environment(built.path, built.pycache, built.plugin.env, compiled)
    process.replace([program, *command[1:]], env)
    raise AssertionError("not reached: the process has become the command")
