"""Leaves secrets out of what is kept of a run: by the name of what holds them, and by their value wherever it turns up."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from envbuilder.errors import redacted
from envbuilder.fs import replace_file

HIDDEN = "***"

_NAME = re.compile(
    r"(?:^|[_.-]|(?<=[a-z0-9])(?=[A-Z]))(?i:token|secrets?|passwords?|passwd|passphrase|credentials?|authorization|bearer"
    r"|(?:api|access|private|secret|signing|encryption|auth|subscription)[_-]?keys?)$"
)
# Tokenizers have tokens that are no secrets.
_PLAIN_NAME = re.compile(r"(?i)(?:bos|eos|pad|unk|sep|cls|mask|stop|start|end|image|video|audio|special)_?token$")
# What the great services' tokens look like: Hugging Face, GitHub, GitLab, OpenAI and its likes, AWS.
_VALUE = re.compile(
    r"\b(?:hf_[A-Za-z0-9]{20,}|gh[pousr]_[A-Za-z0-9]{30,}|github_pat_\w{30,}|glpat-[\w-]{20,}|sk-[\w-]{20,}|AKIA[A-Z0-9]{16})\b"
)
_SHORTEST = 8
# What the runs of this process were given under such names.
_learned: set[str] = set()


def is_secret(name: str) -> bool:
    """Whether a name says that what it holds is a secret."""
    return bool(_NAME.search(name)) and not _PLAIN_NAME.search(name)


def _known() -> tuple[str, ...]:
    """The values of this process's own variables whose names say that they are secrets, the longest first."""
    values = {value for name, value in os.environ.items() if is_secret(name) and len(value) >= _SHORTEST}
    return tuple(sorted(values | _learned, key=len, reverse=True))


def learn(settings: object) -> None:
    """Take note of the secrets among parameters or variables, however deep: from now on their values are left out everywhere."""
    if isinstance(settings, Mapping):
        for name, value in settings.items():
            if is_secret(str(name)):
                _learned.update(text for text in _texts(value) if len(text) >= _SHORTEST)
            else:
                learn(value)
    elif isinstance(settings, list | tuple):
        for each in settings:
            learn(each)


def _texts(value: object) -> Iterator[str]:
    if isinstance(value, Mapping):
        value = list(value.values())
    if isinstance(value, list | tuple):
        for each in value:
            yield from _texts(each)
    elif value is not None and not isinstance(value, bool):
        yield str(value)


def hidden(value: object) -> object:
    """Parameters without what stands under the names of secrets, of whatever type it is; flags stay."""
    if isinstance(value, Mapping):
        return {
            name: HIDDEN if is_secret(str(name)) and each and not isinstance(each, bool) else hidden(each)
            for name, each in value.items()
        }
    return [hidden(each) for each in value] if isinstance(value, list | tuple) else value


def clean(value: object) -> object:
    """Plain JSON without secrets."""
    return _clean(value, _known())


def clean_text(text: str) -> str:
    """Text without secrets."""
    return _clean_text(text, _known())


def clean_file(path: Path) -> None:
    """Leave secrets out of a log that nobody writes to any more; one that cannot be read or written stays as it is."""
    with contextlib.suppress(OSError):
        text = path.read_bytes().decode("utf-8", "surrogateescape")
        cleaned = clean_text(text)
        if cleaned != text:
            replace_file(path, cleaned.encode("utf-8", "surrogateescape"))


def clean_fields(document: Mapping[str, object]) -> dict[str, object]:
    """An object without secrets."""
    return _clean_fields(document, _known())


def clean_values(value: object) -> object:
    """Plain JSON without the values of secrets; its names are not ours, and say nothing (``token`` of a log of tokens)."""
    if isinstance(value, Mapping):
        return {name: clean_values(each) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [clean_values(each) for each in value]
    return clean_text(value) if isinstance(value, str) else value


def _clean(value: object, known: Sequence[str]) -> object:
    if isinstance(value, str):
        return _clean_text(value, known)
    if isinstance(value, Mapping):
        return _clean_fields(value, known)
    if isinstance(value, Sequence):
        return [_clean(each, known) for each in value]
    return value


def _clean_fields(document: Mapping[str, object], known: Sequence[str]) -> dict[str, object]:
    return {
        name: HIDDEN if each and isinstance(each, str) and is_secret(str(name)) else _clean(each, known)
        for name, each in document.items()
    }


def _clean_text(text: str, known: Sequence[str]) -> str:
    for secret in known:
        text = text.replace(secret, HIDDEN)
    return redacted(_VALUE.sub(HIDDEN, text))
