"""The same bytes from two fresh states, for every odd shape of package that there is."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from local_index import Index
from workshop import BACKEND, PYTHON, Workshop

TINY = '[build-system]\nrequires = []\nbuild-backend = "tiny_backend"\nbackend-path = ["backend"]\n'
HEAD = '[project]\nname = "alpha"\nversion = "0.1.0"\nrequires-python = ">=3.8"\ndependencies = ["helper"]\n'
DYNAMIC = '[project]\nname = "alpha"\ndynamic = ["version", "dependencies"]\n'
TELLING = 'lines += [f"Requires-Dist: {item}" for item in project.get("dependencies", [])]'
# As setuptools-scm and hatch-vcs.
BY_GIT = BACKEND.replace(
    'version = project["version"]',
    'import subprocess\n    told = subprocess.check_output(["git", "describe", "--tags", "--exact-match"], text=True)\n'
    '    version = told.strip().removeprefix("v")',
)
# As hatchling's {root:uri} and Poetry tell a dependency beside the package: by where the build finds it.
BESIDE = BACKEND.replace(
    TELLING, "lines.append('Requires-Dist: helper @ ' + (pathlib.Path.cwd() / 'PLACE').resolve().as_uri())"
)
# As a setup.py that puts its extras into a set.
SET = BACKEND.replace(
    TELLING, "lines += {f\"Requires-Dist: {each * 3} ; extra == 'more'\" for each in 'abcdefghijklmnopqrstuvwxyz'}"
)


def remote(workshop: Workshop, name: str) -> Path:
    """A repository's folder, made where it is not there."""
    repository = workshop.remotes / f"{name}.git"
    if not repository.exists():
        workshop.git("init", "--quiet", "--initial-branch", "main", str(repository))
    return repository


def beside(
    workshop: Workshop, name: str, place: str = "../helper", inner: str = "alpha", helper: str = "helper"
) -> None:
    """A package whose build tells a dependency by the folder of its own repository that holds it."""
    workshop.package(remote(workshop, name) / helper, name="helper")
    backend = BESIDE.replace("PLACE", place)
    workshop.release(name, "v0.1.0", subdirectory=inner, name="alpha", pyproject=TINY + DYNAMIC, backend=backend)


def by_source(workshop: Workshop, name: str, source: str, around: str = "") -> None:
    """A package that names a dependency of its repository in ``[tool.uv.sources]``."""
    repository = remote(workshop, name)
    workshop.package(repository / "helper", name="helper")
    if around:
        (repository / "pyproject.toml").write_text(around)
    text = f"{TINY}{HEAD}[tool.uv.sources]\nhelper = {{{source}}}\n"
    workshop.release(name, "v0.1.0", subdirectory="alpha", name="alpha", pyproject=text)


def poetry(workshop: Workshop, name: str) -> None:
    """A package with Poetry's metadata, which names a folder beside it; its backend is ours."""
    workshop.package(remote(workshop, name) / "helper", name="helper")
    told = (
        '[tool.poetry]\nname = "alpha"\nversion = "0.1.0"\n[tool.poetry.dependencies]\nhelper = {path = "../helper"}\n'
    )
    backend = BESIDE.replace("PLACE", "../helper")
    workshop.release(name, "v0.1.0", subdirectory="alpha", name="alpha", pyproject=TINY + told, backend=backend)


def submodule(workshop: Workshop, name: str) -> None:
    """A package that imports a submodule."""
    workshop.release("part", "v0.1.0")
    workshop.release(name, "v0.0.9", name="alpha")
    allowed = ("-c", "protocol.file.allow=always")
    repository = str(workshop.remotes / f"{name}.git")
    workshop.git(
        *allowed, "-C", repository, "submodule", "--quiet", "add", str(workshop.remotes / "part.git"), "src/part"
    )
    workshop.git(
        "config", "--file", f"{repository}/.gitmodules", "submodule.src/part.url", "https://git.example.org/part.git"
    )
    workshop.release(
        name, "v0.1.0", name="alpha", pyproject=f'{TINY}[project]\nname = "alpha"\ndynamic = ["version"]\n'
    )


def told_by_git(workshop: Workshop, name: str) -> None:
    """A package whose version git tells."""
    text = f'{TINY}[project]\nname = "alpha"\ndynamic = ["version"]\n'
    workshop.release(name, "v0.1.0", name="alpha", pyproject=text, backend=BY_GIT)


# Each makes a repository of that name; the entry's subdirectory.
SHAPES: dict[str, tuple[Callable[[Workshop, str], object], str]] = {
    "static": (lambda shop, name: shop.release(name, "v0.1.0", name="alpha"), ""),
    "version-by-git": (told_by_git, ""),
    "set-of-extras": (
        lambda shop, name: shop.release(name, "v0.1.0", name="alpha", pyproject=TINY + DYNAMIC, backend=SET), ""
    ),
    "built-beside": (beside, "alpha"),
    "built-below": (lambda shop, name: beside(shop, name, "a b/helper", inner="", helper="a b/helper"), ""),
    "path-source": (lambda shop, name: by_source(shop, name, 'path = "../helper"'), "alpha"),
    "workspace": (
        lambda shop, name: by_source(
            shop, name, "workspace = true", '[tool.uv.workspace]\nmembers = ["alpha", "helper"]\n'
        ),
        "alpha",
    ),
    "poetry": (poetry, "alpha"),
    "submodule": (submodule, ""),
}  # fmt: skip


def written(workshop: Workshop) -> dict[str, bytes]:
    """All that `lock` wrote for prod."""
    place = workshop.work / "profiles" / "prod"
    names = ("pins.toml", "alpha/pyproject.toml", "alpha/uv.lock")
    return {name: (place / name).read_bytes() for name in names}


