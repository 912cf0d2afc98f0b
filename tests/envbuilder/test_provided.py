"""Packages that the base interpreter supplies: seen inside, never locked, proved by their versions."""

from __future__ import annotations

import os
import shutil
import subprocess
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from base_interpreter import Base
from local_index import Index, make_wheel
from workshop import PYTHON, Ran, Workshop

from envbuilder.errors import ToolError
from envbuilder.store.provided import supply
from envbuilder.uv import find_python, identify


@pytest.fixture
def base(tmp_path: Path) -> Base:
    """A base interpreter that has torch, and an old numbers."""
    made = Base(tmp_path / "base")
    made.install(make_wheel(tmp_path / "supplied", "torch", "2.9.1+cluster"))
    made.install(make_wheel(tmp_path / "supplied", "numbers", "0.5"))
    return made


@pytest.fixture
def index(tmp_path: Path) -> Iterator[Index]:
    """An index with another torch, and with what depends on it."""
    folder = tmp_path / "wheels"
    make_wheel(folder, "torch", "2.8.0")
    make_wheel(folder, "timm", "1.0", requires=["torch>=2", "numbers"])
    make_wheel(folder, "numbers", "1.0")
    with Index(folder) as serving:
        yield serving


@pytest.fixture
def bench(workshop: Workshop, index: Index) -> Workshop:
    """A plugin that leaves torch to the base interpreter, and gets the rest from the index."""
    workshop.write("profiles/prod/profile.toml", f'python = "{PYTHON}"\nindex-url = "{index.url}"\n')
    code = "import timm\nimport torch\nclass Model:\n    TORCH = torch.VERSION\n"
    workshop.plugin("reader", dependencies=("torch", "timm"), code=code, keys={"provided": {"torch": "==2.9.*"}})
    return workshop


def inside(workshop: Workshop, base: Base, code: str) -> str:
    """What the environment's interpreter prints."""
    ran = workshop.run("exec", "reader", "--", "python", "-c", code, env=base.env)
    assert ran.status == 0, ran.err
    return ran.out.strip()


def lock_and_build(workshop: Workshop, base: Base, *arguments: str) -> Ran:
    """Lock, which must succeed, and build."""
    ran = workshop.within("lock", env=base.env)
    assert ran.status == 0, ran.err
    return workshop.within("build", *arguments, env=base.env)


def test_provided_package_is_seen_and_not_locked(bench: Workshop, base: Base) -> None:
    """The environment holds no torch of its own, also where another package asks for it, and imports the base's."""
    ran = lock_and_build(bench, base)
    assert ran.status == 0, ran.err
    lock = (bench.work / "profiles/prod/reader/uv.lock").read_text()
    assert 'name = "torch"\nversion' not in lock
    assert 'name = "timm"\nversion' in lock
    told = inside(bench, base, "import reader, torch; print(reader.Model.TORCH, torch.__file__)").split()
    assert told == ["2.9.1+cluster", str(base.packages / "torch" / "__init__.py")]
    assert bench.within("verify", "--full", env=base.env).status == 0
    assert "1 unchanged" in bench.within("build", env=base.env).out


def test_locked_packages_come_before_those_of_the_base(bench: Workshop, base: Base) -> None:
    """What both have is the environment's; a person's own packages stay out."""
    assert lock_and_build(bench, base).status == 0
    assert inside(bench, base, "import site; print(site.ENABLE_USER_SITE)") == "False"
    code = "from importlib.metadata import version; print(version('numbers'))"
    assert inside(bench, base, code) == "1.0"


def test_bytecode_of_the_base_is_not_written_beside_it(bench: Workshop, base: Base) -> None:
    """Neither the build's import nor a person's writes into the base interpreter's packages."""
    assert lock_and_build(bench, base).status == 0
    inside(bench, base, "import torch")
    python = bench.work / ".envbuilder" / "envs" / "prod" / "reader" / "bin" / "python"
    subprocess.run([python, "-c", "import torch"], check=True)
    assert not list(base.packages.rglob("*.pyc"))


