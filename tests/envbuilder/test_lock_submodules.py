"""Submodules: they come through the mirrors, and from nowhere on this machine that no mirror names."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from workshop import BACKEND, Workshop

# As setuptools-scm and hatch-vcs do it: the version is the nearest tag, and how far it is.
TOLD_BY_GIT = BACKEND.replace(
    'version = project["version"]',
    'import subprocess\n    tag = subprocess.check_output(["git", "describe", "--tags", "--long"], text=True).strip()\n'
    '    version = ".post".join(tag.removeprefix("v").split("-")[:2])',
)


def with_submodule(workshop: Workshop, address: str) -> None:
    """Plugin `alpha`, whose code is a module in a submodule that `.gitmodules` says to be at the address."""
    sub = workshop.remotes / "sub.git"
    workshop.git("init", "--quiet", "--initial-branch", "main", str(sub))
    (sub / "__init__.py").write_text("ANSWER = 42\n")
    workshop.git("-C", str(sub), "add", "--all")
    workshop.git("-C", str(sub), "commit", "--quiet", "--message", "one")
    commit = workshop.git("-C", str(sub), "rev-parse", "HEAD")
    workshop.release("alpha", "v0.0.1", code="class Model:\n    pass\n")
    place = str(workshop.remotes / "alpha.git")
    modules = f'[submodule "inner"]\n\tpath = src/inner\n\turl = {address}\n'
    (Path(place) / ".gitmodules").write_text(modules)
    workshop.git("-C", place, "add", ".gitmodules")
    workshop.git("-C", place, "update-index", "--add", "--cacheinfo", f"160000,{commit},src/inner")
    workshop.git("-C", place, "commit", "--quiet", "--message", "two")
    workshop.git("-C", place, "tag", "v0.1.0")
    workshop.entry("alpha")


@pytest.mark.parametrize("address", ["https://git.example.org/sub.git", "../sub.git"])
def test_submodules_come_through_folder_mirrors(workshop: Workshop, address: str) -> None:
    """A submodule at an address that a mirror leads to a folder is there when the package is built."""
    with_submodule(workshop, address)
    env = {"UV_CACHE_DIR": str(workshop.root / "cache")}
    locked = workshop.within("lock", env=env)
    assert locked.status == 0, locked.err
    built = workshop.within("build", env=env)
    assert built.status == 0, built.err
    shown = workshop.run("exec", "alpha", "--", "python", "-c", "import inner; print(inner.ANSWER)", env=env)
    assert shown.out.strip() == "42"


@pytest.mark.parametrize("address", ["/srv/private.git", "file:///srv/private.git", "ext::sh -c date", "-u"])
def test_submodules_from_this_machine_are_refused(workshop: Workshop, address: str) -> None:
    """A tag whose submodule names a folder here, or a program, is told before uv or git act on it."""
    with_submodule(workshop, address)
    ran = workshop.within("lock", "--format", "json")
    assert (ran.status, ran.codes) == (1, ["metadata-unreadable"])
    assert address in ran.out


def bundled(workshop: Workshop, *names: str) -> None:
    """Have remotes only as bundles."""
    for name in names:
        remote = workshop.remotes / f"{name}.git"
        workshop.git("-C", str(remote), "bundle", "create", "--quiet", str(remote.with_suffix(".bundle")), "--all")
        remote.rename(workshop.root / f"away-{name}")


def layered(workshop: Workshop) -> str:
    """Plugin `alpha` at a commit beyond its tag: version told by git, a submodule that has one itself; all in bundles."""
    inner = workshop.remotes / "inner.git"
    workshop.git("init", "--quiet", "--initial-branch", "main", str(inner))
    (inner / "__init__.py").write_text("ANSWER = 41\n")
    workshop.git("-C", str(inner), "add", "--all")
    workshop.git("-C", str(inner), "commit", "--quiet", "--message", "one")
    with_submodule(workshop, "../sub.git")
    place = workshop.remotes / "alpha.git"
    # Its own submodule.
    sub = workshop.remotes / "sub.git"
    (sub / "__init__.py").write_text("from inner.deep import ANSWER\nANSWER += 1\n")
    (sub / ".gitmodules").write_text('[submodule "deep"]\n\tpath = deep\n\turl = https://git.example.org/inner.git\n')
    workshop.git("-C", str(sub), "add", "--all")
    deep = workshop.git("-C", str(inner), "rev-parse", "HEAD")
    workshop.git("-C", str(sub), "update-index", "--add", "--cacheinfo", f"160000,{deep},deep")
    workshop.git("-C", str(sub), "commit", "--quiet", "--message", "two")
    middle = workshop.git("-C", str(sub), "rev-parse", "HEAD")
    dynamic = (place / "pyproject.toml").read_text().replace('version = "0.1.0"', 'dynamic = ["version"]')
    (place / "pyproject.toml").write_text(dynamic)
    (place / "backend" / "tiny_backend.py").write_text(TOLD_BY_GIT)
    workshop.git("-C", str(place), "update-index", "--cacheinfo", f"160000,{middle},src/inner")
    workshop.git("-C", str(place), "add", "pyproject.toml", "backend")
    workshop.git("-C", str(place), "commit", "--quiet", "--message", "three")
    commit = workshop.git("-C", str(place), "rev-parse", "HEAD")
    workshop.git("-C", str(place), "commit", "--quiet", "--allow-empty", "--message", "four")
    workshop.git("-C", str(place), "tag", "v0.9.0")  # Of no concern to its ancestors.
    bundled(workshop, "alpha", "sub", "inner")
    return commit


def test_a_commit_has_its_tags_and_submodules(workshop: Workshop) -> None:
    """A bare commit gets the version that git tells of it in a full clone, and submodules of submodules; elsewhere too."""
    source = {"git": "https://git.example.org/alpha.git", "rev": layered(workshop)}
    workshop.entry("alpha", source=source)
    env = {"UV_CACHE_DIR": str(workshop.root / "cache")}
    locked = workshop.within("lock", env=env)
    assert locked.status == 0, locked.err
    assert workshop.within("check", "--format", "json", env=env).json["problems"] == []
    assert 'version = "0.1.0.post1"' in (workshop.work / "profiles/prod/pins.toml").read_text()
    # Another machine, without clones: all of it is brought by `build`.
    shutil.rmtree(workshop.work / ".envbuilder")
    env = {"UV_CACHE_DIR": str(workshop.root / "second")}
    built = workshop.within("build", env=env)
    assert built.status == 0, built.err
    ask = "import inner, importlib.metadata as m; print(inner.ANSWER, m.version('alpha'))"
    assert workshop.run("exec", "alpha", "--", "python", "-c", ask, env=env).out.split() == ["42", "0.1.0.post1"]
    # And one that has nothing but a bundle of ours.
    file = str(workshop.root / "all.bundle")
    made = workshop.within("bundle", "create", file, env=env)
    assert made.status == 0, made.err
    shutil.rmtree(workshop.work / ".envbuilder")
    shutil.rmtree(workshop.remotes)
    env = {"UV_CACHE_DIR": str(workshop.root / "third")}
    assert workshop.within("bundle", "restore", file, env=env).status == 0
    built = workshop.within("build", "--offline", env=env)
    assert built.status == 0, built.err
    assert workshop.run("exec", "alpha", "--", "python", "-c", ask, env=env).out.split() == ["42", "0.1.0.post1"]
    # Its clones serve what uv's cache does not have, too.
    shutil.rmtree(workshop.root / "third")
    shutil.rmtree(workshop.work / ".envbuilder" / "store")
    built = workshop.within("build", "--offline", env=env)
    assert built.status == 0, built.err


def test_links_out_of_a_submodule_are_refused(workshop: Workshop) -> None:
    """A submodule may link into the package that it is part of, not out of it."""
    with_submodule(workshop, "../sub.git")
    sub, place = workshop.remotes / "sub.git", workshop.remotes / "alpha.git"
    for target, codes in (("../alpha/__init__.py", []), ("../../../elsewhere", ["metadata-unreadable"])):
        (sub / "link").unlink(missing_ok=True)
        (sub / "link").symlink_to(target)
        workshop.git("-C", str(sub), "add", "--all")
        workshop.git("-C", str(sub), "commit", "--quiet", "--message", target)
        commit = workshop.git("-C", str(sub), "rev-parse", "HEAD")
        workshop.git("-C", str(place), "update-index", "--cacheinfo", f"160000,{commit},src/inner")
        workshop.git("-C", str(place), "commit", "--quiet", "--message", target)
        workshop.git("-C", str(place), "tag", "--force", "v0.1.0")
        assert workshop.within("lock", "--repin", "--format", "json").codes == codes


@pytest.mark.parametrize("form", ["{}.git", "{}", "{}.bundle"])
def test_mirrors_serve_entries_requirements_and_submodules_alike(workshop: Workshop, form: str) -> None:
    """`<name>.git`, `<name>` and `<name>.bundle` are found for all three, by lock, check, build and bundles."""
    workshop.release("dep", "v0.2.0", version="0.2.0")
    workshop.release("lib", "v0.1.0", dependencies=("dep @ git+https://git.example.org/dep.git@v0.2.0",))
    with_submodule(workshop, "../sub.git")
    place = workshop.remotes / "alpha.git"
    for where in ("pyproject.toml", "backend/project.json"):
        text = (place / where).read_text()
        need = '["lib @ git+https://git.example.org/lib.git@v0.1.0"]'
        (place / where).write_text(
            text.replace("dependencies = []", f"dependencies = {need}").replace(
                '"dependencies": []', f'"dependencies": {need}'
            )
        )
    workshop.git("-C", str(place), "add", "pyproject.toml", "backend")
    workshop.git("-C", str(place), "commit", "--quiet", "--message", "three")
    workshop.git("-C", str(place), "tag", "--force", "v0.1.0")
    for name in ("alpha", "lib", "dep", "sub"):
        serve(workshop, name, form)
    env = {"UV_CACHE_DIR": str(workshop.root / "cache")}
    locked = workshop.within("lock", env=env)
    assert locked.status == 0, locked.err
    assert workshop.within("check", "--format", "json", env=env).codes == []
    # Another machine: nothing but the locks and the mirrors.
    shutil.rmtree(workshop.work / ".envbuilder")
    env = {"UV_CACHE_DIR": str(workshop.root / "second")}
    built = workshop.within("build", env=env)
    assert built.status == 0, built.err
    shown = workshop.run("exec", "alpha", "--", "python", "-c", "import dep, inner, lib; print(inner.ANSWER)", env=env)
    assert shown.out.strip() == "42"
    file = str(workshop.root / "all.bundle")
    made = workshop.within("bundle", "create", file, env=env)
    assert made.status == 0, made.err


def serve(workshop: Workshop, name: str, form: str) -> None:
    """Have a remote only under another kind of name."""
    remote: Path = workshop.remotes / f"{name}.git"
    target = workshop.remotes / form.format(name)
    if form.endswith(".bundle"):
        workshop.git("-C", str(remote), "bundle", "create", "--quiet", str(target), "--all")
        remote.rename(workshop.root / f"away-{name}")
    else:
        remote.rename(target)


@pytest.mark.parametrize("missing", ["submodule", "workspace"])
def test_what_is_missing_hides_nothing_else(workshop: Workshop, missing: str) -> None:
    """Of a tag whose submodule or workspace is gone, version, core and Python are judged all the same, at once."""
    workshop.settings(core={"vlm-core": '"0.2.0"'})
    with_submodule(workshop, "../sub.git")
    place = workshop.remotes / "alpha.git"
    text = (place / "pyproject.toml").read_text().replace('version = "0.1.0"', 'version = "0.3.0"')
    text = text.replace(">=3.8", "<3.8").replace("dependencies = []", 'dependencies = ["vlm-core>=7"]')
    if missing == "workspace":
        text += "[tool.uv.sources]\nvlm-core = {workspace = true}\n"
    (place / "pyproject.toml").write_text(text)
    workshop.git("-C", str(place), "add", "pyproject.toml", "backend")
    workshop.git("-C", str(place), "commit", "--quiet", "--message", "three")
    workshop.git("-C", str(place), "tag", "--force", "v0.1.0")
    if missing == "submodule":
        (workshop.remotes / "sub.git").rename(workshop.root / "away-sub")
    workshop.plugin("beta")
    found = workshop.within("check", "--format", "json").json["problems"]
    assert isinstance(found, list)
    assert [(each["entry"], each["code"]) for each in found] == [
        ("alpha", "core-incompatible"),
        ("alpha", "lock-missing"),
        ("alpha", "metadata-unreadable"),
        ("alpha", "python-incompatible"),
        ("alpha", "version-mismatch"),
        ("beta", "lock-missing"),
    ]


def test_all_submodules_that_are_missing_are_told(workshop: Workshop) -> None:
    """Two submodules that are gone are told in one go, by lock as by check."""
    with_submodule(workshop, "../sub.git")
    place = workshop.remotes / "alpha.git"
    modules = (place / ".gitmodules").read_text()
    (place / ".gitmodules").write_text(f'{modules}[submodule "two"]\n\tpath = src/two\n\turl = ../two.git\n')
    commit = workshop.git("-C", str(workshop.remotes / "sub.git"), "rev-parse", "HEAD")
    workshop.git("-C", str(place), "update-index", "--add", "--cacheinfo", f"160000,{commit},src/two")
    workshop.git("-C", str(place), "add", ".gitmodules")
    workshop.git("-C", str(place), "commit", "--quiet", "--message", "three")
    workshop.git("-C", str(place), "tag", "--force", "v0.1.0")
    (workshop.remotes / "sub.git").rename(workshop.root / "away-sub")
    ran = workshop.within("lock", "--format", "json")
    assert ran.codes == ["metadata-unreadable"]
    assert "submodule src/inner" in ran.out
    assert "submodule src/two" in ran.out
