"""Building: whole environments or none, no-ops, and what breaks them."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from pipeline_bench import is_alive, wait_for
from workshop import Workshop

from envbuilder.uv import find_uv


@pytest.fixture
def locked(workshop: Workshop) -> Workshop:
    """Two plugins, locked for prod."""
    workshop.plugin("alpha")
    workshop.plugin("beta")
    assert workshop.within("lock").status == 0
    return workshop


def environments(workshop: Workshop) -> list[dict[str, str]]:
    """What `build` says of each environment."""
    ran = workshop.within("build", "--format", "json")
    assert ran.status == 0, ran.err
    result = ran.json["result"]
    assert isinstance(result, dict)
    found = result["environments"]
    assert isinstance(found, list)
    return found


def leftovers(workshop: Workshop) -> list[Path]:
    """What a build must not leave behind once it has ended well."""
    return [path for path in (workshop.work / ".envbuilder" / "store").glob(".staging/*") if path.exists()]


def test_build_makes_one_environment_per_plugin(locked: Workshop) -> None:
    """Each plugin is importable in its own environment, by its own interpreter, and nothing is left in staging."""
    before = locked.within("status", "--format", "json").json["result"]
    assert isinstance(before, dict)
    assert [(each["version"], each["state"]) for each in before["plugins"]] == [("0.1.0", "not built")] * 2
    found = environments(locked)
    assert [(each["plugin"], each["state"]) for each in found] == [("alpha", "built"), ("beta", "built")]
    for each in found:
        python = Path(each["path"]) / "bin" / "python"
        done = subprocess.run(
            [python, "-c", f"import {each['plugin']} as m; print(m.__file__)"],
            capture_output=True,
            text=True,
            check=True,
        )
        assert done.stdout.startswith(each["path"])
    assert not leftovers(locked)


def test_build_again_does_nothing(locked: Workshop) -> None:
    """The second build says unchanged and touches no file of the environment."""
    first = environments(locked)[0]
    before = {path: path.lstat().st_mtime_ns for path in Path(first["path"]).rglob("*")}
    assert [each["state"] for each in environments(locked)] == ["unchanged", "unchanged"]
    assert {path: path.lstat().st_mtime_ns for path in Path(first["path"]).rglob("*")} == before


def test_build_follows_a_new_lock(locked: Workshop) -> None:
    """A new tag, locked, gives a new environment; the old one stays where it was."""
    old = environments(locked)[0]
    locked.plugin("alpha", tag="v0.2.0")
    assert locked.within("lock").status == 0
    new = environments(locked)[0]
    assert new["state"] == "built"
    assert new["path"] != old["path"]
    assert Path(old["path"]).is_dir()
    ran = locked.run(
        "exec", "alpha", "--", "python", "-c", "from importlib.metadata import version as v; print(v('alpha'))"
    )
    assert ran.out.strip() == "0.2.0"


def test_build_refuses_a_stale_lock(locked: Workshop) -> None:
    """An entry that changed since it was locked is not built; the other plugin is."""
    locked.entry("alpha", requires=["nowhere-to-be-had==1"])
    ran = locked.within("build", "--format", "json")
    assert ran.status == 1
    assert ran.codes == ["lock-stale"]
    assert (locked.work / ".envbuilder" / "envs" / "prod" / "beta").exists()


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("raise RuntimeError('no such driver')\n", "no such driver"),
        ("import a_module_that_is_not_there\n", "a_module_that_is_not_there"),
        ("class Other: pass\n", "Model"),
        ("Model = 1\n", "expected a class, found int"),
        ("def __getattr__(name): return None\n", "expected a class, found NoneType"),
        ("class Model(:\n", "SyntaxError"),
        ("import sys\nsys.exit(0)\n", "importing it calls sys.exit(0)"),
        ("import os\nprint('so far')\nos._exit(0)\n", "exit status 0 before it was reached"),
    ],
)
def test_build_refuses_a_plugin_that_cannot_be_imported(workshop: Workshop, code: str, said: str) -> None:
    """What an entry point names must be there; the error says why it is not, and the whole story is in a file."""
    workshop.plugin("alpha", code=code)
    assert workshop.within("lock").status == 0
    ran = workshop.within("build")
    assert ran.status == 1
    assert "plugin-import-failed" in ran.err
    assert not leftovers(workshop)
    assert said in ran.err
    log = ran.err.rsplit("hint: cat ", 1)[1].strip()
    assert said in (workshop.work / log).read_text()
    assert not (workshop.work / ".envbuilder" / "envs" / "prod" / "alpha").exists()


def test_a_process_that_an_import_leaves_behind_is_not_waited_for(workshop: Workshop) -> None:
    """A plugin whose import forks a child that sleeps is built all the same, and nothing of it stays."""
    mark = workshop.root / "child"
    code = f"""
        import os, time
        class Model: pass
        if os.fork() == 0:
            open({str(mark)!r}, "w").write(str(os.getpid()))
            time.sleep(600)
        while not os.path.exists({str(mark)!r}) or not os.path.getsize({str(mark)!r}):
            time.sleep(0.01)
    """
    workshop.plugin("alpha", code=code)
    assert workshop.within("lock", "-q").status == 0
    ran = workshop.within("build")
    assert ran.status == 0, ran.err
    wait_for(lambda: not is_alive(int(mark.read_text())), "the end of the child")


def test_a_folder_that_a_build_is_started_from_takes_no_part(workshop: Workshop) -> None:
    """What lies about in the current folder neither stands in for a package nor makes its import fail."""
    workshop.plugin("alpha", code="import a_module_that_is_not_there\nclass Model: pass\n")
    workshop.plugin("beta")
    workshop.write("a_module_that_is_not_there.py", "")
    workshop.write("beta.py", "raise RuntimeError('not the package')\n")
    assert workshop.within("lock").status == 0
    ran = workshop.within("build")
    assert "plugin-import-failed" in ran.err
    assert {path.name for path in (workshop.work / ".envbuilder" / "envs" / "prod").iterdir()} == {"beta"}


def test_failed_build_leaves_the_environment_before_it(locked: Workshop) -> None:
    """A new version that cannot be imported does not take the place of the one that works."""
    old = environments(locked)[0]
    locked.plugin("alpha", tag="v0.2.0", code="raise ValueError\n")
    assert locked.within("lock", "alpha").status == 0
    assert locked.within("build").status == 1
    link = locked.work / ".envbuilder" / "envs" / "prod" / "alpha"
    assert link.resolve() == Path(old["path"])


def _delete_package(packages: Path, _seal: Path) -> None:
    (packages / "alpha" / "__init__.py").unlink()
    (packages / "alpha").rmdir()


DAMAGES: dict[str, Callable[[Path, Path], object]] = {
    "delete package": _delete_package,
    "stray module": lambda packages, _: (packages / "stray.py").write_text(""),
    "stray pth": lambda packages, _: (packages / "stray.pth").write_text("import os\n"),
    "delete record": lambda packages, _: (packages / "alpha-0.1.0.dist-info" / "RECORD").unlink(),
    "upgrade": lambda packages, _: (packages / "alpha-0.1.0.dist-info").rename(packages / "alpha-0.1.1.dist-info"),
    "no seal": lambda _, seal: seal.unlink(),
}


def test_build_mends_what_it_sees_at_a_glance(locked: Workshop) -> None:
    """A damaged environment is no no-op: it is built anew and says why."""
    first = environments(locked)[0]
    for name, damage in DAMAGES.items():
        packages = next(Path(first["path"]).glob("lib/python*/site-packages"))
        damage(packages, locked.work / ".envbuilder" / "store" / f"{first['key']}.json")
        again = environments(locked)
        assert [each["state"] for each in again] == ["built", "unchanged"], name
        assert [each["state"] for each in environments(locked)] == ["unchanged", "unchanged"], name
    DAMAGES["stray module"](packages, Path())
    said = "(replaces one that was damaged: packages were added or removed since it was sealed)\n"
    assert said in locked.within("build").err


def test_dev_is_editable_and_leaves_prod_alone(locked: Workshop) -> None:
    """With an overlay, an edit of the checkout is live in dev at once, and no byte of prod changes."""
    environments(locked)
    folder = locked.package(locked.work / "packages" / "alpha", name="alpha", version="0.2.dev0")
    locked.write("profiles/registry/alpha.dev.yaml", "source: {path: packages/alpha}\n")
    prod = {path: path.read_bytes() for path in (locked.work / "profiles" / "prod").rglob("*") if path.is_file()}
    show = ["exec", "alpha", "--", "python", "-c", "import alpha; print(alpha.Model.__doc__)"]
    dev = {"RUN_MODE": "dev"}
    assert locked.within("build", env=dev).status == 0
    (folder / "src" / "alpha" / "__init__.py").write_text('class Model:\n    """Edited."""\n')
    assert locked.run(*show, env=dev).out.strip() == "Edited."
    assert locked.run(*show).out.strip() == "None"
    assert prod == {
        path: path.read_bytes() for path in (locked.work / "profiles" / "prod").rglob("*") if path.is_file()
    }


def test_dev_follows_an_edit_of_dependencies(locked: Workshop) -> None:
    """A dependency added to an editable package is locked and built by the next `build` in dev, without being asked."""
    locked.release("gamma", "v0.1.0")
    locked.entry("gamma", kind="library")
    folder = locked.work / "packages" / "alpha"
    locked.package(folder, name="alpha")
    locked.write("profiles/registry/alpha.dev.yaml", "source: {path: packages/alpha}\n")
    dev = {"RUN_MODE": "dev"}
    assert locked.within("build", env=dev).status == 0
    assert locked.run("exec", "alpha", "--", "python", "-c", "import gamma", env=dev).status == 1
    locked.package(folder, name="alpha", dependencies=("gamma",))
    assert locked.within("build", env=dev).status == 0
    assert locked.run("exec", "alpha", "--", "python", "-c", "import gamma", env=dev).status == 0


def test_environment_is_closed_to_the_outside(locked: Workshop) -> None:
    """PYTHONPATH, PYTHONHOME and the user's own packages do not leak in, and bytecode does not land inside."""
    found = environments(locked)[0]
    (locked.root / "leak").mkdir()
    (locked.root / "leak" / "leaked.py").write_text("")
    code = "import alpha, site, sys; print(site.ENABLE_USER_SITE); import leaked"
    ran = locked.run("exec", "alpha", "--", "python", "-c", code, env={"PYTHONPATH": str(locked.root / "leak")})
    assert ran.status == 1
    assert ran.out.strip() == "False"
    assert "No module named 'leaked'" in ran.err
    packages = next(Path(found["path"]).glob("lib/python*/site-packages"))
    assert not list((packages / "alpha").rglob("*.pyc"))


