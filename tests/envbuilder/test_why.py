"""`why`: how a package came into a lock, and who says which version."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from local_index import Index, make_wheel
from workshop import PYTHON, Ran, Workshop


@pytest.fixture
def shop(workshop: Workshop, tmp_path: Path) -> Iterator[Workshop]:
    """A plugin that asks for `thing` itself, and again through a library with an extra; locked."""
    make_wheel(tmp_path / "wheels", "thing", "1.5")
    make_wheel(tmp_path / "wheels", "middle", requires=("thing>=1.2", "thing>=9; python_version<'3'"))
    with Index(tmp_path / "wheels") as index:
        workshop.write("profiles/prod/profile.toml", f'python = "{PYTHON}"\nindex-url = "{index.url}"\n')
        workshop.release("lib", "v0.1.0", dependencies=("middle",))
        workshop.entry("lib", kind="library")
        workshop.plugin("alpha", dependencies=("thing<2", "lib"), keys={"exclude": ["left-out"]})
        assert workshop.within("lock", "-q").status == 0
        yield workshop


def chains(ran: Ran) -> list[list[tuple[str, str | None]]]:
    """The chains of an envelope: package and what is asked of it."""
    assert ran.status == 0, ran.out
    result = ran.json["result"]
    assert isinstance(result, dict)
    return [[(step["package"], step["specifier"]) for step in chain] for chain in result["chains"]]


def test_every_asker_is_named_with_what_it_accepts(shop: Workshop) -> None:
    """Chains come shortest first; pins tell what git packages ask for, the built environment what wheels do."""
    known = [("alpha", None), ("lib", ""), ("middle", "")]
    assert chains(shop.within("why", "alpha", "Thing", "--format", "json")) == [
        [("alpha", None), ("thing", "<2")],
        [*known, ("thing", None)],
    ]
    assert shop.within("build", "-q").status == 0
    assert chains(shop.within("why", "alpha", "thing", "--format", "json"))[1] == [*known, ("thing", ">=1.2")]
    assert shop.within("why", "alpha", "thing").out.splitlines() == [
        "thing 1.5 is in prod's lock of alpha:",
        "  alpha 0.1.0 → thing 1.5 (<2)",
        "  alpha 0.1.0 → lib 0.1.0 → middle 1.0 → thing 1.5 (>=1.2)",
    ]


def test_what_the_registry_and_the_project_say_is_told(shop: Workshop) -> None:
    """A sibling's version is the registry's; the line names the file."""
    out = shop.within("why", "alpha", "lib").out
    assert "registry: https://git.example.org/lib.git tag v0.1.0, profiles/registry/lib.yaml:1:" in out


@pytest.mark.parametrize(
    ("package", "said"),
    [("thin", "nearest: thing"), ("left-out", "the entry excludes it"), ("nothing-like-it", "is not in prod's lock")],
)
def test_a_package_that_is_not_locked_is_refused(shop: Workshop, package: str, said: str) -> None:
    """The error names the nearest package, or the entry's own wish to leave it out."""
    ran = shop.within("why", "alpha", package)
    assert ran.status == 2
    assert said in ran.err
    hints = {
        "thin": "envbuilder why --profile prod alpha thing",
        "left-out": "${EDITOR:-vi} +1 profiles/registry/alpha",
    }
    assert f"hint: {hints.get(package, 'grep')}" in ran.err


def test_a_plugin_without_a_lock_is_refused(shop: Workshop) -> None:
    """No lock, no reasons."""
    shop.plugin("beta")
    ran = shop.within("why", "beta", "thing", "--format", "json")
    assert (ran.status, ran.codes) == (2, ["lock-missing"])
