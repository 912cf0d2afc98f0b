"""`build`: from locks to sealed environments, several at a time, each whole or not there at all."""

from __future__ import annotations

import hashlib
import json
import os
import threading
import time
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from packaging.version import Version

from envbuilder import __version__, accelerators, caches, gpus, process, uv
from envbuilder.accelerators import UnfitError
from envbuilder.config import python_specifier
from envbuilder.errors import BuildError, EnvbuilderError, Problem
from envbuilder.fs import keep_from_git, locked, write_atomically
from envbuilder.git.lfs import LFS_REMARK, MARKS, POINTERS, SIZES, shown_files
from envbuilder.lock import owners
from envbuilder.lock.files import lock_digest, lock_folder, lock_text, read_lock, read_pins
from envbuilder.lock.graph import parse as parse_graph
from envbuilder.lock.locker import Draft
from envbuilder.lock.locking import find_stale
from envbuilder.lock.mirrors import IndexMirrors
from envbuilder.lock.project import LockedPackage, edit_hint
from envbuilder.lock.sources import Sources, ensure_objects
from envbuilder.models import Entry, Interpreter, PathSource, Pin, PluginOutcome, Profile, Registry, Workspace
from envbuilder.store import clashes, provided, records, stamps, writers
from envbuilder.store.bytecode import Bytecode
from envbuilder.store.choices import Choices
from envbuilder.store.environments import Store
from envbuilder.store.generations import Generations
from envbuilder.store.interpreters import find, stamp_of
from envbuilder.store.provided import ProvidedError
from envbuilder.store.seals import Facts
from envbuilder.store.syncing import LINK_NOTES, Recipe, link_mode, sync
from envbuilder.threads import at_once

# Measured: linking is bound by the file system; more than two at once gain nothing on two cores.
_JOBS = 2
# Times of files come from a clock that may be a tick behind.
_CLOCK_NS = 10_000_000


@dataclass(frozen=True)
class Built:
    """A plugin's environment, ready to use.

    Attributes:
        plugin: the registry entry.
        key: the environment's key.
        path: its folder in the store.
        link: the name it goes by in this workspace.
        lock: digest of the lock it was made from.
        versions: Python, every distribution in it, and those that the base interpreter provides.
        pycache: where its bytecode goes.
        torch: its torch backend; None where there was nothing to choose.
        live: the editable checkouts that it imports from.
    """

    plugin: Entry
    key: str
    path: Path
    link: Path
    lock: str
    versions: Mapping[str, str]
    pycache: Path
    torch: str | None = None
    live: tuple[Path, ...] = ()

    @property
    def python(self) -> Path:
        return self.path / "bin" / "python"


