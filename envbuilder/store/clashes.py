"""Files that more than one distribution installs: the last of them to be linked wins, and which that is varies."""

from __future__ import annotations

import csv
import io
import posixpath
import re
import unicodedata
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from envbuilder.store.records import distribution_of, site_packages

# Beside packages by mistake, and imported by none that is installed.
_ASIDE = frozenset({"benchmarks", "doc", "docs", "example", "examples", "test", "tests"})
_NOTES = re.compile(
    r"(authors|changelog|changes|contributing|copying|license|licence|notice|readme)(\.\w+)?", re.IGNORECASE
)


@dataclass(frozen=True)
class Clash:
    """Distributions that install other bytes under the same names.

    Attributes:
        owners: their names, sorted.
        files: the names, relative to the environment, those that matter first.
    """

    owners: tuple[str, ...]
    files: tuple[str, ...]


def find(environment: Path) -> list[Clash]:
    """Return what distributions of a fresh environment overwrote of one another, by owners.

    Files with the same bytes, as the ``__init__.py`` of a namespace often is, are no clash.
    """
    found: dict[tuple[str, ...], list[str]] = {}
    for name, digests in _digests(environment, _folding(environment)).items():
        if len(digests) > 1 and len(set(digests.values())) > 1:
            found.setdefault(tuple(sorted(digests)), []).append(name)
    return [Clash(owners, tuple(sorted(files, key=_weight))) for owners, files in sorted(found.items())]


def matters(clash: Clash, program: str = "") -> bool:
    """Tell whether it changes what a plugin does which distribution's files are there in the end.

    Args:
        clash: the files.
        program: what the plugin is started by, where it is a script of its environment.
    """
    return any(_matters(file, program) for file in clash.files)


def _matters(file: str, program: str) -> bool:
    if file.startswith("bin/"):  # Scripts are for people; a plugin is imported.
        return file.removeprefix("bin/") == posixpath.basename(program)
    below = re.sub(r"^lib/python[^/]+/site-packages/", "", file)
    top, _, rest = below.partition("/")
    if not rest:
        return _NOTES.fullmatch(top) is None
    return top not in _ASIDE and not below.startswith(("share/doc/", "share/man/"))


def _weight(file: str) -> tuple[bool, str]:
    return not _matters(file, ""), file


def _digests(environment: Path, fold: Callable[[str], str]) -> dict[str, dict[str, str]]:
    """Each installed file's SHA-256 as each of its owners' RECORDs has it."""
    packages = site_packages(environment)
    prefix = str(packages.relative_to(environment))
    spelled: dict[str, str] = {}
    found: dict[str, dict[str, str]] = {}
    for owner, name, digest in _rows(packages):
        path = posixpath.normpath(posixpath.join(prefix, name))
        found.setdefault(spelled.setdefault(fold(path), path), {})[owner] = digest
    return found


def _rows(packages: Path) -> Iterator[tuple[str, str, str]]:
    for info in sorted(packages.glob("*.dist-info")):
        try:
            text = (info / "RECORD").read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError):
            continue  # Which the comparison with RECORD tells.
        for row in csv.reader(io.StringIO(text, newline="")):
            if len(row) > 1 and row[1].startswith("sha256="):
                yield distribution_of(info.name), row[0], row[1]


def _folding(environment: Path) -> Callable[[str], str]:
    """Return how the environment's file system compares names."""
    if not (environment / "PYVENV.CFG").exists():
        return str
    return lambda name: unicodedata.normalize("NFC", name).casefold()
