"""`doctor`: what it looks at, and that each complaint comes with a remedy."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
from workshop import Workshop


def states(workshop: Workshop, **env: str) -> tuple[int, dict[str, str]]:
    """The exit status, and the state of each thing looked at."""
    ran = workshop.run("doctor", "--format", "json", env=env)
    result = ran.json["result"]
    assert isinstance(result, dict)
    for each in result["findings"]:
        assert each["state"] == "ok" or each["remedy"]
    return ran.status, {each["what"].split()[0]: each["state"] for each in result["findings"]}


def test_doctor_is_content_with_a_whole_machine(workshop: Workshop) -> None:
    """Where everything is there, every line is ok (the disk may be low), and the exit status is 0."""
    status, found = states(workshop)
    assert status == 0
    assert set(found) == {"uv", "git", "python", "gpu", "state", "disk", "links"}
    assert {state for what, state in found.items() if what != "disk"} == {"ok"}


def test_doctor_tells_of_a_missing_git(workshop: Workshop, tmp_path: Path) -> None:
    """Without git on PATH that line fails, and so does the command."""
    (tmp_path / "bin").mkdir()
    python = shutil.which("python3")
    assert python is not None
    (tmp_path / "bin" / "python3").symlink_to(os.path.realpath(python))
    status, found = states(workshop, PATH=str(tmp_path / "bin"))
    assert (status, found["git"]) == (1, "fail")


def test_doctor_warns_where_files_must_be_copied(workshop: Workshop) -> None:
    """A cache and a store on different file systems: a warning with the way out, and still exit status 0."""
    other = Path("/dev/shm")  # noqa: S108 - a second file system, which is what this is about
    if not other.is_dir() or other.stat().st_dev == workshop.root.stat().st_dev:
        pytest.skip("no second file system at hand")
    cache = other / f"envbuilder-test-{os.getpid()}"
    try:
        status, found = states(workshop, UV_CACHE_DIR=str(cache))
        assert (status, found["links"]) == (0, "warn")
    finally:
        shutil.rmtree(cache, ignore_errors=True)
