from __future__ import annotations

import base64
import functools
import os
import subprocess
import threading
import unicodedata
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING

import pytest

from envbuilder.documents import Place
from pipeline.cli import plan_run
from pipeline.config.datasets import read_data
from pipeline.config.runfile import DataSource

if TYPE_CHECKING:
    from pipeline_bench import Bench

    from envbuilder.errors import Problem
    from pipeline.models import DataSet

PIXEL = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)


def _read(name: str = "data/lines.csv") -> DataSet:
    from pathlib import Path

    return read_data("lines", DataSource.model_validate({"path": name}), Path.cwd(), Place("run.yaml", 2, 8))


def _table(bench: Bench, *images: str, name: str = "data/lines.csv") -> str:
    if name.endswith(".jsonl"):
        import json

        rows = [json.dumps({"id": n, "image": image, "answer": "a/b"}) for n, image in enumerate(images, 1)]
        bench.write(name, "\n".join(rows) + "\n")
    else:
        lines = [f'{n};"{image}";a/b\n' if ";" in image else f"{n};{image};a/b\n" for n, image in enumerate(images, 1)]
        bench.write(name, "id;image;answer\n" + "".join(lines))
    return name


def _image(bench: Bench, name: str) -> None:
    path = bench.root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(PIXEL)


def _warning(name: str) -> Problem:
    data = _read(name)
    (problem,) = data.warnings
    assert (problem.code, problem.severity) == ("images-missing", "warning")
    assert len(problem.message) < 600
    assert all(str(item.error).startswith("image-missing: ") for item in data.items if item.error)
    return problem


def _mends(problem: Problem, name: str) -> None:
    """The hint is run, and then every image is there, and nothing else of the table has changed."""
    done = subprocess.run(("sh", "-c", str(problem.hint)), capture_output=True, text=True, check=False)
    assert done.returncode == 0, (problem.hint, done.stderr)
    data = _read(name)
    assert data.warnings == ()
    assert all(item.image and item.image.read_bytes() == PIXEL and not item.error for item in data.items)
    assert {item.references for item in data.items} == {("a/b",)}


@pytest.mark.parametrize("name", ["data/lines.csv", "data/lines.jsonl"])
@pytest.mark.parametrize(
    ("written", "there", "told"),
    [
        ("img\\a b.png", "data/img/a b.png", "have backslashes; expected / between folders: 'img\\\\a b.png' (line "),
        ("img\\x\\a.png", "data/img/x/a.png", "have backslashes"),
        (unicodedata.normalize("NFC", "й.png"), unicodedata.normalize("NFD", "data/й.png"), "another Unicode form"),
        (unicodedata.normalize("NFD", "ü/й.png"), unicodedata.normalize("NFC", "data/ü/й.png"), "another Unicode form"),
        ("IMG/A.PNG", "data/img/a.png", "slightly different name"),
        ("a%20b.png", "data/a b.png", "slightly different name"),
        ("a.jpg", "data/a.png", "slightly different name"),
        ("/img/a.png", "data/img/a.png", "begin with /, and are beside the table"),
        ("img/a.png", "img/a.png", "relative to another folder"),
        ("a.png", "data/images/a.png", "relative to another folder"),
    ],
)
def test_images_under_another_name_are_found(bench: Bench, name: str, written: str, there: str, told: str) -> None:
    """Each cause is told with the number of images, the first of them and its line; the hint mends it."""
    _image(bench, there)
    problem = _warning(_table(bench, written, written, name=name))
    assert "column 'image': 2 of 2 images" in problem.message
    assert told in problem.message
    assert problem.where == f"{name}:{2 if name.endswith('csv') else 1}"
    _mends(problem, name)


@pytest.mark.parametrize("name", ["data/lines.csv", "data/lines.jsonl"])
@pytest.mark.parametrize("prefix", ["data:image/png;base64,", ""])
def test_base64_is_named_and_shortened(bench: Bench, name: str, prefix: str) -> None:
    """Base64 data in an image column is called that, fills no screen, and is decoded by the hint."""
    text = base64.b64encode(PIXEL * 1).decode()
    problem = _warning(_table(bench, prefix + text, name=name))
    assert "1 of 1 images hold base64 data, not a path" in problem.message
    assert text[:90] not in problem.message + str(_read(name).items[0].error)
    assert f"is base64 data of {len(prefix + text)} characters" in str(_read(name).items[0].error)
    _mends(problem, name)


