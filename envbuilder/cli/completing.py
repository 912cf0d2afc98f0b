"""`completion`: how a shell learns to complete our words."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from envbuilder.cli.base import Settings, common

if TYPE_CHECKING:
    from envbuilder.render import Outcome


@click.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@common
def completion(settings: Settings, shell: str) -> Outcome:
    """Print the lines by which SHELL completes commands, options, and names of plugins, profiles and runs."""
    from click.shell_completion import ShellComplete, get_completion_class

    from envbuilder.render import Outcome

    complete = get_completion_class(shell)
    assert complete is not None, "click knows all three"  # noqa: S101
    root = click.get_current_context().find_root()
    # Bash's own class would start a bash to ask for its version, and not say so in the script.
    script = ShellComplete.source(complete(root.command, {}, "envbuilder", "_ENVBUILDER_COMPLETE"))
    return Outcome("completion", settings.profile, result={"shell": shell, "script": script}, text=(script,))
