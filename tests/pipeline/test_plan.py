from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from envbuilder.documents import parse_yaml, validate
from envbuilder.errors import ConfigError
from pipeline.config import RunConfig, RunFile
from pipeline.identity import differences
from pipeline.models import Code, DataItem, DataSet, Environment, Plan, Stage
from pipeline.plan import make_plan

DATA = tuple(DataSet(name, Path(name), name * 3, (DataItem("1", ("x",)),)) for name in ("lines", "pages"))


def _environment(name: str, stage: Stage, key: str = "k") -> Environment:
    return Environment(name, stage, Path("/e"), Path("/e/bin/python"), key, Path("/c"), entry="m:C")


READY = (
    _environment("ocr", "inference"),
    _environment("vlm", "inference"),
    _environment("metrics", "eval"),
    _environment("html", "report"),
)


def _plan(text: str, data: tuple[DataSet, ...] = DATA[:1], ready: tuple[Environment, ...] = READY) -> Plan:
    sources = ", ".join(f"{each.name}: {{path: {each.name}.csv}}" for each in data)
    tree = parse_yaml(f"name: x\ndata: {{{sources}}}\n{text}", "run.yaml")
    return make_plan(RunConfig(Path("run.yaml"), validate(tree, RunFile), tree, data), ready)


def _ids(text: str, data: tuple[DataSet, ...] = DATA[:1]) -> list[str]:
    return [task.id for task in _plan(text, data).tasks]


def test_tasks_come_in_the_order_of_stages() -> None:
    """Inference first, then a judge for each inference task, then the report."""
    text = "report: [{plugin: html}]\neval: [{plugin: metrics}]\ninference: [{plugin: ocr}, {plugin: vlm}]"
    assert _ids(text) == ["ocr@lines", "vlm@lines", "metrics:ocr@lines", "metrics:vlm@lines", "html"]


def test_tasks_are_made_for_each_data_set_or_those_named() -> None:
    """All data sets by default, those that an entry names otherwise."""
    text = "inference: [{plugin: ocr}, {plugin: vlm, data: [pages]}]\neval: [{plugin: metrics, data: [lines]}]"
    assert _ids(text, DATA) == ["ocr@lines", "ocr@pages", "vlm@pages", "metrics:ocr@lines"]


def test_matrix_expands_every_task() -> None:
    """Parameters of the matrix multiply tasks; what a task sets beside them stands, and only what differs is in the id."""
    text = "inference: [{plugin: ocr}, {plugin: vlm, params: {top: 9}}]\nmatrix: {params: {beam: [1, 4], tone: [x]}}"
    plan = _plan(text)
    assert [task.id for task in plan.tasks] == [
        f"{plugin}[beam={beam}]@lines" for plugin in ("ocr", "vlm") for beam in (1, 4)
    ]
    assert plan.tasks[2].params == {"top": 9, "beam": 1, "tone": "x"}


@pytest.mark.parametrize(
    ("text", "where", "told"),
    [
        (
            "inference:\n- {plugin: ocr, params: {beam: 9}}\nmatrix: {params: {beam: [1, 4]}}",
            "run.yaml:4:26",
            "inference.0.params.beam: the parameter is set here, and matrix.params.beam at run.yaml:5:19 lists values",
        ),
        (
            "inference:\n- {plugin: ocr, params: {beam: 9}, matrix: {beam: [1, 4]}}",
            "run.yaml:4:26",
            "inference.0.matrix.beam at run.yaml:4:45 lists values",
        ),
        (
            "inference:\n- {plugin: ocr, matrix: {beam: [2, 3]}}\nmatrix: {params: {beam: [1, 4]}}",
            "run.yaml:4:26",
            "matrix.params.beam at run.yaml:5:19 lists values",
        ),
        (
            "inference: [{plugin: ocr}]\nmatrix: {params: {beam: [1, 4, 1.0]}}",
            "run.yaml:4:32",
            "first at run.yaml:4:26",
        ),
        ("inference: [{plugin: ocr, matrix: {beam: [a, a]}}]", "run.yaml:3:46", "first at run.yaml:3:43"),
    ],
)
def test_a_parameter_set_twice_is_refused_with_both_places(text: str, where: str, told: str) -> None:
    """Whichever two places set one parameter, none of them wins in silence."""
    with pytest.raises(ConfigError) as caught:
        _plan(text)
    (problem,) = caught.value.problems
    assert (problem.code, problem.where) == ("parameter-twice", where)
    assert told in problem.message
    assert str(problem.hint).startswith("${EDITOR:-vi} +")


def test_a_matrix_over_keys_of_a_task_is_refused() -> None:
    """`batch` in a matrix would be a parameter of the plugin, and change nothing of the run."""
    with pytest.raises(ConfigError) as caught:
        _plan("inference: [{plugin: ocr, matrix: {batch: [1, 8]}}]\nmatrix: {params: {timeout: [1m, 2m]}}")
    first, second = caught.value.problems
    assert "'timeout' is a key of the task" in first.message
    assert "{plugin: NAME, batch: 1}" in str(second.hint)


