from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from pipeline_bench import ECHO, EXACT, REPORT

from pipeline import bootstrap
from pipeline.cli import execute_run

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pipeline_bench import Bench

VERSIONS = ("3.8", "3.9", "3.10", "3.11", "3.12", "3.13")

LOOK = """
import json, os, random, sys

class Plugin:
    def load(self, context):
        self.context = context
        self.chance = random.random()

    def predict(self, batch):
        return [json.dumps({
            "context": {name: str(value) for name, value in vars(self.context).items()},
            "image": type(batch[0].image).__name__,
            "path": sys.path,
            "argv": sys.argv,
            "modules": sorted(sys.modules),
            "variables": dict(os.environ),
            "cwd": os.getcwd(),
            "chance": self.chance,
        })] * len(batch)
"""


def _interpreter(version: str) -> Path | None:
    """An interpreter of that version on this machine, pyenv's shims aside: they answer for versions not chosen."""
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"))
    own = [str(folder) for folder in sorted(pyenv.glob(f"versions/{version}.*/bin"))]
    others = [folder for folder in os.environ.get("PATH", "").split(os.pathsep) if "shims" not in Path(folder).parts]
    environment = {**os.environ, "PATH": os.pathsep.join([*own, *others])}
    argv = ("uv", "python", "find", "--no-python-downloads", "--no-project", "--system", version)
    found = subprocess.run(argv, env=environment, capture_output=True, text=True, check=False)
    return Path(found.stdout.strip()) if found.returncode == 0 else None


def _looked(bench: Bench, text: str = "inference: [{plugin: look}]") -> dict[str, object]:
    bench.plugin("look", LOOK)
    outcome = execute_run(bench.request(text))
    assert outcome.ok, outcome.problems
    (journal,) = Path(outcome.paths["answers"]).glob("*.jsonl")
    found = json.loads(json.loads(journal.read_text().splitlines()[0])["answer"])
    assert isinstance(found, dict)
    return found


@pytest.fixture
def contract() -> Iterator[object]:
    """The plugin contract's data classes."""
    sys.path.insert(0, str(Path(__file__).parents[2] / "packages" / "core" / "src"))
    try:
        from vlm_core import data

        yield data
    finally:
        del sys.path[0]


@pytest.mark.parametrize("name", ["Item", "Record", "Context"])
def test_what_is_handed_over_is_the_contracts(contract: object, name: str) -> None:
    """The worker's classes have the contract's fields, in its order, with its types and defaults."""

    def facts(owner: object) -> list[tuple[object, ...]]:
        fields = dataclasses.fields(getattr(owner, name))
        return [(each.name, each.type, each.default, each.default_factory) for each in fields]

    assert facts(bootstrap) == facts(contract)


@pytest.mark.parametrize("version", VERSIONS)
def test_every_python_can_be_a_worker(bench: Bench, version: str) -> None:
    """A whole run goes well in environments of every Python that plugins may want."""
    python = _interpreter(version)
    if python is None:
        pytest.skip(f"no Python {version} on this machine")
    bench.python = python
    bench.plugin("echo", ECHO)
    bench.plugin("exact", EXACT, "eval")
    bench.plugin("page", REPORT, "report")
    text = "inference: [{plugin: echo, batch: 2}]\neval: [{plugin: exact}]\nreport: [{plugin: page}]"
    outcome = execute_run(bench.request(text))
    assert outcome.ok, outcome.problems
    assert outcome.tasks[0].versions["python"].startswith(f"{version}.")
    assert all(not Path(str(task.log)).read_text() for task in outcome.tasks)


def test_worker_sees_nothing_of_the_host(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither the host's modules nor its folders nor what leads Python astray reaches a plugin."""
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[2]))
    monkeypatch.setenv("VIRTUAL_ENV", "/elsewhere")
    found = _looked(bench)
    path, modules, variables = found["path"], found["modules"], found["variables"]
    assert isinstance(path, list)
    assert isinstance(modules, list)
    assert isinstance(variables, dict)
    assert not {"", str(Path(__file__).parents[2]), str(Path(bootstrap.__file__).parent)} & set(path)
    assert not {"pipeline", "envbuilder", "pydantic", "rich"} & {name.split(".")[0] for name in modules}
    assert "PYTHONPATH" not in variables
    assert variables["VIRTUAL_ENV"] == str(bench.root / "venv")
    assert variables["PATH"].startswith(str(bench.root / "venv" / "bin"))
    assert variables["PYTHONNOUSERSITE"] == "1"
    assert variables["CUDA_VISIBLE_DEVICES"] == ""
    assert variables["PYTHONPYCACHEPREFIX"] == str(bench.root / "pycache")
    assert not list(bench.root.glob("site/__pycache__"))


