"""Break builds at random moments, and count what is left broken: envbuilder against bare `uv sync`, side by side.

A workspace with one plugin and its 35 small packages is locked in two versions. Each round asks for the version that is
not there, so that there is something to build, and breaks the build: killed at a random moment (SIGKILL, SIGTERM,
SIGINT), some with a second builder beside it, some on a disk that fills up, some with a store that cannot be written.
After each, what the profile points at must be whole, byte for byte, and import; then, with room on the disk again, a
plain `build` must succeed. The same kills and full disks meet `uv sync --frozen` into a virtual environment, which a
second `uv sync` then repairs.

The disk that fills up is a small mount (tmpfs, or ext4 in a file) of which a random part of what the build needs is
left: with the state folder on it and uv's cache elsewhere, or with both on it and the cache empty or filled. Where
mounting is not allowed it is a limit on the size of files.

Usage: uv run python scripts/chaos_build.py [--rounds N] [--minutes N] [--seed N] [--packages N] [--disk tmpfs|ext4|none]
"""

from __future__ import annotations

import contextlib
import csv
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import click
from typing_extensions import Self

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests"))

from local_index import Index, make_wheel  # noqa: E402
from workshop import PYTHON, Workshop  # noqa: E402

from envbuilder.store import verify  # noqa: E402
from envbuilder.store.environments import Store  # noqa: E402
from envbuilder.uv import find_uv  # noqa: E402

SIGNALS = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT)
FAULTS = ("kill", "kill", "kill", "kill beside another", "full disk", "full disk", "unwritable store")
VERSIONS = ("v0.1.0", "v0.2.0")
# Where uv's cache is when the disk that the state folder is on fills up.
CACHES = ("", ", cache on it", ", empty cache on it")
DISK_MIB = 128


class Disk:
    """A small file system that can be left with as little room as wanted; use it in a ``with``.

    Args:
        folder: where to mount it.
        kind: ``tmpfs``, or ``ext4`` in a file beside the folder.

    Raises:
        OSError: mounting is not allowed here.
    """

    def __init__(self, folder: Path, kind: str) -> None:
        self.folder = folder
        self.kind = kind
        self._ballast = folder / "ballast"
        folder.mkdir(parents=True)
        source, options = "tmpfs", f"size={DISK_MIB}m"
        if kind == "ext4":
            source, options = str(folder.with_suffix(".img")), "loop"
            with Path(source).open("wb") as image:
                image.truncate(DISK_MIB << 20)
            _quietly("mkfs.ext4", "-q", "-m", "0", source)  # Nothing reserved for root.
        _quietly("mount", "-t", kind, "-o", options, source, str(folder))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        _quietly("umount", "--lazy", str(self.folder))

    @property
    def free(self) -> int:
        """Bytes that can still be written."""
        status = os.statvfs(self.folder)
        return status.f_bavail * status.f_frsize

    @contextlib.contextmanager
    def left_with(self, room: int) -> Iterator[None]:
        """Let so many bytes be free and no more, for a while."""
        with self._ballast.open("wb") as stream:
            os.posix_fallocate(stream.fileno(), 0, max(1, self.free - room))
        try:
            yield
        finally:
            self._ballast.unlink()


def _quietly(*argv: str) -> None:
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise OSError(f"{' '.join(argv)}: {done.stderr.strip()}")


@dataclass
class Place:
    """A state folder with its variables, and the version built there last.

    Attributes:
        name: what is special about it.
        shared: the folder.
        env: what builds into it are told.
        cold: whether uv's cache is emptied before each build.
        need: bytes of the disk that a build into it takes.
        current: the version that was asked for last.
    """

    name: str
    shared: Path
    env: Mapping[str, str]
    cold: bool = False
    need: int = 0
    current: str = VERSIONS[-1]

    @property
    def store(self) -> Store:
        """The store in it."""
        return Store(self.shared)

    def pointed(self) -> Path | None:
        """The environment that the profile points at."""
        for own in (self.shared, *self.shared.glob("workspaces/*")):
            link = own / "envs" / "prod" / "alpha"
            if link.is_symlink():
                return link.resolve()
        return None


