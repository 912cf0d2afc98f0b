"""What a task's result depends on, part by part and by name, so that two results can be told apart. Pure.

What changes nothing but speed is no part: batch, number of GPUs, time limits, and where things stand on disk. Two
parts are known only once a task has its slot (``device``) and once the task that it judges has ended (``answers``).
"""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING

from pipeline.redaction import HIDDEN, hidden, is_secret

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from pipeline.models import AnswerLine, DataItem, Task

# Changes when results of an earlier envbuilder must not be taken for today's.
_FORMAT = 1
_SHORT = 12


def canonical(value: object) -> str:
    """A value as JSON, the same for equal values."""
    return json.dumps(value, sort_keys=True, ensure_ascii=True)


def digest_of(value: object) -> str:
    """The digest of a plain value."""
    return hashlib.sha256(canonical(value).encode()).hexdigest()


def identity_of(parts: Mapping[str, str]) -> str:
    """The digest of all parts together."""
    return digest_of({"format": str(_FORMAT), **parts})


def planned_parts(task: Task, *, data: str = "", judged: Iterable[str] = ()) -> dict[str, str]:
    """The parts that are known before a task runs.

    Args:
        task: the task.
        data: digest of its data set; empty for a report.
        judged: identities of the tasks whose answers it works on.
    """
    environment = task.environment
    parts = {
        "environment": environment.key,
        "plugin": f"{environment.plugin} {environment.entry or canonical(list(environment.command or ()))}",
        "seed": str(task.seed),
        **{f"env.{name}": _short(name, value) for name, value in environment.env.items()},
        **{f"params.{name}": _short(name, value) for name, value in task.params.items()},
        # As folders: no name that ends like this one is taken for a secret's and hidden in the record.
        **{f"code.{name}/": code.digest for name, code in environment.code.items()},
    }
    if data:
        parts["data"] = data
    if task.wish.timing:  # What was measured beside other tasks is no timing.
        parts["timing"] = "true"
    if task.weights:
        parts["weights"] = digest_of(list(task.weights.values()))
    if task.stage == "inference":
        parts |= {"deterministic": str(task.deterministic).lower(), "repetition": str(task.repetition)}
    if known := list(judged):
        parts["judged"] = digest_of(known)
    return parts


def _short(name: str, value: object) -> str:
    """A value that may be long; who opens the door does not matter for what comes out, so secrets are no part."""
    return HIDDEN if is_secret(name) else digest_of(hidden(value))[:_SHORT]


def answers_digest(items: Iterable[DataItem], lines: Mapping[str, AnswerLine]) -> str:
    """The digest of what a judge gets to see of answers; which attempt gave them is no part of it."""
    found = ((item.id, lines.get(item.id)) for item in items)
    return digest_of([(name, line and [line.answer, line.error, line.latency_s]) for name, line in found])


def differences(before: Mapping[str, str], after: Mapping[str, str]) -> tuple[str, ...]:
    """The names of the parts in which two differ."""
    return tuple(sorted(name for name in {*before, *after} if before.get(name) != after.get(name)))


def changes(before: Mapping[str, object], after: Mapping[str, object]) -> tuple[str, ...]:
    """What differs between two mappings, each as ``name old → new``."""
    old, new = ({name: hidden({name: value}) for name, value in each.items()} for each in (before, after))
    differing = sorted(name for name in {*old, *new} if old.get(name) != new.get(name))
    shown = {name: [_brief(_only(each.get(name), name)) for each in (old, new)] for name in differing}
    return tuple(f"{name} {one} → {other}" for name, (one, other) in shown.items())


def _only(found: object, name: str) -> object:
    return found[name] if isinstance(found, dict) else None


def _brief(value: object, most: int = 40) -> str:
    text = "none" if value is None else value if isinstance(value, str) else canonical(value)
    return text if len(text) <= most else f"{text[: most - 1]}…"
