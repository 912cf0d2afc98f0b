"""`matrix`: what CI can test: plugin, Python, torch backend and profile, as far as each is possible."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from envbuilder import accelerators, compat
from envbuilder.config import python_specifier
from envbuilder.documents import parse_toml, read_toml, subtree
from envbuilder.errors import ConfigError, Problem, UsageError
from envbuilder.git import History
from envbuilder.lock.files import lock_folder, read_pins
from envbuilder.lock.locker import Draft
from envbuilder.lock.locking import find_stale
from envbuilder.lock.metadata import MetadataError, static
from envbuilder.lock.project import digest
from envbuilder.models import Entry, GitSource, PathSource, Profile, Registry, Workspace
from envbuilder.workflow.checkout import missing

# Those that checkouts are tested with unless others are asked for: what CPython's core team looks after.
PYTHONS = ("3.10", "3.11", "3.12", "3.13", "3.14")

# What the two services take in one pipeline's matrix.
GITHUB_MOST = 256

# What the jobs of docs/ci/gitlab-cell.yml extend.
_GITLAB_BASE = ".envbuilder-cell"


@dataclass(frozen=True)
class Cell:
    """One job of CI: `test` of a plugin.

    Attributes:
        plugin: the registry entry.
        python: a version such as ``3.11``, or the lock's request.
        torch: the backend that the environment is built with; empty where there is nothing to choose.
        profile: ``dev`` (a checkout) or ``prod`` (what is sealed).
        key: for caches: the same as long as lock, Python and backend are.
    """

    plugin: str
    python: str
    torch: str
    profile: str
    key: str

    @property
    def name(self) -> str:
        """How people read it in a list of jobs."""
        return " ".join(filter(None, (self.plugin, self.profile, f"py{self.python}", self.torch)))

    @property
    def plain(self) -> dict[str, str]:
        """The cell as CI's variables."""
        values = {"plugin": self.plugin, "python": self.python, "torch": self.torch, "profile": self.profile}
        return {"name": self.name, **values, "key": self.key}


@dataclass(frozen=True)
class View:
    """A workspace seen through one profile."""

    workspace: Workspace
    profile: Profile
    registry: Registry


def cells(view: View, entries: Sequence[Entry], pythons: Sequence[str]) -> tuple[list[Cell], list[Problem]]:
    """The cells of some entries in one profile, in an order that stays, and what keeps entries from having any.

    In dev checkouts and branches have cells: what dev takes from a tag is prod's to test.
    """
    found: list[Cell] = []
    absent = [missing(view.workspace, entry) for entry in entries]
    checkouts = [
        entry for entry, gone in zip(entries, absent, strict=True) if isinstance(entry.source, PathSource) and not gone
    ]
    problems: list[Problem] = [problem for problem in absent if problem]
    for entry in checkouts:
        try:
            found += _of_checkout(view, entry, pythons)
        except (ConfigError, MetadataError) as error:
            problems += error.problems
    sealed = [entry for entry in entries if entry.is_plugin and isinstance(entry.source, GitSource)]
    if view.profile.name == "dev":
        sealed = [entry for entry in sealed if entry.source.kind == "git-branch"]
    pins = read_pins(view.workspace, view.profile)
    stale = find_stale(view.workspace, view.profile, view.registry, sealed, pins)
    for entry in sealed:
        draft = stale[entry.name]
        if isinstance(draft, Problem):
            problems.append(draft)
        else:
            found += _of_lock(view, entry, draft)
    return sorted(found, key=order), problems


def order(cell: Cell) -> tuple[str, str, tuple[int, ...], str]:
    """What cells are sorted by."""
    parts = cell.python.split(".")
    version = tuple(map(int, parts)) if all(part.isdigit() for part in parts) else ()
    return cell.plugin, cell.profile, version, cell.torch


def _of_checkout(view: View, entry: Entry, pythons: Sequence[str]) -> Iterator[Cell]:
    package = view.workspace.root / str(getattr(entry.source, "path", ""))
    shown = view.workspace.show(package / "pyproject.toml")
    text = (package / "pyproject.toml").read_text("utf-8") if (package / "pyproject.toml").is_file() else None
    declared = static(text, shown).requires_python
    wanted = [part for part in (declared, entry.python and python_specifier(entry.python)) if part]
    lock = package / "uv.lock"
    facts = lock.read_bytes() if lock.exists() else (text or "").encode()
    for python in pythons:
        if compat.python_possible([*wanted, python_specifier(python)]):
            yield _cell(entry, python, "", view.profile.name, facts)


def _of_lock(view: View, entry: Entry, draft: Draft) -> Iterator[Cell]:
    python = entry.python or view.profile.python
    wanted = [member.pin.requires_python for member in draft.members if member.pin and member.pin.requires_python]
    if not compat.python_possible([*wanted, python_specifier(python)]):
        return
    facts = (lock_folder(view.workspace, view.profile, entry.name) / "uv.lock").read_bytes()
    pinned = entry.torch not in {None, accelerators.AUTO}
    for torch in draft.torch_backends or ("",):
        if not pinned or torch in {entry.torch, ""}:
            yield _cell(entry, python, torch, view.profile.name, facts)


