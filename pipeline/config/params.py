"""Looks at parameters: that each has one value, and that it is the one that whoever wrote the file meant."""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING

from pipeline.config.problems import problem_at
from pipeline.config.runfile import InferenceEntry, RunFile
from pipeline.identity import canonical
from pipeline.redaction import is_secret

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from envbuilder.documents import Located, Path_, Place
    from envbuilder.errors import Problem

# YAML 1.1, which is what is read, and YAML 1.2, which many have in mind, differ in these.
_SCIENTIFIC = re.compile(r"[-+]?(?:\d+(?:\.\d*)?|\.\d+)[eE][-+]?\d+")
_OCTAL = re.compile(r"[-+]?0\d+")
_TASK_KEYS = frozenset(info.alias or name for name, info in InferenceEntry.model_fields.items()) - {"params"}


def check_values(file: RunFile, tree: Located) -> list[Problem]:
    """Parameters whose value is another than what stands there, or none that reaches a plugin."""
    problems = []
    for path, value in _parameters(file):
        for inner, each in _leaves(value, path):
            place = tree.place(inner)
            text, remark = _misread(each, place)
            if text and is_secret(str(inner[-1])):
                text, remark = "YAML takes it for another value; expected it in quotes", "put it in quotes"
            if text:
                problems.append(problem_at(place, f"{_name(inner)}: {text}", remark=remark))
    return problems


def _parameters(file: RunFile) -> Iterator[tuple[Path_, object]]:
    for stage, entries in (("inference", file.inference), ("eval", file.eval), ("report", file.report)):
        for index, entry in enumerate(entries):
            yield (stage, index, "params"), entry.params
            if isinstance(entry, InferenceEntry):
                yield (stage, index, "matrix"), entry.matrix
    yield ("matrix", "params"), file.matrix.params


def _leaves(value: object, path: Path_) -> Iterator[tuple[Path_, object]]:
    if isinstance(value, dict):
        for key, each in value.items():
            yield from _leaves(each, (*path, key))
    elif isinstance(value, list):
        for index, each in enumerate(value):
            yield from _leaves(each, (*path, index))
    else:
        yield path, value


def _name(path: Path_) -> str:
    return ".".join(map(str, path))


def _misread(value: object, place: Place) -> tuple[str, str]:
    """What is wrong with a value, and what to write instead; both empty where nothing is."""
    written = place.text
    if isinstance(value, bool):
        if written.lower() in {"true", "false"} or not written:
            return "", ""
        text = f"found {written}, which YAML takes for {str(value).lower()}; expected true, false, or text in quotes"
        return text, f'{str(value).lower()}, or "{written}"'
    if isinstance(value, int | float):
        return _misread_number(value, written)
    if isinstance(value, str) and place.plain and _SCIENTIFIC.fullmatch(written):
        text = f"found {written}, which YAML takes for text; expected a number with a point and a sign, or quotes"
        return text, _pointed(written)
    return "", ""


def _misread_number(value: float, written: str) -> tuple[str, str]:
    if not math.isfinite(value):
        return f"found {written or value}, which JSON does not have; expected a number that is finite, or null", "null"
    if ":" in written:
        text = f"found {written}, which YAML takes for the number {value}; expected a number, or text in quotes"
        return text, f'"{written}"'
    if isinstance(value, int) and _OCTAL.fullmatch(written):
        text = f"found {written}, which YAML takes for the octal number {value}; expected no zero in front, or quotes"
        return text, f'"{written}"'
    return "", ""


def _pointed(written: str) -> str:
    """A number in scientific notation as YAML 1.1 knows it: 1e-3 is written 1.0e-3."""
    mantissa, _, exponent = written.lower().partition("e")
    mantissa = mantissa if "." in mantissa else f"{mantissa}.0"
    return f"{mantissa}e{exponent if exponent[0] in '+-' else '+' + exponent}"


def check_matrix(file: RunFile, tree: Located) -> list[Problem]:
    """Parameters that a matrix varies and another place sets, values that stand twice, and keys of tasks."""
    whole: Path_ = ("matrix", "params")
    problems = [*_check_choices(file.matrix.params, whole, tree)]
    for index, entry in enumerate(file.inference):
        own: Path_ = ("inference", index)
        problems += _check_choices(entry.matrix, (*own, "matrix"), tree)
        for name in entry.params:
            if name in entry.matrix:
                problems.append(_twice(tree, (*own, "params", name), (*own, "matrix", name), entry.plugin))
            if name in file.matrix.params:
                problems.append(_twice(tree, (*own, "params", name), (*whole, name), entry.plugin))
        problems += [
            _twice(tree, (*own, "matrix", name), (*whole, name), entry.plugin)
            for name in entry.matrix
            if name in file.matrix.params
        ]
    return problems


def _twice(tree: Located, one: Path_, other: Path_, plugin: str) -> Problem:
    text = (
        f"{_name(one)}: the parameter is set here, and {_name(other)} at {tree.place(other)} lists values for it; "
        "expected one of the two"
    )
    remark = "leave it out here, or list its values in the matrix of each task that they are for"
    return problem_at(tree.place(one), text, code="parameter-twice", entry=plugin, remark=remark)


def _check_choices(choices: Mapping[str, Sequence[object]], path: Path_, tree: Located) -> Iterator[Problem]:
    for name, values in choices.items():
        if name in _TASK_KEYS:
            text = f"{_name((*path, name))}: {name!r} is a key of the task, found among parameters of the plugin"
            remark = f"name the plugin once for each value: {{plugin: NAME, {name}: {canonical(values[0])}}}"
            yield problem_at(tree.place((*path, name)), text, remark=remark)
        first: dict[str, int] = {}
        for index, value in enumerate(values):
            key = canonical(int(value) if isinstance(value, float) and value.is_integer() else value)
            if first.setdefault(key, index) != index:
                before = tree.place((*path, name, first[key]))
                text = f"{_name((*path, name))}: the same value stands here again; first at {before}"
                remark = "leave one of them out; repeat: is for doing the same several times"
                yield problem_at(tree.place((*path, name, index)), text, code="parameter-twice", remark=remark)
