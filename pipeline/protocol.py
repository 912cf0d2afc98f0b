"""The host's side of the protocol: what a worker is told, and how its messages are read.

A message is one line of JSON with ``v``, ``seq``, ``attempt`` and ``type``; the types and their fields:

* ``hello``: ``python``, ``pid``;
* ``heartbeat``: nothing else; the worker is alive, though it says nothing;
* ``loaded``: ``load_s`` (None for a command), ``warm``, ``device``, ``device_name``, ``versions``;
* ``started``: ``items``, the ids of the batch in work;
* ``answer``: ``item``, ``latency_s``, and ``answer`` with ``extra``, or ``error``;
* ``evaluation``: ``overall``, ``by_class``, ``by_item``, ``lower_is_better``;
* ``rendered``: ``path``;
* ``log``: ``text``;
* ``progress``: ``done``, ``total``, ``text``, of something other than items;
* ``metric``: ``name``, ``value``, a figure of the plugin's own;
* ``degraded``: ``text``, what was done less well than asked for; ``batch``, where it is that; ``parted`` and ``items``
  of a batch that was taken apart because it ``failed`` or was ``miscounted`` (0 items for a part of one that was);
* ``failed``: ``code``, ``status``, ``error``, and what ``done`` has;
* ``done``: ``peak_ram_bytes``, ``peak_gpu_bytes``, ``cpu_s``.
"""

from __future__ import annotations

import json
import time
from collections import Counter
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from pipeline.models import AnswerLine, DataItem, Environment, Task

VERSION = 1
_CHATTER = frozenset({"log", "progress", "metric"})
KINDS = _CHATTER | {
    "hello",
    "heartbeat",
    "loaded",
    "started",
    "answer",
    "degraded",
    "evaluation",
    "rendered",
    "failed",
    "done",
}
CONTEXT_VARIABLE = "ENVBUILDER_CONTEXT"

# The by-item figures of a large data set come as one line.
_LONGEST_LINE = 64 * 1024 * 1024
_HEARTBEAT_S = 5.0
# Of what a plugin may say as often as it likes, so much a second is heard.
_MOST_CHATTER = 200


@dataclass(frozen=True)
class Message:
    """One message; `body` holds the fields of its kind."""

    kind: str
    sequence: int
    body: Mapping[str, object]

    def text(self, name: str) -> str | None:
        """A field that is text, or None."""
        value = self.body.get(name)
        return value if isinstance(value, str) else None

    def number(self, name: str) -> float | None:
        """A field that is a number, or None."""
        value = self.body.get(name)
        return value if isinstance(value, int | float) and not isinstance(value, bool) else None


@dataclass
class Decoder:
    """Takes bytes as they come and gives the messages among them.

    What is no message of this attempt is dropped and counted in `anomalies`: ``torn`` (no JSON object), ``too-long``,
    ``stale`` (another attempt's), ``unknown`` (version or type), ``missing`` (numbers of the sequence that never came),
    ``flood`` (more remarks in a second than anybody reads).
    """

    attempt: str
    longest: int = _LONGEST_LINE
    anomalies: Counter[str] = field(default_factory=Counter)
    _rest: bytearray = field(default_factory=bytearray)
    _skipping: bool = False
    _sequence: int = 0
    _second: int = 0
    _heard: int = 0

    def feed(self, block: bytes) -> Iterator[Message]:
        """Messages that the block completes."""
        *ends, rest = block.split(b"\n")
        for end in ends:
            self._add(end)
            line, skipped = bytes(self._rest), self._skipping
            self._rest.clear()
            self._skipping = False
            message = None if skipped or not line.strip() else self._decode(line)
            if message is not None:
                yield message
        self._add(rest)

    def finish(self) -> None:
        """Count what is left without its end."""
        if bytes(self._rest).strip():
            self.anomalies["torn"] += 1

    def _add(self, piece: bytes) -> None:
        if self._skipping:
            return
        if len(self._rest) + len(piece) > self.longest:
            self.anomalies["too-long"] += 1
            self._skipping = True
            self._rest.clear()
        else:
            self._rest += piece

    def _decode(self, line: bytes) -> Message | None:
        try:
            body = json.loads(line)
        except (ValueError, RecursionError):
            body = None
        if not isinstance(body, dict):
            self.anomalies["torn"] += 1
            return None
        head = {name: body.pop(name, None) for name in ("v", "seq", "attempt", "type")}
        if head["attempt"] != self.attempt:
            self.anomalies["stale"] += 1
            return None
        kind, sequence = head["type"], head["seq"]
        if head["v"] != VERSION or not isinstance(kind, str) or kind not in KINDS or not isinstance(sequence, int):
            self.anomalies["unknown"] += 1
            return None
        if sequence > self._sequence + 1:
            self.anomalies["missing"] += sequence - self._sequence - 1
        self._sequence = max(self._sequence, sequence)
        if kind in _CHATTER and self._is_flooded():
            self.anomalies["flood"] += 1
            return None
        return Message(kind, sequence, body)

    def _is_flooded(self) -> bool:
        second = int(time.monotonic())
        self._heard = self._heard + 1 if second == self._second else 1
        self._second = second
        return self._heard > _MOST_CHATTER


