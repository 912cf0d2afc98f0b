"""`test`: packages' own tests on real packages: checkouts, sealed tags, the workspace's own; logs, summary, JUnit XML."""

from __future__ import annotations

import subprocess
import textwrap
from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest
from local_index import Index, make_wheel, repack
from workshop import PYTHON, Workshop

from envbuilder.uv import find_uv

PASSES = """
    import alpha, support

    def test_model():
        assert alpha.ANSWER == 1
        assert support.VERSION == "1.0"

    def test_other():
        pass
"""
FAILS = "def test_wrong():\n    print('what was printed')\n    assert 1 == 2\n"
GROUPS = '[dependency-groups]\ntest = ["pytest", "support"]\n'


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Index]:
    """An index that holds pytest, as it is installed here, and a module that only tests need."""
    folder = tmp_path_factory.mktemp("wheels")
    repack(folder, "pytest")
    make_wheel(folder, "support")
    with Index(folder) as served:
        yield served


@pytest.fixture
def shop(workshop: Workshop, index: Index) -> Workshop:
    """A workspace that takes what it needs from the index."""
    for profile in ("prod", "dev"):
        workshop.write(f"profiles/{profile}/profile.toml", f'python = "{PYTHON}"\nindex-url = "{index.url}"\n')
    return workshop


def write_tests(folder: Path, text: str) -> None:
    """Give a package tests."""
    (folder / "tests").mkdir(parents=True, exist_ok=True)
    (folder / "tests" / "test_it.py").write_text(textwrap.dedent(text))


def checkout(shop: Workshop, name: str, text: str = PASSES, *, groups: str = GROUPS) -> Path:
    """A package in packages/, with an entry and an overlay that names it."""
    folder = shop.package(
        shop.work / "packages" / name, name=name, requires_python=">=3.10", code="ANSWER = 1\nclass Model:\n    pass\n"
    )
    write_tests(folder, text)
    project = folder / "pyproject.toml"
    project.write_text(project.read_text() + groups)
    shop.entry(name)
    shop.write(f"profiles/registry/{name}.dev.yaml", f"source: {{path: packages/{name}}}\n")
    return folder


def test_checkouts_are_tested_in_environments_of_their_own(shop: Workshop) -> None:
    """One passes and one does not: a summary, logs apart, exit 1, JUnit XML, and checkouts left as they were."""
    folder = checkout(shop, "alpha")
    checkout(shop, "beta", FAILS)
    before = sorted(folder.rglob("*"))
    ran = shop.within("test", "--junit", "report.xml")
    assert ran.status == 1
    assert "1 of 1 tests failed: tests.test_it::test_wrong" in ran.err
    assert "what was printed" in ran.out
    assert "alpha" in ran.out
    suites = ET.parse(shop.work / "report.xml").getroot()  # noqa: S314 - our own
    assert [(suite.get("name"), suite.get("tests"), suite.get("failures")) for suite in suites] == [
        ("alpha", "2", "0"),
        ("beta", "1", "1"),
    ]
    logs = shop.work / ".envbuilder" / "tests" / "dev"
    assert "2 passed" in (logs / "alpha" / "log.txt").read_text()
    assert "what was printed" not in (logs / "alpha" / "log.txt").read_text()
    left = [path for path in folder.rglob("*") if not {"__pycache__", ".pytest_cache"} & set(path.parts)]
    assert sorted(left) == before


def test_a_checkout_keeps_the_lock_that_it_has(shop: Workshop, index: Index) -> None:
    """A lock of its own decides, and is neither written nor removed."""
    folder = checkout(shop, "alpha")
    project = folder / "pyproject.toml"
    project.write_text(f'{project.read_text()}[[tool.uv.index]]\nurl = "{index.url}"\ndefault = true\n')
    subprocess.run([find_uv(), "lock", "-q", "--python", PYTHON], cwd=folder, check=True)
    lock = (folder / "uv.lock").read_bytes()
    make_wheel(index.folder, "support", "2.0")
    ran = shop.within("test", "--format", "json")
    (index.folder / "support-2.0-py3-none-any.whl").unlink()
    assert ran.status == 0, ran.err
    assert (folder / "uv.lock").read_bytes() == lock


def test_what_cannot_be_tested_is_told(shop: Workshop) -> None:
    """No pytest, no tests, no environment: each under its code, with a hint; in JUnit XML an error."""
    checkout(shop, "alpha", groups="")
    checkout(shop, "beta", "")
    checkout(shop, "gamma", groups='[dependency-groups]\ndev = ["pytest", "nowhere>1"]\n')
    ran = shop.within("test", "--format", "json", "--junit", "reports")
    assert ran.status == 1
    assert ran.codes == ["no-pytest", "no-tests", "test-environment"]
    states = {each["name"]: each["state"] for each in ran.json["result"]["tests"]}  # type: ignore[index]
    assert states == {"alpha": "failed", "beta": "no tests", "gamma": "failed"}
    assert "nowhere" in (shop.work / "reports" / "gamma.xml").read_text()
    assert shop.within("test", "beta").status == 0


