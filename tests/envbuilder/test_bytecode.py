"""Bytecode that environments share: compiled once, linked, checked against its source, collected."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from local_index import Index, make_wheel
from workshop import PYTHON, Workshop

from envbuilder.store.bytecode import Bytecode, Proof

TOOL = {
    "tool/__init__.py": b"def fail():\n    raise ValueError('as asked')\n",
    "tool/extra.py": b"VALUE = 1\n",
    "tool/template.py": b"{% not python %}\n",
}


@pytest.fixture
def site(workshop: Workshop) -> Iterator[Workshop]:
    """Two plugins that import one package from an index, locked."""
    with Index(workshop.root / "wheels") as index:
        make_wheel(index.folder, "tool", files=TOOL)
        workshop.write("profiles/prod/profile.toml", f'python = "{PYTHON}"\nindex-url = "{index.url}"\n')
        for name in ("alpha", "beta"):
            workshop.plugin(name, dependencies=("tool",), code="import tool\nclass Model: pass\n")
        assert workshop.within("lock").status == 0
        yield workshop


def state(site: Workshop) -> Path:
    """The workspace's state folder."""
    return site.work / ".envbuilder"


def place(site: Workshop, plugin: str) -> Path:
    """A plugin's environment."""
    return (state(site) / "envs" / "prod" / plugin).resolve()


def compiled(site: Workshop, plugin: str, name: str) -> list[Path]:
    """The bytecode of a module of ``tool`` that Python finds in a plugin's environment."""
    (packages,) = place(site, plugin).glob("lib/python*/site-packages")
    folder = state(site) / "pycache" / place(site, plugin).name / packages.relative_to("/") / "tool"
    return list(folder.glob(f"{name}.*.pyc"))


def shared(site: Workshop) -> list[Path]:
    """All bytecode that environments share."""
    return list((state(site) / "bytecode").rglob("*.pyc"))


def run(site: Workshop, plugin: str, code: str) -> subprocess.CompletedProcess[str]:
    """Run a piece of Python in an environment, as by hand."""
    env = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}
    argv = [str(place(site, plugin) / "bin" / "python"), "-c", code]
    return subprocess.run(argv, env=env, capture_output=True, text=True, check=False, timeout=60)


def build(site: Workshop, *arguments: str) -> None:
    """Build, which must succeed."""
    ran = site.within("build", *arguments)
    assert ran.status == 0, ran.err


def test_bytecode_is_compiled_once_and_linked(site: Workshop) -> None:
    """What the first environment's import compiled is the very file that the second one's Python loads."""
    build(site, "alpha")
    build(site, "beta")
    (first,) = compiled(site, "alpha", "__init__")
    (second,) = compiled(site, "beta", "__init__")
    assert first.samefile(second)
    assert any(first.samefile(kept) for kept in shared(site))
    assert not compiled(site, "alpha", "extra")
    assert not list((state(site) / "bytecode").glob("*/.new/*"))


def test_a_traceback_names_the_environment_that_runs(site: Workshop) -> None:
    """Bytecode that came from another environment does not tell that one's paths."""
    build(site, "alpha")
    build(site, "beta")
    for plugin in ("alpha", "beta"):
        before = [path.stat().st_mtime_ns for path in compiled(site, plugin, "__init__")]
        done = run(site, plugin, "import tool; tool.fail()")
        assert f'File "{place(site, plugin)}/lib/' in done.stderr
        assert [path.stat().st_mtime_ns for path in compiled(site, plugin, "__init__")] == before


def test_bytecode_of_another_source_is_never_used(site: Workshop) -> None:
    """A source that was edited, size and time as before, is compiled anew when it is imported."""
    build(site, "alpha", "--compile-bytecode")
    (source,) = place(site, "alpha").glob("lib/python*/site-packages/tool/extra.py")
    moment = source.stat().st_mtime_ns
    source.write_bytes(TOOL["tool/extra.py"].replace(b"1", b"2"))
    os.utime(source, ns=(moment, moment))
    assert run(site, "alpha", "import tool.extra as e; print(e.VALUE)").stdout == "2\n"


def test_torn_bytecode_is_not_shared(site: Workshop) -> None:
    """What is cut off is compiled anew by the next build that imports it, and put in the place of what was torn."""
    build(site, "alpha")
    for path in shared(site):
        os.truncate(path, 40)
    build(site, "beta")
    assert run(site, "beta", "import beta").returncode == 0
    (whole,) = compiled(site, "beta", "__init__")
    assert any(whole.samefile(kept) for kept in shared(site))
    assert whole.stat().st_size > 40


