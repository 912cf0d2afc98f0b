"""Objects of many clones looked at by two git processes, however many clones and objects there are."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from envbuilder.git.running import git

# Bytes; what is read of a repository are files that people wrote.
LARGEST = 1_000_000
Place = tuple[str, str]


def looked_at(place: Place, names: Sequence[str], alternates: Sequence[Path] = ()) -> dict[str, str]:
    """What `git cat-file --batch-check` says of each name: digest, kind and size in bytes, or how it cannot be reached.

    Links inside of a repository are followed. Without a clone nothing is said of any name.

    Args:
        place: the option by which git finds the repository.
        names: as `gitrevisions(7)` has them, without line breaks.
        alternates: further ones whose objects count.
    """
    return _asked(place, ("--batch-check", "--follow-symlinks"), names, alternates)


def texts(place: Place, blobs: Sequence[str], alternates: Sequence[Path] = ()) -> dict[str, str]:
    """The text of each blob that is there, by its digest."""
    said = _asked(place, ("--batch",), blobs, alternates)
    return {name: text.partition("\n")[2] for name, text in said.items() if text.startswith(f"{name} blob ")}


def small_blob(told: str, largest: int = LARGEST) -> str | None:
    """The digest of what was looked at, where it is a file of at most so many bytes."""
    digest, _, rest = told.partition(" ")
    kind, _, size = rest.partition(" ")
    return digest if kind == "blob" and int(size) <= largest else None


def _asked(place: Place, flags: Sequence[str], names: Sequence[str], alternates: Sequence[Path]) -> dict[str, str]:
    # What is nowhere is told in a line of its own: a word that nobody can guess parts one answer from the next.
    mark = secrets.token_hex(20)[:39]
    feed = "".join(f"{name}\n{mark}\n" for name in names)
    done = git(*place, "cat-file", *flags, feed=feed, env=_together(alternates))
    answers = done.stdout.split(f"{mark} missing\n")
    return {name: answer.removesuffix("\n") for name, answer in zip(names, answers, strict=False)} if done.ok else {}


def _together(clones: Iterable[Path]) -> Mapping[str, str]:
    def quoted(path: Path) -> str:
        text = str(path).replace("\\", "\\\\").replace('"', '\\"')
        return f'"{text}"'  # As git(1) wants a path that may hold a colon.

    places = [quoted(clone / "objects") for clone in clones]
    return {"GIT_ALTERNATE_OBJECT_DIRECTORIES": os.pathsep.join(places)} if places else {}
