"""Where the workspace is and what its files say; reads, and writes nothing."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Annotated, Literal

from packaging.requirements import InvalidRequirement, Requirement
from packaging.specifiers import InvalidSpecifier, SpecifierSet
from packaging.utils import canonicalize_name
from packaging.version import InvalidVersion, Version
from pydantic import AfterValidator, Discriminator, Field, Tag

from envbuilder import accelerators
from envbuilder.documents import Document, Located, read_toml, read_yaml, slashed, subtree, validate
from envbuilder.errors import ConfigError, Problem, UsageError, redacted, remedy
from envbuilder.models import Profile, Workspace
from envbuilder.places import candidates, state_folders

PROFILES = ("prod", "dev")
SOURCE_KINDS = ("git-tag", "git-rev", "pypi-exact", "path", "git-branch", "pypi-range")
_DEFAULT_SOURCES: dict[str, tuple[str, ...]] = {"prod": SOURCE_KINDS[:3], "dev": SOURCE_KINDS}
# Of a Python request that is a bare version: 3, 3.11 or 3.11.7.
_BARE_VERSION = re.compile(r"\d+(\.\d+){0,2}")
_TIME = re.compile(r"\d{4}-\d\d-\d\d(T([01]\d|2[0-3]):[0-5]\d:[0-5]\d(\.\d+)?Z)?", re.ASCII)


def python_specifier(request: str) -> str:
    """A Python request as a specifier: ``3.11`` is ``==3.11.*``, ``3.11.7`` is exact, the rest stays.

    Raises:
        ValueError: it is neither a version nor a specifier.
    """
    text = request.strip()
    if not text:
        raise ValueError("expected a Python version such as 3.11, found nothing")
    if _BARE_VERSION.fullmatch(text):
        return f"=={text}" if text.count(".") == 2 else f"=={text}.*"
    try:
        return str(SpecifierSet(text))
    except InvalidSpecifier as error:
        raise ValueError(
            f"expected a Python version such as 3.11 or a specifier such as >=3.10,<3.13: {error}"
        ) from error


def requirement(text: str) -> str:
    """A requirement from an index, as it is written.

    Raises:
        ValueError: it is none, or names an address.
    """
    try:
        found = Requirement(text)
    except InvalidRequirement as error:
        first = str(error).splitlines()[0]
        raise ValueError(f"expected a requirement such as transformers==4.49.0 ({first})") from error
    if found.url:
        raise ValueError("expected a requirement from the index; for a URL or a path write a registry entry")
    return text


def _version(text: str) -> str:
    try:
        return str(Version(text))
    except InvalidVersion as error:
        raise ValueError(f"expected a version such as 0.2.0 ({error})") from error


def _python(text: str) -> str:
    python_specifier(text)
    return text


PythonRequest = Annotated[str, AfterValidator(_python)]


def _time(text: str) -> str:
    message = "expected a time such as 2026-11-01T00:00:00Z, or a date"
    if not _TIME.fullmatch(text):
        raise ValueError(message)
    try:
        datetime.strptime(text[:10], "%Y-%m-%d")  # noqa: DTZ007 - only whether there is such a day
    except ValueError:
        raise ValueError(message) from None
    # uv takes a bare date for midnight where it runs, which is another moment on another machine.
    return text if "T" in text else f"{text}T00:00:00Z"


def address(text: str) -> str:
    """An address in a file that is committed: it must not tell a password or a token.

    Raises:
        ValueError: it does.
    """
    if redacted(text) != text:
        raise ValueError(
            "expected an address without user, password or token, which would be committed; git's credential helper or "
            "~/.netrc has them, or for an index UV_INDEX_<NAME>_USERNAME and _PASSWORD"
        )
    return text


def _index_address(text: str) -> str:
    if "://" not in text:
        raise ValueError("expected an address: https://…, or a prefix of addresses")
    return address(text)


Address = Annotated[str, AfterValidator(address)]
IndexAddress = Annotated[str, AfterValidator(_index_address)]


def _listed(names: tuple[str, ...]) -> tuple[str, ...]:
    if not names:
        raise ValueError("expected at least one backend, such as default")
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise ValueError(f"each backend once; {twice[0]} stands there twice")
    return names


def _folder_of_indexes(text: str) -> str:
    if not re.match(r"(https?|file)://\S+$", text):
        raise ValueError("expected an address: https://, http:// or file:///")
    return address(text).rstrip("/")


Slashed = Annotated[str, AfterValidator(slashed)]


class CoreFolder(Document):
    """Where to read a core package's version: the folder that holds its ``pyproject.toml``."""

    path: Slashed = Field(description="relative to the workspace")


