"""What reports are told: when what ran where, what it used, what went wrong, and what made each figure."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from pipeline_bench import Bench

from pipeline.cli import execute_run, show_run
from pipeline.scheduler.reporting import History, read_events

CRASH = """
import sys

class Plugin:
    def load(self, context):
        pass

    def predict(self, batch):
        print("the driver said no: hf_abcdefghijklmnopqrstuvwxyz", file=sys.stderr, flush=True)
        import os
        os.abort()
"""


def _event(second: float, event: str, **facts: object) -> dict[str, object]:
    return {"time": f"2026-01-02T03:04:{second:06.3f}Z", "event": event, **facts}


def _attempt(number: int) -> dict[str, object]:
    return {"task": "ocr@lines", "attempt": f"ocr@lines.{number}", "slot": "gpu0"}


def test_timeline_has_every_attempt_with_its_end() -> None:
    """An attempt has its slot, its times and how it ended; one whose runner was killed ends where that fell silent."""
    events = [
        _event(0, "run-started"),
        _event(1, "attempt-started", **_attempt(1)),
        _event(5, "attempt-ended", **_attempt(1), status="oom-gpu", code="oom-gpu", load_s=1.5),
        _event(6, "attempt-started", **_attempt(2)),
        _event(9, "sample", **_attempt(2), ram_bytes=5, gpu_bytes=None),
        _event(40, "run-resumed"),
        _event(41, "attempt-started", **_attempt(3)),
        _event(42, "attempt-ended", **_attempt(3), status="ok", code=None, load_s=None),
    ]
    first, killed, last = History(events).timeline()
    assert first == {
        "slot": "gpu0",
        "task": "ocr@lines",
        "attempt": "ocr@lines.1",
        "session": 0,
        "start": "2026-01-02T03:04:01.000Z",
        "end": "2026-01-02T03:04:05.000Z",
        "load_s": 1.5,
        "status": "oom-gpu",
        "code": "oom-gpu",
    }
    assert (killed["end"], killed["status"], killed["code"]) == ("2026-01-02T03:04:09.000Z", "killed", "runner-gone")
    assert (last["session"], last["status"], last["load_s"]) == (1, "ok", None)


@pytest.mark.parametrize(("number", "points"), [(1, 1), (300, 300), (301, 151), (5000, 295)])
def test_samples_are_thinned_and_keep_peaks(number: int, points: int) -> None:
    """However long a task took, at most 300 points are told of it, and the most that it used is one of them."""
    events = [_event(0, "attempt-started", **_attempt(1))]
    events += [
        _event(index / 100, "sample", **_attempt(1), ram_bytes=9 if index == number // 2 else 1, gpu_bytes=index)
        for index in range(number)
    ]
    (curve,) = History(events).samples()
    told = curve["points"]
    assert isinstance(told, list)
    assert len(told) == points
    assert max(ram for _, ram, _ in told) == 9
    assert told[-1] == [(number - 1) / 100, told[-1][1], number - 1]


def test_torn_events_are_passed_over(tmp_path: Path) -> None:
    """A line that the runner did not finish, or that is no event, hides no other; without a file there is none."""
    path = tmp_path / "events.jsonl"
    assert list(read_events(path)) == []
    path.write_text('{"event": "run-started"}\n[1]\n{"no": "event"}\n{"event": "attempt-')
    assert [event["event"] for event in read_events(path)] == ["run-started"]
    assert History(read_events(path)).timeline() == []


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What the report of a run is told in which one task is done three times, and another crashes."""
    bench = Bench(tmp_path_factory.mktemp("bench"))
    bench.usual()
    bench.plugin("crash", CRASH)
    text = "repeat: 3\nretries: 0\ninference: [{plugin: echo}, {plugin: crash, params: {beam: 2}}]\n"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CUDA_VISIBLE_DEVICES", "")
        outcome = execute_run(bench.request(text + "eval: [{plugin: exact}]\nreport: [{plugin: page}]\n"))
    document: dict[str, Any] = json.loads(Path(show_run(bench.state, outcome.id).paths["report"]).read_text())
    return document


def _task(told: dict[str, Any], name: str) -> dict[str, Any]:
    return next(task for task in told["tasks"] if task["id"] == name)


def test_report_is_told_what_ran_when_and_what_was_repeated(told: dict[str, Any]) -> None:
    """Each attempt is on the timeline, and the repetitions of a task stand together."""
    assert {bar["slot"] for bar in told["timeline"]} == {"cpu"}
    assert {bar["task"] for bar in told["timeline"]} == {task["id"] for task in told["tasks"] if task["attempts"]}
    assert all(bar["start"] <= bar["end"] for bar in told["timeline"])
    assert told["repetitions"] == [
        {"name": f"{name}@lines", "data": "lines", "tasks": [f"{name}@lines#{number}" for number in (1, 2, 3)]}
        for name in ("echo", "crash")
    ]
    assert isinstance(told["samples"], list)


def test_report_is_told_the_evidence_of_a_failure(told: dict[str, Any]) -> None:
    """A task that crashed has its code, its attempts, its log by its place in the run, and what the log said last."""
    failed = _task(told, "crash@lines#1")
    assert (failed["status"], failed["code"]) == ("failed", "all-items-failed")
    assert failed["attempts"]
    assert failed["log"].startswith("logs/")
    assert failed["log"].endswith(".err.log")
    said = [line for line in failed["log_tail"] if "driver said no" in line]
    assert said
    assert all("hf_" not in line for line in said)
    assert _task(told, "echo@lines#1")["log_tail"] == []


def test_report_is_told_what_made_each_figure(told: dict[str, Any]) -> None:
    """A task's figures come with environment, data, parameters, seed, device, attempts, and what was judged."""
    made_by = _task(told, "crash@lines#2")["provenance"]
    assert made_by["environment"] == _task(told, "crash@lines#2")["environment"]
    assert made_by["params"] == {"beam": 2}
    assert made_by["data"]["name"] == "lines"
    assert made_by["data"]["items"] == 3
    assert len(made_by["data"]["digest"]) >= 12
    assert len(made_by["identity"]) == 64
    assert made_by["attempts"]
    assert made_by["seed"] == 0
    assert _task(told, "exact:echo@lines#3")["provenance"]["judged"] == "echo@lines#3"
