"""Who wrote into an environment that nothing may write into, and which variable has it write elsewhere."""

from __future__ import annotations

import csv
import io
import posixpath
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

from envbuilder import caches
from envbuilder.errors import counted, visible
from envbuilder.store.records import distribution_of, site_packages

_SHOWN = 3


@dataclass(frozen=True)
class Writer:
    """Something that wrote into an environment.

    Attributes:
        owners: the distributions whose folder it wrote into; none where that is nobody's.
        files: what it wrote, from the environment's root.
        variables: environment variables that may move that elsewhere.
    """

    owners: tuple[str, ...]
    files: tuple[str, ...]
    variables: tuple[str, ...]

    def __str__(self) -> str:
        who = f"{' or '.join(self.owners)}, in its own folder" if self.owners else "something, in nobody's folder"
        some = ", ".join(visible(name, line=True) for name in self.files[:_SHOWN])
        more = f" and {len(self.files) - _SHOWN} more" if len(self.files) > _SHOWN else ""
        return f"{who}: {some}{more}"

    @property
    def remedy(self) -> str:
        """What to set in the entry's ``env``."""
        if not self.variables:
            return "none of its code asks for a variable that moves it; see its documentation for one to set in env"
        return f"set in the entry: env: {{{self.variables[0]}: /a/folder/elsewhere}}" + (
            f"  (or {', '.join(self.variables[1:])})" if self.variables[1:] else ""
        )


def writers(environment: Path, names: Collection[str]) -> list[Writer]:
    """Who wrote files, by the folders that they are in; `names` are paths from the environment's root."""
    files = [name for given in names for name in _files(environment, given)]
    folders = _folders(environment) if files else {}
    found: dict[tuple[str, ...], list[str]] = {}
    for name in files:
        found.setdefault(_owners(name, folders), []).append(name)
    return [
        Writer(owners, tuple(each), tuple(caches.named(each, _sources(environment, owners, folders))))
        for owners, each in found.items()
    ]


def told(found: Sequence[Writer]) -> str:
    """Who wrote, in a line."""
    shown = "; ".join(map(str, found[:_SHOWN]))
    return shown + (f"; and {counted(len(found) - _SHOWN, 'other')}" if len(found) > _SHOWN else "")


def _files(environment: Path, name: str) -> list[str]:
    place = environment / name
    if place.is_symlink() or not place.is_dir():
        return [name]
    return sorted(str(each.relative_to(environment)) for each in place.rglob("*") if not each.is_dir()) or [name]


def _folders(environment: Path) -> dict[str, tuple[str, ...]]:
    """The distributions whose RECORDs have files in a folder, by the folder."""
    found: dict[str, dict[str, None]] = {}
    try:
        packages = site_packages(environment)
        below = str(packages.relative_to(environment))
        for record in sorted(packages.glob("*.dist-info/RECORD")):
            owner = distribution_of(record.parent.name)
            for row in csv.reader(io.StringIO(record.read_text(encoding="utf-8", errors="replace"), newline="")):
                folder = posixpath.dirname(posixpath.normpath(posixpath.join(below, row[0]))) if row else below
                if folder.startswith(f"{below}/"):
                    found.setdefault(folder, {})[owner] = None
    except (OSError, csv.Error):
        pass
    return {folder: tuple(owners) for folder, owners in found.items()}


def _owners(name: str, folders: dict[str, tuple[str, ...]]) -> tuple[str, ...]:
    folder = posixpath.dirname(name)
    while folder and folder not in folders:
        folder = posixpath.dirname(folder)
    return folders.get(folder, ())


def _sources(environment: Path, owners: tuple[str, ...], folders: dict[str, tuple[str, ...]]) -> list[Path]:
    """The Python files of whoever wrote; of all packages' top modules where nobody is known."""
    if not owners:
        return sorted(site_packages(environment).glob("*.py"))
    mine = [folder for folder, them in folders.items() if set(them) & set(owners)]
    return [source for folder in mine for source in sorted((environment / folder).glob("*.py"))]
