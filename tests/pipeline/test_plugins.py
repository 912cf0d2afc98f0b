"""Plugins that behave badly, each through a whole run."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from pipeline_bench import ECHO, EXACT, REPORT, is_alive, wait_for

from pipeline.cli import execute_run, resume_run

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


@pytest.mark.parametrize(
    "body",
    [
        "answers = [item.question for item in batch]\nbatch.reverse()\nreturn answers",
        "batch.sort(key=lambda item: item.id, reverse=True)\nreturn [item.question for item in batch]",
        "return [batch.pop().question for _ in range(len(batch))]",
        "answers = [item.question for item in batch]\nbatch.clear()\nreturn answers",
    ],
)
def test_answers_to_a_batch_that_predict_reorders_go_to_their_items(bench: Bench, body: str) -> None:
    """A batch that is sorted or emptied in place is asked again item by item, where there is but one order."""
    task, outcome = _run(bench, _predict(body), ", batch: 3")
    answers = {name: line["answer"] for name, line in _answers(outcome).items()}
    assert answers == {"1": "one", "2": "two", "3": "three"}
    assert (task.status, task.failed_items, len(task.attempts)) == ("ok", 0, 1)
    assert "predict() changed the list of items" in str(task.degraded)


def test_items_that_predict_renames_keep_their_answers(bench: Bench) -> None:
    """An answer is of the item that was asked about, whatever a plugin writes into it."""
    body = (
        "answers = [item.question for item in batch]\n"
        "for item in batch:\n    object.__setattr__(item, 'id', '1')\n"
        "return answers"
    )
    _, outcome = _run(bench, _predict(body), ", batch: 3")
    answers = {name: line["answer"] for name, line in _answers(outcome).items()}
    assert answers == {"1": "one", "2": "two", "3": "three"}


# Each question is a way to raise what is no Exception; the answer says how often the model was loaded.
RAISES = """
import asyncio, pathlib, sys

class Own(BaseException):
    pass

class Mute(Exception):
    def __str__(self):
        raise Own("not told")

class Plugin:
    def load(self, context):
        self.loads = pathlib.Path(context.cache_dir, "loads")
        self.loads.parent.mkdir(exist_ok=True)
        self.loads.open("a").write("x")

    def predict(self, batch):
        for item in batch:
            if item.question == "generator":
                return self.begun()
            if item.question == "closed":
                sys.stderr.close()
            if item.question != "fine":
                raise {
                    "cancelled": asyncio.CancelledError("too late"),
                    "interrupt": KeyboardInterrupt(),
                    "generator exit": GeneratorExit(),
                    "exit": SystemExit(0),
                    "own": Own("its own"),
                    "mute": Mute(),
                    "closed": Own("unheard"),
                }[item.question]
        return [self.loads.read_text()] * len(batch)

    def begun(self):
        yield "half"
        raise Own("on the way")
"""
RAISED = {
    "cancelled": "CancelledError: too late",
    "interrupt": "KeyboardInterrupt",
    "generator exit": "GeneratorExit",
    "exit": "SystemExit: 0",
    "own": "Own: its own",
    "mute": "Mute: its text cannot be told",
    "generator": "Own: on the way",
    "closed": "Own: unheard",
}


@pytest.mark.parametrize("batch", [1, 3])
def test_whatever_an_item_raises_costs_that_item(bench: Bench, batch: int) -> None:
    """What is no Exception fails its item by its name; the model is loaded once."""
    rows = "".join(f"{way};{way};;a\n{way} too;fine;;a\n" for way in RAISED)
    bench.plugin("bad", RAISES)
    request = bench.request(f"inference: [{{plugin: bad, batch: {batch}}}]", f"id;question;answer;class\n{rows}")
    outcome = execute_run(request)
    answers = _answers(outcome)
    assert {way: answers[way]["error"] for way in RAISED} == RAISED
    assert {answers[f"{way} too"]["answer"] for way in RAISED} == {"x"}
    assert [(each.status, each.anomalies) for each in outcome.tasks[0].attempts] == [("ok", {})]


@pytest.mark.parametrize(
    ("source", "code", "text"),
    [
        ("import asyncio\nraise asyncio.CancelledError('early')", "plugin-import-failed", "CancelledError: early"),
        ("def __getattr__(name): raise KeyboardInterrupt(name)", "plugin-import-failed", "KeyboardInterrupt: Plugin"),
        ("class Plugin:\n    def __init__(self): raise GeneratorExit('no')", "plugin-load-failed", "GeneratorExit: no"),
        (_predict("pass").replace("pass", "raise BaseException('no')", 1), "plugin-load-failed", "BaseException: no"),
    ],
)
def test_whatever_loading_raises_is_its_reason(bench: Bench, source: str, code: str, text: str) -> None:
    """What is no Exception is told by its name, and is not tried again."""
    task, _ = _run(bench, source, more="retries: 2")
    assert (task.status, task.code, len(task.attempts)) == ("failed", code, 1)
    assert text in str(task.error)


def test_answers_that_misbehave_when_they_are_looked_at_cost_their_items(bench: Bench) -> None:
    """What an answer's own methods raise is that item's failure; a text that lies of its length is its text."""
    body = (
        "class Own(BaseException): pass\n"
        "class Text(str):\n"
        "    def __len__(self): raise Own('len')\n"
        "    def __str__(self): raise Own('str')\n"
        "    __repr__ = __str__\n"
        "class Answer:\n"
        "    def __init__(self, extra): self.text, self.extra = 'fine', extra\n"
        "class Late:\n"
        "    text = property(lambda self: (_ for _ in ()).throw(Own('text')))\n"
        "class Odd:\n"
        "    def __str__(self): raise Own('odd')\n"
        "ring = []\n"
        "ring.append(ring)\n"
        "return [Text('fine'), Answer({1: Odd()}), Late(), Answer({'n': 10 ** 5000}), Answer(ring), Answer({Odd(): 1}), 'fine']"
    )
    rows = "id;question;answer;class\n" + "".join(f"{number};q;;a\n" for number in range(1, 8))
    bench.plugin("bad", _predict(body))
    outcome = execute_run(bench.request("inference: [{plugin: bad, batch: 7}]", rows))
    told = [str(line["answer"] or line["error"])[:27] for line in _answers(outcome).values()]
    assert told[:3] == ["fine", "plugin-invalid: Own: odd", "plugin-invalid: Own: text"]
    assert told[3:] == [
        "plugin-invalid: ValueError:",
        "plugin-invalid: RecursionEr",
        "plugin-invalid: Own: odd",
        "fine",
    ]
    assert [(each.status, each.anomalies) for each in outcome.tasks[0].attempts] == [("ok", {})]


def test_figures_of_its_own_that_cannot_be_sent_are_refused_where_they_are_told(bench: Bench) -> None:
    """A figure with more digits than JSON takes raises in the plugin, and no message is missed."""
    body = "try:\n    self.context.metric('n', 10 ** 5000)\nexcept ValueError:\n    return ['refused'] * len(batch)"
    source = _predict(body).replace("pass", "self.context = context", 1)
    task, outcome = _run(bench, source)
    assert {line["answer"] for line in _answers(outcome).values()} == {"refused"}
    assert [each.anomalies for each in task.attempts] == [{}]


def test_an_interrupted_worker_ends(bench: Bench) -> None:
    """SIGINT from outside ends the worker as it ends other programs; a plugin's own handling of it is left to it."""
    body = (
        "import os, signal\n"
        "if batch[0].id == '2':\n"
        "    os.kill(os.getpid(), signal.SIGINT)\n"
        "try:\n"
        "    if batch[0].id == '1': signal.raise_signal(signal.SIGINT)\n"
        "except KeyboardInterrupt:\n"
        "    return ['its own']\n"
        "return ['fine']"
    )
    task, outcome = _run(bench, _predict(body))
    answers = _answers(outcome)
    assert (answers["1"]["answer"], answers["3"]["answer"]) == ("its own", "fine")
    assert answers["2"]["error"] == "worker-crashed: the worker was killed by SIGINT"
    assert task.attempts[0].returncode == -2


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


