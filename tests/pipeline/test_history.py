"""What is told of runs afterwards, whatever became of them."""

from __future__ import annotations

import csv
import io
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from pipeline_bench import ECHO, EXACT, child_environment, wait_for

from pipeline.cli import execute_run, export_csv, follow_run, list_runs, show_run
from pipeline.errors import RecordError, UnknownRunError
from pipeline.layout import write_environments
from pipeline.models import Silence
from pipeline.render import runs_table

if TYPE_CHECKING:
    from pipeline_bench import Bench

    from pipeline.models import RunOutcome, TaskResult

USUAL = """
inference: [{plugin: echo, batch: 2}]
eval: [{plugin: exact}]
report: [{plugin: page}]
"""

HANG_AT_3 = """
import time

class Plugin:
    def load(self, context):
        pass

    def predict(self, batch):
        if batch[0].id == "3":
            time.sleep(600)
        return [item.question for item in batch]
"""

RUNNER = """
import sys
from pathlib import Path
from pipeline.cli import RunRequest, execute_run
from pipeline.layout import read_environments

environments, run_file, state = map(Path, sys.argv[1:])
execute_run(RunRequest(run_file, read_environments(environments), state, grace_s=0.5))
"""


def _journal(bench: Bench, task: str) -> Path:
    return bench.state / "runs" / "latest" / "answers" / f"{task}.jsonl"


def _kill_run(bench: Bench) -> RunOutcome:
    """Kill the runner of a run once two items are answered; gives what was shown of it before."""
    bench.usual()
    bench.plugin("hang", HANG_AT_3)
    request = bench.request(USUAL.replace("echo, batch: 2", "hang"))
    write_environments(bench.root / "environments.json", bench.environments)
    script = bench.write("runner.py", RUNNER)
    argv = (sys.executable, str(script), str(bench.root / "environments.json"), str(request.run_file), str(bench.state))
    path = _journal(bench, "hang@lines")
    with subprocess.Popen(argv, env=child_environment(), start_new_session=True) as runner:
        wait_for(lambda: path.exists() and path.read_bytes().count(b"\n") == 2, "two answers")
        before = show_run(bench.state)
        runner.send_signal(signal.SIGKILL)
        runner.wait(60)
    return before


def test_live_run_shows_every_task(bench: Bench) -> None:
    """While a run goes on each planned task is there, at work or waiting, and nothing is called a problem."""
    before = _kill_run(bench)
    assert before.status == "running"
    assert [(task.id, task.status) for task in before.tasks] == [
        ("hang@lines", "running"),
        ("exact:hang@lines", "pending"),
        ("page", "pending"),
    ]
    assert not before.problems


def test_killed_run_shows_its_tasks_and_exports_its_answers(bench: Bench) -> None:
    """What was at work is killed, the rest not started; no item that was never asked counts as failed."""
    _kill_run(bench)
    outcome = show_run(bench.state)
    assert outcome.status == "killed"
    assert [task.status for task in outcome.tasks] == ["killed", "pending", "pending"]
    assert {task.code for task in outcome.tasks} == {"runner-gone"}
    assert (outcome.tasks[0].items, outcome.tasks[0].failed_items) == (3, 0)
    assert "2 of 3 items answered" in str(outcome.tasks[0].error)
    (problem,) = outcome.problems
    assert (problem.code, problem.severity) == ("runner-gone", "error")
    assert "0 of 3 tasks had ended" in problem.message
    assert "hang@lines: the runner was gone before the task had ended, 2 of 3 items answered" in problem.message
    assert outcome.tables[0].rows[0][:4] == ("hang@lines", "killed, 1 left", "3", "0")
    assert {row[1] for row in outcome.tables[0].rows[1:]} == {"not started"}
    assert list_runs(bench.state) == (outcome,)
    export = export_csv(bench.state)
    assert [path.read_text() for path in export] == ["id;model_answer\n1;one\n2;two\n"]
    assert [problem.code for problem in export.problems] == ["items-left-out"]
    assert "1 of 3 items have no answer" in export.problems[0].message


def test_torn_line_of_a_killed_run_is_told(bench: Bench) -> None:
    """A line that the runner was killed in is left out, and said to be."""
    _kill_run(bench)
    path = _journal(bench, "hang@lines")
    path.write_bytes(path.read_bytes()[:-5])
    problem = show_run(bench.state).problems[-1]
    assert (problem.code, problem.severity) == ("answers-damaged", "warning")
    export = export_csv(bench.state)
    assert export.paths[0].read_text() == "id;model_answer\n1;one\n"
    assert [problem.code for problem in export.problems] == ["answers-damaged", "items-left-out"]


