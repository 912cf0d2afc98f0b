"""Files that survive and locks that die with their owner; remembered interpreters."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import textwrap
import threading
from pathlib import Path

import pytest
from workshop import PYTHON

from envbuilder.errors import ToolError
from envbuilder.fs import locked, point, write_atomically
from envbuilder.store import interpreters


def python(code: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    """Run a piece of Python in a process of its own."""
    argv = [sys.executable, "-c", textwrap.dedent(code), *map(str, arguments)]
    return subprocess.run(argv, capture_output=True, text=True, check=False, timeout=60)


def test_write_atomically_writes_and_leaves_alone(tmp_path: Path) -> None:
    """A file is made with its folders, replaced by a new one, and not touched where nothing changes."""
    file = tmp_path / "a" / "b" / "file"
    write_atomically(file, "one\n")
    first = file.stat()
    write_atomically(file, "one\n")
    assert file.stat().st_ino == first.st_ino
    write_atomically(file, "zwei ü\n")
    assert file.read_text(encoding="utf-8") == "zwei ü\n"
    assert [path.name for path in file.parent.iterdir()] == ["file"]


FULL_DISK = """
    import resource, sys
    from pathlib import Path
    from envbuilder.errors import ToolError
    from envbuilder.fs import write_atomically
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
    try:
        write_atomically(Path(sys.argv[1]), "new" * 100_000)
    except ToolError as error:
        print(error.code, error.hint)
