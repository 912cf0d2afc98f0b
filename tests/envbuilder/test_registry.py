"""Registry entries: what is accepted, what is refused and where, and how overlays are laid over their bases."""

from __future__ import annotations

import json
import subprocess

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from workshop import Workshop

from envbuilder.documents import parse_yaml, validate
from envbuilder.errors import ConfigError, Problem
from envbuilder.models import Entry, GitSource, PathSource, PypiSource
from envbuilder.registry import SourceDocument, parse

PLUGIN = {
    "name": "ocr",
    "stage": "inference",
    "entry": "ocr:Model",
    "source": {"git": "https://git.example.org/ocr.git", "tag": "v0.1.0"},
}


def entry_of(text: str, overlay: str | None = None) -> Entry:
    """The entry that a base (and its overlay) say."""
    over = None if overlay is None else parse_yaml(overlay, "profiles/registry/ocr.dev.yaml")
    return parse([(parse_yaml(text, "profiles/registry/ocr.yaml"), over)]).entries[0]


def refusal(**keys: object) -> Problem:
    """The one problem of a plugin with some keys set otherwise; None leaves one out."""
    document = {key: value for key, value in {**PLUGIN, **keys}.items() if value is not None}
    with pytest.raises(ConfigError) as caught:
        entry_of(json.dumps(document, indent=1))
    assert len(caught.value.problems) == 1, caught.value.problems
    problem = caught.value.problems[0]
    assert problem.entry == "ocr"
    assert problem.hint
    return problem


def test_an_entry_is_read_whole() -> None:
    """Every key of the format ends in the entry's value, names normalised."""
    entry = entry_of(
        """
        name: OCR
        kind: plugin
        stage: eval
        command: [python, -m, ocr]
        source: {git: "https://Git.Example.org/ocr.git", rev: 0123456789012345678901234567890123456789, subdirectory: a/b/}
        core: ">=0.2,<0.3"
        python: "3.11"
        extras: [fast]
        requires: ["transformers==4.49.0"]
        exclude: [torch]
        env: {TOKENIZERS_PARALLELISM: "false"}
        """
    )
    assert entry.name == "ocr"
    assert entry.command == ("python", "-m", "ocr")
    assert entry.source == GitSource("https://git.example.org/ocr.git", "rev", "0123456789" * 4, "a/b")
    assert (entry.core, entry.python, entry.extras) == ("<0.3,>=0.2", "3.11", ("fast",))
    assert (entry.requires, entry.exclude) == (("transformers==4.49.0",), ("torch",))
    assert entry.env == {"TOKENIZERS_PARALLELISM": "false"}
    assert entry.where == "profiles/registry/ocr.yaml:2:9"
    assert entry.at("core") == "profiles/registry/ocr.yaml:7:9"


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({"name": "o c r"}, "expected a distribution name"),
        ({"name": "-ocr"}, "expected a distribution name"),
        ({"name": "ocr\n"}, "expected a distribution name"),
        ({"name": "../ocr"}, "expected a distribution name"),
        ({"name": "other"}, "'other' in a file named ocr.yaml"),
        ({"kind": "service"}, "expected 'plugin' or 'library'"),
        ({"kind": "library"}, "a library has no stage"),
        ({"stage": None}, "a plugin needs stage"),
        ({"entry": None}, "either entry: module:attribute or command"),
        ({"command": ["a"]}, "either entry: module:attribute or command"),
        ({"entry": "ocr.Model"}, "expected module:attribute"),
        ({"entry": "ocr:Model()"}, "expected module:attribute"),
        ({"core": ">=zero"}, "expected a version specifier"),
        ({"python": "three"}, "expected a Python version such as 3.11"),
        ({"python": ""}, "expected a Python version such as 3.11"),
        ({"extras": ["a b"]}, "expected a distribution name"),
        ({"requires": ["torch @ https://example.org/torch.whl"]}, "for a URL or a path write a registry entry"),
        ({"requires": ["torch @ file:///tmp/torch"]}, "for a URL or a path write a registry entry"),
        ({"requires": ["torch >"]}, "expected a requirement such as"),
        ({"env": {"1A": "x"}}, "expected the name of an environment variable"),
        ({"env": {"A": "x\0y"}}, "without a NUL character"),
        ({"entry": None, "command": ["a\0b"]}, "without a NUL character"),
        ({"source": {}}, "expected exactly one of git, pypi, path; found none"),
        ({"source": {"pypi": "==1", "path": "a"}}, "expected exactly one of git, pypi, path; found pypi, path"),
        ({"source": {"git": "https://a.example/b"}}, "exactly one of tag, rev, branch; found none"),
        ({"source": {"git": "https://a.example/b", "tag": "1", "branch": "m"}}, "found tag, branch"),
        ({"source": {"path": "a", "tag": "v1"}}, "tag belongs to a git source"),
        ({"source": {"pypi": "1.2"}}, "expected a version specifier"),
        ({"source": {"git": "https://a.example/b", "rev": "abc1234"}}, "a commit as 40 hexadecimal digits"),
    ],
)
def test_an_entry_is_refused(keys: dict[str, object], said: str) -> None:
    """Each rule of the format is told with what was expected."""
    problem = refusal(**keys)
    assert problem.code == "config-invalid"
    assert said in problem.message
    assert str(problem.where).startswith("profiles/registry/ocr.yaml:")


