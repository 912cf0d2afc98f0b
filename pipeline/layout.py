"""Where everything of a run stands on disk, and how it gets there whole."""

from __future__ import annotations

import contextlib
import csv
import errno
import glob
import hashlib
import io
import itertools
import json
import os
import re
import secrets
import shlex
import threading
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import TYPE_CHECKING, NamedTuple

from envbuilder import fs
from pipeline.errors import EnvironmentsError, RecordError, UnknownRunError
from pipeline.models import (
    AnswerLine,
    DataSet,
    Environment,
    answer_line_from_json,
    environments_from_json,
    environments_to_json,
)
from pipeline.redaction import clean, clean_fields

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

# What a worker reads, in its attempt's folder.
CONTEXT_NAME = "context.json"

_UNSAFE = re.compile(r"[^A-Za-z0-9._=@,+-]+")
_LONGEST_NAME = 100
# How a cell begins that a spreadsheet computes, with the wide forms of East Asian keyboards.
_FORMULA = re.compile("[=+\\-@\t\r\n\uff1d\uff0b\uff0d\uff20]")
_SIGNED = re.compile(r"[+-](?:(?:\d+(?:[., ]\d+)*[.,]?|[.,]\d+)(?:[eE][+-]?\d+)?\s?%?)?")
_RUN_ID = re.compile(r"(\d{8}T\d{6}Z)-(.+)-([0-9a-z]+)")


def safe_name(text: str) -> str:
    """A file name for a task id: itself where that is harmless, else a likeness with a digest that keeps it unique."""
    likeness = _UNSAFE.sub("-", text).strip("-.")
    if likeness == text and len(text) <= _LONGEST_NAME:
        return text
    return f"{likeness[:_LONGEST_NAME]}-{hashlib.sha256(text.encode()).hexdigest()[:6]}"


def new_run_id(name: str, now: datetime) -> str:
    """A run id: ``20260102T030405Z-<name>-<suffix>``; the suffix tells the part of the second, and the rest is random."""
    suffix = f"{now.microsecond * 256 // 1_000_000:02x}{secrets.token_hex(2)}"
    return f"{now.astimezone(timezone.utc):%Y%m%dT%H%M%SZ}-{safe_name(name)}-{suffix}"


def parse_run_id(run_id: str) -> tuple[str, str]:
    """A run's name, as far as its id keeps it, and when it was started; both empty where it is no run's id."""
    found = _RUN_ID.fullmatch(run_id)
    if not found:
        return "", ""
    with contextlib.suppress(ValueError):
        return found[2], f"{datetime.strptime(found[1], '%Y%m%dT%H%M%S%z'):%Y-%m-%dT%H:%M:%SZ}"
    return found[2], ""


def now() -> str:
    """The time, in UTC, as ISO 8601."""
    return datetime.now(timezone.utc).isoformat(timespec="milliseconds").replace("+00:00", "Z")


