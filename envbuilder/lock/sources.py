"""Entries made definite: pins from remotes or from ``pins.toml``, metadata from pins, checkouts or builds."""

from __future__ import annotations

import contextlib
import difflib
import json
import os
import re
import shlex
import tempfile
import threading
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from urllib.parse import quote, unquote, urlsplit

from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name

from envbuilder import uv
from envbuilder.compat import requirement_on
from envbuilder.documents import parse_toml, read_text
from envbuilder.errors import ConfigError, EnvbuilderError
from envbuilder.fs import write_atomically
from envbuilder.git import OddFileError, RemoteError, Repository, Resolved, facts_of, preload, uv_settings
from envbuilder.git.lfs import Objects, pointers
from envbuilder.lock import metadata, signatures
from envbuilder.lock.backends import build_lines, declared_in
from envbuilder.lock.dependencies import Reader, Wish, around, foresee, wishes
from envbuilder.lock.metadata import MetadataError
from envbuilder.lock.mirrors import IndexMirrors
from envbuilder.lock.project import Member, digest, edit_hint
from envbuilder.lock.surroundings import LinkOutError, Submodule, Submodules, project_file, refuse_missing_workspace
from envbuilder.models import Entry, GitSource, Metadata, PathSource, Pin, Pins, Profile, Source, Workspace
from envbuilder.process import Completed
from envbuilder.variables import for_builds

_DIGITS = 40
COMMIT = re.compile(r"[0-9a-f]{40}")
# The fewest digits that git takes for a commit.
_ABBREVIATED = re.compile(r"[0-9a-f]{4,39}")


class Unpinned(EnvbuilderError):  # noqa: N818 - a state, met where no network may be used
    """A git entry that `pins.toml` does not hold as the registry names it."""

    code = "lock-stale"
    exit_status = 1


class TagError(EnvbuilderError):
    """A ref that is not at the remote, or is not what it was."""

    code = "tag-missing"
    exit_status = 1


