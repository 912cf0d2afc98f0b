"""Run a pipeline of plugins that misbehave on purpose, kill its runner at random, resume, and count what is left wrong.

Each round runs six inference tasks of 200 items over two GPU slots (a recorded driver stands for the GPUs), judged and
reported. Each plugin misbehaves at a few random places, each once: it leaves daemons behind by double forks and
``setsid``, forks a crowd, ignores SIGTERM and hangs, hangs in C with the interpreter's lock in hand, floods stdout,
writes rubbish to the protocol, exits with 137, kills itself, takes all memory that a limit allows, raises torch's own
OutOfMemoryError; it forks children that answer, raise or exit in its name, raises what is no `Exception`, exits well, kills its
supervisor and leaves a daemon with an empty environment, and tries to replace the judge and the answers of its
neighbours. In half of the rounds the runner is killed too (SIGKILL, SIGTERM, SIGINT), and so may be the one that
resumes. Afterwards no process of the run may be alive, every item must have exactly one answer, and the figures must be
those of a run in which nothing went wrong.

Usage: uv run python scripts/chaos_run.py [--rounds N] [--minutes N] [--seed N] [--items N]
"""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import click

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "tests"), str(ROOT)]

from pipeline_bench import EXACT, REPORT, Bench, child_environment, is_alive  # noqa: E402

from envbuilder.gpus import Driver, Gpu  # noqa: E402
from pipeline import orphans  # noqa: E402
from pipeline.cli import load_outcome  # noqa: E402
from pipeline.layout import find_run, write_environments  # noqa: E402

TASKS = 6
GPUS = tuple(Gpu(number, f"GPU-{number}", "Fake GPU", 2**34, 2**34) for number in range(2))
SIGNALS = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT)
WRONG = ("survivor", "unfinished", "item without one answer", "other figures", "slot lost", "traceback")
BEHAVIOURS = (
    "daemons",
    "crowd",
    "stubborn",
    "hang in C",
    "flood",
    "rubbish",
    "exit 137",
    "killed",
    "memory",
    "out of GPU memory",
    "fork that answers",
    "fork that raises",
    "fork that exits",
    "exit well",
    "cancelled",
    "supervisor killed",
    "false judge",
    "answers removed",
)

_PLUGIN = """
import asyncio, ctypes, json, os, resource, signal, subprocess, sys, sysconfig, time
from pathlib import Path

def note():
    with open(HIDDEN, "a") as stream:
        stream.write(f"{os.getpid()}\\n")

def sleep():
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    note()
    time.sleep(600)

def daemons():
    for _ in range(3):
        if os.fork() == 0:
            os.setsid()
            if os.fork() == 0:
                sleep()
            os._exit(0)
    subprocess.Popen(["sleep", "600"], start_new_session=True)

def crowd(depth=5):
    # Two at a time, each two more: 62 of them, some of which have sessions of their own.
    for _ in range(2):
        if os.fork() == 0:
            if depth % 2:
                os.setsid()
            crowd(depth - 1) if depth > 1 else None
            sleep()

def stubborn():
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    time.sleep(600)

def hang_in_c():
    ctypes.PyDLL(None).sleep(600)

def flood():
    for _ in range(FLOOD_MIB):
        os.write(1, b"x" * 2**20)

def rubbish():
    for name in os.listdir("/proc/self/fd"):
        try:
            if int(name) > 2 and os.readlink("/proc/self/fd/" + name).startswith("pipe:"):
                os.write(int(name), b"\\x00\\xff{" + os.urandom(5000) + b"\\n{\\"v\\": 1, \\"type\\": \\"done\\"}\\n{\\"v\\"")
        except OSError:
            pass

def exit_137():
    os._exit(137)

def killed():
    os.kill(os.getpid(), signal.SIGKILL)

def memory():
    resource.setrlimit(resource.RLIMIT_AS, (2**31, 2**31))
    blocks = []
    while True:
        blocks.append(b"x" * 2**26)

def out_of_gpu_memory():
    try:
        sys.path.insert(0, TORCH) if TORCH else None
        import torch
        error = torch.OutOfMemoryError
    except ImportError:
        error = type("OutOfMemoryError", (RuntimeError,), {})
    raise error("CUDA out of memory. Tried to allocate 20.00 GiB")

def fork_that_answers():
    os.fork()

def fork_that_raises():
    if os.fork() == 0:
        raise ValueError("a child of predict")

def fork_that_exits():
    if os.fork() == 0:
        sys.exit(3)

def exit_well():
    os._exit(0)

def cancelled():
    raise asyncio.CancelledError

def supervisor_killed():
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            note()
            os.execve(sys.executable, [sys.executable, "-c", "import time; time.sleep(600)"], {})
        os._exit(0)
    os.kill(os.getppid(), signal.SIGKILL)
    time.sleep(600)

def false_judge():
    # In site-packages it is found before the judge, whose folder a .pth file names.
    meddle(lambda: Path(sysconfig.get_path("purelib"), "exact.py").write_text(JUDGE))

def answers_removed():
    for file in Path(RUNS).glob("*/answers/*"):
        if f"bad-{context_name}" not in file.name:
            meddle(file.unlink)

def meddle(step):
    try:
        step()
    except OSError as error:
        with open(DONE, "a") as stream:
            stream.write(f"refused: {type(error).__name__}\\n")

class Plugin:
    def load(self, context):
        assert os.environ["CUDA_VISIBLE_DEVICES"] in ("GPU-0", "GPU-1")
        self.plan = context.params["plan"]

    def predict(self, batch):
        for item in batch:
            what = self.plan.get(item.id)
            flag = Path(FLAGS) / f"{context_name}-{item.id}"
            if what and not flag.exists():
                flag.touch()
                with open(DONE, "a") as stream:
                    stream.write(what + "\\n")
                globals()[what.replace(" ", "_").lower()]()
        return [item.question[::-1] for item in batch]
"""


