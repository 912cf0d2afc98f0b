"""`init` and `new`: what they write works at once, and what was there stays."""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from workshop import PYTHON, Workshop

from envbuilder.documents import read_toml, read_yaml, validate
from envbuilder.registry import EntryDocument


@pytest.fixture
def fresh(workshop: Workshop) -> Workshop:
    """A workspace as `init` makes it, in place of the fixture's."""
    workshop.work = workshop.root / "fresh"
    workshop.work.mkdir()
    assert workshop.within("init", "-q").status == 0
    workshop.registry = workshop.work / "profiles" / "registry"
    return workshop


def files(root: Path) -> dict[str, bytes]:
    """Every file below a folder."""
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def test_new_workspace_passes_check_and_lock_check(workshop: Workshop) -> None:
    """`init DIR` makes the folder; an empty registry is nothing wrong; each file says what it is for."""
    ran = workshop.within("init", "benchmarks/mine", cwd=workshop.root)
    assert ran.status == 0, ran.err
    assert "next: cd benchmarks/mine && envbuilder new NAME --stage inference" in ran.out
    work = workshop.root / "benchmarks" / "mine"
    for command in (["check"], ["lock", "--check"], ["lock"], ["build"], ["status"]):
        ran = workshop.within(*command, cwd=work)
        assert ran.status == 0, (command, ran.err)
    assert "next: envbuilder new" in workshop.within("status", cwd=work).out
    assert workshop.within("bundle", "create", "x.bundle", "--format", "json", cwd=work).codes == ["usage"]
    for name in ("pyproject.toml", "profiles/prod/profile.toml", "profiles/dev/profile.toml", ".gitignore"):
        assert "# " in (work / name).read_text()
    schemas = {path.name for path in (work / "profiles" / "schemas").iterdir()}
    assert schemas == {f"{name}.schema.json" for name in ("entry", "overlay", "profile", "run", "settings")}


def test_init_tells_what_it_wrote_in_json(workshop: Workshop) -> None:
    """The envelope names the workspace and every file."""
    folder = workshop.root / "other"
    ran = workshop.within("init", str(folder), "--format", "json")
    result = ran.json["result"]
    assert isinstance(result, dict)
    assert result["workspace"] == str(folder)
    assert sorted(result["written"]) == sorted(files(folder))


@pytest.mark.parametrize(
    "there",
    [
        '# Ours.\n[project]\nname = "work"   # the name\nversion = "1"\n\n[tool.ruff]\nline-length = 100  # wide\n',
        '[tool.ruff]\nline-length = 100\n\n[project]\nname = "w"\nversion = "1"\n\n[tool.mypy]\nstrict = true\n',
        "",
        '[project]\r\nname = "w"   # Windows\r\nversion = "1"\r\n',
    ],
)
def test_existing_project_keeps_its_lines(workshop: Workshop, there: str) -> None:
    """A pyproject.toml gets the table; its comments, order and line ends stay."""
    folder = workshop.root / "project"
    folder.mkdir()
    (folder / "pyproject.toml").write_bytes(there.encode())
    (folder / ".gitignore").write_text("mine\n")
    assert workshop.within("init", cwd=folder).status == 0
    text = (folder / "pyproject.toml").read_bytes().decode()
    lines = iter(text.split("\n"))
    assert all(line in lines for line in there.rstrip("\n").split("\n"))
    assert "# default-run" in text
    tree = read_toml(folder / "pyproject.toml", "p").value
    assert tree["tool"]["envbuilder"] == {}
    assert (folder / ".gitignore").read_text() == "mine\n"
    assert workshop.within("check", cwd=folder).status == 0


@pytest.mark.parametrize("name", ["profiles/prod/profile.toml", "profiles/schemas/entry.schema.json"])
def test_init_overwrites_nothing(workshop: Workshop, name: str) -> None:
    """A file that would be overwritten ends it with 2, with the file's name; nothing at all is written."""
    folder = workshop.root / "project"
    (folder / name).parent.mkdir(parents=True)
    (folder / name).write_text("mine = 1\n")
    before = files(folder)
    ran = workshop.within("init", "--format", "json", cwd=folder)
    assert (ran.status, ran.codes) == (2, ["exists"])
    assert name in json.dumps(ran.json["problems"])
    assert files(folder) == before


def test_init_again_says_that_it_is_one_already(fresh: Workshop) -> None:
    """Exit 2, and a command that goes on from there."""
    before = files(fresh.work)
    ran = fresh.within("init")
    assert ran.status == 2
    assert "is a workspace already" in ran.err
    assert "hint: envbuilder check" in ran.err
    assert files(fresh.work) == before


def test_init_leaves_nothing_where_it_cannot_write(workshop: Workshop) -> None:
    """A folder that takes no files, or a pyproject.toml that is none: exit 2, and no half of a workspace."""
    folder = workshop.root / "project"
    folder.mkdir()
    (folder / "pyproject.toml").write_text("[tool\n")
    assert workshop.within("init", "--format", "json", cwd=folder).codes == ["config-invalid"]
    (folder / "pyproject.toml").unlink()
    (folder / "profiles").write_text("a file where a folder belongs\n")
    ran = workshop.within("init", cwd=folder)
    assert ran.status == 2
    assert set(files(folder)) == {"profiles"}


