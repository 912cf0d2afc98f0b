"""What building and verifying cost against what nobody can do without, as ratios of runs in turn; medians.

* nothing to do: `build` of many small plugins against a loop of `uv sync --frozen` (goal 0.2)
* warm: `build` of 20 and of 50 small plugins from uv's cache against the same loop of `uv venv` and `uv sync --frozen` (goal 1.0)
* verify: `verify` of all environments against a bare `lstat` of every file in one process (goal 1.5)
* full: `verify --full` against the SHA-256 of every inode once in as many processes as cores (goal 1.2)
* cold: bytes that four plugins with shared wheels fetch against the sum of the wheels (goal 1.05)

With --torch, verify and full alone, for the demo's environment with torch (5 GB; uv's cache should hold it). Nothing is
dropped from the page cache: both sides read from memory, where it is large enough.

Usage: uv run python scripts/bench_store.py [--plugins N] [--rounds N] [--torch]
"""

from __future__ import annotations

import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import click

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests"))

from local_index import Index, make_wheel  # noqa: E402
from workshop import PYTHON, Workshop  # noqa: E402

from envbuilder.uv import find_uv  # noqa: E402

Job = Callable[[], object]

# What a person's shell has not: the tool would compile itself at each start.
NOT_OURS = {"VIRTUAL_ENV", "PYTHONDONTWRITEBYTECODE"}

# What a verifier cannot do without, in a process of its own: its start counts on both sides.
LSTAT = """
import os, sys
def walk(folder):
    with os.scandir(folder) as entries:
        for entry in entries:
            entry.stat(follow_symlinks=False)
            if entry.is_dir(follow_symlinks=False):
                walk(entry.path)
for folder in sys.argv[1:]:
    walk(folder)
"""
HASH = """
import hashlib, os, sys
sizes = {}
for folder in sys.argv[1:]:
    for root, _, names in os.walk(folder):
        for name in names:
            path = os.path.join(root, name)
            status = os.lstat(path)
            if (status.st_mode & 0o170000) == 0o100000:
                sizes[status.st_ino] = (status.st_size, path)
cores = len(os.sched_getaffinity(0))
shares = [[0] for _ in range(cores)]
for size, path in sorted(sizes.values(), reverse=True):
    share = min(shares, key=lambda each: each[0])
    share[0] += size + 30_000  # As long as opening a file takes.
    share.append(path)
children = []
for share in shares[1:]:
    child = os.fork()
    if child == 0:
        children = []
        break
    children.append(child)
else:
    share = shares[0]
block = bytearray(1 << 18)
for path in share[1:]:
    digest = hashlib.sha256()
    with open(path, "rb", buffering=0) as stream:
        while count := stream.readinto(block):
            digest.update(memoryview(block)[:count])
    digest.hexdigest()
for child in children:
    os.waitpid(child, 0)
"""


class Site:
    """A workspace with environments, and what is timed in it.

    Args:
        work: the workspace.
        names: its plugins.
        env: variables for all that is run in it, beside those of this process.
    """

    def __init__(self, work: Path, names: Sequence[str], env: Mapping[str, str]) -> None:
        self.work = work
        self.names = list(names)
        own = Workshop.environment(env)
        # People have bytecode kept, and so do not wait for it to be made anew at every start.
        self.env = {key: value for key, value in own.items() if key not in NOT_OURS}

    @property
    def state(self) -> Path:
        return self.work / ".envbuilder"

    @property
    def places(self) -> list[str]:
        """The environments."""
        return [str((self.state / "envs" / "prod" / name).resolve()) for name in self.names]

    def ours(self, *arguments: str) -> None:
        """Run envbuilder."""
        self.run([str(Path(sys.executable).with_name("envbuilder")), *arguments], self.work)

    def run(self, argv: list[str], folder: Path, **env: str) -> None:
        """Run a program."""
        subprocess.run(argv, cwd=folder, env={**self.env, **env}, check=True, capture_output=True)

    def script(self, text: str) -> None:
        """Run a piece of Python over all environments."""
        self.run([sys.executable, "-I", "-S", "-c", text, *self.places], self.work)

    def verify(self, what: str, rounds: int) -> None:
        """Time both tiers of `verify` against what neither can do without."""
        compare(f"verify: {what}", 1.5, rounds, lambda: self.ours("verify"), lambda: self.script(LSTAT))
        full = (lambda: self.ours("verify", "--full")), (lambda: self.script(HASH))
        compare(f"verify --full: {what}", 1.2, rounds, *full)


class Bench(Site):
    """A workspace of small plugins."""

    def __init__(self, root: Path, index: Index, plugins: int) -> None:
        self.workshop = Workshop(root)
        cache = {"UV_CACHE_DIR": str(root / "cache"), "GIT_CONFIG_COUNT": "1"}
        mirror = {"GIT_CONFIG_KEY_0": f"url.{self.workshop.remotes}/.insteadOf"}
        names = [f"plugin-{number:02d}" for number in range(plugins)]
        super().__init__(
            self.workshop.work, names, {**cache, **mirror, "GIT_CONFIG_VALUE_0": "https://git.example.org/"}
        )
        for name in ("shared-a", "shared-b", "shared-c"):
            module = name.replace("-", "_")
            files = {f"{module}/m{number}.py": b"x = 1\n" * number for number in range(40)}
            make_wheel(index.folder, name, files={f"{module}/__init__.py": b"", **files})
        self.workshop.write("profiles/prod/profile.toml", f'python = "{PYTHON}"\nindex-url = "{index.url}"\n')
        for name in self.names:
            self.workshop.plugin(name, dependencies=("shared-a", "shared-b", "shared-c"))
        self.ours("lock", "-q")
        self.ours("build", "-q")

    def uv_no_op(self) -> None:
        """Sync what is synced already, one after the other."""
        for name, place in zip(self.names, self.places, strict=True):
            argv = [str(find_uv()), "sync", "--frozen", "--offline", "--python", f"{place}/bin/python"]
            self.run(argv, self.work / "profiles" / "prod" / name, UV_PROJECT_ENVIRONMENT=place)

    def uv_warm(self, folder: Path, count: int) -> None:
        """Make fresh environments one after the other."""
        for name in self.names[:count]:
            place = str(folder / name)
            python = str(Path(sys.executable).resolve())
            self.run([str(find_uv()), "venv", "--quiet", "--python", python, place], self.work)
            argv = [str(find_uv()), "sync", "--frozen", "--offline", "--python", python]
            self.run(argv, self.work / "profiles" / "prod" / name, UV_PROJECT_ENVIRONMENT=place)

    def forget(self) -> None:
        """Remove what was built."""
        for name in ("store", "envs", "generations", "stamps", "digests.sqlite"):
            path = self.state / name
            shutil.rmtree(path, ignore_errors=True)
            path.unlink(missing_ok=True)


