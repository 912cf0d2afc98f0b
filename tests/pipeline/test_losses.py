"""Plugins that hang at an item or die on it: what that costs, and how it goes on."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from pipeline_bench import EXACT

from pipeline.cli import execute_run

if TYPE_CHECKING:
    from pipeline_bench import Bench

    from pipeline.models import RunOutcome, TaskResult

CRASH = "import os; os._exit(7)"
SEGFAULT = "import ctypes; ctypes.string_at(0)"
KILL = "import os; os.kill(os.getpid(), 9)"
HANG = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(600)"


def _plugin(condition: str, deed: str) -> str:
    """A plugin that notes what it is asked, and does a deed where a condition on `ids` holds."""
    return f"""
from pathlib import Path

class Plugin:
    def load(self, context):
        pass

    def predict(self, batch):
        ids = [item.id for item in batch]
        with Path("../asked").open("a") as stream:
            stream.write("+".join(ids) + " ")
        if {condition}:
            {deed}
        return ["fine"] * len(batch)
"""


def _rows(number: int) -> str:
    return "id;question;answer;class\n" + "".join(f"{index};q;fine;a\n" for index in range(1, number + 1))


def _run(
    bench: Bench, source: str, extra: str = "", more: str = "", *, rows: int = 6
) -> tuple[TaskResult, RunOutcome, dict[str, str]]:
    """The task, the run, and the errors by item."""
    bench.plugin("bad", source)
    outcome = execute_run(bench.request(f"inference: [{{plugin: bad{extra}}}]\n{more}", _rows(rows)))
    lines = map(json.loads, (Path(outcome.paths["answers"]) / "bad@lines.jsonl").read_text().splitlines())
    return outcome.tasks[0], outcome, {line["item"]: line["error"] for line in lines if line["answer"] is None}


def _asked(outcome: RunOutcome) -> str:
    return (Path(outcome.paths["run"]) / "attempts" / "asked").read_text().strip()


def test_item_that_hangs_costs_one_item(bench: Bench) -> None:
    """A hanging item is recorded as failed, the next worker goes on after it, and the answers are judged."""
    bench.plugin("exact", EXACT, "eval")
    source = _plugin("'3' in ids", HANG)
    task, outcome, errors = _run(bench, source, ", item-timeout: 1s", "eval: [{plugin: exact}]")
    assert errors == {"3": "item-timeout: not answered within 1 s"}
    assert (task.status, task.code, task.failed_items) == ("ok", None, 1)
    assert [(each.status, each.code) for each in task.attempts] == [("timeout", "item-timeout"), ("ok", None)]
    assert _asked(outcome) == "1 2 3 4 5 6"
    assert (outcome.status, outcome.tasks[1].status) == ("failed", "ok")
    assert outcome.evaluations[0].overall == {"exact": 5 / 6}


def test_last_item_that_hangs_leaves_the_task_ok(bench: Bench) -> None:
    """Where nothing is left after the hanging item no further worker is started."""
    task, _, errors = _run(bench, _plugin("'6' in ids", HANG), ", item-timeout: 1s", "retries: 2")
    assert list(errors) == ["6"]
    assert (task.status, task.error, len(task.attempts)) == ("ok", "item-timeout: not answered within 1 s", 1)


def test_batch_that_hangs_is_offered_one_by_one(bench: Bench) -> None:
    """Of a batch with a hanging item only that item is lost, and the batches after it stay whole."""
    task, outcome, errors = _run(bench, _plugin("'2' in ids", HANG), ", item-timeout: 1s, batch: 2")
    assert list(errors) == ["2"]
    assert task.status == "ok"
    assert _asked(outcome) == "1+2 1 2 3+4 5+6"


@pytest.mark.parametrize(
    ("deed", "text"), [(CRASH, "exit status 7"), (KILL, "SIGKILL"), (SEGFAULT, "SIGSEGV")], ids=["exit", "kill", "segv"]
)
def test_item_that_kills_its_worker_costs_one_item(bench: Bench, deed: str, text: str) -> None:
    """However the worker dies on an item, that item fails with how it died, and the rest is answered."""
    task, outcome, errors = _run(bench, _plugin("'3' in ids", deed))
    assert list(errors) == ["3"]
    assert errors["3"].startswith("worker-crashed: the worker ")
    assert text in errors["3"]
    assert (task.status, task.failed_items) == ("ok", 1)
    assert _asked(outcome) == "1 2 3 4 5 6"


def test_deadly_item_is_tried_again_as_often_as_asked(bench: Bench) -> None:
    """Retries are spent on the item that killed its worker before it is given up; those answered are not asked again."""
    task, outcome, errors = _run(bench, _plugin("'2' in ids", KILL), more="retries: 2", rows=3)
    assert (list(errors), task.status, len(task.attempts)) == (["2"], "ok", 4)
    assert errors["2"].endswith("killed by SIGKILL")
    assert _asked(outcome) == "1 2 2 2 3"


def test_deadly_batch_is_offered_one_by_one(bench: Bench) -> None:
    """A batch on which the worker died is taken apart; one deadly item costs itself."""
    _, outcome, errors = _run(bench, _plugin("'2' in ids", CRASH), ", batch: 3")
    assert list(errors) == ["2"]
    assert _asked(outcome) == "1+2+3 1 2 3 4+5+6"


def test_plugin_that_bears_no_batches_gets_single_items(bench: Bench) -> None:
    """After three deadly batches whose items alone do no harm everything is offered alone, and the record says so."""
    task, outcome, errors = _run(bench, _plugin("len(ids) > 1", CRASH), ", batch: 2", rows=10)
    assert not errors
    assert outcome.ok
    assert _asked(outcome) == "1+2 1 2 3+4 3 4 5+6 5 6 7 8 9 10"
    assert "all that is left one by one" in task.degraded[-1]


def test_plugin_that_always_dies_is_given_up(bench: Bench) -> None:
    """After ten items in a row that cost a worker each the task has failed, and the rest is not tried."""
    task, outcome, errors = _run(bench, _plugin("True", CRASH), rows=40)
    assert (task.status, task.code, task.failed_items, task.left_items) == ("failed", "worker-crashed", 10, 30)
    assert "gave up: 10 of 10 items tried cost a worker each" in str(task.error)
    assert (len(errors), len(task.attempts)) == (10, 10)
    assert outcome.status == "failed"


def test_plugin_that_dies_most_of_the_time_is_given_up(bench: Bench) -> None:
    """Where more than half of what was tried costs a worker, an answer now and then does not keep the task going."""
    task, _, errors = _run(bench, _plugin("int(ids[0]) % 4 != 0", KILL), rows=40)
    assert (task.status, task.code, len(errors)) == ("killed", "worker-killed", 10)
    assert "10 of 13 items tried" in str(task.error)


def test_task_of_which_every_item_hangs_has_timed_out(bench: Bench) -> None:
    """Where no item at all was answered in time the task's status says so."""
    task, _, errors = _run(bench, _plugin("True", HANG), ", item-timeout: 300ms", rows=2)
    assert (task.status, task.code, len(errors)) == ("timeout", "all-items-failed", 2)


