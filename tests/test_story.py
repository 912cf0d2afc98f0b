"""The working cycle of a team, told as a story: from an empty folder to a release in prod and back, by the installed command."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from local_index import Index, make_wheel, repack
from workshop import DATES, PYTHON, Workshop

# What new packages are built with, as far as they need it: name, version and dependencies are those of pyproject.toml.
HATCHLING = """
import base64, hashlib, os, pathlib, re, zipfile

def _wheel(folder, editable):
    text = pathlib.Path("pyproject.toml").read_text()
    name, version = (re.search(f'^{key} = "(.*)"', text, re.M)[1] for key in ("name", "version"))
    needs = re.findall('"([^"]+)"', re.search("^dependencies = \\\\[(.*?)\\\\]", text, re.M | re.S)[1])
    stem = f"{name.replace('-', '_')}-{version}"
    lines = ["Metadata-Version: 2.1", f"Name: {name}", f"Version: {version}", *(f"Requires-Dist: {each}" for each in needs)]
    files = {f"{stem}.dist-info/METADATA": "\\n".join(lines) + "\\n",
             f"{stem}.dist-info/WHEEL": "Wheel-Version: 1.0\\nGenerator: t\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n"}
    if editable:
        files[f"_{name}.pth"] = os.path.abspath("src") + "\\n"
    else:
        files |= {str(path.relative_to("src")): path.read_text() for path in sorted(pathlib.Path("src").rglob("*.py"))}
    record = f"{stem}.dist-info/RECORD"
    target = f"{stem}-py3-none-any.whl"
    with zipfile.ZipFile(os.path.join(folder, target), "w") as archive:
        rows = []
        for path, content in files.items():
            digest = base64.urlsafe_b64encode(hashlib.sha256(content.encode()).digest()).rstrip(b"=").decode()
            rows.append(f"{path},sha256={digest},{len(content.encode())}")
            archive.writestr(path, content)
        archive.writestr(record, "\\n".join([*rows, f"{record},,", ""]))
    return target

def build_wheel(folder, config_settings=None, metadata_directory=None):
    return _wheel(folder, False)

def build_editable(folder, config_settings=None, metadata_directory=None):
    return _wheel(folder, True)