@pytest.mark.parametrize(
    "url",
    [
        "ext::sh -c touch% /tmp/x",
        "ext::sh",
        "fd::17",
        "--upload-pack=touch x",
        "-oProxyCommand=touch",
        "ssh://-oProxyCommand=touch/x.git",
        "ssh://a@-oProxyCommand=touch/x.git",
        "git@git.example.org:ocr.git",
        "git@-v:ocr.git",
        "/srv/git/ocr.git",
        "../ocr.git",
        "https://",
        "https:///ocr.git",
        "https://git.example.org/a b.git",
        "https://git.example.org/a\0b.git",
        "https://git.example.org/ocr.git#main",
        "https://git.example.org/ocr.git\n",
        "javascript:alert(1)",
        "",
    ],
)
def test_a_git_address_that_git_would_misread_is_refused(url: str) -> None:
    """Neither options nor programs nor unnamed hosts get through as addresses."""
    problem = refusal(source={"git": url, "tag": "v1"})
    assert problem.message.startswith("source.git: expected a git address")


@pytest.mark.parametrize(
    "url",
    [
        "https://git.example.org/ocr.git",
        "http://git.example.org:8080/team/ocr",
        "ssh://git@git.example.org/ocr.git",
        "git://git.example.org/ocr.git",
        "https://[::1]:8443/ocr.git",
        "file:///srv/git/ocr.git",
        "https://git.example.org/?p=ocr.git",
    ],
)
def test_a_usual_git_address_is_accepted(url: str) -> None:
    """The transports that git speaks itself are all there."""
    assert refusable(git=url, tag="v1") is None


def refusable(**source: object) -> str | None:
    """What is wrong with a source; None where nothing is."""
    try:
        validate(parse_yaml(json.dumps(source), "s.yaml"), SourceDocument)
    except ConfigError as error:
        return error.message
    return None


@settings(max_examples=60, deadline=None)
@given(st.text(st.sampled_from("ab./-~^:?*[\\@{}\x01 l+_o,ck"), min_size=1, max_size=8))
@example("a.lock")
@example("a.lock/b")
@example("a/.b")
@example("@")
@example("@{")
@example("a//b")
@example("a.")
@example("--upload-pack=x")
def test_refs_are_those_that_git_accepts(ref: str) -> None:
    """A tag is accepted exactly where git itself accepts the name, and it starts with no dash."""
    done = subprocess.run(["git", "check-ref-format", f"refs/tags/{ref}"], check=False)
    git_accepts = done.returncode == 0 and not ref.startswith("-") and ref != "@"
    assert (refusable(git="https://a.example/b", tag=ref) is None) == git_accepts


@pytest.mark.parametrize(
    "path",
    ["/etc", "../other", "packages/../../other", "~/x", "~root", "-x", "", ".", "a\0b", "a\nb"],
)
@pytest.mark.parametrize("key", ["path", "subdirectory"])
def test_a_path_that_leaves_the_workspace_is_refused(path: str, key: str) -> None:
    """Absolute paths, parents, homes and control characters are no places in a workspace or a repository."""
    source = {"path": path} if key == "path" else {"git": "https://a.example/b", "tag": "v1", "subdirectory": path}
    assert "expected a relative path that stays inside" in str(refusable(**source))


@pytest.mark.parametrize("path", ["C:\\plugins\\ocr", "C:/plugins/ocr", "packages\\ocr", "d:ocr", "C:\new"])
@pytest.mark.parametrize("key", ["path", "subdirectory", "git"])
def test_a_path_of_windows_is_refused_in_words(path: str, key: str) -> None:
    """A drive, or backslashes: no other machine could read it, and the message says what could."""
    source = {"path": path} if key == "path" else {"git": "https://a.example/b", "tag": "v1", key: path}
    assert "expected a path with forward slashes" in str(refusable(**source))


