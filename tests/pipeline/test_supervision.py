"""What a worker starts does not outlive its attempt, however it hides; and what the kernel knows of its end is told."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from pipeline_bench import ECHO, ROWS, child_environment, is_alive, wait_for

from pipeline import orphans
from pipeline.cli import execute_run
from pipeline.models import Silence

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from pipeline_bench import Bench

    from pipeline.models import RunOutcome, TaskResult

# Leaves word of every process it starts in the attempts' folder.
_HIDING = """
import ctypes, os, signal, subprocess, sys, time
from pathlib import Path

def note():
    Path(f"../hidden-{os.getpid()}").touch()

def daemonise(then):
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            note()
            then()
        os._exit(0)

def stubborn():
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    time.sleep(600)

def bomb():
    # Each generation replaces itself for a while: whoever looks once sees processes that are gone already.
    for _ in range(200):
        if os.fork():
            os._exit(0)
        os.setsid()
    note()
    time.sleep(600)

def crowd():
    for _ in range(40):
        if os.fork() == 0:
            note()
            stubborn()
    stubborn()

class Plugin:
    def load(self, context):
        daemonise(stubborn)
        daemonise(crowd)
        daemonise(bomb)
        subprocess.Popen(["sleep", "600"], start_new_session=True)
        while len(list(Path("..").glob("hidden-*"))) < 44:
            time.sleep(0.01)

    def predict(self, batch):
        END
"""


def _run(bench: Bench, source: str, extra: str = "", more: str = "") -> tuple[TaskResult, RunOutcome]:
    bench.plugin("bad", source)
    outcome = execute_run(bench.request(f"inference: [{{plugin: bad{extra}}}]\n{more}"))
    return outcome.tasks[0], outcome


def _hidden(bench: Bench) -> list[int]:
    return [int(path.name.partition("-")[2]) for path in bench.state.glob("runs/*-test-*/attempts/hidden-*")]


@pytest.fixture
def swept(bench: Bench) -> Iterator[None]:
    """Nothing that a failed test leaves behind outlives it."""
    yield
    for run in bench.state.glob("runs/*-test-*"):
        for process in orphans.find(run.name):
            os.kill(process, signal.SIGKILL)


@pytest.mark.parametrize(
    ("end", "status"),
    [
        ("return ['fine'] * len(batch)", "ok"),
        ("os._exit(3)", "failed"),
        ("os.kill(os.getpid(), 9)", "killed"),
        ("signal.signal(signal.SIGTERM, signal.SIG_IGN)\n        time.sleep(600)", "timeout"),
    ],
    ids=["ends", "crashes", "is-killed", "hangs"],
)
def test_nothing_outlives_an_attempt(bench: Bench, end: str, status: str, swept: None) -> None:
    """Double forks, new sessions, ignored signals and forking generations are all gone before the task has ended."""
    task, _ = _run(
        bench, _HIDING.replace("END", end), ", batch: 3, timeout: 12s" if status == "timeout" else ", batch: 3"
    )
    assert task.attempts[0].status == status
    hidden = _hidden(bench)
    assert len(hidden) >= 44
    assert not [process for process in hidden if is_alive(process)]
    assert orphans.find(bench.state.joinpath("runs", "latest").resolve().name) == ()


_RUNNER = """
import sys
from pathlib import Path
from pipeline.cli import RunRequest, execute_run
from pipeline.layout import read_environments
run_file, environments, state = map(Path, sys.argv[1:])
execute_run(RunRequest(run_file, read_environments(environments), state, "dev", grace_s=0.5))
"""


def _started_runner(bench: Bench) -> subprocess.Popen[bytes]:
    from pipeline.layout import write_environments

    run_file = bench.run_file("inference: [{plugin: bad}]")
    listing = bench.root / "environments.json"
    write_environments(listing, bench.environments)
    code = f"from pipeline import orphans; orphans._SIGN = {orphans._SIGN}\n{_RUNNER}"
    argv = (sys.executable, "-c", code, str(run_file), str(listing), str(bench.state))
    return subprocess.Popen(argv, env=child_environment(), cwd=Path(__file__).parents[2])


def _workers(bench: Bench) -> tuple[int, ...]:
    runs = [path.name for path in bench.state.glob("runs/*-test-*")]
    return tuple(process for run in runs for process in orphans.find(run))


def test_nothing_outlives_a_killed_runner(bench: Bench, swept: None) -> None:
    """SIGKILL of the runner takes the worker and all that it has hidden along."""
    bench.plugin("bad", _HIDING.replace("END", "Path('../asked').touch()\n        time.sleep(600)"))
    runner = _started_runner(bench)
    wait_for(lambda: list(bench.state.glob("runs/*/attempts/asked")), "the plugin to be asked")
    hidden = _hidden(bench)
    assert len([process for process in hidden if is_alive(process)]) >= 43
    runner.kill()
    runner.wait()
    wait_for(lambda: not any(map(is_alive, hidden)), "all that was hidden to be gone", deadline_s=20)
    wait_for(lambda: not _workers(bench), "the worker to be gone", deadline_s=20)


def test_nothing_outlives_a_killed_supervisor(bench: Bench, swept: None) -> None:
    """Where the supervisor itself is killed, the runner finds what is left by the mark that it carries."""
    task, _ = _run(
        bench,
        _HIDING.replace("END", "os.kill(os.getppid(), signal.SIGKILL)\n        time.sleep(60)"),
        more="retries: 0",
    )
    assert (task.attempts[0].status, task.attempts[0].code) == ("killed", "worker-killed")
    assert "supervisor" in str(task.error)
    assert not [process for process in _hidden(bench) if is_alive(process)]


# A daemon that sheds all it can: session, parents, environment, folder, descriptors.
_SHEDDING = """
import os, signal, sys, time
from pathlib import Path

