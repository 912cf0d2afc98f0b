from __future__ import annotations

import json
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.errors import EnvironmentsError, UnknownRunError
from pipeline.layout import (
    Journal,
    RunLayout,
    find_answers,
    find_run,
    new_run_id,
    read_answers,
    read_environments,
    run_ids,
    safe_name,
    write_json,
)
from pipeline.models import AnswerLine

if TYPE_CHECKING:
    from pathlib import Path


@given(st.lists(st.text(min_size=1), unique=True, max_size=20))
def test_file_names_are_safe_and_unique(texts: list[str]) -> None:
    """Whatever a task is called, its file name is one harmless name, and no other task's."""
    names = [safe_name(text) for text in texts]
    assert len(set(names)) == len(texts)
    for name in names:
        assert name
        assert "/" not in name
        assert not name.startswith(".")
        assert len(name.encode()) < 120


def test_usual_task_ids_are_their_own_file_names() -> None:
    """What is harmless stays readable as it is."""
    assert safe_name("ocr-crnn@lines") == "ocr-crnn@lines"
    assert safe_name("ocr[beam=4]@lines").startswith("ocr-beam=4-@lines-")


def test_run_ids_sort_by_time_and_differ() -> None:
    """Names of folders sort as the runs were started, and two of one second differ."""
    now = datetime(2026, 1, 2, 3, 4, 5, tzinfo=timezone(timedelta(hours=2)))
    first = new_run_id("demo", now)
    assert first.startswith("20260102T010405Z-demo-")
    assert new_run_id("demo", now) != first
    assert new_run_id("a", now + timedelta(seconds=1)) > first


def test_runs_of_one_second_are_in_order(tmp_path: Path) -> None:
    """Whatever they are called: the latest is the one that was started last."""
    second = datetime(2026, 1, 2, 3, 4, 5, tzinfo=timezone.utc)
    made = [new_run_id(name, second + timedelta(milliseconds=10 * n)) for n, name in enumerate("cbadzyx")]
    for run in made:
        RunLayout(tmp_path, run).root.mkdir(parents=True)
    assert run_ids(tmp_path) == made
    assert find_run(tmp_path).id == made[-1]


def test_json_is_written_whole_or_not_at_all(tmp_path: Path) -> None:
    """What cannot be written leaves the old file as it was, and no draft."""
    path = tmp_path / "x.json"
    write_json(path, {"a": "\ud800"})
    with pytest.raises(TypeError):
        write_json(path, {"a": object()})
    assert json.loads(path.read_text()) == {"a": "\ud800"}
    assert list(tmp_path.iterdir()) == [path]


def test_torn_answers_are_left_out(tmp_path: Path) -> None:
    """A journal whose writer was killed in a line is read up to there; the last line of an item stands."""
    path = tmp_path / "t.jsonl"
    journal = Journal(path)
    for item, answer in (("1", "a"), ("2", "b"), ("1", "c")):
        journal.append(AnswerLine(item, "t", "t.1", answer).to_json())
    journal.close()
    with path.open("a") as stream:
        stream.write('[1]\n"x"\n\xff\n{"item": "3", "task"')
    assert {name: line.answer for name, line in read_answers(path).items()} == {"1": "c", "2": "b"}
    assert read_answers(tmp_path / "none") == {}


def test_answers_of_another_task_are_left_out(tmp_path: Path) -> None:
    """Lines that were copied from another task's journal are damage, not answers; a task's odd name is no obstacle."""
    path = RunLayout(tmp_path, "run").answers("a/b c")
    path.parent.mkdir(parents=True)
    for task, item in (("a/b c", "1"), ("other", "1"), ("other", "2")):
        journal = Journal(path)
        journal.append(AnswerLine(item, task, f"{task}.1", task).to_json())
        journal.close()
    found = find_answers(path)
    assert {name: line.answer for name, line in found.lines.items()} == {"1": "a/b c"}
    assert found.damaged == 2


def test_runs_are_found_by_either_end(tmp_path: Path) -> None:
    """A run has its id, and short names as long as they are its alone; without a name it is the latest."""
    with pytest.raises(UnknownRunError, match="no run yet"):
        find_run(tmp_path)
    for name in ("20260101T000000Z-demo-aaaaaa", "20260102T000000Z-demo-bbbbbb"):
        layout = RunLayout(tmp_path, name)
        layout.create()
        write_json(layout.run_json, {})
    assert find_run(tmp_path).id.endswith("bbbbbb")
    assert find_run(tmp_path, "latest").id.endswith("bbbbbb")
    assert find_run(tmp_path, "20260101").id.endswith("aaaaaa")
    assert find_run(tmp_path, "aaaaaa").id.endswith("aaaaaa")
    with pytest.raises(
        UnknownRunError, match="'2026' is the beginning or end of 2 runs: 20260102T000000Z-demo-bbbbbb, 20260101T"
    ):
        find_run(tmp_path, "2026")


def test_lock_tells_whether_the_runner_lives(tmp_path: Path) -> None:
    """While the lock is held the run is somebody's, afterwards nobody's."""
    layout = RunLayout(tmp_path, "x")
    layout.create()
    assert not layout.is_held()
    with layout.held():
        assert layout.is_held()
    assert not layout.is_held()


def test_unreadable_environments_are_told(tmp_path: Path) -> None:
    """A list of environments that is not there, or no JSON, is an error with its path."""
    path = tmp_path / "environments.json"
    with pytest.raises(EnvironmentsError, match="cannot be read"):
        read_environments(path)
    path.write_text("{")
    with pytest.raises(EnvironmentsError, match="cannot be read") as caught:
        read_environments(path)
    assert caught.value.where == str(path)
