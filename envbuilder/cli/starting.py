"""`init` and `new`: a workspace, and plugins in it, that work at once."""

from __future__ import annotations

import keyword
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import click

from envbuilder.cli.base import Open, Settings, common
from envbuilder.errors import UsageError, counted
from envbuilder.places import refuse_unusable

if TYPE_CHECKING:
    from envbuilder.render import Outcome
    from envbuilder.templates import NewPlugin

_STAGES = click.Choice(["inference", "eval", "report"])


@click.command()
@click.argument("directory", required=False, default=".", type=click.Path(path_type=Path), metavar="[DIR]")
@common
def init(settings: Settings, directory: Path) -> Outcome:
    """Make DIR, by default this folder, a workspace: settings, two profiles, a registry, JSON Schemas for editors.

    What is there is not overwritten. A pyproject.toml gets our table, and keeps its comments and order.
    """
    from datetime import datetime, timezone

    from envbuilder.cli import schemas
    from envbuilder.render import Outcome
    from envbuilder.templates import workspace_files

    root = (settings.folder / directory).resolve()
    refuse_unusable(root, "the folder's path", "mkdir benchmarks && envbuilder init benchmarks")
    python = f"{sys.version_info.major}.{sys.version_info.minor}"
    files = workspace_files(python, datetime.now(timezone.utc).strftime("%Y-%m-%d"))
    files |= {f"profiles/schemas/{name}": text for name, text in schemas.texts().items()}
    project = root / "pyproject.toml"
    if project.exists():
        files["pyproject.toml"] = _with_settings(project, files["pyproject.toml"])
    if (root / ".gitignore").exists():
        del files[".gitignore"]  # Our state folder keeps itself from git.
    _refuse_overwriting(root, files.keys() - {"pyproject.toml"})
    _write(root, files)
    steps = ("envbuilder new NAME --stage inference", "envbuilder add NAME --git URL --tag TAG")
    inside = "" if root == Path.cwd() else f"cd {_shown(root)} && "
    return Outcome(
        "init",
        settings.profile,
        result={"workspace": str(root), "written": sorted(files)},
        text=(
            f"{_shown(root)} is a workspace now; {counted(len(files), 'file was', 'files were')} written",
            *(f"next: {inside}{step}" for step in steps),
        ),
    )


def _with_settings(project: Path, ours: str) -> str:
    """A pyproject.toml with our table.

    Raises:
        UsageError: it has one.
        ConfigError: it is no TOML.
    """
    import tomlkit

    from envbuilder.documents import read_toml, subtree
    from envbuilder.editing import set_in_toml

    shown = _shown(project)
    if subtree(read_toml(project, shown), ("tool", "envbuilder")).value is not None:
        message = f"{_shown(project.parent)} is a workspace already"
        hint = f"envbuilder check -C {_shown(project.parent)}"
        raise UsageError(message, where=shown, code="exists", hint=hint)
    table = tomlkit.table()
    for line in ours.partition("[tool.envbuilder]\n")[2].splitlines():
        table.add(tomlkit.comment(line.removeprefix("# ")) if line else tomlkit.nl())
    # As bytes stand there: line ends of Windows stay.
    return set_in_toml(project.read_bytes().decode(), ("tool", "envbuilder"), table, shown)