BARE = '''
import os, sys, time
with open(sys.argv[1] + ".part", "w") as stream:
    stream.write(str(os.getpid()))
os.rename(sys.argv[1] + ".part", sys.argv[1])
os.closerange(0, 4096)
time.sleep(600)
'''

class Plugin:
    def load(self, context):
        note = os.path.abspath("../shed")
        if os.fork() == 0:
            os.setsid()
            if os.fork() == 0:
                os.chdir("/")
                os.execve(sys.executable, [sys.executable, "-I", "-S", "-c", BARE, note], {})
            os._exit(0)
        while not os.path.exists(note):
            time.sleep(0.01)

    def predict(self, batch):
        END
"""
# Stopped first, so that it cannot end anything between its runner's end and its own.
_KILL_BOTH = """
        supervisor = os.getppid()
        stat = Path(f"/proc/{supervisor}/stat").read_text()
        os.kill(supervisor, signal.SIGSTOP)
        os.kill(int(stat.rpartition(")")[2].split()[1]), signal.SIGKILL)
        os.kill(supervisor, signal.SIGKILL)
        time.sleep(60)
"""


@pytest.fixture
def daemon(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[], int]]:
    """Tells the process id of the daemon that a plugin has left; no run of another test takes it for a leftover."""
    monkeypatch.setattr(orphans, "_SIGN", 0b01001)

    def told() -> int:
        (note,) = bench.state.glob("runs/*-test-*/attempts/shed")
        return int(note.read_text())

    yield told
    orphans.end_left()


class Told(Silence):
    """Keeps what is noted."""

    def __init__(self) -> None:
        self.notes: list[tuple[str, str]] = []

    def noted(self, task: str, text: str) -> None:
        """Keep it."""
        self.notes.append((task, text))


def test_daemon_that_sheds_everything_does_not_outlive_a_killed_supervisor(
    bench: Bench, daemon: Callable[[], int]
) -> None:
    """No session, no environment, no descriptor: it is found by a limit that it cannot raise."""
    task, _ = _run(
        bench,
        _SHEDDING.replace("END", "os.kill(os.getppid(), signal.SIGKILL)\n        time.sleep(60)"),
        more="retries: 0",
    )
    assert task.attempts[0].code == "worker-killed"
    assert not is_alive(daemon())


def test_next_run_ends_what_a_killed_runner_and_supervisor_left(bench: Bench, daemon: Callable[[], int]) -> None:
    """Whatever run it is, it looks first, says whom it ended, and removes the context that nobody could."""
    bench.plugin("bad", _SHEDDING.replace("END", _KILL_BOTH.strip()))
    assert _started_runner(bench).wait() == -signal.SIGKILL
    left = daemon()
    assert is_alive(left)
    assert list(bench.state.glob("runs/*/attempts/*/context.json"))
    told = Told()
    bench.plugin("echo", ECHO)
    outcome = execute_run(bench.request("inference: [{plugin: echo}]"), reporter=told)
    assert outcome.ok
    assert not is_alive(left)
    assert ("slots", f"ended 1 process that a killed run left: {left}") in told.notes
    assert not list(bench.state.glob("runs/*/attempts/*/context.json"))


def test_run_leaves_the_workers_of_a_living_neighbour_alone(bench: Bench, swept: None) -> None:
    """A mark whose runner lives is no leftover."""
    bench.plugin("bad", ECHO.replace("return [", "import time; open('../asked', 'w'); time.sleep(600); return ["))
    runner = _started_runner(bench)
    wait_for(lambda: list(bench.state.glob("runs/*/attempts/asked")), "the plugin to be asked")
    theirs = _workers(bench)
    bench.plugin("echo", ECHO)
    assert execute_run(bench.request("inference: [{plugin: echo}]")).ok
    assert all(map(is_alive, theirs))
    assert theirs
    runner.kill()
    runner.wait()
    wait_for(lambda: not _workers(bench), "the worker to be gone", deadline_s=20)


def test_mark_tells_its_maker() -> None:
    """A number that is no mark has none, and one of another moment's process is not ours."""
    mark = orphans.new_mark()
    assert orphans._maker_of(mark) == orphans._maker_here()
    assert orphans._maker_of(2**63 - 1) is None
    assert orphans._maker_of(mark + (1 << orphans._COUNT_BITS)) != orphans._maker_here()
    orphans.settle(mark)


