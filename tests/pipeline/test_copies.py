"""Plugins that fork: only the worker speaks and answers; its copies end as what they did ends them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from pipeline_bench import ECHO, EXACT, REPORT

from pipeline.cli import execute_run

if TYPE_CHECKING:
    from pipeline_bench import Bench

    from pipeline.models import RunOutcome

# Each question is a way in which a copy ends; its answer is what the worker sees of that.
WAYS = """
import ctypes, multiprocessing, os, pty, signal, sys, threading

class Plugin:
    def load(self, context):
        self.context = context

    def predict(self, batch):
        return [self.ended(item.question) for item in batch]

    def ended(self, way):
        if hasattr(self, way):
            return getattr(self, way)()
        child = {"pty": lambda: pty.fork()[0], "in C": ctypes.PyDLL(None).fork}.get(way, os.fork)()
        return self.seen(child) if child else self.end(way)

    def seen(self, child):
        status = os.waitpid(child, 0)[1]
        return str(os.WEXITSTATUS(status) if os.WIFEXITED(status) else -os.WTERMSIG(status))

    def end(self, way):
        self.context.log("from a copy")
        self.context.progress(1, 2)
        self.context.metric("copies", 1)
        if way == "raise":
            raise ValueError("in a copy")
        if way == "base":
            raise BaseException("in a copy")
        if way == "exit":
            sys.exit(3)
        if way == "word":
            sys.exit("in a word")
        if way == "leave":
            os._exit(4)
        if way == "term":
            signal.raise_signal(signal.SIGTERM)
        if way == "again" and os.fork():
            return "from the copy of it"
        return "from a copy"

    def process(self):
        child = multiprocessing.get_context("fork").Process(target=self.end, args=("exit",))
        child.start()
        child.join()
        return str(child.exitcode)

    def ending(self):
        child = multiprocessing.get_context("fork").Process(target=signal.pause)
        child.start()
        child.terminate()
        child.join()
        return str(child.exitcode)

    def pool(self):
        with multiprocessing.get_context("fork").Pool(2) as pool:
            return " ".join(pool.map(self.end, ["return", "return"]))

    def thread(self):
        seen = []
        def fork():
            child = os.fork()
            seen.append(self.seen(child) if child else self.end("return"))
        thread = threading.Thread(target=fork)
        thread.start()
        thread.join()
        return seen[0]
"""
ENDS = {
    "return": "0",
    "raise": "1",
    "base": "1",
    "exit": "3",
    "word": "1",
    "leave": "4",
    "term": "-15",
    "again": "0",
    "pty": "0",
    "in C": "0",
    "process": "3",
    "ending": "-15",
    "pool": "from a copy from a copy",
    "thread": "0",
}


def _rows(questions: list[str]) -> str:
    return "id;question;answer;class\n" + "".join(f"{each};{each};;a\n" for each in questions)


def _unexpected(outcome: RunOutcome) -> list[str]:
    events = Path(outcome.paths["run"], "events.jsonl").read_text().splitlines()
    return [event for event in events if json.loads(event)["event"] == "unexpected-answer"]


def test_a_copy_that_predict_makes_ends_and_says_nothing(bench: Bench) -> None:
    """However it ends, its status is its own, and the worker's answers are the only ones."""
    bench.plugin("forks", WAYS)
    outcome = execute_run(bench.request("inference: [{plugin: forks, batch: 4}]", _rows(list(ENDS))))
    (task,) = outcome.tasks
    lines = Path(outcome.paths["answers"], "forks@lines.jsonl").read_text().splitlines()
    assert {line["item"]: line["answer"] for line in map(json.loads, lines)} == ENDS
    assert len(lines) == len(ENDS)
    assert [(each.status, each.anomalies) for each in task.attempts] == [("ok", {})]
    assert (task.notes, task.metrics, task.degraded, _unexpected(outcome)) == ((), {}, (), [])
    assert "ValueError: in a copy" in Path(str(task.log)).read_text()


@pytest.mark.parametrize(
    "source",
    [
        "import os\nif os.fork():\n    os.wait()\n" + ECHO,
        ECHO.replace("self.context = context", "self.context = context\n        import os; os.fork() and os.wait()"),
        ECHO.replace(
            "    def load", "    def __init__(self):\n        import os; os.fork() and os.wait()\n\n    def load"
        ),
        "import os\n" + ECHO.replace("return [", "yield from [(os.fork() and os.wait()) and ") + "\n",
    ],
    ids=["import", "load", "constructor", "generator"],
)
def test_a_copy_that_is_made_elsewhere_ends_too(bench: Bench, source: str) -> None:
    """A copy that comes back from an import, from loading or from a generator does none of the worker's work."""
    bench.plugin("forks", source)
    outcome = execute_run(bench.request("inference: [{plugin: forks}]"))
    (task,) = outcome.tasks
    assert task.ok, task.error
    assert [each.anomalies for each in task.attempts] == [{}]
    assert len(Path(outcome.paths["answers"], "forks@lines.jsonl").read_text().splitlines()) == 3
    assert _unexpected(outcome) == []


def test_a_copy_of_a_judge_or_a_report_ends_too(bench: Bench) -> None:
    """Figures and reports are the worker's, also where a copy comes back before it or after it."""
    bench.plugin("echo", ECHO)
    fork = "\n        import os; os.fork() and os.wait()\n"
    bench.plugin(
        "exact", EXACT.replace("    def evaluate(self, records):\n", f"    def evaluate(self, records):{fork}"), "eval"
    )
    bench.plugin(
        "page", REPORT.replace("    def render(self, report):\n", f"    def render(self, report):{fork}"), "report"
    )
    text = "inference: [{plugin: echo}]\neval: [{plugin: exact}]\nreport: [{plugin: page}]"
    outcome = execute_run(bench.request(text))
    assert outcome.ok, outcome.problems
    assert [attempt.anomalies for task in outcome.tasks for attempt in task.attempts] == [{}, {}, {}]
    assert outcome.evaluations[0].overall == {"exact": 2 / 3}
