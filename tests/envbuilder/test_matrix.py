"""`matrix`: cells that are possible, those that a change affects, and CI files that their services take and that work."""

from __future__ import annotations

import json
import os
import shutil
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml
from local_index import Index, make_wheel
from workshop import PYTHON, Workshop

ROOT = Path(__file__).parents[2]
READY = ROOT / "docs" / "ci"


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Index]:
    """Indexes with two builds of torch."""
    folder = tmp_path_factory.mktemp("wheels")
    for build in ("cpu", "cu126"):
        make_wheel(folder / build, "torch", f"2.8.0+{build}")
    with Index(folder) as served:
        yield served


@pytest.fixture
def shop(workshop: Workshop, index: Index) -> Workshop:
    """A library, a plugin on it with torch, and one that is by itself; each with a tag, a checkout and locks."""
    workshop.settings(core={"lib": '{path = "packages/lib"}'})
    workshop.write(
        "profiles/prod/profile.toml",
        f'python = "{PYTHON}"\nindex-url = "{index.url}"\ntorch-index-url = "{index.torch_url}"\n'
        'torch-backends = ["cpu", "cu126"]\n',
    )
    workshop.plugin("lib", keys={"kind": "library"})
    workshop.plugin("base", keys={"kind": "library"})
    workshop.plugin("alpha", dependencies=("torch", "base"))
    workshop.plugin("beta")
    for name, needs in {"lib": (), "base": (), "alpha": ("base",), "beta": ()}.items():
        workshop.package(
            workshop.work / "packages" / name, name=name, dependencies=needs, requires_python=">=3.11,<3.13"
        )
        workshop.write(f"profiles/registry/{name}.dev.yaml", f"source: {{path: packages/{name}}}\n")
    assert workshop.within("lock").status == 0
    workshop.write(".gitignore", ".envbuilder/\n")
    commit(workshop)
    return workshop


def commit(shop: Workshop) -> None:
    """Commit everything that is in the workspace."""
    if not (shop.work / ".git").exists():
        shop.git("-C", str(shop.work), "init", "--quiet", "--initial-branch", "main")
    shop.git("-C", str(shop.work), "add", "--all")
    shop.git("-C", str(shop.work), "commit", "--quiet", "--message", "all")


def cells(shop: Workshop, *arguments: str) -> list[dict[str, str]]:
    """What `matrix --format json` holds."""
    ran = shop.within("matrix", "--format", "json", *arguments)
    assert ran.status == 0, ran.out
    found = ran.json["result"]["cells"]  # type: ignore[index]
    assert isinstance(found, list)
    return found


def names(shop: Workshop, *arguments: str) -> list[str]:
    """The cells' names."""
    return [cell["name"] for cell in cells(shop, *arguments)]


def test_cells_are_what_is_possible(shop: Workshop) -> None:
    """Checkouts with the Pythons that they accept; tags with the lock's Python and torch backends; sorted."""
    both = [f"{name} dev py{python}" for name in ("base", "beta", "lib") for python in ("3.11", "3.12")]
    alpha = ["alpha dev py3.11", "alpha dev py3.12", f"alpha prod py{PYTHON} cpu", f"alpha prod py{PYTHON} cu126"]
    expected = sorted([*both, *alpha, f"beta prod py{PYTHON}"])
    assert names(shop) == expected
    assert names(shop, "--profile", "prod", "alpha") == alpha[2:]
    assert names(shop, "--profile", "dev", "--python", "3.9", "--python", "3.12", "lib") == ["lib dev py3.12"]
    shop.entry("alpha", torch="cpu")
    shop.within("lock")
    assert names(shop, "--profile", "prod", "alpha") == alpha[2:3]


def test_what_no_python_fits_has_no_cell(shop: Workshop) -> None:
    """An entry that narrows Python narrows its cells; one whose lock is not there is told, and has none."""
    shop.write("profiles/registry/beta.dev.yaml", 'source: {path: packages/beta}\npython: "==3.12.*"\n')
    assert names(shop, "--profile", "dev", "beta") == ["beta dev py3.12"]
    (shop.work / "profiles" / "prod" / "beta" / "uv.lock").unlink()
    ran = shop.within("matrix", "--format", "json", "--profile", "prod")
    assert ran.status == 1
    assert ran.codes == ["lock-missing"]
    assert {cell["plugin"] for cell in ran.json["result"]["cells"]} == {"alpha"}  # type: ignore[index]