"""


def test_a_full_disk_leaves_the_old_file(tmp_path: Path) -> None:
    """A write that the system cuts off is an error with a remedy; the old file is whole, nothing else is left."""
    file = tmp_path / "file"
    file.write_text("old")
    done = python(FULL_DISK, file)
    assert done.stdout.split() == ["disk-full", "df", "-h", str(tmp_path)], done.stderr
    assert file.read_text() == "old"
    assert list(tmp_path.iterdir()) == [file]


@pytest.mark.parametrize("place", ["/proc/self/x", "below-a-file/x", "a-folder"])
def test_a_place_that_cannot_be_written_is_told(tmp_path: Path, place: str) -> None:
    """A file system that takes nothing, a file where a folder belongs and a folder where a file does: one error."""
    (tmp_path / "below-a-file").write_text("")
    (tmp_path / "a-folder" / "full").mkdir(parents=True)
    with pytest.raises(ToolError, match="cannot write") as caught:
        write_atomically(tmp_path / place, "x")
    assert caught.value.code == "unwritable"
    assert not list(tmp_path.glob(".*"))


def test_a_killed_writer_leaves_the_old_or_the_new(tmp_path: Path) -> None:
    """However a writer is killed, readers only ever see one of its texts whole."""
    file = tmp_path / "file"
    code = """
        import sys
        from pathlib import Path
        from envbuilder.fs import write_atomically
        for number in range(10**9):
            write_atomically(Path(sys.argv[1]), str(number % 10) * 50_000)
    """
    for _ in range(3):
        writer = subprocess.Popen([sys.executable, "-c", textwrap.dedent(code), str(file)])
        while not file.exists():
            assert writer.poll() is None
        for _ in range(50):
            text = file.read_text()
            assert len(text) == 50_000
            assert len(set(text)) == 1
        writer.send_signal(signal.SIGKILL)
        writer.wait()
        assert len(set(file.read_text())) == 1


def test_locked_excludes_and_tells_who_waits(tmp_path: Path) -> None:
    """A second holder waits, is told so once, and gets the lock when the first lets go."""
    events: list[str] = []

    waits = threading.Event()

    def second() -> None:
        with locked(tmp_path / "locks" / "a", waiting=waits.set):
            events.append("second")

    with locked(tmp_path / "locks" / "a"):
        thread = threading.Thread(target=second)
        thread.start()
        assert waits.wait(30)
        events.append("first")
    thread.join(30)
    assert events == ["first", "second"]


def test_locked_ends_with_its_owner(tmp_path: Path) -> None:
    """The lock of a process that was killed is free, though its file stays."""
    code = """
        import sys, time
        from pathlib import Path
        from envbuilder.fs import locked
        with locked(Path(sys.argv[1])):
            print("held", flush=True)
            time.sleep(600)
    """
    lock = tmp_path / "lock"
    owner = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(code), str(lock)], stdout=subprocess.PIPE, text=True
    )
    assert owner.stdout is not None
    assert owner.stdout.readline() == "held\n"
    refused = python("import fcntl, sys; fcntl.flock(open(sys.argv[1]), fcntl.LOCK_EX | fcntl.LOCK_NB)", lock)
    assert "BlockingIOError" in refused.stderr
    owner.kill()
    owner.wait()
    owner.stdout.close()
    with locked(lock, waiting=lambda: pytest.fail("nobody holds it")):
        assert lock.exists()


def test_a_lock_that_cannot_be_made_is_told(tmp_path: Path) -> None:
    """A file where the folder of locks belongs is an error, not a traceback."""
    (tmp_path / "file").write_text("")
    with pytest.raises(ToolError, match="cannot write"), locked(tmp_path / "file" / "lock"):
        pass


def test_point_swings_in_one_step(tmp_path: Path) -> None:
    """While a link swings to and fro, whoever follows it always finds one of its targets."""
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "here").write_text(name)
    link = tmp_path / "links" / "current"
    point(link, tmp_path / "a")
    stop = threading.Event()

    def swing() -> None:
        while not stop.is_set():
            point(link, tmp_path / "b")
            point(link, tmp_path / "a")

    thread = threading.Thread(target=swing)
    thread.start()
    try:
        for _ in range(300):
            assert (link / "here").read_text() in {"a", "b"}
    finally:
        stop.set()
        thread.join()
    assert [path.name for path in link.parent.iterdir()] == ["current"]


def test_point_replaces_a_broken_link_but_no_folder(tmp_path: Path) -> None:
    """A dangling link is swung; a real folder in its place is refused and stays."""
    link = tmp_path / "link"
    link.symlink_to(tmp_path / "gone")
    point(link, tmp_path)
    assert link.resolve() == tmp_path.resolve()
    folder = tmp_path / "folder"
    folder.mkdir()
    with pytest.raises(ToolError, match="cannot write"):
        point(folder, tmp_path)
    assert folder.is_dir()
    assert not folder.is_symlink()


def test_find_remembers_an_interpreter(tmp_path: Path) -> None:
    """The second question is answered from the memo; a damaged memo, or a changed executable, asks again."""
    first = interpreters.find(tmp_path, f"=={PYTHON}.*", offline=True)
    assert first.version.startswith(f"{PYTHON}.")
    memo = tmp_path / "interpreters.json"
    document = json.loads(memo.read_text())
    (record,) = document.values()
    record["version"] = "from the memo"
    memo.write_text(json.dumps(document))
    assert interpreters.find(tmp_path, f"=={PYTHON}.*", offline=True).version == "from the memo"
    record["stamp"][1] += 1
    for damaged in (json.dumps(document), "{", "[]", "3", json.dumps(dict.fromkeys(document, "x")), "\udcff"):
        memo.write_bytes(damaged.encode("utf-8", "surrogateescape"))
        assert interpreters.find(tmp_path, f"=={PYTHON}.*", offline=True) == first


def test_a_python_that_is_nowhere_is_told(tmp_path: Path) -> None:
    """Offline, an interpreter that the machine lacks is an error with the command that fetches it."""
    with pytest.raises(ToolError, match=r"no Python ==3\.9\.1 on this machine") as caught:
        interpreters.find(tmp_path, "==3.9.1", offline=True)
    assert (caught.value.code, caught.value.hint) == ("python-missing", "uv python install '==3.9.1'")
