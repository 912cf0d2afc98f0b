"""The store: environments named by their key, made in staging, sealed, renamed into place, never changed after.

On disk, in the shared state folder::

    store/<key>/           the virtual environment
    store/<key>.json       its seal: what it was made from, and every file in it
    store/.staging/<key>/  one in the making, or left over by a killed build
    pycache/<key>/         the bytecode that its interpreter writes
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from envbuilder.store import records
from envbuilder.store.files import unwritable, write_atomically

_SEAL_VERSION = 1


@dataclass(frozen=True)
class Seal:
    """The record of a finished environment, kept outside of it.

    Attributes:
        key: the environment's key.
        inputs: what the key was made from, for people.
        files: relative path to ``[size in bytes, mtime in ns, mode]``; a link's target in place of the size.
        distributions: name to version.
    """

    key: str
    inputs: Mapping[str, object]
    files: Mapping[str, list[object]]
    distributions: Mapping[str, str]


class Store:
    """Environments by key, in one folder.

    Args:
        shared: the state folder that holds the store.
    """

    def __init__(self, shared: Path):
        self.shared = shared
        self.folder = shared / "store"

    def path(self, key: str) -> Path:
        """Where the environment of that key stands, or would."""
        return self.folder / key

    def seal_path(self, key: str) -> Path:
        """Where its seal stands."""
        return self.folder / f"{key}.json"

    def pycache(self, key: str) -> Path:
        """Where its interpreter puts bytecode, so that nothing writes into the environment."""
        return self.shared / "pycache" / key

    def lock_path(self, key: str) -> Path:
        """The file whose lock a builder of that key holds."""
        return self.shared / "locks" / f"env-{key}"

    def staging(self, key: str) -> Path:
        """A fresh folder to build in; what a killed build left there is removed.

        The caller holds the key's lock.
        """
        folder = self.folder / ".staging" / key
        try:
            if folder.exists():
                shutil.rmtree(folder)
            folder.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise unwritable(folder, error) from error
        return folder

    def seal(self, key: str) -> Seal | None:
        """The seal of that key; None where there is none or it cannot be read, which means: not built."""
        try:
            document = json.loads(self.seal_path(key).read_text(encoding="utf-8"))
            if document["version"] != _SEAL_VERSION or document["key"] != key:
                return None
            return Seal(key, document["inputs"], document["files"], document["distributions"])
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def admit(self, key: str, staging: Path, inputs: Mapping[str, object]) -> Seal:
        """Seal a finished environment and rename it into place.

        The order makes a kill at any moment harmless: an environment without its seal counts as not built.

        Raises:
            ToolError: the file system refuses.
        """
        seal = Seal(key, inputs, dict(listing(staging)), records.distributions(staging))
        place = self.path(key)
        try:
            self.seal_path(key).unlink(missing_ok=True)
            if place.exists():
                shutil.rmtree(place)
            staging.rename(place)
        except OSError as error:
            raise unwritable(place, error) from error
        document = {
            "version": _SEAL_VERSION,
            "key": key,
            "inputs": dict(inputs),
            "distributions": dict(seal.distributions),
            "files": dict(seal.files),
        }
        write_atomically(self.seal_path(key), json.dumps(document, indent=None, sort_keys=True))
        return seal

    def glance(self, key: str) -> str | None:
        """Why an environment is not as it was sealed, by a few stats; None where it looks whole.

        Looks at the seal, the interpreter, the listing of site-packages and each RECORD: what a half-finished build,
        an upgrade or a ``pip install`` changes.
        """
        seal = self.seal(key)
        place = self.path(key)
        if seal is None or not place.is_dir():
            return "not built"
        if not (place / "bin" / "python").exists():
            return "its interpreter is gone"
        try:
            packages = records.site_packages(place)
            prefix = f"{packages.relative_to(place)}/"
            found = {entry.name for entry in os.scandir(packages)}
        except OSError as error:
            return str(error)
        sealed = {name[len(prefix) :].split("/", 1)[0] for name in seal.files if name.startswith(prefix)}
        if strays := sorted(found - sealed):
            return f"not there when it was sealed: {', '.join(strays[:3])}"
        if missing := sorted(sealed - found):
            return f"missing since it was sealed: {', '.join(missing[:3])}"
        watched = [name for name in seal.files if name.endswith(".dist-info/RECORD")]
        changed = [name for name in (*watched, "pyvenv.cfg") if _facts(place / name) != seal.files.get(name)]
        return f"changed since it was sealed: {', '.join(changed[:3])}" if changed else None


def listing(root: Path) -> Iterator[tuple[str, list[object]]]:
    """Every file and link below a folder: relative path, and size, mtime and mode (a link: its target)."""
    for folder, _, names in os.walk(root):
        for name in names:
            path = Path(folder) / name
            yield str(path.relative_to(root)), _facts(path) or []


def _facts(path: Path) -> list[object] | None:
    try:
        status = path.lstat()
        first: object = os.readlink(path) if path.is_symlink() else status.st_size  # noqa: PTH115 - as it stands
    except OSError:
        return None
    return [first, status.st_mtime_ns, status.st_mode]
