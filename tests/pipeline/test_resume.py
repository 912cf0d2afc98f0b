"""Nothing that is done is done again: within a run that was broken off, and from one run to the next."""

from __future__ import annotations

import json
import random
import shutil
import signal
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from pipeline_bench import child_environment, wait_for

from envbuilder.errors import ConfigError, Interrupted, UsageError
from pipeline import orphans
from pipeline.cli import Terms, diff_runs, execute_run, explain_run, find_resumable, resume_run, show_run
from pipeline.errors import ChangedError, LostError, RecordError
from pipeline.layout import find_answers, write_environments
from pipeline.models import Code
from pipeline.placement import Stop
from pipeline.render import diff_tables, outcome_tables, why_table

if TYPE_CHECKING:
    from pipeline_bench import Bench

    from pipeline.cli import RunRequest
    from pipeline.models import RunOutcome

USUAL = """
inference: [{plugin: echo, batch: 2}]
eval: [{plugin: exact}]
report: [{plugin: page}]
"""

# Writes down every item that it is asked, and stays where it is told to, to be killed there.
TELLING = """
import time
from pathlib import Path

class Plugin:
    def load(self, context):
        self.asked = Path(context.params["asked"])
        self.broken, self.most = self.asked.with_name("broken"), self.asked.with_name("most")

    def predict(self, batch):
        while self.most.exists() and int(batch[0].id) > int(self.most.read_text()):
            time.sleep(0.01)
        with self.asked.open("a") as stream:
            stream.writelines(item.id + "\\n" for item in batch)
        if self.broken.exists() and batch[0].id in self.broken.read_text().split():
            raise RuntimeError("broken")
        return [item.question for item in batch]
"""

MANY = "id,question,answer,class\n" + "".join(f"{n},q{n},q{n if n % 3 else 0},{'ab'[n % 2]}\n" for n in range(1, 41))

RUNNER = """
import sys
from pathlib import Path
from pipeline.cli import RunRequest, execute_run, resume_run
from pipeline.layout import read_environments

environments, run_file, state = map(Path, sys.argv[1:4])
request = RunRequest(run_file, read_environments(environments), state, "dev", grace_s=0.5)
resume_run(request, sys.argv[4]) if sys.argv[4:] else execute_run(request)
"""


def _telling(bench: Bench, settings: str = "", rows: str = MANY) -> RunRequest:
    """A request for a run of the telling plugin on forty items, judged and reported."""
    if not bench.environments:
        bench.usual()
        bench.plugin("telling", TELLING)
    asked = bench.root / "asked"
    text = f"inference: [{{plugin: telling{settings}, params: {{asked: {asked}}}}}]\n"
    return bench.request(text + "eval: [{plugin: exact}]\nreport: [{plugin: page}]\n", rows)


def _asked(bench: Bench) -> list[str]:
    path = bench.root / "asked"
    return path.read_text().split() if path.exists() else []


def _start(bench: Bench, request: RunRequest, *more: str) -> subprocess.Popen[bytes]:
    write_environments(bench.root / "environments.json", bench.environments)
    script = bench.write("runner.py", RUNNER)
    argv = [sys.executable, script, bench.root / "environments.json", request.run_file, bench.state, *more]
    return subprocess.Popen(list(map(str, argv)), env=child_environment(), start_new_session=True)


def _journal(bench: Bench) -> Path:
    return bench.state / "runs" / "latest" / "answers" / "telling@lines.jsonl"


def _wait_for_answers(bench: Bench, count: int) -> None:
    path = _journal(bench)
    wait_for(lambda: path.exists() and path.read_bytes().count(b"\n") >= count, f"{count} answers")


def _kill_after(bench: Bench, request: RunRequest, count: int, *more: str) -> None:
    """Kill a runner in the middle, once so many items are answered."""
    most = bench.write("most", str(count))
    with _start(bench, request, *more) as runner:
        _wait_for_answers(bench, count)
        runner.send_signal(signal.SIGKILL)
        runner.wait(60)
    run = (bench.state / "runs" / "latest").resolve().name
    wait_for(lambda: not orphans.find(run), "the end of its workers")
    most.unlink()


def _resume(request: RunRequest, run: str = "") -> RunOutcome:
    found = find_resumable(request.state_dir, run or None)
    return resume_run(replace(request, terms=found.terms), found.id)