class Builder:
    """Builds the environments of one workspace in one profile.

    Args:
        workspace, profile, registry: what to build from.
        offline: whether the network is out of bounds.
    """

    def __init__(self, workspace: Workspace, profile: Profile, registry: Registry, *, offline: bool = False):
        self._workspace = workspace
        self._profile = profile
        self._registry = registry
        self._offline = offline
        self._pins = read_pins(workspace, profile)
        self._sources = Sources(workspace, profile, self._pins, offline=offline, frozen=True)
        self._interpreters: dict[str, Interpreter] = {}
        self._interpreter_guard = threading.Lock()
        self._link_guard = threading.Lock()
        self._choices = Choices(workspace.own, profile.name)
        self._machine = _Machine()
        self._base_folders: set[Path] = set()
        self._supplies: dict[str, provided.Supply] = {}
        self._uncompiled: dict[str, list[Path]] = {}
        self._clashes: dict[str, tuple[Problem, ...]] = {}
        self.store = Store(workspace.shared)
        self.generations = Generations(workspace.own, profile.name, self.store.folder)
        self.built: dict[str, Built] = {}
        # When the import of each began, as the clock of files tells it.
        self._proved_at: dict[str, int] = {}

    def build(
        self,
        plugins: Sequence[Entry],
        report: Callable[[PluginOutcome], None],
        *,
        jobs: int = _JOBS,
        mend: Collection[str] = (),
    ) -> list[PluginOutcome]:
        """Build plugins, several at a time, and point the profile at a generation that holds them.

        Those that are there already, and look whole, are left as they are.

        Args:
            plugins: which.
            report: called as each one starts (state ``building``), waits (``waiting``) and ends.
            jobs: how many at a time.
            mend: plugins to make anew, however they look, from a cache whose bytes are not taken on trust.
        """
        stale = find_stale(self._workspace, self._profile, self._registry, plugins, self._pins)

        def one(plugin: Entry) -> PluginOutcome:
            outcome = self._outcome(plugin, stale[plugin.name], report, mend=plugin.name in mend)
            report(outcome)
            return outcome

        # The collector holds this lock alone: what is built here is in a generation before it looks.
        with locked(self.store.usage_path, shared=True):
            keep_from_git(self.store.shared)
            self.store.sweep()
            outcomes = list(at_once(one, plugins, jobs, name="build"))
            if self.built:
                self.generations.advance({name: built.key for name, built in self.built.items()})
        if len(plugins) == len(self._registry.plugins) and all(outcome.ok for outcome in outcomes):
            drafts = [draft for draft in stale.values() if isinstance(draft, Draft)]
            keys = {name: built.key for name, built in self.built.items()}
            stamps.write(stamps.stamp_path(self._workspace.own, self._profile.name), self._watched(drafts), keys)
        return outcomes

    def _watched(self, drafts: Sequence[Draft]) -> list[Path]:
        """The files and folders whose change may mean that there is something to build."""
        root, own = self._workspace.root, self._workspace.own
        profile = root / "profiles" / self._profile.name
        registry = root / "profiles" / "registry"
        paths = [member.entry.source for draft in drafts for member in draft.members]
        metadata = [root / source.path / "pyproject.toml" for source in paths if isinstance(source, PathSource)]
        cores = [core / "pyproject.toml" for core in self._workspace.core.values() if isinstance(core, Path)]
        locks = [profile / draft.plugin.name / name for draft in drafts for name in ("pyproject.toml", "uv.lock")]
        return [
            root / "pyproject.toml",
            registry,
            *sorted(registry.glob("*.yaml")),
            profile / "profile.toml",
            profile / "pins.toml",
            *locks,
            *cores,
            *metadata,
            self._choices.path,
            *sorted(self._base_folders),
            own / "envs",
            own / "generations" / self._profile.name,
        ]

    def find(self, plugin: Entry) -> Built | str:
        """A plugin's environment, or why there is none to use; builds nothing.

        It is the one that the lock names now; after a rollback, the one of the generation rolled back to.
        """
        key = self.key_of(plugin)
        if isinstance(key, Problem):
            return f"{key.code}: {key.message}"
        seal = self.store.seal(key)
        return self.store.glance(key) or self._describe(plugin, key, seal.inputs if seal else {})

    def meant(self, plugin: Entry) -> Built | Problem:
        """A plugin's environment as a build would leave it, whether it is there or not, or why there can be none."""
        found = self.find(plugin)
        if not isinstance(found, str):
            return found
        draft = find_stale(self._workspace, self._profile, self._registry, [plugin], self._pins)[plugin.name]
        if isinstance(draft, Problem):
            return draft
        try:
            built = self._describe(plugin, *self._key(draft))
        except (UnfitError, ProvidedError) as error:
            return replace(error.problems[0], entry=plugin.name)
        packages = read_lock(lock_folder(self._workspace, self._profile, plugin.name))
        told = Counter(package.name for package in packages)
        alone = {each.name: each.version for each in packages if each.version and told[each.name] == 1}
        return replace(built, versions={**alone, **built.versions})

    def key_of(self, plugin: Entry) -> str | Problem:
        """The key of a plugin's environment as `find` means it, or why there is none."""
        if self.generations.held and (current := self.generations.current()) and plugin.name in current.keys:
            return current.keys[plugin.name]
        draft = find_stale(self._workspace, self._profile, self._registry, [plugin], self._pins)[plugin.name]
        if isinstance(draft, Problem):
            return draft
        try:
            return self._key(draft)[0]
        except (UnfitError, ProvidedError) as error:
            return replace(error.problems[0], entry=plugin.name)

    def _outcome(
        self, plugin: Entry, draft: Draft | Problem, report: Callable[[PluginOutcome], None], *, mend: bool
    ) -> PluginOutcome:
        start = time.monotonic()
        if isinstance(draft, Problem):
            return PluginOutcome(plugin.name, "failed", problems=(draft,))
        try:
            state, detail = self._ensure(draft, report, mend=mend)
        except EnvbuilderError as error:
            problems = tuple(replace(problem, entry=plugin.name) for problem in error.problems)
            return PluginOutcome(plugin.name, "failed", time.monotonic() - start, problems=problems)
        notes = self._notes(self.built[plugin.name]) if state == "built" else ()
        return PluginOutcome(plugin.name, state, time.monotonic() - start, detail, notes)

    def _notes(self, built: Built) -> tuple[Problem, ...]:
        return (*self._clashes.get(built.plugin.name, ()), *self._driver_notes(built))

    def _driver_notes(self, built: Built) -> tuple[Problem, ...]:
        if built.torch is None or (self._machine.driver() is None and not accelerators.cuda(built.torch)):
            return ()
        if self._machine.driver() is not None:
            return self._hidden(built)
        message = f"torch is the build for {built.torch}, and there is no NVIDIA driver: here it computes on the CPU"
        hint = f"envbuilder build --torch auto --profile {self._profile.name} {built.plugin.name}"
        name = built.plugin.name
        return (Problem("torch-without-driver", message, name, built.plugin.at("torch"), hint, severity="warning"),)

    def _hidden(self, built: Built) -> tuple[Problem, ...]:
        """A warning where torch's build was chosen for GPUs that a variable hides from what runs here."""
        hiding = gpus.hiding(self._machine.driver())
        if hiding is None or hiding.meant:
            return ()
        name, hint = built.plugin.name, f"unset {gpus.VISIBLE}"
        message = f"torch is the build for {built.torch}, by the machine's driver; {hiding.text}"
        return (Problem("gpus-hidden", message, name, built.plugin.at("torch"), hint, severity="warning"),)

    def _ensure(self, draft: Draft, report: Callable[[PluginOutcome], None], *, mend: bool) -> tuple[str, str]:
        plugin = draft.plugin
        key, inputs = self._key(draft)
        state, reason = "unchanged", ""
        if mend or self.store.glance(key) is not None:

            def waiting() -> None:
                report(PluginOutcome(plugin.name, "waiting", detail="another process builds it"))

            with locked(self.store.lock_path(key), waiting=waiting):
                reason = "to be mended" if mend else self.store.glance(key) or ""
                if reason:
                    mode, is_news = self._link_mode()
                    report(PluginOutcome(plugin.name, "building", detail=LINK_NOTES[mode] if is_news else ""))
                    try:
                        self._make(draft, key, inputs, report, mend=mend)
                    except BaseException:
                        self.store.abandon(key)
                        raise
                    state = "built"
        self.built[plugin.name] = self._describe(plugin, key, inputs)
        # Whoever put something into the one that was there is told where it went.
        return state, "" if reason in {"", "not built", "to be mended"} else f"replaces one that was damaged: {reason}"

    def _describe(self, plugin: Entry, key: str, inputs: Mapping[str, object]) -> Built:
        seal = self.store.seal(key)
        return Built(
            plugin=plugin,
            key=key,
            path=self.store.path(key),
            link=self.generations.pointer / plugin.name,
            lock=str(inputs.get("lock", "")),
            versions={
                "python": str(inputs.get("python", "")),
                **(seal.distributions if seal else {}),
                **_provided_in(inputs),
            },
            pycache=self.store.pycache(key),
            torch=_backend_in(inputs),
            live=_paths_in(inputs),
        )

    def _key(self, draft: Draft) -> tuple[str, dict[str, object]]:
        supply = self._supply(draft.plugin)
        interpreter = supply.interpreter if supply else self._interpreter(draft.plugin)
        inputs: dict[str, object] = {
            "lock": lock_digest(lock_folder(self._workspace, self._profile, draft.plugin.name)),
            "extras": list(draft.plugin.extras),
            "implementation": interpreter.implementation,
            "python": interpreter.version,
            "abi": interpreter.abi,
            "platform": interpreter.platform,
            "interpreter": str(interpreter.path),
            # Code at a path is live; what is installed of it follows from where it is and from its metadata.
            "paths": [
                [str(self._workspace.root / item.entry.source.path), item.code]  # type: ignore[union-attr]
                for item in draft.members
                if item.code is not None
            ],
            # No lock holds these: what is built with what.
            **({"built-with": together} if (together := dict(draft.plugin.no_build_isolation)) else {}),
        }
        if draft.build_variables:
            inputs["build-variables"] = {name: dict(each) for name, each in draft.build_variables.items()}
        if backend := self._backend(draft):
            inputs["torch"] = backend
        if supply:
            self._base_folders.update(supply.folders)
            inputs["provided"] = supply.versions
            inputs |= {"provided-from": list(map(str, supply.sites))} if supply.sites else {}
        text = json.dumps(inputs, sort_keys=True)
        return f"{draft.plugin.name}-{hashlib.sha256(text.encode()).hexdigest()[:20]}", inputs

    def _backend(self, draft: Draft) -> str | None:
        """The torch backend to build a plugin with; None where its lock offers none.

        Raises:
            UnfitError: this machine's driver cannot run the one that is asked for.
        """
        plugin, offered = draft.plugin, draft.torch_backends
        if not offered:
            return None
        pinned = plugin.torch not in {None, accelerators.AUTO}
        asked = plugin.torch if pinned else self._choices.of(plugin.name)
        if asked not in offered:
            return accelerators.choose(
                offered, self._machine.driver() if any(map(accelerators.cuda, offered)) else None
            )
        if accelerators.cuda(asked) and (reason := accelerators.unfit(asked, self._machine.driver())):
            hint = f"envbuilder build --torch auto --profile {self._profile.name} {plugin.name}"
            raise UnfitError(reason, where=plugin.at("torch"), hint=edit_hint(plugin, "torch") if pinned else hint)
        return asked

    def _supply(self, plugin: Entry) -> provided.Supply | None:
        """What a plugin leaves to its base, as that is now; None where it leaves nothing.

        Raises:
            ProvidedError: the base lacks it.
        """
        if not plugin.provided:
            return None
        request = python_specifier(plugin.python or self._profile.python)
        found = provided.supply(self._interpreter(plugin), request, plugin.provided, plugin.at("provided"))
        self._supplies[plugin.name] = found
        return found

    def _interpreter(self, plugin: Entry) -> Interpreter:
        request = python_specifier(plugin.python or self._profile.python)
        with self._interpreter_guard:
            if request not in self._interpreters:
                self._interpreters[request] = find(self._workspace.shared, request, offline=self._offline)
            return self._interpreters[request]

    def _make(
        self,
        draft: Draft,
        key: str,
        inputs: Mapping[str, object],
        report: Callable[[PluginOutcome], None],
        *,
        mend: bool,
    ) -> None:
        supply = self._supplies.get(draft.plugin.name)
        pins = draft.every_pin
        folder = lock_folder(self._workspace, self._profile, draft.plugin.name)
        with IndexMirrors(self._profile.index_mirrors).installable(folder) as project:
            recipe = Recipe(
                project=project,
                staging=self.store.staging(key),
                interpreter=supply.interpreter if supply else self._interpreter(draft.plugin),
                env={
                    **self._sources.git_settings(pins),
                    "UV_LINK_MODE": self._link_mode()[0],
                },
                skeletons=self.store.skeletons,
                prepare=lambda: self._prepare(pins),
                extra=_backend_in(inputs),
                open_to_base=bool(supply and not supply.sites),
                sites=supply.sites if supply else (),
                offline=self._offline,
                log=self._workspace.own / "logs" / f"{self._profile.name}-{draft.plugin.name}-build.log",
            )
            files, bytecode = self._fill(draft, key, recipe, report, mend=mend)
        tools = {"envbuilder": __version__, "uv": ".".join(map(str, uv.version_of(uv.find_uv())))}
        stamp = stamp_of(recipe.staging / "bin" / "python")
        lacking = bytecode.seed(self.store.pycache(key), recipe.staging, files)
        # What a base has without bytecode, every environment would compile anew as it loads.
        sources = self._uncompiled.pop(draft.plugin.name, []) + (lacking if self._profile.compile_bytecode else [])
        if sources:
            env = worker_environment(
                recipe.staging, self.store.pycache(key), draft.plugin.env, self.store.compiled(draft.plugin.name, key)
            )
            bytecode.compile(recipe.staging / "bin" / "python", sources, env)
        self.store.admit(key, recipe.staging, files=files, inputs={**inputs, "interpreter-stamp": stamp}, tools=tools)
        bytecode.publish()

    def _link_mode(self) -> tuple[str, bool]:
        with self._link_guard:
            return link_mode(self._workspace.shared)

    def _prepare(self, pins: Sequence[Pin]) -> dict[str, str]:
        ensure_objects(self._sources, pins, offline=self._offline)
        return self._sources.git_settings(pins)

    def _fill(
        self, draft: Draft, key: str, recipe: Recipe, report: Callable[[PluginOutcome], None], *, mend: bool
    ) -> tuple[dict[str, Facts], Bytecode]:
        """Fill the staging folder, once more where uv's cache turns out to be damaged; its files, and its bytecode."""
        downloads = _Downloads(report)
        recipe = replace(recipe, hear=downloads.hear)

        def waiting() -> None:
            report(PluginOutcome(draft.plugin.name, "waiting", detail="another environment fetches its packages"))

        def synced(recipe: Recipe) -> set[str]:
            try:
                return sync(recipe, self._workspace.shared, waiting)
            finally:
                downloads.give_up()

        start = time.time_ns()
        before = synced(recipe)
        bytecode = Bytecode.of(self.store.shared, key, recipe.interpreter, trusting=not mend)
        files, wrong = self._inspect(draft, recipe, before, bytecode)
        self._refuse_written(draft.plugin, recipe.staging, wrong)
        if wrong and not self._offline:
            # What is wrong in a fresh environment is wrong in uv's cache, which hard links share.
            suspects = records.suspects(recipe.staging, wrong)
            recipe = replace(recipe, staging=self.store.staging(key), suspects=suspects, since_ns=start)
            before = synced(recipe)
            bytecode = replace(bytecode, trusting=False)
            files, wrong = self._inspect(draft, recipe, before, bytecode)
            self._refuse_written(draft.plugin, recipe.staging, wrong)
        if wrong:
            text = "; ".join(map(str, wrong[:5])) + (f"; and {len(wrong) - 5} more" if len(wrong) > 5 else "")
            hint = f"uv cache clean && envbuilder build --profile {self._profile.name} {draft.plugin.name}"
            message = f"the new environment is not whole: {text}"
            raise EnvbuilderError(message, code="environment-damaged", where=draft.plugin.where, hint=hint)
        return files, bytecode

    def _refuse_written(self, plugin: Entry, staging: Path, wrong: Sequence[records.Wrong]) -> None:
        """Refuse an environment that is wrong in nothing but what was written into it while it was proved.

        uv's cache has no part in that, unless a file that it shares was changed in place: that is its to mend.

        Raises:
            EnvbuilderError: that is so.
        """
        strays = [each.path for each in wrong if each.package is None and each.path]
        if not strays or len(strays) < len(wrong) or not self._proved_at:
            return
        if any(_changed_ns(staging / name) < self._proved_at.get(staging.name, 0) for name in strays):
            return
        found = writers.writers(staging, strays)
        message = f"importing {plugin.entry} wrote into the environment, which is sealed: {writers.told(found)}"
        hint = f"{edit_hint(plugin, 'env')}  # {found[0].remedy}"
        raise EnvbuilderError(message, code="environment-written", where=plugin.at("env"), hint=hint)

    def _inspect(
        self, draft: Draft, recipe: Recipe, before: Collection[str], bytecode: Bytecode
    ) -> tuple[dict[str, Facts], list[records.Wrong]]:
        shared = self._refuse_clashes(draft, recipe)
        if wanted := draft.plugin.provided:
            installed = records.distributions(recipe.staging)
            seen = provided.prove(recipe.staging, wanted, installed, draft.plugin.at("provided"))
            pycache = self.store.pycache(recipe.staging.name)
            self._uncompiled[draft.plugin.name] = bytecode.borrow(pycache, seen.folders, seen.names)
        failure = self._import(draft.plugin, recipe.staging, bytecode)
        # After the import: what a plugin writes into its own environment shows here, not after it was sealed.
        files, wrong = self.store.survey(recipe.staging, before, shared=shared, trusting=bytecode.trusting)
        wrong += _off_lock(recipe.staging, self._of_backend(read_lock(recipe.project), recipe.extra))
        if not wrong:
            self._refuse_pointers(draft.plugin, recipe.staging, files)
        if failure is not None and not wrong:
            raise failure
        return files, wrong

    def _refuse_pointers(self, plugin: Entry, staging: Path, files: Mapping[str, Facts]) -> None:
        """Refuse an environment in which Git LFS pointers stand for files.

        Raises:
            EnvbuilderError: there are some.
        """
        found = [name for name, facts in sorted(files.items()) if facts.size in SIZES and _is_pointer(staging / name)]
        if not found:
            return
        inside = records.site_packages(staging).relative_to(staging)
        owners = records.owners(staging, found)
        entries = [entry for name in owners if (entry := self._registry.get(name))] or [plugin]
        shown = shown_files(
            [str(Path(name).relative_to(inside) if Path(name).is_relative_to(inside) else name) for name in found]
        )
        raise EnvbuilderError(
            f"{shown} of {', '.join(owners) or plugin.name} {POINTERS}",
            code="lfs-pointer",
            where=entries[0].at("source"),
            hint=f"{edit_hint(entries[0])}  {LFS_REMARK}",
        )

    def _refuse_clashes(self, draft: Draft, recipe: Recipe) -> Collection[str]:
        """Return the files of several distributions that change nothing, whichever of them comes last.

        Raises:
            SeveralProblems: two distributions install different files of the same names.
        """
        found = clashes.find(recipe.staging)
        if not found:
            return ()
        shown = self._workspace.show(lock_folder(self._workspace, self._profile, draft.plugin.name) / "uv.lock")
        graph = parse_graph(lock_text(recipe.project, shown), shown)
        told = [owners.explain(graph, draft.plugin, draft.members, clash.owners, clash.files) for clash in found]
        program = draft.plugin.command[0] if draft.plugin.command else ""
        fatal = [clashes.matters(clash, program) for clash in found]
        if any(fatal):
            raise BuildError([problem for problem, is_fatal in zip(told, fatal, strict=True) if is_fatal])
        self._clashes[draft.plugin.name] = tuple(replace(problem, severity="warning") for problem in told)
        return {file for clash in found for file in clash.files}

    def _of_backend(self, packages: Sequence[LockedPackage], backend: str | None) -> list[LockedPackage]:
        """What of a lock is for one torch backend."""
        if backend is None:
            return list(packages)
        base = self._profile.torch_index_url
        others = {accelerators.index_url(name, base) for name in self._profile.torch_backends if name != backend}
        return [package for package in packages if package.source.get("registry") not in others]

    def _import(self, plugin: Entry, staging: Path, bytecode: Bytecode) -> EnvbuilderError | None:
        if plugin.entry is None:
            return None
        env = worker_environment(
            staging, self.store.pycache(staging.name), plugin.env, self.store.compiled(plugin.name, staging.name)
        )
        self._proved_at[staging.name] = time.time_ns() - _CLOCK_NS
        proof = bytecode.prove(staging / "bin" / "python", plugin.entry, env)
        if proof.failure is None:
            return None
        message = f"{plugin.entry} cannot be imported: {proof.failure}"
        log = self._workspace.own / "logs" / f"{self._profile.name}-{plugin.name}-import.log"
        write_atomically(log, f"{proof.done.stderr.rstrip()}\n{proof.failure}\n".lstrip())
        show = f"cat {self._workspace.show(log)}"
        return EnvbuilderError(message, code="plugin-import-failed", where=plugin.where, hint=show)


