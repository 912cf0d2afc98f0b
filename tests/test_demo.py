"""The demo that travels with the project: its pins hold, its environments cannot coexist, its figures are real."""

from __future__ import annotations

import csv
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest
from workshop import PYTHON, Ran, Workshop

from envbuilder.documents import read_toml
from envbuilder.uv import find_uv

ROOT = Path(__file__).resolve().parents[1]


def project(*arguments: str, cwd: Path = ROOT, **env: str) -> Ran:
    """Run envbuilder in the project itself, or in a copy of it."""
    done = subprocess.run(
        Workshop.argv(*arguments), cwd=cwd, env=Workshop.environment(env), capture_output=True, text=True, check=False
    )
    return Ran(done.returncode, done.stdout, done.stderr)


@pytest.mark.parametrize("profile", ["prod", "dev"])
def test_locks_are_up_to_date(profile: str) -> None:
    """The committed locks are what registry, overlays and profiles lead to; found without a network."""
    ran = project("lock", "--check", "--format", "json", RUN_MODE=profile)
    assert ran.status == 0, ran.out
    result = ran.json["result"]
    assert isinstance(result, dict)
    assert {each["state"] for each in result["plugins"]} == {"ok"}


@pytest.mark.parametrize("profile", ["prod", "dev"])
def test_pins_hold(profile: str) -> None:
    """Every pinned tag is where it was, fits the core and the Python; the remotes are the bundles in the tree."""
    ran = project("check", "--format", "json", RUN_MODE=profile)
    assert ran.status == 0, ran.out


def test_locks_keep_canonical_addresses() -> None:
    """No trace of the mirror gets into what is committed."""
    for lock in (ROOT / "profiles" / "prod").glob("*/uv.lock"):
        text = lock.read_text(encoding="utf-8")
        assert "https://git.example.org/" in text
        assert ".bundle" not in text
        assert "file://" not in text


@pytest.mark.parametrize("package", sorted(path.parent.name for path in (ROOT / "packages").glob("*/pyproject.toml")))
def test_bundles_hold_what_the_packages_are(package: str, tmp_path: Path) -> None:
    """A release is its package: the bundle's tag of the declared version holds the very files of `packages/`."""
    folder = ROOT / "packages" / package
    version = read_toml(folder / "pyproject.toml", package).value["project"]["version"]
    bundle = ROOT / "packages" / "remotes" / f"{package}.bundle"
    Workshop.git("clone", "--quiet", "--branch", f"v{version}", str(bundle), str(tmp_path / "released"))
    released = Workshop.git("-C", str(tmp_path / "released"), "ls-files").split("\n")
    assert sorted(released) == sorted(Workshop.git("-C", str(folder), "ls-files", "--", ".").split("\n"))
    for name in released:
        assert (tmp_path / "released" / name).read_bytes() == (folder / name).read_bytes(), name


def requirements(package: str) -> str:
    """A package's dependencies less the core, as a requirements file."""
    tree = read_toml(ROOT / "packages" / package / "pyproject.toml", package).value
    return "\n".join(line for line in tree["project"]["dependencies"] if not line.startswith("vlm-core")) + "\n"


@pytest.mark.network
def test_readers_cannot_share_an_environment(tmp_path: Path) -> None:
    """Uv resolves each reader's pins alone and finds no way to install both together; numpy is why."""
    for name, packages in {"both": ("ocr-crnn", "ocr-rapid"), "crnn": ("ocr-crnn",), "rapid": ("ocr-rapid",)}.items():
        file = tmp_path / f"{name}.in"
        file.write_text("".join(requirements(package) for package in packages))
        argv = [str(find_uv()), "pip", "compile", "--quiet", "--no-header", "--python-version", "3.11", str(file)]
        done = subprocess.run(argv, cwd=tmp_path, capture_output=True, text=True, check=False)
        if name == "both":
            assert done.returncode == 1
            assert "unsatisfiable" in done.stderr
            assert "numpy" in done.stderr
        else:
            assert done.returncode == 0, done.stderr


