"""Which torch backend was asked for by hand, remembered until another is, so that every command means the same one."""

from __future__ import annotations

import json
from collections.abc import Collection
from pathlib import Path

from envbuilder.accelerators import AUTO
from envbuilder.errors import ToolError
from envbuilder.fs import write_atomically


class Choices:
    """The choices of one workspace's profile.

    Args:
        own: the workspace's state folder.
        profile: the profile's name.
    """

    def __init__(self, own: Path, profile: str):
        self.path = own / "torch" / f"{profile}.json"

    def of(self, plugin: str) -> str:
        """What was asked for a plugin last; ``auto`` where nothing was."""
        return self._read().get(plugin, AUTO)

    def note(self, plugins: Collection[str], backend: str) -> None:
        """Remember what was asked for; ``auto`` forgets."""
        before = self._read()
        kept = {name: choice for name, choice in before.items() if name not in plugins}
        after = kept if backend == AUTO else {**kept, **dict.fromkeys(plugins, backend)}
        if after != before:
            write_atomically(self.path, json.dumps(after, indent=1, sort_keys=True))

    def _read(self) -> dict[str, str]:
        try:
            document = json.loads(self.path.read_text(encoding="utf-8"))
            return {str(name): str(choice) for name, choice in document.items()}
        except FileNotFoundError:
            return {}
        except (OSError, ValueError, AttributeError) as error:
            message = f"it cannot be read, and says which torch backends were asked for: {error}"
            hint = f"rm {self.path}  # auto is meant then, until another is asked for"
            raise ToolError(message, code="choices-damaged", where=str(self.path), hint=hint) from error
