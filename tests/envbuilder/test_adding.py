"""`add`: an entry after a look at the package, and nothing that `check` would refuse."""

from __future__ import annotations

import os
import pty
import select
import subprocess
import time
from pathlib import Path

import pytest
from local_index import Index, make_wheel
from workshop import PYTHON, Ran, Workshop

from envbuilder.lock.proposals import points

URL = "https://git.example.org/alpha.git"
CODE = "class Model:\n    def load(self, context): pass\n    def predict(self, batch): pass\n"


@pytest.fixture
def shop(workshop: Workshop) -> Workshop:
    """A remote of a plugin with two tags, of which one fits the core; an empty registry."""
    workshop.settings(core={"core": '"1.0"'})
    workshop.release("alpha", "v0.1.0", version="0.1.0", dependencies=("core<2",), code=CODE)
    workshop.release("alpha", "v0.2.0", version="0.2.0", dependencies=("core>=2",), code=CODE)
    return workshop


def hint(ran: Ran) -> str:
    """The hint of the first problem."""
    problems = ran.json["problems"]
    assert isinstance(problems, list)
    return str(problems[0]["hint"])


def add(shop: Workshop, *words: str) -> Ran:
    """Run `add`, with the plugin's stage and entry."""
    return shop.within("add", *words, "--stage", "inference", "--entry", "alpha:Model", "--format", "json")


def test_git_entry_is_written_and_locks(shop: Workshop) -> None:
    """Name, stage, entry and source, in the order in which people read them; it locks and passes check."""
    ran = shop.within("add", "alpha", "--git", URL, "--tag", "v0.1.0", "--stage", "inference", "--entry", "alpha:Model")
    assert ran.status == 0, ran.err
    assert ran.out == "profiles/registry/alpha.yaml: alpha 0.1.0\nnext: envbuilder lock --profile prod alpha\n"
    assert (shop.registry / "alpha.yaml").read_text() == (
        f"name: alpha\nstage: inference\nentry: alpha:Model\nsource:\n  git: {URL}\n  tag: v0.1.0\n"
    )
    shop.release("core", "v1.0", version="1.0")
    ran = shop.within("add", "--git", "https://git.example.org/core.git", "--tag", "v1.0", "--library")
    assert ran.status == 0, ran.err
    assert ran.out.endswith("next: envbuilder check\n")
    assert shop.within("lock").status == 0
    assert shop.within("check").status == 0


@pytest.mark.parametrize(
    ("words", "code", "mended"),
    [
        (["alpha", "--git", URL, "--tag", "v0.1.1"], "tag-missing", ["alpha", "--git", URL, "--tag", "v0.1.0"]),
        (["alhpa", "--git", URL, "--tag", "v0.1.0"], "name-mismatch", ["alpha", "--git", URL, "--tag", "v0.1.0"]),
        (["alpha", "--git", URL, "--tag", "v0.2.0"], "core-incompatible", ["alpha", "--git", URL, "--tag", "v0.1.0"]),
    ],
)
def test_what_check_would_refuse_is_not_written(shop: Workshop, words: list[str], code: str, mended: list[str]) -> None:
    """Exit 1, check's own code, and as a hint the command that would do; that command does."""
    ran = add(shop, *words)
    assert (ran.status, ran.codes) == (1, [code])
    assert not list(shop.registry.iterdir())
    assert hint(ran) == " ".join(["envbuilder add", *mended, "--stage inference --entry alpha:Model"])
    assert add(shop, *mended).status == 0


def test_unreachable_remote_and_other_versions_are_refused(shop: Workshop) -> None:
    """A remote that is not there; a tag that holds a package of another version."""
    ran = add(shop, "gone", "--git", "https://git.example.org/gone.git", "--tag", "v1")
    assert (ran.status, ran.codes) == (1, ["remote-unreachable"])
    shop.release("alpha", "v0.3.0", version="0.1.0")
    ran = add(shop, "alpha", "--git", URL, "--tag", "v0.3.0")
    assert (ran.status, ran.codes) == (1, ["version-mismatch"])
    assert hint(ran).startswith("git ls-remote --tags")
    assert not list(shop.registry.iterdir())


@pytest.mark.parametrize(
    "words",
    [
        [],
        ["alpha", "--git", URL],
        ["alpha", "--git", URL, "--tag", "v0.1.0", "--rev", "0" * 40],
        ["alpha", "--git", URL, "--tag", "v0.1.0", "--path", "packages/alpha"],
        ["alpha", "--git", "ext::sh -c date", "--tag", "v0.1.0"],
        ["alpha", "--git", URL, "--tag=--upload-pack=x"],
        ["alpha", "--pypi", "alpha"],
        ["alpha", "--pypi", "beta==1"],
        ["alpha", "--pypi", "alpha==one"],
        ["alpha", "--path", "/"],
        ["alpha", "--path", "packages/none"],
        ["alpha", "--path", "packages/alpha", "--tag", "v1"],
        ["a b", "--git", URL, "--tag", "v0.1.0"],
        ["../alpha", "--git", URL, "--tag", "v0.1.0"],
    ],
)
def test_requests_that_make_no_sense_end_with_2(shop: Workshop, words: list[str]) -> None:
    """With a hint, and nothing is written."""
    ran = add(shop, *words)
    assert ran.status == 2, ran.out
    assert hint(ran)
    assert not list(shop.registry.iterdir())


def test_entry_that_is_there_is_not_overwritten(shop: Workshop) -> None:
    """Also where it is no valid one."""
    file = shop.entry("alpha")
    before = file.read_text()
    ran = add(shop, "alpha", "--git", URL, "--tag", "v0.1.0")
    assert (ran.status, ran.codes) == (2, ["exists"])
    assert file.read_text() == before


