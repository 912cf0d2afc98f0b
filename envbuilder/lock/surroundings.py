"""What a commit takes from elsewhere: submodules, each in a clone of its own; links that lead out of it; a workspace."""

from __future__ import annotations

import contextlib
import re
import shlex
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath

from envbuilder.documents import parse_toml, subtree
from envbuilder.errors import EnvbuilderError
from envbuilder.git import RemoteError, Repository
from envbuilder.lock.metadata import MetadataError
from envbuilder.models import GitSource

# Of one package, those within others included.
_MOST = 100


class LinkOutError(MetadataError):
    """A symbolic link leads out of a checkout."""


@dataclass(frozen=True)
class Submodule:
    """A commit of another repository, and the folder in which it is checked out."""

    repository: Repository
    commit: str
    folder: str


class Submodules:
    """Brings submodules, and proves that commits lead nowhere else.

    uv checks submodules out with the rest, and would fail late, in git's words, where one is gone. From a clone of ours
    it gets also what only a bundle has.

    Args:
        clone: the clone of an address.
        offline: whether the network is out of bounds.
    """

    def __init__(self, clone: Callable[[str], Repository], *, offline: bool):
        self._clone = clone
        self._offline = offline
        self._known: dict[tuple[str, str], tuple[Submodule, ...]] = {}
        self._proved: set[tuple[str, str, str]] = set()

    def of(self, url: str, commit: str) -> tuple[Submodule, ...]:
        """The submodules of a commit that was proved; theirs too."""
        return self._known.get((url, commit), ())

    def prove(self, repository: Repository, commit: str, source: GitSource) -> None:
        """Have all submodules at hand, and refuse what leads out of the checkout.

        Args:
            repository: whose commit.
            commit: which; it is at hand.
            source: how messages name it.

        Raises:
            MetadataError: a submodule is not to be had, or a link leaves the checkout.
        """
        key = (repository.url, commit)
        if (*key, source.subdirectory) in self._proved:
            return
        if key not in self._known:
            self._known[key] = tuple(self._bring(repository, commit, source))
        # A build would put into the package what is at that place of the machine that builds.
        places = [(repository, commit, source.subdirectory, "")]
        for repo, at, below, mount in places + [
            (each.repository, each.commit, "", each.folder) for each in self._known[key]
        ]:
            for link, target in repo.links_out(at, below, mount):
                message = f"{link} is a symbolic link that leaves the repository, to {target!r}"
                raise LinkOutError(message, where=f"{source.url} {source.ref}:{link}")
        self._proved.add((*key, source.subdirectory))

    def _bring(self, repository: Repository, commit: str, source: GitSource) -> list[Submodule]:
        """All submodules, each in a clone; those that are not to be had are told together."""
        found: list[Submodule] = []
        lacking: list[str] = []
        hint: str | None = None
        left = [Submodule(repository, commit, "")]
        while left:
            above = left.pop()
            for path, address, pinned in above.repository.submodules(above.commit):
                folder = f"{above.folder}/{path}".lstrip("/")
                url = _address(above.repository.url, address)
                reason = self._lacks(url, pinned) if len(found) < _MOST else f"there are more than {_MOST}"
                if url is None or reason:
                    lacking.append(f"submodule {folder} ({address}) is not to be had: {reason}")
                    hint = hint or (f"git ls-remote {shlex.quote(self._clone(url).remote)}" if url else None)
                    continue
                found.append(Submodule(self._clone(url), pinned, folder))
                left.append(found[-1])
        if lacking:
            raise MetadataError("; ".join(lacking), where=f"{source.url} {source.ref}:.gitmodules", hint=hint)
        return found

    def _lacks(self, url: str | None, commit: str) -> str:
        """Why a commit is not to be had; empty where it is at hand now."""
        if url is None:
            return "an address that git would not fetch from another's repository"
        try:
            if self._clone(url).ensure("rev", commit, commit, offline=self._offline):
                return ""
        except RemoteError as error:
            return error.message
        return f"{commit[:12]} was not fetched yet" if self._offline else f"it has no commit {commit[:12]}"


def _address(base: str, address: str) -> str | None:
    """Where a submodule comes from; relative addresses are meant from the repository's own (git-submodule(1))."""
    if address.startswith(("./", "../")):
        place = base.rstrip("/")
        for step in address.rstrip("/").split("/"):
            if step == "..":
                place = place.rpartition("/")[0]
            elif step != ".":
                place = f"{place}/{step}"
        return place
    return address if re.match(r"(https?|ssh|git)://[^-]|[\w.-]+@[\w.-]+:[^:]", address) else None


def project_file(subdirectory: str) -> str:
    """Where a package's ``pyproject.toml`` is in its repository."""
    return f"{subdirectory}/pyproject.toml" if subdirectory else "pyproject.toml"


def refuse_missing_workspace(repository: Repository, commit: str, source: GitSource) -> None:
    """Refuse a package that takes a dependency from a uv workspace which its repository does not have.

    Raises:
        MetadataError: it does; uv cannot read its metadata.
    """
    file = PurePosixPath(project_file(source.subdirectory))
    wanted = [
        name
        for name, places in _table(repository, commit, file, "sources").items()
        for place in (places if isinstance(places, list) else [places])
        if isinstance(place, Mapping) and place.get("workspace")
    ]
    around = (folder / "pyproject.toml" for folder in file.parents)
    if wanted and not any(_table(repository, commit, place, "workspace") for place in around):
        message = f"it takes {', '.join(wanted)} from a uv workspace, and no pyproject.toml around it is one"
        raise MetadataError(message, where=f"{source.url} {source.ref}:{file}")


def _table(repository: Repository, commit: str, file: PurePosixPath, name: str) -> Mapping[str, object]:
    """A table of uv's settings; empty where there is none, or the file cannot be read, which is told elsewhere."""
    with contextlib.suppress(EnvbuilderError):
        text = repository.read(commit, str(file)) or ""
        found = subtree(parse_toml(text, str(file)), ("tool", "uv", name)).value
        return found if isinstance(found, Mapping) else {}
    return {}