class Campaign:
    """Two locks of one plugin, and the faults that their builds meet; deterministic by seed up to the clock.

    Args:
        root: an empty folder.
        index: serves the packages; they are made here.
        packages: how many.
        seed: of the moments and faults.
        disk: what fills up; None where mounting is not allowed.
    """

    def __init__(self, root: Path, index: Index, *, packages: int, seed: int, disk: Disk | None = None) -> None:
        self.draw = random.Random(seed)  # noqa: S311 - moments, not secrets
        self.counts: Counter[str] = Counter()
        self.disk = disk
        self.workshop = Workshop(root)
        self.names = [f"package-{number:02d}" for number in range(packages)]
        for name in self.names:
            module = name.replace("-", "_")
            modules = {f"{module}/m{number}.py": f"N = {number}\n".encode() for number in range(10)}
            make_wheel(index.folder, name, files={f"{module}/__init__.py": b"", **modules})
        self.workshop.write("profiles/prod/profile.toml", f'python = "{PYTHON}"\nindex-url = "{index.url}"\n')
        self.plain = Place("", self.workshop.work / ".envbuilder", {"UV_CACHE_DIR": str(root / "cache")})
        self.full_s = 0.0
        self.uv_s: float | None = None  # How long a sync takes that nobody kills.
        for version in VERSIONS:
            self.workshop.plugin("alpha", tag=version, dependencies=tuple(self.names))
            self._must("lock", self.plain)
            self._must("build", self.plain)  # Fills uv's cache.
            shutil.copytree(self.workshop.work / "profiles", root / version)
            for name in ("store", "generations", "envs", "stamps"):
                shutil.rmtree(self.plain.shared / name)
            start = time.monotonic()
            self._must("build", self.plain)
            self.full_s = time.monotonic() - start
        self._small: dict[str, Place] = {}

    def small(self, disk: Disk, name: str) -> Place:
        """A state folder on the disk that fills up, one of `CACHES`, with an environment in it; made when first asked for."""
        if name not in self._small:
            shared = disk.folder / f"state-{len(self._small)}"
            env = {**self.plain.env, "ENVBUILDER_HOME": str(shared)}
            if name:
                env["UV_CACHE_DIR"] = str(shared / "cache")
            place = self._small[name] = Place(name, shared, env, cold="empty" in name)
            for _ in VERSIONS:
                self.turn(place)
                free = disk.free
                self._must("build", place)
                place.need = free - disk.free
        return self._small[name]

    def _must(self, command: str, place: Place) -> None:
        ran = self.workshop.run(command, env=place.env)
        if ran.status != 0:
            raise RuntimeError(f"{command}: {ran.err}")

    def turn(self, place: Place) -> None:
        """Ask for the version that was not built last, and remove what the store has of it."""
        place.current = VERSIONS[place.current == VERSIONS[0]]
        for name in ("prod", "registry"):
            folder = self.workshop.work / "profiles" / name
            shutil.rmtree(folder)
            shutil.copytree(self.workshop.root / place.current / name, folder)
        pointed = place.pointed()
        for key in filter(lambda each: pointed is None or each != pointed.name, place.store.keys()):
            place.store.remove(key)
        if place.cold:
            shutil.rmtree(place.env["UV_CACHE_DIR"], ignore_errors=True)

    def start(self, place: Place, limit: int | None = None) -> subprocess.Popen[bytes]:
        """Start a build, its files no longer than a limit."""
        return subprocess.Popen(
            self.workshop.argv("build", "-q"),
            cwd=self.workshop.work,
            env=self.workshop.environment(place.env),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            preexec_fn=_confine(limit),  # noqa: PLW1509 - no threads of ours hold a lock here
        )

    def round(self, fault: str) -> None:
        """Break one build, judge what it left, and build again."""
        place = self.small(self.disk, self.draw.choice(CACHES)) if fault == "full disk" and self.disk else self.plain
        self.turn(place)
        before = place.pointed()
        said = self._broken(fault, place)
        self.counts[f"rounds: {self._kind(fault, place)}"] += 1
        after = place.pointed()
        self.counts["points at the " + ("old" if after == before else "new")] += 1
        if before is not None and (after is None or not self.whole(place, after)):
            self.counts["broken after the fault"] += 1
        if b"KeyboardInterrupt" in said and b" main()\n" not in said:
            self.counts["interrupted while Python started"] += 1
        elif b"Traceback" in said or b"internal-error" in said:
            self.counts["traceback"] += 1
            print(said.decode(), file=sys.stderr)
        ran = self.workshop.run("build", "-q", env=place.env)
        pointed = place.pointed()
        if ran.status != 0 or pointed is None or pointed == before or not self.whole(place, pointed):
            self.counts["broken after the next build"] += 1
            print(f"{fault}{place.name}: {said.decode()}\nand then: {ran.err}", file=sys.stderr)
            self.turn(place)  # So that the next round has something to build.
        if list((place.shared / "store").glob(".staging/*")):
            self.counts["leftovers"] += 1

    def _kind(self, fault: str, place: Place) -> str:
        if fault != "full disk":
            return fault
        if self.disk is None:
            return f"{fault} (file size limit)"
        return f"{fault} ({self.disk.kind}{place.name})"

    def _broken(self, fault: str, place: Place) -> bytes:
        if fault == "full disk":
            with self._no_space(place.need) as limit:
                process = self.start(place, limit)
                said = process.communicate()[1]
            self.counts["full disk: refused, and said so"] += process.returncode != 0 and bool(said)
            return said
        if fault == "unwritable store":
            staging = place.shared / "store" / ".staging"
            shutil.rmtree(staging, ignore_errors=True)
            staging.touch()  # A file where a folder must be made stops root, too.
            said = self.start(place).communicate()[1]
            staging.unlink()
            return said
        running = [self.start(place) for _ in range(2 if "beside" in fault else 1)]
        time.sleep(self.draw.uniform(0, 1.1 * self.full_s))
        running[0].send_signal(self.draw.choice(SIGNALS))
        return b"".join(process.communicate()[1] for process in running)

    @contextlib.contextmanager
    def _no_space(self, need: int) -> Iterator[int | None]:
        """Room on the small disk for a random part of what is needed; without a disk, a limit on the size of files."""
        if self.disk is None:
            yield self.draw.choice([100, 1_000, 10_000, 30_000])
        else:
            with self.disk.left_with(int(self.draw.uniform(0, 1.05) * need)):
                yield None

    def whole(self, place: Place, environment: Path) -> bool:
        """Whether an environment is what its seal says, to the last byte, and every module of it can be imported."""
        if verify.find(place.store.folder, [environment.name], full=True)[environment.name]:
            return False
        modules = ", ".join(["alpha", *(name.replace("-", "_") for name in self.names)])
        python = environment / "bin" / "python"
        return subprocess.run([python, "-c", f"import {modules}"], check=False).returncode == 0

    def uv_round(self, fault: str) -> None:
        """Break a bare `uv sync` into a fresh environment, let another repair it, and count what is missing."""
        on_disk = self.disk is not None and fault == "full disk"
        place = (self.disk.folder if self.disk and on_disk else self.workshop.root) / "venv"
        shutil.rmtree(place, ignore_errors=True)
        project = self.workshop.work / "profiles" / "prod" / "alpha"
        env = {**self.workshop.environment(self.plain.env), "UV_PROJECT_ENVIRONMENT": str(place)}
        mirror = {"GIT_CONFIG_COUNT": "1", "GIT_CONFIG_VALUE_0": "https://git.example.org/"}
        env |= {**mirror, "GIT_CONFIG_KEY_0": f"url.{self.workshop.remotes}/.insteadOf"}
        argv = [str(find_uv()), "sync", "--frozen", "--quiet", "--python", sys.executable]

        def start(limit: int | None = None) -> subprocess.Popen[bytes]:
            pipe, confine = subprocess.PIPE, _confine(limit)
            return subprocess.Popen(argv, cwd=project, env=env, stderr=pipe, preexec_fn=confine)  # noqa: PLW1509

        if self.uv_s is None:
            begun = time.monotonic()
            start().communicate()
            self.uv_s = time.monotonic() - begun
            return
        if fault == "full disk":
            with self._no_space(self.small(self.disk, "").need if self.disk else 0) as limit:
                start(limit).communicate()
        else:
            process = start()
            time.sleep(self.draw.uniform(0, self.uv_s))
            process.send_signal(self.draw.choice(SIGNALS))
            process.communicate()
        kind = "uv, full disk: " if fault == "full disk" else "uv, kill: "
        self.counts[f"{kind}rounds"] += 1
        self.counts[f"{kind}broken after the fault"] += _missing(place) > 0
        subprocess.run(argv, cwd=project, env=env, capture_output=True, check=False)
        broken = _missing(place) > 0 or len(_records(place)) <= len(self.names)
        self.counts[f"{kind}broken after the next sync"] += broken
        done = subprocess.run([*argv, "--check"], cwd=project, env=env, capture_output=True, check=False)
        self.counts[f"{kind}broken, and --check says fine"] += _missing(place) > 0 and done.returncode == 0
        shutil.rmtree(place, ignore_errors=True)

    def run(self, rounds: int, say: Callable[[str], None], *, minutes: float = 60) -> Counter[str]:
        """Run a number of rounds, or as many as fit into the time; what came of them."""
        start = time.monotonic()
        self.uv_round("")
        for number in range(rounds):
            fault = self.draw.choice(FAULTS)
            self.round(fault)
            if fault != "unwritable store":
                self.uv_round(fault)
            if (number + 1) % 10 == 0:
                say(f"{number + 1} of {rounds} rounds, {time.monotonic() - start:.0f} s")
            if time.monotonic() - start > minutes * 60:
                break
        return self.counts


