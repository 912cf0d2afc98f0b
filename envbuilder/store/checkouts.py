"""What an editable checkout holds just now: no lock says it, and a result depends on it."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from envbuilder.git import History
from envbuilder.store.digests import Digests

_CACHES = frozenset({"__pycache__", "node_modules"})


@dataclass(frozen=True)
class Checkout:
    """A folder of code as it was at a moment.

    Attributes:
        digest: of all its files, by name, mode and content: those that git tracks or would, else all but caches.
        commit: the commit that is checked out; None where it is in no git repository, or nothing is committed yet.
        difference: digest of the files that are other than in the commit, new or gone; None where none is.
    """

    digest: str
    commit: str | None = None
    difference: str | None = None


def survey(folder: Path, memo: Path) -> Checkout:
    """What a folder of code holds.

    Args:
        folder: the folder.
        memo: the database of digests; see `Digests`.
    """
    history = History(folder)
    listed = history.worked_on()
    names = listed or list(_walk(folder))
    found = _digests(folder, names, memo)
    commit = history.commit("HEAD") if listed else None
    changed = history.changed(commit) if commit else []
    difference = {name: found.get(name) for name in sorted(changed)}
    return Checkout(_whole(found), commit, _whole(difference) if difference else None)


def _digests(folder: Path, names: Iterable[str], memo: Path) -> dict[str, list[str]]:
    """Kind and content of each file that is there."""
    found: dict[str, list[str]] = {}
    files: dict[str, os.stat_result] = {}
    for name in names:
        path = folder / name
        with contextlib.suppress(OSError):  # Tracked and gone: that it is not among the others tells it.
            if path.is_symlink():
                found[name] = ["link", os.readlink(path)]  # noqa: PTH115 - its text, not a path
            elif path.is_file():
                files[str(path)] = path.stat()
                found[name] = ["program" if os.access(path, os.X_OK) else "file", ""]
    with Digests(memo) as digests:
        known = digests.of_all(files)
    for name, facts in found.items():
        facts[1] = facts[1] or known[str(folder / name)]
    return dict(sorted(found.items()))


def _whole(facts: Mapping[str, object]) -> str:
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


def _walk(folder: Path) -> Iterator[str]:
    """Files below a folder that is in no repository, but for what tools leave in one."""
    for root, folders, names in os.walk(folder):
        place = Path(root)
        folders[:] = [
            name
            for name in folders
            if not name.startswith(".")
            and name not in _CACHES
            and not name.endswith(".egg-info")
            and not (place / name / "pyvenv.cfg").is_file()
        ]
        yield from (str((place / name).relative_to(folder)) for name in names if not name.endswith(".pyc"))
