from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING

import pytest

from envbuilder.errors import ConfigError
from pipeline.config import read_run_file
from pipeline.config.load import load_run
from pipeline.config.runfile import parse_duration, parse_gpus, parse_size

if TYPE_CHECKING:
    from pipeline_bench import Bench


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("30s", 30),
        ("10m", 600),
        ("1h30m", 5400),
        ("500ms", 0.5),
        ("1.5h", 5400),
        ("2d", 172800),
        ("10 min", 600),
        ("2 hours", 7200),
        ("1h 30 minutes", 5400),
    ],
)
def test_durations_are_seconds(text: str, seconds: float) -> None:
    """A duration is a number with its unit, or several."""
    assert parse_duration(text) == seconds


@pytest.mark.parametrize("value", [30, "30", "0s", "-1s", "10 months", "10 mis", "", None, True, "1s x"])
def test_other_durations_are_refused(value: object) -> None:
    """Without a unit nobody knows what was meant."""
    with pytest.raises(ValueError, match="expected a duration"):
        parse_duration(value)


@pytest.mark.parametrize(
    ("value", "number"), [("auto", None), ("1", 1.0), (" 0.5", 0.5), (0, 0.0), (1, 1.0), (4, 4.0), (0.5, 0.5)]
)
def test_gpus_are_a_number_or_auto(value: object, number: float | None) -> None:
    """Whole GPUs, a part of one, or whatever there is."""
    assert parse_gpus(value) == number


@pytest.mark.parametrize("value", [-1, 1.5, "1.5", True, "all", None, float("nan"), float("inf")])
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


@pytest.mark.parametrize(
    ("value", "told", "instead"),
    [
        (".nan", "found .nan, which JSON does not have", "null"),
        ("[1, -.inf]", "found -.inf", "null"),
        ("1.0e+999", "found 1.0e+999, which JSON does not have", "null"),
        ("on", "found on, which YAML takes for true", '"on"'),
        ("{a: No}", "found No, which YAML takes for false", "false"),
        ("1:30", "found 1:30, which YAML takes for the number 90", '"1:30"'),
        ("010", "found 010, which YAML takes for the octal number 8", '"010"'),
        ("1e-3", "found 1e-3, which YAML takes for text", "1.0e-3"),
        ("5E6", "found 5E6, which YAML takes for text", "5.0e+6"),
    ],
)
def test_parameters_that_mean_something_else_are_refused(bench: Bench, value: str, told: str, instead: str) -> None:
    """A value that YAML takes for another one is told with its place, and what the hint says in its place is read."""
    text = "name: x\ndata: {a: {path: b}}\ninference:\n- plugin: p\n  params: {beam: %s}\n"
    path = bench.write("run.yaml", text % value)
    with pytest.raises(ConfigError) as caught:
        read_run_file(path)
    (problem,) = caught.value.problems
    assert told in problem.message
    assert str(problem.where).startswith("run.yaml:5:")
    assert instead in str(problem.hint)
    read_run_file(bench.write("run.yaml", text % instead))


def test_parameters_keep_what_is_written(bench: Bench) -> None:
    """Plain numbers, booleans, nothing and text in quotes reach the plugin as they stand there."""
    text = (
        "{a: 1, b: 1.0, c: true, d: null, e: '010', f: \"1e-3\", g: 1.0e-3, h: 99999999999999999999999, i: 0, j: 'on'}"
    )
    path = bench.write("run.yaml", f"name: x\ndata: {{a: {{path: b}}}}\ninference: [{{plugin: p, params: {text}}}]")
    params = read_run_file(path).file.inference[0].params
    assert list(params.values()) == [1, 1.0, True, None, "010", "1e-3", 0.001, 99999999999999999999999, 0, "on"]
    assert list(map(type, params.values()))[:3] == [int, float, bool]


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("60GB", 60 * 10**9),
        ("60 GiB", 60 * 2**30),
        ("60G", 60 * 2**30),
        ("500MB", 500 * 10**6),
        ("16gb", 16 * 10**9),
        ("1.5T", 3 * 2**39),
    ],
)
def test_sizes_have_the_units_that_people_write(text: str, size: int) -> None:
    """G and GiB are powers of 1024, GB is one of 1000."""
    assert parse_size(text) == size


@pytest.mark.parametrize("value", [16, "16", "0G", "-1G", "16 Gbit", "16X", "", None, True])
def test_other_sizes_are_refused(value: object) -> None:
    """Without a unit nobody knows what was meant."""
    with pytest.raises(ValueError, match="expected a size"):
        parse_size(value)


def test_numbers_in_quotes_are_numbers(bench: Bench) -> None:
    """Templates quote what they fill in; other text is no number."""
    text = 'name: x\ndata: {a: {path: b}}\nretries: "2"\ninference: [{plugin: p, batch: "16", gpus: "1", vram: 60GB}]'
    file = read_run_file(bench.write("run.yaml", text)).file
    assert (file.retries, file.inference[0].batch, file.inference[0].gpus) == (2, 16, 1.0)
    with pytest.raises(ConfigError, match=r"inference\.0\.batch"):
        read_run_file(bench.write("run.yaml", text.replace('"16"', "sixteen")))


def test_a_run_file_may_begin_with_a_byte_order_mark(bench: Bench) -> None:
    """Editors of Windows write one before UTF-8."""
    assert read_run_file(bench.write("run.yaml", "\ufeffname: x\ndata: {a: {path: b}}")).file.name == "x"


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "cp1251"])
def test_a_run_file_in_another_encoding_is_told_with_the_command_that_mends_it(bench: Bench, encoding: str) -> None:
    """UTF-16, with its mark or without, is named, and the hint makes the file one that is read."""
    path = bench.write("run.yaml", "")
    path.write_bytes("name: x\ndata: {a: {path: да.csv}}\n".encode(encoding))
    with pytest.raises(ConfigError) as caught:
        read_run_file(path)
    (problem,) = caught.value.problems
    assert "not UTF-8" in problem.message
    assert encoding.startswith("cp") or "UTF-16" in problem.message
    subprocess.run(("sh", "-c", str(problem.hint)), check=True)
    assert read_run_file(path).file.data["a"].path == "да.csv"


def test_run_file_without_inference_is_refused(bench: Bench) -> None:
    """Without any inference task there is nothing to run."""
    with pytest.raises(ConfigError, match="nothing to run"):
        load_run(bench.run_file(""), {})


def test_unknown_plugins_are_told_where_none_is_ready(bench: Bench) -> None:
    """With no environment at all the message says so."""
    with pytest.raises(ConfigError, match="no plugin is ready"):
        load_run(bench.run_file("inference: [{plugin: x}]"), {})