"""


class Desk:
    """Where somebody sits: a home of their own, a shell, the remotes that they can reach.

    Args:
        root: an empty folder.
        index: the package index.
    """

    def __init__(self, root: Path, index: Index) -> None:
        self.folder = root
        self.remotes = root / "remotes"
        self.remotes.mkdir()
        (root / "gitconfig").write_text(
            f'[init]\ndefaultBranch = main\n[url "{self.remotes}/"]\ninsteadOf = https://git.example.org/\n'
        )
        own = {
            **{name: value for name, value in DATES.items() if not name.endswith("DATE")},
            "GIT_CONFIG_GLOBAL": str(root / "gitconfig"),
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "UV_DEFAULT_INDEX": index.url,
            "UV_PYTHON": PYTHON,
        }
        self.env = Workshop.environment(own)
        self.index = index

    def type(self, line: str, *, status: int = 0) -> str:
        """Type a line into a shell, which must end so; all that it shows."""
        done = subprocess.run(
            ["bash", "-ec", line],
            cwd=self.folder,
            env=self.env,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
            timeout=300,
        )
        assert done.returncode == status, f"$ {line}\n{done.stdout}"
        assert "Traceback" not in done.stdout, done.stdout
        return done.stdout

    def edit(self, name: str, old: str, new: str) -> None:
        """Change a file by hand."""
        path = self.folder / name
        text = path.read_text()
        assert old in text, text
        path.write_text(text.replace(old, new))

    def publish(self, name: str, *tags: str) -> None:
        """Make a repository of a new package, and push it to a remote that is not there yet."""
        remote = self.remotes / f"{name}.git"
        self.type(
            f"git init -q --bare {remote}; cd packages/{name}; git init -q; git add --all; git commit -qm first;"
            f"git remote add origin https://git.example.org/{name}.git; "
            + "".join(f"git tag -am first {tag};" for tag in tags)
            + "git push -q --tags -u origin main"
        )


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    """An empty home; a colleague has published the plugin `judge` already."""
    wheels = tmp_path / "wheels"
    wheels.mkdir()
    repack(wheels, "pytest")
    make_wheel(
        wheels, "hatchling", "1.27.0", files={"hatchling/__init__.py": b"", "hatchling/build.py": HATCHLING.encode()}
    )
    make_wheel(wheels, "softly", files={"softly.py": b"def plain(text):\n    return text.rstrip('.').lower()\n"})
    with Index(wheels) as index:
        desk = Desk(tmp_path, index)
        desk.type("envbuilder init colleague; cd colleague; envbuilder new judge --stage eval")
        desk.folder = tmp_path / "colleague"
        desk.publish("judge", "v0.1.0")
        desk.folder = tmp_path
        yield desk


def test_from_an_empty_folder_to_a_release_and_back(desk: Desk) -> None:
    """init, new, add, dev on, edit, test, run in dev, release, lock, check, build, run in prod, dev off, rollback."""
    set_up(desk)
    prod = desk.folder / "profiles" / "prod"
    desk.type("envbuilder lock judge && envbuilder build judge; git add --all; git commit -qm 'The first lock'")
    before = (prod / "judge" / "uv.lock").read_bytes()

    work_on_it(desk)
    assert (prod / "judge" / "uv.lock").read_bytes() == before
    assert "softly" in (desk.folder / "profiles/dev/judge/uv.lock").read_text()

    desk.type("cd packages/judge && git commit -qam 'Judge softly'")
    shown = desk.type("envbuilder release judge --bump minor --dry-run")
    assert "v0.2.0" in shown
    assert "nothing was done" in shown
    assert "released judge 0.2.0" in desk.type("envbuilder release judge --bump minor --yes")
    assert "released shout 0.1.0" in desk.type("envbuilder release shout --bump minor --yes")
    assert desk.type("git status --short profiles/prod profiles/registry/judge.yaml profiles/registry/shout.yaml") == ""
    assert desk.type("git log --format=%s -2") == "Release shout 0.1.0\nRelease judge 0.2.0\n"
    assert "2 unchanged" in desk.type("envbuilder lock")
    desk.type("envbuilder check")
    desk.type("envbuilder build")
    shown = desk.type("envbuilder run profiles/runs/shout.yaml")
    assert re.search(r"shout@questions +\(all\) +0.2500", shown), shown
    assert judge_of(desk) == "0.2.0"

    desk.type("envbuilder dev off judge")
    assert not (desk.folder / "packages" / "judge").exists()
    assert "envbuilder dev on" in desk.type("envbuilder dev off shout", status=2), "it was `new` that wrote the overlay"
    desk.type("envbuilder rollback")
    assert judge_of(desk) == "0.1.0"
    assert "prod is held at generation 1" in desk.type("envbuilder status")
    desk.type("envbuilder build")
    assert judge_of(desk) == "0.2.0"
    assert "verified 2 environments: all as they were sealed" in desk.type("envbuilder verify --full")


def set_up(desk: Desk) -> None:
    """A workspace under git, with a new plugin and a colleague's."""
    desk.type("envbuilder init bench && git init -q bench")
    desk.folder /= "bench"
    for profile in ("prod", "dev"):
        with (desk.folder / "profiles" / profile / "profile.toml").open("a") as stream:
            stream.write(f'\nindex-url = "{desk.index.url}"\n')
        desk.edit(f"profiles/{profile}/profile.toml", 'python = "3.11"', f'python = "{PYTHON}"')
    desk.type("envbuilder new shout --stage inference --git https://git.example.org/shout.git")
    desk.publish("shout")
    desk.type(
        "envbuilder add judge --git https://git.example.org/judge.git --tag v0.1.0 --stage eval --entry judge:Judge"
    )
    desk.type("echo /packages/ >> .gitignore; git add --all; git commit -qm 'A workspace'")


def work_on_it(desk: Desk) -> None:
    """A colleague's plugin becomes a checkout, gets a dependency and a line, is tested and run with one's own."""
    desk.type("envbuilder dev on judge --branch")
    desk.edit("packages/judge/pyproject.toml", "dependencies = []", 'dependencies = ["softly"]')
    module = "packages/judge/src/judge/plugin.py"
    desk.edit(module, "from typing import Any\n", "from typing import Any\n\nimport softly\n")
    desk.edit(module, "return text.casefold() if self._casefold else text", "return softly.plain(text)")
    tested = desk.type("envbuilder test")
    assert re.search(r"judge +passed.*shout +passed", tested, re.DOTALL)
    desk.edit("profiles/runs/data/shout.csv", "question;answer\n", "question;answer\n0;yes;Yes\n")
    with (desk.folder / "profiles/runs/shout.yaml").open("a") as stream:
        stream.write("eval:\n  - {plugin: judge}\n")
    shown = desk.type("envbuilder run --profile dev profiles/runs/shout.yaml")
    assert re.search(r"shout@questions +\(all\) +0.2500", shown), shown


def judge_of(desk: Desk) -> str:
    """The version of the judge that prod has."""
    return desk.type("envbuilder exec judge -- python -c 'import judge; print(judge.__version__)'").strip()
