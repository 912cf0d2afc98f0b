"""Locking: what is written, what stays as it was, and what happens when it is disturbed."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from workshop import BACKEND, Ran, Workshop

from envbuilder.lock.metadata import MetadataError, poetry_specifier, static

TINY = '[build-system]\nrequires = []\nbuild-backend = "tiny_backend"\nbackend-path = ["backend"]\n'


def files(workshop: Workshop, place: str = "prod") -> dict[str, bytes]:
    """All files below profiles/<place>, by name; what a lock leaves behind would show."""
    folder = workshop.work / "profiles" / place
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def states(ran: Ran) -> dict[str, str]:
    """What `lock --format json` says of each plugin; the detail tells a lock made again from one left alone."""
    result = ran.json["result"]
    assert isinstance(result, dict)
    return {
        each["plugin"]: f"{each['state']} ({each['detail']})" if each.get("detail") else each["state"]
        for each in result["plugins"]
    }


def lock(workshop: Workshop, *arguments: str, env: dict[str, str] | None = None) -> dict[str, str]:
    """Lock, which must succeed, and tell the states."""
    ran = workshop.within("lock", "--format", "json", *arguments, env=env)
    assert ran.status == 0, ran.out
    return states(ran)


def problem(ran: Ran) -> dict[str, str]:
    """The one problem of an envelope."""
    problems = ran.json["problems"]
    assert isinstance(problems, list)
    assert len(problems) == 1, problems
    found = problems[0]
    assert isinstance(found, dict)
    return found


def move(workshop: Workshop, name: str, tag: str, **package: object) -> str:
    """Move a tag to a new commit, which is returned."""
    workshop.git("-C", str(workshop.remotes / f"{name}.git"), "tag", "--delete", tag)
    return workshop.release(name, tag, **package)  # type: ignore[arg-type]


def unplug(workshop: Workshop) -> None:
    """Make every remote unreachable; indexes are never asked for in these tests."""
    workshop.remotes.rename(workshop.root / "unplugged")


@pytest.fixture
def family(workshop: Workshop) -> Workshop:
    """Two plugins that share a library, and an overlay that takes the library from a folder."""
    workshop.release("lib", "v0.1.0", version="0.1.0")
    workshop.entry("lib", kind="library")
    workshop.write("profiles/registry/lib.dev.yaml", "source: {path: packages/lib}\n")
    workshop.package(workshop.work / "packages" / "lib", name="lib", version="0.2.0.dev0")
    for name in ("alpha", "beta"):
        workshop.plugin(name, dependencies=("lib",))
    return workshop


def test_lock_writes_both_profiles_apart(family: Workshop) -> None:
    """Prod pins tags, dev takes the overlay's folder by a relative path, and neither touches the other's files."""
    assert lock(family) == {"alpha": "locked", "beta": "locked"}
    prod = files(family)
    assert set(prod) == {
        "profile.toml",
        "pins.toml",
        *(f"{name}/{file}" for name in ("alpha", "beta") for file in ("uv.lock", "pyproject.toml")),
    }
    assert lock(family, "--profile", "dev") == {"alpha": "locked", "beta": "locked"}
    assert files(family) == prod
    dev = files(family, "dev")
    assert b'lib = {path = "../../../packages/lib", editable = true}' in dev["alpha/pyproject.toml"]
    assert b'source = { editable = "../../../packages/lib" }' in dev["alpha/uv.lock"]
    assert str(family.root).encode() not in b"".join([*prod.values(), *dev.values()]).replace(
        str(family.remotes).encode(), b""
    )
    assert b"[entries.lib]" not in dev["pins.toml"]


def test_lock_again_is_unchanged(family: Workshop) -> None:
    """A second lock needs no remote, says unchanged and leaves every byte and every time as it was."""
    lock(family)
    before = files(family)
    times = [path.stat().st_mtime_ns for path in sorted((family.work / "profiles").rglob("*"))]
    unplug(family)
    assert lock(family) == {"alpha": "unchanged", "beta": "unchanged"}
    assert files(family) == before
    assert [path.stat().st_mtime_ns for path in sorted((family.work / "profiles").rglob("*"))] == times


def test_lock_is_deterministic(family: Workshop, tmp_path: Path) -> None:
    """Another copy of the workspace, with fresh clones and a fresh uv cache, gives the same bytes."""
    copy = tmp_path / "elsewhere" / "a copy"
    shutil.copytree(family.work, copy)
    lock(family, "-j", "1")
    env = {"UV_CACHE_DIR": str(tmp_path / "cache"), "TZ": "Pacific/Auckland", "UV_RESOLUTION": "lowest"}
    done = family.run("lock", "-C", str(copy), env=env)
    assert done.status == 0, done.err
    family.work = copy
    second = files(family)
    family.work = tmp_path / "work"
    assert files(family) == second


@pytest.mark.parametrize(
    "env",
    [
        {"UV_FROZEN": "1"},
        {"UV_LOCKED": "1"},
        {"UV_NO_SOURCES": "1"},
        {"UV_EXCLUDE_NEWER": "2020-01-01", "UV_PRERELEASE": "allow"},
        {"VIRTUAL_ENV": "/nowhere", "UV_PROJECT_ENVIRONMENT": "/nowhere", "UV_PYTHON": "3.2"},
        {"GIT_DIR": "/nowhere", "GIT_WORK_TREE": "/nowhere"},
    ],
)
def test_what_a_person_sets_for_other_projects_changes_nothing(workshop: Workshop, env: dict[str, str]) -> None:
    """Variables that steer uv or git elsewhere neither stop a lock nor show in it."""
    workshop.plugin("alpha")
    lock(workshop)
    before = files(workshop)
    assert lock(workshop, "--upgrade", env=env) == {"alpha": "unchanged (nothing newer)"}
    assert files(workshop) == before


def test_locking_one_plugin_leaves_the_others(family: Workshop) -> None:
    """Only the files of the plugin that was named change, and the pins that it needs."""
    lock(family)
    before = files(family)
    family.plugin("alpha", tag="v0.2.0", dependencies=("lib",))
    family.plugin("beta", tag="v0.2.0", dependencies=("lib",))
    assert lock(family, "alpha") == {"alpha": "locked"}
    after = files(family)
    assert {name for name in after if after[name] != before[name]} == {
        "alpha/uv.lock",
        "alpha/pyproject.toml",
        "pins.toml",
    }
    assert lock(family) == {"alpha": "unchanged", "beta": "locked"}


@pytest.mark.parametrize("fault", ["contradiction", "missing", "tag", "metadata"])
def test_one_failure_leaves_the_rest_locked(family: Workshop, fault: str) -> None:
    """A plugin that cannot be locked is one clear error; the others are locked, and its own lock is as it was."""
    lock(family)
    before = files(family)
    dependency = {"contradiction": "lib>=2", "missing": "no-such-distribution-anywhere"}.get(fault, "lib")
    family.plugin(
        "alpha",
        tag="v0.2.0",
        dependencies=(dependency,),
        pyproject="[project\n" if fault == "metadata" else None,
    )
    family.plugin("beta", tag="v0.2.0", dependencies=("lib",))
    if fault == "tag":
        family.entry("alpha", tag="v0.9.0")
    ran = family.within("lock", "--offline" if fault == "missing" else "-q", "--format", "json")
    assert (ran.status, states(ran)) == (
        1,
        {"alpha": "failed", "beta": "locked"} if fault != "missing" else states(ran),
    )
    found = next(each for each in ran.json["problems"] if each["entry"] == "alpha")  # type: ignore[attr-defined]
    code, said = {
        "contradiction": ("lock-failed", "alpha needs lib >=2, the registry has 0.1.0"),
        "missing": ("lock-stale", "--offline forbids"),
        "tag": ("tag-missing", "has no tag 'v0.9.0'"),
        "metadata": ("metadata-unreadable", "not valid TOML"),
    }[fault]
    assert found["code"] == code
    assert said in found["message"]
    assert found["hint"]
    after = files(family)
    for name in ("alpha/uv.lock", "alpha/pyproject.toml"):
        assert after[name] == before[name]


def test_a_distribution_that_is_nowhere_is_told_in_uv_s_words(workshop: Workshop) -> None:
    """Offline, a dependency that no index at hand has fails that plugin alone."""
    for name in ("alpha", "beta"):
        workshop.plugin(name)
    lock(workshop)
    before = files(workshop)
    workshop.entry("alpha", requires=["no-such-distribution-anywhere==1.0"])
    workshop.entry("beta", env={"A": "1"}, python="3.11")
    ran = workshop.within("lock", "--offline", "--format", "json")
    assert (ran.status, states(ran)["alpha"]) == (1, "failed")
    found = problem(ran)
    assert (found["code"], found["entry"]) == ("lock-failed", "alpha")
    assert "no-such-distribution-anywhere" in found["message"]
    assert "\x1b" not in found["message"]
    assert files(workshop)["alpha/uv.lock"] == before["alpha/uv.lock"]


@pytest.mark.parametrize("elsewhere", ['path = "../lib"', 'git = "https://git.example.org/lib.git", tag = "v0.1.0"'])
def test_a_sibling_pinned_elsewhere_is_overridden(workshop: Workshop, elsewhere: str) -> None:
    """What a package's own metadata says of a sibling's source yields to the registry: one closure, one source."""
    workshop.release("lib", "v0.1.0", version="0.1.0")
    new = workshop.release("lib", "v0.2.0", version="0.2.0")
    workshop.entry("lib", kind="library", tag="v0.2.0")
    project = f'[project]\nname = "alpha"\nversion = "0.1.0"\ndependencies = ["lib"]\n[tool.uv.sources]\nlib = {{{elsewhere}}}\n'
    workshop.plugin("alpha", pyproject=TINY + project, dependencies=("lib",))
    lock(workshop)
    text = files(workshop)["alpha/uv.lock"].decode()
    assert f'git = "https://git.example.org/lib.git?tag=v0.2.0#{new}"' in text
    assert text.count('name = "lib"\nversion') == 1


def test_extras_of_siblings_are_kept(workshop: Workshop) -> None:
    """An override does not lose the extras that a dependent asks for, nor what stands behind them."""
    workshop.plugin("alpha", dependencies=("lib[vision]>=0.1",))
    project = '[project]\nname = "lib"\nversion = "0.1.0"\n[project.optional-dependencies]\nvision = ["third"]\nother = ["fourth"]\n'
    workshop.release("lib", "v0.1.0", pyproject=TINY + project)
    workshop.entry("lib", kind="library")
    for name in ("third", "fourth"):
        workshop.release(name, "v0.1.0")
        workshop.entry(name, kind="library")
    lock(workshop)
    text = files(workshop)["alpha/uv.lock"].decode()
    assert '{ name = "lib", extra = ["vision"] }' in text
    assert 'name = "third"\nversion' in text
    assert "fourth" not in files(workshop)["alpha/pyproject.toml"].decode()


def test_a_plugin_s_own_extras_are_locked(workshop: Workshop) -> None:
    """The extras that an entry names bring the siblings behind them, extras that name extras included."""
    project = (
        '[project]\nname = "alpha"\nversion = "0.1.0"\n[project.optional-dependencies]\n'
        'all = ["alpha[fast]"]\nfast = ["lib"]\n'
    )
    workshop.plugin("alpha", pyproject=TINY + project, keys={"extras": ["all"]})
    workshop.release("lib", "v0.1.0")
    workshop.entry("lib", kind="library")
    lock(workshop)
    assert b'name = "lib"\nversion = "0.1.0"\nsource = { git' in files(workshop)["alpha/uv.lock"]


def test_a_moved_tag_is_kept_until_repin(family: Workshop) -> None:
    """A lock keeps the pinned commit, also for a plugin that is new and with clones that are gone; --repin takes it."""
    lock(family, "alpha")
    old = family.git("-C", str(family.remotes / "lib.git"), "rev-parse", "v0.1.0^{commit}")
    new = move(family, "lib", "v0.1.0", version="0.1.0", code="x = 1")
    shutil.rmtree(family.work / ".envbuilder")
    assert lock(family) == {"alpha": "unchanged", "beta": "locked"}
    for name in ("alpha", "beta"):
        assert f"#{old}" in files(family)[f"{name}/uv.lock"].decode()
    assert lock(family, "--upgrade") == dict.fromkeys(("alpha", "beta"), "unchanged (nothing newer)")
    assert f"#{new}" not in files(family)["alpha/uv.lock"].decode()
    assert lock(family, "--repin") == {"alpha": "locked", "beta": "locked"}
    for name in ("alpha", "beta"):
        assert f"#{new}" in files(family)[f"{name}/uv.lock"].decode()
    assert lock(family) == {"alpha": "unchanged", "beta": "unchanged"}


def test_packages_of_one_repository_share_one_commit(workshop: Workshop) -> None:
    """A tag of a monorepo means one commit to all its packages, though one was locked before the tag moved."""
    for name in ("alpha", "beta"):
        workshop.package(_mono(workshop) / "plugins" / name, name=name)
        source = {"git": "https://git.example.org/mono.git", "tag": "v0.1.0", "subdirectory": f"plugins/{name}"}
        workshop.entry(name, source=source)
    _commit(workshop, "v0.1.0")
    old = workshop.git("-C", str(_mono(workshop)), "rev-parse", "HEAD")
    assert lock(workshop, "alpha") == {"alpha": "locked"}
    (_mono(workshop) / "README").write_text("new")
    workshop.git("-C", str(_mono(workshop)), "tag", "--delete", "v0.1.0")
    _commit(workshop, "v0.1.0")
    shutil.rmtree(workshop.work / ".envbuilder")
    assert lock(workshop, "--upgrade", "-j", "4") == {"alpha": "unchanged (nothing newer)", "beta": "locked"}
    assert files(workshop)["pins.toml"].decode().count(f'commit = "{old}"') == 2


def _mono(workshop: Workshop) -> Path:
    repository = workshop.remotes / "mono.git"
    if not repository.exists():
        workshop.git("init", "--quiet", "--initial-branch", "main", str(repository))
    return repository


def _commit(workshop: Workshop, tag: str) -> None:
    workshop.git("-C", str(_mono(workshop)), "add", "--all")
    workshop.git("-C", str(_mono(workshop)), "commit", "--quiet", "--message", tag)
    workshop.git("-C", str(_mono(workshop)), "tag", "--annotate", "--message", tag, tag)


def test_metadata_that_only_a_build_tells(workshop: Workshop) -> None:
    """A dynamic version is asked of a build at the pinned commit, and the pin holds what it said."""
    dynamic = '[project]\nname = "alpha"\ndynamic = ["version", "dependencies"]\n'
    workshop.release("lib", "v0.1.0")
    workshop.entry("lib", kind="library")
    workshop.plugin("alpha", tag="v0.3.0", pyproject=TINY + dynamic, dependencies=("lib>=0.1",))
    lock(workshop)
    pins = files(workshop)["pins.toml"].decode()
    assert 'version = "0.3.0"' in pins
    assert 'requires = ["lib>=0.1"]' in pins
    assert b'name = "lib"\nversion = "0.1.0"\nsource = { git' in files(workshop)["alpha/uv.lock"]


def test_a_build_that_fails_is_told(workshop: Workshop) -> None:
    """What goes wrong in a package's own build is that plugin's error, with the build's words."""
    workshop.plugin("alpha", pyproject=TINY + '[project]\nname = "alpha"\ndynamic = ["version"]\n')
    backend = workshop.remotes / "alpha.git" / "backend" / "tiny_backend.py"
    backend.write_text(BACKEND.replace("def _wheel(", "raise SystemExit('out of order')\ndef _wheel("))
    repository = str(workshop.remotes / "alpha.git")
    workshop.git("-C", repository, "commit", "--quiet", "--all", "--message", "broken")
    workshop.git("-C", repository, "tag", "v0.1.1")
    workshop.entry("alpha", tag="v0.1.1")
    ran = workshop.within("lock", "--format", "json")
    assert (ran.status, problem(ran)["code"]) == (1, "metadata-unreadable")
    assert "out of order" in problem(ran)["message"]


