"""Places on the timeline, before anything is drawn."""

from pathlib import Path
from typing import Any

import pytest
from documents import eventful, small

from html_report.timeline import OTHER, Session, Who, read_sessions


@pytest.fixture
def sessions(tmp_path: Path) -> list[Session]:
    """Lay out a run that was gone on with."""
    return read_sessions(eventful(tmp_path), {"ocr-crnn-1": Who("crnn", "crnn", "#123456")})


def test_slots_have_their_attempts_where_they_were(sessions: list[Session]) -> None:
    """A bar begins and ends in its part of the session, and what was loading is a part of it."""
    first = sessions[0]
    assert [lane.slot for lane in first.lanes] == ["GPU 0", "GPU 1"]
    bar = first.lanes[0].bars[0]
    assert (bar.x, bar.width, bar.load) == pytest.approx((0, 8 / 58 * 100, 3.1 / 58 * 100), abs=0.01)
    assert bar.colour == "#123456"
    assert first.lanes[1].bars[0].colour == OTHER
    assert all(0 <= bar.x <= 100 and bar.x + bar.width <= 100.5 for lane in first.lanes for bar in lane.bars)


def test_attempts_that_went_wrong_are_marked(sessions: list[Session]) -> None:
    """A bar says in words how it ended, and has a mark, not only a colour, where that was not well."""
    bars = sessions[0].lanes[0].bars
    assert [bar.ok for bar in bars] == [False, True, True]
    assert bars[0].label.startswith("✕")
    assert bars[0].told == "ocr-crnn-1, attempt ocr-crnn-1.1: from 0 s, took 8.00 s, loading 3.10 s, oom-gpu"


def test_each_session_has_a_time_of_its_own(sessions: list[Session]) -> None:
    """A run that was gone on with after an hour does not show the hour."""
    assert [session.begin for session in sessions] == ["2026-11-03 09:12:07 UTC", "2026-11-03 10:12:07 UTC"]
    assert sessions[1].lanes[0].bars[0].width == pytest.approx(100)
    assert not sessions[1].plots


def test_what_runs_at_once_in_a_slot_stands_on_lines_of_its_own() -> None:
    """Bars of one slot never cover each other."""
    times = [("00", "09"), ("01", "03"), ("02", "05"), ("04", "08")]
    bars = [
        {
            "slot": "cpu",
            "task": str(place),
            "start": f"2026-01-01T00:00:{a}Z",
            "end": f"2026-01-01T00:00:{b}Z",
            "status": "ok",
        }
        for place, (a, b) in enumerate(times)
    ]
    (session,) = read_sessions(_with(timeline=bars), {})
    (lane,) = session.lanes
    assert [bar.lane for bar in lane.bars] == [0, 1, 2, 1]
    assert lane.lines == 3


def test_memory_is_drawn_over_the_same_time(sessions: list[Session]) -> None:
    """Curves lie within the drawing, below a round top, and GPU memory has its own."""
    plots = sessions[0].plots
    assert [plot.title for plot in plots] == ["Memory", "GPU memory"]
    for plot in plots:
        points = [tuple(map(float, pair.split(","))) for curve in plot.curves for pair in curve.points.split()]
        assert all(0 <= x <= 1000 and 0 <= y <= 100 for x, y in points)
        assert plot.ticks[0] == (100, "0 MiB")
        assert plot.ticks[-1][0] == 0
    assert "ocr-crnn-1 at most 3.10 GiB" in plots[0].summary


@pytest.mark.parametrize(
    "timeline",
    [
        None,
        "nonsense",
        [None, 1, {}],
        [{"slot": "cpu", "task": "a", "start": "yesterday", "end": "2026-01-01T00:00:00Z"}],
        [{"slot": "cpu", "task": "a", "start": "2026-01-02T00:00:00Z", "end": "2026-01-01T00:00:00Z"}],
    ],
)
def test_what_is_no_timeline_is_left_out(timeline: object) -> None:
    """A document without a timeline, or with one that makes no sense, has none."""
    assert read_sessions(_with(timeline=timeline), {}) == []
    assert read_sessions(small(), {}) == []


def test_a_moment_is_seen_too() -> None:
    """An attempt that took no time at all has a bar and a scale."""
    moment = {"slot": "", "task": "a", "start": "2026-01-01T00:00:00Z", "end": "2026-01-01T00:00:00Z", "status": "ok"}
    samples = [{"task": "a", "start": "2026-01-01T00:00:00Z", "points": [[0.0, 0, None], ["x"], 7]}]
    (session,) = read_sessions(_with(timeline=[moment], samples=samples), {})
    assert session.lanes[0].bars[0].width > 0
    assert session.ticks[0] == (0, "0 s")
    assert [plot.title for plot in session.plots] == ["Memory"]


def _with(**extra: object) -> Any:
    return {**small(), **extra}
