"""`check`: every pin proved against its remote, every package against the core and the Python, all at once."""

from __future__ import annotations

import contextlib
import copy
import shlex
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase

from packaging.utils import canonicalize_name

from envbuilder import compat
from envbuilder.config import core_versions, python_specifier, readable_core
from envbuilder.documents import read_toml, subtree
from envbuilder.errors import ConfigError, EnvbuilderError, Problem, ToolError
from envbuilder.git import RemoteError, Resolved
from envbuilder.git.lfs import LFS_REMARK, POINTERS, pointers, shown_files
from envbuilder.lock import signatures
from envbuilder.lock.dependencies import Dependency, adoption, dependencies, is_own, settled
from envbuilder.lock.files import lock_folder, lock_text, off_pin, pins_path, read_lock, read_pins
from envbuilder.lock.fitting import Core, CoreJudge, Refs, Row, asked_cores
from envbuilder.lock.graph import parse as parse_graph
from envbuilder.lock.locker import Draft
from envbuilder.lock.locking import find_stale
from envbuilder.lock.metadata import MetadataError
from envbuilder.lock.newer import newest_fitting
from envbuilder.lock.project import Member, closure, edit_hint
from envbuilder.lock.siblings import cyclic, divergent
from envbuilder.lock.sources import COMMIT, Sources, nearest, refused_here, same_place
from envbuilder.models import (
    DEFAULT_BRANCH,
    Entry,
    GitSource,
    Metadata,
    PathSource,
    Pin,
    Pins,
    Profile,
    PypiSource,
    Registry,
    Source,
    Workspace,
)
from envbuilder.store import interpreters
from envbuilder.threads import at_once

# Listings wait for the network, not for the processor.
_REMOTES_AT_ONCE = 16
# Most need nothing but what is at hand; some wait for a fetch, few for a build.
_ENTRIES_AT_ONCE = 8


@dataclass(frozen=True)
class Report:
    """What `check` found: how much was looked at, which core versions packages fit, and what is wrong."""

    entries: int
    remotes: int
    problems: tuple[Problem, ...]
    cores: tuple[Core, ...] = ()
    rows: tuple[Row, ...] = ()


@dataclass(frozen=True)
class Question:
    """What `check` is asked, apart from which plugins.

    Attributes:
        offline: whether the remotes are left out.
        cores: core versions to judge by besides the current ones, as `asked_cores` reads them.
        all_tags: whether every tag of every plugin is judged.
    """

    offline: bool = False
    cores: tuple[str, ...] = ()
    all_tags: bool = False


def check(
    workspace: Workspace, profile: Profile, registry: Registry, plugins: Sequence[Entry], question: Question
) -> Report:
    """Check plugins and the entries they may need.

    With no plugins given by name, pass all of them: libraries are then judged too.

    Raises:
        UsageError: it is asked about what is no version of a core package.
    """
    whole = len(plugins) == len(registry.plugins)
    pins = read_pins(workspace, profile)
    core, unreadable = readable_core(workspace)
    workspace = replace(workspace, core=core)
    stale = find_stale(workspace, profile, registry, plugins, pins, is_whole=not unreadable)
    drafts = [draft for draft in stale.values() if isinstance(draft, Draft)]
    needed = {item.entry.name for draft in drafts for item in draft.members} | {plugin.name for plugin in plugins}
    entries = [entry for entry in registry.entries if whole or entry.name in needed]
    holders = {name: _holders(name, drafts) for name in needed}
    checker = Checker(workspace, profile, pins, question, holders)
    problems = [*unreadable, *_workspace_members(workspace)]
    problems.extend(item for item in stale.values() if isinstance(item, Problem))
    asked = [entry for entry in entries if not refused_here(entry.source, profile, workspace)]
    own = {plugin.name: checker.dependencies_of(plugin, registry) for plugin in plugins}
    named = [each.source for items in own.values() for each in items if each.source]
    sources = [entry.source for entry in asked] + [each for each in named if not refused_here(each, profile, workspace)]
    listings = {} if question.offline else list_remotes(checker.sources, sources)
    checker.sources.build_with(asked)
    checker.sources.expect(asked)
    below = [each.pin for items in own.values() for each in items if each.pin]
    checker.sources.look_at([*(pin for entry in entries if (pin := pins.entries.get(entry.name))), *below])
    verdicts = list(
        at_once(lambda entry: checker.check_entry(entry, listings), entries, _ENTRIES_AT_ONCE, name="check")
    )
    problems.extend(problem for found, _ in verdicts for problem in found)
    for plugin in plugins:
        problems.extend(checker.check_lock(plugin, registry))
        problems.extend(checker.check_dependencies(plugin, own[plugin.name], listings))
        problems.extend(checker.check_python(plugin, stale[plugin.name]))
    problems.extend(checker.check_circles(plugins, registry))
    problems.extend(checker.check_siblings(plugins, registry))
    problems.extend(checker.check_pins(entries))
    problems.extend(checker.check_pinned_core(entries))
    cores = checker.judge.cores
    return Report(
        len(entries), len(listings), tuple(_unique(problems)), cores, tuple(row for _, rows in verdicts for row in rows)
    )