def test_poetry_metadata_is_read_without_a_build(workshop: Workshop) -> None:
    """Poetry's own table tells name, version, Python and dependencies, its signs translated."""
    project = (
        '[tool.poetry]\nname = "alpha"\nversion = "0.1.0"\n[tool.poetry.dependencies]\n'
        'python = "^3.8"\nlib = {version = "^0.1", extras = ["x"]}\n'
    )
    workshop.plugin("alpha", pyproject=TINY + project, dependencies=("lib>=0.1",))
    workshop.release("lib", "v0.1.0")
    workshop.entry("lib", kind="library")
    lock(workshop)
    pins = files(workshop)["pins.toml"].decode()
    assert 'requires-python = "<4,>=3.8"' in pins
    assert 'requires = ["lib[x]<0.2,>=0.1"]' in pins


@pytest.mark.parametrize(
    ("poetry", "specifier"),
    [
        ("^1.2.3", "<2,>=1.2.3"),
        ("^0.2.3", "<0.3,>=0.2.3"),
        ("^0.0.3", "<0.0.4,>=0.0.3"),
        ("^0.0", "<0.1,>=0.0"),
        ("^0", "<1,>=0"),
        ("~1.2.3", "<1.3,>=1.2.3"),
        ("~1", "<2,>=1"),
        ("1.2.*", "==1.2.*"),
        ("1.2", "==1.2"),
        ("*", ""),
        (">=1, <2", "<2,>=1"),
        ("~=1.4", "~=1.4"),
    ],
)
def test_poetry_specifiers_translate(poetry: str, specifier: str) -> None:
    """The examples of Poetry's own documentation, in PEP 440."""
    assert poetry_specifier(poetry) == specifier