def _figures(outcome: RunOutcome) -> list[object]:
    return [(each.eval, each.overall, each.by_class) for each in outcome.evaluations]


def test_killed_run_is_gone_on_with(bench: Bench) -> None:
    """After SIGKILL a resume asks what has no answer, tears nothing, and comes to the figures of an undisturbed run."""
    request = _telling(bench)
    _kill_after(bench, request, 7)
    with _journal(bench).open("ab") as stream:
        stream.write(b'{"item": "40", "answer": "to')
    kept = set(find_answers(_journal(bench)).lines)
    before = _asked(bench)
    killed = show_run(bench.state)
    assert killed.problems[0].hint == f"envbuilder resume {killed.id}"
    resumed = _resume(request)
    assert (resumed.id, resumed.ok, resumed.started) == (killed.id, True, killed.started)
    asked = _asked(bench)[len(before) :]
    assert sorted([*kept, *asked]) == sorted(str(n) for n in range(1, 41))
    found = find_answers(_journal(bench))
    assert (len(found.lines), found.damaged) == (40, 1)
    assert [each.id for each in resumed.tasks[0].attempts] == ["telling@lines.1", "telling@lines.2"]
    assert resumed.tasks[0].attempts[0].code == "runner-gone"
    assert show_run(bench.state).tasks == resumed.tasks
    undisturbed = execute_run(replace(request, terms=Terms(fresh=True)))
    assert _figures(resumed) == _figures(undisturbed)


def test_run_survives_any_number_of_kills(bench: Bench) -> None:
    """Killed at random moments, with another batch each time, a run comes to its end, and asks nothing that it knows."""
    chance = random.Random(7)  # noqa: S311 - no secret
    request = _telling(bench)
    _kill_after(bench, request, 1)
    run = show_run(bench.state).id
    for batch in (3, 1, 8, 2):
        kept, count = set(find_answers(_journal(bench)).lines), len(_asked(bench))
        request = _telling(bench, f", batch: {batch}")
        if batch == 2:
            outcome = _resume(request, run)
        else:
            _kill_after(bench, request, len(kept) + chance.randint(0, 6), run)
        assert kept.isdisjoint(_asked(bench)[count:])
    assert outcome.ok
    assert set(_asked(bench)) == {str(n) for n in range(1, 41)}
    assert _figures(outcome) == _figures(execute_run(replace(request, terms=Terms(fresh=True))))


def test_interrupted_run_names_the_command_that_goes_on(bench: Bench) -> None:
    """Ctrl-C leaves a run that a resume finishes, and says how."""
    request = _telling(bench)
    stop = Stop()

    def interrupt() -> None:
        _wait_for_answers(bench, 1)
        stop.set()

    most = bench.write("most", "1")
    watcher = threading.Thread(target=interrupt)
    watcher.start()
    with pytest.raises(Interrupted) as caught:
        execute_run(request, interrupted=stop)
    watcher.join()
    most.unlink()
    run = show_run(bench.state).id
    assert caught.value.hint == f"envbuilder resume {run}"
    outcome = _resume(request)
    assert outcome.ok
    assert sorted(_asked(bench), key=int) == [str(n) for n in range(1, 41)]
    assert [each.status for each in outcome.tasks[0].attempts] == ["cancelled", "ok"]
    assert find_resumable(bench.state).is_done


def test_failed_task_asks_what_failed_again(bench: Bench) -> None:
    """Items that failed are kept where their task ended well, and asked again where that is asked for."""
    (bench.root / "broken").write_text("3 4")
    request = _telling(bench)
    first = execute_run(request)
    assert (first.tasks[0].status, first.tasks[0].failed_items) == ("ok", 2)
    assert find_resumable(bench.state).is_done
    (bench.root / "broken").unlink()
    count = len(_asked(bench))
    again = execute_run(request)
    assert again.tasks[0].reused == first.id
    assert again.tasks[0].failed_items == 2
    assert len(_asked(bench)) == count
    found = find_resumable(bench.state, first.id, retry_failed=True)
    assert not found.is_done
    mended = resume_run(replace(request, terms=found.terms), first.id)
    assert mended.ok
    assert _asked(bench)[count:] == ["3", "4"]
    assert mended.evaluations[0].overall != first.evaluations[0].overall
    third = execute_run(replace(request, terms=Terms(retry_failed=True)))
    assert (third.ok, third.tasks[0].reused) == (True, first.id)