# Python compiles a script each time that it is called; what it imports, once. The folder of `-c` is not for plugins.
_AS_SCRIPT = """\
import sys
sys.path[:] = filter(None, sys.path)
from importlib.machinery import SourceFileLoader
del sys.argv[0]
__file__ = sys.argv[0]
exec(SourceFileLoader("__main__", __file__).get_code("__main__"))
"""


def worker_argv(environment: Environment, *, protocol: int, jobs: int) -> tuple[str, ...]:
    """The command line of a worker; it writes messages to one descriptor and reads its jobs' paths from the other."""
    return (str(environment.python), "-u", "-s", *script("bootstrap.py", protocol, jobs))


def script(name: str, *arguments: int) -> tuple[str, ...]:
    """The words that have a Python run one of our files as if it were called by its path, but compiled only once."""
    return ("-c", _AS_SCRIPT, str(Path(__file__).with_name(name)), *map(str, arguments))


def job_document(task: Task, attempt: str, *, folder: Path, device: str, gpu_name: str = "") -> dict[str, object]:
    """What a worker reads from its context file, without what its stage works on.

    A plugin that is a ``command`` reads it too: it answers ``items`` into the file ``answers`` (a line of JSON each:
    ``item``, ``answer`` or ``error``, and anything else), judges ``records`` into the file ``evaluation`` (an object
    with ``overall`` and so on), or renders ``report`` into the file ``output``.
    """
    environment = task.environment
    return {
        "v": VERSION,
        "attempt": attempt,
        "task": task.id,
        "stage": task.stage,
        "plugin": environment.plugin,
        "entry": environment.entry,
        "command": list(environment.command) if environment.command else None,
        "params": dict(task.params),
        "device": device,
        "gpu_name": gpu_name,
        "seed": task.seed,
        "deterministic": task.deterministic,
        "batch": task.batch,
        "shares_gpu": bool(task.wish.gpus and task.wish.gpus % 1),
        "heartbeat_s": _HEARTBEAT_S,
        "cache_dir": str(environment.cache_dir),
        "output": None,
        "answers": str(folder / "answers.jsonl"),
        "evaluation": str(folder / "evaluation.json"),
    }


def item_document(item: DataItem) -> dict[str, object]:
    """An item as a plugin sees it."""
    return {
        "id": item.id,
        "image": str(item.image) if item.image else None,
        "question": item.question,
        "doc_class": item.doc_class,
        "question_type": item.question_type,
        "fields": dict(item.fields),
    }


def record_documents(items: Sequence[DataItem], answers: Mapping[str, AnswerLine]) -> list[dict[str, object]]:
    """Items with their references and answers, as an eval plugin sees them."""
    documents: list[dict[str, object]] = []
    for item in items:
        line = answers.get(item.id)
        facts = asdict(line) if line else {"error": "no-answer: none was written"}
        judged = {name: facts.get(name) for name in ("answer", "error", "latency_s")}
        documents.append({"item": item_document(item), "references": list(item.references), **judged})
    return documents
