"""What an editable checkout holds, told by digests; and runs of its code, which no lock describes."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest
from workshop import DATES, Workshop

from envbuilder.store.checkouts import Checkout, survey

CODE = """
class Model:
    def load(self, context):
        pass
    def predict(self, batch):
        return [item.question.upper() for item in batch]
"""


def _git(folder: Path, *arguments: str) -> str:
    argv = ("git", "-C", str(folder), *arguments)
    return subprocess.run(argv, env={**os.environ, **DATES}, capture_output=True, text=True, check=True).stdout.strip()


def _files(folder: Path) -> None:
    (folder / "src" / "__pycache__").mkdir(parents=True)
    (folder / "src" / "code.py").write_text("one")
    (folder / "src" / "__pycache__" / "code.pyc").write_text("x")
    (folder / ".gitignore").write_text("__pycache__\nbig.bin\n")


@pytest.fixture(params=["repository", "plain"])
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A folder of code, in a repository or in none."""
    folder = tmp_path / "code"
    _files(folder)
    if request.param == "repository":
        _git(folder, "init", "--quiet")
        _git(folder, "add", "--all")
        _git(folder, "commit", "--quiet", "--message", "one")
    return folder


def _survey(folder: Path) -> Checkout:
    return survey(folder, folder.parent / "memo.sqlite")


def test_any_edit_makes_another_digest(folder: Path) -> None:
    """An edit, a new file, a removed one, a link and a mode each make another digest; caches make none."""
    seen = [_survey(folder).digest]
    for change in (
        lambda: (folder / "src" / "code.py").write_text("two"),
        lambda: (folder / "src" / "new.py").write_text("new"),
        lambda: (folder / "src" / "code.py").chmod(0o755),
        lambda: (folder / "src" / "link.py").symlink_to("new.py"),
        (folder / "src" / "new.py").unlink,
    ):
        change()
        seen.append(_survey(folder).digest)
    assert len(set(seen)) == len(seen)
    (folder / "src" / "__pycache__" / "more.pyc").write_text("x")
    assert _survey(folder).digest == seen[-1]


def test_state_of_a_repository_is_told(tmp_path: Path) -> None:
    """A clean checkout has a commit and no difference; an edit and a new file make differences that come and go."""
    _files(tmp_path / "code")
    folder = tmp_path / "code" / "src"
    assert _survey(folder).commit is None
    root = folder.parent
    _git(root, "init", "--quiet")
    assert _survey(folder).commit is None
    _git(root, "add", "--all")
    _git(root, "commit", "--quiet", "--message", "one")
    clean = _survey(folder)
    assert (clean.commit, clean.difference) == (_git(root, "rev-parse", "HEAD"), None)
    (root / "elsewhere.txt").write_text("not below")
    assert _survey(folder) == clean
    (folder / "code.py").write_text("two")
    edited = _survey(folder)
    (folder / "new.py").write_text("new")
    added = _survey(folder)
    assert edited.commit == added.commit == clean.commit
    assert len({None, edited.difference, added.difference}) == 3
    (folder / "new.py").unlink()
    (folder / "code.py").write_text("one")
    assert _survey(folder) == clean
    (folder / "code.py").unlink()
    assert _survey(folder).difference


def test_run_in_dev_is_bound_to_its_code(workshop: Workshop) -> None:
    """The same code gives the same result, reused; an edit of it, or of a library at a path, makes it run anew."""
    workshop.package(workshop.work / "packages" / "helper", name="helper", code="SIGN = '!'\n")
    workshop.package(workshop.work / "packages" / "alpha", name="alpha", dependencies=("helper",), code=CODE)
    workshop.entry("helper", kind="library")
    workshop.entry("alpha")
    for name in ("helper", "alpha"):
        workshop.write(f"profiles/registry/{name}.dev.yaml", f"source: {{path: packages/{name}}}\n")
    workshop.write("data.csv", "id;question;answer\n1;a;A\n2;b;B\n")
    workshop.write("run.yaml", "{name: small, data: {few: {path: data.csv}}, inference: [{plugin: alpha}]}\n")

    def run() -> dict[str, object]:
        ran = workshop.run("run", "run.yaml", "--profile", "dev", "--format", "json")
        assert ran.status == 0, ran.err
        return ran.json["result"]  # type: ignore[return-value]

    first = run()
    record = json.loads((Path(first["paths"]["run"]) / "run.json").read_text())  # type: ignore[index]
    assert set(record["environments"][0]["code"]) == {"packages/alpha", "packages/helper"}
    assert run()["tasks"][0]["reused"] == first["id"]  # type: ignore[index]
    for name in ("alpha", "helper"):
        path = workshop.work / "packages" / name / "src" / name / "__init__.py"
        path.write_text(path.read_text() + "# edited\n")
        why = workshop.run("plan", "run.yaml", "--why", "--profile", "dev", "--format", "json").json["result"]
        (decision,) = why["why"]  # type: ignore[index]
        assert (decision["what"], f"code in packages/{name}" in decision["why"]) == ("run", True)
        assert run()["tasks"][0]["reused"] is None  # type: ignore[index]
    # The profile is the run's own, whatever the command's would be.
    resumed = workshop.run("resume", "--profile", "prod", "--format", "json")
    assert (resumed.status, resumed.json["profile"]) == (0, "dev")
