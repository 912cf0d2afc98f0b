"""Workspaces, profiles and the registry's folder: where they are found, and what is said when they are not right."""

from __future__ import annotations

from pathlib import Path

import pytest
from workshop import Workshop

from envbuilder.config import (
    canonical_address,
    core_versions,
    find_workspace,
    python_specifier,
    read_profile,
    read_registry,
)
from envbuilder.errors import ConfigError, UsageError


@pytest.mark.parametrize(
    ("request_", "specifier"),
    [
        ("3", "==3.*"),
        ("3.10", "==3.10.*"),
        (" 3.11.7 ", "==3.11.7"),
        (">=3.10,<3.13", "<3.13,>=3.10"),
        ("==3.11.*", "==3.11.*"),
        ("~=3.11", "~=3.11"),
    ],
)
def test_python_specifier_reads_versions_and_ranges(request_: str, specifier: str) -> None:
    """A bare version means that series or that release; a specifier is one already."""
    assert python_specifier(request_) == specifier


@pytest.mark.parametrize("request_", ["", " ", "three", "python3.11", "cpython@3.11", ">=3.6.*", "3.11.7.1", "-3"])
def test_python_specifier_refuses_the_rest(request_: str) -> None:
    """Empty text and names of interpreters are no Python request."""
    with pytest.raises(ValueError, match="expected a Python version"):
        python_specifier(request_)


def test_find_workspace_looks_upwards(workshop: Workshop) -> None:
    """Any folder inside leads to the workspace, and so does a pyproject.toml in between that is another project's."""
    inner = workshop.write("packages/a/pyproject.toml", "[project]\nname = 'a'\n").parent
    found = find_workspace(inner)
    assert found.root == workshop.work
    assert found.shared == workshop.work / ".envbuilder"


def test_find_workspace_passes_by_what_is_no_file_of_ours(workshop: Workshop) -> None:
    """A broken or binary pyproject.toml below, which says nothing of us, is not our business."""
    inner = workshop.write("a/b/pyproject.toml", "[[[").parent
    (inner.parent / "pyproject.toml").write_bytes(b"\xff\xfe")
    assert find_workspace(inner).root == workshop.work


def test_without_a_workspace_the_request_cannot_be_served(workshop: Workshop, tmp_path: Path) -> None:
    """Outside of any workspace, and in a folder that is not there, exit 2 with a hint."""
    outside = tmp_path / "outside"
    outside.mkdir()
    ran = workshop.within("lock", "--format", "json", cwd=outside)
    assert (ran.status, ran.codes) == (2, ["no-workspace"])
    ran = workshop.within("lock", "--format", "json", "-C", str(outside / "none"))
    assert (ran.status, ran.codes) == (2, ["usage"])


@pytest.mark.parametrize(
    ("text", "said", "where"),
    [
        ("[tool.envbuilder\n", "not valid TOML", "pyproject.toml:1:17"),
        ("[tool.envbuilder]\ndefault-run = 'runs\\a.yaml'\n", "a path with forward slashes", "pyproject.toml:2:1"),
        ("[tool.envbuilder.core]\nx = {path = 'C:/x'}\n", "a path with forward slashes", "pyproject.toml:2:1"),
        ("[tool.envbuilder.git-mirrors]\n'https://a/' = 'D:\\b'\n", "a path with forward", "pyproject.toml:2:1"),
        ("[tool.envbuilder]\ndefault_run = 'x'\n", "unknown key 'default_run'", "pyproject.toml:2:1"),
        ("[tool.envbuilder]\ngit-mirors = {}\n", "unknown key 'git-mirors'", "pyproject.toml:2:1"),
        ("[tool.envbuilder.core]\nvlm-core = 0.2\n", "expected text; found 0.2 (a number)", "pyproject.toml:2:1"),
        ("[tool.envbuilder.core]\nvlm-core = 'new'\n", "expected a version such as", "pyproject.toml:2:1"),
        ("[tool.envbuilder.core]\nvlm-core = {pth = 'a'}\n", "core.vlm-core.path: required", "pyproject.toml:2:1"),
    ],
)
def test_settings_are_refused_where_they_stand(workshop: Workshop, text: str, said: str, where: str) -> None:
    """A fault in [tool.envbuilder] is told with its line, in the words of the form that was meant."""
    workshop.write("pyproject.toml", text)
    with pytest.raises(ConfigError) as caught:
        find_workspace(workshop.work)
    first = caught.value.problems[0]
    assert said in first.message
    assert first.where == where


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (None, "no such file"),
        ("[project]\nname = 'c'\n", "no static [project] version"),
        ("[project]\nversion = 'new'\n", "no static [project] version"),
        ("project = 3\n", "no static [project] version"),
        ("[project\n", "not valid TOML"),
        ("\xff", "not UTF-8"),
    ],
)
def test_core_versions_need_a_folder_that_tells(workshop: Workshop, text: str | None, said: str) -> None:
    """A core folder without a readable, static version is a fault of the settings, whatever is wrong with it."""
    workshop.settings(core={"vlm-core": '{path = "packages/core"}'})
    if text is not None:
        workshop.write("packages/core/pyproject.toml", "").write_bytes(text.encode("latin-1"))
    with pytest.raises(ConfigError, match=r"tool\.envbuilder\.core\.vlm-core") as caught:
        core_versions(find_workspace(workshop.work))
    assert said in caught.value.message
    assert caught.value.hint


