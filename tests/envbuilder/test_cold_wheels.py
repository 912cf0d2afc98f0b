"""Building with a cold cache: each wheel is fetched once and kept once, however many builders want it."""

from __future__ import annotations

import io
import os
import random
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from local_index import Index, make_wheel
from rich.console import Console
from workshop import PYTHON, Workshop

from envbuilder.models import PluginOutcome
from envbuilder.render import Progress

SHARED = ("common-a", "common-b", "common-c", "common-d")
PLUGINS = ("p-one", "p-two", "p-three", "p-four")


@pytest.fixture
def index(tmp_path: Path) -> Iterator[Index]:
    """An index of four wheels of 3 MB, which all plugins want, and one for each plugin."""
    draw = random.Random(0)  # noqa: S311 - bulk, not secrets
    for name in (*SHARED, *(f"own-{plugin}" for plugin in PLUGINS)):
        module = name.replace("-", "_")
        bulk = {f"{module}/part{number}.bin": draw.randbytes(1_000_000) for number in range(3)}
        make_wheel(tmp_path / "wheels", name, files={f"{module}/__init__.py": b"", **bulk})
    with Index(tmp_path / "wheels") as served:
        yield served


@pytest.fixture
def cold(workshop: Workshop, index: Index) -> Workshop:
    """Four plugins that share most of what they need; locked, while uv's cache holds none of it."""
    workshop.write("profiles/prod/profile.toml", f'python = "{PYTHON}"\nindex-url = "{index.url}"\n')
    for plugin in PLUGINS:
        workshop.plugin(plugin, dependencies=(*SHARED, f"own-{plugin}"))
    assert workshop.within("lock", env=cache(workshop, "for-locking")).status == 0
    assert index.whole == {}
    return workshop


def cache(workshop: Workshop, name: str = "cold") -> dict[str, str]:
    """Variables that give uv a cache of its own."""
    return {"UV_CACHE_DIR": str(workshop.root / f"cache-{name}")}


