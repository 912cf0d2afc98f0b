"""Reading what people write: places, words and limits of the YAML and TOML readers, and merging."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Literal

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from pydantic import Field
from workshop import Workshop

from envbuilder.documents import (
    Document,
    Located,
    Place,
    merge,
    parse_toml,
    parse_yaml,
    read_toml,
    read_yaml,
    subtree,
    validate,
)
from envbuilder.errors import ConfigError, Problem


class Inner(Document):
    """A nested part."""

    tag: str | None = None
    count: int = 0


class Outer(Document):
    """A schema with one key of every sort."""

    name: str
    source_part: Inner = Inner()
    words: tuple[str, ...] = ()
    env: dict[str, str] = Field(default_factory=dict)
    stage: Literal["inference", "eval"] = "eval"


def problems_of(tree: Located) -> tuple[Problem, ...]:
    """What is wrong with a tree by the schema above."""
    with pytest.raises(ConfigError) as caught:
        validate(tree, Outer, entry="x")
    return caught.value.problems


def refused(text: str) -> Problem:
    """The one problem of a text that is no YAML for us."""
    with pytest.raises(ConfigError) as caught:
        parse_yaml(text, "f.yaml")
    assert len(caught.value.problems) == 1
    return caught.value.problems[0]


@pytest.mark.parametrize(
    ("text", "where", "said", "hint"),
    [
        ("name: a\nstge: eval\n", "f.yaml:2:1", "unknown key 'stge'", "did you mean 'stage'?"),
        ("name: a\nsource-part:\n  tga: v1\n", "f.yaml:3:3", "source-part.tga: unknown key 'tga'", "mean 'tag'?"),
        ("name: a\nsource_part: {}\n", "f.yaml:2:1", "unknown key 'source_part'", "did you mean 'source-part'?"),
        ("name: a\nqqq: 1\n", "f.yaml:2:1", "expected one of name, source-part, words, env, stage", "+2 f.yaml"),
        ("name: a\nsource-part: {tag: 3.10}\n", "f.yaml:2:15", "found 3.10 (a number)", 'quote it: "3.10"'),
        ("name: 1_000\n", "f.yaml:1:1", "found 1_000 (a number)", 'quote it: "1_000"'),
        ("name: 2026-11-01\n", "f.yaml:1:1", "found 2026-11-01 (a date)", 'quote it: "2026-11-01"'),
        ("name: no\n", "f.yaml:1:1", "found no (true or false)", 'quote it: "no"'),
        ("name: a\nenv: {A: 1}\n", "f.yaml:2:7", "env.A: expected text; found 1", 'quote it: "1"'),
        ("name: a\nwords: fast\n", "f.yaml:2:1", "words: expected a list; found 'fast' (text)", "+2 f.yaml"),
        ("name: a\nwords: [a, {b: c}]\n", "f.yaml:2:12", "words.1: expected text; found a mapping", "+2 f.yaml"),
        ("name: a\nenv: [a]\n", "f.yaml:2:1", "env: expected a mapping of keys; found a list", "+2 f.yaml"),
        ("name: a\nsource-part:\n", "f.yaml:2:1", "expected a mapping of keys; found nothing", "+2 f.yaml"),
        ("name: a\nstage: evl\n", "f.yaml:2:1", "expected 'inference' or 'eval'; found 'evl'", "did you mean 'eval'?"),
        ("stage: eval\n", "f.yaml:1:1", "name: required, not there", "+1 f.yaml"),
        ("", "f.yaml", "name: required, not there", "+1 f.yaml"),
        ("# only a comment\n", "f.yaml", "name: required, not there", "+1 f.yaml"),
        ("- a\n", "f.yaml:1:1", "expected a mapping of keys, found a list", "+1 f.yaml"),
        ("hello\n", "f.yaml:1:1", "expected a mapping of keys, found 'hello' (text)", "+1 f.yaml"),
    ],
)
def test_validate_says_where_what_and_what_instead(text: str, where: str, said: str, hint: str) -> None:
    """A wrong key or value is named with its place, what was found, what was expected and the nearest known key."""
    (problem,) = problems_of(parse_yaml(text, "f.yaml"))
    assert (problem.code, problem.entry, problem.where) == ("config-invalid", "x", where)
    assert said in problem.message
    assert "\n" not in problem.message
    assert hint in str(problem.hint)


def test_validate_tells_everything_at_once() -> None:
    """Three faults in one file are three problems."""
    found = problems_of(parse_yaml("nmae: a\nwords: 3\nsource-part: {count: many}\n", "f.yaml"))
    assert {problem.where for problem in found} == {"f.yaml:1:1", "f.yaml:2:1", "f.yaml:3:15"}
    assert len(found) == 4  # The missing name besides.


@pytest.mark.parametrize(
    ("text", "where", "said"),
    [
        ("a: 1\nb: 2\na: 3\n", "f.yaml:3:1", "key 'a' stands here again; first at f.yaml:1:1"),
        ("a:\n\tb: 1\n", "f.yaml:2:1", "cannot start any token"),
        ("a: [1, 2\n", "f.yaml:2:1", "not valid YAML"),
        ("a: *nope\n", "f.yaml:1:4", "undefined alias"),
        ("a: 1\n---\nb: 2\n", "f.yaml:2:1", "another document"),
        ("? [a]\n: b\n", "f.yaml:1:3", "a key must be plain text"),
        ("a: &a [*a]\n", "f.yaml:1:4", "too large or too deeply nested"),
        ("a: 2026-13-45\n", "f.yaml:1:4", "2026-13-45 is no timestamp"),
        ("a: !!bool maybe\n", "f.yaml:1:4", "maybe is no bool"),
        ("a: !!timestamp soon\n", "f.yaml:1:4", "soon is no timestamp"),
        ('a: !!int ""\n', "f.yaml:1:4", "is no int"),
        (f"a: {'9' * 5000}\n", "f.yaml:1:4", "is no int"),
        ("a: !!python/object/apply:os.getcwd ''\n", "f.yaml:1:4", "could not determine a constructor"),
        ("a: 1\nb: \x00\n", "f.yaml:2", "character 0 is not allowed"),
    ],
)
def test_parse_yaml_refuses_what_is_not_plain_data(text: str, where: str, said: str) -> None:
    """Syntax errors, repeated keys, foreign tags and odd characters are told with their place."""
    problem = refused(text)
    assert problem.where == where
    assert said in problem.message


@pytest.mark.parametrize(
    ("opening", "depth"),
    [("[", 65), ("[", 5_000), ("[", 100_000), ("{a: ", 65), ("{a: ", 100_000), ("- ", 65), ("- ", 5_000)],
)
def test_parse_yaml_survives_deep_nesting(opening: str, depth: int) -> None:
    """Brackets without end are refused; they once ended the whole process in the C library."""
    assert "deeply nested" in refused(opening * depth).message


def test_parse_yaml_survives_an_alias_bomb() -> None:
    """Ten aliases of ten aliases, eight times over, are refused before memory is spent."""
    lines = ["a: &a [x, x, x, x, x, x, x, x, x, x]"]
    for before, name in zip("abcdefgh", "bcdefghi", strict=True):
        lines.append(f"{name}: &{name} [{', '.join([f'*{before}'] * 10)}]")
    assert "too large" in refused("\n".join(lines)).message


DATA = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(st.characters(codec="utf-8"), max_size=12),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.text(st.characters(codec="utf-8"), max_size=6), inner, max_size=4)
    ),
    max_leaves=12,
)


@given(DATA)
def test_parse_yaml_reads_back_what_yaml_writes(data: object) -> None:
    """Whatever plain data YAML can write comes back as it was, and every part has a place."""
    text = yaml.safe_dump(data, sort_keys=False)
    tree = parse_yaml(text, "f.yaml")
    assert tree.value == data
    assert all(1 <= place.line <= text.count("\n") + 1 for place in tree.places.values())


@given(st.text(max_size=60))
def test_parse_yaml_never_fails_otherwise(text: str) -> None:
    """Any text is data or a ConfigError, never another exception."""
    found: tuple[Problem, ...] = ()
    try:
        validate(parse_yaml(text, "f.yaml"), Outer)
    except ConfigError as error:
        found = error.problems
    assert all(str(problem.where).startswith("f.yaml") for problem in found)


@given(st.text(max_size=60))
def test_parse_toml_never_fails_otherwise(text: str) -> None:
    """Any text is data or a ConfigError, never another exception."""
    found: tuple[Problem, ...] = ()
    try:
        validate(parse_toml(text, "f.toml"), Outer)
    except ConfigError as error:
        found = error.problems
    assert all(str(problem.where).startswith("f.toml") for problem in found)


@pytest.mark.parametrize(
    ("text", "where"),
    [("name = \n", "f.toml:1:8"), ("x = " + "[" * 5000, "f.toml"), ("x = " + "9" * 5000, "f.toml")],
    ids=["syntax", "brackets", "digits"],
)
def test_parse_toml_refuses_what_is_no_toml(text: str, where: str) -> None:
    """Syntax errors and what makes the parser give up are config errors."""
    with pytest.raises(ConfigError, match="not valid TOML") as caught:
        parse_toml(text, "f.toml")
    assert caught.value.where == where


def test_toml_errors_point_at_the_key() -> None:
    """Keys in tables, dotted keys and unquoted values are found at their line."""
    text = 'name = "a"  # fine\n\n[source-part]\ntag = 3.10  # a number\n[env]\n"A" = true\n'
    found = problems_of(parse_toml(text, "f.toml"))
    assert [(problem.where, problem.hint) for problem in found] == [
        ("f.toml:4:1", '${EDITOR:-vi} +4 f.toml  # quote it: "3.10"'),
        ("f.toml:6:1", '${EDITOR:-vi} +6 f.toml  # quote it: "true"'),
    ]


def test_read_tells_why_a_file_cannot_be_read(tmp_path: Path) -> None:
    """A missing file, a folder and bytes that are no UTF-8 are told apart, the last with its line."""
    bad = tmp_path / "bad.yaml"
    bad.write_bytes(b"name: a\nstage: \xff\n")
    (tmp_path / "folder").mkdir()
    found = {}
    for name in ("none.yaml", "folder", "bad.yaml"):
        for read in (read_yaml, read_toml):
            with pytest.raises(ConfigError) as caught:
                read(tmp_path / name, name)
            found[name] = (caught.value.code, caught.value.where, caught.value.message)
    assert found["none.yaml"] == ("config-missing", "none.yaml", "no such file")
    assert found["folder"][0] == "config-invalid"
    assert found["bad.yaml"] == ("config-invalid", "bad.yaml:2", "not UTF-8: byte 0xff")


def test_merge_keeps_the_place_of_every_part() -> None:
    """Mappings merge key by key, lists and the keys named whole are replaced, and each part keeps its own file."""
    base = parse_yaml("name: a\nsource-part: {tag: v1, count: 2}\nwords: [a, b]\nenv:\n  A: x\n  B: y\n", "a.yaml")
    over = parse_yaml("source-part:\n  tag: v2\nwords: [c]\nenv: {B: z}\n", "a.dev.yaml")
    merged = merge(base, over, whole=frozenset({"source-part"}))
    assert merged.value == {
        "name": "a",
        "source-part": {"tag": "v2"},
        "words": ["c"],
        "env": {"A": "x", "B": "z"},
    }
    assert str(merged.place(("env", "A"))) == "a.yaml:5:3"
    assert str(merged.place(("env", "B"))) == "a.dev.yaml:4:7"
    assert str(merged.place(("source-part", "count"))) == "a.dev.yaml:1:1"
    assert str(merged.place(("words", 1))) == "a.dev.yaml:3:1"


@given(DATA, DATA)
def test_merge_lays_the_later_over_the_earlier(first: object, second: object) -> None:
    """Laying a tree over itself or over nothing changes nothing; a top-level key of the overlay is always there."""
    base, over = Located(first, "a"), Located(second, "b")
    assert merge(base, base).value == first
    assert merge(base, Located(None, "b")).value == first
    merged = merge(base, over).value
    if isinstance(first, dict) and isinstance(second, dict):
        assert set(merged) == set(first) | set(second)
    elif second is not None:
        assert merged == second


def test_subtree_is_a_tree_of_its_own() -> None:
    """A part has its own paths; what is not there is None."""
    tree = parse_toml("[tool.envbuilder.core]\nx = 1\n", "p.toml")
    part = subtree(tree, ("tool", "envbuilder"))
    assert part.value == {"core": {"x": 1}}
    assert part.place(("core", "x")) == Place("p.toml", 2, 1, "1")
    assert subtree(tree, ("tool", "none", "at", "all")).value is None


def test_deep_files_do_not_end_the_process(tmp_path: Path) -> None:
    """The same limit holds in a fresh interpreter, whose stack nothing has grown yet."""
    file = tmp_path / "deep.yaml"
    file.write_text("[" * 200_000)
    code = f"from pathlib import Path; from envbuilder.documents import read_yaml; read_yaml(Path({str(file)!r}), 'd')"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "deeply nested" in done.stderr


def test_backslashes_in_double_quotes_are_told_as_what_they_are() -> None:
    """A path of Windows in double quotes is no text in YAML nor in TOML: the hint says how to write it."""
    problem = refused('name: a\npath: "C:\\data"\n')
    assert problem.where == "f.yaml:2:10"
    assert problem.hint is not None
    assert "write paths with /" in problem.hint
    with pytest.raises(ConfigError) as caught:
        parse_toml('a = 1\nb = "C:\\data"\n', "f.toml")
    assert "write paths with /" in str(caught.value.problems[0].hint)


def test_a_file_that_is_not_there_names_its_neighbour(tmp_path: Path) -> None:
    """A name that was mistyped is answered with the nearest beside it; a folder that is not there with nothing."""
    (tmp_path / "shout.yaml").write_text("")
    for folder, said in ((tmp_path, "no such file; nearest: shout.yaml"), (tmp_path / "none", "no such file")):
        with pytest.raises(ConfigError) as caught:
            read_yaml(folder / "shuot.yaml", "shuot.yaml")
        assert caught.value.problems[0].message == said


@pytest.mark.parametrize("name", ["pyproject.toml", "profiles/prod/profile.toml"])
@pytest.mark.parametrize("coding", ["utf-8-sig", "utf-16"])
def test_toml_in_another_encoding_is_named_with_its_remedy(workshop: Workshop, name: str, coding: str) -> None:
    """A byte order mark, or UTF-16, is named; the hint, pasted, leaves a file that serves."""
    workshop.plugin("alpha")
    assert workshop.within("lock", "-q").status == 0
    file = workshop.work / name
    file.write_text(file.read_text(), encoding=coding)
    ran = workshop.within("check", "--offline", "--format", "json")
    problems = ran.json["problems"]
    assert isinstance(problems, list)
    (problem,) = problems
    assert ("byte order mark" if coding == "utf-8-sig" else "UTF-16") in problem["message"]
    assert (ran.status, problem["code"], problem["where"].partition(":")[0]) == (2, "config-invalid", name)
    subprocess.run(["bash", "-c", problem["hint"]], cwd=workshop.work, check=True)
    assert workshop.within("check", "--offline", "-q").status == 0


def test_a_mark_at_a_tag_is_named(workshop: Workshop) -> None:
    """A package's own pyproject.toml with a byte order mark is an error of that tag, in those words."""
    text = '[build-system]\nrequires = []\nbuild-backend = "tiny_backend"\nbackend-path = ["backend"]\n'
    workshop.plugin("alpha", pyproject=f'\ufeff{text}[project]\nname = "alpha"\nversion = "0.1.0"\n')
    ran = workshop.within("lock")
    assert (ran.status, "byte order mark" in ran.err, "v0.1.0" in ran.err) == (1, True, True), ran.err
