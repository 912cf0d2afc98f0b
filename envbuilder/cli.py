"""The command line. Only this module prints or exits."""

from __future__ import annotations

import functools
import itertools
import os
import signal
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

import click

from envbuilder import __version__
from envbuilder.errors import EXIT_INTERRUPTED, EXIT_UNUSABLE, EnvbuilderError, Interrupted, Problem, UsageError

if TYPE_CHECKING:
    from envbuilder.build import Builder, Built
    from envbuilder.models import Entry, PluginOutcome, Profile, Registry, Workspace
    from envbuilder.render import Outcome


@dataclass(frozen=True)
class Settings:
    """The options that every command takes."""

    profile: str
    folder: Path
    output: str
    quiet: bool
    verbose: int

    def open(self) -> Open:
        """Read the workspace, its profile and its registry."""
        from envbuilder import config, registry

        workspace = config.find_workspace(self.folder)
        profile = config.read_profile(workspace, self.profile)
        trees = config.read_registry(workspace, overlays=profile.name == "dev")
        return Open(workspace, profile, registry.parse(trees))


@dataclass(frozen=True)
class Open:
    """A workspace seen through a profile."""

    workspace: Workspace
    profile: Profile
    registry: Registry

    def select(self, names: Sequence[str]) -> list[Entry]:
        """The plugins of those names; all of them where none is named.

        Raises:
            UsageError: there is no plugin of that name.
        """
        from packaging.utils import canonicalize_name

        if not names:
            if not self.registry.entries:
                where = self.workspace.root / "profiles" / "registry"
                raise UsageError(f"the registry is empty: no *.yaml in {where}", hint=f"ls {where}")
            return list(self.registry.plugins)
        chosen = []
        for name in names:
            entry = self.registry.get(str(canonicalize_name(name)))
            if entry is None or not entry.is_plugin:
                what = "is a library, which has no environment" if entry else "is not in the registry"
                raise UsageError(f"{name} {what}{self._nearest(name)}", hint="envbuilder status")
            if entry not in chosen:
                chosen.append(entry)
        return chosen

    def _nearest(self, name: str) -> str:
        import difflib

        near = difflib.get_close_matches(name, [entry.name for entry in self.registry.plugins], n=1, cutoff=0.4)
        return f"; nearest plugin: {near[0]}" if near else ""


def _common(command: Callable[..., Outcome]) -> Callable[..., None]:
    """Give a command the options that all have, and print what it returns."""

    @click.option(
        "--profile",
        type=click.Choice(["dev", "prod"]),
        envvar="RUN_MODE",
        default="prod",
        show_default="$RUN_MODE, else prod",
        help="Which sources and settings hold.",
    )
    @click.option(
        "-C",
        "--workspace",
        "folder",
        type=click.Path(path_type=Path),
        default=Path(),
        help="The workspace, or a folder in it.",
    )
    @click.option(
        "--format", "output", type=click.Choice(["text", "json"]), default="text", help="For people or tools."
    )
    @click.option("-q", "--quiet", is_flag=True, help="Only problems.")
    @click.option("-v", "--verbose", count=True, help="More detail.")
    @functools.wraps(command)
    def wrapper(profile: str, folder: Path, output: str, quiet: bool, verbose: int, **options: Any) -> None:
        from envbuilder.render import show

        settings = Settings(profile, folder, output, quiet, verbose)
        outcome = command(settings, **options)
        show(outcome, output=output, quiet=quiet)
        sys.exit(outcome.status)

    return wrapper


_plugins = click.argument("plugins", nargs=-1, metavar="[PLUGIN]...")
_offline = click.option("--offline", is_flag=True, envvar="UV_OFFLINE", help="Touch no network.")


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="envbuilder")
def cli() -> None:
    """One locked, verified environment per plugin, and a runner that benchmarks them side by side."""


@cli.command()
@_plugins
@click.option("--check", is_flag=True, help="Only say whether the locks are as they should be; no network.")
@click.option("--upgrade", is_flag=True, help="Take the newest versions that fit.")
@click.option("--repin", is_flag=True, help="Ask the remotes for every tag anew, and accept where one has moved to.")
@click.option("-j", "--jobs", type=click.IntRange(1), default=4, show_default=True, help="How many at a time.")
@_offline
@_common
def lock(  # noqa: PLR0913 - one parameter for each option
    settings: Settings, plugins: tuple[str, ...], check: bool, upgrade: bool, repin: bool, jobs: int, offline: bool
) -> Outcome:
    """Write one uv.lock per plugin, and pins.toml."""
    from envbuilder.lock import locking
    from envbuilder.render import Outcome, Progress

    here = settings.open()
    chosen = here.select(plugins)
    if check:
        return _lock_check(here, chosen)
    request = locking.Request(offline=offline, upgrade=upgrade, repin=repin, jobs=jobs)
    with Progress("lock", [plugin.name for plugin in chosen], silent=settings.quiet) as progress:
        outcomes = locking.lock_plugins(
            here.workspace, here.profile, here.registry, chosen, request=request, report=progress.report
        )
    return Outcome(
        "lock",
        here.profile.name,
        result={"plugins": [_plain(outcome) for outcome in outcomes]},
        problems=tuple(problem for outcome in outcomes for problem in outcome.problems),
        text=(_summary(outcomes, f"profiles/{here.profile.name}"),),
    )