@pytest.mark.parametrize(
    ("text", "name", "version", "dependencies"),
    [
        ("", None, None, None),
        ("[build-system]\nrequires = []\n", None, None, None),
        ('[project]\nname = "a"\nversion = "1"\n', "a", "1", ()),
        ('[project]\nname = "a"\ndynamic = ["version"]\n', "a", None, ()),
        ('[project]\nname = "a"\nversion = "1"\ndynamic = ["optional-dependencies"]\n', "a", "1", None),
        (
            """
            [project]
            name = "a"
            version = "1"
            dependencies = ["b; python_version < '4'"]
            [project.optional-dependencies]
            X_y = ["c>1; sys_platform == 'linux'", "d @"]
            """,
            "a",
            "1",
            (
                "b; python_version < '4'",
                'c>1; sys_platform == "linux" and extra == "x-y"',
                "d @",
            ),
        ),
        (
            '[tool.poetry]\nname = "a"\nversion = "1"\n[tool.poetry.dependencies]\npython = "^3.8 || ^2"\n',
            "a",
            "1",
            None,
        ),
        (
            '[tool.poetry]\nname = "a"\nversion = "1"\n[tool.poetry.dependencies]\nb = [{version = "1"}]\n',
            "a",
            "1",
            None,
        ),
    ],
)
def test_static_metadata(
    text: str, name: str | None, version: str | None, dependencies: tuple[str, ...] | None
) -> None:
    """What stands in the file is read from the file; what only a build can tell is None."""
    found = static(text, "x")
    assert (found.name, found.version, found.dependencies) == (name, version, dependencies)


