"""A workspace with real git repositories and packages, made on the spot, for tests to use and break."""

from __future__ import annotations

import contextlib
import io
import json
import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

DATES = {
    "GIT_AUTHOR_NAME": "a",
    "GIT_AUTHOR_EMAIL": "a@example.org",
    "GIT_AUTHOR_DATE": "2026-01-01T00:00:00+0000",
    "GIT_COMMITTER_NAME": "a",
    "GIT_COMMITTER_EMAIL": "a@example.org",
    "GIT_COMMITTER_DATE": "2026-01-01T00:00:00+0000",
    "GIT_CONFIG_GLOBAL": os.devnull,
    "GIT_CONFIG_SYSTEM": os.devnull,
}

# A build backend of 40 lines, so that building a package needs no index.
BACKEND = """
import base64, hashlib, json, os, pathlib, zipfile

def _wheel(folder, editable):
    project = json.loads(pathlib.Path("backend/project.json").read_text())
    name = project["name"].replace("-", "_")
    version = project["version"]
    info = f"{name}-{version}.dist-info"
    lines = ["Metadata-Version: 2.1", f"Name: {project['name']}", f"Version: {version}"]
    if "requires-python" in project:
        lines.append(f"Requires-Python: {project['requires-python']}")
    lines += [f"Requires-Dist: {item}" for item in project.get("dependencies", [])]
    files = {f"{info}/METADATA": "\\n".join(lines) + "\\n",
             f"{info}/WHEEL": "Wheel-Version: 1.0\\nGenerator: t\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n"}
    if editable:
        files[f"_{name}.pth"] = os.path.abspath("src") + "\\n"
    else:
        for path in sorted(pathlib.Path("src").rglob("*.py")):
            files[str(path.relative_to("src"))] = path.read_text()
    record = []
    target = f"{name}-{version}-py3-none-any.whl"
    with zipfile.ZipFile(os.path.join(folder, target), "w") as archive:
        for path, text in files.items():
            data = text.encode()
            digest = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
            record.append(f"{path},sha256={digest},{len(data)}")
            archive.writestr(path, data)
        archive.writestr(f"{info}/RECORD", "\\n".join([*record, f"{info}/RECORD,,"]) + "\\n")
    return target

def build_wheel(folder, config_settings=None, metadata_directory=None):
    return _wheel(folder, False)

def build_editable(folder, config_settings=None, metadata_directory=None):
    return _wheel(folder, True)

def get_requires_for_build_wheel(config_settings=None):
    return []

get_requires_for_build_editable = get_requires_for_build_wheel
"""

# The same, with the version from pyproject.toml, so that one edit is enough.
READS = BACKEND.replace(
    '    name = project["name"]',
    '    import re\n    project["version"] = re.search(r\'version = "(.*)"\', pathlib.Path("pyproject.toml").read_text())[1]\n'
    '    name = project["name"]',
)

PYTHON = f"{sys.version_info.major}.{sys.version_info.minor}"


@dataclass(frozen=True)
class Ran:
    """What a command of ours printed, and how it ended."""

    status: int
    out: str
    err: str

    @property
    def json(self) -> dict[str, object]:
        """The envelope of `--format json`."""
        document = json.loads(self.out)
        assert isinstance(document, dict)
        return document

    @property
    def codes(self) -> list[str]:
        """The codes of all problems in the envelope, sorted."""
        problems = self.json["problems"]
        assert isinstance(problems, list)
        return sorted(problem["code"] for problem in problems)


def _judged(ran: Ran) -> Ran:
    # Whatever a test is about: a traceback, or an error that nobody thought of, is a bug.
    for text in (ran.out, ran.err):
        assert "Traceback" not in text, text
        assert "internal-error" not in text, text
    if ran.out.startswith('{\n  "schema": "envbuilder/'):
        assert ran.json["ok"] is (ran.status == 0), (ran.status, ran.out)
    return ran


