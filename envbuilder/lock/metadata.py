"""What a package declares of itself, read from its ``pyproject.toml`` without building where it is static."""

from __future__ import annotations

import email.parser
import re
import zipfile
from collections.abc import Mapping
from pathlib import Path

from packaging.specifiers import InvalidSpecifier, SpecifierSet

from envbuilder.documents import parse_toml
from envbuilder.errors import ConfigError, EnvbuilderError
from envbuilder.models import Metadata


class MetadataError(EnvbuilderError):
    """Metadata that cannot be read, or that names what is not there."""

    code = "metadata-unreadable"
    exit_status = 1


def static(text: str | None, where: str) -> Metadata:
    """The metadata in a ``pyproject.toml``; fields that only a build can tell are None.

    Args:
        text: the file's text, None where there is no such file.
        where: how messages name it.

    Raises:
        MetadataError: there is no file, or it cannot be parsed.
    """
    if text is None:
        raise MetadataError("no pyproject.toml there", where=where)
    try:
        document = parse_toml(text, where).value
    except ConfigError as error:
        raise MetadataError(error.message, where=error.where) from error
    project = document.get("project")
    poetry = (document.get("tool") or {}).get("poetry")
    try:
        if isinstance(project, Mapping):
            return _from_project(project)
        if isinstance(poetry, Mapping):
            return _from_poetry(poetry)
    except (TypeError, ValueError, AttributeError) as error:
        raise MetadataError(f"its metadata has an unexpected form: {error}", where=where) from error
    return Metadata(None, None, None, None)  # setup.py and setup.cfg: a build tells.


def _from_project(project: Mapping[str, object]) -> Metadata:
    dynamic = project.get("dynamic") or ()
    dependencies = project.get("dependencies") or []
    if not isinstance(dynamic, list | tuple) or not isinstance(dependencies, list):
        raise TypeError("dynamic and dependencies must be lists")
    return Metadata(
        name=_text(project.get("name")),
        version=None if "version" in dynamic else _text(project.get("version")),
        requires_python=_text(project.get("requires-python")),
        dependencies=None if "dependencies" in dynamic else tuple(str(item) for item in dependencies),
    )


def _from_poetry(poetry: Mapping[str, object]) -> Metadata:
    table = poetry.get("dependencies") or {}
    if not isinstance(table, Mapping):
        raise TypeError("tool.poetry.dependencies must be a table")
    python = None
    requirements: list[str] = []
    for name, value in table.items():
        version = value.get("version", "*") if isinstance(value, Mapping) else value
        if isinstance(value, Mapping) and value.get("optional"):
            continue
        specifier = poetry_specifier(str(version))
        if name == "python":
            python = specifier
        else:
            requirements.append(f"{name}{specifier}")
    return Metadata(_text(poetry.get("name")), _text(poetry.get("version")), python, tuple(requirements))


def poetry_specifier(text: str) -> str:
    """Poetry's version constraints as a PEP 440 specifier (its documentation, "Dependency specification").

    Raises:
        ValueError: the constraint has a form that PEP 440 cannot say.
    """
    parts = [_poetry_part(part.strip()) for part in text.split(",") if part.strip() and part.strip() != "*"]
    try:
        return str(SpecifierSet(",".join(parts)))
    except InvalidSpecifier as error:
        raise ValueError(f"version constraint {text!r}: {error}") from error


def _poetry_part(part: str) -> str:
    found = re.fullmatch(r"([\^~]?)\s*(\d+(?:\.\d+)*)(.*)", part)
    if found is None:
        return part
    sign, release, rest = found.groups()
    if not sign:
        return f"=={release}{rest}"
    numbers = [int(number) for number in release.split(".")]
    if sign == "~":
        place = 1 if len(numbers) > 1 else 0
    else:  # The leftmost number that is not zero may not change.
        place = next((index for index, number in enumerate(numbers) if number), len(numbers) - 1)
    upper = [*numbers[:place], numbers[place] + 1]
    return f">={release}{rest},<{'.'.join(str(number) for number in upper)}"


def of_wheel(folder: Path) -> Metadata:
    """The metadata of the one wheel in a folder."""
    wheel = next(folder.glob("*.whl"))
    with zipfile.ZipFile(wheel) as archive:
        name = next(item for item in archive.namelist() if item.endswith(".dist-info/METADATA"))
        message = email.parser.Parser().parsestr(archive.read(name).decode("utf-8", "replace"))
    requires = tuple(str(value) for value in message.get_all("Requires-Dist") or ())
    return Metadata(message["Name"], message["Version"], message["Requires-Python"], requires)


def _text(value: object) -> str | None:
    if value is not None and not isinstance(value, str):
        raise TypeError(f"expected text, found {value!r}")
    return value
