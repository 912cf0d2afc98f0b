"""Where the workspace is and what its files say; reads, and writes nothing."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Literal

from packaging.specifiers import InvalidSpecifier, SpecifierSet
from packaging.utils import canonicalize_name
from packaging.version import InvalidVersion, Version
from pydantic import AfterValidator, Field, model_validator

from envbuilder.documents import Document, Located, parse_toml, read_toml, read_yaml, subtree, validate
from envbuilder.errors import ConfigError, Problem, UsageError
from envbuilder.models import Profile, Workspace

PROFILES = ("prod", "dev")
SOURCE_KINDS = ("git-tag", "git-rev", "pypi-exact", "path", "git-branch", "pypi-range")
_PROD_SOURCES = ("git-tag", "git-rev", "pypi-exact")
# Of a Python request that is a bare version: 3, 3.11 or 3.11.7.
_BARE_VERSION = re.compile(r"\d+(\.\d+){0,2}")


def python_specifier(request: str) -> str:
    """A Python request as a specifier: ``3.11`` is ``==3.11.*``, ``3.11.7`` is exact, the rest stays.

    Raises:
        ValueError: it is neither a version nor a specifier.
    """
    text = request.strip()
    if _BARE_VERSION.fullmatch(text):
        return f"=={text}" if text.count(".") == 2 else f"=={text}.*"
    try:
        return str(SpecifierSet(text))
    except InvalidSpecifier as error:
        raise ValueError(
            f"expected a Python version such as 3.11 or a specifier such as >=3.10,<3.13: {error}"
        ) from error


def _version(text: str) -> str:
    try:
        return str(Version(text))
    except InvalidVersion as error:
        raise ValueError(f"expected a version such as 0.2.0 ({error})") from error


def _python(text: str) -> str:
    python_specifier(text)
    return text


class CoreFolder(Document):
    """Where to read a core package's version: the folder that holds its ``pyproject.toml``."""

    path: str


class SettingsDocument(Document):
    """``[tool.envbuilder]`` in the workspace's ``pyproject.toml``."""

    default_run: str | None = None
    core: dict[str, Annotated[str, AfterValidator(_version)] | CoreFolder] = Field(default_factory=dict)
    git_mirrors: dict[str, str] = Field(default_factory=dict)
    index_mirrors: dict[str, str] = Field(default_factory=dict)


class ProfileDocument(Document):
    """``profiles/<profile>/profile.toml``."""

    python: Annotated[str, AfterValidator(_python)] = "3.11"
    sources: tuple[Literal["git-tag", "git-rev", "pypi-exact", "path", "git-branch", "pypi-range"], ...] | None = None
    exclude_newer: str | None = None
    index_url: str | None = None
    extra_index_urls: tuple[str, ...] = ()
    build_constraints: tuple[str, ...] = ()

    @model_validator(mode="after")
    def _check_time(self) -> ProfileDocument:
        if self.exclude_newer and not re.fullmatch(r"\d{4}-\d\d-\d\d(T\d\d:\d\d:\d\d(\.\d+)?Z)?", self.exclude_newer):
            raise ValueError(
                f"exclude-newer: expected a time such as 2026-11-01T00:00:00Z, found {self.exclude_newer!r}"
            )
        return self


def find_workspace(start: Path) -> Workspace:
    """The workspace that holds a folder.

    Raises:
        UsageError: no folder above has a ``pyproject.toml`` with ``[tool.envbuilder]``.
        ConfigError: its settings cannot be used.
    """
    if not start.is_dir():
        raise UsageError(f"no such folder: {start}", hint=f"ls {start.parent}")
    for folder in (start.resolve(), *start.resolve().parents):
        file = folder / "pyproject.toml"
        if file.is_file() and "tool.envbuilder" in _read_quietly(file):
            tree = subtree(read_toml(file, "pyproject.toml"), ("tool", "envbuilder"))
            if tree.value is not None:
                return _workspace(folder, validate(tree, SettingsDocument))
    raise UsageError(
        f"no workspace here: neither {start.resolve()} nor a folder above it has a pyproject.toml with [tool.envbuilder]",
        code="no-workspace",
        hint="printf '[tool.envbuilder]\\n' >> pyproject.toml",
    )