class Workshop:
    """A workspace at `root/work`, its remotes at `root/remotes`."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.work = root / "work"
        self.remotes = root / "remotes"
        self.remotes.mkdir(parents=True)
        self.registry = self.work / "profiles" / "registry"
        self.registry.mkdir(parents=True)
        self.settings(core={})
        for profile in ("prod", "dev"):
            self.write(f"profiles/{profile}/profile.toml", f'python = "{PYTHON}"\n')

    def settings(self, *, core: Mapping[str, str], extra: str = "") -> None:
        """Write the workspace's pyproject.toml; git.example.org is mirrored to the remotes' folder."""
        lines = "\n".join(f"{name} = {value}" for name, value in core.items())
        self.write(
            "pyproject.toml",
            f"[tool.envbuilder.core]\n{lines}\n[tool.envbuilder.git-mirrors]\n"
            f'"https://git.example.org/" = "{self.remotes}/"\n{extra}',
        )

    def write(self, name: str, text: str) -> Path:
        """Write a file of the workspace."""
        path = self.work / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(textwrap.dedent(text), encoding="utf-8")
        return path

    def package(
        self,
        folder: Path,
        *,
        name: str,
        version: str = "0.1.0",
        dependencies: tuple[str, ...] = (),
        requires_python: str = ">=3.8",
        code: str = "class Model:\n    pass\n",
        pyproject: str | None = None,
        backend: str = BACKEND,
    ) -> Path:
        """Write a package's files; its backend lies in the tree, so that a build needs no index."""
        module = name.replace("-", "_")
        (folder / "src" / module).mkdir(parents=True, exist_ok=True)
        (folder / "backend").mkdir(exist_ok=True)
        (folder / "backend" / "tiny_backend.py").write_text(backend)
        facts = {"name": name, "version": version, "dependencies": dependencies, "requires-python": requires_python}
        (folder / "backend" / "project.json").write_text(json.dumps(facts))
        (folder / "src" / module / "__init__.py").write_text(textwrap.dedent(code))
        text = (
            '[build-system]\nrequires = []\nbuild-backend = "tiny_backend"\nbackend-path = ["backend"]\n'
            f'[project]\nname = "{name}"\nversion = "{version}"\nrequires-python = "{requires_python}"\n'
            f"dependencies = {json.dumps(list(dependencies))}\n"
        )
        (folder / "pyproject.toml").write_text(pyproject if pyproject is not None else text)
        return folder

    def release(
        self, name: str, tag: str, /, *, subdirectory: str = "", annotate: bool = True, **package: object
    ) -> str:
        """Commit a package to the remote of that name, tag it, and return the commit."""
        repository = self.remotes / f"{name}.git"
        if not repository.exists():
            self.git("init", "--quiet", "--initial-branch", "main", str(repository))
        self.package(repository / subdirectory, **{"name": name, **package})  # type: ignore[arg-type]
        self.git("-C", str(repository), "add", "--all")
        self.git("-C", str(repository), "commit", "--quiet", "--allow-empty", "--message", tag)
        flags = ["--annotate", "--message", tag] if annotate else []
        self.git("-C", str(repository), "tag", *flags, tag)
        return self.git("-C", str(repository), "rev-parse", "HEAD")

    def entry(self, name: str, *, tag: str = "v0.1.0", **keys: object) -> Path:
        """Write a registry entry of an inference plugin; any key may be set, None leaves it out."""
        module = name.replace("-", "_")
        document: dict[str, object] = {
            "name": name,
            "kind": "plugin",
            "stage": "inference",
            "entry": f"{module}:Model",
            "source": {"git": f"https://git.example.org/{name}.git", "tag": tag},
            **keys,
        }
        if document["kind"] == "library":
            document.update(stage=None, entry=None)
        kept = {key: value for key, value in document.items() if value is not None}
        return self.write(f"profiles/registry/{name}.yaml", json.dumps(kept))  # JSON is YAML.

    def plugin(
        self, name: str, *, tag: str = "v0.1.0", keys: Mapping[str, object] | None = None, **package: object
    ) -> str:
        """A released plugin and its entry; returns the commit."""
        commit = self.release(name, tag, **{"version": tag.removeprefix("v"), **package})  # type: ignore[arg-type]
        self.entry(name, tag=tag, **(keys or {}))
        return commit

    @staticmethod
    def git(*arguments: str) -> str:
        """Run git with a fixed author, and return what it printed."""
        done = subprocess.run(
            ["git", *arguments], env={**os.environ, **DATES}, check=True, capture_output=True, text=True
        )
        return done.stdout.strip()

    def run(self, *arguments: str, env: Mapping[str, str] | None = None, cwd: Path | None = None) -> Ran:
        """Run envbuilder as a user would, in the workspace."""
        done = subprocess.run(
            self.argv(*arguments),
            cwd=cwd or self.work,
            env=self.environment(env),
            capture_output=True,
            text=True,
            check=False,
            timeout=300,
        )
        ran = Ran(done.returncode, done.stdout, done.stderr)
        return ran if arguments[:1] == ("exec",) else _judged(ran)

    def within(self, *arguments: str, env: Mapping[str, str] | None = None, cwd: Path | None = None) -> Ran:
        """Run envbuilder's command line in this process: the same, without half a second of imports each time."""
        from envbuilder import cli

        out, err, before = io.StringIO(), io.StringIO(), dict(os.environ)
        handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
        words, folder = sys.argv, Path.cwd()
        try:
            os.chdir(cwd or self.work)
            inside = self.environment(env)
            os.environ.clear()
            os.environ.update(inside)
            sys.argv = ["envbuilder", *arguments]
            with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err), pytest.raises(SystemExit) as ended:
                cli.main()
        finally:
            os.chdir(folder)
            os.environ.clear()
            os.environ.update(before)
            sys.argv = words
            for number, handler in handlers.items():
                signal.signal(number, handler)
        status = ended.value.code
        return _judged(Ran(status if isinstance(status, int) else 0, out.getvalue(), err.getvalue()))

    @staticmethod
    def argv(*arguments: str) -> list[str]:
        """The command line that starts envbuilder."""
        return [sys.executable, "-m", "envbuilder", *arguments]

    @staticmethod
    def environment(extra: Mapping[str, str] | None = None) -> dict[str, str]:
        """This process's variables without those that steer envbuilder."""
        kept = {key: value for key, value in os.environ.items() if key not in {"RUN_MODE", "ENVBUILDER_HOME"}}
        return {**kept, **(extra or {})}