def _changed_ns(path: Path) -> int:
    try:
        return path.lstat().st_ctime_ns
    except OSError:
        return 0


class _Machine:
    """The NVIDIA driver, asked once at most."""

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._found: list[gpus.Driver | None] = []

    def driver(self) -> gpus.Driver | None:
        with self._guard:
            if not self._found:
                self._found.append(gpus.read())
            return self._found[0]


def _backend_in(inputs: Mapping[str, object]) -> str | None:
    backend = inputs.get("torch")
    return str(backend) if backend else None


def _paths_in(inputs: Mapping[str, object]) -> tuple[Path, ...]:
    found = inputs.get("paths")
    return tuple(Path(path) for path, _ in found) if isinstance(found, list) else ()


def _provided_in(inputs: Mapping[str, object]) -> dict[str, str]:
    found = inputs.get("provided")
    return {str(name): str(version) for name, version in found.items()} if isinstance(found, Mapping) else {}


class _Downloads:
    """Reports the downloads of one uv, of no plugin in particular: all that wait for it get what it fetches."""

    def __init__(self, report: Callable[[PluginOutcome], None]) -> None:
        self._report = report
        self._begun: dict[str, tuple[float, str]] = {}

    def hear(self, line: str) -> None:
        """Take note of a line of uv's; what tells of no download is passed over."""
        told = uv.download_of(line)
        if told is None:
            return
        name, size = told
        if size is not None:
            self._begun[name] = time.monotonic(), f"{name}, {size}"
            self._report(PluginOutcome("", "fetching", detail=self._begun[name][1]))
        elif name in self._begun:
            begun, detail = self._begun.pop(name)
            self._report(PluginOutcome("", "fetched", time.monotonic() - begun, detail))

    def give_up(self) -> None:
        """Report what has begun and will not end."""
        for _, detail in self._begun.values():
            self._report(PluginOutcome("", "not fetched", detail=detail))
        self._begun.clear()


