"""A release, rehearsed: a core moves on, what no longer fits is told, and the commands that are told make it whole."""

from __future__ import annotations

import json
import re
import shlex
import subprocess

import pytest
from pipeline_bench import ECHO, EXACT, REPORT, ROWS
from workshop import Ran, Workshop

# Of each plugin: stage, code, and what its releases ask of the core.
PLUGINS = {
    "reader": ("inference", ECHO, {"v0.1.0": ">=0.2,<0.3", "v0.2.0": ">=0.3,<0.4", "v0.3.0": ">=0.4"}),
    "judge": ("eval", EXACT, {"v1.0.0": ">=0.1"}),
    "pages": ("report", REPORT, {"v0.1.0": "<0.3", "v0.1.1": "<0.4", "v0.2.0rc1": "<0.5"}),
}
RUN = """
name: release
data:
  lines: {path: lines.csv, columns: {id: id, question: question, answer: answer, class: class}}
inference: [{plugin: reader, gpus: 0}]
eval: [{plugin: judge}]
report: [{plugin: pages}]
"""


@pytest.fixture
def released(workshop: Workshop) -> Workshop:
    """Core 0.2.0, three plugins locked at their first tags, and newer tags of all that nobody asked for yet."""
    workshop.settings(core={"vlm-core": '"0.2.0"'})
    for version in ("0.2.0", "0.3.0"):
        workshop.release("vlm-core", f"v{version}", version=version, code=f"VERSION = '{version}'\n")
    workshop.entry("vlm-core", kind="library", tag="v0.2.0")
    for name, (stage, code, tags) in PLUGINS.items():
        for tag, bound in tags.items():
            marked = f"import vlm_core\nTAG = '{tag}'\n{code}"
            workshop.release(name, tag, version=tag[1:], dependencies=(f"vlm-core{bound}",), code=marked)
        workshop.entry(name, tag=next(iter(tags)), stage=stage, entry=f"{name}:Plugin")
    workshop.write("profiles/runs/lines.csv", ROWS)
    workshop.write("profiles/runs/release.yaml", RUN)
    (workshop.root / "bin").mkdir()
    program = workshop.root / "bin" / "envbuilder"
    program.write_text(f'#!/bin/sh\nexec {shlex.join(workshop.argv())} "$@"\n')
    program.chmod(0o755)
    assert workshop.within("lock", "-q").status == 0
    assert workshop.within("check", "-q").status == 0
    return workshop


def shell(workshop: Workshop, line: str) -> None:
    """Type a line, as it was printed, into a shell in the workspace."""
    path = f"{workshop.root / 'bin'}:{workshop.environment()['PATH']}"
    done = subprocess.run(
        ["sh", "-c", line],
        cwd=workshop.work,
        env={**workshop.environment(), "PATH": path},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, (line, done.stderr)


def hints(ran: Ran) -> list[str]:
    """The commands that a command advises, as people see them."""
    return re.findall(r"^\s+hint: (.*)$", ran.err, re.MULTILINE)


def result(ran: Ran) -> dict[str, list[dict[str, object]]]:
    """What a command that succeeded tells programs."""
    assert ran.status == 0, ran.out + ran.err
    document = ran.json["result"]
    assert isinstance(document, dict)
    return document


def test_a_release_after_the_core_moved_on(released: Workshop) -> None:
    """Bump the core, check, take what is advised by the shell, lock, check, build, and run to the report: all offline."""
    bump = "sed -i s/0.2.0/0.3.0/ pyproject.toml profiles/registry/vlm-core.yaml"
    shell(released, f"{bump} && envbuilder lock")
    ran = released.run("check")
    assert ran.status == 1
    advised = hints(ran)
    assert len(advised) == 2
    assert "s/v0\\.1\\.0/v0.1.1/" in advised[0]
    assert "profiles/registry/pages.yaml" in advised[0]
    assert "s/v0\\.1\\.0/v0.2.0/" in advised[1]
    assert "profiles/registry/reader.yaml" in advised[1]
    assert "judge" not in ran.err
    for line in advised:
        shell(released, line)
    assert released.within("lock", "--check").status == 0
    assert result(released.within("check", "--format", "json"))["matrix"]
    built = released.within("build", "--offline", "--format", "json")
    assert built.status == 0, built.out
    run = released.run("run", "profiles/runs/release.yaml", "--format", "json")
    assert run.status == 0, run.out
    root = (released.work / ".envbuilder" / "runs" / "latest").resolve()
    report = json.loads((root / "report.html").read_text())
    assert report
    record = (root / "run.json").read_text()
    pins = (released.work / "profiles" / "prod" / "pins.toml").read_text()
    for name, tag in {"reader": "v0.2.0", "judge": "v1.0.0", "pages": "v0.1.1", "vlm-core": "v0.3.0"}.items():
        commit = released.git("-C", str(released.remotes / f"{name}.git"), "rev-parse", f"{tag}^{{commit}}")
        assert commit in pins
        assert name == "vlm-core" or commit in record
    shown = released.run(
        "exec", "reader", "--", "python", "-c", "import vlm_core, reader; print(vlm_core.VERSION, reader.TAG)"
    )
    assert shown.out.split() == ["0.3.0", "v0.2.0"]
    answers = [json.loads(line) for line in next((root / "answers").glob("*.jsonl")).read_text().splitlines()]
    assert [line["answer"] for line in answers] == ["one", "two", "three"]
