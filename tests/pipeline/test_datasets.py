from __future__ import annotations

import csv
import gzip
import json
import os
import subprocess
from typing import TYPE_CHECKING

import pytest

from envbuilder.documents import Place
from envbuilder.errors import ConfigError, Problem
from pipeline.config import tables
from pipeline.config.datasets import read_data, sniff
from pipeline.config.runfile import Columns, DataSource

if TYPE_CHECKING:
    from pipeline_bench import Bench

    from pipeline.models import DataSet

PLACE = Place("run.yaml", 2, 8)


def _read(bench: Bench, text: str | bytes, name: str = "lines.csv", **settings: object) -> DataSet:
    (bench.root / name).write_bytes(text.encode() if isinstance(text, str) else text)
    return read_data("lines", DataSource.model_validate({"path": name, **settings}), bench.root, PLACE)


def _problem(bench: Bench, text: str | bytes, name: str = "lines.csv", **settings: object) -> Problem:
    with pytest.raises(ConfigError) as caught:
        _read(bench, text, name, **settings)
    assert caught.value.exit_status == 2
    (problem,) = caught.value.problems
    assert problem.hint
    return problem


@pytest.mark.parametrize(
    ("text", "suffix", "delimiter"),
    [("a;b,c;d", ".csv", ";"), ("a,b", ".csv", ","), ("a\tb", ".csv", "\t"), ("a,b", ".tsv", "\t"), ("a", ".txt", ",")],
)
def test_delimiter_is_sniffed(text: str, suffix: str, delimiter: str) -> None:
    """The ending decides, else the first line."""
    assert sniff(text, suffix) == delimiter


def test_table_is_read_with_its_column_map(bench: Bench) -> None:
    """Named columns take their roles, the rest are fields; a byte order mark and quoted line ends are no matter."""
    (bench.root / "a.png").write_bytes(b"image")
    text = '\ufeffdata_index;image_path;q;answer;doc_class;extra\n7;a.png;"two\nlines";да;line-ru;more\n'
    columns = {"id": "data_index", "image": "image_path", "question": "q", "class": "doc_class"}
    (item,) = _read(bench, text, columns=columns).items
    assert (item.id, item.question, item.references) == ("7", "two\nlines", ("да",))
    assert (item.doc_class, item.fields, item.error) == ("line-ru", {"extra": "more"}, None)
    assert item.image == (bench.root / "a.png").resolve()


def test_delimiter_can_be_set(bench: Bench) -> None:
    """A delimiter of the run file's own is taken as it is."""
    assert _read(bench, "id|answer\n1|a;b;c\n", delimiter="|").items[0].references == ("a;b;c",)


def test_json_lines_may_hold_several_references(bench: Bench) -> None:
    """A list of answers is a list of references; numbers and nothing become text."""
    rows = [{"id": 1, "answer": ["a", "b"], "note": None}, {"id": 2, "answer": 3.5, "more": {"x": 1}}]
    items = _read(bench, "\n\n".join(map(json.dumps, rows)), "lines.jsonl").items
    assert [item.references for item in items] == [("a", "b"), ("3.5",)]
    assert items[0].fields == {"note": ""}
    assert items[1].fields == {"more": '{"x": 1}'}


@pytest.mark.parametrize("text", ["", "\n\n", "id;answer\n", "\ufeff"])
def test_empty_data_set_is_one_clear_error(bench: Bench, text: str) -> None:
    """A table without rows is told before anything runs."""
    problem = _problem(bench, text)
    assert problem.code == "data-empty"
    assert "'lines' has no items" in problem.message


def test_duplicate_ids_are_told_with_their_lines(bench: Bench) -> None:
    """The first few repeated ids are named with the lines they stand on, quoted line ends counted."""
    rows = '1;"x\ny"\n2;b\n1;c\n2;d\n' + "".join(f"{n};e\n{n};f\n" for n in range(10, 20))
    problem = _problem(bench, "id;answer\n" + rows)
    assert problem.code == "data-duplicate-id"
    assert "12 stand there more than once: '1' (lines 2, 5), '2' (lines 4, 6)" in problem.message
    assert problem.message.endswith("and 7 more")


def test_missing_column_is_told_with_the_nearest(bench: Bench) -> None:
    """A column that is not there is told with those that are, and the nearest one."""
    problem = _problem(bench, "id;anwser\n1;a\n", columns={"answer": "answer"})
    assert problem.code == "data-column-missing"
    assert "no column 'answer' (for answer); found id, anwser" in problem.message
    assert "anwser" in str(problem.hint)


