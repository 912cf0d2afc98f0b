"""Torch in several builds: one lock for all machines, the right build for this one, and torch from the base."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from local_index import Index, make_wheel
from workshop import PYTHON, Ran, Workshop

BUILDS = ("cpu", "cu126", "cu128", "cu130")


@pytest.fixture(scope="module")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Wheels as the package index and torch's own indexes have them, a few hundred bytes each."""
    folder = tmp_path_factory.mktemp("wheels")
    make_wheel(folder, "nvidia-cuda", "12.8")
    make_wheel(folder, "torch", "2.8.0", requires=["nvidia-cuda==12.8"])
    make_wheel(folder, "torchvision", "0.23.0", requires=["torch==2.8.0"])
    make_wheel(folder, "timm", "1.0", requires=["torchvision"])
    make_wheel(folder, "numbers", "1.0")
    for build in BUILDS:
        make_wheel(folder / build, "torch", f"2.8.0+{build}")
        make_wheel(folder / build, "torchvision", f"0.23.0+{build}", requires=["torch==2.8.0"])
    return folder


@pytest.fixture
def index(wheels: Path) -> Iterator[Index]:
    """The indexes, served on loopback."""
    with Index(wheels) as serving:
        yield serving


@pytest.fixture
def bench(workshop: Workshop, index: Index) -> Workshop:
    """A plugin with torch and one without, in a profile that lists the CPU's build and two of CUDA's."""
    profile(workshop, index, "cpu", "cu126", "cu128")
    workshop.plugin("reader", dependencies=("torch>=2.8",))
    workshop.plugin("counter", dependencies=("numbers",))
    return workshop


def profile(workshop: Workshop, index: Index, *backends: str) -> None:
    """Write prod's profile."""
    workshop.write(
        "profiles/prod/profile.toml",
        f'python = "{PYTHON}"\nindex-url = "{index.url}"\ntorch-index-url = "{index.torch_url}"\n'
        f"torch-backends = {json.dumps(backends)}\n",
    )


def lock(workshop: Workshop, *arguments: str, env: dict[str, str] | None = None) -> Ran:
    """Lock, which must succeed."""
    ran = workshop.within("lock", *arguments, env=env)
    assert ran.status == 0, ran.err
    return ran


def locks(workshop: Workshop) -> dict[str, bytes]:
    """All that `lock` wrote."""
    folder = workshop.work / "profiles" / "prod"
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_one_lock_holds_every_listed_build(bench: Workshop) -> None:
    """Each build of torch is in the lock, from its own index; what the package index serves is not, unless listed."""
    lock(bench)
    text = locks(bench)["reader/uv.lock"].decode()
    for build in ("cpu", "cu126", "cu128"):
        assert f'version = "2.8.0+{build}"' in text
    assert 'version = "2.8.0"\n' not in text
    assert "2.8.0+cu130" not in text


def test_lock_without_torch_gets_none(bench: Workshop) -> None:
    """A plugin that does not need torch is locked as if there were no backends."""
    lock(bench)
    assert b"torch" not in locks(bench)["counter/uv.lock"] + locks(bench)["counter/pyproject.toml"]


def test_torch_that_only_an_index_tells_of_is_found(bench: Workshop) -> None:
    """Where torch comes by way of a library's metadata, it and its like come from torch's indexes all the same."""
    bench.plugin("far", dependencies=("timm",))
    lock(bench, "far")
    text = locks(bench)["far/uv.lock"].decode()
    for build in ("cpu", "cu126", "cu128"):
        assert f'version = "0.23.0+{build}"' in text
    assert 'version = "0.23.0"\n' not in text
    assert "unchanged" in lock(bench, "far").out


def test_locks_from_two_fresh_caches_are_equal(bench: Workshop, tmp_path: Path) -> None:
    """Nothing but registry, profile and indexes decides what is written."""
    lock(bench, env={"UV_CACHE_DIR": str(tmp_path / "one")})
    first = locks(bench)
    for path in (bench.work / "profiles" / "prod").glob("*/uv.lock"):
        path.unlink()
    lock(bench, env={"UV_CACHE_DIR": str(tmp_path / "two")})
    assert locks(bench) == first


def test_other_backends_make_locks_with_torch_stale(bench: Workshop, index: Index) -> None:
    """A backend more in the profile is seen by `lock --check` and `check`, and concerns plugins with torch alone."""
    lock(bench)
    assert bench.within("lock", "--check").status == 0
    profile(bench, index, "cpu", "cu126", "cu128", "cu130")
    for command in (["lock", "--check"], ["check"]):
        ran = bench.within(*command, "--format", "json")
        assert ran.codes == ["lock-stale"]
        assert [each["entry"] for each in ran.json["problems"]] == ["reader"]  # type: ignore[attr-defined]
    lock(bench)
    assert b"2.8.0+cu130" in locks(bench)["reader/uv.lock"]


def test_pinned_backend_is_the_only_one_in_the_lock(bench: Workshop) -> None:
    """`torch: cu126` in an entry locks that build; `default` must be listed to be asked for."""
    bench.entry("reader", torch="cu126")
    lock(bench)
    text = locks(bench)["reader/uv.lock"].decode()
    assert "2.8.0+cu126" in text
    assert "2.8.0+cpu" not in text
    bench.entry("reader", torch="default")
    ran = bench.within("lock")
    assert ran.status == 2
    assert "expected auto or one of the profile's torch-backends, cpu, cu126, cu128; found 'default'" in ran.err


def test_own_index_of_a_plugin_is_named_with_a_way_out(bench: Workshop, index: Index) -> None:
    """A plugin whose own uv settings name an index for torch cannot have several; the hint says what to do."""
    sources = f"""
        [tool.uv.sources]
        torch = {{index = "own"}}
        [[tool.uv.index]]
        name = "own"
        url = "{index.torch_url}/cu130"
        explicit = true
        """.replace("        ", "")
    bench.release("reader", "v0.2.0", version="0.2.0", dependencies=("torch>=2.8",))
    repository = bench.remotes / "reader.git"
    with (repository / "pyproject.toml").open("a") as stream:
        stream.write(sources)
    bench.git("-C", str(repository), "commit", "--quiet", "--all", "--message", "own index")
    bench.git("-C", str(repository), "tag", "v0.2.1")
    bench.entry("reader", tag="v0.2.1")
    ran = bench.within("lock", "reader")
    assert ran.status == 1
    assert "conflicting indexes for package `torch`" in ran.err
    assert "torch: default leaves it alone" in ran.err
