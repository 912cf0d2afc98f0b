"""Reads tables: CSV, TSV and JSONL, each row with the line that it begins on."""

from __future__ import annotations

import csv
import io
import json
import shlex
from collections.abc import Mapping
from dataclasses import dataclass

from envbuilder.encodings import foreign
from envbuilder.errors import ConfigError, Problem
from pipeline.config.texts import halves, loads
from pipeline.models import chunked

_DELIMITERS = ";,\t"
# A page of text has some thousand characters, a photograph in base64 some million.
LONGEST_CELL = 64 * 1024 * 1024
_LINES = (
    "import json,sys; "
    '[print(json.dumps(row, ensure_ascii=False)) for row in json.load(open(sys.argv[1], encoding="utf-8-sig"))]'
)

Row = Mapping[str, object]


@dataclass(frozen=True)
class Table:
    """Rows of a table with the line that each begins on; `delimiter` is empty where there is none."""

    shown: str
    columns: tuple[str, ...]
    rows: tuple[tuple[int, Row], ...]
    delimiter: str = ""


def data_error(message: str, where: str, hint: str, code: str = "data-invalid") -> ConfigError:
    """The error of a data set that cannot be used."""
    return ConfigError([Problem(code, message, where=where, hint=hint)])


def lines_hint(shown: str, *lines: int) -> str:
    """The command that shows lines of a table."""
    return f"sed -n {shlex.quote(';'.join(f'{line}p' for line in lines))} {shlex.quote(shown)}"


def decoded(data: bytes, shown: str) -> str:
    """The text of a table, without the mark that it may begin with.

    Raises:
        ConfigError: it is something else.
    """
    found = foreign(data, shown)
    if found is not None:
        raise data_error(f"not a table: expected UTF-8, found {found.found}", shown, found.hint)
    return data.decode("utf-8-sig")


def sniff(text: str, suffix: str) -> str:
    """The delimiter of a table: by its ending, else the one that its first line holds most of."""
    if suffix.lower() == ".tsv":
        return "\t"
    first = text.lstrip("\r\n").split("\n", 1)[0].split("\r", 1)[0]
    return max(_DELIMITERS, key=lambda each: (first.count(each), each == ","))


def separated(text: str, shown: str, delimiter: str) -> Table:
    """A table whose columns a delimiter parts.

    Raises:
        ConfigError: it is damaged.
    """
    rows = _split(text, shown, delimiter)
    if not rows:
        return Table(shown, (), (), delimiter)
    top, header = rows[0][0], tuple(column.strip() for column in rows[0][1])
    twice = sorted({column for column in header if header.count(column) > 1})
    if twice:
        raise data_error(f"column {chunked(twice)} stands there twice", f"{shown}:{top}", lines_hint(shown, top))
    for line, row in rows[1:]:
        if len(row) != len(header):
            told = (
                f"expected {len(header)} fields as in the header, found {len(row)} (split at {delimiter!r}); "
                f"a cell that holds {delimiter!r} stands in double quotes"
            )
            raise data_error(told, f"{shown}:{line}", lines_hint(shown, top, line))
    return Table(shown, header, tuple((line, dict(zip(header, row, strict=True))) for line, row in rows[1:]), delimiter)


def _split(text: str, shown: str, delimiter: str) -> list[tuple[int, list[str]]]:
    if "\0" in text:
        line = text.count("\n", 0, text.index("\0")) + 1
        file = shlex.quote(shown)
        hint = f"sed -i.bak 's/\\x00//g' {file}"
        raise data_error("not a table: it holds a NUL byte, which is no character of a text", f"{shown}:{line}", hint)
    before = csv.field_size_limit(LONGEST_CELL)  # Of the whole process; the library's own limit is 131,072.
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    rows: list[tuple[int, list[str]]] = []
    begin = 1
    try:
        for row in reader:
            if row:
                rows.append((begin, row))
            begin = reader.line_num + 1
    except csv.Error as error:
        raise _unreadable(str(error), shown, begin, delimiter) from error
    finally:
        csv.field_size_limit(before)
    return rows


def _unreadable(reason: str, shown: str, line: int, delimiter: str) -> ConfigError:
    """The error of a table at which the reader stopped, in words for who wrote it."""
    where, file = f"{shown}:{line}", shlex.quote(shown)
    if "field larger" in reason:
        told = f"not a table: a cell has more than {LONGEST_CELL:,} characters; is a double quote never closed?"
        return data_error(told, where, f"sed -n {line}p {file} | cut -c 1-200")
    if "unexpected end of data" in reason:
        told = "not a table: a double quote that this row opens is never closed; expected it doubled within a cell"
    elif "expected after" in reason:
        told = f"not a table: after a closing double quote expected {delimiter!r} or the line's end ({reason}); expected it doubled within a cell"
    else:
        return data_error(f"not a table: {reason}", where, lines_hint(shown, line))
    # Doubled and put in quotes, a row's quotes are plain characters; that is right where none of them was meant to quote.
    script = 'import csv,sys; f,n,d=sys.argv[1],int(sys.argv[2]),sys.argv[3]; r=open(f,encoding="utf-8-sig",newline="").read().splitlines(True); t=r[n-1]; e=t[len(t.rstrip("\\r\\n")):]; r[n-1]=d.join(chr(34)+c.replace(chr(34),chr(34)*2)+chr(34) for c in t.rstrip("\\r\\n").split(d))+e; open(f,"w",encoding="utf-8",newline="").write("".join(r))'
    hint = f"python3 -c {shlex.quote(script)} {file} {line} {shlex.quote(delimiter)}  # line {line}: takes its quotes for characters"
    return data_error(told, where, hint)


def json_lines(text: str, shown: str) -> Table:
    """A table of JSON objects, one a line.

    Raises:
        ConfigError: it is damaged.
    """
    rows: list[tuple[int, Row]] = []
    columns: dict[str, None] = {}
    for line, one in enumerate(text.split("\n"), 1):
        if one.strip():
            row = _object(one, shown, line, text)
            rows.append((line, row))
            columns.update(dict.fromkeys(row))
    return Table(shown, tuple(columns), tuple(rows))


def _object(one: str, shown: str, line: int, whole: str) -> Row:
    where, hint = f"{shown}:{line}", lines_hint(shown, line)
    try:
        row = loads(one)
    except (ValueError, RecursionError) as error:
        raise _no_json_lines(whole, shown) or data_error(f"not valid JSON: {error}", where, hint) from error
    if not isinstance(row, dict):
        text = f"expected an object on every line, found {type(row).__name__}"
        raise _no_json_lines(whole, shown) or data_error(text, where, hint)
    if "\\u" in one and (found := next(halves(row, ""), None)):
        text = f"key {found[0]!r} holds {found[1]}, half of a character; expected both halves or neither"
        raise data_error(text, where, hint)
    return row


def _no_json_lines(whole: str, shown: str) -> ConfigError | None:
    """The error of a file that is one JSON document, where it is a list of objects."""
    if not whole.lstrip().startswith(("[", "{")):
        return None
    try:
        rows = json.loads(whole)
    except (ValueError, RecursionError):
        return None
    if not (isinstance(rows, list) and rows and all(isinstance(row, dict) for row in rows)):
        return None
    file, draft = shlex.quote(shown), shlex.quote(f"{shown}.new")
    hint = f"python3 -c {shlex.quote(_LINES)} {file} > {draft} && mv {draft} {file}"
    return data_error(
        f"expected an object on every line, found one JSON list of {len(rows)} objects", f"{shown}:1", hint
    )