def test_two_builds_at_once_share_the_work(locked: Workshop) -> None:
    """Several builders of the same plugins all succeed, each environment is made once, and nothing is left over."""
    running = [
        subprocess.Popen(
            locked.argv("build"), cwd=locked.work, env=locked.environment(), stderr=subprocess.PIPE, text=True
        )
        for _ in range(3)
    ]
    said = [process.communicate()[1] for process in running]
    assert [process.returncode for process in running] == [0, 0, 0], said
    assert sum(text.count("alpha  built") for text in said) == 1
    assert not leftovers(locked)


@pytest.mark.parametrize(
    ("number", "seed"),
    [
        pytest.param(number, seed, marks=[] if seed == place else pytest.mark.slow)
        for place, number in enumerate((signal.SIGKILL, signal.SIGTERM, signal.SIGINT))
        for seed in range(3)
    ],
)
def test_build_killed_at_any_moment_is_made_good_by_the_next(
    locked: Workshop, number: signal.Signals, seed: int
) -> None:
    """However a build is killed, what the profile points at works, and a plain `build` finishes."""
    draw = random.Random(seed * 31 + number)  # noqa: S311 - moments, not secrets
    process = subprocess.Popen(
        locked.argv("build"), cwd=locked.work, env=locked.environment(), stderr=subprocess.PIPE, text=True
    )
    assert process.stderr is not None
    assert process.stderr.readline().startswith("> build")
    time.sleep(draw.uniform(0.0, 1.5))
    process.send_signal(number)
    _, said = process.communicate()
    assert "Traceback" not in said
    if number != signal.SIGKILL:
        # Before main() begins and after it has ended, the signal's own effect stands.
        assert process.returncode in {0, 130, -number}, said
    for link in (locked.work / ".envbuilder" / "envs" / "prod").glob("[!.]*"):
        done = subprocess.run([link / "bin" / "python", "-c", f"import {link.name}"], check=False)
        assert done.returncode == 0
    assert [each["state"] in {"built", "unchanged"} for each in environments(locked)] == [True, True]
    assert not leftovers(locked)