def test_long_base64_is_told_once_and_briefly(bench: Bench) -> None:
    """A photograph of a million characters in a cell is read, and costs a line on the screen."""
    text = base64.b64encode(b"\xff\xd8\xff\xe0" * 200_000).decode()
    problem = _warning(_table(bench, text))
    assert len(problem.message) + len(str(problem.hint)) < 1200
    assert len(str(_read().items[0].error)) < 200


def test_addresses_are_fetched_by_the_hint(bench: Bench) -> None:
    """An address is no path; the hint fetches the files and has the table name them."""
    _image(bench, "served/a.png")
    _image(bench, "served/b.png")
    handler = functools.partial(SimpleHTTPRequestHandler, directory=str(bench.root / "served"))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        base = f"http://127.0.0.1:{server.server_port}/"
        name = _table(bench, f"{base}a.png", f"{base}b.png", f"{base}a.png")
        problem = _warning(name)
        assert (
            f"3 of 3 images are addresses; expected paths of files, for nothing is fetched during a run: '{base}a.png' (line 2)"
            in problem.message
        )
        _mends(problem, name)
        server.shutdown()


def test_addresses_of_files_lose_their_scheme(bench: Bench) -> None:
    """`file://` before a path is taken away by the hint."""
    _image(bench, "a.png")
    name = _table(bench, f"file://{bench.root}/a.png")
    _mends(_warning(name), name)


def test_a_home_folder_is_written_out(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """`~` is a shell's word, not a folder's."""
    monkeypatch.setenv("HOME", str(bench.root))
    _image(bench, "img/a.png")
    name = _table(bench, "~/img/a.png")
    problem = _warning(name)
    assert "begin with ~" in problem.message
    _mends(problem, name)


def test_what_is_there_and_no_file_is_told(bench: Bench) -> None:
    """A folder, a pipe and a link to nowhere are there, and are no images; what is gone is told apart."""
    (bench.root / "data" / "folder").mkdir(parents=True)
    os.mkfifo(bench.root / "data" / "pipe")
    (bench.root / "data" / "link").symlink_to("nowhere")
    _image(bench, "data/page-1.png")
    _table(bench, "folder", "pipe", "link", "page-2.png")
    found = {problem.message: problem for problem in _read().warnings}
    unusable, gone = found
    assert "3 of 4 images are there, and are no files that can be read: 'folder' (line 2), 'pipe' (line 3)" in unusable
    errors = [str(item.error) for item in _read().items]
    assert [part in error for part, error in zip(("a folder", "a pipe", "a link to nowhere"), errors, strict=False)]
    assert "1 of 4 images are not there: 'page-2.png' (line 5)" in gone
    assert "nearest: page-1.png" in gone
    shown = subprocess.run(("sh", "-c", str(found[gone].hint)), capture_output=True, text=True, check=True)
    assert "page-1.png" in shown.stdout


@pytest.mark.skipif(os.geteuid() == 0, reason="everything can be read by root")
def test_an_image_without_permission_is_told(bench: Bench) -> None:
    """The hint gives the permission that lacks."""
    _image(bench, "data/a.png")
    (bench.root / "data" / "a.png").chmod(0)
    name = _table(bench, "a.png")
    problem = _warning(name)
    assert "Permission denied" in problem.message
    _mends(problem, name)


def test_links_out_of_the_folder_are_images(bench: Bench) -> None:
    """Data sets are often folders of links."""
    _image(bench, "elsewhere/a.png")
    (bench.root / "data").mkdir()
    (bench.root / "data" / "a.png").symlink_to("../elsewhere/a.png")
    _table(bench, "a.png")
    assert _read().warnings == ()


def test_many_causes_are_told_each_once(bench: Bench) -> None:
    """A plan has a warning for each kind of cause, however many images there are."""
    bench.usual()
    bench.write("x/a.png", "a")
    rows = "id;image;answer\n" + "".join(f"{n};x\\a.png;a\nu{n};http://x.example/a.png;a\n" for n in range(50))
    plan = plan_run(bench.request("inference: [{plugin: echo}]", rows))
    assert ["50 of 100 images" in each.message for each in plan.warnings] == [True, True]
    assert "and 47 more" in plan.warnings[0].message
