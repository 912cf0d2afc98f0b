"""One plugin's way from its entry to a ``uv.lock``, written whole or left as it was."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import tempfile
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timezone
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from envbuilder import accelerators, process, uv
from envbuilder.config import core_versions, python_specifier
from envbuilder.documents import parse_toml, read_text, subtree
from envbuilder.errors import ConfigError, EnvbuilderError, Interrupted
from envbuilder.fs import keep_from_git, unwritable, write_atomically
from envbuilder.lock import releases
from envbuilder.lock.aligning import Aligner, Bare
from envbuilder.lock.backends import Backends, Wanted, others_built
from envbuilder.lock.files import lock_digest, lock_folder, off_pin, read_lock
from envbuilder.lock.graph import Graph
from envbuilder.lock.graph import parse as parse_graph
from envbuilder.lock.mirrors import IndexMirrors
from envbuilder.lock.project import (
    LockedPackage,
    Member,
    Settled,
    build_variables,
    built_from_source,
    closure,
    contradictions,
    declared_torch,
    edit_hint,
    inputs_digest,
    left_out,
    missing_at_build,
    render,
    render_scratch,
    reusing_answers,
    torch_backends,
    while_resolving,
)
from envbuilder.lock.siblings import cyclic
from envbuilder.lock.sources import Sources, ensure_objects
from envbuilder.models import (
    Entry,
    GitSource,
    LockRecord,
    Pin,
    Pins,
    PluginOutcome,
    Profile,
    PypiSource,
    Registry,
    Workspace,
)
from envbuilder.store import interpreters

# Measured: four resolutions at once are the most that two cores and one index gain from.
JOBS = 4
# A folder that a lock is made in ends with this.
STAGING = ".lock-in-progress"
# What is yanked or deleted meanwhile shows that much later.
_ANSWERS_HOLD_S = 3600


@dataclass(frozen=True)
class Request:
    """What `lock` is asked to do, apart from which plugins.

    Attributes:
        offline: touch no network.
        upgrade: take the newest versions that fit, of all packages.
        packages: take the newest of these alone (a name, or ``name==version``); plugins without them are left alone.
        repin: ask for every tag anew.
        jobs: how many plugins at a time.
    """

    offline: bool = False
    upgrade: bool = False
    packages: tuple[str, ...] = ()
    repin: bool = False
    jobs: int = JOBS

    def renews(self, name: str, source: GitSource) -> bool:
        """Whether a git source that packages name themselves is asked for anew; an upgrade moves branches."""
        named = {str(canonicalize_name(Requirement(each).name)) for each in self.packages}
        return self.repin or name in named or (self.upgrade and source.ref_kind == "branch")


@dataclass(frozen=True)
class Draft:
    """A plugin's generated project before uv has seen it.

    Attributes:
        plugin: whose.
        members: the registry entries in its closure, itself first.
        text: the ``pyproject.toml``.
        inputs: digest of all that its lock follows from.
        backends: constraints for builds.
        torch: the packages in it that each torch backend has its own builds of.
        torch_backends: those that its lock offers, each as an extra; none where there is nothing to choose.
        build_variables: what entries' `env` adds to the builds of packages.
        off_pin: where the lock that there is differs from the pins, as `off_pin` tells it.
        dependencies: pins of the git sources that packages in it name themselves.
        off: where its lock is not at these pins.
    """

    plugin: Entry
    members: tuple[Member, ...]
    text: str
    inputs: str
    backends: tuple[str, ...] = ()
    torch: frozenset[str] = frozenset()
    torch_backends: tuple[str, ...] = ()
    build_variables: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    off_pin: tuple[tuple[str, str, str], ...] = ()
    dependencies: tuple[Pin, ...] = ()
    off: str = ""

    @property
    def every_pin(self) -> list[Pin]:
        return [*self.pins.values(), *self.dependencies]

    @property
    def pins(self) -> dict[str, Pin]:
        return {item.entry.name: item.pin for item in self.members if item.pin is not None}


class Locker:
    """Locks the plugins of one workspace in one profile.

    Args:
        workspace, profile, registry: what to lock.
        pins: what was pinned before.
        request: how.
        frozen: whether only what is pinned already counts.
    """

    def __init__(
        self,
        workspace: Workspace,
        profile: Profile,
        registry: Registry,
        pins: Pins,
        request: Request,
        *,
        frozen: bool = False,
    ):
        self._workspace = workspace
        self._profile = profile
        self._registry = registry
        self._pins = pins
        self._request = request
        self._core = core_versions(workspace)
        self.sources = Sources(
            workspace,
            profile,
            pins,
            offline=request.offline,
            repin=request.repin,
            frozen=frozen,
            renewed=request.renews,
        )
        self._registered = frozenset(entry.name for entry in registry.entries)
        self.sources.build_with(registry.entries)
        self._mirrors = IndexMirrors(profile.index_mirrors)
        self._forgotten: set[str] = set()
        self._backends = Backends(self._solve, profile.build_constraints)
        self.aligner = Aligner(registry, pins.groups, self._bare, self._solve_group)

    def folder(self, plugin: str) -> Path:
        """Where a plugin's project and lock stand."""
        return lock_folder(self._workspace, self._profile, plugin)

    def draft(
        self,
        plugin: Entry,
        extra: Sequence[Entry] = (),
        backends: tuple[str, ...] | None = None,
        torch: Collection[str] | None = None,
        built: Collection[str] = (),
    ) -> Draft:
        """A plugin's project as it should be now.

        Args:
            plugin: which.
            extra: entries known to be in its closure.
            backends: constraints for builds; those of its last lock where not given.
            torch: packages of torch's indexes known to be in it; those that metadata names where not given.
            built: packages known to be built.

        Raises:
            EnvbuilderError: a source of its closure cannot be resolved.
        """
        if backends is None:
            record = self._pins.locks.get(plugin.name)
            backends = record.backends if record else ()
        members = closure(plugin, self._registry, self.sources.member, also=extra)
        if circle := cyclic(members, self._profile):
            raise EnvbuilderError(circle.message, code=circle.code, where=circle.where, hint=circle.hint)
        known = self._torch_in(plugin, members, torch)
        offered = torch_backends(plugin, self._profile) if known else ()
        folder = f"profiles/{self._profile.name}/{plugin.name}"
        groups = self.aligner.records
        lines = sorted({line for group in plugin.align if group in groups for line in groups[group].constraints})
        text = render(members, self._profile, folder, self._core, Settled(backends, known, lines, built))
        aligned = {group: group in groups for group in plugin.align}
        inputs = inputs_digest(text, members, self._core, aligned=aligned)
        return Draft(plugin, members, text, inputs, backends, known, offered, build_variables(members, built))

    def recorded(self, plugin: Entry) -> Draft:
        """A plugin's project as it should be now, if its closure still is what its lock holds.

        Raises:
            EnvbuilderError: a source of its closure cannot be resolved.
        """
        packages: tuple[LockedPackage, ...] = ()
        with contextlib.suppress(EnvbuilderError, ValueError):
            packages = read_lock(self.folder(plugin.name))
        names = {package.name for package in packages}
        # Some siblings are told by no metadata, only by an index's package.
        siblings = [entry for entry in self._registry.entries if entry.name in names and entry.name != plugin.name]
        built = built_from_source(packages)
        draft = self.draft(plugin, siblings, torch=accelerators.PACKAGES & names, built=built)
        draft = replace(draft, off_pin=tuple(off_pin(packages, draft.pins)))
        try:
            pins = self._dependencies(packages)
        except EnvbuilderError as error:
            return replace(draft, off=error.message)
        off = (f"it holds {name} at {found}, the pin is {pinned}" for name, found, pinned in _off(packages, pins))
        return replace(draft, dependencies=tuple(pins.values()), off=next(off, ""))

    def _dependencies(self, packages: Sequence[LockedPackage]) -> dict[GitSource, Pin]:
        """The pins of the git sources that the packages of a lock name themselves.

        Raises:
            EnvbuilderError: one cannot be asked for, or may not be.
        """
        found = {}
        for package in packages:
            source = package.git
            if source is not None and package.name not in self._registered:
                pin = self.sources.dependency(source, package.name)
                found[source] = replace(pin, version=package.version or "")
        return found

    def _foreseen(self, members: Sequence[Member]) -> list[Pin]:
        return self.sources.foreseen(members, self._registered | left_out(members[0].entry))

    def _bare(self, plugin: Entry, extra: Sequence[Entry]) -> Bare:
        """A plugin's project as its align groups see it: without what they, or builds, brought to it."""
        members = closure(plugin, self._registry, self.sources.member, also=extra)
        known = self._torch_in(plugin, members)
        folder = f"profiles/{self._profile.name}/{plugin.name}"
        text = while_resolving(render(members, self._profile, folder, self._core, Settled(torch=known)), members)
        return Bare(text, members, self._python(plugin))

    def _torch_in(
        self, plugin: Entry, members: tuple[Member, ...], torch: Collection[str] | None = None
    ) -> frozenset[str]:
        known = declared_torch(members, self._python(plugin)) if torch is None else frozenset(torch)
        return known - (left_out(plugin) | {item.entry.name for item in members})

    def lock(self, plugin: Entry) -> tuple[PluginOutcome, Draft | None]:
        """Lock one plugin; a failure leaves its files as they were."""
        start = time.monotonic()
        try:
            draft = self.recorded(plugin)
            is_current = self.is_current(draft)
            if is_current and not self._wants_newer(plugin):
                detail = self._renewed(draft)
                return PluginOutcome(plugin.name, "unchanged", time.monotonic() - start, detail), draft
            before = self._texts(plugin) if is_current else None
            self.aligner.refuse_failed(plugin)
            # From what its metadata names alone: what the old lock held besides may not be needed any more.
            final = self._resolve(self._first_draft(plugin))
        except Interrupted:
            raise
        except (EnvbuilderError, OSError) as error:
            known = error if isinstance(error, EnvbuilderError) else unwritable(self.folder(plugin.name), error)
            problems = tuple(
                replace(problem, entry=plugin.name, hint=problem.hint or edit_hint(plugin))
                for problem in known.problems
            )
            return PluginOutcome(plugin.name, "failed", time.monotonic() - start, problems=problems), None
        if before == self._texts(plugin):
            return PluginOutcome(plugin.name, "unchanged", time.monotonic() - start, "nothing newer"), final
        return PluginOutcome(plugin.name, "locked", time.monotonic() - start), final

    def _renewed(self, draft: Draft) -> str:
        """Tell which pins are written anew for a lock that stays as it is."""
        known = self._pins.entries
        names = [name for name, pin in draft.pins.items() if name in known and known[name] != pin]
        return f"pins written anew: {', '.join(names)}" if names else ""

    def _texts(self, plugin: Entry) -> list[str]:
        return [(self.folder(plugin.name) / name).read_text(encoding="utf-8") for name in ("pyproject.toml", "uv.lock")]

    def _first_draft(self, plugin: Entry) -> Draft:
        draft = self.draft(plugin)
        if any(isinstance(item.entry.source, PypiSource) for item in draft.members):
            # What a release asks for is not known yet. Most ask for the core, which their index need not have.
            draft = self.draft(plugin, extra=[entry for entry in self._registry.entries if entry.name in self._core])
        if draft.backends and not self._request.upgrade:
            return draft
        # What its members declare is known before uv is asked, which spares asking twice.
        extra = [item.entry for item in draft.members[1:]]
        return self.draft(plugin, extra=extra, backends=self._find_backends(draft.members))

    def _wants_newer(self, plugin: Entry) -> bool:
        if self._request.upgrade or not self._request.packages:
            return self._request.upgrade
        names = {str(canonicalize_name(Requirement(each).name)) for each in self._request.packages}
        with contextlib.suppress(EnvbuilderError, ValueError):
            return bool(names & {package.name for package in read_lock(self.folder(plugin.name))})
        return False

    def preview(self, plugin: Entry) -> str:
        """The text of the lock that a lock with this request would write; the workspace is only read.

        Raises:
            EnvbuilderError: uv finds none.
        """
        draft = self.recorded(plugin)
        foreseen = {pin.source: pin for pin in (*draft.dependencies, *self._foreseen(draft.members))}
        draft = replace(draft, dependencies=tuple(foreseen.values()))
        interpreter = interpreters.find(self._workspace.shared, self._python(plugin), offline=self._request.offline)
        with self._aside(plugin.name) as staging:
            self._run_uv(draft, staging, interpreter.path)
            return (staging / "uv.lock").read_text(encoding="utf-8")

    def is_current(self, draft: Draft) -> bool:
        """Whether a plugin's files are what its inputs lead to; digests alone tell."""
        return stale_reason(self.folder(draft.plugin.name), draft, self._pins.locks.get(draft.plugin.name)) is None

    def _resolve(self, draft: Draft) -> Draft:
        plugin = draft.plugin
        self._refuse_contradictions(draft)
        interpreter = interpreters.find(self._workspace.shared, self._python(plugin), offline=self._request.offline)
        with self._staging(plugin.name) as staging:
            packages: tuple[LockedPackage, ...] = ()
            draft = replace(draft, dependencies=tuple(self._foreseen(draft.members)))
            for _ in range(len(self._registry.entries) + len(accelerators.PACKAGES) + 3):
                self._run_uv(draft, staging, interpreter.path)
                packages = read_lock(staging)
                pins = self._dependencies(packages)
                names = {package.name for package in packages}
                found = [entry for entry in self._registry.entries if entry.name in names - {plugin.name}]
                backends = self._find_backends(draft.members, packages)
                # Which of torch's packages there are shows in a lock, where no metadata at hand names them.
                torch, built = draft.torch | accelerators.PACKAGES & names, built_from_source(packages)
                again = self.draft(plugin, found, backends, torch, built)
                off = list(_off(packages, pins))
                if again.text == draft.text and not off and not self._forget_off_pin(draft, packages, staging):
                    break
                if off:  # uv would keep these commits.
                    (staging / "uv.lock").unlink()
                draft = replace(again, dependencies=tuple(pins.values()))
                self._refuse_contradictions(draft)
            draft = replace(draft, dependencies=tuple(pins.values()))
            self._prove(draft, packages)
            text = (staging / "uv.lock").read_text(encoding="utf-8")
        folder = self.folder(plugin.name)
        write_atomically(folder / "uv.lock", text)
        write_atomically(folder / "pyproject.toml", draft.text)
        return draft

    def _forget_off_pin(self, draft: Draft, packages: Sequence[LockedPackage], staging: Path) -> bool:
        """Have uv forget what its cache holds of pinned commits under other versions; whether it is to be asked again.

        Such a version is that of a build which something steered, once, for whatever project.
        """
        pins = draft.pins
        at_pin = [each for each in packages if each.name in pins and each.commit == pins[each.name].commit]
        names = {name for name, _, _ in off_pin(at_pin, pins)} - self._forgotten
        if names:
            self._forgotten |= names
            uv.forget(names, cwd=staging)
            (staging / "uv.lock").unlink()
        return bool(names)

    def _find_backends(self, members: tuple[Member, ...], packages: Sequence[LockedPackage] = ()) -> tuple[str, ...]:
        """The constraints under which a plugin's packages are built: those of its last lock, unless they do not do."""
        ensure_objects(self.sources, [item.pin for item in members if item.pin], offline=self._request.offline)
        declared = sorted({line for item in members for line in self.sources.build_requires(item)})
        record = self._pins.locks.get(members[0].entry.name)
        kept = record.backends if record and not self._request.upgrade else ()
        wanted = Wanted(tuple(declared), more=others_built(packages, members))
        return self._backends.constraints(wanted, kept, self._python(members[0].entry))

    def _solve(self, requirements: Sequence[str], constraints: Sequence[str], python: str) -> tuple[LockedPackage, ...]:
        """What requirements come out as, resolved by themselves."""
        interpreter = interpreters.find(self._workspace.shared, python, offline=self._request.offline)
        with tempfile.TemporaryDirectory(prefix="envbuilder-scratch-") as folder:
            scratch = Path(folder)
            text = render_scratch(requirements, constraints, python, self._profile)
            done = self._ask_uv(scratch, text, interpreter.path, {}, upgrade=())
            if not done.ok:
                problem = uv.explain(done, "", "lock-failed", hint=f"envbuilder lock --profile {self._profile.name}")
                raise EnvbuilderError(problem.message, code=problem.code, hint=problem.hint)
            return read_lock(scratch)

    @property
    def _answers_hold_s(self) -> int:
        """For how long an index's answer stays true, in seconds: where nothing newer counts, since that moment."""
        if self._profile.exclude_newer is None:
            return 0
        moment = datetime.fromisoformat(self._profile.exclude_newer[:19]).replace(tzinfo=timezone.utc)
        return max(0, min(_ANSWERS_HOLD_S, int(time.time() - moment.timestamp())))

    def _solve_group(self, group: str, text: str, members: Sequence[Member], seeds: Sequence[Entry]) -> Graph:
        """What the union of a group's plugins comes out as; it keeps the versions of the first lock that there is."""
        python = str(parse_toml(text, group).value["project"]["requires-python"])
        interpreter = interpreters.find(self._workspace.shared, python, offline=self._request.offline)
        pins = {item.entry.name: item.pin for item in members if item.pin}
        named = [*pins.values(), *self._foreseen(members)]
        ensure_objects(self.sources, named, offline=self._request.offline)
        env = self.sources.git_settings(named)
        with self._staging(f"group-{group}") as staging:
            locks = [self.folder(seed.name) / "uv.lock" for seed in seeds]
            known = next((lock for lock in locks if self._trusted(lock, pins)), None)
            if known and not self._request.upgrade:
                shutil.copyfile(known, staging / "uv.lock")
            done = self._ask_uv(staging, text, interpreter.path, env)
            if not done.ok:
                hint = f"envbuilder lock --profile {self._profile.name}  # after editing {seeds[0].where}"
                raise EnvbuilderError(uv.explain(done, group, "align-conflict", hint=hint).message, hint=hint)
            return parse_graph((staging / "uv.lock").read_text(encoding="utf-8"), group)

    def _python(self, plugin: Entry) -> str:
        return python_specifier(plugin.python or self._profile.python)

    def _refuse_contradictions(self, draft: Draft) -> None:
        found = list(contradictions(draft.members, self._python(draft.plugin), self._core))
        if found:
            hint = f"envbuilder lock --profile {self._profile.name} {draft.plugin.name}  # after editing the registry"
            raise EnvbuilderError("; ".join(found), code="lock-failed", where=draft.plugin.at("source"), hint=hint)

    @contextlib.contextmanager
    def _staging(self, plugin: str) -> Iterator[Path]:
        # Beside the real folder, so that relative paths in the lock are the same from here. A uv that outlived a killed
        # lock may still write to the staging folder of that one: the number keeps it off ours.
        staging = self.folder(plugin).with_name(f".{plugin}.{os.getpid()}{STAGING}")
        try:
            staging.mkdir(parents=True)
        except OSError as error:
            raise unwritable(staging, error) from error
        keep_from_git(staging)  # A killed lock leaves it behind, until the next one.
        try:
            yield staging
        finally:
            shutil.rmtree(staging, ignore_errors=True)

    @contextlib.contextmanager
    def _aside(self, plugin: str) -> Iterator[Path]:
        """A folder out of the workspace from which relative paths lead where they do from the plugin's own."""
        with tempfile.TemporaryDirectory(prefix="envbuilder-preview-") as scratch:
            for each in self._workspace.root.iterdir():
                if each.name != "profiles":
                    (Path(scratch) / each.name).symlink_to(each)
            staging = Path(scratch) / self.folder(plugin).relative_to(self._workspace.root)
            staging.mkdir(parents=True)
            yield staging

    def _run_uv(self, draft: Draft, staging: Path, interpreter: Path) -> None:
        old = self.folder(draft.plugin.name) / "uv.lock"
        if not (staging / "uv.lock").exists() and self._trusted(old, draft.pins):
            shutil.copyfile(old, staging / "uv.lock")
        ensure_objects(self.sources, draft.every_pin, offline=self._request.offline)
        env = self.sources.git_settings(draft.every_pin)
        flags = [*self._upgrade_flags(), *self._rebuilt(draft)]
        done = self._ask_uv(staging, while_resolving(draft.text, draft.members), interpreter, env, flags)
        if not done.ok:
            log = self._workspace.own / "logs" / f"{self._profile.name}-{draft.plugin.name}-lock.log"
            problem = uv.explain(done, draft.plugin.name, "lock-failed", hint="", log=log)
            hint = self._way_out(draft, problem.message)
            raise EnvbuilderError(problem.message, code=problem.code, where=draft.plugin.where, hint=hint)

    def _rebuilt(self, draft: Draft) -> Iterator[str]:
        """Flags by which uv builds anew, at their versions, what the last lock holds by builds with other variables."""
        folder = self.folder(draft.plugin.name)
        with contextlib.suppress(EnvbuilderError, ValueError, OSError):
            text = read_text(folder / "pyproject.toml", f"{folder.name}/pyproject.toml")
            known = subtree(parse_toml(text, folder.name), ("tool", "uv", "extra-build-variables")).value or {}
            for package in read_lock(folder):
                if known.get(package.name) != draft.build_variables.get(package.name):
                    at = f"=={package.version}" if "registry" in package.source else ""
                    yield from ("--upgrade-package", f"{package.name}{at}")

    def _way_out(self, draft: Draft, message: str) -> str:
        """What may be done about uv's finding no lock."""
        plugin = draft.plugin
        again = f"envbuilder lock --profile {self._profile.name} {plugin.name}"
        message = " ".join(word for word in message.split() if word not in {"│", "|"})  # uv breaks long lines.
        if any(mark in word for word in self._request.packages for mark in "=<>~"):
            return f"{again}  # with other versions after --upgrade-package, or none"
        if "by `exclude-newer`" in message:
            return f"${{EDITOR:-vi}} profiles/{self._profile.name}/profile.toml  # exclude-newer"
        if draft.torch_backends and "conflicting indexes" in message:
            # Its own [tool.uv.sources] name an index for torch, which nothing overrules.
            return f"{edit_hint(plugin, 'torch')}  # torch: default leaves it alone, where the profile lists that"
        if "has no subdirectory" in message and (named := re.search(r"build `(\S+) @ git", message)):
            name = named[1]
            return f"envbuilder add {name} --library --git URL --tag TAG  # no folder of that repository has {name}"
        return f"{again}  # after editing {plugin.where}"

    def _upgrade_flags(self) -> list[str]:
        names = [word for package in self._request.packages for word in ("--upgrade-package", package)]
        return ["--upgrade"] if self._request.upgrade else names

    def _ask_uv(
        self, folder: Path, text: str, interpreter: Path, env: Mapping[str, str], upgrade: Sequence[str] | None = None
    ) -> process.Completed:
        """``uv lock`` of a project's text in a folder, by the mirrors; what it writes has canonical addresses."""
        write_atomically(folder / "pyproject.toml", self._mirrors.project(reusing_answers(text, self._answers_hold_s)))
        file = folder / "uv.lock"
        if self._mirrors and file.exists():
            write_atomically(file, self._mirrors.lock_there(file.read_text(encoding="utf-8")))
        flags = self._upgrade_flags() if upgrade is None else upgrade
        done = uv.lock(folder, interpreter, env, offline=self._request.offline, upgrade=flags)
        if self._mirrors and done.ok:
            write_atomically(file, self._mirrors.lock_back(file.read_text(encoding="utf-8")))
        return done

    def _trusted(self, lock: Path, pins: Mapping[str, Pin]) -> bool:
        """Whether uv may start from a lock: it keeps what stands there, edited hashes and addresses included."""
        record = self._pins.locks.get(lock.parent.name)
        try:
            if record is None or lock_digest(lock.parent) != record.lock:
                return False
            # uv keeps the commit of a lock that it is given, also where the ref's pin is another one by now.
            packages = [each for each in read_lock(lock.parent) if each.name in pins and each.names(pins[each.name])]
            return not list(off_pin(packages, pins)) and not self._keeps_old(read_lock(lock.parent))
        except (OSError, EnvbuilderError, ValueError):
            return False

    def _keeps_old(self, packages: Sequence[LockedPackage]) -> bool:
        """Whether a lock holds a git source that packages name at another commit than its pin."""
        try:
            return bool(list(_off(packages, self._dependencies(packages))))
        except EnvbuilderError:
            return True

    def with_pins(self, pins: Pins, draft: Draft) -> Pins:
        """The pins with those of a plugin that was locked, and with what was found out about its releases."""
        folder = self.folder(draft.plugin.name)
        dependencies = {str(pin.source): pin for pin in draft.dependencies}
        record = LockRecord(draft.inputs, lock_digest(folder), draft.backends)
        # What a release asks for matters to the core alone.
        names = releases.candidates(draft.members, pins.releases) if self._core else set()
        found = {
            package.name: releases.read(package, folder, self._workspace, self._profile, offline=self._request.offline)
            for package in (read_lock(folder) if names else ())
            if package.name in names and not self._known(package, pins)
        }
        return replace(
            pins,
            entries={**pins.entries, **draft.pins},
            locks={**pins.locks, draft.plugin.name: record},
            edited=pins.edited - draft.pins.keys() - dependencies.keys(),
            groups={**pins.groups, **{group: self.aligner.records[group] for group in draft.plugin.align}},
            releases={**pins.releases, **found},
            dependencies={**pins.dependencies, **dependencies},
        )

    @staticmethod
    def _known(package: LockedPackage, pins: Pins) -> bool:
        release = pins.releases.get(package.name)
        return release is not None and release.version == package.version

    def _prove(self, draft: Draft, packages: Sequence[LockedPackage]) -> None:
        names = {package.name for package in packages}
        for built, needed in missing_at_build(draft.plugin, names):
            raise EnvbuilderError(
                f"{built} is to be built with {needed}, which is not in the environment; a version (as in "
                f"{needed}>=1) takes it from the index for the build alone",
                code="lock-failed",
                where=draft.plugin.at("no-build-isolation"),
                hint=edit_hint(draft.plugin, "no-build-isolation"),
            )
        # Another profile's lock may have pointed the clone's tag at its own pin meanwhile.
        off = [*off_pin(packages, draft.pins), *_off(packages, self._dependencies(packages))]
        for name, commit, pinned in off:
            raise EnvbuilderError(
                f"uv locked {name} at {commit}, but its pin is {pinned}",
                code="lock-off-tag",
                where=draft.plugin.where,
                hint=f"envbuilder lock --profile {self._profile.name} --repin {draft.plugin.name}",
            )