@pytest.mark.parametrize(
    ("specifier", "code", "said"),
    [
        ("==2.8.*", "provided-mismatch", "provided torch==2.8.* is not what is there"),
        (">=3", "provided-mismatch", "has torch 2.9.1+cluster"),
    ],
)
def test_wrong_version_in_the_base_is_refused(
    bench: Workshop, base: Base, specifier: str, code: str, said: str
) -> None:
    """Found against required, and nothing is built; `status` says it too."""
    bench.entry("reader", provided={"torch": specifier})
    ran = lock_and_build(bench, base, "--format", "json")
    assert (ran.status, ran.codes) == (1, [code])
    assert said in ran.out
    assert not list((bench.work / ".envbuilder").glob("store/reader-*"))
    assert code in bench.within("status", env=base.env).out


def test_package_that_the_base_lacks_is_refused(bench: Workshop, base: Base) -> None:
    """A base without what is left to it; once it has it, the same command succeeds."""
    shutil.rmtree(base.packages / "torch-2.9.1+cluster.dist-info")
    ran = lock_and_build(bench, base)
    assert ran.status == 1
    assert "error[provided-missing] reader profiles/registry/reader.yaml:1:" in ran.err
    assert f"hint: {base.python.parent}" in ran.err
    assert "-m pip install 'torch==2.9.*'" in ran.err
    base.install(bench.root / "supplied" / "torch-2.9.1+cluster-py3-none-any.whl")
    assert bench.within("build", env=base.env).status == 0


def test_base_whose_packages_print_is_asked_all_the_same(base: Base) -> None:
    """What a ``.pth`` file of the base prints is no answer, and hides none; one that ends Python well is told of."""
    talks = base.packages / "talks.pth"
    talks.write_text("import sys; print('hello')\n")
    assert supply(identify(base.python), f"=={PYTHON}.*", {"torch": "==2.9.*"}, "here").versions == {
        "torch": "2.9.1+cluster"
    }
    talks.write_text("import os; os._exit(0)\n")
    with pytest.raises(ToolError, match="does not tell its packages: it printed nothing"):
        supply(identify(base.python), f"=={PYTHON}.*", {"torch": "==2.9.*"}, "here")


def test_another_version_in_the_base_is_another_environment(bench: Workshop, base: Base) -> None:
    """The provided versions are part of the key: an upgrade of the base is noticed, and built anew."""
    assert lock_and_build(bench, base).status == 0
    store = bench.work / ".envbuilder" / "store"
    before = set(store.glob("reader-*.files.json"))
    base.install(make_wheel(bench.root / "supplied", "torch", "2.9.2"))
    assert "not built" in bench.within("status", env=base.env).out
    assert bench.within("build", env=base.env).status == 0
    assert set(store.glob("reader-*.files.json")) > before
    assert inside(bench, base, "import torch; print(torch.VERSION)") == "2.9.2"


def test_base_that_puts_its_own_first_is_refused(bench: Workshop, base: Base) -> None:
    """A .pth of the base that goes before the environment's packages would shadow what was locked."""
    early = bench.root / "early"
    with zipfile.ZipFile(make_wheel(bench.root / "supplied", "numbers", "0.1")) as archive:
        archive.extractall(early)
    (base.packages / "early.pth").write_text(f"import sys; sys.path.insert(0, {str(early)!r})\n")
    ran = lock_and_build(bench, base)
    assert ran.status == 1
    assert "provided-shadows" in ran.err
    assert f"numbers 0.1 of {early}" in ran.err


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({"provided": {"torch": "2.9"}}, "expected a version specifier"),
        ({"provided": {"-o": "==1"}}, "expected a distribution name"),
        ({"provided": {"torch": "==2.9.*"}, "torch": "default"}, "beside a provided torch"),
        ({"provided": {"torch": "==2.9.*"}, "kind": "library"}, "a library has no provided"),
    ],
)
def test_provided_is_refused_where_it_makes_no_sense(bench: Workshop, keys: dict[str, object], said: str) -> None:
    """Faults of the entry, told with the file."""
    bench.entry("reader", **keys)  # type: ignore[arg-type]
    ran = bench.within("lock")
    assert ran.status == 2
    assert said in ran.err
    assert "profiles/registry/reader.yaml:1:" in ran.err


@pytest.fixture
def cluster(base: Base, tmp_path: Path) -> Base:
    """A virtual environment of an interpreter without torch, as images of clusters have it, with torch and a .pth."""
    for old in base.packages.glob("torch*"):
        shutil.rmtree(old)
    made = base.environment(tmp_path / "opt of cluster" / "venv")
    files = {"torch/__init__.py": b"VERSION = '2.9.1'\n", "torch/lazy.py": b"LAZY = 1\n"}
    made.install(make_wheel(tmp_path / "cluster", "torch", "2.9.1", files=files))
    made.install(make_wheel(tmp_path / "cluster", "numbers", "0.4"))
    (tmp_path / "more").mkdir()
    (tmp_path / "more" / "sidecar.py").write_text("A = 1\n")
    (made.packages / "more.pth").write_text(f"{tmp_path / 'more'}\n")
    return made


