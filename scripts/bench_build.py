"""How long `envbuilder build` takes with nothing to do, against uv alone on the same locks, in one run.

For N small plugins, made on the spot in a temporary workspace and built once, it times in turn

* `envbuilder build`, which looks at every seal, and
* a loop of `uv sync --frozen` over the same generated projects and environments,

and prints the medians, and the ratio of each pair. With `--demo` it takes the project's own built prod environments.

Usage: uv run python scripts/bench_build.py [--plugins N] [--rounds N] [--demo]
"""

from __future__ import annotations

import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import click

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests"))

from workshop import Workshop  # noqa: E402

from envbuilder.uv import find_uv  # noqa: E402


def seconds(job: Callable[[], object]) -> float:
    """Wall time of a job."""
    start = time.perf_counter()
    job()
    return time.perf_counter() - start


def run(argv: list[str], folder: Path, **env: str) -> str:
    """Run a command that must succeed, and return what it printed."""
    outside = {key: value for key, value in os.environ.items() if key not in {"VIRTUAL_ENV", "RUN_MODE"}}
    done = subprocess.run(argv, cwd=folder, env={**outside, **env}, check=True, capture_output=True, text=True)
    return done.stdout


def compare(work: Path, rounds: int) -> None:
    """Time both ways in turn over a workspace whose plugins are built, and print the figures."""
    ours = [str(Path(sys.executable).with_name("envbuilder")), "build", "--profile", "prod"]
    built = json.loads(run([*ours, "--format", "json"], work))["result"]["environments"]
    uv = str(find_uv())

    def loop() -> None:
        for each in built:
            project = work / "profiles" / "prod" / each["plugin"]
            python = f"{each['path']}/bin/python"
            run([uv, "sync", "--frozen", "--offline", "--python", python], project, UV_PROJECT_ENVIRONMENT=each["path"])

    loop()
    pairs = [(seconds(lambda: run(ours, work)), seconds(loop)) for _ in range(rounds)]
    ratios = sorted(mine / theirs for mine, theirs in pairs)
    click.echo(f"{len(built)} plugins, {rounds} rounds, nothing to do")
    click.echo(f"envbuilder build           median {statistics.median(pair[0] for pair in pairs):.3f} s")
    click.echo(f"loop of uv sync --frozen   median {statistics.median(pair[1] for pair in pairs):.3f} s")
    click.echo(
        f"ratio                      median {statistics.median(ratios):.2f} ({ratios[0]:.2f} to {ratios[-1]:.2f})"
    )


@click.command(help=__doc__)
@click.option("--plugins", default=20, show_default=True)
@click.option("--rounds", default=7, show_default=True)
@click.option("--demo", is_flag=True, help="The project's own environments.")
def main(plugins: int, rounds: int, demo: bool) -> None:
    """Run the comparison."""
    if demo:
        compare(ROOT, rounds)
        return
    scratch = Path(tempfile.mkdtemp(prefix="bench-build-"))
    try:
        workshop = Workshop(scratch)
        for number in range(plugins):
            workshop.plugin(f"plugin-{number:02d}")
        run(workshop.argv("lock", "-q"), workshop.work)
        run(workshop.argv("build", "-q"), workshop.work)
        compare(workshop.work, rounds)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


if __name__ == "__main__":
    main()
