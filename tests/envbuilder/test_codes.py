"""Each code of `check` in its situation, and what bare uv says to the same: docs/codes.md, held to what happens."""

from __future__ import annotations

import ast
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from workshop import PYTHON, Workshop

TABLE = Path(__file__).parents[2] / "docs" / "codes.md"
PACKAGE = Path(__file__).parents[2] / "envbuilder"
TINY = '[build-system]\nrequires = []\nbuild-backend = "tiny_backend"\nbackend-path = ["backend"]\n'
CORE = {"vlm-core": '"0.1.0"'}


@dataclass(frozen=True)
class Situation:
    """What is wrong: `change` makes it so for us, `theirs` does the like to the generated project where ours is not."""

    change: Callable[[Workshop], object]
    theirs: Callable[[Workshop], object] = lambda _: None


def both(first: Callable[[Workshop], object], second: Callable[[Workshop], object]) -> Callable[[Workshop], None]:
    """Two steps, one after the other."""

    def take(workshop: Workshop) -> None:
        first(workshop)
        second(workshop)

    return take


def remote(workshop: Workshop, *arguments: str, name: str = "alpha") -> str:
    """Run git in a remote."""
    return workshop.git("-C", str(workshop.remotes / f"{name}.git"), *arguments)


def retag(workshop: Workshop, name: str = "alpha", *, commit: str | None = None) -> None:
    """Put v0.1.0 on another commit, by default on one that is new."""
    target = commit or workshop.release(name, "later", dependencies=("lib",) if name == "alpha" else (), code="x = 1")
    remote(workshop, "tag", "--force", "--annotate", "--message", "again", "v0.1.0", target, name=name)


def project(workshop: Workshop, plugin: str = "alpha") -> Path:
    """The folder of a plugin's generated project."""
    return workshop.work / "profiles" / "prod" / plugin


def edit(path: Path, old: str, new: str) -> None:
    """Replace text that is there."""
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new))


def off_tag(workshop: Workshop) -> None:
    """Edit the lock to a commit that the tag never had."""
    commit = remote(workshop, "rev-parse", "v0.1.0^{commit}")
    other = workshop.release("alpha", "later", dependencies=("lib",), code="x = 1")
    edit(project(workshop) / "uv.lock", commit, other)


def another_package(workshop: Workshop, **package: object) -> None:
    """A new release of alpha that is not what its tag says, locked where it can be."""
    workshop.release("alpha", "v0.2.0", **package)  # type: ignore[arg-type]
    workshop.entry("alpha", tag="v0.2.0")
    workshop.within("lock", "-q")


def diverge(workshop: Workshop) -> None:
    """Lock a second plugin on the day after the library's tag was moved."""
    workshop.plugin("beta", dependencies=("lib",))
    retag(workshop, "lib")
    workshop.within("lock", "-q", "--repin", "beta")


def circle(workshop: Workshop) -> None:
    """A release of the library that needs the plugin that needs it."""
    workshop.release("lib", "v0.2.0", version="0.2.0", dependencies=("alpha",))
    workshop.entry("lib", kind="library", tag="v0.2.0")


def new_tag(workshop: Workshop, tag: str) -> None:
    """Name another tag in the generated project."""
    edit(project(workshop) / "pyproject.toml", 'tag = "v0.1.0"}\nlib', f'tag = "{tag}"}}\nlib')


def library_tag(workshop: Workshop) -> None:
    """Name the library's other tag in the generated project."""
    edit(project(workshop) / "pyproject.toml", 'lib.git", tag = "v0.1.0"', 'lib.git", tag = "v0.2.0"')


def no_lock(workshop: Workshop) -> None:
    """Leave the generated project without a lock."""
    (project(workshop) / "uv.lock").unlink()


def stale(workshop: Workshop) -> None:
    """A release that the registry names and the lock does not have."""
    workshop.release("alpha", "v0.2.0", version="0.2.0", dependencies=("lib",))
    workshop.entry("alpha", tag="v0.2.0")


SITUATIONS = {
    "source-not-allowed": Situation(
        lambda w: w.entry("alpha", source={"git": "https://git.example.org/alpha.git", "branch": "main"}),
        both(
            lambda w: edit(project(w) / "pyproject.toml", 'tag = "v0.1.0"}\nlib', 'branch = "main"}\nlib'),
            lambda w: uv(w, "lock"),
        ),
    ),
    "tag-moved": Situation(retag),
    "tag-deleted": Situation(lambda w: remote(w, "tag", "--delete", "v0.1.0")),
    "tag-recreated": Situation(lambda w: retag(w, commit=remote(w, "rev-parse", "v0.1.0^{commit}"))),
    "lock-off-tag": Situation(off_tag),
    "pin-edited": Situation(lambda w: edit(w.work / "profiles/prod/pins.toml", '"lib"', '"alpha"')),
    "tag-unsigned": Situation(
        lambda w: w.write("profiles/prod/profile.toml", f'python = "{PYTHON}"\nrequire-signed-tags = true\n')
    ),
    "version-mismatch": Situation(lambda w: another_package(w, version="0.1.9")),
    "core-incompatible": Situation(
        both(
            lambda w: w.settings(core={"lib": '"7.0"'}),
            lambda w: another_package(w, version="0.2.0", dependencies=("lib<7",)),
        )
    ),
    "sibling-divergent": Situation(diverge),
    "sibling-cyclic": Situation(circle, both(library_tag, lambda w: uv(w, "lock"))),
    "workspace-member": Situation(
        both(
            lambda w: w.package(w.work / "packages" / "alpha", name="alpha"),
            lambda w: w.settings(core=CORE, extra='[tool.uv.workspace]\nmembers = ["packages/*"]\n'),
        )
    ),
    "python-incompatible": Situation(lambda w: another_package(w, version="0.2.0", requires_python="<3.8")),
    "lock-stale": Situation(stale, lambda w: new_tag(w, "v0.2.0")),
    "tag-missing": Situation(lambda w: w.entry("alpha", tag="v9"), lambda w: new_tag(w, "v9")),
    "remote-unreachable": Situation(lambda w: (w.remotes / "alpha.git").rename(w.root / "away")),
    "name-mismatch": Situation(
        lambda w: another_package(w, name="other", version="0.2.0"), lambda w: new_tag(w, "v0.2.0")
    ),
    "metadata-unreadable": Situation(
        lambda w: another_package(w, pyproject="[project\n"), lambda w: new_tag(w, "v0.2.0")
    ),
    "lock-missing": Situation(no_lock),
}


