"""Every code that `check` reports, and what uv itself says to the same."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
from pathlib import Path

import pytest
from workshop import PYTHON, Ran, Workshop

from envbuilder.git import repository


def problems(ran: Ran) -> list[dict[str, str]]:
    """The problems of an envelope, each of which must say what it is, where, and what to do."""
    found = ran.json["problems"]
    assert isinstance(found, list)
    for each in found:
        assert set(each) == {"code", "severity", "entry", "where", "message", "hint"}
        assert each["where"]
        assert each["hint"]
    return found


def check(workshop: Workshop, *arguments: str) -> list[tuple[str, str]]:
    """Entry and code of every error that check reports; the status must agree."""
    ran = workshop.within("check", "--format", "json", *arguments)
    found = [each for each in problems(ran) if each["severity"] == "error"]
    assert ran.status == (1 if found else 0), ran.out
    return [(each["entry"], each["code"]) for each in found]


def only(workshop: Workshop, *arguments: str) -> dict[str, str]:
    """The one problem that check reports."""
    ran = workshop.within("check", "--format", "json", *arguments)
    (found,) = (each for each in problems(ran) if each["severity"] == "error")
    return found


def uv_is_content(workshop: Workshop, plugin: str = "alpha") -> bool:
    """Whether `uv lock --check` calls a plugin's lock good, with remotes at hand and nothing of ours in between."""
    env = {
        **workshop.environment(),
        "GIT_CONFIG_COUNT": "1",
        "GIT_CONFIG_KEY_0": f"url.{workshop.remotes.as_uri()}/.insteadOf",
        "GIT_CONFIG_VALUE_0": "https://git.example.org/",
    }
    folder = workshop.work / "profiles" / "prod" / plugin
    done = subprocess.run(
        ["uv", "lock", "--check", "--project", str(folder)], env=env, capture_output=True, text=True, check=False
    )
    return done.returncode == 0


def retag(workshop: Workshop, name: str, tag: str, commit: str | None = None) -> None:
    """Remove a tag at the remote, or put it on another commit."""
    repository = str(workshop.remotes / f"{name}.git")
    workshop.git("-C", repository, "tag", "--delete", tag)
    if commit:
        workshop.git("-C", repository, "tag", "--annotate", "--message", tag, tag, commit)


def lock(workshop: Workshop, *arguments: str) -> None:
    """Lock, which must succeed."""
    ran = workshop.within("lock", "-q", *arguments)
    assert ran.status == 0, ran.err