def test_a_plugin_of_the_matrix_that_stands_elsewhere_too_is_refused() -> None:
    """The remedy is to name it once."""
    with pytest.raises(ConfigError) as caught:
        _plan("inference: [{plugin: ocr}]\nmatrix: {plugin: [ocr]}")
    (problem,) = caught.value.problems
    assert problem.code == "duplicate-task"
    assert "name it under inference or in matrix.plugin, once" in str(problem.hint)


def test_matrix_of_plugins_and_an_entrys_own() -> None:
    """Plugins of the matrix are entries of their own; an entry may have a matrix for itself."""
    text = "inference: [{plugin: ocr, matrix: {beam: [1, 4]}}]\nmatrix: {plugin: [vlm]}"
    assert _ids(text) == ["ocr[beam=1]@lines", "ocr[beam=4]@lines", "vlm@lines"]


def test_variants_are_told_apart_by_what_differs() -> None:
    """Batch and GPUs tell variants apart as parameters do; long values become a digest."""
    text = "inference: [{plugin: ocr}, {plugin: ocr, batch: 8}]"
    assert _ids(text) == ["ocr[batch=1]@lines", "ocr[batch=8]@lines"]
    text = f"inference: [{{plugin: ocr, params: {{prompt: '{'long ' * 9}'}}}}, {{plugin: ocr}}]"
    first, second = _ids(text)
    assert len(first) < 40
    assert second == "ocr@lines"


def test_repetitions_are_counted() -> None:
    """A repeated task has its number in its id, and another identity."""
    plan = _plan("inference: [{plugin: ocr}]\nrepeat: 2")
    assert [task.id for task in plan.tasks] == ["ocr@lines#1", "ocr@lines#2"]
    assert plan.tasks[0].identity != plan.tasks[1].identity


def test_twins_are_refused_with_both_places() -> None:
    """Two entries that come to the same task are refused; an id of its own tells them apart."""
    text = "inference:\n- plugin: ocr\n- plugin: ocr\n"
    with pytest.raises(ConfigError) as caught:
        _plan(text)
    (problem,) = caught.value.problems
    assert (problem.code, problem.where) == ("duplicate-task", "run.yaml:5:3")
    assert "first at run.yaml:4:3" in problem.message
    assert _ids(text + "  id: again\n") == ["ocr@lines", "again@lines"]
    assert _ids("inference: [{plugin: ocr, data: [lines]}, {plugin: ocr, data: [pages]}]", DATA) == [
        "ocr@lines",
        "ocr@pages",
    ]


def test_identity_changes_with_what_the_result_depends_on() -> None:
    """Parameters, seed, data, environment, its variables, code and weights make another identity, each by its name."""
    text = "inference: [{plugin: ocr}]"
    first = _plan(text).tasks[0].identity
    assert _plan(text).tasks[0].identity == first
    ocr = READY[0]
    others = {
        "params.beam": _plan("inference: [{plugin: ocr, params: {beam: 2}}]"),
        "seed": _plan(text + "\nseed: 1"),
        "deterministic": _plan(text + "\ndeterministic: true"),
        "data": _plan(text, DATA[1:]),
        "environment": _plan(text, ready=(replace(ocr, key="other"),)),
        "env.MODE": _plan(text, ready=(replace(ocr, env={"MODE": "x"}),)),
        "code.packages/ocr/": _plan(text, ready=(replace(ocr, code={"packages/ocr": Code("1")}),)),
    }
    for name, plan in others.items():
        assert differences(_plan(text).tasks[0].parts, plan.tasks[0].parts) == (name,)
        assert plan.tasks[0].identity != first


@pytest.mark.parametrize("change", ["batch: 2", "timeout: 9s", "item-timeout: 9s", "gpus: 0"])
def test_identity_is_the_same_whatever_only_time_depends_on(change: str) -> None:
    """Batch, number of GPUs and time limits are no part of an identity, nor is where bytecode goes."""
    text = "inference: [{plugin: ocr}]"
    first = _plan(text).tasks[0].identity
    assert _plan(f"inference: [{{plugin: ocr, {change}}}]").tasks[0].identity == first
    assert _plan(text, ready=(replace(READY[0], pycache=Path("/elsewhere")),)).tasks[0].identity == first


def test_identity_of_a_judge_follows_what_it_judges() -> None:
    """Other answers make another judgement and another report."""
    text = "inference: [{plugin: ocr, params: {beam: %d}}]\neval: [{plugin: metrics}]\nreport: [{plugin: html}]"
    first, second = _plan(text % 1), _plan(text % 2)
    assert all(one.identity != other.identity for one, other in zip(first.tasks, second.tasks, strict=True))


@given(st.dictionaries(st.sampled_from("abcd"), st.lists(st.integers(0, 9), min_size=1, max_size=3, unique=True)))
def test_matrix_gives_every_combination_once(choices: dict[str, list[int]]) -> None:
    """However large the matrix, there is one task for each combination, each with an id of its own."""
    plan = _plan(f"inference: [{{plugin: ocr}}]\nmatrix: {{params: {choices!r}}}".replace("'", ""))
    count = 1
    for values in choices.values():
        count *= len(values)
    assert len({task.id for task in plan.tasks}) == len({task.identity for task in plan.tasks}) == count
