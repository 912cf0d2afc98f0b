"""What locking and checking cost against a loop of uv over the same generated projects, as ratios of runs in turn.

* first lock, cold: nothing cached, nothing cloned, against `uv lock` in each project, one after the other (goal 0.45)
* warm: uv's cache is full, the locks are gone (goal 0.6); and where the profile says what is newest, so that the
  index's answers may be reused
* `lock` with nothing to do, and `lock --check`, against a loop of `uv lock --check` (goal 0.2)
* `check` of N remotes against a loop of `git ls-remote`
* the locks from two fresh caches, byte by byte

Both sides use one index and one git server, on loopback; each answer of theirs takes at least `--latency` seconds.

Usage: uv run python scripts/bench_lock.py [--plugins N] [--rounds N] [--latency S] [--idle]
"""

from __future__ import annotations

import functools
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import SimpleHTTPRequestHandler
from pathlib import Path

import click

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from local_index import Index, Server, make_wheel  # noqa: E402
from workshop import PYTHON, Workshop  # noqa: E402

from envbuilder.uv import find_uv  # noqa: E402
from scripts.bench_store import compare  # noqa: E402

# Packages on the index, each of which needs the next three; a plugin needs some of them, and so a dozen.
PACKAGES = 40
UPLOADED = "2026-01-01T00:00:00Z"
EXCLUDE_NEWER = "2026-06-01T00:00:00Z"


