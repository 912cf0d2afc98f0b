"""Locking again: what keeps its version, what takes a newer one, and when uv is not even started."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from local_index import Index, make_wheel
from workshop import PYTHON, Ran, Workshop

from envbuilder.uv import find_uv, version_of


@pytest.fixture
def index(tmp_path: Path) -> Iterator[Index]:
    """An index with two packages in one version each."""
    for name in ("one", "two"):
        make_wheel(tmp_path / "wheels", name, "1.0")
    with Index(tmp_path / "wheels") as served:
        yield served


@pytest.fixture
def shop(workshop: Workshop, index: Index) -> Workshop:
    """Alpha needs both packages, beta one of them; locked, and then both packages get a newer version."""
    workshop.write("profiles/prod/profile.toml", f'python = "{PYTHON}"\nindex-url = "{index.url}"\n')
    workshop.plugin("alpha", dependencies=("one", "two"))
    workshop.plugin("beta", dependencies=("two",))
    assert workshop.within("lock", "-q").status == 0
    for name in ("one", "two"):
        make_wheel(index.folder, name, "1.1")
    return workshop


def changed(ran: Ran) -> list[tuple[str, str, str, str]]:
    """The changes of an envelope."""
    assert ran.status == 0, ran.out
    result = ran.json["result"]
    assert isinstance(result, dict)
    return [(each["plugin"], each["package"], each["old"], each["new"]) for each in result["changes"]]


def lock(workshop: Workshop, *arguments: str) -> list[tuple[str, str, str, str]]:
    """Lock, and tell what changed; afterwards the locks are up to date."""
    found = changed(workshop.within("lock", "--format", "json", *arguments))
    assert workshop.within("lock", "--check").status == 0
    return found


def test_a_lock_that_is_written_anew_keeps_its_versions(shop: Workshop, index: Index) -> None:
    """A changed entry changes the generated project; what was locked stays as it was, what is new comes in."""
    make_wheel(index.folder, "three", "1.0")
    shop.entry("alpha", requires=["three"])
    assert lock(shop) == [("alpha", "three", "", "1.0")]


def test_upgrade_takes_the_newest_of_everything_and_tells(shop: Workshop) -> None:
    """`--upgrade` of one plugin leaves the other; a table says what went from where to where; then nothing changes."""
    assert lock(shop, "--upgrade", "beta") == [("beta", "two", "1.0", "1.1")]
    ran = shop.within("lock", "--upgrade")
    lines = [line.split() for line in ran.out.splitlines()]
    assert ["alpha", "one", "1.0", "1.1", "changed"] in lines
    assert ["alpha", "two", "1.0", "1.1", "changed"] in lines
    assert lock(shop, "--upgrade") == []
    ran = shop.within("lock", "--upgrade-package", "two")
    assert ran.out == "2 unchanged: profiles/prod\n"
    assert ran.err.count("(nothing newer)") == 2


def test_upgrade_package_takes_the_newest_of_that_alone(shop: Workshop) -> None:
    """Other packages keep their versions, and plugins without the package are not locked again."""
    ran = shop.within("lock", "--format", "json", "--upgrade-package", "One")
    assert changed(ran) == [("alpha", "one", "1.0", "1.1")]
    result = ran.json["result"]
    assert isinstance(result, dict)
    assert [each["state"] for each in result["plugins"]] == ["locked", "unchanged"]
    assert lock(shop, "--upgrade-package", "one==1.0", "--upgrade-package", "two") == [
        ("alpha", "one", "1.1", "1.0"),
        ("alpha", "two", "1.0", "1.1"),
        ("beta", "two", "1.0", "1.1"),
    ]


@pytest.mark.parametrize(
    ("name", "said"),
    [("on", "nearest: one"), ("zzz", "no lock of prod holds zzz"), ("-x", "expected a package's name")],
)
def test_upgrade_of_what_is_not_locked_is_refused(shop: Workshop, name: str, said: str) -> None:
    """A typo is an error with the nearest name, not a lock with nothing to do."""
    ran = shop.within("lock", f"--upgrade-package={name}")
    assert ran.status == 2
    assert said in ran.err


def test_what_another_plugin_has_is_told(shop: Workshop) -> None:
    """A package of another plugin's lock is no typo: the error, and the hint, name that plugin."""
    ran = shop.within("lock", "beta", "--upgrade-package", "one")
    assert ran.status == 2
    assert "no lock of beta holds one; alpha has it" in ran.err
    assert "hint: envbuilder lock --profile prod --upgrade-package one alpha" in ran.err
    ran = shop.within("why", "beta", "one")
    assert "one is not in prod's lock of beta; it is in that of alpha" in ran.err
    assert "hint: envbuilder why --profile prod alpha one" in ran.err
    # A version that is not there is no fault of the registry's.
    ran = shop.within("lock", "beta", "--upgrade-package", "two==9")
    assert (
        "hint: envbuilder lock --profile prod beta  # with other versions after --upgrade-package, or none" in ran.err
    )
    assert "hint: envbuilder diff prod" in shop.within("diff", "prod", "prd").err
    # Pins that are none are brought back, not mended by hand.
    pins = shop.work / "profiles" / "prod" / "pins.toml"
    text = pins.read_text()
    pins.write_text("<<<<<<< HEAD\n")
    assert "hint: git checkout -- profiles/prod/pins.toml" in shop.within("check").err
    pins.write_text(text)
    # A lock that is none is named by its path in the workspace, with what puts it right.
    shop.write("profiles/prod/beta/uv.lock", "package = [")
    ran = shop.within("diff", "prod", "dev")
    assert "error[lock-stale] profiles/prod/beta/uv.lock: not a lock of uv's" in ran.err
    assert "hint: git checkout -- profiles/prod/beta/uv.lock" in ran.err


