"""Which core versions a package accepts: at its pin, and at every other tag of its repository."""

from __future__ import annotations

import re
import shlex
import threading
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name
from packaging.version import InvalidVersion, Version

from envbuilder import compat
from envbuilder.config import python_specifier
from envbuilder.errors import EnvbuilderError, Problem, UsageError
from envbuilder.git import Repository, Resolved, preload
from envbuilder.lock.project import edit_hint
from envbuilder.lock.sources import Sources
from envbuilder.lock.surroundings import project_file
from envbuilder.models import Entry, GitSource, Metadata, PathSource, Profile, PypiSource

Refs = Mapping[str, Resolved]


@dataclass(frozen=True)
class Core:
    """A version of a core package: the current one, or one that somebody asked about."""

    name: str
    version: str
    asked: bool = False

    def __str__(self) -> str:
        return f"{self.name} {self.version}"


@dataclass(frozen=True)
class Fit:
    """Whether a package fits a core version; None where that is not known.

    Attributes:
        core: the version.
        fits: whether.
        tag: where it does not, the newest tag of its repository, or release of the index, that does.
        command: what takes it.
    """

    core: Core
    fits: bool | None
    tag: str | None = None
    command: str | None = None


@dataclass(frozen=True)
class Row:
    """A line of the matrix: a package at one place, such as a tag, and which core versions it fits.

    `accepts` holds for each core package what package and entry together say: a specifier, empty for any version, None
    where it is not known. `locked` tells the place that the registry names from a repository's other tags.
    """

    entry: str
    place: str
    accepts: Mapping[str, str | None]
    fits: tuple[Fit, ...]
    locked: bool = True


def asked_cores(texts: Iterable[str], current: Mapping[str, str]) -> list[Core]:
    """The core versions that somebody asks about: ``NAME==VERSION``, or a version alone where there is one core.

    Raises:
        UsageError: it is no version, or not of a core package.
    """
    return [_asked(text, current) for text in texts]


def _asked(text: str, current: Mapping[str, str]) -> Core:
    name, mark, version = text.rpartition("==")
    named = str(canonicalize_name(name.strip())) if mark else next(iter(current), "")
    hint = "envbuilder check --help"
    if not current:
        raise UsageError("the workspace names no core", hint="${EDITOR:-vi} pyproject.toml  # set tool.envbuilder.core")
    if named not in current or (not mark and len(current) > 1):
        known = ", ".join(current)
        raise UsageError(f"--core {text}: expected NAME==VERSION with one of {known} as the name", hint=hint)
    try:
        return Core(named, str(Version(version.strip())), asked=True)
    except InvalidVersion:
        raise UsageError(f"--core {text}: {version!r} is no version, such as 0.3.0", hint=hint) from None


