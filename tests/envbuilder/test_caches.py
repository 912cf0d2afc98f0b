"""Packages that cache beside themselves: variables move what can be moved, and refusals name who wrote the rest."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
from local_index import Index, make_wheel
from workshop import PYTHON, Ran, Workshop

from envbuilder import caches

# Writes what it compiles where a variable says, else beside itself; at import, or when it is used.
_WRITER = """
import os

def use():
    place = PLACE or os.path.join(os.path.dirname(__file__), "compiled")
    os.makedirs(place, exist_ok=True)
    with open(os.path.join(place, "kernel.NAME"), "w") as stream:
        stream.write("compiled")
"""
_IMPORTED = _WRITER + "\nuse()\n"
WHEELS = {
    "jitter": _IMPORTED.replace("PLACE", "os.environ.get('NUMBA_CACHE_DIR')").replace("NAME", "nbi"),
    "asker": _IMPORTED.replace("PLACE", "os.environ.get('ASKER_CACHE_DIR')").replace("NAME", "bin"),
    "stubborn": _IMPORTED.replace("PLACE", "None").replace("NAME", "bin"),
    "lazy": _WRITER.replace("PLACE", "os.getenv('LAZY_CACHE_PATH')").replace("NAME", "bin"),
}


class Bench:
    """A workspace whose plugin imports one of the wheels."""

    def __init__(self, workshop: Workshop, index: Index, root: Path) -> None:
        self.workshop = workshop
        self.index = index
        self._env = {"UV_CACHE_DIR": str(root / "cache")}

    @property
    def state(self) -> Path:
        return self.workshop.work / ".envbuilder"

    def plugin(self, wheel: str, keys: Mapping[str, object] | None = None) -> None:
        """Make the plugin, and lock it."""
        code = f"import {wheel}\nclass Plugin: pass\n"
        self.workshop.plugin("alpha", dependencies=(wheel,), code=code, keys={"entry": "alpha:Plugin", **(keys or {})})
        assert self.run("lock").status == 0

    def run(self, *arguments: str, env: Mapping[str, str] | None = None) -> Ran:
        """Run envbuilder."""
        return self.workshop.within(*arguments, env={**self._env, **(env or {})})

    def execute(self, code: str) -> Ran:
        """Run Python in the plugin's environment; the command line becomes it, and so has a process of its own."""
        return self.workshop.run("exec", "alpha", "--", "python", "-c", code, env=self._env)


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    """A workspace with an index of its own."""
    with Index(tmp_path / "wheels") as index:
        for name, source in WHEELS.items():
            make_wheel(index.folder, name, files={f"{name}/__init__.py": source.encode()})
        workshop = Workshop(tmp_path)
        workshop.write("profiles/prod/profile.toml", f'python = "{PYTHON}"\nindex-url = "{index.url}"\n')
        yield Bench(workshop, index, tmp_path)


def test_package_that_honours_a_known_variable_is_built(bench: Bench) -> None:
    """Its cache lies in the plugin's folder, for this environment alone; the key stays, and `gc` takes both."""
    bench.plugin("jitter")
    ran = bench.run("build")
    assert ran.status == 0, ran.err
    (key,) = (path.name for path in (bench.state / "cache" / "alpha" / "compiled").iterdir())
    assert (bench.state / "cache" / "alpha" / "compiled" / key / "numba" / "kernel.nbi").is_file()
    assert (bench.state / "store" / key).is_dir()
    assert bench.execute("import jitter").status == 0
    assert bench.run("verify").status == 0


def test_own_setting_and_entry_stand_above(bench: Bench, tmp_path: Path) -> None:
    """A person's variable is left alone, and an entry's `env` stands above both."""
    bench.plugin("jitter", {"env": {"NUMBA_CACHE_DIR": str(tmp_path / "entry")}})
    assert bench.run("build", env={"NUMBA_CACHE_DIR": str(tmp_path / "person")}).status == 0
    assert (tmp_path / "entry" / "kernel.nbi").is_file()
    assert not (tmp_path / "person").exists()
    assert "NUMBA_CACHE_DIR" not in caches.variables(tmp_path, {"NUMBA_CACHE_DIR": "person"})


def test_refusal_names_who_wrote_and_the_variable(bench: Bench, tmp_path: Path) -> None:
    """No cache is emptied, nothing is fetched again; with the variable set in the entry the build is whole."""
    bench.plugin("asker")
    ran = bench.run("build")
    assert ran.status == 1
    assert "error[environment-written]" in ran.err
    assert "asker, in its own folder" in ran.err
    assert "site-packages/asker/compiled/kernel.bin" in ran.err
    assert "env: {ASKER_CACHE_DIR: " in ran.err
    assert "cache clean" not in ran.err
    assert bench.index.whole["asker-1.0-py3-none-any.whl"] == 1
    bench.workshop.entry("alpha", entry="alpha:Plugin", env={"ASKER_CACHE_DIR": str(tmp_path / "elsewhere")})
    assert bench.run("lock").status == 0
    assert bench.run("build").status == 0
    assert (tmp_path / "elsewhere" / "kernel.bin").is_file()


def test_package_that_asks_for_no_variable_is_named_all_the_same(bench: Bench) -> None:
    """Where nothing moves what it writes, that is said, and no variable is made up."""
    bench.plugin("stubborn")
    ran = bench.run("build")
    assert "error[environment-written]" in ran.err
    assert "stubborn, in its own folder" in ran.err
    assert "none of its code asks for a variable" in ran.err


def test_what_is_written_at_first_use_is_told_with_its_writer(bench: Bench) -> None:
    """`verify`, and the next `run`, name the package, the file and the variable to set."""
    bench.plugin("lazy")
    assert bench.run("build").status == 0
    assert bench.execute("import lazy; lazy.use()").status == 0
    ran = bench.run("verify")
    assert ran.status == 1
    assert "written by lazy, in its own folder" in ran.err
    assert "env: {LAZY_CACHE_PATH: " in ran.err
