"""`outdated`: tags and releases newer than what the registry names, and whether they fit the current core."""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from packaging.version import Version

from envbuilder import compat
from envbuilder.errors import EnvbuilderError, Problem
from envbuilder.git import RemoteError
from envbuilder.lock import metadata
from envbuilder.lock.fitting import Core, CoreJudge, Refs, Row, replacement
from envbuilder.lock.mirrors import IndexMirrors
from envbuilder.models import Entry, GitSource, Profile, PypiSource
from envbuilder.threads import at_once
from envbuilder.uv import default_index, index_tables

if TYPE_CHECKING:
    from pypi_simple import DistributionPackage, PyPISimple

# Of how many newer releases the metadata is read, the newest first; each is a request.
_READ = 10
_AT_ONCE = 8
_TIMEOUT_S = 30.0


@dataclass(frozen=True)
class Newer:
    """A tag or release that is newer than the one the registry names.

    Attributes:
        place: the tag, or the release's version.
        fits: whether it fits the current core; None where that is not known.
        reason: why it does not, or why it is not known.
    """

    place: str
    fits: bool | None
    reason: str = ""


@dataclass(frozen=True)
class Outlook:
    """What there is beyond an entry's source.

    Attributes:
        entry: the entry.
        current: its tag or version.
        newer: what is newer, the newest first.
        command: what takes the newest that fits; None where none does.
        problem: why nothing can be said.
    """

    entry: Entry
    current: str
    newer: tuple[Newer, ...] = ()
    command: str | None = None
    problem: Problem | None = None


class Watch:
    """Looks for what is newer.

    Args:
        profile: for indexes, for the moment after which nothing counts, and for hints.
        judge: whether packages fit the current core.
        listings: what each repository has, or why that is not known.
        pre: whether pre-releases count, beside an entry that names a final release.
    """

    def __init__(
        self, profile: Profile, judge: CoreJudge, listings: Mapping[str, Refs | RemoteError], *, pre: bool = False
    ):
        self._profile = profile
        self._judge = judge
        self._listings = listings
        self._pre = pre

    def look(self, entries: Sequence[Entry]) -> list[Outlook]:
        """What is newer, for every entry whose source has an order: tags and releases."""
        # Tags are read from clones, one fetch each; releases wait for the network.
        looked = at_once(self._look, entries, _AT_ONCE, name="newer")
        return [found for found in looked if found is not None]

    def _look(self, entry: Entry) -> Outlook | None:
        match entry.source:
            case GitSource(ref_kind="tag", ref=tag, url=url):
                refs = self._listings[url]
                if isinstance(refs, RemoteError):
                    return Outlook(entry, tag, problem=_problem(entry, refs))
                outlook = self._outlook(entry, tag, self._tags(entry, tag, refs))
                unread = self._judge.unread.get(url)
                return replace(outlook, problem=_problem(entry, unread)) if unread else outlook
            case PypiSource(specifier, exact=True):
                current = specifier.removeprefix("==").strip()
                try:
                    return self._outlook(entry, current, self._releases(entry, Version(current)))
                except EnvbuilderError as error:
                    return Outlook(entry, current, problem=_problem(entry, error))
        return None

    def _outlook(self, entry: Entry, current: str, newer: tuple[Newer, ...]) -> Outlook:
        best = next((each.place for each in newer if each.fits), None)
        return Outlook(entry, current, newer, self._command(entry, current, best) if best else None)

    def _command(self, entry: Entry, old: str, new: str) -> str:
        file = shlex.quote(entry.at("source").partition(":")[0])
        key = "tag" if isinstance(entry.source, GitSource) else "pypi"
        return f"sed -i {replacement(old, new, key)} {file} && envbuilder lock --profile {self._profile.name}"

    def _counts(self, version: Version, current: Version) -> bool:
        return version > current and (self._pre or current.is_prerelease or not version.is_prerelease)

    def _tags(self, entry: Entry, tag: str, refs: Refs) -> tuple[Newer, ...]:
        current = compat.tag_version(tag, entry.name)
        if current is None:
            return ()
        tags = {ref: compat.tag_version(ref.removeprefix("refs/tags/"), entry.name) for ref in refs}
        newer = {ref: version for ref, version in tags.items() if version and self._counts(version, current)}
        rows = self._judge.tag_rows(entry, {ref: found for ref, found in refs.items() if ref in newer})
        rows.sort(key=lambda row: newer[f"refs/tags/{row.place}"], reverse=True)
        unread = isinstance(entry.source, GitSource) and entry.source.url in self._judge.unread
        return tuple(
            Newer(row.place, *((None, "its tags cannot be read") if unread else self._verdict(row))) for row in rows
        )

    @staticmethod
    def _verdict(row: Row) -> tuple[bool | None, str]:
        for fit in row.fits:
            if fit.fits is None:
                return None, "what it declares cannot be read without a build"
            if not fit.fits:
                return (
                    False,
                    f"accepts {fit.core.name} {row.accepts.get(fit.core.name)}, the core is {fit.core.version}",
                )
        return True, ""

    def _releases(self, entry: Entry, current: Version) -> tuple[Newer, ...]:
        found: dict[Version, list[DistributionPackage]] = {}
        for package in listed(entry.name, self._profile):
            version = _version(package)
            if version is not None and self._counts(version, current) and not package.is_yanked:
                found.setdefault(version, []).append(package)
        newest = sorted(found, reverse=True)
        return tuple(
            self._release(entry, version, found[version])
            if number < _READ
            else Newer(str(version), None, "not looked at")
            for number, version in enumerate(newest)
        )

    def _release(self, entry: Entry, version: Version, packages: Sequence[DistributionPackage]) -> Newer:
        if reason := _too_new(packages, self._profile):
            return Newer(str(version), False, reason)
        described = next((package for package in packages if package.has_metadata), None)
        if described is None:
            return Newer(str(version), None, "the index does not serve its metadata")
        declared = metadata.of_text(metadata_text(described, self._profile))
        row = self._judge.row(entry, declared, {})
        return Newer(str(version), *self._verdict(row))


