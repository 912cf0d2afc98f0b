"""Child processes: what they inherit, how they end, and what is said when they cannot start."""

from __future__ import annotations

import contextlib
import os
import shlex
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest
from workshop import Workshop

from envbuilder.errors import ToolError
from envbuilder.process import clean_environment, end_group, replace, run, witnessed

LEAKS = ("VIRTUAL_ENV", "PYTHONPATH", "PYTHONHOME", "UV_PROJECT_ENVIRONMENT", "UV_PYTHON", "GIT_DIR", "GIT_INDEX_FILE")


def test_clean_environment_drops_what_leads_astray(monkeypatch: pytest.MonkeyPatch) -> None:
    """What names another environment or repository goes; the rest stays; what is given comes on top."""
    for name in LEAKS:
        monkeypatch.setenv(name, "/elsewhere")
    monkeypatch.setenv("KEPT", "1")
    found = clean_environment({"GIT_DIR": "/given", "MORE": "2"})
    assert not set(LEAKS) - {"GIT_DIR"} & set(found)
    assert (found["GIT_DIR"], found["KEPT"], found["MORE"]) == ("/given", "1", "2")
    assert clean_environment(base={"A": "1", "VIRTUAL_ENV": "x"}) == {"A": "1"}


def test_run_keeps_what_was_written(monkeypatch: pytest.MonkeyPatch) -> None:
    """Both streams, bytes that are no text, the status, and a clean environment where none is given."""
    monkeypatch.setenv("VIRTUAL_ENV", "/elsewhere")
    code = "import os, sys; sys.stdout.buffer.write(b'a\\xff'); print(os.environ.get('VIRTUAL_ENV'), file=sys.stderr); sys.exit(3)"
    done = run([sys.executable, "-c", code])
    assert (done.returncode, done.ok, done.stdout, done.stderr) == (3, False, "a\N{REPLACEMENT CHARACTER}", "None\n")
    assert run(["sh", "-c", "kill -9 $$"]).returncode == -signal.SIGKILL


def test_run_takes_much_output_from_both_streams() -> None:
    """Megabytes on both streams do not block."""
    code = "import sys; [print('x' * 1000, file=stream) for _ in range(2000) for stream in (sys.stdout, sys.stderr)]"
    done = run([sys.executable, "-c", code])
    assert (len(done.stdout), len(done.stderr)) == (2_002_000, 2_002_000)


def test_programs_are_told_of_while_somebody_watches(tmp_path: Path) -> None:
    """Lines that a shell takes, with the folder, without passwords and long code; ends only where asked for."""
    told: list[str] = []
    with witnessed(told.append):
        run(["echo", "a b", "https://me:secret@example.org/x"], cwd=tmp_path)
        run([sys.executable, "-c", "pass\nimport os"])
    run(["true"])
    assert told == [
        f"cd {tmp_path} && echo 'a b' https://***@example.org/x",
        f"{sys.executable} -c 'pass…'",
    ]
    told.clear()
    with witnessed(told.append, ends=True):
        run(["false"])
    number = told[0].partition(" ")[0]
    assert told[0] == f"{number} false"
    assert told[1].startswith(f"{number} exit 1, ")


@pytest.mark.parametrize(
    ("argv", "cwd", "code", "said"),
    [
        (["no-such-program-here"], None, "tool-missing", "cannot start no-such-program-here: No such file"),
        (["/etc/passwd"], None, "tool-missing", "cannot start /etc/passwd: Permission denied"),
        (["true", "x" * 5_000_000], None, "system-limit", "cannot start true: Argument list too long"),
        (["sh"], Path("/no/such/folder"), "tool-failed", "cannot start sh in /no/such/folder: no such folder"),
        (["sh", "a\0b"], None, "tool-failed", "cannot start sh: embedded null byte"),
    ],
)
def test_what_cannot_start_is_told(argv: list[str], cwd: Path | None, code: str, said: str) -> None:
    """A missing program, one that is none, a missing folder and an impossible argument are told apart."""
    with pytest.raises(ToolError) as caught:
        run(argv, cwd=cwd)
    assert caught.value.code == code
    assert said in caught.value.message


def alive(pid: int) -> bool:
    """Whether a process runs (a zombie does not)."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def ends(pid: int) -> bool:
    """Whether a process ends before long."""
    deadline = time.monotonic() + 30
    while alive(pid) and time.monotonic() < deadline:
        time.sleep(0.02)
    return not alive(pid)


@pytest.mark.parametrize(
    "script",
    [
        "sleep 600 & echo $! > {file}; wait",
        "sleep 600 & echo $! > {file}; exit 0",
        "(trap '' TERM; while :; do sleep 0.1; done) & echo $! > {file}; wait",
    ],
    ids=["both stay", "the child holds the output", "the child ignores TERM"],
)
def test_a_timeout_ends_the_whole_group(tmp_path: Path, script: str) -> None:
    """Whoever of the group still runs when the time is over is ended, the program itself or not."""
    file = tmp_path / "pid"
    with pytest.raises(ToolError, match=r"sh did not end within 0\.5 s"):
        run(["sh", "-c", script.format(file=file)], timeout_s=0.5)
    assert ends(int(file.read_text()))


def test_end_group_kills_what_will_not_go(tmp_path: Path) -> None:
    """A program that ignores the polite request is killed when the grace is over, with its children."""
    script = f"trap '' TERM; (trap '' TERM; while :; do sleep 0.1; done) & echo $! > {tmp_path}/pid; echo; wait; wait"
    process = subprocess.Popen(["sh", "-c", script], stdout=subprocess.PIPE, text=True, start_new_session=True)
    assert process.stdout is not None
    process.stdout.readline()
    end_group(process, grace_s=0.1)
    process.stdout.close()
    assert process.returncode == -signal.SIGKILL
    assert ends(int((tmp_path / "pid").read_text()))


STOPPED = """
    import os, signal, sys, threading
    from envbuilder import process
    from envbuilder.errors import Interrupted

    def stop(number, frame):
        process.stop_all()

    signal.signal(signal.SIGINT, stop)
    def one():
        try:
            process.run(["sh", "-c", "echo $$ > " + sys.argv[1] + "; sleep 600"])
        except Interrupted:
            print("interrupted", flush=True)
    thread = threading.Thread(target=one)
    thread.start()
    while not os.path.exists(sys.argv[1]) or not open(sys.argv[1]).read():
        pass
    # The handler runs while this very thread holds what it needs: it must not wait for itself.
    with process._live_guard:
        signal.raise_signal(signal.SIGINT)
    thread.join()
    try:
        process.run(["true"])
    except Interrupted:
        print("no further one")