class RunLayout:
    """The paths of one run: ``<state>/runs/<id>/``."""

    def __init__(self, state_dir: Path, run_id: str) -> None:
        self.id = run_id
        self.runs = state_dir.absolute() / "runs"
        self.root = self.runs / run_id

    @property
    def run_json(self) -> Path:
        return self.root / "run.json"

    @property
    def events(self) -> Path:
        return self.root / "events.jsonl"

    @property
    def environments(self) -> Path:
        return self.root / "environments.json"

    @property
    def run_file(self) -> Path:
        """The run file as it was when the run began."""
        return self.root / "run.yaml"

    @property
    def answers_dir(self) -> Path:
        return self.root / "answers"

    @property
    def metrics_dir(self) -> Path:
        return self.root / "metrics"

    @property
    def metrics_csv(self) -> Path:
        return self.metrics_dir / "metrics.csv"

    @property
    def logs_dir(self) -> Path:
        return self.root / "logs"

    @property
    def export_dir(self) -> Path:
        return self.root / "export"

    @property
    def lock(self) -> Path:
        """Held by the runner for as long as it lives."""
        return self.root / ".lock"

    @property
    def latest(self) -> Path:
        return self.runs / "latest"

    def items(self, data: str) -> Path:
        """The ids of a data set's items, in its order."""
        return self.root / "items" / f"{safe_name(data)}.json"

    def answers(self, task: str) -> Path:
        return self.answers_dir / f"{safe_name(task)}.jsonl"

    def metrics(self, task: str) -> Path:
        return self.metrics_dir / f"{safe_name(task)}.json"

    def attempt_id(self, task: str, number: int) -> str:
        return f"{safe_name(task)}.{number}"

    def attempt_dir(self, attempt: str) -> Path:
        """The working folder of an attempt, with its context file."""
        return self.root / "attempts" / attempt

    def output_dir(self, attempt: str) -> Path:
        """Where an attempt puts what is taken from files: no other attempt can write there."""
        return self.root / "outputs" / attempt

    def last_attempt(self, task: str) -> int:
        """The number of a task's latest attempt; 0 where there was none."""
        found = self.attempt_dir("").glob(f"{glob.escape(safe_name(task))}.*")
        numbers = (path.name.rpartition(".")[2] for path in found)
        return max((int(number) for number in numbers if number.isdigit()), default=0)

    def stdout(self, attempt: str) -> Path:
        return self.logs_dir / f"{attempt}.out.log"

    def stderr(self, attempt: str) -> Path:
        return self.logs_dir / f"{attempt}.err.log"

    def report(self, task: str, *, only: bool) -> Path:
        """Where a report task writes; several of them get files of their own."""
        return self.root / ("report.html" if only else f"report-{safe_name(task)}.html")

    def create(self) -> None:
        """Make the folders, and let ``latest`` point here.

        Raises:
            OSError: the state folder cannot be written.
        """
        self.root.mkdir(parents=True)
        self.make_folders()
        fs.swing(self.latest, self.id)

    def make_folders(self) -> None:
        """Make those of the run's folders that are not there: also ones that were removed since.

        Raises:
            RecordError: something else stands in the place of one.
            OSError: the state folder cannot be written.
        """
        for folder in (self.answers_dir, self.metrics_dir, self.logs_dir, self.root / "items", self.attempt_dir("")):
            try:
                folder.mkdir(exist_ok=True)
            except FileExistsError as error:
                text = f"run {self.id}: expected a folder, found a file"
                hint = f"mv {shlex.quote(str(folder))} {shlex.quote(f'{folder}.found')} && envbuilder resume {self.id}"
                raise RecordError(text, where=str(folder), hint=hint) from error

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Hold the run's lock, by which others see that its runner lives.

        Raises:
            BlockingIOError: another holds it.
        """
        with fs.held_by_nobody(self.lock) as free:
            if not free:
                raise BlockingIOError(errno.EWOULDBLOCK, "another runner is at it", str(self.lock))
            yield

    def is_held(self) -> bool:
        """Whether a runner works on this run now."""
        return fs.is_locked(self.lock)

    def sweep(self) -> None:
        """Remove what a killed runner left half written."""
        fs.sweep(self.root, self.answers_dir, self.metrics_dir, self.logs_dir, self.root / "items")


def plain_bytes(text: str) -> bytes:
    """Text as UTF-8: a lone surrogate, which JSON can spell but UTF-8 cannot, becomes the escape that JSON spells."""
    return text.encode("utf-8", "backslashreplace")


def write_text(path: Path, text: str) -> None:
    """Write a file whole or not at all."""
    fs.replace_file(path, plain_bytes(text))


def write_json(path: Path, document: object) -> None:
    """Write a JSON file whole or not at all, without secrets."""
    write_text(path, json.dumps(clean(document), indent=2, ensure_ascii=False) + "\n")


def write_context(path: Path, document: object) -> None:
    """Write what a worker reads: for its eyes, with all that is in it, and for no longer than the attempt."""
    path.unlink(missing_ok=True)  # Who has an old one open, or made it with another mode, shall not read the new one.
    with open(path, "xb", opener=lambda name, flags: os.open(name, flags, 0o600)) as stream:
        stream.write(json.dumps(document, ensure_ascii=False).encode("utf-8", "backslashreplace"))


def remove_contexts(state_dir: Path) -> None:
    """Remove what workers were to read in runs whose runner is gone, and its supervisors with it."""
    for run_id in run_ids(state_dir):
        layout = RunLayout(state_dir, run_id)
        left = list(layout.attempt_dir("").glob(f"*/{CONTEXT_NAME}"))
        if left and not layout.is_held():
            for path in left:
                path.unlink(missing_ok=True)


def sweep_runs(state_dir: Path) -> None:
    """Remove what killed runners left half written; what living ones write stays."""
    for run_id in run_ids(state_dir):
        RunLayout(state_dir, run_id).sweep()


def read_json(path: Path) -> dict[str, object]:
    """Read a JSON object.

    Raises:
        RecordError: it is not there, or is none.
    """
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise RecordError(f"cannot be read: {error}", where=str(path), hint="envbuilder runs list") from error
    if not isinstance(document, dict):
        found = type(document).__name__
        raise RecordError(f"expected an object, found {found}", where=str(path), hint="envbuilder runs list")
    return document


def write_environments(path: Path, environments: Iterable[Environment]) -> None:
    """Write environments as a file of schema ``envbuilder/environments/1``."""
    write_json(path, environments_to_json(environments))


def read_environments(path: Path) -> tuple[Environment, ...]:
    """Read what `write_environments` wrote.

    Raises:
        EnvironmentsError: it is not there, or is no such file.
    """
    try:
        return environments_from_json(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError) as error:
        raise EnvironmentsError(f"cannot be read: {error}", where=str(path), hint="envbuilder build") from error


class Journal:
    """A file of JSON lines that grows; every line is out of our hands when `append` returns."""

    def __init__(self, path: Path, *, timed: bool = False) -> None:
        is_torn = _is_torn(path)
        self._stream = path.open("ab")
        if is_torn:
            self._stream.write(b"\n")
        self._timed = timed
        self._guard = threading.Lock()

    def append(self, document: Mapping[str, object]) -> None:
        if self._timed:
            document = {"time": now(), **clean_fields(document)}
        line = json.dumps(document, ensure_ascii=False).encode("utf-8", "backslashreplace") + b"\n"
        with self._guard:
            self._stream.write(line)
            self._stream.flush()

    def close(self) -> None:
        """Have the disk take it all: the record, which is saved next, relies on it."""
        with self._stream:
            fs.sync(self._stream)


def _is_torn(path: Path) -> bool:
    """Whether a file ends within a line, as whoever was killed while writing it leaves it."""
    with contextlib.suppress(FileNotFoundError), path.open("rb") as stream:
        if stream.seek(0, os.SEEK_END):
            stream.seek(-1, os.SEEK_END)
            return stream.read() != b"\n"
    return False


@dataclass(frozen=True)
class AnswersFound:
    """What is in a task's journal.

    Attributes:
        path: the journal.
        lines: the last line of each item, answered or failed.
        damaged: lines that are torn, no answer or another task's.
        is_missing: there is no journal.
    """

    path: Path
    lines: Mapping[str, AnswerLine]
    damaged: int = 0
    is_missing: bool = False

    @property
    def answered(self) -> int:
        """Items that have an answer."""
        return sum(line.answer is not None for line in self.lines.values())


def find_answers(path: Path) -> AnswersFound:
    """Read a task's journal; what is torn, no answer or another task's is passed over and counted."""
    answers: dict[str, AnswerLine] = {}
    tasks: set[str] = set()
    damaged = 0
    try:
        stream = path.open("rb")
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
        return AnswersFound(path, {}, is_missing=True)
    with stream:
        for line in stream:
            try:
                answer = answer_line_from_json(json.loads(line))
            except (ValueError, AttributeError):
                damaged += 1
                continue
            if answer.task not in tasks and safe_name(answer.task) != path.stem:
                damaged += 1
                continue
            tasks.add(answer.task)
            answers[answer.item] = answer
    return AnswersFound(path, answers, damaged)


def read_answers(path: Path) -> Mapping[str, AnswerLine]:
    """The answers of a task by item."""
    return find_answers(path).lines


def items_document(data: DataSet) -> dict[str, object]:
    """What is kept of a data set's items in their order: ids, acceptable answers, classes."""
    return {
        "items": [item.id for item in data.items],
        "references": [list(item.references) for item in data.items],
        "classes": [item.doc_class for item in data.items],
    }