class SourceError(EnvbuilderError):
    """A source that a profile does not allow, and that is not even looked at."""

    code = "source-not-allowed"
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
        renewed: whether the source of a package that no entry names is, given its name.
    """

    def __init__(  # noqa: PLR0913 - what its users differ in
        self,
        workspace: Workspace,
        profile: Profile,
        pins: Pins,
        *,
        offline: bool = False,
        frozen: bool = False,
        repin: bool = False,
        renewed: Callable[[str, GitSource], bool] | None = None,
    ):
        self._workspace = workspace
        self._profile = profile
        self._pins = pins
        self._offline = offline
        self._frozen = frozen
        self._repin = repin
        self.lfs = Objects(workspace.shared / "git" / "lfs")
        self._guards: dict[str, threading.Lock] = defaultdict(threading.Lock)
        self._renewed = renewed or (lambda _name, _source: repin)
        self._members: dict[str, Member] = {}
        self._dependencies: dict[tuple[str, GitSource], Pin] = {}
        self._repositories: dict[str, Repository] = {}
        self._expected: dict[str, set[tuple[str, str]]] = defaultdict(set)
        self._submodules = Submodules(self.repository, offline=offline)
        self._fetched: dict[str, Mapping[tuple[str, str], Resolved | None] | RemoteError] = {}
        self._together: dict[str, tuple[str, ...]] = {}

    def expect(self, entries: Iterable[Entry]) -> None:
        """Tell which entries may be asked for, so that what they need of one repository comes by one fetch."""
        for entry in entries:
            source = entry.source
            if isinstance(source, GitSource) and (self._repin or self._trusted(entry, source) is None):
                self._expected[source.url].add((source.ref_kind, source.ref))

    def build_with(self, entries: Iterable[Entry]) -> None:
        """Note what packages are built with beyond what they declare: their own metadata may take such a build."""
        for entry in entries:
            for name, requirements in entry.no_build_isolation.items():
                bound = [_bound(each, entry.requires) for each in requirements]
                self._together[name] = tuple(dict.fromkeys((*self._together.get(name, ()), *bound)))

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

    def dependency(self, source: GitSource, name: str) -> Pin:
        """The pin of a git source that a package names itself.

        Args:
            source: as a lock or a requirement says it; where that leaves open of what kind its ref is, the pin tells.
            name: the distribution.

        Raises:
            TagError: its ref is not at the remote.
            RemoteError: the remote cannot be reached.
            MetadataError: one of its submodules is not to be had, or a link in it leaves it.
            Unpinned: it would have to be asked for, and may not be.
        """
        with self._guards[source.url]:
            key = (name, source)
            if key not in self._dependencies:
                self._dependencies[key] = self._dependency(source, name)
            return self._dependencies[key]

    def pinned_dependency(self, source: GitSource) -> Pin | None:
        """The pin of such a source as `lock` wrote it; None where there is none."""
        pins = (self._pins.dependencies.get(str(each)) for each in readings(source))
        return next((pin for pin in pins if pin and str(pin.source) not in self._pins.edited), None)

    def _dependency(self, source: GitSource, name: str) -> Pin:
        old = self.pinned_dependency(source)
        if old is not None and (self._frozen or not self._renewed(name, source)):
            return replace(old, lfs=source.lfs)
        if self._frozen:
            raise Unpinned(f"pins.toml does not hold {name} ({source})", hint=self._lock_hint())
        if reason := refused_here(source, self._profile, self._workspace):
            raise SourceError(reason, where=source.url, hint=self._lock_hint())
        repository = self.repository(source.url)
        named, found = self._named(source, repository, renewed=self._renewed(name, source))
        self._submodules.prove(repository, found.commit, named)
        pointers(repository, found.commit, named.subdirectory)
        return Pin(
            url=named.url,
            ref_kind=named.ref_kind,
            ref=named.ref,
            subdirectory=named.subdirectory,
            tag_object=found.object,
            commit=found.commit,
            tree=found.tree,
            name=name,
            version="",
            signature=self._signature(repository, named.ref_kind, named.ref, found.object),
            lfs=named.lfs,
        )

    def _named(self, source: GitSource, repository: Repository, *, renewed: bool) -> tuple[GitSource, Resolved]:
        """A source whose kind of ref is settled, and what it names."""
        *others, last = readings(source)
        for each in others:
            with contextlib.suppress(TagError, Unpinned):
                return each, self._found(each, repository, source.url, renewed=renewed)
        if len(last.ref) < _DIGITS and last.ref_kind == "rev":
            found = repository.resolve("rev", last.ref) if self._offline else repository.fetch_abbreviated(last.ref)
            if found is None:
                hint = f"git ls-remote {shlex.quote(repository.remote)}"
                raise TagError(f"{source.url} has no single commit {last.ref}", where=source.url, hint=hint)
            return last, found
        return last, self._found(last, repository, source.url, renewed=renewed)

    def texts(self, pin: Pin) -> list[str]:
        """The ``pyproject.toml`` of a pinned package and of the folders around it, from the innermost; those there are.

        Raises:
            OddFileError: one cannot be read.
        """
        repository = self.repository(pin.url)
        return [text for file in around(pin.subdirectory) if (text := repository.read(pin.commit, file)) is not None]

    def look_at(self, pins: Iterable[Pin]) -> None:
        """Look at what pins are judged by, of all clones at once; a clone that is not there is told of by nothing."""
        preload(
            (self.repository(pin.url), name)
            for pin in pins
            for name in (
                *facts_of(pin.commit, pin.tag_object),
                *(f"{pin.commit}:{file}" for file in (*around(pin.subdirectory), ".gitmodules")),
            )
        )

    def built_with(self, pin: Pin) -> list[Wish]:
        """The git sources that the package at a pin that was looked at is built with; others tell what cannot be read."""
        repository = self.repository(pin.url)
        with contextlib.suppress(EnvbuilderError):
            files = [file for file in around(pin.subdirectory) if f"{pin.commit}:{file}" in repository.looked]
            if project_file(pin.subdirectory) in files:
                found = [repository.read(pin.commit, file) or "" for file in files]
                return wishes(build_lines(parse_toml(found[0], pin.url).value), (), found)
        return []

    def foreseen(self, members: Sequence[Member], registered: Collection[str]) -> list[Pin]:
        """The pins of the git sources that a closure's packages name, as far as metadata tells."""

        def declared(pin: Pin) -> Metadata:
            found = self.static(self.repository(pin.url), pin.commit, pin.source)
            return (
                found
                if found.dependencies is not None
                else self.declared(pin.commit, pin.source, Entry(pin.name, "library", pin.source, pin.url))
            )

        reader = Reader(self.texts, self._project_text, self.dependency, declared)
        return foresee(members, registered, reader)

    def bring(self, pin: Pin, *, offline: bool) -> bool:
        """Bring a pinned commit into its clone, and with it all that is pinned of its repository; whether it is there.

        Raises:
            RemoteError: it is not there, and the remote cannot be reached.
            MetadataError: one of its submodules is not to be had, or a link in it leaves it.
        """
        repository = self.repository(pin.url)
        with self._guards[pin.url]:
            if not offline and not repository.has(pin.commit):
                pins = [each for each in (pin, *self._pins.entries.values()) if each.url == pin.url]
                repository.fetch_together((each.ref_kind, each.ref) for each in pins if not repository.has(each.commit))
            if not repository.ensure(pin.ref_kind, pin.ref, pin.commit, offline=offline):
                return False
            self._submodules.prove(repository, pin.commit, pin.source)
            if pin.lfs:
                for clone, commit in self.checked_out(pin):
                    self.lfs.bring(clone, commit, offline=offline)
            return True

    def checked_out(self, pin: Pin) -> list[tuple[Repository, str]]:
        """The clones and commits that a pin that was brought is checked out from: its own, and its submodules'."""
        return [(self.repository(pin.url), pin.commit), *((e.repository, e.commit) for e in self.submodules(pin))]

    def build_requires(self, member: Member) -> tuple[str, ...]:
        """What a member says it is built with; nothing for a release, of which the index may have a wheel."""
        match member.entry.source, member.pin:
            case GitSource(url, _, _, subdirectory), Pin(commit=commit):
                text = self.repository(url).read(commit, project_file(subdirectory))
            case PathSource(path), _:
                text = self._project_text(path)
            case _:
                return ()
        document = parse_toml(text or "", member.entry.where).value
        # uv's own settings of a package hold for what builds it, too: no index is asked for that.
        elsewhere = {wish.name for wish in wishes(build_lines(document), (), [text or ""])}
        lines = declared_in(document)
        return tuple(line for line in lines if canonicalize_name(Requirement(line).name) not in elsewhere)

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
        shown = self._workspace.show(self._workspace.root / path / "pyproject.toml")
        self._refuse_outside(entry, path)
        text = self._project_text(path)
        if text is None and (self._workspace.root / path / "setup.py").is_file():
            declared = metadata.BUILD_TELLS
        else:
            declared = metadata.static(text, shown)
        if declared.version is None or declared.dependencies is None:
            offline = self._offline or self._frozen
            declared = self._built(self._workspace.root / path, shown, entry, offline=offline)
        facts = parse_toml(text or "", shown).value
        return Member(entry, declared, code=digest(json.dumps(facts, sort_keys=True, default=str).encode()))

    def _refuse_outside(self, entry: Entry, path: str) -> None:
        root = self._workspace.root.resolve()
        for place in (self._workspace.root / path, self._workspace.root / path / "pyproject.toml"):
            if not place.resolve().is_relative_to(root):
                shown = self._workspace.show(place)
                message = f"{shown} leads out of the workspace, to {place.resolve()}"
                raise SourceError(message, where=entry.at("source"), hint=f"ls -ld {shlex.quote(shown)}")

    def _project_text(self, path: str) -> str | None:
        """The text of a checkout's ``pyproject.toml``; None where there is none."""
        file = self._workspace.root / path / "pyproject.toml"
        try:
            return read_text(file, self._workspace.show(file)) if file.exists() else None
        except ConfigError as error:
            raise MetadataError(error.message, where=error.where, hint=error.hint) from error

    def _pin(self, entry: Entry, source: GitSource) -> Pin:
        if reason := refused_here(source, self._profile, self._workspace):
            raise SourceError(reason, where=entry.at("source"), hint=edit_hint(entry))
        old = self._trusted(entry, source)
        if old is not None and not self._repin:
            old = replace(old, lfs=source.lfs)
            return old if self._frozen else self._with_signature(old)
        edited = entry.name in self._pins.edited
        if self._frozen:
            text = f"the pin of {entry.name} was edited" if edited else f"{source} is not what pins.toml holds"
            raise Unpinned(text, where=entry.where, hint=self._lock_hint())
        repository = self.repository(source.url)
        found = self._found(source, repository, entry.at("source"), renewed=self._repin)
        if edited and not self._repin:
            self._refuse_another_commit(entry, source, found)
        declared = self._read(repository, found.commit, source, entry)
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
            signature=self._signature(repository, source.ref_kind, source.ref, found.object),
            lfs=source.lfs,
            variables=_variables(entry),
        )

    def _read(self, repository: Repository, commit: str, source: GitSource, entry: Entry) -> Metadata:
        """What the package at a commit declares, if all that it takes from elsewhere is to be had.

        Raises:
            MetadataError: it is not, or it cannot be read; all that is wrong is told.
        """
        pointers(repository, commit, source.subdirectory)  # Now, and not by every check.
        faults: list[EnvbuilderError] = []
        for step in (self._submodules.prove, refuse_missing_workspace):
            try:
                step(repository, commit, source)
            except EnvbuilderError as error:
                faults.append(error)
        try:
            # A build without what is missing would tell of that once more.
            declared = self.static(repository, commit, source) if faults else self.declared(commit, source, entry)
        except EnvbuilderError as error:
            # Behind a link that leads out of the checkout nothing is read: that is told already.
            if not (
                isinstance(error.__cause__, OddFileError) and any(isinstance(each, LinkOutError) for each in faults)
            ):
                faults.append(error)
        if not faults:
            return declared
        text = "; ".join(fault.message for fault in faults)
        raise MetadataError(text, where=faults[0].where, hint=faults[0].hint, code=faults[0].code) from faults[0]

    def glimpse(self, entry: Entry) -> Member | None:
        """What a git entry is as far as its clone tells without a build or the network; None where that is nothing.

        For entries of which something cannot be read or reached: what can be is judged all the same.
        """
        if not isinstance(entry.source, GitSource):
            return None
        repository = self.repository(entry.source.url)
        if (old := self._trusted(entry, entry.source)) and not self._repin:
            return Member(entry, Metadata(old.name, old.version, old.requires_python, old.requires), pin=old)
        found = repository.resolve(entry.source.ref_kind, entry.source.ref) if repository.is_there else None
        if found is None:
            return None
        declared = Metadata(None, None)
        with contextlib.suppress(EnvbuilderError):
            declared = self.static(repository, found.commit, entry.source)
        source = entry.source
        place = (source.url, source.ref_kind, source.ref, source.subdirectory)
        facts = (found.object, found.commit, found.tree, declared.name or "", declared.version or "")
        return Member(entry, declared, pin=Pin(*place, *facts))

    def git_settings(self, pins: Iterable[Pin]) -> dict[str, str]:
        """Variables by which uv's git fetches pinned commits, and their submodules, from the clones; see `bring`."""
        clones, pins = {}, list(pins)
        for pin in pins:
            clones[pin.url] = self.repository(pin.url)
            clones |= {each.repository.url: each.repository for each in self.submodules(pin)}
        return uv_settings(clones.values(), self.lfs.settings if any(pin.lfs for pin in pins) else ())

    def checkout(self, repository: Repository, commit: str, folder: Path) -> None:
        """A work tree at a commit that was brought, with its tags and submodules."""
        beneath = self._submodules.of(repository.url, commit)
        repository.checkout(commit, folder, uv_settings(each.repository for each in beneath) if beneath else None)

    def submodules(self, pin: Pin) -> tuple[Submodule, ...]:
        """The submodules of what was brought."""
        return self._submodules.of(pin.url, pin.commit)

    def _trusted(self, entry: Entry, source: GitSource) -> Pin | None:
        """The entry's pin where it is of the ref and the variables that the entry names, and as `lock` wrote it."""
        pin = self._pins.entries.get(entry.name)
        if pin is None or entry.name in self._pins.edited or pin.variables != _variables(entry):
            return None
        return pin if same_place(pin, source) else None

    def _refuse_another_commit(self, entry: Entry, source: GitSource, found: Resolved) -> None:
        pin = self._pins.entries[entry.name]
        if same_place(pin, source) and pin.commit != found.commit:
            raise TagError(
                f"the pin of {entry.name} was edited: it says {pin.commit[:12]}, "
                f"and {source.ref_kind} {source.ref!r} names {found.commit[:12]}",
                code="tag-moved",
                where=entry.at("source"),
                hint=f"{self._lock_hint()} --repin  # takes what the {source.ref_kind} names",
            )

    def _signature(self, repository: Repository, kind: str, ref: str, name: str) -> str:
        return signatures.read(repository, name, ref, self._workspace).recorded if kind == "tag" else "none"

    def _with_signature(self, pin: Pin) -> Pin:
        """A pin whose signature was not good when it was locked, as it is by the signers of today."""
        wanted = self._profile.require_signed_tags and pin.ref_kind == "tag"
        repository = self.repository(pin.url)
        if not wanted or signatures.is_good(pin.signature) or repository.tag_text(pin.tag_object) is None:
            return pin
        return replace(pin, signature=self._signature(repository, pin.ref_kind, pin.ref, pin.tag_object))

    def _found(self, source: GitSource, repository: Repository, where: str, *, renewed: bool) -> Resolved:
        known = None if renewed else self._known_elsewhere(source)
        if known and repository.ensure(source.ref_kind, source.ref, known.commit, offline=self._offline):
            return Resolved(known.tag_object, known.commit, known.tree)
        wanted = (source.ref_kind, source.ref)
        found = repository.resolve(*wanted) if self._offline else self._fetch(repository, wanted)
        if found is None and self._offline:
            raise Unpinned(f"{source} is not at hand, and --offline forbids to fetch it", hint=self._lock_hint())
        if found is None:
            place = "heads" if source.ref_kind == "branch" else "tags"
            refs = {} if source.ref_kind == "rev" else repository.remote_refs()
            raise TagError(
                f"{source.url} has no {source.ref_kind} {source.ref!r}{nearest(source.ref, refs, place)}",
                where=where,
                hint=f"git ls-remote --{place} {shlex.quote(repository.remote)}",
            )
        return found

    def _fetch(self, repository: Repository, wanted: tuple[str, str]) -> Resolved | None:
        """One ref, with all that is expected of its repository; the caller holds the repository's guard."""
        found = self._fetched.get(repository.url, {})
        if not isinstance(found, RemoteError) and wanted not in found:
            try:
                refs = {*self._expected.pop(repository.url, ()), wanted}
                found = {**found, **repository.fetch_together(refs)}
            except RemoteError as error:  # One that does not answer is asked once.
                found = error
            self._fetched[repository.url] = found
        if isinstance(found, RemoteError):
            raise found
        return found[wanted]

    def _known_elsewhere(self, source: GitSource) -> Pin | None:
        # Two packages of one repository at one tag are two views of one commit, whenever each was locked.
        place = (source.url, source.ref_kind, source.ref)
        known = {**self._pins.entries, **self._pins.dependencies}
        pins = (pin for name, pin in known.items() if name not in self._pins.edited)
        return next((pin for pin in pins if (pin.url, pin.ref_kind, pin.ref) == place), None)

    def declared(self, commit: str, source: GitSource, entry: Entry) -> Metadata:
        """What the package at a commit declares, by a build as its entry says where only that tells.

        Raises:
            MetadataError: it cannot be read, or does not build.
        """
        repository = self.repository(source.url)
        declared = self.static(repository, commit, source)
        if declared.name is None or declared.version is None or declared.dependencies is None:
            declared = self._built_from_git(repository, commit, source, entry)
        return declared

    @staticmethod
    def static(repository: Repository, commit: str, source: GitSource) -> Metadata:
        """What the package at a commit declares without a build; what only a build tells is None.

        Raises:
            MetadataError: it cannot be read.
        """
        file = project_file(source.subdirectory)
        where = f"{source.url} {source.ref}:{file}"
        try:
            text = repository.read(commit, file)
            if text is None and repository.read(commit, f"{file.removesuffix('pyproject.toml')}setup.py") is not None:
                return metadata.BUILD_TELLS
        except OddFileError as error:
            raise MetadataError(error.message, where=where) from error
        return metadata.static(text, where)

    def _built_from_git(self, repository: Repository, commit: str, source: GitSource, entry: Entry) -> Metadata:
        with tempfile.TemporaryDirectory(prefix="envbuilder-metadata-") as folder:
            tree = Path(folder) / "source"
            self.checkout(repository, commit, tree)
            where = f"{source.url} {source.ref}"
            declared = self._built(tree / source.subdirectory, where, entry, offline=self._offline)
            lines = declared.dependencies or ()
            return replace(declared, dependencies=tuple(_from_repository(line, tree, source) for line in lines))

    def _built(self, folder: Path, where: str, entry: Entry, *, offline: bool) -> Metadata:
        interpreter = uv.find_python(self._python_request(), offline=offline)
        env = {**for_builds(entry.env), **uv_settings(self._repositories.values())}
        together = self._together.get(entry.name, ())
        with tempfile.TemporaryDirectory(prefix="envbuilder-wheel-") as out:
            env = env | index_settings(self._profile, Path(out))
            if together:
                package = uv.Package(entry.name, folder, together)
                done = uv.install_package(package, Path(out), interpreter.path, env, offline=offline)
            else:
                done = uv.build_wheel(folder, Path(out), interpreter.path, env, offline=offline)
            if not done.ok:
                raise self._unbuilt(entry, where, done)
            return metadata.of_installed(Path(out), where) if together else metadata.of_wheel(Path(out), where)

    def _unbuilt(self, entry: Entry, where: str, done: Completed) -> MetadataError:
        lock = self._lock_hint()
        hint = f"{lock}  # once it builds"
        if lacking := uv.missing_module(done):
            wanted = [*self._together.get(entry.name, ()), lacking]
            line = f"no-build-isolation: {{{entry.name}: {json.dumps(wanted)}}}"
            hint = f"{edit_hint(entry, 'no-build-isolation')}  # {line}; then {lock}"
        log = self._workspace.own / "logs" / f"{self._profile.name}-{entry.name}-metadata.log"
        write_atomically(log, done.stderr)
        message = f"a build, needed for what is dynamic, failed: {uv.backend_words(done)}; all that it wrote: {log}"
        return MetadataError(message, where=where, hint=hint)

    def _python_request(self) -> str:
        from envbuilder.config import python_specifier

        return python_specifier(self._profile.python)

    def _lock_hint(self) -> str:
        return f"envbuilder lock --profile {self._profile.name}"


