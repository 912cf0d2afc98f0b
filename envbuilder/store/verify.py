"""Whether environments are what they were when they were sealed, in three tiers.

* `glance`: a few stats; what is half built, upgraded or ``pip install``ed.
* `fast`: one walk; every file's size, mtime and mode, every link's target, no stray file.
* `full`: every byte against the seal, each inode hashed once however many environments link to it.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from envbuilder.errors import counted, visible
from envbuilder.store.digests import sha256_of_all
from envbuilder.store.seals import Row, Seal, names_digest, read, read_rows

# Device and number.
Inode = tuple[int, int]
# A file that a walk meets: its path in the environment, its `lstat`, its sealed digest.
Visited = tuple[str, os.stat_result, str]

# What was found in environments, by key.
Found = Mapping[str, list["Finding"]]

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


@dataclass(frozen=True)
class Finding:
    """One thing that is not as it was sealed.

    Attributes:
        kind: ``missing``, ``stray``, ``changed`` (stats), ``content`` (bytes), ``interpreter`` or ``seal``.
        path: relative to the environment; empty for the environment as a whole.
        detail: found against sealed.
    """

    kind: str
    path: str
    detail: str

    def __str__(self) -> str:
        return f"{self.kind}: {visible(self.path, line=True) + ': ' if self.path else ''}{self.detail}"


def glance(place: Path, seal: Seal | None) -> str | None:
    """Why an environment is not as it was sealed, by a few stats; None where it looks whole."""
    if seal is None or not place.is_dir():
        return "not built"
    if reason := interpreter_changed(place, seal):
        return reason
    try:
        with os.scandir(place / seal.packages) as entries:
            if names_digest(entry.name for entry in entries) != seal.names:
                return "packages were added or removed since it was sealed"
        for name, expected in seal.stats.items():
            status = os.lstat(place / name)
            if [status.st_size, status.st_mtime_ns] != list(expected):
                return f"{name} changed since it was sealed"
    except OSError as error:
        return f"{error.filename} is gone"
    return None


def interpreter_changed(place: Path, seal: Seal) -> str | None:
    """Whether the interpreter behind an environment is another one than it was made with."""
    python = place / "bin" / "python"
    try:
        real = python.resolve(strict=True)
        status = real.stat()
    except OSError:
        return "its interpreter is gone"
    stamp = [str(real), status.st_size, status.st_mtime_ns]
    return None if stamp == seal.inputs.get("interpreter-stamp") else f"its interpreter {real} changed"


def find(store: Path, keys: Sequence[str], *, full: bool) -> Found:
    """What is not as it was sealed in the environments of some keys: by a walk, or byte for byte.

    Args:
        store: the folder of environments.
        keys: whose; those of no environment are a finding too.
        full: whether to read every byte, those of each inode once.
    """
    known: dict[Inode, str | OSError] = {}
    found = {}
    for key in keys:
        place, listing, seal = store / key, store / f"{key}.files.json", read(store / f"{key}.json", key)
        if seal is None:
            found[key] = [Finding("seal", "", "there is no seal, or it cannot be read")]
        elif not place.is_dir():
            found[key] = [Finding("missing", "", "the environment is gone")]
        else:
            found[key] = _full(place, seal, listing, known) if full else _visit(place, seal, listing, None)
    return found


def _full(place: Path, seal: Seal, listing: Path, known: dict[Inode, str | OSError]) -> list[Finding]:
    """What a walk finds, and every file whose bytes differ; `known` goes from one environment to the next."""
    files: list[Visited] = []
    findings = _visit(place, seal, listing, files)
    inodes = {(each.st_dev, each.st_ino): (f"{place}/{name}", each.st_size) for name, each, _ in files}
    fresh = {inode: path for inode, path in inodes.items() if inode not in known}
    digests = sha256_of_all(dict(fresh.values()))
    known.update((inode, digests[path]) for inode, (path, _) in fresh.items())
    for name, status, sealed in files:
        found = known[status.st_dev, status.st_ino]
        if isinstance(found, OSError):
            findings.append(Finding("content", name, f"cannot be read: {found.strerror}"))
        elif found != sealed:
            findings.append(Finding("content", name, "its bytes are not the sealed ones"))
    return sorted(findings, key=lambda finding: (finding.path, finding.kind))


def _visit(place: Path, seal: Seal, listing: Path, files: list[Visited] | None) -> list[Finding]:
    """What a walk finds, by path; adds the files that it meets and the seal knows to `files`, where that is given."""
    sealed = read_rows(listing, seal)
    if sealed is None:
        return [Finding("seal", "", "the list of files is missing, or not what the seal's head says")]
    findings = []
    if reason := interpreter_changed(place, seal):
        findings.append(Finding("interpreter", "bin/python", reason))
    findings.extend(_walk(place, sealed, files))
    findings.extend(Finding("missing", name, "there when it was sealed") for name in sealed)
    return list(_gathered(sorted(findings, key=lambda finding: finding.path.split("/"))))


def _gathered(findings: Sequence[Finding]) -> Iterator[Finding]:
    """Findings by path, with one for a folder that is gone or new, whatever was or is in it."""
    top, inside = None, 0
    for finding in findings:
        if top and finding.kind == top.kind and finding.path.startswith(f"{top.path}/"):
            inside += 1
            continue
        if top:
            yield _with(top, inside)
        top, inside = (finding, 0) if finding.kind in {"missing", "stray"} else (None, 0)
        if top is None:
            yield finding
    if top:
        yield _with(top, inside)


def _with(folder: Finding, inside: int) -> Finding:
    return replace(folder, detail=f"{folder.detail}, with {counted(inside, 'path')} in it") if inside else folder


def _walk(place: Path, sealed: dict[str, Row], files: list[Visited] | None) -> Iterator[Finding]:
    """What differs below a folder; takes what it meets out of `sealed`, and adds files to `files`.

    This is where the time goes. Names are looked up in open folders, not from the root, and rows stay plain.
    """
    try:
        root = os.open(place, _FOLDER & ~os.O_NOFOLLOW)
    except OSError as error:
        yield Finding("changed", "", f"cannot be read: {error.strerror}")
        return
    try:
        folders = [""]
        while folders:
            folder = folders.pop()
            try:
                yield from _enter(root, folder, folders, sealed, files)
            except OSError as error:
                yield Finding("changed", folder, f"cannot be read: {error.strerror}")
    finally:
        os.close(root)


def _enter(
    root: int, folder: str, folders: list[str], sealed: dict[str, Row], files: list[Visited] | None
) -> Iterator[Finding]:
    handle = os.open(folder or ".", _FOLDER, dir_fd=root)
    prefix = f"{folder}/" if folder else ""
    try:
        with os.scandir(handle) as entries:
            for entry in entries:
                name = prefix + entry.name
                status = entry.stat(follow_symlinks=False)
                kind = stat.S_IFMT(status.st_mode)
                if kind == stat.S_IFDIR:
                    folders.append(name)
                row = sealed.pop(name, None)
                if row is None:
                    yield Finding("stray", name, "not there when it was sealed")
                    continue
                target = os.readlink(entry.name, dir_fd=handle) if kind == stat.S_IFLNK else ""
                is_file = kind == stat.S_IFREG
                if (
                    status.st_mode != row[0]
                    or (is_file and (status.st_mtime_ns != row[2] or status.st_size != row[1]))
                    or (target and target != row[3])
                ):
                    yield Finding("changed", name, _difference(status, target, row))
                if is_file and files is not None and stat.S_ISREG(row[0]):
                    files.append((name, status, row[3]))
    finally:
        os.close(handle)


def _difference(status: os.stat_result, target: str, sealed: Row) -> str:
    mode, size, _, content = sealed
    if stat.S_IFMT(status.st_mode) != stat.S_IFMT(mode):
        return "was a file, link or folder, and is another kind now"
    if stat.S_ISLNK(mode) and target != content:
        return f"leads to {target}, sealed {content}"
    if status.st_mode != mode:
        return f"mode {stat.filemode(status.st_mode)}, sealed {stat.filemode(mode)}"
    if status.st_size != size:
        return f"{status.st_size} bytes, sealed {size}"
    return "modified since it was sealed"