@click.command()
@click.argument("name")
@click.option("--stage", type=_STAGES, required=True, help="What it does in a run.")
@click.option(
    "--git", "url", metavar="URL", help="The repository that it will have; prod then waits for its tag v0.1.0."
)
@common
def new(settings: Settings, name: str, stage: str, url: str | None) -> Outcome:
    """Make a plugin: a package in packages/NAME that passes its own tests, its registry entry and overlay.

    Dev takes the checkout, editable. `check` refuses it in prod until it has a repository and a tag. An inference plugin
    gets a run file and a small data set, too.
    """
    from envbuilder import registry, templates
    from envbuilder.documents import parse_yaml
    from envbuilder.render import Outcome

    here = settings.open()
    plugin = _named(here, name, stage)
    package = f"packages/{plugin.name}"
    base = f"profiles/registry/{plugin.name}.yaml"
    source = {"git": url, "tag": "v0.1.0"} if url else {"path": package}
    keys = {"name": plugin.name, "stage": stage, "entry": plugin.entry, "source": source}
    remarks = ("Prod waits for this tag.",) if url else templates.UNRELEASED
    files = {f"{package}/{path}": text for path, text in templates.package_files(plugin).items()}
    files[base] = templates.entry_text(keys, remarks)
    overlay = ("Dev takes the checkout, whatever the base entry names.",)
    files[f"profiles/registry/{plugin.name}.dev.yaml"] = templates.entry_text(
        {"source": {"path": package}}, overlay, schema="overlay"
    )
    files |= templates.run_files(plugin)
    registry.parse([(parse_yaml(files[base], base), None)])
    _refuse_overwriting(here.workspace.root, [package, *files])
    _write(here.workspace.root, {path: here.without_schema(text) for path, text in files.items()})
    return Outcome(
        "new",
        here.profile.name,
        result={"plugin": plugin.name, "package": package, "entry": plugin.entry, "written": sorted(files)},
        text=(
            f"{package}: a plugin for {stage}, {plugin.entry}",
            f"next: cd {package} && uv run pytest",
            *_first_run(plugin),
            f"for prod: push it to {url} with the tag v0.1.0, then envbuilder lock"
            if url
            else f"for prod: name its repository and tag in {base}",
        ),
    )


def _first_run(plugin: NewPlugin) -> Iterable[str]:
    if plugin.stage == "inference":
        return (f"next: envbuilder run --profile dev profiles/runs/{plugin.name}.yaml",)
    lines = f"{plugin.stage}: [{{plugin: {plugin.name}}}]"
    return (f"next: envbuilder build --profile dev {plugin.name}", f"then, in a run file: {lines}")


def _named(here: Open, name: str, stage: str) -> NewPlugin:
    """The plugin to be.

    Raises:
        UsageError: it cannot have that name.
    """
    from packaging.utils import InvalidName, canonicalize_name

    from envbuilder.compat import python_possible
    from envbuilder.config import python_specifier
    from envbuilder.templates import NewPlugin

    try:
        plain = str(canonicalize_name(name, validate=True))
    except InvalidName as error:
        message = f"{name!r} is no distribution name; expected letters, digits, and -_. between them"
        raise UsageError(message, hint=f"envbuilder new my-plugin --stage {stage}") from error
    wanted = [python_specifier(here.profile.python), ">=3.10"]
    plugin = NewPlugin(plain, stage, ">=3.10" if python_possible(wanted) else ">=3.8")
    module = plugin.module
    if not module.isidentifier() or keyword.iskeyword(module) or module in sys.stdlib_module_names:
        why = "a module of Python's own" if module in sys.stdlib_module_names else "no name of a module"
        hint = f"envbuilder new my-{plain} --stage {stage}"
        raise UsageError(f"{plain} cannot be the name of a plugin: {module} is {why}", hint=hint)
    if plain in here.workspace.core:
        hint = f"envbuilder new my-{plain} --stage {stage}"
        raise UsageError(f"{plain} is the core package of this workspace", where="pyproject.toml", hint=hint)
    return plugin


def _refuse_overwriting(root: Path, paths: Iterable[str]) -> None:
    there = sorted(path for path in paths if (root / path).exists() and not _is_empty(root / path))
    if there:
        message = (
            f"{there[0]} is there already{f', and {len(there) - 1} more' if there[1:] else ''}; nothing was written"
        )
        hint = f"ls -d {' '.join(_shown(root / path) for path in there)}"
        raise UsageError(message, code="exists", where=str(root), hint=hint)


def _is_empty(path: Path) -> bool:
    return path.is_dir() and next(path.iterdir(), None) is None


def _write(root: Path, files: Mapping[str, str]) -> None:
    """Write all files, or none: what was there before comes last, and is changed when nothing else can fail."""
    from envbuilder.errors import EnvbuilderError
    from envbuilder.fs import write_atomically

    written: list[Path] = []
    try:
        for path in sorted(files, key=lambda path: (root / path).exists()):
            write_atomically(root / path, files[path])
            written.append(root / path)
    except EnvbuilderError:
        for file in written:
            file.unlink()
        raise


def _shown(path: Path) -> str:
    import os
    import shlex

    shorter = os.path.relpath(path)
    return shlex.quote(str(path) if shorter.startswith("..") else shorter)
