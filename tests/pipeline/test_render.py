from __future__ import annotations

import io
from pathlib import Path

import pytest

from pipeline.models import Environment, Evaluation, Plan, RunOutcome, Task, TaskResult, Wish
from pipeline.render import (
    ending,
    make_display,
    outcome_tables,
    plan_table,
    rounded,
    runs_table,
)

RESULTS = (
    TaskResult("ocr@lines", "inference", "ocr", "ok", items=4, failed_items=1, items_per_s=12.345, wall_s=1.0),
    TaskResult("vlm@lines", "inference", "vlm", "timeout", items=4, failed_items=4, error="did not end within 5 s"),
    TaskResult("text:ocr@lines", "eval", "text", "ok"),
    TaskResult("text:vlm@lines", "eval", "text", "cancelled"),
)
EVALUATIONS = (
    Evaluation("ocr@lines", "text:ocr@lines", "lines", {"cer": 0.125, "wer": 0.5}, {"ru": {"cer": 0.25}, "kk": {}}),
)


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        return True


def _task(name: str = "ocr@lines") -> Task:
    environment = Environment("ocr", "inference", Path(), Path(), "k", Path(), entry="a:b")
    return Task(name, "inference", environment, {}, wish=Wish(None), identity="0123456789abcdef")


def test_tables_hold_tasks_figures_and_classes() -> None:
    """Each inference task has its figures as a whole and by class; what else went well has no row."""
    tasks, by_class = outcome_tables(RESULTS, EVALUATIONS)
    assert tasks.columns == ("task", "status", "items", "failed", "items/s", "device", "cer", "wer")
    assert tasks.rows == (
        ("ocr@lines", "ok, 1 failed", "4", "1", "12.3", "cpu", "0.1250", "0.5000"),
        ("vlm@lines", "timeout", "4", "4", "", "cpu", "", ""),
        ("text:vlm@lines", "cancelled", "", "", "", "cpu", "", ""),
    )
    assert by_class.rows == (("ocr@lines", "ru", "0.2500", ""), ("ocr@lines", "kk", "", ""))


@pytest.mark.parametrize(
    ("value", "text"),
    [(364_123.4, "364000"), (1234.5, "1230"), (12.345, "12.3"), (2.0, "2"), (0.5, "0.5"), (0.0000123, "0.0000123")],
)
def test_numbers_in_tables_have_no_exponent(value: float, text: str) -> None:
    """However large or small a number is, it is written in plain digits."""
    assert rounded(value) == text


def test_metrics_of_two_judges_are_told_apart() -> None:
    """Where two judges give a metric of one name its column names the judge."""
    other = Evaluation("ocr@lines", "judge:ocr@lines", "lines", {"cer": 0.5})
    (tasks, _) = outcome_tables(RESULTS[:1], (*EVALUATIONS, other))
    assert tasks.columns[-3:] == ("text.cer", "wer", "judge.cer")
    assert tasks.rows[0][-3:] == ("0.1250", "0.5000", "0.5000")


def _outcome() -> RunOutcome:
    tables = outcome_tables(RESULTS, EVALUATIONS)
    paths = {"report": "/r/report.html", "run": "/r"}
    return RunOutcome(False, "id", "failed", (), RESULTS, EVALUATIONS, tables, paths, "demo", "2026")


def test_progress_without_a_terminal_is_plain_lines() -> None:
    """A task's beginning, remarks and end are a line each."""
    stream = io.StringIO()
    with make_display(stream) as display:
        display.started("ocr@lines", 4, "cpu")
        display.progressed("ocr@lines", 1, 0)
        display.noted("ocr@lines", "tries again")
        display.finished(RESULTS[0])
    assert stream.getvalue().splitlines() == [
        "ocr@lines: starts on cpu, 4 items",
        "ocr@lines: tries again",
        "ocr@lines: ok, 3/4 items, 12.3/s, 1.0 s",
    ]


def test_progress_on_a_terminal_leaves_lines() -> None:
    """Bars go, the lines of what ended stay, and text that looks like markup is text."""
    stream = Terminal()
    with make_display(stream) as display:
        display.started("ocr[beam=1]@lines", 4, "cpu")
        display.progressed("ocr[beam=1]@lines", 2, 1)
        display.noted("ocr@lines", "[bold]odd")
        display.finished(TaskResult("ocr[beam=1]@lines", "inference", "ocr", "ok", items=4))
        display.finished(RESULTS[3])
    assert "[bold]odd" in stream.getvalue()
    assert "ocr[beam=1]@lines: ok" in stream.getvalue()


def test_quiet_display_says_nothing() -> None:
    """Quiet is quiet."""
    stream = io.StringIO()
    with make_display(stream, quiet=True) as display:
        display.started("ocr@lines", 1, "cpu")
        display.finished(RESULTS[1])
    assert not stream.getvalue()


def test_endings_tell_why() -> None:
    """A task that did not end well says how and why."""
    assert ending(RESULTS[1]) == "timeout: did not end within 5 s"
    assert ending(RESULTS[3]) == "cancelled"


def test_plans_and_runs_are_tables() -> None:
    """A plan has a row a task, a list of runs a row a run."""
    plan = Plan("x", 0, stop_on_failure=False, retries=0, gpu_wait_s=0, data=(), tasks=(_task(),))
    assert plan_table(plan).rows == (("ocr@lines", "inference", "ocr", "", "auto", "0123456789ab"),)
    assert runs_table([_outcome()]).rows == (("id", "demo", "failed", "1/4", "2026"),)
