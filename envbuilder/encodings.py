"""Tells what a file is that should be text in UTF-8 and is not, and the command that makes it so."""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass

_BOMS = (
    (b"\xff\xfe\x00\x00", "UTF-32"),
    (b"\x00\x00\xfe\xff", "UTF-32"),
    (b"\xff\xfe", "UTF-16"),
    (b"\xfe\xff", "UTF-16"),
)
# The first bytes of what people take for a table; each with the command that unpacks it, where there is one.
_FORMATS = (
    (b"\x1f\x8b", "a gzip archive", "gunzip -k {file}"),
    (b"BZh", "a bzip2 archive", "bunzip2 -k {file}"),
    (b"\xfd7zXZ\x00", "an xz archive", "unxz -k {file}"),
    (b"PAR1", "a Parquet file", ""),
    (b"PK\x03\x04", "a ZIP archive (a spreadsheet is one, too)", ""),
    (b"\xd0\xcf\x11\xe0", "an old Office document", ""),
    (b"SQLite format 3\x00", "an SQLite database", ""),
)
_HEAD = 4096
_CYRILLIC = re.compile("[Ѐ-ӿ]{2}")


@dataclass(frozen=True)
class Foreign:
    """What bytes are that are no UTF-8.

    Attributes:
        found: what they are, in words.
        line: the first line that shows it; 0 where lines mean nothing.
        hint: a command that helps.
    """

    found: str
    line: int
    hint: str


def foreign(data: bytes, shown: str) -> Foreign | None:
    """What a file is that is no text in UTF-8; None where it is.

    Args:
        data: its bytes.
        shown: how commands name it.
    """
    for magic, name, command in _FORMATS:
        if data.startswith(magic):
            file = shlex.quote(shown)
            return Foreign(name, 0, command.format(file=file) or f"file {file}")
    wide = next((name for bom, name in _BOMS if data.startswith(bom)), None) or _wide(data)
    if wide:
        return Foreign(wide, 1, _recode(wide, shown))
    try:
        data.decode("utf-8")
    except UnicodeDecodeError as error:
        found = f"byte 0x{data[error.start]:02x} at offset {error.start}"
        line = data.count(b"\n", 0, error.start) + 1
        name, sample = _narrow(data, error.start)
        return Foreign(f"{found} (line {line}); as {name} it reads {sample!r}", line, _recode(name, shown))
    return None


def _wide(data: bytes) -> str:
    """UTF-16 without its mark: every other byte of the head is zero."""
    head = data[:_HEAD]
    pairs = len(head) // 2
    if pairs and head[1::2].count(0) > pairs * 0.4 and not head[0::2].count(0):
        return "UTF-16LE"
    return "UTF-16BE" if pairs and head[0::2].count(0) > pairs * 0.4 and not head[1::2].count(0) else ""


def _narrow(data: bytes, at: int) -> tuple[str, str]:
    """The likeliest of the encodings of one byte a character, and how it reads the surroundings of the first such byte."""
    around = data[max(0, at - 200) : at + 200].decode("cp1251", "replace")
    name, codec = ("WINDOWS-1251", "cp1251") if _CYRILLIC.search(around) else ("WINDOWS-1252", "cp1252")
    begin = max(data.rfind(b"\n", 0, at) + 1, at - 15)
    line = data[begin : at + 15].split(b"\n")[0].decode(codec, "replace")
    return name, line.strip()


def _recode(name: str, shown: str) -> str:
    file, draft = shlex.quote(shown), shlex.quote(f"{shown}.utf8")
    return f"iconv -f {name} -t UTF-8 {file} > {draft} && mv {draft} {file}"
