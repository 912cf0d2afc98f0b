"""Generations: numbered sets of environments that a profile points at; switching is one rename, and can be undone.

On disk, in the workspace's own state folder::

    generations/<profile>/<N>/<plugin>       a link to the environment in the store
    generations/<profile>/<N>.json           the same as data, and when it was made
    generations/<profile>/held               there after a rollback: the pointed-at generation is wanted, whatever is locked
    envs/<profile>                           a link to generations/<profile>/<N>: the pointer
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path

from envbuilder.errors import UsageError
from envbuilder.store.files import locked, point, sync_folder, unwritable, write_atomically


@dataclass(frozen=True)
class Generation:
    """One set of environments: plugin to key. `created` is ISO 8601 in UTC."""

    number: int
    created: str
    keys: Mapping[str, str]


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
        """Every generation that can be read, the oldest first."""
        numbers = sorted(int(path.stem) for path in self.folder.glob("*.json") if path.stem.isdigit())
        return [each for number in numbers if (each := self._read(number)) is not None]

    def current(self) -> Generation | None:
        """The generation that the profile points at."""
        try:
            name = Path(os.readlink(self.pointer)).name  # noqa: PTH115 - the link's own text
        except OSError:
            return None
        return self._read(int(name)) if name.isdigit() else None

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
            known = {each.number: each for each in self.all()}
            current = self.current()
            before = [each for each in known if current is not None and each < current.number]
            wanted = number if number is not None else max(before, default=None)
            if wanted not in known:
                what = f"generation {wanted}" if wanted is not None else "an earlier generation"
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

    def forget(self, keep: int, *, dry_run: bool = False) -> list[Generation]:
        """Remove all but the newest `keep` generations; the current one always stays. Returns what went, or would."""
        with locked(self._lock):
            current = self.current()
            known = self.all()
            old = [
                each for each in known[: max(0, len(known) - keep)] if current is None or each.number != current.number
            ]
            for each in [] if dry_run else old:
                (self.folder / f"{each.number}.json").unlink(missing_ok=True)
                shutil.rmtree(self.folder / str(each.number), ignore_errors=True)
            return old

    def _read(self, number: int) -> Generation | None:
        try:
            document = json.loads((self.folder / f"{number}.json").read_text(encoding="utf-8"))
            return Generation(number, str(document["created"]), dict(document["environments"]))
        except (OSError, ValueError, KeyError, TypeError):
            return None

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
        document = {"number": number, "created": created, "environments": dict(sorted(keys.items()))}
        write_atomically(self.folder / f"{number}.json", json.dumps(document, indent=1) + "\n")
        return Generation(number, created, dict(keys))

    def _switch(self, number: int) -> None:
        point(self.pointer, Path(os.path.relpath(self.folder / str(number), self.pointer.parent)))
