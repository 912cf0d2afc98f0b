"""What packages from source are built with: backends as they were when locked, and what packages forget to declare."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
from local_index import Index, make_sdist, make_wheel
from workshop import BACKEND, PYTHON, Ran, Workshop

from envbuilder.documents import parse_toml


def backend(version: str) -> bytes:
    """The module of a build backend that says in each wheel which version of it built it."""
    noting = f"""
_plain = build_wheel

def build_wheel(folder, config_settings=None, metadata_directory=None):
    for package in pathlib.Path("src").iterdir():
        (package / "by.py").write_text("BY = {version!r}")
    return _plain(folder)
"""
    return (BACKEND + noting).encode()


def make_backend(folder: Path, version: str) -> None:
    """A wheel of the build backend `tiny`."""
    make_wheel(folder, "tiny", version, files={"tiny.py": backend(version)})


def served(workshop: Workshop, index: Index, extra: str = "") -> None:
    """Have prod ask the index alone."""
    workshop.write("profiles/prod/profile.toml", f'python = "{PYTHON}"\nindex-url = "{index.url}"\n{extra}')


def fresh(workshop: Workshop, name: str) -> dict[str, str]:
    """Variables that give uv an empty cache, and envbuilder an empty store."""
    return {"UV_CACHE_DIR": str(workshop.root / name), "ENVBUILDER_HOME": str(workshop.root / f"{name}-home")}


def succeed(ran: Ran) -> Ran:
    """What ran, which must have succeeded."""
    assert ran.status == 0, ran.out + ran.err
    return ran


def says(workshop: Workshop, plugin: str, code: str, env: Mapping[str, str]) -> str:
    """Build a plugin, and what code prints in its environment."""
    succeed(workshop.within("build", plugin, env=env))
    return succeed(workshop.run("exec", plugin, "--", "python", "-c", code, env=env)).out.strip()


def built_by(workshop: Workshop, plugin: str, name: str) -> str:
    """Build a plugin from nothing, and which version of the backend says that it built it."""
    return says(workshop, plugin, f"import {plugin}.by; print({plugin}.by.BY)", fresh(workshop, name))


def project(workshop: Workshop, plugin: str) -> dict[str, object]:
    """``[tool.uv]`` of a plugin's generated project."""
    file = workshop.work / "profiles" / "prod" / plugin / "pyproject.toml"
    found = parse_toml(file.read_text(), "it").value["tool"]["uv"]
    assert isinstance(found, dict)
    return found


def _writing(imported: str, package: str, name: str) -> str:
    """Lines of a backend that write the version of what it imports into the package that it builds."""
    return (
        f"\nimport {imported}, pathlib\n_at = pathlib.Path('src/{package}')\n_at.mkdir(parents=True, exist_ok=True)\n"
        f"(_at / '__init__.py').write_text(f'{name} = {{{imported}.VERSION!r}}')\n"
    )


def declares(requires: str, name: str = "alpha") -> str:
    """A pyproject.toml whose backend comes from the index."""
    return (
        f'[build-system]\nrequires = ["{requires}"]\nbuild-backend = "tiny"\n'
        f'[project]\nname = "{name}"\nversion = "0.1.0"\n'
    )


@pytest.fixture
def wheels(tmp_path: Path) -> Path:
    """A folder of wheels, with the backend in version 1.0."""
    make_backend(tmp_path / "wheels", "1.0")
    return tmp_path / "wheels"


def test_a_build_next_year_uses_this_year_s_backend(workshop: Workshop, wheels: Path) -> None:
    """The backend's version at the time of the lock is kept for builds from nothing and for later locks; --upgrade moves it."""
    with Index(wheels) as index:
        served(workshop, index)
        workshop.plugin("alpha", pyproject=declares("tiny>=0.5"))
        succeed(workshop.within("lock", env=fresh(workshop, "first")))
        assert project(workshop, "alpha")["build-constraint-dependencies"] == ["tiny==1.0"]
        make_backend(wheels, "2.0")
        assert built_by(workshop, "alpha", "later") == "1.0"
        workshop.entry("alpha", env={"A": "1"}, python=f"=={PYTHON}.*")
        succeed(workshop.within("lock", env=fresh(workshop, "relock")))
        assert project(workshop, "alpha")["build-constraint-dependencies"] == ["tiny==1.0"]
        succeed(workshop.within("lock", "--upgrade", env=fresh(workshop, "upgrade")))
        assert project(workshop, "alpha")["build-constraint-dependencies"] == ["tiny==2.0"]
        assert built_by(workshop, "alpha", "last") == "2.0"
        assert workshop.within("lock", "--check").status == 0


