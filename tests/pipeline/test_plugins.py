"""Plugins that behave badly, each through a whole run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from pipeline_bench import ECHO, EXACT, is_alive, wait_for

from pipeline.cli import execute_run

if TYPE_CHECKING:
    from pipeline_bench import Bench

    from pipeline.models import RunOutcome, TaskResult


def _run(bench: Bench, source: str, extra: str = "", more: str = "") -> tuple[TaskResult, RunOutcome]:
    bench.plugin("bad", source)
    outcome = execute_run(bench.request(f"inference: [{{plugin: bad{extra}}}]\n{more}"))
    return outcome.tasks[0], outcome


def _answers(outcome: RunOutcome, task: str = "bad@lines") -> dict[str, dict[str, object]]:
    path = Path(outcome.paths["answers"]) / f"{task}.jsonl"
    return {line["item"]: line for line in map(json.loads, path.read_text().splitlines())}


def _predict(body: str) -> str:
    """A plugin whose `predict` has that body."""
    lines = "".join(f"        {line}\n" for line in body.splitlines())
    return f"class Plugin:\n    def load(self, context):\n        pass\n\n    def predict(self, batch):\n{lines}"


@pytest.mark.parametrize(
    ("source", "code", "text"),
    [
        ("import module_that_nobody_has", "plugin-import-failed", "ModuleNotFoundError"),
        ("raise SystemExit(3)", "plugin-import-failed", "SystemExit: 3"),
        ("def broken(:", "plugin-import-failed", "SyntaxError"),
        ("Other = 1", "plugin-invalid", "no attribute 'Plugin'"),
        ("Plugin = 1", "plugin-invalid", "expected a class, found int"),
        ("class Plugin: pass", "plugin-invalid", "Plugin has no method predict()"),
        ("class Plugin:\n    def predict(self, batch): return []", "plugin-invalid", "no method load()"),
        ("class Plugin:\n    def __init__(self, need): pass", "plugin-load-failed", "TypeError"),
        (
            _predict("").replace("pass", "raise OSError('no weights')") + "        pass",
            "plugin-load-failed",
            "no weights",
        ),
        (
            _predict("return ['one'] * 4"),
            "all-items-failed",
            "plugin-invalid: predict() got 1 items and gave 4 answers",
        ),
        (_predict("return 'one'"), "all-items-failed", "plugin-invalid: expected a list of answers, found str"),
        (_predict("return [1, 2, 3]"), "all-items-failed", "plugin-invalid: expected str or Answer, found int"),
    ],
    ids=lambda value: value if isinstance(value, str) and len(value) < 40 and value.isascii() else None,
)
def test_plugin_that_is_none_fails_its_task(bench: Bench, source: str, code: str, text: str) -> None:
    """What cannot be imported, created or believed is a failure with its reason, and is not tried again."""
    task, outcome = _run(bench, source, ", batch: 3", "retries: 2")
    assert (task.status, task.code) == ("failed", code)
    assert text in str(task.error)
    assert len(task.attempts) == 1
    assert outcome.problems[0].where == task.log
    assert Path(str(task.log)).exists()


def test_item_that_raises_costs_one_item(bench: Bench) -> None:
    """A batch that raises is offered again item by item; the reason stays with the item, the traceback in the log."""
    body = (
        "if any(item.id == '2' for item in batch):\n    raise ValueError('not an image')\nreturn ['fine'] * len(batch)"
    )
    task, outcome = _run(bench, _predict(body), ", batch: 3")
    answers = _answers(outcome)
    assert {name: line["answer"] for name, line in answers.items()} == {"1": "fine", "2": None, "3": "fine"}
    assert answers["2"]["error"] == "ValueError: not an image"
    assert (task.status, task.failed_items) == ("ok", 1)
    assert "Traceback" in Path(str(task.log)).read_text()


def test_answer_of_a_wrong_type_costs_its_item(bench: Bench) -> None:
    """What is no answer, or holds what cannot be kept, fails its item and no other of its batch."""
    body = (
        "from types import SimpleNamespace as Answer\n"
        "class Odd:\n    def tolist(self): raise ValueError('not now')\n"
        "return [None, Answer(text='fine', extra={'odd': Odd()}), 'fine']"
    )
    task, outcome = _run(bench, _predict(body), ", batch: 3")
    told = {name: (line["answer"], line["error"]) for name, line in _answers(outcome).items()}
    assert told == {
        "1": (None, "plugin-invalid: expected str or Answer, found NoneType"),
        "2": (None, "plugin-invalid: ValueError: not now"),
        "3": ("fine", None),
    }
    assert (task.status, task.failed_items) == ("ok", 2)


def test_wrong_number_of_answers_is_asked_again_one_by_one(bench: Bench) -> None:
    """A batch with fewer answers than items is offered again item by item, as one that raises is."""
    task, outcome = _run(bench, _predict("return [batch[0].question]"), ", batch: 3")
    assert task.ok
    assert [line["answer"] for line in _answers(outcome).values()] == ["one", "two", "three"]


def test_plugin_that_fails_at_every_item_fails(bench: Bench) -> None:
    """A task without a single answer is not ok, and is not judged."""
    bench.plugin("exact", EXACT, "eval")
    task, outcome = _run(bench, _predict("raise ValueError('never')"), more="eval: [{plugin: exact}]")
    assert (task.status, task.code) == ("failed", "all-items-failed")
    assert "ValueError: never" in str(task.error)
    assert outcome.tasks[1].code == "skipped"


def test_generator_and_answer_objects_are_answers(bench: Bench) -> None:
    """Answers may come from a generator, and as objects whose extra facts are kept beside the known fields."""
    body = (
        "from types import SimpleNamespace as Answer\n"
        "for item in batch:\n"
        "    yield Answer(text=item.question, extra={'sure': 0.5, 'nan': float('nan'), 'item': 'forged'})"
    )
    _, outcome = _run(bench, _predict(body), ", batch: 2")
    line = _answers(outcome)["1"]
    assert (line["answer"], line["sure"], line["nan"], line["item"]) == ("one", 0.5, None, "1")


def test_image_question_class_works_unchanged(bench: Bench) -> None:
    """A class with predict_on_image and without load is a model too, asked one item at a time."""
    source = "class Plugin:\n    def predict_on_image(self, image, question):\n        return question + repr(image)"
    task, outcome = _run(bench, source, ", batch: 3")
    assert task.ok
    assert _answers(outcome)["2"]["answer"] == "two''"


@pytest.mark.parametrize(
    ("raised", "status"),
    [
        ("type('OutOfMemoryError', (RuntimeError,), {})('CUDA out of memory. Tried to allocate')", "oom-gpu"),
        ("RuntimeError('CUDA error: out of memory')", "oom-gpu"),
        ("MemoryError('no more')", "oom-host"),
    ],
)
def test_out_of_memory_is_never_an_answer(bench: Bench, raised: str, status: str) -> None:
    """Out of memory on one item is that item's failure by name; at every item, or on loading, the task's status."""
    task, outcome = _run(bench, _predict(f"if batch[0].id == '2':\n    raise {raised}\nreturn ['fine']"))
    assert (task.status, task.failed_items) == ("ok", 1)
    assert str(_answers(outcome)["2"]["error"]).startswith(f"{status}: ")
    task, _ = _run(bench, _predict(f"raise {raised}"))
    assert (task.status, task.code) == (status, "all-items-failed")
    task, _ = _run(bench, _predict("pass").replace("pass", f"raise {raised}  # on loading", 1))
    assert (task.status, task.code) == (status, "plugin-load-failed")


def test_plugin_that_hangs_times_out(bench: Bench) -> None:
    """A hanging plugin is ended, even one that will not hear of it; what it answered before stays."""
    body = (
        "import signal, time\n"
        "if batch[0].id == '1':\n    return ['fine'] * len(batch)\n"
        "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        "time.sleep(600)"
    )
    task, outcome = _run(bench, _predict(body), ", timeout: 4s", "retries: 2")
    assert (task.status, task.code) == ("timeout", "timeout")
    assert task.attempts[0].returncode == -9
    assert len(task.attempts) == 1
    assert _answers(outcome)["1"]["answer"] == "fine"


def test_crash_that_goes_away_is_mended_by_a_retry(bench: Bench) -> None:
    """A second attempt that goes well makes the task ok, and the record keeps both."""
    body = "import os\nfrom pathlib import Path\nflag = Path('../flag')\nif not flag.exists():\n    flag.touch()\n    os._exit(7)\nreturn ['x']"
    task, outcome = _run(bench, _predict(body), more="retries: 1")
    assert outcome.ok
    assert [(each.status, each.code, each.returncode) for each in task.attempts] == [
        ("failed", "worker-crashed", 7),
        ("ok", None, 0),
    ]


def test_rubbish_on_stdout_goes_to_the_logs(bench: Bench) -> None:
    """Megabytes on stdout and stderr, bytes that are no text among them, end in log files and nowhere else."""
    body = "import os\nos.write(1, b'\\xff{\"v\": 1}\\n' * 500_000)\nos.write(2, b'noise' * 500_000)\nreturn ['fine']"
    task, outcome = _run(bench, _predict(body))
    assert outcome.ok
    assert Path(str(task.log)).stat().st_size == 3 * 2_500_000
    assert Path(str(task.log).replace(".err.log", ".out.log")).stat().st_size == 3 * 5_000_000


def test_rubbish_on_the_protocol_is_survived_and_counted(bench: Bench) -> None:
    """Half lines, blobs and another attempt's messages on our descriptor cost no answer, and are told."""
    body = (
        "import json, os, sys\n"
        "for name in os.listdir('/proc/self/fd'):\n"
        "    try:\n"
        "        is_pipe = os.readlink('/proc/self/fd/' + name).startswith('pipe:')\n"
        "        if is_pipe and int(name) > 2:\n"
        "            stale = {'v': 1, 'seq': 9, 'attempt': 'old', 'type': 'done'}\n"
        "            os.write(int(name), b'\\x00\\xff\\n' + json.dumps(stale).encode() + b'\\n{\"v\": 1, \"se')\n"
        "    except OSError:\n"
        "        pass\n"
        "return [item.question for item in batch]"
    )
    task, outcome = _run(bench, _predict(body))
    assert outcome.ok
    assert [line["answer"] for line in _answers(outcome).values()] == ["one", "two", "three"]
    assert task.attempts[0].anomalies == {"torn": 6, "stale": 3}
    assert "6 torn" in task.notes[0]


