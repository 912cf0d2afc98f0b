"""Refusals with a cause, a place and a hint that helps: what was hinted is run, and the command repeated."""

from __future__ import annotations

import codecs
import resource
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from workshop import PYTHON, Workshop

from envbuilder import process
from envbuilder.errors import ToolError


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-16-be"])
@pytest.mark.parametrize("name", ["profiles/prod/profile.toml", "pyproject.toml", "packages/alpha/pyproject.toml"])
def test_byte_order_mark_in_toml_is_named_and_the_hint_removes_it(workshop: Workshop, name: str, encoding: str) -> None:
    """UTF-8 with a mark, and UTF-16, are told by name; the hinted command leaves a file that is read."""
    workshop.package(workshop.work / "packages" / "alpha", name="alpha")
    workshop.write("profiles/dev/profile.toml", f'python = "{PYTHON}"\n')
    workshop.entry("alpha", source={"path": "packages/alpha"})
    profile = "prod" if "prod" in name else "dev"
    file = workshop.work / name
    text = file.read_text()
    file.write_bytes((codecs.BOM_UTF16_BE if encoding == "utf-16-be" else b"") + text.encode(encoding))
    ran = workshop.within("lock", "--profile", profile, "--format", "json")
    problem = next(each for each in ran.json["problems"] if name in str(each["where"]))  # type: ignore[attr-defined]
    assert ("byte order mark" if encoding == "utf-8-sig" else "not UTF-8: UTF-16") in problem["message"]
    subprocess.run(["bash", "-c", problem["hint"]], cwd=workshop.work, check=True)
    assert file.read_text(encoding="utf-8") == text
    assert file.read_text(encoding="utf-8-sig") == text


def test_byte_order_mark_in_a_tag_and_in_pins_is_named(workshop: Workshop) -> None:
    """The tag's own file, which only its repository can mend, and the generated file."""
    commit = workshop.plugin("alpha")
    assert commit
    assert workshop.within("lock").status == 0
    pins = workshop.work / "profiles/prod/pins.toml"
    pins.write_text("\ufeff" + pins.read_text())
    ran = workshop.within("check")
    assert "byte order mark" in ran.err
    assert "pins.toml" in ran.err
    hint = ran.err.rpartition("hint: ")[2].strip()
    subprocess.run(["bash", "-c", hint], cwd=workshop.work, check=True)
    assert workshop.within("check").status == 0
    workshop.release(
        "alpha", "v0.2.0", version="0.2.0", pyproject='\ufeff[project]\nname = "alpha"\nversion = "0.2.0"\n'
    )
    workshop.entry("alpha", tag="v0.2.0")
    ran = workshop.within("lock")
    assert "byte order mark" in ran.err


@pytest.fixture
def few_files() -> Iterator[None]:
    """A process that may open hardly any file more."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    held = len(list(Path("/proc/self/fd").iterdir()))
    resource.setrlimit(resource.RLIMIT_NOFILE, (held, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, before)


@pytest.mark.usefixtures("few_files")
def test_too_many_open_files_hints_the_limit(tmp_path: Path) -> None:
    """Programs that are there are not looked for; what is heard or logged fails the same way."""
    for more in ({}, {"hear": print}, {"log": tmp_path / "log"}):
        with pytest.raises(ToolError, match="Too many open files") as caught:
            process.run(["/bin/true"], **more)
        assert caught.value.hint is not None
        assert "ulimit" in caught.value.hint
        assert caught.value.code != "tool-missing"


def test_program_that_is_closed_is_told_by_its_file(tmp_path: Path) -> None:
    """No permission: the hint gives it, and the program starts."""
    tool = tmp_path / "a tool"
    tool.write_text("#!/bin/sh\nexit 0\n")
    with pytest.raises(ToolError, match="is not executable") as caught:
        process.run([tool])
    subprocess.run(["bash", "-c", str(caught.value.hint)], check=True)
    assert process.run([tool]).ok


@pytest.mark.parametrize(
    "name", ["a b", "it's", 'say "x"', "a#b", "a:b", "50%25", "a,b;c&d", "$HOME", "\u00e9\u4e2d", "-C"]
)
def test_workspace_with_an_odd_name_works(workshop: Workshop, name: str) -> None:
    """Spaces, quotes, and what addresses, shells and settings give a meaning to."""
    workshop.package(workshop.work / "packages" / "beta", name="beta")
    workshop.plugin("alpha")
    place = workshop.root / name
    workshop.work.rename(place)
    for words in (("lock",), ("build",), ("verify",)):
        ran = workshop.within(*words, cwd=place)
        assert ran.status == 0, ran.out + ran.err
