"""What the runner costs, beside doing the same without it: a start, an item, an answer kept, a warm worker.

Every row is one comparison within one run, medians of several rounds taken in turn.
"""

from __future__ import annotations

import json
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import click

sys.path[:0] = [str(Path(__file__).parents[1] / "tests"), str(Path(__file__).parents[1])]

from pipeline_bench import ECHO, Bench, child_environment  # noqa: E402

from pipeline.cli import RunRequest, Terms, execute_run, plan_run  # noqa: E402
from pipeline.layout import Journal, read_answers, write_environments  # noqa: E402
from pipeline.models import AnswerLine, Plan, RunOutcome, Task  # noqa: E402
from pipeline.placement import AttemptRequest, LocalMachine, Stop  # noqa: E402
from pipeline.protocol import Message, item_document, job_document  # noqa: E402
from pipeline.slots import Slots  # noqa: E402

Job = Callable[[], object]

# Takes a second to load, as a small model might; answers at once.
_SLOW_TO_LOAD = ECHO.replace("self.context = context", "import time; time.sleep(1)")


def seconds(job: Job) -> float:
    """Wall time of a job."""
    start = time.perf_counter()
    job()
    return time.perf_counter() - start


def compare(rounds: int, mine: Job, theirs: Job) -> tuple[float, float]:
    """Medians of two jobs, done in turn, in seconds."""
    pairs = [(seconds(mine), seconds(theirs)) for _ in range(rounds)]
    return statistics.median(pair[0] for pair in pairs), statistics.median(pair[1] for pair in pairs)


def show(what: str, mine: str, theirs: str, figure: str, goal: str, *, met: bool) -> None:
    """Print one line of the table."""
    click.echo(f"{what:44} {mine:>12} {theirs:>12}  {figure:>16}  goal {goal:8}  {'met' if met else 'NOT met'}")


class Quiet:
    """Listens to an attempt and keeps nothing."""

    def heard(self, _message: Message) -> None:
        """Say nothing."""

    def measured(self, _sample: object) -> None:
        """Say nothing."""


def attempt(machine: LocalMachine, bench: Bench, task: Task, plan: Plan, number: int, *, keep: bool = False) -> None:
    """One attempt at a task, without the scheduler."""
    folder = bench.root / "attempts" / f"a{number}"
    slot = machine.take(task)
    if slot is None:
        raise RuntimeError(machine.refusal.text)
    data = plan.data_set(task.data)
    items = [item_document(item) for item in data.items] if data else []
    job = {**job_document(task, f"a{number}", folder=folder, device="cpu"), "items": items}
    request = AttemptRequest(f"a{number}", task.environment, job, folder, bench.root / "out", bench.root / "err")
    result = machine.attempt(slot, request, interrupted=Stop(), watcher=Quiet(), keep=keep)
    machine.release(slot)
    machine.give_back(slot)
    if result.status != "ok":
        raise RuntimeError(result.error)


def anew(request: RunRequest) -> RunOutcome:
    """A run that takes nothing from earlier ones."""
    return execute_run(replace(request, terms=Terms(fresh=True)))


def per_task(bench: Bench, rounds: int) -> None:
    """A worker below its supervisor, against the environment's Python doing the same without either."""
    bench.plugin("echo", ECHO)
    plan = plan_run(bench.request("inference: [{plugin: echo}]"))
    (task,) = plan.tasks
    # The same interpreter, the same modules, the same plugin, the same items: no messages, nobody who watches.
    bootstrap = Path(__file__).parents[1] / "pipeline" / "bootstrap.py"
    script = bench.write(
        "same.py",
        f"import sys; sys.path.insert(0, {str(bootstrap.parent)!r}); import bootstrap\n"
        "plugin = bootstrap.find('echo:Plugin')()\nplugin.load(bootstrap.Context())\nbootstrap.sow({'seed': 0, 'deterministic': False})\n"
        "bootstrap.facts({'plugin': 'echo', 'gpu_name': ''}, 'cpu')\n"
        "plugin.predict([bootstrap.Item('1')])\n",
    )
    machine = LocalMachine(Slots(visible=""))
    numbers = iter(range(10**6))
    argv = (str(task.environment.python), "-u", "-s", str(script))

    def bare() -> None:
        subprocess.run(argv, check=True, capture_output=True, env=child_environment())

    mine, theirs = compare(rounds, lambda: attempt(machine, bench, task, plan, next(numbers)), bare)
    added_ms = (mine - theirs) * 1000
    told = f"{mine * 1000:.0f} ms", f"{theirs * 1000:.0f} ms", f"{added_ms:.0f} ms added"
    show("a task, supervised / python alone", *told, "30 ms", met=added_ms <= 30)