def _lock_check(here: Open, chosen: Sequence[Entry]) -> Outcome:
    from envbuilder.lock import locking
    from envbuilder.render import Outcome

    pins = locking.read_pins(here.workspace, here.profile)
    found = locking.find_stale(here.workspace, here.profile, here.registry, chosen, pins)
    problems = tuple(item for item in found.values() if isinstance(item, Problem))
    states = {name: item.code if isinstance(item, Problem) else "ok" for name, item in found.items()}
    return Outcome(
        "lock",
        here.profile.name,
        result={"plugins": [{"plugin": name, "state": state} for name, state in states.items()]},
        problems=problems,
        text=(f"{len(found) - len(problems)} of {len(found)} locks are up to date",),
    )


def _plain(outcome: PluginOutcome) -> dict[str, object]:
    return {"plugin": outcome.plugin, "state": outcome.state, "seconds": round(outcome.seconds, 3)}


def _summary(outcomes: Sequence[PluginOutcome], where: str) -> str:
    counts: dict[str, int] = {}
    for outcome in outcomes:
        counts[outcome.state] = counts.get(outcome.state, 0) + 1
    return f"{', '.join(f'{count} {state}' for state, count in counts.items()) or 'nothing to do'}: {where}"


@cli.command()
@_plugins
@_offline
@_common
def check(settings: Settings, plugins: tuple[str, ...], offline: bool) -> Outcome:
    """Prove that pins, locks, core and Pythons fit together."""
    from envbuilder.lock import checking
    from envbuilder.render import Outcome

    here = settings.open()
    chosen = here.select(plugins)
    report = checking.check(here.workspace, here.profile, here.registry, chosen, offline=offline)
    counts = f"{report.entries} entries, {len(chosen)} locks, {report.remotes} remotes"
    verdict = f"{len(report.problems)} problems" if report.problems else "all as it should be"
    return Outcome(
        "check",
        here.profile.name,
        result={"entries": report.entries, "locks": len(chosen), "remotes": report.remotes},
        problems=report.problems,
        text=(f"checked {counts}: {verdict}",),
    )


@cli.command()
@_plugins
@click.option("-j", "--jobs", type=click.IntRange(1), default=2, show_default=True, help="How many at a time.")
@_offline
@_common
def build(settings: Settings, plugins: tuple[str, ...], jobs: int, offline: bool) -> Outcome:
    """Make each plugin's environment, where it is not there already."""
    from envbuilder.render import Outcome

    here = settings.open()
    chosen = here.select(plugins)
    builder, outcomes = _build(settings, here, chosen, jobs=jobs, offline=offline)
    environments = [
        {**_plain(outcome), **({"key": built.key, "path": str(built.path)} if built else {})}
        for outcome in outcomes
        for built in [builder.built.get(outcome.plugin)]
    ]
    return Outcome(
        "build",
        here.profile.name,
        result={"environments": environments},
        problems=tuple(problem for outcome in outcomes for problem in outcome.problems),
        text=(_summary(outcomes, here.workspace.show(here.workspace.own / "envs" / here.profile.name)),),
    )


def _build(
    settings: Settings, here: Open, chosen: Sequence[Entry], *, jobs: int, offline: bool
) -> tuple[Builder, list[PluginOutcome]]:
    from envbuilder.build import Builder
    from envbuilder.render import Progress

    if here.profile.name == "dev":
        _relock(settings, here, chosen, offline=offline)
    builder = Builder(here.workspace, here.profile, here.registry, offline=offline)
    with Progress("build", [plugin.name for plugin in chosen], silent=settings.quiet) as progress:
        return builder, builder.build(chosen, progress.report, jobs=jobs)


def _relock(settings: Settings, here: Open, chosen: Sequence[Entry], *, offline: bool) -> None:
    """Dev follows edits of metadata by itself; prod never does."""
    from envbuilder.lock import locking
    from envbuilder.render import Progress

    pins = locking.read_pins(here.workspace, here.profile)
    found = locking.find_stale(here.workspace, here.profile, here.registry, chosen, pins)
    stale = [plugin for plugin in chosen if isinstance(found[plugin.name], Problem)]
    if not stale:
        return
    request = locking.Request(offline=offline)
    with Progress("lock", [plugin.name for plugin in stale], silent=settings.quiet) as progress:
        outcomes = locking.lock_plugins(
            here.workspace, here.profile, here.registry, stale, request=request, report=progress.report
        )
    failed = [problem for outcome in outcomes for problem in outcome.problems]
    if failed:
        from envbuilder.render import show_problems

        show_problems(failed)


