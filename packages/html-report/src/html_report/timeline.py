"""When what ran where, and what it used: places on a page, in parts of its width and height."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from vlm_core import ReportDocument

from html_report.reading import Document, number, rows, text
from html_report.text import parse_moment, seconds, size

OTHER = "#8a929c"
"""The colour of whatever is no model: judges and reports."""

LEAST = 0.3
"""The least width of a bar in percent: what took a moment is to be seen, too."""

LABEL_PX = 900
"""Pixels that the drawing is wide where a label is given room."""

STEPS_S = (
    0.01,
    0.02,
    0.05,
    0.1,
    0.2,
    0.5,
    1,
    2,
    5,
    10,
    15,
    30,
    60,
    120,
    300,
    600,
    900,
    1800,
    3600,
    7200,
    14400,
    28800,
    86400,
)
TICKS = 8


@dataclass(frozen=True)
class Who:
    """Whose attempts a task's are: how they are labelled, by which model, in which colour."""

    label: str
    model: str
    colour: str


@dataclass(frozen=True)
class Bar:
    """An attempt.

    Attributes:
        x, width, load: places in percent of the width; `load` is the part from `x` on that went into loading.
        lane: which of its slot's lines it is on, from 0.
        colour: its model's.
        label: what is written in it; empty where there is no room.
        told: what it was, in a line.
        ok: whether it ended well.
        cells: the same for a table: attempt, slot, begin, duration, loading, outcome.
    """

    x: float
    width: float
    load: float
    lane: int
    colour: str
    label: str
    told: str
    ok: bool
    cells: tuple[str, ...]


@dataclass(frozen=True)
class Lane:
    """A slot with its bars, on as many lines as ran at once."""

    slot: str
    lines: int
    bars: tuple[Bar, ...]


@dataclass(frozen=True)
class Curve:
    """What an attempt used over time, as the points of a line in a drawing of 1000 by 100."""

    colour: str
    points: str
    told: str


@dataclass(frozen=True)
class Plot:
    """Curves over the same time as the bars; `ticks` are heights in percent from above, with their names."""

    title: str
    summary: str
    curves: tuple[Curve, ...]
    ticks: tuple[tuple[float, str], ...]


@dataclass(frozen=True)
class Session:
    """From when the run was begun, or gone on with, to when it ended or was interrupted.

    Attributes:
        begin: in words.
        ticks: places in percent, with the time since the begin.
        lanes: slots.
        plots: what was used meanwhile.
        legend: colours, with what they stand for.
        summary: all of it in words.
    """

    begin: str
    ticks: tuple[tuple[float, str], ...]
    lanes: tuple[Lane, ...]
    plots: tuple[Plot, ...]
    legend: tuple[tuple[str, str], ...]
    summary: str


@dataclass(frozen=True)
class _Span:
    row: Document
    start: datetime
    end: datetime


def read_sessions(report: ReportDocument, known: Mapping[str, Who]) -> list[Session]:
    """Lay out the timeline of a run, session by session; none where the document has no timeline.

    Args:
        report: the document.
        known: tasks by their ids; others have their ids for labels, and the colour `OTHER`.
    """
    spans: dict[int, list[_Span]] = {}
    for row in rows(report, "timeline"):
        start, end = parse_moment(text(row, "start")), parse_moment(text(row, "end"))
        if start and end and start <= end:
            spans.setdefault(round(number(row, "session") or 0), []).append(_Span(row, start, end))
    used = rows(report, "samples")
    return [_Canvas(spans[session], known).draw(_of(used, session)) for session in sorted(spans)]


def _of(used: Iterable[Document], session: int) -> list[Document]:
    return [each for each in used if round(number(each, "session") or 0) == session]


