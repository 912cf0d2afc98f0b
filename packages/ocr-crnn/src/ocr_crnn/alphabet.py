"""The characters that the model can read."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

BLANK = 0
"""The class of the CTC blank; class ``i`` above it is ``ALPHABET[i - 1]``."""

ALPHABET = (
    " 0123456789"
    "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
    "абвгдеёжзийклмнопрстуфхцчшщъыьэюяАБВГДЕЁЖЗИЙКЛМНОПРСТУФХЦЧШЩЪЫЬЭЮЯ"
    "!\"#$%&'()*+,-./:;<=>?@[]_«»—№€£°"
)
CLASSES = len(ALPHABET) + 1

_INDEX = {character: index for index, character in enumerate(ALPHABET, start=1)}


def encode(text: str) -> list[int]:
    """Return the class of each character; a `KeyError` names one that is not in the alphabet."""
    return [_INDEX[character] for character in text]


def decode(classes: Iterable[int]) -> str:
    """Return the text that non-blank classes spell."""
    return "".join(ALPHABET[index - 1] for index in classes)
