"""Reads data sets: CSV, TSV and JSONL tables with a column map."""

from __future__ import annotations

import contextlib
import hashlib
import json
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from envbuilder.errors import ConfigError, Problem, nearest
from pipeline.config.images import Images, shortened
from pipeline.config.tables import Row, Table, data_error, decoded, json_lines, lines_hint, separated, sniff
from pipeline.config.texts import text_of, voids
from pipeline.models import DataItem, DataSet, chunked

if TYPE_CHECKING:
    from envbuilder.documents import Place
    from pipeline.config.runfile import DataSource

__all__ = ["read_data", "sniff"]

_ROLES = ("id", "image", "question", "answer", "class", "question-type")
_REQUIRED = ("id", "answer")
_SEPARATORS = ";,\t|"


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
        held = "it has a header and no rows" if table.columns else "it is empty"
        told = f"data set {name!r} has no items: {held}"
        raise data_error(told, table.shown, f"wc -l {shlex.quote(table.shown)}", "data-empty")
    roles = _roles(table, source, place)
    images = Images(table, path, (folder, folder.parent, Path.cwd()))
    items = tuple(_item(row, roles, table.shown, line, images) for line, row in table.rows)
    _refuse_duplicates(table, items)
    warnings = images.problems(roles.get("image", ""))
    return DataSet(name, path.absolute(), _digest(items, images.digests), items, warnings)


def _read_table(path: Path, source: DataSource, place: Place) -> Table:
    shown = str(Path(place.file).parent / source.path)
    try:
        data = path.read_bytes()
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        text = f"data.path: cannot read {shown}: {reason}{_neighbour(path)}"
        raise data_error(text, str(place), f"ls {shlex.quote(str(Path(shown).parent))}", "data-missing") from error
    text = decoded(data, shown)
    if path.suffix.lower() in {".jsonl", ".ndjson"}:
        return json_lines(text, shown)
    return separated(text, shown, source.delimiter or sniff(text, path.suffix))


def _neighbour(path: Path) -> str:
    """The file beside one that is not there that looks most like it, as words to add."""
    with contextlib.suppress(OSError):
        near = None if path.exists() else nearest(path.name, [each.name for each in path.parent.iterdir()])
        return f"; nearest: {near}" if near else ""
    return ""


def _roles(table: Table, source: DataSource, place: Place) -> dict[str, str]:
    """The column of each role that the table has."""
    given: Mapping[str, str | None] = source.columns.model_dump(by_alias=True)
    found: dict[str, str] = {}
    problems: list[Problem] = []
    for role in _ROLES:
        asked = given[role]
        name = asked or role
        if name in table.columns:
            found[role] = name
        elif asked is not None or role in _REQUIRED:
            near = nearest(name, table.columns, cutoff=0.5)
            text = f"no column {name!r} (for {role}); found {', '.join(map(shortened, table.columns))}"
            hint = f"${{EDITOR:-vi}} +{place.line or 1} {place.file}  # columns: {{{role}: {near or '...'}}}"
            problems.append(Problem("data-column-missing", text, where=table.shown, hint=hint))
    if problems:
        _refuse_unsplit(table, source, place)
        raise ConfigError(problems)
    return found


def _refuse_unsplit(table: Table, source: DataSource, place: Place) -> None:
    """Refuse a table of one column whose header holds another delimiter: it was split at the wrong one."""
    if len(table.columns) != 1 or not table.delimiter:
        return
    counts = {each: table.columns[0].count(each) for each in _SEPARATORS if each != table.delimiter}
    other = max(counts, key=lambda each: counts[each])
    if counts[other]:
        how = "the run file says so" if source.delimiter else "guessed from its name and first line"
        text = f"split at {table.delimiter!r} ({how}) it has one column; split at {other!r} it has {counts[other] + 1}"
        hint = f"${{EDITOR:-vi}} +{place.line or 1} {place.file}  # delimiter: {json.dumps(other)}"
        raise data_error(text, f"{table.shown}:1", hint)


def _item(row: Row, roles: Mapping[str, str], shown: str, line: int, images: Images) -> DataItem:
    values = {role: row.get(column) for role, column in roles.items()}
    try:
        texts = {role: text_of(value) for role, value in values.items()}
        others = {column: text_of(value) for column, value in row.items() if column not in roles.values()}
        _refuse_voids(values, roles, shown, line)
    except RecursionError as error:
        raise data_error("nested too deeply", f"{shown}:{line}", lines_hint(shown, line)) from error
    answer = values["answer"]
    written = texts.get("image", "").strip()
    image, error_text = images.find(written, line) if written else (None, None)
    return DataItem(
        texts["id"].strip(),
        tuple(text_of(each) for each in (answer if isinstance(answer, list) else [answer])),
        image=image,
        question=texts.get("question", ""),
        doc_class=texts.get("class", "").strip(),
        question_type=texts.get("question-type", "").strip(),
        fields=others,
        error=error_text,
    )


def _refuse_voids(values: Mapping[str, object], roles: Mapping[str, str], shown: str, line: int) -> None:
    """Refuse an item without an id, and one whose answer, or any of whose answers, is nothing."""
    where, hint = f"{shown}:{line}", lines_hint(shown, line)
    if not text_of(values["id"]).strip():
        raise data_error(f"every item needs an id; column {roles['id']!r} holds none here", where, hint)
    place, found = next(voids(values["answer"], roles["answer"]), ("", ""))
    if found:
        text = f"every item needs an answer; key {place!r} holds {found} here, expected text or a number"
        raise data_error(text, where, hint)
    if values["answer"] == []:
        raise data_error(f"every item needs an answer; column {roles['answer']!r} holds none here", where, hint)


def _refuse_duplicates(table: Table, items: tuple[DataItem, ...]) -> None:
    lines: dict[str, list[int]] = {}
    for (line, _), item in zip(table.rows, items, strict=True):
        lines.setdefault(item.id, []).append(line)
    twice = {name: found for name, found in lines.items() if len(found) > 1}
    if twice:
        told = [f"{name!r} (lines {', '.join(map(str, found[:4]))})" for name, found in twice.items()]
        line = next(iter(twice.values()))[1]
        text = f"ids must be unique; {len(twice)} stand there more than once: {chunked(told)}"
        hint = lines_hint(table.shown, *next(iter(twice.values()))[:4])
        raise data_error(text, f"{table.shown}:{line}", hint, "data-duplicate-id")


def _digest(items: tuple[DataItem, ...], images: Mapping[Path, str]) -> str:
    digest = hashlib.sha256()
    for item in items:
        image = images.get(item.image, "missing") if item.image else None
        facts = (item.id, item.references, item.question, item.doc_class, item.question_type, dict(item.fields), image)
        digest.update(json.dumps(facts, sort_keys=True).encode() + b"\n")
    return digest.hexdigest()