def _off(packages: Sequence[LockedPackage], pins: Mapping[GitSource, Pin]) -> Iterator[tuple[str, str, str]]:
    """Packages that are not at the pin of the git source that packages name: name, where they are, where they should be."""
    for package in packages:
        pin = pins.get(package.git) if package.git else None
        if pin is not None and package.name == pin.name and package.commit != pin.commit:
            yield package.name, str(package.commit), pin.commit


def stale_reason(folder: Path, draft: Draft, record: LockRecord | None) -> str | None:
    """Why a plugin's lock is not what its inputs lead to; None where it is."""
    try:
        lock = lock_digest(folder)
        text = read_text(folder / "pyproject.toml", f"{folder.name}/pyproject.toml")
    except ConfigError as error:
        return f"{error.where}: {error.message}"
    except OSError:
        return "the lock or its project cannot be read"
    reasons = {
        "pins.toml does not know this lock": record is None,
        "registry, overlay, profile, core or a package's metadata changed since it was written": record is not None
        and record.inputs != draft.inputs,
        "its generated pyproject.toml was edited": text != draft.text,
        "uv.lock was edited": record is not None and record.lock != lock,
        **{f"it holds {name} at {found}, the pin is {pinned}": True for name, found, pinned in draft.off_pin},
        draft.off: bool(draft.off),
    }
    return next((reason for reason, holds in reasons.items() if holds), None)
