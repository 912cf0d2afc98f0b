"""Which commands there are, in the order in which they are used; each is imported when it is needed."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO, cast

import click

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

# By section: the command, the module here and the name in it, and what the overview says of it.
SECTIONS: Mapping[str, Mapping[str, tuple[str, str]]] = {
    "Start": {
        "init": ("starting:init", "Make a folder a workspace."),
        "new": ("starting:new", "Make a plugin: package, tests, registry entry."),
        "add": ("adding:add", "Write the registry entry of a package that is there."),
    },
    "Lock and check": {
        "lock": ("locks:lock", "Write one uv.lock per plugin, and pins.toml."),
        "check": ("locks:check", "Prove that pins, locks, core and Pythons fit together."),
        "outdated": ("outdated:outdated", "Show newer tags and releases, and which of them fit."),
        "diff": ("comparing:diff", "Compare locks: of profiles, commits, generations, runs."),
        "why": ("inquiry:why", "Show who asks for a package, through whom."),
        "sbom": ("supply:sbom", "Write bills of materials."),
        "audit": ("supply:audit", "Look for known vulnerabilities."),
    },
    "Build": {
        "build": ("environments:build", "Make every environment what its lock says."),
        "status": ("environments:status", "Show which environments there are."),
        "path": ("environments:path", "Print where a plugin's environment is."),
        "exec": ("environments:execute", "Run a command in a plugin's environment."),
        "bundle": ("bundles:bundle", "Take builds to machines without a network."),
    },
    "Develop": {
        "dev": ("developing:dev", "Work on plugins as checkouts; and back."),
        "test": ("testing:test", "Run packages' own tests: of checkouts, or of tags."),
        "release": ("releasing:release", "Tag and push a plugin, and pin it for prod."),
        "matrix": ("matrix:matrix", "Print what CI can test."),
    },
    "Run": {
        "run": ("runs:run", "Run a run file, from inference to report."),
        "plan": ("runs:plan", "Show what a run would do, and why."),
        "resume": ("runs:resume", "Go on with a run that did not come to its end."),
        "runs": ("runs:runs", "Look at runs that were made."),
    },
    "Look after": {
        "verify": ("store:verify", "Compare environments with their seals."),
        "generations": ("store:generations", "List the sets of environments there were."),
        "rollback": ("store:rollback", "Go back to an earlier generation."),
        "gc": ("store:gc", "Remove what nothing uses any more."),
        "doctor": ("doctor:doctor", "Look at tools, machine and state; with remedies."),
        "completion": ("completing:completion", "Print what makes a shell complete words."),
    },
}


def shared_options(formats: Sequence[str] = ()) -> list[Callable[[Callable[..., None]], Callable[..., None]]]:
    """The options that every command has, as decorators in the order of its help.

    Args:
        formats: further choices of its `--format`.
    """
    return [
        click.option(
            "--profile",
            type=click.Choice(["dev", "prod"]),
            envvar="RUN_MODE",
            default="prod",
            show_default="$RUN_MODE, else prod",
            help="Which sources and settings hold.",
        ),
        click.option(
            "-C",
            "--workspace",
            "folder",
            type=click.Path(path_type=Path),
            default=Path(),
            help="The workspace, or a folder in it.",
        ),
        click.option(
            "--format",
            "output",
            type=click.Choice(["text", "json", *formats]),
            default="text",
            help="For people or tools.",
        ),
        click.option("-q", "--quiet", is_flag=True, help="Only problems."),
        click.option("-v", "--verbose", count=True, help="Show the uv and git commands; -vv also how each ended."),
    ]


def _options_before() -> list[click.Option]:
    """The same options for a group: they may stand before the command's name, too."""
    kept: dict[str, Any] = {"expose_value": False, "callback": _note}
    return [
        click.Option(["--profile"], type=click.Choice(["dev", "prod"]), hidden=True, **kept),
        click.Option(["-C", "--workspace", "folder"], type=click.Path(path_type=Path), hidden=True, **kept),
        click.Option(["--format", "output"], type=click.Choice(["text", "json"]), hidden=True, **kept),
        click.Option(["-q", "--quiet"], is_flag=True, hidden=True, **kept),
        click.Option(["-v", "--verbose"], count=True, hidden=True, **kept),
    ]


