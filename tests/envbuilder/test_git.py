"""Clones, mirrors and refs, on real repositories."""

from __future__ import annotations

import os
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from workshop import Workshop

from envbuilder import process
from envbuilder.errors import ToolError
from envbuilder.git import RemoteError, Repository, mirrored, uv_settings

URL = "https://git.example.org/alpha.git"


def clone_of(workshop: Workshop, url: str = URL, remote: str | None = None) -> Repository:
    """The clone of an address that a mirror leads to the workshop's remotes."""
    return Repository(url, workshop.root / "clones", {"https://git.example.org/": remote or f"{workshop.remotes}/"})


def remote_git(workshop: Workshop, *arguments: str, name: str = "alpha") -> str:
    """Run git in a remote."""
    return workshop.git("-C", str(workshop.remotes / f"{name}.git"), *arguments)


def test_mirrored_takes_the_longest_prefix() -> None:
    """The most specific mirror wins, whichever stands first, and an address without one stays."""
    mirrors = {"https://a/": "https://one/", "https://a/team/": "ssh://git@two/", "https://a/team/x.git": "/srv/x.git"}
    for order in (mirrors, dict(reversed(list(mirrors.items())))):
        assert mirrored("https://a/y.git", order) == "https://one/y.git"
        assert mirrored("https://a/team/y.git", order) == "ssh://git@two/y.git"
        assert mirrored("https://a/team/x.git", order) == "/srv/x.git"
        assert mirrored("https://b/x.git", order) == "https://b/x.git"


@pytest.mark.parametrize(
    ("there", "url", "expected"),
    [
        ("alpha.git", "alpha.git", "alpha.git"),
        ("alpha.git", "alpha", "alpha.git"),
        ("alpha", "alpha.git", "alpha"),
        ("alpha.bundle", "alpha.git", "alpha.bundle"),
        ("alpha.bundle", "alpha", "alpha.bundle"),
        ("alpha.git alpha.bundle", "alpha", "alpha.git"),
        ("beta.git", "alpha.git", "alpha.git"),
    ],
)
def test_mirrored_finds_a_repository_or_a_bundle(tmp_path: Path, there: str, url: str, expected: str) -> None:
    """A folder with or without .git comes first, then a bundle; what is not there is named as it was asked for."""
    for name in there.split():
        (tmp_path / name).write_text("") if name.endswith("bundle") else (tmp_path / name).mkdir()
    assert mirrored(f"https://a/{url}", {"https://a/": f"{tmp_path}/"}) == f"{tmp_path}/{expected}"


@pytest.mark.parametrize("bundled", [False, True])
def test_remote_refs_peel_tags(workshop: Workshop, bundled: object) -> None:
    """Annotated tags, tags of tags and lightweight tags are told with their commit, from a folder and a bundle."""
    first = workshop.release("alpha", "v0.1.0")
    second = workshop.release("alpha", "v0.2.0", annotate=False, code="x = 1")
    remote_git(workshop, "tag", "--annotate", "--message", "again", "twice", "v0.1.0")
    remote_git(workshop, "branch", "v0.1.0", second)
    if bundled:
        remote_git(workshop, "bundle", "create", "--quiet", str(workshop.remotes / "alpha.bundle"), "--all")
        (workshop.remotes / "alpha.git").rename(workshop.root / "away.git")
    refs = clone_of(workshop).remote_refs()
    assert {name: found.commit for name, found in refs.items()} == {
        "refs/tags/v0.1.0": first,
        "refs/tags/twice": first,
        "refs/tags/v0.2.0": second,
        "refs/heads/v0.1.0": second,
        "refs/heads/main": second,
    }
    assert refs["refs/tags/v0.1.0"].object != first
    assert refs["refs/tags/v0.2.0"].object == second


def test_a_branch_and_a_tag_of_one_name_are_two(workshop: Workshop) -> None:
    """Each kind of ref is asked for by its full name."""
    first = workshop.release("alpha", "same")
    second = workshop.release("alpha", "other", code="x = 1")
    remote_git(workshop, "branch", "same", second)
    clone = clone_of(workshop)
    tag, branch = clone.fetch("tag", "same"), clone.fetch("branch", "same")
    assert tag is not None
    assert branch is not None
    assert (tag.commit, branch.commit) == (first, second)
    assert tag.object != tag.commit
    assert tag.tree == remote_git(workshop, "rev-parse", f"{first}^{{tree}}")


