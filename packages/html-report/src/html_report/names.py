"""What models and devices are called."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence

from vlm_core import TaskDocument


def name_variants(tasks: Sequence[TaskDocument]) -> dict[str, str]:
    """Name each task by its plugin, with the parameters that tell it from the plugin's other tasks.

    Args:
        tasks: tasks of one stage.

    Returns:
        Task id to name, such as ``ocr-crnn`` or ``ocr-crnn (beam=4)``.
    """
    names = {}
    for task in tasks:
        siblings = [other["params"] for other in tasks if other["plugin"] == task["plugin"]]
        telling = [key for key in _keys(siblings) if len({_written(params, key) for params in siblings}) > 1]
        shown = ", ".join(f"{key}={_written(task['params'], key)}" for key in telling)
        names[task["id"]] = f"{task['plugin']} ({shown})" if shown else task["plugin"]
    return names


def name_models(tasks: Sequence[TaskDocument], repeated: Mapping[str, tuple[str, int]] | None = None) -> dict[str, str]:
    """Name inference tasks so that no two on one data set are called the same.

    Args:
        tasks: inference tasks.
        repeated: of each repetition, the task that comes first of its repetitions, and which number it is.

    Returns:
        Task id to name. The same model on two data sets has one name; repeated on one data set, it is numbered.
    """
    repeated = repeated or {}
    names = name_variants(tasks)
    firsts = [task for task in tasks if repeated.get(task["id"], ("", 1))[1] == 1]
    copies = Counter((names[task["id"]], task["data"]) for task in firsts)
    seen: Counter[tuple[str, str | None]] = Counter()
    for task in firsts:
        key = (names[task["id"]], task["data"])
        if copies[key] > 1:
            seen[key] += 1
            names[task["id"]] = f"{key[0]} #{seen[key]}"
    called = dict(names)
    for task_id, (first, number) in repeated.items():
        if task_id in names and first in names:
            called[task_id] = f"{names[first]} #{number}"
    return called


def name_device(task: TaskDocument) -> str:
    """Say what a task ran on: ``CPU``, or the GPU's name."""
    if task["device"] == "cpu":
        return "CPU"
    return task["device_name"] or f"{task['device']} device"


def _keys(params: Sequence[Mapping[str, object]]) -> list[str]:
    return sorted({key for mapping in params for key in mapping})


def _written(params: Mapping[str, object], key: str) -> str:
    if key not in params:
        return "default"
    value = params[key]
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, sort_keys=True, default=str)