@pytest.mark.parametrize(
    "text",
    [
        None,
        "[project",
        "[project]\nname = 3\n",
        '[project]\nname = "a"\nversion = ["1"]\n',
        '[project]\nname = "a"\ndynamic = 3\n',
        '[project]\nname = "a"\nversion = "1"\ndependencies = "b"\n',
        '[project]\nname = "a"\nversion = "1"\noptional-dependencies = ["b"]\n',
        '[project]\nname = "a"\nversion = "1"\noptional-dependencies = {x = 3}\n',
        '[project]\nname = "a"\nversion = "1"\nrequires-python = ">=3.6.*"\n',
        "[tool.poetry]\nname = 'a'\ndependencies = 3\n",
    ],
)
def test_metadata_of_an_unexpected_form_is_refused(text: str | None) -> None:
    """Whatever stands in a stranger's pyproject.toml, the answer is a MetadataError."""
    with pytest.raises(MetadataError) as caught:
        static(text, "somewhere")
    assert str(caught.value.where).startswith("somewhere")


@pytest.mark.parametrize("text", ["tool = 3\n", "tool = {poetry = 3}\n", "project = 3\n"])
def test_tables_that_are_none_tell_nothing(text: str) -> None:
    """Where a table should be and is not, a build is asked."""
    assert static(text, "x").name is None


