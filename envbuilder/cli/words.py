"""The words that a workspace has, for shells to complete. Quick, and silent whatever is wrong."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click

from envbuilder.cli.commands import said_before

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

# How a registry file says that it is no plugin; completion does not wait for a YAML parser.
_LIBRARY = re.compile(r"""(^|[{,\s])["']?kind["']?\s*:\s*["']?library\b""", re.MULTILINE)


def plugins(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
    """Plugins of the workspace that begin so, without those that are named already."""
    named = ctx.params.get(param.name or "") or ()
    return [name for name in _plugins(ctx) if name.startswith(incomplete) and name not in named]


def runs(ctx: click.Context, _param: click.Parameter, incomplete: str) -> list[str]:
    """Runs that begin so, the newest first, and ``latest``."""
    return [name for name in ("latest", *_runs(ctx)) if name.startswith(incomplete)]


def sides(ctx: click.Context, _param: click.Parameter, incomplete: str) -> list[str]:
    """What locks can be compared between: profiles and runs."""
    names = ("dev", "prod", "run:latest", *_runs(ctx))
    return [name for name in names if name.startswith(incomplete)]


def run_files(ctx: click.Context, _param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Run files of the workspace that begin so; else any file, by the shell's own completion."""
    from click.shell_completion import CompletionItem

    root = _workspace(ctx)
    files = sorted((root / "profiles" / "runs").glob("*.yaml")) if root else []
    names = [str(file.relative_to(root)) for file in files] if root else []
    found = [CompletionItem(name) for name in names if name.startswith(incomplete)]
    return found or [CompletionItem(incomplete, type="file")]


def _workspace(ctx: click.Context) -> Path | None:
    from envbuilder.errors import EnvbuilderError
    from envbuilder.places import candidates

    given = ctx.params.get("folder")
    before = said_before(ctx).get("folder")
    with contextlib.suppress(EnvbuilderError, OSError):
        return next(candidates(before if before and given in {None, Path()} else Path(given or ".")), None)
    return None


def _plugins(ctx: click.Context) -> Iterator[str]:
    root = _workspace(ctx)
    for file in sorted((root / "profiles" / "registry").glob("[!.]*.yaml")) if root else ():
        with contextlib.suppress(OSError):
            text = file.read_text(encoding="utf-8", errors="replace")
            if not file.name.endswith(".dev.yaml") and not _LIBRARY.search(text):
                yield file.stem


def _runs(ctx: click.Context) -> list[str]:
    from envbuilder.errors import EnvbuilderError
    from envbuilder.places import state_folders

    root = _workspace(ctx)
    if root is None:
        return []
    with contextlib.suppress(EnvbuilderError, OSError):
        folder = state_folders(root)[1] / "runs"
        return sorted((path.name for path in folder.iterdir() if path.name[:1].isdigit()), reverse=True)
    return []