def build(workshop: Workshop, *arguments: str) -> subprocess.Popen[str]:
    """Start a build."""
    return subprocess.Popen(
        workshop.argv("build", *arguments),
        cwd=workshop.work,
        env=workshop.environment(cache(workshop)),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def ends_well(running: list[subprocess.Popen[str]]) -> str:
    """Wait for builders that must all succeed; what they said."""
    said = [process.communicate(timeout=300) for process in running]
    assert [process.returncode for process in running] == [0] * len(running), said
    return "".join(err for _, err in said)


def fetched_once(workshop: Workshop, index: Index) -> None:
    """Each wheel was downloaded once, and each of its files is one inode in all environments that have it."""
    assert index.whole == {wheel.name: 1 for wheel in index.folder.glob("*.whl")}
    assert not [name for (kind, name), _ in index.asked.items() if kind in {"head", "part"}]
    inodes: dict[str, set[int]] = {}
    environments = list((workshop.work / ".envbuilder" / "envs" / "prod").iterdir())
    assert len(environments) == len(PLUGINS)
    for environment in environments:
        packages = next(environment.glob("lib/python*/site-packages"))
        for file in packages.glob("*/*.bin"):
            inodes.setdefault(str(file.relative_to(packages)), set()).add(file.stat().st_ino)
    assert len(inodes) == 3 * len(list(index.folder.glob("*.whl")))
    assert {len(each) for each in inodes.values()} == {1}


@pytest.mark.parametrize("jobs", ["1", "4"])
def test_wheels_are_fetched_once_by_one_builder(cold: Workshop, index: Index, jobs: str) -> None:
    """Four cold environments at once ask for each wheel that they share one time."""
    said = ends_well([build(cold, "--jobs", jobs)])
    fetched_once(cold, index)
    for name in SHARED:  # One download, whoever waits for it.
        assert len(re.findall(rf"^> build +fetching  \({name}, 2\.9MiB\)$", said, re.MULTILINE)) == 1, said
        assert len(re.findall(rf"^\+ build +fetched .*\({name}, 2\.9MiB\)$", said, re.MULTILINE)) == 1, said


def test_download_that_breaks_off_is_told(cold: Workshop, index: Index) -> None:
    """A download that does not end is said to have failed, by its own line and by the plugin's."""
    for wheel in index.folder.glob("common_*.whl"):
        os.truncate(wheel, 2_000_000)
    ran = cold.within("build", "p-one", env={**cache(cold), "UV_HTTP_RETRIES": "0"})
    assert ran.status == 1
    assert re.search(r"^x build +not fetched  \(common-[abcd], .*MiB\)$", ran.err, re.MULTILINE), ran.err
    assert "error[sync-failed] p-one" in ran.err


def test_live_view_shows_downloads_in_one_line() -> None:
    """On a terminal all downloads under way are one line, which goes with the last of them."""
    progress = Progress("build", ["alpha"], silent=True)

    def shown() -> str:
        console = Console(width=200, file=io.StringIO())
        with console.capture() as captured:
            console.print(progress._render())
        return captured.get()

    names = [f"package-{number}, 3MiB" for number in range(6)]
    for name in names:
        progress.report(PluginOutcome("", "fetching", detail=name))
    lines = shown().splitlines()
    assert len(lines) == 2
    assert f"{'; '.join(names[:4])}; and 2 more" in lines[1]
    for name in names:
        progress.report(PluginOutcome("", "fetched", detail=name))
    assert "fetching" not in shown()


def test_wheels_are_fetched_once_by_two_builders(cold: Workshop, index: Index) -> None:
    """Two processes that build the same four environments fetch no more than one does."""
    said = ends_well([build(cold, "--jobs", "4"), build(cold, "--jobs", "4")])
    assert said.count("  built") == len(PLUGINS)
    fetched_once(cold, index)


def test_wheels_are_fetched_once_by_builders_of_different_plugins(cold: Workshop, index: Index) -> None:
    """Two processes that build two environments each share what they fetch."""
    ends_well([build(cold, *PLUGINS[:2]), build(cold, *PLUGINS[2:])])
    fetched_once(cold, index)


def rounds(workshop: Workshop, count: int) -> None:
    """Let eight processes build the same five plugins at once, time and again from nothing."""
    plugins = [f"plugin-{number}" for number in range(5)]
    for plugin in plugins:
        workshop.plugin(plugin)
    assert workshop.within("lock", env=cache(workshop)).status == 0
    state = workshop.work / ".envbuilder"
    for number in range(count):
        said = ends_well([build(workshop, "--jobs", "2") for _ in range(8)])
        for plugin in plugins:
            assert said.count(f"build {plugin}  built") == 1, (number, said)
        assert not [*state.glob("store/.staging/*"), *state.glob("store/.trash/*"), *state.rglob("*.envbuilder-draft")]
        assert len(list(state.glob("store/*.files.json"))) == len(plugins)
        assert [path.name for path in state.glob("generations/prod/[0-9]*.json")] == ["1.json"]
        assert workshop.within("verify", "--full", env=cache(workshop)).status == 0
        subprocess.run(["rm", "-rf", state / "store", state / "generations", state / "envs"], check=True)


def test_eight_builders_build_each_key_once(workshop: Workshop) -> None:
    """Whoever comes first builds; all succeed, there is one generation, and nothing is left over."""
    rounds(workshop, 1)


@pytest.mark.slow
def test_eight_builders_build_each_key_once_at_length(workshop: Workshop) -> None:
    """The same, twenty times."""
    rounds(workshop, 20)


@pytest.mark.parametrize("place", ["{work}/cache", "cache"])
def test_cache_inside_a_git_work_tree(workshop: Workshop, place: str) -> None:
    """Where uv's cache lies in somebody's repository, uv's git leaves that repository alone, also after a killed uv.

    Relative, the folder is meant from where the command was given, not from where uv runs.
    """
    workshop.git("init", "--quiet", str(workshop.work))
    workshop.plugin("alpha")
    inside = {"UV_CACHE_DIR": place.format(work=workshop.work)}
    assert workshop.within("lock", env=inside).status == 0
    folder = workshop.work / place.format(work=workshop.work)
    (clone,) = folder.glob("git-v*/db/*")
    shutil.rmtree(clone)
    clone.mkdir()  # As uv leaves it between mkdir and git init.
    for bucket in (*folder.glob("git-v*/checkouts"), *folder.glob("sdists-v*")):
        shutil.rmtree(bucket)
    ran = workshop.within("build", env=inside)
    assert ran.status == 0, ran.err
    assert workshop.git("-C", str(workshop.work), "for-each-ref") == ""


def test_commits_arrive_whole_or_not_at_all(workshop: Workshop) -> None:
    """What git fetches stays in packs: object by object, a full disk leaves a commit without its files, for ever."""
    workshop.plugin("alpha")
    env = cache(workshop)
    for command in ("lock", "build"):
        assert workshop.within(command, env=env).status == 0
    clones = [*Path(env["UV_CACHE_DIR"]).glob("git-v*/db/*/.git"), *workshop.work.glob(".envbuilder/git/*.git")]
    assert len(clones) == 2
    for clone in clones:
        assert list(clone.glob("objects/pack/*.idx"))
        assert not list(clone.glob("objects/[0-9a-f][0-9a-f]/*"))