SPAWN = """
import multiprocessing
class Plugin:
    def load(self, context):
        pass
    def predict(self, batch):
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            return pool.map(about, batch)
def about(item):
    return item.id + " in " + str(multiprocessing.parent_process() is not None)
"""


def test_items_reach_processes_that_a_plugin_spawns(bench: Bench) -> None:
    """A spawned process, such as a data loader's, begins with the worker's own file, and so knows what an item is."""
    bench.plugin("spawn", SPAWN)
    outcome = execute_run(bench.request("inference: [{plugin: spawn, batch: 2}]"))
    assert outcome.ok, outcome.problems
    (journal,) = Path(outcome.paths["answers"]).glob("*.jsonl")
    answers = {line["item"]: line["answer"] for line in map(json.loads, journal.read_text().splitlines())}
    assert answers
    assert answers == {item: f"{item} in True" for item in answers}


def test_the_worker_is_compiled_once(bench: Bench) -> None:
    """What runs in each environment comes from its bytecode cache, as imported modules do."""
    _looked(bench)
    (compiled,) = bench.root.glob("pycache/**/bootstrap.*.pyc")
    before = compiled.stat()
    _looked(bench)
    after = compiled.stat()
    assert (after.st_ino, after.st_mtime_ns) == (before.st_ino, before.st_mtime_ns)


def test_context_holds_what_the_task_says(bench: Bench) -> None:
    """Parameters, device, seed, batch and cache folder reach the plugin."""
    found = _looked(bench, "inference: [{plugin: look, batch: 4, params: {beam: 2}}]\nseed: 7")
    assert found["context"] == {
        "params": "{'beam': 2}",
        "device": "cpu",
        "seed": "7",
        "batch": "4",
        "cache_dir": str(bench.root / "cache"),
        "output": "None",
    }


def test_seed_makes_chance_repeatable(bench: Bench) -> None:
    """Two runs of one seed draw the same numbers, another seed draws others."""
    first, again = (_looked(bench, "inference: [{plugin: look}]\nseed: 3")["chance"] for _ in range(2))
    assert first == again
    assert _looked(bench, "inference: [{plugin: look}]\nseed: 4")["chance"] != first


TORCH = """
from types import SimpleNamespace
__version__ = "9.9"
cuda = SimpleNamespace(is_available=lambda: False)
def manual_seed(seed):
    pass
"""


def test_gpu_that_torch_cannot_use_falls_back_to_the_processor(bench: Bench) -> None:
    """A slot with a GPU whose driver the environment's torch does not fit runs on the CPU, and says so."""
    gpu = {"index": 0, "uuid": "GPU-0", "name": "Some GPU", "total_bytes": 0, "free_bytes": 0}
    driver = bench.write("driver.json", json.dumps({"version": "1.0", "cuda": [12, 8], "gpus": [gpu]}))
    bench.plugin("torch", TORCH)
    bench.plugin("look", LOOK)
    request = bench.request("inference: [{plugin: look}]")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ENVBUILDER_NVML", str(driver))
        patch.delenv("CUDA_VISIBLE_DEVICES")
        fallen = execute_run(request).tasks[0]
        (bench.root / "site" / "torch.py").unlink()
        plain = execute_run(request).tasks[0]
    assert (fallen.device, plain.device) == ("cpu", "cuda")
    assert "torch 9.9 cannot use it" in fallen.notes[0]
    assert plain.device_name == "Some GPU"


def test_plain_makes_strict_json() -> None:
    """Numbers of other libraries become numbers, what is not finite None, what is foreign text."""

    class Scalar:
        def item(self) -> float:
            return 0.5

    class Array:
        def tolist(self) -> list[object]:
            return [1, float("inf")]

    value = {1: Scalar(), "b": Array(), "c": (True, None, Path("/x")), "d": float("nan")}
    assert bootstrap.plain(value) == {"1": 0.5, "b": [1, None], "c": [True, None, "/x"], "d": None}
