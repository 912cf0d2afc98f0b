"""Reads what a document may have beyond the contract: whatever is missing, or is of another kind, is simply not there."""

from __future__ import annotations

import math
from collections.abc import Mapping

Document = Mapping[str, object]


def text(document: Document, name: str) -> str:
    """Give a text; empty where there is none."""
    value = document.get(name)
    return value if isinstance(value, str) else ""


def number(document: Document, name: str) -> float | None:
    """Give a finite number."""
    value = document.get(name)
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return float(value) if is_number and math.isfinite(value) else None  # type: ignore[arg-type]  # it is one


def texts(document: Document, name: str) -> tuple[str, ...]:
    """Give the texts of a list."""
    value = document.get(name)
    return tuple(each for each in value if isinstance(each, str)) if isinstance(value, (list, tuple)) else ()


def table(document: Document, name: str) -> Document:
    """Give an object; an empty one where there is none."""
    value = document.get(name)
    return value if isinstance(value, Mapping) else {}


def rows(document: Document, name: str) -> list[Document]:
    """Give the objects of a list."""
    value = document.get(name)
    return [each for each in value if isinstance(each, Mapping)] if isinstance(value, (list, tuple)) else []


def counts(document: Document, name: str) -> tuple[tuple[str, int], ...]:
    """Give an object's names with the whole numbers above 0 that they have."""
    found = ((str(key), value) for key, value in table(document, name).items())
    return tuple((key, value) for key, value in found if isinstance(value, int) and value > 0)
