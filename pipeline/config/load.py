"""Reads a run file with its data sets and tells everything that is wrong at once."""

from __future__ import annotations

import os
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from envbuilder.documents import Located, Path_, read_yaml, validate
from envbuilder.errors import ConfigError, Problem, nearest
from pipeline.config.datasets import read_data
from pipeline.config.params import check_matrix, check_values
from pipeline.config.problems import problem_at
from pipeline.config.runfile import RunFile
from pipeline.config.weights import Digests
from pipeline.models import STAGES, DataSet, Stage

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping


@dataclass(frozen=True)
class RunConfig:
    """A run file as read: its values, where each of them stands, its data sets and its weights' digests by path.

    The last two are there after `load_run`.
    """

    path: Path
    file: RunFile
    tree: Located
    data: tuple[DataSet, ...] = ()
    weights: Mapping[str, str] = field(default_factory=dict)


def shown(path: Path) -> str:
    """A path as messages name it: relative to the working folder where it is below it."""
    absolute = Path(os.path.abspath(path))  # noqa: PTH100 - a link keeps the name that people know it by.
    return str(absolute.relative_to(Path.cwd())) if absolute.is_relative_to(Path.cwd()) else str(absolute)


def read_run_file(path: Path) -> RunConfig:
    """Read a run file without its data.

    Raises:
        ConfigError: with one problem for each thing that is wrong.
    """
    tree = read_yaml(path, shown(path))
    file = validate(tree, RunFile)
    if problems := check_values(file, tree):
        raise ConfigError(problems)
    return RunConfig(path, file, tree)


def plugins_named(config: RunConfig) -> tuple[str, ...]:
    """Every plugin that a run file names, each once, in the order of stages."""
    return tuple(dict.fromkeys(name for _, name, _ in _mentions(config.file)))


def load_run(path: Path, known: Mapping[str, Stage], *, memo: Path | None = None) -> RunConfig:
    """Read a run file, its data sets and its weights.

    Args:
        path: the run file.
        known: the stage of every plugin there is.
        memo: the file to remember digests of weights in.

    Raises:
        ConfigError: with one problem for each thing that is wrong.
    """
    config = read_run_file(path)
    problems = check_plugins(config, known) + _check_data_names(config) + check_matrix(config.file, config.tree)
    if not (config.file.inference or config.file.matrix.plugin):
        text = "inference: nothing to run; name at least one inference plugin"
        problems.append(problem_at(config.tree.place(("inference",)), text))
    data = [_data_or_problems(config, name) for name in config.file.data]
    problems += [each for found in data if not isinstance(found, DataSet) for each in found]
    if problems:
        raise ConfigError(problems)
    sets = tuple(found for found in data if isinstance(found, DataSet))
    return replace(config, data=sets, weights=_weights(config, memo))


def _weights(config: RunConfig, memo: Path | None) -> dict[str, str]:
    """The digest of everything that inference entries name as weights."""
    digests = Digests(memo)
    found: dict[str, str] = {}
    problems = []
    for index, entry in enumerate(config.file.inference):
        for position, name in enumerate(entry.weights):
            try:
                found[name] = found.get(name) or digests.of(config.path.parent / Path(name).expanduser())
            except (OSError, RuntimeError) as error:
                reason = getattr(error, "strerror", None) or error
                place = config.tree.place(("inference", index, "weights", position))
                problems.append(problem_at(place, f"cannot read {name}: {reason}", code="weights-missing"))
    digests.save()
    if problems:
        raise ConfigError(problems)
    return found


def _data_or_problems(config: RunConfig, name: str) -> DataSet | tuple[Problem, ...]:
    try:
        place = config.tree.place(("data", name, "path"))
        return read_data(name, config.file.data[name], config.path.parent, place)
    except ConfigError as error:
        return error.problems


def check_plugins(config: RunConfig, known: Mapping[str, Stage]) -> list[Problem]:
    """Names of no plugin, and plugins at another stage than their own."""
    problems = []
    for path, name, stage in _mentions(config.file):
        place = config.tree.place(path)
        if name not in known:
            near = nearest(name, known, cutoff=0.5)
            text = f"unknown plugin {name!r}; expected one of {', '.join(sorted(known)) or 'none: no plugin is ready'}"
            remark = f"did you mean {near!r}?" if near else None
            problems.append(problem_at(place, text, code="unknown-plugin", entry=name, remark=remark))
        elif known[name] != stage:
            others = [plugin for plugin, its in known.items() if its == stage]
            text = f"plugin {name!r} serves the {known[name]} stage, found under {stage}"
            remark = f"{stage} plugins: {', '.join(sorted(others)) or 'none'}"
            problems.append(problem_at(place, text, code="wrong-stage", entry=name, remark=remark))
    return problems


def _mentions(file: RunFile) -> Iterator[tuple[Path_, str, Stage]]:
    for stage in STAGES:
        for index, entry in enumerate(getattr(file, stage)):
            yield (stage, index, "plugin"), entry.plugin, stage
        if stage == "inference":
            for index, name in enumerate(file.matrix.plugin):
                yield ("matrix", "plugin", index), name, stage


def _check_data_names(config: RunConfig) -> list[Problem]:
    problems = []
    wishes = [("inference", index, entry.data) for index, entry in enumerate(config.file.inference)]
    wishes += [("eval", index, entry.data) for index, entry in enumerate(config.file.eval)]
    for stage, index, names in wishes:
        for position, name in enumerate(names or ()):
            if name not in config.file.data:
                near = nearest(name, config.file.data, cutoff=0.5)
                text = f"unknown data set {name!r}; expected one of {', '.join(config.file.data)}"
                place = config.tree.place((stage, index, "data", position))
                remark = f"did you mean {near!r}?" if near else None
                problems.append(problem_at(place, text, code="unknown-data", remark=remark))
    return problems
