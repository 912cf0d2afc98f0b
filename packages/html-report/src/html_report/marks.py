"""Which characters of an answer differ from its reference."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import dataclass

LONGEST = 1200
"""Characters of a text that are shown: comparing costs the product of both lengths, and nobody reads more."""

# What can't be seen is drawn where it differs.
_VISIBLE = str.maketrans({" ": "␣", "\n": "⏎\n", "\t": "⇥", "\u00a0": "⍽"})


@dataclass(frozen=True)
class Mark:
    """A stretch of text.

    Attributes:
        text: the stretch; where it differs, with signs for white space.
        differs: whether the other text lacks it.
    """

    text: str
    differs: bool


def mark(reference: str, answer: str) -> tuple[tuple[Mark, ...], tuple[Mark, ...]]:
    """Split both texts into stretches that they share and stretches that only one of them has.

    Args:
        reference: what was expected.
        answer: what was given.

    Returns:
        The reference's stretches and the answer's, each of them the first `LONGEST` characters.
    """
    expected, given = _shorten(reference), _shorten(answer)
    matcher = difflib.SequenceMatcher(None, expected, given, autojunk=False)
    left: list[Mark] = []
    right: list[Mark] = []
    for kind, left_from, left_to, right_from, right_to in matcher.get_opcodes():
        differs = kind != "equal"
        left += _stretch(expected[left_from:left_to], differs=differs)
        right += _stretch(given[right_from:right_to], differs=differs)
    return tuple(left), tuple(right)


def nearest(references: Sequence[str], answer: str | None) -> str:
    """Pick the reference that shares most with the answer; the first one where there is no answer."""
    if not references:
        return ""
    if answer is None or len(references) == 1:
        return references[0]
    given = _shorten(answer)

    def likeness(text: str) -> float:
        return difflib.SequenceMatcher(None, _shorten(text), given, autojunk=False).ratio()

    return max(references, key=likeness)


def _shorten(text: str) -> str:
    return text if len(text) <= LONGEST else text[:LONGEST] + "…"


def _stretch(text: str, *, differs: bool) -> list[Mark]:
    return [Mark(text.translate(_VISIBLE) if differs else text, differs)] if text else []
