"""Packages whose metadata stands in no one file: versions from git, setup.py, submodules."""

from __future__ import annotations

import pytest
from workshop import BACKEND, Workshop

from envbuilder.documents import parse_toml

# As setuptools-scm and hatch-vcs do it: the version is what git says of the checkout.
VCS_BACKEND = BACKEND.replace(
    'version = project["version"]',
    'import subprocess\n    version = subprocess.check_output(["git", "describe", "--tags", "--exact-match"], text=True)'
    '.strip().removeprefix("v")',
)
TINY = '[build-system]\nrequires = []\nbuild-backend = "tiny_backend"\nbackend-path = ["backend"]\n'


def pins(workshop: Workshop) -> dict[str, dict[str, object]]:
    """Prod's pins."""
    document = parse_toml((workshop.work / "profiles" / "prod" / "pins.toml").read_text(), "pins.toml").value
    entries: dict[str, dict[str, object]] = document["entries"]
    return entries


def content(workshop: Workshop) -> None:
    """Lock, check and lock again, which must all be content."""
    ran = workshop.within("lock", "-q")
    assert ran.status == 0, ran.err
    ran = workshop.within("check", "--format", "json")
    assert ran.json["problems"] == []


def commit(workshop: Workshop, name: str, tag: str, files: dict[str, str]) -> None:
    """Add files to a remote and tag them."""
    repository = workshop.remotes / f"{name}.git"
    if not repository.exists():
        workshop.git("init", "--quiet", "--initial-branch", "main", str(repository))
    for path, text in files.items():
        (repository / path).parent.mkdir(parents=True, exist_ok=True)
        (repository / path).write_text(text)
    workshop.git("-C", str(repository), "add", "--all")
    workshop.git("-C", str(repository), "commit", "--quiet", "--message", tag)
    workshop.git("-C", str(repository), "tag", "--annotate", "--message", tag, tag)


def version(workshop: Workshop) -> str:
    """The version of alpha in its environment."""
    code = "import importlib.metadata as m; print(m.version('alpha'))"
    assert workshop.within("build", "-q").status == 0
    return workshop.run("exec", "alpha", "--", "python", "-c", code).out.strip()


def test_a_version_that_git_tells(workshop: Workshop) -> None:
    """A backend that asks git for the version gets the tag's, at lock and in the environment, with later tags beside."""
    # A repository of its own name: uv's cache keeps the tags that it once saw at an address.
    dynamic = '[project]\nname = "alpha"\ndynamic = ["version"]\n'
    workshop.release("told-by-git", "v0.0.9", name="alpha", pyproject=TINY + dynamic)
    (workshop.remotes / "told-by-git.git" / "backend" / "tiny_backend.py").write_text(VCS_BACKEND)
    commit(workshop, "told-by-git", "v0.3.0", {})
    commit(workshop, "told-by-git", "v0.4.0", {"README": "later"})
    workshop.entry("alpha", source={"git": "https://git.example.org/told-by-git.git", "tag": "v0.3.0"})
    content(workshop)
    assert pins(workshop)["alpha"]["version"] == "0.3.0"
    assert version(workshop) == "0.3.0"


PACKAGES = {
    "setuptools-scm": {
        "pyproject.toml": '[build-system]\nrequires = ["setuptools>=64", "setuptools-scm>=8"]\n'
        'build-backend = "setuptools.build_meta"\n[project]\nname = "alpha"\ndynamic = ["version"]\n'
        'requires-python = ">=3.8"\n[tool.setuptools_scm]\n[tool.setuptools]\npackages = ["alpha"]\n',
    },
    "hatch-vcs": {
        "pyproject.toml": '[build-system]\nrequires = ["hatchling", "hatch-vcs"]\nbuild-backend = "hatchling.build"\n'
        '[project]\nname = "alpha"\ndynamic = ["version"]\n[tool.hatch.version]\nsource = "vcs"\n',
    },
    "setup.cfg": {
        "setup.py": "from setuptools import setup\nsetup()\n",
        "setup.cfg": "[metadata]\nname = alpha\nversion = 0.3.0\n[options]\npackages = alpha\npython_requires = >=3.8\n",
    },
    "setup.cfg beside a backend": {
        "pyproject.toml": '[build-system]\nrequires = ["setuptools"]\nbuild-backend = "setuptools.build_meta"\n',
        "setup.cfg": "[metadata]\nname = alpha\nversion = 0.3.0\n[options]\npackages = alpha\npython_requires = >=3.8\n",
    },
}


