"""`lock`: several plugins at a time, and whether their locks are still what registry and profile lead to."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from envbuilder.errors import ConfigError, EnvbuilderError, Problem
from envbuilder.fs import keep_from_git, locked, sweep, unwritable
from envbuilder.lock import pins as pins_file
from envbuilder.lock.aligning import groups as align_groups
from envbuilder.lock.files import lock_folder, pins_path, read_lock, read_pins
from envbuilder.lock.locker import JOBS, STAGING, Draft, Locker, Request, stale_reason
from envbuilder.lock.project import edit_hint
from envbuilder.lock.sources import readings
from envbuilder.models import (
    Entry,
    GitSource,
    PathSource,
    Pin,
    Pins,
    PluginOutcome,
    Profile,
    PypiSource,
    Registry,
    Workspace,
)
from envbuilder.store import stamps
from envbuilder.threads import at_once

# What keeps a lock from being judged, and is wrong whether it is judged or not.
_TOLD_AS_THEY_ARE = {"lock-stale", "metadata-unreadable", "sibling-cyclic", "source-not-allowed"}


def lock_plugins(
    workspace: Workspace,
    profile: Profile,
    registry: Registry,
    plugins: Sequence[Entry],
    *,
    request: Request,
    report: Callable[[PluginOutcome], None],
) -> list[PluginOutcome]:
    """Lock plugins, several at a time, and record what was pinned; one `lock` at a time in a workspace's profile.

    Args:
        workspace, profile, registry: where, and what there is.
        plugins: which.
        request: how.
        report: called as each one ends; its ``waiting`` outcome tells that another process is at it.
    """

    def waiting() -> None:
        report(PluginOutcome("", "waiting", detail="another lock of this profile is under way"))

    with locked(workspace.own / "locks" / f"lock-{profile.name}", waiting=waiting):
        keep_from_git(workspace.shared)
        pins = read_pins(workspace, profile)
        _sweep(workspace, profile)
        before = pins
        locker = Locker(workspace, profile, registry, pins, request)
        locker.sources.expect(registry.entries)
        names = {str(canonicalize_name(Requirement(each).name)) for each in request.packages}
        locker.aligner.align(plugins, afresh=request.upgrade, moving=names)
        outcomes = []
        for told, draft in at_once(locker.lock, plugins, request.jobs, name="lock"):
            behind = locker.aligner.left_behind(draft.plugin, plugins, before.groups) if draft else []
            warnings = [_behind(draft.plugin, behind, profile)] if draft and behind else []
            outcome = replace(told, problems=(*told.problems, *warnings))
            outcomes.append(outcome)
            report(outcome)
            if draft is not None and (updated := locker.with_pins(pins, draft)) != pins:
                pins = updated
                # At once: whoever is killed later keeps what is locked by now.
                pins_file.write(pins_path(workspace, profile), _still_known(pins, registry, workspace, profile))
        pins_file.write(pins_path(workspace, profile), _still_known(pins, registry, workspace, profile))
    return outcomes


def _behind(plugin: Entry, names: Sequence[str], profile: Profile) -> Problem:
    return Problem(
        "align-moved",
        f"the versions that group {', '.join(plugin.align)} shares have moved; the locks of {', '.join(names)} are stale",
        entry=plugin.name,
        where=plugin.at("align"),
        hint=f"envbuilder lock --profile {profile.name} {' '.join(names)}",
        severity="warning",
    )


def _sweep(workspace: Workspace, profile: Profile) -> None:
    """Remove what killed locks left; the caller holds the profile's lock."""
    folder = workspace.root / "profiles" / profile.name
    for leftover in folder.glob(f".*{STAGING}"):
        shutil.rmtree(leftover, ignore_errors=True)
    sweep(folder, *folder.glob("*/"))


def _still_known(pins: Pins, registry: Registry, workspace: Workspace, profile: Profile) -> Pins:
    entries = {entry.name: entry for entry in registry.entries}
    kinds = {name: type(entry.source) for name, entry in entries.items()}
    return replace(
        pins,
        entries={name: pin for name, pin in pins.entries.items() if kinds.get(name) is GitSource},
        locks={name: record for name, record in pins.locks.items() if name in entries and entries[name].is_plugin},
        releases={name: release for name, release in pins.releases.items() if kinds.get(name) is PypiSource},
        groups={name: record for name, record in pins.groups.items() if name in align_groups(registry)},
        dependencies=_still_named(pins, registry, workspace, profile) if pins.dependencies else {},
    )


