"""A workbench for tests of the runner: small plugins in real environments, data sets and run files."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import textwrap
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.cli import RunRequest
from pipeline.models import Environment, Stage

if TYPE_CHECKING:
    from collections.abc import Callable

ECHO = """
class Plugin:
    def load(self, context):
        self.context = context

    def predict(self, batch):
        return [item.question for item in batch]
"""

EXACT = """
from types import SimpleNamespace

class Plugin:
    def load(self, context):
        self.context = context

    def evaluate(self, records):
        right = [record.answer in record.references for record in records]
        classes = {}
        for record, good in zip(records, right):
            classes.setdefault(record.item.doc_class, []).append(good)
        return SimpleNamespace(
            overall={"exact": sum(right) / len(right)},
            by_class={name: {"exact": sum(found) / len(found)} for name, found in classes.items()},
            by_item=[{"item": record.item.id, "exact": float(good)} for record, good in zip(records, right)],
            lower_is_better=[],
        )
"""

REPORT = """
import json

class Plugin:
    def load(self, context):
        self.output = context.output

    def render(self, report):
        self.output.write_text(json.dumps(report))
"""

ROWS = "id;question;answer;class\n1;one;one;a\n2;two;two;a\n3;three;other;b\n"


@dataclass
class Bench:
    """A folder with everything that a run needs."""

    root: Path
    python: Path = Path(sys.executable)
    environments: list[Environment] = field(default_factory=list)

    @property
    def state(self) -> Path:
        return self.root / "state"

    def venv(self) -> Path:
        """The environment that all plugins of the bench share; plugins are found through a ``.pth`` file."""
        venv = self.root / "venv"
        if not venv.exists():
            argv = ("uv", "venv", "--quiet", "--offline", "--no-config", "--python", str(self.python), str(venv))
            subprocess.run(argv, check=True)
            (site,) = venv.glob("lib/python*/site-packages")
            (self.root / "site").mkdir()
            (site / "bench.pth").write_text(str(self.root / "site") + "\n")
        return venv

    def plugin(self, name: str, source: str, stage: Stage = "inference", *, entry: str | None = None) -> Environment:
        """Write a plugin's module and give its environment."""
        self.venv()
        module = name.replace("-", "_")
        (self.root / "site" / f"{module}.py").write_text(textwrap.dedent(source))
        key = hashlib.sha256(source.encode()).hexdigest()[:8]
        return self._add(self._environment(name, stage, key, entry=entry or f"{module}:Plugin"))

    def command(self, name: str, source: str, stage: Stage = "inference") -> Environment:
        """Write a plugin that is a program and give its environment."""
        script = self.root / f"{name}.py"
        script.write_text(textwrap.dedent(source))
        key = hashlib.sha256(source.encode()).hexdigest()[:8]
        return self._add(self._environment(name, stage, key, command=("python", str(script))))

    def _environment(
        self, name: str, stage: Stage, key: str, *, entry: str | None = None, command: tuple[str, ...] | None = None
    ) -> Environment:
        venv = self.venv()
        return Environment(
            name,
            stage,
            path=venv,
            python=venv / "bin" / "python",
            key=key,
            cache_dir=self.root / "cache",
            entry=entry,
            command=command,
            versions={"python": "3"},
            pycache=self.root / "pycache",
        )

    def _add(self, environment: Environment) -> Environment:
        self.environments[:] = [each for each in self.environments if each.plugin != environment.plugin]
        self.environments.append(environment)
        return environment

    def usual(self) -> None:
        """The three plugins of a run in which all goes well."""
        self.plugin("echo", ECHO)
        self.plugin("exact", EXACT, "eval")
        self.plugin("page", REPORT, "report")

    def write(self, name: str, text: str) -> Path:
        """Write a file."""
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(textwrap.dedent(text))
        return path

    def run_file(self, text: str, rows: str = ROWS) -> Path:
        """Write a run file on a data set ``lines`` with the given rows."""
        self.write("lines.csv", rows)
        return self.write("run.yaml", "name: test\ndata: {lines: {path: lines.csv}}\n" + textwrap.dedent(text))

    def request(self, text: str, rows: str = ROWS) -> RunRequest:
        """A request for a run file, impatient with workers that do not want to end."""
        run_file = self.run_file(text, rows)
        return RunRequest(run_file, self.environments, self.state, "dev", grace_s=0.5, backoff_s=0.01)


def is_alive(process: int) -> bool:
    """Whether a process lives; a zombie that nobody has reaped yet does not."""
    try:
        state = Path(f"/proc/{process}/stat").read_bytes().rpartition(b")")[2].split()[0]
    except OSError:
        return False
    return state not in {b"Z", b"X"}


def wait_for(condition: Callable[[], object], what: str, deadline_s: float = 60.0) -> None:
    """Poll until a condition holds."""
    deadline = time.monotonic() + deadline_s
    while not condition():
        if time.monotonic() > deadline:
            raise AssertionError(f"in vain waited for: {what}")
        time.sleep(0.02)


def child_environment() -> dict[str, str]:
    """The environment of a runner in a process of its own."""
    return {name: value for name, value in os.environ.items() if not name.startswith(("PYTEST", "COV"))}
