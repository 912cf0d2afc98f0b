"""An entry that no registry holds yet, judged as `check` would, before it is written."""

from __future__ import annotations

import ast
import os
import tempfile
from collections.abc import Collection, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from packaging.utils import canonicalize_name
from packaging.version import Version

from envbuilder import compat
from envbuilder.documents import parse_toml, subtree
from envbuilder.errors import EnvbuilderError, Problem, nearest
from envbuilder.git import RemoteError
from envbuilder.lock import metadata
from envbuilder.lock.checking import Checker, Question, list_remotes
from envbuilder.lock.newer import listed, metadata_text
from envbuilder.lock.project import Member
from envbuilder.models import Entry, GitSource, Metadata, PathSource, Pins, Profile, PypiSource, Workspace

# By what methods of a class say which stage it is for; the core's protocols.
_STAGES = {"predict": "inference", "predict_on_image": "inference", "evaluate": "eval", "render": "report"}
# Where no plugin's class is looked for, and how many files are read at most.
_ELSEWHERE = {"tests", "test", "docs", "examples", "build", "dist", "site-packages", "node_modules"}
_MOST_FILES = 500
_MOST_BYTES = 1_000_000


@dataclass(frozen=True)
class Proposal:
    """What is known of a package that is to become an entry.

    Attributes:
        problems: what `check` would say of the entry.
        declared: the package's metadata; None where it cannot be read.
        commit: what a git ref is.
        better: a tag, release or name that would do in place of the one that does not.
        points: classes of it that may be the entry point, with their stage.
    """

    problems: tuple[Problem, ...]
    declared: Metadata | None = None
    commit: str | None = None
    better: str | None = None
    points: tuple[tuple[str, str], ...] = ()


def judge(workspace: Workspace, profile: Profile, entry: Entry, registered: Collection[str] = ()) -> Proposal:
    """Ask the remote, the index or the folder what is there, and hold it against entry, core and Python.

    Args:
        workspace, profile: whose indexes, mirrors, core and rules.
        entry: as it is to be.
        registered: the names of the entries that there are.
    """
    checker = Checker(workspace, profile, Pins(), Question())
    if isinstance(entry.source, PypiSource):
        return _release(checker, profile, entry, entry.source)
    listings = list_remotes(checker.sources, [entry.source])
    refs = next(iter(listings.values()), {})
    problems, rows = checker.check_entry(entry, listings)
    if not any(problem.severity == "error" for problem in problems):
        problems += checker.check_python(entry, Problem("lock-missing", "there is no lock yet"))
    try:
        member = checker.sources.member(entry)
    except EnvbuilderError:  # Which is among the problems.
        return Proposal(tuple(problems), better=_nearest_tag(entry, {} if isinstance(refs, RemoteError) else refs))
    problems.extend(_homeless(checker, entry, member, registered))
    better = next((fit.tag for row in rows for fit in row.fits if fit.tag), None)
    if any(problem.code == "name-mismatch" for problem in problems):
        better = member.metadata.name
    commit = member.pin.commit if member.pin else None
    return Proposal(tuple(problems), member.metadata, commit, better, tuple(_points(workspace, checker, entry, commit)))


def _homeless(checker: Checker, entry: Entry, member: Member, registered: Collection[str]) -> Iterator[Problem]:
    """Warnings of what a package needs and takes from a folder beside its own, which is not there for a lock."""
    if not isinstance(entry.source, GitSource) or member.pin is None:
        return
    folder = f"{entry.source.subdirectory}/" if entry.source.subdirectory else ""
    text = checker.sources.repository(entry.source.url).read(member.pin.commit, f"{folder}pyproject.toml")
    sources = subtree(parse_toml(text or "", entry.where), ("tool", "uv", "sources")).value
    for key, source in sources.items() if isinstance(sources, Mapping) else ():
        name = str(canonicalize_name(key))
        needed = compat.requirement_on(name, member.metadata.dependencies or ()) is not None
        beside = isinstance(source, Mapping) and ("path" in source or "workspace" in source)
        if needed and beside and name not in registered:
            place = f"the folder {source['path']}" if "path" in source else "a uv workspace"
            message = f"the package takes {name} from {place}, which a lock cannot; the registry needs an entry for it"
            hint = f"envbuilder add {name} --library --git URL --tag TAG"
            yield Problem("sibling-missing", message, entry.name, hint=hint, severity="warning")