def test_answer_without_end_is_refused(bench: Bench) -> None:
    """An answer of more than a million characters fails its item instead of filling the record."""
    body = "return ['x' * 1_000_001 if batch[0].id == '1' else 'x' * 1_000_000]"
    _, outcome = _run(bench, _predict(body))
    assert str(_answers(outcome)["1"]["error"]).startswith("answer-too-long")
    assert len(str(_answers(outcome)["2"]["answer"])) == 1_000_000


def test_answer_with_a_lone_surrogate_is_kept(bench: Bench) -> None:
    """Text that UTF-8 cannot hold is written as JSON's own escape."""
    _, outcome = _run(bench, _predict("return ['\\ud800 и']"))
    assert _answers(outcome)["1"]["answer"] == "\ud800 и"


def test_children_left_behind_are_gone(bench: Bench) -> None:
    """A double-forked child that stays in the session does not outlive its attempt."""
    body = (
        "import os, time\nfrom pathlib import Path\n"
        "if os.fork() == 0:\n"
        "    if os.fork() == 0:\n"
        "        os.setpgid(0, 0)\n"
        "        Path('../child.part').write_text(str(os.getpid()))\n"
        "        os.rename('../child.part', '../child')\n"
        "        time.sleep(600)\n"
        "    os._exit(0)\n"
        "while not Path('../child').exists():\n    time.sleep(0.01)\n"
        "return ['fine']"
    )
    _, outcome = _run(bench, _predict(body))
    assert outcome.ok
    child = int((Path(outcome.paths["run"]) / "attempts" / "child").read_text())
    wait_for(lambda: not is_alive(child), "the child to be gone")