def test_constraints_of_the_profile_come_first(workshop: Workshop, wheels: Path) -> None:
    """What `build-constraints` says of a backend holds, and is not said twice."""
    make_backend(wheels, "2.0")
    make_backend(wheels, "3.0")
    with Index(wheels) as index:
        served(workshop, index, 'build-constraints = ["tiny<3"]\n')
        workshop.plugin("alpha", pyproject=declares("tiny"))
        env = fresh(workshop, "cache")
        succeed(workshop.within("lock", env=env))
        assert project(workshop, "alpha")["build-constraint-dependencies"] == ["tiny<3"]
        assert built_by(workshop, "alpha", "built") == "2.0"


def test_members_that_want_different_backends_can_all_be_built(workshop: Workshop, wheels: Path) -> None:
    """Where no one version does for all, constraints only forbid what is newer than what there was."""
    make_backend(wheels, "2.0")
    with Index(wheels) as index:
        served(workshop, index)
        workshop.plugin("alpha", pyproject=declares("tiny<2") + 'dependencies = ["lib"]\n', dependencies=("lib",))
        workshop.release("lib", "v0.1.0", pyproject=declares("tiny>=2", "lib"))
        workshop.entry("lib", kind="library")
        succeed(workshop.within("lock", env=fresh(workshop, "cache")))
        assert project(workshop, "alpha")["build-constraint-dependencies"] == ["tiny<=2.0"]
        make_backend(wheels, "3.0")
        code = "import alpha.by, lib.by; print(alpha.by.BY, lib.by.BY)"
        assert says(workshop, "alpha", code, fresh(workshop, "later")) == "1.0 2.0"


def test_an_sdist_that_nobody_knows_is_bound_too(workshop: Workshop, wheels: Path) -> None:
    """A release without a wheel is built with what was newest when it was locked, of the backends that are usual."""
    files = {"backend.py": BACKEND, "backend/project.json": json.dumps({"name": "third", "version": "1.0"})}
    note = _writing("hatchling", "third", "BY")
    system = '[build-system]\nrequires = ["hatchling"]\nbuild-backend = "backend"\nbackend-path = ["."]\n'
    make_sdist(wheels, "third", "1.0", {**files, "backend.py": BACKEND + note, "pyproject.toml": system})
    make_wheel(wheels, "hatchling", "1.0")
    with Index(wheels) as index:
        served(workshop, index)
        workshop.plugin("alpha", dependencies=("third",))
        succeed(workshop.within("lock", env=fresh(workshop, "cache")))
        assert project(workshop, "alpha")["build-constraint-dependencies"] == ["hatchling<=1.0"]
        make_wheel(wheels, "hatchling", "2.0")
        assert says(workshop, "alpha", "import third; print(third.BY)", fresh(workshop, "later")) == "1.0"


def test_exclude_newer_holds_for_dependencies_and_backends(workshop: Workshop, wheels: Path) -> None:
    """Nothing that was uploaded later is chosen, neither to install nor to build with."""
    make_backend(wheels, "2.0")
    for version in ("1.0", "2.0"):
        make_wheel(wheels, "common", version)
    times = {"1.0": "2026-01-01T00:00:00Z", "2.0": "2026-03-01T00:00:00Z"}
    uploaded = {
        f"{name}-{version}-py3-none-any.whl": time for name in ("tiny", "common") for version, time in times.items()
    }
    with Index(wheels, uploaded=uploaded) as index:
        served(workshop, index, 'exclude-newer = "2026-02-01"\n')
        workshop.plugin("alpha", pyproject=declares("tiny") + 'dependencies = ["common"]\n', dependencies=("common",))
        env = fresh(workshop, "cache")
        succeed(workshop.within("lock", env=env))
        code = "import alpha.by, common; print(alpha.by.BY, common.VERSION)"
        assert says(workshop, "alpha", code, env) == "1.0 1.0"
        served(workshop, index, 'exclude-newer = "2026-04-01"\n')
        succeed(workshop.within("lock", "--upgrade", env=env))
        assert says(workshop, "alpha", code, fresh(workshop, "later")) == "2.0 2.0"
        served(workshop, index, 'exclude-newer = "2026-02-01"\n')
        succeed(workshop.within("lock", env=env))
        assert project(workshop, "alpha")["build-constraint-dependencies"] == ["tiny==1.0"]