@cli.command()
@_plugins
@_common
def status(settings: Settings, plugins: tuple[str, ...]) -> Outcome:
    """Show each plugin's source, lock and environment."""
    from envbuilder.build import Builder
    from envbuilder.render import Outcome, Table

    here = settings.open()
    builder = Builder(here.workspace, here.profile, here.registry, offline=True)
    rows, plain = [], []
    for plugin in here.select(plugins):
        found = builder.find(plugin)
        state = found if isinstance(found, str) else "ready"
        version = "" if isinstance(found, str) else found.versions.get(plugin.name, "")
        python = "" if isinstance(found, str) else found.versions["python"]
        rows.append((plugin.name, plugin.stage or "", str(plugin.source), version, python, state))
        path = None if isinstance(found, str) else str(found.path)
        plain.append(
            {
                "plugin": plugin.name,
                "stage": plugin.stage,
                "source": str(plugin.source),
                "version": version or None,
                "python": python or None,
                "state": state,
                "path": path,
            }
        )
    table = Table(("plugin", "stage", "source", "version", "python", "environment"), tuple(rows))
    return Outcome("status", here.profile.name, result={"plugins": plain}, text=(table,))


def _ready(here: Open, name: str) -> Built:
    """A plugin's environment, which must be there and look whole."""
    from envbuilder.build import Builder

    plugin = here.select([name])[0]
    found = Builder(here.workspace, here.profile, here.registry, offline=True).find(plugin)
    if isinstance(found, str):
        raise UsageError(
            f"{plugin.name} has no environment in {here.profile.name}: {found}",
            code="not-built",
            hint=f"envbuilder build --profile {here.profile.name} {plugin.name}",
        )
    return found


@cli.command()
@click.argument("plugin")
@_common
def path(settings: Settings, plugin: str) -> Outcome:
    """Print the folder of a plugin's environment."""
    from envbuilder.render import Outcome

    here = settings.open()
    built = _ready(here, plugin)
    result = {"plugin": built.plugin.name, "path": str(built.path), "key": built.key}
    return Outcome("path", here.profile.name, result=result, text=(str(built.path),))


@cli.command("exec", context_settings={"ignore_unknown_options": True})
@click.argument("plugin")
@click.argument("command", nargs=-1, type=click.UNPROCESSED, required=True)
@_common
def execute(settings: Settings, plugin: str, command: tuple[str, ...]) -> Outcome:
    """Run a command inside a plugin's environment: envbuilder exec PLUGIN -- python -c '…'."""
    from envbuilder import process
    from envbuilder.build import worker_environment

    here = settings.open()
    built = _ready(here, plugin)
    inside = built.path / "bin" / command[0]
    program = str(inside) if "/" not in command[0] and inside.exists() else command[0]
    process.replace([program, *command[1:]], worker_environment(built.path, built.pycache, built.plugin.env))
    raise AssertionError("not reached: the process has become the command")


def main() -> None:
    """Run the command line; ends the process with the contract's exit status."""
    signal.signal(signal.SIGINT, _stop)
    signal.signal(signal.SIGTERM, _stop)
    try:
        cli.main(standalone_mode=False)
    except click.exceptions.Exit as error:
        sys.exit(error.exit_code)
    except click.ClickException as error:
        hint = f"{error.ctx.command_path} --help" if isinstance(error, click.UsageError) and error.ctx else None
        _end((Problem("usage", error.format_message(), hint=hint or "envbuilder --help"),), EXIT_UNUSABLE)
    except (KeyboardInterrupt, click.Abort):
        _end(Interrupted().problems, EXIT_INTERRUPTED)
    except EnvbuilderError as error:
        _end(error.problems, error.exit_status)
    except BrokenPipeError:
        # Whoever read our output has seen enough.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(EXIT_UNUSABLE)
    except Exception as error:  # noqa: BLE001 - the last resort: a traceback helps nobody but us
        _end((_unforeseen(error),), EXIT_UNUSABLE)


def _stop(_number: int, _frame: FrameType | None) -> None:
    from envbuilder.process import stop_all

    stop_all()
    raise KeyboardInterrupt


def _unforeseen(error: Exception) -> Problem:
    """An error that nobody thought of, with its traceback in a file."""
    import tempfile
    import traceback

    handle, name = tempfile.mkstemp(prefix="envbuilder-", suffix=".log", text=True)
    with os.fdopen(handle, "w", encoding="utf-8") as stream:
        traceback.print_exception(error, file=stream)
    return Problem(
        "internal-error", f"{type(error).__name__}: {error}; this is a bug of envbuilder's", hint=f"cat {name}"
    )


def _end(problems: Sequence[Problem], status: int) -> None:
    from envbuilder.render import Outcome, show

    words = sys.argv[1:]
    command = next((word for word in words if word in cli.commands), "envbuilder")
    wants_json = "--format=json" in words or ("--format", "json") in itertools.pairwise(words)
    profile = os.environ.get("RUN_MODE", "prod")
    outcome = Outcome(command, profile, problems=tuple(problems), exit_status=status)
    show(outcome, output="json" if wants_json else "text", quiet=False)
    sys.exit(status)


if __name__ == "__main__":
    main()
