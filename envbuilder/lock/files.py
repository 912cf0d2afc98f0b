"""Where locks and pins stand, and what they say."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from packaging.version import InvalidVersion, Version

from envbuilder.documents import parse_toml, read_text, refuse_large
from envbuilder.lock import pins as pins_file
from envbuilder.lock.project import LARGEST_LOCK, LockedPackage, digest, locked_packages
from envbuilder.models import Pin, Pins, Profile, Workspace


def lock_folder(workspace: Workspace, profile: Profile, plugin: str) -> Path:
    """Where a plugin's generated project and its lock stand."""
    return workspace.root / "profiles" / profile.name / plugin


def pins_path(workspace: Workspace, profile: Profile) -> Path:
    """Where a profile's pins stand."""
    return workspace.root / "profiles" / profile.name / "pins.toml"


def read_pins(workspace: Workspace, profile: Profile) -> Pins:
    """A profile's pins."""
    path = pins_path(workspace, profile)
    return pins_file.read(path, workspace.show(path))


def read_lock(folder: Path) -> tuple[LockedPackage, ...]:
    """The packages of a folder's ``uv.lock``.

    Raises:
        ConfigError: it is no TOML.
        ValueError: there is none, or it is no lock.
    """
    if not (folder / "uv.lock").exists():
        raise ValueError(f"no lock in {folder}")
    text = lock_text(folder, f"{folder.name}/uv.lock")
    return locked_packages(parse_toml(text, f"{folder.name}/uv.lock").value)


def lock_text(folder: Path, shown: str) -> str:
    """The text of a folder's ``uv.lock``; `shown` is how messages name it.

    Raises:
        ConfigError: it is not there, or no text of a lock's size.
    """
    return read_text(folder / "uv.lock", shown, largest=LARGEST_LOCK)


def lock_digest(folder: Path) -> str:
    """The digest of a folder's ``uv.lock``.

    Raises:
        ConfigError: it is larger than a lock.
        OSError: it cannot be read.
    """
    refuse_large(folder / "uv.lock", f"{folder.name}/uv.lock", LARGEST_LOCK)
    return digest((folder / "uv.lock").read_bytes())


def off_pin(packages: Sequence[LockedPackage], pins: Mapping[str, Pin]) -> Iterator[tuple[str, str, str]]:
    """Locked packages that are not what was pinned: name, the commit or version that they have, the one to have."""
    for package in packages:
        pin = pins.get(package.name)
        if pin is None:
            continue
        if package.commit != pin.commit:
            yield package.name, package.commit or "no commit at all", pin.commit
        elif package.version and pin.version and not same_version(package.version, pin.version):
            yield package.name, f"version {package.version}", f"version {pin.version}"


def same_version(one: str, other: str) -> bool:
    """Whether two versions are one, whichever way they are written."""
    try:
        return Version(one) == Version(other)
    except InvalidVersion:
        return one == other
