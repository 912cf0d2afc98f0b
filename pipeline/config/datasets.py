"""Reads data sets: CSV, TSV and JSONL tables with a column map."""

from __future__ import annotations

import csv
import hashlib
import io
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from envbuilder.errors import ConfigError, Problem, nearest
from pipeline.models import DataItem, DataSet, chunked

if TYPE_CHECKING:
    from envbuilder.documents import Place
    from pipeline.config.runfile import Columns, DataSource

_ROLES = ("id", "image", "question", "answer", "class", "question-type")
_REQUIRED = ("id", "answer")
_DELIMITERS = ";,\t"

Row = Mapping[str, object]


@dataclass(frozen=True)
class _Table:
    """Rows of a table with the line that each begins on."""

    shown: str
    columns: tuple[str, ...]
    rows: tuple[tuple[int, Row], ...]


def read_data(name: str, source: DataSource, folder: Path, place: Place) -> DataSet:
    """Read a data set; an image that is not there becomes its item's error.

    Args:
        name: the data set's name in the run file.
        source: where it is and what its columns mean.
        folder: the folder that its path is relative to.
        place: where the run file names it.

    Raises:
        ConfigError: there is no such table, it is damaged or empty, lacks a column, or repeats an id.
    """
    path = folder / source.path
    table = _read_table(path, source, place)
    if not table.rows:
        raise _error("data-empty", f"data set {name!r} has no items", table.shown, f"head {table.shown}")
    roles = _roles(table, source.columns, place)
    items = tuple(_item(row, roles, table.shown, line) for line, row in table.rows)
    _refuse_duplicates(table, items)
    digests: dict[Path, str] = {}
    items = tuple(_with_image(item, path.parent, digests) for item in items)
    return DataSet(name, path.absolute(), _digest(items, digests), items)


def _read_table(path: Path, source: DataSource, place: Place) -> _Table:
    shown = str(Path(place.file).parent / source.path)
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        found = f"expected UTF-8, found byte 0x{error.object[error.start]:02x} at offset {error.start}"
        raise _error("data-invalid", found, shown, f"file {shown}") from error
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        text = f"data.path: cannot read {shown}: {reason}"
        raise _error("data-missing", text, str(place), f"ls {Path(shown).parent}") from error
    if path.suffix.lower() in {".jsonl", ".ndjson"}:
        return _json_lines(text, shown)
    return _separated(text, shown, source.delimiter or sniff(text, path.suffix))


def sniff(text: str, suffix: str) -> str:
    """The delimiter of a table: by its ending, else the one that its first line holds most of."""
    if suffix.lower() == ".tsv":
        return "\t"
    first = text.lstrip("\r\n").split("\n", 1)[0]
    return max(_DELIMITERS, key=lambda each: (first.count(each), each == ","))


def _separated(text: str, shown: str, delimiter: str) -> _Table:
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    rows: list[tuple[int, list[str]]] = []
    begin = 1
    try:
        for row in reader:
            if row:
                rows.append((begin, row))
            begin = reader.line_num + 1
    except csv.Error as error:
        raise _error("data-invalid", f"not a table: {error}", f"{shown}:{begin}", f"sed -n {begin}p {shown}") from error
    if not rows:
        return _Table(shown, (), ())
    header = tuple(column.strip() for column in rows[0][1])
    twice = sorted({column for column in header if header.count(column) > 1})
    if twice:
        raise _error("data-invalid", f"column {chunked(twice)} stands there twice", f"{shown}:1", f"head -n 1 {shown}")
    for line, row in rows[1:]:
        if len(row) != len(header):
            text = f"expected {len(header)} fields as in the header, found {len(row)} (split at {delimiter!r})"
            raise _error("data-invalid", text, f"{shown}:{line}", f"sed -n {line}p {shown}")
    return _Table(shown, header, tuple((line, dict(zip(header, row, strict=True))) for line, row in rows[1:]))


def _json_lines(text: str, shown: str) -> _Table:
    rows: list[tuple[int, Row]] = []
    columns: dict[str, None] = {}
    for line, one in enumerate(text.split("\n"), 1):
        if not one.strip():
            continue
        try:
            row = json.loads(one)
        except (ValueError, RecursionError) as error:
            where, hint = f"{shown}:{line}", f"sed -n {line}p {shown}"
            raise _error("data-invalid", f"not valid JSON: {error}", where, hint) from error
        if not isinstance(row, dict):
            text = f"expected an object on every line, found {type(row).__name__}"
            raise _error("data-invalid", text, f"{shown}:{line}", f"sed -n {line}p {shown}")
        rows.append((line, row))
        columns.update(dict.fromkeys(row))
    return _Table(shown, tuple(columns), tuple(rows))


