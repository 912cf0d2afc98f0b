from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING

import pytest

from envbuilder.documents import Place
from envbuilder.errors import ConfigError, Problem
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