class KeptItem(NamedTuple):
    """What was kept of an item; runs of earlier versions kept the ids alone."""

    references: tuple[str, ...] = ()
    doc_class: str = ""


def read_items(path: Path) -> dict[str, KeptItem]:
    """What was kept of a data set's items, by id in their order; nothing where there is no such file."""
    try:
        kept = read_json(path)
    except RecordError:
        return {}
    ids, references, classes = (_listed(kept.get(name)) for name in ("items", "references", "classes"))
    facts = itertools.zip_longest(map(str, ids), references[: len(ids)], classes[: len(ids)])
    return {item: KeptItem(tuple(map(str, _listed(texts))), str(name or "")) for item, texts, name in facts}


def _listed(value: object) -> list[object]:
    return value if isinstance(value, list) else []


def csv_text(
    header: Sequence[str], rows: Iterable[Sequence[object]], *, delimiter: str = ",", raw: bool = False
) -> str:
    """A table as CSV with plain line ends; a cell that a spreadsheet would take for a formula begins with an apostrophe.

    Args:
        header: names of the columns.
        rows: cells; text is looked at, numbers are not.
        delimiter: between cells.
        raw: whether cells stay as they are.
    """
    out = io.StringIO()
    writer = csv.writer(out, delimiter=delimiter, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(rows if raw else ([harmless_cell(cell) for cell in row] for row in rows))
    return out.getvalue()


def harmless_cell(cell: object) -> object:
    """A cell that no spreadsheet computes: text that it would take for a formula gets an apostrophe, as it would by hand.

    Numbers with a sign, and a sign alone, are no formulas.
    """
    is_formula = isinstance(cell, str) and _FORMULA.match(cell) and not _SIGNED.fullmatch(cell)
    return f"'{cell}" if is_formula else cell


def run_ids(state_dir: Path) -> list[str]:
    """Every run's id, the oldest first, whether its record can be read or not."""
    runs = state_dir / "runs"
    if not runs.is_dir():
        return []
    found = (_RUN_ID.fullmatch(each.name) for each in runs.iterdir() if each.is_dir())
    return [each[0] for each in sorted(filter(None, found), key=lambda each: (each[1], each[3]))]


def find_run(state_dir: Path, name: str | None = None) -> RunLayout:
    """A run by its id, the beginning of its id, or the end of it; the latest for None or ``latest``.

    Raises:
        UnknownRunError: there is none, or more than one.
    """
    ids = run_ids(state_dir)
    found = ids[-1:] if name in (None, "latest") else [each for each in ids if each == name]
    if not found and name:
        found = [each for each in ids if each.startswith(name) or each.endswith(f"-{name}")]
    if len(found) == 1:
        return RunLayout(state_dir, found[0])
    where = str(state_dir / "runs")
    if found:
        some = f"{', '.join(reversed(found[-3:]))}{', …' if found[3:] else ''}"
        text = f"{name!r} is the beginning or end of {len(found)} runs: {some}; expected a whole id, or more of it"
        raise UnknownRunError(text, hint=f"envbuilder runs show {found[-1]}", where=where)
    what = f"no run {name!r}; there are {len(ids)}" if name else "no run yet"
    raise UnknownRunError(what, hint="envbuilder runs list", where=where)