def newest_fitting(entry: Entry, core: Core, judge: CoreJudge, profile: Profile) -> str | None:
    """The newest release of an entry's package that takes a core version; of the newest only, as `outdated` looks.

    Raises:
        EnvbuilderError: an index cannot be reached.
    """
    found: dict[Version, list[DistributionPackage]] = {}
    for package in listed(entry.name, profile):
        version = _version(package)
        if version is not None and not version.is_prerelease and not package.is_yanked:
            found.setdefault(version, []).append(package)
    for version in sorted(found, reverse=True)[:_READ]:
        described = next((package for package in found[version] if package.has_metadata), None)
        if described is None or _too_new(found[version], profile):
            continue
        if judge.takes(core, entry, metadata.of_text(metadata_text(described, profile))):
            return str(version)
    return None


def _too_new(packages: Sequence[DistributionPackage], profile: Profile) -> str:
    """Why a release does not count for a profile that names a moment; empty where it does."""
    moment = profile.exclude_newer
    times = [package.upload_time for package in packages if package.upload_time is not None]
    if moment and times and min(times).strftime("%Y-%m-%dT%H:%M:%SZ") >= moment:
        return f"uploaded {min(times):%Y-%m-%d}, after exclude-newer {moment}"
    return ""


def _problem(entry: Entry, error: EnvbuilderError) -> Problem:
    return Problem(
        error.code, f"{error.message}; what is newer is not known", entry.name, entry.at("source"), error.hint
    )


def _version(package: DistributionPackage) -> Version | None:
    try:
        return Version(package.version or "")
    except ValueError:
        return None


def index_client(url: str, auth: tuple[str, str] | None) -> PyPISimple:
    """A client of an index that trusts whom uv, git and curl trust.

    Where neither ``REQUESTS_CA_BUNDLE`` nor ``CURL_CA_BUNDLE``, which go before, is set, it takes the certificates of
    ``SSL_CERT_FILE``, or of the first folder of ``SSL_CERT_DIR``.

    Args:
        url: the index.
        auth: user and password; None where netrc serves.
    """
    from pypi_simple import PyPISimple

    client = PyPISimple(url, auth=auth)
    named = [os.environ.get("SSL_CERT_FILE", ""), *os.environ.get("SSL_CERT_DIR", "").split(os.pathsep)]
    if trusted := next((place for place in named if place and Path(place).exists()), None):
        client.s.verify = trusted
    return client


def listed(name: str, profile: Profile) -> Iterator[DistributionPackage]:
    """The files of a project on the profile's indexes.

    Raises:
        EnvbuilderError: an index cannot be reached.
    """
    from pypi_simple import NoSuchProjectError

    for url, auth in indexes(profile):
        try:
            with index_client(url, auth) as client:
                yield from client.get_project_page(name, timeout=_TIMEOUT_S).packages
        except NoSuchProjectError:
            continue
        except (OSError, ValueError) as error:  # What requests raises is an OSError.
            message = f"the index {url} does not answer: {type(error).__name__}"
            hint = f"curl -sSI {shlex.quote(f'{url.rstrip(chr(47))}/{name}/')}"
            raise EnvbuilderError(message, code="index-unreachable", where=url, hint=hint) from error


def metadata_text(package: DistributionPackage, profile: Profile) -> str:
    """The text of a file's ``METADATA``, as the index serves it.

    Raises:
        EnvbuilderError: it cannot be had.
    """
    url, auth = indexes(profile)[0]
    try:
        with index_client(url, auth) as client:
            return client.get_package_metadata(package, timeout=_TIMEOUT_S)
    except (OSError, ValueError) as error:
        message = f"the metadata of {package.filename} cannot be had: {type(error).__name__}"
        raise EnvbuilderError(message, code="index-unreachable", where=url, hint="envbuilder outdated") from error


def indexes(profile: Profile) -> list[tuple[str, tuple[str, str] | None]]:
    """The addresses of the indexes, or of their mirrors, with user and password, as uv finds them in the environment; netrc serves the rest."""
    tables = IndexMirrors(profile.index_mirrors).tables(index_tables(profile))
    found: list[tuple[str, tuple[str, str] | None]] = []
    for table in tables:
        prefix = f"UV_INDEX_{str(table['name']).upper().replace('-', '_')}"
        user, password = os.environ.get(f"{prefix}_USERNAME"), os.environ.get(f"{prefix}_PASSWORD")
        found.append((str(table["url"]), (user or "", password or "") if user or password else None))
    if not any(table.get("default") for table in tables):
        found.append((default_index(), None))
    return found