def test_crash_before_the_first_item_is_nobodys(bench: Bench) -> None:
    """A worker that dies while loading costs no item; after the retries the task has failed."""
    source = _plugin("False", "pass").replace("        pass\n", f"        {CRASH}\n", 1)
    bench.plugin("bad", source)
    (task,) = execute_run(bench.request("inference: [{plugin: bad}]\nretries: 1")).tasks
    assert (task.status, task.code, len(task.attempts)) == ("failed", "worker-crashed", 2)


def test_time_of_the_task_is_not_given_anew_after_a_loss(bench: Bench) -> None:
    """The task's own time limit goes on over lost items, and ends the task."""
    source = _plugin("True", HANG)
    task, _, errors = _run(bench, source, ", item-timeout: 1s, timeout: 4s", rows=9)
    assert (task.status, task.code) == ("timeout", "timeout")
    assert task.error == "did not end within 4 s"
    assert len(errors) < 4


def test_command_that_hangs_ends_its_task(bench: Bench) -> None:
    """A program gets all items at once: which of them it hangs at is not known, so its time limit ends the task."""
    bench.command("say", "import time\ntime.sleep(600)\n")
    request = bench.request("inference: [{plugin: say, item-timeout: 300ms}]")
    (task,) = execute_run(request).tasks
    assert (task.status, task.code, len(task.attempts)) == ("timeout", "item-timeout", 1)
