"""`bundle restore`: prove a bundle, see whether it fits here, then hand its parts to uv's cache and the git clones."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from envbuilder import uv
from envbuilder.bundles.archive import File, Link, Manifest, archive_of, hex_of, machine_tags, scan
from envbuilder.bundles.clones import Clone
from envbuilder.config import python_specifier
from envbuilder.errors import EnvbuilderError, Problem, SeveralProblems
from envbuilder.fs import durable, exchange, locked, unwritable
from envbuilder.git.lfs import Objects
from envbuilder.lock.files import lock_folder
from envbuilder.models import Profile, Registry, Workspace

_STAGING = ".envbuilder-restore"


class ForeignError(SeveralProblems):
    """A bundle of another machine, another uv or another profile."""

    code = "bundle-foreign"


class StaleError(SeveralProblems):
    """Locks that are not those of the bundle, or not up to date."""

    code = "bundle-stale"


@dataclass(frozen=True)
class Restored:
    """What a restore did: `written` of the bundle's files were not here, and `fetched` of its git repositories."""

    manifest: Manifest
    written: int
    fetched: int


def restore(file: Path, workspace: Workspace, profile: Profile, registry: Registry) -> Restored:
    """Make what a bundle holds available to builds in a workspace.

    Nothing is written before the whole bundle is proved and found to fit; a second time there is nothing to write.

    Raises:
        DamagedError: it is not what was made.
        StaleError: the workspace's locks are not those that it was made for.
        ForeignError: it was made for another profile, uv, platform or Python.
        ToolError: the file system refuses.
    """
    manifest = scan(file)
    _refuse_foreign(file, manifest, workspace, profile)
    _refuse_other_locks(file, manifest, workspace, profile)
    _refuse_newer_platform(file, manifest)
    _refuse_other_pythons(file, manifest, profile, registry)
    written, fetched = unpack(file, manifest, uv.cache_folder(), workspace.shared / "git")
    return Restored(manifest, written, fetched)


def unpack(file: Path, manifest: Manifest, cache: Path, clones: Path) -> tuple[int, int]:
    """Put a proved bundle's parts in their places: how many files, and how many repositories, were not there.

    All that is missing is written beside its place first. Unpacked packages come into their places whole, by a rename,
    and before anything that names them; what is in its place byte for byte is left alone.

    Raises:
        DamagedError: the file changed since it was proved.
        ToolError: the file system refuses.
    """
    staging = cache / _STAGING
    try:
        with locked(cache / f"{_STAGING}.lock"):
            try:
                shutil.rmtree(staging, ignore_errors=True)
                repositories = {Clone(url, clones, {}): git for url, git in manifest.git.items()}
                taken = {clone: git.file for clone, git in repositories.items() if not all(map(clone.has, git.objects))}
                names = _missing(manifest, cache)
                large = _missing_objects(manifest, Objects(clones / "lfs"))
                if names or taken or large:
                    scan(file, {name: staging / name for name in [*names, *taken.values(), *large]})
                    durable(staging)
                    for clone, member in taken.items():
                        clone.take(staging / member)
                    for member, oid in large.items():
                        Objects(clones / "lfs").take(oid, staging / member)
                    _place(names, staging / "cache", cache)
                return len(names) + len(large), len(taken)
            finally:
                shutil.rmtree(staging, ignore_errors=True)
    except OSError as error:
        raise unwritable(cache, error) from error


def _missing(manifest: Manifest, cache: Path) -> list[str]:
    """The files of uv's cache that are not there as the bundle has them; of an unpacked package, all or none."""
    kept = {name: fact for name, fact in manifest.files.items() if name.startswith("cache/")}
    other = {name for name, fact in kept.items() if not _is_there(cache / name.removeprefix("cache/"), fact)}
    archives = {archive_of(name) for name in other} - {None}
    return [name for name in kept if name in other or archive_of(name) in archives]


def _missing_objects(manifest: Manifest, objects: Objects) -> dict[str, str]:
    """The bundle's Git LFS objects that are not there: member to digest."""
    kept = {name: name.removeprefix("lfs/") for name in manifest.files if name.startswith("lfs/")}
    facts = ((name, oid, manifest.files[name]) for name, oid in kept.items())
    return {name: oid for name, oid, fact in facts if not _is_there(objects.place(oid), fact)}