@pytest.mark.parametrize("change", ["params", "data", "environment", "code", "tasks"])
def test_resume_refuses_what_is_another_run(bench: Bench, change: str) -> None:
    """A run whose parameters, data, environment or code have changed is not gone on with; what changed is named."""
    request = _telling(bench)
    _kill_after(bench, request, 2)
    count = len(_asked(bench))
    told = {
        "params": "params.beam none → 4",
        "data": "telling@lines: changed since",
        "environment": "environment (python 3 → 4)",
        "code": "code in packages/x",
        "tasks": "is no longer in the run file",
    }
    telling = next(each for each in request.environments if each.plugin == "telling")
    others = [each for each in request.environments if each.plugin != "telling"]
    if change == "params":
        request.run_file.write_text(request.run_file.read_text().replace("params: {", "params: {beam: 4, "))
    elif change == "data":
        (bench.root / "lines.csv").write_text(MANY.replace("q7,q7", "q7,other"))
    elif change == "environment":
        request = replace(request, environments=[*others, replace(telling, key="new", versions={"python": "4"})])
    elif change == "code":
        request = replace(request, environments=[*others, replace(telling, code={"packages/x": Code("1")})])
    else:
        request.run_file.write_text(request.run_file.read_text().replace("plugin: telling", "plugin: echo"))
    with pytest.raises(ChangedError) as caught:
        _resume(request)
    problems = caught.value.problems
    assert {problem.code for problem in problems} == {"run-changed"}
    assert told[change] in " ".join(problem.message for problem in problems)
    assert str(problems[0].hint).startswith("envbuilder run ")
    assert len(_asked(bench)) == count


def test_resume_refuses_a_run_that_goes_on(bench: Bench) -> None:
    """While a runner lives nobody else takes its run."""
    request = _telling(bench)
    bench.write("most", "1")
    with _start(bench, request) as runner:
        _wait_for_answers(bench, 1)
        with pytest.raises(RecordError, match="another process is at it") as caught:
            find_resumable(bench.state)
        assert caught.value.code == "run-live"
        with pytest.raises(RecordError, match="another process is at it"):
            resume_run(request, show_run(bench.state).id)
        runner.kill()


_WAYS = {
    "removed": lambda path: path.unlink(),
    "emptied": lambda path: path.write_text(""),
    "cut": lambda path: path.write_bytes(path.read_bytes()[:-9]),
    "another's": lambda path: path.write_text(path.read_text().replace('"task": "', '"task": "other-')),
}


@pytest.mark.parametrize(("way", "asked"), [("removed", 40), ("emptied", 40), ("cut", 1), ("another's", 40)])
def test_answers_that_are_lost_are_asked_again(bench: Bench, way: str, asked: int) -> None:
    """A run that had ended and lost answers is gone on with: what is there stays, what is not is asked, judged, reported."""
    request = _telling(bench)
    first = execute_run(request)
    assert (first.ok, find_resumable(bench.state).is_done) == (True, True)
    count = len(_asked(bench))
    _WAYS[way](_journal(bench))
    shown = show_run(bench.state)
    assert (shown.ok, shown.problems[0].code) == (False, "answers-missing")
    assert shown.problems[0].hint == f"envbuilder resume {first.id}"
    found = find_resumable(bench.state)
    assert (found.is_done, [each.code for each in found.lost]) == (False, ["answers-missing"])
    resumed = _resume(request)
    assert _figures(resumed) == _figures(first)
    assert len(_asked(bench)) - count == asked
    assert len(find_answers(_journal(bench)).lines) == 40
    assert (show_run(bench.state).ok, find_resumable(bench.state).is_done) == (True, True)


def test_a_failed_item_whose_line_is_lost_is_asked_again_alone(bench: Bench) -> None:
    """Of a task that had ended with failures, those whose lines are there are not asked again, the lost one is."""
    (bench.root / "broken").write_text("3 40")
    request = _telling(bench)
    first = execute_run(request)
    assert first.tasks[0].failed_items == 2
    count = len(_asked(bench))
    _WAYS["cut"](_journal(bench))
    (problem,) = find_resumable(bench.state).lost
    assert "1 item that failed is not in the answers file" in problem.message
    resumed = _resume(request)
    assert (_asked(bench)[count:], resumed.tasks[0].failed_items) == (["40"], 2)
    assert find_resumable(bench.state).is_done