@pytest.mark.parametrize("bundled", [False, True])
def test_fetch_brings_a_bare_commit(workshop: Workshop, bundled: object) -> None:
    """A commit without a tag comes from a server that gives it and from a bundle that cannot be asked for it."""
    workshop.release("alpha", "v0.1.0")
    remote_git(workshop, "tag", "--delete", "v0.1.0")
    commit = remote_git(workshop, "rev-parse", "main")
    workshop.release("alpha", "v0.2.0", code="x = 1")
    if bundled:
        remote_git(workshop, "bundle", "create", "--quiet", str(workshop.remotes / "alpha.bundle"), "--all")
        (workshop.remotes / "alpha.git").rename(workshop.root / "away.git")
    clone = clone_of(workshop)
    found = clone.fetch("rev", commit)
    assert found is not None
    assert (found.object, found.commit) == (commit, commit)
    assert clone.has(commit)
    assert clone.fetch("rev", "0" * 40) is None


def test_what_is_not_there_is_none(workshop: Workshop) -> None:
    """A tag, branch or file that a repository lacks is no error."""
    commit = workshop.release("alpha", "v0.1.0", subdirectory="plugins/a")
    clone = clone_of(workshop)
    assert clone.fetch("tag", "v9") is None
    assert clone.fetch("branch", "v0.1.0") is None
    assert clone.resolve("tag", "v0.1.0") is None
    assert clone.fetch("tag", "v0.1.0") is not None
    assert "alpha" in str(clone.read(commit, "plugins/a/pyproject.toml"))
    assert clone.read(commit, "pyproject.toml") is None
    assert clone.read(commit, "plugins/a") is None
    assert not clone.has("v0.1.0")


@pytest.mark.parametrize("there", ["nothing", "an empty folder", "a text file", "a torn bundle"])
def test_a_remote_that_does_not_answer_is_told(workshop: Workshop, there: str) -> None:
    """The error names the address, the mirror, git's reason, and a command that shows the same."""
    remote = workshop.remotes / "alpha.git"
    if there == "an empty folder":
        remote.mkdir()
    elif there == "a text file":
        remote.write_text("hello")
    elif there == "a torn bundle":
        workshop.release("beta", "v0.1.0")
        remote_git(workshop, "bundle", "create", "--quiet", str(remote), "--all", name="beta")
        remote.write_bytes(remote.read_bytes()[:-100])
    clone = clone_of(workshop)
    for act in (clone.remote_refs, lambda: clone.fetch("tag", "v0.1.0"), lambda: clone.fetch("rev", "1" * 40)):
        with pytest.raises(RemoteError, match=r"cannot reach https://git\.example\.org/alpha\.git \(through") as caught:
            act()
        assert (caught.value.code, caught.value.where) == ("remote-unreachable", URL)
        assert caught.value.hint == f"git ls-remote {remote}"


def test_a_ref_that_became_a_folder_is_fetched(workshop: Workshop) -> None:
    """Where the remote once had tag `release` and has `release/1` now, the clone follows."""
    commit = workshop.release("alpha", "release")
    clone = clone_of(workshop)
    assert clone.fetch("tag", "release")
    remote_git(workshop, "tag", "--delete", "release")
    second = workshop.release("alpha", "release/1", code="x = 1")
    found = clone.fetch("tag", "release/1")
    assert found is not None
    assert found.commit == second
    assert clone.has(commit)  # What was pinned once is never lost.


def test_a_commit_comes_though_tags_became_folders(workshop: Workshop) -> None:
    """Tags up to a commit are named beside those that the clone has, also where one stands in another's way."""
    first = workshop.release("alpha", "release")
    clone = clone_of(workshop)
    assert clone.fetch("rev", first)
    remote_git(workshop, "tag", "--delete", "release")
    second = workshop.release("alpha", "release/1", code="x = 1")
    workshop.release("alpha", "near", code="x = 2")
    third = workshop.release("alpha", "later", code="x = 3")
    remote_git(workshop, "tag", "--delete", "later")
    assert clone.fetch("rev", third)
    assert clone.fetch("rev", third)
    near = clone.resolve("tag", "near")
    assert near is not None
    assert clone.resolve("tag", "release") is not None
    assert clone.has(second)


def test_leftovers_of_a_killed_git_do_not_last(workshop: Workshop) -> None:
    """Lock files that a killed git left, and a clone that was never finished, stop nobody."""
    commit = workshop.release("alpha", "v0.1.0")
    clone = clone_of(workshop)
    (clone.path / "objects").mkdir(parents=True)  # A killed `git init`: no HEAD yet.
    found = clone.fetch("tag", "v0.1.0")
    assert found is not None
    clone.path.joinpath("refs/tags/v0.1.0").unlink()
    clone.path.joinpath("refs/tags/v0.1.0.lock").write_text("")
    clone.path.joinpath("config.lock").write_text("")
    found = clone.fetch("tag", "v0.1.0")
    assert found is not None
    assert found.commit == commit


