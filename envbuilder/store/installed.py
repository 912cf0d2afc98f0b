"""What the packages of an environment say of themselves, read from their dist-info folders."""

from __future__ import annotations

import email.parser
import json
from collections.abc import Iterator, Mapping
from email.message import Message
from pathlib import Path

from packaging.markers import UndefinedComparison, UndefinedEnvironmentName
from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name

from envbuilder.store.records import site_packages


def metadata(environment: Path) -> dict[str, Message]:
    """The core metadata of each installed distribution, by normalised name; empty where nothing is built."""
    found = {}
    for info in _infos(environment):
        try:
            text = (info / "METADATA").read_text(encoding="utf-8", errors="replace")
        except OSError:
            continue
        message = email.parser.HeaderParser().parsestr(text)
        if isinstance(message["Name"], str):
            found[str(canonicalize_name(message["Name"]))] = message
    return found


def requirements(message: Message, markers: Mapping[str, str]) -> list[str]:
    """What core metadata requires under given markers' values, extras aside (PEP 508, "Environment Markers")."""
    found = []
    for line in message.get_all("Requires-Dist") or ():
        try:
            requirement = Requirement(str(line))
            binds = requirement.marker is None or requirement.marker.evaluate({**markers, "extra": ""})
        except (InvalidRequirement, UndefinedComparison, UndefinedEnvironmentName):
            continue
        if binds:
            found.append(str(requirement))
    return found


def commits(environment: Path) -> dict[str, str]:
    """The commit of each distribution that was installed from git (PEP 610), by normalised name."""
    found = {}
    for info in _infos(environment):
        try:
            commit = json.loads((info / "direct_url.json").read_text(encoding="utf-8"))["vcs_info"]["commit_id"]
        except (OSError, ValueError, KeyError, TypeError):
            continue
        found[str(canonicalize_name(info.name.removesuffix(".dist-info").rpartition("-")[0]))] = str(commit)
    return found


def _infos(environment: Path) -> Iterator[Path]:
    try:
        yield from sorted(site_packages(environment).glob("*.dist-info"))
    except FileNotFoundError:
        return