def _core_form(value: object) -> str:
    return "(folder)" if isinstance(value, dict | CoreFolder) else "(version)"


# One of the two forms is meant, and errors speak of that one alone.
Core = Annotated[
    Annotated[Annotated[str, AfterValidator(_version)], Tag("(version)")] | Annotated[CoreFolder, Tag("(folder)")],
    Discriminator(_core_form),
]


class SettingsDocument(Document):
    """``[tool.envbuilder]`` in the workspace's ``pyproject.toml``."""

    default_run: Slashed | None = Field(default=None, description="the run file that run takes where none is named")
    core: dict[str, Core] = Field(
        default_factory=dict, description="the current core: distribution to version, or to the folder to read it from"
    )
    git_mirrors: dict[Address, Annotated[Address, AfterValidator(slashed)]] = Field(
        default_factory=dict,
        description="prefix of git addresses to where to fetch from: an address, or a folder of repositories or bundles",
    )
    index_mirrors: dict[IndexAddress, IndexAddress] = Field(
        default_factory=dict, description="prefix of index and file addresses, as locks have them, to the mirror's"
    )
    allowed_signers: Slashed | None = Field(
        default=None, description="ssh's allowed signers (ssh-keygen(1)) whose signatures of tags count"
    )
    allowed_keys: Slashed | None = Field(
        default=None, description="a file of GPG keys, or a folder of such, whose signatures of tags count"
    )


class ProfileDocument(Document):
    """``profiles/<profile>/profile.toml``."""

    python: PythonRequest = Field(
        default="3.11", description="the interpreter of every plugin that names none: a version or a specifier"
    )
    sources: tuple[Literal["git-tag", "git-rev", "pypi-exact", "path", "git-branch", "pypi-range"], ...] | None = Field(
        default=None, description="which kinds are allowed; without it the first three in prod, all in dev"
    )
    exclude_newer: Annotated[str, AfterValidator(_time)] | None = Field(
        default=None, description="nothing uploaded later is chosen: a time such as 2026-11-01T00:00:00Z, or a date"
    )
    index_url: Address | None = Field(default=None, description="the package index; without it the public one")
    extra_index_urls: tuple[Address, ...] = Field(default=(), description="further indexes, asked first")
    mirrors: dict[IndexAddress, IndexAddress] = Field(
        default_factory=dict, description="further index-mirrors, over those of the workspace"
    )
    build_constraints: tuple[Annotated[str, AfterValidator(requirement)], ...] = Field(
        default=(), description="versions of what packages are built with, such as setuptools<81"
    )
    torch_backends: Annotated[
        tuple[Annotated[str, AfterValidator(accelerators.backend)], ...], AfterValidator(_listed)
    ] = Field(default=(accelerators.DEFAULT,), description="default, cpu, or cu and a CUDA version, such as cu128")
    torch_index_url: Annotated[Address, AfterValidator(_folder_of_indexes)] = Field(
        default=accelerators.INDEX,
        description="where the backends' indexes are: <address>/cpu, <address>/cu128, …; without it PyTorch's own",
    )
    require_signed_tags: bool = Field(
        default=False, description="check refuses tags that nobody signed whom the workspace allows"
    )
    compile_bytecode: bool = Field(
        default=False, description="compile every module of an environment, not only what its import needs"
    )


def find_workspace(start: Path) -> Workspace:
    """The workspace that holds a folder.

    Raises:
        UsageError: no folder above has a ``pyproject.toml`` with ``[tool.envbuilder]``.
        ConfigError: its settings cannot be used.
    """
    for folder in candidates(start):
        tree = subtree(read_toml(folder / "pyproject.toml", "pyproject.toml"), ("tool", "envbuilder"))
        if tree.value is not None:
            return _workspace(folder, validate(tree, SettingsDocument))
    raise UsageError(
        f"no workspace here: neither {start.resolve()} nor a folder above it has a pyproject.toml with [tool.envbuilder]",
        code="no-workspace",
        hint="envbuilder init",
    )


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
        git_mirrors={canonical_address(key): _mirror(root, value) for key, value in settings.git_mirrors.items()},
        index_mirrors=settings.index_mirrors,
        allowed_signers=root / settings.allowed_signers if settings.allowed_signers else None,
        allowed_keys=root / settings.allowed_keys if settings.allowed_keys else None,
    )


