"""What a page shows of a document that says more than the contract asks for."""

from pathlib import Path
from typing import Any

import pytest
from conftest import Render
from documents import eventful, record, repeated, small, task
from test_page import HOSTILE, Page

from html_report.provenance import read_origins
from html_report.repeats import spread_rows
from html_report.results import read_metrics, read_results


def test_dev_run_names_its_checkouts(render: Render, tmp_path: Path) -> None:
    """The first thing after the headline is that this is a dev run, with the commit and the digest of the edits."""
    page = Page(render(eventful(tmp_path)))
    assert "A dev run: its sources were not held to released tags. Code came from this checkout:" in page.text
    assert "packages/ocr-crnn at d7b17dba2b22, edited, difference 9e1c9e1c9e1c" in page.text
    assert page.text.index("A dev run") < page.text.index("Lowest CER")


def test_figures_lead_to_what_made_them(render: Render, tmp_path: Path) -> None:
    """Each row of figures refers to its tasks; these are told with environment, lock, commit, data, device and identity."""
    page = Page(render(eventful(tmp_path)))
    links = {link["href"] for link in page.all("a") if link.get("class") == "ref"}
    assert links == {f"#made-{number}" for number in (1, 2, 3, 4, 5)}
    for part in (
        "Lock sha256:" + "ef9b" * 16,
        "https://git.example.org/ocr-crnn.git v0.1.0 commit d7b17dba2b22925a34eb4d4915ffb09134766425",
        "Data lines " + "a1b2" * 16,
        "Parameters beam: 4",
        "Attempts ocr-crnn-1.1",
        "Identity " + "c3d4" * 16,
        "Measured tokens 18,234, confidence 0.931",
    ):
        assert part in page.text
    numbers = [cell for cell in page.all("td") if (cell.get("class") or "").startswith("num") and "title" in cell]
    assert len(numbers) > 30
    assert any(
        "T1: ocr-crnn-1, attempt ocr-crnn-1.1, environment 9c41d07be2" in (cell["title"] or "") for cell in numbers
    )


def test_failures_come_with_their_evidence(render: Render, tmp_path: Path) -> None:
    """A failed task has its code, its attempts with signals and kills, its log's place, and what that said last."""
    text = Page(render(eventful(tmp_path))).text
    for part in (
        "oom-killed",
        "signal 9, killed for want of memory: 2 in the cgroup",
        "logs/vlm-large.1.err.log",
        "Загрузка весов…",
    ):
        assert part in text


def test_marks_stand_beside_the_figures(render: Render, tmp_path: Path) -> None:
    """Warm, reused, degraded and retried results are marked in the table, and told of above it."""
    page = Page(render(eventful(tmp_path)))
    badges = [
        (span.get("class") or "").split()[1:] for span in page.all("span") if "badge" in (span.get("class") or "")
    ]
    assert {name for names in badges for name in names} == {"warm", "reused", "degraded", "more"}
    assert "The results of 1 of 6 tasks are not from this run" in page.text
    assert "20261102T200000Z-document-lines-aa11bb" in page.text
    assert "1 of 6 tasks ended well only after something had gone wrong" in page.text
    assert "CUDA out of memory with a batch of 16: goes on with 8" in page.text


def test_repetitions_are_one_model_with_a_spread() -> None:
    """Means and spread of 0.10, 0.11, 0.15: mean 0.12, standard deviation (n - 1) 0.02646, as R's mean and sd say."""
    document = repeated((0.10, 0.11, 0.15))
    (result,) = read_results(document)
    (metric,) = read_metrics(document)
    assert result.model == "ocr-a"
    assert result.overall[metric] == pytest.approx(0.12)
    assert len(result.latencies) == 6
    assert len(result.records) == 2
    (row,) = spread_rows([result], [metric])
    assert (row.cells[0].mean, row.cells[0].range, row.cells[0].count) == ("0.120 ± 0.026", "0.100 to 0.150", 3)


def test_equal_repetitions_have_no_spread(render: Render) -> None:
    """Where all repetitions agree, the spread is 0 and not a rounded figure."""
    text = Page(render(repeated((0.25, 0.25)))).text
    assert "0.250 ± 0 0.250" in text