def _is_there(path: Path, fact: File | Link) -> bool:
    try:
        if isinstance(fact, Link):
            return path.is_symlink() and os.readlink(path) == fact.link  # noqa: PTH115 - the text as it stands
        if path.is_symlink() or path.stat().st_size != fact.size:
            return False
        return path.stat().st_mode & 0o777 == fact.mode and hex_of(path) == fact.sha256
    except OSError:
        return False


def _place(names: list[str], staged: Path, cache: Path) -> None:
    """Move what was staged into uv's cache, in an order that never leaves a name for what is not there."""
    places = [name.removeprefix("cache/") for name in names]
    archives = sorted({unit.removeprefix("cache/") for name in names if (unit := archive_of(name))})
    pointers = [place for place, name in zip(places, names, strict=True) if not archive_of(name)]
    for unit in archives:
        (cache / unit).parent.mkdir(parents=True, exist_ok=True)
        if (cache / unit).exists():
            exchange(staged / unit, cache / unit)
        else:
            (staged / unit).rename(cache / unit)
    durable(cache)
    for pointer in pointers:
        (cache / pointer).parent.mkdir(parents=True, exist_ok=True)
        (staged / pointer).replace(cache / pointer)
    durable(cache)


def _refuse_foreign(file: Path, manifest: Manifest, workspace: Workspace, profile: Profile) -> None:
    if manifest.profile != profile.name:
        hint = f"envbuilder bundle restore --profile {manifest.profile} {file}"
        message = f"it was made for the {manifest.profile} profile, not for {profile.name}"
        raise ForeignError([Problem("bundle-foreign", message, where=str(file), hint=hint)])
    found = uv.version_of(uv.find_uv())
    if tuple(map(str, found[:2])) != tuple(manifest.uv.split(".")[:2]):
        # What a cache's folders hold is uv's own affair, and changes from series to series.
        message = f"it was made with uv {manifest.uv}, here is {'.'.join(map(str, found))}"
        hint = f"python -m pip install 'uv=={manifest.uv}'  # in the environment of {workspace.root}"
        raise ForeignError([Problem("bundle-foreign", message, where=str(file), hint=hint)])


def _refuse_newer_platform(file: Path, manifest: Manifest) -> None:
    here = machine_tags()
    problems = []
    for name, wanted in sorted(manifest.asked_of_platform().items()):
        if set(here).isdisjoint(wanted):
            wheel = "/".join(name.split("/")[-2:])
            message = f"{wheel} needs {' or '.join(wanted)}; this machine is {here[0]}"
            hint = "envbuilder bundle create all.bundle  # on a machine whose C library is no newer than the one here"
            problems.append(Problem("bundle-foreign", message, where=str(file), hint=hint))
    if problems:
        raise ForeignError(problems)


def _refuse_other_locks(file: Path, manifest: Manifest, workspace: Workspace, profile: Profile) -> None:
    problems = []
    for plugin, digest in manifest.locks.items():
        lock = lock_folder(workspace, profile, plugin) / "uv.lock"
        if not lock.is_file() or hex_of(lock) != digest:
            message = (
                f"{'the lock is not the one' if lock.is_file() else 'there is no lock'} that {file.name} was made for"
            )
            hint = f"git log -- {workspace.show(lock)}  # or make the bundle anew: envbuilder bundle create"
            problems.append(Problem("bundle-stale", message, plugin, workspace.show(lock), hint))
    if problems:
        raise StaleError(problems)


def _refuse_other_pythons(file: Path, manifest: Manifest, profile: Profile, registry: Registry) -> None:
    problems = []
    for plugin, needed in manifest.python.items():
        entry = registry.get(plugin)
        request = python_specifier((entry.python if entry else None) or profile.python)
        try:
            here = uv.find_python(request, offline=True)
            found = {"implementation": here.implementation, "abi": here.abi, "platform": here.platform}
        except EnvbuilderError as error:
            found = {"abi": error.message}
        wanted: Mapping[str, str] = {name: str(getattr(needed, name)) for name in ("implementation", "abi", "platform")}
        if found != wanted:
            message = f"it needs Python {needed.version} ({needed.abi}, {needed.platform}); here is {found['abi']}"
            hint = f"uv python install {needed.version}"
            problems.append(Problem("bundle-foreign", message, plugin, str(file), hint))
    if problems:
        raise ForeignError(problems)
