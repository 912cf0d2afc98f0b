"""Features of locks that meet: align groups, torch backends, index mirrors, and the upgrade of one package."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from local_index import Index, make_wheel
from workshop import PYTHON, Ran, Workshop

from envbuilder.lock.files import read_lock

BACKENDS = ("cpu", "cu128")


def torch(folder: Path, version: str) -> None:
    """Torch in one version, with torchvision of the same: in the package index, and for each backend in torch's own."""
    make_wheel(folder, "torch", version)
    make_wheel(folder, "torchvision", version, requires=[f"torch=={version}"])
    for build in BACKENDS:
        make_wheel(folder / build, "torch", f"{version}+{build}")
        make_wheel(folder / build, "torchvision", f"{version}+{build}", requires=[f"torch=={version}"])


def profile(workshop: Workshop, index: Index, *backends: str) -> None:
    """Prod's profile, with these indexes and two backends."""
    workshop.write(
        "profiles/prod/profile.toml",
        f'python = "{PYTHON}"\nindex-url = "{index.url}"\ntorch-index-url = "{index.torch_url}"\n'
        f"torch-backends = {json.dumps(backends or BACKENDS)}\n",
    )


@pytest.fixture
def wheels(workshop: Workshop) -> Path:
    """Torch 2.8 and 2.9, and libraries that need it."""
    folder = workshop.root / "wheels"
    for version in ("2.8.0", "2.9.0"):
        torch(folder, version)
    make_wheel(folder, "timm", "1.0", requires=["torchvision", "common"])
    for version in ("1.0", "2.0"):
        make_wheel(folder, "common", version)
    return folder


@pytest.fixture
def shop(workshop: Workshop, wheels: Path) -> Iterator[Workshop]:
    """A group of three plugins: one with an old torch, one whose torch comes by a library, one without any."""
    with Index(wheels) as index:
        profile(workshop, index)
        workshop.plugin("alpha", dependencies=("torch<2.9", "torchvision"), keys={"align": ["vlm"]})
        workshop.plugin("beta", dependencies=("timm",), keys={"align": ["vlm"]})
        workshop.plugin("plain", dependencies=("common<2",), keys={"align": ["vlm"]})
        yield workshop


def versions(workshop: Workshop, plugin: str, package: str) -> set[str | None]:
    """The versions of a package in a plugin's lock."""
    found = read_lock(workshop.work / "profiles" / "prod" / plugin)
    return {each.version for each in found if each.name == package}


def lock(workshop: Workshop, *arguments: str, cache: str = "cache") -> Ran:
    """Lock, which must succeed."""
    env = {"UV_CACHE_DIR": str(workshop.root / cache)}
    ran = workshop.within("lock", "--format", "json", *arguments, env=env)
    assert ran.status == 0, ran.out
    return ran


def states(ran: Ran) -> dict[str, str]:
    """What `lock` says of each plugin."""
    result = ran.json["result"]
    assert isinstance(result, dict)
    return {each["plugin"]: each["state"] for each in result["plugins"]}


def builds(version: str) -> set[str | None]:
    """A version's builds for all backends."""
    return {f"{version}+{build}" for build in BACKENDS}


def test_a_group_shares_torch_in_every_build(shop: Workshop) -> None:
    """One version of torch for the group, in each backend's build; of one package the group moves, and back it does not."""
    lock(shop)
    for plugin in ("alpha", "beta"):
        assert versions(shop, plugin, "torch") == builds("2.8.0")
        assert versions(shop, plugin, "torchvision") == builds("2.8.0")
    assert versions(shop, "plain", "torch") == set()
    assert {plugin: versions(shop, plugin, "common") for plugin in ("beta", "plain")} == {
        "beta": {"1.0"},
        "plain": {"1.0"},
    }
    pins = (shop.work / "profiles/prod/pins.toml").read_text()
    assert '"torch==2.8.0"' in pins
    assert shop.within("check", "--format", "json").codes == []
    assert set(states(lock(shop)).values()) == {"unchanged"}

    torch(shop.root / "wheels", "2.8.1")
    assert set(states(lock(shop)).values()) == {"unchanged"}
    ran = lock(shop, "--upgrade-package", "torch", "--upgrade-package", "torchvision")
    assert set(states(ran).values()) == {"locked"}
    for plugin in ("alpha", "beta"):
        assert versions(shop, plugin, "torch") == builds("2.8.1")
    assert versions(shop, "plain", "common") == {"1.0"}
    assert shop.within("lock", "--check").status == 0

    # One member alone moves its group, and says whom it left behind.
    torch(shop.root / "wheels", "2.8.2")
    ran = lock(shop, "alpha", "--upgrade-package", "torch", "--upgrade-package", "torchvision")
    assert ran.codes == ["align-moved"]
    assert "the locks of beta, plain are stale" in ran.out
    assert versions(shop, "alpha", "torch") == builds("2.8.2")
    assert versions(shop, "beta", "torch") == builds("2.8.1")
    assert shop.within("lock", "--check", "--format", "json").codes == ["lock-stale", "lock-stale"]
    lock(shop)
    assert versions(shop, "beta", "torch") == builds("2.8.2")
    # One of two packages that go together only together stays with the other.
    torch(shop.root / "wheels", "2.8.3")
    lock(shop, "--upgrade-package", "torch")
    assert versions(shop, "alpha", "torch") == versions(shop, "beta", "torch")
    assert shop.within("lock", "--check").status == 0


def test_a_group_with_a_backend_of_its_own(shop: Workshop) -> None:
    """A member that is bound to one backend, or to the package index's torch, shares the version too."""
    shop.entry("beta", align=["vlm"], torch="cpu")
    lock(shop)
    assert versions(shop, "alpha", "torch") == builds("2.8.0")
    assert versions(shop, "beta", "torch") == {"2.8.0+cpu"}
    text = (shop.work / "profiles/prod/profile.toml").read_text()
    shop.write("profiles/prod/profile.toml", text.replace('["cpu"', '["default", "cpu"'))
    shop.entry("beta", align=["vlm"], torch="default")
    lock(shop)
    assert versions(shop, "alpha", "torch") == {*builds("2.8.0"), "2.8.0"}
    assert versions(shop, "beta", "torch") == {"2.8.0"}
    assert shop.within("check", "--format", "json").codes == []


def test_torch_through_mirrors(workshop: Workshop, wheels: Path) -> None:
    """With both canonical indexes off, the locks of a group with torch have the same bytes by their mirrors."""
    with Index(wheels) as index:
        profile(workshop, index)
        for name in ("alpha", "beta"):
            workshop.plugin(name, dependencies=("timm",), keys={"align": ["vlm"]})
        lock(workshop)
        canonical = index.url.removesuffix("simple")
    folder = workshop.work / "profiles" / "prod"
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    with Index(wheels) as mirror:
        host = mirror.url.removesuffix("simple")
        workshop.settings(core={}, extra=f'[tool.envbuilder.index-mirrors]\n"{canonical}" = "{host}"\n')
        for path in folder.glob("*/uv.lock"):
            path.unlink()
        (folder / "pins.toml").unlink()
        lock(workshop, cache="other")
        assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before
        env = {"UV_CACHE_DIR": str(workshop.root / "third")}
        built = workshop.within("build", "--torch", "cpu", env=env)
        assert built.status == 0, built.err
        ask = "import importlib.metadata as m; print(m.version('torch'))"
        assert workshop.run("exec", "beta", "--", "python", "-c", ask, env=env).out.strip() == "2.9.0+cpu"