@contextmanager
def git_server(folder: Path, latency_s: float) -> Iterator[str]:
    """Serve repositories over HTTP as files (git's dumb protocol), each answer after a while."""

    class Handler(SimpleHTTPRequestHandler):
        def do_GET(self) -> None:
            time.sleep(latency_s)
            super().do_GET()

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    served = folder.with_name("served")
    for repository in folder.glob("*.git"):
        bare = served / repository.name
        subprocess.run(["git", "clone", "--quiet", "--bare", repository, bare], check=True)
        subprocess.run(["git", "-C", bare, "repack", "-adq"], check=True)
        subprocess.run(["git", "-C", bare, "update-server-info"], check=True)
    server = Server(("127.0.0.1", 0), functools.partial(Handler, directory=str(served)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}/"
    server.shutdown()


class Bench:
    """A workspace of small plugins, and the jobs that are timed in it."""

    def __init__(self, root: Path, index: Index, plugins: int) -> None:
        self.root = root
        self.index = index
        self.workshop = Workshop(root)
        self.names = [f"plugin-{number:02d}" for number in range(plugins)]
        for number in range(PACKAGES):
            needs = tuple(f"shared-{each:02d}" for each in range(number + 1, min(number + 4, PACKAGES)))
            make_wheel(index.folder, f"shared-{number:02d}", requires=needs)
        for number, name in enumerate(self.names):
            needs = tuple(f"shared-{each % PACKAGES:02d}" for each in (number, number + 7, number + 19))
            self.workshop.plugin(name, dependencies=needs)
        self.profile(reuse=False)

    @property
    def work(self) -> Path:
        return self.workshop.work

    def serve(self, address: str) -> None:
        """Fetch from a server instead of from folders."""
        self.address = address
        text = (self.work / "pyproject.toml").read_text().replace(f"{self.workshop.remotes}/", address)
        self.workshop.write("pyproject.toml", text)

    def profile(self, *, reuse: bool) -> None:
        """Write the profile, with or without a moment after which nothing counts."""
        moment = f'exclude-newer = "{EXCLUDE_NEWER}"\n' if reuse else ""
        self.workshop.write(
            "profiles/prod/profile.toml", f'python = "{PYTHON}"\nindex-url = "{self.index.url}"\n{moment}'
        )

    def _run(self, argv: list[str], folder: Path, cache: str) -> None:
        mirror = {
            "UV_CACHE_DIR": str(self.root / cache),
            "GIT_CONFIG_COUNT": "1",
            "GIT_CONFIG_KEY_0": f"url.{self.address}.insteadOf",
            "GIT_CONFIG_VALUE_0": "https://git.example.org/",
        }
        env = {key: value for key, value in self.workshop.environment(mirror).items() if key != "VIRTUAL_ENV"}
        done = subprocess.run(argv, cwd=folder, env=env, capture_output=True, text=True, check=False)
        if done.returncode:
            raise RuntimeError(f"{' '.join(argv)}: {done.stderr[-2000:]}")

    def ours(self, *arguments: str, cache: str = "ours") -> None:
        """Run envbuilder."""
        self._run([str(Path(sys.executable).with_name("envbuilder")), *arguments], self.work, cache)

    def theirs(self, *arguments: str) -> None:
        """Run `uv lock` in every generated project, one after the other."""
        python = os.path.realpath(sys.executable)
        for name in self.names:
            argv = [str(find_uv()), "lock", "--quiet", "--no-progress", "--python", python, *arguments]
            self._run(argv, self.root / "theirs" / name, "theirs-cache")

    def list_refs(self) -> None:
        """Ask every remote, one after the other."""
        for name in self.names:
            argv = ["git", "ls-remote", "--heads", "--tags", f"https://git.example.org/{name}.git"]
            self._run(argv, self.root, "ours")

    def copy_projects(self) -> None:
        """Give uv projects of its own, as envbuilder generated them."""
        shutil.rmtree(self.root / "theirs", ignore_errors=True)
        for name in self.names:
            place = self.root / "theirs" / name
            place.mkdir(parents=True)
            shutil.copy(self.work / "profiles" / "prod" / name / "pyproject.toml", place)

    def forget_locks(self) -> None:
        """Remove all locks and pins, the generated projects with them."""
        for name in self.names:
            shutil.rmtree(self.work / "profiles" / "prod" / name, ignore_errors=True)
            (self.root / "theirs" / name / "uv.lock").unlink(missing_ok=True)
        (self.work / "profiles" / "prod" / "pins.toml").unlink(missing_ok=True)

    def forget_everything(self) -> None:
        """Remove caches and clones, too."""
        self.forget_locks()
        for folder in (self.work / ".envbuilder", self.root / "ours", self.root / "theirs-cache"):
            shutil.rmtree(folder, ignore_errors=True)

    def digest(self) -> str:
        """One digest for all that `lock` wrote."""
        found = hashlib.sha256()
        for path in sorted((self.work / "profiles" / "prod").rglob("*")):
            if path.is_file():
                found.update(str(path.relative_to(self.work)).encode() + b"\0" + path.read_bytes())
        return found.hexdigest()


@click.command(help=__doc__)
@click.option("--plugins", default=20, show_default=True)
@click.option("--rounds", default=3, show_default=True)
@click.option("--idle", is_flag=True, help="Leave the first locks out: only what has nothing to do.")
@click.option("--latency", default=0.03, show_default=True, help="Seconds, of each answer of index and git server.")
def main(plugins: int, rounds: int, latency: float, idle: bool) -> None:
    """Run all comparisons."""
    root = Path(tempfile.mkdtemp(prefix="bench-lock-"))
    uploaded = {f"shared_{number:02d}-1.0-py3-none-any.whl": UPLOADED for number in range(PACKAGES)}
    try:
        with Index(root / "wheels", uploaded=uploaded, latency_s=latency) as index:
            bench = Bench(root / "site", index, plugins)
            with git_server(bench.workshop.remotes, latency) as address:
                bench.serve(address)
                bench.ours("lock", "-q")
                bench.copy_projects()
                if not idle:
                    _compare_first(bench, plugins, rounds)
                _compare_idle(bench, plugins, rounds)
                if not idle:
                    _compare_reuse(bench, rounds)
    finally:
        shutil.rmtree(root, ignore_errors=True)


def _compare_first(bench: Bench, plugins: int, rounds: int) -> None:
    lock = functools.partial(bench.ours, "lock", "-q")
    compare(f"first lock, cold: {plugins} plugins", 0.45, rounds, lock, bench.theirs, between=bench.forget_everything)
    compare(f"first lock, warm: {plugins} plugins", 0.6, rounds, lock, bench.theirs, between=bench.forget_locks)


def _compare_idle(bench: Bench, plugins: int, rounds: int) -> None:
    lock = functools.partial(bench.ours, "lock", "-q")
    check = functools.partial(bench.theirs, "--check")
    bench.theirs()
    lock()  # The first look reads everything, and leaves a stamp for the next ones.
    compare("lock, nothing to do", 0.2, rounds, lock, check)
    compare("lock --check", 0.2, rounds, lambda: bench.ours("lock", "--check", "-q"), check)
    compare(f"check of {plugins} remotes, ls-remote", 1.0, rounds, lambda: bench.ours("check", "-q"), bench.list_refs)


def _compare_reuse(bench: Bench, rounds: int) -> None:
    lock = functools.partial(bench.ours, "lock", "-q")
    bench.profile(reuse=True)
    lock()
    bench.copy_projects()
    bench.theirs()
    compare("warm, answers reused", 0.6, rounds, lock, bench.theirs, between=bench.forget_locks)
    digests = []
    for _ in range(2):
        bench.forget_everything()
        lock()
        digests.append(bench.digest())
    verdict = "the same bytes" if digests[0] == digests[1] else "NOT the same bytes"
    click.echo(f"locks and pins from two fresh caches: {verdict} ({digests[0][:12]}, {digests[1][:12]})")


if __name__ == "__main__":
    main()
