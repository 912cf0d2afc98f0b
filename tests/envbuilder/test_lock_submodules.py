"""Submodules: they come through the mirrors, and from nowhere on this machine that no mirror names."""

from __future__ import annotations

from pathlib import Path

import pytest
from workshop import Workshop


def with_submodule(workshop: Workshop, address: str) -> None:
    """Plugin `alpha`, whose code is a module in a submodule that `.gitmodules` says to be at the address."""
    sub = workshop.remotes / "sub.git"
    workshop.git("init", "--quiet", "--initial-branch", "main", str(sub))
    (sub / "__init__.py").write_text("ANSWER = 42\n")
    workshop.git("-C", str(sub), "add", "--all")
    workshop.git("-C", str(sub), "commit", "--quiet", "--message", "one")
    commit = workshop.git("-C", str(sub), "rev-parse", "HEAD")
    workshop.release("alpha", "v0.0.1", code="class Model:\n    pass\n")
    place = str(workshop.remotes / "alpha.git")
    modules = f'[submodule "inner"]\n\tpath = src/inner\n\turl = {address}\n'
    (Path(place) / ".gitmodules").write_text(modules)
    workshop.git("-C", place, "add", ".gitmodules")
    workshop.git("-C", place, "update-index", "--add", "--cacheinfo", f"160000,{commit},src/inner")
    workshop.git("-C", place, "commit", "--quiet", "--message", "two")
    workshop.git("-C", place, "tag", "v0.1.0")
    workshop.entry("alpha")


@pytest.mark.parametrize("address", ["https://git.example.org/sub.git", "../sub.git"])
def test_submodules_come_through_folder_mirrors(workshop: Workshop, address: str) -> None:
    """A submodule at an address that a mirror leads to a folder is there when the package is built."""
    with_submodule(workshop, address)
    env = {"UV_CACHE_DIR": str(workshop.root / "cache")}
    locked = workshop.within("lock", env=env)
    assert locked.status == 0, locked.err
    built = workshop.within("build", env=env)
    assert built.status == 0, built.err
    shown = workshop.run("exec", "alpha", "--", "python", "-c", "import inner; print(inner.ANSWER)", env=env)
    assert shown.out.strip() == "42"


@pytest.mark.parametrize("address", ["/srv/private.git", "file:///srv/private.git", "ext::sh -c date", "-u"])
def test_submodules_from_this_machine_are_refused(workshop: Workshop, address: str) -> None:
    """A tag whose submodule names a folder here, or a program, is told before uv or git act on it."""
    with_submodule(workshop, address)
    ran = workshop.within("lock", "--format", "json")
    assert (ran.status, ran.codes) == (1, ["metadata-unreadable"])
    assert address in ran.out
