"""What all commands share: their options, the workspace they work in, and how what they return is printed."""

from __future__ import annotations

import contextlib
import functools
import json
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from envbuilder.cli import words
from envbuilder.cli.commands import lose_output, said_before, shared_options
from envbuilder.errors import UsageError, nearest, visible

if TYPE_CHECKING:
    from envbuilder.models import Entry, PluginOutcome, Profile, Registry, Workspace
    from envbuilder.render import Outcome


_NAMES = ("profile", "folder", "output", "quiet", "verbose")


@dataclass(frozen=True)
class Settings:
    """The options that every command takes.

    Attributes:
        is_named: whether somebody named the profile, by the option or `RUN_MODE`.
    """

    profile: str
    folder: Path
    output: str
    quiet: bool
    verbose: int
    is_named: bool = False

    def open(self) -> Open:
        """Read the workspace, its profile and its registry."""
        from envbuilder import config, registry

        workspace = _settle(config.find_workspace(self.folder))
        _sweep(workspace)
        profile = config.read_profile(workspace, self.profile)
        trees = config.read_registry(workspace, overlays=profile.name == "dev")
        return Open(workspace, profile, registry.parse(trees, profile.torch_backends))


def _settle(workspace: Workspace) -> Workspace:
    """Note where a workspace is in the state that it shares with others, and take over its own where it was moved.

    What cannot be written now is noted by the next command.
    """
    if workspace.own == workspace.shared:
        return workspace
    from envbuilder.errors import ToolError
    from envbuilder.fs import write_atomically
    from envbuilder.places import OWNER, identity_of, own_folder

    place = own_folder(workspace.root, workspace.shared)
    note = {"root": str(workspace.root), "identity": identity_of(workspace.root)}
    with contextlib.suppress(OSError, ToolError):
        if workspace.own != place:
            workspace.own.rename(place)
            workspace = replace(workspace, own=place)
        write_atomically(place / OWNER, json.dumps(note, indent=1) + "\n")
    return workspace


def _sweep(workspace: Workspace) -> None:
    """Remove what killed commands left half written among the files of a workspace and its state."""
    from envbuilder.fs import sweep

    profiles, own, shared = workspace.root / "profiles", workspace.own, workspace.shared
    written = (profiles.glob("*/"), profiles.glob("*/*/"), own.glob("*/"), own.glob("generations/*/"))
    sweep(workspace.root, profiles, own, shared, shared / "store", *(folder for each in written for folder in each))


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
        near = nearest(name, [entry.name for entry in self.registry.plugins], cutoff=0.4)
        return f"; nearest plugin: {near}" if near else ""


def common(command: Callable[..., Outcome], *, formats: Sequence[str] = ()) -> Callable[..., None]:
    """Give a command the options that all have, and print what it returns.

    Args:
        command: returns what is printed.
        formats: further choices of its `--format`, for tools of other kinds; its text is printed as it is.
    """

    @functools.wraps(command)
    def wrapper(**options: Any) -> None:
        settings = _settled({name: options.pop(name) for name in _NAMES})
        with _witnessed(settings):
            outcome = command(settings, **options)
        _tell(outcome, settings, is_quiet=settings.quiet and settings.output not in formats)
        sys.exit(outcome.status)

    for option in reversed(shared_options(formats)):
        option(wrapper)
    return wrapper


def _settled(given: Mapping[str, Any]) -> Settings:
    """The common options as they stand after the command's name, or else before it."""
    context = click.get_current_context()
    before = said_before(context)
    sources = {name: context.get_parameter_source(name) for name in given}
    values = {
        name: before.get(name, value) if sources[name] is not ParameterSource.COMMANDLINE else value
        for name, value in given.items()
    }
    is_named = "profile" in before or sources["profile"] is not ParameterSource.DEFAULT
    return Settings(**values, is_named=is_named)


def _tell(outcome: Outcome, settings: Settings, *, is_quiet: bool) -> None:
    from envbuilder.render import show

    try:
        show(outcome, output=settings.output, quiet=is_quiet)
        # Here, where a full disk behind a redirection is an error like any other, not at the interpreter's end.
        sys.stdout.flush()
    except BrokenPipeError:
        # Whoever read it has seen enough; what was done is done, and ended as it did.
        lose_output(sys.stdout, sys.stderr)


def _witnessed(settings: Settings) -> AbstractContextManager[None]:
    if not settings.verbose:
        return nullcontext()
    from envbuilder import variables
    from envbuilder.process import witnessed

    if names := variables.left_out(os.environ):
        click.echo(visible(f"# not passed to uv, git and builds: {' '.join(names)}", line=True), err=True)
    # One write a line: several threads start programs.
    return witnessed(lambda line: click.echo(f"$ {visible(line)}", err=True), ends=settings.verbose > 1)


plugins_argument = click.argument("plugins", nargs=-1, metavar="[PLUGIN]...", shell_complete=words.plugins)
plugin_argument = click.argument("plugin", shell_complete=words.plugins)
offline_option = click.option("--offline", is_flag=True, envvar="UV_OFFLINE", help="Touch no network.")


def plain(outcome: PluginOutcome) -> dict[str, object]:
    """A plugin's outcome as the JSON envelope holds it."""
    return {
        "plugin": outcome.plugin,
        "state": outcome.state,
        "seconds": round(outcome.seconds, 3),
        "detail": outcome.detail or None,
    }


def summary(outcomes: Sequence[PluginOutcome], where: str) -> str:
    """How many plugins ended in which state."""
    counts: dict[str, int] = {}
    for outcome in outcomes:
        counts[outcome.state] = counts.get(outcome.state, 0) + 1
    return f"{', '.join(f'{count} {state}' for state, count in counts.items()) or 'nothing to do'}: {where}"