def test_build_compiles_everything_when_told_to(site: Workshop) -> None:
    """With the flag or the setting every module has bytecode, but for those that are no Python; the flag wins."""
    build(site, "alpha", "--compile-bytecode")
    assert compiled(site, "alpha", "extra")
    assert not compiled(site, "alpha", "template")
    profile = site.work / "profiles" / "prod" / "profile.toml"
    profile.write_text(profile.read_text() + "compile-bytecode = true\n")
    make_wheel(site.root / "wheels", "tool", "2.0", files={**TOOL, "tool/other.py": b"OTHER = 1\n"})
    for plugin, flags, there in (("alpha", ["--no-compile-bytecode"], False), ("beta", [], True)):
        assert site.within("lock", "--upgrade", plugin).status == 0
        build(site, plugin, *flags)
        assert bool(compiled(site, plugin, "other")) is there
        assert compiled(site, plugin, "extra")  # It was there already.


def test_gc_removes_bytecode_that_nobody_links_to(site: Workshop) -> None:
    """What an environment uses stays; what only removed ones used goes."""
    build(site, "alpha")
    (kept,) = compiled(site, "alpha", "__init__")
    orphan = shared(site)[0].with_name("0" * 64 + ".pyc")
    orphan.write_bytes(b"")
    assert site.within("gc").status == 0
    assert not orphan.exists()
    assert any(kept.samefile(path) for path in shared(site))


def _prove(folder: Path, code: str) -> Proof:
    """What the import of a module with that code comes to, in this interpreter."""
    (folder / "module.py").write_text(code)
    env = {"PYTHONPATH": str(folder), "PYTHONPYCACHEPREFIX": str(folder / "pycache"), "PATH": os.environ["PATH"]}
    return Bytecode(folder / "kept", "key", "tag").prove(Path(sys.executable), "module:Model", env)


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("import sys\nsys.exit(0)", "ImportError: importing it calls sys.exit(0)"),
        ("raise SystemExit", "ImportError: importing it calls sys.exit(None)"),
        ("def __getattr__(name):\n    raise SystemExit(0)", "ImportError: importing it calls sys.exit(0)"),
        ("import os\nprint('so far', flush=True)\nos._exit(0)", "exit status 0 before it was reached"),
        ("import os\nos.close(1)\nos._exit(0)", "exit status 0 before it was reached"),
        ("import os\nos.execvp('true', ['true'])", "exit status 0 before it was reached"),
        ("import os, sys\nprint(*sys.argv, flush=True)\nos._exit(0)", "exit status 0 before it was reached"),
        ("import atexit, os\natexit.register(os._exit, 0)\nraise OSError('no weights')", "exit status 0 before"),
        ("import os\nif os.fork():\n    os.wait()\n    os._exit(0)\nclass Model: pass", "exit status 0 before"),
        ("import os, threading, time\nthreading.Thread(target=os._exit, args=(0,)).start()\ntime.sleep(9)", "before"),
        ("import os\nos.closerange(3, 64)\nclass Model: pass", "closes descriptors of the process"),
        ("import atexit, os\natexit.register(os._exit, 3)\nclass Model: pass", "exit status 3"),
    ],
)
def test_an_exit_status_is_no_proof(tmp_path: Path, code: str, said: str) -> None:
    """A module that ends its process well before the entry point is reached is not taken for one that has it."""
    failure = _prove(tmp_path, code).failure
    assert failure is not None
    assert said in failure


@pytest.mark.parametrize(
    "code",
    [
        "import atexit, os\natexit.register(os._exit, 0)",
        "import os\nprint('hello', flush=True)\nos.close(1)",
        "import sys\nsys.stdout.close()\nsys.stderr.close()",
        "import os\nif not os.fork():\n    raise SystemExit(3)\nos.wait()",
        "import os\nif os.fork():\n    os.wait()",
        "import sys\nassert len(sys.argv) == 1",
    ],
)
def test_what_is_reached_is_proved(tmp_path: Path, code: str) -> None:
    """What a module does to its output, its copies or its exit afterwards does not hide that it is there."""
    assert _prove(tmp_path, f"{code}\nclass Model: pass").failure is None
