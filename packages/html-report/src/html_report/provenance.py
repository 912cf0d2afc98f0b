"""What made each figure: tasks with their environments, code, data, parameters and devices."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from vlm_core import ReportDocument, TaskDocument

from html_report.facts import read_facts
from html_report.names import name_device
from html_report.reading import Document, rows, table, text, texts
from html_report.text import seconds, size

SHORT = 12
"""Characters of a digest that tell it from others at a glance; all of them stand in the list of origins."""


@dataclass(frozen=True)
class Origin:
    """A task, as that which made figures.

    Attributes:
        ref: how figures refer to it, such as ``T3``.
        anchor: where it stands on the page.
        task: the task.
        brief: what made the figures, in a line.
        facts: the same at length, term by term.
    """

    ref: str
    anchor: str
    task: TaskDocument
    brief: str
    facts: tuple[tuple[str, str], ...]


Origins = Mapping[str, Origin]


def read_origins(report: ReportDocument) -> Origins:
    """Number the tasks, and put together what made the figures of each."""
    return {
        task["id"]: Origin(f"T{number}", f"made-{number}", task, _brief(task), tuple(_facts(task)))
        for number, task in enumerate(report["tasks"], 1)
    }


def explain(origins: Origins, tasks: Iterable[str]) -> str:
    """Say in a line for each task what made a figure."""
    return "\n".join(f"{origins[task].ref}: {origins[task].brief}" for task in tasks if task in origins)


def _brief(task: TaskDocument) -> str:
    made_by = table(task, "provenance")
    attempts = texts(made_by, "attempts")
    reused = read_facts(task).reused
    words = [
        task["id"],
        f"reused from run {reused}" if reused else f"attempt {attempts[-1]}" if attempts else "",
        f"environment {task['environment']}" if task["environment"] else "",
        _code(made_by, short=True),
        f"data {_cut(digest)}" if (digest := text(table(made_by, "data"), "digest")) else "",
        name_device(task),
    ]
    return ", ".join(word for word in words if word)


def _facts(task: TaskDocument) -> Iterable[tuple[str, str]]:
    made_by, facts = table(task, "provenance"), read_facts(task)
    data = table(made_by, "data")
    told = {
        "Reused from": f"run {facts.reused}" if facts.reused else "",
        "Judged": text(made_by, "judged"),
        "Attempts": ", ".join(texts(made_by, "attempts")),
        "Environment": task["environment"],
        "Lock": text(made_by, "lock_digest"),
        "Code": _code(made_by, short=False),
        "Checkouts": "; ".join(f"{path} {_checkout(found)}" for path, found in table(made_by, "code").items()),
        "Data": " ".join(filter(None, (text(data, "name") or task["data"] or "", text(data, "digest")))),
        "Weights": "; ".join(f"{name} {digest}" for name, digest in table(made_by, "weights").items()),
        "Parameters": ", ".join(f"{name}: {_written(value)}" for name, value in task["params"].items()),
        "Batch": _plain(made_by.get("batch")),
        "Seed": _plain(made_by.get("seed")) + (", deterministic" if made_by.get("deterministic") is True else ""),
        "Device": name_device(task) + (f", slot {facts.slot}" if facts.slot else ""),
        "Worker": "warm: the model was loaded for another task" if facts.warm else "",
        "Degraded": "; ".join(facts.degraded),
        "CPU time": seconds(facts.cpu) if facts.cpu is not None else "",
        "Peak RAM": size(facts.peak_ram) if facts.peak_ram is not None else "",
        "Peak GPU memory": size(facts.peak_gpu) if facts.peak_gpu is not None else "",
        "Measured": ", ".join(f"{name} {value}" for name, value in facts.measured),
        "Identity": text(made_by, "identity"),
    }
    return ((term, value) for term, value in told.items() if value)


def _code(made_by: Document, *, short: bool) -> str:
    """Say what release or place the plugin's code is from."""
    pin, source = table(made_by, "pin"), table(made_by, "source")
    commit, path = text(pin, "commit"), text(source, "path")
    words = [
        "" if short else text(source, "url"),
        text(source, "ref") if text(source, "ref_kind") != "rev" else "",
        f"commit {_cut(commit) if short else commit}" if commit else "",
        text(source, "specifier"),
        f"checkout {path}" if path else "",
    ]
    return " ".join(word for word in words if word)


def _cut(digest: str) -> str:
    return digest.removeprefix("sha256:")[:SHORT]


def _checkout(found: object, cut: Callable[[str], str] = str) -> str:
    facts = found if isinstance(found, dict) else {}
    commit, difference, files = (cut(text(facts, name)) for name in ("commit", "difference", "digest"))
    words = [f"at {commit}" if commit else "in no repository"]
    words += [f"edited, difference {difference}"] if difference else []
    words += [f"files {files}"] if files and not (commit and difference) else []
    return ", ".join(words)


@dataclass(frozen=True)
class Checkout:
    """A checkout that a dev run took code from, with its state in git in words."""

    path: str
    state: str


def checkouts(report: ReportDocument) -> list[Checkout]:
    """List the checkouts that the run took code from."""
    return [Checkout(path, _checkout(found, _cut)) for path, found in table(report["run"], "code").items()]


def repeated(report: ReportDocument) -> dict[str, tuple[str, int]]:
    """Say of each task that is one of several repetitions which comes first of them, and which number it is."""
    groups = [texts(group, "tasks") for group in rows(report, "repetitions")]
    return {task: (group[0], number) for group in groups for number, task in enumerate(group, 1) if len(group) > 1}


def _written(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, sort_keys=True, default=str)


def _plain(value: object) -> str:
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else ""