def test_stage_and_entry_are_required_off_a_terminal(shop: Workshop) -> None:
    """Exit 2; the hint is the command with what the package's code shows, and works."""
    ran = shop.within("add", "alpha", "--git", URL, "--tag", "v0.1.0", "--format", "json")
    assert ran.status == 2
    command = hint(ran)
    assert command.endswith("--tag v0.1.0 --stage inference --entry alpha:Model")
    assert shop.within(*command.split()[1:]).status == 0


def test_stage_and_entry_are_asked_for_on_a_terminal(shop: Workshop) -> None:
    """With what the package's code shows as the answer that Enter gives."""
    main, other = pty.openpty()
    process = subprocess.Popen(
        shop.argv("add", "alpha", "--git", URL, "--tag", "v0.1.0"),
        cwd=shop.work,
        env=shop.environment(),
        stdin=other,
        stdout=subprocess.PIPE,
        stderr=other,
    )
    os.close(other)
    shown = b""
    until = time.monotonic() + 60
    while process.poll() is None and time.monotonic() < until:
        if select.select([main], [], [], 0.2)[0]:
            try:
                shown += os.read(main, 1024)
            except OSError:
                break
            if shown.rstrip().endswith(b"]:"):
                os.write(main, b"\n")
                shown += b"(asked)"
    out, _ = process.communicate(timeout=60)
    os.close(main)
    assert process.returncode == 0, shown
    assert b"found: alpha:Model (inference)" in shown
    assert b"alpha 0.1.0" in out
    assert "entry: alpha:Model" in (shop.registry / "alpha.yaml").read_text()


def test_folder_becomes_an_entry_for_dev(shop: Workshop) -> None:
    """Entry and overlay name the folder; dev locks it, prod says that it has no release."""
    shop.package(shop.work / "packages" / "beta", name="beta", code=CODE)
    assert add(shop, "bteta", "--path", "packages/beta").codes == ["name-mismatch"]
    ran = shop.within("add", "--path", "packages/beta", "--stage", "inference", "--entry", "beta:Model")
    assert ran.status == 0, ran.err
    assert shop.within("lock", "--profile", "dev").status == 0
    assert "source-not-allowed" in shop.within("check", "--format", "json").codes


def test_release_is_looked_up_on_the_index(shop: Workshop, tmp_path: Path) -> None:
    """One that is there is written; one that is not names the nearest; one that does not fit the core is refused."""
    folder = tmp_path / "wheels"
    make_wheel(folder, "thing", "1.0", requires=("core<2",))
    make_wheel(folder, "thing", "2.0", requires=("core>=2",))
    with Index(folder) as index:
        shop.write("profiles/prod/profile.toml", f'python = "{PYTHON}"\nindex-url = "{index.url}"\n')
        ran = add(shop, "--pypi", "thing==1.1")
        assert (ran.status, ran.codes) == (1, ["release-missing"])
        assert "--pypi thing==1.0" in hint(ran)
        assert add(shop, "--pypi", "nothing==1.0").codes == ["release-missing"]
        assert add(shop, "--pypi", "thing==2.0").codes == ["core-incompatible"]
        assert add(shop, "Thing", "--pypi", "thing==1.0").status == 0
    assert 'pypi: "==1.0"' in (shop.registry / "thing.yaml").read_text()
    assert add(shop, "--pypi", "late==1.0").codes == ["index-unreachable"]


def test_what_lies_beside_a_package_is_asked_for(shop: Workshop) -> None:
    """A dependency from a folder that only the package's own repository has: a warning, until it is an entry."""
    sources = '[tool.uv.sources]\ncommon = {path = "../common"}\nother = {path = "../other"}\n'
    facts = '[project]\nname = "alpha"\nversion = "0.4.0"\nrequires-python = ">=3.8"\ndependencies = ["common"]\n'
    build = '[build-system]\nrequires = []\nbuild-backend = "tiny_backend"\nbackend-path = ["backend"]\n'
    shop.release("alpha", "v0.4.0", version="0.4.0", pyproject=build + facts + sources, code=CODE)
    ran = add(shop, "alpha", "--git", URL, "--tag", "v0.4.0")
    assert (ran.status, ran.codes) == (0, ["sibling-missing"])
    assert hint(ran) == "envbuilder add common --library --git URL --tag TAG"
    (shop.registry / "alpha.yaml").unlink()
    shop.entry("common", kind="library")
    assert add(shop, "alpha", "--git", URL, "--tag", "v0.4.0").codes == []


def test_classes_are_found_without_an_import(tmp_path: Path) -> None:
    """By their methods; under the name that the package exports; not in tests, nor among protocols."""
    files = {
        "src/vlm/__init__.py": "from vlm.model import Vlm\nraise SystemExit('imported')\n",
        "src/vlm/model.py": CODE.replace("Model", "Vlm") + "class _Inner(Vlm): pass\n",
        "src/vlm/judge.py": "class Judge:\n    def load(self, c): pass\n    def evaluate(self, r): pass\n",
        "src/vlm/classic.py": "class Classic:\n    def predict_on_image(self, image, question): pass\n",
        "src/vlm/contract.py": "class P(Protocol):\n    def load(self, c): ...\n    def render(self, r): ...\n",
        "src/vlm/broken.py": "class (:\n",
        "src/tests/test_x.py": CODE,
        "tests/test_x.py": CODE,
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    assert points(tmp_path) == [
        ("vlm:Vlm", "inference"),
        ("vlm.classic:Classic", "inference"),
        ("vlm.judge:Judge", "eval"),
    ]