class _Canvas:
    """Knows where a time is."""

    def __init__(self, spans: Sequence[_Span], known: Mapping[str, Who]) -> None:
        self._spans = sorted(spans, key=lambda span: span.start)
        self._begin = self._spans[0].start
        self._length_s = max((max(span.end for span in spans) - self._begin).total_seconds(), 0.001)
        self._known = known

    def draw(self, used: Sequence[Document]) -> Session:
        lanes = tuple(self._lane(slot) for slot in dict.fromkeys(text(span.row, "slot") for span in self._spans))
        bars = [bar for lane in lanes for bar in lane.bars]
        legend = {(who.colour, who.model): None for who in (self._who(text(span.row, "task")) for span in self._spans)}
        return Session(
            begin=self._begin.strftime("%Y-%m-%d %H:%M:%S UTC"),
            ticks=tuple(self._ticks()),
            lanes=lanes,
            plots=tuple(plot for plot in (self._plot("Memory", 1, used), self._plot("GPU memory", 2, used)) if plot),
            legend=tuple(legend),
            summary=f"Timeline of {len(bars)} attempts in {len(lanes)} slots: {'; '.join(bar.told for bar in bars[:20])}",
        )

    def _who(self, task: str) -> Who:
        return self._known.get(task) or Who(task, "other stages", OTHER)

    def _x(self, moment: datetime) -> float:
        return (moment - self._begin).total_seconds() / self._length_s * 100

    def _ticks(self) -> Iterable[tuple[float, str]]:
        step = next((each for each in STEPS_S if self._length_s / each <= TICKS), STEPS_S[-1])
        for count in range(math.floor(self._length_s / step) + 1):
            place = count * step / self._length_s * 100
            if place <= 96 or not count:  # noqa: PLR2004 - a label further right has no room
                yield round(place, 3), _clock(count * step)

    def _lane(self, slot: str) -> Lane:
        bars, free = [], [self._begin - timedelta(seconds=1)]
        for span in self._spans:
            if text(span.row, "slot") == slot:
                line = next((line for line, until in enumerate(free) if until <= span.start), len(free))
                free[line : line + 1] = [span.end]
                bars.append(self._bar(span, line))
        return Lane(slot or "–", len(free), tuple(bars))

    def _bar(self, span: _Span, line: int) -> Bar:
        row, took_s = span.row, (span.end - span.start).total_seconds()
        task, status, code = (text(row, name) for name in ("task", "status", "code"))
        load_s = number(row, "load_s")
        width = max(self._x(span.end) - self._x(span.start), LEAST)
        outcome = status if status == "ok" or not code or code == status else f"{status} ({code})"
        who = self._who(task)
        name = who.label if status == "ok" else f"✕ {who.label}"
        begin = _clock((span.start - self._begin).total_seconds())
        loading = f", loading {seconds(load_s)}" if load_s is not None else ""
        return Bar(
            x=round(min(self._x(span.start), 100 - LEAST), 3),
            width=round(width, 3),
            load=round(min(load_s or 0.0, took_s) / self._length_s * 100, 3),
            lane=line,
            colour=who.colour,
            label=next((each for each in (name, name[:1] if status != "ok" else "") if _fits(each, width)), ""),
            told=f"{task}, attempt {text(row, 'attempt')}: from {begin}, took {seconds(took_s)}{loading}, {outcome}",
            ok=status == "ok",
            cells=(task, text(row, "attempt"), text(row, "slot"), begin, seconds(took_s), seconds(load_s), outcome),
        )

    def _plot(self, title: str, column: int, used: Sequence[Document]) -> Plot | None:
        found = []
        for row in used:
            start, points = parse_moment(text(row, "start")), _points(row, column)
            if start and points:
                found.append((row, (start - self._begin).total_seconds(), points))
        if not found:
            return None
        top, ticks = _scale(max(value for _, _, points in found for _, value in points))
        curves, told = [], []
        for row, since_s, points in found:
            task, peak = text(row, "task"), max(value for _, value in points)
            told.append(f"{task} at most {size(peak)}")
            places = ((since_s + after_s, value) for after_s, value in points)
            line = " ".join(f"{x / self._length_s * 1000:.1f},{100 - y / top * 100:.2f}" for x, y in places)
            # A single look is a short line, or it would not be seen.
            line += f" {min((since_s + points[-1][0]) / self._length_s * 1000 + 4, 1000):.1f},{line.rpartition(',')[2]}"
            curves.append(Curve(self._who(task).colour, line, told[-1]))
        return Plot(title, f"{title} over time: {'; '.join(told[:20])}", tuple(curves), ticks)


def _points(row: Document, column: int) -> list[tuple[float, float]]:
    points = row.get("points")
    found = []
    for point in points if isinstance(points, list) else ():
        if isinstance(point, list) and len(point) > column:
            after_s, value = point[0], point[column]
            if isinstance(after_s, (int, float)) and isinstance(value, (int, float)):
                found.append((float(after_s), float(value)))
    return found


def _scale(most: float) -> tuple[float, tuple[tuple[float, str], ...]]:
    """Choose a round top for bytes, with two to five ticks."""
    unit = 2.0**30 if most >= 2**30 else 2.0**20
    reach = max(most / unit, 1e-3)
    power = 10.0 ** math.floor(math.log10(reach))
    step = next(step * power for step in (0.25, 0.5, 1, 2, 2.5) if reach / (step * power) <= 4)  # noqa: PLR2004 - ticks
    count = math.ceil(reach / step - 1e-9)
    top = count * step
    return top * unit, tuple(
        (round(100 - tick / count * 100, 3), size(tick * step * unit)) for tick in range(count + 1)
    )


def _fits(label: str, width: float) -> bool:
    return width / 100 * LABEL_PX > 7.2 * len(label) + 10


def _clock(value_s: float) -> str:
    """Write the time since the begin."""
    if value_s < 60:  # noqa: PLR2004 - seconds in a minute
        return f"{value_s:.3g} s"
    minutes, rest = divmod(round(value_s), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