@pytest.mark.parametrize(
    ("source", "value"),
    [
        ({"path": "./packages//ocr/"}, PathSource("packages/ocr")),
        ({"pypi": "==1.2.3"}, PypiSource("==1.2.3", exact=True)),
        ({"pypi": "===1.2.3"}, PypiSource("===1.2.3", exact=True)),
        ({"pypi": "==1.2.*"}, PypiSource("==1.2.*", exact=False)),
        ({"pypi": ">=1,<2"}, PypiSource("<2,>=1", exact=False)),
        ({"git": "https://a.example/b", "branch": "main"}, GitSource("https://a.example/b", "branch", "main")),
    ],
)
def test_sources_become_values(source: dict[str, object], value: object) -> None:
    """Each kind of source is read, paths in their plainest form."""
    assert validate(parse_yaml(json.dumps(source), "s.yaml"), SourceDocument).source() == value


def test_overlay_replaces_the_source_whole_and_merges_the_rest() -> None:
    """Nothing of the base's git source stays; a variable is added; what the overlay leaves out stays."""
    base = json.dumps({**PLUGIN, "env": {"A": "1", "B": "2"}, "extras": ["slow"], "core": ">=1"}, indent=1)
    overlay = "source:\n  path: packages/ocr\nenv: {B: x, C: y}\nextras: []\ncore: null\n"
    entry = entry_of(base, overlay)
    assert entry.source == PathSource("packages/ocr")
    assert entry.env == {"A": "1", "B": "x", "C": "y"}
    assert (entry.extras, entry.core, entry.stage) == ((), None, "inference")
    assert entry.at("source") == "profiles/registry/ocr.dev.yaml:1:1"
    assert entry.at("stage").startswith("profiles/registry/ocr.yaml:3:")


def test_an_empty_overlay_changes_nothing() -> None:
    """A file of comments alone is legal."""
    base = json.dumps(PLUGIN)
    assert entry_of(base, "# later\n") == entry_of(base)


@pytest.mark.parametrize(
    ("overlay", "where"),
    [
        ("core: '>='\n", "ocr.dev.yaml:1:1"),
        ("source:\n  path: ../x\n", "ocr.dev.yaml:2:3"),
        ("- a\n", "ocr.dev.yaml:1:1"),
        ("env: {A: 3}\n", "ocr.dev.yaml:1:7"),
        ("env: {C: x}\n", "ocr.yaml:4:3"),
    ],
)
def test_errors_point_at_the_file_that_holds_them(overlay: str, where: str) -> None:
    """An overlay's fault is told at the overlay's line, the base's at the base's."""
    bad = where.startswith("ocr.yaml")
    base = f"name: ocr\nstage: eval\nenv:\n  B: {'1' if bad else 'x'}\nentry: a:b\nsource: {{path: a}}\n"
    with pytest.raises(ConfigError) as caught:
        entry_of(base, overlay)
    assert [problem.where for problem in caught.value.problems] == [f"profiles/registry/{where}"]


def test_the_same_name_twice_is_refused() -> None:
    """Two files whose names normalise to one are told with the place of the first."""
    trees = [
        (parse_yaml(json.dumps({**PLUGIN, "name": name}), f"profiles/registry/{name}.yaml"), None)
        for name in ("a-b", "a_b")
    ]
    with pytest.raises(ConfigError, match=r"stands in profiles/registry/a-b\.yaml:1:2 already"):
        parse(trees)


def test_all_files_are_judged_at_once(workshop: Workshop) -> None:
    """Faults in three files, one of them no YAML's schema, are one report, exit 2, with nothing else on stdout."""
    workshop.entry("alpha", stage="evl")
    workshop.entry("beta", source={"git": "ext::sh", "tag": "v1"}, extras="x")
    workshop.write("profiles/registry/gamma.yaml", "name: other\nstage: eval\nentry: a:b\nsource: {path: a}\n")
    ran = workshop.run("lock", "--format", "json")
    assert ran.status == 2
    found = ran.json["problems"]
    assert isinstance(found, list)
    assert [problem["entry"] for problem in found] == ["alpha", "beta", "beta", "gamma"]
    assert all(problem["where"].startswith(f"profiles/registry/{problem['entry']}.yaml:") for problem in found)
    assert found[-1]["hint"] == "mv profiles/registry/gamma.yaml profiles/registry/other.yaml"