def test_full_disk_is_an_error_with_a_remedy(locked: Workshop) -> None:
    """A file system that takes no more gives one clear error; with room again, the same command succeeds."""
    code = (
        "import resource, runpy, sys; resource.setrlimit(resource.RLIMIT_FSIZE, (300, 300)); "
        "sys.argv = ['envbuilder', 'build']; runpy.run_module('envbuilder', run_name='__main__')"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=locked.work,
        env=locked.environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode in {1, 2}
    assert "Traceback" not in done.stderr
    assert done.stderr.count("hint: df -h ") == 2, done.stderr
    assert not leftovers(locked)
    assert [each["state"] for each in environments(locked)] == ["built", "built"]


def test_a_moved_workspace_finds_its_state_and_a_copy_has_its_own(locked: Workshop, tmp_path: Path) -> None:
    """With a shared home, runs and generations follow a workspace that is moved; a copy or a stranger takes none of them."""
    home = {"ENVBUILDER_HOME": str(tmp_path / "home")}
    assert locked.within("build", env=home).status == 0
    folders = tmp_path / "home" / "workspaces"
    (own,) = folders.iterdir()
    run = own / "runs" / "20260102T030405Z-demo-00abcd"
    run.mkdir(parents=True)
    copy, moved = tmp_path / "copy", tmp_path / "moved"
    subprocess.run(["cp", "-r", str(locked.work), str(copy)], check=True)
    locked.work.rename(moved)
    listed = locked.within("runs", "list", "--format", "json", env=home, cwd=copy)
    assert (listed.json["result"], listed.codes) == ({"runs": []}, ["workspace-moved"])
    listed = locked.within("runs", "list", "--format", "json", env=home, cwd=moved)
    assert run.name in listed.out
    assert '"number": 1' in locked.within("generations", "--format", "json", env=home, cwd=moved).out
    assert not own.exists()
    assert (next(folders.glob("moved-*")) / "runs" / run.name).is_dir()
    assert "no generations" in locked.within("generations", env=home, cwd=copy).out
    assert "2 unchanged" in locked.within("build", env=home, cwd=moved).out
    assert len(list(folders.iterdir())) == 2


def test_state_folder_can_be_elsewhere_and_shared(locked: Workshop, tmp_path: Path) -> None:
    """With ENVBUILDER_HOME two workspaces share a store, and each keeps its own idea of which environment is whose."""
    home = {"ENVBUILDER_HOME": str(tmp_path / "home")}
    other = tmp_path / "other"
    subprocess.run(["cp", "-r", str(locked.work), str(other)], check=True)
    first = locked.within("build", env=home)
    assert first.status == 0
    ran = locked.within("build", env=home, cwd=other)
    assert "2 unchanged" in ran.out
    assert first.err.count("  building") == 2
    assert first.err.count("uv's cache") == 1
    assert not (locked.work / ".envbuilder" / "store").exists()
    assert len(list((tmp_path / "home" / "workspaces").iterdir())) == 2


def test_workspace_may_stand_in_a_folder_with_spaces(tmp_path: Path) -> None:
    """Paths with spaces and other letters than ASCII work, down to the scripts' first lines."""
    workshop = Workshop(tmp_path / "мой стенд")
    workshop.plugin("alpha")
    assert workshop.within("lock").status == 0
    assert workshop.within("build").status == 0
    assert workshop.run("exec", "alpha", "--", "python", "-c", "import alpha").status == 0


def test_environment_variables_of_an_entry_reach_the_worker(workshop: Workshop) -> None:
    """What an entry sets under `env` is set inside, and only there."""
    workshop.plugin("alpha", keys={"env": {"TOKENIZERS_PARALLELISM": "false"}})
    assert workshop.within("lock").status == 0
    assert workshop.within("build").status == 0
    code = "import os; print(os.environ['TOKENIZERS_PARALLELISM'])"
    assert workshop.run("exec", "alpha", "--", "python", "-c", code).out.strip() == "false"
    assert "TOKENIZERS_PARALLELISM" not in os.environ


def test_no_op_reads_neither_registry_nor_locks(locked: Workshop) -> None:
    """A build with nothing to do is told by stats: neither YAML nor pydantic is loaded, and what was seen is said."""
    assert locked.within("build").status == 0
    code = (
        "import sys, atexit\n"
        "atexit.register(lambda: print([n for n in ('yaml', 'pydantic', 'tomlkit', 'rich') if n in sys.modules]))\n"
        "sys.argv = ['envbuilder', 'build']\n"
        "from envbuilder.cli import main\n"
        "main()\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=locked.work,
        env=locked.environment(),
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.splitlines() == ["2 unchanged: .envbuilder/envs/prod", "[]"]


def test_rollback_is_undone_by_build(locked: Workshop) -> None:
    """After a rollback commands use the older environment; `build` returns to what is locked, though nothing changed."""
    assert locked.within("build").status == 0
    locked.plugin("alpha", tag="v0.2.0")
    assert locked.within("lock").status == 0
    assert locked.within("build").status == 0
    show = ["exec", "alpha", "--", "python", "-c", "from importlib.metadata import version as v; print(v('alpha'))"]
    assert locked.run(*show).out.strip() == "0.2.0"
    assert locked.within("rollback").status == 0
    assert locked.run(*show).out.strip() == "0.1.0"
    assert "2 unchanged" in locked.within("build").out
    assert locked.run(*show).out.strip() == "0.2.0"


def test_an_empty_environment_is_what_uv_makes(locked: Workshop, tmp_path: Path) -> None:
    """What environments begin with is, file for file, what `uv venv --relocatable` writes under the plugin's name."""
    place = Path(environments(locked)[0]["path"])
    made = tmp_path / "made"
    python = (place / "bin" / "python").readlink()
    argv = [str(find_uv()), "venv", "--quiet", "--relocatable", "--prompt", "alpha", "--python", str(python), str(made)]
    subprocess.run(argv, check=True)
    for path in made.rglob("*"):
        ours = place / path.relative_to(made)
        assert path.lstat().st_mode == ours.lstat().st_mode
        if path.name in {"python", "lib64"}:
            assert path.readlink() == ours.readlink()
        elif path.is_file():
            assert path.read_bytes() == ours.read_bytes()


def test_what_is_in_the_cache_needs_no_git(locked: Workshop) -> None:
    """A package that was built from its commit once is installed from uv's cache, though clone and remote are gone."""
    environments(locked)
    for folder in (locked.remotes, locked.work / ".envbuilder" / "git", locked.work / ".envbuilder" / "store"):
        shutil.rmtree(folder)
    assert [each["state"] for each in environments(locked)] == ["built", "built"]


def test_bytecode_of_the_first_import_is_kept(locked: Workshop) -> None:
    """What the build compiled to prove the import is what the first run loads: it lies where Python looks for it."""
    found = environments(locked)[0]
    state = locked.work / ".envbuilder"
    module = next(Path(found["path"]).glob("lib/python*/site-packages/alpha"))
    kept = state / "pycache" / found["key"] / module.relative_to("/")
    (compiled,) = kept.glob("__init__.*.pyc")
    before = compiled.stat().st_mtime_ns
    assert locked.run("exec", "alpha", "--", "python", "-c", "import alpha").status == 0
    assert compiled.stat().st_mtime_ns == before
    assert not (state / "pycache" / found["key"] / (state / "store" / ".staging").relative_to("/")).exists()
