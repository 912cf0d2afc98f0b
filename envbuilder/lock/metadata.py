"""What a package declares of itself, read from its ``pyproject.toml`` without building where it is static."""

from __future__ import annotations

import email.parser
import re
import zipfile
from collections.abc import Mapping
from pathlib import Path

from packaging.markers import Marker
from packaging.requirements import InvalidRequirement, Requirement
from packaging.specifiers import InvalidSpecifier, SpecifierSet
from packaging.utils import canonicalize_name

from envbuilder.documents import parse_toml
from envbuilder.errors import ConfigError, EnvbuilderError
from envbuilder.models import Metadata

# Where nothing is static.
BUILD_TELLS = Metadata(None, None, None, None)

_PLAIN_POETRY = {"version", "extras", "git", "tag", "rev", "branch", "path", "develop", "source", "optional"}


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
        # A file of a tag is mended in its repository, which no command here can do.
        can_mend = "://" not in where and (error.hint or "").startswith(("sed ", "iconv "))
        raise MetadataError(error.message, where=error.where, hint=error.hint if can_mend else None) from error
    tool = document.get("tool")
    project = document.get("project")
    poetry = tool.get("poetry") if isinstance(tool, Mapping) else None
    try:
        if isinstance(project, Mapping):
            return _from_project(project)
        if isinstance(poetry, Mapping):
            return _from_poetry(poetry)
    except (TypeError, ValueError, AttributeError) as error:
        raise MetadataError(f"its metadata has an unexpected form: {error}", where=where) from error
    return BUILD_TELLS  # setup.py and setup.cfg


def _from_project(project: Mapping[str, object]) -> Metadata:
    dynamic = project.get("dynamic") or ()
    dependencies = project.get("dependencies") or []
    optional = project.get("optional-dependencies") or {}
    if not isinstance(dynamic, list | tuple) or not isinstance(dependencies, list) or not isinstance(optional, Mapping):
        raise TypeError("dynamic and dependencies must be lists, optional-dependencies a table")
    python = _text(project.get("requires-python"))
    try:
        SpecifierSet(python or "")
    except InvalidSpecifier as error:
        raise ValueError(f"requires-python: {error}") from error
    behind = [_behind(str(item), str(extra)) for extra, items in optional.items() for item in items]
    return Metadata(
        name=_text(project.get("name")),
        version=None if "version" in dynamic else _text(project.get("version")),
        requires_python=python,
        dependencies=None
        if {"dependencies", "optional-dependencies"} & set(dynamic)
        else (*(str(item) for item in dependencies), *behind),
    )


def _behind(text: str, extra: str) -> str:
    """A requirement as wheels say it of an extra."""
    try:
        requirement = Requirement(text)
    except InvalidRequirement:
        return text
    condition = f'extra == "{canonicalize_name(extra)}"'
    requirement.marker = Marker(f"({requirement.marker}) and {condition}" if requirement.marker else condition)
    return str(requirement)


def _from_poetry(poetry: Mapping[str, object]) -> Metadata:
    table = poetry.get("dependencies") or {}
    if not isinstance(table, Mapping):
        raise TypeError("tool.poetry.dependencies must be a table")
    name, version = _text(poetry.get("name")), _text(poetry.get("version"))
    try:
        python = poetry_specifier(str(table["python"])) if "python" in table else None
        requirements = tuple(_poetry_requirement(key, value) for key, value in table.items() if key != "python")
    except ValueError:  # Alternatives (`||`), several constraints for several platforms: Poetry's own backend tells.
        return Metadata(name, version, None, None)
    return Metadata(name, version, python, requirements)


def _poetry_requirement(name: str, value: object) -> str:
    if not isinstance(value, Mapping):
        return f"{name}{poetry_specifier(str(value))}"
    if value.get("optional") or not value.keys() <= _PLAIN_POETRY:
        raise ValueError(f"{name} is wanted under a condition")
    extras = f"[{','.join(str(extra) for extra in value['extras'])}]" if value.get("extras") else ""
    return f"{name}{extras}{poetry_specifier(str(value.get('version', '*')))}"


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


def of_wheel(folder: Path, where: str) -> Metadata:
    """The metadata of the one wheel in a folder.

    Raises:
        MetadataError: there is none, or it is none.
    """
    try:
        wheel = next(folder.glob("*.whl"))
        with zipfile.ZipFile(wheel) as archive:
            name = next(item for item in archive.namelist() if item.endswith(".dist-info/METADATA"))
            data = archive.read(name)
    except (StopIteration, OSError, zipfile.BadZipFile) as error:
        raise MetadataError(f"its build left no wheel that can be read: {error!r}", where=where) from error
    return _of_message(data)


def of_installed(folder: Path, where: str) -> Metadata:
    """The metadata of the one distribution that is installed in a folder.

    Raises:
        MetadataError: there is none.
    """
    try:
        return _of_message(next(folder.glob("*.dist-info/METADATA")).read_bytes())
    except (StopIteration, OSError) as error:
        raise MetadataError(f"it has no metadata that can be read: {error!r}", where=where) from error


def of_text(text: str) -> Metadata:
    """The metadata in the text of a ``METADATA`` file."""
    return _of_message(text.encode())


def _of_message(data: bytes) -> Metadata:
    message = email.parser.Parser().parsestr(data.decode("utf-8", "replace"))
    requires = tuple(str(value) for value in message.get_all("Requires-Dist") or ())
    return Metadata(message["Name"], message["Version"], _lenient(message["Requires-Python"]), requires)


def _lenient(specifier: str | None) -> str | None:
    # Old wheels say `>=3.6.*`, which PEP 440 refuses and uv reads as `>=3.6`; what nobody can read asks for nothing.
    text = re.sub(r"([<>]=?)\s*([\d.]+)\.\*", r"\1\2", specifier or "")
    try:
        return str(SpecifierSet(text)) or None
    except InvalidSpecifier:
        return None


def _text(value: object) -> str | None:
    if value is not None and not isinstance(value, str):
        raise TypeError(f"expected text, found {value!r}")
    return value