def test_folders_that_are_lost_are_made_again(bench: Bench) -> None:
    """Answers, figures, logs and items that were removed with their folders are there again, all asked once more."""
    request = _telling(bench)
    first = execute_run(request)
    for name in ("answers", "metrics", "logs", "items"):
        shutil.rmtree(Path(first.paths["run"], name))
    resumed = _resume(request)
    assert (resumed.ok, _figures(resumed)) == (True, _figures(first))
    assert len(_asked(bench)) == 80
    assert (show_run(bench.state).problems, find_resumable(bench.state).is_done) == ((), True)


@pytest.mark.parametrize(
    ("name", "way", "code"),
    [
        ("metrics/*.json", "removed", "metrics-missing"),
        ("metrics/*.json", "cut", "metrics-missing"),
        ("metrics/metrics.csv", "removed", "metrics-missing"),
        ("metrics/metrics.csv", "cut", "metrics-missing"),
        ("report.html", "removed", "report-missing"),
        ("report.html", "emptied", "report-missing"),
    ],
)
def test_figures_and_reports_that_are_lost_are_made_again(bench: Bench, name: str, way: str, code: str) -> None:
    """Nothing is asked again for them; where they cannot be made again that is said, with status 1."""
    request = _telling(bench)
    first = execute_run(request)
    count = len(_asked(bench))
    (path,) = Path(first.paths["run"]).glob(name)
    _WAYS[way](path)
    shown = show_run(bench.state)
    assert (shown.ok, {each.code for each in shown.problems}) == (False, {code})
    if name == "metrics/*.json":
        changed = [each for each in request.environments if each.plugin != "exact"]
        judge = next(each for each in request.environments if each.plugin == "exact")
        with pytest.raises(LostError) as caught:
            _resume(replace(request, environments=[*changed, replace(judge, key="new")]))
        assert caught.value.exit_status == 1
        assert {each.code for each in caught.value.problems} == {code, "run-changed"}
    resumed = _resume(request)
    assert (resumed.ok, _figures(resumed), len(_asked(bench))) == (True, _figures(first), count)
    assert (show_run(bench.state).problems, find_resumable(bench.state).is_done) == ((), True)
    assert path.stat().st_size


def test_folders_that_are_gone_are_made_again(bench: Bench) -> None:
    """Whatever folders a run lost between a kill and its resume, it is gone on with; what was answered is not asked again."""
    request = _telling(bench)
    _kill_after(bench, request, 7)
    folder = (bench.state / "runs" / "latest").resolve()
    answered = len(_asked(bench))
    for name in ("logs", "items", "metrics", "attempts"):
        shutil.rmtree(folder / name)
    outcome = _resume(request)
    assert outcome.ok, outcome.problems
    assert len(_asked(bench)) - answered <= 40 - 7


@pytest.mark.parametrize("name", ["answers", "logs", "items"])
def test_a_file_in_a_folders_place_is_told(bench: Bench, name: str) -> None:
    """A file where a run's folder belongs is named, with the command that takes it out of the way."""
    request = _telling(bench)
    _kill_after(bench, request, 7)
    folder = (bench.state / "runs" / "latest").resolve()
    (folder / name).rename(bench.root / "kept")
    (folder / name).write_text("")
    with pytest.raises(RecordError, match="expected a folder, found a file") as caught:
        _resume(request)
    assert caught.value.where == str(folder / name)
    assert str(caught.value.hint).startswith("mv ")


def test_run_file_that_is_gone_has_a_copy(bench: Bench) -> None:
    """A resume without its run file says where a copy is."""
    request = _telling(bench)
    execute_run(request)
    request.run_file.unlink()
    with pytest.raises(RecordError, match="run file is gone") as caught:
        find_resumable(bench.state)
    subprocess.run(["sh", "-c", str(caught.value.hint)], check=True)
    assert find_resumable(bench.state).is_done


