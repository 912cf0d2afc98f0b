"""One writer for files that survive, one lock: what a killed writer leaves is swept, and nothing goes past them."""

from __future__ import annotations

import ast
import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest

from envbuilder import fs

ROOT = Path(__file__).resolve().parents[2]

# What writes without the one writer, and why it may. Nothing of it survives, or it grows line by line, or it is a
# cache that its own reader mistrusts.
ALLOWED = {
    "envbuilder/bundles/archive.py:_take": "a staging folder, durable as a whole before it is moved",
    "envbuilder/bundles/restoring.py:_place": "moves what is durable already into uv's cache",
    "envbuilder/cli/__init__.py:_unforeseen": "the report of an error of ours, among temporary files",
    "envbuilder/cli/base.py:_settle": "moves a workspace's state as it is",
    "envbuilder/git/repository.py:_prepare": "a clone that git has made; without it the next command fetches",
    "envbuilder/lock/locker.py:_aside": "a scratch folder",
    "envbuilder/lock/locker.py:_run_uv": "a staging folder that uv works in",
    "envbuilder/lock/locker.py:_solve_group": "a staging folder that uv works in",
    "envbuilder/lock/mirrors.py:installable": "a scratch folder",
    "envbuilder/lock/signatures.py:_keyring": "a scratch folder",
    "envbuilder/lock/sources.py:index_settings": "a scratch folder",
    "envbuilder/process.py:_start": "appends to a log",
    "envbuilder/store/bytecode.py:_link": "bytecode",
    "envbuilder/store/bytecode.py:borrow": "bytecode",
    "envbuilder/store/bytecode.py:compile": "a list for a process of ours, among bytecode in the making",
    "envbuilder/store/bytecode.py:publish": "bytecode",
    "envbuilder/store/environments.py:_keep_bytecode": "bytecode",
    "envbuilder/store/environments.py:admit": "moves an environment that is durable already",
    "envbuilder/store/environments.py:discard": "moves an environment out of its place, to be removed",
    "envbuilder/store/generations.py:_write": "links in a new folder, durable as a whole before anything points there",
    "envbuilder/store/inside.py:_link": "bytecode",
    "envbuilder/store/inside.py:_write": "bytecode, by an interpreter that has nothing of ours",
    "envbuilder/store/skeletons.py:lay": "a staging folder, durable as a whole before it is moved",
    "envbuilder/store/syncing.py:_forget": "a mark that saves uv from unpacking twice",
    "envbuilder/store/syncing.py:_lay": "a staging folder, durable as a whole before it is moved",
    "envbuilder/store/syncing.py:_open_to_base": "a staging folder, durable as a whole before it is moved",
    "envbuilder/store/syncing.py:try_links": "tries what a file system can, in a temporary folder",
    "envbuilder/uv.py:_own_settings": "a cache, named by what it holds",
    "envbuilder/uv.py:install_package": "settings of one call of uv, in a scratch folder",
    "envbuilder/workflow/losses.py:_hidden": "an index of git's in a temporary folder",
    "envbuilder/workflow/testing.py:_note": "appends to a log",
    "envbuilder/workflow/testing.py:_support": "a scratch folder",
    "pipeline/bootstrap.py:__init__": "a request to the kernel",
    "pipeline/guard.py:_mount": "a request to the kernel",
    "pipeline/layout.py:__init__": "a journal, which grows",
    "pipeline/layout.py:write_context": "ends with its attempt",
    "pipeline/supervisor.py:__init__": "appends to a log",
}
_WRITING = {
    *(".write_text", ".write_bytes", ".touch", ".rename", ".mkstemp", ".NamedTemporaryFile", ".symlink_to"),
    *(".copyfile", ".copy2", ".copytree", ".move", ".link", ".symlink", ".hardlink_to"),
}
_LOCKING = {".flock", ".lockf", ".fsync", ".fdatasync"}


def python(code: str, *arguments: object) -> subprocess.Popen[str]:
    """Start a piece of Python in a process of its own."""
    argv = [sys.executable, "-c", textwrap.dedent(code), *map(str, arguments)]
    return subprocess.Popen(argv, stdout=subprocess.PIPE, text=True)


def calls(path: Path) -> Iterator[tuple[str, str, ast.Call]]:
    """Every call in a module: the function that it stands in, what is called, with a dot before a method, and the call."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    inside = {
        id(node): each.name for each in ast.walk(tree) if isinstance(each, ast.FunctionDef) for node in ast.walk(each)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute | ast.Name):
            name = f".{node.func.attr}" if isinstance(node.func, ast.Attribute) else node.func.id
            yield inside.get(id(node), ""), name, node


def writes(name: str, call: ast.Call) -> bool:
    """Whether a call writes a file, or puts one in another's place."""
    if name.removeprefix(".") in {"open", "fdopen"}:
        named = {each.attr for each in ast.walk(call) if isinstance(each, ast.Attribute)}
        texts = [each.value for each in call.args if isinstance(each, ast.Constant) and isinstance(each.value, str)]
        is_writing = any(len(mode) <= 3 and set(mode) & set("wax+") for mode in texts)
        return "devnull" not in named and (is_writing or bool(named & {"O_CREAT", "O_WRONLY", "O_RDWR"}))
    if name == ".replace":  # A text's has two arguments, a path's one.
        of = call.func.value if isinstance(call.func, ast.Attribute) else None
        return (len(call.args) == 1 and not call.keywords) or (isinstance(of, ast.Name) and of.id in {"os", "shutil"})
    return name in _WRITING