def _confine(limit: int | None) -> Callable[[], None]:
    def confine() -> None:
        if limit is not None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

    return confine


def small_disk(folder: Path, kind: str) -> contextlib.AbstractContextManager[Disk | None]:
    """A disk to fill, or nothing where mounting is not allowed, or not wanted (kind ``none``)."""
    try:
        return contextlib.nullcontext() if kind == "none" else Disk(folder, kind)
    except OSError as error:
        print(f"no small disk, so a limit on the size of files instead: {error}", file=sys.stderr)
        return contextlib.nullcontext()


def _records(environment: Path) -> list[Path]:
    return list(environment.glob("lib/python*/site-packages/*.dist-info/RECORD"))


def _missing(environment: Path) -> int:
    """How many files that a RECORD names are not there, or empty where they should not be."""
    infos = list(environment.glob("lib/python*/site-packages/*.dist-info"))
    count = len(infos) - len(_records(environment))
    for record in _records(environment):
        for row in csv.reader(record.read_text().splitlines()):
            file = record.parents[1] / row[0]
            count += not file.exists() or (row[2] not in {"", "0"} and file.stat().st_size == 0)
    return count


@click.command(help=__doc__)
@click.option("--rounds", default=300, show_default=True)
@click.option("--packages", default=35, show_default=True)
@click.option("--seed", default=0, show_default=True)
@click.option("--minutes", default=60.0, show_default=True, help="Begin no round after this time.")
@click.option("--disk", "kind", type=click.Choice(["tmpfs", "ext4", "none"]), default="tmpfs", show_default=True)
def main(rounds: int, packages: int, seed: int, minutes: float, kind: str) -> None:
    """Run a campaign and print its counts."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # The small disk must not stay mounted.
    scratch = Path(tempfile.mkdtemp(prefix="chaos-"))
    try:
        with Index(scratch / "wheels") as index, small_disk(scratch / "disk", kind) as disk:
            campaign = Campaign(scratch / "site", index, packages=packages, seed=seed, disk=disk)
            counts = campaign.run(rounds, click.echo, minutes=minutes)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    for name, count in sorted(counts.items()):
        click.echo(f"{name:40} {count:5}")
    broken = sum(counts[name] for name in ("broken after the fault", "broken after the next build", "traceback"))
    click.echo(f"{'ours: broken, or a traceback':40} {broken:5}")
    sys.exit(1 if broken else 0)


if __name__ == "__main__":
    main()
