"""Workspaces that stand in for those that the documentation speaks of: real repositories and wheels, all of them small.

`demo` has the entries of the project's own demo, at tags of repositories that can be pushed to, and torch, numpy and
transformers of a few hundred bytes. `bare` is a folder with nothing in it.
"""

from __future__ import annotations

import json
import os
import shlex
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from base_interpreter import Base
from local_index import Index, make_sdist, make_wheel, repack
from pipeline_bench import ECHO, EXACT, REPORT, ROWS
from workshop import BACKEND, PYTHON, READS, Workshop

from envbuilder.templates import entry_text
from envbuilder.uv import cache_folder, find_uv

BUILDS = ("cpu", "cu126", "cu128")
CORE = ("vlm-core>=0.1,<0.2",)
# Name, stage, class, what it does, what it needs.
PLUGINS = {
    "ocr-crnn": ("inference", "CrnnOcr", ECHO, ("numpy>=2.2", "torch>=2.9", *CORE)),
    "ocr-rapid": ("inference", "RapidOcr", ECHO, ("numpy>=1.26,<2", *CORE)),
    "text-metrics": ("eval", "TextMetrics", EXACT, CORE),
    "html-report": ("report", "HtmlReport", REPORT, CORE),
}
# In no registry yet: what how-tos add.
OTHERS = {
    "intern-vl": ("InternVl", ("transformers==4.37.2", "torch>=2.9")),
    "qwen-vl": ("QwenVl", ("torch>=2.9",)),
    "fast-vlm": ("FastVlm", ("flash-attn==2.8.3", "torch>=2.9")),
}
# A model for a night: answers what it is asked, but for questions that stand for what goes wrong.
NIGHT = """
import os, pathlib, time

class OutOfMemoryError(RuntimeError):
    pass

class Plugin:
    def load(self, context):
        self.gate = pathlib.Path(os.environ["WORK"], "go")

    def predict(self, batch):
        return [self.answer(item.question, len(batch)) for item in batch]

    def answer(self, question, together):
        if question == "large" and together > 1:
            raise OutOfMemoryError("CUDA out of memory")
        if question == "broken":
            raise ValueError("no image in this file")
        while question == "slow" and not self.gate.exists():
            time.sleep(0.02)
        return question
"""
RUN = """# A task of each stage.
name: demo
data:
  lines: {path: data/lines.csv}
inference:
  - {plugin: ocr-crnn}
eval:
  - {plugin: text-metrics}
report:
  - {plugin: html-report}
"""


def wheels(folder: Path) -> None:
    """What the package index, and torch's own, have."""
    folder.mkdir(parents=True, exist_ok=True)
    repack(folder, "pytest")
    for version in ("1.26.4", "2.2.6"):
        code = f"__version__ = '{version}'\nclass random:\n    seed = staticmethod(lambda number: None)\n"
        make_wheel(folder, "numpy", version, files={"numpy/__init__.py": code.encode()})
    for version in ("4.37.2", "4.49.0", "4.57.0"):
        files = {"transformers/__init__.py": f"__version__ = '{version}'\n".encode()}
        make_wheel(folder, "transformers", version, files=files, requires=["numpy"])
    make_wheel(folder, "ninja", "1.11.1")
    make_wheel(folder, "vlm-core", "0.1.0")  # For checkouts, whose own tests uv runs by itself.
    make_wheel(folder, "torch", "2.9.1", files=_torch("2.9.1"))
    for build in BUILDS:
        make_wheel(folder / build, "torch", f"2.9.1+{build}", files=_torch(f"2.9.1+{build}"))
    system = '[build-system]\nrequires = []\nbuild-backend = "backend"\nbackend-path = ["."]\n'
    facts = {"name": "flash-attn", "version": "2.8.3", "dependencies": ["torch"]}
    build = BACKEND.replace("def _wheel(folder, editable):", "def _wheel(folder, editable):\n    import torch")
    code = "__version__ = '2.8.3'\n"
    flash = {"backend.py": build, "backend/project.json": json.dumps(facts), "pyproject.toml": system}
    make_sdist(folder, "flash-attn", "2.8.3", {**flash, "src/flash_attn/__init__.py": code})


def _torch(version: str) -> dict[str, bytes]:
    code = f"""
__version__ = {version!r}
manual_seed = id
class cuda:
    is_available = staticmethod(lambda: False)
class version:
    cuda = None
"""
    return {"torch/__init__.py": code.encode()}