def _nearest_tag(entry: Entry, refs: Mapping[str, object]) -> str | None:
    if not isinstance(entry.source, GitSource) or entry.source.ref_kind != "tag":
        return None
    tags = [ref.removeprefix("refs/tags/") for ref in refs if ref.startswith("refs/tags/")]
    return nearest(entry.source.ref, tags, cutoff=0.4)


def _release(checker: Checker, profile: Profile, entry: Entry, source: PypiSource) -> Proposal:
    version = source.specifier.lstrip("=").strip()
    try:
        files = list(listed(entry.name, profile))
        found = [each for each in files if _same(each.version, version)]
        if not found:
            known = sorted({text for each in files if (text := each.version)}, key=_order)
            near = nearest(version, known, cutoff=0.4) or next(reversed(known), None)
            what = f"has no release {version}; nearest: {near}" if near else "is on none of the profile's indexes"
            problem = Problem("release-missing", f"{entry.name} {what}", entry.name, entry.where)
            return Proposal((problem,), better=f"{entry.name}=={near}" if near else None)
        described = next((each for each in found if each.has_metadata), None)
        declared = metadata.of_text(metadata_text(described, profile)) if described else None
    except EnvbuilderError as error:
        problem = Problem(error.code, error.message, entry.name, error.where, error.hint)
        return Proposal((problem,))
    if declared is None:  # What an index does not tell, the lock does, and `check` after it.
        return Proposal(())
    row = checker.judge.row(entry, declared, {})
    return Proposal(tuple(checker.judge.problems(row, entry, declared)), declared)


def _same(found: str | None, wanted: str) -> bool:
    with suppress(ValueError):
        return Version(found or "") == Version(wanted)
    return False


def _order(text: str) -> tuple[bool, Version]:
    try:
        version = Version(text)
    except ValueError:
        return False, Version("0")
    return not version.is_prerelease, version


def _points(workspace: Workspace, checker: Checker, entry: Entry, commit: str | None) -> Iterator[tuple[str, str]]:
    match entry.source:
        case PathSource(path):
            yield from points(workspace.root / path)
        case GitSource(url=url, subdirectory=subdirectory) if commit:
            with tempfile.TemporaryDirectory(prefix="envbuilder-code-") as folder, suppress(EnvbuilderError):
                checker.sources.checkout(checker.sources.repository(url), commit, Path(folder) / "code")
                yield from points(Path(folder) / "code" / subdirectory)


def points(folder: Path) -> list[tuple[str, str]]:
    """Classes in a package's folder that have a plugin's methods: ``module:Class`` and stage, nothing is imported."""
    root = folder / "src" if (folder / "src").is_dir() else folder
    found = []
    for file in _modules(root):
        parts = file.relative_to(root).with_suffix("").parts
        module = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        shorter = _exported(root / parts[0] / "__init__.py") if len(parts) > 1 else set()
        for name, stage in _classes(file):
            found.append((f"{parts[0] if name in shorter else module}:{name}", stage))
    return sorted(set(found), key=lambda point: (point[0].count("."), point))


def _modules(root: Path) -> Iterator[Path]:
    count = 0
    for at, folders, files in os.walk(root):
        folders[:] = sorted(name for name in folders if name not in _ELSEWHERE and name.isidentifier())
        for name in sorted(files):
            file = Path(at, name)
            if name.endswith(".py") and name != "setup.py" and file.stat().st_size <= _MOST_BYTES:
                count += 1
                if count > _MOST_FILES:
                    return
                yield file


def _parsed(file: Path) -> list[ast.stmt]:
    with suppress(OSError, SyntaxError, ValueError, RecursionError):
        return ast.parse(file.read_bytes()).body
    return []


def _exported(file: Path) -> set[str]:
    """What a package's ``__init__`` imports by name."""
    imports = (node for node in _parsed(file) if isinstance(node, ast.ImportFrom))
    return {alias.name for node in imports for alias in node.names if alias.asname in {None, alias.name}}


def _classes(file: Path) -> Iterator[tuple[str, str]]:
    for node in _parsed(file):
        if not isinstance(node, ast.ClassDef) or node.name.startswith("_"):
            continue
        if any("Protocol" in ast.unparse(base) or ast.unparse(base).endswith("ABC") for base in node.bases):
            continue
        methods = {inner.name for inner in node.body if isinstance(inner, ast.FunctionDef)}
        stage = next((stage for method, stage in _STAGES.items() if method in methods), None)
        if stage and ("load" in methods or "predict_on_image" in methods):
            yield node.name, stage
