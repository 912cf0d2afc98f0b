"""Make the demo's git remotes: one bundle per package, `packages/remotes/<package>.bundle`.

The bundle of a package holds one commit and one annotated tag for each of its released versions, with fixed dates
and a fixed author, so that the same files give the same commits wherever this runs. A version that is in the bundle
already is never made again: a tag does not move. To release, raise the version in the package's pyproject.toml and
run this script.

Usage: uv run python scripts/make_remotes.py [--fresh] [PACKAGE]...
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

import click

from envbuilder.documents import read_toml

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ROOT / "packages"
REMOTES = PACKAGES / "remotes"

FIXED = {
    "GIT_AUTHOR_NAME": "envbuilder demo",
    "GIT_AUTHOR_EMAIL": "demo@example.org",
    "GIT_AUTHOR_DATE": "2026-11-01T00:00:00+0000",
    "GIT_COMMITTER_NAME": "envbuilder demo",
    "GIT_COMMITTER_EMAIL": "demo@example.org",
    "GIT_COMMITTER_DATE": "2026-11-01T00:00:00+0000",
    # A person's own settings (signing, line ends, hooks) would change the commits.
    "GIT_CONFIG_GLOBAL": os.devnull,
    "GIT_CONFIG_SYSTEM": os.devnull,
}


def git(folder: Path, *arguments: str) -> str:
    """Run git in a folder and return what it printed."""
    environment = {**os.environ, **FIXED}
    done = subprocess.run(["git", *arguments], cwd=folder, env=environment, check=True, capture_output=True, text=True)
    return done.stdout.strip()


def release(package: str, *, fresh: bool) -> str:
    """Add a package's version to its bundle, and say what was done."""
    folder = PACKAGES / package
    version = read_toml(folder / "pyproject.toml", f"packages/{package}/pyproject.toml").value["project"]["version"]
    tag = f"v{version}"
    bundle = REMOTES / f"{package}.bundle"
    with tempfile.TemporaryDirectory() as scratch:
        work = Path(scratch) / "work"
        if bundle.exists() and not fresh:
            git(ROOT, "clone", "--quiet", "--branch", "main", str(bundle), str(work))
        else:
            git(ROOT, "init", "--quiet", "--initial-branch", "main", str(work))
        copy_files(folder, work)
        git(work, "add", "--all")
        if tag in git(work, "tag", "--list").split():
            changed = git(work, "diff", "--name-only", tag)
            left = (
                f"; {len(changed.splitlines())} files differ from it, raise the version to release them"
                if changed
                else ""
            )
            return f"{package}: {tag} is there{left}"
        git(work, "commit", "--quiet", "--allow-empty", "--message", f"Release {version}")
        git(work, "tag", "--annotate", "--message", f"{package} {version}", tag)
        REMOTES.mkdir(exist_ok=True)
        git(work, "bundle", "create", "--quiet", str(bundle), "HEAD", "main", "--tags")
        return f"{package}: {tag} is {git(work, 'rev-parse', f'{tag}^{{commit}}')}, {bundle.stat().st_size:,} bytes"


def copy_files(source: Path, target: Path) -> None:
    """Lay the package's files over a checkout: those that git tracks or would track, with plain modes."""
    for path in target.iterdir():
        if path.name != ".git":
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    names = git(source, "ls-files", "--cached", "--others", "--exclude-standard", "-z", "--", ".").split("\0")
    for name in filter(None, names):
        if not (source / name).is_file():
            continue
        place = target / name
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source / name, place)
        place.chmod(0o644)


@click.command(help=__doc__)
@click.argument("packages", nargs=-1)
@click.option("--fresh", is_flag=True, help="Begin the history anew: every tag moves.")
def main(packages: Sequence[str], fresh: bool) -> None:
    """Make or extend the bundles."""
    chosen = packages or sorted(path.parent.name for path in PACKAGES.glob("*/pyproject.toml"))
    for package in chosen:
        click.echo(release(package, fresh=fresh))


if __name__ == "__main__":
    main()
