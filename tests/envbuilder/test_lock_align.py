"""Align groups: one version of what their plugins share, and what happens when that cannot be."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from local_index import Index, make_wheel
from workshop import PYTHON, Ran, Workshop

from envbuilder.compat import python_hull


def versions(workshop: Workshop, plugin: str) -> dict[str, str | None]:
    """What a plugin's lock holds."""
    from envbuilder.lock.files import read_lock

    return {package.name: package.version for package in read_lock(workshop.work / "profiles" / "prod" / plugin)}


def lock(workshop: Workshop, *arguments: str) -> Ran:
    """Lock, which must succeed."""
    ran = workshop.within("lock", "--format", "json", *arguments, env={"UV_CACHE_DIR": str(workshop.root / "cache")})
    assert ran.status == 0, ran.out
    return ran


def states(ran: Ran) -> dict[str, str]:
    """What `lock` says of each plugin."""
    result = ran.json["result"]
    assert isinstance(result, dict)
    return {each["plugin"]: each["state"] for each in result["plugins"]}


def wheels(folder: Path, *names: str) -> None:
    """Wheels by name and version, and what they need: ``heavy-2.0 common<3``."""
    for line in names:
        name, *requires = line.split(" ")
        make_wheel(folder, *name.rsplit("-", 1), requires=requires)


@pytest.fixture
def index(workshop: Workshop) -> Iterator[Index]:
    """An index that has `common` in three versions, and two packages that accept different ones."""
    folder = workshop.root / "wheels"
    wheels(folder, "common-1.0", "common-2.0", "common-3.0", "careful-1.0 common<3", "bold-1.0 common>=2", "own-1.0")
    with Index(folder) as served:
        workshop.write("profiles/prod/profile.toml", f'python = "{PYTHON}"\nindex-url = "{served.url}"\n')
        yield served


@pytest.fixture
def group(workshop: Workshop, index: Index) -> Workshop:
    """Two plugins of one group, which share `common` without naming it, and one that is by itself."""
    workshop.plugin("alpha", dependencies=("careful",), keys={"align": ["vlm"]})
    workshop.plugin("beta", dependencies=("bold", "own"), keys={"align": ["vlm"]})
    workshop.plugin("gamma", dependencies=("bold",))
    return workshop


def test_a_group_locks_one_version_of_what_it_shares(group: Workshop) -> None:
    """What only all members together decide holds for each; others are free, and only what is shared is bound."""
    lock(group)
    assert {name: versions(group, name)["common"] for name in ("alpha", "beta", "gamma")} == {
        "alpha": "2.0",
        "beta": "2.0",
        "gamma": "3.0",
    }
    pins = (group.work / "profiles/prod/pins.toml").read_text()
    assert 'constraints = ["common==2.0"]' in pins
    assert set(states(lock(group)).values()) == {"unchanged"}
    assert group.within("lock", "--check").status == 0
    assert (group.work / "profiles/prod/pins.toml").read_text() == pins


def test_the_same_group_gives_the_same_bytes(group: Workshop) -> None:
    """Whichever plugin is locked first, and one at a time, the files come out the same."""
    lock(group)
    first = {path: path.read_bytes() for path in (group.work / "profiles" / "prod").rglob("*.*") if path.is_file()}
    for path in first:
        if path.name in {"uv.lock", "pins.toml"}:
            path.unlink()
    for plugin in ("beta", "gamma", "alpha"):
        lock(group, plugin)
    assert {path: path.read_bytes() for path in first} == first


def test_what_is_locked_stays_until_upgrade(group: Workshop) -> None:
    """A newer release does not move a group, nor does a change of one member that it allows; --upgrade does."""
    lock(group)
    wheels(group.root / "wheels", "common-2.5", "own-2.0")
    group.plugin("beta", tag="v0.2.0", dependencies=("bold", "own>=1"), keys={"align": ["vlm"]})
    assert states(lock(group, "beta")) == {"beta": "locked"}
    assert (versions(group, "beta")["common"], versions(group, "beta")["own"]) == ("2.0", "1.0")
    assert states(lock(group))["alpha"] == "unchanged"
    lock(group, "--upgrade")
    assert (versions(group, "alpha")["common"], versions(group, "beta")["common"]) == ("2.5", "2.5")


