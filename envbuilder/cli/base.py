"""What all commands share: their options, the workspace they work in, and how what they return is printed."""

from __future__ import annotations

import difflib
import functools
import sys
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from envbuilder.cli import words
from envbuilder.errors import UsageError

if TYPE_CHECKING:
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
        return Open(workspace, profile, registry.parse(trees, profile.torch_backends))


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
            where = self.workspace.root / "profiles" / "registry"
            if not where.is_dir():  # An empty folder is one to be filled, and nothing in it is wrong.
                raise UsageError(f"no registry: {where} is not there", hint=f"mkdir -p {where} && ls {where}")
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

    def without_schema(self, text: str) -> str:
        """A new file's text; its line for editors only where the workspace has schemas."""
        if (self.workspace.root / "profiles" / "schemas").is_dir():
            return text
        return "".join(line for line in text.splitlines(True) if not line.startswith("# yaml-language-server:"))

    def _nearest(self, name: str) -> str:
        near = difflib.get_close_matches(name, [entry.name for entry in self.registry.plugins], n=1, cutoff=0.4)
        return f"; nearest plugin: {near[0]}" if near else ""


def common(command: Callable[..., Outcome], *, formats: Sequence[str] = ()) -> Callable[..., None]:
    """Give a command the options that all have, and print what it returns.

    Args:
        command: returns what is printed.
        formats: further choices of its `--format`, for tools of other kinds; its text is printed as it is.
    """

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
        "--format",
        "output",
        type=click.Choice(["text", "json", *formats]),
        default="text",
        help="For people or tools.",
    )
    @click.option("-q", "--quiet", is_flag=True, help="Only problems.")
    @click.option("-v", "--verbose", count=True, help="Show the uv and git commands; -vv also how each ended.")
    @functools.wraps(command)
    def wrapper(profile: str, folder: Path, output: str, quiet: bool, verbose: int, **options: Any) -> None:
        from envbuilder.render import show

        settings = Settings(profile, folder, output, quiet, verbose)
        with _witnessed(settings):
            outcome = command(settings, **options)
        show(outcome, output=output, quiet=quiet and output not in formats)
        # Here, where a full disk behind a redirection is an error like any other, not at the interpreter's end.
        sys.stdout.flush()
        sys.exit(outcome.status)

    return wrapper


def _witnessed(settings: Settings) -> AbstractContextManager[None]:
    if not settings.verbose:
        return nullcontext()
    from envbuilder.process import witnessed

    # One write a line: several threads start programs.
    return witnessed(lambda line: click.echo(f"$ {line}", err=True), ends=settings.verbose > 1)


plugins_argument = click.argument("plugins", nargs=-1, metavar="[PLUGIN]...", shell_complete=words.plugins)
plugin_argument = click.argument("plugin", shell_complete=words.plugins)
offline_option = click.option("--offline", is_flag=True, envvar="UV_OFFLINE", help="Touch no network.")


def plain(outcome: PluginOutcome) -> dict[str, object]:
    """A plugin's outcome as the JSON envelope holds it."""
    return {"plugin": outcome.plugin, "state": outcome.state, "seconds": round(outcome.seconds, 3)}


def summary(outcomes: Sequence[PluginOutcome], where: str) -> str:
    """How many plugins ended in which state."""
    counts: dict[str, int] = {}
    for outcome in outcomes:
        counts[outcome.state] = counts.get(outcome.state, 0) + 1
    return f"{', '.join(f'{count} {state}' for state, count in counts.items()) or 'nothing to do'}: {where}"