def test_worker_that_swallows_its_end_answers_no_more(bench: Bench) -> None:
    """What a plugin makes of being asked to end, with handlers that let nothing pass, is no item's failure."""
    source = (
        "import time\n\nclass Plugin:\n    def load(self, context):\n        try:\n            time.sleep(600)\n"
        "        except BaseException:\n            self.half = True\n\n"
        "    def predict(self, batch):\n        return [self.missing] * len(batch)\n"
    )
    task, outcome = _run(bench, source, ", timeout: 2s")
    assert (task.status, task.code) == ("timeout", "timeout")
    assert _answers(outcome) == {}


def test_worker_that_does_not_leave_is_still_ok(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Once everything is said a worker that hangs at its exit is ended, and its results count."""
    monkeypatch.setattr("pipeline.attempt._LEAVE_S", 0.3)
    body = "import atexit, time\natexit.register(time.sleep, 600)\nreturn ['fine']"
    task, outcome = _run(bench, _predict(body))
    assert outcome.ok
    assert task.attempts[0].returncode == -9


def test_python_that_is_gone_fails_the_task(bench: Bench) -> None:
    """An environment without its interpreter is the task's failure."""
    bench.plugin("echo", ECHO)
    request = bench.request("inference: [{plugin: echo}]")
    (bench.root / "venv" / "bin" / "python").unlink()
    (task,) = execute_run(request).tasks
    assert (task.status, task.code) == ("failed", "worker-missing")


@pytest.mark.parametrize(
    ("source", "code", "text"),
    [
        (EXACT.replace("right = ", "right = 1 / 0 #"), "plugin-failed", "ZeroDivisionError"),
        (
            EXACT.replace('{"exact": sum(right) / len(right)}', '{"exact": "high"}'),
            "plugin-invalid",
            "must be a number",
        ),
        (EXACT.replace("return SimpleNamespace(", "return dict("), "plugin-invalid", "must give an Evaluation"),
    ],
)
def test_bad_judge_fails_its_task(bench: Bench, source: str, code: str, text: str) -> None:
    """An eval plugin that raises, or gives no figures, fails; the answers stay."""
    bench.plugin("echo", ECHO)
    bench.plugin("judge", source, "eval")
    _, judged = execute_run(bench.request("inference: [{plugin: echo}]\neval: [{plugin: judge}]")).tasks
    assert (judged.status, judged.code) == ("failed", code)
    assert text in str(judged.error)


def test_report_that_writes_nothing_fails(bench: Bench) -> None:
    """A report plugin that leaves no file has failed."""
    bench.plugin("echo", ECHO)
    source = "class Plugin:\n    def load(self, context): pass\n    def render(self, report): pass"
    bench.plugin("page", source, "report")
    outcome = execute_run(bench.request("inference: [{plugin: echo}]\nreport: [{plugin: page}]"))
    assert outcome.tasks[1].code == "plugin-invalid"
    assert "report" not in outcome.paths


COMMAND = """
import json, os
context = json.load(open(os.environ["ENVBUILDER_CONTEXT"]))
print("to the log")
with open(context["answers"], "w") as out:
    for item in context["items"]:
        out.write(json.dumps({"item": item["id"], "answer": item["question"], "sure": 1}) + "\\n")
"""


def test_commands_serve_every_stage(bench: Bench) -> None:
    """A program gets the context file and writes its answers, its figures, its report."""
    bench.command("say", COMMAND)
    judge = 'import json, os\nc = json.load(open(os.environ["ENVBUILDER_CONTEXT"]))\n'
    bench.command(
        "judge", judge + 'json.dump({"overall": {"n": len(c["records"])}}, open(c["evaluation"], "w"))', "eval"
    )
    bench.command("page", judge + 'open(c["output"], "w").write(str(len(c["report"]["records"])))', "report")
    text = "inference: [{plugin: say}]\neval: [{plugin: judge}]\nreport: [{plugin: page}]"
    outcome = execute_run(bench.request(text))
    assert outcome.ok, outcome.problems
    assert _answers(outcome, "say@lines")["3"] | {"latency_s": None} == {
        "item": "3",
        "task": "say@lines",
        "attempt": "say@lines.1",
        "answer": "three",
        "error": None,
        "latency_s": None,
        "sure": 1,
    }
    assert outcome.evaluations[0].overall == {"n": 3.0}
    assert Path(outcome.paths["report"]).read_text() == "3"


@pytest.mark.parametrize(
    ("source", "status", "code", "text"),
    [
        ("raise SystemExit(4)", "failed", "command-failed", "exit 4"),
        ("import os; os.kill(os.getpid(), 9)", "killed", "command-failed", "signal 9"),
        (COMMAND.replace("json.dumps(", "repr("), "failed", "plugin-invalid", "expected an object with item"),
        (COMMAND.replace('["items"]', '["items"][:0]'), "failed", "all-items-failed", "no-answer"),
    ],
)
def test_command_that_fails_fails_its_task(bench: Bench, source: str, status: str, code: str, text: str) -> None:
    """A program that ends badly, or writes no answers, has failed, for the reason told."""
    bench.command("say", source)
    (task,) = execute_run(bench.request("inference: [{plugin: say}]")).tasks
    assert (task.status, task.code) == (status, code)
    assert text in str(task.error)