def uv(workshop: Workshop, *arguments: str) -> str:
    """What bare uv makes of alpha's project: `passes` or `fails`."""
    env = {
        **workshop.environment(),
        "GIT_CONFIG_COUNT": "1",
        "GIT_CONFIG_KEY_0": f"url.{workshop.remotes.as_uri()}/.insteadOf",
        "GIT_CONFIG_VALUE_0": "https://git.example.org/",
        "UV_CACHE_DIR": str(workshop.root / "cache"),
        "UV_PROJECT_ENVIRONMENT": str(workshop.root / "environment"),
    }
    argv = ["uv", *arguments, "--project", str(project(workshop))]
    done = subprocess.run(argv, env=env, capture_output=True, text=True, check=False, timeout=120)
    return "passes" if done.returncode == 0 else "fails"


@pytest.fixture(scope="module")
def locked_once(tmp_path_factory: pytest.TempPathFactory) -> Workshop:
    """A plugin with a library, locked; to be copied, not changed."""
    made = Workshop(tmp_path_factory.mktemp("locked"))
    made.settings(core=CORE)
    made.plugin("alpha", dependencies=("lib",), keys={"core": None})
    made.release("lib", "v0.1.0")
    made.entry("lib", kind="library")
    assert made.within("lock", "-q").status == 0
    return made


def rows() -> dict[str, tuple[str, str]]:
    """The table's codes, and what it says of uv."""
    cells = re.findall(r"^\| `([\w-]+)` \|.*\| (\w+) \| (\w+) \|$", TABLE.read_text(encoding="utf-8"), re.MULTILINE)
    return {code: (lock, sync) for code, lock, sync in cells}


def test_the_table_has_every_situation() -> None:
    """No code is told of that is not tried, and none is tried without being told of."""
    assert set(rows()) == set(SITUATIONS)


def codes_in(path: Path) -> Iterator[str]:
    """The codes that a module gives to problems and errors."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        given: list[ast.expr] = []
        if isinstance(node, ast.Call):
            name = getattr(node.func, "attr", getattr(node.func, "id", ""))
            given += [word.value for word in node.keywords if word.arg == "code"]
            given += node.args[:1] if name in {"Problem", "_problem"} else []
            given += node.args[2:3] if name == "explain" else []
        elif isinstance(node, ast.Assign) and [getattr(target, "id", "") for target in node.targets] == ["code"]:
            given.append(node.value)
        plain = [each for each in given if isinstance(each, ast.Constant | ast.IfExp)]
        words = (word for each in plain for word in ast.walk(each) if isinstance(word, ast.Constant))
        yield from (word.value for word in words if word.value and isinstance(word.value, str))


# Codes that are put together where they are reported: what begins them, and what follows.
COMPOSED = {
    "environment-": ("missing", "stray", "changed", "content", "interpreter", "seal"),
    "work-": ("uncommitted", "unpushed", "stashed", "reflog", "ignored", "hidden", "under-way", "settings"),
}


def test_every_code_is_told_of() -> None:
    """What can be reported stands in docs/codes.md, each in one table, and nothing else does."""
    modules = [*PACKAGE.rglob("*.py"), *PACKAGE.with_name("pipeline").rglob("*.py")]
    cells = re.findall(r"^\| (`.*?) \|", TABLE.read_text(encoding="utf-8"), re.MULTILINE)
    told = [code for cell in cells for code in re.findall(r"`([\w-]+)`", cell)]
    assert len(told) == len(set(told))
    reported = {code for path in modules for code in codes_in(path)}
    assert reported <= set(told)
    composed = {start + end for start, ends in COMPOSED.items() for end in ends}
    source = "".join(path.read_text(encoding="utf-8") for path in modules)
    assert not [
        code for code in set(told) - reported - composed if f'"{code}"' not in source and f'"{code}:' not in source
    ]


@pytest.mark.parametrize("code", SITUATIONS)
def test_what_check_and_uv_say(workshop: Workshop, locked_once: Workshop, code: str) -> None:
    """Check reports the code; uv says what the table says."""
    for name in ("work", "remotes"):
        shutil.rmtree(workshop.root / name)
        shutil.copytree(getattr(locked_once, name), workshop.root / name)
    workshop.settings(core=CORE)
    SITUATIONS[code].change(workshop)
    assert code in workshop.within("check", "--format", "json").codes
    SITUATIONS[code].theirs(workshop)
    assert (uv(workshop, "lock", "--check"), uv(workshop, "sync", "--frozen")) == rows()[code]