def obey(workshop: Workshop, hint: str) -> None:
    """Run a hint in a shell, as a person would paste it."""
    program = " ".join(workshop.argv())
    done = subprocess.run(
        ["sh", "-c", f'envbuilder() {{ {program} "$@"; }}; {hint}'],
        cwd=workshop.work,
        env=workshop.environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def test_check_is_content_with_what_was_locked(workshop: Workshop) -> None:
    """Nothing wrong: exit 0, one line for people, one envelope for tools, nothing else on stdout."""
    workshop.plugin("alpha", dependencies=("lib",))
    workshop.release("lib", "v0.1.0")
    workshop.entry("lib", kind="library")
    lock(workshop)
    ran = workshop.run("check", "--format", "json")
    assert json.loads(ran.out) == {
        "schema": "envbuilder/check/1",
        "ok": True,
        "profile": "prod",
        "result": {"entries": 2, "locks": 1, "remotes": 2, "core": [], "matrix": []},
        "problems": [],
    }
    assert ran.err == ""
    assert workshop.run("check").out == "checked 2 entries, 1 lock, 2 remotes: all as it should be\n"


@pytest.mark.parametrize(
    ("source", "kind"),
    [
        ({"path": "packages/alpha"}, "path"),
        ({"git": "https://git.example.org/alpha.git", "branch": "main"}, "git-branch"),
        ({"pypi": ">=1,<2"}, "pypi-range"),
    ],
)
def test_source_not_allowed(workshop: Workshop, source: dict[str, str], kind: str) -> None:
    """What can move is dev's alone; prod names what it allows."""
    workshop.package(workshop.work / "packages" / "alpha", name="alpha")
    workshop.release("alpha", "v0.1.0")
    workshop.entry("alpha", source=source)
    found = problems(workshop.within("check", "--format", "json"))
    assert [each["code"] for each in found] == ["lock-missing", "source-not-allowed"]
    assert f"source is {kind}" in found[1]["message"]
    assert found[1]["message"].endswith("prod allows git-tag, git-rev, pypi-exact")
    assert check(workshop, "--profile", "dev") == [("alpha", "lock-missing")]


def test_tag_missing_names_the_nearest(workshop: Workshop) -> None:
    """A tag that was never there is told with those that look like it; branches are no tags."""
    workshop.plugin("alpha")
    workshop.release("alpha", "v0.2.0")
    workshop.git("-C", str(workshop.remotes / "alpha.git"), "branch", "v0.2.1")
    workshop.entry("alpha", tag="v0.2.1")
    found = problems(workshop.within("check", "--format", "json"))
    assert [each["code"] for each in found] == ["lock-missing", "tag-missing"]
    assert "has no tag 'v0.2.1'; nearest: v0.2.0, v0.1.0" in found[1]["message"]
    obey(workshop, found[1]["hint"])


def test_a_commit_that_is_nowhere_is_missing_too(workshop: Workshop) -> None:
    """A pinned commit that the remote does not have is told by check and by lock."""
    workshop.plugin("alpha")
    workshop.entry("alpha", source={"git": "https://git.example.org/alpha.git", "rev": "0123456789" * 4})
    assert check(workshop) == [("alpha", "lock-missing"), ("alpha", "tag-missing")]
    assert workshop.within("lock", "--format", "json").codes == ["tag-missing"]


def test_tag_moved_is_not_seen_by_uv(workshop: Workshop) -> None:
    """A tag that names another commit now: uv's check passes, ours says which commits, and its hint takes the new one."""
    old = workshop.plugin("alpha")
    lock(workshop)
    new = workshop.release("alpha", "later", code="x = 1")
    retag(workshop, "alpha", "v0.1.0", new)
    assert uv_is_content(workshop)
    found = only(workshop)
    assert found["code"] == "tag-moved"
    assert old[:12] in found["message"]
    assert new[:12] in found["message"]
    assert check(workshop, "--offline") == []
    assert found["hint"] == "envbuilder lock --profile prod --repin alpha  # if that was meant"
    obey(workshop, found["hint"])
    assert check(workshop) == []


def test_a_tag_made_again_on_its_commit_is_fine(workshop: Workshop) -> None:
    """Another tag object with the same commit is the same code."""
    commit = workshop.plugin("alpha", annotate=False)
    lock(workshop)
    retag(workshop, "alpha", "v0.1.0", commit)
    assert check(workshop) == []


def test_tag_deleted_is_not_seen_by_uv(workshop: Workshop) -> None:
    """A tag that is gone from the remote: uv's check passes, ours names the commit that was locked."""
    commit = workshop.plugin("alpha")
    lock(workshop)
    retag(workshop, "alpha", "v0.1.0")
    assert uv_is_content(workshop)
    found = only(workshop)
    assert found["code"] == "tag-deleted"
    assert commit[:12] in found["message"]


def test_lock_off_tag_is_not_seen_by_uv(workshop: Workshop) -> None:
    """A lock edited to a commit that the tag never had: uv's check passes, ours says both commits and mends it."""
    workshop.plugin("alpha")
    lock(workshop)
    other = workshop.release("alpha", "later", code="x = 1")
    file = workshop.work / "profiles" / "prod" / "alpha" / "uv.lock"
    commit = workshop.git("-C", str(workshop.remotes / "alpha.git"), "rev-parse", "v0.1.0^{commit}")
    file.write_text(file.read_text().replace(commit, other))
    assert uv_is_content(workshop)
    found = problems(workshop.within("check", "--format", "json", "--offline"))
    assert [each["code"] for each in found] == ["lock-off-tag", "lock-stale"]
    assert other in found[0]["message"]
    assert commit in found[0]["message"]
    obey(workshop, found[0]["hint"])
    assert check(workshop) == []


@pytest.mark.parametrize("version", ["0.1.1", "0.1.0.post1", "0.1.0rc1", "0.1.0+local", "1!0.1.0"])
def test_version_mismatch_is_not_seen_by_uv(workshop: Workshop, version: str) -> None:
    """A tag that holds another version than it says: uv locks it and is content, check is not."""
    workshop.release("alpha", "v0.1.0", version=version)
    workshop.entry("alpha")
    lock(workshop)
    assert uv_is_content(workshop)
    found = only(workshop)
    assert found["code"] == "version-mismatch"
    assert found["message"] == f"tag 'v0.1.0' holds a package that declares version {version}"
    assert check(workshop, "--offline") == [("alpha", "version-mismatch")]


def test_spellings_of_one_version_match(workshop: Workshop) -> None:
    """v0.0.1-dev0 holds 0.0.1.dev0."""
    workshop.release("alpha", "v0.0.1-dev0", version="0.0.1.dev0")
    workshop.entry("alpha", tag="v0.0.1-dev0")
    lock(workshop)
    assert check(workshop) == []


def test_name_mismatch(workshop: Workshop) -> None:
    """Another package than the entry says is told by check, and cannot be locked."""
    workshop.release("alpha", "v0.1.0")
    workshop.entry("beta", source={"git": "https://git.example.org/alpha.git", "tag": "v0.1.0"})
    assert check(workshop) == [("beta", "lock-missing"), ("beta", "name-mismatch")]
    ran = workshop.within("lock", "--format", "json")
    assert (ran.status, ran.codes) == (1, ["lock-failed"])


@pytest.mark.parametrize("overlaid", [False, True])
def test_core_incompatible_names_the_newest_tag_that_fits(workshop: Workshop, overlaid: object) -> None:
    """The hint takes the newest release whose package accepts the core, wherever the source stands, and mends it."""
    workshop.settings(core={"vlm-core": '"0.2.0"'})
    bounds = {"v0.1.0": "<0.2", "v0.2.0": ">=0.2,<0.3", "v0.10.0": ">=0.2,<0.3", "v0.11.0rc1": ">=0.2", "v1.0.0": ">=1"}
    for tag, bound in bounds.items():
        workshop.release("alpha", tag, version=tag[1:], dependencies=(f"vlm-core{bound}",), code=f"x = '{tag}'")
    workshop.release("vlm-core", "v0.2.0", version="0.2.0")
    workshop.entry("vlm-core", kind="library", tag="v0.2.0")
    profile = "prod"
    if overlaid:
        profile = "dev"
        workshop.entry("alpha", tag="v1.0.0")
        text = "# live\nsource:\n  git: https://git.example.org/alpha.git\n  tag: 'v0.1.0'\n"
        workshop.write("profiles/registry/alpha.dev.yaml", text)
    else:
        workshop.entry("alpha", tag="v0.1.0")
    lock(workshop, "--profile", profile)
    found = only(workshop, "--profile", profile)
    assert found["code"] == "core-incompatible"
    assert found["message"].startswith("the core is vlm-core 0.2.0; the package at https://git.example.org/alpha.git")
    assert found["message"].endswith("accepts <0.2")
    assert "v0.10.0 is the newest tag that fits" in found["hint"]
    obey(workshop, found["hint"])
    assert check(workshop, "--profile", profile) == []
    if overlaid:
        assert '"v1.0.0"' in (workshop.registry / "alpha.yaml").read_text()


@pytest.mark.parametrize(
    ("core", "dependencies", "keys", "codes"),
    [
        ("0.3.0rc1", ("vlm-core>=0.2,<0.3",), {}, ["core-incompatible"]),
        ("0.3.0rc1", ("vlm-core>=0.2",), {}, []),
        ("0.3.0", ("vlm-core>=0.3; python_version >= '3.8'", "vlm-core<0.3; python_version < '3.8'"), {}, []),
        ("0.3.0", ("vlm-core>=9; sys_platform == 'win32'", "vlm-core"), {}, []),
        ("0.3.0", ("vlm-core",), {"core": "<0.3"}, ["core-incompatible"]),
        ("0.3.0", ("vlm-core<0.3",), {"core": "<0.2"}, ["core-incompatible", "core-incompatible"]),
        ("0.3.0", (), {}, []),
    ],
)
def test_core_is_judged_by_package_and_entry(
    workshop: Workshop, core: str, dependencies: tuple[str, ...], keys: dict[str, str], codes: list[str]
) -> None:
    """Pre-releases count by their order, markers of other Pythons and platforms do not bind, the entry narrows."""
    workshop.settings(core={"vlm-core": f'"{core}"'})
    workshop.release("vlm-core", "v0.2.0", version="0.2.0")
    workshop.entry("vlm-core", kind="library", tag="v0.2.0")
    workshop.plugin("alpha", dependencies=dependencies, keys=keys)
    lock(workshop)
    assert [code for _, code in check(workshop)] == codes


def test_python_incompatible(workshop: Workshop) -> None:
    """Profile, entry, package and sibling must leave one interpreter, and this machine must have it."""
    workshop.plugin("alpha", requires_python=">=3.6,<3.8")
    workshop.plugin("beta", keys={"python": "==3.9.1"})
    workshop.plugin("gamma", dependencies=("lib",))
    workshop.release("lib", "v0.1.0")
    workshop.entry("lib", kind="library")
    lock(workshop, "gamma")
    found = problems(workshop.within("check", "--format", "json"))
    messages = {each["entry"]: each["message"] for each in found if each["code"] == "python-incompatible"}
    assert set(messages) == {"alpha", "beta"}
    assert messages["alpha"] == f"no Python satisfies all: profile prod wants =={PYTHON}.*; alpha wants >=3.6,<3.8"
    assert messages["beta"].startswith("no Python ==3.9.1,>=3.8 on this machine")


def test_lock_missing_and_stale(workshop: Workshop) -> None:
    """No lock, and a lock that does not follow from the registry any more; both hints mend it."""
    workshop.plugin("alpha")
    found = only(workshop)
    assert (found["code"], found["where"]) == ("lock-missing", "profiles/prod/alpha/uv.lock")
    obey(workshop, found["hint"])
    workshop.settings(core={"vlm-core": '"7.0"'})
    found = only(workshop)
    assert found["code"] == "lock-stale"
    obey(workshop, found["hint"])
    assert check(workshop) == []


@pytest.mark.parametrize(
    ("pyproject", "said"),
    [
        ("[project\n", "not valid TOML"),
        ('[project]\nname = "alpha"\nversion = "0.1.0"\nrequires-python = ">=3.6.*"\n', "requires-python"),
        ('[project]\nname = "alpha"\nversion = 3\n', "unexpected form"),
    ],
)
def test_metadata_unreadable(workshop: Workshop, pyproject: str, said: str) -> None:
    """A tag whose pyproject.toml cannot be read is told with address, tag and reason."""
    workshop.plugin("alpha", pyproject=pyproject)
    found = problems(workshop.within("check", "--format", "json"))
    assert [each["code"] for each in found] == ["lock-missing", "metadata-unreadable"]
    assert found[1]["where"].startswith("https://git.example.org/alpha.git v0.1.0:pyproject.toml")
    assert said in found[1]["message"]


def test_metadata_that_is_not_there(workshop: Workshop) -> None:
    """A subdirectory that the tag lacks, and a folder without a package, are unreadable metadata."""
    workshop.release("alpha", "v0.1.0")
    source = {"git": "https://git.example.org/alpha.git", "tag": "v0.1.0", "subdirectory": "plugins/none"}
    workshop.entry("alpha", source=source)
    workshop.entry("beta", source={"path": "packages/none"})
    found = check(workshop, "--profile", "dev")
    assert ("alpha", "metadata-unreadable") in found
    assert ("beta", "metadata-unreadable") in found


@pytest.mark.parametrize(
    ("members", "bad"),
    [
        ('["packages/*"]', True),
        ('["./packages/alpha"]', True),
        ('["pack*/alpha"]', True),
        ('["tools/*"]', False),
        ("3", False),
        ("[]", False),
    ],
)
def test_workspace_member(workshop: Workshop, members: str, bad: object) -> None:
    """A root that makes the packages its workspace's members is told with the line."""
    workshop.plugin("alpha")
    workshop.package(workshop.work / "packages" / "alpha", name="alpha")
    lock(workshop)
    workshop.settings(core={}, extra=f"[tool.uv.workspace]\nmembers = {members}\n")
    found = problems(workshop.within("check", "--format", "json"))
    assert [(each["code"], each["where"]) for each in found] == (
        [("workspace-member", "pyproject.toml:6:1")] if bad else []
    )


def test_remote_unreachable(workshop: Workshop) -> None:
    """A remote that does not answer is told for each entry of it; the others are judged, the pins still tell theirs."""
    for name in ("alpha", "beta"):
        workshop.release(name, "v0.1.0", version="0.1.1")
        workshop.entry(name)
    lock(workshop)
    (workshop.remotes / "alpha.git").rename(workshop.root / "away")
    assert check(workshop) == [
        ("alpha", "remote-unreachable"),
        ("alpha", "version-mismatch"),
        ("beta", "version-mismatch"),
    ]
    assert check(workshop, "--offline") == [("alpha", "version-mismatch"), ("beta", "version-mismatch")]


def test_remote_that_says_nothing(workshop: Workshop, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that takes the call and never answers is unreachable after a while, and keeps no other from its verdict."""
    workshop.plugin("alpha")
    workshop.plugin("beta", version="0.1.1")
    lock(workshop)
    monkeypatch.setattr(repository, "LISTING_S", 0.5)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        mirror = f'"https://git.example.org/alpha" = "git://127.0.0.1:{silent.getsockname()[1]}/alpha"\n'
        workshop.settings(core={}, extra=mirror)
        ran = workshop.within("check", "--format", "json")
    assert ran.codes == ["remote-unreachable", "version-mismatch"]
    assert "no answer within 0.5 s" in ran.out


def test_everything_is_told_at_once(workshop: Workshop) -> None:
    """Seven plugins with seven faults are seven problems of one run, sorted by entry, with nothing else on stdout."""
    workshop.settings(core={"vlm-core": '"0.2.0"'}, extra='[tool.uv.workspace]\nmembers = ["packages/*"]\n')
    for name in ("deleted", "moved", "off"):
        workshop.plugin(name)
    workshop.plugin("core", keys={"core": "<0.2"})
    workshop.plugin("python", requires_python="<3.8")
    workshop.release("version", "v0.1.0", version="0.2.0")
    for name in ("version", "missing"):
        workshop.entry(name)
    workshop.release("missing", "v9.0.0")
    workshop.within("lock", "-q")
    retag(workshop, "deleted", "v0.1.0")
    retag(workshop, "moved", "v0.1.0", workshop.release("moved", "later", code="x = 1"))
    file = workshop.work / "profiles" / "prod" / "off" / "uv.lock"
    file.write_text(file.read_text().replace("v0.1.0#", "v0.1.0#" + "0" * 40 + "#")[:-1])
    assert check(workshop) == [
        (None, "workspace-member"),
        ("core", "core-incompatible"),
        ("deleted", "tag-deleted"),
        ("missing", "lock-missing"),
        ("missing", "tag-missing"),
        ("moved", "tag-moved"),
        ("off", "lock-off-tag"),
        ("off", "lock-stale"),
        ("python", "python-incompatible"),  # Which uv locks without a word: it looks at lower bounds alone.
        ("version", "version-mismatch"),
    ]


def test_sibling_divergent_is_not_seen_by_uv(workshop: Workshop) -> None:
    """Two plugins locked on different days hold two commits of a library's tag: both are named, and the hint aligns them."""
    names = ("alpha", "beta", "gamma")
    for name in names:
        workshop.plugin(name, dependencies=() if name == "gamma" else ("lib",))
    old = workshop.release("lib", "v0.1.0")
    workshop.entry("lib", kind="library")
    lock(workshop)
    new = workshop.release("lib", "later", code="x = 1")
    retag(workshop, "lib", "v0.1.0", new)
    before = (workshop.work / "profiles" / "prod" / "alpha" / "uv.lock").read_bytes()
    lock(workshop, "--repin", "beta")
    assert (workshop.work / "profiles" / "prod" / "alpha" / "uv.lock").read_bytes() == before
    assert uv_is_content(workshop, "alpha")
    assert uv_is_content(workshop, "beta")
    found = [each for each in problems(workshop.within("check", "--format", "json")) if each["entry"] == "lib"]
    assert [each["code"] for each in found] == ["sibling-divergent"]
    assert found[0]["message"] == f"lib is at {old} in alpha; {new} in beta"
    assert ("lib", "sibling-divergent") in check(workshop, "beta", "--offline")
    assert check(workshop, "gamma") == []
    obey(workshop, found[0]["hint"])
    assert check(workshop) == []


@pytest.mark.parametrize("same", [True, False])
def test_a_library_that_no_entry_names_may_diverge_too(workshop: Workshop, same: object) -> None:
    """What packages take from git by themselves is held to one commit for one tag; two tags are two wishes."""
    first = workshop.release("helper", "v0.1.0")
    tags = {"alpha": "v0.1.0", "beta": "v0.1.0" if same else "v0.2.0"}
    second = workshop.release("helper", "v0.2.0", version="0.1.0" if same else "0.2.0", code="x = 1")
    head = '[build-system]\nrequires = []\nbuild-backend = "tiny_backend"\nbackend-path = ["backend"]\n'
    for name, tag in tags.items():
        project = (
            f'[project]\nname = "{name}"\nversion = "0.1.0"\ndependencies = ["helper"]\n'
            f'[tool.uv.sources]\nhelper = {{git = "https://git.example.org/helper.git", tag = "{tag}"}}\n'
        )
        workshop.plugin(name, pyproject=head + project, dependencies=("helper",))
    lock(workshop, "alpha")
    if same:
        retag(workshop, "helper", "v0.1.0", second)
    env = {"UV_CACHE_DIR": str(workshop.root / "another-day")}
    assert workshop.within("lock", "-q", "beta", env=env).status == 0
    if not same:
        assert check(workshop) == []
        return
    # The pin holds until it is asked for anew.
    assert check(workshop) == [("alpha", "tag-moved"), ("beta", "tag-moved")]
    assert workshop.within("lock", "-q", "--repin", "beta", env=env).status == 0
    off, stale, found = problems(workshop.within("check", "--format", "json"))
    assert [(each["code"], each["entry"]) for each in (off, stale)] == [
        ("lock-off-tag", "alpha"),
        ("lock-stale", "alpha"),
    ]
    assert (found["code"], found["entry"]) == ("sibling-divergent", "helper")
    url = "https://git.example.org/helper.git?tag=v0.1.0"
    assert found["message"] == f"helper ({url}) is at {first} in alpha; {second} in beta"
    obey(workshop, found["hint"])
    assert check(workshop) == []


def test_check_of_one_plugin_looks_at_what_it_needs(workshop: Workshop) -> None:
    """A plugin that is named is judged with its siblings and without the rest."""
    for name in ("alpha", "beta"):
        workshop.plugin(name, dependencies=("lib",) if name == "alpha" else ())
    for name in ("lib", "other"):
        workshop.release(name, "v0.1.0", version="0.1.0")
        workshop.entry(name, kind="library")
    lock(workshop)
    for name in ("beta", "lib", "other"):
        retag(workshop, name, "v0.1.0")
    assert check(workshop, "alpha") == [("lib", "tag-deleted")]
    # Nothing needs `other`, so no lock pinned it.
    assert check(workshop) == [("beta", "tag-deleted"), ("lib", "tag-deleted"), ("other", "tag-missing")]


def test_check_changes_nothing_that_is_committed(workshop: Workshop) -> None:
    """Pins and locks are as they were after a check that found much wrong, and a lock afterwards keeps its pins."""
    workshop.settings(core={"vlm-core": '"0.2.0"'})
    old = workshop.plugin("alpha", dependencies=("vlm-core<0.2",))
    workshop.release("vlm-core", "v0.2.0", version="0.2.0")
    workshop.entry("vlm-core", kind="library", tag="v0.2.0")
    lock(workshop)
    retag(workshop, "alpha", "v0.1.0", workshop.release("alpha", "later", dependencies=("vlm-core<0.2",), code="x = 1"))
    before = {path: path.read_bytes() for path in (workshop.work / "profiles").rglob("*") if path.is_file()}
    assert [code for _, code in check(workshop)] == ["core-incompatible", "tag-moved"]
    assert {path: path.read_bytes() for path in before} == before
    lock(workshop, "--upgrade")
    assert f"#{old}" in (workshop.work / "profiles" / "prod" / "alpha" / "uv.lock").read_text()


def test_check_works_on_a_bundle_and_a_fresh_clone(workshop: Workshop) -> None:
    """With a bundle in place of the repository and no state of its own, check still proves every pin."""
    workshop.plugin("alpha")
    lock(workshop)
    repository = workshop.remotes / "alpha.git"
    workshop.git("-C", str(repository), "bundle", "create", "--quiet", str(workshop.remotes / "alpha.bundle"), "--all")
    repository.rename(workshop.root / "away")
    shutil.rmtree(workshop.work / ".envbuilder")
    assert check(workshop) == []


def test_hints_survive_odd_tags(workshop: Workshop) -> None:
    """A tag with slashes, dots and quotes in it is replaced as text; nothing of it is run."""
    workshop.settings(core={"vlm-core": '"0.2.0"'})
    workshop.release("vlm-core", "v0.2.0", version="0.2.0")
    workshop.entry("vlm-core", kind="library", tag="v0.2.0")
    odd = "alpha/v0.1.0'$(touch${IFS}ran)'"
    workshop.release("alpha", odd, version="0.1.0", dependencies=("vlm-core<0.2",))
    workshop.release("alpha", "alpha/v0.2.0", version="0.2.0", dependencies=("vlm-core>=0.2",))
    workshop.entry("alpha", tag=odd)
    lock(workshop)
    found = problems(workshop.within("check", "--format", "json"))
    assert [each["code"] for each in found] == ["core-incompatible", "version-mismatch"]
    obey(workshop, found[0]["hint"])
    assert check(workshop) == []
    assert not (workshop.work / "ran").exists()


def test_check_in_a_git_hook(workshop: Workshop, monkeypatch: pytest.MonkeyPatch) -> None:
    """As a hook of the workspace's own repository, with git's variables set, check judges the remotes, not that one."""
    workshop.plugin("alpha")
    lock(workshop)
    shutil.rmtree(workshop.work / ".envbuilder")
    workshop.git("init", "--quiet", str(workshop.work))
    hook = Path(workshop.work / ".git" / "hooks" / "pre-commit")
    hook.write_text(f"#!/bin/sh\nexec {' '.join(workshop.argv('check'))}\n")
    hook.chmod(0o755)
    workshop.git("-C", str(workshop.work), "add", "--all")
    monkeypatch.setenv("PATH", os.environ["PATH"])
    workshop.git("-C", str(workshop.work), "commit", "--quiet", "--message", "one")
    assert workshop.git("-C", str(workshop.work), "status", "--porcelain").replace("?? .envbuilder/", "") == ""