def _cell(entry: Entry, python: str, torch: str, profile: str, facts: bytes) -> Cell:
    mark = digest(b"\0".join([facts, python.encode(), torch.encode()])).removeprefix("sha256:")[:16]
    return Cell(entry.name, python, torch, profile, f"{entry.name}-{profile}-{mark}")


def affected(view: View, revision: str) -> set[str]:
    """The entries whose cells in this profile a change since a revision can affect, uncommitted files included.

    Raises:
        UsageError: the workspace's repository knows no such revision.
    """
    workspace, profile = view.workspace, view.profile
    history = History(workspace.root)
    commit = history.commit(revision)
    if commit is None:
        raise UsageError(
            f"--changed-since: {revision!r} names no commit here",
            code="revision-unknown",
            hint=f"git -C {workspace.root} fetch --unshallow && git -C {workspace.root} rev-parse {revision}",
        )
    files = [PurePosixPath(name) for name in history.changed(commit)]
    everything = {entry.name for entry in view.registry.entries}
    shared = [f"profiles/{profile.name}/profile.toml", *_core_folders(workspace)]
    if any(_within(file, shared) for file in files) or _settings_changed(workspace, history, commit):
        return everything
    changed = {entry.name for entry in view.registry.entries if _concerns(view, entry, files)}
    return changed | _dependents(view, changed)


def _core_folders(workspace: Workspace) -> list[str]:
    return [workspace.show(core) for core in workspace.core.values() if isinstance(core, Path)]


def _within(file: PurePosixPath, places: Iterable[str]) -> bool:
    return any(file.is_relative_to(place) for place in places)


def _settings_changed(workspace: Workspace, history: History, commit: str) -> bool:
    """Whether ``[tool.envbuilder]`` is another than it was: the core, mirrors, whose signatures count."""
    now = subtree(read_toml(workspace.root / "pyproject.toml", "pyproject.toml"), ("tool", "envbuilder")).value
    before = history.texts(commit, ["pyproject.toml"]).get("pyproject.toml")
    return before is None or subtree(parse_toml(before, "pyproject.toml"), ("tool", "envbuilder")).value != now


def _concerns(view: View, entry: Entry, files: Sequence[PurePosixPath]) -> bool:
    registry, profile = "profiles/registry", view.profile.name
    places = [f"{registry}/{entry.name}.yaml", f"profiles/{profile}/{entry.name}"]
    if profile == "dev":
        places.append(f"{registry}/{entry.name}.dev.yaml")
    if isinstance(entry.source, PathSource):
        places.append(entry.source.path)
    return any(_within(file, places) for file in files)


def _dependents(view: View, changed: Collection[str]) -> set[str]:
    """The entries that lead to changed ones through what they declare."""
    wanted = {entry.name: asked(view, entry) for entry in view.registry.entries}
    found = set(changed)
    while more := {name for name, others in wanted.items() if name not in found and found & others}:
        found |= more
    return found


def asked(view: View, entry: Entry) -> set[str]:
    """What an entry's package asks for, its test groups included."""
    lines: list[str] = [*entry.requires]
    if isinstance(entry.source, PathSource):
        file = view.workspace.root / entry.source.path / "pyproject.toml"
        tree = read_toml(file, view.workspace.show(file)).value if file.is_file() else {}
        lines += _texts(tree.get("project", {}).get("dependencies"))
        tables = (tree.get("project", {}).get("optional-dependencies"), tree.get("dependency-groups"))
        lines += [
            line for table in tables if isinstance(table, Mapping) for each in table.values() for line in _texts(each)
        ]
    elif pin := read_pins(view.workspace, view.profile).entries.get(entry.name):
        lines += pin.requires
    return {name for name, _ in compat.requested(lines)}


def _texts(value: object) -> list[str]:
    return [line for line in value if isinstance(line, str)] if isinstance(value, list) else []


def github(found: Sequence[Cell]) -> str:
    """The value of ``strategy.matrix``, on one line, as ``fromJSON`` takes it."""
    return json.dumps({"include": [cell.plain for cell in found]})


def gitlab(found: Sequence[Cell]) -> str:
    """A child pipeline: a job for each cell, which extends what docs/ci/gitlab-cell.yml says."""
    import yaml

    jobs: dict[str, object] = {
        cell.name: {
            "extends": _GITLAB_BASE,
            "variables": {key.upper(): value for key, value in cell.plain.items() if key not in {"name", "key"}},
            "cache": {"key": cell.key, "paths": [".uv-cache"]},
        }
        for cell in found
    }
    # A pipeline without a job is an error there.
    jobs = jobs or {"nothing to test": {"script": ["echo nothing to test"]}}
    return yaml.safe_dump(jobs, sort_keys=False).rstrip()