def readings(source: GitSource) -> list[GitSource]:
    """A source with each kind of ref that its own may be: a requirement does not tell tags, branches and commits apart."""
    if source.ref_kind != "rev" or COMMIT.fullmatch(source.ref):
        return [source]
    kinds = ["tag", "branch", *(["rev"] if _ABBREVIATED.fullmatch(source.ref) else [])]
    return [replace(source, ref_kind=kind) for kind in kinds]


def _bound(text: str, lines: Iterable[str]) -> str:
    """A build requirement; one without a version gets that under which the entry itself requires the package."""
    return text if Requirement(text).specifier else f"{text}{requirement_on(text, lines) or ''}"


def _variables(entry: Entry) -> str:
    """The digest of what an entry adds to its builds; empty where it adds nothing."""
    added = for_builds(entry.env)
    return digest(json.dumps(added, sort_keys=True).encode()) if added else ""


def _from_repository(line: str, tree: Path, source: GitSource) -> str:
    """A requirement that a build told, where it names a folder of its own checkout as what it is: one of the repository.

    uv reads it so, too. The folder's address is another one each time.

    Raises:
        MetadataError: it names a folder out of the checkout, which no other machine has.
    """
    try:
        requirement = Requirement(line)
    except InvalidRequirement:
        return line
    if not requirement.url or not requirement.url.lower().startswith("file:"):
        return line
    place = Path(unquote(urlsplit(requirement.url).path)).resolve()
    inside = Path(os.path.relpath(place, tree.resolve())).as_posix()
    if inside.split("/")[0] == "..":
        message = f"it requires {requirement.name} from {inside}, which is out of its repository"
        raise MetadataError(message, where=f"{source.url} {source.ref}")
    fragment = "" if inside == "." else f"#subdirectory={quote(inside)}"
    requirement.url = f"git+{source.url}@{source.ref}{fragment}"
    return str(requirement)