def test_repetition_that_failed_is_left_out_of_the_mean(render: Render) -> None:
    """Of three repetitions one failed: figures are those of two, which is said, and the status is the failure's."""
    document = repeated((0.1, 0.2, 0.3))
    broken = document["tasks"][2]
    tasks = [*document["tasks"][:2], {**broken, "status": "timeout"}, document["tasks"][3]]
    left = [each for each in document["evaluations"] if each["inference"] != broken["id"]]
    page = Page(render({**document, "tasks": tasks, "evaluations": left}))
    assert "0.150 ± 0.071 0.100 to 0.200, n = 2" in page.text
    assert "1 of 4 tasks did not end well: ocr-a (timeout)" in page.text


def test_hostile_evidence_is_shown_and_not_obeyed(render: Render, tmp_path: Path) -> None:
    """Markup in logs, slots, attempts, paths of checkouts and provenance ends up as text."""
    document = eventful(tmp_path)
    hostile = {
        "log": HOSTILE,
        "log_tail": [HOSTILE],
        "slot": HOSTILE,
        "degraded": [HOSTILE],
        "metrics": {HOSTILE: 1.0},
        "reused": HOSTILE,
        "status": "failed",
        "code": HOSTILE,
        "attempts": [{"id": HOSTILE, "status": HOSTILE, "error": HOSTILE, "oom_kills": {HOSTILE: 1}}],
        "provenance": {
            "pin": {"commit": HOSTILE},
            "source": {"url": HOSTILE, "ref": HOSTILE},
            "data": {"digest": HOSTILE},
        },
    }
    bars = [{**bar, "slot": HOSTILE, "task": HOSTILE, "attempt": HOSTILE} for bar in document["timeline"]]  # type: ignore[typeddict-item]
    changed = {
        **document,
        "tasks": [{**each, **hostile} for each in document["tasks"]],
        "timeline": bars,
        "run": {**document["run"], "code": {HOSTILE: {"commit": HOSTILE}}},
    }
    changed["records"] = [{**each, "answer": "\x1b[31m\u202egpj.exe\u2066"} for each in document["records"]]  # type: ignore[typeddict-item]
    page = Page(render(changed))
    assert "\\u202egpj.exe" in page.text
    assert not set(page.source) & set("\x1b\u202e\u2066")
    assert len(page.all("script")) == 3
    assert all("onerror" not in attributes for _, attributes in page.found)
    assert "alert(1)" in page.text


ODD: list[object] = [None, 7, "text", [], {}, [None], {"x": None}, [{}], float("nan")]


@pytest.mark.parametrize("odd", ODD, ids=repr)
def test_odd_values_beyond_the_contract_are_passed_over(render: Render, odd: object) -> None:
    """Whatever stands where the contract says nothing, the page is whole."""
    keys = (
        "code",
        "slot",
        "warm",
        "reused",
        "degraded",
        "metrics",
        "peak_gpu_bytes",
        "log_tail",
        "attempts",
        "provenance",
    )
    tasks = [dict(task("ocr-a", items=2)) | dict.fromkeys(keys, odd)]
    document: dict[str, Any] = {**small(tasks=tasks), **dict.fromkeys(("timeline", "samples", "repetitions"), odd)}
    document["run"] = {**document["run"], "code": odd}
    assert "Everything that the run did" in Page(render(document)).text


def test_old_documents_have_their_provenance(render: Render) -> None:
    """A document without anything beyond the contract still says by which tasks and environments figures were made."""
    document = small()
    assert read_origins(document)["ocr-a"].brief == "ocr-a, environment 9c41d07be2, CPU"
    page = Page(render(document))
    assert not page.all("svg")
    assert "Timeline" not in page.text
    assert "Spread" not in page.text
    assert "Environment 9c41d07be2" in page.text


def test_records_of_repetitions_are_not_counted_twice(render: Render) -> None:
    """The number of a class's items is that of the data set."""
    document = repeated((0.1, 0.2))
    records = [record(str(item), "x", task=each["id"]) for each in document["tasks"][:2] for item in (1, 2)]
    assert "2 items" in Page(render({**document, "records": records})).text


def test_many_failures_are_named_in_a_line(render: Render) -> None:
    """Tasks of one plugin that ended alike are counted, and beyond six kinds the rest are a number."""
    alike = [task(f"a{number}", plugin="a", status="timeout") for number in range(30)]
    others = [task(f"b{number}", status="failed") for number in range(7)]
    text = Page(render(small(tasks=[*alike, *others]))).text
    assert "37 of 37 tasks did not end well: a (timeout) 30×, b0 (failed)" in text
    assert "b4 (failed), and 2 more." in text
