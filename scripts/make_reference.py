"""Write docs/reference/: every command from the command line itself, every file's keys from the JSON Schemas.

Usage: uv run python scripts/make_reference.py
"""

from __future__ import annotations

import inspect
import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, cast

import click

from envbuilder.cli import cli
from envbuilder.cli.commands import SECTIONS
from envbuilder.cli.examples import EXAMPLES
from envbuilder.cli.schemas import texts
from envbuilder.fs import write_atomically

FOLDER = Path(__file__).resolve().parents[1] / "docs" / "reference"
MADE = "<!-- Written by scripts/make_reference.py from the code; a test holds it to that. -->\n"
# What every command has is told once.
COMMON = ("profile", "folder", "output", "quiet", "verbose")

FILES = {
    "entry": (
        "Registry entry: `profiles/registry/<name>.yaml`",
        "The overlay, `<name>.dev.yaml`, may set any of these keys. `source` and lists are replaced, mappings are merged.",
    ),
    "profile": ("Profile: `profiles/<profile>/profile.toml`", "A profile without a file has the defaults."),
    "settings": ("Settings: `[tool.envbuilder]` in the workspace's `pyproject.toml`", ""),
    "run": ("Run file: `profiles/runs/<name>.yaml`", "Durations have units: `500ms`, `30s`, `10m`, `1h30m`, `2d`."),
}

BESIDES = """## Generated files

| file | what it is |
|---|---|
| `profiles/<profile>/pins.toml` | each git entry's tag, commit, tree, version and needs when it was locked, the same of git sources that packages name themselves; digests of locks |
| `profiles/<profile>/<plugin>/pyproject.toml`, `uv.lock` | the plugin's virtual project, and its lock |

They are committed and never edited; `check` tells where they were.

## State: `.envbuilder/`

| folder | what is in it |
|---|---|
| `store/` | environments by key, with their seals beside them |
| `envs/<profile>/<plugin>` | links to the environments that the profile points at |
| `generations/` | numbered sets of environments |
| `git/` | a bare clone of each repository |
| `runs/<id>/` | a run: `run.json`, `events.jsonl`, `answers/`, `metrics/`, `logs/`, `report.html` |
| `tests/<profile>/<plugin>/` | what `envbuilder test` printed |

Git ignores it. What is in it can be made anew, but for `runs/`.

## Environment variables

| variable | meaning |
|---|---|
| `RUN_MODE` | the profile, `dev` or `prod`, where `--profile` does not name it |
| `ENVBUILDER_HOME` | where the state is, as an absolute path; workspaces may share it, and then have their own runs and generations in `workspaces/` |
| `ENVBUILDER_NVML` | a JSON file in place of the NVIDIA driver; `null` in it for a machine without one |
| `NO_COLOR` | no colour and no other style |
| `UV_OFFLINE` | as `--offline` |
| `UV_CACHE_DIR`, `UV_PYTHON_INSTALL_MIRROR` and uv's others | as for uv; those that change what is chosen (indexes, constraints, resolution) do not count |
"""


def pages() -> dict[str, str]:
    """Each page's file name and text."""
    return {"commands.md": commands_page(), "files.md": files_page()}


def commands_page() -> str:
    """All commands by section, with their options and examples."""
    lines = [
        MADE,
        "# Commands",
        "",
        "`envbuilder COMMAND --help` says the same on a terminal. Where plugins are selected, none named means all.",
        "",
        *_options(
            [option for option in _command("status").params if option.name in COMMON],
            "Every command takes, before its name or after it",
        ),
        "Exit status: 0 all is as it should be; 1 something checked, built or run is not; 2 the request itself cannot be",
        "served; 130 interrupted. Results go to stdout, progress and problems to stderr. `--format json` prints one object:",
        "`schema`, `ok`, `profile`, `result`, `problems`; each problem has `code`, `severity`, `entry`, `where`, `message`,",
        "`hint`.",
        "",
    ]
    for title, section in SECTIONS.items():
        lines += [f"## {title}", ""]
        for name in section:
            lines += _told(name, _command(name))
    return "\n".join(lines).rstrip("\n") + "\n"


def _command(name: str) -> click.Command:
    return cast("click.Command", cli.get_command(click.Context(cli), name))