def test_signal_is_told_from_the_exit_status_that_shells_give_it(bench: Bench) -> None:
    """A worker that exits with 137 was not killed, though a shell would say so."""
    task, _ = _run(bench, ECHO.replace("return [", "import os; os._exit(137); return ["))
    assert (task.status, task.attempts[0].returncode) == ("failed", 137)
    assert "a shell's way of telling SIGKILL" in str(task.error)


def test_silent_worker_is_hung(bench: Bench) -> None:
    """Code that hangs with the interpreter's lock in hand gives no sign of life, and is ended for it."""
    bench.plugin("bad", ECHO.replace("return [", "import ctypes; ctypes.PyDLL(None).sleep(600); return ["))
    one = "".join(ROWS.splitlines(keepends=True)[:2])
    outcome = execute_run(bench.request("inference: [{plugin: bad, heartbeat-timeout: 4s}]\nretries: 0", one))
    (task,) = outcome.tasks
    assert (task.status, task.code) == ("failed", "all-items-failed")
    assert [(each.status, each.code) for each in task.attempts] == [("timeout", "worker-hung")]


def test_log_without_end_keeps_its_beginning_and_its_end(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """A flood on stdout fills no disk; what was said first and last is there."""
    monkeypatch.setattr("pipeline.attempt._LOG_BYTES", 100_000)
    body = "import os\n        os.write(1, b'first\\n')\n        for _ in range(300): os.write(1, b'x' * 10_000)\n        os.write(1, b'last\\n')\n        return ["
    task, _ = _run(bench, ECHO.replace("return [", body), ", batch: 3")
    assert task.ok
    log = Path(str(task.log).replace(".err.log", ".out.log")).read_bytes()
    assert log.startswith(b"first\n")
    assert log.endswith(b"xlast\n")
    assert b"bytes are left out here]" in log
    assert len(log) < 2_000_000


@pytest.fixture
def small_cgroup() -> Iterator[Path]:
    """A memory cgroup of 200 MB for those who join it."""
    place = Path("/sys/fs/cgroup/memory" if Path("/sys/fs/cgroup/memory").is_dir() else "/sys/fs/cgroup")
    folder = place / f"envbuilder-test-{os.getpid()}"
    try:
        folder.mkdir()
        limit = next(
            (path for name in ("memory.limit_in_bytes", "memory.max") if (path := folder / name).exists()), None
        )
    except OSError as error:
        pytest.skip(f"no cgroup of our own here: {error}")
    if limit is None:
        folder.rmdir()
        pytest.skip("no memory controller here")
    limit.write_text("200000000")
    yield folder
    for process in (folder / "cgroup.procs").read_text().split():
        (place / "cgroup.procs").write_text(process)
    wait_for(lambda: not (folder / "cgroup.procs").read_text(), "the cgroup to be empty")
    folder.rmdir()


def test_kill_for_want_of_memory_is_told(bench: Bench, small_cgroup: Path) -> None:
    """A worker that the kernel killed for its memory is oom-host, and the kernel's own count is the evidence."""
    body = "block = b'x' * 10**9; return ["
    bench.plugin("bad", ECHO.replace("return [", body))
    script = f"import os; open({str(small_cgroup / 'cgroup.procs')!r}, 'w').write(str(os.getpid()))\n{_RUNNER}"
    from pipeline.layout import write_environments

    run_file = bench.run_file("inference: [{plugin: bad}]")
    listing = bench.root / "environments.json"
    write_environments(listing, bench.environments)
    argv = (sys.executable, "-c", script, str(run_file), str(listing), str(bench.state))
    subprocess.run(argv, env=child_environment(), cwd=Path(__file__).parents[2], check=True, timeout=120)
    from pipeline.cli import show_run

    (task,) = show_run(bench.state).tasks
    assert task.attempts[0].code == "oom-killed"
    assert task.attempts[0].status == "oom-host"
    assert task.attempts[0].oom_kills["cgroup"] >= 1
    assert task.attempts[0].returncode == -signal.SIGKILL


_OOM = """
class OutOfMemoryError(RuntimeError):
    pass

class Plugin:
    def load(self, context):
        self.largest = 0

    def predict(self, batch):
        print(len(batch), [item.id for item in batch], flush=True)
        if len(batch) > 2 or any(item.question == "huge" for item in batch):
            raise OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB")
        return [item.question for item in batch]
"""


def test_out_of_memory_halves_the_batch_and_is_no_answer(bench: Bench) -> None:
    """Batches that the GPU has no room for are halved, from there on; the item that fits in none fails; all is told."""
    rows = "id;question;answer\n" + "".join(f"{n};{'huge' if n == 11 else 'q'};q\n" for n in range(1, 17))
    bench.plugin("bad", _OOM)
    outcome = execute_run(bench.request("inference: [{plugin: bad, batch: 8}]", rows))
    (task,) = outcome.tasks
    assert (task.status, task.failed_items) == ("ok", 1)
    assert str(task.error).startswith("oom-gpu: OutOfMemoryError")
    assert task.degraded == (
        "oom-gpu: batches of 4 from here on",
        "oom-gpu: batches of 2 from here on",
        "oom-gpu: batches of 1 from here on",
    )
    log = Path(str(task.log).replace(".err.log", ".out.log")).read_text().splitlines()
    assert [int(line.split()[0]) for line in log][:8] == [8, 4, 2, 2, 4, 2, 2, 2]


def test_one_bad_item_is_found_by_halving(bench: Bench) -> None:
    """A batch of 16 with one bad item costs that item, and few calls."""
    source = ECHO.replace(
        "return [",
        "print(len(batch), flush=True)\n        if any(i.id == '5' for i in batch): raise ValueError('bad')\n        return [",
    )
    rows = "id;question;answer\n" + "".join(f"{n};q;q\n" for n in range(1, 17))
    bench.plugin("bad", source)
    (task,) = execute_run(bench.request("inference: [{plugin: bad, batch: 16}]", rows)).tasks
    assert (task.status, task.failed_items) == ("ok", 1)
    log = Path(str(task.log).replace(".err.log", ".out.log")).read_text().split()
    assert log == ["16", "8", "4", "4", "2", "1", "1", "2", "8"]


def test_broken_gpu_ends_the_worker_not_the_task(bench: Bench) -> None:
    """After a sticky CUDA error no answer of that process is taken: another goes on, and only the culprit fails."""
    source = ECHO.replace(
        "return [",
        "if any(i.id == '2' for i in batch): raise RuntimeError('CUDA error: device-side assert triggered')\n        return [",
    )
    task, _ = _run(bench, source, ", batch: 3")
    assert (task.status, task.failed_items) == ("ok", 1)
    assert [each.code for each in task.attempts] == ["gpu-broken", "gpu-broken", None]


_COUNTING = """
import os
from pathlib import Path

class Plugin:
    def load(self, context):
        with open(context.params["log"], "a") as log:
            log.write(f"{os.getpid()}\\n")

    def predict(self, batch):
        return [item.question for item in batch]
"""


def test_one_worker_serves_many_data_sets(bench: Bench) -> None:
    """A model is loaded once for all the data sets that it is asked about with the same parameters."""
    log = bench.root / "loads"
    bench.plugin("counting", _COUNTING)
    names = [f"d{number}" for number in range(4)]
    for name in names:
        bench.write(f"{name}.csv", "id;question;answer\n1;one;one\n")
    text = textwrap.dedent(f"""
        name: warm
        data: {{{", ".join(f"{name}: {{path: {name}.csv}}" for name in names)}}}
        inference: [{{plugin: counting, params: {{log: "{log}"}}}}, {{plugin: counting, params: {{log: "{log}", x: 1}}}}]
    """)
    request = bench.request("inference: [{plugin: counting}]")
    request.run_file.write_text(text)
    outcome = execute_run(request)
    assert outcome.ok, outcome.problems
    assert len(log.read_text().split()) == 2
    assert [task.warm for task in outcome.tasks] == [False, True, True, True] * 2
    assert [bool(task.load_s) for task in outcome.tasks] == [True, False, False, False] * 2
    assert orphans.find(outcome.id) == ()


def test_worker_that_failed_is_not_kept(bench: Bench) -> None:
    """After a task that went wrong the next one gets a fresh worker."""
    log = bench.root / "loads"
    bench.plugin("counting", _COUNTING.replace("return [", "if batch[0].id == 'die': os._exit(1)\n        return ["))
    bench.write("good.csv", "id;question;answer\n1;one;one\n")
    request = bench.request("inference: [{plugin: counting}]", "id;question;answer\ndie;one;one\n")
    request.run_file.write_text(
        "name: warm\ndata: {bad: {path: lines.csv}, good: {path: good.csv}, more: {path: good.csv}}\n"
        f"inference: [{{plugin: counting, params: {{log: '{log}'}}}}]\n"
    )
    outcome = execute_run(request)
    assert [task.status for task in outcome.tasks] == ["failed", "ok", "ok"]
    assert [task.warm for task in outcome.tasks] == [False, False, True]


def test_what_a_plugin_tells_is_kept(bench: Bench) -> None:
    """Remarks and figures of the plugin's own are in the task's record; of a flood, what can be read."""
    source = ECHO.replace(
        "return [",
        "self.context.metric('tokens_per_s', 12.5)\n        self.context.progress(1, 2)\n"
        "        [self.context.log(f'remark {n}') for n in range(3000)]\n        return [",
    )
    task, _ = _run(bench, source, ", batch: 3")
    assert task.ok
    assert task.metrics == {"tokens_per_s": 12.5}
    assert task.notes[0] == "remark 0"
    assert task.attempts[0].anomalies["flood"] >= 1000
