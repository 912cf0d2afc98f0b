"""What a fresh environment must hold: every file of every RECORD, byte for byte, and nothing from elsewhere."""

from __future__ import annotations

import base64
import contextlib
import csv
import io
import os
import posixpath
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from packaging.utils import canonicalize_name

from envbuilder.store.seals import Facts

# What an installer writes into a dist-info folder beside, or in place of, what RECORD says.
_INSTALLERS = frozenset({"RECORD", "REQUESTED", "INSTALLER", "uv_build.json", "uv_cache.json", "direct_url.json"})


@dataclass(frozen=True)
class Wrong:
    """One thing in a fresh environment that should not be so.

    Attributes:
        package: the distribution it is about, if any.
        text: what is wrong.
        path: the file, from the environment's root, where it is one.
    """

    package: str | None
    text: str
    path: str = ""

    def __str__(self) -> str:
        return f"{self.package}: {self.text}" if self.package else self.text


def suspects(environment: Path, wrong: Collection[Wrong]) -> set[str]:
    """The packages that may have brought what is wrong; all of them where something has no known owner."""
    owners = {each.package for each in wrong if each.package is not None}
    return owners if all(each.package for each in wrong) else owners | set(distributions(environment))


def site_packages(environment: Path) -> Path:
    """The folder that packages are installed in.

    Raises:
        FileNotFoundError: there is none.
    """
    found = sorted(environment.glob("lib/python*/site-packages"))
    if not found:
        raise FileNotFoundError(f"no site-packages in {environment}")
    return found[0]


def findings(
    environment: Path, files: Mapping[str, Facts], before: Collection[str], shared: Collection[str] = ()
) -> Iterator[Wrong]:
    """What differs between the RECORDs and the files.

    Args:
        environment: the root of a virtual environment.
        files: everything in it, with digests.
        before: what was in it before anything was installed.
        shared: files of several distributions, which may have the bytes of any of them.
    """
    try:
        packages = str(site_packages(environment).relative_to(environment))
    except FileNotFoundError as error:
        yield Wrong(None, str(error))
        return
    recorded = {*before, ".lock"}  # uv's own, at the root
    # Folders directly in site-packages: what a package vendors has RECORDs too, and they are not about this place.
    infos = (name for name in files if posixpath.dirname(name) == packages and name.endswith(".dist-info"))
    for info in sorted(infos):
        package = _split(posixpath.basename(info))[0]
        record = environment / info / "RECORD"
        if not record.is_file():
            yield Wrong(package, "it has no RECORD")
            continue
        for row in csv.reader(io.StringIO(record.read_text(encoding="utf-8"), newline="")):
            name = posixpath.normpath(posixpath.join(packages, row[0]))
            recorded.add(name)
            if name not in shared and (difference := _difference(name, row, files)):
                yield Wrong(package, f"{row[0]} {difference}", name)
    for name, facts in files.items():
        if (facts.is_file or facts.content) and name not in recorded and posixpath.basename(name) not in _INSTALLERS:
            yield Wrong(None, f"{name} is in no package's RECORD", name)


def _difference(name: str, row: list[str], files: Mapping[str, Facts]) -> str | None:
    facts = files.get(name)
    if facts is None:
        # Bytecode is recorded by wheels now and then, and never installed.
        return None if name.endswith(".pyc") else "is missing"
    algorithm, _, encoded = row[1].partition("=")
    # Scripts get the environment's own first line, and installers their own notes.
    if algorithm != "sha256" or posixpath.basename(name) in _INSTALLERS or "/bin/" in f"/{name}":
        return None
    digest = base64.urlsafe_b64decode(encoded + "=" * (-len(encoded) % 4)).hex()
    return None if facts.content == f"sha256:{digest}" else "has other bytes than RECORD says"


def owners(environment: Path, files: Collection[str]) -> list[str]:
    """The distributions whose RECORDs name some files of an environment, sorted; names are relative to it."""
    root = site_packages(environment)
    wanted = {os.path.relpath(environment / name, root) for name in files}
    found = set()
    for record in root.glob("*.dist-info/RECORD"):
        with contextlib.suppress(OSError), record.open(encoding="utf-8", errors="replace", newline="") as stream:
            if any(row and row[0] in wanted for row in csv.reader(stream)):
                found.add(distribution_of(record.parent.name))
    return sorted(found)


def distributions(environment: Path) -> dict[str, str]:
    """The installed distributions, normalised name to version, by the names of their dist-info folders."""
    return dict(_split(info.name) for info in site_packages(environment).glob("*.dist-info"))


def distribution_of(info: str) -> str:
    """The distribution's normalised name, by the name of its dist-info folder."""
    return _split(info)[0]


def _split(info: str) -> tuple[str, str]:
    name, _, version = info.removesuffix(".dist-info").rpartition("-")
    return str(canonicalize_name(name)), version
