"""Generations: numbered sets of environments that a profile points at; switching is one rename, and can be undone.

On disk, in the workspace's own state folder::

    generations/<profile>/<N>/<plugin>       a link to the environment in the store
    generations/<profile>/<N>.json           the same as data, and when it was made
    generations/<profile>/pinned.json        generations and environments that are to be kept, whatever is collected
    generations/<profile>/held               there after a rollback: the pointed-at generation is wanted, whatever is locked
    envs/<profile>                           a link to generations/<profile>/<N>: the pointer
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path

from packaging.utils import canonicalize_name

from envbuilder.errors import EXIT_FAILED, Problem, ToolError, UsageError
from envbuilder.fs import listed, locked, point, sync_folder, unwritable, write_atomically


@dataclass(frozen=True)
class Generation:
    """One set of environments: plugin to key. `created` is ISO 8601 in UTC."""

    number: int
    created: str
    keys: Mapping[str, str]


@dataclass(frozen=True)
class Pinned:
    """What a person wants kept: numbers of generations, keys of environments."""

    generations: frozenset[int] = frozenset()
    environments: frozenset[str] = frozenset()


class DamagedError(ToolError):
    """A file that says what is kept, and cannot be read."""

    code = "generation-damaged"
    exit_status = EXIT_FAILED


def damaged(file: Path, error: Exception, hint: str) -> DamagedError:
    """The error for a file that says which environments are kept, and cannot be read."""
    return DamagedError(f"it cannot be read, and may name any environment: {error}", where=str(file), hint=hint)


class Generations:
    """The generations of one profile of one workspace.

    Args:
        own: the workspace's own state folder.
        profile: the profile's name.
        store: the folder that environments stand in.
    """

    def __init__(self, own: Path, profile: str, store: Path):
        self.profile = profile
        self.folder = own / "generations" / profile
        self.pointer = own / "envs" / profile
        self._store = store
        self._lock = own / "locks" / f"generations-{profile}"

    def all(self) -> list[Generation]:
        """Every generation, the oldest first.

        Raises:
            DamagedError: one cannot be read.
        """
        return [each for number in self._numbers() if (each := self._read(number)) is not None]

    def look(self) -> tuple[list[Generation], list[Problem]]:
        """Every generation that can be read, the oldest first, and what is wrong with the others."""
        found: list[Generation] = []
        problems: list[Problem] = []
        for number in self._numbers():
            try:
                found += filter(None, [self._read(number)])
            except DamagedError as error:
                problems += error.problems
        return found, problems

    def _numbers(self) -> list[int]:
        files = (path for path in listed(self.folder) if path.suffix == ".json")
        return sorted(int(path.stem) for path in files if path.stem.isdigit())

    def current(self) -> Generation | None:
        """The generation that the profile points at.

        Raises:
            DamagedError: it cannot be read.
        """
        number = self._pointed()
        return self._read(number) if number is not None else None

    def pointed(self, known: Sequence[Generation]) -> Generation | None:
        """The one among some generations that the profile points at."""
        number = self._pointed()
        return next((each for each in known if each.number == number), None)

    def _pointed(self) -> int | None:
        try:
            name = Path(os.readlink(self.pointer)).name  # noqa: PTH115 - the link's own text
        except OSError:
            return None
        return int(name) if name.isdigit() else None

    @property
    def held(self) -> bool:
        """Whether a rollback chose the current generation."""
        return (self.folder / "held").exists()

    def advance(self, keys: Mapping[str, str]) -> Generation:
        """Point at a generation in which the given plugins have the given environments, the others the ones they had.

        Makes a new one only where something changes.

        Raises:
            ToolError: the file system refuses.
        """
        with locked(self._lock):
            self._mend()
            current = self.current()
            together = {**(current.keys if current else {}), **keys}
            if current is None or together != dict(current.keys):
                last = max((each.number for each in self.all()), default=0)
                current = self._write(last + 1, together)
                self._switch(current.number)
            (self.folder / "held").unlink(missing_ok=True)
            return current

    def roll_back(self, number: int | None) -> Generation:
        """Point at an earlier generation, by default the one before the current one, and hold it.

        Raises:
            UsageError: there is no such generation, or an environment of it is gone.
        """
        with locked(self._lock):
            if number is not None:
                self._read(number)  # Damaged is another thing than not there.
            known = {each.number: each for each in self.look()[0]}
            current = self.current()
            before = [each for each in known if current is not None and each < current.number]
            wanted = number if number is not None else max(before, default=None)
            if wanted not in known:
                what = f"generation {wanted}" if wanted is not None else "earlier generation"
                raise UsageError(
                    f"{self.profile} has no {what}", hint=f"envbuilder generations --profile {self.profile}"
                )
            chosen = known[wanted]
            gone = [plugin for plugin, key in chosen.keys.items() if not (self._store / f"{key}.json").exists()]
            if gone:
                message = f"generation {wanted} lacks the environments of {', '.join(gone)}; they were collected"
                raise UsageError(message, hint=f"envbuilder generations --profile {self.profile}")
            write_atomically(self.folder / "held", f"{wanted}\n")
            self._switch(chosen.number)
            return chosen

    @property
    def pinned(self) -> Pinned:
        """What is pinned.

        Raises:
            ToolError: the file that says so cannot be read.
        """
        file = self.folder / "pinned.json"
        try:
            document = json.loads(file.read_text(encoding="utf-8"))
            return Pinned(frozenset(map(int, document["generations"])), frozenset(document["environments"]))
        except FileNotFoundError:
            return Pinned()
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise damaged(file, error, f"rm {file}  # nothing is pinned then") from error

    def pin(self, names: Sequence[str]) -> None:
        """Keep generations and environments: numbers, plugins (what they have now) or keys of environments.

        Raises:
            UsageError: there is no such generation or environment.
            ToolError: the file system refuses.
        """
        with locked(self._lock):
            generations, environments = set(self.pinned.generations), set(self.pinned.environments)
            for name in names:
                if name.isdigit():
                    generations.add(self._known(int(name)).number)
                else:
                    environments.add(self._environment(name))
            self._write_pinned(Pinned(frozenset(generations), frozenset(environments)))

    def unpin(self, names: Sequence[str]) -> None:
        """Keep generations and environments no longer; a plugin's name means all of its environments.

        Raises:
            UsageError: one was not pinned.
            ToolError: the file system refuses.
        """
        with locked(self._lock):
            pinned = self.pinned
            texts = {str(number) for number in pinned.generations} | pinned.environments
            gone: set[str] = set()
            for name in names:
                meant = {each for each in texts if name == each or canonicalize_name(name) == each.rpartition("-")[0]}
                if not meant:
                    hint = f"envbuilder generations --profile {self.profile}"
                    raise UsageError(f"{name} is not pinned in {self.profile}", hint=hint)
                gone |= meant
            numbers = frozenset(number for number in pinned.generations if str(number) not in gone)
            self._write_pinned(Pinned(numbers, pinned.environments - gone))

    def _known(self, number: int) -> Generation:
        found = self._read(number)
        if found is None:
            hint = f"envbuilder generations --profile {self.profile}"
            raise UsageError(f"{self.profile} has no generation {number}", hint=hint)
        return found

    def _environment(self, name: str) -> str:
        current = self.current()
        key = current.keys.get(str(canonicalize_name(name))) if current else None
        if key is None and "/" not in name and (self._store / f"{name}.json").exists():
            key = name
        if key is None:
            message = f"{name} is no generation, no plugin that {self.profile} has built, and no key of an environment"
            raise UsageError(message, hint=f"envbuilder generations --profile {self.profile}")
        return key

    def _write_pinned(self, pinned: Pinned) -> None:
        # Keys stand as they do in a generation's file, where the collector looks for them.
        document = {
            "generations": sorted(pinned.generations),
            "environments": {key: key for key in sorted(pinned.environments)},
        }
        write_atomically(self.folder / "pinned.json", json.dumps(document, indent=1) + "\n")

    def forget(self, keep: int, *, dry_run: bool = False) -> list[Generation]:
        """Remove all but the newest `keep` generations, pinned ones and the current one. Returns what went, or would."""
        with locked(self._lock):
            current = self.current()
            known = self.all()
            spared = self.pinned.generations | ({current.number} if current else set())
            old = [each for each in known[: max(0, len(known) - keep)] if each.number not in spared]
            for each in [] if dry_run else old:
                (self.folder / f"{each.number}.json").unlink(missing_ok=True)
                shutil.rmtree(self.folder / str(each.number), ignore_errors=True)
            return old

    def _read(self, number: int) -> Generation | None:
        file = self.folder / f"{number}.json"
        try:
            document = json.loads(file.read_text(encoding="utf-8"))
            keys = {str(plugin): str(key) for plugin, key in document["environments"].items()}
            return Generation(number, str(document["created"]), keys)
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            hint = f"envbuilder build --profile {self.profile}" if self._links(number) else f"rm {file}"
            raise damaged(file, error, hint) from error

    def _links(self, number: int) -> dict[str, str]:
        """The environments of a generation, by the links that lead to them."""
        links = [path for path in listed(self.folder / str(number)) if path.is_symlink()]
        return {link.name: Path(os.readlink(link)).name for link in links}  # noqa: PTH115 - the link's own text

    def _mend(self) -> None:
        """Write damaged generations anew, from their links; the caller holds the lock."""
        for number in self._numbers():
            try:
                self._read(number)
            except DamagedError:
                if keys := self._links(number):
                    made = datetime.fromtimestamp((self.folder / str(number)).stat().st_mtime, timezone.utc)
                    self._save(number, made.isoformat(timespec="seconds"), keys)

    def _write(self, number: int, keys: Mapping[str, str]) -> Generation:
        place = self.folder / str(number)
        created = datetime.now(timezone.utc).isoformat(timespec="seconds")
        try:
            shutil.rmtree(place, ignore_errors=True)
            place.mkdir(parents=True)
            for plugin, key in keys.items():
                (place / plugin).symlink_to(os.path.relpath(self._store / key, place))
            sync_folder(place)
        except OSError as error:
            raise unwritable(place, error) from error
        self._save(number, created, keys)
        return Generation(number, created, dict(keys))

    def _save(self, number: int, created: str, keys: Mapping[str, str]) -> None:
        document = {"number": number, "created": created, "environments": dict(sorted(keys.items()))}
        write_atomically(self.folder / f"{number}.json", json.dumps(document, indent=1) + "\n")

    def _switch(self, number: int) -> None:
        point(self.pointer, Path(os.path.relpath(self.folder / str(number), self.pointer.parent)))