@pytest.mark.network
@pytest.mark.parametrize("kind", PACKAGES)
def test_what_real_backends_tell(workshop: Workshop, kind: str) -> None:
    """setuptools-scm, hatch-vcs and setup.cfg: the pin holds the version that the build told, and check is content."""
    name = f"built-{kind.replace(' ', '-')}"
    commit(workshop, name, "v0.3.0", {**PACKAGES[kind], "alpha/__init__.py": "class Model:\n    pass\n"})
    commit(workshop, name, "v0.4.0", {"README": "later"})
    workshop.entry("alpha", source={"git": f"https://git.example.org/{name}.git", "tag": "v0.3.0"})
    content(workshop)
    assert pins(workshop)["alpha"]["version"] == "0.3.0"
    assert version(workshop) == "0.3.0"


def with_submodule(workshop: Workshop, url: str) -> None:
    """A plugin that imports a submodule of its repository."""
    workshop.plugin("alpha", tag="v0.0.9")
    repository = workshop.remotes / "alpha.git"
    workshop.release("helper", "v0.1.0", code="VALUE = 3\n")
    settings = ["-c", "protocol.file.allow=always"]
    source = workshop.remotes / "helper.git"
    workshop.git(*settings, "-C", str(repository), "submodule", "--quiet", "add", str(source), "src/alpha/helper")
    workshop.git("config", "--file", str(repository / ".gitmodules"), "submodule.src/alpha/helper.url", url)
    workshop.package(repository, name="alpha")
    commit(workshop, "alpha", "v0.1.0", {})
    workshop.entry("alpha")


@pytest.mark.parametrize("url", ["https://git.example.org/gone.git", "../gone.git", "ext::sh -c touch% ran"])
def test_a_submodule_that_is_gone_is_told(workshop: Workshop, url: str) -> None:
    """A tag that needs a submodule which is not to be had is unreadable: for check, and for lock before uv is asked."""
    with_submodule(workshop, url)
    for command in ("check", "lock"):
        ran = workshop.within(command, "--format", "json")
        assert ran.status == 1
        assert "metadata-unreadable" in ran.codes
        assert "submodule src/alpha/helper" in ran.out
    assert not (workshop.work / "ran").exists()


def test_a_workspace_that_is_not_there_is_told(workshop: Workshop) -> None:
    """A package that takes a dependency from a uv workspace which its repository lacks cannot be read; one that has it can."""
    head = '[project]\nname = "alpha"\nversion = "0.1.0"\nrequires-python = ">=3.8"\ndependencies = ["helper"]\n'
    taken = "[tool.uv.sources]\nhelper = {workspace = true}\n"
    workshop.release("alpha", "v0.1.0", pyproject=TINY + head + taken)
    workshop.entry("alpha")
    for command in ("check", "lock"):
        ran = workshop.within(command, "--format", "json")
        assert "metadata-unreadable" in ran.codes
        assert "it takes helper from a uv workspace, and no pyproject.toml around it is one" in ran.out
    workshop.package(workshop.remotes / "alpha.git" / "helper", name="helper")
    place = workshop.remotes / "alpha.git" / "packages" / "alpha"
    workshop.package(place, name="alpha", pyproject=TINY + head + taken)
    commit(workshop, "alpha", "v0.1.1", {"pyproject.toml": '[tool.uv.workspace]\nmembers = ["packages/*", "helper"]\n'})
    source = {"git": "https://git.example.org/alpha.git", "tag": "v0.1.1", "subdirectory": "packages/alpha"}
    workshop.entry("alpha", source=source)
    ran = workshop.within("lock")
    assert ran.status == 0, ran.err
    # A folder beside its own is another matter: an entry for what is there makes it whole.
    beside = head.replace("alpha", "beta") + '[tool.uv.sources]\nhelper = {path = "../helper"}\n'
    workshop.release("beta", "v0.1.0", pyproject=TINY + beside)
    workshop.entry("beta")
    ran = workshop.within("lock", "beta")
    assert "hint: envbuilder add helper --library --git URL --tag TAG" in ran.err