def _is_pointer(file: Path) -> bool:
    try:
        with file.open("rb") as stream:
            return stream.readline(100).rstrip(b"\r\n").decode("utf-8", "replace") in MARKS
    except OSError:
        return False


def _off_lock(environment: Path, packages: Sequence[LockedPackage]) -> list[records.Wrong]:
    """Distributions that the lock does not hold at that version; a lock may hold more than one platform needs."""
    versions: dict[str, set[str | None]] = {}
    for package in packages:
        versions.setdefault(package.name, set()).add(package.version)
    wrong = []
    for name, version in records.distributions(environment).items():
        locked_versions = versions.get(name)
        if locked_versions is None:
            wrong.append(records.Wrong(name, f"{version} is not in the lock"))
        elif None not in locked_versions and Version(version) not in {Version(str(item)) for item in locked_versions}:
            said = " or ".join(sorted(map(str, locked_versions)))
            wrong.append(records.Wrong(name, f"it is {version}, the lock says {said}"))
    return wrong


def worker_environment(environment: Path, pycache: Path, extra: Mapping[str, str], compiled: Path) -> dict[str, str]:
    """The variables for a program inside an environment: its scripts first, nothing leaking in.

    Args:
        environment: the virtual environment.
        pycache: where its bytecode goes.
        extra: variables of the entry; they stand above all others.
        compiled: where its packages keep what else they compile, unless a person's own variables say so already.
    """
    own = {
        **caches.variables(compiled, os.environ),
        "VIRTUAL_ENV": str(environment),
        "PATH": os.pathsep.join([str(environment / "bin"), os.environ.get("PATH", os.defpath)]),
        "PYTHONPYCACHEPREFIX": str(pycache),
        "PYTHONNOUSERSITE": "1",
    }
    return process.clean_environment({**own, **extra})