def index_settings(profile: Profile, scratch: Path) -> dict[str, str]:
    """Variables by which uv takes packages from a profile's indexes, of the time that it names.

    Args:
        profile: whose.
        scratch: a folder for what only a file can say.
    """
    mirrors = IndexMirrors(profile.index_mirrors)
    tables = mirrors.tables(uv.index_tables(profile))
    named: dict[bool, list[str]] = {True: [], False: []}
    for table in tables:
        named[bool(table.get("default"))].append(f"{table['name']}={table['url']}")
    constraints = scratch / "build-constraints.txt"
    constraints.write_text("\n".join([*profile.build_constraints, ""]), encoding="utf-8")
    settings = {
        "UV_INDEX": " ".join(named[False]),
        "UV_DEFAULT_INDEX": " ".join(named[True]),
        "UV_EXCLUDE_NEWER": profile.exclude_newer or "",
        "UV_BUILD_CONSTRAINT": str(constraints) if profile.build_constraints else "",
    }
    return {name: value for name, value in settings.items() if value}


def refused_here(source: Source, profile: Profile, workspace: Workspace) -> str | None:
    """Why a source that is a folder of this machine is refused: no other machine has what is out of the workspace."""
    if not isinstance(source, GitSource) or not source.url.startswith("file:") or "path" in profile.sources:
        return None
    place = Path(unquote(source.url.removeprefix("file://"))).resolve()
    if place.is_relative_to(workspace.root.resolve()):
        return None
    return f"{source.url} is out of the workspace; {profile.name} allows addresses that hold on other machines, too"