@pytest.mark.parametrize("stage", ["inference", "eval", "report"])
def test_new_plugin_passes_its_tests_and_is_in_the_registry(fresh: Workshop, stage: str) -> None:
    """Its own tests pass with nothing but pytest; entry and overlay are valid; prod says that it has no release."""
    ran = fresh.within("new", "My.VLM", "--stage", stage)
    assert ran.status == 0, ran.err
    package = fresh.work / "packages" / "my-vlm"
    env = {**os.environ, "PYTHONPATH": str(package / "src"), "PYTHONDONTWRITEBYTECODE": "1"}
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:cacheprovider",
        "-p",
        "no:xdist",
        "-p",
        "no:hypothesispytest",
    ]
    done = subprocess.run(command, cwd=package, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    entry = validate(read_yaml(fresh.registry / "my-vlm.yaml", "e"), EntryDocument)
    assert ran.out.endswith("for prod: name its repository and tag in profiles/registry/my-vlm.yaml\n")
    assert (entry.name, entry.stage, entry.entry) == ("my-vlm", stage, "my_vlm:MyVlm")
    assert read_yaml(fresh.registry / "my-vlm.dev.yaml", "o").value == {"source": {"path": "packages/my-vlm"}}
    for name in ("my-vlm.yaml", "my-vlm.dev.yaml"):
        first = (fresh.registry / name).read_text().splitlines()[0]
        schema = first.removeprefix("# yaml-language-server: $schema=")
        assert (fresh.registry / schema).resolve().is_file()
    ran = fresh.within("check", "--format", "json")
    assert ran.codes == ["lock-missing", "source-not-allowed"]
    assert fresh.within("new", "my-vlm", "--stage", stage).status == 2, "it is there now"


def test_files_are_what_their_schemas_say(fresh: Workshop) -> None:
    """What editors are pointed to holds for the files that come along; a typo does not pass."""
    jsonschema = importlib.import_module("jsonschema")
    assert fresh.within("new", "shout", "--stage", "inference").status == 0
    profiles = fresh.work / "profiles"
    documents = {
        "entry": read_yaml(profiles / "registry" / "shout.yaml", "e").value,
        "overlay": read_yaml(profiles / "registry" / "shout.dev.yaml", "o").value,
        "run": read_yaml(profiles / "runs" / "shout.yaml", "r").value,
        "profile": read_toml(profiles / "prod" / "profile.toml", "p").value,
    }
    for name, document in documents.items():
        schema = json.loads((profiles / "schemas" / f"{name}.schema.json").read_text())
        jsonschema.validate(document, schema)
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate({**document, "sorce": 1}, schema)


def test_new_plugin_is_as_the_house_writes(fresh: Workshop) -> None:
    """Ruff's own defaults and its formatter find nothing in any of the three."""
    for stage in ("inference", "eval", "report"):
        assert fresh.within("new", f"the-{stage}", "--stage", stage).status == 0
    for command in (["check"], ["format", "--check", "--line-length", "120"]):
        ruff = [sys.executable, "-m", "ruff", *command, "--no-cache", "--isolated", "packages"]
        done = subprocess.run(ruff, cwd=fresh.work, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr


def test_new_plugin_with_a_repository_waits_for_its_tag(fresh: Workshop) -> None:
    """With `--git` the base entry names the first tag to come; check says that it is not there."""
    repository = fresh.work / "remotes" / "later.git"
    fresh.git("init", "--quiet", "--bare", str(repository))
    ran = fresh.within("new", "later", "--stage", "eval", "--git", f"file://{repository}")
    assert ran.status == 0, ran.err
    assert ran.out.endswith(f"for prod: push it to file://{repository} with the tag v0.1.0, then envbuilder lock\n")
    assert "tag-missing" in fresh.within("check", "--format", "json").codes
    ran = fresh.within("new", "other", "--stage", "eval", "--git", "no address")
    assert ran.status == 2
    assert not (fresh.work / "packages" / "other").exists()


@pytest.mark.parametrize("name", ["json", "class", "3d", "-x", "a b", "wörter", "../x", ""])
def test_new_refuses_names_that_no_plugin_can_have(fresh: Workshop, name: str) -> None:
    """Modules of Python, keywords, what is no distribution name: exit 2, a hint, nothing written."""
    before = files(fresh.work)
    ran = fresh.within("new", "--stage", "eval", "--", name)
    assert ran.status == 2
    assert "hint: envbuilder new" in ran.err
    assert files(fresh.work) == before


@pytest.mark.network
def test_new_plugin_builds_and_runs_in_dev(fresh: Workshop) -> None:
    """As its `next:` lines say: uv run pytest in the package, then a run in dev, by the run file that came along."""
    assert fresh.within("new", "shout", "--stage", "inference").status == 0
    package = fresh.work / "packages" / "shout"
    env = {key: value for key, value in os.environ.items() if key != "VIRTUAL_ENV"}
    done = subprocess.run(
        ["uv", "run", "--quiet", "--python", PYTHON, "pytest"],
        cwd=package, env=env, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert fresh.run("build", "--profile", "dev", "shout").status == 0
    ran = fresh.run("run", "--profile", "dev", "profiles/runs/shout.yaml")
    assert ran.status == 0, ran.err
    assert "shout@questions" in ran.out
    answers = next((fresh.work / ".envbuilder" / "runs").glob("2*/answers/*.jsonl")).read_text()
    assert "WHAT IS WRITTEN HERE?." in answers
