"""Looks whether what tasks used is still what it was when the run began: environments, code, images and weights."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from envbuilder.errors import counted
from pipeline.config import weight_files

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from pipeline.models import DataSet, Environment, Keeper, Plan, Task

# Inode, size and time of change in ns; None where there is no such file.
_Stamp = tuple[int, int, int] | None


class Touched(NamedTuple):
    """Why a result does not count: a code, and what changed, in words."""

    code: str
    text: str


class Proof:
    """What a run uses, as it was when this was made.

    Args:
        plan: what the run does.
        keeper: knows what environments were; None where nobody does.
        folder: what paths of weights are relative to.
    """

    def __init__(self, plan: Plan, keeper: Keeper | None, folder: Path) -> None:
        self._keeper = keeper
        self._images = {data.name: _images(data) for data in plan.data}
        names = {name for task in plan.tasks for name in task.weights}
        self._weights = {name: tuple(weight_files(folder / Path(name).expanduser())) for name in names}
        self._stamps = {
            path: _stamp(path) for paths in (*self._images.values(), *self._weights.values()) for path in paths
        }
        self._changed: dict[str, str] = {}
        self._answers: dict[str, tuple[Path, _Stamp]] = {}

    @property
    def is_whole(self) -> bool:
        """Whether environments can be looked at too."""
        return self._keeper is not None

    def keep(self, task: str, answers: Path) -> None:
        """Remember the answers of a task as they are now that it has ended."""
        self._answers[task] = answers, _stamp(answers)

    def rewritten(self) -> dict[str, Touched]:
        """The tasks whose answers were written to after they had ended."""
        return {
            task: Touched("inputs-touched", f"{path} was written to after the task had ended")
            for task, (path, stamp) in self._answers.items()
            if _stamp(path) != stamp
        }

    def of(self, tasks: Iterable[Task]) -> dict[str, Touched]:
        """What changed of what each task uses, by the task's id; what is as it was, is left out."""
        seen: dict[Path, _Stamp] = {}
        looked: set[str] = set()
        found = {}
        for task in tasks:
            reason = self._environment(task.environment, looked)
            if reason:
                found[task.id] = Touched("environment-touched", f"its environment changed meanwhile: {reason}")
            elif text := self._inputs(task, seen):
                found[task.id] = Touched("inputs-touched", text)
        return found

    def _environment(self, environment: Environment, looked: set[str]) -> str | None:
        """What changed of an environment; what did once, is not mended by being as it was again."""
        name = environment.plugin
        if self._keeper is not None and name not in looked and name not in self._changed:
            looked.add(name)
            if reason := self._keeper.changed(environment):
                self._changed[name] = reason
        return self._changed.get(name)

    def _inputs(self, task: Task, seen: dict[Path, _Stamp]) -> str | None:
        changed = []
        for path in self._files(task):
            if path not in seen:
                seen[path] = _stamp(path)
            if self._stamps[path] and seen[path] != self._stamps[path]:
                changed.append(path)
        if not changed:
            return None
        more = f", and {counted(len(changed) - 1, 'other file')}" if changed[1:] else ""
        how = "is gone" if seen[changed[0]] is None else "was written to meanwhile"
        return f"{changed[0]} {how}{more}"

    def _files(self, task: Task) -> Iterator[Path]:
        """The images and weights of a task that there were at the beginning; more of them change no result."""
        yield from self._images.get(task.data or "", ())
        for name in task.weights:
            yield from self._weights[name]


def _images(data: DataSet) -> tuple[Path, ...]:
    return tuple(dict.fromkeys(item.image for item in data.items if item.image))


def _stamp(path: Path) -> _Stamp:
    try:
        status = os.stat(path)  # noqa: PTH116 - there may be a hundred thousand of them
    except (OSError, ValueError):
        return None
    return status.st_ino, status.st_size, status.st_mtime_ns