def canonical_address(text: str) -> str:
    """A git address with its scheme and host in small letters, as uv writes and fetches it."""
    scheme, mark, rest = text.partition("://")
    if not mark:
        return text
    host, slash, path = rest.partition("/")
    user, at, name = host.rpartition("@")
    return f"{scheme.lower()}://{user}{at}{name.lower()}{slash}{path}"


def _mirror(root: Path, value: str) -> str:
    # An address stays; anything else is a folder, a repository or a prefix of such, relative to the workspace.
    if "://" in value or re.match(r"[\w.-]+@[\w.-]+:", value):
        return value
    # A Path would drop the trailing slash that a prefix needs.
    return os.path.join(root, os.path.expanduser(value))  # noqa: PTH111, PTH118


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
        sources=document.sources if document.sources is not None else _DEFAULT_SOURCES[name],
        exclude_newer=document.exclude_newer,
        index_url=document.index_url,
        index_mirrors={**workspace.index_mirrors, **document.mirrors},
        extra_index_urls=document.extra_index_urls,
        build_constraints=document.build_constraints,
        require_signed_tags=document.require_signed_tags,
        torch_backends=document.torch_backends,
        torch_index_url=document.torch_index_url,
        compile_bytecode=document.compile_bytecode,
    )


def read_registry(workspace: Workspace, *, overlays: bool) -> Iterator[tuple[Located, Located | None]]:
    """Every base entry with its overlay (None without one, or where overlays do not count), sorted by name.

    Raises:
        ConfigError: files that are no YAML, or an overlay without its base.
    """
    folder = workspace.root / "profiles" / "registry"
    problems: list[Problem] = []
    found: list[tuple[Located, Located | None]] = []
    files = _files(folder, workspace)
    bases = [path for path in files if path.suffix == ".yaml" and not path.name.endswith(".dev.yaml")]
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
        for path in files
        if path.name.endswith(".dev.yaml") and folder / f"{path.name.removesuffix('.dev.yaml')}.yaml" not in bases
    )
    problems.extend(
        Problem(
            "config-invalid",
            "an entry's file ends in .yaml",
            where=workspace.show(path),
            hint=f"mv {workspace.show(path)} {workspace.show(path.with_suffix('.yaml'))}",
        )
        for path in files
        if path.suffix == ".yml"
    )
    if problems:
        raise ConfigError(problems)
    yield from found


def _files(folder: Path, workspace: Workspace) -> list[Path]:
    """What a folder holds, sorted, less what is hidden; nothing where it is not there.

    Raises:
        ConfigError: it is there, and cannot be read: nobody may take that for an empty registry.
    """
    try:
        with os.scandir(folder) as found:
            return sorted(folder / each.name for each in found if not each.name.startswith("."))
    except FileNotFoundError:
        return []
    except OSError as error:
        shown = workspace.show(folder)
        text = f"cannot be read: {error.strerror or error}"
        hint = remedy(error) or f"ls -ld {shown}"
        raise ConfigError([Problem("unreadable", text, where=shown, hint=hint)]) from error


def core_versions(workspace: Workspace) -> dict[str, str]:
    """The current core: distribution to version.

    Raises:
        ConfigError: a core package's folder has no readable, static version.
    """
    versions, problems = readable_core(workspace)
    if problems:
        raise ConfigError(problems)
    return versions


def readable_core(workspace: Workspace) -> tuple[dict[str, str], list[Problem]]:
    """The current core, as far as it can be read, and why the rest cannot."""
    versions: dict[str, str] = {}
    problems: list[Problem] = []
    for name, value in workspace.core.items():
        try:
            versions[name] = (
                value if isinstance(value, str) else _declared_version(name, value / "pyproject.toml", workspace)
            )
        except ConfigError as error:
            problems += error.problems
    return versions, problems


def _declared_version(name: str, file: Path, workspace: Workspace) -> str:
    shown = workspace.show(file)
    try:
        found = subtree(read_toml(file, shown), ("project", "version")).value
        return _version(found if isinstance(found, str) else "")
    except ConfigError as error:
        reason = f"{error.message} at {error.where}"
    except ValueError:
        reason = f"no static [project] version in {shown}"
    message = f"tool.envbuilder.core.{name}: {reason}"
    hint = f"grep -n version {shown}"
    raise ConfigError([Problem("config-invalid", message, where="pyproject.toml", hint=hint)])
