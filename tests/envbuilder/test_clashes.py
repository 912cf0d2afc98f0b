"""Two distributions that install the same files: refused with both owners, and ended by the line of the hint."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
from local_index import Index, make_wheel
from workshop import PYTHON, Workshop


@pytest.fixture
def wheels(tmp_path: Path) -> Path:
    """A folder of wheels: two builds of one module, and who asks for the second."""
    folder = tmp_path / "wheels"
    make_wheel(folder, "opencv-python", "4.10", files={"cv2/__init__.py": b"GUI = True\n", "cv2/gui.py": b"A = 1\n"})
    make_wheel(folder, "opencv-python-headless", "4.11", files={"cv2/__init__.py": b"GUI = False\n"})
    make_wheel(folder, "albumen", "1.0", requires=["opencv-python-headless"])
    make_wheel(folder, "painter", "1.0", requires=["opencv-python"])
    return folder


@pytest.fixture
def index(wheels: Path) -> Iterator[Index]:
    """An index that serves the wheels."""
    with Index(wheels) as serving:
        yield serving


@pytest.fixture
def bench(workshop: Workshop, index: Index) -> Workshop:
    """A workspace whose plugins come from the index."""
    workshop.write("profiles/prod/profile.toml", f'python = "{PYTHON}"\nindex-url = "{index.url}"\n')
    return workshop


def clash(bench: Workshop) -> Mapping[str, str]:
    """Lock, build, and the one problem of the build."""
    assert bench.within("lock").status == 0
    ran = bench.within("build", "--format", "json")
    assert (ran.status, ran.codes) == (1, ["files-clash"]), ran.out
    problems = ran.json["problems"]
    assert isinstance(problems, list)
    found: Mapping[str, str] = problems[0]
    return found


def follow(bench: Workshop, hint: str) -> None:
    """Do what a hint says: write its line into the entry, then lock."""
    line = re.search(r"# (exclude: \[.*?\])", hint)
    assert line is not None, hint
    file = bench.registry / "reader.yaml"
    file.write_text(file.read_text().rstrip().removesuffix("}") + f", {line[1]}}}")
    ran = bench.within("lock", "reader")
    assert ran.status == 0, ran.err


def test_twins_are_refused_with_owners_ways_and_the_line_that_ends_it(bench: Workshop) -> None:
    """Both owners, who asks for each and an exclude line, which helps; uv's cache is not blamed."""
    bench.plugin("reader", dependencies=("painter", "albumen"), code="import cv2\nclass Model:\n    GUI = cv2.GUI\n")
    problem = clash(bench)
    assert "opencv-python and opencv-python-headless install different files" in problem["message"]
    assert "cv2/__init__.py" in problem["message"]
    assert "reader → painter → opencv-python;" in problem["message"]
    assert "reader → albumen → opencv-python-headless" in problem["message"]
    assert "cache clean" not in problem["hint"]
    follow(bench, problem["hint"])
    ran = bench.within("build")
    assert ran.status == 0, ran.err
    told = bench.run("exec", "reader", "--", "python", "-c", "import reader; print(reader.Model.GUI)")
    assert told.out.strip() == "False"
    assert bench.within("verify", "--full").status == 0


def test_what_a_plugin_asks_for_itself_is_kept(bench: Workshop) -> None:
    """Of two owners the nearer one stays; what the entry leaves out already stays left out; nothing was built."""
    bench.plugin(
        "reader",
        dependencies=("opencv-python", "albumen"),
        code="import cv2\nclass Model: ...\n",
        keys={"exclude": ["zz"]},
    )
    problem = clash(bench)
    assert "# exclude: [opencv-python-headless, zz], which keeps opencv-python;" in problem["hint"]
    assert not list((bench.work / ".envbuilder/store").glob("reader-*"))


def test_requires_of_the_entry_are_named_and_three_owners_leave_one(bench: Workshop, wheels: Path) -> None:
    """An owner that the registry asks for is told so; all but one are left out."""
    make_wheel(wheels, "opencv-contrib-python", "4.9", files={"cv2/__init__.py": b"CONTRIB = True\n"})
    bench.plugin("reader", dependencies=("painter", "albumen"), keys={"requires": ["opencv-contrib-python"]})
    problem = clash(bench)
    assert "comes by requires of reader → opencv-contrib-python" in problem["message"]
    assert "# exclude: [opencv-python, opencv-python-headless], which keeps opencv-contrib-python" in problem["hint"]
    follow(bench, problem["hint"])
    assert bench.within("build").status == 0


def test_files_with_the_same_bytes_are_no_clash(bench: Workshop, wheels: Path) -> None:
    """A namespace's empty __init__.py, and names that differ in case alone, stand in no one's way."""
    for name in ("one", "two"):
        files = {"common/__init__.py": b"", f"common/{name}.py": b"A = 1\n"}
        make_wheel(wheels, name, files=files, scripts={"shared": "common.one:main"})
    make_wheel(wheels, "upper", files={"lower/A.py": b"1\n"})
    make_wheel(wheels, "other", files={"lower/a.py": b"2\n"})
    bench.plugin("reader", dependencies=("one", "two", "upper", "other"))
    assert bench.within("lock").status == 0
    ran = bench.within("build", "--format", "json")
    assert (ran.status, ran.codes) == (0, [])


def test_what_nothing_imports_is_told_and_builds(bench: Workshop, wheels: Path) -> None:
    """Tests, notes and scripts in two versions are a warning; the environment is whole by its seal."""
    for name in ("one", "two"):
        files = {f"{name}.py": b"def main(): ...\n", "tests/__init__.py": name.encode(), "LICENSE": name.encode()}
        make_wheel(wheels, name, files=files, scripts={"shared": f"{name}:main"})
    bench.plugin("reader", dependencies=("one", "two"))
    assert bench.within("lock").status == 0
    ran = bench.within("build", "--format", "json")
    assert (ran.status, ran.codes) == (0, ["files-clash"]), ran.out
    assert '"severity": "warning"' in ran.out
    assert bench.within("verify", "--full").status == 0


def test_script_that_a_plugin_is_started_by_is_no_trifle(bench: Workshop, wheels: Path) -> None:
    """Two distributions with the very command of the entry are refused."""
    for name in ("one", "two"):
        make_wheel(wheels, name, files={f"{name}.py": b"def main(): ...\n"}, scripts={"shared": f"{name}:main"})
    bench.plugin("reader", dependencies=("one", "two"), keys={"entry": None, "command": ["shared", "--all"]})
    assert "bin/shared" in clash(bench)["message"]
