from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from pipeline_bench import ECHO, REPORT, child_environment, is_alive, wait_for

from envbuilder.errors import ConfigError, Interrupted
from pipeline.cli import Terms, execute_run, plan_run, plugins_of, show_run
from pipeline.errors import RecordError
from pipeline.placement import Stop
from pipeline.render import make_display

if TYPE_CHECKING:
    from pipeline_bench import Bench

USUAL = """
inference: [{plugin: echo, batch: 2}]
eval: [{plugin: exact}]
report: [{plugin: page}]
"""

HANG = """
import os, subprocess, sys, time
from pathlib import Path

class Plugin:
    def load(self, context):
        child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
        Path(context.params["pids"]).write_text(f"{os.getpid()} {child.pid}")

    def predict(self, batch):
        if batch[0].id == "1":
            return ["quick"]
        time.sleep(600)
"""


def _json_lines(path: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_run_goes_from_inference_to_report(bench: Bench) -> None:
    """A run in which all goes well is ok, and each of its files holds what the layout promises."""
    bench.usual()
    outcome = execute_run(bench.request(USUAL))
    assert outcome.ok, outcome
    assert [(task.id, task.status) for task in outcome.tasks] == [
        ("echo@lines", "ok"),
        ("exact:echo@lines", "ok"),
        ("page", "ok"),
    ]
    root = bench.state / "runs" / outcome.id
    answers = _json_lines(root / "answers" / "echo@lines.jsonl")
    assert [(line["item"], line["answer"], line["error"]) for line in answers] == [
        ("1", "one", None),
        ("2", "two", None),
        ("3", "three", None),
    ]
    assert all(isinstance(line["latency_s"], float) for line in answers)
    assert (root / "metrics" / "metrics.csv").read_text().splitlines()[1:] == [
        f"{outcome.id},echo@lines,echo,lines,,exact,{2 / 3}",
        f"{outcome.id},echo@lines,echo,lines,a,exact,1.0",
        f"{outcome.id},echo@lines,echo,lines,b,exact,0.0",
    ]
    assert (bench.state / "runs" / "latest").resolve() == root
    events = {line["event"] for line in _json_lines(root / "events.jsonl")}
    assert events - {"sample"} == {"run-started", "attempt-started", "attempt-ended", "task-ended", "run-ended"}
    assert json.loads((root / "run.json").read_text())["status"] == "ok"
    assert outcome.paths["report"] == str(root / "report.html")


def test_run_reports_measures(bench: Bench) -> None:
    """A task's result says on what it ran, how fast, and with how much memory."""
    bench.usual()
    task = execute_run(bench.request(USUAL)).tasks[0]
    assert task.device == "cpu"
    assert task.device_name
    assert task.items_per_s
    assert task.load_s is not None
    assert task.peak_ram_bytes
    assert 1_000_000 < task.peak_ram_bytes < 100_000_000
    assert task.versions["python"].startswith("3.")


def test_report_gets_the_contracts_document(bench: Bench) -> None:
    """The report stage gets the keys that the plugin contract's typed documents name, and what came after them."""
    sys.path.insert(0, str(Path(__file__).parents[2] / "packages" / "core" / "src"))
    try:
        from vlm_core import documents
    finally:
        del sys.path[0]
    bench.usual()
    outcome = execute_run(bench.request(USUAL))
    report = json.loads(Path(outcome.paths["report"]).read_text())
    assert set(report) >= documents.ReportDocument.__required_keys__
    assert set(report["run"]) >= documents.RunDocument.__required_keys__ | {"code"}
    assert set(report["tasks"][0]) >= documents.TaskDocument.__required_keys__ | {"reused"}
    assert set(report["records"][0]) == documents.RecordDocument.__required_keys__
    assert set(report["evaluations"][0]) == documents.EvaluationDocument.__required_keys__
    assert len(report["records"]) == 3
    assert report["records"][2]["references"] == ["other"]
    assert report["evaluations"][0]["by_item"][2] == {"item": "3", "exact": 0.0}


def test_missing_image_costs_its_item_only(bench: Bench) -> None:
    """An image that is not there fails its item, unseen by the plugin, and the run is not ok."""
    bench.plugin("echo", ECHO)
    bench.write("here.png", "bytes")
    rows = "id,image,question,answer\n1,here.png,x,x\n2,gone.png,y,y\n"
    outcome = execute_run(bench.request("inference: [{plugin: echo}]", rows))
    (task,) = outcome.tasks
    assert (task.status, task.items, task.failed_items) == ("ok", 2, 1)
    assert not outcome.ok
    (problem,) = outcome.problems
    assert (problem.code, problem.severity) == ("items-failed", "warning")
    assert "image-missing" in problem.message
    shown = subprocess.run(["sh", "-c", str(problem.hint)], capture_output=True, text=True, check=True)
    assert json.loads(shown.stdout)["item"] == "2"
    lines = {str(line["item"]): line for line in _json_lines(Path(outcome.paths["answers"]) / "echo@lines.jsonl")}
    assert lines["1"]["answer"] == "x"
    assert str(lines["2"]["error"]).startswith("image-missing: no file")


SILENT = """
class Plugin:
    def load(self, context):
        {}
        raise SystemExit(3)

    def predict(self, batch):
        return ["x"]
"""


@pytest.mark.parametrize(
    ("source", "hint"),
    [
        ("import os; os._exit(3)", "envbuilder runs show {}"),
        ("import os; print('last words', flush=True); os._exit(3)", "tail -n 40 {}/logs/bad@lines.1.out.log"),
        ("import os, sys; print('words', file=sys.stderr); os._exit(3)", "tail -n 40 {}/logs/bad@lines.1.err.log"),
    ],
)
def test_hint_names_a_log_that_says_something(bench: Bench, source: str, hint: str) -> None:
    """The hint leads to the log of errors, else to the other log, else to the run itself, never to an empty file."""
    bench.plugin("bad", SILENT.format(source))
    outcome = execute_run(bench.request("inference: [{plugin: bad}]"))
    (problem,) = outcome.problems
    assert problem.hint == hint.format(outcome.paths["run"] if "tail" in hint else outcome.id)
    assert outcome.tasks[0].items_per_s is None


def test_hint_for_items_that_all_failed_shows_their_errors(bench: Bench) -> None:
    """Where every item failed the answers say why, and nothing is said of a speed."""
    bench.plugin("bad", ECHO.replace("return", "return 7 #"))
    outcome = execute_run(bench.request("inference: [{plugin: bad}]"))
    (problem,) = outcome.problems
    shown = subprocess.run(["sh", "-c", str(problem.hint)], capture_output=True, text=True, check=True)
    assert len(shown.stdout.splitlines()) == 3
    assert outcome.tasks[0].items_per_s is None


def test_failed_inference_skips_its_eval_only(bench: Bench) -> None:
    """What one plugin fails at stops neither the others nor the report, and its eval is skipped."""
    bench.usual()
    bench.plugin("broken", "import module_that_nobody_has")
    text = USUAL.replace("[{plugin: echo, batch: 2}]", "[{plugin: broken}, {plugin: echo}]")
    outcome = execute_run(bench.request(text))
    assert {task.id: (task.status, task.code) for task in outcome.tasks} == {
        "broken@lines": ("failed", "plugin-import-failed"),
        "echo@lines": ("ok", None),
        "exact:broken@lines": ("cancelled", "skipped"),
        "exact:echo@lines": ("ok", None),
        "page": ("ok", None),
    }
    (problem,) = outcome.problems
    assert "module_that_nobody_has" in problem.message
    assert problem.hint is not None
    assert "tail" in problem.hint
    assert "ModuleNotFoundError" in Path(str(problem.where)).read_text()


def test_stop_on_failure_starts_nothing_more_but_the_report(bench: Bench) -> None:
    """With on-failure: stop, what comes after a failed task is skipped; the report tells of it."""
    bench.usual()
    bench.plugin("broken", "import module_that_nobody_has")
    text = USUAL.replace("[{plugin: echo, batch: 2}]", "[{plugin: broken}, {plugin: echo}]") + "on-failure: stop\n"
    outcome = execute_run(bench.request(text))
    assert [task.code for task in outcome.tasks] == ["plugin-import-failed", *["skipped"] * 3, None]


def test_gpu_that_is_not_there_fails_the_task(bench: Bench) -> None:
    """A task that needs a GPU on a machine without one fails before anything of it starts."""
    bench.plugin("echo", ECHO)
    outcome = execute_run(bench.request("inference: [{plugin: echo, gpus: 1}]"))
    (problem,) = outcome.problems
    assert problem.code == "gpu-missing"
    assert "needs 1 GPU, found none" in problem.message
    assert not outcome.tasks[0].attempts


def test_several_jobs_share_the_processors(bench: Bench) -> None:
    """Tasks that run at once are told their share of the processors; one alone is told nothing."""
    source = ECHO.replace("item.question", "__import__('os').environ.get('OMP_NUM_THREADS', 'all')")
    bench.plugin("echo", source)
    bench.plugin("other", source)
    request = bench.request("inference: [{plugin: echo}, {plugin: other}]")
    alone = execute_run(request)
    both = execute_run(replace(request, jobs=2, terms=Terms(fresh=True)))
    told = [_json_lines(Path(outcome.paths["answers"]) / "echo@lines.jsonl")[0]["answer"] for outcome in (alone, both)]
    assert told == ["all", str(max(1, len(os.sched_getaffinity(0)) // 2))]


def test_interrupted_run_keeps_what_was_written(bench: Bench) -> None:
    """Once the event is set workers are ended, the answers so far stay, and the record says cancelled."""
    for name in ("hang", "later", "last"):
        bench.plugin(name, HANG)
    pids = bench.root / "pids"
    request = bench.request(
        f"inference: [{{plugin: hang, params: {{pids: {pids}}}}}, {{plugin: later}}, {{plugin: last}}]"
    )
    stop, said = Stop(), io.StringIO()

    def interrupt_after_first_answer() -> None:
        path = bench.state / "runs" / "latest" / "answers" / "hang@lines.jsonl"
        wait_for(lambda: path.exists() and path.stat().st_size, "the first answer")
        stop.set()

    watcher = threading.Thread(target=interrupt_after_first_answer)
    watcher.start()
    with pytest.raises(Interrupted) as caught, make_display(said) as display:
        execute_run(request, interrupted=stop, reporter=display)
    watcher.join()
    assert caught.value.exit_status == 130
    assert said.getvalue().endswith("was interrupted\n2 tasks were not started\n")
    assert "later" not in said.getvalue()
    outcome = show_run(bench.state)
    assert outcome.status == "cancelled"
    assert outcome.tasks[0].status == "cancelled"
    assert len(_json_lines(Path(outcome.paths["answers"]) / "hang@lines.jsonl")) == 1
    assert not any(is_alive(int(pid)) for pid in pids.read_text().split())


def test_second_interruption_waits_for_nobody(bench: Bench) -> None:
    """A worker that will not go is given its time at the first Ctrl-C, and none at the second."""
    source = (
        "import os, signal, time\nfrom pathlib import Path\n\nclass Plugin:\n    def load(self, context): pass\n\n"
        "    def predict(self, batch):\n        signal.signal(signal.SIGTERM, lambda *_: Path('../asked').touch())\n"
        "        Path('../ready').touch()\n        while True: time.sleep(1)\n"
    )
    bench.plugin("hang", source)
    request = replace(bench.request("inference: [{plugin: hang}]"), grace_s=3600.0)
    stop = Stop()

    def interrupt_twice() -> None:
        attempts = bench.state / "runs" / "latest" / "attempts"
        wait_for((attempts / "ready").exists, "the worker to be ready")
        stop.set()
        wait_for((attempts / "asked").exists, "the worker to be asked to end")
        stop.at_once.set()

    thread = threading.Thread(target=interrupt_twice)
    thread.start()
    with pytest.raises(Interrupted):
        execute_run(request, interrupted=stop)
    thread.join()
    assert show_run(bench.state).tasks[0].attempts[0].returncode == -signal.SIGKILL


def test_secrets_are_in_no_record(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is a secret by its name, or has the value of one, reaches the plugin and nothing that is kept of the run."""
    monkeypatch.setenv("HF_TOKEN", "sesame-open-9000")
    source = ECHO.replace(
        "return [",
        "assert self.context.params['api_key'] == 'k-12345678'\n"
        "        self.context.log('using sesame-open-9000 at https://me:pw12345@host.example/x')\n"
        "        print(self.context.params, flush=True)\n"
        "        self.context.metric(str(self.context.params), 1.0)\n"
        "        self.context.log('slow with k-12345678')\n"
        "        if batch[0].id == '1':\n            raise OSError('401: sesame-open-9000, n-12345678')\n        return [",
    )
    bench.plugin("echo", source)
    bench.plugin("page", REPORT, "report")
    params = (
        "{api_key: k-12345678, eos_token: <end>, login: {clientSecret: n-12345678, pins: [12345678901]},"
        " servers: [[{token: d-12345678}]], passwords: {me: p-12345678}}"
    )
    told = io.StringIO()
    with make_display(told) as display:
        outcome = execute_run(
            bench.request(f"inference: [{{plugin: echo, params: {params}}}]\nreport: [{{plugin: page}}]"),
            reporter=display,
        )
    assert outcome.tasks[0].status == "ok"
    assert outcome.tasks[0].failed_items == 1
    root = bench.state / "runs" / outcome.id
    kept = {path: path.read_text(errors="replace") for path in root.rglob("*") if path.is_file()}
    kept[Path("the terminal")] = told.getvalue()
    assert [path for path in kept if path.name == "context.json"] == []
    for secret in ("sesame-open-9000", "pw12345", "k-12345678", "n-12345678", "d-12345678", "p-12345678"):
        assert [path for path, found in kept.items() if secret in found] == []
    assert "<end>" in kept[root / "run.json"]
    assert "12345678901" in kept[root / "run.json"]


def test_context_is_for_its_worker_and_its_time_alone(bench: Bench) -> None:
    """Whatever becomes of an attempt, nobody else can read its context, and afterwards it is gone."""
    source = """
    import os, stat

    class Plugin:
        def load(self, context):
            mode = os.stat(os.environ["ENVBUILDER_CONTEXT"]).st_mode
            assert stat.S_IMODE(mode) == 0o600, oct(mode)

        def predict(self, batch):
            END
    """
    for number, end in enumerate(
        ("return ['x'] * len(batch)", "os._exit(3)", "os.kill(os.getppid(), 9); __import__('signal').pause()")
    ):
        bench.plugin(f"bad{number}", source.replace("END", end))
    bench.command("program", "import json, os; json.load(open(os.environ['ENVBUILDER_CONTEXT'])); raise SystemExit(4)")
    entries = ", ".join(f"{{plugin: {name}}}" for name in ("bad0", "bad1", "bad2", "program"))
    outcome = execute_run(bench.request(f"inference: [{entries}]\nretries: 0"))
    assert [task.status for task in outcome.tasks] == ["ok", "failed", "failed", "failed"]
    assert outcome.tasks[2].attempts[0].code == "worker-killed"
    assert len(list(bench.state.glob("runs/*-test-*/attempts/*"))) >= 6
    assert not list(bench.state.glob("runs/*/attempts/*/context.json"))


def test_secret_in_a_matrix_is_no_part_of_a_name(bench: Bench) -> None:
    """Tasks that differ in a secret are told apart by its place in the list."""
    bench.plugin("echo", ECHO)
    plan = plan_run(bench.request("inference: [{plugin: echo, matrix: {token: [hunter-2222, hunter-3333]}}]"))
    assert [task.id for task in plan.tasks] == ["echo[token=hidden-1]@lines", "echo[token=hidden-2]@lines"]


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT, signal.SIGTERM])
def test_runner_that_is_ended_leaves_no_worker(bench: Bench, number: signal.Signals) -> None:
    """However the runner ends, its worker and the worker's children end with it."""
    bench.plugin("hang", HANG)
    pids = bench.root / "pids"
    request = bench.request(f"inference: [{{plugin: hang, params: {{pids: {pids}}}}}]")
    script = bench.write(
        "runner.py",
        f"""
        import json, sys
        from pathlib import Path
        from envbuilder.errors import Interrupted
        from pipeline.cli import RunRequest, execute_run
        from pipeline.layout import read_environments

        try:
            environments = read_environments(Path({str(bench.root / "environments.json")!r}))
            execute_run(RunRequest(Path({str(request.run_file)!r}), environments, Path({str(bench.state)!r}), grace_s=0.5))
        except Interrupted as error:
            sys.exit(error.exit_status)
        """,
    )
    from pipeline.layout import write_environments

    write_environments(bench.root / "environments.json", bench.environments)
    argv = (sys.executable, str(script))
    with subprocess.Popen(argv, env=child_environment(), stderr=subprocess.PIPE, start_new_session=True) as runner:
        wait_for(lambda: pids.exists() and len(pids.read_text().split()) == 2, "the worker's process ids")
        found = [int(pid) for pid in pids.read_text().split()]
        assert all(map(is_alive, found))
        assert show_run(bench.state).status == "running"
        runner.send_signal(number)
        status = runner.wait(60)
        assert runner.stderr is not None
        assert runner.stderr.read() == b""
    assert status == (-signal.SIGKILL if number is signal.SIGKILL else 130)
    wait_for(lambda: not any(map(is_alive, found)), "the worker and its child to be gone")
    assert show_run(bench.state).status == ("killed" if number is signal.SIGKILL else "cancelled")


def test_problems_of_a_run_file_come_at_once(bench: Bench) -> None:
    """An unknown plugin, one of another stage and an unusable data set are told together, with their places."""
    bench.usual()
    text = "inference: [{plugin: ecko}, {plugin: exact}]\neval: [{plugin: exact, data: [lanes]}]\n"
    with pytest.raises(ConfigError) as caught:
        execute_run(bench.request(text, "id;answer\n"))
    told = {problem.code: problem for problem in caught.value.problems}
    assert set(told) == {"unknown-plugin", "wrong-stage", "unknown-data", "data-empty"}
    assert told["unknown-plugin"].where == "run.yaml:3:14"
    assert "did you mean 'echo'?" in str(told["unknown-plugin"].hint)
    assert "serves the eval stage, found under inference" in told["wrong-stage"].message
    assert not (bench.state / "runs").exists()


def test_plugins_of_names_each_plugin_once(bench: Bench) -> None:
    """The plugins to build are known from the run file alone, those of the matrix included."""
    path = bench.run_file(USUAL + "matrix: {plugin: [other, echo]}\n")
    assert plugins_of(path) == ("echo", "other", "exact", "page")
    with pytest.raises(ConfigError, match="unknown plugin 'other'"):
        plugins_of(path, {"echo": "inference", "exact": "eval", "page": "report"})


def test_plan_run_writes_nothing(bench: Bench) -> None:
    """Planning leaves the state folder alone."""
    bench.usual()
    assert [task.id for task in plan_run(bench.request(USUAL)).tasks] == ["echo@lines", "exact:echo@lines", "page"]
    assert not bench.state.exists()


def test_state_folder_that_cannot_be_written_is_told(bench: Bench) -> None:
    """A file where the state folder should be is an error of its own, not a traceback."""
    bench.usual()
    request = bench.request(USUAL)
    bench.state.write_text("in the way")
    with pytest.raises(RecordError, match="cannot be written") as caught:
        execute_run(request)
    assert caught.value.exit_status == 2


def test_outcome_as_json_is_plain(bench: Bench) -> None:
    """The result for --format json survives a strict JSON encoder."""
    bench.usual()
    result = execute_run(bench.request(USUAL)).to_json()
    assert set(json.loads(json.dumps(result, allow_nan=False))) == {
        "id",
        "name",
        "status",
        "started",
        "finished",
        "tasks",
        "evaluations",
        "paths",
    }
