"""Which uv is used."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from envbuilder.uv import find_uv, version_of


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