def test_a_repository_of_another_name(workshop: Workshop) -> None:
    """The package counts, not what its repository is called; an upper-case host is the same host."""
    repository = workshop.remotes / "Some_Research-Code"
    workshop.package(repository, name="alpha")
    workshop.git("init", "--quiet", "--initial-branch", "main", str(repository))
    workshop.git("-C", str(repository), "add", "--all")
    workshop.git("-C", str(repository), "commit", "--quiet", "--message", "one")
    workshop.git("-C", str(repository), "tag", "v0.1.0")
    workshop.entry("alpha", source={"git": "https://GIT.example.org/Some_Research-Code", "tag": "v0.1.0"})
    lock(workshop)
    assert b"https://git.example.org/Some_Research-Code?tag=v0.1.0#" in files(workshop)["alpha/uv.lock"]


def test_mirrors_serve_what_no_entry_names(workshop: Workshop) -> None:
    """A git dependency of a package's own, which the registry does not know, comes through the mirror as well."""
    commit = workshop.release("helper", "v0.1.0")
    project = (
        '[project]\nname = "alpha"\nversion = "0.1.0"\ndependencies = ["helper"]\n'
        '[tool.uv.sources]\nhelper = {git = "https://git.example.org/helper.git", tag = "v0.1.0"}\n'
    )
    workshop.plugin("alpha", pyproject=TINY + project, dependencies=("helper",))
    lock(workshop)
    assert f"https://git.example.org/helper.git?tag=v0.1.0#{commit}" in files(workshop)["alpha/uv.lock"].decode()


