"""`build`: from locks to sealed environments, several at a time, each whole or not there at all."""

from __future__ import annotations

import hashlib
import json
import os
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

from packaging.version import Version

from envbuilder import process, uv
from envbuilder.config import python_specifier
from envbuilder.errors import EnvbuilderError, Problem
from envbuilder.git import uv_settings
from envbuilder.lock.locking import Draft, ensure_objects, find_stale, lock_folder, read_lock, read_pins
from envbuilder.lock.project import LockedPackage, digest
from envbuilder.lock.sources import Sources
from envbuilder.models import Entry, Interpreter, PluginOutcome, Profile, Registry, Workspace
from envbuilder.store import records
from envbuilder.store.environments import Store
from envbuilder.store.files import locked, point, write_atomically
from envbuilder.store.interpreters import find

# Measured: linking is bound by the file system; more than two at once gain nothing on two cores.
_JOBS = 2

# Run by the new environment's own interpreter: the entry point must be importable, and be there.
_IMPORT = """
import functools, importlib, sys
module, _, name = sys.argv[1].partition(":")
functools.reduce(getattr, name.split("."), importlib.import_module(module))
"""


@dataclass(frozen=True)
class Built:
    """A plugin's environment, ready to use.

    Attributes:
        plugin: the registry entry.
        key: the environment's key.
        path: its folder in the store.
        link: the name it goes by in this workspace.
        lock: digest of the lock it was made from.
        versions: Python and every distribution in it.
        pycache: where its bytecode goes.
    """

    plugin: Entry
    key: str
    path: Path
    link: Path
    lock: str
    versions: Mapping[str, str]
    pycache: Path

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
        # Cold syncs at once would each fetch the wheels that they share.
        self._network_guard = threading.Lock()
        self.store = Store(workspace.shared)
        self.built: dict[str, Built] = {}

    def build(
        self, plugins: Sequence[Entry], report: Callable[[PluginOutcome], None], *, jobs: int = _JOBS
    ) -> list[PluginOutcome]:
        """Build plugins, several at a time; those that are there already are left as they are.

        Args:
            plugins: which.
            report: called as each one starts (state ``building``), waits (``waiting``) and ends.
            jobs: how many at a time.
        """
        stale = find_stale(self._workspace, self._profile, self._registry, plugins, self._pins)

        def one(plugin: Entry) -> PluginOutcome:
            outcome = self._outcome(plugin, stale[plugin.name], report)
            report(outcome)
            return outcome

        with ThreadPoolExecutor(max(1, jobs), thread_name_prefix="build") as pool:
            return list(pool.map(one, plugins))

    def find(self, plugin: Entry) -> Built | str:
        """A plugin's environment as its lock names it now, or why it cannot be used; builds nothing."""
        draft = find_stale(self._workspace, self._profile, self._registry, [plugin], self._pins)[plugin.name]
        if isinstance(draft, Problem):
            return f"{draft.code}: {draft.message}"
        key, inputs = self._key(draft)
        return self.store.glance(key) or self._describe(plugin, key, inputs)

    def _outcome(self, plugin: Entry, draft: Draft | Problem, report: Callable[[PluginOutcome], None]) -> PluginOutcome:
        start = time.monotonic()
        if isinstance(draft, Problem):
            return PluginOutcome(plugin.name, "failed", problems=(draft,))
        try:
            state, detail = self._ensure(draft, report)
        except EnvbuilderError as error:
            problems = tuple(replace(problem, entry=plugin.name) for problem in error.problems)
            return PluginOutcome(plugin.name, "failed", time.monotonic() - start, problems=problems)
        return PluginOutcome(plugin.name, state, time.monotonic() - start, detail)

    def _ensure(self, draft: Draft, report: Callable[[PluginOutcome], None]) -> tuple[str, str]:
        plugin = draft.plugin
        key, inputs = self._key(draft)
        state, reason = "unchanged", ""
        if self.store.glance(key) is not None:

            def waiting() -> None:
                report(PluginOutcome(plugin.name, "waiting", detail="another process builds it"))

            with locked(self.store.lock_path(key), waiting=waiting):
                reason = self.store.glance(key) or ""
                if reason:
                    report(PluginOutcome(plugin.name, "building"))
                    self._make(draft, key, inputs)
                    state = "built"
        built = self._describe(plugin, key, inputs)
        point(built.link, Path(os.path.relpath(built.path, built.link.parent)))
        self.built[plugin.name] = built
        return state, "" if reason == "not built" else reason

    def _describe(self, plugin: Entry, key: str, inputs: Mapping[str, object]) -> Built:
        seal = self.store.seal(key)
        return Built(
            plugin=plugin,
            key=key,
            path=self.store.path(key),
            link=link_path(self._workspace, self._profile, plugin.name),
            lock=str(inputs["lock"]),
            versions={"python": str(inputs["python"]), **(seal.distributions if seal else {})},
            pycache=self.store.pycache(key),
        )

    def _key(self, draft: Draft) -> tuple[str, dict[str, object]]:
        interpreter = self._interpreter(draft.plugin)
        lock = lock_folder(self._workspace, self._profile, draft.plugin.name) / "uv.lock"
        inputs: dict[str, object] = {
            "lock": digest(lock.read_bytes()),
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
        }
        text = json.dumps(inputs, sort_keys=True)
        return f"{draft.plugin.name}-{hashlib.sha256(text.encode()).hexdigest()[:20]}", inputs

    def _interpreter(self, plugin: Entry) -> Interpreter:
        request = python_specifier(plugin.python or self._profile.python)
        with self._interpreter_guard:
            if request not in self._interpreters:
                self._interpreters[request] = find(self._workspace.shared, request, offline=self._offline)
            return self._interpreters[request]

    def _make(self, draft: Draft, key: str, inputs: Mapping[str, object]) -> None:
        plugin = draft.plugin
        project = lock_folder(self._workspace, self._profile, plugin.name)
        interpreter = self._interpreter(plugin)
        pins = list(draft.pins.values())
        ensure_objects(self._sources, pins, offline=self._offline)
        env = uv_settings(self._sources.repository(pin.url) for pin in pins)
        staging = self.store.staging(key)
        # First with what the cache has, side by side; then what it lacks, online, one at a time.
        done = self._sync(project, staging, interpreter, env, offline=True)
        if not done.ok and not self._offline:
            with self._network_guard:
                done = self._sync(project, self.store.staging(key), interpreter, env, offline=False)
        hint = f"envbuilder build --profile {self._profile.name} {plugin.name}"
        if not done.ok:
            _fail(uv.explain(done, plugin.name, "sync-failed", hint=hint))
        self._verify(draft, staging, hint)
        self.store.admit(key, staging, inputs)

    def _sync(
        self, project: Path, staging: Path, interpreter: Interpreter, env: Mapping[str, str], *, offline: bool
    ) -> process.Completed:
        made = uv.venv(staging, interpreter.path, prompt=project.name)
        if not made.ok:
            return made
        return uv.sync(project, staging, interpreter.path, env, offline=offline)

    def _verify(self, draft: Draft, staging: Path, hint: str) -> None:
        plugin = draft.plugin
        wrong = [*records.findings(staging), *_off_lock(staging, read_lock(self._lock_folder(plugin)))]
        if wrong:
            text = "; ".join(wrong[:5]) + (f"; and {len(wrong) - 5} more" if len(wrong) > 5 else "")
            _fail(Problem("environment-damaged", f"the new environment is not whole: {text}", plugin.name, hint=hint))
        if plugin.entry is None:
            return
        env = worker_environment(staging, self.store.pycache(staging.name), plugin.env)
        done = process.run([staging / "bin" / "python", "-c", _IMPORT, plugin.entry], env=env, timeout_s=600)
        if not done.ok:
            lines = [line for line in done.stderr.splitlines() if line.strip()]
            message = f"{plugin.entry} cannot be imported: {lines[-1] if lines else f'exit status {done.returncode}'}"
            log = self._workspace.own / "logs" / f"{self._profile.name}-{plugin.name}-import.log"
            write_atomically(log, done.stderr)
            show = f"cat {self._workspace.show(log)}"
            _fail(Problem("plugin-import-failed", message, plugin.name, plugin.where, show))

    def _lock_folder(self, plugin: Entry) -> Path:
        return lock_folder(self._workspace, self._profile, plugin.name)