def test_unmapped_optional_columns_may_be_absent(bench: Bench) -> None:
    """Without a question, an image or a class an item is an item still; a role that is mapped must be there."""
    (item,) = _read(bench, "id;answer\n1;a\n").items
    assert (item.question, item.image, item.doc_class) == ("", None, "")
    assert _problem(bench, "id;answer\n1;a\n", columns={"class": "kind"}).code == "data-column-missing"


@pytest.mark.parametrize(
    ("text", "name", "told", "where"),
    [
        ("id;answer\n1;a;b\n", "lines.csv", "expected 2 fields as in the header, found 3", "lines.csv:2"),
        ("id;answer\n1\n", "lines.csv", "found 1", "lines.csv:2"),
        ('id;answer\n1;"never ends\n2;b\n', "lines.csv", "not a table", "lines.csv:2"),
        ("id;id;answer\n1;1;a\n", "lines.csv", "column id stands there twice", "lines.csv:1"),
        ("id;answer\n1;a\n;b\n", "lines.csv", "every item needs an id", "lines.csv:3"),
        (b"id;answer\n1;\xff\n", "lines.csv", "expected UTF-8, found byte 0xff at offset 12", "lines.csv"),
        ('{"id": 1, "answer": "a"}\n{"id":', "lines.jsonl", "not valid JSON", "lines.jsonl:2"),
        ("[1]", "lines.jsonl", "expected an object on every line, found list", "lines.jsonl:1"),
        ('{"id": 1, "answer": []}', "lines.jsonl", "every item needs an answer", "lines.jsonl:1"),
    ],
)
def test_damaged_tables_are_told(bench: Bench, text: str | bytes, name: str, told: str, where: str) -> None:
    """What is no table is refused with the line where it stops being one."""
    problem = _problem(bench, text, name)
    assert problem.code == "data-invalid"
    assert told in problem.message
    assert problem.where == where


NOTHING = [
    ('{"id": 1, "answer": null}', "key 'answer' holds null here"),
    ('{"id": 1, "answer": NaN}', "key 'answer' holds NaN here"),
    ('{"id": 1, "answer": -Infinity}', "key 'answer' holds -Infinity here"),
    ('{"id": 1, "answer": ["a", null]}', "key 'answer[1]' holds null here"),
    ('{"id": 1, "answer": [NaN]}', "key 'answer[0]' holds NaN here"),
    ('{"id": 1, "answer": ["a", ["b", null]]}', "key 'answer[1][1]' holds null here"),
    ('{"id": 1, "answer": {"total": Infinity}}', "key 'answer.total' holds Infinity here"),
    ('{"id": 1}', "key 'answer' holds null here"),
    ('{"id": NaN, "answer": "a"}', "every item needs an id"),
    ('{"id": null, "answer": "a"}', "every item needs an id"),
    ('{"id": 1, "answer": "a", "answer": "b"}', "key 'answer' stands there twice"),
    ('{"id": 1, "answer": "a", "x": {"y": 1, "y": 2}}', "key 'y' stands there twice"),
    ('{"id": 1, "answer": "\\ud83d"}', "key 'answer' holds \\ud83d, half of a character"),
    ('{"id": 1, "answer": "a", "question": ["x", "\\ude00 y"]}', "key 'question[1]' holds \\ude00"),
]


@pytest.mark.parametrize(("row", "told"), NOTHING)
def test_what_is_no_value_is_refused_with_line_and_key(bench: Bench, row: str, told: str) -> None:
    """Nothing, no number, half of a character and one of two values never become an answer in silence."""
    problem = _problem(bench, '{"id": 0, "answer": "x"}\n' + row + "\n", "lines.jsonl")
    assert problem.code == "data-invalid"
    assert told in problem.message
    assert problem.where == "lines.jsonl:2"
    shown = subprocess.run(("sh", "-c", str(problem.hint)), capture_output=True, text=True, check=True)
    assert shown.stdout.strip() == row


def test_no_number_is_nothing_where_nothing_may_stand(bench: Bench) -> None:
    """A question, a class or another field that is NaN is as one that is null."""
    text = '{"id": 1, "answer": "a", "question": NaN, "class": NaN, "image": NaN, "more": NaN, "list": [NaN, 1]}'
    (item,) = _read(bench, text, "lines.jsonl").items
    assert (item.question, item.doc_class, item.image) == ("", "", None)
    assert item.fields == {"more": "", "list": "[null, 1]"}


