"""Turns a run file, data sets and environments into tasks. Pure."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from envbuilder.errors import ConfigError, Problem
from pipeline.config.params import check_matrix
from pipeline.config.problems import problem_at
from pipeline.config.runfile import EvalEntry, InferenceEntry, TaskEntry
from pipeline.identity import canonical, identity_of, planned_parts
from pipeline.models import DataSet, Environment, Plan, Task, Wish
from pipeline.redaction import is_secret

if TYPE_CHECKING:
    from envbuilder.documents import Path_
    from pipeline.config import RunConfig, RunFile

Params = Mapping[str, object]

_LONGEST_VALUE = 24


@dataclass(frozen=True)
class _Variant:
    """One entry with one choice of parameters; `path` is where it stands in the run file."""

    entry: TaskEntry
    params: Params
    path: Path_
    suffix: str = ""

    @property
    def label(self) -> str:
        return self.entry.id or self.entry.plugin

    @property
    def settings(self) -> Params:
        """What can tell two variants of one plugin apart."""
        batch = self.entry.batch if isinstance(self.entry, InferenceEntry) else 1
        gpus = "auto" if self.entry.gpus is None else self.entry.gpus
        return {"batch": batch, "gpus": gpus, **self.params}


def make_plan(config: RunConfig, environments: Sequence[Environment]) -> Plan:
    """The tasks of a run, in the order in which they run.

    Args:
        config: the run file with its data sets, as `load_run` gives it.
        environments: one for each plugin that the run file names.

    Raises:
        ConfigError: two tasks would have one id, or two places set one parameter.
    """
    if problems := check_matrix(config.file, config.tree):
        raise ConfigError(problems)
    ready = {environment.plugin: environment for environment in environments}
    file = config.file
    inference = _named([*_inference(file)])
    evals = _named(_plain("eval", file.eval))
    reports = _named(_plain("report", file.report))
    _refuse_twins(config, (*inference, *evals, *reports))
    tasks = [task for variant in inference for task in _inference_tasks(variant, ready, config)]
    tasks += [task for variant in evals for task in _eval_tasks(variant, ready, tuple(tasks), config)]
    judged = tuple(task.identity for task in tasks)
    tasks += [_report_task(variant, ready, judged, file) for variant in reports]
    stop = file.on_failure == "stop"
    return Plan(file.name, file.seed, stop, file.retries, file.gpu_wait, config.data, tuple(tasks))


def _inference(file: RunFile) -> Iterator[_Variant]:
    entries: list[tuple[InferenceEntry, Path_]] = [(each, ("inference", i)) for i, each in enumerate(file.inference)]
    entries += [(InferenceEntry(plugin=name), ("matrix", "plugin", i)) for i, name in enumerate(file.matrix.plugin)]
    for entry, path in entries:
        choices = {**file.matrix.params, **entry.matrix}
        for values in itertools.product(*choices.values()):
            yield _Variant(entry, {**entry.params, **dict(zip(choices, values, strict=True))}, path)


def _plain(stage: str, entries: Sequence[TaskEntry]) -> list[_Variant]:
    return [_Variant(entry, entry.params, (stage, index)) for index, entry in enumerate(entries)]


def _named(variants: Sequence[_Variant]) -> list[_Variant]:
    """Give each variant of one plugin a suffix with the settings in which they differ."""
    groups: dict[str, list[_Variant]] = {}
    for variant in variants:
        groups.setdefault(variant.label, []).append(variant)
    return [replace(variant, suffix=_suffix(variant, groups[variant.label])) for variant in variants]


def _suffix(variant: _Variant, group: Sequence[_Variant]) -> str:
    told = []
    for name in dict.fromkeys(name for each in group for name in each.settings):
        shown = {canonical(each.settings[name]) if name in each.settings else None for each in group}
        if len(shown) > 1 and name in variant.settings:
            told.append(f"{name}={_shown(name, variant, group)}")
    return f"[{','.join(told)}]" if told else ""


def _shown(name: str, variant: _Variant, group: Sequence[_Variant]) -> str:
    """A setting in a task's id; a secret by its place among those of the group."""
    value = variant.settings[name]
    if not is_secret(name):
        return _brief(value)
    secrets = list(dict.fromkeys(canonical(each.settings[name]) for each in group if name in each.settings))
    return f"hidden-{secrets.index(canonical(value)) + 1}"