def _note(context: click.Context, option: click.Parameter, value: object) -> None:
    if value:
        context.meta[f"{__name__}.{option.name}"] = value


def said_before(context: click.Context) -> dict[str, Any]:
    """The common options that stand before the command's name."""
    return {name.rpartition(".")[2]: value for name, value in context.meta.items() if name.startswith(f"{__name__}.")}


def lose_output(*streams: TextIO) -> None:
    """Let what is still to be printed go nowhere, so that the interpreter's end does not stumble over it."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for stream in streams:
        with contextlib.suppress(OSError, ValueError):  # What is closed is nothing to stumble over.
            os.dup2(nowhere, stream.fileno())


class Overview(click.Group):
    """All commands: `--help` shows them by section and imports none; the one that is called is imported alone."""

    def __init__(self, **settings: object):
        super().__init__(**settings)  # type: ignore[arg-type]  # click's own, handed on
        self.params += _options_before()
        self._places: dict[str, str] = {}
        for section in SECTIONS.values():
            for name, (place, words) in section.items():
                self._places[name] = place
                self.commands[name] = click.Command(name, short_help=words)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002 - click's own
        """The command of that name."""
        if place := self._places.pop(cmd_name, None):
            module, _, attribute = place.partition(":")
            command = cast("click.Command", getattr(import_module(f"envbuilder.cli.{module}"), attribute))
            command.short_help = self.commands[cmd_name].short_help
            if isinstance(command, click.Group):
                command.params += _options_before()
            _dress(command, cmd_name)
            self.commands[cmd_name] = command
        return self.commands.get(cmd_name)

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's own
        """All names, in the order of the sections."""
        return [name for section in SECTIONS.values() for name in section]

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002 - click's own
        """Write the overview."""
        widest = max(map(len, self.commands))
        for title, section in SECTIONS.items():
            with formatter.section(title):
                formatter.write_dl([(f"{name:{widest}}", words) for name, (_, words) in section.items()])

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """Names and options that begin so."""
        from click.shell_completion import CompletionItem

        names = [
            CompletionItem(name, help=words)
            for section in SECTIONS.values()
            for name, (_, words) in section.items()
            if name.startswith(incomplete)
        ]
        return [*names, *click.Command.shell_complete(self, ctx, incomplete)]


_COMMON = {"--profile", "--workspace", "--format", "--quiet", "--verbose", "--help"}

# Longer examples do not push the others' remarks to the right.
_ALIGNED = 45


def _dress(command: click.Command, name: str) -> None:
    """Give a command's help its sections and examples; a group's commands, too."""
    from envbuilder.cli.examples import EXAMPLES

    if isinstance(command, click.Group):
        for inner, child in command.commands.items():
            _dress(child, f"{name} {inner}")
    else:
        command.format_options = partial(_in_sections, command)  # type: ignore[method-assign]  # for every command's class
    if lines := EXAMPLES.get(name):
        widest = max((len(line) for line, _ in lines if len(line) <= _ALIGNED), default=0)
        shown = "\n".join(f"  {line:{widest}}  {'# ' + words if words else ''}".rstrip() for line, words in lines)
        command.epilog = f"\b\nExamples:\n{shown}"


def _in_sections(command: click.Command, ctx: click.Context, formatter: click.HelpFormatter) -> None:
    """Write a command's own options, then those that every command has."""
    options = [param for param in command.get_params(ctx) if isinstance(param, click.Option)]
    for title, is_common in (("Options", False), ("Options of every command", True)):
        chosen = (option for option in options if bool(_COMMON.intersection(option.opts)) is is_common)
        if records := [record for option in chosen if (record := option.get_help_record(ctx))]:
            with formatter.section(title):
                formatter.write_dl(records)