def modules() -> list[Path]:
    """Every module of ours, and the scripts that write what the project keeps."""
    scripts = [ROOT / "scripts" / name for name in ("make_reference.py", "make_schemas.py")]
    return [*sorted((ROOT / "envbuilder").rglob("*.py")), *sorted((ROOT / "pipeline").rglob("*.py")), *scripts]


def test_one_module_replaces_files_and_takes_locks() -> None:
    """Nothing but `fs` takes a lock or syncs; what else writes is listed above with its reason, and nothing too many."""
    writing, locking = set(), set()
    for path in modules():
        module = str(path.relative_to(ROOT))
        for function, called, call in calls(path):
            if called in _LOCKING:
                locking.add(module)
            if module != "envbuilder/fs.py" and writes(called, call):
                writing.add(f"{module}:{function}")
    assert locking == {"envbuilder/fs.py"}
    assert writing == set(ALLOWED)


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_a_killed_writers_draft_is_swept_and_a_living_ones_stays(tmp_path: Path, kind: str) -> None:
    """While a writer lives its draft is nobody else's; once it is killed the next one by removes it."""
    code = """
        import sys, time
        from pathlib import Path
        from envbuilder.fs import drafted, drafted_folder
        with (drafted if sys.argv[2] == "file" else drafted_folder)(Path(sys.argv[1]) / "run.json"):
            print("writing", flush=True)
            time.sleep(600)
    """
    writer = python(code, tmp_path, kind)
    assert writer.stdout is not None
    assert writer.stdout.readline() == "writing\n"
    (draft,) = tmp_path.iterdir()
    fs.sweep(tmp_path)
    fs.replace_file(tmp_path / "other", b"x")
    assert draft.exists()
    writer.send_signal(signal.SIGKILL)
    writer.wait()
    writer.stdout.close()
    fs.replace_file(tmp_path / "other", b"y")
    assert [path.name for path in tmp_path.iterdir()] == ["other"]


def test_only_drafts_are_swept(tmp_path: Path) -> None:
    """Files that merely look alike, a fresh link and what a link leads to stay; an old link goes."""
    kept = [
        ".run.json.0123abcd.envbuilder-draft.txt",
        "run.json.0123abcd.envbuilder-draft",
        ".x.tmp",
        ".a.12.envbuilder-draft",
    ]
    for name in kept:
        (tmp_path / name).write_text("")
    fresh, old = (tmp_path / f".latest.0123abc{end}.envbuilder-draft" for end in "de")
    for link in (fresh, old):
        link.symlink_to(kept[2])
    os.utime(old, (0, 0), follow_symlinks=False)
    fs.sweep(tmp_path, tmp_path / "nowhere", tmp_path / ".x.tmp")
    assert {path.name for path in tmp_path.iterdir()} == {*kept, fresh.name}


def test_two_writers_and_a_sweeper_at_once(tmp_path: Path) -> None:
    """Writers that race each other and sweepers never lose a file to each other's sweeping."""
    code = """
        import sys
        from pathlib import Path
        from envbuilder import fs
        for number in range(30):
            fs.replace_file(Path(sys.argv[1]) / "file", str(number).encode())
            fs.swing(Path(sys.argv[1]) / "link", str(number))
        print("done")
    """
    writers = [python(code, tmp_path) for _ in range(3)]
    while any(writer.poll() is None for writer in writers):
        fs.sweep(tmp_path)
    assert [writer.communicate()[0] for writer in writers] == ["done\n"] * 3
    assert {path.name for path in tmp_path.iterdir()} == {"file", "link"}


def test_a_file_and_its_folder_are_synced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The file before it is in its place, the folder after; new folders in the ones around them."""
    synced: list[str] = []
    sync = os.fsync

    def noted(handle: int) -> None:
        synced.append(str(Path(f"/proc/self/fd/{handle}").readlink()))
        sync(handle)

    monkeypatch.setattr(os, "fsync", noted)
    fs.write_atomically(tmp_path / "a" / "b" / "file", "x")
    *folders, draft, folder = synced
    assert folders == [str(tmp_path), str(tmp_path / "a")]
    assert draft.startswith(str(tmp_path / "a" / "b" / ".file."))
    assert folder == str(tmp_path / "a" / "b")


def test_a_replaced_file_keeps_its_mode(tmp_path: Path) -> None:
    """A script stays one that can be run, and what nobody else may read stays so."""
    file = tmp_path / "file"
    for mode in (0o755, 0o600):
        file.write_text("old")
        file.chmod(mode)
        fs.replace_file(file, b"new")
        assert file.stat().st_mode & 0o777 == mode
