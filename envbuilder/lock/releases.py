"""What releases of the index declare of themselves: a lock holds their dependencies' names, without the versions asked."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path

from envbuilder import compat, uv
from envbuilder.config import python_specifier
from envbuilder.errors import EnvbuilderError
from envbuilder.lock import metadata
from envbuilder.lock.project import LockedPackage, Member
from envbuilder.models import Profile, PypiSource, Release, Workspace
from envbuilder.store import interpreters


def candidates(members: tuple[Member, ...], known: Mapping[str, Release]) -> set[str]:
    """The names of a closure's releases, without those of which the very version that the entry names is known."""
    return {
        item.entry.name
        for item in members
        if isinstance(source := item.entry.source, PypiSource)
        and not (source.exact and (old := known.get(item.entry.name)) and compat.accepts(source.specifier, old.version))
    }


def read(package: LockedPackage, project: Path, workspace: Workspace, profile: Profile, *, offline: bool) -> Release:
    """What a locked release declares, told by its own files.

    Args:
        package: as the lock holds it, with a version.
        project: the folder of the lock, whose settings name the indexes.
        workspace, profile: whose interpreter.
        offline: whether only uv's cache may be asked.
    """
    version = package.version or ""
    try:
        interpreter = interpreters.find(workspace.shared, python_specifier(profile.python), offline=offline)
        requirement = f"{package.name}=={version}"
        with tempfile.TemporaryDirectory(prefix="envbuilder-release-") as target:
            done = uv.install_bare(requirement, Path(target), interpreter.path, cwd=project, offline=offline)
            found = metadata.of_installed(Path(target), requirement) if done.ok else None
    except EnvbuilderError:
        found = None
    # One that cannot be had here, such as a wheel for another platform, is on record as not known, and not asked again.
    return Release(version, found.requires_python, found.dependencies) if found else Release(version)