def _answers(table: Path) -> list[str]:
    return [row[1] for row in csv.reader(io.StringIO(table.read_text()), delimiter=";")][1:]


def test_exported_cells_compute_nothing(bench: Bench) -> None:
    """What a spreadsheet would take for a formula gets an apostrophe, which is told; numbers stay, and so does all with raw."""
    answers = ["=1+1", "-5", "+3.2", "@SUM(A1)", "-1e5", "- item", "\t=2", "plain", "-", "\uff1d1"]
    bench.plugin(
        "echo", f"ANSWERS = {answers!r}\n" + ECHO.replace("[item.question for item", "[ANSWERS[int(item.id)] for item")
    )
    bench.plugin("exact", EXACT.replace("record.item.doc_class", "'=cmd()'"), "eval")
    rows = "".join(f"{number};q;a\n" for number in range(len(answers)))
    text = "inference: [{plugin: echo, batch: 4}]\neval: [{plugin: exact}]"
    run = execute_run(bench.request(text, f"id;question;answer\n{rows}"))
    export = export_csv(bench.state)
    cells = _answers(export.paths[0])
    quoted = {"=1+1", "@SUM(A1)", "- item", "\t=2", "\uff1d1"}
    assert cells == [f"'{answer}" if answer in quoted else answer for answer in answers]
    assert [(each.code, each.severity) for each in export.problems] == [("cells-quoted", "warning")]
    raw = export_csv(bench.state, raw=True)
    assert _answers(raw.paths[0]) == answers
    assert raw.problems == ()
    metrics = (bench.state / "runs" / run.id / "metrics" / "metrics.csv").read_text()
    assert ",'=cmd()," in metrics


class Watcher(Silence):
    """Writes down what it is told."""

    def __init__(self) -> None:
        self.told: list[tuple[object, ...]] = []

    def started(self, task: str, items: int, device: str) -> None:
        self.told.append(("started", task, items, device))

    def progressed(self, task: str, done: int, failed: int) -> None:
        self.told.append(("progressed", task, done, failed))

    def finished(self, result: TaskResult) -> None:
        self.told.append(("finished", result.id, result.status))


def test_run_can_be_watched_from_elsewhere(bench: Bench) -> None:
    """Who follows a run that goes on is told of its tasks, their progress and their end, and then of the whole."""
    source = ECHO.replace(
        "return [",
        "import time\n        from pathlib import Path\n"
        "        while batch[0].id == '2' and not Path('../go').exists(): time.sleep(0.01)\n        return [",
    )
    bench.plugin("echo", source)
    request = bench.request("inference: [{plugin: echo}]")
    runner = threading.Thread(target=execute_run, args=(request,))
    runner.start()
    wait_for((bench.state / "runs" / "latest" / "attempts").is_dir, "the run")
    watcher = Watcher()

    def go_on_when_seen() -> None:
        wait_for(lambda: ("progressed", "echo@lines", 1, 0) in watcher.told, "the first item to be told")
        (bench.state / "runs" / "latest" / "attempts" / "go").touch()

    going_on = threading.Thread(target=go_on_when_seen)
    going_on.start()
    outcome = follow_run(bench.state, None, watcher)
    going_on.join()
    runner.join()
    assert outcome.ok
    assert watcher.told[0] == ("started", "echo@lines", 3, "cpu")
    assert watcher.told[-1] == ("finished", "echo@lines", "ok")


def test_runs_can_be_listed_shown_and_exported(bench: Bench) -> None:
    """A finished run is found by the ends of its id, is shown as it was, and its answers become tables."""
    bench.usual()
    first, second = execute_run(bench.request(USUAL)), execute_run(bench.request(USUAL))
    assert {outcome.id for outcome in list_runs(bench.state)} == {first.id, second.id}
    assert show_run(bench.state, first.id) == first
    assert show_run(bench.state, first.id.rsplit("-", 1)[1]) == first
    (table,) = export_csv(bench.state, first.id)
    assert table.read_text() == "id;model_answer\n1;one\n2;two\n3;three\n"
    with pytest.raises(UnknownRunError, match="no run 'never'"):
        show_run(bench.state, "never")
    with pytest.raises(UnknownRunError, match="of 2 runs: "):
        show_run(bench.state, "2")


