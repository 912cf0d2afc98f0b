"""How often git is asked: a listing for each repository, and what is at hand in one go for all."""

from __future__ import annotations

import re
import shutil
from collections import Counter
from pathlib import Path

from workshop import Workshop

# What stands before the command's name.
_OPTIONS = re.compile(r"(-c \S+ |--git-dir \S+ |-C \S+ )*")


class Counted:
    """A git in PATH that notes each call before it is the real one."""

    def __init__(self, folder: Path) -> None:
        self._log = folder / "calls"
        bin_ = folder / "bin"
        bin_.mkdir()
        (bin_ / "git").write_text(f'#!/bin/sh\nprintf "%s\\n" "$*" >> {self._log}\nexec {shutil.which("git")} "$@"\n')
        (bin_ / "git").chmod(0o755)
        self.env = {"PATH": f"{bin_}:{Workshop.environment()['PATH']}"}

    def calls(self) -> Counter[str]:
        """The commands since the last time."""
        lines = self._log.read_text().splitlines() if self._log.exists() else []
        self._log.unlink(missing_ok=True)
        return Counter(_OPTIONS.sub("", line, count=1).split()[0] for line in lines)


def test_check_asks_each_repository_once(workshop: Workshop) -> None:
    """Whatever the number of pins: one listing a repository, two looks at all clones, of tags one fetch a repository."""
    git = Counted(workshop.root)
    for name in ("alpha", "beta"):
        for number in range(3):
            workshop.release(name, f"v0.{number}.0", version=f"0.{number}.0", dependencies=(f"core<0.{number + 2}",))
        workshop.entry(name, tag="v0.0.0")
    for name, tag in (("one", "first"), ("two", "v0.1.0")):
        package: dict[str, object] = {"name": name, "dependencies": ("core",)}
        workshop.release("many", tag, subdirectory=name, **package)  # type: ignore[arg-type]
        workshop.entry(name, source={"git": "https://git.example.org/many.git", "tag": "v0.1.0", "subdirectory": name})
    workshop.release("core", "v0.1.0")
    workshop.entry("core", kind="library")
    workshop.settings(core={"core": '"0.1.0"'})
    assert workshop.within("lock", "-q").status == 0
    git.calls()
    ran = workshop.within("check", "--format", "json", env=git.env)
    assert ran.json["problems"] == []
    assert git.calls() == {"ls-remote": 4, "cat-file": 2}
    assert workshop.within("check", "--offline", env=git.env).status == 0
    assert git.calls() == {"cat-file": 2}
    # A core that two plugins do not take: their tags are read, by one fetch and a few looks for each repository.
    ran = workshop.within("check", "--core", "0.2.5", "--format", "json", env=git.env)
    assert ran.codes == ["core-incompatible", "core-incompatible"]
    assert ran.out.count("# v0.2.0 is the newest tag that fits") == 4  # In the matrix, and as hints.
    calls = git.calls()
    assert (calls["ls-remote"], calls["fetch"]) == (4, 2)
    workshop.within("check", "--all-tags", env=git.env)
    few = git.calls()
    assert few["fetch"] == 0  # All tags are at hand by now.
    for number in range(3, 9):
        workshop.git("-C", str(workshop.remotes / "alpha.git"), "tag", f"v0.{number}.0")
    workshop.within("check", "--all-tags", env=git.env)
    many = git.calls()
    assert many["cat-file"] <= few["cat-file"] + 2
