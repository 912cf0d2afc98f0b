"""Garbage: environments that no generation, no live run and nobody's pin leads to."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import shutil
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from pathlib import Path

from envbuilder.fs import listed, locked
from envbuilder.places import STATE, owner_of
from envbuilder.store import bytecode
from envbuilder.store.digests import walk
from envbuilder.store.environments import Store
from envbuilder.store.generations import damaged


@dataclass(frozen=True)
class Garbage:
    """What can go.

    Attributes:
        keys: environments.
        leftovers: folders that killed builds left behind.
        apparent: their bytes, as `du --apparent-size` counts them.
        freed: the bytes that the disk gets back: what no hard link outside holds.
    """

    keys: tuple[str, ...]
    leftovers: tuple[Path, ...]
    apparent: int
    freed: int


def workspaces(shared: Path) -> list[Path]:
    """The own state folders of all workspaces that share a state folder, which may be a workspace's own too."""
    return [shared, *listed(shared / "workspaces")]


def reachable(shared: Path, *, without: Collection[Path] = ()) -> set[str]:
    """The keys that generations and pins of every workspace that shares this state lead to, some files left out.

    Raises:
        DamagedError: a file cannot be read; it may name any environment.
    """
    keys: set[str] = set()
    profiles = [profile for own in workspaces(shared) for profile in listed(own / "generations")]
    files = {file for profile in profiles for file in listed(profile) if file.suffix == ".json"}
    for file in files - set(without):
        try:
            keys.update(json.loads(file.read_text(encoding="utf-8"))["environments"].values())
        except FileNotFoundError:  # Its workspace forgot it meanwhile.
            continue
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise damaged(file, error, _remedy(file)) from error
    return keys


def _remedy(file: Path) -> str:
    """The command that mends a file in a workspace's state folder: a build, from the links beside it, where there are any."""
    if not file.with_suffix("").is_dir():
        return f"rm {file}  # what it kept goes then"
    own, profile = file.parents[2], file.parent.name
    owner = owner_of(own)
    root = own.parent if own.name == STATE else owner.root if owner else None
    return f"envbuilder build --profile {profile}" + (f" -C {root}" if root else "")


def find(store: Store, kept: Collection[str]) -> Garbage:
    """The environments that are not among the kept ones, what killed builds left, and what both weigh."""
    there = {path.name for path in listed(store.folder) if path.is_dir() and not path.name.startswith(".")}
    there |= set(store.keys())
    keys = tuple(sorted(there - set(kept)))
    leftovers = tuple(store.leftovers())
    apparent, freed = _weigh([folder for folder in (*map(store.path, keys), *leftovers) if folder.is_dir()])
    return Garbage(keys, leftovers, apparent, freed)


def _weigh(folders: Iterable[Path]) -> tuple[int, int]:
    """The bytes of the files in some folders, and those that the disk gets back with them."""
    links: dict[tuple[int, int], int] = {}
    apparent = freed = 0
    for _, entry in itertools.chain.from_iterable(map(walk, folders)):
        status = entry.stat(follow_symlinks=False)
        if not entry.is_file(follow_symlinks=False):
            continue
        apparent += status.st_size
        inode = (status.st_dev, status.st_ino)
        links[inode] = links.get(inode, 0) + 1
        if links[inode] == status.st_nlink:  # The last link is in here.
            freed += status.st_blocks * 512
    return apparent, freed


def collect(store: Store, kept: Collection[str]) -> Garbage:
    """Remove the environments that are not among the kept ones, with seals and bytecode; builders wait meanwhile.

    Raises:
        ToolError: the file system refuses.
    """
    garbage = find(store, kept)
    for key in garbage.keys:
        store.remove(key)
    store.sweep()
    for folder in listed(store.shared / "pycache"):
        if folder.name not in kept and not store.path(folder.name).exists():
            shutil.rmtree(folder, ignore_errors=True)
    bytecode.collect(store.shared)
    return garbage


def alone(store: Store, *, looking: bool = False) -> contextlib.AbstractContextManager[None]:
    """Hold the store alone: no builder is at work, and none begins; for a look, only where it can be held."""
    can = os.access(store.usage_path if store.usage_path.exists() else store.shared, os.W_OK)
    return contextlib.nullcontext() if looking and not can else locked(store.usage_path)


def human(size: float) -> str:
    """Bytes for people, in powers of 1024."""
    if size < 1024:
        return f"{size:.0f} B"
    for unit in ("KiB", "MiB"):
        size /= 1024
        if size < 1024:
            return f"{size:.1f} {unit}"
    return f"{size / 1024:.1f} GiB"
