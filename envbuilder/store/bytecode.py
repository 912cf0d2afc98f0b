"""Bytecode that environments share: compiled once for each source and kind of Python, linked into all that want it.

On disk, in the shared state folder::

    bytecode/<tag>-<version>/<digest>.pyc      by the SHA-256 of the source; checked when it is loaded (PEP 552)
    bytecode/<tag>-<version>/.new/<key>/       what a build compiled and the disk may not hold yet
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files as resources
from pathlib import Path

from envbuilder import process
from envbuilder.models import Interpreter
from envbuilder.store.seals import Facts
from envbuilder.threads import at_once

# A hundred sources take a process about half a second; fewer are not worth another one.
_SHARE = 100
_TIMEOUT_S = 600.0


@dataclass(frozen=True)
class Proof:
    """How the import of an entry point ended."""

    done: process.Completed
    reached: bool

    @property
    def failure(self) -> str | None:
        """Why the entry point is not proved; None where it is."""
        if self.reached and self.done.ok:
            return None
        lines = [line for line in self.done.stderr.splitlines() if line.strip()]
        status = f"exit status {self.done.returncode}"
        if not self.done.ok:
            return lines[-1] if lines else status
        last = f"; the last that it wrote: {lines[-1]}" if lines else ""
        return f"the process ended with {status} before it was reached, as os._exit() and exec() end one{last}"


@dataclass(frozen=True)
class Bytecode:
    """The shared bytecode of one kind of Python, as the build of one environment uses it.

    Attributes:
        folder: where it lies.
        key: the environment's key.
        tag: what Python calls bytecode files by, such as ``cpython-311``.
        trusting: whether what is there is used, or all is compiled anew and put in its place.
    """

    folder: Path
    key: str
    tag: str
    trusting: bool = True

    @classmethod
    def of(cls, shared: Path, key: str, interpreter: Interpreter, *, trusting: bool) -> Bytecode:
        """The bytecode for an interpreter, by what its extension modules are named after."""
        tag = "-".join(interpreter.abi.split("-")[:2])
        return cls(shared / "bytecode" / f"{tag}-{interpreter.version}", key, tag, trusting)

    @property
    def fresh(self) -> Path:
        """Where what this build compiles lies until the disk holds it."""
        return self.folder / ".new" / self.key

    def prove(self, python: Path, entry: str, env: Mapping[str, str]) -> Proof:
        """Import an entry point in a new environment; what that compiles is kept.

        Args:
            python: the environment's own.
            entry: ``module:attribute``.
            env: the whole environment of the child; `PYTHONPYCACHEPREFIX` says where its bytecode goes.

        Returns:
            How it ended, and whether it reached the entry point, by its own word: an exit status says less.
        """
        shutil.rmtree(self.fresh, ignore_errors=True)
        with contextlib.suppress(OSError):  # Bytecode only saves time.
            self.fresh.mkdir(parents=True)
        word = secrets.token_hex(16)
        done = self._inside(python, entry, "", env, word)
        return Proof(done, reached=done.stdout == word)

    def seed(self, pycache: Path, environment: Path, files: Mapping[str, Facts]) -> list[Path]:
        """Link what is there into an environment's own folder of bytecode; returns the sources that have none yet.

        Args:
            pycache: the environment's folder of bytecode.
            environment: where it stands.
            files: everything in it, with digests.
        """
        place = pycache / environment.relative_to("/")
        return [
            environment / name
            for name, facts in files.items()
            if name.endswith(".py")
            and "/site-packages/" in name
            and facts.is_file
            and not self._link(facts.content.removeprefix("sha256:"), f"{place}/{name[:-2]}{self.tag}.pyc")
        ]

    def borrow(self, pycache: Path, folders: Sequence[Path], names: Collection[str]) -> list[Path]:
        """Link the bytecode that a base has beside its packages, which `PYTHONPYCACHEPREFIX` hides.

        Args:
            pycache: the environment's folder of bytecode.
            folders: those of the base's packages.
            names: the packages that are wanted, as they are called there.

        Returns:
            the sources of wanted packages that have no bytecode there.
        """
        lacking = []
        for top in map(str, folders):
            for folder, inner, files in os.walk(top):
                made = set(_names(f"{folder}/__pycache__")) if "__pycache__" in inner else set()
                inner[:] = [each for each in inner if each != "__pycache__"]
                sources = {f"{each[:-2]}{self.tag}.pyc": each for each in files if each.endswith(".py")}
                place = f"{pycache}{folder}"
                with contextlib.suppress(OSError):  # Bytecode only saves time.
                    if made & sources.keys():
                        os.makedirs(place, exist_ok=True)  # noqa: PTH103 - thousands of them
                    for each in made & sources.keys():
                        os.symlink(f"{folder}/__pycache__/{each}", f"{place}/{each}")  # noqa: PTH211
                if os.path.relpath(folder, top).split("/")[0] in {*names, "."}:
                    left = (each for made_as, each in sources.items() if made_as not in made)
                    lacking += [Path(folder, each) for each in left if folder != top or each in names]
        return lacking

    def _link(self, digest: str, place: str) -> bool:
        kept = f"{self.folder}/{digest}.pyc"
        try:
            if self.trusting:
                try:
                    os.link(kept, place)
                except FileNotFoundError:
                    if os.path.exists(kept):  # noqa: PTH110 - thousands of them
                        Path(place).parent.mkdir(parents=True, exist_ok=True)
                        os.link(kept, place)
        except OSError:
            pass
        return os.path.exists(place)  # noqa: PTH110

    def compile(self, python: Path, sources: Sequence[Path], env: Mapping[str, str]) -> None:
        """Compile sources, with all cores; those that cannot be compiled are passed over."""
        count = max(1, min(os.cpu_count() or 1, len(sources) // _SHARE))
        lists = [self.fresh / f"sources-{number}" for number in range(count)]
        with contextlib.suppress(OSError):
            self.fresh.mkdir(parents=True, exist_ok=True)
            ordered = sorted(sources, key=lambda path: path.stat().st_size)
            for number, listing in enumerate(lists):
                listing.write_text("\0".join(map(str, ordered[number::count])), encoding="utf-8")
            list(at_once(lambda listing: self._inside(python, "", str(listing), env), lists, count, name="compile"))
        for listing in lists:
            listing.unlink(missing_ok=True)

    def publish(self) -> None:
        """Let others have what this build compiled; the caller has had the disk take it."""
        with contextlib.suppress(OSError):
            for entry in os.scandir(self.fresh):
                if self.trusting and (self.folder / entry.name).exists():
                    Path(entry.path).unlink()  # A neighbour was first; the more that link to one file, the better.
                else:
                    Path(entry.path).replace(self.folder / entry.name)
            self.fresh.rmdir()

    def _inside(
        self, python: Path, entry: str, listing: str, env: Mapping[str, str], word: str = ""
    ) -> process.Completed:
        text = (resources("envbuilder.store") / "inside.py").read_text(encoding="utf-8")
        shared = str(self.folder) if self.trusting else ""
        argv: list[str | Path] = [python, "-c", text, entry, shared, str(self.fresh), listing, word]
        return process.run(argv, env=env, timeout_s=_TIMEOUT_S)


def _names(folder: str) -> list[str]:
    try:
        return os.listdir(folder)  # noqa: PTH208 - names are what is wanted
    except OSError:
        return []


def collect(shared: Path) -> None:
    """Remove bytecode that no environment links to, and what killed builds left; no builder is at work."""
    for folder in (shared / "bytecode").glob("*"):
        shutil.rmtree(folder / ".new", ignore_errors=True)
        with contextlib.suppress(OSError):
            for entry in os.scandir(folder):
                if entry.is_file(follow_symlinks=False) and entry.stat(follow_symlinks=False).st_nlink == 1:
                    Path(entry.path).unlink()
            folder.rmdir()
