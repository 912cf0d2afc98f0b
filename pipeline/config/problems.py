"""Problems of run files, each with its place."""

from __future__ import annotations

from typing import TYPE_CHECKING

from envbuilder.errors import Problem

if TYPE_CHECKING:
    from envbuilder.documents import Place


def problem_at(
    place: Place, message: str, *, code: str = "config-invalid", entry: str | None = None, remark: str | None = None
) -> Problem:
    """A problem of a place in a file; the remark stands behind the command that opens it there."""
    hint = f"${{EDITOR:-vi}} +{place.line or 1} {place.file}" + (f"  # {remark}" if remark else "")
    return Problem(code, message, entry=entry, where=str(place), hint=hint)