def lazy(bench: Workshop, plugin: str, base: Base) -> Path:
    """Where the bytecode of a module that no import has reached yet lies for a plugin."""
    (place,) = (bench.work / ".envbuilder/pycache").glob(f"{plugin}-*")
    found = Path(f"{place}{base.packages}/torch")
    return next(found.glob("lazy.*.pyc"))


def test_virtual_environment_on_path_is_a_base(bench: Workshop, cluster: Base) -> None:
    """Its packages, and what its .pth files name, are seen after the environment's own; an upgrade is noticed."""
    ran = lock_and_build(bench, cluster)
    assert ran.status == 0, ran.err
    code = "import torch, numbers, sidecar, importlib.metadata as m; print(torch.VERSION, m.version('numbers'), torch.__file__)"
    told = inside(bench, cluster, code).split(" ", 2)
    assert told == ["2.9.1", "1.0", str(cluster.packages / "torch" / "__init__.py")]
    assert bench.within("verify", "--full", env=cluster.env).status == 0
    assert "1 unchanged" in bench.within("build", env=cluster.env).out
    assert not list(cluster.packages.rglob("*.pyc"))
    cluster.install(make_wheel(bench.root / "cluster", "torch", "2.9.2"))
    assert "not built" in bench.within("status", env=cluster.env).out
    assert bench.within("build", env=cluster.env).status == 0
    assert inside(bench, cluster, "import torch; print(torch.VERSION)") == "2.9.2"


def test_interpreter_behind_an_environment_is_found_off_path(
    base: Base, cluster: Base, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where PATH shows the environment alone, what it was made with serves."""
    monkeypatch.setenv("PATH", os.pathsep.join([str(cluster.python.parent), "/usr/sbin"]))
    monkeypatch.setenv("UV_PYTHON_PREFERENCE", "only-system")
    monkeypatch.setenv("PYENV_ROOT", "/nonexistent")
    assert find_python(f"=={PYTHON}.*", offline=True).path.resolve() == (base.python).resolve()


@pytest.mark.parametrize("flags", [(), ("--system-site-packages",)])
def test_environment_of_an_environment_is_a_base(
    bench: Workshop, cluster: Base, tmp_path: Path, flags: tuple[str, ...]
) -> None:
    """A nested one shows its own packages alone; with system's packages, those of the interpreter too."""
    inner = cluster.environment(tmp_path / "inner", *flags)
    inner.install(make_wheel(tmp_path / "cluster", "torch", "2.9.3"))
    assert lock_and_build(bench, inner).status == 0
    assert inside(bench, inner, "import torch; print(torch.VERSION)") == "2.9.3"


def test_base_without_the_package_is_named_with_every_environment_looked_at(bench: Workshop, cluster: Base) -> None:
    """Neither the interpreter nor the environment has it: both are told, and the hint's interpreter is one of them."""
    shutil.rmtree(cluster.packages / "torch-2.9.1.dist-info")
    ran = lock_and_build(bench, cluster)
    assert ran.status == 1
    assert "provided-missing" in ran.err
    assert f"nor has {cluster.python}" in ran.err


@pytest.mark.parametrize("compiled", [True, False])
def test_bytecode_of_the_base_is_compiled_once(bench: Workshop, cluster: Base, *, compiled: bool) -> None:
    """What lies beside its packages is used, and what does not is compiled once for all environments."""
    if compiled:
        cluster.compile()
    bench.plugin(
        "writer",
        dependencies=("torch",),
        code="import torch\nclass Model: ...\n",
        keys={"provided": {"torch": "==2.9.*"}},
    )
    ran = lock_and_build(bench, cluster, "--jobs", "1")
    assert ran.status == 0, ran.err
    one, two = lazy(bench, "reader", cluster), lazy(bench, "writer", cluster)
    assert one.samefile(two)
    assert one.is_symlink() == compiled
    trace = bench.run("exec", "reader", "--", "python", "-v", "-c", "import torch.lazy", env=cluster.env).err
    assert f"code object from '{one}'" in trace
