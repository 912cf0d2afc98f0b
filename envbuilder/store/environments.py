"""The store: environments named by their key, made in staging, sealed, renamed into place, never changed after.

On disk, in the shared state folder::

    store/<key>/             the virtual environment
    store/<key>.json         the head of its seal; without one, an environment counts as not built
    store/<key>.files.json   the list of every file in it
    store/.staging/<key>/    one in the making, or left over by a killed build
    store/.trash/            what is being removed
    pycache/<key>/           the bytecode that its interpreter writes, and links to what environments share
    bytecode/                the bytecode that they share
    digests.sqlite           digests of files by inode
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path

from envbuilder import caches
from envbuilder.errors import ToolError
from envbuilder.fs import durable, exchange, held_by_nobody, listed, locked, sync_folder, unwritable
from envbuilder.store import records, seals, verify
from envbuilder.store.digests import Digests, walk
from envbuilder.store.seals import Seal
from envbuilder.store.skeletons import Skeletons


class Store:
    """Environments by key, in one folder.

    Args:
        shared: the state folder that holds the store.

    Attributes:
        skeletons: where empty virtual environments come from.
    """

    def __init__(self, shared: Path):
        self.shared = shared
        self.folder = shared / "store"
        self.skeletons = Skeletons(self.folder / ".staging", self.lock_path("skeleton"))

    def path(self, key: str) -> Path:
        """Where the environment of that key stands, or would."""
        return self.folder / key

    def head_path(self, key: str) -> Path:
        """Where the head of its seal stands."""
        return self.folder / f"{key}.json"

    def list_path(self, key: str) -> Path:
        """Where the list of its files stands."""
        return self.folder / f"{key}.files.json"

    def pycache(self, key: str) -> Path:
        """Where its interpreter puts bytecode, so that nothing writes into the environment."""
        return self.shared / "pycache" / key

    def compiled(self, plugin: str, key: str) -> Path:
        """Where its packages keep what they compile, other than bytecode."""
        return caches.folder(self.shared, plugin, key)

    def lock_path(self, key: str) -> Path:
        """The file whose lock a builder of that key holds."""
        return self.shared / "locks" / f"env-{key}"

    @property
    def usage_path(self) -> Path:
        """The file whose lock builders share, and the collector holds alone."""
        return self.shared / "locks" / "store"

    @property
    def digests(self) -> Path:
        """The database of digests of files by inode."""
        return self.shared / "digests.sqlite"

    def keys(self) -> list[str]:
        """The keys of all sealed environments."""
        return sorted(path.name.removesuffix(".json") for path in listed(self.folder) if _is_head(path))

    def staging(self, key: str) -> Path:
        """A fresh folder to build in; what a killed build left there is removed. The caller holds the key's lock.

        Bytecode goes too: a full disk tears it, and what was compiled from an edited file may look up to date.
        """
        folder = self.folder / ".staging" / key
        try:
            shutil.rmtree(self.pycache(key), ignore_errors=True)
            if folder.exists():
                shutil.rmtree(folder)
            folder.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise unwritable(folder, error) from error
        return folder

    def abandon(self, key: str) -> None:
        """Remove what a build that failed has made, at once: a full disk may be why. The caller holds the key's lock."""
        for folder in (self.folder / ".staging" / key, *self.shared.glob(f"bytecode/*/.new/{key}")):
            shutil.rmtree(folder, ignore_errors=True)
        if not self.path(key).exists():
            for folder in (self.pycache(key), *self.shared.glob(f"cache/*/compiled/{key}")):
                shutil.rmtree(folder, ignore_errors=True)

    def sweep(self) -> None:
        """Remove what killed builds left behind; what a running neighbour is making stays."""
        for folder in self.leftovers():
            shutil.rmtree(folder, ignore_errors=True)

    def leftovers(self) -> Iterator[Path]:
        """What killed builds left behind; each is nobody's for as long as the caller is at it."""
        left = [*self.folder.glob(".staging/*"), *self.folder.glob(".trash/*"), *self.shared.glob("bytecode/*/.new/*")]
        for folder in left:
            with (
                contextlib.suppress(OSError, ToolError),
                held_by_nobody(self.lock_path(folder.name.partition("@")[0])) as free,
            ):
                if free:
                    yield folder

    def seal(self, key: str) -> Seal | None:
        """The head of the seal of that key; None where there is none."""
        return seals.read(self.head_path(key), key)

    def seal_digest(self, key: str) -> str:
        """The digest of the seal of that key, another one after each build; empty where there is none."""
        try:
            return hashlib.sha256(self.head_path(key).read_bytes()).hexdigest()
        except OSError:
            return ""

    def glance(self, key: str) -> str | None:
        """Why an environment is not as it was sealed, by a few stats; None where it looks whole."""
        return verify.glance(self.path(key), self.seal(key))

    def survey(
        self, staging: Path, before: Collection[str], *, shared: Collection[str] = (), trusting: bool
    ) -> tuple[dict[str, seals.Facts], list[records.Wrong]]:
        """Everything in a finished environment, and how it differs from its packages' RECORDs.

        Args:
            staging: the environment.
            before: what was in it before packages were installed.
            shared: files of several distributions, which may have the bytes of any of them.
            trusting: whether digests remembered by inode count, or every byte is read.

        Raises:
            ToolError: it cannot be read.
        """
        try:
            with Digests(self.digests, fresh=not trusting) as digests:
                files = seals.survey(staging, digests)
            return files, list(records.findings(staging, files, before, shared))
        except OSError as error:
            raise unwritable(staging, error) from error

    def admit(
        self,
        key: str,
        staging: Path,
        *,
        files: Mapping[str, seals.Facts],
        inputs: Mapping[str, object],
        tools: Mapping[str, str],
    ) -> Seal:
        """Seal a finished environment and put it in its place, durably.

        At every moment the key's place holds the old environment or the new one, and a head vouches for one that is
        whole: the old head goes before anything moves, the new one comes last.

        Raises:
            ToolError: the file system refuses.
        """
        text = seals.list_text(files)
        packages = records.site_packages(staging)
        prefix = str(packages.relative_to(staging))
        watched = [name for name in files if name.endswith(".dist-info/RECORD") or name == "pyvenv.cfg"]
        seal = Seal(
            key=key,
            inputs=inputs,
            distributions=records.distributions(staging),
            tools=tools,
            count=len(files),
            size=sum(each.size for each in files.values()),
            list_digest=hashlib.sha256(text.encode()).hexdigest(),
            packages=prefix,
            names=seals.names_digest(os.listdir(packages)),  # noqa: PTH208 - names are what is wanted
            stats={name: [files[name].size, files[name].mtime_ns] for name in watched},
        )
        place = self.path(key)
        try:
            durable(staging)
            self.head_path(key).unlink(missing_ok=True)
            if place.exists():
                exchange(staging, place)
                shutil.rmtree(staging, ignore_errors=True)
            else:
                staging.rename(place)
            sync_folder(self.folder)
        except OSError as error:
            raise unwritable(place, error) from error
        self._keep_bytecode(key, staging)
        seals.write(self.head_path(key), self.list_path(key), seal, text)
        return seal

    def _keep_bytecode(self, key: str, staging: Path) -> None:
        """Let what the import compiled serve from the environment's place too; Python keeps it by the source's path."""
        made = self.pycache(key) / staging.relative_to("/")
        place = self.pycache(key) / self.path(key).relative_to("/")
        with contextlib.suppress(OSError):  # Bytecode only saves time.
            shutil.rmtree(place, ignore_errors=True)
            place.parent.mkdir(parents=True, exist_ok=True)
            made.rename(place)
            made.parent.rmdir()

    def discard(self, key: str) -> None:
        """Take an environment out of its place, in one step, and then remove it."""
        trash = self.folder / ".trash" / f"{key}@{os.getpid()}"
        trash.parent.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(trash, ignore_errors=True)
        self.path(key).rename(trash)
        shutil.rmtree(trash, ignore_errors=True)

    def remove(self, key: str) -> None:
        """Remove an environment, its seal and its bytecode.

        Raises:
            ToolError: the file system refuses.
        """
        try:
            with locked(self.lock_path(key)):
                self.head_path(key).unlink(missing_ok=True)
                self.list_path(key).unlink(missing_ok=True)
                if self.path(key).exists():
                    self.discard(key)
                for folder in (self.pycache(key), *self.shared.glob(f"cache/*/compiled/{key}")):
                    shutil.rmtree(folder, ignore_errors=True)
        except OSError as error:
            raise unwritable(self.path(key), error) from error

    def sharing(self, key: str, names: Collection[str]) -> dict[str, list[str]]:
        """Other environments that hold the same inodes as the given files of one: file to keys."""
        inodes = {}
        for name in names:
            with contextlib.suppress(OSError):
                status = (self.path(key) / name).lstat()
                if status.st_nlink > 1:
                    inodes[status.st_dev, status.st_ino] = name
        found: dict[str, list[str]] = {}
        if not inodes:
            return found
        for other in self.keys():
            if other == key:
                continue
            for inode in self._inodes(other):
                if inode in inodes:
                    found.setdefault(inodes[inode], []).append(other)
        return found

    def _inodes(self, key: str) -> Iterator[tuple[int, int]]:
        for _, entry in walk(self.path(key)):
            with contextlib.suppress(OSError):
                status = entry.stat(follow_symlinks=False)
                yield status.st_dev, status.st_ino


def _is_head(path: Path) -> bool:
    name = path.name
    return name.endswith(".json") and not name.endswith(".files.json") and not name.startswith(".")