def test_checkouts_that_are_not_there_have_no_cell(shop: Workshop) -> None:
    """An overlay is committed, the clone that it names is somebody's own: a warning, not an error, in CI and in `test`."""
    shutil.rmtree(shop.work / "packages" / "beta")
    ran = shop.within("matrix", "--format", "json", "--profile", "dev")
    assert (ran.status, ran.codes) == (0, ["checkout-missing"])
    assert "beta" not in {cell["plugin"] for cell in ran.json["result"]["cells"]}  # type: ignore[index]
    named = shop.within("test", "beta", "--format", "json")
    assert (named.status, named.codes) == (2, ["checkout-missing"])
    for name in ("alpha", "base", "lib"):
        shutil.rmtree(shop.work / "packages" / name)
    shop.settings(core={})
    every = shop.within("test", "--format", "json")
    assert (every.status, set(every.codes)) == (0, {"checkout-missing"})


def test_keys_follow_lock_python_and_backend(shop: Workshop) -> None:
    """Every cell has a key of its own, the same until its lock changes."""
    before = {cell["name"]: cell["key"] for cell in cells(shop)}
    assert len(set(before.values())) == len(before)
    assert {cell["name"]: cell["key"] for cell in cells(shop)} == before
    (shop.work / "packages/beta/src/beta/__init__.py").write_text("class Model:\n    x = 1\n")
    assert {cell["name"]: cell["key"] for cell in cells(shop)} == before
    (shop.work / "packages" / "beta" / "uv.lock").write_text("version = 1\n")
    after = {cell["name"]: cell["key"] for cell in cells(shop)}
    assert {name for name in before if after[name] != before[name]} == {"beta dev py3.11", "beta dev py3.12"}


def touch(name: str) -> Callable[[Workshop], object]:
    """A change that adds a line to a file."""

    def change(shop: Workshop) -> None:
        path = shop.work / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text((path.read_text() if path.exists() else "") + "\n# more\n")

    return change


def mirror(shop: Workshop) -> None:
    """A change of the settings."""
    path = shop.work / "pyproject.toml"
    path.write_text(path.read_text() + '"https://other.example.org/" = "elsewhere/"\n')


# A change, and the plugins and profiles that it can matter to.
AFFECTED: list[tuple[Callable[[Workshop], object], set[str]]] = [
    (touch("README.md"), set()),
    (touch("pyproject.toml"), set()),
    (touch("packages/beta/src/beta/__init__.py"), {"beta dev"}),
    (touch("packages/beta/new.py"), {"beta dev"}),
    (touch("packages/base/pyproject.toml"), {"base dev", "alpha dev"}),
    (touch("profiles/registry/alpha.dev.yaml"), {"alpha dev"}),
    (touch("profiles/registry/beta.yaml"), {"beta dev", "beta prod"}),
    (touch("profiles/registry/base.yaml"), {"base dev", "alpha dev", "alpha prod"}),
    (touch("profiles/prod/alpha/uv.lock"), {"alpha prod"}),
    (touch("profiles/prod/profile.toml"), {"alpha prod", "beta prod"}),
    (touch("packages/lib/src/lib/__init__.py"), {"all"}),
    (mirror, {"all"}),
]


def test_changes_affect_what_leads_to_them(shop: Workshop) -> None:
    """Registry, overlay, lock, package folder, profile and core: each to the cells that it can matter to."""
    everything = {f"{cell['plugin']} {cell['profile']}" for cell in cells(shop)}
    assert names(shop, "--changed-since", "HEAD") == []
    ran = shop.within("matrix", "--changed-since", "HEAD")
    assert (ran.out, ran.err) == ("", "nothing to test: no change since HEAD concerns it\n")
    for change, affected in AFFECTED:
        change(shop)
        ran = shop.within("matrix", "--format", "json", "--changed-since", "HEAD")
        found = {f"{cell['plugin']} {cell['profile']}" for cell in ran.json["result"]["cells"]}  # type: ignore[index]
        # A lock that was edited by hand is stale, and told as such.
        stale = {f"{problem['entry']} prod" for problem in ran.json["problems"]}  # type: ignore[attr-defined]
        assert found | stale == (everything if affected == {"all"} else affected)
        shop.git("-C", str(shop.work), "stash", "push", "--quiet", "--include-untracked")


def test_revisions_that_are_not_there_are_refused(shop: Workshop) -> None:
    """A typing error, or a clone that is too shallow."""
    ran = shop.within("matrix", "--changed-since", "nowhere", "--format", "json")
    assert ran.status == 2
    assert ran.codes == ["revision-unknown"]


