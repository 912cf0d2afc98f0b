"""The graph of a lock: who asks for what, under which conditions."""

from __future__ import annotations

import pytest

from envbuilder.errors import ConfigError
from envbuilder.lock import graph
from envbuilder.lock.graph import Graph

LOCK = """
version = 1

[[package]]
name = "a"
version = "1.0"
source = { registry = "https://index.example.org/simple" }
dependencies = [
    { name = "b", extra = ["fast"] },
    { name = "n", version = "1.0", source = { registry = "https://index.example.org/simple" }, marker = "python_full_version < '3.12'" },
    { name = "n", version = "2.0", source = { registry = "https://index.example.org/simple" }, marker = "python_full_version >= '3.12'" },
]

[[package]]
name = "b"
version = "1.0"
source = { registry = "https://index.example.org/simple" }

[package.optional-dependencies]
fast = [{ name = "c" }]
slow = [{ name = "d" }]

[[package]]
name = "c"
version = "1.0"
source = { registry = "https://index.example.org/simple" }
dependencies = [{ name = "a" }]

[[package]]
name = "d"
version = "1.0"
source = { registry = "https://index.example.org/simple" }

[[package]]
name = "envbuilder-env-a"
version = "0"
source = { virtual = "." }
dependencies = [{ name = "a" }]

[package.metadata]
requires-dist = [{ name = "a", specifier = "==1.0" }]

[[package]]
name = "n"
version = "1.0"
source = { registry = "https://index.example.org/simple" }

[[package]]
name = "n"
version = "2.0"
source = { registry = "https://index.example.org/simple" }
"""


@pytest.fixture(scope="module")
def small() -> Graph:
    """A lock with an extra that is asked for and one that is not, a cycle, and two versions of one package."""
    return graph.parse(LOCK, "uv.lock")


def names(small: Graph, python: str) -> list[str]:
    """What a machine with that Python gets."""
    found = small.installed({"python_full_version": python})
    return sorted(f"{small.packages[index].name} {small.packages[index].version}" for index in found)


def test_installed_follows_markers_and_extras(small: Graph) -> None:
    """Of two versions a machine gets the one its Python asks for; behind an extra, only what was asked for."""
    assert names(small, "3.11.7") == ["a 1.0", "b 1.0", "c 1.0", "n 1.0"]
    assert names(small, "3.12.0") == ["a 1.0", "b 1.0", "c 1.0", "n 2.0"]


def test_chains_lead_from_the_project_to_the_package(small: Graph) -> None:
    """The shortest way through each package that asks, extras included, cycles passed by; none where none asks."""

    def shown(name: str) -> list[list[str]]:
        return [[small.packages[step[0]].name for step in chain] for chain in small.chains(name)]

    assert shown("c") == [["envbuilder-env-a", "a", "b"]]
    assert shown("n") == [["envbuilder-env-a", "a"], ["envbuilder-env-a", "a"]]
    assert shown("a") == [["envbuilder-env-a"], ["envbuilder-env-a", "a", "b", "c"]]
    assert shown("d") == []


def test_what_the_lock_knows_of_specifiers_is_kept(small: Graph) -> None:
    """Specifiers stand there for packages whose metadata may change."""
    assert small.asked == {(small.root, "a"): "==1.0"}


@pytest.mark.parametrize(
    "text", ["", "package = 3", "package = [3]", "[[package]]\nname = 1", LOCK.replace('{ name = "c" }', "3")]
)
def test_what_is_no_lock_is_refused(text: str) -> None:
    """Whatever is wrong with a lock is our error, with its place."""
    with pytest.raises(ConfigError) as refused:
        graph.parse(text, "x/uv.lock")
    assert refused.value.where is not None
