"""Edits of files that people wrote change what is meant, and nothing else."""

from __future__ import annotations

import pytest
import tomlkit
import yaml
from hypothesis import given
from hypothesis import strategies as st

from envbuilder.documents import parse_toml
from envbuilder.editing import set_in_toml, set_in_yaml
from envbuilder.errors import ConfigError, ToolError

ENTRY = """\
# yaml-language-server: $schema=../schemas/entry.schema.json

# Our own reader.  Two spaces here, on purpose.
name: ocr-crnn                 # the distribution's name
stage: inference
entry: "ocr_crnn:CrnnOcr"      # in quotes, since somebody liked them
source:                        # one of three
  git: https://git.example.org/ocr-crnn.git
  tag: v0.1.0                  # the newest that fits
  # pypi: ==1.4.4
requires: ["transformers==4.49.0", 'numpy<2']   # what its own metadata forgets
extras:
- fast      # not indented
- small
env: {TOKENIZERS_PARALLELISM: "false"}
description: a line that is rather long, longer than what a writer of YAML would leave on one line, were it not told so
"""


@pytest.mark.parametrize(
    ("path", "value", "old", "new"),
    [
        (("source", "tag"), "v0.2.0", "  tag: v0.1.0 ", "  tag: v0.2.0 "),
        (("entry",), "ocr_crnn:Other", '"ocr_crnn:CrnnOcr" ', '"ocr_crnn:Other"   '),
        (("stage",), "eval", "stage: inference", "stage: eval"),
        (("env", "TOKENIZERS_PARALLELISM"), "true", '"false"', '"true"'),
    ],
)
def test_one_value_of_yaml_changes_alone(path: tuple[str, ...], value: str, old: str, new: str) -> None:
    """Comments, order, quotes, flow style, lists as they are indented and long lines stay."""
    changed = set_in_yaml(ENTRY, path, value, "entry.yaml")
    assert changed == ENTRY.replace(old, new)


def test_a_mapping_of_yaml_is_replaced_and_a_key_is_added() -> None:
    """A source may become another kind whole; what is new stands at the end."""
    changed = set_in_yaml(ENTRY, ("source",), {"pypi": "==1.4.4"}, "entry.yaml")
    assert yaml.safe_load(changed)["source"] == {"pypi": "==1.4.4"}
    assert "# Our own reader." in changed
    changed = set_in_yaml("name: a\n", ("source", "path"), "packages/a", "a.yaml")
    assert changed == "name: a\nsource:\n  path: packages/a\n"
    assert set_in_yaml("", ("name",), "a", "a.yaml") == "name: a\n"


@pytest.mark.parametrize("text", ["---\nname: a\n", "name: a\r\nstage: eval\r\n", "# only this\nname: a\n"])
def test_beginning_and_line_ends_stay(text: str) -> None:
    """A document mark, line ends of Windows, a comment at the top."""
    assert set_in_yaml(text, ("name",), "b", "a.yaml") == text.replace("name: a", "name: b")


def test_lists_indented_otherwise_stay_so() -> None:
    """Both ways to indent a list, and mappings by four."""
    for text in ("a:\n  - 1\n  - 2\nname: a\n", "a:\n- 1\nname: a\n", "a:\n    b: 1\nname: a\n"):
        assert set_in_yaml(text, ("name",), "b", "a.yaml") == text.replace("name: a", "name: b")


@given(
    st.dictionaries(st.sampled_from("abcd"), st.text(st.characters(codec="ascii"), max_size=5)),
    st.text("10.v", max_size=6),
)
def test_texts_come_back_as_texts(held: dict[str, str], value: str) -> None:
    """What looks like a number is quoted; what else is there reads as before."""
    text = yaml.safe_dump(held, sort_keys=False)
    changed = yaml.safe_load(set_in_yaml(text, ("tag",), value, "x.yaml"))
    assert changed == {**held, "tag": value}


def test_what_is_no_yaml_is_refused_with_its_place() -> None:
    """As everywhere: file, line and column."""
    with pytest.raises(ConfigError) as refused:
        set_in_yaml("name: [\n", ("name",), "a", "a.yaml")
    assert refused.value.problems[0].where == "a.yaml:2:1"
    with pytest.raises(ToolError):
        set_in_yaml("source: text\n", ("source", "tag"), "v1", "a.yaml")


PROJECT = """\
# Ours.
[project]
name = "work"   # the name
version = "0.1.0"

[tool.ruff]
line-length = 100  # wide

[dependency-groups]
dev = [
    "pytest",   # tests
]
"""


def test_toml_keeps_comments_and_order() -> None:
    """A value changes in place; a table is added, and all other lines stay."""
    assert set_in_toml(PROJECT, ("project", "version"), "0.2.0", "p") == PROJECT.replace("0.1.0", "0.2.0")
    table = tomlkit.table()
    table.add(tomlkit.comment("settings"))
    table.add("default-run", "a.yaml")
    changed = set_in_toml(PROJECT, ("tool", "envbuilder"), table, "p")
    lines = iter(changed.splitlines())
    assert all(line in lines for line in PROJECT.splitlines()), "in their order"
    assert "# settings" in changed
    assert parse_toml(changed, "p").value["tool"] == {
        "ruff": {"line-length": 100},
        "envbuilder": {"default-run": "a.yaml"},
    }
    assert parse_toml(set_in_toml("", ("tool", "x", "y"), 1, "p"), "p").value == {"tool": {"x": {"y": 1}}}


def test_toml_that_is_none_is_refused() -> None:
    """With its line, as everywhere; a value is no table."""
    with pytest.raises(ConfigError):
        set_in_toml("[tool\n", ("tool", "x"), 1, "p")
    with pytest.raises(ToolError):
        set_in_toml("tool = 1\n", ("tool", "x"), 1, "p")