def test_one_that_moves_its_group_leaves_the_others_stale_and_says_so(group: Workshop) -> None:
    """Locking one plugin never rewrites another's lock; that the group moved is told, and the others count as stale."""
    lock(group)
    before = (group.work / "profiles/prod/alpha/uv.lock").read_bytes()
    group.plugin("beta", tag="v0.2.0", dependencies=("bold", "own", "common<3,>2"), keys={"align": ["vlm"]})
    wheels(group.root / "wheels", "common-2.5")
    ran = lock(group, "beta")
    assert ran.codes == ["align-moved"]
    assert "the locks of alpha are stale" in ran.out
    assert (group.work / "profiles/prod/alpha/uv.lock").read_bytes() == before
    stale = group.within("lock", "--check", "--format", "json")
    assert (stale.status, stale.codes) == (1, ["lock-stale"])
    assert states(lock(group)) == {"alpha": "locked", "beta": "unchanged", "gamma": "unchanged"}
    assert versions(group, "alpha")["common"] == versions(group, "beta")["common"] == "2.5"


def test_members_that_contradict_each_other_are_told(group: Workshop) -> None:
    """Nobody of the group is locked, who wants what is said, locks stay, and plugins outside of it are not held up."""
    lock(group)
    before = {name: versions(group, name) for name in ("alpha", "beta")}
    group.plugin("beta", tag="v0.2.0", dependencies=("common>=3",), keys={"align": ["vlm"]})
    group.plugin("gamma", tag="v0.2.0", dependencies=("bold",))
    ran = group.within("lock", "--format", "json", env={"UV_CACHE_DIR": str(group.root / "cache")})
    assert (ran.status, ran.codes) == (1, ["align-conflict"])
    assert states(ran) == {"alpha": "unchanged", "beta": "failed", "gamma": "locked"}
    for word in ("group vlm (alpha, beta)", "careful", "common", ">=3"):
        assert word in ran.out
    assert {name: versions(group, name) for name in ("alpha", "beta")} == before


def test_joining_a_group_makes_its_locks_stale(group: Workshop) -> None:
    """Locks from before there was a group do not count as aligned."""
    for name in ("alpha", "beta"):
        group.entry(name)
    lock(group)
    assert versions(group, "beta")["common"] == "3.0"
    for name in ("alpha", "beta"):
        group.entry(name, align=["vlm"])
    assert group.within("lock", "--check", "--format", "json").codes == ["lock-stale", "lock-stale"]
    lock(group)
    assert versions(group, "beta")["common"] == "2.0"


def test_a_library_has_no_group(workshop: Workshop) -> None:
    """Only what gets an environment is aligned."""
    workshop.entry("lib", kind="library", align=["vlm"])
    ran = workshop.within("lock", "--format", "json")
    assert (ran.status, ran.codes) == (2, ["config-invalid"])
    assert "a library has no align" in ran.out


def test_python_hull() -> None:
    """The range reaches from the oldest to the newest series that anybody accepts."""
    assert python_hull(["==3.10.*", "==3.12.*"]) == ">=3.10,<3.13"
    assert python_hull(["==3.11.7"]) == ">=3.11,<3.12"


def test_differences_are_shown_with_their_reasons(workshop: Workshop, index: Index) -> None:
    """Who holds which version, and what keeps it from the newest: somebody's words, a rule, or nothing but time."""
    workshop.plugin("alpha", dependencies=("common<3", "own"))
    workshop.plugin("beta", dependencies=("bold", "own"))
    lock(workshop)
    wheels(workshop.root / "wheels", "own-2.0")
    workshop.plugin("gamma", dependencies=("own", "common"), keys={"requires": ["common==1.0"]})
    lock(workshop, "gamma")
    ran = workshop.within("status", "--differences", "--format", "json")
    assert ran.json["result"] == {
        "differences": [
            {
                "package": "common",
                "plugins": [
                    {"plugin": "beta", "version": "3.0", "why": []},
                    {"plugin": "gamma", "version": "1.0", "why": ["the registry entry asks for ==1.0"]},
                    {"plugin": "alpha", "version": "2.0", "why": ["alpha asks for <3"]},
                ],
            },
            {
                "package": "own",
                "plugins": [
                    {"plugin": "gamma", "version": "2.0", "why": []},
                    *(
                        {
                            "plugin": name,
                            "version": "1.0",
                            "why": ["nothing forbids the newest; it was locked at another time"],
                        }
                        for name in ("alpha", "beta")
                    ),
                ],
            },
        ]
    }
    text = workshop.within("status", "--differences").out
    assert "2 of the packages that 3 plugins lock" in text
    assert "alpha asks for <3" in text