def test_lock_check_needs_no_network(family: Workshop) -> None:
    """With remotes, clones and caches gone, `lock --check` still knows."""
    lock(family)
    unplug(family)
    shutil.rmtree(family.work / ".envbuilder")
    before = files(family)
    ran = family.within("lock", "--check", "--format", "json", env={"UV_CACHE_DIR": str(family.root / "none")})
    assert (ran.status, states(ran)) == (0, {"alpha": "ok", "beta": "ok"})
    assert files(family) == before
    assert not (family.work / ".envbuilder" / "git").exists()


CHANGES: dict[str, Callable[[Workshop], object]] = {
    "registry": lambda w: w.entry("alpha", requires=["lib>=0.1"]),
    "tag": lambda w: w.entry("alpha", tag="v0.2.0"),
    "library": lambda w: w.entry("lib", kind="library", tag="v0.2.0"),
    "entry's core": lambda w: w.entry("alpha", core=">=0.1"),
    "profile": lambda w: w.write("profiles/prod/profile.toml", 'python = "3.11"\nexclude-newer = "2026-01-01"\n'),
    "core": lambda w: w.settings(core={"vlm-core": '"9.0"'}),
    "project edited": lambda w: _append(w.work / "profiles/prod/alpha/pyproject.toml", "# mine\n"),
    "lock edited": lambda w: _replace(w.work / "profiles/prod/alpha/uv.lock", '"0.1.0"', '"0.1.1"'),
    "lock rubbish": lambda w: (w.work / "profiles/prod/alpha/uv.lock").write_bytes(b"\xff\x00"),
    "lock of another form": lambda w: (w.work / "profiles/prod/alpha/uv.lock").write_text(
        "version = 1\npackage = [3]\n"
    ),
    "lock in conflict": lambda w: _append(w.work / "profiles/prod/alpha/uv.lock", "<<<<<<< ours\n=======\n"),
    "pins without it": lambda w: _replace(w.work / "profiles/prod/pins.toml", "[locks.alpha]", "[locks.gone]"),
}


def _append(path: Path, text: str) -> None:
    path.write_text(path.read_text() + text)


def _replace(path: Path, old: str, new: str) -> None:
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new))


@pytest.fixture(scope="module")
def locked_once(tmp_path_factory: pytest.TempPathFactory) -> Workshop:
    """A plugin with a library, both with a second release, locked; to be copied, not changed."""
    made = Workshop(tmp_path_factory.mktemp("locked"))
    made.plugin("alpha", dependencies=("lib",))
    made.release("alpha", "v0.2.0", version="0.2.0", dependencies=("lib",))
    made.release("lib", "v0.1.0")
    made.release("lib", "v0.2.0", version="0.2.0")
    made.entry("lib", kind="library")
    lock(made)
    return made


@pytest.mark.parametrize("change", CHANGES)
def test_a_lock_that_does_not_follow_is_stale(workshop: Workshop, locked_once: Workshop, change: str) -> None:
    """Whatever a lock follows from, and the lock itself: a change is seen without network, and the hint mends it."""
    shutil.rmtree(workshop.work)
    shutil.copytree(locked_once.work, workshop.work)
    workshop.remotes.rmdir()
    workshop.remotes.symlink_to(locked_once.remotes)
    CHANGES[change](workshop)
    ran = workshop.within("lock", "--check", "--format", "json")
    assert (ran.status, ran.codes) == (1, ["lock-stale"])
    hint = problem(ran)["hint"].split()
    assert hint[:4] == ["envbuilder", "lock", "--profile", "prod"]
    assert lock(workshop, *hint[2:]) == {"alpha": "locked"}
    assert lock(workshop) == {"alpha": "unchanged"}


def test_a_tampered_lock_is_not_carried_on(workshop: Workshop) -> None:
    """Uv keeps what stands in a lock that it is given; one that we did not write is resolved anew instead."""
    workshop.plugin("alpha", dependencies=("lib",))
    workshop.release("lib", "v0.1.0")
    workshop.entry("lib", kind="library")
    lock(workshop)
    before = files(workshop)
    _replace(
        workshop.work / "profiles/prod/alpha/uv.lock", 'name = "lib"\nversion = "0.1.0"', 'name = "lib"\nversion = "6"'
    )
    assert lock(workshop) == {"alpha": "locked"}
    assert files(workshop) == before