@pytest.mark.parametrize("shape", SHAPES)
def test_a_lock_is_the_same_from_two_fresh_states(tmp_path: Path, shape: str) -> None:
    """In two places, each with an empty cache, pins and locks are the same bytes, and `--repin` changes none of them."""
    make, subdirectory = SHAPES[shape]
    found = []
    with Index(tmp_path / "wheels") as index:
        for place in ("one", "another place"):
            workshop = Workshop(tmp_path / place)
            workshop.write("profiles/prod/profile.toml", f'python = "{PYTHON}"\nindex-url = "{index.url}"\n')
            make(workshop, shape)
            source = {"git": f"https://git.example.org/{shape}.git", "tag": "v0.1.0"}
            workshop.entry("alpha", source={**source, **({"subdirectory": subdirectory} if subdirectory else {})})
            env = {"UV_CACHE_DIR": str(workshop.root / "cache")}
            ran = workshop.within("lock", "-q", env=env)
            assert ran.status == 0, ran.err
            found.append(written(workshop))
        ran = workshop.within("lock", "--repin", "--format", "json", env=env)
        assert json.loads(ran.out)["result"]["plugins"][0]["state"] == "unchanged"
        assert written(workshop) == found[-1]
        assert workshop.within("check", "--format", "json", env=env).json["problems"] == []
    assert found[0] == found[1]
    assert str(tmp_path).encode() not in b"".join(found[0].values())
    assert b"file:" not in b"".join(found[0].values())


HATCH = """
[build-system]
requires = ["hatchling"]
build-backend = "hatchling.build"
[project]
name = "alpha"
dynamic = ["version"]
dependencies = ["helper @ {root:uri}/../helper"]
[tool.hatch.version]
path = "src/alpha/__init__.py"
[tool.hatch.metadata]
allow-direct-references = true
"""
POETRY = """
[build-system]
requires = ["poetry-core"]
build-backend = "poetry.core.masonry.api"
[tool.poetry]
name = "alpha"
version = "0.1.0"
description = ""
authors = []
packages = [{include = "alpha", from = "src"}]
[tool.poetry.dependencies]
python = "^3.8 || ^4.0"
helper = {path = "../helper"}
"""
SETUP = """
from setuptools import setup
setup(name="alpha", version="0.1.0", packages=["alpha"], package_dir={"": "src"},
      extras_require={"more": list({"packaging", "tomlkit", "pathspec", "pluggy", "wheel"})})
"""


@pytest.mark.network
@pytest.mark.parametrize(
    ("kind", "files"),
    [
        ("hatch", {"pyproject.toml": HATCH, "src/alpha/__init__.py": '__version__ = "0.1.0"\n'}),
        ("poetry-core", {"pyproject.toml": POETRY}),
        ("setup-py", {"setup.py": SETUP}),
    ],
)
def test_real_backends_tell_the_same_twice(workshop: Workshop, kind: str, files: dict[str, str]) -> None:
    """Hatchling's `{root:uri}`, Poetry's paths and a setup.py that walks a set: the same pins from two fresh states."""
    repository = remote(workshop, f"real-{kind}")
    workshop.package(repository / "helper", name="helper")
    package = workshop.package(repository / "alpha", name="alpha")
    (package / "pyproject.toml").unlink()
    for name, text in files.items():
        (package / name).write_text(text)
    workshop.git("-C", str(repository), "add", "--all")
    workshop.git("-C", str(repository), "commit", "--quiet", "--message", "all")
    workshop.git("-C", str(repository), "tag", "v0.1.0")
    source = {"git": f"https://git.example.org/real-{kind}.git", "tag": "v0.1.0", "subdirectory": "alpha"}
    workshop.entry("alpha", source=source)
    ran = workshop.within("lock", "-q")
    assert ran.status == 0, ran.err
    first = written(workshop)
    assert b"file:" not in first["pins.toml"] + first["alpha/uv.lock"]
    for name in first:
        (workshop.work / "profiles" / "prod" / name).unlink()
    ran = workshop.within("lock", "-q", env={"ENVBUILDER_HOME": str(workshop.root / "home")})
    assert ran.status == 0, ran.err
    assert written(workshop) == first


def test_a_pin_names_a_folder_of_its_own_repository_by_the_repository(workshop: Workshop) -> None:
    """What a build tells by a folder's address stands in the pin as a package of the repository, with its folder."""
    beside(workshop, "mono", "../the helper", helper="the helper")
    workshop.entry(
        "alpha", source={"git": "https://git.example.org/mono.git", "tag": "v0.1.0", "subdirectory": "alpha"}
    )
    with Index(workshop.root / "wheels") as index:
        workshop.write("profiles/prod/profile.toml", f'python = "{PYTHON}"\nindex-url = "{index.url}"\n')
        ran = workshop.within("lock", "-q")
    assert ran.status == 0, ran.err
    pins = (workshop.work / "profiles" / "prod" / "pins.toml").read_text()
    assert '"helper @ git+https://git.example.org/mono.git@v0.1.0#subdirectory=the%20helper"' in pins


def test_a_folder_out_of_the_repository_is_refused(workshop: Workshop) -> None:
    """A build that tells a dependency by a folder of the machine that builds is refused, with the folder."""
    beside(workshop, "outside", "../../elsewhere")
    source = {"git": "https://git.example.org/outside.git", "tag": "v0.1.0", "subdirectory": "alpha"}
    workshop.entry("alpha", source=source)
    for command in ("lock", "check"):
        ran = workshop.within(command, "--format", "json")
        assert ran.status == 1
        assert "metadata-unreadable" in ran.codes
        assert "it requires helper from ../elsewhere, which is out of its repository" in ran.out