def _brief(value: object) -> str:
    text = value if isinstance(value, str) else f"{value:g}" if isinstance(value, float) else canonical(value)
    if len(text) <= _LONGEST_VALUE and text.isprintable() and not set(text) & set("[]@:"):
        return text
    return hashlib.sha256(text.encode()).hexdigest()[:8]


def _refuse_twins(config: RunConfig, variants: Sequence[_Variant]) -> None:
    first: dict[tuple[object, ...], _Variant] = {}
    problems: list[Problem] = []
    for variant in variants:
        entry = variant.entry
        names = entry.data if isinstance(entry, InferenceEntry | EvalEntry) else None
        for data in names if names is not None else config.file.data:
            key = (str(variant.path[0]).replace("matrix", "inference"), variant.label + variant.suffix, data)
            other = first.setdefault(key, variant)
            if other is not variant:
                place = config.tree.place(variant.path)
                text = f"task {key[1]!r} stands here again; first at {config.tree.place(other.path)}"
                remark = "give one of them an id: of its own"
                if "matrix" in (variant.path[0], other.path[0]):
                    remark = "name it under inference or in matrix.plugin, once"
                problems.append(problem_at(place, text, code="duplicate-task", entry=entry.plugin, remark=remark))
                break
    if problems:
        raise ConfigError(problems)


def _inference_tasks(variant: _Variant, ready: Mapping[str, Environment], config: RunConfig) -> Iterator[Task]:
    entry = variant.entry
    if not isinstance(entry, InferenceEntry):
        raise TypeError(entry)
    wanted = [data for data in config.data if entry.data is None or data.name in entry.data]
    for data, repetition in itertools.product(wanted, range(1, config.file.repeat + 1)):
        again = f"#{repetition}" if config.file.repeat > 1 else ""
        task = Task(
            id=f"{variant.label}{variant.suffix}@{data.name}{again}",
            stage="inference",
            environment=ready[entry.plugin],
            params=variant.params,
            data=data.name,
            wish=_wish(entry),
            batch=entry.batch,
            timeout_s=entry.timeout,
            item_timeout_s=entry.item_timeout,
            silence_s=entry.heartbeat_timeout,
            seed=config.file.seed,
            deterministic=config.file.deterministic,
            repetition=repetition,
            weights={path: config.weights[path] for path in entry.weights},
        )
        yield _identified(task, data=data.digest)


def _wish(entry: TaskEntry) -> Wish:
    timing = isinstance(entry, InferenceEntry) and entry.timing
    return Wish(entry.gpus, entry.vram or 0, timing, entry.gpu_ids == "index")


def _eval_tasks(
    variant: _Variant, ready: Mapping[str, Environment], inference: Sequence[Task], config: RunConfig
) -> Iterator[Task]:
    entry = variant.entry
    digests = {data.name: data.digest for data in config.data}
    names = entry.data if isinstance(entry, EvalEntry) else None
    for judged in inference:
        if names is None or judged.data in names:
            task = Task(
                id=f"{variant.label}{variant.suffix}:{judged.id}",
                stage="eval",
                environment=ready[entry.plugin],
                params=variant.params,
                data=judged.data,
                inference=judged.id,
                wish=_wish(entry),
                timeout_s=entry.timeout,
                silence_s=entry.heartbeat_timeout,
                seed=config.file.seed,
            )
            yield _identified(task, data=digests[judged.data or ""], judged=(judged.identity,))


def _report_task(variant: _Variant, ready: Mapping[str, Environment], judged: Sequence[str], file: RunFile) -> Task:
    entry = variant.entry
    task = Task(
        id=f"{variant.label}{variant.suffix}",
        stage="report",
        environment=ready[entry.plugin],
        params=variant.params,
        wish=_wish(entry),
        timeout_s=entry.timeout,
        silence_s=entry.heartbeat_timeout,
        seed=file.seed,
    )
    return _identified(task, judged=judged)


def _identified(task: Task, *, data: str = "", judged: Iterable[str] = ()) -> Task:
    parts = planned_parts(task, data=data, judged=judged)
    return replace(task, parts=parts, identity=identity_of(parts))


def data_of(plan: Plan, task: Task) -> DataSet:
    """The data set of an inference or eval task.

    Raises:
        LookupError: a report has none.
    """
    data = plan.data_set(task.data)
    if data is None:
        raise LookupError(task.id)
    return data