def per_item(bench: Bench, rounds: int, count: int) -> None:
    """Items one at a time through a worker, a journal and all, against the plugin called in a loop."""
    rows = "id;question;answer\n" + "".join(f"{number};q;a\n" for number in range(count))
    bench.plugin("echo", ECHO)
    few, many = (bench.request("inference: [{plugin: echo}]", text) for text in (rows.split("\n1;")[0] + "\n", rows))
    spent = []
    for _ in range(rounds):
        bench.write("lines.csv", rows.split("\n1;")[0] + "\n")
        start = seconds(lambda: anew(few))
        bench.write("lines.csv", rows)
        spent.append(seconds(lambda: anew(many)) - start)
    each_us = statistics.median(spent) / count * 1e6
    show(f"an item of {count}, batch 1", f"{each_us:.0f} us", "", "", "50 us", met=each_us <= 50)


def journal(folder: Path, rounds: int, count: int) -> None:
    """Answers appended and flushed one by one and read back, against the same lines written and parsed at once."""
    lines = [AnswerLine(str(number), "t@d", "t@d.1", "an answer of some length", None, 0.01) for number in range(count)]

    def mine() -> None:
        path = folder / "journal.jsonl"
        path.unlink(missing_ok=True)
        kept = Journal(path)
        for line in lines:
            kept.append(line.to_json())
        kept.close()
        if len(read_answers(path)) != count:
            raise RuntimeError("answers were lost")

    def theirs() -> None:
        path = folder / "plain.jsonl"
        path.write_text("".join(json.dumps(line.to_json()) + "\n" for line in lines))
        [json.loads(line) for line in path.read_text().splitlines()]

    ours, plain = compare(rounds, mine, theirs)
    told = f"{ours * 1e6 / count:.1f} us", f"{plain * 1e6 / count:.1f} us", f"ratio {ours / plain:.2f}"
    show(f"an answer of {count:,} kept and read", *told, "-", met=True)


def warm(bench: Bench, rounds: int) -> None:
    """Five data sets by one worker, against five runs with a worker each; the model takes a second to load."""
    bench.plugin("slow", _SLOW_TO_LOAD)
    names = [f"d{number}" for number in range(5)]
    for name in names:
        bench.write(f"{name}.csv", "id;question;answer\n1;one;one\n")
    request = bench.request("inference: [{plugin: slow}]")

    def run(chosen: list[str]) -> None:
        data = ", ".join(f"{name}: {{path: {name}.csv}}" for name in chosen)
        request.run_file.write_text(f"name: warm\ndata: {{{data}}}\ninference: [{{plugin: slow}}]\n")
        if not anew(request).ok:
            raise RuntimeError("the run failed")

    def cold() -> None:
        for name in names:
            run([name])

    mine, theirs = compare(rounds, lambda: run(names), cold)
    told = f"{mine:.2f} s", f"{theirs:.2f} s", f"ratio {mine / theirs:.2f}"
    show("5 data sets, warm / cold, 1 s to load", *told, "0.40", met=mine / theirs <= 0.4)


_RUNNER = """
import sys
from pathlib import Path
from pipeline.cli import RunRequest, Terms, execute_run  # noqa: E402
from pipeline.layout import read_environments  # noqa: E402
run_file, environments, state = map(Path, sys.argv[1:])
sys.exit(not execute_run(RunRequest(run_file, read_environments(environments), state, "dev", terms=Terms(fresh=True))).ok)
"""


def start_up(bench: Bench, rounds: int) -> None:
    """A whole run from its first import, against the interpreter of each plugin loading it."""
    bench.usual()
    run_file = bench.run_file("inference: [{plugin: echo}]\neval: [{plugin: exact}]\nreport: [{plugin: page}]")
    listing = bench.root / "environments.json"
    write_environments(listing, bench.environments)
    argv = (sys.executable, "-c", _RUNNER, str(run_file), str(listing), str(bench.state))
    python = str(bench.environments[0].python)

    def mine() -> None:
        subprocess.run(argv, check=True, env=child_environment(), cwd=Path(__file__).parents[1])

    def theirs() -> None:
        for name in ("echo", "exact", "page"):
            subprocess.run((python, "-c", f"import {name}"), check=True, env=child_environment())

    ours, plain = compare(rounds, mine, theirs)
    told = f"{ours * 1000:.0f} ms", f"{plain * 1000:.0f} ms", f"{(ours - plain) * 1000:.0f} ms added"
    show("a run of 3 tasks / 3 plugins loaded", *told, "-", met=True)


@click.command(help=__doc__)
@click.option("--rounds", default=7, show_default=True)
@click.option("--items", default=20_000, show_default=True)
@click.option("--answers", default=100_000, show_default=True)
def main(rounds: int, items: int, answers: int) -> None:
    """Run all comparisons."""
    scratch = Path(tempfile.mkdtemp(prefix="bench-run-"))
    try:
        for name in ("task", "item", "journal", "start", "warm"):
            (scratch / name).mkdir()
        per_task(Bench(scratch / "task"), rounds * 3)
        per_item(Bench(scratch / "item"), max(3, rounds // 2), items)
        journal(scratch / "journal", rounds, answers)
        start_up(Bench(scratch / "start"), rounds)
        warm(Bench(scratch / "warm"), max(3, rounds // 2))
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


if __name__ == "__main__":
    main()
