"""What a warm rebuild of the demo's torch environment costs, as ratios of runs in turn; medians.

* rebuild: `build` from uv's cache, with wheels hashed and bytecode kept, against `uv venv` and `uv sync --frozen` (goal 1.4)
* bytecode: the same with bytecode of every module against one of only what its import needs (goal 1.5)

The bare sync neither checks nor imports anything; the import of torch alone is told beside it.

Usage: uv run python scripts/bench_torch.py --scratch FOLDER [--rounds N]   # on the file system of uv's cache
"""

from __future__ import annotations

import os
import shutil
import statistics
import subprocess
import sys
import time
from pathlib import Path

import click

from envbuilder.uv import find_uv

ROOT = Path(__file__).resolve().parents[1]
PLUGIN = "ocr-crnn"
STEERING = {"ENVBUILDER_HOME", "PYTHONDONTWRITEBYTECODE", "RUN_MODE", "VIRTUAL_ENV"}
ENV = {name: value for name, value in os.environ.items() if name not in STEERING}


def timed(argv: list[str], **env: str) -> float:
    """Wall time of a program that must succeed."""
    start = time.perf_counter()
    subprocess.run(argv, cwd=ROOT, env={**ENV, **env}, check=True, capture_output=True)
    return time.perf_counter() - start


def rebuild(home: Path, *flags: str) -> float:
    """Build the environment, with what is remembered of the last time and nothing built."""
    for name in ("store", "pycache", "workspaces"):
        shutil.rmtree(home / name, ignore_errors=True)
    return timed(
        [str(Path(sys.executable).with_name("envbuilder")), "build", "-q", "--profile", "prod", PLUGIN, *flags],
        ENVBUILDER_HOME=str(home),
    )


def bare(venv: Path, python: str) -> float:
    """What uv does alone."""
    shutil.rmtree(venv, ignore_errors=True)
    sync = [str(find_uv()), "sync", "--frozen", "--offline", "--python", python, "--no-default-groups"]
    project = ["--project", str(ROOT / "profiles" / "prod" / PLUGIN)]
    made = timed([str(find_uv()), "venv", "--no-project", "--python", python, str(venv)])
    return made + timed([*sync, *project], UV_PROJECT_ENVIRONMENT=str(venv))


@click.command(help=__doc__)
@click.option("--scratch", type=click.Path(path_type=Path), required=True)
@click.option("--rounds", default=5, show_default=True)
def main(scratch: Path, rounds: int) -> None:
    """Run both comparisons."""
    home = scratch / "home"
    rebuild(home, "--compile-bytecode")
    found = next(path for path in home.glob("store/[!.]*") if path.is_dir())
    python = str((found / "bin" / "python").resolve())
    rows = []
    for _ in range(rounds):
        theirs = bare(scratch / "venv", python)
        everything = rebuild(home, "--compile-bytecode")
        env = {"PYTHONPYCACHEPREFIX": str(home / "pycache" / found.name)}
        imported = timed([str(found / "bin" / "python"), "-c", "import ocr_crnn"], **env)
        kept = home / "bytecode.all"
        (home / "bytecode").rename(kept)
        if (home / "bytecode.some").exists():
            (home / "bytecode.some").rename(home / "bytecode")
        else:
            rebuild(home)
        some = rebuild(home)
        (home / "bytecode").rename(home / "bytecode.some")
        kept.rename(home / "bytecode")
        rows.append((some, theirs, everything, imported))
    some, theirs, everything, imported = (statistics.median(column) for column in zip(*rows, strict=True))
    click.echo(
        f"rebuild {some:.2f} s, uv {theirs:.2f} s, ratio {some / theirs:.2f}, goal 1.40; import {imported:.2f} s"
    )
    click.echo(f"with all bytecode {everything:.2f} s, ratio {everything / some:.2f}, goal 1.50")


if __name__ == "__main__":
    main()
