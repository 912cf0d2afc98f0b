"""Packages that the base interpreter supplies: which versions it has, and whether an environment sees just these."""

from __future__ import annotations

import shlex
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from envbuilder import process
from envbuilder.compat import accepts
from envbuilder.errors import Problem, SeveralProblems, ToolError

# Isolated: what stands in the current folder, or in a person's own packages, is no part of the answer. Nor is bytecode
# written, least of all beside the base interpreter's packages.
_FLAGS = ("-I", "-B", "-c")
_ASK = """
import importlib.metadata, json, os, sys
found = {}
for name in sys.argv[1:]:
    try:
        each = importlib.metadata.distribution(name)
        found[name] = [each.version, os.path.realpath(each.locate_file(""))]
    except importlib.metadata.PackageNotFoundError:
        pass
print(json.dumps([found, [path for path in sys.path if os.path.isdir(path)]]))
"""


class ProvidedError(SeveralProblems):
    """The base interpreter does not have what an entry leaves to it."""

    code = "provided-missing"


@dataclass(frozen=True)
class Supply:
    """What an interpreter sees: `versions` of the wanted packages, and the `folders` that it looks into."""

    versions: Mapping[str, str]
    folders: tuple[Path, ...]


def supply(python: Path, wanted: Mapping[str, str], where: str) -> Supply:
    """What a base interpreter has of the packages that are left to it.

    Args:
        python: the interpreter.
        wanted: distributions, each with its specifier.
        where: where the entry says so.

    Raises:
        ProvidedError: one is missing, or another version is there.
    """
    found, folders = _ask(python, wanted)
    if problems := list(_lacking(python, wanted, found, where)):
        raise ProvidedError(problems)
    return Supply({name: found[name][0] for name in sorted(wanted)}, folders)


def prove(environment: Path, wanted: Mapping[str, str], installed: Collection[str], where: str) -> None:
    """Whether an environment sees what the base supplies, and its own packages before the base's.

    Args:
        environment: a virtual environment that is open to its base interpreter's packages.
        wanted: distributions that the base supplies, each with its specifier.
        installed: distributions in the environment itself.
        where: where the entry says so.

    Raises:
        ProvidedError: it does not.
    """
    python = environment / "bin" / "python"
    found, _ = _ask(python, [*wanted, *installed])
    problems = list(_lacking(python, wanted, found, where))
    own = environment.resolve()
    for name in sorted(installed):
        version, folder = found.get(name, ("", Path()))
        if not folder.is_relative_to(own):
            message = f"{name} {version} of {folder} comes before the locked one: the base interpreter puts it first"
            problems.append(
                Problem("provided-shadows", message, where=where, hint=f"ls {shlex.quote(str(folder))}/*.pth")
            )
    if problems:
        raise ProvidedError(problems)


def _ask(python: Path, names: Collection[str]) -> tuple[dict[str, tuple[str, Path]], tuple[Path, ...]]:
    done = process.run([python, *_FLAGS, _ASK, *names], timeout_s=120)
    told = process.told(done)
    if not isinstance(told, list):
        hint = f"{shlex.quote(str(python))} -c 'import importlib.metadata'"
        words = (done.stderr.strip() or done.stdout.strip())[-200:]
        raise ToolError(f"{python} does not tell its packages: {words or 'it printed nothing'}", hint=hint)
    found, folders = told
    return {name: (version, Path(folder)) for name, (version, folder) in found.items()}, tuple(map(Path, folders))


def _lacking(
    python: Path, wanted: Mapping[str, str], found: Mapping[str, tuple[str, Path]], where: str
) -> Iterator[Problem]:
    for name, specifier in sorted(wanted.items()):
        hint = f"{shlex.quote(str(python))} -m pip install {shlex.quote(name + specifier)}"
        if name not in found:
            message = f"provided {name}{specifier} is not there: {python} has no {name}"
            yield Problem("provided-missing", message, where=where, hint=hint)
        elif not accepts(specifier, found[name][0]):
            message = f"provided {name}{specifier} is not what is there: {python} has {name} {found[name][0]}"
            yield Problem("provided-mismatch", message, where=where, hint=hint)
