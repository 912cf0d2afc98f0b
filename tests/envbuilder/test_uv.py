"""Which uv is used."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from envbuilder.errors import ToolError
from envbuilder.uv import find_uv, identify, version_of


def chosen(path: str) -> str:
    """The uv that a fresh process chooses with that PATH."""
    code = "from envbuilder.uv import find_uv; print(find_uv())"
    env = {**os.environ, "PATH": path}
    return subprocess.run(
        [sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True
    ).stdout.strip()


@pytest.mark.parametrize(
    ("step", "used"), [((0, 0, 1), True), ((0, 0, 0), False), ((0, 1, 0), False), ((1, 0, 0), False)]
)
def test_a_newer_uv_on_path_is_used_if_it_fits(tmp_path: Path, step: tuple[int, ...], used: bool) -> None:
    """A later patch release on PATH is taken; the same one, another minor or major series is left alone."""
    version = ".".join(str(a + b) for a, b in zip(version_of(find_uv()), step, strict=True))
    other = tmp_path / "uv"
    other.write_text(f'#!/bin/sh\n[ "$1" = --version ] && echo "uv {version}"\n')
    other.chmod(0o755)
    found = chosen(f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    assert (found == str(other)) is used


def test_a_uv_on_path_that_does_not_answer_is_left_alone(tmp_path: Path) -> None:
    """What calls itself uv and prints nonsense does no harm."""
    other = tmp_path / "uv"
    other.write_text("#!/bin/sh\necho nonsense\nexit 3\n")
    other.chmod(0o755)
    assert chosen(f"{tmp_path}{os.pathsep}{os.environ['PATH']}") != str(other)


@pytest.mark.parametrize("script", ["exit 0", "echo hello", "echo '[1, 2, 3, 4]'", "echo '{}'", "echo '[\"cpython\"]'"])
def test_an_interpreter_that_does_not_say_what_it_is_is_refused(tmp_path: Path, script: str) -> None:
    """A program that ends well is no Python until it says which."""
    python = tmp_path / "python"
    python.write_text(f"#!/bin/sh\n{script}\n")
    python.chmod(0o755)
    with pytest.raises(ToolError, match="does not say which Python it is"):
        identify(python)


def test_an_interpreter_behind_a_wrapper_that_talks_is_known(tmp_path: Path) -> None:
    """What a wrapper prints first does not hide the answer."""
    python = tmp_path / "python"
    python.write_text(f'#!/bin/sh\necho using a module\nexec {sys.executable} "$@"\n')
    python.chmod(0o755)
    assert identify(python).version == identify(Path(sys.executable)).version
