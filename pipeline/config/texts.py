"""Values of JSON as text, just as they were written: 1.10 is another text than 1.1."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator

_LONE = re.compile("[\ud800-\udfff]")


class Number(str):
    """A number as it was written."""

    __slots__ = ()


class NoNumber:
    """``NaN`` or ``Infinity``: JSON has neither, and whoever wrote it meant that nothing is there."""

    def __init__(self, written: str) -> None:
        self.written = written


class RepeatedKeyError(ValueError):
    """An object that has a key twice."""


def loads(text: str) -> object:
    """Read JSON; numbers stay as they were written.

    Raises:
        RepeatedKeyError: an object has a key twice, and only one of its values would count.
        ValueError: it is no JSON.
        RecursionError: it is nested too deeply.
    """
    return json.loads(
        text, parse_float=Number, parse_int=Number, parse_constant=NoNumber, object_pairs_hook=_without_twins
    )


def _without_twins(pairs: list[tuple[str, object]]) -> dict[str, object]:
    found = dict(pairs)
    if len(found) < len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for key in keys if keys.count(key) > 1)
        raise RepeatedKeyError(f"key {twice!r} stands there twice")
    return found


def text_of(value: object) -> str:
    """A value as text: text as it is, numbers as they were written, nothing as nothing, all else as JSON."""
    if value is None or isinstance(value, NoNumber):
        return ""
    return str(value) if isinstance(value, str) else _dumped(value)


def _dumped(value: object) -> str:
    if isinstance(value, Number):
        return str(value)
    if isinstance(value, NoNumber):
        return "null"
    if isinstance(value, dict):
        inner = ", ".join(f"{json.dumps(key, ensure_ascii=False)}: {_dumped(each)}" for key, each in value.items())
        return f"{{{inner}}}"
    if isinstance(value, list):
        return f"[{', '.join(map(_dumped, value))}]"
    return json.dumps(value, ensure_ascii=False)


def voids(value: object, path: str) -> Iterator[tuple[str, str]]:
    """Every place of a value where nothing stands that could be an answer, and what stands there instead."""
    if value is None:
        yield path, "null"
    elif isinstance(value, NoNumber):
        yield path, value.written
    elif isinstance(value, list):
        for index, each in enumerate(value):
            yield from voids(each, f"{path}[{index}]")
    elif isinstance(value, dict):
        for key, each in value.items():
            yield from ((where, found) for where, found in voids(each, f"{path}.{key}") if found != "null")


def halves(value: object, path: str) -> Iterator[tuple[str, str]]:
    """Every place of a value that holds half of a character: a surrogate without its other half, which is no text."""
    if isinstance(value, str):
        if found := _LONE.search(value):
            yield path, f"\\u{ord(found[0]):04x}"
    elif isinstance(value, list):
        for index, each in enumerate(value):
            yield from halves(each, f"{path}[{index}]")
    elif isinstance(value, dict):
        for key, each in value.items():
            yield from halves(key, path)
            yield from halves(each, f"{path}.{key}" if path else key)