def test_core_versions_are_read_or_given(workshop: Workshop) -> None:
    """Versions come normalised, from the settings or from the folder, names too."""
    workshop.write("packages/core/pyproject.toml", "[project]\nversion = '0.2.0-rc1'\n")
    workshop.settings(core={"Vlm_Core": '{path = "packages/core"}', "other": '"1.0.0.dev0"'})
    assert core_versions(find_workspace(workshop.work)) == {"vlm-core": "0.2.0rc1", "other": "1.0.0.dev0"}


def test_git_mirrors_are_relative_to_the_workspace(workshop: Workshop, monkeypatch: pytest.MonkeyPatch) -> None:
    """Folders are taken from the workspace or the home, addresses stay, a prefix keeps its slash."""
    monkeypatch.setenv("HOME", "/home/somebody")
    lines = {"https://A.example/": "remotes/", "https://b/": "~/x/", "https://c/": "ssh://d/", "https://e/": "g@h:i/"}
    extra = "\n".join(f'"{key}" = "{value}"' for key, value in lines.items())
    workshop.settings(core={}, extra=extra)
    found = find_workspace(workshop.work).git_mirrors
    assert found["https://a.example/"] == f"{workshop.work}/remotes/"
    assert found["https://b/"] == "/home/somebody/x/"
    assert (found["https://c/"], found["https://e/"]) == ("ssh://d/", "g@h:i/")


@pytest.mark.parametrize(
    ("address", "canonical"),
    [
        ("HTTPS://Git.Example.org/A/B.git", "https://git.example.org/A/B.git"),
        ("ssh://Git@Git.Example.org:22/x", "ssh://Git@git.example.org:22/x"),
        ("file:///A/B", "file:///A/B"),
        ("git@Host:X", "git@Host:X"),
        ("https://Host", "https://host"),
    ],
)
def test_canonical_address_is_as_uv_writes_it(address: str, canonical: str) -> None:
    """Scheme and host are in small letters; user and path stay as they are."""
    assert canonical_address(address) == canonical


def test_profiles_have_defaults(workshop: Workshop) -> None:
    """Without files, prod takes what cannot move and dev everything; a file changes only what it says."""
    for name in ("dev", "prod"):
        (workshop.work / "profiles" / name / "profile.toml").unlink()
    workspace = find_workspace(workshop.work)
    assert read_profile(workspace, "prod").sources == ("git-tag", "git-rev", "pypi-exact")
    assert set(read_profile(workspace, "dev").sources) > {"path", "git-branch", "pypi-range"}
    workshop.write("profiles/prod/profile.toml", 'sources = []\nexclude-newer = "2026-11-01"\n')
    profile = read_profile(workspace, "prod")
    assert (profile.python, profile.sources) == ("3.11", ())
    assert profile.exclude_newer == "2026-11-01T00:00:00Z"  # Not midnight of wherever uv runs.


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("python = 3.10", 'quote it: "3.10"'),
        ("exclude-newer = 2026-11-01T00:00:00Z", 'quote it: "2026-11-01T00:00:00Z"'),
        ('exclude-newer = "2026-02-30"', "expected a time such as"),
        ('exclude-newer = "2026-11-01T00:00:00"', "expected a time such as"),
        ('exclude-newer = "2026-11-01T24:00:00Z"', "expected a time such as"),
        ('exclude-newer = "7 days"', "expected a time such as"),
        ('sources = ["git-tga"]', "did you mean 'git-tag'?"),
        ('surces = ["git-tag"]', "did you mean 'sources'?"),
        ('torch-backends = ["cuda12"]', "expected default, cpu, or cu and a CUDA version"),
        ("torch-backends = []", "expected at least one backend"),
        ('torch-backends = ["cpu", "cpu"]', "each backend once; cpu stands there twice"),
        ('torch-index-url = "elsewhere"', "expected an address"),
        ('build-constraints = ["setuptools >"]', "expected a requirement such as"),
    ],
)
def test_profile_is_refused_where_it_is_wrong(workshop: Workshop, line: str, said: str) -> None:
    """A fault of a profile's file is told with file and line."""
    workshop.write("profiles/dev/profile.toml", f"# dev\n{line}\n")
    with pytest.raises(ConfigError) as caught:
        read_profile(find_workspace(workshop.work), "dev")
    problem = caught.value.problems[0]
    assert problem.where == "profiles/dev/profile.toml:2:1"
    assert said in f"{problem.message} {problem.hint}"