def seconds(job: Job) -> float:
    """Wall time of a job."""
    start = time.perf_counter()
    job()
    return time.perf_counter() - start


def compare(what: str, goal: float, rounds: int, mine: Job, theirs: Job, *, between: Job = lambda: None) -> None:
    """Time two jobs in turn and print the medians, and that of the ratios of the rounds, against the goal."""
    pairs = []
    for _ in range(rounds):
        between()
        pairs.append((seconds(mine), seconds(theirs)))
    ratio = statistics.median(pair[0] / pair[1] for pair in pairs)
    show(what, statistics.median(pair[0] for pair in pairs), statistics.median(pair[1] for pair in pairs), goal, ratio)


def show(what: str, mine: float, theirs: float, goal: float, ratio: float, unit: str = "s") -> None:
    """Print one line of the table."""
    verdict = "met" if ratio <= goal else "NOT met"
    click.echo(f"{what:34} {mine:9.3f} {unit:2} {theirs:9.3f} {unit:2}  ratio {ratio:5.2f}  goal {goal:.2f}  {verdict}")


def cold(root: Path) -> None:
    """Four plugins whose wheels are fetched at once into an empty cache: bytes sent against the wheels' sum."""
    draw = random.Random(0)  # noqa: S311 - bulk, not secrets
    with Index(root / "wheels") as index:
        for name in [f"big-{letter}" for letter in "abcdefgh"]:
            module = name.replace("-", "_")
            files = {f"{module}/__init__.py": b"", f"{module}/x": draw.randbytes(3_000_000)}
            make_wheel(index.folder, name, files=files)
        workshop = Workshop(root / "site")
        workshop.write("profiles/prod/profile.toml", f'python = "{PYTHON}"\nindex-url = "{index.url}"\n')
        for number in range(4):
            wanted = tuple(f"big-{letter}" for letter in "abcd" + "efgh"[number])
            workshop.plugin(f"plugin-{number}", dependencies=wanted)
        for command, cache in ((["lock"], "a"), (["build", "--jobs", "4"], "b")):
            ran = workshop.run(*command, "-q", env={"UV_CACHE_DIR": str(root / cache)})
            if ran.status != 0:
                raise RuntimeError(ran.err)
        total = sum(wheel.stat().st_size for wheel in index.folder.glob("*.whl"))
        show("cold: MB fetched, sum of wheels", index.sent / 1e6, total / 1e6, 1.05, index.sent / total, "MB")


def torch(root: Path, rounds: int) -> None:
    """The demo's environment with torch, in a workspace that has nothing else."""
    plugin = "ocr-crnn"
    names = ("pyproject.toml", "packages/core", "packages/remotes", "profiles/registry/vlm-core.yaml")
    own = (f"profiles/registry/{plugin}.yaml", "profiles/prod/profile.toml", "profiles/prod/pins.toml")
    for name in (*names, *own, f"profiles/prod/{plugin}"):
        source, target = ROOT / name, root / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copytree(source, target) if source.is_dir() else shutil.copy2(source, target)
    site = Site(root, [plugin], {})
    site.ours("build", "-q")
    site.verify("torch", rounds)


@click.command(help=__doc__)
@click.option("--plugins", default=50, show_default=True)
@click.option(
    "--warm", default=(20, 50), multiple=True, show_default=True, help="How many are built from a warm cache."
)
@click.option("--rounds", default=5, show_default=True)
@click.option("--torch", "with_torch", is_flag=True, help="Measure an environment with torch, and nothing else.")
def main(plugins: int, warm: tuple[int, ...], rounds: int, with_torch: bool) -> None:
    """Run all comparisons."""
    scratch = Path(tempfile.mkdtemp(prefix="bench-store-"))
    try:
        if with_torch:
            torch(scratch / "torch", rounds)
            return
        with Index(scratch / "wheels") as index:
            bench = Bench(scratch / "site", index, plugins)
            bench.ours("build", "-q")
            compare(f"no-op: {plugins} plugins", 0.2, rounds, lambda: bench.ours("build", "-q"), bench.uv_no_op)
            bench.verify(f"{plugins} environments", rounds)

            def clear() -> None:
                bench.forget()
                shutil.rmtree(scratch / "venvs", ignore_errors=True)

            for count in warm:
                chosen = bench.names[:count]
                mine, theirs = (
                    (lambda chosen=chosen: bench.ours("build", "-q", *chosen)),
                    (lambda count=count: bench.uv_warm(scratch / "venvs", count)),
                )
                compare(f"warm build: {count} plugins", 1.0, rounds, mine, theirs, between=clear)
        cold(scratch / "cold")
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


if __name__ == "__main__":
    main()
