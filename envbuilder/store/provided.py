"""Packages that the base interpreter supplies: which versions it has, and whether an environment sees just these."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from packaging.specifiers import SpecifierSet

from envbuilder import process, uv
from envbuilder.compat import accepts
from envbuilder.errors import Problem, SeveralProblems, ToolError
from envbuilder.models import Interpreter

# Isolated: what stands in the current folder, or in a person's own packages, is no part of the answer. Nor is bytecode
# written, least of all beside the base interpreter's packages.
_FLAGS = ("-I", "-B", "-c")
_ASK = """
import importlib.metadata, json, os, site, sys, sysconfig
found = {}
for name in sys.argv[1:]:
    try:
        each = importlib.metadata.distribution(name)
    except importlib.metadata.PackageNotFoundError:
        continue
    found[name] = [each.version, os.path.realpath(each.locate_file("")), sorted({f.parts[0] for f in each.files or ()})]
library = {os.path.realpath(sysconfig.get_path(name)) for name in ("stdlib", "platstdlib")}
library |= {os.path.join(each, "lib-dynload") for each in library}
folders = [path for path in sys.path if os.path.isdir(path)]
print(json.dumps({
    "found": found,
    "folders": folders,
    "others": [path for path in folders if os.path.realpath(path) not in library],
    "sites": [path for path in site.getsitepackages() if os.path.isdir(path)],
    "base": os.path.realpath(getattr(sys, "_base_executable", sys.executable)),
}))
"""


class ProvidedError(SeveralProblems):
    """The base interpreter does not have what an entry leaves to it."""

    code = "provided-missing"


@dataclass(frozen=True)
class Supply:
    """What a base has of the packages that are left to it.

    Attributes:
        versions: of the wanted packages.
        folders: the folders that it looks into.
        interpreter: the one to make environments with; where the base is a virtual environment, the one behind it.
        sites: where the packages of a base that is a virtual environment are; empty where it is none.
    """

    versions: Mapping[str, str]
    folders: tuple[Path, ...]
    interpreter: Interpreter
    sites: tuple[Path, ...] = ()


@dataclass(frozen=True)
class Seen:
    """What an environment sees of its base: the folders of its packages, and the names therein of the wanted ones."""

    folders: tuple[Path, ...]
    names: frozenset[str]


@dataclass(frozen=True)
class _Told:
    """What a Python says: versions, places and top names of distributions, folders, and what it was made with."""

    found: Mapping[str, tuple[str, Path]]
    names: frozenset[str]
    folders: tuple[Path, ...]
    others: tuple[Path, ...]
    sites: tuple[Path, ...]
    base: Path


def supply(interpreter: Interpreter, request: str, wanted: Mapping[str, str], where: str) -> Supply:
    """Return what a base has of the packages that are left to it.

    The base is the interpreter, or a virtual environment on PATH that has all of them: the first of these, as PATH goes.

    Args:
        interpreter: the one that the request leads to.
        request: which versions of Python will do, as a specifier.
        wanted: distributions, each with its specifier.
        where: where the entry says so.

    Raises:
        ProvidedError: one is missing, or another version is there.
    """
    problems: list[Problem] = []
    others = []
    for python in _candidates(interpreter):
        is_environment = python != interpreter.path
        found = uv.identify(python) if is_environment else interpreter
        if not SpecifierSet(request).contains(found.version, prereleases=True):
            continue
        told = _ask(python, wanted)
        lacking = list(_lacking(python, wanted, told.found, where))
        if not lacking:
            versions = {name: told.found[name][0] for name in sorted(wanted)}
            if not is_environment:
                return Supply(versions, told.folders, interpreter)
            return Supply(versions, told.folders, uv.identify(told.base), told.sites)
        if is_environment:
            others.append(str(python))
        else:
            problems = lacking
    if others:
        problems = [replace(each, message=f"{each.message}, nor has {' or '.join(others)}") for each in problems]
    raise ProvidedError(problems)


def _candidates(interpreter: Interpreter) -> list[Path]:
    """Return the interpreter and the Pythons of virtual environments on PATH, in PATH's order; our own comes last."""
    found: list[Path] = []
    own: list[Path] = []
    behind = os.path.realpath(interpreter.path.parent)
    for part in filter(os.path.isabs, os.environ.get("PATH", "").split(os.pathsep)):
        python = Path(part) / "python3"
        if os.path.realpath(part) == behind and interpreter.path not in found:
            found.append(interpreter.path)
        elif (Path(part).parent / "pyvenv.cfg").is_file() and os.access(python, os.X_OK):
            is_own = os.path.realpath(Path(part).parent) == os.path.realpath(sys.prefix)
            (own if is_own else found).append(python)
    return list(dict.fromkeys([*found, interpreter.path, *own]))


def prove(environment: Path, wanted: Mapping[str, str], installed: Collection[str], where: str) -> Seen:
    """Return what an environment sees of its base: what that supplies, after its own packages.

    Args:
        environment: a virtual environment that is open to its base's packages.
        wanted: distributions that the base supplies, each with its specifier.
        installed: distributions in the environment itself.
        where: where the entry says so.

    Raises:
        ProvidedError: it does not.
    """
    python = environment / "bin" / "python"
    told = _ask(python, wanted)
    inner = _ask(python, installed).found
    problems = list(_lacking(python, wanted, told.found, where))
    own = environment.resolve()
    for name in sorted(installed):
        version, folder = inner.get(name, ("", Path()))
        if not folder.is_relative_to(own):
            message = f"{name} {version} of {folder} comes before the locked one: the base interpreter puts it first"
            problems.append(
                Problem("provided-shadows", message, where=where, hint=f"ls {shlex.quote(str(folder))}/*.pth")
            )
    if problems:
        raise ProvidedError(problems)
    return Seen(tuple(each for each in told.others if not each.resolve().is_relative_to(own)), told.names)


def _ask(python: Path, names: Collection[str]) -> _Told:
    done = process.run([python, *_FLAGS, _ASK, *names], timeout_s=120)
    told = process.told(done)
    if not isinstance(told, dict):
        hint = f"{shlex.quote(str(python))} -c 'import importlib.metadata'"
        words = (done.stderr.strip() or done.stdout.strip())[-200:]
        raise ToolError(f"{python} does not tell its packages: {words or 'it printed nothing'}", hint=hint)
    folders, others, sites = (tuple(map(Path, told[key])) for key in ("folders", "others", "sites"))
    return _Told(
        {name: (version, Path(folder)) for name, (version, folder, _) in told["found"].items()},
        frozenset(top for _, _, tops in told["found"].values() for top in tops if not top.startswith("..")),
        folders,
        others,
        sites,
        Path(told["base"]),
    )


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