class CoreJudge:
    """Judges packages by core versions.

    Args:
        profile: for the Python that markers are read for, and for hints.
        sources: reads what stands at other tags.
        current: the current core, distribution to version.
        asked: further versions.
    """

    def __init__(self, profile: Profile, sources: Sources, current: Mapping[str, str], asked: Sequence[Core]):
        self._profile = profile
        self._sources = sources
        self._current = current
        self.cores = (*(Core(name, version) for name, version in current.items()), *asked)
        self._read: dict[tuple[str, str, str], Metadata | None] = {}
        self._guards: dict[str, threading.Lock] = defaultdict(threading.Lock)
        self._brought: set[tuple[str, str]] = set()
        # Repositories whose tags cannot be read, and why.
        self.unread: dict[str, EnvbuilderError] = {}

    def row(self, entry: Entry, declared: Metadata | None, refs: Refs) -> Row:
        """How a package as the registry names it fits; with the newest tag that does, where it does not.

        Args:
            entry: whose package.
            declared: what it declares, None where that is not known.
            refs: what its repository has; empty where that is not known.
        """
        fits = [Fit(core, self._fits(core, entry, declared)) for core in self.cores]
        found = [self._with_tag(fit, entry, declared, refs) if fit.fits is False else fit for fit in fits]
        return Row(entry.name, _place(entry), self._accepts(entry, declared), tuple(found))

    def tag_rows(self, entry: Entry, refs: Refs) -> list[Row]:
        """How the package at each tag of its repository fits, newest first; what only a build tells is not known."""
        if not isinstance(entry.source, GitSource):
            return []
        rows = []
        for tag in self._newest_first(entry, refs):
            declared = self._at(entry.source, tag, refs)
            known = declared if declared is not None and declared.dependencies is not None else None
            fits = tuple(Fit(core, self._fits(core, entry, known)) for core in self.cores)
            named = entry.source.ref_kind == "tag" and entry.source.ref == tag
            rows.append(Row(entry.name, tag, self._accepts(entry, known), fits, locked=named))
        return rows

    def problems(self, row: Row, entry: Entry, declared: Metadata | None) -> Iterator[Problem]:
        """What of a row is wrong: the package's word and the entry's each by itself."""
        for fit in row.fits:
            core = fit.core
            what = f"with {core}, as asked:" if core.asked else f"the core is {core};"
            wanted = self._wanted(core.name, entry, declared) if declared else None
            if wanted and not compat.accepts(wanted, core.version):
                message = f"{what} the package at {entry.source} accepts {wanted}"
                hint = fit.command or edit_hint(entry)
                yield Problem("core-incompatible", message, entry.name, entry.at("source"), hint)
            if entry.core and not compat.accepts(entry.core, core.version):
                message = f"{what} the entry accepts {entry.core}"
                yield Problem(
                    "core-incompatible", message, entry.name, entry.at("core"), fit.command or edit_hint(entry, "core")
                )
            if fit.fits is None:
                message = f"{what} what {entry.source} accepts is not known"
                hint = f"envbuilder lock --profile {self._profile.name}"
                yield Problem("core-unknown", message, entry.name, entry.at("source"), hint, severity="warning")

    def _with_tag(self, fit: Fit, entry: Entry, declared: Metadata | None, refs: Refs) -> Fit:
        wanted = self._wanted(fit.core.name, entry, declared) if declared else None
        if wanted is None or compat.accepts(wanted, fit.core.version):
            return fit  # The entry itself stands in the way, and no tag helps.
        tag = self._newest_fitting(entry, refs, fit.core)
        if tag is None or not isinstance(entry.source, GitSource):
            return fit
        file = shlex.quote(entry.at("source").partition(":")[0])
        edit = f"sed -i {replacement(entry.source.ref, tag)} {file}"
        return replace(fit, tag=tag, command=self._command(edit, fit.core, entry, f"{tag} is the newest tag that fits"))

    def with_release(self, fit: Fit, entry: Entry, version: str) -> Fit:
        """A fit that is none, with the release of the index that does, and what takes it."""
        file = shlex.quote(entry.at("source").partition(":")[0])
        old = entry.source.specifier if isinstance(entry.source, PypiSource) else ""
        edit = f"sed -i {replacement(old, f'=={version}', 'pypi')} {file}"
        told = f"{version} is the newest release that fits"
        return replace(fit, tag=version, command=self._command(edit, fit.core, entry, told))

    def _command(self, edit: str, core: Core, entry: Entry, told: str) -> str:
        also = ""
        if entry.core and not compat.accepts(entry.core, core.version):
            also, told = f" && {edit_hint(entry, 'core')}", f"{told}; the entry's core has to take {core.version}, too"
        return f"{edit}{also} && envbuilder lock --profile {self._profile.name}  # {told}"

    def takes(self, core: Core, entry: Entry, declared: Metadata) -> bool:
        """Whether what a package declares takes a core version, beside the current ones of other core packages."""
        cores = {**self._current, core.name: core.version}
        wanted = {name: self._wanted(name, entry, declared) for name in cores}
        return all(compat.accepts(text, cores[name]) for name, text in wanted.items() if text)

    def _newest_fitting(self, entry: Entry, refs: Refs, core: Core) -> str | None:
        """The newest tag whose package accepts this version; a pre-release where no other does."""
        if not isinstance(entry.source, GitSource) or entry.source.ref_kind != "tag":
            return None
        for tag in self._newest_first(entry, refs):
            declared = self._at(entry.source, tag, refs)
            if declared is None or (declared.name and canonicalize_name(declared.name) != entry.name):
                continue
            if declared.version and not compat.tag_fits(tag, declared.version, entry.name):
                continue  # Whoever takes it gets a `version-mismatch` instead.
            if declared.dependencies is None and (declared := self._built(entry, entry.source, tag, refs)) is None:
                continue
            if self.takes(core, entry, declared):
                return tag
        return None

    @staticmethod
    def _newest_first(entry: Entry, refs: Refs) -> list[str]:
        tags = [ref.removeprefix("refs/tags/") for ref in refs if ref.startswith("refs/tags/")]
        versions = {tag: version for tag in tags if (version := compat.tag_version(tag, entry.name))}
        return sorted(versions, key=lambda tag: (not versions[tag].is_prerelease, versions[tag], tag), reverse=True)

    def _at(self, source: GitSource, tag: str, refs: Refs) -> Metadata | None:
        """What the package at a tag declares without a build; None where it cannot be read."""
        commit = refs[f"refs/tags/{tag}"].commit
        key = (source.url, commit, source.subdirectory)
        with self._guards[source.url]:
            if key not in self._read:
                repository = self._sources.repository(source.url)
                self._bring_tags(repository, source, refs)
                try:
                    self._read[key] = self._sources.static(repository, commit, replace(source, ref_kind="tag", ref=tag))
                except EnvbuilderError:
                    self._read[key] = None
            return self._read[key]

    def _bring_tags(self, repository: Repository, source: GitSource, refs: Refs) -> None:
        """What all tags of a repository name, by one fetch; the caller holds the repository's guard."""
        place = (source.url, source.subdirectory)
        if place in self._brought or source.url in self.unread:
            return
        self._brought.add(place)
        commits = [found.commit for ref, found in refs.items() if ref.startswith("refs/tags/")]
        trees = {f"{commit}^{{tree}}" for commit in commits}
        names = [*trees, *(f"{commit}:{project_file(source.subdirectory)}" for commit in commits)]
        preload((repository, name) for name in names)
        if trees <= repository.looked.keys():
            return  # All of it was fetched before.
        try:
            repository.fetch_every_tag()
        except EnvbuilderError as error:
            self.unread[source.url] = error
        preload((repository, name) for name in names)

    def _built(self, entry: Entry, source: GitSource, tag: str, refs: Refs) -> Metadata | None:
        commit = refs[f"refs/tags/{tag}"].commit
        try:
            return self._sources.declared(commit, replace(source, ref_kind="tag", ref=tag), entry)
        except EnvbuilderError:
            return None

    def _wanted(self, name: str, entry: Entry, declared: Metadata) -> str | None:
        python = python_specifier(entry.python or self._profile.python)
        return compat.requirement_on(name, declared.dependencies or (), extras=entry.extras, python=python)

    def _accepts(self, entry: Entry, declared: Metadata | None) -> dict[str, str | None]:
        accepts: dict[str, str | None] = {}
        for name in self._current:
            said = (self._wanted(name, entry, declared) if declared else None, entry.core)
            accepts[name] = str(SpecifierSet(",".join(filter(None, said)))) if declared else None
        return accepts

    def _fits(self, core: Core, entry: Entry, declared: Metadata | None) -> bool | None:
        if entry.core and not compat.accepts(entry.core, core.version):
            return False
        if declared is None:
            return None
        wanted = self._wanted(core.name, entry, declared)
        return not wanted or compat.accepts(wanted, core.version)


def _place(entry: Entry) -> str:
    match entry.source:
        case GitSource(ref=ref, ref_kind=kind):
            return ref[:12] if kind == "rev" else ref
        case PathSource(path):
            return path
        case source:
            return source.specifier


def replacement(old: str, new: str, key: str = "tag") -> str:
    """An argument of sed's that puts one tag, or the value of another key, for another; no shell misreads it."""
    pattern = re.sub(r"([][\\.*^$/])", r"\\\1", old)
    return shlex.quote(f"/{key}/s/{pattern}/{re.sub(r'([&/])', lambda found: chr(92) + found[1], new)}/")