def _told(name: str, command: click.Command) -> Iterator[str]:
    """A command, and those in it."""
    context = click.Context(command, info_name=f"envbuilder {name}")
    yield from (f"### {name}", "", f"`envbuilder {name} {' '.join(command.collect_usage_pieces(context))}`", "")
    yield from (_prose(command.help or ""), "")
    if isinstance(command, click.Group):
        for inner, child in command.commands.items():
            yield from _told(f"{name} {inner}", child)
        return
    own = [each for each in command.params if isinstance(each, click.Option) and each.name not in COMMON]
    yield from _options(own, "")
    shown = [f"{line}{f'   # {words}' if words else ''}" for line, words in EXAMPLES[name]]
    yield from ("```console", *(f"$ {line}" for line in shown), "```", "")


def _options(options: list[Any], title: str) -> Iterator[str]:
    if not options:
        return
    yield from ([f"{title}:", ""] if title else [])
    yield from ("| option | meaning |", "|---|---|")
    for option in options:
        names, words = option.get_help_record(click.Context(click.Command("x")))
        yield f"| `{_cell(names)}` | {_cell(_prose(words))} |"
    yield ""


def _cell(text: str) -> str:
    return text.replace("|", r"\|")


def _prose(text: str) -> str:
    """A docstring as Markdown: paragraphs, each on a line of its own."""
    paragraphs = inspect.cleandoc(text.replace("\b", "").replace("``", "`")).split("\n\n")
    return "\n\n".join(" ".join(each.split()) for each in paragraphs)


def files_page() -> str:
    """Every file that people write, key by key."""
    lines = [
        MADE,
        "# Files",
        "",
        "An unknown key or a wrong type is refused, with file, line and the nearest known key. Editors check the files",
        "against the schemas in [`docs/schemas`](../schemas); `envbuilder init` writes them to `profiles/schemas`.",
        "",
    ]
    schemas = {name.removesuffix(".schema.json"): json.loads(text) for name, text in texts().items()}
    for name, (title, words) in FILES.items():
        lines += [f"## {title}", "", *([words, ""] if words else []), *_keys(schemas[name])]
        for inner, schema in schemas[name].get("$defs", {}).items():
            if schema.get("type") == "object":
                lines += [f"### {_words(inner)}", "", _prose(schema.get("description", "")), "", *_keys(schema)]
    return "\n".join([*lines, BESIDES])


def _keys(schema: Mapping[str, Any]) -> Iterator[str]:
    required = schema.get("required", [])
    yield from ("| key | type | default | meaning |", "|---|---|---|---|")
    for key, facts in schema["properties"].items():
        default = "required" if key in required else _default(facts)
        yield f"| `{key}` | {_type(facts)} | {default} | {_cell(_prose(facts.get('description', '')))} |"
    yield ""


def _default(facts: Mapping[str, Any]) -> str:
    value = facts.get("default")
    if value is None or value in ([], {}) or isinstance(value, dict) or "://" in str(value):
        return ""
    return f"`{value if isinstance(value, str) else json.dumps(value).removesuffix('.0')}`"


def _type(facts: Mapping[str, Any]) -> str:
    if "$ref" in facts:
        name = facts["$ref"].rpartition("/")[2]
        return "anything" if name == "JsonValue" else f"[{_words(name)}](#{_words(name).replace(' ', '-')})"
    if "enum" in facts or "const" in facts:
        return ", ".join(f"`{each}`" for each in facts.get("enum", [facts.get("const")]))
    if branches := facts.get("anyOf", facts.get("oneOf")):
        return " or ".join(_type(each) for each in branches if each.get("type") != "null")
    if facts.get("type") == "array":
        return f"list: {_type(facts['items'])}"
    if facts.get("type") == "object":
        inside = facts.get("additionalProperties") or next(iter(facts["patternProperties"].values()))
        return f"mapping: {_type(inside)}"
    plain = {"string": "text", "integer": "whole number", "number": "number", "boolean": "true or false"}
    return plain[str(facts["type"])]


def _words(name: str) -> str:
    """A model's name as words: ``InferenceEntry`` is ``inference entry``."""
    return re.sub(r"(?<!^)(?=[A-Z])", " ", name.removesuffix("Document")).lower()


def main() -> None:
    """Write the pages."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    for name, text in pages().items():
        write_atomically(FOLDER / name, text)


if __name__ == "__main__":
    main()