def test_overlay_and_metadata_changes_make_dev_stale(family: Workshop) -> None:
    """A changed overlay and a changed pyproject.toml of a folder are seen in dev; prod does not care."""
    lock(family)
    lock(family, "--profile", "dev")
    prod = files(family)
    file = family.work / "packages" / "lib" / "pyproject.toml"
    _replace(file, "dependencies = []", 'dependencies = []\ndescription = "other"')
    ran = family.within("lock", "--check", "--profile", "dev", "--format", "json")
    assert ran.codes == ["lock-stale", "lock-stale"]
    _replace(file, '\ndescription = "other"', "")
    _append(file, "# a comment changes nothing\n")
    assert family.within("lock", "--check", "--profile", "dev").status == 0
    family.write("profiles/registry/beta.dev.yaml", "extras: [x]\n")
    ran = family.within("lock", "--check", "--profile", "dev", "--format", "json")
    assert (ran.codes, problem(ran)["entry"]) == (["lock-stale"], "beta")
    assert family.within("lock", "--check").status == 0
    assert files(family) == prod


@pytest.mark.parametrize(
    "text",
    [
        "[",
        "version = 2\n",
        "version = 1\nentries = 3\n",
        "version = 1\n[entries.a]\nurl = 3\n",
        "version = 1\n[entries.a]\n",
    ],
)
def test_a_pins_file_that_is_none_is_told(workshop: Workshop, text: str) -> None:
    """A torn, foreign or newer pins.toml is an error with a way out, in lock and in check."""
    workshop.plugin("alpha")
    workshop.write("profiles/prod/pins.toml", text)
    for command in ("lock", "check"):
        ran = workshop.within(command, "--format", "json")
        assert (ran.status, ran.codes) == (2, ["config-invalid"])
        assert problem(ran)["where"].startswith("profiles/prod/pins.toml")
        assert problem(ran)["hint"]