def forgetful(wheels: Path, requires: str = "[]") -> None:
    """A release of `flash` whose build imports torch without declaring it, and torch in two versions."""
    for version in ("1.0", "2.0"):
        make_wheel(wheels, "torch", version)
    system = f'[build-system]\nrequires = {requires}\nbuild-backend = "backend"\nbackend-path = ["."]\n'
    facts = {"name": "flash", "version": "1.0", "dependencies": ["torch"]}
    note = _writing("torch", "flash", "WITH")
    files = {"backend.py": BACKEND + note, "backend/project.json": json.dumps(facts), "pyproject.toml": system}
    make_sdist(wheels, "flash", "1.0", files)


def test_a_package_whose_build_imports_torch_is_built_with_the_environment_s_torch(
    workshop: Workshop, wheels: Path
) -> None:
    """What is not declared is there when it builds, in the very version that it will run with."""
    forgetful(wheels)
    with Index(wheels) as index:
        served(workshop, index)
        workshop.plugin("alpha", dependencies=("flash", "torch<2"))
        env = fresh(workshop, "cache")
        ran = workshop.within("lock", "--format", "json", env=env)
        assert (ran.status, ran.codes) == (1, ["lock-failed"])
        workshop.entry("alpha", **{"no-build-isolation": ["flash"]})  # type: ignore[arg-type]
        succeed(workshop.within("lock", env=env))
        assert workshop.within("lock", "--check").status == 0
        code = "import flash, torch; print(flash.WITH, torch.VERSION)"
        assert says(workshop, "alpha", code, fresh(workshop, "later")) == "1.0 1.0"
        workshop.entry("alpha", **{"no-build-isolation": {"flash": ["torch", "tiny==1.0"]}})  # type: ignore[arg-type]
        succeed(workshop.within("lock", env=env))
        assert succeed(workshop.within("build", "--format", "json", env=env)).json["result"]


def test_what_is_built_with_what_the_environment_lacks_is_refused(workshop: Workshop, wheels: Path) -> None:
    """A build requirement without a version must be in the environment, which is told when it is locked."""
    forgetful(wheels)
    with Index(wheels) as index:
        served(workshop, index)
        workshop.plugin("alpha", dependencies=("flash",), keys={"no-build-isolation": {"flash": ["torch", "tiny"]}})
        ran = workshop.within("lock", "--format", "json", env=fresh(workshop, "cache"))
        assert (ran.status, ran.codes) == (1, ["lock-failed"])
        assert "flash is to be built with tiny, which is not in the environment" in ran.out


def test_metadata_that_only_a_build_tells_comes_by_the_profile_s_index(workshop: Workshop, wheels: Path) -> None:
    """A package with a dynamic version is asked with a backend from the same index, under the same constraints."""
    make_backend(wheels, "2.0")
    dynamic = declares("tiny").replace('version = "0.1.0"', 'dynamic = ["version"]')
    uploaded = {
        "tiny-2.0-py3-none-any.whl": "2026-03-01T00:00:00Z",
        "tiny-1.0-py3-none-any.whl": "2026-01-01T00:00:00Z",
    }
    with Index(wheels, uploaded=uploaded) as index:
        served(workshop, index, 'build-constraints = ["tiny<3"]\nexclude-newer = "2026-02-01"\n')
        workshop.plugin("alpha", tag="v0.3.0", pyproject=dynamic)
        succeed(workshop.within("lock", env=fresh(workshop, "cache")))
        assert 'version = "0.3.0"' in (workshop.work / "profiles/prod/pins.toml").read_text()
        assert index.whole == {"tiny-1.0-py3-none-any.whl": 1}