@pytest.mark.parametrize("content", ["{", "[]", "{}", '{"status": "ok", "tasks": 1}', "\xff", None])
def test_damaged_run_is_listed_and_told(bench: Bench, content: str | None) -> None:
    """A run whose record is damaged or gone is in the list as such, and shown as an error that names it."""
    bench.usual()
    kept = execute_run(bench.request(USUAL))
    lost = execute_run(bench.request(USUAL.replace("report: [{plugin: page}]", "")))
    path = bench.state / "runs" / lost.id / "run.json"
    # Two runs of one second sort by chance: let the damaged one be the latest.
    lost_id = "2" + "9" * 3 + lost.id[4:]
    path.parent.rename(path.parent.parent / lost_id)
    path = path.parent.parent / lost_id / "run.json"
    if content is None:
        path.unlink()
    else:
        path.write_bytes(content.encode("latin-1"))
    good, damaged = list_runs(bench.state)
    assert (good.id, good.status) == (kept.id, "ok")
    assert (damaged.id, damaged.status, damaged.ok, damaged.name) == (lost_id, "damaged", False, "test")
    assert damaged.started.startswith("2999-")
    assert damaged.problems[0].where == str(path)
    assert runs_table([damaged]).rows[0][:4] == (lost_id, "test", "damaged", "")
    for call in (show_run, export_csv):
        with pytest.raises(RecordError, match=lost_id) as caught:
            call(bench.state)
        assert caught.value.hint == "envbuilder runs list"
    assert show_run(bench.state, kept.id) == kept


def test_other_folders_are_no_runs(bench: Bench) -> None:
    """What is not named as a run is none."""
    (bench.state / "runs" / "notes").mkdir(parents=True)
    assert list_runs(bench.state) == ()


@pytest.mark.parametrize("way", ["gone", "emptied", "cut"])
def test_answers_that_are_gone_are_told(bench: Bench, way: str) -> None:
    """Answers that the record counts and the disk has not are a problem, and never an empty table."""
    bench.plugin("echo", ECHO)
    outcome = execute_run(bench.request("inference: [{plugin: echo}]"))
    path = Path(outcome.paths["answers"]) / "echo@lines.jsonl"
    if way == "gone":
        path.unlink()
    else:
        path.write_text("" if way == "emptied" else path.read_text().splitlines(keepends=True)[0])
    (problem,) = show_run(bench.state).problems
    assert (problem.code, problem.where) == ("answers-missing", str(path))
    if way == "cut":
        export = export_csv(bench.state)
        assert export.paths[0].read_text() == "id;model_answer\n1;one\n"
        assert [each.code for each in export.problems] == ["answers-missing", "items-left-out"]
        return
    with pytest.raises(RecordError, match="3 items were answered, 0 of them are in the answers file"):
        export_csv(bench.state)
    assert not list(bench.state.rglob("*.csv"))


def test_export_without_any_answer_is_an_error(bench: Bench) -> None:
    """A run without an answer has nothing to export, and that is said instead of a table without rows."""
    bench.plugin("bad", "import module_that_nobody_has")
    execute_run(bench.request("inference: [{plugin: bad}]"))
    with pytest.raises(RecordError, match="nothing to export: no item has an answer"):
        export_csv(bench.state)


COMMAND = """
import json, os
context = json.load(open(os.environ["ENVBUILDER_CONTEXT"]))
with open(context["answers"], "w") as out:
    for item in reversed(context["items"]):
        out.write(json.dumps({"item": item["id"], "answer": "" if item["id"] == "3" else item["question"]}) + "\\n")
"""


def test_exported_rows_are_in_the_data_sets_order(bench: Bench) -> None:
    """However answers came, rows are in the data set's order; failed items have none, empty answers have one."""
    bench.command("say", COMMAND.replace("\\\\", "\\"))
    bench.write("here.png", "bytes")
    rows = "id,image,question,answer\n9,here.png,nine,x\n2,gone.png,two,y\n3,here.png,three,z\n1,here.png,one,o\n"
    outcome = execute_run(bench.request("inference: [{plugin: say}]", rows))
    export = export_csv(bench.state, outcome.id, folder=bench.root / "out" / "tables")
    assert export.paths == (bench.root / "out" / "tables" / "say@lines.csv",)
    assert export.paths[0].read_text() == "id;model_answer\n9;nine\n3;\n1;one\n"
    (problem,) = export.problems
    assert (problem.code, problem.severity) == ("items-left-out", "warning")
    assert "1 of 4 items" in problem.message
