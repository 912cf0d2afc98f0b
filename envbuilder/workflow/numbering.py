"""Where a package keeps its version, and how another one is written there."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name
from packaging.version import InvalidVersion, Version

from envbuilder import editing
from envbuilder.documents import read_toml
from envbuilder.errors import UsageError
from envbuilder.fs import write_atomically

# Build requirements that take a dynamic version from git's tags.
_FROM_TAGS = frozenset(
    {
        "setuptools-scm",
        "hatch-vcs",
        "versioningit",
        "poetry-dynamic-versioning",
        "vcs-versioning",
        "flit-scm",
        "dunamai",
    }
)
_STATIC = (("project", "version"), ("tool", "poetry", "version"))

# What says a version in a file; the named group is the version.
_DUNDER = r"""^__version__(?:\s*:\s*\w+)?\s*=\s*(?P<q>['"])(?P<version>[^'"]+)(?P=q)"""
# As hatchling reads the file that `tool.hatch.version` names.
_HATCH = r"""(?i)^(?:__version__|version)(?:\s*:\s*str)?\s*=\s*(?P<q>['"])v?(?P<version>[^'"]+)(?P=q)"""
_SETUP_CFG = r"^version\s*=\s*(?P<version>[^\s:]+)[ \t]*$"
_SETUP_PY = r"""\bversion\s*=\s*(?P<q>['"])(?P<version>[^'"]+)(?P=q)"""
_WHOLE = r"\A\s*(?P<version>\S+)\s*\Z"

_MODULES = ("__init__.py", "__about__.py", "_version.py", "__version__.py", "version.py")


@dataclass(frozen=True)
class Numbering:
    """How a package says its version.

    Attributes:
        version: None where the tag alone says it.
        files: where it stands, relative to the package; none where the tag says it.
    """

    version: Version | None
    files: tuple[str, ...]


def find(package: Path, shown: str) -> Numbering:
    """How a package says its version; `shown` is how messages name it.

    Raises:
        UsageError: it cannot be told where it stands.
    """
    tree = _tree(package)
    if (static := _static(tree)) is not None:
        version = static
    elif _is_from_tags(tree):
        return Numbering(None, ())
    else:
        said = [number for file, pattern in _places(package, tree) for number, _ in _said(package / file, pattern)]
        if not said:
            message = (
                "its version stands neither in pyproject.toml nor in setup.cfg, setup.py or a module's __version__"
            )
            raise UsageError(message, code="version-unknown", where=shown, hint=f"grep -rn version {shown}")
        version = said[0]
    files = [
        file for file, pattern in _places(package, tree) if any(v == version for v, _ in _said(package / file, pattern))
    ]
    if static is not None:
        files.insert(0, "pyproject.toml")
    return Numbering(version, tuple(dict.fromkeys(files)))


def write(package: Path, numbering: Numbering, new: Version) -> None:
    """Put another version wherever the old one stands."""
    tree = _tree(package)
    places = list(_places(package, tree))
    for name in numbering.files:
        file = package / name
        text = file.read_bytes().decode()
        if name == "pyproject.toml":
            path = next(path for path in _STATIC if _at(tree, path) is not None)
            text = editing.set_in_toml(text, path, str(new), name)
        for place, pattern in places:
            if place == name:
                spans = [span for version, span in _said(file, pattern) if version == numbering.version]
                for start, end in sorted(spans, reverse=True):
                    text = f"{text[:start]}{new}{text[end:]}"
        write_atomically(file.resolve(), text)


def _places(package: Path, tree: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """The files, but for ``pyproject.toml``, that may say the version, each with what says it there."""
    hatch = _at(tree, ("tool", "hatch", "version", "path"))
    if isinstance(hatch, str) and (package / hatch).is_file():
        yield hatch, _HATCH
    told = _at(tree, ("tool", "setuptools", "dynamic", "version", "file"))
    for name in [told] if isinstance(told, str) else told or ():
        if (package / name).is_file():
            yield name, _WHOLE
    yield from ((name, pattern) for name, pattern in (("setup.cfg", _SETUP_CFG), ("setup.py", _SETUP_PY)))
    for folder in sorted({*package.glob("src/*/"), *package.glob("*/")}):
        if not folder.name.startswith((".", "_")) and folder.name not in {"tests", "test", "docs", "build", "dist"}:
            for module in _MODULES:
                name = str((folder / module).relative_to(package))
                if name != hatch:
                    yield name, _DUNDER
    if isinstance(own := _at(tree, ("project", "name")), str):
        yield "uv.lock", rf'^name = "{re.escape(canonicalize_name(own))}"\nversion = "(?P<version>[^"]+)"'


def _said(file: Path, pattern: str) -> Iterator[tuple[Version, tuple[int, int]]]:
    """The versions that a file says, each with its place in the text."""
    if not file.is_file():
        return
    for found in re.finditer(pattern, file.read_bytes().decode("utf-8", "replace"), re.MULTILINE):
        try:
            yield Version(found["version"]), found.span("version")
        except InvalidVersion:
            continue


def _tree(package: Path) -> Mapping[str, Any]:
    file = package / "pyproject.toml"
    found = read_toml(file, str(file)).value if file.is_file() else {}
    return found if isinstance(found, Mapping) else {}


def _static(tree: Mapping[str, Any]) -> Version | None:
    if "version" in (_at(tree, ("project", "dynamic")) or ()) or _is_poetrys_tag(tree):
        return None
    for path in _STATIC:
        if isinstance(text := _at(tree, path), str):
            return Version(text)
    return None


def _is_poetrys_tag(tree: Mapping[str, Any]) -> bool:
    return bool(_at(tree, ("tool", "poetry-dynamic-versioning", "enable")))


def _is_from_tags(tree: Mapping[str, Any]) -> bool:
    if _at(tree, ("tool", "pdm", "version", "source")) == "scm" or _is_poetrys_tag(tree):
        return True
    names = set()
    for line in _at(tree, ("build-system", "requires")) or ():
        try:
            names.add(canonicalize_name(Requirement(line).name))
        except InvalidRequirement:
            continue
    return bool(_FROM_TAGS & names)


def _at(tree: Mapping[str, Any], path: tuple[str, ...]) -> Any:
    value: Any = tree
    for key in path:
        value = value.get(key) if isinstance(value, Mapping) else None
    return value