SETUPTOOLS = (
    BACKEND
    + """
import sys
__legacy__ = sys.modules[__name__]
_plain = build_wheel

def build_wheel(folder, config_settings=None, metadata_directory=None):
    exec(compile(pathlib.Path("setup.py").read_text(), "setup.py", "exec"), {"__name__": "__main__"})
    return _plain(folder)

def build_editable(folder, config_settings=None, metadata_directory=None):
    exec(compile(pathlib.Path("setup.py").read_text(), "setup.py", "exec"), {"__name__": "__main__"})
    return _wheel(folder, True)
"""
)
SETUP = "import torch\nopen('src/dino/__init__.py', 'a').write(f'\\nWITH = {torch.VERSION!r}\\n')\n"


@pytest.fixture
def grounding(workshop: Workshop, wheels: Path) -> Iterator[Workshop]:
    """A plugin of a setup.py alone, which imports torch, as GroundingDINO's does."""
    make_wheel(
        wheels,
        "setuptools",
        "75.0",
        files={"setuptools/__init__.py": b"", "setuptools/build_meta.py": SETUPTOOLS.encode()},
    )
    for version in ("1.0", "2.0"):
        make_wheel(wheels, "torch", version)
    repository = workshop.remotes / "dino.git"
    workshop.git("init", "--quiet", "--initial-branch", "main", str(repository))
    (repository / "setup.py").write_text(SETUP)
    with Index(wheels) as index:
        served(workshop, index)
        workshop.package(repository, name="dino", dependencies=("torch<2",))
        (repository / "pyproject.toml").unlink()
        workshop.git("-C", str(repository), "add", "--all")
        workshop.git("-C", str(repository), "commit", "--quiet", "--message", "first")
        workshop.git("-C", str(repository), "tag", "v0.1.0")
        workshop.entry("dino")
        yield workshop


def test_a_plugin_whose_own_build_imports_torch_is_locked_checked_and_built(grounding: Workshop) -> None:
    """The line of the hint makes lock, check and build succeed, against the torch that the plugin runs with."""
    env = fresh(grounding, "cache")
    ran = grounding.within("lock", "--format", "json", env=env)
    assert (ran.status, ran.codes) == (1, ["metadata-unreadable"])
    assert "No module named 'torch'" in ran.out
    problems = ran.json["problems"]
    assert isinstance(problems, list)
    line = re.search(r"# (no-build-isolation: \{.*?\});", problems[0]["hint"])
    assert line is not None, problems
    file = grounding.registry / "dino.yaml"
    file.write_text(file.read_text().rstrip().removesuffix("}") + f", {line[1]}}}")
    succeed(grounding.within("lock", env=env))
    succeed(grounding.within("check", env=env))
    assert says(grounding, "dino", "import dino; print(dino.WITH)", fresh(grounding, "later")) == "1.0"
    pins = parse_toml((grounding.work / "profiles/prod/pins.toml").read_text(), "it").value
    assert pins["entries"]["dino"]["requires"] == ["torch<2"]


def test_a_bundle_holds_what_a_plugin_is_itself_built_with(grounding: Workshop, tmp_path: Path) -> None:
    """A bundle of such a plugin proves itself, from nothing and without a network."""
    grounding.entry("dino", **{"no-build-isolation": ["dino"]})  # type: ignore[arg-type]
    env = fresh(grounding, "cache")
    succeed(grounding.within("lock", env=env))
    succeed(grounding.within("build", env=env))
    succeed(grounding.within("bundle", "create", str(tmp_path / "made.tar"), env=env))


def test_a_library_s_own_build_and_a_checkout_get_what_the_entry_says(grounding: Workshop) -> None:
    """What a plugin says of a library's build holds for the library's metadata; a path in dev is built alike."""
    grounding.entry("dino", kind="library")
    grounding.plugin("alpha", dependencies=("dino",), keys={"no-build-isolation": ["dino"]})
    env = fresh(grounding, "cache")
    succeed(grounding.within("lock", env=env))
    assert says(grounding, "alpha", "import dino; print(dino.WITH)", env) == "1.0"
    checkout = grounding.work / "packages" / "dino"
    grounding.git("clone", "--quiet", str(grounding.remotes / "dino.git"), str(checkout))
    grounding.write("profiles/dev/profile.toml", (grounding.work / "profiles/prod/profile.toml").read_text())
    grounding.write("profiles/registry/dino.dev.yaml", "source: {path: packages/dino}\n")
    succeed(grounding.within("lock", "--profile", "dev", env=env))
    succeed(grounding.within("build", "--profile", "dev", env=env))