def test_second_run_repeats_nothing(bench: Bench) -> None:
    """The same run again asks no item and judges nothing; its figures are the first one's, and labelled so."""
    request = _telling(bench)
    first = execute_run(request)
    second = execute_run(request)
    assert second.ok
    assert len(_asked(bench)) == 40
    assert [task.reused for task in second.tasks] == [first.id, first.id, None]
    assert _figures(second) == _figures(first)
    assert second.tasks[0].items_per_s == first.tasks[0].items_per_s
    assert second.tables[-1].columns[-1] == "remarks"
    assert second.tables[-1].rows[0][-1] == f"reused from {first.id}"
    report = json.loads(Path(second.paths["report"]).read_text())
    assert report["tasks"][0]["reused"] == first.id
    lines = [json.loads(line) for line in _journal(bench).read_text().splitlines()]
    assert {line["reused_from"] for line in lines} == {first.id}
    assert "remarks" not in outcome_tables(first.tasks, first.evaluations)[-1].columns
    third = execute_run(request)
    assert third.tasks[0].reused == first.id


def test_answers_of_an_unfinished_run_are_taken(bench: Bench) -> None:
    """Another run of the same identity goes on where a killed one stopped, and says how many answers are not its own."""
    request = _telling(bench)
    _kill_after(bench, request, 9)
    killed = show_run(bench.state).id
    kept = len(find_answers(_journal(bench)).lines)
    before = len(_asked(bench))
    (decision, *_) = explain_run(request).decisions
    assert (decision.what, decision.run, decision.left, decision.items) == ("continue", killed, 40 - kept, 40)
    assert decision.why == f"{killed} was killed with {kept} answers"
    outcome = execute_run(request)
    assert outcome.ok
    assert outcome.id != killed
    assert outcome.tasks[0].reused is None
    assert f"{kept} answers are those of {killed}" in outcome.tasks[0].notes
    assert len(_asked(bench)) - before == 40 - kept


def test_force_and_fresh_do_anew(bench: Bench) -> None:
    """What is forced is done anew, with what rests on it; fresh does everything anew; an unknown name is refused."""
    request = _telling(bench)
    first = execute_run(request)
    judged = execute_run(replace(request, terms=Terms(force=frozenset({"exact"}))))
    assert [task.reused for task in judged.tasks] == [first.id, None, None]
    forced = execute_run(replace(request, terms=Terms(force=frozenset({"telling@lines"}))))
    assert [task.reused for task in forced.tasks] == [None, None, None]
    fresh = execute_run(replace(request, terms=Terms(fresh=True)))
    assert [task.reused for task in fresh.tasks] == [None, None, None]
    assert len(_asked(bench)) == 120
    with pytest.raises(UsageError, match="nearest: telling"):
        execute_run(replace(request, terms=Terms(force=frozenset({"teling"}))))


def test_plan_says_why(bench: Bench) -> None:
    """Of each task it is said what would be done, and which part differs from the nearest earlier result."""
    request = _telling(bench)
    assert explain_run(request).decisions[0].why == "no earlier result of telling on lines"
    first = execute_run(request)
    decisions = explain_run(request).decisions
    assert [each.what for each in decisions] == ["reuse", "reuse", "run"]
    assert decisions[0].why == f"everything is as in {first.id}"
    request.run_file.write_text(request.run_file.read_text().replace("params: {", "params: {beam: 4, "))
    decisions = explain_run(request).decisions
    assert [each.what for each in decisions] == ["run", "run", "run"]
    assert decisions[0].why == f"since {first.id}: params.beam none → 4"
    assert decisions[1].why == "the answers of telling@lines come first"
    assert "reports are written anew" in decisions[2].why
    assert why_table(decisions).rows[0][:3] == ("telling@lines", "run", "40/40")
    forced = explain_run(replace(request, terms=Terms(fresh=True))).decisions
    assert forced[0].why == "--fresh"


def test_weights_are_part_of_what_a_result_is(bench: Bench) -> None:
    """Other weights make another result; the same under another name do not; missing ones are refused."""
    model = bench.write("model/layer.bin", "one")
    request = _telling(bench, ", weights: [model]")
    execute_run(request)
    assert execute_run(request).tasks[0].reused
    (bench.root / "model").rename(bench.root / "other")
    assert execute_run(_telling(bench, ", weights: [other]")).tasks[0].reused
    (bench.root / "other" / model.name).write_text("two")
    request = _telling(bench, ", weights: [other]")
    assert "weights" in explain_run(request).decisions[0].why
    outcome = execute_run(request)
    assert outcome.tasks[0].reused is None
    assert set(outcome.tasks[0].weights) == {"other"}
    with pytest.raises(ConfigError, match="cannot read gone") as caught:
        execute_run(_telling(bench, ", weights: [gone]"))
    assert caught.value.problems[0].code == "weights-missing"