def test_data_sets_are_whole() -> None:
    """Some hundred items each, ids unique, every image there, both languages as many."""
    for name, classes in {"lines": {"line-ru": 150, "line-en": 150}, "digits": {"digit": 300}}.items():
        folder = ROOT / "profiles" / "runs" / "data" / name
        with (folder / "annotation.csv").open(encoding="utf-8", newline="") as stream:
            rows = list(csv.DictReader(stream, delimiter=";"))
        assert {"image_path", "question", "answer", "doc_class", "question_type"} <= set(rows[0])
        assert len({row["data_index"] for row in rows}) == len(rows)
        assert all((folder / row["image_path"]).is_file() for row in rows)
        assert {kind: sum(row["doc_class"] == kind for row in rows) for kind in classes} == classes


def copy_of_the_project(folder: Path) -> Path:
    """The files that git tracks, elsewhere."""
    names = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for name in filter(None, names.split("\0")):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(ROOT / name, folder / name)
    return folder


@pytest.mark.network
def test_an_edit_shows_in_dev_and_not_in_prod(tmp_path: Path) -> None:
    """Change a line of a plugin, run again in dev: the change is in the figures; prod's stay."""
    copy = copy_of_the_project(tmp_path / "copy")
    run_file = copy / "profiles" / "runs" / "small.yaml"
    lines = (ROOT / "profiles" / "runs" / "data" / "lines" / "annotation.csv").read_text().splitlines()
    (copy / "profiles" / "runs" / "data" / "lines" / "few.csv").write_text(
        "\n".join([lines[0], *lines[200:203]]) + "\n"
    )
    run_file.write_text(
        "name: small\n"
        "data: {few: {path: data/lines/few.csv, columns: {id: data_index, image: image_path, class: doc_class}}}\n"
        "inference: [{plugin: ocr-rapid, gpus: 0}]\n"
        "eval: [{plugin: text-metrics}]\n"
    )
    plugin = next((copy / "packages" / "text-metrics" / "src").rglob("plugin.py"))
    plugin.write_text(plugin.read_text() + "\n\nTextMetrics.evaluate = lambda self, records: _Edited()\n" + EDITED)
    exact: dict[str, Mapping[str, float]] = {}
    for profile in ("dev", "prod"):
        ran = project("run", str(run_file), "--format", "json", cwd=copy, RUN_MODE=profile)
        assert ran.status == 0, ran.err
        exact[profile] = json.loads(ran.out)["result"]["evaluations"][0]["overall"]
    assert exact["dev"] == {"edited": 1.0}
    assert "edited" not in exact["prod"]


EDITED = """

class _Edited:
    overall = {"edited": 1.0}
    by_class = {}
    by_item = ()
    lower_is_better = ()
"""


@pytest.mark.slow
@pytest.mark.network
def test_demo_reads_as_well_as_it_says(tmp_path: Path) -> None:
    """The main job, whole: character errors by language, from the run's own record, and a report that is there.

    ocr-crnn reads both languages; ocr-rapid reads English and cannot read Russian.
    """
    ran = project("run", "--fresh", "--format", "json")
    assert ran.status == 0, ran.err
    result = json.loads(ran.out)["result"]
    cer = {
        (each["inference"].split("@")[0], kind): metrics["cer"]
        for each in result["evaluations"]
        for kind, metrics in each["by_class"].items()
    }
    assert cer["ocr-crnn", "line-ru"] < 0.05
    assert cer["ocr-crnn", "line-en"] < 0.05
    assert cer["ocr-rapid", "line-en"] < 0.06
    assert cer["ocr-rapid", "line-ru"] > 0.5
    report = Path(result["paths"]["report"]).read_text(encoding="utf-8")
    assert "ocr-crnn" in report
    assert not any(f'{attribute}="http' in report for attribute in ("src", "href"))


