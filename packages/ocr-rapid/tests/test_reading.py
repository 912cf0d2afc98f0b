"""Reading order and confidence, without a model."""

import pytest

from ocr_rapid.reading import Piece, confidence, join, order


def piece(text: str, left: float, top: float, height: float = 20) -> Piece:
    """Make a piece of text at a place."""
    return Piece(text, 0.9, left, top, top + height)


def test_rows_are_read_from_top_to_bottom() -> None:
    """Pieces come in any order and leave as people read them."""
    rows = order([piece("d", 90, 52), piece("b", 80, 3), piece("c", 0, 50), piece("a", 0, 0)])
    assert join(rows) == "a b\nc d"


def test_skewed_row_stays_one_row() -> None:
    """A row that sinks to the right by less than half its height is not torn apart."""
    assert join(order([piece("three", 200, 9), piece("one", 0, 0), piece("two", 100, 4)])) == "one two three"


def test_large_letters_do_not_swallow_the_next_row() -> None:
    """A heading of great height and the row below it stay apart."""
    assert join(order([piece("small", 0, 70, 12), piece("BIG", 0, 0, 60)])) == "BIG\nsmall"


def test_nothing_reads_as_nothing() -> None:
    """No pieces make no rows, no text and no confidence."""
    assert order([]) == []
    assert join([]) == ""
    assert confidence([]) == 0.0


def test_confidence_is_weighed_by_length() -> None:
    """Nine sure characters and one unsure one average over ten characters."""
    assert confidence([Piece("ninechars", 1.0), Piece("x", 0.5)]) == pytest.approx(0.95)