def test_runs_are_compared_part_by_part(bench: Bench) -> None:
    """Two runs differ in what their tasks depended on, each part by name, and their figures stand side by side."""
    request = _telling(bench)
    first = execute_run(request)
    (bench.root / "lines.csv").write_text(MANY.replace("q7,q7", "q7,other"))
    request.run_file.write_text(request.run_file.read_text().replace("params: {", "params: {beam: 4, "))
    telling = next(each for each in request.environments if each.plugin == "telling")
    others = [each for each in request.environments if each.plugin != "telling"]
    newer = replace(telling, versions={"numpy": "4"}, code={"packages/x": Code("1" * 64, "a" * 40, "b" * 64)})
    second = execute_run(replace(request, environments=[*others, newer]))
    found = diff_runs(bench.state, first.id, second.id)
    of_task = {each.part: (each.old, each.new) for each in found.differences if each.task == "telling@lines"}
    assert set(of_task) == {"params.beam", "data", "code.packages/x/", "versions.numpy"}
    assert of_task["params.beam"] == ("none", "4")
    assert of_task["code.packages/x/"] == ("none", "aaaaaaaaaaaa and changes bbbbbbbbbbbb")
    figures = {each.name: (each.old, each.new) for each in found.figures if each.task == "telling@lines"}
    assert figures["exact.exact"] == (27 / 40, 26 / 40)
    assert {"items/s", "load s", "failed items"} <= set(figures)
    assert len(diff_tables(found)) == 2
    assert diff_runs(bench.state, first.id, first.id).differences == ()
    third = execute_run(replace(request, environments=[*others, newer]))
    notes = {each.name: each.note for each in diff_runs(bench.state, second.id, third.id).figures}
    assert notes["items/s"] == f"{third.id}: measured in {second.id}"
    assert not notes["exact.exact"]


def test_results_of_other_devices_do_not_serve(bench: Bench) -> None:
    """What another processor answered is neither reused nor mixed in unsaid."""
    request = _telling(bench)
    first = execute_run(request)
    record = Path(first.paths["run"]) / "run.json"
    here = first.tasks[0].identity_parts["device"]
    record.write_text(record.read_text().replace(json.dumps(here), '"Other 9000"'))
    assert explain_run(request).decisions[0].why == f"since {first.id}: device Other 9000 → {here}"
    assert execute_run(request).tasks[0].reused is None
    # A run that is gone on with elsewhere keeps what it has, and says so.
    journal = Path(first.paths["answers"]) / "telling@lines.jsonl"
    journal.write_text("".join(journal.read_text().splitlines(keepends=True)[:5]))
    document = json.loads(record.read_text())
    document["status"] = document["tasks"][0]["status"] = "failed"
    record.write_text(json.dumps(document))
    resumed = _resume(request, first.id)
    assert resumed.tasks[0].degraded == (f"5 answers were given on Other 9000, not on {here}",)
    assert resumed.tasks[0].identity_parts["device"] == " + ".join(sorted(("Other 9000", here)))


def test_secrets_are_no_part_of_a_result(bench: Bench) -> None:
    """A token in parameters or variables may change; the result is the same, and is found again."""
    request = _telling(bench)
    text = request.run_file.read_text()
    for token in ("k-12345678", "k-87654321"):
        request.run_file.write_text(text.replace("params: {", f"params: {{api_key: {token}, "))
        outcome = execute_run(request)
    assert outcome.tasks[0].reused


def test_dev_run_says_what_code_it_ran(bench: Bench) -> None:
    """Record and report name the checkouts of a dev run, with commit and digest of the difference."""
    bench.usual()
    code = Code("a" * 64, "b" * 40, "c" * 64)
    environments = [replace(each, code={"packages/echo": code}) for each in bench.environments[:1]]
    request = replace(bench.request(USUAL), environments=[*environments, *bench.environments[1:]])
    outcome = execute_run(request)
    document = json.loads((Path(outcome.paths["run"]) / "run.json").read_text())
    told = {"digest": "a" * 64, "commit": "b" * 40, "difference": "c" * 64, "dirty": True}
    assert document["environments"][0]["code"] == {"packages/echo": told}
    report = json.loads(Path(outcome.paths["report"]).read_text())
    assert (report["run"]["profile"], report["run"]["code"]) == ("dev", {"packages/echo": told})