def _roles(table: _Table, columns: Columns, place: Place) -> dict[str, str]:
    """The column of each role that the table has."""
    given: Mapping[str, str | None] = columns.model_dump(by_alias=True)
    found: dict[str, str] = {}
    problems: list[Problem] = []
    for role in _ROLES:
        asked = given[role]
        name = asked or role
        if name in table.columns:
            found[role] = name
        elif asked is not None or role in _REQUIRED:
            near = nearest(name, table.columns, cutoff=0.5)
            text = f"no column {name!r} (for {role}); found {', '.join(table.columns)}"
            hint = f"${{EDITOR:-vi}} +{place.line or 1} {place.file}  # columns: {{{role}: {near or '...'}}}"
            problems.append(Problem("data-column-missing", text, where=table.shown, hint=hint))
    if problems:
        raise ConfigError(problems)
    return found


def _item(row: Row, roles: Mapping[str, str], shown: str, line: int) -> DataItem:
    values = {role: row.get(column) for role, column in roles.items()}
    identifier = _text(values["id"]).strip()
    references = values["answer"] if isinstance(values["answer"], list) else [values["answer"]]
    if not identifier or not references or references == [None]:
        lacking = "answer" if identifier else "id"
        text = f"every item needs an {lacking}; column {roles[lacking]!r} holds none here"
        raise _error("data-invalid", text, f"{shown}:{line}", f"sed -n {line}p {shown}")
    image = _text(values.get("image")).strip()
    return DataItem(
        identifier,
        tuple(_text(reference) for reference in references),
        image=Path(image) if image else None,
        question=_text(values.get("question")),
        doc_class=_text(values.get("class")).strip(),
        question_type=_text(values.get("question-type")).strip(),
        fields={column: _text(value) for column, value in row.items() if column not in roles.values()},
    )


def _text(value: object) -> str:
    if value is None:
        return ""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _refuse_duplicates(table: _Table, items: tuple[DataItem, ...]) -> None:
    lines: dict[str, list[int]] = {}
    for (line, _), item in zip(table.rows, items, strict=True):
        lines.setdefault(item.id, []).append(line)
    twice = {name: found for name, found in lines.items() if len(found) > 1}
    if twice:
        told = [f"{name!r} (lines {', '.join(map(str, found[:4]))})" for name, found in twice.items()]
        line = next(iter(twice.values()))[1]
        text = f"ids must be unique; {len(twice)} stand there more than once: {chunked(told)}"
        raise _error("data-duplicate-id", text, f"{table.shown}:{line}", f"sed -n {line}p {table.shown}")


def _with_image(item: DataItem, folder: Path, digests: dict[Path, str]) -> DataItem:
    """The item with its image's absolute path, or with the reason why there is none to offer."""
    if item.image is None:
        return item
    path = folder / item.image
    try:
        path = path.resolve()
        if path not in digests:
            if not path.is_file():
                return replace(item, image=path, error=f"image-missing: no file {path}")
            with path.open("rb") as stream:
                digests[path] = _file_digest(stream)
    except (OSError, ValueError, RuntimeError) as error:  # No permission, a NUL in the name, links in a circle.
        return replace(item, image=path, error=f"image-missing: cannot read {path}: {error}")
    return replace(item, image=path)


def _file_digest(stream: io.BufferedReader) -> str:
    digest = hashlib.sha256()
    while block := stream.read(1 << 20):
        digest.update(block)
    return digest.hexdigest()


def _digest(items: tuple[DataItem, ...], images: Mapping[Path, str]) -> str:
    digest = hashlib.sha256()
    for item in items:
        image = images.get(item.image, "missing") if item.image else None
        facts = (item.id, item.references, item.question, item.doc_class, item.question_type, dict(item.fields), image)
        digest.update(json.dumps(facts, sort_keys=True).encode() + b"\n")
    return digest.hexdigest()


def _error(code: str, message: str, where: str, hint: str) -> ConfigError:
    return ConfigError([Problem(code, message, where=where, hint=hint)])