def test_wheel_holds_both_rooms_and_runs_in_a_clean_environment(tmp_path: Path) -> None:
    """Our own wheel, installed by pip in an environment made by virtualenv, answers --version from outside the tree."""
    subprocess.run([find_uv(), "build", "--wheel", "--quiet", "--out-dir", tmp_path, ROOT], check=True)
    wheel = next(tmp_path.glob("*.whl"))
    subprocess.run([sys.executable, "-m", "virtualenv", "--quiet", tmp_path / "room"], check=True)
    python = tmp_path / "room" / "bin" / "python"
    subprocess.run([python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", wheel], check=True)
    done = subprocess.run(
        [tmp_path / "room" / "bin" / "envbuilder", "--version"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.startswith("envbuilder, version ")
    code = "import pipeline.bootstrap, pipeline.cli, envbuilder.cli; print(pipeline.__file__)"
    done = subprocess.run([python, "-I", "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout.startswith(str(tmp_path))


@pytest.mark.network
def test_pip_makes_the_same_environment(tmp_path: Path) -> None:
    """The independent oracle: pip, given the lock's versions in a virtualenv, installs what our environment holds."""
    ran = project("build", "text-metrics", "--format", "json")
    assert ran.status == 0, ran.err
    result = ran.json["result"]
    assert isinstance(result, dict)
    ours = Path(result["environments"][0]["path"])
    export = subprocess.run(
        [find_uv(), "export", "--frozen", "--no-hashes", "--no-header", "--no-annotate", "--no-emit-project"],
        cwd=ROOT / "profiles" / "prod" / "text-metrics",
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    released = [line for line in export.splitlines() if line and "git+" not in line]
    (tmp_path / "requirements.txt").write_text("\n".join(released) + "\n")
    room = tmp_path / "room"
    call("-m", "virtualenv", "--quiet", "--python", ours / "bin" / "python", room)
    pip = ("-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps")
    call(*pip, "-r", tmp_path / "requirements.txt", python=room / "bin" / "python")
    for name in ("core", "text-metrics"):
        bundle = ROOT / "packages" / "remotes" / f"{name}.bundle"
        Workshop.git("clone", "--quiet", "--branch", "v0.1.0", str(bundle), str(tmp_path / name))
        call(*pip, tmp_path / name, python=room / "bin" / "python")
    assert files_of(ours) == files_of(room)


def call(*arguments: str | Path, python: Path | str = sys.executable) -> None:
    """Run Python, and mind how it ends."""
    subprocess.run([str(python), *(str(argument) for argument in arguments)], check=True)


def files_of(environment: Path) -> dict[str, int]:
    """The files of all packages by size, less what the installer itself writes and brings."""
    packages = next(environment.glob("lib/python*/site-packages"))
    own = {
        "_envbuilder_bytecode.pth",
        "pip",
        "_virtualenv.py",
        "_virtualenv.pth",
        "setuptools",
        "wheel",
        "_distutils_hack",
        "distutils-precedence.pth",
    }
    notes = {"RECORD", "INSTALLER", "REQUESTED", "direct_url.json", "uv_cache.json", "uv_build.json"}
    return {
        str(path.relative_to(packages)): path.stat().st_size
        for path in packages.rglob("*")
        if path.is_file()
        and path.suffix not in {".pyc", ".virtualenv"}
        and path.name not in notes
        and path.relative_to(packages).parts[0].split("-")[0] not in own
        and path.relative_to(packages).parts[0] not in own
    }


@pytest.mark.skipif(
    PYTHON != "3.11" and shutil.which("python3.11") is None, reason="the demo is locked for Python 3.11"
)
def test_status_names_every_plugin() -> None:
    """What a newcomer sees first: the four plugins, their stages, where each comes from."""
    ran = project("status", "--format", "json", UV_OFFLINE=os.environ.get("UV_OFFLINE", ""))
    result = ran.json["result"]
    assert isinstance(result, dict)
    assert [each["plugin"] for each in result["plugins"]] == ["html-report", "ocr-crnn", "ocr-rapid", "text-metrics"]


@pytest.mark.gpu
@pytest.mark.slow
@pytest.mark.skipif(shutil.which("nvidia-smi") is None, reason="needs an NVIDIA GPU and its driver")
def test_torch_uses_the_gpu_where_there_is_one() -> None:
    """On a machine with a GPU the demo's torch plugin runs on it, and the record names the device."""
    ran = project("run", "--fresh", "--format", "json")
    assert ran.status == 0, ran.err
    tasks = [task for task in json.loads(ran.out)["result"]["tasks"] if task["plugin"] == "ocr-crnn"]
    assert {task["device"] for task in tasks} == {"cuda"}
    assert all("NVIDIA" in task["device_name"] for task in tasks)