def same_place(pin: Pin, source: GitSource) -> bool:
    """Whether a pin is of the ref that an entry names."""
    return (pin.url, pin.ref_kind, pin.ref, pin.subdirectory) == (
        source.url,
        source.ref_kind,
        source.ref,
        source.subdirectory,
    )


def nearest(ref: str, refs: Mapping[str, Resolved], place: str) -> str:
    """The refs of a repository, below ``refs/<place>/``, that look most like one that it has not, as words to add."""
    prefix = f"refs/{place}/"
    names = [name.removeprefix(prefix) for name in refs if name.startswith(prefix)]
    near = difflib.get_close_matches(ref, names, n=3, cutoff=0.4)
    return f"; nearest: {', '.join(near)}" if near else ""


def ensure_objects(sources: Sources, pins: Sequence[Pin], *, offline: bool) -> None:
    """Have every pinned commit in its clone, under the name by which uv asks for it.

    Raises:
        TagError: a commit is not to be had any more.
        RemoteError: the remote cannot be reached.
    """
    for pin in pins:
        repository = sources.repository(pin.url)
        if sources.bring(pin, offline=offline):
            target = pin.tag_object if repository.has(pin.tag_object) else pin.commit
            repository.point(pin.ref_kind, pin.ref, target)
        else:
            what = f"commit {pin.commit[:12]} of {pin.name} ({pin.ref_kind} {pin.ref})"
            if offline:
                message = f"{what} was not fetched yet, and --offline forbids it"
                raise TagError(
                    message, code="not-at-hand", where=pin.url, hint="envbuilder build  # once with a network"
                )
            raise TagError(
                f"{what} is not at {pin.url} any more",
                code="tag-moved",
                where=pin.url,
                hint="envbuilder lock --repin  # takes what the tag names now",
            )
