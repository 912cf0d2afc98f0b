"""Completion of words in shells: it knows the workspace, asks nothing heavy, and never prints an error."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from workshop import Workshop


@pytest.fixture
def shop(workshop: Workshop) -> Workshop:
    """A workspace with two plugins, a library, a run file, a run, and an entry that is no YAML."""
    workshop.entry("alpha")
    workshop.entry("alpine")
    workshop.entry("common", kind="library")
    workshop.write("profiles/registry/beta.yaml", "name: [\n")
    workshop.write("profiles/registry/alpha.dev.yaml", "source: {path: packages/alpha}\n")
    workshop.write("profiles/runs/small.yaml", "name: small\n")
    (workshop.work / ".envbuilder" / "runs" / "20261123T024139Z-demo-53ec4b").mkdir(parents=True)
    return workshop


def completed(shop: Workshop, line: str, *, cwd: Path | None = None) -> list[str]:
    """What bash would be told to offer after that line, whose last word is being typed."""
    words = line.split(" ")
    env = {"_ENVBUILDER_COMPLETE": "bash_complete", "COMP_WORDS": line, "COMP_CWORD": str(len(words) - 1)}
    done = subprocess.run(
        shop.argv(), cwd=cwd or shop.work, env=shop.environment(env), capture_output=True, text=True, check=False
    )
    assert done.stderr == ""
    return [offered.partition(",")[2] for offered in done.stdout.splitlines() if offered]


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("envbuilder ru", ["run", "runs"]),
        ("envbuilder runs s", ["show"]),
        ("envbuilder lock al", ["alpha", "alpine"]),
        ("envbuilder lock alpha al", ["alpine"]),
        ("envbuilder lock ", ["alpha", "alpine", "beta"]),
        ("envbuilder exec alph", ["alpha"]),
        ("envbuilder why alp", ["alpha", "alpine"]),
        ("envbuilder lock --profile p", ["prod"]),
        ("envbuilder lock --upg", ["--upgrade", "--upgrade-package"]),
        ("envbuilder run prof", ["profiles/runs/small.yaml"]),
        ("envbuilder runs show 2026", ["20261123T024139Z-demo-53ec4b"]),
        ("envbuilder runs show l", ["latest"]),
        ("envbuilder diff p", ["prod"]),
        ("envbuilder completion z", ["zsh"]),
        ("envbuilder nonsense x", []),
    ],
)
def test_words_of_the_workspace_are_offered(shop: Workshop, line: str, words: list[str]) -> None:
    """Commands, options, profiles, plugins (no libraries, none twice), run files and runs."""
    assert completed(shop, line) == words


def test_workspace_is_found_as_commands_find_it(shop: Workshop) -> None:
    """From a folder inside, and by -C from elsewhere."""
    assert completed(shop, "envbuilder lock alp", cwd=shop.registry) == ["alpha", "alpine"]
    assert completed(shop, f"envbuilder lock -C {shop.work} alp", cwd=shop.root) == ["alpha", "alpine"]


@pytest.mark.parametrize("line", ["envbuilder lock a", "envbuilder runs show a", "envbuilder lock -C /no/where a"])
def test_nothing_is_offered_or_said_where_there_is_no_workspace(shop: Workshop, line: str) -> None:
    """Somebody is typing: no error belongs into their line."""
    assert completed(shop, line, cwd=shop.root) == []


def test_damaged_files_are_passed_over(shop: Workshop) -> None:
    """Bytes that are no text, and a pyproject.toml that is none, stop nobody from typing."""
    (shop.registry / "alpha.yaml").write_bytes(b"\xff\xfe\x00")
    shop.write("pyproject.toml", "[tool.envbuilder\n= =\n")
    assert completed(shop, "envbuilder lock al") == ["alpha", "alpine"]


def test_completion_waits_for_no_parser(shop: Workshop) -> None:
    """Names come from the file system: neither YAML nor a schema library is imported while somebody types."""
    env = {"_ENVBUILDER_COMPLETE": "bash_complete", "COMP_WORDS": "envbuilder lock al", "COMP_CWORD": "2"}
    command = [sys.executable, "-X", "importtime", *shop.argv()[1:]]
    done = subprocess.run(command, cwd=shop.work, env=shop.environment(env), capture_output=True, text=True, check=True)
    assert "alpha" in done.stdout
    modules = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert "envbuilder.cli.words" in modules
    assert not modules & {"yaml", "pydantic", "rich", "packaging", "subprocess", "tomlkit"}


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_script_is_the_shells_own(workshop: Workshop, shell: str) -> None:
    """`completion SHELL` prints the script alone, and the same in JSON."""
    ran = workshop.within("completion", shell, cwd=workshop.root)
    assert ran.status == 0
    assert "_ENVBUILDER_COMPLETE" in ran.out
    assert ran.err == ""
    result = workshop.within("completion", shell, "--format", "json", cwd=workshop.root).json["result"]
    assert result == {"shell": shell, "script": ran.out.removesuffix("\n")}


def test_bash_takes_the_script_and_completes(shop: Workshop, tmp_path: Path) -> None:
    """In a real bash: the script is sourced, and its function offers what the workspace has."""
    program = tmp_path / "bin" / "envbuilder"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\nexec {" ".join(shop.argv())} "$@"\n')
    program.chmod(0o755)
    script = (
        f'eval "$({program} completion bash)"; complete -p envbuilder >&2\n'
        f"COMP_WORDS=(envbuilder lock alp); COMP_CWORD=2; _envbuilder_completion {program}\n"
        'echo "${COMPREPLY[@]}"'
    )
    done = subprocess.run(
        ["bash", "-c", script], cwd=shop.work, env=shop.environment(), capture_output=True, text=True, check=True
    )
    assert done.stdout == "alpha alpine\n"