def _fail(problem: Problem) -> None:
    raise EnvbuilderError(problem.message, code=problem.code, where=problem.where, hint=problem.hint)


def _off_lock(environment: Path, packages: Sequence[LockedPackage]) -> list[str]:
    """Distributions that the lock does not hold at that version; a lock may hold more than one platform needs."""
    versions: dict[str, set[str | None]] = {}
    for package in packages:
        versions.setdefault(package.name, set()).add(package.version)
    wrong = []
    for name, version in records.distributions(environment).items():
        locked_versions = versions.get(name)
        if locked_versions is None:
            wrong.append(f"{name} {version} is not in the lock")
        elif None not in locked_versions and Version(version) not in {Version(str(item)) for item in locked_versions}:
            wrong.append(f"{name} is {version}, the lock says {' or '.join(sorted(map(str, locked_versions)))}")
    return wrong


def link_path(workspace: Workspace, profile: Profile, plugin: str) -> Path:
    """The name that a plugin's environment goes by in a workspace."""
    return workspace.own / "envs" / profile.name / plugin


def worker_environment(environment: Path, pycache: Path, extra: Mapping[str, str]) -> dict[str, str]:
    """The variables for a program inside an environment: its scripts first, its bytecode beside it, nothing leaking in."""
    own = {
        "VIRTUAL_ENV": str(environment),
        "PATH": os.pathsep.join([str(environment / "bin"), os.environ.get("PATH", os.defpath)]),
        "PYTHONPYCACHEPREFIX": str(pycache),
        "PYTHONNOUSERSITE": "1",
    }
    return process.clean_environment({**own, **extra})
