"""What the pipeline asks of environments while it uses them: whether they changed, and what workers must not write."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from envbuilder.config import PROFILES
from envbuilder.errors import EnvbuilderError, ToolError, counted
from envbuilder.store import verify
from envbuilder.store.checkouts import survey
from envbuilder.store.environments import Store
from envbuilder.uv import cache_folder

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from envbuilder.models import Workspace
    from pipeline.models import Environment


class StoreKeeper:
    """Looks at the environments of one run; the pipeline's `Keeper`.

    Args:
        workspace: whose they are.
        environments: as they were verified when the run was asked for.
    """

    def __init__(self, workspace: Workspace, environments: Sequence[Environment]) -> None:
        self._workspace = workspace
        self._store = Store(workspace.shared)
        self._live = {self._checkout(shown) for each in environments for shown in each.code}

    def changed(self, environment: Environment) -> str | None:
        """How an environment differs from what it was: its seal, its files by a walk, the code that it imports from."""
        try:
            return self._changed(environment)
        except (EnvbuilderError, OSError) as error:  # What cannot be looked at proves nothing.
            return f"it cannot be looked at: {error}"

    def _changed(self, environment: Environment) -> str | None:
        if self._store.seal_digest(environment.key) != environment.seal:
            return "it was built anew"
        findings = verify.find(self._store.folder, [environment.key], full=False)[environment.key]
        if findings:
            more = f", and {counted(len(findings) - 1, 'other finding')}" if findings[1:] else ""
            return f"{findings[0]}{more}"
        for shown, code in environment.code.items():
            if survey(self._checkout(shown), self._store.digests).digest != code.digest:
                return f"the code in {shown} was edited"
        return None

    def closed(self, environment: Environment) -> Sequence[Path]:
        """What decides over results of others: state, locks, other plugins' code, interpreters, uv's unpacked wheels."""
        workspace = self._workspace
        own = {self._checkout(shown) for shown in environment.code}
        inside = environment.pycache / environment.path.relative_to("/") if environment.pycache else None
        return (
            workspace.shared,
            workspace.own,
            *(workspace.root / "profiles" / name for name in ("registry", *PROFILES)),
            *(path for path in sorted(self._live - own) if not workspace.root.is_relative_to(path)),
            *self._wheels,
            *_libraries(environment.python),
            *filter(None, [inside]),
        )

    @cached_property
    def _wheels(self) -> tuple[Path, ...]:
        # Environments are links to what lies there.
        try:
            return tuple(cache_folder().glob("archive-v*"))
        except ToolError:
            return ()

    def _checkout(self, shown: str) -> Path:
        return self._workspace.root / shown


def _libraries(python: Path) -> Iterator[Path]:
    """The standard library and packages of the interpreter behind an environment."""
    real = python.resolve()
    yield from (real.parent.parent / "lib").glob("python3*")