@pytest.mark.parametrize(
    ("written", "text"),
    [
        ("1", "1"),
        ("1.0", "1.0"),
        ("1.10", "1.10"),
        ("1e400", "1e400"),
        ("1E5", "1E5"),
        ("-0", "-0"),
        ("9" * 5000, "9" * 5000),
        ("0.1000000000000000055511151231257827", "0.1000000000000000055511151231257827"),
        ("true", "true"),
        ('"\\ud83d\\ude00"', "😀"),
        ('{"a": 1.10, "b": [null, "é"]}', '{"a": 1.10, "b": [null, "é"]}'),
    ],
)
def test_values_are_kept_as_they_are_written(bench: Bench, written: str, text: str) -> None:
    """A number is the text that stands there, however large, long or exact it is."""
    (item,) = _read(bench, f'{{"id": 1, "answer": "a", "question": {written}}}', "lines.jsonl").items
    assert item.question == text


def test_words_for_nothing_stay_words_in_tables(bench: Bench) -> None:
    """A cell of a CSV file is text: `nan`, `NULL` and an empty answer are what they are."""
    items = _read(bench, "id;question;answer\n1;NaN;nan\n2;NULL;\n3;Infinity;None\n").items
    assert [(item.question, item.references) for item in items] == [
        ("NaN", ("nan",)),
        ("NULL", ("",)),
        ("Infinity", ("None",)),
    ]


def test_cells_of_any_length_are_read(bench: Bench) -> None:
    """The library's limit of 131,072 characters is none of a data set's, and stays as it was for others."""
    before = csv.field_size_limit()
    (item,) = _read(bench, f"id;question;answer\n1;{'x' * 200_000};a\n").items
    assert len(item.question) == 200_000
    assert csv.field_size_limit() == before


