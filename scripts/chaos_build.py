"""Break builds at random moments, and count what is left broken: envbuilder against bare `uv sync`, side by side.

A workspace with one plugin and its 35 small packages is locked in two versions. Each round asks for the version that is
not there, so that there is something to build, and breaks the build: killed at a random moment (SIGKILL, SIGTERM,
SIGINT), some with a second builder beside it, some on a disk that takes no more, some with a store that cannot be
written. After each, what the profile points at must be whole, byte for byte, and import; then a plain `build` must
succeed. The same kills meet `uv sync --frozen` into a virtual environment, which a second `uv sync` then repairs.

Usage: uv run python scripts/chaos_build.py [--rounds N] [--minutes N] [--seed N] [--packages N]
"""

from __future__ import annotations

import csv
import random
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import click

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests"))

from local_index import Index, make_wheel  # noqa: E402
from workshop import PYTHON, Workshop  # noqa: E402

from envbuilder.store import verify  # noqa: E402
from envbuilder.store.environments import Store  # noqa: E402
from envbuilder.uv import find_uv  # noqa: E402

SIGNALS = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT)
FAULTS = ("kill", "kill", "kill", "kill beside another", "full disk", "unwritable store")
VERSIONS = ("v0.1.0", "v0.2.0")


class Campaign:
    """Two locks of one plugin, and the faults that their builds meet; deterministic by seed up to the clock.

    Args:
        root: an empty folder.
        index: serves the packages; they are made here.
        packages: how many.
        seed: of the moments and faults.
    """

    def __init__(self, root: Path, index: Index, *, packages: int, seed: int) -> None:
        self.draw = random.Random(seed)  # noqa: S311 - moments, not secrets
        self.counts: Counter[str] = Counter()
        self.workshop = Workshop(root)
        self.env = self.workshop.environment({"UV_CACHE_DIR": str(root / "cache")})
        self.names = [f"package-{number:02d}" for number in range(packages)]
        for name in self.names:
            module = name.replace("-", "_")
            modules = {f"{module}/m{number}.py": f"N = {number}\n".encode() for number in range(10)}
            make_wheel(index.folder, name, files={f"{module}/__init__.py": b"", **modules})
        self.workshop.write("profiles/prod/profile.toml", f'python = "{PYTHON}"\nindex-url = "{index.url}"\n')
        self.full_s = 0.0
        self.uv_s: float | None = None  # How long a sync takes that nobody kills.
        for version in VERSIONS:
            self.workshop.plugin("alpha", tag=version, dependencies=tuple(self.names))
            self._must("lock")
            self._must("build")  # Fills uv's cache.
            shutil.copytree(self.workshop.work / "profiles", root / version)
            self._forget_all()
            start = time.monotonic()
            self._must("build")
            self.full_s = time.monotonic() - start
        self.current = VERSIONS[-1]

    @property
    def state(self) -> Path:
        """The state folder."""
        return self.workshop.work / ".envbuilder"

    def _must(self, *arguments: str) -> None:
        ran = self.workshop.run(*arguments, env=self.env)
        if ran.status != 0:
            raise RuntimeError(f"{' '.join(arguments)}: {ran.err}")

    def _forget_all(self) -> None:
        for name in ("store", "generations", "envs", "stamps"):
            shutil.rmtree(self.state / name, ignore_errors=True)

    def turn(self) -> None:
        """Ask for the version that is not there now, and remove what the store has of it."""
        self.current = VERSIONS[self.current == VERSIONS[0]]
        for name in ("prod", "registry"):
            folder = self.workshop.work / "profiles" / name
            shutil.rmtree(folder)
            shutil.copytree(self.workshop.root / self.current / name, folder)
        pointed = self.pointed()
        store = Store(self.state)
        for key in filter(lambda each: pointed is None or each != pointed.name, store.keys()):
            store.remove(key)

    def pointed(self) -> Path | None:
        """The environment that the profile points at."""
        link = self.state / "envs" / "prod" / "alpha"
        return link.resolve() if link.is_symlink() else None

    def start(self, limit: int | None = None) -> subprocess.Popen[bytes]:
        """Start a build, its files no longer than a limit."""

        def confine() -> None:
            if limit is not None:
                resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

        return subprocess.Popen(
            self.workshop.argv("build", "-q"),
            cwd=self.workshop.work,
            env=self.env,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            preexec_fn=confine,  # noqa: PLW1509 - no threads of ours hold a lock here
        )

    def round(self, fault: str) -> None:
        """Break one build, judge what it left, and build again."""
        self.turn()
        before = self.pointed()
        said = self._broken(fault)
        self.counts[f"rounds: {fault}"] += 1
        after = self.pointed()
        self.counts["points at the " + ("old" if after == before else "new")] += 1
        if before is not None and (after is None or not self.whole(after)):
            self.counts["broken after the fault"] += 1
        if b"KeyboardInterrupt" in said and b" main()\n" not in said:
            self.counts["interrupted while Python started"] += 1
        elif b"Traceback" in said or b"internal-error" in said:
            self.counts["traceback"] += 1
            print(said.decode(), file=sys.stderr)
        ran = self.workshop.run("build", "-q", env=self.env)
        pointed = self.pointed()
        if ran.status != 0 or pointed is None or pointed == before or not self.whole(pointed):
            self.counts["broken after the next build"] += 1
            print(fault, ran.err, file=sys.stderr)
        if list((self.state / "store").glob(".staging/*")):
            self.counts["leftovers"] += 1

    def _broken(self, fault: str) -> bytes:
        if fault == "full disk":
            return self.start(limit=self.draw.choice([100, 1_000, 10_000, 30_000])).communicate()[1]
        if fault == "unwritable store":
            staging = self.state / "store" / ".staging"
            shutil.rmtree(staging, ignore_errors=True)
            staging.touch()  # A file where a folder must be made stops root, too.
            said = self.start().communicate()[1]
            staging.unlink()
            return said
        running = [self.start() for _ in range(2 if "beside" in fault else 1)]
        time.sleep(self.draw.uniform(0, 1.1 * self.full_s))
        running[0].send_signal(self.draw.choice(SIGNALS))
        return b"".join(process.communicate()[1] for process in running)

    def whole(self, place: Path) -> bool:
        """Whether an environment is what its seal says, to the last byte, and every module of it can be imported."""
        if verify.find(place.parent, [place.name], full=True)[place.name]:
            return False
        modules = ", ".join(["alpha", *(name.replace("-", "_") for name in self.names)])
        return subprocess.run([place / "bin" / "python", "-c", f"import {modules}"], check=False).returncode == 0

    def uv_round(self) -> None:
        """Kill a bare `uv sync` into a fresh environment, let another repair it, and count what is missing."""
        place = self.workshop.root / "venv"
        shutil.rmtree(place, ignore_errors=True)
        project = self.workshop.work / "profiles" / "prod" / "alpha"
        env = {**self.env, "UV_PROJECT_ENVIRONMENT": str(place)}
        mirror = {"GIT_CONFIG_COUNT": "1", "GIT_CONFIG_VALUE_0": "https://git.example.org/"}
        env |= {**mirror, "GIT_CONFIG_KEY_0": f"url.{self.workshop.remotes}/.insteadOf"}
        argv = [str(find_uv()), "sync", "--frozen", "--quiet", "--python", sys.executable]
        whole = self.uv_s
        start = time.monotonic()
        process = subprocess.Popen(argv, cwd=project, env=env, stderr=subprocess.PIPE)
        if whole is not None:
            time.sleep(self.draw.uniform(0, whole))
            process.send_signal(self.draw.choice(SIGNALS))
        process.communicate()
        if whole is None:
            self.uv_s = time.monotonic() - start
            return
        self.counts["uv: rounds"] += 1
        self.counts["uv: broken after the fault"] += _missing(place) > 0
        subprocess.run(argv, cwd=project, env=env, capture_output=True, check=False)
        self.counts["uv: broken after the next sync"] += _missing(place) > 0 or len(_records(place)) <= len(self.names)
        done = subprocess.run([*argv, "--check"], cwd=project, env=env, capture_output=True, check=False)
        self.counts["uv: broken, and --check says fine"] += _missing(place) > 0 and done.returncode == 0

    def run(self, rounds: int, say: Callable[[str], None], *, minutes: float = 60) -> Counter[str]:
        """Run a number of rounds, or as many as fit into the time; what came of them."""
        start = time.monotonic()
        self.uv_round()
        for number in range(rounds):
            self.round(self.draw.choice(FAULTS))
            self.uv_round()
            if (number + 1) % 10 == 0:
                say(f"{number + 1} of {rounds} rounds, {time.monotonic() - start:.0f} s")
            if time.monotonic() - start > minutes * 60:
                break
        return self.counts


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
def main(rounds: int, packages: int, seed: int, minutes: float) -> None:
    """Run a campaign and print its counts."""
    scratch = Path(tempfile.mkdtemp(prefix="chaos-"))
    try:
        with Index(scratch / "wheels") as index:
            counts = Campaign(scratch / "site", index, packages=packages, seed=seed).run(
                rounds, click.echo, minutes=minutes
            )
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    for name, count in sorted(counts.items()):
        click.echo(f"{name:40} {count:5}")
    broken = sum(counts[name] for name in ("broken after the fault", "broken after the next build", "traceback"))
    click.echo(f"{'ours: broken, or a traceback':40} {broken:5}")
    sys.exit(1 if broken else 0)


if __name__ == "__main__":
    main()
