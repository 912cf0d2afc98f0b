"""Whether what locks are made from can be reached: git repositories, or their mirrors, and package indexes."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from envbuilder import accelerators
from envbuilder.errors import counted, redacted
from envbuilder.git import Repository
from envbuilder.lock.mirrors import IndexMirrors
from envbuilder.lock.newer import index_client, indexes
from envbuilder.models import GitSource, Workspace
from envbuilder.threads import at_once
from envbuilder.workflow.health import Finding, View

# Whoever takes longer to say that it is there is no help in a build either.
_TIMEOUT_S = 5.0
_AT_ONCE = 16
_NOUNS = {"remotes": ("repository", "repositories"), "index": ("index", "indexes")}


@dataclass(frozen=True)
class _Place:
    """One address to be asked.

    Attributes:
        kind: ``remotes`` or ``index``.
        group: the host or mirror that it belongs to.
        address: where it is asked.
        ask: why it cannot be reached; None where it can.
        remedy: the command that shows the same.
    """

    kind: str
    group: str
    address: str
    ask: Callable[[], str | None]
    remedy: str


def reach(workspace: Workspace, views: Sequence[View], *, offline: bool) -> Iterator[Finding]:
    """A finding for each host, or mirror, of repositories and for each index; all of them asked at once.

    Args:
        workspace: whose mirrors count.
        views: whose entries and indexes are asked.
        offline: whether nobody is asked.
    """
    places = [*_repositories(workspace, views), *_indexes(views)]
    groups: dict[tuple[str, str], list[_Place]] = {}
    for place in places:
        groups.setdefault((place.kind, place.group), []).append(place)
    if offline:
        yield from (Finding(kind, "ok", f"{group}: not asked, the network is off") for kind, group in groups)
        return
    answers = dict(zip(places, at_once(lambda place: place.ask(), places, _AT_ONCE, name="reach"), strict=True))
    for members in groups.values():
        yield _finding(members, {place.address: answers[place] for place in members})


def _finding(members: Sequence[_Place], answers: dict[str, str | None]) -> Finding:
    first = members[0]
    count = counted(len(members), *_NOUNS[first.kind])
    silent = [place for place in members if answers[place.address] is not None]
    if not silent:
        return Finding(first.kind, "ok", f"{first.group}: {count} {'answers' if len(members) == 1 else 'answer'}")
    worst = silent[0]
    text = f"{first.group}: {len(silent)} of {count} cannot be reached; {worst.address}: {answers[worst.address]}"
    return Finding(first.kind, "warn", text, worst.remedy)


def _repositories(workspace: Workspace, views: Sequence[View]) -> Iterator[_Place]:
    sources = (entry.source for view in views for entry in view.registry.entries)
    for url in dict.fromkeys(source.url for source in sources if isinstance(source, GitSource)):
        repository = Repository(url, workspace.shared / "git", workspace.git_mirrors)
        prefix = max((key for key in workspace.git_mirrors if url.startswith(key)), key=len, default=None)
        host = urlsplit(url).netloc.rpartition("@")[2] or url.partition(":")[0]
        group = host
        if prefix is not None:
            target = workspace.git_mirrors[prefix]
            group += f" through {target if '://' in target else workspace.show(Path(target))}"
        remedy = f"git ls-remote {shlex.quote(repository.remote)}"
        yield _Place("remotes", group, url, lambda repository=repository: repository.silent(_TIMEOUT_S), remedy)  # type: ignore[misc]


def _indexes(views: Sequence[View]) -> Iterator[_Place]:
    known = set()
    for view in views:
        mirrors = IndexMirrors(view.profile.index_mirrors)
        folder = view.profile.torch_index_url
        torch = [accelerators.index_url(name, folder) for name in view.profile.torch_backends if name != "default"]
        for url, auth in [*indexes(view.profile), *((mirrors.there(each), None) for each in torch)]:
            if url in known or not url.startswith(("http://", "https://")):
                continue
            known.add(url)
            remedy = f"curl -sSI {shlex.quote(f'{url.rstrip(chr(47))}/')}"
            ask = lambda url=url, auth=auth: _silent(url, auth)  # noqa: E731 - bound here, called in a thread
            yield _Place("index", urlsplit(url).netloc.rpartition("@")[2], url, ask, remedy)


def _silent(url: str, auth: tuple[str, str] | None) -> str | None:
    """Why an index cannot be used; None where it answers, be it that it has no such page."""
    try:
        with index_client(url, auth) as client:
            answer = client.s.head(f"{url.rstrip('/')}/", timeout=_TIMEOUT_S, allow_redirects=True)
    except (OSError, ValueError) as error:  # What requests raises is an OSError.
        return redacted(f"{type(error).__name__} within {_TIMEOUT_S:g} s")
    if answer.status_code in {401, 403, 407} or answer.status_code >= 500:
        return f"it answers {answer.status_code} {answer.reason}"
    return None
