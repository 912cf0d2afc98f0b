"""What `--help` shows, how quickly, and what is said to those who mistype."""

from __future__ import annotations

import shlex
import subprocess
import sys
from collections.abc import Iterator

import click
import pytest
from workshop import Workshop

from envbuilder.cli import cli
from envbuilder.cli.commands import SECTIONS
from envbuilder.cli.examples import EXAMPLES

# What takes its time to import, or is for work that a page of help does not do.
HEAVY = {
    "asyncio",
    "importlib.metadata",
    "multiprocessing",
    "packaging",
    "pydantic",
    "pypi_simple",
    "pynvml",
    "requests",
    "rich",
    "ruamel",
    "subprocess",
    "tempfile",
    "tomlkit",
    "tomllib",
    "tomli",
    "urllib.request",
    "yaml",
}


def every_command() -> Iterator[tuple[str, click.Command]]:
    """All commands with their names, those inside groups too."""
    for section in SECTIONS.values():
        for name in section:
            command = cli.get_command(click.Context(cli), name)
            assert command is not None
            yield name, command
            if isinstance(command, click.Group):
                yield from ((f"{name} {inner}", child) for inner, child in command.commands.items())


def imported(*arguments: str) -> set[str]:
    """The modules that a call of envbuilder imports, as `-X importtime` tells."""
    command = [sys.executable, "-X", "importtime", "-m", "envbuilder", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    lines = (line for line in done.stderr.splitlines() if line.startswith("import time:"))
    return {line.rpartition("|")[2].strip() for line in lines}


def test_overview_imports_nothing_heavy_and_no_command() -> None:
    """`envbuilder --help` costs little more than click: no parser, no schema library, no command's module."""
    modules = imported("--help")
    assert "click.core" in modules
    assert "envbuilder.cli.commands" in modules
    tops = modules | {name.partition(".")[0] for name in modules}
    assert not tops & HEAVY
    ours = {name for name in modules if name.startswith(("envbuilder.", "pipeline"))}
    assert ours <= {"envbuilder.cli", "envbuilder.cli.commands", "envbuilder.errors"}


def test_overview_has_every_command_in_its_section() -> None:
    """The sections stand in the order of the work, each command once, with the module that has it."""
    text = subprocess.run(
        [sys.executable, "-m", "envbuilder", "--help"], capture_output=True, text=True, check=True
    ).stdout
    assert text.startswith("Usage: envbuilder [OPTIONS] COMMAND")
    places = [text.index(f"\n{title}:\n") for title in SECTIONS]
    assert places == sorted(places)
    names = [name for section in SECTIONS.values() for name in section]
    assert len(names) == len(set(names))
    for name, command in every_command():
        assert command.name == name.rpartition(" ")[2]
        assert command.help


@pytest.mark.parametrize(("name", "command"), list(every_command()))
def test_every_command_shows_examples(name: str, command: click.Command) -> None:
    """`envbuilder COMMAND --help` ends with examples of that very command."""
    assert name in EXAMPLES
    shown = command.get_help(click.Context(command, info_name=f"envbuilder {name}"))
    assert "Examples:" in shown
    if not isinstance(command, click.Group):
        own, _, common = shown.partition("Options of every command:")
        assert "--profile" not in own.partition("Options:")[2]
        assert all(option in common for option in ("--profile", "-C", "--format", "-q", "-v", "--help"))
    for line, words in EXAMPLES[name]:
        assert f"envbuilder {name}" in line
        assert line in shown
        assert words in shown


@pytest.mark.parametrize("line", [line for lines in EXAMPLES.values() for line, _ in lines])
def test_examples_are_what_commands_take(line: str) -> None:
    """Every example names options and arguments that the command has."""
    for part in line.replace("$(", "").replace(")", " ; ").replace("&&", ";").replace('"', "").split(";"):
        words = shlex.split(part.partition(" > ")[0].split("/bin/python")[0])
        while words and words[0] != "envbuilder":
            words.pop(0)
        if words:
            take(cli, words[1:])


def take(command: click.Command, words: list[str]) -> None:
    """Parse words as a command does, without a call of it."""
    with command.make_context(command.name, list(words)) as context:
        if isinstance(command, click.Group):
            name, inner, rest = command.resolve_command(context, [*context._protected_args, *context.args])
            assert inner is not None, name
            take(inner, rest)


def test_no_example_is_of_a_command_that_is_not_there() -> None:
    """What is renamed or removed takes its examples along."""
    assert EXAMPLES.keys() == {name for name, _ in every_command()}


@pytest.mark.parametrize(
    ("words", "meant"),
    [
        (["lcok"], "'lock'"),
        (["runs", "shwo"], "'show'"),
        (["lock", "--upgarde"], "'--upgrade'"),
        (["lock", "--profile", "prd"], "'prod'"),
        (["lock", "alhpa"], "nearest plugin: alpha"),
    ],
)
def test_mistyped_words_are_answered_with_what_was_meant(workshop: Workshop, words: list[str], meant: str) -> None:
    """Commands, options, profiles and plugins: exit 2, and the nearest word that there is."""
    workshop.entry("alpha")
    ran = workshop.within(*words)
    assert ran.status == 2
    assert meant in ran.err
    assert "hint: envbuilder" in ran.err


@pytest.mark.parametrize("words", [[], ["runs"]])
def test_no_words_at_all_are_answered_with_help(words: list[str]) -> None:
    """The page itself on stderr, no error's message around it; the exit status says that nothing was done."""
    done = subprocess.run([sys.executable, "-m", "envbuilder", *words], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("Usage: envbuilder")