@pytest.mark.parametrize(
    ("line", "code", "text"),
    [
        ("raise asyncio.CancelledError('late')", "plugin-failed", "CancelledError: late"),
        ("return type('Late', (), {'overall': property(lambda self: [].pop())})()", "plugin-invalid", "IndexError"),
        ("return Figures(overall={'n': 10 ** 5000})", "plugin-invalid", "ValueError"),
        ("return Figures(overall={'n': 10 ** 400})", "plugin-invalid", "overall.n"),
    ],
)
def test_whatever_judging_raises_is_its_reason(bench: Bench, line: str, code: str, text: str) -> None:
    """What is no Exception, what figures do when they are looked at, and numbers that are too large are told of."""
    bench.plugin("echo", ECHO)
    head = "import asyncio\nfrom types import SimpleNamespace as Figures\n"
    source = (
        f"{head}class Plugin:\n    def load(self, context): pass\n    def evaluate(self, records):\n        {line}\n"
    )
    bench.plugin("judge", source, "eval")
    _, judged = execute_run(bench.request("inference: [{plugin: echo}]\neval: [{plugin: judge}]")).tasks
    assert (judged.status, judged.code, len(judged.attempts)) == ("failed", code, 1)
    assert text in str(judged.error)


def test_whatever_a_report_raises_is_its_reason(bench: Bench) -> None:
    """What is no Exception is told by its name."""
    bench.plugin("echo", ECHO)
    source = "class Plugin:\n    def load(self, context): pass\n    def render(self, report): raise GeneratorExit('no')"
    bench.plugin("page", source, "report")
    task = execute_run(bench.request("inference: [{plugin: echo}]\nreport: [{plugin: page}]")).tasks[1]
    assert (task.code, task.error) == ("plugin-failed", "GeneratorExit: no")


def test_report_that_writes_nothing_fails(bench: Bench) -> None:
    """A report plugin that leaves no file has failed."""
    bench.plugin("echo", ECHO)
    source = "class Plugin:\n    def load(self, context): pass\n    def render(self, report): pass"
    bench.plugin("page", source, "report")
    outcome = execute_run(bench.request("inference: [{plugin: echo}]\nreport: [{plugin: page}]"))
    assert outcome.tasks[1].code == "plugin-invalid"
    assert "report" not in outcome.paths


@pytest.mark.parametrize("body", ["pass", "open(self.output, 'w').close()"])
def test_a_report_that_was_there_before_is_not_written(bench: Bench, body: str) -> None:
    """A report plugin that leaves the file of an earlier time as it was, or empty, has failed."""
    bench.plugin("echo", ECHO)
    bench.plugin("page", REPORT, "report")
    request = bench.request("inference: [{plugin: echo}]\nreport: [{plugin: page}]")
    first = execute_run(request)
    bench.plugin("page", REPORT.replace("self.output.write_text(json.dumps(report))", body), "report")
    Path(first.paths["answers"], "echo@lines.jsonl").unlink()
    resumed = resume_run(replace(request, environments=bench.environments), first.id)
    assert (resumed.tasks[1].code, resumed.tasks[1].status) == ("plugin-invalid", "failed")


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
