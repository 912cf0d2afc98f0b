"""What a run knows of a task beyond its figures: where it ran, what it used, how it was tried."""

from __future__ import annotations

from dataclasses import dataclass

from vlm_core import TaskDocument

from html_report.reading import counts, number, rows, table, text, texts
from html_report.text import NOTHING, figure, seconds

TAIL = 40
"""Last lines of a log that are shown."""


@dataclass(frozen=True)
class Badge:
    """A word beside a figure that says how it came about, and why in a sentence."""

    word: str
    why: str


@dataclass(frozen=True)
class Attempt:
    """One try at a task.

    Attributes:
        id: as the run names it, and its logs.
        status, code, error: how it ended.
        took: seconds of wall time, as text.
        remarks: exit status, kills for want of memory, odd messages.
    """

    id: str
    status: str
    code: str
    error: str
    took: str
    remarks: tuple[str, ...]


@dataclass(frozen=True)
class Facts:
    """What is known of a task; empty, or None, where the run did not tell.

    Attributes:
        code: what went wrong, finer than the status.
        slot: where it ran.
        warm: whether its worker had loaded the model for another task.
        reused: the run that the result was taken from.
        degraded: what was done less well than asked for, or otherwise.
        comparable: whether its speed compares with others'.
        of_card: whether its GPU memory is that of the whole card, whoever used it.
        measured: what the plugin measured itself, name and value.
        peak_ram, peak_gpu: bytes.
        cpu: seconds of CPU time.
        log, tail: the log to look into, and its last lines.
        attempts: the tries at it.
    """

    code: str
    slot: str
    warm: bool
    reused: str
    degraded: tuple[str, ...]
    comparable: bool
    of_card: bool
    measured: tuple[tuple[str, str], ...]
    peak_ram: float | None
    peak_gpu: float | None
    cpu: float | None
    log: str
    tail: str
    attempts: tuple[Attempt, ...]

    @property
    def badges(self) -> tuple[Badge, ...]:
        """Words for whoever compares figures."""
        found = []
        if self.reused:
            found.append(Badge("reused", f"Not done in this run: the result is that of run {self.reused}."))
        if self.warm:
            found.append(Badge("warm", "The worker had loaded the model for another task."))
        if self.degraded:
            found.append(
                Badge(
                    "degraded",
                    f"Done otherwise than asked for, so its speed compares with no other: {'; '.join(self.degraded)}",
                )
            )
        if len(self.attempts) > 1:
            found.append(Badge(f"{len(self.attempts)} attempts", "The first attempt did not go well."))
        return tuple(found)


def read_facts(task: TaskDocument) -> Facts:
    """Read what the document says of a task beyond the contract."""
    return Facts(
        code=text(task, "code"),
        slot=text(task, "slot"),
        warm=task.get("warm") is True,
        reused=text(task, "reused"),
        degraded=texts(task, "degraded"),
        comparable=task.get("speed_comparable") is not False and not texts(task, "degraded"),
        of_card=text(task, "gpu_memory_of") == "card",
        measured=tuple((name, _value(value)) for name, value in table(task, "metrics").items()),
        peak_ram=_most(task, "peak_ram_bytes", "peak_tree_bytes"),
        peak_gpu=_most(task, "peak_gpu_bytes", "peak_gpu_tree_bytes"),
        cpu=number(task, "cpu_s"),
        log=text(task, "log"),
        tail="\n".join(texts(task, "log_tail")[-TAIL:]),
        attempts=tuple(
            Attempt(
                text(each, "id"),
                text(each, "status"),
                text(each, "code"),
                text(each, "error"),
                seconds(number(each, "wall_s")),
                _remarks(each),
            )
            for each in rows(task, "attempts")
        ),
    )


def is_comparable(task: TaskDocument) -> bool:
    """Tell whether a task's speed compares with others': it ended well, and did what it was asked."""
    return task["status"] == "ok" and read_facts(task).comparable


def _most(task: TaskDocument, *names: str) -> float | None:
    found = [value for name in names if (value := number(task, name)) is not None]
    return max(found) if found else None


def _value(value: object) -> str:
    return figure(value) if isinstance(value, float) else f"{value:,}" if isinstance(value, int) else NOTHING


def _remarks(attempt: dict[str, object] | object) -> tuple[str, ...]:
    if not isinstance(attempt, dict):
        return ()
    remarks = []
    returncode = attempt.get("returncode")
    if isinstance(returncode, int) and returncode:
        remarks.append(f"signal {-returncode}" if returncode < 0 else f"exit status {returncode}")
    remarks += [f"killed for want of memory: {count} in the {where}" for where, count in counts(attempt, "oom_kills")]
    remarks += [f"odd messages: {count} {name}" for name, count in counts(attempt, "anomalies")]
    return tuple(remarks)
