"""Paths of workspace, state and caches: odd ones work, impossible ones are refused at once with a way out."""

from __future__ import annotations

import os
import shlex
import subprocess
from pathlib import Path

import pytest
from workshop import Workshop

from envbuilder.errors import UsageError
from envbuilder.places import refuse_unusable, shell_word

IMPOSSIBLE = ("new\nline", "carriage\rreturn", os.fsdecode(b"bad\xff"), os.fsdecode(b"\xed\xa0\x80"))


def test_an_odd_path_works(tmp_path: Path) -> None:
    """A workspace at a path with spaces, quotes, a backslash and the like is locked, built and used."""
    workshop = Workshop(tmp_path / "-a b'\"#%20:,;$HOME[x]*~\\ünï")
    workshop.write("pyproject.toml", '[tool.envbuilder.git-mirrors]\n"https://git.example.org/" = "../remotes/"\n')
    workshop.plugin("alpha")
    for command in (("lock", "-q"), ("build", "-q")):
        ran = workshop.within(*command)
        assert ran.status == 0, ran.err
    assert workshop.run("exec", "alpha", "--", "python", "-c", "import alpha; print(alpha.__name__)").out == "alpha\n"


@pytest.mark.parametrize("name", IMPOSSIBLE)
def test_a_workspace_at_an_impossible_path_is_refused_by_every_command(tmp_path: Path, name: str) -> None:
    """The first command says what is wrong with the path; the hint renames the folder, and then all is well."""
    folder = tmp_path / name
    workshop = Workshop(tmp_path / "good")
    workshop.plugin("alpha")
    workshop.work.rename(folder)
    for command in ("lock", "check", "build", "status", "plan", "verify", "doctor"):
        ran = workshop.within(command, cwd=folder)
        assert (ran.status, "path-unusable" in ran.err) == (2, True), ran
        assert "\n" not in ran.err.partition("hint: ")[0].rstrip("\n ").replace("\n  ", "", 1)
    hint = workshop.within("lock", cwd=folder).err.rpartition("hint: ")[2]
    subprocess.run(["bash", "-c", hint], check=True)
    (moved,) = (path for path in tmp_path.iterdir() if path.name != "good")
    assert workshop.within("lock", "-q", cwd=moved).status == 0


@pytest.mark.parametrize("variable", ["ENVBUILDER_HOME", "UV_CACHE_DIR"])
@pytest.mark.parametrize("name", [IMPOSSIBLE[0], IMPOSSIBLE[2]])
def test_an_impossible_folder_in_a_variable_is_refused(workshop: Workshop, variable: str, name: str) -> None:
    """The variable is named, and its hint, pasted, lets the command go on."""
    workshop.plugin("alpha")
    command = shlex.join(workshop.argv("lock", "-q"))
    env = workshop.environment({variable: str(workshop.root / name), "HOME": str(workshop.root)})
    first = subprocess.run(
        ["bash", "-c", command], cwd=workshop.work, env=env, capture_output=True, text=True, check=False
    )
    assert (first.returncode > 0, variable in first.stderr) == (True, True), first.stderr
    hint = first.stderr.rpartition("hint: ")[2].strip()
    assert hint.startswith(f"export {variable}=")
    hint = hint.replace("/var/tmp/uv-cache", str(workshop.root / "cache"))  # noqa: S108 - the hint's, replaced
    again = f"{hint}; {command}"
    done = subprocess.run(
        ["bash", "-c", again], cwd=workshop.work, env=env, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("name", [*IMPOSSIBLE, "it's", "a b"])
def test_a_path_as_a_shell_takes_it(tmp_path: Path, name: str) -> None:
    """Any path is one printable line, which bash reads back to the same bytes."""
    path = tmp_path / name
    path.mkdir()
    word = shell_word(path)
    assert word.isprintable()
    assert subprocess.run(["bash", "-c", f"test -d {word}"], check=False).returncode == 0


def test_the_folder_that_is_wrong_is_named(tmp_path: Path) -> None:
    """Of a long path the hint renames the one folder that cannot be taken."""
    with pytest.raises(UsageError) as caught:
        refuse_unusable(tmp_path / "a\nb" / "c", "the path")
    assert caught.value.hint == f"mv $'{tmp_path}/a\\x0ab' {tmp_path}/a-b"
