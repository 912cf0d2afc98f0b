"""Which runners leave orphans: the same tree of processes ended by a timeout, an interruption and the runner's death.

The tree is a program that leaves a daemon by a double fork, one with a session of its own, a crowd of children, and then
ignores SIGTERM and hangs. It is run by `subprocess.run` with a timeout, by Dagster's Pipes subprocess client, and by
this project's runner; each is ended as it can be, and what is alive five seconds later is counted.

Usage: uv run --with dagster python scripts/compare_orphans.py
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import textwrap
import time
from collections.abc import Sequence
from pathlib import Path

import click

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "tests"), str(ROOT)]

from pipeline_bench import Bench, child_environment, is_alive  # noqa: E402

from pipeline.layout import write_environments  # noqa: E402

_TREE = """
import os, signal, subprocess, sys, time

def note():
    with open(HIDDEN, "a") as stream:
        stream.write(f"{os.getpid()}\\n")

def hang():
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    note()
    time.sleep(3600)

def tree():
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            hang()
        os._exit(0)
    for _ in range(3):
        if os.fork() == 0:
            hang()
    if os.fork() == 0:
        os.setsid()
        hang()
    hang()
"""
_SIZE = 6

_SUBPROCESS = """
import subprocess, sys
try:
    subprocess.run([sys.executable, TREE], timeout=3)
except subprocess.TimeoutExpired:
    pass
"""

_DAGSTER = """
import sys
from dagster import PipesSubprocessClient, asset, materialize

@asset
def tree(context, client: PipesSubprocessClient):
    return client.run(command=[sys.executable, TREE], context=context).get_materialize_result()

materialize([tree], resources={"client": PipesSubprocessClient()}, raise_on_error=False)
"""

_OURS = """
import sys
from pathlib import Path
from pipeline.cli import RunRequest, execute_run
from pipeline.layout import read_environments
place = Path(PLACE)
execute_run(RunRequest(place / "run.yaml", read_environments(place / "environments.json"), place / "state", "dev", grace_s=1))
"""


def count(place: Path, source: str, end: str) -> str:
    """Run a program around the tree, end it in some way, and tell what is left of the tree."""
    hidden, tree = place / "hidden", place / "tree.py"
    head = f"HIDDEN = {str(hidden)!r}\n"
    tree.write_text(head + _TREE + "\ntree()\n")
    if "PLACE" in source:
        bench = Bench(place)
        plugin = (
            head
            + _TREE
            + textwrap.dedent("""
            class Plugin:
                def load(self, context): pass
                def predict(self, batch): tree()
        """)
        )
        bench.plugin("tree", plugin)
        limit = ", timeout: 6s" if end == "timeout" else ""
        bench.run_file(f"inference: [{{plugin: tree{limit}}}]")
        write_environments(place / "environments.json", bench.environments)
    argv = [sys.executable, "-c", f"TREE = {str(tree)!r}; PLACE = {str(place)!r}\n{source}"]
    env = {**child_environment(), "DAGSTER_HOME": "", "DAGSTER_DISABLE_TELEMETRY": "1"}
    env.pop("DAGSTER_HOME")
    process = subprocess.Popen(argv, cwd=ROOT, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        if not _grown(hidden):
            return "did not start"
        if end != "timeout":
            process.send_signal(getattr(signal, end))
        # Dagster gives the process 60 s after an interruption before it looks at it again.
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(75)
        gone = "" if process.poll() is not None else ", the runner still waits"
        time.sleep(5)
        left = [word for word in _pids(hidden) if is_alive(word)]
        return f"{len(left)} of {_SIZE} left{gone}"
    finally:
        for word in _pids(hidden):
            with contextlib.suppress(ProcessLookupError):
                os.kill(word, signal.SIGKILL)
        process.kill()
        process.wait()


def _pids(hidden: Path) -> Sequence[int]:
    return [int(word) for word in hidden.read_text().split()] if hidden.exists() else []


def _grown(hidden: Path) -> bool:
    deadline = time.monotonic() + 60
    while len(_pids(hidden)) < _SIZE and time.monotonic() < deadline:
        time.sleep(0.05)
    return len(_pids(hidden)) >= _SIZE


@click.command(help=__doc__)
def main() -> None:
    """Print the table."""
    scratch = Path(tempfile.mkdtemp(prefix="compare-orphans-"))
    rows = (
        ("subprocess.run(timeout=3)", _SUBPROCESS, ("timeout", "SIGKILL")),
        ("Dagster Pipes", _DAGSTER, ("SIGINT", "SIGTERM", "SIGKILL")),
        ("this runner", _OURS, ("timeout", "SIGINT", "SIGTERM", "SIGKILL")),
    )
    try:
        for name, source, ends in rows:
            for end in ends:
                place = scratch / f"{name}-{end}".replace(" ", "-")
                place.mkdir()
                click.echo(f"{name:28} {end:8} {count(place, source, end)}")
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


if __name__ == "__main__":
    main()