def test_two_locks_at_once_both_succeed(family: Workshop) -> None:
    """Of the same profile they take turns, of different profiles they share the clones; the bytes are the same."""
    started = [
        subprocess.Popen(
            family.argv("lock", "--profile", profile),
            cwd=family.work,
            env=family.environment(),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        for profile in ("prod", "prod", "dev", "dev")
    ]
    said = [process.communicate(timeout=120)[1] for process in started]
    assert [process.returncode for process in started] == [0, 0, 0, 0], said
    before = files(family)
    assert lock(family) == {"alpha": "unchanged", "beta": "unchanged"}
    assert lock(family, "--profile", "dev") == {"alpha": "unchanged", "beta": "unchanged"}
    assert files(family) == before


def slow_git(workshop: Workshop) -> dict[str, str]:
    """Variables with which every git of ours takes its time once a marker is there, so that a lock can be met midway."""
    folder = workshop.root / "bin"
    folder.mkdir()
    real = shutil.which("git")
    script = folder / "git"
    script.write_text(
        f'#!/bin/sh\ncase " $* " in *" fetch "*) touch {workshop.root}/midway; sleep 1;; esac\nexec {real} "$@"\n'
    )
    script.chmod(0o755)
    return {"PATH": f"{folder}{os.pathsep}{os.environ['PATH']}"}


def midway(workshop: Workshop, number: signal.Signals, *before: str) -> subprocess.CompletedProcess[str]:
    """Start a lock, and send it a signal while it fetches; one that hangs then shows where, in its stderr."""
    process = subprocess.Popen(
        [*before, *workshop.argv("lock", "--format", "json")],
        cwd=workshop.work,
        env=workshop.environment({**slow_git(workshop), "PYTHONFAULTHANDLER": "1"}),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    while not (workshop.root / "midway").exists():
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(number)
    try:
        out, err = process.communicate(timeout=60)
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGABRT)
        out, err = process.communicate()
    return subprocess.CompletedProcess(process.args, process.returncode, out, err)


def test_ctrl_c_ends_a_lock(family: Workshop) -> None:
    """SIGINT ends it with 130 and an envelope; nothing is half written, and the next lock succeeds."""
    lock(family, "alpha")
    before = files(family)
    family.plugin("alpha", tag="v0.2.0", dependencies=("lib",))
    done = midway(family, signal.SIGINT)
    assert done.returncode == 130, done.stderr
    assert [each["code"] for each in json.loads(done.stdout)["problems"]] == ["interrupted"]
    assert "Traceback" not in done.stderr
    assert files(family) == before
    assert lock(family) == {"alpha": "locked", "beta": "locked"}


def test_ctrl_c_is_ignored_where_the_shell_says_so(family: Workshop) -> None:
    """What a script starts with `&` goes on when Ctrl-C ends what stands in front of it."""
    done = midway(family, signal.SIGINT, "sh", "-c", "trap '' INT; exec \"$@\"", "sh")
    assert done.returncode == 0, done.stderr


def test_a_killed_lock_is_taken_up_by_the_next(family: Workshop) -> None:
    """After SIGKILL every lock is whole, old or new; the next lock succeeds and removes what was left."""
    lock(family, "alpha")
    before = files(family)
    family.plugin("alpha", tag="v0.2.0", dependencies=("lib",))
    leftover = family.work / "profiles" / "prod" / ".gone.1.lock-in-progress"
    leftover.mkdir()
    (family.work / "profiles" / "prod" / "alpha" / ".uv.lock.0123abcd.envbuilder-draft").write_text("half")
    assert midway(family, signal.SIGKILL).returncode == -signal.SIGKILL
    for name in ("alpha/uv.lock", "alpha/pyproject.toml", "pins.toml"):
        assert files(family)[name] == before[name]
    assert lock(family) == {"alpha": "locked", "beta": "locked"}
    names = [path.name for path in (family.work / "profiles" / "prod").rglob("*")]
    assert not [name for name in names if name.startswith(".")]


@pytest.mark.slow
def test_locks_killed_at_any_moment_leave_whole_locks(family: Workshop) -> None:
    """Forty kills at moments spread over a lock: whatever stands there is what some lock wrote, and the next succeeds."""
    lock(family)
    whole = {files(family)["alpha/uv.lock"]}
    family.plugin("alpha", tag="v0.2.0", dependencies=("lib",))
    copy = family.root / "copy"
    shutil.copytree(family.work, copy)
    lock(family)
    whole.add(files(family)["alpha/uv.lock"])
    for number in range(40):
        shutil.rmtree(family.work)
        shutil.copytree(copy, family.work)
        process = subprocess.Popen(
            family.argv("lock", "-q"), cwd=family.work, env=family.environment(), stderr=subprocess.DEVNULL
        )
        time.sleep(0.05 * number)
        process.kill()
        process.wait()
        assert files(family)["alpha/uv.lock"] in whole
        lock(family)
        assert not list((family.work / "profiles").rglob(".*"))


def test_a_workspace_that_cannot_be_written_is_told(workshop: Workshop) -> None:
    """A file where the plugin's folder belongs fails that plugin, with a hint."""
    for name in ("alpha", "beta"):
        workshop.plugin(name)
    workshop.write("profiles/prod/alpha", "in the way")
    ran = workshop.within("lock", "--format", "json")
    assert (ran.status, states(ran)) == (1, {"alpha": "failed", "beta": "locked"})
    assert problem(ran)["code"] == "unwritable"
    assert problem(ran)["hint"]


def test_lock_offline_uses_what_is_at_hand(family: Workshop) -> None:
    """Offline, what is pinned and cloned is locked anew; what is not is told, and no remote is asked."""
    lock(family)
    unplug(family)
    family.entry("alpha", extras=[], requires=["lib>=0.1"])
    assert lock(family, "--offline") == {"alpha": "locked", "beta": "unchanged"}
    family.entry("alpha", tag="v0.7.0")
    ran = family.within("lock", "--offline", "--format", "json")
    assert (ran.status, states(ran)) == (1, {"alpha": "failed", "beta": "unchanged"})
    assert "--offline forbids to fetch it" in problem(ran)["message"]


def test_removed_entries_leave_the_pins(family: Workshop) -> None:
    """What the registry no longer has is not pinned any longer."""
    lock(family)
    (family.registry / "beta.yaml").unlink()
    assert lock(family) == {"alpha": "unchanged"}
    pins = files(family)["pins.toml"].decode()
    assert "beta" not in pins
    assert "[entries.lib]" in pins


def test_a_dropped_sibling_leaves_the_lock_fresh(workshop: Workshop) -> None:
    """A new tag that no longer needs a library of the registry is locked once, and that lock is up to date."""
    workshop.release("late", "v0.1.0")
    workshop.entry("late", kind="library")
    workshop.plugin("alpha", dependencies=("late",))
    assert workshop.run("lock").status == 0
    workshop.plugin("alpha", tag="v0.2.0")
    assert workshop.run("lock").status == 0
    assert workshop.run("lock", "--check").status == 0
