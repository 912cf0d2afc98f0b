"""`bundle create` and `bundle restore`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from envbuilder.cli.base import Settings, common, plugins_argument
from envbuilder.errors import UsageError, counted, visible

if TYPE_CHECKING:
    from envbuilder.render import Outcome

_file_argument = click.argument("file", type=click.Path(path_type=Path, dir_okay=False))


@click.group()
def bundle() -> None:
    """Take builds to machines without a network."""


@bundle.command(short_help="Pack what builds need into one file.")
@_file_argument
@plugins_argument
@common
def create(settings: Settings, file: Path, plugins: tuple[str, ...]) -> Outcome:
    """Pack what builds need into FILE, and prove it by a build with the network off."""
    from envbuilder.bundles.creating import Order, create
    from envbuilder.render import Outcome

    def say(text: str) -> None:
        if not settings.quiet:
            click.echo(f"> bundle  {visible(text, line=True)}", err=True)

    here = settings.open()
    chosen = here.select(plugins)
    if not chosen:
        raise UsageError("there is nothing to pack: the registry has no plugins", hint="envbuilder status")
    order = Order(here.workspace, here.profile, here.registry, chosen)
    created = create(file.absolute(), order, say)
    manifest = created.manifest
    result = {
        "file": str(file.absolute()),
        "size": created.size,
        "sha256": created.sha256,
        "plugins": list(manifest.plugins),
        "files": len(manifest.files),
        "uv": manifest.uv,
        "platform": manifest.platform,
    }
    text = f"{file}: {counted(len(manifest.plugins), 'plugin')}, {counted(len(manifest.files), 'file')}, {created.size / 1e6:.1f} MB, proved"
    return Outcome("bundle create", here.profile.name, result=result, text=(text, f"sha256 {created.sha256}"))


@bundle.command(short_help="Make what such a file holds available here.")
@_file_argument
@common
def restore(settings: Settings, file: Path) -> Outcome:
    """Make what FILE holds available here; envbuilder build --offline does the rest."""
    from envbuilder.bundles.restoring import restore
    from envbuilder.render import Outcome

    here = settings.open()
    restored = restore(file.absolute(), here.workspace, here.profile, here.registry)
    plugins = list(restored.manifest.plugins)
    state = "restored" if restored.written or restored.fetched else "unchanged"
    result = {
        "file": str(file.absolute()),
        "state": state,
        "plugins": plugins,
        "files": len(restored.manifest.files),
        "written": restored.written,
        "repositories": restored.fetched,
    }
    text = (
        f"restored {counted(restored.written, 'file')} and {counted(restored.fetched, 'git repository', 'git repositories')} for {', '.join(plugins)}; "
        f"next: envbuilder build --offline --profile {here.profile.name} {' '.join(plugins)}"
        if state == "restored"
        else "unchanged: all that the bundle holds is here already"
    )
    return Outcome("bundle restore", here.profile.name, result=result, text=(text,))