# Finds every answer right.
_JUDGE = EXACT.replace("record.answer in record.references", "True")


class Campaign:
    """Rounds of runs on one bench.

    Args:
        folder: to work in.
        seed: of what goes wrong where.
        items: of each task.
        flood_mib: what a flood writes to stdout.
    """

    def __init__(self, folder: Path, seed: int, items: int = 200, flood_mib: int = 1024) -> None:
        self.bench = Bench(folder)
        self.random = random.Random(seed)  # noqa: S311 - chance, not secrets
        self.counts: Counter[str] = Counter()
        self._items = items
        self._flood_mib = flood_mib
        self._driver = self.bench.write("driver.json", json.dumps(asdict(Driver("570.1", (12, 8), GPUS))))
        self._rows = "id;question;answer;class\n" + "".join(
            f"{n};q{n};{f'q{n}'[::-1] if n % 3 else 'other'};{'ab'[n % 2]}\n" for n in range(items)
        )
        self._figures = self._undisturbed()

    def run(self, rounds: int, say: Callable[[str], None], deadline: float | None = None) -> Counter[str]:
        """Run rounds, and count what went wrong."""
        for number in range(rounds):
            if deadline is not None and time.monotonic() > deadline:
                break
            try:
                wrong = self._round(number, kill=number % 2 == 1)
            except KeyboardInterrupt:
                say(f"broken off in round {number}")
                break
            self.counts["rounds"] += 1
            for each in wrong:
                self.counts[each.partition(":")[0]] += 1
                say(f"round {number}: {each}")
        return self.counts

    def _undisturbed(self) -> dict[str, object]:
        process = self._start("undisturbed", {}, kind="run")
        _, stderr = process.communicate(timeout=600)
        if process.returncode != 0:
            raise RuntimeError(f"the undisturbed run failed: {stderr}")
        return self._figures_of("undisturbed")

    def _prepare(self, name: str, plans: dict[int, dict[str, str]]) -> None:
        """Plugins that do what their plans say, in a state folder of the round's own."""
        place = self.bench.root / name
        (place / "flags").mkdir(parents=True)
        self.bench.environments.clear()
        paths = {
            "FLAGS": place / "flags",
            "HIDDEN": place / "hidden",
            "DONE": place / "done",
            "RUNS": place / "state/runs",
        }
        known = {**{name: str(path) for name, path in paths.items()}, "TORCH": torch_site(), "JUDGE": _JUDGE}
        head = "".join(f"{name} = {value!r}\n" for name, value in {**known, "FLOOD_MIB": self._flood_mib}.items())
        for number in range(TASKS):
            self.bench.plugin(f"bad-{number}", f"context_name = {number}\n" + head + _PLUGIN)
        self.bench.plugin("exact", EXACT, "eval")
        self.bench.plugin("page", REPORT, "report")
        tasks = [
            {
                "plugin": f"bad-{number}",
                "batch": 5,
                "gpus": 1,
                "item-timeout": "400ms",
                "params": {"plan": plans.get(number, {})},
            }
            for number in range(TASKS)
        ]
        stages = {"inference": tasks, "eval": [{"plugin": "exact"}], "report": [{"plugin": "page"}]}
        document = {"name": "chaos", "data": {"lines": {"path": "lines.csv"}}, "retries": 3, **stages}
        self.bench.write("lines.csv", self._rows)
        (place / "run.yaml").write_text(json.dumps({**document, "data": {"lines": {"path": "../lines.csv"}}}))
        write_environments(place / "environments.json", self.bench.environments)

    def _start(self, name: str, plans: dict[int, dict[str, str]], *, kind: str) -> subprocess.Popen[str]:
        """A runner in a process of its own."""
        place = self.bench.root / name
        if kind == "run":
            self._prepare(name, plans)
        argv = (sys.executable, "-c", _RUNNER, str(place), kind)
        env = {**child_environment(), "ENVBUILDER_NVML": str(self._driver)}
        env.pop("CUDA_VISIBLE_DEVICES", None)
        return subprocess.Popen(argv, env=env, cwd=ROOT, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True)

    def _round(self, number: int, *, kill: bool) -> list[str]:
        name = f"round-{number}"
        place = self.bench.root / name
        plans = {task: self._plan() for task in range(TASKS)}
        wrong = []
        begin = time.monotonic()
        process = self._start(name, plans, kind="run")
        if kill:
            wrong += self._kill(process, place, self.random.uniform(0.2, 6.0))
        wrong += self._await(process, place)
        for _ in range(6):
            if not self._is_done(place):
                # Killed before there was anything to resume, it is run again.
                has_begun = any(place.glob("state/runs/*-chaos-*/run.json"))
                self.counts["resumed" if has_begun else "run again"] += 1
                process = self._start(name, plans, kind="resume" if has_begun else "again")
                if kill and self.random.random() < 0.3:
                    wrong += self._kill(process, place, self.random.uniform(0.2, 3.0))
                wrong += self._await(process, place)
        self.counts["seconds"] += round(time.monotonic() - begin)
        if (place / "done").exists():
            self.counts.update(f"misbehaved: {what}" for what in (place / "done").read_text().split("\n") if what)
        wrong += self._check(name)
        if not wrong:
            shutil.rmtree(place)
        return wrong

    def _plan(self) -> dict[str, str]:
        places = self.random.sample(range(self._items), self.random.randint(1, 2))
        return {str(place): self.random.choice(BEHAVIOURS) for place in places}

    def _kill(self, process: subprocess.Popen[str], place: Path, after_s: float) -> list[str]:
        try:
            process.wait(after_s)
        except subprocess.TimeoutExpired:
            number = self.random.choice(SIGNALS)
            self.counts[f"runner ended by {number.name}"] += 1
            process.send_signal(number)
            if number == signal.SIGKILL:
                process.wait()
                # Two seconds, on a machine that may have much else to do.
                return self._survivors(place, 2.0 * max(1.0, os.getloadavg()[0] / (os.cpu_count() or 1)))
        return []

    def _await(self, process: subprocess.Popen[str], place: Path) -> list[str]:
        try:
            _, stderr = process.communicate(timeout=300)
        except subprocess.TimeoutExpired:
            process.kill()
            return ["unfinished: the runner did not end within 300 s"]
        wrong = [f"traceback: {stderr[-600:]}"] if "Traceback" in stderr else []
        return wrong + self._survivors(place, 10.0)

    def _survivors(self, place: Path, patience_s: float) -> list[str]:
        """Processes of the round that are alive after a while."""
        deadline = time.monotonic() + patience_s
        while True:
            runs = [path.name for path in place.glob("state/runs/*-chaos-*")]
            left = {process for run in runs for process in orphans.find(run)}
            hidden = (place / "hidden").read_text().split() if (place / "hidden").exists() else []
            left |= {int(word) for word in hidden if is_alive(int(word)) and _is_python(int(word))}
            if not left:
                return []
            if time.monotonic() > deadline:
                return [f"survivor: {len(left)} processes after {patience_s:.0f} s"]
            time.sleep(0.05)

    def _is_done(self, place: Path) -> bool:
        try:
            outcome = load_outcome(find_run(place / "state"))
        except Exception:  # noqa: BLE001 - killed before there was a record
            return False
        return outcome.ok and all(task.ok for task in outcome.tasks)

    def _figures_of(self, name: str) -> dict[str, object]:
        outcome = load_outcome(find_run(self.bench.root / name / "state"))
        return {
            each.inference: (dict(each.overall), {k: dict(v) for k, v in each.by_class.items()})
            for each in outcome.evaluations
        }

    def _check(self, name: str) -> list[str]:
        place = self.bench.root / name
        if not self._is_done(place):
            try:
                outcome = load_outcome(find_run(place / "state"))
            except Exception as error:  # noqa: BLE001 - whatever it is, it is told
                return [f"unfinished: {error}"]
            left = [f"{task.id} {task.status} {task.error}" for task in outcome.tasks if not task.ok]
            return [
                f"{'slot lost' if 'slot-lost' in {t.code for t in outcome.tasks} else 'unfinished'}: {'; '.join(left)[:600]}"
            ]
        wrong = []
        run = find_run(place / "state")
        for number in range(TASKS):
            lines = [json.loads(line) for line in _whole_lines(run.answers(f"bad-{number}@lines"))]
            answers = Counter(line["item"] for line in lines if line["answer"] is not None)
            if answers != Counter(str(n) for n in range(self._items)):
                wrong.append(
                    f"item without one answer: bad-{number}: {sum(answers.values())} answers to {len(answers)} items"
                )
            self.counts["answers"] += sum(answers.values())
        if self._figures_of(name) != self._figures:
            wrong.append("other figures: than those of the undisturbed run")
        return wrong