def _holders(name: str, drafts: Sequence[Draft]) -> tuple[str, ...]:
    return tuple(draft.plugin.name for draft in drafts if any(item.entry.name == name for item in draft.members))


def _unique(problems: Sequence[Problem]) -> list[Problem]:
    return sorted(set(problems), key=lambda problem: (problem.entry or "", problem.code, problem.message))


def _workspace_members(workspace: Workspace) -> list[Problem]:
    path = ("tool", "uv", "workspace", "members")
    tree = read_toml(workspace.root / "pyproject.toml", "pyproject.toml")
    found = subtree(tree, path).value
    packages = [str(package.relative_to(workspace.root)) for package in workspace.root.glob("packages/*")]
    members = [
        member
        for member in (str(item).removeprefix("./") for item in (found if isinstance(found, list) else ()))
        if member.startswith("packages") or any(fnmatchcase(package, member) for package in packages)
    ]
    if not members:
        return []
    return [
        Problem(
            "workspace-member",
            f"tool.uv.workspace.members names {', '.join(members)}; packages must be autonomous, each with its own lock",
            where=str(tree.place(path)),
            hint=f"${{EDITOR:-vi}} +{tree.place(path).line or 1} pyproject.toml",
        )
    ]


def list_remotes(sources: Sources, wanted: Iterable[Source]) -> dict[str, Refs | RemoteError]:
    """What each repository of some sources has, or why that is not known: one listing each, all at once."""
    urls = sorted({source.url for source in wanted if isinstance(source, GitSource)})

    def listing(url: str) -> Refs | RemoteError:
        try:
            return sources.repository(url).remote_refs()
        except RemoteError as error:
            return error

    return dict(zip(urls, at_once(listing, urls, _REMOTES_AT_ONCE, name="remotes"), strict=True))


