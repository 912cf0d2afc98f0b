"""Pieces of text and the order in which people read them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class Piece:
    """Text found in an upright box.

    Attributes:
        text: what it says.
        confidence: the mean of its characters' probabilities, 0 to 1.
        left, top, bottom: edges of the box in pixels from the image's top left corner.
    """

    text: str
    confidence: float
    left: float = 0.0
    top: float = 0.0
    bottom: float = 0.0

    @property
    def middle(self) -> float:
        """Half way between top and bottom, in pixels."""
        return (self.top + self.bottom) / 2


def order(pieces: Iterable[Piece]) -> list[list[Piece]]:
    """Sort pieces into rows from top to bottom, each from left to right.

    A piece belongs to a row when its middle lies between top and bottom of the row's highest piece: that holds for
    slightly skewed scans and for any size of letters, where a distance in pixels does not.
    """
    rows: list[list[Piece]] = []
    for piece in sorted(pieces, key=lambda piece: piece.middle):
        if rows and rows[-1][0].top <= piece.middle <= rows[-1][0].bottom:
            rows[-1].append(piece)
        else:
            rows.append([piece])
    return [sorted(row, key=lambda piece: piece.left) for row in rows]


def join(rows: Iterable[Iterable[Piece]]) -> str:
    """Write rows as lines, with a space between the pieces of one."""
    return "\n".join(" ".join(piece.text.strip() for piece in row) for row in rows)


def confidence(pieces: Iterable[Piece]) -> float:
    """Average confidences over characters, so that a long piece weighs more; 0 where there is no text."""
    listed = list(pieces)
    length = sum(len(piece.text) for piece in listed)
    return sum(piece.confidence * len(piece.text) for piece in listed) / length if length else 0.0
