"""Why two runs differ: what each task of them depended on, and the figures side by side."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pipeline.cli.history import load_outcome
from pipeline.identity import differences
from pipeline.layout import find_run, read_json
from pipeline.models import Difference, Figures, RunsDiff, TaskResult

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from pipeline.models import RunOutcome

_OF_RUN = ("profile", "run_file", "seed", "jobs", "host", "variables")
# What depends on the moment, not on the answers.
_TIMES = frozenset({"items/s", "task items/s", "load s"})
# Told by name elsewhere, or the outcome of what is told.
_FOLLOWS = frozenset({"judged", "answers"})


def diff_runs(state_dir: Path, old: str, new: str) -> RunsDiff:
    """What differs between two runs.

    Args:
        state_dir: the workspace's state folder.
        old, new: the runs' ids, beginnings or ends of them, or ``latest``.

    Raises:
        UnknownRunError: there is none of that name.
        RecordError: a record is damaged or missing.
    """
    layouts = [find_run(state_dir, name) for name in (old, new)]
    before, after = (load_outcome(layout) for layout in layouts)
    documents = [read_json(layout.run_json) for layout in layouts]
    found = [Difference("", *change) for change in _of_runs(*documents)]
    states = [_checkouts(document) for document in documents]
    tasks = {"old": {task.id: task for task in before.tasks}, "new": {task.id: task for task in after.tasks}}
    for name in {**tasks["old"], **tasks["new"]}:
        one, other = tasks["old"].get(name), tasks["new"].get(name)
        if one is None or other is None:
            found.append(Difference(name, "task", one.status if one else "none", other.status if other else "none"))
        else:
            code = _pairs(*(state.get(one.plugin, {}) for state in states))
            found += [Difference(name, *change) for change in _of_tasks(one, other, code)]
    return RunsDiff(before.id, after.id, tuple(found), _figures(before, after))


def _of_runs(old: Mapping[str, object], new: Mapping[str, object]) -> list[tuple[str, str, str]]:
    found = []
    for name in _OF_RUN:
        one, other = old.get(name), new.get(name)
        if isinstance(one, dict) and isinstance(other, dict):
            found += [(f"{name}.{key}", *pair) for key, pair in _pairs(one, other).items()]
        elif one != other:
            found.append((name, str(one), str(other)))
    return found


def _checkouts(document: Mapping[str, object]) -> dict[str, dict[str, str]]:
    """The git state of each plugin's checkouts in a run's record: commit, and digest of what differed from it."""
    listed = document.get("environments")
    return {
        str(each.get("plugin")): {f"{path}/": _state(code) for path, code in each.get("code", {}).items()}
        for each in (listed if isinstance(listed, list) else [])
    }


def _state(code: Mapping[str, str | None]) -> str:
    commit, difference = code.get("commit"), code.get("difference")
    if commit is None:
        return f"no commit, {str(code.get('digest'))[:12]}"
    return commit[:12] + (f" and changes {difference[:12]}" if difference else "")


def _of_tasks(old: TaskResult, new: TaskResult, code: Mapping[str, tuple[str, str]]) -> list[tuple[str, str, str]]:
    found: list[tuple[str, str, str]] = [("status", old.status, new.status)] if old.status != new.status else []
    parts = [name for name in differences(old.identity_parts, new.identity_parts) if name not in _FOLLOWS]
    values: dict[str, Mapping[str, tuple[str, str]]] = {
        "code": code,
        "params": _pairs(old.params, new.params),
        "versions": _pairs(old.versions, new.versions),
    }
    for name in parts:
        kind, _, rest = name.partition(".")
        pair = values.get(kind, {}).get(rest) or _pairs(old.identity_parts, new.identity_parts)[name]
        found.append((name, *pair))
    # Of what is in an environment its name tells nothing.
    return found + [(f"versions.{name}", *pair) for name, pair in values["versions"].items()]


def _pairs(old: Mapping[str, object], new: Mapping[str, object]) -> dict[str, tuple[str, str]]:
    """What differs between two mappings: both values, as text."""
    names = [name for name in sorted({*old, *new}) if old.get(name) != new.get(name)]
    return {name: (str(old.get(name, "none")), str(new.get(name, "none"))) for name in names}


def _figures(old: RunOutcome, new: RunOutcome) -> tuple[Figures, ...]:
    sides = [_figures_of(outcome) for outcome in (old, new)]
    found = []
    for task in {**sides[0], **sides[1]}:
        before, after = (side.get(task, {}) for side in sides)
        measured = {outcome.id: each.reused for outcome in (old, new) for each in outcome.tasks if each.id == task}
        note = ", ".join(f"{run}: measured in {other}" for run, other in measured.items() if other)
        odd = [
            each for outcome in (old, new) for each in outcome.tasks if each.id == task and not each.speed_comparable
        ]
        note = ", ".join(filter(None, (note, "not comparable: degraded" if odd else "")))
        for name in {**before, **after}:
            remark = note if name in _TIMES else ""
            found.append(Figures(task, name, before.get(name), after.get(name), remark))
    return tuple(found)


def _figures_of(outcome: RunOutcome) -> dict[str, dict[str, float]]:
    """Every figure of a run by inference task and name; those of judges first, as they are what a run is for."""
    found: dict[str, dict[str, float]] = {task.id: {} for task in outcome.tasks if task.stage == "inference"}
    for each in outcome.evaluations:
        label = each.eval.removesuffix(f":{each.inference}")
        found.setdefault(each.inference, {}).update({f"{label}.{name}": value for name, value in each.overall.items()})
    for task in outcome.tasks:
        if task.stage == "inference":
            times = {"items/s": task.items_per_s, "task items/s": task.task_items_per_s, "load s": task.load_s}
            found[task.id]["failed items"] = task.failed_items
            found[task.id].update({name: value for name, value in times.items() if value is not None})
    return found
