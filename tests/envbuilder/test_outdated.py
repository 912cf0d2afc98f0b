"""`outdated`: newer tags and releases, which of them fit the core, and the command that takes the newest that does."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from local_index import Index, make_wheel
from workshop import PYTHON, Ran, Workshop

UPLOADED = {"thing-1.2-py3-none-any.whl": "2026-08-01T00:00:00Z"}


@pytest.fixture
def index(tmp_path: Path) -> Iterator[Index]:
    """An index with releases of `thing`: 1.0, one that fits the core, one too new for it, one pre-release."""
    folder = tmp_path / "wheels"
    for version, wanted in (
        ("1.0", "core"),
        ("1.1", "core<2"),
        ("1.2", "core<2"),
        ("1.3", "core>=2"),
        ("2.0rc1", "core"),
    ):
        code = {"thing/__init__.py": b"class Model:\n    pass\n"}
        make_wheel(folder, "thing", version, files=code, requires=(wanted,))
    make_wheel(folder, "small", "1.0")
    with Index(folder, uploaded=UPLOADED) as served:
        yield served


@pytest.fixture
def shop(workshop: Workshop, index: Index) -> Workshop:
    """A core at 1.0; a plugin with newer tags that fit, do not fit or are no releases; a plugin from the index."""
    workshop.write("profiles/prod/profile.toml", f'python = "{PYTHON}"\nindex-url = "{index.url}"\n')
    workshop.settings(core={"core": '"1.0"'})
    workshop.release("core", "v1.0", version="1.0")
    workshop.entry("core", kind="library", tag="v1.0")
    for tag, wanted in (("v0.1.0", "core"), ("v0.2.0", "core<2"), ("v0.3.0", "core>=2"), ("v0.4.0rc1", "core")):
        dependencies = (wanted, "small")
        workshop.release("alpha", tag, version=tag.removeprefix("v"), dependencies=dependencies)
    workshop.git("-C", str(workshop.remotes / "alpha.git"), "tag", "experiment")
    workshop.entry("alpha")
    workshop.entry("thing", source={"pypi": "==1.0"})
    assert workshop.within("lock", "-q").status == 0
    return workshop


def newer(ran: Ran, entry: str) -> list[tuple[str, bool | None]]:
    """What is newer than an entry's source, and whether it fits."""
    result = ran.json["result"]
    assert isinstance(result, dict)
    found = next(each for each in result["entries"] if each["entry"] == entry)
    return [(each["place"], each["fits"]) for each in found["newer"]]


def test_newer_tags_and_releases_are_told_with_their_fit(shop: Workshop) -> None:
    """Newest first; pre-releases only when asked for; a reason where one does not fit; to be outdated is no failure."""
    ran = shop.within("outdated", "--format", "json")
    assert ran.status == 0, ran.out
    assert newer(ran, "alpha") == [("v0.3.0", False), ("v0.2.0", True)]
    assert newer(ran, "thing") == [("1.3", False), ("1.2", True), ("1.1", True)]
    assert newer(ran, "core") == []
    ran = shop.within("outdated", "--pre", "--format", "json")
    assert newer(ran, "alpha")[0] == ("v0.4.0rc1", True)
    assert newer(ran, "thing")[0] == ("2.0rc1", True)
    text = shop.within("outdated").out
    assert "accepts core >=2, the core is 1.0" in text
    assert "2 of 3 entries have something newer" in text


def test_the_command_takes_the_newest_that_fits(shop: Workshop) -> None:
    """What is printed may be pasted: afterwards the locks hold those versions, and only what does not fit is newer."""
    result = shop.within("outdated", "--format", "json").json["result"]
    assert isinstance(result, dict)
    for each in result["entries"]:
        if each["command"]:
            edit = each["command"].partition(" && ")[0]
            subprocess.run(["/bin/sh", "-c", edit], cwd=shop.work, check=True)
    assert shop.within("lock", "-q").status == 0
    ran = shop.within("outdated", "--format", "json")
    assert newer(ran, "alpha") == [("v0.3.0", False)]
    assert newer(ran, "thing") == [("1.3", False)]


def test_what_came_after_the_moment_does_not_fit(shop: Workshop, index: Index) -> None:
    """A release that `exclude-newer` keeps out of locks is told as such."""
    moment = 'exclude-newer = "2026-06-01T00:00:00Z"'
    shop.write("profiles/prod/profile.toml", f'python = "{PYTHON}"\nindex-url = "{index.url}"\n{moment}\n')
    ran = shop.within("outdated", "--format", "json")
    assert newer(ran, "thing") == [("1.3", False), ("1.2", False), ("1.1", True)]
    assert "uploaded 2026-08-01, after exclude-newer" in ran.out


def test_closures_are_looked_at_when_asked_for(shop: Workshop, index: Index) -> None:
    """`--all` tells what `lock --upgrade` would change, and changes nothing; named plugins bring their closures alone."""
    make_wheel(index.folder, "small", "1.5")
    folder = shop.work / "profiles" / "prod"
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    ran = shop.within("outdated", "alpha", "--all", "--format", "json")
    assert ran.status == 0, ran.out
    result = ran.json["result"]
    assert isinstance(result, dict)
    assert [(each["package"], each["old"], each["new"]) for each in result["packages"]] == [("small", "1.0", "1.5")]
    assert [each["entry"] for each in result["entries"]] == ["alpha", "core"]
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before


@pytest.mark.parametrize("fault", ["remote", "index"])
def test_what_cannot_be_asked_is_not_called_up_to_date(shop: Workshop, fault: str) -> None:
    """An unreachable remote or index is a problem of its entries, exit status 1; the others are told all the same."""
    if fault == "remote":
        (shop.remotes / "alpha.git").rename(shop.root / "gone")
    else:
        shop.write("profiles/prod/profile.toml", f'python = "{PYTHON}"\nindex-url = "http://127.0.0.1:9/simple"\n')
    ran = shop.within("outdated", "--format", "json")
    code, other = ("remote-unreachable", "thing") if fault == "remote" else ("index-unreachable", "alpha")
    assert (ran.status, ran.codes) == (1, [code])
    assert newer(ran, other)


def test_releases_are_asked_of_the_mirror(shop: Workshop, index: Index) -> None:
    """With the canonical index unreachable, what is newer is what its mirror lists."""
    canonical = "http://127.0.0.1:1/simple"
    shop.write("profiles/prod/profile.toml", f'python = "{PYTHON}"\nindex-url = "{canonical}"\n')
    with (shop.work / "pyproject.toml").open("a") as settings:
        settings.write(f'[tool.envbuilder.index-mirrors]\n"{canonical}" = "{index.url}"\n')
    ran = shop.within("outdated", "--format", "json")
    assert ran.status == 0, ran.out
    assert ("1.2", True) in newer(ran, "thing")
