"""A run's answers and figures as Parquet, read back by pyarrow itself."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING

import pyarrow.parquet
import pytest
from pipeline_bench import child_environment

from pipeline.cli import execute_run, export_parquet
from pipeline.errors import RecordError

if TYPE_CHECKING:
    from pathlib import Path

    from pipeline_bench import Bench

PICKY = """
from types import SimpleNamespace

class Plugin:
    def load(self, context):
        pass

    def predict(self, batch):
        if batch[0].id == "2":
            raise ValueError("no")
        if batch[0].id == "3":
            return ["\\ud83e"]
        return [SimpleNamespace(text="раз", extra={"confidence": 0.5})]
"""

WITHOUT_ARROW = """
import sys
from pathlib import Path

sys.modules["pyarrow"] = None
from envbuilder.errors import ToolError
from pipeline.cli import export_parquet

try:
    export_parquet(Path(sys.argv[1]))
except ToolError as error:
    print(error.message, "|", error.hint)
"""


def test_answers_and_figures_are_written_as_tables(bench: Bench) -> None:
    """Every answer is a row in the data set's order, failed ones with their error, and so is every figure."""
    bench.usual()
    bench.plugin("picky", PICKY)
    outcome = execute_run(bench.request("retries: 0\ninference: [{plugin: picky}]\neval: [{plugin: exact}]\n"))
    export = export_parquet(bench.state)
    assert [path.name for path in export.paths] == ["answers.parquet", "metrics.parquet"]
    answers = pyarrow.parquet.read_table(export.paths[0])
    assert str(answers.schema.field("references").type) == "list<element: string>"
    assert str(answers.schema.field("latency_s").type) == "double"
    one, two, three = answers.to_pylist()
    assert (one["item"], one["answer"], one["error"], one["references"], one["class"]) == (
        "1",
        "раз",
        None,
        ["one"],
        "a",
    )
    assert json.loads(one["extra"]) == {"confidence": 0.5}
    assert (one["run"], one["task"], one["plugin"], one["data"]) == (outcome.id, "picky@lines", "picky", "lines")
    assert (two["item"], two["answer"]) == ("2", None)
    assert "ValueError" in two["error"]
    assert three["answer"] == "\\ud83e"
    figures = pyarrow.parquet.read_table(export.paths[1]).to_pylist()
    assert {"task": "picky@lines", "class": "b", "metric": "exact", "value": 0.0}.items() <= figures[-1].items()
    assert export.problems == ()


def test_run_without_figures_has_one_table(bench: Bench, tmp_path: Path) -> None:
    """Where nothing was judged there are answers alone, in the folder that was asked for."""
    bench.usual()
    execute_run(bench.request("inference: [{plugin: echo}]\n"))
    export = export_parquet(bench.state, folder=tmp_path / "out")
    assert export.paths == (tmp_path / "out" / "answers.parquet",)
    assert [row["answer"] for row in pyarrow.parquet.read_table(export.paths[0]).to_pylist()] == ["one", "two", "three"]


def test_folder_that_cannot_be_written_is_an_error(bench: Bench, tmp_path: Path) -> None:
    """What stands in the way is named, with a command that shows it."""
    bench.usual()
    execute_run(bench.request("inference: [{plugin: echo}]\n"))
    (tmp_path / "file").write_text("")
    with pytest.raises(RecordError, match="cannot be written") as caught:
        export_parquet(bench.state, folder=tmp_path / "file")
    assert caught.value.hint == f"ls -ld {tmp_path / 'file'}"


def test_without_pyarrow_the_error_says_how_to_get_it(tmp_path: Path) -> None:
    """Pyarrow is an extra: without it the export says so, with the command that installs it into this very Python."""
    argv = [sys.executable, "-c", WITHOUT_ARROW, str(tmp_path)]
    done = subprocess.run(argv, env=child_environment(), capture_output=True, text=True, check=True)
    assert done.stdout == (
        "writing Parquet files needs pyarrow, which is not installed | "
        f"uv pip install --python {sys.executable} 'pyarrow>=17'\n"
    )
