"""Whether environments are what they were when they were sealed, in three tiers.

* `glance`: a few stats; what is half built, upgraded or ``pip install``ed.
* `fast`: one walk; every file's size, mtime and mode, every link's target, no stray file.
* `full`: every byte against the seal, each inode hashed once however many environments link to it.
"""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass
from pathlib import Path

from envbuilder.store.digests import sha256_of, walk
from envbuilder.store.seals import Facts, Seal, facts_of, names_digest, read_list


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
        return f"{self.kind}: {self.path + ': ' if self.path else ''}{self.detail}"


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


def fast(place: Path, seal: Seal, listing: Path) -> list[Finding]:
    """Everything that a walk can tell."""
    sealed = read_list(listing, seal)
    if sealed is None:
        return [Finding("seal", "", "the list of files is missing, or not what the seal's head says")]
    findings = []
    if reason := interpreter_changed(place, seal):
        findings.append(Finding("interpreter", "bin/python", reason))
    seen = set()
    for name, entry in walk(place):
        seen.add(name)
        expected = sealed.get(name)
        if expected is None:
            findings.append(Finding("stray", name, "not there when it was sealed"))
            continue
        found = facts_of(entry.path, entry.stat(follow_symlinks=False))
        if difference := _difference(found, expected):
            findings.append(Finding("changed", name, difference))
    findings.extend(Finding("missing", name, "there when it was sealed") for name in sealed.keys() - seen)
    return sorted(findings, key=lambda finding: finding.path)


def _difference(found: Facts, expected: Facts) -> str | None:
    if stat.S_IFMT(found.mode) != stat.S_IFMT(expected.mode):
        return "was a file, link or folder, and is another kind now"
    if not expected.is_file and found.content != expected.content:
        return f"leads to {found.content}, sealed {expected.content}"
    if found.mode != expected.mode:
        return f"mode {stat.filemode(found.mode)}, sealed {stat.filemode(expected.mode)}"
    if found.size != expected.size:
        return f"{found.size} bytes, sealed {expected.size}"
    if found.mtime_ns != expected.mtime_ns:
        return "modified since it was sealed"
    return None


def full(place: Path, seal: Seal, listing: Path, known: dict[tuple[int, int], str]) -> list[Finding]:
    """Everything: the walk's findings, and every file whose bytes differ.

    Args:
        place, seal, listing: the environment and its seal.
        known: digests by device and inode, filled on the way and handed from one environment to the next.
    """
    findings = fast(place, seal, listing)
    gone = {finding.path for finding in findings if finding.kind in {"missing", "content"}}
    for name, expected in (read_list(listing, seal) or {}).items():
        if not expected.is_file or name in gone:
            continue
        path = place / name
        try:
            status = path.lstat()
            inode = (status.st_dev, status.st_ino)
            if inode not in known:
                known[inode] = sha256_of(path)
        except OSError as error:
            findings.append(Finding("content", name, f"cannot be read: {error.strerror}"))
            continue
        if known[inode] != expected.content:
            findings.append(Finding("content", name, "its bytes are not the sealed ones"))
    return sorted(findings, key=lambda finding: (finding.path, finding.kind))