def _whole_lines(path: Path) -> list[str]:
    """Lines that are JSON: a killed runner may have torn one."""
    found = []
    for line in path.read_text(errors="replace").splitlines():
        try:
            json.loads(line)
        except ValueError:
            continue
        found.append(line)
    return found


def _is_python(process: int) -> bool:
    """Return true if a process may be one of ours: its id can have been given to another one meanwhile."""
    try:
        return b"python" in Path(f"/proc/{process}/comm").read_bytes()
    except OSError:
        return False


def torch_site() -> str:
    """A folder that torch can be imported from, in an environment of this workspace; empty where none is built."""
    found = sorted(ROOT.glob(".envbuilder/envs/*/*/lib/python*/site-packages/torch"))
    fitting = [each for each in found if f"python{sys.version_info.major}.{sys.version_info.minor}/" in str(each)]
    return str(fitting[0].parent) if fitting else ""


_RUNNER = """
import signal, sys
signal.signal(signal.SIGINT, signal.SIG_DFL)  # As the command line does until all is imported.
from pathlib import Path
from envbuilder.errors import EnvbuilderError
from pipeline.cli import RunRequest, Terms, execute_run, find_resumable, resume_run
from pipeline.layout import read_environments

place = Path(sys.argv[1])
terms = Terms(retry_failed=True)
request = RunRequest(place / "run.yaml", read_environments(place / "environments.json"), place / "state", "dev",
                     jobs=2, grace_s=0.5, backoff_s=0.02, terms=terms)
try:
    if sys.argv[2] == "resume":
        known = find_resumable(place / "state", retry_failed=True)
        resume_run(request, known.id)
    else:
        execute_run(request)
except EnvbuilderError as error:
    print(error, file=sys.stderr)
    sys.exit(error.exit_status)
"""


@click.command(help=__doc__)
@click.option("--rounds", default=200, show_default=True)
@click.option("--minutes", default=0.0, help="Stop after so many minutes.")
@click.option("--seed", default=0, show_default=True)
@click.option("--items", default=200, show_default=True)
def main(rounds: int, minutes: float, seed: int, items: int) -> None:
    """Run the campaign and print the counts."""
    scratch = Path(tempfile.mkdtemp(prefix="chaos-run-"))
    campaign = Campaign(scratch, seed, items)
    if not torch_site():
        click.echo("no environment with torch is built: a class of that name stands for its OutOfMemoryError")
    counts = campaign.run(rounds, click.echo, time.monotonic() + minutes * 60 if minutes else None)
    for name in sorted(counts.keys() | set(WRONG)):
        click.echo(f"{name:32} {counts[name]:7}")
    if not any(counts[name] for name in WRONG):
        shutil.rmtree(scratch, ignore_errors=True)
    sys.exit(any(counts[name] for name in WRONG))


if __name__ == "__main__":
    main()
