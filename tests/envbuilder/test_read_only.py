"""A workspace that cannot be written, such as a cluster's shared clone: what only looks still works."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from workshop import Ran, Workshop

# Root may write anywhere, unless it gives that up for its children.
_MODEST = (
    "setpriv",
    "--bounding-set",
    "-dac_override,-dac_read_search",
    "--inh-caps",
    "-dac_override,-dac_read_search",
)


# One process for all commands, since each would import for as long as it works.
_SCRIPT = """
import json, pathlib, sys
from workshop import Workshop
shop = object.__new__(Workshop)
shop.work = pathlib.Path.cwd()
commands, env = json.loads(sys.argv[1])
done = [shop.within(*words, env=env) for words in commands]
print(json.dumps([[ran.status, ran.out, ran.err] for ran in done]))
"""


def modest(workshop: Workshop, *commands: list[str], **variables: str) -> list[Ran]:
    """Run envbuilder as somebody whom file modes bind."""
    prefix = _MODEST if os.geteuid() == 0 else ()
    places = os.pathsep.join(path for path in sys.path if path)
    done = subprocess.run(
        [*prefix, sys.executable, "-c", _SCRIPT, json.dumps([commands, variables])],
        cwd=workshop.work,
        env=workshop.environment({"PYTHONPATH": places}),
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    return [Ran(*each) for each in json.loads(done.stdout)]


@contextmanager
def shut(folder: Path) -> Iterator[None]:
    """A folder in which nobody may write."""
    before = {path: path.lstat().st_mtime_ns for path in folder.rglob("*")}
    subprocess.run(["chmod", "-R", "a-w", str(folder)], check=True)
    try:
        yield
    finally:
        subprocess.run(["chmod", "-R", "u+w", str(folder)], check=True)
    assert {path: path.lstat().st_mtime_ns for path in folder.rglob("*")} == before


@pytest.mark.skipif(os.geteuid() == 0 and not shutil.which("setpriv"), reason="root writes anywhere")
def test_what_looks_writes_nothing(workshop: Workshop) -> None:
    """Every command that only looks does its work beside a fresh clone; what must keep something says where it could."""
    workshop.plugin("alpha", dependencies=("core",))
    workshop.release("alpha", "v0.2.0", version="0.2.0", dependencies=("core",))
    workshop.release("core", "v0.1.0")
    workshop.entry("core", kind="library")
    workshop.settings(core={"core": '"0.1.0"'})
    workshop.write("data.csv", "id;question;answer\n1;a;A\n")
    workshop.write("run.yaml", "{name: small, data: {few: {path: data.csv}}, inference: [{plugin: alpha}]}\n")
    assert workshop.within("lock", "-q").status == 0
    shutil.rmtree(workshop.work / ".envbuilder")
    workshop.git("init", "--quiet", str(workshop.work))
    workshop.git("-C", str(workshop.work), "add", "--all")
    workshop.git("-C", str(workshop.work), "commit", "--quiet", "--message", "one")
    with shut(workshop.work):
        looks = [["check"], ["lock", "--check"], ["gc", "--dry-run"], ["status"], ["diff"], ["why", "alpha", "core"]]
        for command, ran in zip(looks, modest(workshop, *looks), strict=True):
            assert (ran.status, ran.err) == (0, ""), command
        plan, outdated, *writers = modest(workshop, ["plan", "run.yaml"], ["outdated"], ["lock"], ["build"])
        assert (plan.status, plan.err) == (0, "")
        assert "not built yet: alpha" in plan.out
        # The newer tag is to be fetched: that needs a place.
        assert (outdated.status, "error[unwritable]" in outdated.err) == (1, True)
        assert "ENVBUILDER_HOME=" in outdated.err
        for ran in writers:
            assert (ran.status, "ENVBUILDER_HOME=" in ran.err) == (2, True)
        (outdated,) = modest(workshop, ["outdated", "--all"], ENVBUILDER_HOME=str(workshop.root / "home"))
        assert (outdated.status, outdated.err) == (0, "")
        assert "alpha: sed -i" in outdated.out


def test_plan_builds_nothing(workshop: Workshop) -> None:
    """What a run would do is told of environments that are not there yet, under the keys that they will have."""
    workshop.plugin("alpha")
    workshop.write("data.csv", "id;question;answer\n1;a;A\n")
    workshop.write("run.yaml", "{name: small, data: {few: {path: data.csv}}, inference: [{plugin: alpha}]}\n")
    ran = workshop.within("plan", "run.yaml", "--format", "json")
    assert (ran.status, ran.codes) == (1, ["lock-missing"])
    assert workshop.within("lock", "-q").status == 0
    for words in (["plan", "run.yaml"], ["plan", "run.yaml", "--why"]):
        ran = workshop.within(*words, "--format", "json")
        (planned,) = ran.json["result"]["environments"]  # type: ignore[index]
        assert (ran.status, planned["built"]) == (0, False)
    assert not list(workshop.work.glob(".envbuilder/store/alpha-*"))
    assert workshop.within("build", "-q").status == 0
    ran = workshop.within("plan", "run.yaml", "--format", "json")
    assert ran.json["result"]["environments"] == [{**planned, "built": True}]  # type: ignore[index]
    assert "not built" not in workshop.within("plan", "run.yaml").out


def test_plan_tells_of_images_that_are_not_there(workshop: Workshop) -> None:
    """Text and JSON of `plan`, with `--why` and without, warn with count, lines, cause and a hint, and the status is 0."""
    workshop.plugin("alpha")
    workshop.write("data.csv", "id;image;answer\n1;img\\a.png;A\n2;http://example.org/b.png;B\n3;gone.png;C\n")
    workshop.write("run.yaml", "{name: small, data: {few: {path: data.csv}}, inference: [{plugin: alpha}]}\n")
    assert workshop.within("lock", "-q").status == 0
    for words in (["plan", "run.yaml"], ["plan", "run.yaml", "--why"]):
        ran = workshop.within(*words, "--format", "json")
        assert (ran.status, ran.codes) == (0, ["images-missing"] * 3)
        shown = workshop.within(*words)
        told = " ".join((shown.out + shown.err).split())
        for part in (
            "1 of 3 images have backslashes",
            "(line 2)",
            "are addresses",
            "are not there",
            "hint: sed -E -i.bak",
        ):
            assert part in told


def test_what_somebody_else_owns_is_said(workshop: Workshop) -> None:
    """Where git refuses a repository for its owner's sake, as of a shared clone, the hint is git's way to trust it."""
    workshop.plugin("alpha")
    assert workshop.within("lock", "-q").status == 0
    workshop.git("init", "--quiet", str(workshop.work))
    workshop.git("-C", str(workshop.work), "add", "profiles")
    workshop.git("-C", str(workshop.work), "commit", "--quiet", "--message", "one")
    # git knows this variable for its own tests; none that is not listed reaches it from the shell.
    git = workshop.root / "programs" / "git"
    git.parent.mkdir()
    git.write_text(f'#!/bin/sh\nGIT_TEST_ASSUME_DIFFERENT_OWNER=1 exec {shutil.which("git")} "$@"\n')
    git.chmod(0o755)
    others = {"PATH": f"{git.parent}{os.pathsep}{os.environ['PATH']}"}
    for command, place in ((["diff", "HEAD"], "work"), (["check"], "remotes/alpha.git/.git")):
        ran = workshop.within(*command, env=others)
        assert ran.status > 0
        assert f"hint: git config --global --add safe.directory {workshop.root / place}" in ran.err


@contextmanager
def closed(folder: Path) -> Iterator[None]:
    """A folder that nobody may look into."""
    mode = folder.stat().st_mode
    folder.chmod(0)
    try:
        yield
    finally:
        folder.chmod(mode)


def test_what_cannot_be_read_is_not_taken_for_empty(workshop: Workshop) -> None:
    """A registry, a store or runs that are closed to us end each command with their name, and nothing is changed."""
    workshop.plugin("alpha")
    for command in ("lock", "build"):
        assert workshop.within(command).status == 0
    pins = (workshop.work / "profiles" / "prod" / "pins.toml").read_bytes()
    asked = (["lock"], ["lock", "--check"], ["check"], ["build"], ["status"], ["gc"])
    with closed(workshop.registry):
        for ran in modest(workshop, *([*words, "--format", "json"] for words in asked)):
            assert (ran.status, ran.codes) == (2, ["unreadable"]), ran
            assert "profiles/registry" in ran.out
    assert (workshop.work / "profiles" / "prod" / "pins.toml").read_bytes() == pins
    state = workshop.work / ".envbuilder"
    (state / "runs").mkdir(exist_ok=True)
    for place, words in (("store", ["status"]), ("store", ["gc"]), ("generations", ["gc"]), ("runs", ["runs", "list"])):
        with closed(state / place):
            (ran,) = modest(workshop, [*words, "--format", "json"])
        assert (ran.status, ran.codes) == (2, ["unreadable"]), ran
        assert f".envbuilder/{place}" in ran.out
    assert "1 unchanged" in workshop.within("build").out
