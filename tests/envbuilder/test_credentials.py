"""Passwords and tokens: taken from git's and uv's own helpers, refused in files, and never told."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from local_index import Index, make_wheel
from workshop import PYTHON, Ran, Workshop

from envbuilder.errors import Problem, redacted

SECRET = "s3cr3t-t0ken"  # noqa: S105 - what must not be seen


@pytest.fixture
def closed(tmp_path: Path) -> Iterator[Index]:
    """An index that answers nobody without name and password."""
    make_wheel(tmp_path / "wheels", "common")
    with Index(tmp_path / "wheels", login=("robot", SECRET)) as index:
        yield index


def untold(workshop: Workshop, *runs: Ran) -> None:
    """Nothing that was printed, and no file of the workspace or its state, holds the secret."""
    for ran in runs:
        assert SECRET not in ran.out + ran.err
    found = [path for path in workshop.work.rglob("*") if path.is_file() and SECRET.encode() in path.read_bytes()]
    assert not found


def variables(index: Index) -> dict[str, str]:
    """The password by uv's own variables, which go by the name that the generated project gives the index."""
    name = f"UV_INDEX_127_0_0_1_{index.url.split(':')[2].split('/')[0]}"
    return {f"{name}_USERNAME": "robot", f"{name}_PASSWORD": SECRET}


def netrc(folder: Path) -> dict[str, str]:
    """The password by a netrc file."""
    file = folder / "netrc"
    file.write_text(f"machine 127.0.0.1 login robot password {SECRET}\n")
    file.chmod(0o600)
    return {"NETRC": str(file)}


@pytest.mark.parametrize("kind", ["variables", "netrc"])
def test_an_index_that_wants_a_password(workshop: Workshop, closed: Index, kind: str) -> None:
    """Uv's variables and a netrc file open it for lock and build; neither lock, store nor output tells the password."""
    workshop.write("profiles/prod/profile.toml", f'python = "{PYTHON}"\nindex-url = "{closed.url}"\n')
    workshop.plugin("alpha", dependencies=("common",))
    cache = {"UV_CACHE_DIR": str(workshop.root / "cache")}
    refused = workshop.within("lock", "--format", "json", env=cache)
    assert (refused.status, refused.codes) == (1, ["lock-failed"])
    env = {**cache, **(variables(closed) if kind == "variables" else netrc(workshop.root))}
    locked = workshop.within("lock", env=env)
    assert locked.status == 0, locked.err
    built = workshop.within("build", env=env)
    assert built.status == 0, built.err
    untold(workshop, refused, locked, built)


@pytest.mark.parametrize(
    ("file", "text", "key"),
    [
        ("profiles/prod/profile.toml", f'index-url = "https://robot:{SECRET}@pkgs.example.org/simple"\n', "index-url"),
        ("profiles/prod/profile.toml", f'extra-index-urls = ["https://x.org/?api_key={SECRET}"]\n', "extra-index-urls"),
        ("pyproject.toml", f'[tool.envbuilder.git-mirrors]\n"https://a/" = "https://{SECRET}@b/"\n', "git-mirrors"),
        ("pyproject.toml", f'[tool.envbuilder.git-mirrors]\n"ssh://git:{SECRET}@a/" = "b/"\n', "git-mirrors"),
        (
            "profiles/registry/alpha.yaml",
            f"name: alpha\nstage: eval\nentry: a:b\nsource: {{git: 'https://{SECRET * 9}@h/x.git', tag: v1}}\n",
            "source.git",
        ),
        (
            "profiles/registry/alpha.yaml",
            f"name: alpha\nstage: eval\nentry: a:b\nsource: {{git: 'https://h/x.git?private_token={SECRET}', tag: v1}}\n",
            "source.git",
        ),
    ],
)
def test_a_token_in_a_committed_file_is_refused(workshop: Workshop, file: str, text: str, key: str) -> None:
    """Whatever file it stands in, the error says where and what to use instead, and does not repeat it."""
    workshop.write(file, text)
    for form in ("text", "json"):
        ran = workshop.within("lock", "--format", form)
        assert ran.status == 2
        said = ran.err if form == "text" else ran.out
        assert key in said
        assert "git's credential helper" in " ".join(said.split())
        assert SECRET not in ran.out + ran.err


def test_a_person_s_git_settings_are_not_told(workshop: Workshop) -> None:
    """A token in insteadOf is git's to use: the errors of git, by ours and by uv's hand, do not repeat it."""
    config = workshop.root / "gitconfig"
    config.write_text(f'[url "http://robot:{SECRET}@127.0.0.1:1/"]\n    insteadOf = https://private.example.org/\n')
    env = {"GIT_CONFIG_GLOBAL": str(config)}
    workshop.entry("alpha", source={"git": "https://private.example.org/alpha.git", "tag": "v1"})
    locked = workshop.within("lock", "--format", "json", env=env)
    assert (locked.status, locked.codes) == (1, ["remote-unreachable"])
    checked = workshop.within("check", env=env)
    workshop.plugin(
        "alpha",
        pyproject='[build-system]\nrequires = []\nbuild-backend = "tiny_backend"\nbackend-path = ["backend"]\n'
        '[project]\nname = "alpha"\nversion = "0.1.0"\ndependencies = ["helper"]\n'
        '[tool.uv.sources]\nhelper = {git = "https://private.example.org/helper.git", tag = "v1"}\n',
    )
    by_uv = workshop.within("lock", "--format", "json", env=env)
    assert (by_uv.status, by_uv.codes) == (1, ["lock-failed"])
    untold(workshop, locked, checked, by_uv)


def test_a_credential_helper_opens_a_repository(workshop: Workshop) -> None:
    """Git asks its helper, without a prompt; what it answers goes to the server alone."""
    marker = workshop.root / "asked"
    helper = workshop.root / "helper"
    helper.write_text(
        f'#!/bin/sh\ntest "$1" = get && touch {marker} && echo username=robot && echo password={SECRET}\n'
    )
    helper.chmod(0o755)
    make_wheel(workshop.root / "none", "common")
    with Index(workshop.root / "none", login=("robot", SECRET)) as server:
        address = server.url.removesuffix("/simple")
        workshop.entry("alpha", source={"git": f"{address}/alpha.git", "tag": "v1"})
        config = workshop.root / "gitconfig"
        config.write_text(f"[credential]\n    helper = {helper}\n")
        ran = workshop.within("lock", "--format", "json", env={"GIT_CONFIG_GLOBAL": str(config)})
    assert marker.exists()
    assert (ran.status, ran.codes) == (
        1,
        ["remote-unreachable"],
    )  # It is no git server: past the door, there is nothing.
    untold(workshop, ran)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("cannot reach https://a:b@h/x: no", "cannot reach https://***@h/x: no"),
        ("'http://t@h:1/x'", "'http://***@h:1/x'"),
        ("https://a:p@ss@h/x", "https://***@h/x"),
        ("ssh://git@h/x stays", "ssh://git@h/x stays"),
        ("ssh://git:b@h/x", "ssh://***@h/x"),
        ("https://h/x?private_token=abc&y=1", "https://h/x?private_token=***&y=1"),
        ("alpha @ git+https://a:b@h/x", "alpha @ git+https://***@h/x"),
        ("https://h/a@b and me@b.org", "https://h/a@b and me@b.org"),
    ],
)
def test_redaction(text: str, expected: str) -> None:
    """Names and passwords before a host go, and values of parameters that name a secret; the rest stays."""
    assert redacted(text) == expected
    assert Problem("x", text, where=text, hint=text) == Problem("x", expected, where=expected, hint=expected)