def test_github_takes_one_line_of_limited_length(shop: Workshop) -> None:
    """`--format github` is the matrix on one line, quiet or not; more cells than GitHub takes are an error."""
    for quiet in ((), ("-q",)):
        ran = shop.within("matrix", "--format", "github", *quiet)
        assert ran.out.count("\n") == 1
        assert json.loads(ran.out) == {"include": cells(shop)}
    many = [word for number in range(150) for word in ("--python", f"3.12.{number % 30}")]
    ran = shop.within("matrix", "--format", "github", "--profile", "dev", *many)
    assert ran.status == 2
    assert "matrix-too-large" in ran.err


def schema_errors(kind: str, *files: Path) -> str:
    """What the published schema of a service says against files."""
    words = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", f"vendor.{kind}", *map(str, files)]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    return "" if done.returncode == 0 else done.stdout + done.stderr


def test_ready_made_files_fit_the_services_schemas(shop: Workshop, tmp_path: Path) -> None:
    """GitHub's and GitLab's own schemas accept them, and what `--format gitlab` prints, cells or none."""
    assert not schema_errors("github-workflows", READY / "github.yml", ROOT / ".github" / "workflows" / "ci.yml")
    base = (READY / "gitlab-cell.yml").read_text()
    pipelines = [READY / "gitlab.yml", READY / "gitlab-cell.yml"]
    for name, arguments in {"all": (), "none": ("--changed-since", "HEAD")}.items():
        pipelines.append(tmp_path / f"{name}.yml")
        made = shop.within("matrix", "--format", "gitlab", *arguments).out
        pipelines[-1].write_text(f"{made}\n{base}")
        jobs = yaml.safe_load(made)
        assert list(jobs) == (names(shop, *arguments) or ["nothing to test"])
        extended = {job["extends"] for job in jobs.values() if "extends" in job}
        assert extended <= set(yaml.safe_load(base))
    assert not schema_errors("gitlab-ci", *pipelines)
    (tmp_path / "bad.yml").write_text("job: {script: 1}\n")
    assert schema_errors("gitlab-ci", tmp_path / "bad.yml")


def in_ci(shop: Workshop, script: str, env: dict[str, str]) -> str:
    """Run a job's script as its service would, with a `uv` that runs this envbuilder; returns what it was called with."""
    tools = shop.root / "tools"
    tools.mkdir(exist_ok=True)
    uv, calls = tools / "uv", shop.root / "calls"
    calls.unlink(missing_ok=True)
    uv.write_text(
        f'#!/bin/sh\nshift 3\necho "$@" >> {calls}\n'
        f'case "$1" in test|build) ;; *) exec {sys.executable} -m envbuilder "$@" ;; esac\n'
    )
    uv.chmod(uv.stat().st_mode | stat.S_IXUSR)
    path = f"{tools}{os.pathsep}{os.environ['PATH']}"
    subprocess.run(["bash", "-euc", script], cwd=shop.work, env=shop.environment({**env, "PATH": path}), check=True)
    return calls.read_text()


def test_ready_made_files_do_what_they_say(shop: Workshop) -> None:
    """Their scripts, run in a workspace, hand on the cells and call `test` with what a cell names."""
    jobs = yaml.safe_load((READY / "github.yml").read_text())["jobs"]
    script = next(step["run"] for step in jobs["cells"]["steps"] if step.get("id") == "cells")
    output = shop.root / "output"
    in_ci(shop, script, {"GITHUB_OUTPUT": str(output), "BASE": ""})
    assert output.read_text() == f"matrix={json.dumps({'include': cells(shop)})}\n"
    output.unlink()
    in_ci(shop, script, {"GITHUB_OUTPUT": str(output), "BASE": "HEAD"})
    assert output.read_text() == 'matrix={"include": []}\n'
    fields = {value for value in jobs["test"]["env"].values() if "matrix." in value}
    assert fields == {f"${{{{ matrix.{name} }}}}" for name in ("profile", "plugin", "python", "torch")}

    pipeline = yaml.safe_load((READY / "gitlab.yml").read_text())
    in_ci(shop, "\n".join(pipeline["cells"]["script"]), {})
    made = yaml.safe_load((shop.work / "cells.yml").read_text())
    assert list(made) == names(shop)
    cell = "\n".join(yaml.safe_load((READY / "gitlab-cell.yml").read_text())[".envbuilder-cell"]["script"])
    called = in_ci(shop, cell, made[f"alpha prod py{PYTHON} cu126"]["variables"])
    assert called == f"build --torch cu126 alpha\ntest --python {PYTHON} --junit junit.xml alpha\n"
    assert in_ci(shop, cell, made["beta dev py3.12"]["variables"]).startswith("test --python 3.12")
