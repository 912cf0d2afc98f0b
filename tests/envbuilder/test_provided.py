"""Packages that the base interpreter supplies: seen inside, never locked, proved by their versions."""

from __future__ import annotations

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
    assert supply(base.python, {"torch": "==2.9.*"}, "here").versions == {"torch": "2.9.1+cluster"}
    talks.write_text("import os; os._exit(0)\n")
    with pytest.raises(ToolError, match="does not tell its packages: it printed nothing"):
        supply(base.python, {"torch": "==2.9.*"}, "here")


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
