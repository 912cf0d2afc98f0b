from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path

import pytest

from pipeline.models import AttemptRecord, Environment, Evaluation, Plan, RunOutcome, Table, Task, TaskResult, Wish
from pipeline.render import (
    ending,
    make_display,
    outcome_tables,
    plan_table,
    rounded,
    runs_table,
    speed_notes,
)

RESULTS = (
    TaskResult(
        "ocr@lines",
        "inference",
        "ocr",
        "ok",
        items=4,
        failed_items=1,
        items_per_s=12.345,
        task_items_per_s=3.0,
        wall_s=1.0,
    ),
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


def test_tables_hold_tasks_and_figures_by_class() -> None:
    """Each inference task is told with its figures as a whole and by class; what else went well has no row."""
    tasks, figures = outcome_tables(RESULTS, EVALUATIONS)[:2]
    assert tasks.columns == ("task", "status", "items", "failed", "predict/s", "task/s", "device")
    assert tasks.rows == (
        ("ocr@lines", "ok, 1 failed", "4", "1", "12.3", "3", "cpu"),
        ("vlm@lines", "timeout", "4", "4", "", "", "cpu"),
        ("text:vlm@lines", "cancelled", "", "", "", "", "cpu"),
    )
    assert figures.columns == ("task", "class", "cer", "wer")
    assert figures.rows == (
        ("ocr@lines", "(all)", "0.1250", "0.5000"),
        ("ocr@lines", "ru", "0.2500", ""),
        ("ocr@lines", "kk", "", ""),
    )


def test_table_of_resources_says_what_to_keep_in_mind() -> None:
    """Slot, times, peaks and remarks of inference tasks; the peak is the most that was measured of it."""
    attempts = (AttemptRecord("a.1", "oom-gpu"), AttemptRecord("a.2", "ok"))
    gpu = TaskResult(
        "a",
        "inference",
        "a",
        "ok",
        slot="gpu0",
        load_s=2.0,
        wall_s=61.0,
        peak_ram_bytes=2**20,
        peak_tree_bytes=3 * 2**20,
        peak_gpu_tree_bytes=5 * 2**30,
        degraded=("batch 8",),
        attempts=attempts,
    )
    warm = TaskResult("b", "inference", "b", "ok", slot="gpu0", load_s=0.0, wall_s=1200.0, warm=True)
    reused = TaskResult("c", "inference", "c", "ok", slot="cpu", reused="20260102T030405Z-test-abc")
    (table,) = outcome_tables((gpu, warm, reused), ())[1:]
    assert table.columns == ("task", "slot", "load", "time", "RAM", "GPU", "remarks")
    assert table.rows == (
        ("a", "gpu0", "2.0 s", "61.0 s", "3 MiB", "5.0 GiB", "degraded, 2 attempts"),
        ("b", "gpu0", "", "20.0 min", "", "", "warm"),
        ("c", "cpu", "", "", "", "", "reused from 20260102T030405Z-test-abc"),
    )


def test_speeds_that_compare_with_no_others_are_marked() -> None:
    """What did other than it was asked has a star at its speeds, the reason below, and no part in a spread."""
    odd = replace(RESULTS[0], id="odd@lines#1", degraded=("2 batches failed",), speed_comparable=False)
    well = [replace(RESULTS[0], id=f"odd@lines#{number}") for number in (2, 3)]
    tables = {table.title: table for table in outcome_tables((odd, *well), EVALUATIONS)}
    assert [row[4:6] for row in tables["tasks"].rows] == [("12.3*", "3*"), ("12.3", "3"), ("12.3", "3")]
    assert [row[1:3] for row in tables["spread"].rows] == [("predict/s", "2"), ("task/s", "2")]
    assert speed_notes((odd, *well)) == (
        "items/s: predict/s counts the time inside predict alone, task/s the whole task, loading included",
        "* not comparable: odd@lines#1: 2 batches failed",
    )
    assert speed_notes(RESULTS[1:]) == ()


def test_memory_of_a_whole_card_is_marked() -> None:
    """Where the driver does not tell processes apart the figure is that of all who used the card."""
    result = TaskResult("a", "inference", "a", "ok", peak_gpu_tree_bytes=2**30, gpu_memory_of="card")
    assert outcome_tables((result,), ())[1].rows == (("a", "1.0 GiB (card)"),)


def test_table_of_resources_leaves_out_what_says_nothing() -> None:
    """On a machine without a GPU, where nothing is to be remarked, there are no columns for that."""
    plain = TaskResult("a", "inference", "a", "ok", slot="cpu", wall_s=1.0)
    (table,) = outcome_tables((plain,), ())[1:]
    assert table.columns == ("task", "slot", "time")


def test_repetitions_have_a_spread() -> None:
    """Mean and sample standard deviation of 0.10, 0.11, 0.15 are 0.12 and 0.026458, as R's mean and sd say."""
    results = [TaskResult(f"ocr@lines#{n}", "inference", "ocr", "ok", items_per_s=5.0) for n in (1, 2, 3)]
    figures = [
        Evaluation(result.id, f"text:{result.id}", "lines", {"cer": value})
        for result, value in zip(results, (0.10, 0.11, 0.15), strict=True)
    ]
    table = next(each for each in outcome_tables(results, figures) if each.title == "spread")
    assert table.rows == (
        ("ocr@lines", "cer", "3", "0.12", "0.026458", "0.1", "0.15"),
        ("ocr@lines", "predict/s", "3", "5", "0", "5", "5"),
    )
    assert not any(each.title == "spread" for each in outcome_tables(results[:1], figures[:1]))


def test_tables_fit_a_terminal_of_80_columns() -> None:
    """The demo's names and figures are shown without a word folded, in rows of 80 characters at most."""
    results = [
        TaskResult(
            f"ocr-rapid@{data}",
            "inference",
            "ocr-rapid",
            "ok",
            items=300,
            items_per_s=133.0,
            task_items_per_s=32.1,
            speed_comparable=False,
            slot="cpu",
            load_s=2.0,
            wall_s=7.0,
            peak_ram_bytes=2**29,
            peak_gpu_bytes=2**33,
            warm=True,
        )
        for data in ("lines", "digits")
    ]
    overall = {"cer": 0.1, "wer": 0.1, "anls": 0.1, "exact": 0.1}
    evaluations = [Evaluation(each.id, f"t:{each.id}", "d", overall, {"line-ru": overall}) for each in results]
    for table in outcome_tables(results, evaluations):
        rows = (table.columns, *table.rows)
        widths = [max(len(row[place]) for row in rows) for place in range(len(table.columns))]
        assert sum(widths) + 3 * len(widths) <= 80, table.title


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
    figures = outcome_tables(RESULTS[:1], (*EVALUATIONS, other))[1]
    assert figures.columns[-3:] == ("text.cer", "wer", "judge.cer")
    assert figures.rows[0][-3:] == ("0.1250", "0.5000", "0.5000")


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
        "ocr@lines: ok, 3/4 items, 12.3/s in predict, 3/s in all, 1.0 s",
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


@pytest.mark.parametrize("kind", [io.StringIO, Terminal])
def test_what_a_plugin_says_is_text_to_a_terminal(kind: type[io.StringIO]) -> None:
    """No escape sequence, no override of direction and no forged line comes through, from whatever field."""
    hostile = "\x1b[2J\x1b]0;t\x07\u202egpj\n[red]x: ok[/red]"
    stream = kind()
    with make_display(stream) as display:
        display.started(hostile, 4, hostile)
        display.progressed(hostile, 1, 0)
        display.noted(hostile, hostile)
        display.finished(TaskResult(hostile, "inference", "ocr", "failed", error=hostile))
    shown = stream.getvalue()
    assert not any(each in shown for each in ("\x1b[2J", "\x1b]0", "\x07", "\u202e", "\n[red]x: ok"))
    assert "\\x1b[2J" in shown


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
    failed, well = _outcome(), replace(_outcome(), tasks=(), profile="dev")
    assert runs_table([well]).rows == (("id", "demo", "failed", "", "2026"),)
    assert runs_table([replace(failed, profile="prod"), well]) == Table(
        "runs",
        ("run", "name", "profile", "status", "tasks ok", "failed items", "started (UTC)"),
        (("id", "demo", "prod", "failed", "1/4", "1", "2026"), ("id", "demo", "dev", "failed", "", "", "2026")),
    )
