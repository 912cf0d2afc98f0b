"""Entries made definite: pins from remotes or from ``pins.toml``, metadata from pins, checkouts or builds."""

from __future__ import annotations

import json
import shlex
import tempfile
import threading
from collections import defaultdict
from pathlib import Path

from envbuilder import uv
from envbuilder.documents import parse_toml
from envbuilder.errors import EnvbuilderError
from envbuilder.git import Repository, Resolved, uv_settings
from envbuilder.lock import metadata
from envbuilder.lock.metadata import MetadataError
from envbuilder.lock.project import Member, digest
from envbuilder.models import Entry, GitSource, Metadata, PathSource, Pin, Pins, Profile, Workspace


class Unpinned(EnvbuilderError):  # noqa: N818 - a state, met where no network may be used
    """A git entry that `pins.toml` does not hold as the registry names it."""

    code = "lock-stale"
    exit_status = 1


class TagError(EnvbuilderError):
    """A ref that is not at the remote, or is not what it was."""

    code = "tag-missing"
    exit_status = 1


class Sources:
    """Resolves entries; each repository is asked by one thread at a time.

    Args:
        workspace: for paths, mirrors and the clones' folder.
        profile: for the interpreter that builds dynamic metadata.
        pins: what was pinned before; reused while the entry names the same ref.
        offline: whether the network is out of bounds.
        frozen: whether only what is pinned already counts.
        repin: whether refs are asked for anew.
    """

    def __init__(
        self,
        workspace: Workspace,
        profile: Profile,
        pins: Pins,
        *,
        offline: bool = False,
        frozen: bool = False,
        repin: bool = False,
    ):
        self._workspace = workspace
        self._profile = profile
        self._pins = pins
        self._offline = offline
        self._frozen = frozen
        self._repin = repin
        self._guards: dict[str, threading.Lock] = defaultdict(threading.Lock)
        self._members: dict[str, Member] = {}
        self._repositories: dict[str, Repository] = {}

    def repository(self, url: str) -> Repository:
        """The clone of an address."""
        if url not in self._repositories:
            clones = self._workspace.shared / "git"
            self._repositories[url] = Repository(url, clones, self._workspace.git_mirrors)
        return self._repositories[url]

    def member(self, entry: Entry) -> Member:
        """The entry with its pin and metadata.

        Raises:
            TagError: its ref is not at the remote, or names another commit than the one pinned.
            RemoteError: the remote cannot be reached.
            MetadataError: what it declares cannot be read.
            Unpinned: it would have to be asked for, and may not be.
        """
        key = entry.source.url if isinstance(entry.source, GitSource) else entry.name
        with self._guards[key]:
            if entry.name not in self._members:
                self._members[entry.name] = self._resolve(entry)
            return self._members[entry.name]

    def _resolve(self, entry: Entry) -> Member:
        match entry.source:
            case GitSource():
                pin = self._pin(entry, entry.source)
                declared = Metadata(pin.name, pin.version, pin.requires_python, pin.requires)
                return Member(entry, declared, pin=pin)
            case PathSource(path):
                return self._path(entry, path)
            case _:
                # What a release declares is in the index; the lock tells, the check reads it there.
                return Member(entry, Metadata(entry.name, None, None, ()))

    def _path(self, entry: Entry, path: str) -> Member:
        file = self._workspace.root / path / "pyproject.toml"
        shown = self._workspace.show(file)
        text = file.read_text(encoding="utf-8", errors="replace") if file.is_file() else None
        if text is None and (self._workspace.root / path / "setup.py").is_file():
            declared = metadata.BUILD_TELLS
        else:
            declared = metadata.static(text, shown)
        if declared.version is None or declared.dependencies is None:
            declared = self._built(self._workspace.root / path, shown, offline=self._offline or self._frozen)
        facts = parse_toml(text or "", shown).value
        return Member(entry, declared, code=digest(json.dumps(facts, sort_keys=True, default=str).encode()))

    def _pin(self, entry: Entry, source: GitSource) -> Pin:
        old = self._pins.entries.get(entry.name)
        known = old is not None and same_place(old, source)
        if known and old is not None and not self._repin:
            return old
        if self._frozen:
            raise Unpinned(f"{source} is not what pins.toml holds", where=entry.where, hint=self._lock_hint())
        repository = self.repository(source.url)
        found = self._found(entry, source, repository)
        declared = self._declared(repository, found.commit, source)
        return Pin(
            url=source.url,
            ref_kind=source.ref_kind,
            ref=source.ref,
            subdirectory=source.subdirectory,
            tag_object=found.object,
            commit=found.commit,
            tree=found.tree,
            name=declared.name or "",
            version=declared.version or "",
            requires_python=declared.requires_python,
            requires=declared.dependencies or (),
        )

    def _found(self, entry: Entry, source: GitSource, repository: Repository) -> Resolved:
        if (known := self._known_elsewhere(source)) and repository.ensure(
            source.ref_kind, source.ref, known.commit, offline=self._offline
        ):
            return Resolved(known.tag_object, known.commit, known.tree)
        found = (repository.resolve if self._offline else repository.fetch)(source.ref_kind, source.ref)
        if found is None and self._offline:
            raise Unpinned(f"{source} is not at hand, and --offline forbids to fetch it", hint=self._lock_hint())
        if found is None:
            place = "heads" if source.ref_kind == "branch" else "tags"
            raise TagError(
                f"{source.url} has no {source.ref_kind} {source.ref!r}",
                where=entry.at("source"),
                hint=f"git ls-remote --{place} {shlex.quote(repository.remote)}",
            )
        return found

    def _known_elsewhere(self, source: GitSource) -> Pin | None:
        # Two packages of one repository at one tag are two views of one commit, whenever each was locked.
        place = (source.url, source.ref_kind, source.ref)
        pins = self._pins.entries.values()
        return None if self._repin else next((pin for pin in pins if (pin.url, pin.ref_kind, pin.ref) == place), None)

    def _declared(self, repository: Repository, commit: str, source: GitSource) -> Metadata:
        folder = f"{source.subdirectory}/" if source.subdirectory else ""
        text = repository.read(commit, f"{folder}pyproject.toml")
        if text is None and repository.read(commit, f"{folder}setup.py") is not None:
            declared = metadata.BUILD_TELLS
        else:
            declared = metadata.static(text, f"{source.url} {source.ref}:{folder}pyproject.toml")
        if declared.name is None or declared.version is None or declared.dependencies is None:
            declared = self._built_from_git(repository, commit, source)
        return declared

    def _built_from_git(self, repository: Repository, commit: str, source: GitSource) -> Metadata:
        with tempfile.TemporaryDirectory(prefix="envbuilder-metadata-") as folder:
            tree = Path(folder) / "source"
            repository.checkout(commit, tree)
            where = f"{source.url} {source.ref}"
            return self._built(tree / source.subdirectory, where, offline=self._offline)

    def _built(self, folder: Path, where: str, *, offline: bool) -> Metadata:
        interpreter = uv.find_python(self._python_request(), offline=offline)
        env = uv_settings(self._repositories.values())
        with tempfile.TemporaryDirectory(prefix="envbuilder-wheel-") as out:
            done = uv.build_wheel(folder, Path(out), interpreter.path, env, offline=offline)
            if not done.ok:
                message = f"a build, needed for what is dynamic, failed: {uv.backend_words(done)}"
                raise MetadataError(message, where=where, hint=f"{self._lock_hint()}  # once it builds")
            return metadata.of_wheel(Path(out), where)

    def _python_request(self) -> str:
        from envbuilder.config import python_specifier

        return python_specifier(self._profile.python)

    def _lock_hint(self) -> str:
        return f"envbuilder lock --profile {self._profile.name}"


def same_place(pin: Pin, source: GitSource) -> bool:
    """Whether a pin is of the ref that an entry names."""
    return (pin.url, pin.ref_kind, pin.ref, pin.subdirectory) == (
        source.url,
        source.ref_kind,
        source.ref,
        source.subdirectory,
    )
