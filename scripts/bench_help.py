"""How long `envbuilder --help` takes, against an import of click, which it is written with.

Both are started in turn, so that what else the machine does touches both; medians, and the median of the ratios.

Usage: uv run python scripts/bench_help.py [--rounds N]
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from pathlib import Path

import click


def seconds(argv: list[str]) -> float:
    """Wall time of a program."""
    start = time.perf_counter()
    subprocess.run(argv, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - start


@click.command(help=__doc__)
@click.option("--rounds", default=40, show_default=True)
def main(rounds: int) -> None:
    """Run the comparison."""
    ours = [str(Path(sys.executable).with_name("envbuilder")), "--help"]
    theirs = [sys.executable, "-c", "import click"]
    seconds(ours), seconds(theirs)
    pairs = [(seconds(ours), seconds(theirs)) for _ in range(rounds)]
    ratios = sorted(mine / other for mine, other in pairs)
    click.echo(f"{rounds} rounds")
    click.echo(f"envbuilder --help           median {statistics.median(pair[0] for pair in pairs) * 1000:.0f} ms")
    click.echo(f"python -c 'import click'    median {statistics.median(pair[1] for pair in pairs) * 1000:.0f} ms")
    quarter = len(ratios) // 4
    spread = f"{ratios[quarter]:.2f} to {ratios[-quarter - 1]:.2f}"
    click.echo(f"ratio                       median {statistics.median(ratios):.2f} (middle half {spread})")


if __name__ == "__main__":
    main()
