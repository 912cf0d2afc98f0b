"""`add`: an entry for a package that is there already, after a look at it."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from envbuilder.cli.base import Open, Settings, common
from envbuilder.errors import ConfigError, Problem, UsageError, visible

if TYPE_CHECKING:
    from envbuilder.lock.proposals import Proposal
    from envbuilder.models import Entry
    from envbuilder.render import Outcome

_STAGES = ("inference", "eval", "report")


@dataclass(frozen=True)
class _Wish:
    """What somebody wants to add: its name, the keys of its source as a registry file has them, other options."""

    name: str
    source: Mapping[str, object]
    given: tuple[str, ...] = ()

    def command(self, *more: str, name: str | None = None, **source: str) -> str:
        """The command that wishes so, with other words where given."""
        options = {key: str(value) for key, value in {**self.source, **source}.items() if key != "lfs"}
        if "pypi" in options:
            options["pypi"] = f"{name or self.name}{options['pypi']}"
        words = [
            "envbuilder",
            "add",
            name or self.name,
            *(w for key, value in options.items() for w in (f"--{key}", value)),
        ]
        return shlex.join([*words, *self.given, *more])


@click.command()
@click.argument("name", required=False)
@click.option("--git", "url", metavar="URL", help="Its repository; with --tag, or --rev.")
@click.option("--tag", help="The tag to pin.")
@click.option("--rev", metavar="COMMIT", help="The commit to pin, in place of a tag: 40 hexadecimal digits.")
@click.option("--subdirectory", metavar="DIR", help="Where in the repository the package is.")
@click.option("--pypi", metavar="NAME==VERSION", help="A release on the package index.")
@click.option("--path", metavar="DIR", type=click.Path(path_type=Path), help="A folder of the workspace; for dev.")
@click.option("--stage", type=click.Choice(_STAGES), help="What it does in a run; asked for on a terminal.")
@click.option("--entry", "point", metavar="MODULE:CLASS", help="The plugin's class; asked for on a terminal.")
@click.option("--library", is_flag=True, help="No plugin, but a package that plugins depend on.")
@common
def add(  # noqa: PLR0913 - one parameter for each option
    settings: Settings,
    name: str | None,
    url: str | None,
    tag: str | None,
    rev: str | None,
    subdirectory: str | None,
    pypi: str | None,
    path: Path | None,
    stage: str | None,
    point: str | None,
    library: bool,
) -> Outcome:
    """Write the registry entry of a package that is there already, after reading what it declares.

    Nothing is written where `check` would refuse it: another name, a tag that is not there, a core that it does not fit.
    A folder becomes an entry and an overlay for dev; `check` refuses it in prod until it has a repository and a tag.
    """
    here = settings.open()
    git = {"git": url, "tag": tag, "rev": rev, "subdirectory": subdirectory}
    wish = _wish(here, name, {key: value for key, value in git.items() if value is not None}, pypi, path)
    told = {"--stage": stage, "--entry": point}
    given = [word for option, value in told.items() if value for word in (option, value)]
    wish = replace(wish, given=(*given, *(["--library"] if library else [])))
    file = here.workspace.root / "profiles" / "registry" / f"{wish.name}.yaml"
    if here.registry.get(wish.name) is not None or file.exists():
        shown = here.workspace.show(file)
        message = f"{wish.name} is in the registry already"
        raise UsageError(message, code="exists", where=shown, hint=f"${{EDITOR:-vi}} {shlex.quote(shown)}")
    from envbuilder.config import read_profile
    from envbuilder.lock.proposals import judge

    profile = read_profile(here.workspace, "dev" if "path" in wish.source else "prod")
    entry = _entry(here, {"name": wish.name, "kind": "library", "source": wish.source})
    proposal = judge(here.workspace, profile, entry, {each.name for each in here.registry.entries})
    if any(problem.code == "lfs-pointer" for problem in proposal.problems):
        # What a package keeps in Git LFS it needs.
        wish = replace(wish, source={**wish.source, "lfs": True})
        proposal = replace(proposal, problems=tuple(p for p in proposal.problems if p.code != "lfs-pointer"))
    problems = _told(wish, proposal)
    if any(problem.severity == "error" for problem in problems):
        return _outcome(here, wish, proposal, [], problems)
    keys: dict[str, object] = (
        {"name": wish.name, "kind": "library"} if library else _keys(settings, wish, proposal, stage, point)
    )
    return _outcome(here, wish, proposal, _written(here, wish, keys), problems)


def _wish(here: Open, name: str | None, git: dict[str, str], pypi: str | None, folder: Path | None) -> _Wish:
    """What is wished for, by the options.

    Raises:
        UsageError: not exactly one source, or none that can be.
    """
    from packaging.utils import canonicalize_name

    given = [option for option, value in (("--git", git.get("git")), ("--pypi", pypi), ("--path", folder)) if value]
    usage = "envbuilder add NAME --git URL --tag TAG  # or --pypi NAME==VERSION, or --path DIR"
    if len(given) != 1:
        found = " and ".join(given) or "none"
        raise UsageError(f"expected one of --git, --pypi and --path; found {found}", hint=usage)
    if git and "git" not in git:
        raise UsageError(f"--{next(iter(git))} belongs to --git, not to {given[0]}", hint=usage)
    if pypi is not None:
        found, mark, version = pypi.partition("==")
        if not mark or not version or not (found or name):
            raise UsageError(f"--pypi {pypi}: expected an exact release, NAME==VERSION", hint=usage)
        if found and name and canonicalize_name(found.strip()) != canonicalize_name(name):
            raise UsageError(f"--pypi names {found}, and the entry is to be {name}", hint=usage)
        return _Wish(str(canonicalize_name(name or found.strip())), {"pypi": f"=={version.strip()}"})
    if folder is not None:
        path = _inside(here, folder)
        return _Wish(str(canonicalize_name(name or path.name)), {"path": path.as_posix()})
    if ("tag" in git) == ("rev" in git):
        raise UsageError("--git needs either --tag or --rev; a branch is for dev, in an overlay", hint=usage)
    last = git["git"].rstrip("/").rpartition("/")[2].removesuffix(".git")
    return _Wish(str(canonicalize_name(name or git.get("subdirectory", last).rpartition("/")[2] or last)), git)


def _inside(here: Open, folder: Path) -> Path:
    root = here.workspace.root
    path = (folder if folder.is_dir() else root / folder).resolve()
    if not path.is_relative_to(root) or path == root:
        message = f"--path {folder}: expected a folder in the workspace {root}, which a registry can name"
        raise UsageError(message, hint=f"git clone {shlex.quote(str(folder))} {root}/packages/")
    if not path.is_dir():
        raise UsageError(f"--path {folder}: no such folder", hint=f"ls {shlex.quote(str(folder.parent))}")
    return path.relative_to(root)


def _entry(here: Open, keys: dict[str, object]) -> Entry:
    """The entry that a file of those keys would be.

    Raises:
        ConfigError: it would be refused.
    """
    from envbuilder import registry, templates
    from envbuilder.documents import parse_yaml

    shown = f"profiles/registry/{keys['name']}.yaml"
    try:
        found = registry.parse([(parse_yaml(templates.entry_text(keys), shown), None)], here.profile.torch_backends)
    except ConfigError as error:
        problems = [replace(each, where=None, hint="envbuilder add --help") for each in error.problems]
        raise ConfigError(problems) from error
    return found.entries[0]


def _told(wish: _Wish, proposal: Proposal) -> list[Problem]:
    """What is wrong, in words for who asked: no file is there yet that could be edited."""
    hints = {}
    if better := proposal.better:
        tagged = wish.command(tag=better) if "tag" in wish.source else None
        hints = {
            "tag-missing": tagged,
            "core-incompatible": tagged,
            "name-mismatch": wish.command(name=better),
            "release-missing": wish.command(pypi=f"=={better.partition('==')[2]}"),
        }
    others = "git ls-remote --tags " + shlex.quote(str(wish.source["git"])) if "git" in wish.source else wish.command()
    return [
        replace(
            problem, where=f"--{next(iter(wish.source))}", hint=hints.get(problem.code) or _runnable(problem, others)
        )
        for problem in proposal.problems
    ]


def _runnable(problem: Problem, otherwise: str) -> str:
    hint = problem.hint or otherwise
    return otherwise if hint.startswith(("${EDITOR", "sed ")) else hint


def _keys(
    settings: Settings, wish: _Wish, proposal: Proposal, stage: str | None, point: str | None
) -> dict[str, object]:
    """Name, stage and entry point; what is not given is asked for on a terminal.

    Raises:
        UsageError: something is missing, and nobody is there to be asked.
    """
    points = [each for each in proposal.points if stage in {None, each[1]} and point in {None, each[0]}]
    if stage is None or point is None:
        if settings.output != "text" or not sys.stdin.isatty():
            raise _missing(wish, stage, point, points)
        for name, found in points:
            click.echo(visible(f"found: {name} ({found})", line=True), err=True)
        first = points[0] if points else (None, None)
        if stage is None:
            stage = click.prompt("stage", type=click.Choice(_STAGES), default=first[1], err=True)
        if point is None:
            fitting = next((name for name, found in points if found == stage), None)
            point = click.prompt("entry, as module:Class", default=fitting, err=True)
    return {"name": wish.name, "stage": stage, "entry": point}


def _missing(wish: _Wish, stage: str | None, point: str | None, points: Sequence[tuple[str, str]]) -> UsageError:
    lacking = " and ".join(option for option, value in (("--stage", stage), ("--entry", point)) if value is None)
    found = f"; found in its code: {', '.join(f'{name} ({of})' for name, of in points[:4])}" if points else ""
    name, of = points[0] if points else (f"{wish.name.replace('-', '_')}:CLASS", "inference")
    more = [*(() if stage else ("--stage", of)), *(() if point else ("--entry", name))]
    hint = wish.command(*more)
    return UsageError(f"{lacking} required where no terminal is there to ask on{found}", hint=hint)


def _written(here: Open, wish: _Wish, keys: dict[str, object]) -> list[str]:
    """Write the entry, and for a folder its overlay; the paths."""
    from envbuilder import templates
    from envbuilder.fs import write_atomically

    keys = {**keys, "source": wish.source}
    _entry(here, keys)
    folder = "profiles/registry"
    remarks = templates.UNRELEASED if "path" in wish.source else ()
    files = {f"{folder}/{wish.name}.yaml": templates.entry_text(keys, remarks)}
    if "path" in wish.source:
        overlay = templates.entry_text({"source": wish.source}, schema="overlay")
        files[f"{folder}/{wish.name}.dev.yaml"] = overlay
    for path, text in files.items():
        write_atomically(here.workspace.root / path, here.without_schema(text))
    return list(files)


def _outcome(
    here: Open, wish: _Wish, proposal: Proposal, written: Sequence[str], problems: Sequence[Problem]
) -> Outcome:
    from envbuilder.render import Outcome

    declared = proposal.declared
    result = {
        "entry": wish.name,
        "source": wish.source,
        "version": declared.version if declared else None,
        "commit": proposal.commit,
        "written": list(written),
    }
    profile = "dev" if "path" in wish.source else "prod"
    step = "check" if "--library" in wish.given else f"lock --profile {profile} {wish.name}"
    version = f" {declared.version}" if declared and declared.version else ""
    text = (f"{written[0]}: {wish.name}{version}", f"next: envbuilder {step}") if written else ()
    return Outcome("add", here.profile.name, result=result, problems=tuple(problems), text=text)