def _read_quietly(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return ""


def _workspace(root: Path, settings: SettingsDocument) -> Workspace:
    shared, own = state_folders(root)
    return Workspace(
        root=root,
        shared=shared,
        own=own,
        default_run=settings.default_run,
        core={
            str(canonicalize_name(name)): value if isinstance(value, str) else root / value.path
            for name, value in settings.core.items()
        },
        git_mirrors={key: _mirror(root, value) for key, value in settings.git_mirrors.items()},
        index_mirrors=settings.index_mirrors,
    )


def _mirror(root: Path, value: str) -> str:
    # An address stays; anything else is a folder, a repository or a prefix of such, relative to the workspace.
    if "://" in value or re.match(r"[\w.-]+@[\w.-]+:", value):
        return value
    return os.path.join(root, value)  # noqa: PTH118 - a Path would drop the trailing slash that a prefix needs


def state_folders(root: Path) -> tuple[Path, Path]:
    """Where state lives: what workspaces may share, and what is this workspace's own."""
    home = os.environ.get("ENVBUILDER_HOME")
    if not home:
        return root / ".envbuilder", root / ".envbuilder"
    shared = Path(home).expanduser().resolve()
    digest = hashlib.sha256(str(root).encode()).hexdigest()[:8]
    return shared, shared / "workspaces" / f"{root.name}-{digest}"


def read_profile(workspace: Workspace, name: str) -> Profile:
    """The profile of that name; defaults where it has no file.

    Raises:
        UsageError: there is no such profile.
        ConfigError: its file cannot be used.
    """
    if name not in PROFILES:
        raise UsageError(f"unknown profile {name!r}; expected dev or prod", hint="envbuilder --profile prod status")
    file = workspace.root / "profiles" / name / "profile.toml"
    shown = workspace.show(file)
    document = validate(read_toml(file, shown) if file.exists() else Located({}, shown), ProfileDocument)
    return Profile(
        name=name,
        python=document.python,
        sources=document.sources or (_PROD_SOURCES if name == "prod" else SOURCE_KINDS),
        exclude_newer=document.exclude_newer,
        index_url=document.index_url,
        extra_index_urls=document.extra_index_urls,
        build_constraints=document.build_constraints,
    )


def read_registry(workspace: Workspace, *, overlays: bool) -> Iterator[tuple[Located, Located | None]]:
    """Every base entry with its overlay (None without one, or where overlays do not count), sorted by name.

    Raises:
        ConfigError: files that are no YAML, or an overlay without its base.
    """
    folder = workspace.root / "profiles" / "registry"
    problems: list[Problem] = []
    found: list[tuple[Located, Located | None]] = []
    bases = sorted(path for path in folder.glob("*.yaml") if not path.name.endswith(".dev.yaml"))
    for base in bases:
        overlay = base.with_name(f"{base.stem}.dev.yaml")
        try:
            over = read_yaml(overlay, workspace.show(overlay)) if overlays and overlay.exists() else None
            found.append((read_yaml(base, workspace.show(base)), over))
        except ConfigError as error:
            problems.extend(error.problems)
    problems.extend(
        Problem(
            "config-invalid",
            f"an overlay needs its base entry {path.name.removesuffix('.dev.yaml')}.yaml, which is not there",
            where=workspace.show(path),
            hint=f"ls {workspace.show(folder)}",
        )
        for path in sorted(folder.glob("*.dev.yaml"))
        if not path.with_name(f"{path.name.removesuffix('.dev.yaml')}.yaml").exists()
    )
    if problems:
        raise ConfigError(problems)
    yield from found


def core_versions(workspace: Workspace) -> dict[str, str]:
    """The current core: distribution to version.

    Raises:
        ConfigError: a core package's folder has no readable, static version.
    """
    versions: dict[str, str] = {}
    for name, value in workspace.core.items():
        if isinstance(value, str):
            versions[name] = value
            continue
        file = value / "pyproject.toml"
        tree = parse_toml(file.read_text(encoding="utf-8"), workspace.show(file)) if file.is_file() else None
        version = (tree.value.get("project") or {}).get("version") if tree else None
        if not isinstance(version, str):
            raise ConfigError(
                [
                    Problem(
                        "config-invalid",
                        f"tool.envbuilder.core.{name}: no static [project] version in {workspace.show(file)}",
                        where="pyproject.toml",
                        hint=f"grep -n version {workspace.show(file)}",
                    )
                ]
            )
        versions[name] = _version(version)
    return versions