@pytest.mark.parametrize(
    ("text", "words", "state", "said"),
    [
        ("def test_it():\n    import os\n    os._exit(0)\n", "", "failed", "pytest ended with 0 and left no report"),
        ("", "--version", "failed", "pytest ended with 0 and left no report"),
        ("def test_it(): pass\n", "--collect-only", "no tests", "pytest found no tests"),
    ],
)
def test_an_exit_status_is_no_test(shop: Workshop, text: str, words: str, state: str, said: str) -> None:
    """A pytest that ends well without a report of a test that passed has tested nothing."""
    checkout(shop, "alpha", text)
    ran = shop.within("test", "--format", "json", f"--args={words}")
    assert ran.json["result"]["tests"][0]["state"] == state  # type: ignore[index]
    assert said in ran.out
    assert ran.status == (1 if state == "failed" else 0)


def test_a_failure_that_a_conftest_hides_is_told(shop: Workshop) -> None:
    """What the report says counts, whatever exit status a conftest makes of it."""
    folder = checkout(shop, "alpha", FAILS)
    hides = "def pytest_sessionfinish(session):\n    session.exitstatus = 0\n"
    (folder / "tests" / "conftest.py").write_text(hides)
    ran = shop.within("test", "--format", "json")
    assert (ran.status, ran.codes) == (1, ["tests-failed"])


def test_arguments_reach_pytest(shop: Workshop) -> None:
    """`--args` chooses tests; what it cannot read is refused."""
    checkout(shop, "alpha")
    ran = shop.within("test", "--format", "json", "--args", "-k 'model and not other'")
    assert ran.json["result"]["tests"][0]["tests"] == 1  # type: ignore[index]
    assert shop.within("test", "--args", "'").status == 2
    assert shop.within("test", "--python", "seven").status == 2
    assert shop.within("test", "nothing").status == 2


def release(shop: Workshop, text: str, *, tag: str = "v0.1.0") -> None:
    """A tag of alpha with tests, whose settings would have them find the code that they lie beside."""
    repository = shop.remotes / "alpha.git"
    if not repository.exists():
        shop.git("init", "--quiet", "--initial-branch", "main", str(repository))
    write_tests(repository, text)
    version = tag.removeprefix("v")
    code = "ANSWER = 1\nclass Model:\n    pass\n"
    shop.package(repository, name="alpha", version=version, requires_python=">=3.10")
    settings = f'{GROUPS}[tool.pytest.ini_options]\npythonpath = ["src"]\n'
    project = (repository / "pyproject.toml").read_text() + settings
    shop.release("alpha", tag, version=version, requires_python=">=3.10", code=code, pyproject=project)
    shop.entry("alpha", tag=tag)


def test_a_tag_is_tested_in_its_sealed_environment(shop: Workshop) -> None:
    """The tests of the tag, on what is installed, with pytest beside it; the environment still verifies, byte for byte."""
    told = "import alpha, sys\ndef test_place():\n    assert alpha.__file__.startswith(sys.prefix), alpha.__file__\n"
    release(shop, told + "def test_more():\n    import support\n")
    checkout(shop, "alpha", FAILS)  # What is checked out is not what was pinned.
    release(shop, FAILS, tag="v0.2.0")
    shop.entry("alpha", tag="v0.1.0")
    assert shop.within("lock").status == 0
    ran = shop.within("test", "--profile", "prod", "--format", "json")
    assert ran.status == 0, ran.out
    tested = ran.json["result"]["tests"][0]  # type: ignore[index]
    assert (tested["state"], tested["tests"]) == ("passed", 2)
    assert shop.within("verify", "--full").status == 0
    path = Path(shop.within("path", "alpha").out.strip())
    assert not list(path.rglob("*pytest*"))


def test_tests_that_write_into_a_sealed_environment_are_told_of(shop: Workshop) -> None:
    """Whatever a test does to the environment that runs use, it does not go unnoticed."""
    release(shop, "import alpha, pathlib\ndef test_it():\n    pathlib.Path(alpha.__file__).with_name('x.py').touch()\n")
    shop.within("lock")
    ran = shop.within("test", "--profile", "prod", "--format", "json")
    assert ran.status == 1
    assert ran.codes == ["environment-touched"]


def test_integration_adds_plugins_to_the_hosts_environment(shop: Workshop, index: Index) -> None:
    """tests/integration sees the workspace's own environment, and the checkouts in it, editable; pytest comes along."""
    checkout(shop, "alpha")
    assert shop.within("test", "--integration").status == 2
    shop.write("tests/integration/test_all.py", "import alpha\ndef test_it():\n    assert alpha.ANSWER == 1\n")
    ran = shop.within("test", "--integration", "alpha", "--python", PYTHON, env={"UV_DEFAULT_INDEX": index.url})
    assert ran.status == 0, ran.out
    (shop.work / "uv.lock").unlink()
    project = shop.work / "pyproject.toml"
    project.write_text(
        f'[project]\nname = "host"\nversion = "1"\nrequires-python = ">=3.10"\ndependencies = ["pytest", "support"]\n'
        f'[[tool.uv.index]]\nurl = "{index.url}"\ndefault = true\n{project.read_text()}'
    )
    shop.write("tests/integration/test_all.py", "import alpha, support\ndef test_it():\n    assert alpha.ANSWER == 1\n")
    ran = shop.within("test", "--integration", "alpha", "--python", PYTHON, "--format", "json")
    assert ran.status == 0, ran.out
    assert ran.json["result"]["tests"][0]["tests"] == 1  # type: ignore[index]
    (shop.work / "packages/alpha/src/alpha/__init__.py").write_text("ANSWER = 2\n")
    assert shop.within("test", "--integration", "alpha", "--python", PYTHON).status == 1