class Checker:
    """One check of one profile.

    Args:
        workspace, profile, pins, question: what is checked.
        holders: the plugins that each entry is locked for, as far as that is known.
    """

    def __init__(
        self,
        workspace: Workspace,
        profile: Profile,
        pins: Pins,
        question: Question,
        holders: Mapping[str, Sequence[str]] | None = None,
    ):
        self._holders = holders or {}
        self._workspace = workspace
        self._profile = profile
        self._pins = pins
        self._core = core_versions(workspace)
        # A package that cannot be locked yet is still read, so that everything wrong with it is told at once.
        self.sources = Sources(workspace, profile, pins, offline=question.offline)
        asked = asked_cores(question.cores, self._core)
        self.judge = CoreJudge(profile, self.sources, self._core, asked)
        self._all_tags = question.all_tags
        self._offline = question.offline

    def check_entry(
        self, entry: Entry, listings: Mapping[str, Mapping[str, Resolved] | RemoteError]
    ) -> tuple[list[Problem], list[Row]]:
        """What is wrong with one entry by itself, and which core versions it fits."""
        problems = []
        if entry.source.kind not in self._profile.sources:
            allowed = ", ".join(self._profile.sources)
            message = f"source is {entry.source.kind} ({entry.source}); {self._profile.name} allows {allowed}"
            remark = ""
            if isinstance(entry.source, PathSource):
                remark = f"  # name its repository and a tag here; the path belongs into {entry.name}.dev.yaml"
            problems.append(self._problem("source-not-allowed", entry, message, hint=f"{edit_hint(entry)}{remark}"))
        if reason := refused_here(entry.source, self._profile, self._workspace):
            problems.append(self._problem("source-not-allowed", entry, reason, hint=edit_hint(entry)))
        refs: Mapping[str, Resolved] | None = None
        broken: Problem | None = None
        if isinstance(entry.source, GitSource) and entry.source.url in listings:
            listing = listings[entry.source.url]
            if isinstance(listing, RemoteError):
                message = f"{listing.message}; nothing is known about its {entry.source.ref_kind}"
                broken = self._problem(listing.code, entry, message, hint=listing.hint)
            else:
                refs = listing
                broken = self.check_ref(entry, entry.source, refs)
        problems.extend([broken] if broken else [])
        gone = broken is not None and broken.severity == "error"
        try:
            # Of what cannot be asked for now, the pins still tell.
            member = self.sources.member(entry) if refs is not None and not gone else self._known(entry)
        except EnvbuilderError as error:
            hint = error.hint or edit_hint(entry)
            problems.append(self._problem(error.code, entry, error.message, where=error.where, hint=hint))
            member = self.sources.glimpse(entry)
        rows, unfit = self._check_core(entry, member, refs or {})
        problems.extend(unfit)
        if member is not None:
            problems.extend(self._check_declared(entry, member))
            problems.extend(self.check_signature(entry, member.pin, refs) if member.pin else ())
            problems.extend(self._check_lfs(entry, member.pin) if member.pin else ())
            problems.extend(self._check_built_with(entry, member.pin) if member.pin else ())
        return problems, rows

    def _known(self, entry: Entry) -> Member | None:
        pin = self._pins.entries.get(entry.name)
        known = pin is not None and isinstance(entry.source, GitSource) and same_place(pin, entry.source)
        if isinstance(entry.source, GitSource) and (not known or entry.name in self._pins.edited):
            return None
        return self.sources.member(entry)

    def check_ref(self, entry: Entry, source: GitSource, refs: Mapping[str, Resolved]) -> Problem | None:
        if source.ref_kind == "rev":
            return None  # A commit cannot move; whether it is there shows when it is fetched.
        place = "tags" if source.ref_kind == "tag" else "heads"
        found = refs.get(f"refs/{place}/{source.ref}")
        pin = self._pins.entries.get(entry.name)
        pinned = pin if pin is not None and same_place(pin, source) else None
        listing = f"git ls-remote --{place} {shlex.quote(self.sources.repository(source.url).remote)}"
        if found is None and pinned is not None:
            message = (
                f"{source.ref_kind} {source.ref!r} was {pinned.commit[:12]} when locked, and is gone from {source.url}"
            )
            return self._problem("tag-deleted", entry, message, hint=listing)
        if found is None:
            message = f"{source.url} has no {source.ref_kind} {source.ref!r}{nearest(source.ref, refs, place)}"
            return self._problem("tag-missing", entry, message, hint=listing)
        if pinned is None or source.ref_kind != "tag" or found.object == pinned.tag_object:
            return None
        hint = f"{self._repin(entry)}  # if that was meant"
        if found.commit == pinned.commit:
            message = f"tag {source.ref!r} was made anew since it was locked; it names the same commit"
            return replace(self._problem("tag-recreated", entry, message, hint=hint), severity="warning")
        message = f"tag {source.ref!r} was {pinned.commit[:12]} when locked, and names {found.commit[:12]} now"
        return self._problem("tag-moved", entry, message, hint=hint)

    def check_pins(self, entries: Sequence[Entry]) -> list[Problem]:
        """Pins that are not as `lock` wrote them, or not what their commits say."""
        where = self._workspace.show(pins_path(self._workspace, self._profile))

        def edited(entry: Entry) -> str | None:
            pin = self._pins.entries.get(entry.name)
            if pin is None or not isinstance(entry.source, GitSource) or not same_place(pin, entry.source):
                return None
            return "it was edited" if entry.name in self._pins.edited else self._contradiction(pin, entry.source)

        return [
            Problem("pin-edited", f"the pin of {entry.name}: {reason}", entry.name, where, self._repin(entry))
            for entry in entries
            if (reason := edited(entry))
        ]

    def _repin(self, entry: Entry) -> str:
        """The command that asks for an entry's tag anew, and for no tag that nobody told to have moved."""
        return " ".join(
            ["envbuilder lock --profile", self._profile.name, "--repin", *self._holders.get(entry.name, ())]
        )

    def _contradiction(self, pin: Pin, source: GitSource) -> str | None:
        """Where a pin and its commit differ; None where they agree, or the commit is not at hand."""
        repository = self.sources.repository(source.url)
        tree, tagged = repository.tree_and_tagged(pin.commit, pin.tag_object)
        if tree is None:
            return None
        try:
            declared = self.sources.static(repository, pin.commit, source)
        except MetadataError:
            return None  # It was read when it was locked, by another envbuilder's rules.
        facts = {
            "tree": (pin.tree, tree),
            "commit": (pin.commit, tagged),
            "name": (pin.name, declared.name),
            "version": (pin.version, declared.version),
            "requires": (pin.requires, declared.dependencies),
        }
        differing = ((key, said, real) for key, (said, real) in facts.items() if real is not None and said != real)
        return next((f"it says {key} {_shown(said)}, its commit {_shown(real)}" for key, said, real in differing), None)

    def check_signature(
        self, entry: Entry, pin: Pin, refs: Mapping[str, Resolved] | None, *, hint: str | None = None
    ) -> list[Problem]:
        if not self._profile.require_signed_tags or pin.ref_kind != "tag":
            return []
        repository = self.sources.repository(pin.url)
        name = pin.tag_object
        if repository.tag_text(name) is None and refs is not None:
            found = repository.fetch("tag", pin.ref)  # A clone that is new, or a tag that was made anew.
            name = found.object if found and found.commit == pin.commit else name
        if not repository.has(name):
            if signatures.is_good(pin.signature):
                return []
            message = f"tag {pin.ref!r}: its signature was {pin.signature!r} when it was locked"
            return [self._problem("tag-unsigned", entry, message, hint=hint or edit_hint(entry))]
        signature = signatures.read(repository, name, pin.ref, self._workspace)
        if signature.state == "good":
            return []
        message = f"tag {pin.ref!r}: {signature.text}; profile {self._profile.name} wants signed tags"
        return [
            self._problem("tag-unsigned", entry, message, hint=self._trust_hint(hint or edit_hint(entry), signature))
        ]

    def _check_lfs(self, entry: Entry, pin: Pin, hint: str | None = None) -> Iterator[Problem]:
        """Files of a pinned commit, among its code, of which an environment gets the Git LFS pointers alone."""
        if pin.lfs:
            return
        repository = self.sources.repository(pin.url)
        own = pointers(repository, pin.commit, pin.subdirectory)
        found = [each.path for each in own if each.is_code]
        code = f"{pin.subdirectory}/src/".lstrip("/")
        with contextlib.suppress(EnvbuilderError):  # Whoever builds it is told of one that is not to be had.
            if f"{pin.commit}:.gitmodules" in repository.looked:
                self.sources.bring(pin, offline=self._offline)
        for inside in self.sources.submodules(pin):
            if f"{inside.folder}/".startswith(code):
                found += [f"{inside.folder}/{each.path}" for each in pointers(inside.repository, inside.commit)]
        if found:
            message = f"{shown_files(found)} of {entry.source} {POINTERS}"
            yield self._problem("lfs-pointer", entry, message, hint=hint or f"{edit_hint(entry)}  {LFS_REMARK}")

    def _check_built_with(self, entry: Entry, pin: Pin, hint: str | None = None) -> Iterator[Problem]:
        """Git sources that a package is built with, of which no lock holds the commit."""
        if "git-branch" in self._profile.sources:
            return
        for wish in self.sources.built_with(pin):
            if not COMMIT.fullmatch(wish.source.ref):
                message = (
                    f"it is built with {wish.name} from {wish.source}, which names no whole commit, and no lock holds what"
                    f" builds; {self._profile.name} allows {', '.join(self._profile.sources)}"
                )
                remark = "  # take a tag whose build requirements name a commit of forty digits, or a release"
                yield self._problem("source-not-allowed", entry, message, hint=hint or f"{edit_hint(entry)}{remark}")

    def _trust_hint(self, edit: str, signature: signatures.Signature) -> str:
        if signature.state != "unknown":
            return f"{edit}  # take a tag that is signed"
        setting, path = {
            "ssh": ("allowed-signers", self._workspace.allowed_signers),
            "gpg": ("allowed-keys", self._workspace.allowed_keys),
        }.get(signature.kind, ("allowed-signers", None))
        if path is None:
            return f"${{EDITOR:-vi}} pyproject.toml  # set tool.envbuilder.{setting}"
        return f"${{EDITOR:-vi}} {shlex.quote(self._workspace.show(path))}  # if this signer is to be trusted"

    def _check_declared(self, entry: Entry, member: Member) -> list[Problem]:
        problems = []
        declared = member.metadata
        if declared.name is not None and canonicalize_name(declared.name) != entry.name:
            message = f"the package at {entry.source} is {declared.name!r}, the entry {entry.name!r}"
            problems.append(self._problem("name-mismatch", entry, message, hint=edit_hint(entry)))
        match entry.source, declared.version:
            case GitSource(ref_kind="tag", ref=tag), str(version) if not compat.tag_fits(tag, version, entry.name):
                message = f"tag {tag!r} holds a package that declares version {version}"
                problems.append(self._problem("version-mismatch", entry, message, hint=edit_hint(entry)))
        return problems

    def _check_core(
        self, entry: Entry, member: Member | None, refs: Mapping[str, Resolved]
    ) -> tuple[list[Row], list[Problem]]:
        """Judge by the core what is no core package itself; without a member it is only listed."""
        if entry.name in self._core or not self._core:
            return [], []
        declared = self._judged(entry, member)
        row = self._with_releases(self.judge.row(entry, declared, refs), entry, declared)
        tags = self.judge.tag_rows(entry, refs) if self._all_tags else []
        others = [tag for tag in tags if not tag.locked]
        # Of the tag that is locked its pin tells, also where the repository cannot be read.
        rows = [row if tag.locked else tag for tag in tags] if len(others) < len(tags) else [row, *others]
        problems = list(self.judge.problems(row, entry, declared)) if member is not None else []
        url = entry.source.url if isinstance(entry.source, GitSource) else ""
        if error := self.judge.unread.get(url):
            message = f"{error.message}; what its tags accept is not known"
            warning = self._problem(error.code, entry, message, hint=error.hint)
            problems.append(replace(warning, severity="warning"))
        return rows, problems

    def _with_releases(self, row: Row, entry: Entry, declared: Metadata | None) -> Row:
        """A row with the newest release that fits, where the index's package is what does not."""
        if declared is None or self._offline or not isinstance(entry.source, PypiSource):
            return row
        fits = []
        for fit in row.fits:
            version = None
            if fit.fits is False and not self.judge.takes(fit.core, entry, declared):
                with contextlib.suppress(
                    EnvbuilderError
                ):  # An index that does not answer takes nothing from a verdict.
                    version = newest_fitting(entry, fit.core, self.judge, self._profile)
            fits.append(self.judge.with_release(fit, entry, version) if version else fit)
        return replace(row, fits=tuple(fits))

    def _judged(self, entry: Entry, member: Member | None) -> Metadata | None:
        """What a package declares; of a release, what it declared when it was locked."""
        if member is None:
            return None
        if not isinstance(entry.source, PypiSource):
            return member.metadata
        release = self._pins.releases.get(entry.name)
        if release is None or release.requires is None or not compat.accepts(entry.source.specifier, release.version):
            return None
        return Metadata(entry.name, release.version, release.requires_python, release.requires)

    def check_lock(self, plugin: Entry, registry: Registry) -> list[Problem]:
        """What a plugin's lock, stale or not, holds against what was pinned."""
        folder = lock_folder(self._workspace, self._profile, plugin.name)
        where = self._workspace.show(folder / "uv.lock")
        hint = f"envbuilder lock --profile {self._profile.name} {plugin.name}"
        if not (folder / "uv.lock").exists():
            return []  # `lock-missing` says it.
        try:
            packages = read_lock(folder)
        except (ConfigError, ValueError):
            return []  # `lock-stale` says it.
        sources = {entry.name: entry.source for entry in registry.entries}
        pins = {
            name: pin
            for name, pin in self._pins.entries.items()
            if isinstance(source := sources.get(name), GitSource) and same_place(pin, source)
        }
        return [
            Problem("lock-off-tag", f"holds {name} at {found}, the pin is {pinned}", plugin.name, where, hint)
            for name, found, pinned in off_pin(packages, pins)
        ]

    def dependencies_of(self, plugin: Entry, registry: Registry) -> list[Dependency]:
        """The packages of a plugin's lock, stale or not, whose sources packages name and no registry entry does."""
        folder = lock_folder(self._workspace, self._profile, plugin.name)
        registered = {entry.name for entry in registry.entries}
        taken = {
            (e.source.url, e.source.ref_kind, e.source.ref) for e in registry.entries if isinstance(e.source, GitSource)
        }
        try:
            if not any(is_own(package, registered) for package in read_lock(folder)):
                return []
            graph = parse_graph(lock_text(folder, folder.name), folder.name)
        except (ConfigError, ValueError):
            return []  # `lock-missing` and `lock-stale` say it.
        found = (self._with_kind(each) for each in dependencies(graph, plugin.name, registered))
        # What an entry names, too, is judged as the entry's.
        return [
            each
            for each in found
            if not (each.is_inside and (s := each.source) and (s.url, s.ref_kind, s.ref) in taken)
        ]

    def _with_kind(self, dependency: Dependency) -> Dependency:
        """A dependency whose pin, where there is one, tells whether its ref is a tag or a branch."""
        pin = self.sources.pinned_dependency(dependency.package.git) if dependency.package.git else None
        return replace(dependency, pin=pin)

    def check_dependencies(
        self, plugin: Entry, found: Sequence[Dependency], listings: Mapping[str, Refs | RemoteError]
    ) -> Iterator[Problem]:
        """What is wrong with sources that no registry entry names, each told with the way to it."""
        where = self._workspace.show(lock_folder(self._workspace, self._profile, plugin.name) / "uv.lock")
        for dependency in found:
            problems = (
                self._check_git(plugin, dependency, dependency.source, listings, where)
                if dependency.source
                else self._check_file(dependency)
            )
            for problem in problems:
                message = f"{dependency.shown}: {problem.message}"
                yield replace(problem, message=message, entry=plugin.name, where=where)

    def _check_git(
        self,
        plugin: Entry,
        dependency: Dependency,
        source: GitSource,
        listings: Mapping[str, Refs | RemoteError],
        where: str,
    ) -> Iterator[Problem]:
        listing = listings.get(source.url)
        refs = None if listing is None or isinstance(listing, RemoteError) else listing
        if refs is not None and dependency.pin is None:
            source = settled(source, refs)
        package, pin = dependency.package, dependency.pin
        entry = Entry(package.name, "library", source, where)
        remedy = adoption(package, source, refs or {})
        if source.kind not in self._profile.sources:
            allowed = ", ".join(self._profile.sources)
            message = f"source is {source.kind} ({source}); {self._profile.name} allows {allowed}"
            yield Problem("source-not-allowed", message, hint=remedy)
        if reason := refused_here(source, self._profile, self._workspace):
            yield Problem("source-not-allowed", reason, hint=remedy)
        if isinstance(listing, RemoteError):
            message = f"{listing.message}; nothing is known about its {source.ref_kind}"
            yield Problem(listing.code, message, hint=listing.hint)
        judge = self._narrowed(package.name, pin, plugin)
        if str(source) in self._pins.edited:
            hint = f"envbuilder lock --profile {self._profile.name} --repin {plugin.name}"
            yield Problem("pin-edited", f"the pin of {source} was edited", hint=hint)
        if refs is not None and source.ref != DEFAULT_BRANCH and (broken := judge.check_ref(entry, source, refs)):
            yield broken
        if pin is not None and package.commit != pin.commit:
            hint = f"envbuilder lock --profile {self._profile.name} {plugin.name}"
            yield Problem("lock-off-tag", f"the lock is at {package.commit}, the pin is {pin.commit}", hint=hint)
        if not dependency.is_inside:
            declared = Member(entry, Metadata(package.name, package.version))
            yield from (replace(each, hint=remedy) for each in self._check_declared(entry, declared))
        if pin is not None:
            yield from judge.check_signature(entry, pin, refs, hint=remedy)
            yield from self._check_lfs(entry, pin, hint=remedy)
            yield from self._check_built_with(entry, pin, hint=remedy)

    def _narrowed(self, name: str, pin: Pin | None, plugin: Entry) -> Checker:
        """A checker that knows this one pin, by which a dependency is judged as an entry is."""
        other = copy.copy(self)
        vars(other).update(_pins=Pins({name: pin} if pin else {}), _holders={name: (plugin.name,)})
        return other

    def _check_file(self, dependency: Dependency) -> Iterator[Problem]:
        """A wheel, an sdist or a folder: what is not held by a digest is what it is today only."""
        package = dependency.package
        kind, place = next(iter(package.source.items()))
        if (kind == "url" and package.hashed) or (kind != "url" and "path" in self._profile.sources):
            return
        said = "an address without a digest in the lock" if kind == "url" else "a path"
        message = f"source is {said} ({place}); {self._profile.name} allows {', '.join(self._profile.sources)}"
        release = f"--pypi {package.name}=={package.version}" if package.version else "--git URL --tag TAG"
        yield Problem("source-not-allowed", message, hint=f"envbuilder add {package.name} --library {release}")

    def check_circles(self, plugins: Sequence[Entry], registry: Registry) -> Iterator[Problem]:
        """Plugins whose siblings, as the registry names them now, need one another in a circle."""
        for plugin in plugins:
            with contextlib.suppress(EnvbuilderError):  # What cannot be read is told of its entry.
                if circle := cyclic(closure(plugin, registry, self.sources.member), self._profile):
                    yield circle

    def check_siblings(self, plugins: Sequence[Entry], registry: Registry) -> list[Problem]:
        """Libraries that these plugins' locks hold at other commits than one another's, or than any other plugin's."""
        locks = {}
        for plugin in registry.plugins:
            with contextlib.suppress(ConfigError, ValueError):  # Which `lock-missing` and `lock-stale` tell.
                locks[plugin.name] = read_lock(lock_folder(self._workspace, self._profile, plugin.name))
        chosen = {package.name for plugin in plugins for package in locks.get(plugin.name, ())}
        registered = {entry.name for entry in registry.entries}
        return [problem for problem in divergent(locks, self._profile, registered) if problem.entry in chosen]

    def check_pinned_core(self, entries: Sequence[Entry]) -> list[Problem]:
        """Where the registry's core is another version than the current one, which plugins are judged by."""
        problems = []
        for entry in entries:
            current, pin = self._core.get(entry.name), self._pins.entries.get(entry.name)
            if current is None or pin is None or not isinstance(entry.source, GitSource):
                continue
            if entry.name in self._pins.edited:
                continue  # `pin-edited` says it.
            if same_place(pin, entry.source) and not compat.tag_fits(current, pin.version, entry.name):
                message = f"the core is {entry.name} {current}; environments get {pin.version} ({entry.source})"
                problems.append(
                    Problem("core-not-pinned", message, entry.name, entry.where, edit_hint(entry), severity="warning")
                )
        return problems

    def check_python(self, plugin: Entry, draft: Draft | Problem) -> list[Problem]:
        """Whether one interpreter satisfies profile, entry and package together."""
        request = python_specifier(plugin.python or self._profile.python)
        wants = {"the entry" if plugin.python else f"profile {self._profile.name}": request}
        members = draft.members if isinstance(draft, Draft) else self._readable(plugin)
        declared = {m.entry.name: self._judged(m.entry, m) for m in members}
        wants |= {name: said.requires_python for name, said in declared.items() if said and said.requires_python}
        shown = "; ".join(f"{who} wants {specifier}" for who, specifier in wants.items())
        if not compat.python_possible(wants.values()):
            message = f"no Python satisfies all: {shown}"
            return [self._problem("python-incompatible", plugin, message, hint=edit_hint(plugin, "python"))]
        try:
            interpreters.find(self._workspace.shared, ",".join(wants.values()), offline=True)
        except ToolError as error:
            return [self._problem("python-incompatible", plugin, f"{error.message}; {shown}", hint=error.hint)]
        return []

    def _readable(self, plugin: Entry) -> tuple[Member, ...]:
        # What cannot be read is told elsewhere.
        try:
            return (self.sources.member(plugin),)
        except EnvbuilderError:
            return tuple(filter(None, [self.sources.glimpse(plugin)]))

    @staticmethod
    def _problem(
        code: str, entry: Entry, message: str, *, where: str | None = None, hint: str | None = None
    ) -> Problem:
        return Problem(code, message, entry=entry.name, where=where or entry.at("source"), hint=hint)


def _shown(value: object) -> str:
    return ", ".join(map(str, value)) or "nothing" if isinstance(value, tuple) else str(value)
