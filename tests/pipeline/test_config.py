from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from envbuilder.errors import ConfigError
from pipeline.config import read_run_file
from pipeline.config.load import load_run
from pipeline.config.runfile import parse_duration, parse_gpus

if TYPE_CHECKING:
    from pipeline_bench import Bench


@pytest.mark.parametrize(
    ("text", "seconds"), [("30s", 30), ("10m", 600), ("1h30m", 5400), ("500ms", 0.5), ("1.5h", 5400), ("2d", 172800)]
)
def test_durations_are_seconds(text: str, seconds: float) -> None:
    """A duration is a number with its unit, or several."""
    assert parse_duration(text) == seconds


@pytest.mark.parametrize("value", [30, "30", "0s", "-1s", "10 minutes", "", None, True, "1s x"])
def test_other_durations_are_refused(value: object) -> None:
    """Without a unit nobody knows what was meant."""
    with pytest.raises(ValueError, match="expected a duration"):
        parse_duration(value)


@pytest.mark.parametrize(("value", "number"), [("auto", None), (0, 0.0), (1, 1.0), (4, 4.0), (0.5, 0.5)])
def test_gpus_are_a_number_or_auto(value: object, number: float | None) -> None:
    """Whole GPUs, a part of one, or whatever there is."""
    assert parse_gpus(value) == number


@pytest.mark.parametrize("value", [-1, 1.5, True, "1", "all", None, float("nan"), float("inf")])
def test_other_gpus_are_refused(value: object) -> None:
    """One and a half GPUs are nothing that can be handed out."""
    with pytest.raises(ValueError, match="expected auto"):
        parse_gpus(value)


FULL = """
name: document-lines
data:
  lines: {path: lines.csv, columns: {id: id, question: question, answer: answer, class: class}}
inference:
  - {plugin: ocr-crnn, gpus: auto, batch: 16, params: {beam: 1}, timeout: 10m, item-timeout: 30s}
  - {plugin: ocr-rapid, gpus: 0}
eval:
  - {plugin: text-metrics, params: {metrics: [cer, wer]}}
report:
  - {plugin: html-report}
matrix: {}
repeat: 1
seed: 0
on-failure: continue
retries: 2
"""


def test_the_documented_example_is_read(bench: Bench) -> None:
    """The run file of the design page means what it says."""
    file = read_run_file(bench.write("run.yaml", FULL)).file
    first, second = file.inference
    assert (first.batch, first.timeout, first.item_timeout, first.gpus) == (16, 600, 30, None)
    assert (second.gpus, second.timeout, second.batch) == (0.0, None, 1)
    assert file.eval[0].params == {"metrics": ["cer", "wer"]}
    assert file.retries == 2


def test_everything_wrong_is_told_with_its_place(bench: Bench) -> None:
    """Every mistake of a run file is told at once, with line and column, and the nearest key that is known."""
    text = (
        FULL.replace("batch: 16", "bacth: 16").replace("timeout: 10m", "timeout: 10").replace("repeat: 1", "repeat: 0")
    )
    with pytest.raises(ConfigError) as caught:
        read_run_file(bench.write("run.yaml", text))
    told = {str(problem.where): problem for problem in caught.value.problems}
    assert set(told) == {"run.yaml:6:36", "run.yaml:6:66", "run.yaml:13:1"}
    assert "did you mean 'batch'?" in str(told["run.yaml:6:36"].hint)
    assert "expected a duration" in told["run.yaml:6:66"].message


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "required, not there"),
        ("seed: 1", "name: required"),
        ("[]", "expected a mapping"),
        ("name: ../x\ndata: {a: {path: b}}", "name: "),
        ("name: x\ndata: {}", "data: "),
        ("name: x\ndata: {a: {path: b}}\ninference: [{plugin: p, params: {when: 2020-01-01}}]", "JSON"),
        ("name: x\ndata: {a: {path: b}}\nmatrix: {params: {beam: []}}", "matrix.params.beam"),
        ("name: x\ndata: {a: {path: b}}\nretries: true", "retries"),
        ("name: x\ndata: {a: {path: 'C:\\data\\a.csv'}}", "data.a.path: expected a path with forward slashes"),
        ("name: x\ndata: {a: {path: data\\a.csv}}", "not one of Windows"),
    ],
)
def test_bad_run_files_are_refused(bench: Bench, text: str, told: str) -> None:
    """What the schema does not allow is refused with its key."""
    with pytest.raises(ConfigError) as caught:
        read_run_file(bench.write("run.yaml", text))
    assert any(told in problem.message for problem in caught.value.problems), caught.value.problems


def test_run_file_without_inference_is_refused(bench: Bench) -> None:
    """Without any inference task there is nothing to run."""
    with pytest.raises(ConfigError, match="nothing to run"):
        load_run(bench.run_file(""), {})


def test_unknown_plugins_are_told_where_none_is_ready(bench: Bench) -> None:
    """With no environment at all the message says so."""
    with pytest.raises(ConfigError, match="no plugin is ready"):
        load_run(bench.run_file("inference: [{plugin: x}]"), {})