def test_many_at_once_share_one_clone(workshop: Workshop) -> None:
    """Sixteen fetches into a clone that is not there yet all succeed."""
    tags = [f"v0.{number}.0" for number in range(8)]
    commits = {tag: workshop.release("alpha", tag, code=tag.replace("v0.", "x = ").replace(".0", "")) for tag in tags}

    def fetch(tag: str) -> str:
        found = clone_of(workshop).fetch("tag", tag)
        assert found is not None
        return found.commit

    with ThreadPoolExecutor(16) as pool:
        assert list(pool.map(fetch, tags * 2)) == [commits[tag] for tag in tags * 2]


def test_point_gives_a_tag_its_pinned_object_back(workshop: Workshop) -> None:
    """A tag that has moved at the remote names the pin again in the clone."""
    first = workshop.release("alpha", "v0.1.0")
    clone = clone_of(workshop)
    pin = clone.fetch("tag", "v0.1.0")
    remote_git(workshop, "tag", "--delete", "v0.1.0")
    workshop.release("alpha", "v0.1.0", code="x = 1")
    moved = clone.fetch("tag", "v0.1.0")
    assert pin is not None
    assert moved is not None
    assert moved.commit != first
    clone.point("tag", "v0.1.0", pin.object)
    assert clone.resolve("tag", "v0.1.0") == pin
    with pytest.raises(ToolError, match="cannot make") as caught:
        clone.point("tag", "v0.1.0", "0123" * 10)
    assert caught.value.hint == f"ls -ld {clone.path.parent}"


def test_a_git_hook_does_not_lead_us_astray(workshop: Workshop, monkeypatch: pytest.MonkeyPatch) -> None:
    """With GIT_DIR and the like set, as in a hook, a checkout happens where it should, not in the user's repository."""
    commit = workshop.release("alpha", "v0.1.0")
    workshop.release("mine", "v1")
    own = workshop.remotes / "mine.git"
    before = remote_git(workshop, "rev-parse", "--abbrev-ref", "HEAD", name="mine")
    monkeypatch.setenv("GIT_DIR", str(own / ".git"))
    monkeypatch.setenv("GIT_WORK_TREE", str(own))
    monkeypatch.setenv("GIT_INDEX_FILE", str(own / ".git" / "index"))
    clone = clone_of(workshop)
    assert clone.fetch("tag", "v0.1.0")
    clone.checkout(commit, workshop.root / "out")
    assert (workshop.root / "out" / "src" / "alpha" / "__init__.py").is_file()
    for name in ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE"):
        monkeypatch.delenv(name)
    assert remote_git(workshop, "rev-parse", "--abbrev-ref", "HEAD", name="mine") == before
    assert remote_git(workshop, "status", "--porcelain", name="mine") == ""


def test_clones_that_cannot_be_written_are_told(workshop: Workshop) -> None:
    """A file where the clones' folder belongs is an error with a hint."""
    workshop.release("alpha", "v0.1.0")
    (workshop.root / "clones").write_text("")
    with pytest.raises(ToolError, match="cannot write") as caught:
        clone_of(workshop).fetch("tag", "v0.1.0")
    assert caught.value.hint


def test_uv_settings_lead_git_to_the_clone(workshop: Workshop, monkeypatch: pytest.MonkeyPatch) -> None:
    """Git run with these variables fetches the canonical address from the clone, beside what the user set that way."""
    commit = workshop.release("alpha", "v0.1.0")
    clone = clone_of(workshop)
    assert clone.fetch("tag", "v0.1.0")
    monkeypatch.setenv("GIT_CONFIG_COUNT", "1")
    monkeypatch.setenv("GIT_CONFIG_KEY_0", "user.name")
    monkeypatch.setenv("GIT_CONFIG_VALUE_0", "somebody")
    env = {**os.environ, **uv_settings([clone])}
    done = subprocess.run(["git", "ls-remote", URL, "v0.1.0^{}"], env=env, capture_output=True, text=True, check=True)
    assert done.stdout.split()[0] == commit
    name = subprocess.run(["git", "config", "user.name"], env=env, capture_output=True, text=True, check=True)
    assert name.stdout.strip() == "somebody"
    subprocess.run(
        ["git", "fetch", "--quiet", URL, commit], env=env, cwd=_empty(workshop), check=True, capture_output=True
    )


def _empty(workshop: Workshop) -> Path:
    folder = workshop.root / "empty"
    workshop.git("init", "--quiet", str(folder))
    return folder


def test_programs_in_addresses_are_not_run(workshop: Workshop) -> None:
    """Should an address ever pass the schema, git itself still refuses to run a program for it."""
    marker = workshop.root / "ran"
    clone = Repository(f"ext::touch {marker}", workshop.root / "clones", {})
    with pytest.raises(RemoteError, match=r"transport 'ext' not allowed"):
        clone.remote_refs()
    assert not marker.exists()
    assert process.run(["git", "--version"]).ok