"""


def test_stop_all_ends_what_runs_and_starts_no_more(tmp_path: Path) -> None:
    """Ctrl-C ends the programs that others wait for, at whatever moment it comes."""
    argv = [sys.executable, "-c", textwrap.dedent(STOPPED), str(tmp_path / "pid")]
    done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=60)
    assert done.stdout == "interrupted\nno further one\n", done.stderr
    assert ends(int((tmp_path / "pid").read_text()))


STUBBORN = """
    import os, signal, sys, threading
    from envbuilder import process
    from envbuilder.errors import Interrupted

    process._GRACE_S = 0.2
    def one():
        try:
            process.run(["sh", "-c", sys.argv[2]])
        except Interrupted:
            print("interrupted", flush=True)
    thread = threading.Thread(target=one)
    thread.start()
    while not os.path.exists(sys.argv[1]) or not open(sys.argv[1]).read():
        pass
    process.stop_all()
    thread.join()
"""


@pytest.mark.parametrize(
    "script",
    ["trap '' TERM; echo $$ > {file}; while :; do sleep 0.1; done", "setsid sleep 600 & echo $! > {file}; wait"],
    ids=["it ignores TERM", "what left its group holds the output"],
)
def test_a_program_that_will_not_end_keeps_nobody_from_stopping(tmp_path: Path, script: str) -> None:
    """Who waits for it is let go after the grace; the program itself is killed."""
    file = tmp_path / "pid"
    argv = [sys.executable, "-c", textwrap.dedent(STUBBORN), str(file), script.format(file=file)]
    try:
        done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=30)
        assert done.stdout == "interrupted\n", done.stderr
        if "setsid" not in script:
            assert ends(int(file.read_text()))
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(int(file.read_text()), signal.SIGKILL)


def test_replace_becomes_the_program_or_says_why() -> None:
    """The process is the other program from then on; one that is missing is an error with a hint."""
    code = "import os; from envbuilder.process import replace; print(os.getpid()); replace(['sh', '-c', 'echo $$'], os.environ)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    first, second = done.stdout.split()
    assert first == second
    with pytest.raises(ToolError, match="cannot start no-such-program-here") as caught:
        replace(["no-such-program-here"], os.environ)
    assert (caught.value.code, caught.value.hint) == ("tool-missing", "command -v no-such-program-here")


def test_a_script_whose_interpreter_is_missing_is_told(tmp_path: Path) -> None:
    """A script that is there and cannot start is no missing program; the hint shows the line that is wrong."""
    script = tmp_path / "tool"
    script.write_text("#!/no/such/interpreter\n")
    script.chmod(0o755)
    with pytest.raises(ToolError, match="the interpreter that its first line names is not there") as caught:
        run([script])
    assert caught.value.hint is not None
    shown = subprocess.run(["bash", "-c", caught.value.hint], capture_output=True, text=True, check=True)
    assert shown.stdout == "#!/no/such/interpreter\n"


def test_too_many_open_files_are_told_with_a_way_out(workshop: Workshop) -> None:
    """At the limit on open files every command says so, and the hint lets the same command succeed."""
    workshop.plugin("alpha")
    assert workshop.within("lock", "-q").status == 0
    command = shlex.join(workshop.argv("check", "--offline"))
    ran = _shell(workshop, f"ulimit -Sn 8; {command}")
    assert (ran.returncode, "error[system-limit]: cannot start git: Too many open files" in ran.stderr) == (2, True), (
        ran
    )
    hint = ran.stderr.rpartition("hint: ")[2].partition("#")[0].strip()
    assert _shell(workshop, f"ulimit -Sn 8; {hint}; {command}").returncode == 0


def _shell(workshop: Workshop, text: str) -> subprocess.CompletedProcess[str]:
    """Run a text in a shell of its own, in the workspace."""
    argv = ["bash", "-c", text]
    return subprocess.run(
        argv, cwd=workshop.work, env=workshop.environment(), capture_output=True, text=True, check=False
    )


@pytest.mark.parametrize("start", ["sleep 600 &", "setsid sleep 600 &"])
def test_what_a_program_leaves_behind_is_not_waited_for(start: str) -> None:
    """A program that has ended is done, though a child of its own holds its output open; the group is ended."""
    done = run(["sh", "-c", f"{start} echo $! ; echo words >&2"])
    assert (done.returncode, done.stderr) == (0, "words\n")
    child = int(done.stdout)
    if "setsid" in start:
        os.kill(child, signal.SIGKILL)
    assert ends(child)