def _still_named(pins: Pins, registry: Registry, workspace: Workspace, profile: Profile) -> dict[str, Pin]:
    """The pins of sources that packages name, and that a lock holds."""
    held: set[str] = set()
    for plugin in registry.plugins:
        with contextlib.suppress(ConfigError, ValueError):
            packages = read_lock(lock_folder(workspace, profile, plugin.name))
            held |= {str(each) for package in packages if package.git for each in readings(package.git)}
    return {key: pin for key, pin in pins.dependencies.items() if key in held}


def find_stale(
    workspace: Workspace,
    profile: Profile,
    registry: Registry,
    plugins: Sequence[Entry],
    pins: Pins,
    *,
    is_whole: bool = True,
) -> dict[str, Problem | Draft]:
    """For each plugin its draft where its lock is as it should be, else what is wrong; no network, no uv.

    Args:
        workspace, profile, registry, plugins, pins: what is looked at.
        is_whole: whether the workspace's settings could all be read; where not, they make no lock stale.
    """
    locker = Locker(workspace, profile, registry, pins, Request(offline=True), frozen=True)
    hint = f"envbuilder lock --profile {profile.name}"
    found: dict[str, Problem | Draft] = {}
    for plugin in plugins:
        folder = locker.folder(plugin.name)
        where = workspace.show(folder / "uv.lock")
        if not (folder / "uv.lock").exists():
            allowed = plugin.source.kind in profile.sources
            remark = "" if allowed else f"  # once its source is one that {profile.name} allows"
            found[plugin.name] = Problem("lock-missing", "no lock", plugin.name, where, f"{hint} {plugin.name}{remark}")
            continue
        try:
            draft = locker.recorded(plugin)
            reason = stale_reason(folder, draft, pins.locks.get(plugin.name)) if is_whole else None
            problem = reason and Problem("lock-stale", reason, plugin.name, where, f"{hint} {plugin.name}")
        except EnvbuilderError as error:
            code = error.code if error.code in _TOLD_AS_THEY_ARE else "lock-stale"
            problem = Problem(code, error.message, plugin.name, error.where or where, error.hint or edit_hint(plugin))
        found[plugin.name] = problem or draft
    return found


def preview_upgrades(
    workspace: Workspace, profile: Profile, registry: Registry, plugins: Sequence[Entry]
) -> dict[str, str | Problem]:
    """The text of the lock that `--upgrade` would give each plugin, or why there is none; the workspace is only read."""
    locker = Locker(workspace, profile, registry, read_pins(workspace, profile), Request(upgrade=True))

    def text(plugin: Entry) -> str | Problem:
        try:
            return locker.preview(plugin)
        except (EnvbuilderError, OSError) as error:
            known = error if isinstance(error, EnvbuilderError) else unwritable(locker.folder(plugin.name), error)
            return replace(known.problems[0], entry=plugin.name)

    names = [plugin.name for plugin in plugins]
    return dict(zip(names, at_once(text, plugins, JOBS, name="preview"), strict=True))


def note_current(workspace: Workspace, profile: Profile, registry: Registry, *, since_ns: int) -> None:
    """Note that all locks are as they should be, so that the next look needs stats alone.

    Args:
        workspace, profile, registry: whose.
        since_ns: when they began to be read, in ns since the epoch.
    """
    root, folder = workspace.root, workspace.root / "profiles" / profile.name
    entries = root / "profiles" / "registry"
    checkouts = [root / entry.source.path for entry in registry.entries if isinstance(entry.source, PathSource)]
    if not all(map(_files_tell, checkouts)):
        return
    locks = [folder / plugin.name / name for plugin in registry.plugins for name in ("pyproject.toml", "uv.lock")]
    cores = [core for core in workspace.core.values() if isinstance(core, Path)]
    watched = [
        root / "pyproject.toml",
        entries,
        *sorted(entries.glob("*.yaml")),
        folder / "profile.toml",
        folder / "pins.toml",
        *locks,
        *(checkout / "pyproject.toml" for checkout in [*cores, *checkouts]),
    ]
    names = {plugin.name: "" for plugin in registry.plugins}
    stamps.write(stamps.stamp_path(workspace.own, profile.name, "lock"), watched, names, since_ns=since_ns)


def _files_tell(checkout: Path) -> bool:
    """Whether a checkout's ``pyproject.toml`` alone says what its lock follows from; a build may look anywhere."""
    try:
        text = (checkout / "pyproject.toml").read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return False
    static = any(line.strip() in {"[project]", "[tool.poetry]"} for line in text.splitlines())
    return static and "dynamic" not in text
