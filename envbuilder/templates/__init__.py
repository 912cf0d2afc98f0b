"""Texts of new files: a workspace, and a plugin's package. Pure but for the templates, which lie beside this file."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from string import Template

_FOLDER = Path(__file__).parent
# What a text must look like to need no quotes in YAML: no number, no truth value, nothing that begins a comment.
_PLAIN = re.compile(r"(?!(?i:y|n|yes|no|on|off|true|false|null)$)[A-Za-z][\w.+@/-]*(:[\w.+@/-]+)*")
# Above the source of an entry that names a path.
UNRELEASED = (
    "In prod `check` refuses a path. Once the package has a repository and a tag, name them here:",
    "  source: {git: https://…, tag: v0.1.0}",
)


@dataclass(frozen=True)
class NewPlugin:
    """A plugin's package to be.

    Attributes:
        name: of the distribution, normalised.
        stage: ``inference``, ``eval`` or ``report``.
        requires_python: what its metadata will say.
    """

    name: str
    stage: str
    requires_python: str = ">=3.10"

    @property
    def module(self) -> str:
        """The name of its import package."""
        return re.sub(r"[-.]", "_", self.name)

    @property
    def class_name(self) -> str:
        return "".join(part.capitalize() for part in re.split(r"[-._]", self.name))

    @property
    def entry(self) -> str:
        """Its entry point, as the registry names it."""
        return f"{self.module}:{self.class_name}"


def workspace_files(python: str, today: str) -> dict[str, str]:
    """The files of a new workspace, by path; JSON Schemas are not among them.

    Args:
        python: the profiles' Python, such as ``3.11``.
        today: a date that an example shows, such as ``2026-11-01``.
    """
    names = {
        "pyproject.toml": "pyproject.txt",
        ".gitignore": "gitignore",
        "profiles/prod/profile.toml": "prod.txt",
        "profiles/dev/profile.toml": "dev.txt",
        "profiles/registry/README.md": "registry.md",
    }
    return {path: _filled(f"workspace/{file}", {"python": python, "today": today}) for path, file in names.items()}


def package_files(plugin: NewPlugin) -> dict[str, str]:
    """The files of a plugin's package, by their path in it."""
    names = {
        "pyproject.toml": "pyproject.txt",
        "README.md": "README.md",
        ".gitignore": "gitignore",
        f"src/{plugin.module}/__init__.py": "init.txt",
        f"src/{plugin.module}/plugin.py": f"{plugin.stage}.txt",
        "tests/test_plugin.py": f"test_{plugin.stage}.txt",
    }
    return {path: _filled(f"plugin/{file}", _words(plugin)) for path, file in names.items()}


def run_files(plugin: NewPlugin) -> dict[str, str]:
    """A run file for an inference plugin with a small data set, by their path in the workspace; nothing for others."""
    if plugin.stage != "inference":
        return {}
    names = {f"profiles/runs/{plugin.name}.yaml": "run.yaml", f"profiles/runs/data/{plugin.name}.csv": "questions.csv"}
    return {path: _filled(f"plugin/{file}", _words(plugin)) for path, file in names.items()}


def entry_text(keys: Mapping[str, object], remarks: tuple[str, ...] = (), schema: str = "entry") -> str:
    """A registry file of those keys: one a line, a mapping of more than one key over several.

    Args:
        keys: texts, truth values, and mappings of those.
        remarks: lines of comment above.
        schema: which JSON Schema editors are pointed to.
    """
    lines = [f"# yaml-language-server: $schema=../schemas/{schema}.schema.json"]
    lines += [f"# {remark}" for remark in remarks]
    for key, value in keys.items():
        if not isinstance(value, Mapping):
            lines.append(f"{key}: {_scalar(value)}")
        elif len(value) == 1:
            inner = ", ".join(f"{name}: {_scalar(text)}" for name, text in value.items())
            lines.append(f"{key}: {{{inner}}}")
        else:
            lines += [f"{key}:", *(f"  {name}: {_scalar(text)}" for name, text in value.items())]
    return "\n".join([*lines, ""])


def _scalar(value: object) -> str:
    if isinstance(value, bool):
        return json.dumps(value)
    text = str(value)
    return text if _PLAIN.fullmatch(text) else json.dumps(text, ensure_ascii=False)


def _words(plugin: NewPlugin) -> dict[str, str]:
    return {
        "name": plugin.name,
        "stage": plugin.stage,
        "Stage": plugin.stage.capitalize(),
        "module": plugin.module,
        "class_name": plugin.class_name,
        "requires_python": plugin.requires_python,
        "params": ', params: {suffix: "."}' if plugin.stage == "inference" else "",
    }


def _filled(file: str, words: Mapping[str, str]) -> str:
    return Template((_FOLDER / file).read_text(encoding="utf-8")).substitute(words)