def test_nothing_to_do_starts_no_uv(shop: Workshop, tmp_path: Path) -> None:
    """A uv on PATH that keeps a log of its starts: `lock` and `lock --check` add no line to it."""
    log, folder = tmp_path / "started", tmp_path / "bin"
    folder.mkdir()
    series = ".".join(map(str, version_of(find_uv())[:2]))
    script = folder / "uv"
    # A newer patch of the same series is what envbuilder takes from PATH.
    script.write_text(
        f'#!/bin/sh\n[ "$1" = --version ] && echo "uv {series}.999" && exit\n'
        f'echo "$@" >> {log}\nexec {find_uv()} "$@"\n'
    )
    script.chmod(0o755)
    env = {"PATH": f"{folder}{os.pathsep}{os.environ['PATH']}"}
    assert shop.run("lock", "--upgrade", "beta", env=env).status == 0
    assert "lock --project" in log.read_text()
    log.unlink()
    for command in (["lock"], ["lock", "--check"]):
        assert shop.run(*command, env=env).status == 0
        assert not log.exists()


@pytest.mark.parametrize(("moment", "asked"), [('exclude-newer = "2026-06-01T00:00:00Z"', 1), ("", 2)])
def test_an_index_is_asked_again_only_for_what_may_be_new(
    workshop: Workshop, tmp_path: Path, moment: str, asked: int
) -> None:
    """Where nothing newer than a moment counts, its answers are reused; the lock holds nothing of that."""
    wheel = make_wheel(tmp_path / "wheels", "thing", "1.0")
    with Index(tmp_path / "wheels", uploaded={wheel.name: "2026-01-01T00:00:00Z"}) as index:
        settings = f'python = "{PYTHON}"\nindex-url = "{index.url}"\n{moment}\n'
        workshop.write("profiles/prod/profile.toml", settings)
        env = {"UV_CACHE_DIR": str(tmp_path / "cache")}
        for name in ("alpha", "beta"):
            workshop.plugin(name, dependencies=("thing",))
            assert workshop.within("lock", "-q", env=env).status == 0
        assert index.asked["page", "thing"] == asked
        text = "".join(path.read_text() for path in (workshop.work / "profiles" / "prod").glob("alpha/*"))
        assert "cache-control" not in text


@pytest.fixture
def noted(workshop: Workshop) -> Workshop:
    """A dev profile with a checkout, a core and a library that no plugin needs; locked, and looked at once more."""
    workshop.package(workshop.work / "packages" / "alpha", name="alpha")
    workshop.package(workshop.work / "packages" / "core", name="core")
    workshop.settings(core={"core": '{path = "packages/core"}'})
    workshop.plugin("alpha")
    workshop.write("profiles/registry/alpha.dev.yaml", "source: {path: packages/alpha}\n")
    for arguments in (["lock"], ["lock", "--check"]):
        assert workshop.within(*arguments, "--profile", "dev").status == 0
    assert (workshop.work / ".envbuilder" / "stamps" / "lock-dev.json").exists()
    return workshop


def edit(path: Path, old: str, new: str) -> None:
    """Put one text for another in a file."""
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


@pytest.mark.parametrize(
    ("file", "old", "new"),
    [
        ("profiles/registry/alpha.dev.yaml", "source:", "python: '>=3.9'\nsource:"),
        ("profiles/dev/profile.toml", "python", "exclude-newer = '2026-01-01'\npython"),
        ("profiles/dev/alpha/uv.lock", "alpha", "alphb"),
        ("profiles/dev/alpha/pyproject.toml", "alpha", "alphb"),
        ("profiles/dev/pins.toml", "inputs", "input"),
        ("packages/alpha/pyproject.toml", "dependencies = []", 'dependencies = ["core"]'),
        ("packages/core/pyproject.toml", "0.1.0", "0.2.0"),
    ],
)
def test_a_quick_look_misses_no_edit(noted: Workshop, file: str, old: str, new: str) -> None:
    """Whatever a lock follows from, or is: once it was edited, the locks are not called up to date."""
    edit(noted.work / file, old, new)
    assert noted.within("lock", "--check", "--profile", "dev").status != 0


def test_a_quick_look_misses_no_new_entry(noted: Workshop) -> None:
    """A plugin more is a lock that is missing; a plugin less is nothing to say; `lock` says what the quick look says."""
    noted.entry("beta", source={"path": "packages/alpha"})
    ran = noted.within("lock", "--check", "--profile", "dev", "--format", "json")
    assert (ran.status, ran.codes) == (1, ["lock-missing"])
    (noted.registry / "beta.yaml").unlink()
    first, again = (noted.within("lock", "--check", "--profile", "dev", "--format", "json") for _ in range(2))
    assert first.status == 0
    assert first.out == again.out
    assert noted.within("lock", "--profile", "dev").out == "1 unchanged: profiles/dev\n"


def test_what_a_build_tells_is_never_taken_from_a_quick_look(workshop: Workshop) -> None:
    """A checkout with dynamic metadata leaves no stamp: any of its files may change what its lock follows from."""
    text = '[build-system]\nrequires = []\nbuild-backend = "tiny_backend"\nbackend-path = ["backend"]\n'
    dynamic = f'{text}[project]\nname = "alpha"\ndynamic = ["version", "dependencies"]\n'
    workshop.package(workshop.work / "packages" / "alpha", name="alpha", pyproject=dynamic)
    workshop.plugin("alpha")
    workshop.write("profiles/registry/alpha.dev.yaml", "source: {path: packages/alpha}\n")
    for arguments in (["lock"], ["lock", "--check"]):
        assert workshop.within(*arguments, "--profile", "dev").status == 0
    assert not (workshop.work / ".envbuilder" / "stamps" / "lock-dev.json").exists()
