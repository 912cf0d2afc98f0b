"""What the README tells people to paste is what the gate runs, and it works."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from test_demo import copy_of_the_project
from workshop import Workshop

from envbuilder.documents import parse_toml
from envbuilder.registry import EntryDocument
from pipeline.config import RunFile

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    """The README's code blocks in one language."""
    return re.findall(rf"^```{language}\n(.*?)^```", README, flags=re.DOTALL | re.MULTILINE)


def test_the_gate_runs_the_readmes_two_lines() -> None:
    """The main job and the test command of the README both stand in .ci/run."""
    gate = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    main, test = blocks("bash")[:2]
    assert main.strip().endswith("uv run envbuilder run")
    assert '"$uv" run --no-sync envbuilder run\n' in gate
    assert test.strip() == ".venv/bin/uv run pytest"
    assert gate.rstrip().endswith('"$uv" run pytest')


@pytest.mark.network
def test_first_plugin_works_as_pasted(tmp_path: Path) -> None:
    """The README's path to a first plugin, pasted into a copy of the project, runs, and its answers are recorded."""
    copy = copy_of_the_project(tmp_path / "copy")
    text = next(block for block in blocks("bash") if "packages/shout" in block)
    (copy / ".venv" / "bin").mkdir(parents=True)
    (copy / ".venv" / "bin" / "envbuilder").write_text(f'#!/bin/sh\nexec {sys.executable} -m envbuilder "$@"\n')
    (copy / ".venv" / "bin" / "envbuilder").chmod(0o755)
    done = subprocess.run(
        ["bash", "-euc", text], cwd=copy, env=Workshop.environment(), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "shout@digits" in done.stdout
    answers = next((copy / ".envbuilder" / "runs").glob("2*/answers/*.jsonl")).read_text()
    assert "pixels wide." in answers


def test_reference_is_in_the_schemas_words() -> None:
    """Every key that the reference shows is one that the schemas know."""
    shown = [yaml.safe_load(block) for block in blocks("yaml")]
    for document in shown:
        schema = EntryDocument if "source" in document else RunFile
        schema.model_validate(document)
    for block in blocks("toml"):
        assert parse_toml(block, "README.md").value


def test_schemas_are_up_to_date() -> None:
    """The JSON Schemas in docs/ are what scripts/make_schemas.py writes."""
    spec = importlib.util.spec_from_file_location("make_schemas", ROOT / "scripts" / "make_schemas.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    for name, text in module.texts().items():
        assert (ROOT / "docs" / "schemas" / name).read_text(encoding="utf-8") == text, name


def test_links_lead_somewhere() -> None:
    """Every relative link of the README names a file that is there."""
    for target in re.findall(r"\]\((?!https?://)([^)#]+)\)", README):
        assert (ROOT / target).exists(), target