class Stand:
    """The parts that all pages share, made once: wheels, repositories, a locked workspace."""

    def __init__(self, root: Path, index: Index) -> None:
        self.index = index
        self.workshop = workshop = Workshop(root)
        workshop.settings(core={"vlm-core": '"0.1.0"'})
        project = workshop.work / "pyproject.toml"
        mirrors = project.read_text().replace(f'"{workshop.remotes}/"', '"../remotes/"')
        project.write_text(f'[tool.envbuilder]\ndefault-run = "profiles/runs/demo.yaml"\n{mirrors}')
        for profile in ("prod", "dev"):
            workshop.write(f"profiles/{profile}/profile.toml", f'python = "{PYTHON}"\nindex-url = "{index.url}"\n')
        self._release("vlm-core", "v0.1.0", "Core", "class Core:\n    pass\n", ())
        self._entry("vlm-core", kind="library")
        for name, (stage, point, code, needs) in PLUGINS.items():
            text = code.replace("class Plugin", f"class {point}")
            self._release(name, "v0.1.0", point, text, needs)
            self._entry(name, stage=stage, entry=f"{name.replace('-', '_')}:{point}")
        self._release(
            "ocr-rapid", "v0.2.0", "RapidOcr", ECHO.replace("class Plugin", "class RapidOcr"), PLUGINS["ocr-rapid"][3]
        )
        for name, (point, needs) in OTHERS.items():
            imports = "".join(f"import {need.partition('=')[0].replace('-', '_')}\n" for need in needs if "==" in need)
            code = NIGHT if name == "qwen-vl" else ECHO
            self._release(name, "v1.0.0", point, imports + code.replace("class Plugin", f"class {point}"), needs)
        workshop.write("profiles/runs/data/lines.csv", ROWS)
        workshop.write("profiles/runs/demo.yaml", RUN)
        workshop.write(".gitignore", ".envbuilder/\n")
        assert workshop.within("lock", "-q").status == 0
        workshop.git("init", "--quiet", "--initial-branch", "main", str(workshop.work))
        workshop.git("-C", str(workshop.work), "add", "--all")
        workshop.git("-C", str(workshop.work), "commit", "--quiet", "--message", "All as it is locked")

    def _entry(self, name: str, **keys: str) -> None:
        source = {"git": f"https://git.example.org/{name}.git", "tag": "v0.1.0"}
        text = entry_text({"name": name, **keys, "source": source}).partition("\n")[2]
        self.workshop.write(f"profiles/registry/{name}.yaml", text)

    def _release(self, name: str, tag: str, point: str, code: str, needs: tuple[str, ...]) -> None:
        repository = self.workshop.remotes / f"{name}.git"
        module = name.replace("-", "_")
        (repository / "tests").mkdir(parents=True, exist_ok=True)
        (repository / "tests" / "test_it.py").write_text(
            f"from {module} import {point}\n\n\ndef test_it():\n    assert {point}\n"
        )
        (repository / ".gitignore").write_text("__pycache__/\n.pytest_cache/\n.venv/\nuv.lock\n")
        if not (repository / ".git").exists():
            self.workshop.git("init", "--quiet", "--initial-branch", "main", str(repository))
            self.workshop.git("-C", str(repository), "config", "receive.denyCurrentBranch", "updateInstead")
        version = tag.removeprefix("v")
        text = (
            '[build-system]\nrequires = []\nbuild-backend = "tiny_backend"\nbackend-path = ["backend"]\n\n'
            f'[project]\nname = "{name}"\nversion = "{version}"\nrequires-python = ">=3.10"\n'
            f"dependencies = {json.dumps(list(needs))}\n\n"
            '[dependency-groups]\ndev = ["pytest"]\n'
        )
        self.workshop.release(
            name,
            tag,
            version=version,
            dependencies=needs,
            requires_python=">=3.10",
            code=code,
            pyproject=text,
            backend=READS,
        )

    def copy(self, root: Path, *, base: bool = False) -> Copy:
        """A copy for one page; with a base interpreter that has torch, where a page needs one."""
        for name in ("work", "remotes"):
            shutil.copytree(self.workshop.root / name, root / name, symlinks=True)
        (root / "bare").mkdir()
        if base:
            Base(root / "base").install(make_wheel(root / "supplied", "torch", "2.9.1", files=_torch("2.9.1+cluster")))
        return Copy(root, self.index)


@dataclass(frozen=True)
class Copy:
    """What one page uses up: a workspace in `work`, its remotes beside it."""

    root: Path
    index: Index

    def folder(self, workspace: str) -> Path:
        """The folder in which a page begins."""
        return self.root / {"demo": "work", "bare": "bare"}[workspace]

    @property
    def env(self) -> Mapping[str, str]:
        """The variables of its shell; `WORK` is the demo's workspace, `BASE` a base interpreter."""
        programs = self.root / "bin"
        programs.mkdir(exist_ok=True)
        program = programs / "envbuilder"
        program.write_text(f'#!/bin/sh\nexec {shlex.join(Workshop.argv())} "$@"\n')
        program.chmod(0o755)
        if not (programs / "uv").exists():
            (programs / "uv").symlink_to(find_uv())
        config = self.root / "gitconfig"
        config.write_text(
            '[user]\nname = a\nemail = a@example.org\n[init]\ndefaultBranch = main\n[protocol "file"]\nallow = always\n'
            f'[url "{self.root}/remotes/"]\ninsteadOf = https://git.example.org/\n'
        )
        return Workshop.environment(
            {
                "PATH": f"{programs}:{os.environ['PATH']}",
                "GIT_CONFIG_GLOBAL": str(config),
                "GIT_CONFIG_SYSTEM": os.devnull,
                "UV_CACHE_DIR": str(cache_folder()),
                "WORK": str(self.root / "work"),
                "BASE": str(self.root / "base"),
                "COLUMNS": "100",
            }
        )

    @property
    def words(self) -> Mapping[str, str]:
        """What pages say, and what it is here."""
        host = self.index.url.removesuffix("/simple")
        return {
            "https://mirror.example.org/pypi/simple": self.index.url,
            "https://mirror.example.org/pypi/": f"{host}/",
            "https://mirror.example.org/whl": self.index.torch_url,
            'python = "3.11"': f'python = "{PYTHON}"',
        }