def test_cells_above_the_limit_are_told_for_what_they_are(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """The cause is the cell's length, or a quote that is never closed."""
    monkeypatch.setattr(tables, "LONGEST_CELL", 1000)
    problem = _problem(bench, 'id;answer\n1;a\n2;"' + "x" * 2000 + "\n")
    assert "a cell has more than 1,000 characters; is a double quote never closed?" in problem.message
    assert problem.where == "lines.csv:3"


MENDED = [
    ("id;answer\n1;да\n".encode("utf-16"), "lines.csv", "expected UTF-8, found UTF-16", "да"),
    ("id;answer\n1;a\n".encode("utf-16-le"), "lines.csv", "found UTF-16LE", "a"),
    ("id;answer\n1;a\n".encode("utf-32"), "lines.csv", "found UTF-32", "a"),
    ("id;answer\n1;да\n".encode("cp1251"), "lines.csv", "as WINDOWS-1251 it reads '1;да'", "да"),
    ("id;answer\n1;café\n".encode("cp1252"), "lines.csv", "as WINDOWS-1252 it reads '1;café'", "café"),
    (b'id;answer\n1;5" wide\n2;"a"b"\n', "lines.csv", "after a closing double quote expected ';'", None),
    (b'id;answer\n1;"5 inch\n', "lines.csv", "a double quote that this row opens is never closed", '"5 inch'),
    (b"id;answer\n1;a\0\n", "lines.csv", "it holds a NUL byte", "a"),
    (b'[{"id": 1, "answer": "a"}]', "lines.jsonl", "found one JSON list of 1 objects", "a"),
    (b'[\n  {\n    "id": 1,\n    "answer": "a"\n  }\n]\n', "lines.jsonl", "one JSON list of 1 objects", "a"),
]


@pytest.mark.parametrize(("data", "name", "told", "answer"), MENDED)
def test_tables_are_mended_by_the_hint(bench: Bench, data: bytes, name: str, told: str, answer: str | None) -> None:
    """Another encoding, loose quotes, NUL bytes and a list of JSON are named, and the hint makes a table of them."""
    problem = _problem(bench, data, name)
    assert told in problem.message
    subprocess.run(("sh", "-c", str(problem.hint)), check=True)
    items = _read(bench, (bench.root / name).read_bytes(), name).items
    assert answer is None or items[0].references == (answer,)


def test_formats_that_are_no_text_are_named(bench: Bench) -> None:
    """A spreadsheet, an archive and a Parquet file are told for what they are; an archive is unpacked by the hint."""
    assert "found a ZIP archive" in _problem(bench, b"PK\x03\x04rest", "lines.csv").message
    assert "found a Parquet file" in _problem(bench, b"PAR1rest", "lines.csv").message
    problem = _problem(bench, gzip.compress(b"id;answer\n1;a\n"), "packed.csv.gz")
    assert "found a gzip archive" in problem.message
    subprocess.run(("sh", "-c", str(problem.hint)), check=True)
    assert _read(bench, (bench.root / "packed.csv").read_bytes(), "packed.csv").items[0].id == "1"


@pytest.mark.parametrize(("given", "other"), [(",", ";"), (None, "|"), ("\t", ",")])
def test_a_wrong_delimiter_is_told_as_one(bench: Bench, given: str | None, other: str) -> None:
    """A table of one column is told with the delimiter that parts it, and is read with it."""
    text = f"id{other}answer\n1{other}a\n"
    settings = {"delimiter": given} if given else {}
    problem = _problem(bench, text, **settings)
    assert f"split at {other!r} it has 2" in problem.message
    assert json.dumps(other) in str(problem.hint)
    assert "${EDITOR:-vi} +2 run.yaml" in str(problem.hint)
    assert _read(bench, text, delimiter=other).items[0].references == ("a",)


@pytest.mark.parametrize("end", ["\r\n", "\r", "\n"])
@pytest.mark.parametrize("mark", ["", "\ufeff"])
def test_line_ends_and_marks_of_any_system_are_read(bench: Bench, end: str, mark: str) -> None:
    """Windows, old Macintoshes and all else; with a byte order mark or without."""
    items = _read(bench, mark + end.join(["id;answer", "1;a", "2;b", ""])).items
    assert [item.references for item in items] == [("a",), ("b",)]
    if end != "\r":
        rows = end.join(['{"id": 1, "answer": "a"}', '{"id": 2, "answer": "b"}', ""])
        assert len(_read(bench, mark + rows, "lines.jsonl").items) == 2


def test_ids_with_separators_of_paths_are_ids(bench: Bench) -> None:
    """An id names no file."""
    assert [item.id for item in _read(bench, "id;answer\n../a/b;x\n/etc;y\n").items] == ["../a/b", "/etc"]


def test_a_table_with_another_name_is_told_with_the_nearest(bench: Bench) -> None:
    """A misspelt file name is told with the one that is there."""
    bench.write("lines.csv", "id;answer\n1;a\n")
    with pytest.raises(ConfigError, match=r"No such file or directory; nearest: lines\.csv"):
        read_data("lines", DataSource(path="line.csv", columns=Columns()), bench.root, PLACE)


def test_table_that_is_not_there_is_told_where_it_is_named(bench: Bench) -> None:
    """A missing table is told with the run file's line that names it."""
    with pytest.raises(ConfigError) as caught:
        read_data("lines", DataSource(path="no/such.csv", columns=Columns()), bench.root, PLACE)
    (problem,) = caught.value.problems
    assert (problem.code, problem.where) == ("data-missing", "run.yaml:2:8")
    assert "no/such.csv: No such file or directory" in problem.message


def test_images_that_cannot_be_offered_carry_their_error(bench: Bench) -> None:
    """A missing file, a folder, a pipe, a circle of links and an impossible name are the items' errors."""
    os.mkfifo(bench.root / "pipe")
    (bench.root / "circle").symlink_to("circle")
    names = ["gone.png", ".", "pipe", "circle", "x" * 5000]
    text = "id;image;answer\n" + "".join(f"{name[:6]};{name};a\n" for name in names)
    assert all(str(item.error).startswith("image-missing") for item in _read(bench, text).items)


def test_digest_covers_rows_and_images(bench: Bench) -> None:
    """Another row or another byte in an image is another data set; another file name for the table is not."""
    (bench.root / "a.png").write_bytes(b"one")
    text = "id;image;answer\n1;a.png;a\n"
    first = _read(bench, text).digest
    assert _read(bench, text, "other.csv").digest == first
    assert _read(bench, text.replace(";a\n", ";b\n")).digest != first
    (bench.root / "a.png").write_bytes(b"two")
    assert _read(bench, text).digest != first
    (bench.root / "a.png").unlink()
    missing = _read(bench, text).digest
    assert missing not in {first, _read(bench, text.replace("a.png", "")).digest}