def test_an_unknown_profile_is_refused(workshop: Workshop) -> None:
    """By name, by option and by RUN_MODE alike."""
    with pytest.raises(UsageError, match="unknown profile 'staging'"):
        read_profile(find_workspace(workshop.work), "staging")
    assert workshop.within("lock", "--profile", "staging").status == 2
    ran = workshop.within("lock", env={"RUN_MODE": "staging"})
    assert ran.status == 2
    assert "staging" in ran.err


def test_run_mode_names_the_profile(workshop: Workshop) -> None:
    """RUN_MODE where no option says otherwise, prod where it is empty."""
    workshop.entry("alpha")
    for env, options, profile in (
        ({"RUN_MODE": "dev"}, (), "dev"),
        ({"RUN_MODE": "dev"}, ("--profile", "prod"), "prod"),
        ({"RUN_MODE": ""}, (), "prod"),
    ):
        ran = workshop.within("lock", "--check", "--format", "json", *options, env=env)
        assert (ran.status, ran.json["profile"], ran.codes) == (1, profile, ["lock-missing"])


def test_envbuilder_home_moves_the_state(workshop: Workshop, tmp_path: Path) -> None:
    """What may be shared goes to the home, what is this workspace's own to a folder of its own in there."""
    workshop.plugin("alpha")
    home = tmp_path / "state of all"
    assert workshop.within("lock", env={"ENVBUILDER_HOME": str(home)}).status == 0
    assert not (workshop.work / ".envbuilder").exists()
    assert list((home / "git").glob("alpha-*.git"))
    assert [path.name.startswith("work-") for path in (home / "workspaces").iterdir()] == [True]


@pytest.mark.parametrize(
    ("home", "code"),
    [
        ("{work}/file", "unwritable"),
        ("{work}/file/below", "unwritable"),
        ("below", "usage"),
        ("~nobody-of-that-name/x", "usage"),
    ],
)
def test_an_envbuilder_home_that_cannot_be_is_told(workshop: Workshop, home: str, code: str) -> None:
    """A file in the way, and a path that leads elsewhere from each folder, are errors that name it."""
    workshop.plugin("alpha")
    workshop.write("file", "")
    ran = workshop.within("lock", "--format", "json", env={"ENVBUILDER_HOME": home.format(work=workshop.work)})
    assert (ran.status, ran.codes) == (2, [code])


def test_an_overlay_needs_its_base(workshop: Workshop) -> None:
    """An overlay alone is told in both profiles, with every other fault of the folder."""
    workshop.write("profiles/registry/a.dev.yaml", "core: '>=1'\n")
    workshop.write("profiles/registry/b.yml", "name: b\n")
    workshop.write("profiles/registry/c.yaml", "name: [\n")
    workshop.write("profiles/registry/d.yaml", "").write_bytes(b"name: \xff\n")
    workshop.write("profiles/registry/.#e.yaml", "an editor's")
    for overlays in (True, False):
        with pytest.raises(ConfigError) as caught:
            list(read_registry(find_workspace(workshop.work), overlays=overlays))
        found = {str(problem.where): problem.message for problem in caught.value.problems}
        assert set(found) == {
            "profiles/registry/a.dev.yaml",
            "profiles/registry/b.yml",
            "profiles/registry/c.yaml:2:1",
            "profiles/registry/d.yaml:1",
        }
        assert "needs its base entry a.yaml" in found["profiles/registry/a.dev.yaml"]


def test_overlays_count_in_dev_alone(workshop: Workshop) -> None:
    """A broken overlay is nothing to prod."""
    workshop.entry("alpha")
    workshop.write("profiles/registry/alpha.dev.yaml", "source: 3\n")
    assert workshop.within("lock", "--check", "--format", "json").codes == ["lock-missing"]
    ran = workshop.within("lock", "--check", "--profile", "dev", "--format", "json")
    assert (ran.status, ran.codes) == (2, ["config-invalid"])
    assert "profiles/registry/alpha.dev.yaml:1:1" in ran.out


def test_a_registry_of_libraries_is_legal_and_so_is_an_empty_one(workshop: Workshop) -> None:
    """Libraries alone are judged by check; an empty registry is a beginning; none at all is a usage error."""
    assert workshop.within("check").out == "checked 0 entries, 0 locks, 0 remotes: all as it should be\n"
    workshop.registry.rmdir()
    ran = workshop.within("check", "--format", "json")
    assert (ran.status, ran.codes) == (2, ["usage"])
    workshop.release("lib", "v0.1.0", version="0.1.0")
    workshop.entry("lib", kind="library")
    assert workshop.within("lock").status == 0
    ran = workshop.within("check", "--format", "json")
    result = {"entries": 1, "locks": 0, "remotes": 1, "core": [], "matrix": []}
    assert (ran.status, ran.json["result"]) == (0, result)
    workshop.entry("lib", kind="library", tag="v0.2.0")
    assert workshop.within("check", "--format", "json").codes == ["tag-missing"]
